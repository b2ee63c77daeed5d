"""Typed arguments, from flags or from a section of a YAML file; a flag wins over the file."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers import HfArgumentParser

T = TypeVar("T")


@dataclass(kw_only=True)
class LoopArguments:
    """What every training script takes."""

    data: str = field(metadata={"help": "folder in EmoSet's layout"})
    output: str = field(metadata={"help": "folder to write"})
    epochs: int = field(metadata={"help": "passes over the training split"})
    batch_size: int = field(metadata={"help": "samples of one step on one process"})
    warmup_ratio: float = field(default=0.05, metadata={"help": "share of the steps with a rising learning rate"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "longer gradients are cut to this norm"})
    mixed_precision: str = field(default="no", metadata={"help": "arithmetic", "choices": ["no", "fp16", "bf16"]})
    num_workers: int = field(default=0, metadata={"help": "processes that read pictures"})
    keep_images: bool = field(default=False, metadata={"help": "keep decoded pictures in memory"})
    seed: int = field(default=0, metadata={"help": "decides everything random"})


def parse(arguments: type[T], section: str, argv: Sequence[str] | None = None) -> T:
    """Read flags, and before them `section` of the file that `--config` names.

    Args:
        arguments: the dataclass to fill.
        section: the script's own section; keys of the section `common` are read first where the script knows them.
        argv: flags, `sys.argv[1:]` by default.

    Raises:
        SystemExit: argparse's message, for a missing or unknown argument or one of the wrong type.
    """
    parser = HfArgumentParser(arguments)
    parser.add_argument("--config", metavar="FILE.yaml", help=f"YAML file with a section {section!r}")
    argv = list(sys.argv[1:] if argv is None else argv)
    only_config = ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config")
    config = only_config.parse_known_args(argv)[0].config
    flags = flags_of(config, section, known=set(arguments.__dataclass_fields__)) if config else []
    filled, _, unknown = parser.parse_args_into_dataclasses(
        flags + argv, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    return filled


def flags_of(path: str | Path, section: str, known: set[str]) -> list[str]:
    """A YAML file's sections as the flags that they stand for, so that both go through the same checks.

    Raises:
        ValueError: the file has no such section.
    """
    content: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if section not in content:
        raise ValueError(f"{path}: expected a section {section!r}, found {', '.join(content)}.")
    common = {key: value for key, value in content.get("common", {}).items() if key in known}
    flags = []
    for key, value in {**common, **content[section]}.items():
        flags += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return flags
