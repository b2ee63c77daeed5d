"""From what the evaluations wrote to the figures that a table is made of."""

import json
import platform
from collections.abc import Sequence
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
        "commands": f"{len(spent)}, {sum(spent) / 3600:.1f} hours in all, those side by side counted each",
        "CLIP, zero-shot": ", ".join(f"{part} {share:.3f}" for part, share in zero_shot.items()),
        "measured on": f"{REAL_IMAGES[size.split]:,} images of the {size.split} split",
        "steps": f"stage 1 {size.stage1_steps} {precision}, stage 2 {size.stage2_steps}",
    }
    if table == "generation":
        return facts | {"labels": f"{size.labels:,}"} | _of_images(plan, precision)
    counts, arms = ([size.labels], ["filtered"]) if table == "understanding" else (size.feedback_labels, size.arms)
    steps = ", ".join(str(size.more_steps[labels]) for labels in counts)
    kept = (f"{labels:,} labels: {_kept(plan, labels, size.seeds(table), arms)}" for labels in counts)
    return facts | {
        "labels": ", ".join(f"{labels:,}" for labels in counts),
        "feedback": f"{steps} more steps; of {8 * size.candidates:,} images, drawn {precision}, a filter keeps at "
        f"most {8 * size.keep:,}, labelled with its own calibrated probabilities, at random too; the oracle's labels "
        "are the world's own",
        "what filters": f"knows {REAL_IMAGES['calibration']:,} labelled pictures besides, for temperature and "
        "threshold alone",
        "images kept": "; ".join(kept),
    }


def _of_images(plan: Plan, precision: str) -> dict[str, str]:
    """How images were drawn, and what they are compared with."""
    size, first = plan.size, plan.size.sets[0]
    drawn = _read(plan.output / f"sets/{first}-0/generation.json")
    held, real = 8 * size.images, _read(plan.measured(f"generation/{first}"))["generation"]["rows"][REAL]
    low, high = real["figures"]["emotion_accuracy"]["interval"]
    return {
        "images": f"{held:,} a set and seed, drawn {precision} with guidance {drawn['guidance']:g} and "
        f"{drawn['steps']} steps, rivals too",
        "real images": f"{held:,}, held out (95 % interval of their Emo-A {low:.3f} to {high:.3f}); every row is "
        f"compared with the {REAL_IMAGES[size.split] - held:,} others, its coverage with {held:,} of them",
        "judge": f"{size.judge.stem} alone: its emotion head, its attribute heads (total variation: the mean over "
        "scene, object and palette), its features; so Sem-C and Sem-D are not those of Places, ImageNet and CLIP",
        "mind": f"total variation and coverage depend on the number of images, here {size.images} of an emotion",
    }


def _kept(plan: Plan, labels: int, seeds: int, arms: Sequence[str]) -> str:
    """How many images the whole filter left, by seed, and which arm has another number."""

    def kept(arm: str) -> str:
        folders = (plan.output / f"feedback/{labels}-{seed}/kept-{arm}" for seed in range(seeds))
        return ", ".join(str(len(_read(folder / "train.json"))) for folder in folders)

    others = [f"{arm} {kept(arm)}" for arm in arms if arm != "none" and kept(arm) != kept("filtered")]
    return kept("filtered") + (f" ({'; '.join(others)})" if others else "")


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
