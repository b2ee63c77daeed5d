"""What the model card of a run's folder says: its words by the stage, and which of its arguments."""

import os
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from uniemo_pipelines.card_texts_uniemo import CardText
from uniemo_pipelines.cards_uniemo import text_of

from .card_texts import BASELINE, INVERSION, POOLED_PATCHES, refitted, with_pooled_patches
from .pooled_patches import is_pooled

Kind = Literal["understanding", "baseline", "joint", "emotion_space", "textual_inversion"]

_NOT_SHOWN = (
    "output output_dir logging_dir run_name private "  # where it goes
    "license "  # which has a place of its own
    "report_to disable_tqdm do_eval greater_is_better accelerator_config "  # the Trainer settles these itself
    "checkpoints_limit_gb latents prepared keep_images"  # how this machine keeps and reads
).split()


def run_text(folder: Path, kind: Kind) -> CardText:
    """The words for the folder that a stage wrote."""
    if kind == "baseline":
        return BASELINE
    if kind == "textual_inversion":
        return INVERSION
    if kind == "understanding":
        return POOLED_PATCHES if is_pooled(folder) else text_of(folder)
    text = text_of(folder)
    if kind == "emotion_space":
        return refitted(text)
    return with_pooled_patches(text) if is_pooled(folder / "understanding") else text


def changed_arguments(arguments: Any) -> dict[str, Any]:
    """The fields of a dataclass of arguments that have no default or differ from it, and that are a reader's business.

    Left out are tokens, whatever concerns publishing and reporting, and where the output is. Of a path only the last
    part is kept.
    """
    changed = {}
    for own in fields(arguments):
        value, default = getattr(arguments, own.name), _default(own)
        empty = not value and not default  # None that a class turns into False or [] when it is made
        if own.init and value != default and not empty and not _is_private(own.name):
            changed[own.name] = _without_path(value)
    return changed


def _default(own: Field) -> Any:
    return own.default if own.default_factory is MISSING else own.default_factory()


def _is_private(name: str) -> bool:
    return name in _NOT_SHOWN or name.endswith("token") or name.startswith(("hub_", "push_to_hub"))


def _without_path(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_without_path(one) for one in value]
    if isinstance(value, (str, Path)) and (os.path.isabs(value) or os.path.exists(value)):
        return Path(value).name
    return value
