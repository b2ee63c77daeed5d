"""Commands that stand on each other, each run when what it needs is there, several at a time."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from .files import write_whole

LAST_LINES = 5


class TaskError(RuntimeError):
    """A command failed; the message has its last lines and where the others are."""


@dataclass(frozen=True)
class Task:
    """A command with a name, and the names of those that must have ended before it starts.

    It has to go on where it was stopped when it is run again, as the scripts of this package do.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def config(self) -> str | None:
        """The YAML file with the command's settings; None where it has none."""
        return next((after for flag, after in pairwise(self.command) if flag == "--config"), None)


def script(module: str, config: str | Path, **flags: Any) -> tuple[str, ...]:
    """The command that runs a script of this package with a configuration file; None leaves a flag out."""
    command = [sys.executable, "-m", f"training.{module}", "--config", str(config)]
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
        ValueError: a task that has ended was another command, or had other settings; a name that occurs twice; a need
            of no task before.
        TaskError: a command failed. Those that ran beside it have come to their ends; the same call goes on.
    """
    _check(tasks, folder)
    left = {task.name: task for task in tasks if not _mark(folder, task).is_file()}
    running: dict[Future[None], str] = {}
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="task") as progress,
    ):
        waiting = dict(left)
        while waiting or running:
            ready = [task for task in waiting.values() if not any(need in left for need in task.needs)]
            for task in ready[: workers - len(running)]:
                running[pool.submit(_run, task, folder, workers)] = waiting.pop(task.name).name
            progress.set_postfix_str(", ".join(running.values()))
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                del left[name]
                progress.update()


def _check(tasks: Sequence[Task], folder: Path) -> None:
    before: set[str] = set()
    for task in tasks:
        if task.name in before or not before.issuperset(task.needs):
            raise ValueError(
                f"{task.name}: expected a name of its own and needs among the tasks before, {task.needs}."
            )
        before.add(task.name)
        mark = _mark(folder, task)
        if not mark.is_file():
            continue
        found, expected = _read(mark), _decisive(task)
        if found["command"] != expected["command"]:
            raise ValueError(
                f"{folder} holds a run of other arguments: expected {' '.join(expected['command'])}, found "
                f"{' '.join(found['command'])}. Give another folder, or the old arguments."
            )
        if found["config"] != expected["config"]:
            raise ValueError(
                f"{folder} holds a run of other settings: {task.name} was run when {task.config} said something else. "
                "Give another folder, or the old settings."
            )


def seconds(tasks: Sequence[Task], folder: Path) -> dict[str, float]:
    """How long each task took that has ended well."""
    return {task.name: _read(_mark(folder, task))["seconds"] for task in tasks if _mark(folder, task).is_file()}


def _decisive(task: Task) -> dict[str, Any]:
    """What a task that has ended must have been run with: its command, and what the settings in its file said."""
    settings = yaml.safe_load(Path(task.config).read_text(encoding="utf-8")) if task.config else None
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return {"command": list(task.command[1:]), "config": digest}


def _read(mark: Path) -> dict[str, Any]:
    return json.loads(mark.read_text(encoding="utf-8"))


def _mark(folder: Path, task: Task) -> Path:
    return folder / "done" / f"{task.name}.json"


def _run(task: Task, folder: Path, workers: int) -> None:
    log, mark, decisive = folder / "logs" / f"{task.name}.txt", _mark(folder, task), _decisive(task)
    for path in (log, mark):
        path.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    with log.open("a", encoding="utf-8") as file:
        environment, start = {"OMP_NUM_THREADS": threads} | os.environ, time.monotonic()
        code = subprocess.run(task.command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:])
        raise TaskError(
            f"{task.name} failed with {code}; the same command goes on from there. {log} ends with:\n{last}"
        )
    write_whole(mark, json.dumps(decisive | {"seconds": round(time.monotonic() - start, 1)}) + "\n")
