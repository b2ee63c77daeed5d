"""What a run leaves for people: curves of its losses, and a table of its results."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

UNLIKE_LOSSES = ("step", "epoch", "learning_rate", "grad_norm", "condition_norm")
Record = Mapping[str, float]


def draw_curves(log: Sequence[Record], path: Path) -> None:
    """Every loss by part over the steps, faint, with its running mean; validation figures in a panel of their own."""
    training = [record for record in log if "loss" in record]
    validation = [record for record in log if "eval_accuracy" in record]
    names = [name for name in training[0] if name not in UNLIKE_LOSSES]
    count = len(names) + bool(validation)
    rows = math.ceil(count / 3)
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


def results_table(results: Mapping[str, Any]) -> str:
    """Figures as Markdown; one with an interval is a dictionary of `value`, `interval` and `n`."""
    lines = ["| figure | value | 95 % interval | n |", "|---|---|---|---|"]
    for name, figure in results.items():
        if isinstance(figure, Mapping):
            low, high = figure["interval"]
            lines.append(f"| {name} | {figure['value']:.4f} | {low:.4f}-{high:.4f} | {figure['n']:,} |")
        else:
            lines.append(f"| {name} | {figure:.5g} | | |")
    return "\n".join(lines) + "\n"
