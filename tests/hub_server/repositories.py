"""Repositories and their histories, in memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LARGE = 2**20  # bytes; the real Hub's 10 MiB would make tests slow


@dataclass(frozen=True)
class User:
    """Who a token belongs to, and whether it may write: only into the user's own namespace."""

    name: str
    may_write: bool = True


@dataclass(frozen=True)
class Commit:
    """One state of a repository: all its files by path, and the paths that this commit brought or changed."""

    oid: str
    message: str
    files: Mapping[str, bytes]
    sent: tuple[str, ...] = ()


@dataclass
class Repository:
    """A model repository.

    Attributes:
        private: only its owner learns that it is there.
        gated: everybody sees it; its files are for the owner and those in `granted`.
        granted: names of users.
        branches: each one's commits in order.
        tags: the commits that they name.
    """

    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [_commit(None, "initial commit", {})]})
    tags: dict[str, Commit] = field(default_factory=dict)

    @property
    def commits(self) -> list[Commit]:
        """Those of `main`."""
        return self.branches["main"]

    @property
    def files(self) -> Mapping[str, bytes]:
        """What is on `main`."""
        return self.commits[-1].files

    def add(self, branch: str, message: str, files: Mapping[str, bytes], sent: tuple[str, ...] = ()) -> Commit:
        """A new state of a branch."""
        history = self.branches[branch]
        history.append(_commit(history[-1], message, files, sent))
        return history[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit of a revision: a branch, a tag or a commit's full hash."""
        if revision in self.branches:
            return self.branches[revision][-1]
        if revision in self.tags:
            return self.tags[revision]
        return next((commit for commit in self._all() if commit.oid == revision), None)

    def fork(self, branch: str, revision: str) -> None:
        """Start a branch.

        Raises:
            KeyError: there is no such revision.
        """
        start = self.at(revision)
        history = next((history for history in self.branches.values() if start in history), None)
        if start is None or history is None:
            raise KeyError(revision)
        self.branches[branch] = history[: history.index(start) + 1]

    def _all(self) -> list[Commit]:
        return [commit for history in self.branches.values() for commit in history]


def is_large(path: str, size: int) -> bool:
    """Whether a file is kept in the storage; clients send empty ones in the commit whatever they are told."""
    return size > 0 and (path.endswith(".safetensors") or size > LARGE)


def git_oid(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_oid(content: bytes) -> str:
    """The storage's name of a file's content."""
    return hashlib.sha256(content).hexdigest()


def etag(path: str, content: bytes) -> str:
    """By which clients see whether they have a file already."""
    return lfs_oid(content) if is_large(path, len(content)) else git_oid(content)


def pointer(content: bytes) -> bytes:
    """What git keeps of a file that is in the storage."""
    version = "https://git-lfs.github.com/spec/v1"
    return f"version {version}\noid sha256:{lfs_oid(content)}\nsize {len(content)}\n".encode()


def read_folder(folder: Path) -> dict[str, bytes]:
    """A folder's files by their paths in it, as a repository has them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _commit(parent: Commit | None, message: str, files: Mapping[str, bytes], sent: tuple[str, ...] = ()) -> Commit:
    tree = [f"{path} {git_oid(content)}" for path, content in sorted(files.items())]
    described = "\n".join([parent.oid if parent else "", message, *tree])
    return Commit(hashlib.sha1(described.encode()).hexdigest(), message, files, sent)
