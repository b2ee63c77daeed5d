"""The place of large files, which has another address than the Hub and knows neither users nor repositories.

As on the real one a file's address is the permission to read it, and a token sent to it is refused.
"""

from http import HTTPStatus

from . import xet
from .connections import Connection, Refused, Route
from .repositories import lfs_oid


class Storage:
    """Contents by their SHA-256, and the xorbs of which some of them were built."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.xorbs: dict[str, list[bytes]] = {}

    def keep(self, content: bytes) -> str:
        """Add a content, and tell its SHA-256."""
        sha256 = lfs_oid(content)
        self.contents[sha256] = content
        return sha256


class StorageConnection(Connection):
    """One connection to the storage."""

    def on_download(self, sha256: str) -> None:
        """A file, or a range of it. The query names it, so that a test can say whose bytes were sent."""
        if "Authorization" in self.headers:
            raise Refused(400, "Only one auth mechanism allowed")
        self._send_content(self.hub.storage.contents[sha256], {"ETag": f'"{sha256}"'}, self.query["file"])

    def on_upload(self, sha256: str) -> None:
        self._keep(sha256, self.body)
        self._send(HTTPStatus.OK, {"ETag": f'"{sha256}"'})

    def on_xorb(self, xorb: str) -> object:
        try:
            self.hub.storage.xorbs[xorb] = xet.read_xorb(self.body)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        return {"was_inserted": True}

    def on_shard(self) -> object:
        for sha256, terms in xet.read_shard(self.body):
            self._keep(sha256, xet.build(terms, self.hub.storage.xorbs))
        return {"result": 1}

    def _keep(self, sha256: str, content: bytes) -> None:
        if (found := self.hub.storage.keep(content)) != sha256:
            raise Refused(400, f"Expected content with the SHA-256 {sha256}, found {found}")

    routes = (
        Route("GET", "/files/(?P<sha256>[0-9a-f]{64})", on_download),
        Route("PUT", "/files/(?P<sha256>[0-9a-f]{64})", on_upload),
        Route("POST", r"/xet-\w+/v1/xorbs/default/(?P<xorb>[0-9a-f]{64})", on_xorb),
        Route("POST", r"/xet-\w+/v1/shards", on_shard),
    )
