"""Commands that stand on each other."""

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


def test_settings_that_changed_meanwhile_are_refused(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("b: 1")
    code = f"open({str(tmp_path / 'order.txt')!r}, 'a').write('a\\n')"
    tasks = [Task("a", ("run_code", code, "--config", str(config)))]
    run_tasks(tasks, tmp_path)
    config.write_text("b: 1 # as before")
    run_tasks(tasks, tmp_path)
    assert order(tmp_path) == ["a"]
    config.write_text("b: 2")
    with pytest.raises(ValueError, match=r"other settings: a was run when .*a\.yaml said something else"):
        run_tasks(tasks, tmp_path)


def test_a_script_has_its_flags():
    command = script("prepare", "a.yaml", data="b", half=None, generated=["c", "d"], seed=3)
    assert command == (
        *("training.prepare", "--config", "a.yaml"),
        *("--data", "b", "--generated", "c", "d", "--seed", "3"),
    )
