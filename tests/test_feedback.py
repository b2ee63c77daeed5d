"""Rounds of explicit feedback: who filters what, and a run of the whole on tiny models."""

import json
from pathlib import Path

import pytest
import yaml
from task_commands import check_commands, flags
from training_world import write_clip, write_stable_diffusion

from training import feedback
from training.config import parse, settings_of
from training.feedback import FeedbackArguments, Round
from training.miniemoset.dataset import write_dataset
from training.tasks import Task
from uniemo_pipelines.fusion_uniemo import EMOTIONS

CONFIG = "training/configs/miniemoset.yaml"


def rounds(count: int, config: str = CONFIG, **changes: object) -> dict[str, Task]:
    arguments = FeedbackArguments(config=config, output="out", rounds=count, **changes)
    found = [task for number in range(1, count + 1) for task in Round(arguments, number).tasks()]
    return {task.name: task for task in found}


@pytest.mark.parametrize("start", [None, "runs/mini/joint/understanding"])
def test_every_command_is_understood_and_waits_for_what_it_reads(start):
    check_commands(list(rounds(3, start=start, subset=800).values()), Path("out"))


def test_the_configuration_for_emoset_has_every_steps_section():
    config = "training/configs/emoset.yaml"
    assert parse(FeedbackArguments, "feedback", ["--config", config]).images
    for task in rounds(2, config).values():
        assert settings_of(config, task.section)


def test_no_corpus_is_filtered_by_a_model_that_its_generator_could_please():
    found = rounds(3, start="a")
    for number in (1, 2, 3):
        for half in (0, 1):
            kept = flags(found[f"round-{number}/kept-{half}"])
            assert kept["corpora"] == [f"out/round-{number}/corpus-{half}"]
            (judge,) = kept["models"]
            told = flags(found[judge.removeprefix("out/")])
            assert told["half"] == [str(1 - half)] and "generated" not in told and "start" not in told
            generator = flags(found[f"round-{number}/generator-{half}"])
            model = flags(found[generator["understanding"][0].removeprefix("out/")])
            assert generator["half"] == model["half"] == [str(half)]
            assert model.get("generated", []) == [f"out/round-{one}/kept-{half}" for one in range(1, number)]


def test_no_filter_keeps_what_one_before_it_kept_and_no_corpus_has_the_noise_of_another():
    found = rounds(2)
    guarded = [flags(found[f"round-{n}/kept-{half}"]).get("guarded_folders", []) for n in (1, 2) for half in (0, 1)]
    kept = [f"out/round-{number}/kept-{half}" for number in (1, 2) for half in (0, 1)]
    assert guarded == [kept[:number] for number in range(4)]
    seeds = [flags(found[f"round-{number}/corpus-{half}"])["seed"] for number in (1, 2) for half in (0, 1)]
    assert len(set(map(tuple, seeds))) == 4


def test_the_result_learns_from_all_that_was_kept():
    model = flags(rounds(2)["round-2/understanding"])
    assert model["generated"] == [f"out/round-{number}/kept-{half}" for number in (1, 2) for half in (0, 1)]
    assert "half" not in model and "start" not in model
    going_on = rounds(2, start="first")
    assert flags(going_on["round-1/understanding"])["start"] == ["first"]
    assert flags(going_on["round-2/understanding"])["start"] == ["out/round-1/joint/understanding"]


def test_numbers_that_make_no_round_are_refused():
    with pytest.raises(ValueError, match="--rounds of at least 1, found 0"):
        FeedbackArguments(config=CONFIG, output="out", rounds=0)
    FeedbackArguments(config=CONFIG, output="out", rounds=2, seed=531)
    with pytest.raises(ValueError, match="--seed from 0 to 531, found 532: each of 2 rounds"):
        FeedbackArguments(config=CONFIG, output="out", rounds=2, seed=532)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A little of MiniEmoSet, models of 32 px, and settings for a few steps."""
    write_dataset(tmp_path / "data", {"train": 64, "val": 64, "calibration": 64})
    write_clip(tmp_path / "clip")
    write_stable_diffusion(tmp_path / "base")
    quick = {"use_cpu": True, "per_device_train_batch_size": 8, "save_strategy": "no", "max_steps": 2}
    skipped = ["faithful", "clear", "manifold", "diverse"]  # models of two steps let nothing through
    sections = {
        "common": {"data": f"{tmp_path}/data", "keep_images": True},
        "understanding": {
            **quick,
            "clip": f"{tmp_path}/clip",
            "num_scene_queries": 2,
            "num_object_queries": 2,
            "classifier_hidden": 32,
            "eval_strategy": "no",
            "load_best_model_at_end": False,
        },
        "joint": {**quick, "base": f"{tmp_path}/base", "resolution": 32, "bank_size": 2, "rank": 2},
        "generate": {"base": f"{tmp_path}/base", "batch_size": 4, "steps": 1},
        "filter_generated": {"extractor": f"{tmp_path}/clip", "skip": skipped},
        "feedback": {"output": f"{tmp_path}/out", "images": 4, "keep": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(sections))
    return tmp_path


@pytest.mark.slow
def test_two_rounds_end_in_an_adapter_and_go_on_from_one(world, capsys):
    asked = ["--config", f"{world}/config.yaml"]
    feedback.main(parse(FeedbackArguments, "feedback", asked))
    first = {path: path.stat().st_mtime_ns for path in world.glob("out/done/**/*.json")}
    feedback.main(parse(FeedbackArguments, "feedback", [*asked, "--rounds", "2"]))
    assert len(first) == 10 and len(list(world.glob("out/done/**/*.json"))) == 20
    assert all(path.stat().st_mtime_ns == then for path, then in first.items()), "the first round is not done again"

    last = world / "out" / "round-2"
    assert (last / "joint/uniemo_adapter.safetensors").is_file()
    told = json.loads((last / "understanding/arguments.json").read_text())["decisive"]
    assert len(told["generated"]) == 4 and all(Path(one, "train.json").is_file() for one in told["generated"])
    lines = (world / "out/rounds.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1", "| 2"]
    assert "round-2/joint" in capsys.readouterr().out
    corpora = [json.loads((world / f"out/round-{number}/corpus-0/generation.json").read_text()) for number in (1, 2)]
    assert corpora[0]["seed"] != corpora[1]["seed"] and len(EMOTIONS) * corpora[0]["images"] == 32
