"""What a run leaves for people: curves of its losses, and a table of its results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

CURVES = "curves.png"
UNLIKE_LOSSES = ("step", "epoch", "learning_rate", "grad_norm")
Record = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured figure.

    Attributes:
        metric: what was measured, "accuracy" say.
        split: of the data, on which.
        value: as measured.
        interval: the ends of its 95 % interval, if known.
        pictures: how many it was measured on, if that matters.
    """

    metric: str
    split: str
    value: float
    interval: tuple[float, float] | None = None
    pictures: int | None = None


def draw_curves(log: Sequence[Record], path: Path) -> None:
    """Every figure over the steps, faint, with its running mean; validation in a panel of its own."""
    training = [record for record in log if "loss" in record]
    validation = [record for record in log if "eval_accuracy" in record]
    names = [name for name in training[0] if name not in UNLIKE_LOSSES] if training else []
    count = len(names) + bool(validation)
    rows = max(1, math.ceil(count / 3))
    figure = Figure(figsize=(9, 2.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 3, squeeze=False).flat)
    for name, panel in zip(names, panels, strict=False):
        steps, values = zip(*((record["step"], record[name]) for record in training if name in record), strict=True)
        panel.plot(steps, values, linewidth=0.5, alpha=0.35)
        panel.plot(steps, running_mean(values), linewidth=1.2)
        panel.set_title(name, fontsize=9)
    if validation:
        steps, values = zip(*((record["step"], record["eval_accuracy"]) for record in validation), strict=True)
        panels[len(names)].plot(steps, values, marker="o", markersize=3)
        panels[len(names)].set_title("validation accuracy", fontsize=9)
    for panel in panels[count:]:
        panel.set_axis_off()
    figure.savefig(path, dpi=110)


def running_mean(values: Sequence[float], share: float = 0.02) -> list[float]:
    """Exponential mean over about `share` of all values."""
    rate = 1 / max(1.0, share * len(values))
    means = [values[0]]
    for value in values[1:]:
        means.append(means[-1] + rate * (value - means[-1]))
    return means


def results_table(results: Sequence[Result]) -> str:
    """Figures as Markdown."""
    if not results:
        return "Nothing was measured."
    lines = ["| figure | split | value | 95 % interval | pictures |", "|---|---|---|---|---|"]
    for result in results:
        interval = "{:.4f} to {:.4f}".format(*result.interval) if result.interval else ""
        count = "" if result.pictures is None else f"{result.pictures:,}"
        lines.append(f"| {result.metric} | {result.split} | {result.value:.5g} | {interval} | {count} |")
    return "\n".join(lines)


def final_losses(log: Sequence[Record], split: str, share: float = 0.1) -> list[Result]:
    """Means of the losses over the last records of a run."""
    records = [record for record in log if "loss" in record]
    if not records:
        return []
    last = records[-max(1, round(share * len(records))) :]
    names = [name for name in last[-1] if name not in UNLIKE_LOSSES]
    means = {name: sum(record[name] for record in last) / len(last) for name in names}
    return [Result(metric=name, split=split, value=mean) for name, mean in means.items()]
