"""Counts of a data set for people."""

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data.rows import Vocabulary
from .checking import Checked
from .counting import SplitCounts

MOST_SHOWN = 20


def report(counts: Mapping[str, SplitCounts], checked: Mapping[str, Sequence[Checked]]) -> str:
    """A table with a row a split, and under it what is wrong, as Markdown."""
    columns = ["split", "pictures", "broken", "usable", *EMOTIONS, "no scene", "no object"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for split, count in counts.items():
        cells = [split, count.pictures, count.broken, count.usable, *count.emotions.values()]
        cells += [count.without_scene, count.without_objects]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    faults = [line for split in counts for line in _faults(split, counts[split], checked[split])]
    return "\n".join([*lines, "", *(faults or ["Nothing is wrong."])]) + "\n"


def _faults(split: str, count: SplitCounts, checked: Sequence[Checked]) -> list[str]:
    reasons = Counter(found.reason for found in checked if found.reason)
    lines = [f"- {split}: {number} pictures are left out: {reason}" for reason, number in reasons.most_common()]
    missing = [unknown.name for unknown in count.unknown if unknown.kind == "annotation"]
    lines += [f"- {split}: {len(missing)} annotations are missing, for example {missing[0]}"] if missing else []
    lines += [
        f"- {split}: unknown {unknown.kind} {unknown.name!r} at {number} pictures, for example {unknown.picture}"
        for unknown, number in count.unknown.items()
        if unknown.kind != "annotation"
    ]
    lacking = [name for name, number in count.emotions.items() if not number]
    return lines + [f"- {split}: no picture of {', '.join(lacking)}"] * bool(lacking)


def plot(counts: Mapping[str, SplitCounts], vocabulary: Vocabulary, train_split: str) -> Figure:
    """Pictures of each emotion by split, and of the training split's most frequent attributes."""
    attributes = {kind: names for kind, names in counts[train_split].attributes(vocabulary).items() if names}
    figure = Figure(figsize=(5 * (1 + len(attributes)), 4.5), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(attributes), squeeze=False)[0]
    bar = 0.8 / len(counts)
    for number, (split, count) in enumerate(counts.items()):
        first.bar([place + number * bar for place in range(len(EMOTIONS))], count.emotions.values(), bar, label=split)
    first.set_xticks([place + 0.4 - bar / 2 for place in range(len(EMOTIONS))], EMOTIONS, rotation=60, ha="right")
    most = max(max(count.emotions.values()) for count in counts.values())
    first.set(title="pictures of each emotion", yscale="symlog", ylim=(0, 6 * max(most, 1)))  # room for the legend
    first.legend(loc="upper center", ncols=2, fontsize=8)
    for axis, (kind, names) in zip(others, attributes.items(), strict=True):
        _most_frequent(axis, names, f"most frequent {kind}, {train_split}")
    return figure


def _most_frequent(axis: Axes, names: Mapping[str, int], title: str) -> None:
    shown = Counter(names).most_common(MOST_SHOWN)[::-1]
    axis.barh([name for name, _ in shown], [number for _, number in shown])
    axis.tick_params("y", labelsize=7)
    axis.set(title=title, xlabel="pictures")
