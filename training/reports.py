"""What a run leaves for people: curves of its losses, and their last means."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from uniemo_pipelines.training_records_uniemo import Result

UNLIKE_LOSSES = ("step", "epoch", "learning_rate", "grad_norm")
Record = Mapping[str, float]


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


def final_losses(log: Sequence[Record], split: str, share: float = 0.1) -> list[Result]:
    """Means of the losses over the last records of a run."""
    records = [record for record in log if "loss" in record]
    if not records:
        return []
    last = records[-max(1, round(share * len(records))) :]
    names = [name for name in last[-1] if name not in UNLIKE_LOSSES]
    means = {name: sum(record[name] for record in last) / len(last) for name in names}
    return [Result(metric=name, split=split, value=mean) for name, mean in means.items()]
