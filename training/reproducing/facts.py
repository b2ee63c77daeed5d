"""What is to be said of a table beside its figures: on what, with what and how long."""

import platform
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..config import settings_of
from ..evaluate import REAL
from ..make_mini import RUNS
from ..runs import read_json
from ..tasks import seconds
from .half_clip import HALF_CLIP
from .plan import REAL_IMAGES, Plan


def facts(plan: Plan, table: str) -> dict[str, str]:
    """By name, in the order in which they are read."""
    precision = f"in {'bfloat16' if plan.bf16 else 'float32'}"
    shared = _of_all(plan, table, precision)
    if table == "generation":
        return shared | _of_images(plan, precision)
    if table == "understanding":
        return shared | _of_feedback(plan, [plan.size.labels], plan.size.seeds(table), ["filtered"], precision)
    arms = [arm for arm in plan.size.arms if arm != "none"]
    return shared | _of_feedback(plan, plan.size.feedback_labels, plan.size.seeds(table), arms, precision)


def _of_all(plan: Plan, table: str, precision: str) -> dict[str, str]:
    size = plan.size
    zero_shot = read_json(RUNS / HALF_CLIP / "gate.json")["zero shot"]
    spent = seconds(replace(plan, tables=[table]).tasks(), plan.output).values()
    return {
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "commands": f"{len(spent)}, {sum(spent) / 3600:.1f} hours in all, those side by side counted each",
        "CLIP, zero-shot": ", ".join(f"{part} {share:.3f}" for part, share in zero_shot.items()),
        "measured on": f"{REAL_IMAGES[size.split]:,} images of the {size.split} split",
        "steps": f"stage 1 {size.stage1_steps} {precision}, stage 2 {size.stage2_steps}",
    }


def _of_images(plan: Plan, precision: str) -> dict[str, str]:
    """How images were drawn, and what they are compared with."""
    size, first = plan.size, plan.size.sets[0]
    drawn = read_json(plan.output / f"sets/{first}-0/generation.json")
    held, real = 8 * size.images, read_json(plan.measured(f"generation/{first}"))["generation"]["rows"][REAL]
    low, high = real["figures"]["emotion_accuracy"]["interval"]
    return {
        "labels": f"{size.labels:,}",
        "images": f"{held:,} a set and seed, drawn {precision} with guidance {drawn['guidance']:g} and "
        f"{drawn['steps']} steps, rivals too, but where a curve says another",
        "real images": f"{held:,}, held out (95 % interval of their Emo-A {low:.3f} to {high:.3f}); every row is "
        f"compared with the {REAL_IMAGES[size.split] - held:,} others, its coverage with {held:,} of them",
        "judge": f"{size.judge.stem} alone: its emotion head, its attribute heads (total variation: the mean over "
        "scene, object and palette), its features; so Sem-C and Sem-D are not those of Places, ImageNet and CLIP",
        "mind": f"total variation and coverage depend on the number of images, here {size.images} of an emotion",
    }


def _of_feedback(plan: Plan, counts: Sequence[int], seeds: int, arms: Sequence[str], precision: str) -> dict[str, str]:
    """What was added to each number of labels, and what the labels of it are."""
    size = plan.size
    steps = ", ".join(str(size.more_steps[labels]) for labels in counts)
    _, asked = settings_of(plan.config, "filter_generated")
    return {
        "labels": ", ".join(f"{labels:,}" for labels in counts),
        "feedback": f"{steps} more steps of stage 1 from its model of all labels, no stage 2 after; of "
        f"{8 * size.candidates:,} images that one half's generator drew {precision} the other half's model keeps at "
        f"most {8 * size.keep:,}, labelled with its own calibrated probabilities, at random too; the oracle's labels "
        "are the world's own",
        "what filters": f"{asked['precision']:.0%} precision on {REAL_IMAGES['calibration']:,} labelled pictures that "
        "it knows besides, for this threshold and its temperature alone",
        "images kept": "; ".join(f"{labels:,} labels: {_kept(plan, labels, seeds, arms)}" for labels in counts),
    }


def _kept(plan: Plan, labels: int, seeds: int, arms: Sequence[str]) -> str:
    """How many images the whole filter left, by seed, and which arm has another number."""

    def kept(arm: str) -> str:
        folders = (plan.output / f"feedback/{labels}-{seed}/kept-{arm}" for seed in range(seeds))
        return ", ".join(str(len(read_json(folder / "train.json"))) for folder in folders)

    others = [f"{arm} {kept(arm)}" for arm in arms if kept(arm) != kept("filtered")]
    return kept("filtered") + (f" ({'; '.join(others)})" if others else "")
