"""HTTP: requests that find their route, answers and refusals, faults, ranges, and the count of what was sent."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from .faults import Damage, Status, corrupted

if TYPE_CHECKING:
    from .server import HubServer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """An answer that is an error: its status, and what the Hub's clients read in the headers."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


class Route(NamedTuple):
    """What answers a request: with a JSON value, or None where it has answered itself.

    The path's named groups are its arguments. They are unquoted after the match: a branch's name may have a slash.
    """

    method: str
    path: str
    answer: Callable[..., Any]


class Connection(BaseHTTPRequestHandler):
    """One connection; methods named `on_...` answer a route."""

    hub: ClassVar[HubServer]
    routes: ClassVar[tuple[Route, ...]] = ()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        request = f"{self.command} {self.path}"
        self.hub.requests.append(request)
        effect = self.hub.effect_on(request)
        length = int(self.headers.get("Content-Length", 0))
        if length and effect is Damage.CUT:
            self.rfile.read(length // 2)
            return self._end()
        self.body = self.rfile.read(length)
        if length and effect is Damage.CORRUPTED:
            self.body = corrupted(self.body)
        self._damage = None if length or isinstance(effect, Status) else effect
        try:
            if isinstance(effect, Status):
                raise _refusal(effect)
            answer = self._route()
            if answer is not None:
                self._send_json(HTTPStatus.OK, answer)
        except Refused as refusal:
            self._send_json(refusal.status, {"error": str(refusal)}, refusal.headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Tests look at the server's `requests` instead."""

    def _route(self) -> Any:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        method = "GET" if self.command == "HEAD" else self.command
        for route in self.routes:
            if method == route.method and (match := re.fullmatch(route.path, url.path)):
                found = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                return route.answer(self, **found)
        raise Refused(404, f"No route {method} {url.path} on this Hub")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> int:
        """Answer, and tell how many bytes of the body were sent."""
        if self._damage is Damage.CORRUPTED and body:
            body = corrupted(body)
        shown = b"" if self.command == "HEAD" else body[: len(body) // 2] if self._damage is Damage.CUT else body
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(shown)
        if self._damage is Damage.CUT:
            self._end()
        return len(shown)

    def _send_json(self, status: int, value: Any, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        self._send(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())

    def _send_content(self, content: bytes, headers: Mapping[str, str], name: str) -> None:
        """Answer with a file, or the range of it that was asked for, and count what was sent under its name."""
        status, about = HTTPStatus.OK, {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        part = content
        if match := _RANGE.fullmatch(self.headers.get("Range", "")):
            start, stop = int(match[1]), int(match[2] or len(content) - 1) + 1
            if start >= len(content):
                raise Refused(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{len(content)}"})
            part = content[start:stop]
            status = HTTPStatus.PARTIAL_CONTENT
            about["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self.hub.count(name, self._send(status, {**about, **headers}, part))

    def _end(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def listen(connection: type[Connection], hub: HubServer) -> ThreadingHTTPServer:
    """A server on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type(connection.__name__, (connection,), {"hub": hub}))
    server.daemon_threads = True
    return server


def _refusal(status: Status) -> Refused:
    headers = {} if status.retry_after is None else {"Retry-After": str(status.retry_after)}
    return Refused(status.code, HTTPStatus(status.code).phrase, **headers)
