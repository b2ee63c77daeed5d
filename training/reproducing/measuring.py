"""From what the evaluations wrote to the one file that the tables are made of."""

import json
import platform
from pathlib import Path
from typing import Any, Literal

import torch

from ..evaluate import POOLED, REAL
from ..make_mini import RUNS
from ..miniemoset.attributes import bayes_accuracy
from .components import HALF_CLIP
from .plan import REAL_IMAGES, Plan
from .results import Results
from .rows import GENERATION as GENERATION_ROWS
from .rows import REAL as REAL_ROW
from .rows import titles

UNDERSTANDING = ("accuracy", "polarity_accuracy", "macro_f1", "calibration_error")
GENERATION = ("emotion_accuracy", "total_variation", "semantic_clarity")
IN_SPACE = ("coverage", "kernel_distance", "semantic_diversity")
CURVES = {
    "UniEmo, variation": {"0": "mean", "0.5": "complete, variation 0.5", "1": "complete"},
    "UniEmo, guidance": {"2": "complete", "4": "complete, guidance 4"},
    "captions, guidance": {"2": "captions", "4": "captions, guidance 4"},
}
"""By curve, its points and the sets of images that they are of."""


def collect(plan: Plan, name: Literal["small", "full"]) -> Results:
    """All figures by table, row and seed."""
    size = plan.size
    generated = {row: _generation(plan, row) for row in size.sets}
    rows = {row: generated[row] for row in titles(GENERATION_ROWS) if row in generated}
    return {
        "size": name,
        "seeds": {
            "understanding": size.understanding_seeds,
            "generation": size.generation_seeds,
            "feedback": size.feedback_seeds,
        },
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "setup": _setup(plan),
        "best_accuracy": bayes_accuracy(),
        "understanding": {row: _understanding(plan, f"understanding/{row}") for row in size.understanding},
        "generation": {REAL_ROW.name: _real(plan, size.sets[0])} | rows,
        "curves": {
            title: [{"setting": setting, **generated[row]} for setting, row in points.items()]
            for title, points in CURVES.items()
            if generated.keys() >= set(points.values())
        },
        "feedback": {
            str(labels): {arm: _understanding(plan, f"feedback/{labels}/{arm}") for arm in size.arms}
            for labels in size.feedback_labels
        },
    }


def _setup(plan: Plan) -> dict[str, str]:
    size = plan.size
    zero_shot = _read(RUNS / HALF_CLIP / "gate.json")["zero shot"]
    return {
        "measured on": f"{REAL_IMAGES[size.split]:,} images of the {size.split} split",
        "judge": Path(size.judge).parent.name,
        "labels": f"{size.labels:,} of the first two tables",
        "CLIP, zero-shot": ", ".join(f"{part} {share:.3f}" for part, share in zero_shot.items()),
        "steps": f"stage 1 {size.stage1_steps}, stage 2 {size.stage2_steps}, feedback {size.more_steps} more",
        "images": f"{8 * size.images:,} a set and seed; feedback filters {8 * size.candidates:,}, keeps at most "
        f"{8 * size.keep:,}",
        "images kept": "; ".join(f"{labels:,} labels: {_kept(plan, labels)}" for labels in size.feedback_labels),
    }


def _kept(plan: Plan, labels: int) -> str:
    """How many images the whole filter left, by seed."""
    folders = (plan.output / f"feedback/{labels}-{seed}/kept-filtered" for seed in range(plan.size.feedback_seeds))
    return ", ".join(str(len(_read(folder / "train.json"))) for folder in folders)


def _understanding(plan: Plan, name: str) -> dict[str, list[float]]:
    models = _read(plan.measured(name))["understanding"]["models"].values()
    return {figure: [model["figures"][figure]["value"] for model in models] for figure in UNDERSTANDING}


def _generation(plan: Plan, row: str) -> dict[str, Any]:
    found = _read(plan.measured(f"generation/{row}"))["generation"]
    sets = [scores for name, scores in found["rows"].items() if name != REAL]
    return _figures(sets) | {"frechet_distance": _frechet(found, POOLED)}


def _real(plan: Plan, row: str) -> dict[str, Any]:
    """Of real images as many as a set has; the same beside every row."""
    found = _read(plan.measured(f"generation/{row}"))["generation"]
    return _figures([found["rows"][REAL]]) | {"frechet_distance": _frechet(found, REAL)}


def _figures(sets: list[dict[str, Any]]) -> dict[str, list[float]]:
    figures = {name: [one["figures"][name]["value"] for one in sets] for name in GENERATION}
    (space,) = sets[0]["spaces"]
    return figures | {name: [one["spaces"][space][name]["value"] for one in sets] for name in IN_SPACE}


def _frechet(found: dict[str, Any], row: str) -> float | None:
    spaces = found["pooled"].get(row, {}).values()
    return next((space["frechet_distance"]["value"] for space in spaces), None)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
