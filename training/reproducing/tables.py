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
    "kernel_distance_within",
    "frechet_distance",
    "semantic_clarity",
    "semantic_diversity",
)
TESTED_IN_GENERATION = ("emotion_accuracy", "total_variation", "coverage")
ACCURACY = tables.UNDERSTANDING["accuracy"]
BETTER = {"total_variation": "↓", "kernel_distance_within": "↓", "frechet_distance": "↓"}
OF_IMAGES = {
    figure: f"{label} {BETTER.get(figure, '↑')}" for figure, label in (tables.GENERATION | tables.SPACE).items()
} | {"frechet_distance": "Fréchet distance, emotions and seeds together ↓"}
BEST = Row("best", "best possible accuracy, exact")
SEEDS = (
    "A seed decides the labelled subset, the initialisation of what is trained, the order of the pictures and the "
    "noise that images are drawn from; all seeds share the backbones and the data."
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
    return "\n".join([*lines, f"Size: {results['size']}. {SEEDS}", ""])


def _facts(results: Results, table: str) -> list[str]:
    lines = [f"- {name}: {fact}" for name, fact in results["facts"].get(table, {}).items()]
    return [*lines, ""] if lines else []


def _understanding(results: Results) -> str:
    measured = results["understanding"]
    columns = _columns(measured, UNDERSTANDING_FIGURES, tables.UNDERSTANDING)
    if measured:
        columns[ACCURACY][BEST.name] = Estimate(results["best_accuracy"])
    tested = compare(measured, UNDERSTANDING_COMPARISONS, "accuracy")
    return "\n".join(
        [
            "## Understanding",
            "",
            *_facts(results, "understanding"),
            *_rows(columns, "model", (*UNDERSTANDING, BEST), results["seeds"].get("understanding", 0)),
            *_missing(UNDERSTANDING, measured),
            *_comparisons(tested, UNDERSTANDING, ACCURACY),
        ]
    )


def _generation(results: Results) -> str:
    measured = results["generation"]
    seeds = results["seeds"].get("generation", 0)
    columns = _columns(measured, GENERATION_FIGURES, OF_IMAGES)
    lines = ["## Generation", "", *_facts(results, "generation")]
    lines += _rows(columns, "images", (REAL, *GENERATION), seeds)
    if measured and seeds > 1:
        lines += ["Without an interval are what is pooled over the seeds, and real images, which have no seeds.", ""]
    lines += _missing(GENERATION, measured)
    for figure in TESTED_IN_GENERATION:
        lines += _comparisons(compare(measured, GENERATION_COMPARISONS, figure), GENERATION, OF_IMAGES[figure])
    return "\n".join(lines)


def _feedback(results: Results) -> str:
    measured = by_labels(results)
    columns = {f"{ACCURACY}, {labels:,} labels": column(arms, "accuracy") for labels, arms in measured.items()}
    lines = [
        "## Feedback",
        "",
        *_facts(results, "feedback"),
        *_rows(columns, "added to the labelled images", FEEDBACK, results["seeds"].get("feedback", 0)),
    ]
    lines += _missing(FEEDBACK, {name for arms in measured.values() for name in arms})
    if tested := compare_feedback(results):
        lines += [
            "Accuracies are averaged over the numbers of labels, for each seed and where both arms were measured, and "
            "then compared.",
            "",
            *_comparisons(tested, FEEDBACK, ACCURACY),
        ]
    return "\n".join(lines)


def _columns(
    measured: Mapping[str, RowValues], figures: Iterable[str], labels: Mapping[str, str]
) -> dict[str, dict[str, Estimate]]:
    """By label, the figures that any row has."""
    found = {labels[figure]: column(measured, figure) for figure in figures}
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
        f"Differences in {label} seed by seed, of pairs fixed in advance, by two-sided paired t tests; Holm's "
        f"correction is for the number of comparisons in this table, {len(tested)}.",
        "",
        "| difference | about | mean (95 % interval) | p | p, Holm |",
        "|---" * 5 + "|",
    ]
    for one in tested:
        named = f"{title[one.comparison.row]} − {title[one.comparison.against]}"
        cells = [named, one.comparison.why, tables.estimate_cell(one.test.difference)]
        cells += [p_value_cell(one.test.p_value), p_value_cell(one.adjusted)]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def p_value_cell(value: float) -> str:
    """Four places; never 0, which no p-value is."""
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
