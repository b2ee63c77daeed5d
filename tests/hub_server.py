"""A small Hugging Face Hub on this machine, for what the Hub's own clients do with model repositories.

    with HubServer({"secret": User("ann")}) as hub:
        api = HfApi(endpoint=hub.url, token="secret")
        api.create_repo("ann/model")
        api.upload_folder(repo_id="ann/model", folder_path=folder)
        assert hub.repositories["ann/model"].files.keys() == {"config.json", ...}
        subprocess.run(command, env=hub.environment(home))  # from_pretrained("ann/model") reads from here

It knows: who I am, creating a repository, whether I may write, the check of a card's metadata, uploading (every file
as a regular one, in the commit itself), a repository's description and tree, and downloading, at `main` or a commit.
Answers have the statuses and headers of the real Hub, by which its clients choose what they raise.
"""

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub import constants

CUT = "cut"
"""A fault: the connection ends in the middle of the commit's upload."""

_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_METADATA = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)


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
    """A model repository; its commits are in order, the last one is `main`."""

    private: bool = False
    commits: list[Commit] = field(default_factory=list)

    @property
    def files(self) -> Mapping[str, bytes]:
        """What is on `main`."""
        return self.commits[-1].files

    def add(self, message: str, files: Mapping[str, bytes], sent: tuple[str, ...] = ()) -> Commit:
        """A new state of `main`."""
        oid = hashlib.sha1(f"{id(self)} {len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append(Commit(oid, message, files, sent))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        """The commit of a revision, `main` or a commit's full hash."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit.oid == revision), None)


class HubServer:
    """The server, which runs in a thread as long as the context lasts.

    Attributes:
        users: by their tokens.
        repositories: by their full names, such as "ann/model".
        faults: what happens to a commit instead, by its number among all that were asked for, from 1: a status such
            as 403 or 500, or `CUT`.
        requests: every request's method and path, such as "HEAD /ann/model/resolve/main/config.json".
        url: the address, as HF_ENDPOINT or HfApi(endpoint=...) takes it.
    """

    def __init__(self, users: Mapping[str, User]) -> None:
        self.users = dict(users)
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[int, int | str] = {}
        self.requests: list[str] = []
        self._commits = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: str | os.PathLike[str], token: str | None = None) -> dict[str, str]:
        """Environment variables of a fresh process that takes this server for the Hub.

        Args:
            home: its HF_HOME; an empty folder, or what was fetched before hides what is missing here.
            token: whose process it is; nobody's unless given.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": os.fspath(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
        return kept | own | ({"HF_TOKEN": token} if token else {})

    def stand_in(self, monkeypatch: Any) -> None:
        """Let this process take the server for the Hub too, as long as pytest's `monkeypatch` lasts."""
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, self.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
        monkeypatch.setenv("NO_PROXY", "*")

    def create(self, name: str, private: bool = False) -> Repository:
        """An empty repository, as its owner would make it."""
        self.repositories[name] = Repository(private)
        self.repositories[name].add("initial commit", {})
        return self.repositories[name]

    def next_fault(self) -> int | str | None:
        """Count a commit that is asked for, and tell what shall happen to it."""
        with self._lock:
            self._commits += 1
            return self.faults.get(self._commits)


class _Refused(Exception):
    """An answer that is an error: its status, and what the Hub's clients read in the headers."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


class _Handler(BaseHTTPRequestHandler):
    """One connection. Methods named `on_...` answer a route: a JSON value, or None where they answered themselves."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            answer = self._route(unquote(url.path))
            if answer is not None:
                self._send(HTTPStatus.OK, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        except _Refused as refusal:
            body = json.dumps({"error": str(refusal)}).encode()
            self._send(refusal.status, body, {"Content-Type": "application/json"} | refusal.headers)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Tests look at `requests` instead."""

    def _route(self, path: str) -> Any:
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, answer in _ROUTES:
            if method == wanted and (match := re.fullmatch(pattern, path)):
                return answer(self, **match.groupdict())
        self._body()
        raise _Refused(404, f"No route {method} {path} on this Hub")

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    # -- who may do what

    @property
    def _user(self) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _repository(self, repo: str) -> Repository:
        """One that the user may read; of the others they do not learn whether they are there."""
        user, found = self._user, self.hub.repositories.get(repo)
        hidden = found is not None and found.private and (user is None or user.name != repo.partition("/")[0])
        if found is None or hidden:
            raise _Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return found

    def _commit_of(self, repo: str, revision: str) -> Commit:
        commit = self._repository(repo).at(revision)
        if commit is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _check_write(self, namespace: str, what: str) -> None:
        user = self._user
        if user is None:
            raise _Refused(401, "Invalid username or password.")
        if not user.may_write or user.name != namespace:
            raise _Refused(403, f'You don\'t have the rights to {what} under the namespace "{namespace}"')

    # -- routes

    def on_whoami(self) -> Any:
        user = self._user
        if user is None:
            raise _Refused(401, "Invalid username or password.")
        role = "write" if user.may_write else "read"
        return {"type": "user", "name": user.name, "orgs": [], "auth": {"accessToken": {"role": role}}}

    def on_create(self) -> Any:
        asked = json.loads(self._body())
        namespace = asked.get("organization") or (self._user.name if self._user else "")
        self._check_write(namespace, "create a model")
        name = f"{namespace}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            answer = json.dumps({"error": "You already created this model repo", "url": url}).encode()
            return self._send(409, answer, {"Content-Type": "application/json"})
        self.hub.create(name, private=asked.get("visibility") == "private")
        return {"url": url, "name": name}

    def on_validate(self) -> Any:
        content = json.loads(self._body())["content"]
        if faults := _metadata_faults(content):
            answer = {"errors": [{"message": fault} for fault in faults], "warnings": []}
            return self._send(400, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        return {"errors": [], "warnings": []}

    def on_may_write(self, repo: str) -> Any:
        self._repository(repo)
        self._check_write(repo.partition("/")[0], "write")
        return {}

    def on_preupload(self, repo: str, revision: str) -> Any:
        asked = json.loads(self._body())["files"]
        there = self._commit_of(repo, revision).files
        self._check_write(repo.partition("/")[0], "write")
        names = [file["path"] for file in asked]
        oids = {name: {"oid": _oid(there[name])} for name in names if name in there}
        mode = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [{"path": name, **mode, **oids.get(name, {})} for name in names]}

    def on_commit(self, repo: str, revision: str) -> Any:
        fault = self.hub.next_fault()
        if fault == CUT:
            return self._cut()
        body = self._body()
        repository = self._repository(repo)
        self._check_write(repo.partition("/")[0], "write")
        if isinstance(fault, int):
            raise _Refused(fault, HTTPStatus(fault).phrase)
        if revision != "main":
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit = _apply(repository, [json.loads(line) for line in body.splitlines()])
        return {"commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit.oid}", "success": True}

    def on_info(self, repo: str, revision: str = "main") -> Any:
        commit = self._commit_of(repo, revision)
        card = _metadata(commit.files.get("README.md", b"").decode())
        card = card if isinstance(card, dict) else {}
        return {
            "id": repo,
            "modelId": repo,
            "author": repo.partition("/")[0],
            "sha": commit.oid,
            "private": self._repository(repo).private,
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
            raise _Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries: dict[str, Any] = {}
        for name, content in inside.items():
            below = name.removeprefix(start).split("/")
            for depth in range(1, len(below)):
                path = start + "/".join(below[:depth])
                entries[path] = {"type": "directory", "path": path, "oid": _oid(path.encode()), "size": 0}
            entries[name] = {"type": "file", "path": name, "oid": _oid(content), "size": len(content)}
        deep = self.query.get("recursive", "false").lower() in ("true", "1")
        return [entry for path, entry in entries.items() if deep or "/" not in path.removeprefix(start)]

    def on_file(self, repo: str, revision: str, file: str) -> None:
        commit = self._commit_of(repo, revision)
        if file not in commit.files:
            raise _Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})
        content = commit.files[file]
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit.oid}
        self._send(HTTPStatus.OK, content, headers | {"Content-Type": "application/octet-stream"})

    def _cut(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


_REPO = r"(?P<repo>[\w.-]+(/[\w.-]+)?)"
_API = f"/api/models/{_REPO}"
_ROUTES = (
    ("GET", "/api/whoami-v2", _Handler.on_whoami),
    ("POST", "/api/repos/create", _Handler.on_create),
    ("POST", "/api/validate-yaml", _Handler.on_validate),
    ("GET", f"{_API}/auth-check/write", _Handler.on_may_write),
    ("POST", f"{_API}/preupload/(?P<revision>[^/]+)", _Handler.on_preupload),
    ("POST", f"{_API}/commit/(?P<revision>[^/]+)", _Handler.on_commit),
    ("GET", _API, _Handler.on_info),
    ("GET", f"{_API}/revision/(?P<revision>[^/]+)", _Handler.on_info),
    ("GET", f"{_API}/tree/(?P<revision>[^/]+)", _Handler.on_tree),
    ("GET", f"{_API}/tree/(?P<revision>[^/]+)/(?P<folder>.+)", _Handler.on_tree),
    ("GET", f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.on_file),
)


def _apply(repository: Repository, lines: list[dict[str, Any]]) -> Commit:
    """A commit of what the client sent, line by line: a header, files with their contents, deletions."""
    files, sent, message = dict(repository.files), [], ""
    for line in lines:
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
            sent.append(value["path"])
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        elif line["key"] == "deletedFolder":
            files = {name: content for name, content in files.items() if not name.startswith(value["path"])}
        else:
            raise _Refused(400, f"This Hub knows no operation {line['key']}")
    return repository.add(message, files, tuple(sent))


def _oid(content: bytes) -> str:
    """Git's name of a file's content, by which clients see what is there already."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _metadata(card: str) -> Any:
    match = _METADATA.match(card)
    return yaml.safe_load(match[1]) if match else {}


def _metadata_faults(card: str) -> list[str]:
    """What the Hub refuses in a card's metadata: no YAML, and models and data sets that cannot be names on the Hub."""
    try:
        metadata = _metadata(card)
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["metadata should be a mapping"]
    faults = []
    for name in ("base_model", "datasets"):
        values = metadata.get(name, [])
        for value in [values] if isinstance(values, str) else values:
            if not _MODEL_ID.fullmatch(value):
                faults.append(f'"{name}" with value "{value}" is not valid. Use an id from https://hf.co')
    return faults


def read_folder(folder: Path) -> dict[str, bytes]:
    """A folder's files by their paths in it, as a repository has them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
