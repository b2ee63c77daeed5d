"""Folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new(out: Path) -> None:
    """Raises ValueError where something is in the way of a new folder; an empty one is not."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out}: expected a new or an empty folder, found one with something in it, or a file.")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when it is whole and is gone when it is not."""
    out = out.resolve()
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
