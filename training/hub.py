"""Publishing a run's folder on the Hugging Face Hub: whether it will be possible, and doing it."""

import os
import shlex
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx

from .runs import ARGUMENTS, FIRST_SPACE

TOKENS = "https://huggingface.co/settings/tokens"

# What is for going on here: checkpoints, and arguments.json with this machine's paths. The Trainer's training_args.bin
# is a pickle that holds the token in the clear.
NOT_PUBLISHED = (
    *("checkpoint-*", ARGUMENTS, FIRST_SPACE, "*training_args.bin"),
    *("*.part", "*.partial"),
)


class PublishingError(RuntimeError):
    """The Hub cannot be reached or does not take it; the message is one line that says what to do."""


def check_publishing(repo_id: str, *, token: str | None = None, private: bool | None = None) -> str:
    """Make sure, before hours of training, that `publish` will be allowed to; the repository is created if need be.

    Args:
        repo_id: "name", or "owner/name".
        token: the stored one (`hf auth login`, HF_TOKEN) unless given.
        private: of a repository that is created; the owner's default unless given.

    Returns:
        The repository's full name, "owner/name".

    Raises:
        PublishingError: no token, one that is not accepted or may not write there, no such name, no connection.
    """
    if not (token or get_token()):
        raise PublishingError(
            f"Expected a token for the Hub to publish {repo_id}, found none; run `hf auth login`, or set HF_TOKEN."
        )
    api = HfApi(token=token)
    try:
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        api.auth_check(name, write=True)  # one that is there is not necessarily one that the token may write to
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise PublishingError(f"{repo_id} cannot be published: {_reason(error)}") from error
    return name


def publish(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | None = None,
    message: str = "End of training",
    ignore: tuple[str, ...] = NOT_PUBLISHED,
) -> str:
    """Upload a folder to a repository that `check_publishing` has found or made.

    Files that are there unchanged are not sent again, so that repeating a push that broke off completes it.

    Args:
        folder: what is in it is published, under the same paths.
        repo_id: "owner/name".
        token: the stored one unless given.
        message: of the commit.
        ignore: patterns of paths in the folder that stay here.

    Returns:
        The commit's address.

    Raises:
        PublishingError: the upload failed. The message names the folder, and the command that repeats it.
    """
    try:
        commit = HfApi(token=token).upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, ignore_patterns=list(ignore)
        )
    except Exception as error:  # whatever it is: the run is saved, and that must be said
        folder = Path(folder).resolve()
        again = shlex.join(["hf", "upload", repo_id, str(folder), *(f"--exclude={pattern}" for pattern in ignore)])
        raise PublishingError(
            f"{repo_id} was not published: {_reason(error)} Everything is saved in {folder}; to push it again, repeat "
            f"the training command or run: {again}"
        ) from error
    return commit.commit_url


def _reason(error: Exception) -> str:
    """What the client raised, as one sentence with what to do about it."""
    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is switched off by HF_HUB_OFFLINE; unset it."
    if isinstance(error, HfHubHTTPError):
        return _refusal(error)
    if isinstance(error, (httpx.TransportError, ConnectionError)):  # the second of large files' own client
        return f"no connection to {constants.ENDPOINT} ({_line(error)}); try again when there is one."
    return ": ".join(_line(one) for one in (error, error.__cause__) if one is not None) + "."


def _refusal(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = " ".join((error.server_message or error.response.reason_phrase).split()).rstrip(".")
    if status == 401:
        return f"the token is not accepted (401: {said}); take a valid one from {TOKENS} and run `hf auth login`."
    if status in (403, 404):
        return (
            f"the token may not write to it, or there is no such repository ({status}: {said}); take a token with "
            f"write permission from {TOKENS}, or another repository."
        )
    return f"the Hub answered {status} ({said}); try again later."


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
