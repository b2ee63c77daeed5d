"""The results that tables and figures are made from: a file of each table, and all of them together."""

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict

from ..metrics import Estimate
from ..metrics.seeds import seed_estimate
from .rows import FEEDBACK, GENERATION, REAL, UNDERSTANDING, Row

RowValues = Mapping[str, Sequence[float] | float | None]
"""Of a row: by figure, a value for each seed, or one value pooled over them; None where there is none."""

SMALL = "small"


class CurvePoint(TypedDict):
    """A setting, "variation 0.5" say, and its figures by seed."""

    setting: str
    emotion_accuracy: Sequence[float]
    coverage: Sequence[float]
    total_variation: Sequence[float]


class Results(TypedDict):
    """What was measured, as JSON holds it; values by seed are in the same order everywhere.

    Attributes:
        size: "small" is a smoke test.
        best_accuracy: the best possible one, 0..1.
        seeds: by table, how many it has.
        facts: by table, what else is to be said of it, by name; the tables may have been made on different machines.
        understanding: by row, `accuracy`, `polarity_accuracy`, `macro_f1` and `calibration_error` by seed.
        generation: by row, `emotion_accuracy`, `total_variation`, `coverage`, `kernel_distance_within`,
            `semantic_clarity` and `semantic_diversity` by seed and `frechet_distance` pooled; also `real`, with one
            value each.
        curves: by title, points in the order in which a line joins them.
        feedback: by number of labels and arm, `accuracy` by seed.

    Tables and rows that were not measured are left out.
    """

    size: Literal["small", "full"]
    best_accuracy: float
    seeds: Mapping[str, int]
    facts: Mapping[str, Mapping[str, str]]
    understanding: Mapping[str, RowValues]
    generation: Mapping[str, RowValues]
    curves: Mapping[str, Sequence[CurvePoint]]
    feedback: Mapping[str, Mapping[str, RowValues]]


def together(tables: Sequence[Results]) -> Results:
    """The results of several tables as one.

    Raises:
        ValueError: they are of different sizes.
    """
    if len(sizes := {results["size"] for results in tables}) != 1:
        raise ValueError(f"Expected results of one size, found {', '.join(sorted(sizes)) or 'none'}.")
    named = ("seeds", "facts", "understanding", "generation", "curves", "feedback")
    joined = {name: dict(ChainMap(*(results[name] for results in tables))) for name in named}
    return Results(size=tables[0]["size"], best_accuracy=tables[0]["best_accuracy"], **joined)


def check(results: Results) -> None:
    """Refuse what the tables would leave out in silence.

    Raises:
        ValueError: an unknown size or row, or values of more or fewer seeds than there are.
    """
    if results["size"] not in (SMALL, "full"):
        raise ValueError(f"Expected results of the size small or full, found {results['size']!r}.")
    seeds, generation = results["seeds"], dict(results["generation"])
    _check_rows("generation", {name: generation.pop(name) for name in [REAL.name] if name in generation}, [REAL], 1)
    _check_rows("generation", generation, GENERATION, seeds.get("generation"))
    _check_rows("understanding", results["understanding"], UNDERSTANDING, seeds.get("understanding"))
    for labels, arms in results["feedback"].items():
        _check_rows(f"feedback, {labels} labels", arms, FEEDBACK, seeds.get("feedback"))


def _check_rows(table: str, measured: Mapping[str, RowValues], rows: Iterable[Row], seeds: int | None) -> None:
    if unknown := measured.keys() - {row.name for row in rows}:
        known = ", ".join(row.name for row in rows)
        raise ValueError(f"Results of {table}: expected the rows {known}, found {', '.join(sorted(unknown))}.")
    for name, figures in measured.items():
        for figure, values in figures.items():
            if isinstance(values, Sequence) and len(values) != seeds:
                raise ValueError(
                    f"Results of {table}, {name}: expected {seeds} of {figure}, one a seed, found {len(values)}."
                )


def estimate(values: Sequence[float] | float) -> Estimate:
    """The mean over seeds with its 95 % t interval; of one seed, or a pooled value, without."""
    if not isinstance(values, Sequence):
        return Estimate(values)
    return seed_estimate(values) if len(values) > 1 else Estimate(values[0])


def column(measured: Mapping[str, RowValues], figure: str) -> dict[str, Estimate]:
    """One figure of the rows that have it."""
    return {name: estimate(row[figure]) for name, row in measured.items() if row.get(figure) is not None}


def by_labels(results: Results) -> dict[int, Mapping[str, RowValues]]:
    """The arms of feedback by number of labels, from few to many."""
    return {int(labels): arms for labels, arms in sorted(results["feedback"].items(), key=lambda item: int(item[0]))}
