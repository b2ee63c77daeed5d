"""What goes wrong, on request."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True)
class Status:
    """The answer is this HTTP status.

    Attributes:
        code: such as 500, or 429 for too many requests.
        retry_after: seconds that the client is told to wait.
    """

    code: int
    retry_after: int | None = None


class Damage(Enum):
    """What happens to the body: the request's if it has one, else the answer's."""

    CUT = "the connection ends in the middle of it"
    CORRUPTED = "the byte in its middle is another one; the length stays"


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        requests: a regular expression, searched in the method and path, such as "POST /api/models/ann/model/commit/".
        effect: what happens.
        nth: to which of the matching requests, from 1.
    """

    requests: str
    effect: Status | Damage
    nth: Collection[int] = (1,)
    _seen: int = field(default=0, init=False)

    def meets(self, request: str) -> bool:
        """Count a request, and tell whether this happens to it."""
        if not re.search(self.requests, request):
            return False
        self._seen += 1
        return self._seen in self.nth


def corrupted(content: bytes) -> bytes:
    """The same with another byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
