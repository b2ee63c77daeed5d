"""Model cards: the README.md of a training run's folder, with the metadata by which the Hub lists and finds it.

A card says what a run was given and what was measured, and nothing else; what is the same for all runs of a kind is in
`card_texts`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from uniemo_pipelines import EMOTIONS

from . import card_texts
from .card_texts import PAPER, CardText
from .files import write_whole
from .pooled_patches import is_pooled
from .reports import CURVES, Result, results_table

Kind = Literal["understanding", "baseline", "joint", "emotion_space", "textual_inversion"]

CARD = "README.md"
SHEETS = "validation"
"""Stage 2's sheets of validation images, of which the last is shown."""

_TEXTS: dict[str, CardText] = {
    "understanding": card_texts.UNDERSTANDING,
    "baseline": card_texts.BASELINE,
    "joint": card_texts.JOINT,
    "emotion_space": card_texts.EMOTION_SPACE,
    "textual_inversion": card_texts.TEXTUAL_INVERSION,
}
_UNDERSTANDING_LORA = "lora/adapter_config.json"
_BASE_LORA = "pytorch_lora_weights.safetensors"
_NOT_SHOWN = (
    "output output_dir logging_dir run_name private "  # where it goes
    "report_to disable_tqdm do_eval greater_is_better accelerator_config "  # the Trainer settles these itself
    "checkpoints_limit_gb latents prepared keep_images"  # how this machine keeps and reads
).split()


@dataclass(frozen=True, kw_only=True)
class CardContent:
    """What a card needs to know of a run.

    Attributes:
        kind: the stage.
        name: "owner/name" of the repository that it is published to, else the folder's name.
        base_model: name or folder of the CLIP or Stable Diffusion that was trained on; None if unknown.
        data: name or folder of the training data.
        arguments: those that differ from their defaults, as `changed_arguments` gives them.
        results: what was measured, in the order of the table.
        license: of what was trained. It is the author's to choose; a base whose licence goes over to adapters, as
            OpenRAIL's conditions of use do, needs its own here ("creativeml-openrail-m").
    """

    kind: Kind
    name: str
    base_model: str | None
    data: str
    arguments: Mapping[str, Any]
    results: Sequence[Result] = ()
    license: str = "apache-2.0"


def write_card(folder: str | os.PathLike[str], content: CardContent) -> Path:
    """Write README.md into a run's folder when all else is there: the card shows what the folder has.

    Returns:
        The file; one that was there is replaced when the new one is whole.
    """
    path = Path(folder, CARD)
    write_whole(path, str(make_card(path.parent, content)))
    return path


def make_card(folder: Path, content: CardContent) -> ModelCard:
    """The card of a run's folder."""
    text = _text(folder, content.kind)
    sections = [
        f"# {content.name.rpartition('/')[2]}: {text.title}",
        _summary(text, content),
        f"## How to use it\n\n```python\n{_code(text, content)}\n```\n\n{text.needs}",
        f"## Results\n\n{results_table(content.results)}",
        _pictures(folder),
        f"## Training\n\n{_arguments_table(content.arguments)}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in text.limits),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{_metadata(text, content).to_yaml()}\n---\n\n{body}\n")


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
    if isinstance(value, (str, Path)) and (os.path.isabs(value) or os.path.exists(value)):
        return Path(value).name
    return value


def _text(folder: Path, kind: Kind) -> CardText:
    text = _TEXTS[kind]
    if kind == "understanding":
        if (folder / _UNDERSTANDING_LORA).is_file():
            return card_texts.LORA
        return card_texts.POOLED_PATCHES if is_pooled(folder) else text
    if kind == "joint" and is_pooled(folder / "understanding"):
        text = card_texts.with_pooled_patches(text)
    if kind in ("joint", "emotion_space") and (folder / _BASE_LORA).is_file():
        text = card_texts.with_base_lora(text)
    return text


def _metadata(text: CardText, content: CardContent) -> ModelCardData:
    base, data = _hub_name(content.base_model), _hub_name(content.data)
    dataset = {"dataset_type": data or Path(content.data).name, "dataset_name": Path(content.data).name}
    results = [
        EvalResult(
            task_type=text.task,
            metric_type=result.metric,
            metric_value=float(_number(result.value)),
            dataset_split=result.split,
            **dataset,
        )
        for result in content.results
        if result.pictures is not None  # what was measured on a split, not a mean over the training
    ]
    return ModelCardData(
        license=content.license,
        library_name=text.library,
        pipeline_tag=text.task,
        tags=list(text.tags),
        base_model=base,
        base_model_relation=text.relation if base else None,
        datasets=[data] if data else None,
        model_name=content.name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _summary(text: CardText, content: CardContent) -> str:
    named = {"base": _linked(content.base_model), "data": _linked(content.data, "datasets/")}
    emotions = f"{', '.join(EMOTIONS[:-1])} and {EMOTIONS[-1]}"
    return text.summary.format(**named, emotions=emotions, paper=PAPER)


def _code(text: CardText, content: CardContent) -> str:
    place = content.name if "/" in content.name else _place(content.name)
    return text.code.strip().format(place=place, base_place=_place(content.base_model or "base"))


def _arguments_table(arguments: Mapping[str, Any]) -> str:
    """Every other argument had its default."""
    if not arguments:
        return "All arguments had their defaults."
    rows = [("argument", "value"), *((name, _cell(value)) for name, value in arguments.items())]
    return f"{_table(rows)}\n\nThe other arguments had their defaults."


def _cell(value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(f"`{str(one).replace('|', chr(92) + '|')}`" for one in values)


def _pictures(folder: Path) -> str:
    parts = []
    sheets = {int(path.stem.rpartition("-")[2]): path.name for path in (folder / SHEETS).glob("step-*.jpg")}
    if sheets:
        step = max(sheets)
        words = f"Above real pictures, below what their conditions drew after step {step}, a column an emotion:"
        parts.append(f"## Pictures\n\n{words}\n\n![Real and drawn pictures]({SHEETS}/{sheets[step]})")
    if (folder / CURVES).is_file():
        parts.append(f"## Curves\n\n![Losses and scores over the training]({CURVES})")
    return "\n\n".join(parts)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown's, the first row as the head."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


def _number(value: float) -> str:
    return f"{value:.5g}"


def _hub_name(name: str | None) -> str | None:
    """A name on the Hub; None for a folder of this machine, which is nobody else's matter."""
    if name is None or name.count("/") != 1 or os.path.exists(name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def _linked(name: str | None, prefix: str = "") -> str:
    if name is None:
        return "a stock base model"
    hub = _hub_name(name)
    return f"[{hub}](https://huggingface.co/{prefix}{hub})" if hub else f"`{Path(name).name}`"


def _place(name: str) -> str:
    """What a reader writes into code."""
    return _hub_name(name) or f"path/to/{Path(name).name}"
