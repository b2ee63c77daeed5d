"""Typed arguments, from flags or from a section of a YAML file; a flag wins over the file."""

import sys
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

T = TypeVar("T")


class _Help(RawDescriptionHelpFormatter, ArgumentDefaultsHelpFormatter):
    """The script's own words as they are, and the defaults."""


@dataclass(kw_only=True)
class RunArguments(TrainingArguments):
    """transformers' own arguments of a run, with this project's defaults.

    Distribution is accelerate's: `accelerate launch --config_file ... -m training.train_understanding ...`.
    """

    _argument_group_name = "the run (transformers' TrainingArguments)"

    lr_scheduler_type: str = field(default="cosine", metadata={"help": "of the learning rates, over the whole run"})
    warmup_steps: float = field(default=0.05, metadata={"help": "steps of warm-up; below 1 their share of all steps"})
    logging_steps: float = field(default=1, metadata={"help": "steps between two records of the losses"})
    save_strategy: str = field(default="epoch", metadata={"help": "when checkpoints are written"})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "train on whole batches only"})
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available, metadata={"help": "for CUDA devices"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "leave it: the data have no such columns"})
    ddp_find_unused_parameters: bool = field(default=False, metadata={"help": "every trained parameter is used"})
    hub_strategy: str = field(default="end", metadata={"help": "results are pushed when the run has ended"})
    seed: int = field(default=0, metadata={"help": "decides everything random"})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "checkpoints that are kept, the newest; the best epoch's is one of them"}
    )
    checkpoints_limit_gb: float | None = field(
        default=None,
        metadata={"help": "gigabytes that the run's checkpoints may take together, also while one is written"},
    )
    license: str | None = field(
        default=None, metadata={"help": "of the weights, for the model card: apache-2.0, creativeml-openrail-m, ..."}
    )

    def __post_init__(self) -> None:
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # transformers takes bfloat16 on a processor, where it is told that this is meant
        super().__post_init__()
        for name, instead in UNUSED.items():
            if getattr(self, name) != RunArguments.__dataclass_fields__[name].default:
                raise ValueError(f"--{name} is not used here: {instead}.")


UNUSED = {
    "learning_rate": "parameters have rates by group, such as --queries_learning_rate; see --help",
    "weight_decay": "parameters have decays by group; see --help",
    "label_smoothing_factor": "the losses are the paper's",
    "data_seed": "--seed decides the order as well",
    "hub_strategy": "results are pushed once, at the end",
    "hub_always_push": "results are pushed once, at the end",
    "hub_revision": "results are pushed to the main branch",
    "resume_from_checkpoint": "the same command again goes on from the last checkpoint in --output_dir",
}
"""Arguments of transformers' own that would do nothing, and what does it instead."""


@overload
def parse(arguments: type[T], section: str, argv: Sequence[str] | None = None) -> T: ...
@overload
def parse(arguments: tuple[type, ...], section: str, argv: Sequence[str] | None = None) -> tuple[Any, ...]: ...
def parse(arguments: type | tuple[type, ...], section: str, argv: Sequence[str] | None = None) -> Any:
    """Read flags, and before them `section` of the file that `--config` names.

    Args:
        arguments: the dataclass to fill, or several that share the flags.
        section: the script's own section; keys of the section `common` are read first where the script knows them.
        argv: flags, `sys.argv[1:]` by default.

    Returns:
        The dataclass filled, or all of them in their order.

    Raises:
        SystemExit: argparse's message, for a missing, unknown or impossible argument, or a file without the section.
    """
    types = arguments if isinstance(arguments, tuple) else (arguments,)
    parser = HfArgumentParser(
        types,
        usage="%(prog)s [--config FILE.yaml] [--argument value ...]",
        description=sys.modules["__main__"].__doc__,
        formatter_class=_Help,
    )
    for action in parser._actions:
        if action.dest in UNUSED:
            action.help = SUPPRESS
    known = {known.name for one in types for known in fields(one)}
    if "config" not in known:  # a script that hands it on has it among its own
        parser.add_argument("--config", metavar="FILE.yaml", help=f"YAML file with a section {section!r}")
    argv = list(sys.argv[1:] if argv is None else argv)
    only_config = ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config")
    config = only_config.parse_known_args(argv)[0].config
    try:
        flags = flags_of(config, section, known) if config else []
        found = parser.parse_args_into_dataclasses(
            flags + argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if unknown := found[-1]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    return found[: len(types)] if isinstance(arguments, tuple) else found[0]


def flags_of(path: str | Path, section: str, known: set[str]) -> list[str]:
    """A YAML file's sections as the flags that they stand for, so that both go through the same checks.

    A key without a value leaves the argument's default.

    Raises:
        ValueError: as `settings_of`.
    """
    common, own = settings_of(path, section)
    common = {key: value for key, value in common.items() if key in known}
    flags = []
    for key, value in {**common, **own}.items():
        if value is not None:
            flags += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def settings_of(path: str | Path, section: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a YAML file says to a script: the section `common`, and the script's own.

    Raises:
        ValueError: the file has no such section, or is no YAML.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML; {' '.join(str(error).split())}.") from None
    sections = content if isinstance(content, dict) else {}
    if not isinstance(sections.get(section), dict):
        raise ValueError(f"{path}: expected a section {section!r}, found {', '.join(map(str, sections)) or 'none'}.")
    return sections.get("common") or {}, sections[section]


@dataclass(kw_only=True)
class SelectingRunArguments(RunArguments):
    """A run whose best epoch on the validation split is kept."""

    eval_strategy: str = field(default="epoch", metadata={"help": "when the validation split is read"})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "keep the best epoch, not the last"})
    metric_for_best_model: str = field(default="accuracy", metadata={"help": "what best means"})
    prediction_loss_only: bool = False
