"""What a plan of tasks says, looked at without running it."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from training.config import RunArguments, SelectingRunArguments, parse
from training.data import DataArguments
from training.tasks import Task

ARGUMENTS = {
    "train_understanding": (DataArguments, "UnderstandingArguments", SelectingRunArguments),
    "train_baseline": (DataArguments, "FineTuningArguments", SelectingRunArguments),
    "train_joint": (DataArguments, "JointArguments", RunArguments),
    "train_textual_inversion": (DataArguments, "InversionArguments", RunArguments),
    "reproducing.more_real": ("Arguments",),
    "generate": ("GenerationArguments",),
    "generate_prompted": ("PromptedArguments",),
    "filter_generated": (DataArguments, "FilterArguments"),
    "evaluate": (DataArguments, "EvaluationArguments"),
}
"""By script, the dataclasses that its flags fill."""


def understood(command: Sequence[str]) -> tuple[ModuleType, tuple[Any, ...]]:
    """A script's module, and its arguments as its flags fill them."""
    module = import_module(command[0])
    script = command[0].removeprefix("training.")
    types = tuple(getattr(module, one) if isinstance(one, str) else one for one in ARGUMENTS[script])
    return module, parse(types, Task(script, tuple(command)).section, list(command[1:]))


def flags(task: Task) -> dict[str, list[str]]:
    """A command's flags with their values."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in task.command[1:]:
        if word.startswith("--"):
            values = found[word[2:]] = []
        else:
            values.append(word)
    return found


def check_commands(tasks: Sequence[Task], output: Path) -> None:
    """Each command's flags are understood by its script, and what it reads is written by tasks that it waits for."""
    before: set[str] = set()
    needed: dict[str, set[str]] = {}
    for task in tasks:
        assert task.name not in before and before.issuperset(task.needs)
        before.add(task.name)
        needed[task.name] = set(task.needs).union(*(needed[need] for need in task.needs))
        if task.command[0].removeprefix("training.") not in ARGUMENTS:
            continue
        understood(task.command)
        for flag, values in flags(task).items():
            if flag in ("output", "output_dir", "latents", "features", "observed"):
                continue
            for value in values:
                if value.startswith(f"{output}/"):
                    name = value.removeprefix(f"{output}/")
                    assert any(name == need or name.startswith(f"{need}/") for need in needed[task.name]), (
                        task,
                        value,
                    )
