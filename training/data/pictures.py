"""Handles of pictures that are decoded when they are asked for, and only as finely as they are asked for."""

import hashlib
import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from datasets import Dataset
from PIL import Image

from uniemo_pipelines.images_uniemo import image_size, open_image


class BrokenPictureError(ValueError):
    """A picture that is missing or cannot be decoded; one line that names it."""


class Picture(ABC):
    """A picture somewhere. `name` is what messages call it: a path, or "row 17"."""

    name: str

    @property
    def stamp(self) -> str:
        """What changes when the picture does, without reading it; what is made of pictures is kept under it."""
        return self.name

    @abstractmethod
    def file(self) -> Path | BinaryIO:
        """Where its bytes are."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of `open()`, without decoding where the format allows.

        Raises:
            BrokenPictureError: no picture.
        """
        try:
            return image_size(self.file())
        except ValueError as error:
            raise BrokenPictureError(error) from None

    def open(self, least: int | None = None) -> Image.Image:
        """The picture, upright and RGB. Do not change it in place: it may be kept for the next epoch.

        Args:
            least: the shorter edge that is needed. A JPEG is then decoded at the half, quarter or eighth of its size
                that still has it; other formats come whole.

        Raises:
            BrokenPictureError: no picture, or a damaged one.
        """
        edge = None if least is None else -(-least // 2)  # `open_image` keeps twice its edge
        try:
            return open_image(self.file(), edge)
        except ValueError as error:
            raise BrokenPictureError(error) from None


@dataclass(frozen=True, slots=True)
class FilePicture(Picture):
    """A file on disk."""

    path: str

    @property
    def name(self) -> str:
        return self.path

    @property
    def stamp(self) -> str:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise BrokenPictureError(f"{self.path}: {error.strerror}.") from None
        return f"{self.path} {found.st_size} {found.st_mtime_ns}"

    def file(self) -> Path:
        return Path(self.path)


@dataclass(frozen=True, slots=True)
class OpenedPicture(Picture):
    """A picture in memory, upright and RGB."""

    name: str
    image: Image.Image

    def file(self) -> BinaryIO:
        raise TypeError(f"{self.name}: a picture in memory has no file.")

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def open(self, least: int | None = None) -> Image.Image:
        return self.image


@dataclass(frozen=True)
class EncodedPicture(Picture):
    """The bytes of a picture's file, and the path that they came with."""

    path: str | None
    content: bytes

    @cached_property
    def digest(self) -> int:
        """63 bits that are the same wherever and in whichever order the picture is read."""
        return int.from_bytes(hashlib.blake2b(self.content, digest_size=8).digest(), "little") >> 1

    @property
    def name(self) -> str:
        return f"{os.path.basename(self.path or 'picture')} {self.digest:016x}"

    def file(self) -> BinaryIO:
        return _stream(self.content, self.name)


@dataclass(frozen=True, slots=True)
class HubPicture(Picture):
    """A row of a `datasets.Dataset` whose image column is not decoded by it."""

    rows: Dataset
    column: str
    position: int

    @property
    def name(self) -> str:
        return f"row {self.position}"

    @property
    def stamp(self) -> str:
        return f"{self.rows._fingerprint} {self.position}"  # of the data set and all that was done to it

    def file(self) -> BinaryIO:
        return _stream(read_content(self.rows[self.position][self.column], self.name), self.name)


def _stream(content: bytes, name: str) -> BinaryIO:
    stream = io.BytesIO(content)
    stream.name = name  # what `open_image` calls it
    return stream


def read_content(value: Any, name: str) -> bytes:
    """The bytes behind a value of an image column: {"bytes", "path"}, where a path may be remote.

    Raises:
        BrokenPictureError: neither of them, or a path that cannot be read.
    """
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
    if content is not None:
        return content
    if path is None:
        raise BrokenPictureError(f"{name}: expected a picture, found {type(value).__name__} without one.")
    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BrokenPictureError(f"{name}: {error}.") from None
