"""Model cards: the README.md of a folder that is published, with the metadata by which the Hub lists and finds it.

A card is made from what the folder has: the model itself, how it was made and measured (`training_records_uniemo`),
and pictures. What is the same for all folders of a kind is in `card_texts_uniemo`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open

from .adapters_uniemo import ADAPTER_NAME
from .card_licences_uniemo import licence_lines, license_of
from .card_texts_uniemo import (
    ADAPTER,
    ADAPTER_WITH_CODE,
    PAPER,
    PIPELINE,
    TEXTUAL_INVERSION,
    UNDERSTANDING,
    UNDERSTANDING_BY_LORA,
    CardText,
    for_xl,
    with_base_lora,
    with_several_vectors,
    without_understanding,
)
from .card_usages_uniemo import Usage
from .fusion_uniemo import EMOTIONS
from .training_records_uniemo import (
    CONTACT_SHEET,
    RECORD,
    Result,
    TrainingRecord,
    copy_records,
    hub_name,
    public_name,
    read_record,
    read_results,
    results_table,
    write_record,
    write_results,
)

CARD = "README.md"
CURVES = "curves.png"
SHEETS = "validation"
"""Stage 2's sheets of validation images, of which the last is shown."""

_BASE_LORA = "pytorch_lora_weights.safetensors"
_EMBEDDING = f"{EMOTIONS[1]}.safetensors"
_EMBEDDING_TAG = "textual_inversion"


def write_card(folder: str | os.PathLike[str], name: str | None = None, text: CardText | None = None) -> Path:
    """Write README.md into a folder when all else is there, for the card shows what the folder has.

    Args:
        folder: what is published: a full pipeline, an adapter, an understanding model, or textual inversions.
        name: "owner/name" of the repository that it is published to; the folder's name unless given.
        text: the card's words; those for what the folder holds unless given.

    Returns:
        The file; one that was there is replaced when the new one is whole.

    Raises:
        ValueError: the folder holds nothing of the kind, or a damaged record.
    """
    path = Path(folder, CARD)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(str(make_card(folder, name, text)), encoding="utf-8")
    partial.replace(path)
    return path


def make_card(folder: str | os.PathLike[str], name: str | None = None, text: CardText | None = None) -> ModelCard:
    """The card of a folder; see `write_card`."""
    folder = Path(folder)
    name, text = name or folder.resolve().name, text or text_of(folder)
    record = _known(folder)
    results = [result for result in read_results(folder) if _concerns(result, text)]
    sections = [
        f"# {name.rpartition('/')[2]}: {text.title}",
        _summary(text, record),
        record.about,
        _contact_sheet(folder, text),
        _how_to_use(text, record, name, _variant(folder)),
        f"## Results\n\n{results_table(results)}",
        record.measured if results else "",
        _pictures(folder),
        f"## Training\n\n{_arguments(record.arguments)}",
        f"## Intended use\n\n{text.intended}",
        _bullets("Limits", [*text.limits, *record.limits]),
        _bullets("Risks", text.risks),
        _bullets("Licences", licence_lines(record.license, record.base_model, record.data)),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{_metadata(text, record, results, name).to_yaml()}\n---\n\n{body}\n")


def add_card(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str] | None,
    name: str | None = None,
    base_model: str | None = None,
) -> Path:
    """Write the card of an export, from what lies beside the adapter that it was made of; see `write_card`.

    What holds for the export goes into its folder too.

    Args:
        folder: the export.
        source: the folder of the adapter; None where nothing is known of it.
        name: "owner/name" of the repository that it is for; the folder's name unless given.
        base_model: of a pipeline on another base than the adapter was trained on, for which nothing holds that was
            found of drawing with that one.
    """
    _take_records(Path(folder), Path(source or folder), base_model)
    return write_card(folder, name)


def _take_records(folder: Path, source: Path, base_model: str | None) -> None:
    """Of textual inversions, which are not what was measured, no figures; of an understanding model the record in its
    own folder, where that has one."""
    text = text_of(folder)
    if text.task == UNDERSTANDING.task:
        own = source / "understanding"
        if (own / RECORD).is_file():
            copy_records(own, folder)
        else:
            clip = json.loads(_header(source).get("chain") or "{}").get("clip")
            write_record(folder, replace(read_record(source), base_model=clip, call={}, measured="", limits=()))
    elif _EMBEDDING_TAG in text.tags:
        write_record(folder, replace(_known(source), measured="", limits=()))
    else:
        copy_records(source, folder)
        known = _known(folder)  # an adapter's own file first: in its source there may be several
        known = replace(known, base_model=known.base_model or _known(source).base_model)
        if base_model is not None and known.base_model not in (None, base_model):
            write_results(folder, [result for result in read_results(source) if result.task == UNDERSTANDING.task])
            (folder / CONTACT_SHEET).unlink(missing_ok=True)
            known = replace(known, call={}, measured="")
        write_record(folder, replace(known, base_model=base_model or known.base_model))


def text_of(folder: Path) -> CardText:
    """The words for what a folder holds.

    Raises:
        ValueError: nothing that there are words for.
    """
    if (folder / "model_index.json").is_file():
        text = PIPELINE if (folder / "understanding").is_dir() else without_understanding(PIPELINE)
        return for_xl(text) if (folder / "text_encoder_2").is_dir() else text
    if (folder / ADAPTER_NAME).is_file():
        return _adapter_text(folder)
    if (folder / _EMBEDDING).is_file():
        return _embedding_text(folder / _EMBEDDING)
    if (folder / "config.json").is_file():
        return UNDERSTANDING_BY_LORA if (folder / "lora" / "adapter_config.json").is_file() else UNDERSTANDING
    raise ValueError(
        f"{folder}: expected a pipeline (model_index.json), an adapter ({ADAPTER_NAME}), textual inversions "
        f"({_EMBEDDING}) or an understanding model (config.json) to write a model card for, found none."
    )


def _adapter_text(folder: Path) -> CardText:
    text = ADAPTER_WITH_CODE if (folder / "pipeline.py").is_file() else ADAPTER
    if (folder / _BASE_LORA).is_file():
        text = with_base_lora(text)
    header = _header(folder)
    if not (header.get("understanding") or header.get("chain")):
        text = without_understanding(text)
    encoders = json.loads(header["configuration"])["condition_dims"]
    return for_xl(text) if len(encoders) > 1 else text


def _embedding_text(file: Path) -> CardText:
    with safe_open(file, framework="pt") as opened:
        [name, *others] = opened.keys()
        vectors = opened.get_slice(name).get_shape()[0]
    text = TEXTUAL_INVERSION if vectors == 1 else with_several_vectors(TEXTUAL_INVERSION, vectors)
    return for_xl(text) if others else text


def _header(folder: Path) -> Mapping[str, str]:
    """The metadata of the folder's adapter file; empty where it has none."""
    if not (folder / ADAPTER_NAME).is_file():
        return {}
    with safe_open(folder / ADAPTER_NAME, framework="pt") as file:
        return file.metadata() or {}


def _known(folder: Path) -> TrainingRecord:
    """The folder's record; its base by the adapter file, where the record names none."""
    record = read_record(folder)
    base = record.base_model or _header(folder).get("base_model")
    return replace(record, base_model=public_name(base or None), data=public_name(record.data))


def _concerns(result: Result, text: CardText) -> bool:
    """A pipeline draws and understands, and shows figures of both; a classifier those of its own task."""
    return result.task in (None, text.task) or text.library == "diffusers"


def _metadata(text: CardText, record: TrainingRecord, results: Sequence[Result], name: str) -> ModelCardData:
    base, data = hub_name(record.base_model), hub_name(record.data)
    measured = [
        EvalResult(
            task_type=result.task or text.task,
            dataset_type=data or record.data or "unknown",
            dataset_name=(record.data or "unknown").rpartition("/")[2],
            dataset_split=result.split,
            metric_type=result.metric,
            metric_value=float(f"{result.value:.5g}"),
        )
        for result in results
        if result.pictures is not None and result.of is None  # of the model, on a split; no mean over its training
    ]
    return ModelCardData(
        license=license_of(record.license, base),
        library_name=text.library,
        pipeline_tag=text.task,
        tags=list(text.tags),
        base_model=base,
        base_model_relation=text.relation if base else None,
        datasets=[data] if data else None,
        model_name=name.rpartition("/")[2] if measured else None,
        eval_results=measured or None,
    )


def _summary(text: CardText, record: TrainingRecord) -> str:
    named = {
        "base": _linked(record.base_model, "a stock base model"),
        "data": _linked(record.data, "data that are not named here", "datasets/"),
    }
    summary = text.summary.format(**named, emotions=_emotions(), paper=PAPER)
    return summary[:1].upper() + summary[1:]


def _emotions() -> str:
    return f"{', '.join(EMOTIONS[:-1])} and {EMOTIONS[-1]}"


def _contact_sheet(folder: Path, text: CardText) -> str:
    if text.task != "text-to-image" or not (folder / CONTACT_SHEET).is_file():
        return ""
    return f"![Rows of pictures, one for each emotion]({CONTACT_SHEET})\n\nFrom above: {_emotions()}."


def _variant(folder: Path) -> str | None:
    """The variant that a pipeline's weights are there in alone; None where they are there without one."""
    names = [file.name.split(".") for file in (folder / "unet").glob("*.safetensors")]
    return names[0][1] if names and all(len(parts) > 2 for parts in names) else None


def _how_to_use(text: CardText, record: TrainingRecord, name: str, variant: str | None) -> str:
    options = ", ".join(f'"{argument}": {value!r}' for argument, value in record.call.items())
    named = {
        "place": name if "/" in name else f"path/to/{name}",
        "base_place": hub_name(record.base_model) or f"path/to/{record.base_model or 'base'}",
        "options": f"options = {{{options}}}\n" if options else "",
        "call": ", **options" if options else "",
        "variant": f', variant="{variant}"' if variant else "",
    }
    usages = [_usage(usage, named) for usage in text.usages if "/" in name or not usage.on_hub]
    if len(usages) == 1:
        usages = [usages[0].partition("\n\n")[2]]  # a heading for one is one too many
    return "\n\n".join(["## How to use it", *usages])


def _usage(usage: Usage, named: Mapping[str, str]) -> str:
    parts = [f"### {usage.title}", f"```python\n{usage.code.strip().format(**named)}\n```", usage.note]
    return "\n\n".join(part for part in parts if part)


def _arguments(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of each stage's; every other argument had its default."""
    if not stages:
        return "Its arguments are not known here."
    return "\n\n".join(_stage(name, arguments) for name, arguments in stages.items())


def _stage(name: str, arguments: Mapping[str, Any]) -> str:
    if not arguments:
        return f"All arguments of the stage `{name}` had their defaults."
    rows = [("argument", "value"), *((name, _cell(value)) for name, value in arguments.items())]
    summary = f"<summary>Arguments of the stage <code>{name}</code>; all others had their defaults</summary>"
    return f"<details>{summary}\n\n{_table(rows)}\n\n</details>"


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


def _bullets(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown's, the first row as the head."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


def _linked(name: str | None, unknown: str, prefix: str = "") -> str:
    if name is None:
        return unknown
    return f"[{name}](https://huggingface.co/{prefix}{name})" if hub_name(name) else f"`{name}`"
