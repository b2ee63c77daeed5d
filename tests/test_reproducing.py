"""The reproduction's plan, and its way from evaluations to tables; nothing is trained here."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from task_commands import check_commands, flags
from training_world import write_emoset

from training import reproduce
from training.backbones.clip import new_clip
from training.data import DataArguments, read_rows
from training.data.choosing import choose
from training.evaluate import POOLED, REAL
from training.reproduce import ReproductionArguments
from training.reproducing import facts, half_clip, measuring, rows
from training.reproducing.more_real import Arguments, main
from training.reproducing.plan import SIZES, WIDE_HEAD, Plan
from training.tasks import Task
from training.train_baseline import PlainClassifier, PlainClassifierConfig
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

CONFIG = "training/configs/reproduction.yaml"


def planned(size: str, tables: Sequence[str] = rows.TABLES) -> dict[str, Task]:
    return {task.name: task for task in Plan(SIZES[size], CONFIG, Path("out"), tables).tasks()}


@pytest.mark.parametrize("size", SIZES)
def test_every_command_is_understood_and_waits_for_what_it_reads(size):
    check_commands(list(planned(size).values()), Path("out"))


def test_the_full_size_has_every_row_and_the_numbers_of_seeds_that_were_promised():
    full = SIZES["full"]
    assert (full.understanding_seeds, full.generation_seeds) == (8, 5)
    assert list(full.understanding) == [row.name for row in rows.UNDERSTANDING]
    assert {row.name for row in rows.GENERATION} <= set(full.sets)
    assert set(full.arms) == {row.name for row in rows.FEEDBACK}
    assert full.feedback_labels == (400, 800, 1600, 3200)
    assert 8 * full.images * full.generation_seeds >= 2000, "what a Fréchet distance takes"


def test_the_test_split_and_the_final_judge_are_the_full_sizes_alone_and_for_measuring():
    for size in SIZES:
        for task in planned(size).values():
            final = [word for word in task.command if "final_judge" in word or word == "test"]
            assert not final or size == "full" and task.name.startswith("measured/"), task


def test_nothing_is_measured_before_all_is_made():
    found = planned("full")
    made = {name for name in found if not name.startswith("measured/")}
    assert all(set(task.needs) == made for name, task in found.items() if name not in made)


@pytest.mark.parametrize(("bf16", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_stage_1_and_every_image_are_of_the_precision_asked_for(bf16, dtype):
    for task in Plan(SIZES["full"], CONFIG, Path("out"), bf16=bf16).tasks():
        module, *words = task.command
        if module in ("training.train_understanding", "training.train_baseline"):
            assert ("--bf16" in words) == bf16, task
        elif module in ("training.generate", "training.generate_prompted"):
            assert words[words.index("--dtype") + 1] == dtype, task


@pytest.mark.parametrize("table", rows.TABLES)
def test_a_table_by_itself_takes_what_it_needs_and_takes_it_as_all_of_them_do(table):
    """So that tables can be made one after another, in one folder or on several machines."""
    whole, alone = planned("full"), planned("full", [table])
    check_commands(list(alone.values()), Path("out"))
    assert {name.split("/")[1] for name in alone if name.startswith("measured/")} == {table}
    assert all(task.command == whole[name].command for name, task in alone.items())
    asked = [name for name, task in alone.items() if any("final_judge" in word for word in task.command)]
    assert bool(asked) == (table == "generation")


def test_rows_of_a_seed_share_their_labels_and_differ_in_what_they_are_named_for():
    found = planned("full")
    for seed in range(SIZES["full"].understanding_seeds):
        for row in ("baseline", "wide_head", "queries", "contrast", "joint", "detached"):
            asked = flags(found[f"trained/{row}-{seed}"])
            assert (asked["subset"], asked["seed"]) == (["800"], [str(seed)])
    joint, detached = (flags(found[f"trained/{row}-3"]) for row in ("joint", "detached"))
    assert {name for name in joint.keys() | detached.keys() if joint.get(name) != detached.get(name)} == {
        *("output_dir", "latents", "implicit_feedback")
    }


def test_feedback_is_cross_fitted_and_all_its_arms_have_equal_steps():
    found = planned("full")
    for labels in SIZES["full"].feedback_labels:
        cell = f"feedback/{labels}-1"
        asked = {arm: flags(found[f"{cell}/{arm}"]) for arm in SIZES["full"].arms}
        assert len({(one["max_steps"][0], one["start"][0], one["seed"][0]) for one in asked.values()}) == 1
        assert {arm: one.get("generated") for arm, one in asked.items()} == {
            "none": None,
            **{arm: [f"out/{cell}/kept-{arm}"] for arm in SIZES["full"].arms if arm != "none"},
        }
        assert all(one["subset"] == [str(labels)] for one in asked.values())
        assert int(asked["none"]["max_steps"][0]) * 32 >= labels, "an epoch at least"
        generator, kept = flags(found[f"{cell}/generator"]), flags(found[f"{cell}/kept-filtered"])
        assert generator["half"] == ["0"] and kept["models"] == [f"out/{cell}/model-1"]
        assert flags(found[f"{cell}/model-1"])["half"] == ["1"]


def more_real(world: Path, **changes: int) -> list[list[str]]:
    """The entries of as many more images as `kept` has."""
    numbers = {"subset": 8, "pool": 16, "seed": 0} | changes
    places = {name: str(world / name) for name in ("data", "output")}
    main(Arguments(**places, as_many_as=str(world / "kept"), **numbers))
    return json.loads((world / "output" / "train.json").read_text())


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Two pictures an emotion, and a filter's folder with one of awe and one of fear."""
    write_emoset(tmp_path / "data")
    entries = json.loads((tmp_path / "data/train.json").read_text())
    shutil.copytree(tmp_path / "data", tmp_path / "kept")
    kept = [next(entry for entry in entries if entry[0] == emotion) for emotion in ("awe", "fear")]
    (tmp_path / "kept/train.json").write_text(json.dumps(kept))
    return tmp_path


def test_more_real_images_are_as_many_of_each_emotion_and_not_those_known_already(world):
    found = more_real(world)
    assert [entry[0] for entry in found] == ["awe", "fear"]
    rows = read_rows(DataArguments(data=str(world / "data")), "train")
    known = {Path(row.picture.name).name for row in choose(rows, 8, None, seed=0)}
    assert known.isdisjoint(Path(entry[-2]).name for entry in found)
    read = read_rows(DataArguments(data=str(world / "output")), "train")
    assert [row.label for row in read] == [EMOTIONS.index("awe"), EMOTIONS.index("fear")]
    assert all(row.picture.open().size == (40, 36) and row.probabilities is None for row in read)


def test_more_real_images_than_the_pool_has(world):
    with pytest.raises(ValueError, match="1 more of awe in --pool, found 0"):
        more_real(world, pool=8)


@pytest.mark.parametrize(("known", "refused"), [(0.45, "missed its gate"), (0.6, None), (0.8, "more than half")])
def test_a_clip_that_knows_half_knows_no_more(known, refused, tmp_path, monkeypatch):
    (tmp_path / "gate.json").write_text(json.dumps({"zero shot": {"scene": 1.0, "object": known}}))
    monkeypatch.setattr(half_clip, "component", lambda name, make: tmp_path)
    monkeypatch.setattr(half_clip, "render_chunk", lambda stream, start, stop: ())
    if refused is None:
        half_clip.main()
    else:
        with pytest.raises(SystemExit, match=refused):
            half_clip.main()


def test_a_wide_head_has_the_parameters_of_queries_blocks_and_head():
    clip = new_clip(100, 99)
    vision = clip.config.vision_config
    model = UniEmoUnderstandingModel.from_clip(clip, num_scene_queries=8, num_object_queries=8, classifier_hidden=128)
    wide = PlainClassifier(PlainClassifierConfig(**vision.to_dict(), classifier_hidden=WIDE_HEAD))
    parts = ("scene_queries", "object_queries", "scene_interaction", "object_interaction", "classifier")
    whole = sum(value.numel() for part in parts for value in getattr(model, part).parameters())
    assert sum(value.numel() for value in wide.classifier.parameters()) == pytest.approx(whole, rel=1e-3)


def evaluated(task: Task) -> dict:
    """What an evaluation of a task's folders might write: other numbers for each folder."""
    asked, figure = flags(task), lambda number: {"value": 0.5 + 0.01 * number, "interval": None}
    if "models" in asked:
        scores = {
            folder: {"figures": {name: figure(len(folder) + index) for name in measuring.UNDERSTANDING}}
            for index, folder in enumerate(asked["models"])
        }
        return {"understanding": {"models": scores}}
    found = {
        folder: {
            "figures": {name: figure(index) | {"interval": [0.4, 0.6]} for name in measuring.GENERATION},
            "spaces": {"judge": {name: figure(2 * index) for name in measuring.IN_SPACE}},
        }
        for index, folder in enumerate([REAL, *asked["generated"]])
    }
    pooled = {row: {"judge": {"frechet_distance": figure(9)}} for row in (REAL, POOLED)}
    return {"generation": {"rows": found, "pooled": pooled}}


@pytest.mark.parametrize("size", SIZES)
def test_evaluations_become_tables_and_figures(size, tmp_path, monkeypatch, capsys):
    def run(task: Task) -> None:
        for name in ("output", "output_dir"):
            for folder in flags(task).get(name, []):
                Path(folder).mkdir(parents=True, exist_ok=True)
                (Path(folder) / "train.json").write_text("[1, 2]" if "1/kept-random" in folder else "[1, 2, 3]")
                (Path(folder) / "generation.json").write_text('{"guidance": 2.0, "steps": 8}')
        if task.command[0] == "training.evaluate":
            Path(flags(task)["output"][0], "evaluation.json").write_text(json.dumps(evaluated(task)))
        if task.name in ("data", "trained/contrast-0"):
            mark = tmp_path / size / "done" / f"{task.name}.json"
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text('{"seconds": 3600}')

    monkeypatch.setattr(reproduce, "run_tasks", lambda tasks, folder, workers: [run(task) for task in tasks])
    monkeypatch.setattr(facts, "RUNS", tmp_path)
    (tmp_path / "half_clip").mkdir()
    (tmp_path / "half_clip/gate.json").write_text('{"zero shot": {"scene": 1.0, "object": 0.48}}')
    reproduce.main(ReproductionArguments(config=CONFIG, size=size, output=str(tmp_path), workers=2))
    text = (tmp_path / size / "reproduction.md").read_text()
    assert text in capsys.readouterr().out and ("Smoke test" in text) == (size == "small")
    for row in (*rows.UNDERSTANDING, *rows.GENERATION):
        planned_rows = (*SIZES[size].understanding, *SIZES[size].sets)
        assert (f"| {row.title} |" in text) == (row.name in planned_rows), row
    assert "object 0.480" in text and "800 labels: 3, 3" in text
    assert "random 3, 2" in text and "guidance 2 and 8 steps" in text and "Emo-A 0.400 to 0.600" in text
    assert text.count("- commands: 2, 2.0 hours") == len(rows.TABLES), "each table's own"
    results = {table: json.loads((tmp_path / size / f"{table}.json").read_text()) for table in rows.TABLES}
    accuracies = results["understanding"]["understanding"]["joint"]["accuracy"]
    assert len(accuracies) == SIZES[size].understanding_seeds
    coverage = results["generation"]["generation"]["complete"]["coverage"]
    assert coverage[1] == 0.5 + 0.01 * 4, "of the second set, after real images"
    for name in ("understanding", "curves", "feedback"):
        assert (tmp_path / size / f"{name}.png").stat().st_size > 10_000
