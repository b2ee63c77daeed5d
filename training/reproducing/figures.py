"""The tables as figures. A smoke test's are marked as one, for pictures travel alone."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from ..metrics import Estimate
from .comparing import Tested, compare, compare_feedback
from .results import SMALL, CurvePoint, Results, by_labels, column, estimate
from .rows import COMPLETE, FEEDBACK, GENERATION, REAL, UNDERSTANDING, UNDERSTANDING_COMPARISONS, titles
from .tables import p_value_cell

COLORS = colormaps["tab10"].colors
MARKERS = "osD^vPX"  # their number has no factor in common with that of the colours: each pair is met once in 70
LINE_COLORS = ("black", "tab:red", "tab:blue")
WRAPPED = 34
READABLE = {"path_effects": [withStroke(linewidth=1.2, foreground="white")], "zorder": 5}
"""Of text that stands over points and lines."""


def figures(results: Results) -> dict[str, Figure]:
    """By name, those of the tables that were measured."""
    found = {}
    if results["understanding"]:
        found["understanding"] = understanding_figure(results)
    if results["generation"] or results["curves"]:
        found["curves"] = curves_figure(results)
    if results["feedback"]:
        found["feedback"] = feedback_figure(results)
    return found


def understanding_figure(results: Results) -> Figure:
    """Accuracy of each model, with every seed as a dot, and beside it the differences that were fixed in advance."""
    tested = compare(results["understanding"], UNDERSTANDING_COMPARISONS, "accuracy")
    lines = max(len(results["understanding"]), len(tested))
    figure = Figure(figsize=(13 if tested else 7, 1.6 + 0.5 * lines), layout="constrained")
    panels = figure.subplots(1, 1 + bool(tested), squeeze=False)[0]
    _draw_accuracies(panels[0], results)
    if tested:
        _draw_differences(panels[1], tested)
    return _marked(figure, results)


def curves_figure(results: Results) -> Figure:
    """Emo-A over coverage: curves over a setting, the generation table's rows as points, real images as a star."""
    figure = Figure(figsize=(11.5, 6.5), layout="constrained")
    axis = figure.subplots()
    for color, (title, points) in zip(cycle(LINE_COLORS), results["curves"].items(), strict=False):
        _draw_curve(axis, title, points, color)
    measured, title = results["generation"], titles(GENERATION)
    coverage, faithful = column(measured, "coverage"), column(measured, "emotion_accuracy")
    for place, name in enumerate(title):
        if name in coverage and name in faithful:
            style = {"color": COLORS[place % len(COLORS)], "fmt": MARKERS[place % len(MARKERS)]}
            size = 13 if name == COMPLETE else 8
            _draw_point(axis, coverage[name], faithful[name], label=title[name], markersize=size, **style)
    if REAL.name in coverage and REAL.name in faithful:
        style = {"color": "gold", "fmt": "*", "markersize": 16}
        _draw_point(axis, coverage[REAL.name], faithful[REAL.name], label=REAL.title, **style)
    axis.set(xlabel="coverage", ylabel="Emo-A (8)", xlim=_share(*axis.get_xlim()), ylim=_share(*axis.get_ylim()))
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=9)
    return _marked(figure, results)


def _share(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis of shares, which intervals of few seeds leave."""
    return max(low, 0.0), min(high, 1.02)


def feedback_figure(results: Results) -> Figure:
    """Accuracy over the number of labels, a line an arm, and beside it the differences that were fixed in advance."""
    tested = compare_feedback(results)
    figure = Figure(figsize=(14 if tested else 7, 5.5), layout="constrained")
    panels = figure.subplots(1, 1 + bool(tested), squeeze=False)[0]
    _draw_arms(panels[0], results)
    if tested:
        _draw_differences(panels[1], tested)
        panels[1].set_title("differences over all numbers of labels, 95 % intervals", loc="left", fontsize=10)
    return _marked(figure, results)


def _draw_arms(axis: Axes, results: Results) -> None:
    """With 95 % intervals; arms stand side by side."""
    accuracies = {labels: column(arms, "accuracy") for labels, arms in by_labels(results).items()}
    for place, (arm, title) in enumerate(titles(FEEDBACK).items()):
        found = {labels: row[arm] for labels, row in accuracies.items() if arm in row}
        if found:
            aside = 2 ** (0.035 * (place - (len(FEEDBACK) - 1) / 2))
            style = {"color": COLORS[place], "marker": MARKERS[place], "linewidth": 1.2, "capsize": 2, "label": title}
            values = [one.value for one in found.values()]
            axis.errorbar([labels * aside for labels in found], values, yerr=_errors(found.values()), **style)
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(accuracies), [f"{labels:,}" for labels in accuracies])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(min(accuracies) / 2**0.3, max(accuracies) * 2**0.3)
    axis.set(xlabel="labels", ylabel="accuracy (8)")
    axis.grid(axis="y", alpha=0.25)
    axis.legend(title="added to the labelled images", fontsize=8)


def _draw_accuracies(axis: Axes, results: Results) -> None:
    accuracies = column(results["understanding"], "accuracy")
    shown = {name: title for name, title in titles(UNDERSTANDING).items() if name in accuracies}
    _forest(axis, {title: accuracies[name] for name, title in shown.items()})
    axis.axvline(results["best_accuracy"], color="black", linestyle="--", linewidth=1)
    axis.set_xlabel("accuracy (8); dashed: the best possible")
    if results["seeds"]["understanding"] > 1:
        axis.set_title("mean and 95 % interval; a dot a seed", loc="left", fontsize=10)
        for place, name in enumerate(shown):
            values = results["understanding"][name]["accuracy"]
            axis.plot(values, [place + 0.22] * len(values), ".", color="tab:blue", alpha=0.4, markeredgewidth=0)


def _draw_differences(axis: Axes, tested: Sequence[Tested]) -> None:
    _forest(axis, {one.comparison.why: one.test.difference for one in tested})
    axis.axvline(0, color="black", linewidth=1)
    axis.set_xlabel("difference in accuracy (8)")
    axis.set_title("mean and 95 % interval of the differences", loc="left", fontsize=10)
    axis.annotate("p, Holm", (1.02, 1.02), xycoords="axes fraction", fontsize=10)
    for place, one in enumerate(tested):
        text = p_value_cell(one.adjusted)
        axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)


def _forest(axis: Axes, shown: Mapping[str, Estimate]) -> None:
    """Estimates from the top down, each with its interval."""
    values = [one.value for one in shown.values()]
    axis.errorbar(values, range(len(shown)), xerr=_errors(shown.values()), fmt="o", color="tab:blue", capsize=3)
    axis.set_yticks(range(len(shown)), [fill(name, WRAPPED) for name in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.25)


def _draw_curve(axis: Axes, title: str, points: Sequence[CurvePoint], color: str) -> None:
    """A line with its points labelled by setting; what all settings begin with stands in the legend."""
    begins, values = zip(*(point["setting"].rpartition(" ")[::2] for point in points), strict=True)
    common = begins[0] if len(set(begins)) == 1 else ""
    places = [(estimate(point["coverage"]).value, estimate(point["emotion_accuracy"]).value) for point in points]
    label = f"{title}, by {common}" if common else title
    axis.plot(*zip(*places, strict=True), color=color, marker=".", linewidth=1, label=fill(label, WRAPPED))
    for point, value, place in zip(points, values, places, strict=True):
        text = value if common else point["setting"]
        axis.annotate(text, place, (4, 4), textcoords="offset points", fontsize=8, color=color, **READABLE)


def _draw_point(axis: Axes, across: Estimate, up: Estimate, label: str, **style: Any) -> None:
    style |= {"elinewidth": 0.8, "markeredgecolor": "black", "markeredgewidth": 0.6, "label": fill(label, WRAPPED)}
    axis.errorbar([across.value], [up.value], xerr=_errors([across]), yerr=_errors([up]), **style)


def _errors(estimates: Iterable[Estimate]) -> np.ndarray | None:
    """(2, N) below and above; None where there are no intervals."""
    found = list(estimates)
    if any(one.interval is None for one in found):
        return None
    return np.abs([[end - one.value for end in one.interval] for one in found]).T


def _marked(figure: Figure, results: Results) -> Figure:
    if results["size"] == SMALL:
        figure.suptitle("smoke test, not to be quoted", color="tab:red", fontweight="bold")
    return figure
