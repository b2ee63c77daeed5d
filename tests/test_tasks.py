"""Commands that stand on each other."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from training.tasks import Task, TaskError, run_tasks, script


def task(folder: Path, name: str, needs: tuple[str, ...] = (), code: str = "") -> Task:
    """A command that adds its name to a file, after it has run `code`."""
    line = f"import os, time; {code or 'pass'}; open({str(folder / 'order.txt')!r}, 'a').write('{name}\\n')"
    return Task(name, ("run_code", line), needs)


def order(folder: Path) -> list[str]:
    return (folder / "order.txt").read_text().split()


@pytest.mark.parametrize("workers", [1, 3])
def test_each_runs_once_after_what_it_needs(tmp_path, workers):
    tasks = [
        task(tmp_path, "a", code="time.sleep(0.3)"),
        task(tmp_path, "b", needs=("a",)),
        task(tmp_path, "c"),
        task(tmp_path, "d", needs=("b", "c")),
    ]
    run_tasks(tasks, tmp_path, workers)
    found = order(tmp_path)
    assert sorted(found) == ["a", "b", "c", "d"] and found.index("a") < found.index("b") and found[-1] == "d"
    assert (found[0] == "c") == (workers > 1)
    run_tasks(tasks, tmp_path, workers)
    assert len(order(tmp_path)) == 4


def test_a_failure_keeps_what_is_done_and_shows_its_last_lines(tmp_path):
    broken = "os.path.exists('mended') or exit('no room')"
    tasks = [
        task(tmp_path, "a"),
        task(tmp_path, "b", needs=("a",), code=f"os.chdir({str(tmp_path)!r}); exec({broken!r})"),
        task(tmp_path, "c", needs=("b",)),
    ]
    with pytest.raises(TaskError, match=r"b failed with 1.*b\.txt ends with:\nno room"):
        run_tasks(tasks, tmp_path)
    assert order(tmp_path) == ["a"]
    (tmp_path / "mended").touch()
    run_tasks(tasks, tmp_path)
    assert order(tmp_path) == ["a", "b", "c"]


def test_what_runs_beside_a_failure_comes_to_its_end(tmp_path):
    tasks = [task(tmp_path, "a", code="exit(3)"), task(tmp_path, "b", code="time.sleep(1)")]
    for _ in range(2):
        with pytest.raises(TaskError, match="a failed with 3"):
            run_tasks(tasks, tmp_path, 2)
    assert order(tmp_path) == ["b"]


def test_threads_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    code = "import os, torch; print(os.environ['OMP_NUM_THREADS'], torch.get_num_threads())"
    run_tasks([Task("a", ("run_code", code))], tmp_path, 4)
    assert (tmp_path / "logs" / "a.txt").read_text() == "2 2\n"


def test_other_arguments_and_missing_needs_are_refused(tmp_path):
    run_tasks([task(tmp_path, "a")], tmp_path)
    with pytest.raises(ValueError, match="holds a run of other arguments"):
        run_tasks([task(tmp_path, "a", code="1")], tmp_path)
    with pytest.raises(ValueError, match="b: expected a name of its own and needs among the tasks before"):
        run_tasks([task(tmp_path, "b", needs=("c",))], tmp_path)


def configured(folder: Path, settings: str) -> list[Task]:
    """A task with the settings, and one that stands on it."""
    config = folder / "a.yaml"
    config.write_text(settings)
    code = f"open({str(folder / 'order.txt')!r}, 'a').write('a\\n')"
    return [Task("a", ("run_code", code, "--config", str(config))), task(folder, "b", needs=("a",))]


def test_settings_of_a_step_that_changed_meanwhile_are_refused(tmp_path):
    run_tasks(configured(tmp_path, "run_code: {b: 1}"), tmp_path)
    run_tasks(configured(tmp_path, "run_code: {b: 1} # as before\nother: {c: 2}"), tmp_path)
    assert order(tmp_path) == ["a", "b"]
    for changed in ("run_code: {b: 2}", "common: {seed: 1}\nrun_code: {b: 1}"):
        with pytest.raises(ValueError, match="other settings: a was run when the section run_code of .*a.yaml was"):
            run_tasks(configured(tmp_path, changed), tmp_path)


def test_a_refusal_says_what_to_remove(tmp_path):
    tasks = configured(tmp_path, "run_code: {b: 1}")
    run_tasks([*tasks, task(tmp_path, "c")], tmp_path)
    with pytest.raises(ValueError) as refusal:
        run_tasks(configured(tmp_path, "run_code: {b: 2}"), tmp_path)
    removed = str(refusal.value).partition("rm -r ")[2].split()
    assert removed == [str(tmp_path / name) for name in ("done/a.json", "done/b.json")]
    for path in removed:
        Path(path).unlink()
    run_tasks(configured(tmp_path, "run_code: {b: 2}"), tmp_path)
    assert order(tmp_path) == ["a", "b", "c", "a", "b"]


def test_a_training_is_removed_with_its_folder_which_knows_its_arguments(tmp_path):
    for path in ("model", "corpus", "done"):
        (tmp_path / path).mkdir()
    for name in ("model", "corpus"):
        (tmp_path / f"done/{name}.json").write_text(json.dumps({"command": ["other"]}))  # as an older version wrote it
    tasks = [Task("model", ("training.train_joint",)), Task("corpus", ("training.generate",), ("model",))]
    with pytest.raises(ValueError, match="expected training.train_joint, found other") as refusal:
        run_tasks(tasks, tmp_path)
    removed = str(refusal.value).partition("rm -r ")[2].split()
    assert removed == [str(tmp_path / name) for name in ("done/model.json", "done/corpus.json", "model")]


def test_a_section_that_a_later_step_lacks_is_found_before_the_first(tmp_path):
    _, first = configured(tmp_path, "other: {b: 1}")
    last = Task("last", ("run_code", "pass", "--config", str(tmp_path / "a.yaml")))
    with pytest.raises(ValueError, match="expected a section 'run_code', found other"):
        run_tasks([replace(first, needs=()), last], tmp_path)
    assert not (tmp_path / "order.txt").exists()


def test_a_command_does_not_outlive_the_call(tmp_path):
    marks = [f"open({str(tmp_path / name)!r}, 'w').close()" for name in ("begun", "outlived")]
    code = f"import time; {marks[0]}; time.sleep(3); {marks[1]}"
    call = f"from training.tasks import *; run_tasks([Task('a', ('run_code', {code!r}))], Path({str(tmp_path)!r}))"
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(tests.parent)}
    with subprocess.Popen([sys.executable, "-c", call], cwd=tests, env=environment) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    time.sleep(4)
    assert not (tmp_path / "outlived").exists()


def test_no_worker_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--workers of at least 1, found 0"):
        run_tasks([task(tmp_path, "a")], tmp_path, workers=0)


def test_a_script_has_its_flags():
    command = script("prepare", "a.yaml", data="b", half=None, generated=["c", "d"], seed=3)
    assert command == (
        *("training.prepare", "--config", "a.yaml"),
        *("--data", "b", "--generated", "c", "d", "--seed", "3"),
    )
