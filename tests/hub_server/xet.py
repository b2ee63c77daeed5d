"""What clients upload in the Xet protocol, read (https://huggingface.co/docs/xet, the formats of xorbs and shards).

A file is cut into chunks, chunks are packed into xorbs, and a shard says of which chunks each file is made.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import lz4.frame

_RECORD = 48  # bytes, of everything in a shard
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30
_PLAIN, _LZ4, _GROUPED_LZ4 = range(3)


class Term(NamedTuple):
    """A part of a file: the chunks from `start` to before `stop` of a xorb."""

    xorb: str
    start: int
    stop: int


def read_xorb(xorb: bytes) -> list[bytes]:
    """Its chunks.

    Raises:
        ValueError: it is none.
    """
    chunks, at = [], 0
    while at < len(xorb):
        stored, scheme, size = _integer(xorb[at + 1 : at + 4]), xorb[at + 4], _integer(xorb[at + 5 : at + 8])
        chunk = _unpack(xorb[at + 8 : at + 8 + stored], scheme)
        if len(chunk) != size:
            raise ValueError(f"Expected a chunk of {size} bytes, found {len(chunk)}.")
        chunks.append(chunk)
        at += 8 + stored
    return chunks


def read_shard(shard: bytes) -> Iterator[tuple[str, list[Term]]]:
    """The files that it describes: the SHA-256 that each shall have, and its parts."""
    at = _RECORD
    while shard[at : at + 32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += _RECORD
        records = [struct.unpack_from("<32s4I", shard, at + number * _RECORD) for number in range(count)]
        at += _RECORD * count * (2 if flags & _HAS_VERIFICATION else 1)
        if not flags & _HAS_SHA256:
            raise ValueError("Expected a file with its SHA-256, found one without.")
        yield _name(shard[at : at + 32]), [Term(_name(xorb), start, stop) for xorb, _, _, start, stop in records]
        at += _RECORD


def build(terms: list[Term], xorbs: Mapping[str, list[bytes]]) -> bytes:
    """A file of its parts."""
    return b"".join(chunk for term in terms for chunk in xorbs[term.xorb][term.start : term.stop])


def _unpack(data: bytes, scheme: int) -> bytes:
    if scheme == _PLAIN:
        return data
    try:
        unpacked = lz4.frame.decompress(data)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return _ungrouped(unpacked) if scheme == _GROUPED_LZ4 else unpacked


def _ungrouped(data: bytes) -> bytes:
    """Every fourth byte comes first, then every fourth from the second on, and so on."""
    result, at = bytearray(len(data)), 0
    for offset in range(4):
        count = len(range(offset, len(data), 4))
        result[offset::4] = data[at : at + count]
        at += count
    return bytes(result)


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _name(digest: bytes) -> str:
    """A digest as addresses have it: four little-endian numbers."""
    return "".join(digest[at : at + 8][::-1].hex() for at in range(0, 32, 8))
