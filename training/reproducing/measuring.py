"""From what the evaluations wrote to the figures that a table is made of."""

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..evaluate import POOLED, REAL
from ..make_mini import RUNS
from ..miniemoset.attributes import bayes_accuracy
from ..tasks import seconds
from .half_clip import HALF_CLIP
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


def collect(plan: Plan, name: Literal["small", "full"], table: str) -> Results:
    """All figures of a table by row and seed; the other tables are empty."""
    size = plan.size
    found = Results(
        size=name,
        best_accuracy=bayes_accuracy(),
        seeds={table: size.seeds(table)},
        facts={table: _facts(plan, table)},
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


def _facts(plan: Plan, table: str) -> dict[str, str]:
    size = plan.size
    zero_shot = _read(RUNS / HALF_CLIP / "gate.json")["zero shot"]
    spent = seconds(replace(plan, tables=[table]).tasks(), plan.output).values()
    precision = f"in {'bfloat16' if plan.bf16 else 'float32'}"
    facts = {
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "commands": f"{len(spent)}, {sum(spent) / 3600:.1f} hours in all, side by side or not",
        "CLIP, zero-shot": ", ".join(f"{part} {share:.3f}" for part, share in zero_shot.items()),
        "measured on": f"{REAL_IMAGES[size.split]:,} images of the {size.split} split",
        "steps": f"stage 1 {size.stage1_steps} {precision}, stage 2 {size.stage2_steps}",
    }
    if table == "generation":
        images = f"{8 * size.images:,} a set and seed, drawn {precision}"
        return facts | {"judge": size.judge.stem, "labels": f"{size.labels:,}", "images": images}
    counts = [size.labels] if table == "understanding" else size.feedback_labels
    return facts | {
        "labels": ", ".join(f"{labels:,}" for labels in counts),
        "feedback": f"{size.more_steps} more steps; of {8 * size.candidates:,} images, drawn {precision}, a filter "
        f"keeps at most {8 * size.keep:,}",
        "images kept": "; ".join(f"{labels:,} labels: {_kept(plan, labels, size.seeds(table))}" for labels in counts),
    }


def _kept(plan: Plan, labels: int, seeds: int) -> str:
    """How many images the whole filter left, by seed."""
    folders = (plan.output / f"feedback/{labels}-{seed}/kept-filtered" for seed in range(seeds))
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
