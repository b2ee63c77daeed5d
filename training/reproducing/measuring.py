"""From what the evaluations wrote to the figures that a table is made of."""

from typing import Any, Literal

from ..evaluate import POOLED, REAL
from ..miniemoset.attributes import bayes_accuracy
from ..runs import read_json
from .facts import facts
from .plan import Plan
from .results import Results
from .rows import GENERATION as GENERATION_ROWS
from .rows import REAL as REAL_ROW
from .rows import titles

UNDERSTANDING = ("accuracy", "polarity_accuracy", "macro_f1", "calibration_error")
GENERATION = ("emotion_accuracy", "total_variation", "semantic_clarity")
IN_SPACE = ("coverage", "kernel_distance_within", "semantic_diversity")
CURVES = {
    "UniEmo, variation": {"0": "mean", "0.5": "complete, variation 0.5", "1": "complete"},
    "UniEmo, guidance": {"2": "complete", "4": "complete, guidance 4"},
    "captions, guidance": {"2": "captions", "4": "captions, guidance 4"},
}
"""By curve, its points and the sets of images that they are of."""


def collect(plan: Plan, name: Literal["small", "full"], table: str) -> Results:
    """All figures of a table by row and seed; the other tables are empty."""
    size = plan.size
    found = Results(
        size=name,
        best_accuracy=bayes_accuracy(),
        seeds={table: size.seeds(table)},
        facts={table: facts(plan, table)},
        understanding={},
        generation={},
        curves={},
        feedback={},
    )
    if table == "understanding":
        found["understanding"] = {row: _understanding(plan, f"understanding/{row}") for row in size.understanding}
    elif table == "generation":
        sets = {row: _generation(plan, row) for row in size.sets}
        rows = {row: sets[row] for row in titles(GENERATION_ROWS) if row in sets}
        found["generation"] = {REAL_ROW.name: _real(plan, size.sets[0])} | rows
        found["curves"] = {
            title: [{"setting": setting, **sets[row]} for setting, row in points.items()]
            for title, points in CURVES.items()
            if sets.keys() >= set(points.values())
        }
    else:
        found["feedback"] = {
            str(labels): {arm: _understanding(plan, f"feedback/{labels}/{arm}") for arm in size.arms}
            for labels in size.feedback_labels
        }
    return found


def _understanding(plan: Plan, name: str) -> dict[str, list[float]]:
    models = read_json(plan.measured(name))["understanding"]["models"].values()
    return {figure: [model["figures"][figure]["value"] for model in models] for figure in UNDERSTANDING}


def _generation(plan: Plan, row: str) -> dict[str, Any]:
    found = read_json(plan.measured(f"generation/{row}"))["generation"]
    sets = [scores for name, scores in found["rows"].items() if name != REAL]
    return _figures(sets) | {"frechet_distance": _frechet(found, POOLED)}


def _real(plan: Plan, row: str) -> dict[str, Any]:
    """Of real images as many as a set has; the same beside every row."""
    found = read_json(plan.measured(f"generation/{row}"))["generation"]
    return _figures([found["rows"][REAL]]) | {"frechet_distance": _frechet(found, REAL)}


def _figures(sets: list[dict[str, Any]]) -> dict[str, list[float]]:
    figures = {name: [one["figures"][name]["value"] for one in sets] for name in GENERATION}
    (space,) = sets[0]["spaces"]
    return figures | {name: [one["spaces"][space][name]["value"] for one in sets] for name in IN_SPACE}


def _frechet(found: dict[str, Any], row: str) -> float | None:
    spaces = found["pooled"].get(row, {}).values()
    return next((space["frechet_distance"]["value"] for space in spaces), None)
