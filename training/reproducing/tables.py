"""The report: three tables and their comparisons as Markdown; numbers, whose meaning is left to people."""

from collections.abc import Container, Iterable, Mapping, Sequence

from ..evaluating import tables
from ..metrics import Estimate
from .comparing import Tested, compare, compare_feedback
from .results import SMALL, Results, RowValues, by_labels, check, column
from .rows import (
    FEEDBACK,
    GENERATION,
    GENERATION_COMPARISONS,
    REAL,
    UNDERSTANDING,
    UNDERSTANDING_COMPARISONS,
    Row,
    titles,
)

UNDERSTANDING_FIGURES = ("accuracy", "polarity_accuracy", "macro_f1", "calibration_error")
GENERATION_FIGURES = (
    "emotion_accuracy",
    "total_variation",
    "coverage",
    "kernel_distance",
    "frechet_distance",
    "semantic_clarity",
    "semantic_diversity",
)
TESTED_IN_GENERATION = ("emotion_accuracy", "total_variation", "coverage")
LABELS = tables.UNDERSTANDING | tables.GENERATION | tables.SPACE
BEST = Row("best", "best possible accuracy, exact")
SEEDS = (
    "A seed decides the labelled subset, the initialisation of what is trained and the order of the pictures; "
    "all seeds share the backbones and the data."
)


def report(results: Results) -> str:
    """All of it.

    Raises:
        ValueError: results that do not fit the tables, see `results.check`.
    """
    check(results)
    return "\n".join([_headline(results), _understanding(results), _generation(results), _feedback(results)])


def _headline(results: Results) -> str:
    lines = ["# The paper's tables on MiniEmoSet", ""]
    if results["size"] == SMALL:
        lines += ["> **Smoke test.** This is the small size: its numbers are not to be quoted.", ""]
    facts = {"Size": results["size"], "Machine": results["machine"], **results["setup"]}
    lines += [f"- {SEEDS}", *(f"- {name}: {fact}" for name, fact in facts.items())]
    return "\n".join(lines) + "\n"


def _understanding(results: Results) -> str:
    measured = results["understanding"]
    columns = _columns(measured, UNDERSTANDING_FIGURES)
    if measured:
        columns[LABELS["accuracy"]][BEST.name] = Estimate(results["best_accuracy"])
    tested = compare(measured, UNDERSTANDING_COMPARISONS, "accuracy")
    return "\n".join(
        [
            "## Understanding",
            "",
            *_rows(columns, "model", (*UNDERSTANDING, BEST), results["seeds"]["understanding"]),
            *_missing(UNDERSTANDING, measured),
            *_comparisons(tested, UNDERSTANDING, LABELS["accuracy"]),
        ]
    )


def _generation(results: Results) -> str:
    measured = results["generation"]
    lines = ["## Generation", ""]
    lines += _rows(
        _columns(measured, GENERATION_FIGURES), "images", (REAL, *GENERATION), results["seeds"]["generation"]
    )
    if REAL.name in measured:
        lines += ["The real images' figures have no seeds and hence no intervals.", ""]
    lines += _missing(GENERATION, measured)
    for figure in TESTED_IN_GENERATION:
        lines += _comparisons(compare(measured, GENERATION_COMPARISONS, figure), GENERATION, LABELS[figure])
    return "\n".join(lines)


def _feedback(results: Results) -> str:
    measured = by_labels(results)
    columns = {
        f"{LABELS['accuracy']}, {labels:,} labels": column(arms, "accuracy") for labels, arms in measured.items()
    }
    lines = [
        "## Feedback",
        "",
        *_rows(columns, "added to the labelled images", FEEDBACK, results["seeds"]["feedback"]),
    ]
    lines += _missing(FEEDBACK, {name for arms in measured.values() for name in arms})
    if tested := compare_feedback(results):
        lines += [
            "The comparisons are of means over the numbers of labels, for each seed and as far as both were measured.",
            "",
            *_comparisons(tested, FEEDBACK, LABELS["accuracy"]),
        ]
    return "\n".join(lines)


def _columns(measured: Mapping[str, RowValues], figures: Iterable[str]) -> dict[str, dict[str, Estimate]]:
    """By label, the figures that any row has."""
    found = {LABELS[figure]: column(measured, figure) for figure in figures}
    return {label: estimates for label, estimates in found.items() if estimates}


def _rows(columns: Mapping[str, dict[str, Estimate]], kind: str, rows: Sequence[Row], seeds: int) -> list[str]:
    if not columns:
        return ["Not measured.", ""]
    if seeds > 1:
        said = f"Means over {seeds} seeds, with their 95 % t intervals."
    else:
        said = "One seed: its values alone, without intervals and without tests."
    return [said, "", tables.figures_table(columns, titles(rows), kind)]


def _missing(rows: Sequence[Row], measured: Container[str]) -> list[str]:
    """Which rows the table lacks, so that none goes in silence."""
    left_out = "; ".join(row.title for row in rows if row.name not in measured)
    return [f"Rows that were not measured: {left_out}.", ""] if left_out else []


def _comparisons(tested: Sequence[Tested], rows: Sequence[Row], label: str) -> list[str]:
    if not tested:
        return []
    title = titles(rows)
    lines = [
        f"Differences in {label}, fixed in advance, seed by seed, by two-sided paired t tests; Holm's correction is "
        f"for the number of comparisons in this table, {len(tested)}.",
        "",
        "| difference | about | mean (95 % interval) | p | p, Holm |",
        "|---" * 5 + "|",
    ]
    for one in tested:
        named = f"{title[one.comparison.row]} − {title[one.comparison.against]}"
        cells = [named, one.comparison.why, tables.estimate_cell(one.test.difference)]
        cells += [_p_value(one.test.p_value), _p_value(one.adjusted)]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _p_value(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
