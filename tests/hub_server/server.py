"""The Hub and its storage, running."""

import os
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from huggingface_hub import constants, hf_api
from huggingface_hub.utils import _xet

from .connections import listen
from .faults import Damage, Fault, Status
from .hub import HubConnection
from .repositories import Repository, User
from .storage import Storage, StorageConnection

_FAST = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms"}  # three seconds otherwise, before an upload is tried again


class HubServer:
    """The server, which runs in threads as long as the context lasts.

    Attributes:
        users: by their tokens.
        repositories: by their full names, such as "ann/model".
        storage: the contents of large files.
        faults: what goes wrong; of several that meet a request the first happens.
        requests: every request's method and path, such as "HEAD /ann/model/resolve/main/config.json".
        sent: how many bytes of each file were sent, by repository and path, such as "ann/model/config.json".
        url: the address, as HF_ENDPOINT or HfApi(endpoint=...) takes it.
        storage_url: the address of the storage.
        xet_url: where clients upload in the Xet protocol. No two servers have the same, for clients remember what is
            there.
    """

    def __init__(self, users: Mapping[str, User]) -> None:
        self.users = dict(users)
        self.repositories: dict[str, Repository] = {}
        self.storage = Storage()
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.sent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._servers = [listen(HubConnection, self), listen(StorageConnection, self)]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self.xet_url = f"{self.storage_url}/xet-{secrets.token_hex(8)}"
        self._scratch = tempfile.TemporaryDirectory(prefix="hub-server-", ignore_cleanup_errors=True)

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._scratch.cleanup()

    def environment(self, home: str | os.PathLike[str], token: str | None = None) -> dict[str, str]:
        """Environment variables of a fresh process that takes this server for the Hub.

        Args:
            home: its HF_HOME; an empty folder, or what was fetched before hides what is missing here.
            token: whose process it is; nobody's unless given.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": os.fspath(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
        return kept | own | _FAST | ({"HF_TOKEN": token} if token else {})

    def stand_in(self, monkeypatch: Any) -> None:
        """Let this process take the server for the Hub too, its cache empty, while `monkeypatch` lasts."""
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path(self._scratch.name, "cache")))
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, self.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)  # whose methods are the client's functions
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # made at first use, with the address of then
        monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
        own = {"HF_XET_CACHE": str(Path(self._scratch.name, "xet")), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
        for name, value in (own | _FAST).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())  # one that has read these variables

    def create(self, name: str, private: bool = False, gated: bool = False) -> Repository:
        """An empty repository, as its owner would make it."""
        self.repositories[name] = Repository(private, gated)
        return self.repositories[name]

    def effect_on(self, request: str) -> Status | Damage | None:
        """Count a request, and tell what shall happen to it."""
        with self._lock:
            effects = [fault.effect for fault in self.faults if fault.meets(request)]
        return effects[0] if effects else None

    def count(self, name: str, size: int) -> None:
        """Note that so many bytes of a file were sent."""
        if size:
            with self._lock:
                self.sent[name] += size
