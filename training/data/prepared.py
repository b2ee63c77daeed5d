"""What training.prepare leaves for training to read."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from .rows import Vocabulary

SUMMARY, BROKEN, STATISTICS = "summary.json", "broken.jsonl", "statistics.safetensors"


def digest_of_names(names: Iterable[str]) -> str:
    """What two data sets share if their entries have the same names in the same order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prepared:
    """A folder that training.prepare wrote."""

    folder: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Vocabulary, counts and arguments.

        Raises:
            FileNotFoundError: there is none.
        """
        path = self.folder / SUMMARY
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected {path}, which python -m training.prepare --output {self.folder} writes; found no such file."
            )
        return json.loads(path.read_text(encoding="utf-8"))

    @property
    def vocabulary(self) -> Vocabulary:
        """The data set's, as it was when it was prepared."""
        found = self.summary["vocabulary"]
        return Vocabulary(tuple(found["scenes"]), tuple(found["objects"]))

    def broken(self, split: str) -> frozenset[str]:
        """Names of the entries of a split whose picture is missing or damaged.

        Raises:
            ValueError: the split was not prepared.
        """
        if split not in self.summary["splits"]:
            found = ", ".join(self.summary["splits"])
            raise ValueError(f"{self.folder}: expected a split {split!r} that was prepared, found {found}.")
        lines = (self.folder / BROKEN).read_text(encoding="utf-8").splitlines()
        return frozenset(line["name"] for line in map(json.loads, lines) if line["split"] == split)

    def check_names(self, split: str, names: Iterable[str]) -> None:
        """Make sure that this is what was prepared.

        Raises:
            ValueError: the split has other pictures, or others now.
        """
        if digest_of_names(names) != self.summary["names"][split]:
            raise ValueError(
                f"{self.folder}: expected the pictures of the split {split!r} that were prepared from "
                f"{self.summary['arguments']['data']}, found others; run python -m training.prepare on this data set."
            )

    def statistics(self) -> tuple[Tensor, Tensor]:
        """P(emotion | scene) (S, 8) and P(emotion | object) (O, 8).

        Raises:
            FileNotFoundError: the run that prepares has not come to its end.
        """
        path = self.folder / STATISTICS
        if not path.is_file():
            raise FileNotFoundError(f"Expected {path}; run python -m training.prepare again, it goes on where it was.")
        tensors = load_file(path)
        return tensors["scenes"], tensors["objects"]
