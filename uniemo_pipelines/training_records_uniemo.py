"""What is known of how a model was made and measured, in files beside it; a model card is made from them.

training.json   base model, data, arguments, licence, and what its author says of it
results.json    what was measured
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

T = TypeVar("T")

RECORD, RESULTS, CONTACT_SHEET = "training.json", "results.json", "contact_sheet.jpg"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured figure.

    Attributes:
        metric: what was measured, "accuracy" say.
        split: of the data, on which.
        value: as measured.
        interval: the ends of its 95 % interval, if known.
        pictures: how many it was measured on, if that matters.
        of: what it is a figure of, where that is not the model itself but something to compare with.
        task: the Hub's name of what was done, where the model does more than one thing.
    """

    metric: str
    split: str
    value: float
    interval: tuple[float, float] | None = None
    pictures: int | None = None
    of: str | None = None
    task: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was made.

    Attributes:
        base_model: the CLIP or Stable Diffusion that was trained on: its name on the Hub, or any other.
        data: the training data, likewise.
        arguments: of each stage by its name, those that differ from their defaults.
        license: of what was trained, as the Hub names it ("apache-2.0"); None if its author has not said.
        call: arguments by which it draws best, where those are not the pipeline's defaults.
        about: what else its author says of it, Markdown; beside the results, `measured`.
        limits: what it is not good for, beside what holds for every model of its kind.
    """

    base_model: str | None = None
    data: str | None = None
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    license: str | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    measured: str = ""
    limits: Sequence[str] = ()


def write_record(folder: str | os.PathLike[str], record: TrainingRecord) -> Path:
    """Write training.json. Of folders on this machine it has the last part alone."""
    public = replace(record, base_model=public_name(record.base_model), data=public_name(record.data))
    return _write(Path(folder, RECORD), {name: value for name, value in asdict(public).items() if value})


def read_record(folder: str | os.PathLike[str]) -> TrainingRecord:
    """What training.json says; an empty record where there is none.

    Raises:
        ValueError: it is no record.
    """
    return _made(TrainingRecord, _content(Path(folder, RECORD), {}), Path(folder, RECORD))


def read_results(folder: str | os.PathLike[str]) -> list[Result]:
    """What results.json says; no results where there is none.

    Raises:
        ValueError: it has no results.
    """
    path = Path(folder, RESULTS)
    return [_made(Result, result, path) for result in _content(path, [])]


def write_results(folder: str | os.PathLike[str], results: Sequence[Result]) -> Path:
    """Write results.json."""
    return _write(Path(folder, RESULTS), [asdict(result) for result in results])


def copy_records(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Take what a card is made from, as far as it is there, along to where a model is exported to."""
    for name in (RECORD, RESULTS, CONTACT_SHEET):
        if Path(source, name).is_file() and Path(source).resolve() != Path(target).resolve():
            shutil.copyfile(Path(source, name), Path(target, name))


def results_table(results: Sequence[Result]) -> str:
    """Figures as Markdown."""
    if not results:
        return "Nothing was measured."
    lines = ["| figure | split | value | 95 % interval | pictures |", "|---|---|---|---|---|"]
    for result in results:
        name = f"{result.metric}, {result.of}" if result.of else result.metric
        interval = "{:.4f} to {:.4f}".format(*result.interval) if result.interval else ""
        count = "" if result.pictures is None else f"{result.pictures:,}"
        lines.append(f"| {name} | {result.split} | {result.value:.5g} | {interval} | {count} |")
    return "\n".join(lines)


def hub_name(name: str | None) -> str | None:
    """A name on the Hub, "owner/name"; None for anything else, such as a folder of this machine."""
    if name is None or name.count("/") != 1 or os.path.exists(name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def public_name(name: str | None) -> str | None:
    """A name on the Hub as it is; of a folder, which is nobody else's matter, its last part."""
    return hub_name(name) or (Path(name).name if name else None)


def _write(path: Path, content: Any) -> Path:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def _made(kind: type[T], found: Any, path: Path) -> T:
    try:
        return kind(**found)
    except TypeError as error:
        raise ValueError(f"{path}: expected the fields of a {kind.__name__}, found others ({error}).") from None


def _content(path: Path, empty: Any) -> Any:
    """A file's JSON, of the type of `empty`, which it is where there is no file."""
    if not path.is_file():
        return empty
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found none ({error}); remove it or write it again.") from None
    if not isinstance(content, type(empty)):
        raise ValueError(f"{path}: expected a {type(empty).__name__}, found a {type(content).__name__}; remove it.")
    return content
