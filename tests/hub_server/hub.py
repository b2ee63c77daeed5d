"""The Hub's own address: users, repositories, commits, revisions, and where a file is."""

import base64
import json
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from .cards import metadata, metadata_faults
from .connections import Connection, Refused, Route
from .repositories import Commit, Repository, User, etag, git_oid, is_large, lfs_oid, pointer

_REPO = r"(?P<repo>[\w.-]+(/[\w.-]+)?)"
_API = f"/api/models/{_REPO}"
_LFS = rf"/{_REPO}\.git/info/lfs/objects"
_REVISION = r"(?P<revision>[^/]+)"


class HubConnection(Connection):
    """One connection to the Hub."""

    # -- who may do what

    @property
    def _user(self) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repository(self, repo: str) -> Repository:
        """One that the user may see; of the others they do not learn whether they are there."""
        user, found = self._user, self.hub.repositories.get(repo)
        hidden = found is not None and found.private and (user is None or user.name != _owner(repo))
        if found is None or hidden:
            raise Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return found

    def _check_granted(self, repo: str) -> None:
        user, found = self._user, self._repository(repo)
        if not found.gated:
            return
        restricted = f"Access to model {repo} is restricted"
        if user is None:
            raise Refused(401, f"{restricted}. You must have access to it and be authenticated.", "GatedRepo")
        if user.name not in {_owner(repo), *found.granted}:
            raise Refused(403, f"{restricted} and you are not in the authorized list.", "GatedRepo")

    def _commit_of(self, repo: str, revision: str) -> Commit:
        commit = self._repository(repo).at(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _check_namespace(self, namespace: str, what: str) -> None:
        user = self._user
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not user.may_write or user.name != namespace:
            raise Refused(403, f'You don\'t have the rights to {what} under the namespace "{namespace}"')

    def _writable(self, repo: str) -> Repository:
        found = self._repository(repo)
        self._check_namespace(_owner(repo), "write")
        return found

    @property
    def _asked(self) -> Any:
        return json.loads(self.body)

    # -- users and repositories

    def on_whoami(self) -> Any:
        user = self._user
        if user is None:
            raise Refused(401, "Invalid username or password.")
        role = "write" if user.may_write else "read"
        return {"type": "user", "name": user.name, "orgs": [], "auth": {"accessToken": {"role": role}}}

    def on_create(self) -> Any:
        namespace = self._asked.get("organization") or (self._user.name if self._user else "")
        self._check_namespace(namespace, "create a model")
        name = f"{namespace}/{self._asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self._send_json(409, {"error": "You already created this model repo", "url": url})
        self.hub.create(name, private=self._asked.get("visibility") == "private")
        return {"url": url, "name": name}

    def on_may_write(self, repo: str) -> Any:
        self._writable(repo)
        return {}

    # -- uploading

    def on_validate(self) -> None:
        faults = metadata_faults(self._asked["content"])
        status = HTTPStatus.BAD_REQUEST if faults else HTTPStatus.OK
        self._send_json(status, {"errors": [{"message": fault} for fault in faults], "warnings": []})

    def on_preupload(self, repo: str, revision: str) -> Any:
        """Which way each file goes, and what of that name is there already."""
        there = self._commit_of(repo, revision).files
        self._writable(repo)
        return {"files": [_way(file["path"], file["size"], there) for file in self._asked["files"]]}

    def on_lfs_batch(self, repo: str) -> Any:
        """Where each content goes, if it is not there already."""
        self._writable(repo)
        verify = {"href": f"{self.hub.url}/{repo}.git/info/lfs/objects/verify"}
        objects = []
        for wanted in self._asked["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.storage.contents:
                upload = {"href": f"{self.hub.storage_url}/files/{wanted['oid']}"}
                found["actions"] = {"upload": upload, "verify": verify}
            objects.append(found)
        return {"transfer": "basic", "objects": objects}

    def on_lfs_verify(self, repo: str) -> Any:
        self._writable(repo)
        self._stored(self._asked["oid"])
        return {}

    def on_xet_token(self, repo: str, revision: str) -> Any:
        self._writable(repo)
        return {"casUrl": self.hub.xet_url, "exp": int(time.time()) + 3600, "accessToken": "xet"}

    def on_commit(self, repo: str, revision: str) -> Any:
        repository = self._writable(repo)
        if revision not in repository.branches:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in self.body.splitlines()]
        files, sent = dict(repository.branches[revision][-1].files), []
        for line in lines[1:]:
            sent += self._apply(line["key"], line["value"], files)
        commit = repository.add(revision, lines[0]["value"]["summary"], files, tuple(sent))
        return {"commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit.oid}", "success": True}

    def _apply(self, operation: str, value: dict[str, Any], files: dict[str, bytes]) -> list[str]:
        """Do what a line of a commit says, and tell which file it brought."""
        path = value["path"]
        if operation == "file":
            files[path] = base64.b64decode(value["content"])
        elif operation == "lfsFile":
            files[path] = self._stored(value["oid"])
        elif operation == "deletedFile":
            del files[path]
        elif operation == "deletedFolder":
            for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[name]
        else:
            raise Refused(400, f"This Hub knows no operation {operation}")
        return [path] if operation in ("file", "lfsFile") else []

    def _stored(self, sha256: str) -> bytes:
        if sha256 not in self.hub.storage.contents:
            raise Refused(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        return self.hub.storage.contents[sha256]

    # -- revisions

    def on_branch(self, repo: str, branch: str) -> Any:
        repository = self._writable(repo)
        if branch in repository.branches:
            raise Refused(409, f"Reference already exists: {branch}")
        start = self._asked.get("startingPoint", "main")
        self._commit_of(repo, start)
        repository.fork(branch, start)
        return {}

    def on_tag(self, repo: str, revision: str) -> Any:
        repository, tag = self._writable(repo), self._asked["tag"]
        if tag in repository.tags:
            raise Refused(409, f"Tag reference exists already: {tag}")
        repository.tags[tag] = self._commit_of(repo, revision)
        return {}

    def on_refs(self, repo: str) -> Any:
        repository = self._repository(repo)
        branches = {name: commits[-1] for name, commits in repository.branches.items()}
        return {
            "branches": _references("heads", branches),
            "tags": _references("tags", repository.tags),
            "converts": [],
        }

    # -- what is there

    def on_info(self, repo: str, revision: str = "main") -> Any:
        commit, repository = self._commit_of(repo, revision), self._repository(repo)
        card = metadata(commit.files.get("README.md", b"").decode())
        card = card if isinstance(card, dict) else {}
        return {
            "id": repo,
            "modelId": repo,
            "author": _owner(repo),
            "sha": commit.oid,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "tags": card.get("tags", []),
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
            "siblings": [{"rfilename": name} for name in sorted(commit.files)],
        }

    def on_tree(self, repo: str, revision: str, folder: str = "") -> Any:
        commit = self._commit_of(repo, revision)
        start = f"{folder}/" if folder else ""
        inside = {name: content for name, content in sorted(commit.files.items()) if name.startswith(start)}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries: dict[str, Any] = {}
        for name, content in inside.items():
            below = name.removeprefix(start).split("/")
            for depth in range(1, len(below)):
                path = start + "/".join(below[:depth])
                entries[path] = {"type": "directory", "path": path, "oid": git_oid(path.encode()), "size": 0}
            entries[name] = _entry(name, content)
        deep = self.query.get("recursive", "false").lower() in ("true", "1")
        return [entry for path, entry in entries.items() if deep or "/" not in path.removeprefix(start)]

    def on_file(self, repo: str, revision: str, file: str) -> None:
        """A small file, or the address of a large one."""
        commit = self._commit_of(repo, revision)
        self._check_granted(repo)
        about = {"X-Repo-Commit": commit.oid}
        if file not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound", **about)
        content = commit.files[file]
        name, about["ETag"] = f"{repo}/{file}", f'"{etag(file, content)}"'
        if not is_large(file, len(content)):
            return self._send_content(content, about, name)
        location = f"{self.hub.storage_url}/files/{self.hub.storage.keep(content)}?file={quote(name)}"
        linked = {"X-Linked-Etag": about["ETag"], "X-Linked-Size": str(len(content))}
        self._send(HTTPStatus.FOUND, about | linked | {"Location": location})

    routes = (
        Route("GET", "/api/whoami-v2", on_whoami),
        Route("POST", "/api/repos/create", on_create),
        Route("POST", "/api/validate-yaml", on_validate),
        Route("GET", f"{_API}/auth-check/write", on_may_write),
        Route("POST", f"{_API}/preupload/{_REVISION}", on_preupload),
        Route("POST", f"{_LFS}/batch", on_lfs_batch),
        Route("POST", f"{_LFS}/verify", on_lfs_verify),
        Route("GET", f"{_API}/xet-write-token/{_REVISION}", on_xet_token),
        Route("POST", f"{_API}/commit/{_REVISION}", on_commit),
        Route("POST", f"{_API}/branch/(?P<branch>[^/]+)", on_branch),
        Route("POST", f"{_API}/tag/{_REVISION}", on_tag),
        Route("GET", f"{_API}/refs", on_refs),
        Route("GET", _API, on_info),
        Route("GET", f"{_API}/revision/{_REVISION}", on_info),
        Route("GET", f"{_API}/tree/{_REVISION}(/(?P<folder>.+))?", on_tree),
        Route("GET", f"/{_REPO}/resolve/{_REVISION}/(?P<file>.+)", on_file),
    )


def _owner(repo: str) -> str:
    return repo.partition("/")[0]


def _way(path: str, size: int, there: Any) -> dict[str, Any]:
    known = {"oid": etag(path, there[path])} if path in there else {}
    mode = "lfs" if is_large(path, size) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, **known}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content)}
    if not is_large(path, len(content)):
        return entry | {"oid": git_oid(content)}
    kept = pointer(content)
    lfs = {"oid": lfs_oid(content), "size": len(content), "pointerSize": len(kept)}
    return entry | {"oid": git_oid(kept), "lfs": lfs}


def _references(kind: str, commits: dict[str, Commit]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit.oid} for name, commit in commits.items()
    ]
