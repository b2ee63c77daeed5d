"""Runs that are killed, spread over processes, given other arguments, or go wrong."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_sets import go_offline, write_parquet
from safetensors import SafetensorError
from safetensors.torch import load_file
from training_world import records, stage1, stage2, write_world

from training import train_joint, train_understanding
from training.engine import StageTrainer
from training.runs import Run, open_run

DRIVER = Path(__file__).parent / "stage_driver.py"
STAGES = {"stage1": (train_understanding.main, stage1), "stage2": (train_joint.main, stage2)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The world, and in it the folder of a stage-1 run."""
    world = write_world(tmp_path_factory.mktemp("world"))
    train_understanding.main(*stage1(world, world / "understanding"))
    return world


def run(stage: str, world: Path, output: Path, **changes) -> None:
    main, arguments = STAGES[stage]
    before = (world,) if stage == "stage1" else (world, world / "understanding")
    main(*arguments(*before, output, **changes))


def drive(launcher: list[str], stage: str, world: Path, output: Path, changes: dict, *flags: str) -> int:
    command = [*launcher, str(DRIVER), stage, str(world), str(output), json.dumps(changes), *flags]
    places = os.pathsep.join(map(str, (DRIVER.parent, DRIVER.parents[1])))
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": places}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(done.stderr[-3000:])
    return done.returncode


def figures(run: Path) -> list[dict[str, float]]:
    """The records of a run, without what depends on the clock."""
    timed = ("_runtime", "_per_second", "total_flos", "train_loss")
    log = json.loads((run / "training_log.json").read_text())
    kept = [{name: value for name, value in record.items() if not name.endswith(timed)} for record in log]
    return [record for record in kept if record.keys() - {"step", "epoch"}]


# ------------------------------------------------------------------------------------------------ killed and gone on

LONG = {
    "stage1": {"num_train_epochs": 6, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 3},
    "stage2": {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 3},
}
LONG["stage1"] |= {"eval_strategy": "steps", "eval_steps": 3}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("place", ["at", "in-checkpoint"])
def test_a_run_killed_anywhere_goes_on_with_the_same_losses(world, tmp_path, stage, place):
    run(stage, world, tmp_path / "whole", **LONG[stage])
    step = random.Random(stage).randint(4, 14) if place == "at" else random.Random(stage).choice([6, 9, 12])
    python = [sys.executable]
    killed = drive(python, stage, world, tmp_path / "killed", LONG[stage], f"--kill-{place}", str(step))
    assert killed == -signal.SIGKILL and not (tmp_path / "killed" / "results.json").exists()
    run(stage, world, tmp_path / "killed", **LONG[stage])
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole"), f"killed at step {step}"
    last = "checkpoint-24/model.safetensors" if stage == "stage1" else "checkpoint-16/model.safetensors"
    a, b = (load_file(tmp_path / name / last) for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_run_with_workers_that_live_on_goes_on_with_the_same_losses(world, tmp_path):
    changes = LONG["stage1"] | {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    changes |= {"save_total_limit": 1, "keep_images": False}
    run("stage1", world, tmp_path / "whole", **changes)
    assert drive([sys.executable], "stage1", world, tmp_path / "killed", changes, "--kill-at", "10") == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed").glob("checkpoint-*")]
    run("stage1", world, tmp_path / "killed", **changes)
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_run_stopped_after_its_last_step_is_finished_by_the_same_command(world, tmp_path, monkeypatch, stage):
    run(stage, world, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Run, "finish", lambda *args: (_ for _ in ()).throw(OSError("full")))
        run(stage, world, tmp_path / "stopped")
    run(stage, world, tmp_path / "stopped")
    assert figures(tmp_path / "stopped") == figures(tmp_path / "whole")
    names = ["model.safetensors"] if stage == "stage1" else ["uniemo_adapter.safetensors"]
    for a, b in ((load_file(tmp_path / folder / name) for folder in ("whole", "stopped")) for name in names):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_is_left_as_it_is(world, monkeypatch, tmp_path):
    shutil.copytree(world / "understanding", tmp_path / "again")
    arguments = stage1(world, world / "understanding")
    monkeypatch.setattr(StageTrainer, "train", lambda *args, **kwargs: pytest.fail("it trained again"))
    train_understanding.main(*arguments)
    assert all(
        (world / "understanding" / path.name).read_bytes() == path.read_bytes()
        for path in (tmp_path / "again").glob("*.safetensors")
    )


def test_a_moved_run_keeps_its_best_epoch(world, tmp_path, monkeypatch):
    changes = {"num_train_epochs": 3, "backbone_learning_rate": 1e-3}
    accuracies = iter((0.5, 0.25, 0.125) * 9)  # the first epoch is the best
    monkeypatch.setattr("training.engine.accuracy", lambda found: {"accuracy": next(accuracies), "pictures": 16})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Run, "finish", lambda *args: (_ for _ in ()).throw(OSError("full")))
        run("stage1", world, tmp_path / "before", **changes)
    (tmp_path / "before").rename(tmp_path / "after")
    run("stage1", world, tmp_path / "after", **changes)
    best = load_file(tmp_path / "after" / "checkpoint-2" / "model.safetensors")
    kept = load_file(tmp_path / "after" / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in best.items())


def test_a_folder_of_something_else_is_left_alone_and_a_typo_locks_nothing(world, tmp_path):
    with pytest.raises(ValueError, match="files of something else"):
        train_understanding.main(*stage1(world, world / "clip"))
    with pytest.raises(FileNotFoundError):
        train_understanding.main(*stage1(world, tmp_path / "run", validation_split="vall"))
    train_understanding.main(*stage1(world, tmp_path / "run"))


def test_a_run_without_a_record_is_finished(world, tmp_path):
    train_understanding.main(*stage1(world, tmp_path, logging_steps=100))
    assert (tmp_path / "results.json").is_file()


def test_weights_that_are_not_finite_are_never_a_result(world, tmp_path):
    changes = {
        "max_steps": 1,
        "load_best_model_at_end": False,
        **dict.fromkeys(("save_strategy", "eval_strategy"), "no"),
    }
    rates = dict.fromkeys(("backbone_learning_rate", "queries_learning_rate", "head_learning_rate"), 1e38)
    with pytest.raises(FloatingPointError, match="finite weights"):
        train_understanding.main(*stage1(world, tmp_path, **changes, **rates, warmup_steps=0))
    assert not (tmp_path / "model.safetensors").exists()


def test_changed_arguments_are_named(world, tmp_path):
    shutil.copytree(world / "understanding", tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(ValueError, match="num_scene_queries 2 -> 4; .*num_train_epochs 2 -> 3.*another --output_dir"):
        train_understanding.main(*stage1(world, tmp_path / "run", num_train_epochs=3, num_scene_queries=4))
    open_run(*reversed(stage1(world, tmp_path / "run", keep_images=False, logging_steps=7)))  # these decide nothing


# -------------------------------------------------------------------------------------------------- several processes

SPREAD = {
    "stage1": {
        "classifier_dropout": 0.0,
        "emotion_loss_weight": 0.4,
        "scene_loss_weight": 0.3,
        "object_loss_weight": 0.3,
    },
    "stage2": {"alignment_weight": 0.1, "latents": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(world, tmp_path, stage):
    changes = SPREAD[stage] | {"num_train_epochs": 3}
    if stage == "stage2":
        changes["latents"] = str(tmp_path / "latents")
    run(stage, world, tmp_path / "one", **changes, per_device_train_batch_size=4)
    shutil.rmtree(tmp_path / "latents", ignore_errors=True)  # two processes make a cache of their own
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    changes |= {"ddp_backend": "gloo", "per_device_train_batch_size": 2}
    assert drive(launcher, stage, world, tmp_path / "two", changes) == 0
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert len(one) == len(two) and len(one) >= 12
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"grad_norm"}:
            assert a[name] == pytest.approx(b[name], abs=1e-5), (name, a["step"])
        if "grad_norm" in a:
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_validate_each_picture_of_a_stream_once(world, tmp_path, monkeypatch):
    root = write_parquet(tmp_path / "set", files=2)
    shutil.copyfile(next((root / "data").glob("train-00000*")), root / "data" / "validation-00000-of-00001.parquet")
    for name, value in (("HF_DATASETS_CACHE", tmp_path / "cache"), ("HF_HUB_OFFLINE", 1)):
        monkeypatch.setenv(name, str(value))
    changes = {
        "data": str(root),
        "vocabulary": str(tmp_path / "info.json"),
        "validation_split": "validation",
        "streaming": True,
        "keep_images": False,
        "per_device_eval_batch_size": 4,  # of 15 pictures: an odd number of batches, the last of them short
        "max_steps": 2,
        "ddp_backend": "gloo",
        **dict.fromkeys(("save_strategy", "eval_strategy"), "steps"),
        **dict.fromkeys(("save_steps", "eval_steps"), 2),
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert drive(launcher, "stage1", world, tmp_path / "run", changes) == 0
    [result] = json.loads((tmp_path / "run" / "results.json").read_text())
    assert result["pictures"] == 15


def test_an_emotion_without_a_picture_is_refused(world, tmp_path):
    shutil.copytree(world / "emoset", tmp_path / "emoset")
    path = tmp_path / "emoset" / "train.json"
    path.write_text(json.dumps([row for row in json.loads(path.read_text()) if row[0] not in ("awe", "fear")]))
    with pytest.raises(ValueError, match="every emotion to train on, found none of awe, fear"):
        train_understanding.main(*stage1(world, tmp_path / "run", data=str(tmp_path / "emoset")))


def test_a_batch_larger_than_the_data_is_refused(world, tmp_path):
    with pytest.raises(ValueError, match="as many pictures as a step takes, 32; found 16"):
        train_understanding.main(*stage1(world, tmp_path, per_device_train_batch_size=32))


def test_accumulated_gradients_are_those_of_the_whole_batch(world, tmp_path):
    """Of losses that are means over pictures; a contrast sees the candidates of one small batch."""
    changes = {"classifier_dropout": 0.0, "scene_loss_weight": 0.0, "object_loss_weight": 0.0, "num_train_epochs": 4}
    run("stage1", world, tmp_path / "whole", **changes, per_device_train_batch_size=8)
    changes |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    run("stage1", world, tmp_path / "parts", **changes)
    for name in ("loss", "emotion", "grad_norm"):
        assert records(tmp_path / "parts", name) == pytest.approx(records(tmp_path / "whole", name), rel=1e-4)


# ----------------------------------------------------------------------------------------------------- what goes wrong


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_pictures(world, tmp_path, monkeypatch):
    losses_of, steps = train_understanding.losses_of, []

    def poisoned(model, batch):
        losses = dict(losses_of(model, batch))
        steps.append(1)
        if len(steps) == 4:
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    monkeypatch.setattr(train_understanding, "losses_of", poisoned)
    with pytest.raises(
        FloatingPointError, match=r"Step 4: expected finite losses, found loss nan.*train_000\d\d\.png"
    ):
        train_understanding.main(*stage1(world, tmp_path, num_train_epochs=3))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.setattr(train_understanding, "losses_of", losses_of)
    train_understanding.main(*stage1(world, tmp_path, num_train_epochs=3))  # goes on from the last good checkpoint
    assert torch.tensor(records(tmp_path, "loss")).isfinite().all()


def test_weights_that_are_not_finite_are_never_a_checkpoint(world, tmp_path, monkeypatch):
    def ruined(self, model, trial, save=StageTrainer._save_checkpoint):
        if self.state.global_step == 4:
            with torch.no_grad():
                model.classifier[0].weight[0, 0] = float("inf")
        save(self, model, trial)

    monkeypatch.setattr(StageTrainer, "_save_checkpoint", ruined)
    with pytest.raises(FloatingPointError, match=r"finite weights, found others in classifier\.0\.weight"):
        train_understanding.main(*stage1(world, tmp_path, num_train_epochs=3))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("kind", [OSError, RuntimeError, SafetensorError])
def test_a_full_disk_leaves_the_checkpoints_before(world, tmp_path, monkeypatch, kind):
    def full(self, folder, save=StageTrainer._save_optimizer_and_scheduler):
        if self.state.global_step == 4:
            raise kind("No space left on device")
        save(self, folder)

    monkeypatch.setattr(StageTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(OSError, match="checkpoint-4 could not be written .No space left.*the same command"):
        train_understanding.main(*stage1(world, tmp_path, num_train_epochs=3))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.undo()
    train_understanding.main(*stage1(world, tmp_path, num_train_epochs=3))


def test_checkpoints_stay_within_a_limit_also_while_one_is_written(world, tmp_path, monkeypatch):
    sizes = []

    def total() -> float:
        return sum(path.stat().st_size for path in tmp_path.glob("run/checkpoint-*/*")) / 1e9

    def watched(self, folder, save=StageTrainer._save_rng_state):
        save(self, folder)
        sizes.append(total())

    monkeypatch.setattr(StageTrainer, "_save_rng_state", watched)
    train_understanding.main(*stage1(world, tmp_path / "free", num_train_epochs=1))
    one = sum(path.stat().st_size for path in tmp_path.glob("free/checkpoint-2/*")) / 1e9
    limit = 3.5 * one
    sizes.clear()
    train_understanding.main(*stage1(world, tmp_path / "run", num_train_epochs=6, checkpoints_limit_gb=limit))
    assert len(sizes) == 6 and max(sizes) <= limit and max(sizes) > 2 * one
    with pytest.raises(ValueError, match="checkpoints_limit_gb of at least .* 3 checkpoints"):
        train_understanding.main(*stage1(world, tmp_path / "small", checkpoints_limit_gb=2.5 * one))
    assert not list((tmp_path / "small").glob("checkpoint-*"))


def test_two_checkpoints_are_kept_the_last_and_the_best(world, tmp_path, monkeypatch):
    accuracies = iter((0.5, 0.25, 0.125, 0.25, 0.25))
    monkeypatch.setattr("training.engine.accuracy", lambda found: {"accuracy": next(accuracies), "pictures": 16})
    train_understanding.main(*stage1(world, tmp_path, num_train_epochs=4))
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-8"}


def test_a_broken_picture_in_training_names_the_file_and_the_remedy(world, tmp_path):
    shutil.copytree(world / "emoset", tmp_path / "emoset")
    victim = next((tmp_path / "emoset" / "image").rglob("train_00002.png"))
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"train_00002\.png.*training\.prepare"):
        train_understanding.main(*stage1(world, tmp_path / "run", data=str(tmp_path / "emoset"), keep_images=False))


def test_class_balanced_sampling_reaches_the_trainer(world, tmp_path):
    """Seven emotions have one picture left, one has two: unbalanced, every picture comes once an epoch."""
    seen = []

    def spied(model, batch, losses_of=train_understanding.losses_of):
        seen.extend(batch["labels"].tolist())
        return losses_of(model, batch)

    shutil.copytree(world / "emoset", tmp_path / "emoset")
    rows = json.loads((tmp_path / "emoset" / "train.json").read_text())
    (tmp_path / "emoset" / "train.json").write_text(json.dumps(rows[:8] + [rows[0]] * 24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_understanding, "losses_of", spied)
        for balanced in (False, True):
            seen.clear()
            changes = {"data": str(tmp_path / "emoset"), "class_balanced": balanced, "num_train_epochs": 8}
            train_understanding.main(*stage1(world, tmp_path / str(balanced), **changes))
            share = seen.count(0) / len(seen)
            assert share == pytest.approx(25 / 32, abs=1e-6) if not balanced else share < 0.25


# ------------------------------------------------------------------------------------------------------------- streams


@pytest.mark.slow
def test_a_stream_trains_and_goes_on_after_a_kill(world, tmp_path, monkeypatch):
    """Over its end and on: 30 pictures, 15 steps of 4."""
    go_offline(tmp_path, monkeypatch)
    write_parquet(tmp_path / "set")
    changes = {
        "data": str(tmp_path / "set"),
        "vocabulary": str(tmp_path / "info.json"),
        "streaming": True,
        "validation_split": "train",
        "keep_images": False,
        "max_steps": 15,
        "per_device_train_batch_size": 4,
        **dict.fromkeys(("save_strategy", "eval_strategy"), "steps"),
        **dict.fromkeys(("save_steps", "eval_steps"), 4),
    }
    run("stage1", world, tmp_path / "whole", **changes)
    assert len(records(tmp_path / "whole", "emotion")) == 15 and records(tmp_path / "whole", "eval_pictures")[0] == 30
    assert drive([sys.executable], "stage1", world, tmp_path / "killed", changes, "--kill-at", "11") == -signal.SIGKILL
    run("stage1", world, tmp_path / "killed", **changes)
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
