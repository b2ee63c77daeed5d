"""Commands that stand on each other, each run when what it needs is there, several at a time.

Importing torch, diffusers and transformers takes longer than many a command: one process imports everything, and each
command is a fork of it.
"""

import hashlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .config import settings_of
from .files import write_whole

LAST_LINES = 5


class TaskError(RuntimeError):
    """A command failed; the message has its last lines and where the others are."""


@dataclass(frozen=True)
class Task:
    """A command with a name, and the names of those that must have ended before it starts.

    The command is what follows `python -m`, a module and its arguments. It has to go on where it was stopped when it
    is run again, as the scripts of this package do.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def config(self) -> str | None:
        """The YAML file with the command's settings; None where it has none."""
        return next((after for flag, after in pairwise(self.command) if flag == "--config"), None)

    @property
    def section(self) -> str:
        """The script's own section of that file: "joint" is that of training.train_joint."""
        return self.command[0].rpartition(".")[2].removeprefix("train_")

    @property
    def trains(self) -> bool:
        """Whether it is a training, which goes on in its folder only with the arguments that it had."""
        return self.command[0].rpartition(".")[2].startswith("train_")


def script(module: str, config: str | Path, **flags: Any) -> tuple[str, ...]:
    """The command that runs a script of this package with a configuration file; None leaves a flag out."""
    command = [f"training.{module}", "--config", str(config)]
    for name, value in flags.items():
        if value is not None:
            command += [f"--{name}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return tuple(command)


def run_tasks(tasks: Sequence[Task], folder: Path, workers: int = 1) -> None:
    """Run all that has not been run yet; the processor's threads are shared out among those that run together.

    Args:
        tasks: in an order in which they could run one by one.
        folder: where the log of each is kept, and a mark of each that has ended well.
        workers: how many run at a time.

    Raises:
        ValueError: no worker; a name that occurs twice; a need of no task before; a configuration without a script's
            section; a task that has ended with other arguments, or other settings in that section.
        TaskError: a command failed. Those that ran beside it have come to their ends; the same call goes on.
    """
    if workers < 1:
        raise ValueError(f"Expected --workers of at least 1, found {workers}.")
    _check(tasks, folder)
    left = {task.name: task for task in tasks if not _mark(folder, task).is_file()}
    context, running, failure = _context(tasks), dict[int, _Running](), None
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="task") as progress:
        waiting = dict(left)
        while running or (waiting and failure is None):
            able = [] if failure else [task for task in waiting.values() if left.keys().isdisjoint(task.needs)]
            for task in able[: workers - len(running)]:
                one = _start(context, waiting.pop(task.name), folder, workers)
                running[one.process.sentinel] = one
            progress.set_postfix_str(", ".join(one.task.name for one in running.values()))
            for sentinel in wait(list(running)):
                one = running.pop(sentinel)
                if error := _end(one, folder):
                    failure = failure or error
                else:
                    del left[one.task.name]
                    progress.update()
    if failure is not None:
        raise failure


def _check(tasks: Sequence[Task], folder: Path) -> None:
    changed, before = [], set[str]()
    for task in tasks:
        if task.name in before or not before.issuperset(task.needs):
            raise ValueError(
                f"{task.name}: expected a name of its own and needs among the tasks before, {task.needs}."
            )
        before.add(task.name)
        expected, mark = _decisive(task), _mark(folder, task)
        if mark.is_file() and any(_read(mark).get(name) != value for name, value in expected.items()):
            changed.append(task)
    if changed:
        raise ValueError(_refusal(changed, tasks, folder))


def _refusal(changed: Sequence[Task], tasks: Sequence[Task], folder: Path) -> str:
    """What is said of tasks that have ended and would now be others, and of what stands on them."""
    first, stale = changed[0], {task.name for task in changed}
    found, expected = _read(_mark(folder, first)), _decisive(first)
    if found["command"] != expected["command"]:
        change = f"other arguments: expected {' '.join(expected['command'])}, found {' '.join(found['command'])}"
    else:
        change = f"other settings: {first.name} was run when the section {first.section} of {first.config} was another"
    for task in tasks:
        if not stale.isdisjoint(task.needs):
            stale.add(task.name)
    paths = [_mark(folder, task) for task in tasks if task.name in stale]
    paths += [folder / task.name for task in tasks if task.name in stale and task.trains]
    paths = [path for path in paths if path.exists()]
    return (
        f"{folder} holds a run of {change}. Put the old ones back, or give another folder; to run anew what has "
        f"changed and all that stands on it: rm -r {' '.join(map(str, paths))}"
    )


def seconds(tasks: Sequence[Task], folder: Path) -> dict[str, float]:
    """How long each task took that has ended well."""
    return {task.name: _read(_mark(folder, task))["seconds"] for task in tasks if _mark(folder, task).is_file()}


def _decisive(task: Task) -> dict[str, Any]:
    """What a task that has ended must have been run with: its command, and what its file says to its script."""
    settings = settings_of(task.config, task.section) if task.config else None
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return {"command": list(task.command), "settings": digest}


def _read(mark: Path) -> dict[str, Any]:
    return json.loads(mark.read_text(encoding="utf-8"))


def _mark(folder: Path, task: Task) -> Path:
    return folder / "done" / f"{task.name}.json"


def _log(folder: Path, task: Task) -> Path:
    return folder / "logs" / f"{task.name}.txt"


@dataclass(frozen=True)
class _Running:
    task: Task
    process: BaseProcess
    began: float
    decisive: dict[str, Any]


def _context(tasks: Sequence[Task]) -> BaseContext:
    """Forks of a process that has imported the tasks' modules; new processes where there is no fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({task.command[0] for task in tasks}))
    return context


def _start(context: BaseContext, task: Task, folder: Path, workers: int) -> _Running:
    log, decisive = _log(folder, task), _decisive(task)
    for path in (log, _mark(folder, task)):
        path.parent.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers)
    process = context.Process(target=_become, args=(task.command, log, int(threads)))
    process.start()
    return _Running(task, process, time.monotonic(), decisive)


def _become(command: Sequence[str], log: Path, threads: int) -> None:
    """Be what `python -m` makes of the command, with all that it says in its log, for as long as `run_tasks` lives."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of its own processes; torch read it when it was imported
    torch.set_num_threads(threads)
    sys.argv = list(command)
    sys.modules.pop(command[0], None)  # it is to be run, not to be imported
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    """A command that outlived the call which waits for it would be at work beside the one that takes its place."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _end(one: _Running, folder: Path) -> TaskError | None:
    """Mark a command that has ended well; what is to be said of one that has not."""
    one.process.join()
    if code := one.process.exitcode:
        log = _log(folder, one.task)
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:])
        return TaskError(
            f"{one.task.name} failed with {code}; the same command goes on from there. {log} ends with:\n{last}"
        )
    seconds = round(time.monotonic() - one.began, 1)
    write_whole(_mark(folder, one.task), json.dumps(one.decisive | {"seconds": seconds}) + "\n")
    return None
