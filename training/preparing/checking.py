"""Opening every picture of a data set once, in several processes, with a state that survives a stop."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data.hub import EntryStream
from ..data.pictures import BrokenPictureError
from ..data.rows import Entry, Labels

CHUNK = 32


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found at an entry; `reason` says why its picture cannot be used, and is None for a good one."""

    name: str
    labels: Labels
    reason: str | None = None


def check_split(split: str, entries: Sequence[Entry] | EntryStream, state: Path, num_workers: int) -> list[Checked]:
    """Decode the pictures of a split.

    Args:
        split: its name.
        entries: its pictures.
        state: a file that each finding is appended to. Pictures that it calls good are not opened again.
        num_workers: processes that decode.
    """
    good = {found.name: found for found in read_state(state, split) if found.reason is None}
    loader = DataLoader(entries, CHUNK, collate_fn=partial(check_all, good), num_workers=num_workers)
    total = None if isinstance(entries, EntryStream) else len(entries)
    checked: list[Checked] = []
    with state.open("a", encoding="utf-8") as file, tqdm(total=total, desc=split, unit="picture") as progress:
        file.write("\n")  # a run that was killed may have left half a line
        for chunk in loader:
            new = [found for found in chunk if found != good.get(found.name)]
            file.writelines(json.dumps({"split": split, **asdict(found)}) + "\n" for found in new)
            file.flush()
            checked += chunk
            progress.update(len(chunk))
    return checked


def check_all(good: Mapping[str, Checked], entries: Iterable[Entry]) -> list[Checked]:
    """What is found at each entry; those in `good` are not opened."""
    return [Checked(e.name, e.labels, None if e.name in good else fault(e)) for e in entries]


def fault(entry: Entry) -> str | None:
    """Why an entry's picture cannot be decoded, or None."""
    try:
        entry.picture.open()
    except BrokenPictureError as error:
        return str(error).removeprefix(f"{entry.picture.name}: ")
    return None


def read_state(state: Path, split: str) -> list[Checked]:
    """The findings of earlier runs at a split; of a picture that was found at twice, the later one comes later."""
    if not state.is_file():
        return []
    found = []
    for line in state.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except ValueError:  # half a line
            continue
        if content.pop("split") == split:
            labels = content.pop("labels")
            found.append(Checked(labels=Labels(**labels | {"objects": tuple(labels["objects"])}), **content))
    return found
