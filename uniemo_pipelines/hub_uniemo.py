"""What came from the Hub: which places it names, whether it is whole, and what to do where it did not come."""

import hashlib
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfUri, constants
from huggingface_hub.constants import HF_PROTOCOL
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CLIENT_ERRORS = (HfHubHTTPError, EntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError)


class Snapshot(NamedTuple):
    """A folder in the client's cache: of which repository, at which commit, which folder there, and in which cache."""

    repository: str
    commit: str
    inside: str
    cache_dir: Path


def is_repository(name: str) -> bool:
    """Whether it reads as "owner/name"."""
    return _REPOSITORY.fullmatch(name) is not None


def snapshot_of(folder: Path) -> Snapshot | None:
    """What a folder of the client's cache is; None for any other."""
    for cache in folder.absolute().parents:
        below = folder.absolute().relative_to(cache).parts
        if len(below) >= 3 and below[0].startswith("models--") and below[1] == "snapshots":
            repository = below[0].removeprefix("models--").replace("--", "/")
            return Snapshot(repository, below[2], posixpath.join(*below[3:], ""), cache)
    return None


def located(named: str | None, folder: Path) -> str | None:
    """Where that is what a file names, to whoever read the file in this folder.

    Args:
        named: a folder relative to the file's, a repository, or a folder in one ("hf://...").
        folder: the file's; in the client's cache a folder beside it is named by its place in the repository, at the
            commit that the file is of, for it may not have been fetched.

    Returns:
        A folder of this machine, a repository or a folder in one. None for what lies outside the file's repository,
        where nobody can know what it was.
    """
    if named is None or named.startswith(HF_PROTOCOL):
        return named
    snapshot = snapshot_of(folder)
    if snapshot is None:
        return str((folder / named).resolve()) if (folder / named).is_dir() else named
    if is_repository(named):
        return named
    inside = posixpath.normpath(posixpath.join(snapshot.inside, named))
    if inside.startswith(".."):
        return None
    return HfUri("model", snapshot.repository, snapshot.commit, inside).to_uri()


def check_whole(path: Path) -> None:
    """Compare a large file of the client's cache with its checksum, which is its name there.

    Raises:
        ValueError: it is another file than was published.
    """
    kept = path.resolve()
    if kept.parent.name != "blobs" or not _SHA256.fullmatch(kept.name):
        return
    with kept.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != kept.name:
        raise ValueError(
            f"Expected the file whose checksum is {kept.name}, found one that was damaged on its way: {path}; "
            "fetch it again with force_download=True."
        )


@contextmanager
def advice(place: str | os.PathLike[str]) -> Iterator[None]:
    """To what the Hub's client raises within the context, add a line on what to do (see `add_note`)."""
    try:
        yield
    except Exception as error:
        if (cause := client_error(error)) is not None and not getattr(error, "__notes__", ()):
            error.add_note(_advice(cause, os.fspath(place)))
        raise


def client_error(error: BaseException | None) -> BaseException | None:
    """The error of the Hub's client that this one is, or is caused by; none where it was raised `from None`."""
    while error is not None and not isinstance(error, _CLIENT_ERRORS):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def _advice(error: BaseException, place: str) -> str:
    login = "run `hf auth login`, or give token=..."
    if isinstance(error, GatedRepoError):
        return f"Ask for access on {constants.ENDPOINT}/{place}; then {login}"
    if isinstance(error, RepositoryNotFoundError):
        return f"Check the name '{place}'; if it is a private repository, {login}"
    if isinstance(error, RevisionNotFoundError):
        return f"Give another revision, a branch, tag or commit of {place}."
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return f"Load {place} once while there is a connection, without HF_HUB_OFFLINE and local_files_only."
    if isinstance(error, EntryNotFoundError):
        return f"See which files there are on {constants.ENDPOINT}/{place}."
    if isinstance(error, HfHubHTTPError):
        return f"The Hub answered {error.response.status_code}; try again later."
    return f"There was no connection to {constants.ENDPOINT}; try again when there is one."
