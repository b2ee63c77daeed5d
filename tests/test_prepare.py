"""The check of a data set before training: what is listed, what training leaves out, and going on after a stop."""

import json
from pathlib import Path

import pytest
import torch
from hub_sets import COUNT, go_offline, picture_bytes, write_parquet
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from training_world import OBJECTS, SCENES, SIZE, write_clip, write_emoset
from transformers import CLIPImageProcessorPil, HfArgumentParser

from training.data import (
    DataArguments,
    EvaluationTransform,
    PictureSample,
    Vocabulary,
    attribute_statistics,
    open_split,
    open_vocabulary,
    read_rows,
)
from training.prepare import PrepareArguments, main
from training.preparing import checking, classifying
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    go_offline(tmp_path, monkeypatch)


@pytest.fixture
def root(tmp_path):
    return write_emoset(tmp_path / "emoset")


def prepare(root: Path, **options) -> Path:
    """The folder that a run writes."""
    output = root.parent / "prepared"
    main(PrepareArguments(**{"data": str(root), "output": str(output), "num_workers": 0, **options}))
    return output


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def spoil(root: Path) -> None:
    """In the training split: a picture missing, one damaged, one no picture; an emotion, scene and object unknown."""
    folder = root / "image"
    (folder / "awe/train_00001.png").unlink()
    damaged = folder / "fear/train_00006.png"
    damaged.write_bytes(damaged.read_bytes()[:80])
    (folder / "sadness/train_00007.png").write_text("no picture")
    rows = json.loads((root / "train.json").read_text())
    rows[10][0] = "joy"
    (root / "train.json").write_text(json.dumps(rows))
    (root / "annotation/anger/train_00012.json").unlink()
    strange = {"scene": "moon base", "object": ["Kite", "Ghost ship"]}
    (root / "annotation/excitement/train_00011.json").write_text(json.dumps(strange))


def test_a_good_data_set_is_counted(root, capsys):
    output = prepare(root)
    summary = json.loads((output / "summary.json").read_text())
    train = summary["splits"]["train"]
    assert list(summary["splits"]) == ["train", "val"]
    assert (train["pictures"], train["broken"], train["usable"]) == (16, 0, 16)
    assert set(train["emotions"].values()) == {2} and len(train["emotions"]) == 8
    assert train["scenes"]["bakery shop"] == 4  # pictures 1, 7, 10 and 13
    assert train["without_scene"] == 5 and train["without_objects"] == 5  # of 16, and 3 has no annotation
    assert (output / "broken.jsonl").read_text() == (output / "unknown.jsonl").read_text() == ""
    report = (output / "report.md").read_text()
    assert "| train | 16 | 0 | 16 | 2 | 2 |" in report and "Nothing is wrong." in report
    assert report in capsys.readouterr().out
    assert Image.open(output / "counts.png").width > 900
    assert not list(output.glob("*.partial"))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_is_listed_and_left_out_of_training(root, workers):
    spoil(root)
    output = prepare(root, num_workers=workers)
    broken = {line["name"]: line["reason"] for line in read_lines(output / "broken.jsonl")}
    assert set(broken) == {
        f"image/{name}.png" for name in ("awe/train_00001", "fear/train_00006", "sadness/train_00007")
    }
    assert "no such file" in broken["image/awe/train_00001.png"]
    assert "damaged or cut short" in broken["image/fear/train_00006.png"]
    assert "expected a picture" in broken["image/sadness/train_00007.png"]
    unknown = {(line["kind"], line["name"]): line["pictures"] for line in read_lines(output / "unknown.jsonl")}
    gone = ("annotation", "annotation/anger/train_00012.json")
    assert unknown == {("emotion", "joy"): 1, ("scene", "moon base"): 1, ("object", "Ghost ship"): 1, gone: 1}
    report = (output / "report.md").read_text()
    assert "train: unknown emotion 'joy' at 1 pictures" in report and "pictures are left out" in report
    assert "train: 1 annotations are missing, for example annotation/anger/train_00012.json" in report
    arguments = DataArguments(data=str(root), prepared=str(output))
    rows = read_rows(arguments, "train")
    assert [Path(row.picture.name).stem[-2:] for row in rows] == [
        f"{n:02d}" for n in range(16) if n not in (1, 6, 7, 10)
    ]
    assert [row.index for row in rows] == [*range(12)]
    assert [row.objects for row in rows if row.picture.name.endswith("00011.png")] == [(OBJECTS.index("Kite"),)]
    assert all(row.picture.open() for row in rows)
    assert len(read_rows(arguments, "val")) == 16


def test_an_emotion_without_a_picture_is_an_error_after_all_is_written(root):
    rows = [row for row in json.loads((root / "train.json").read_text()) if row[0] not in ("anger", "fear")]
    (root / "train.json").write_text(json.dumps(rows))
    with pytest.raises(
        SystemExit, match="expected pictures of every emotion in the split 'train', found none of anger, f"
    ):
        prepare(root)
    output = root.parent / "prepared"
    assert "train: no picture of anger, fear" in (output / "report.md").read_text()
    assert (output / "statistics.safetensors").is_file() and (output / "counts.png").is_file()


def test_a_data_set_without_the_training_split_is_refused(root):
    with pytest.raises(ValueError, match="expected a split 'learn', found train, val; --train_split names another"):
        prepare(root, train_split="learn")


# ---------------------------------------------------------------------------------------------------- going on again


def count_openings(monkeypatch) -> list[str]:
    opened, look = [], checking.fault
    monkeypatch.setattr(checking, "fault", lambda entry: opened.append(entry.name) or look(entry))
    return opened


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same(root, monkeypatch, tmp_path):
    spoil(root)
    prepare(root, output=str(tmp_path / "whole"))
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.jsonl")}
    opened, look = [], checking.fault

    def stop(entry):
        if len(opened) == 20:
            raise KeyboardInterrupt
        opened.append(entry.name)
        return look(entry)

    monkeypatch.setattr(checking, "CHUNK", 4)
    monkeypatch.setattr(checking, "fault", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(root)
    output = root.parent / "prepared"
    assert not (output / "summary.json").exists()
    with (output / "checked.jsonl").open("a") as file:
        file.write('{"split": "val", "na')  # the line that it was writing
    monkeypatch.setattr(checking, "fault", look)
    again = count_openings(monkeypatch)
    prepare(root)
    assert len(again) == 12 + 3  # what was left, and what was broken
    for name in ("broken.jsonl", "unknown.jsonl"):
        assert (output / name).read_bytes() == whole[name]


def test_after_mending_only_what_was_broken_is_looked_at(root, monkeypatch):
    spoil(root)
    prepare(root)
    Image.new("RGB", (40, 36)).save(root / "image/awe/train_00001.png")
    (root / "annotation/excitement/train_00011.json").write_text(json.dumps({"scene": SCENES[0]}))
    opened = count_openings(monkeypatch)
    output = prepare(root)
    assert sorted(opened) == [f"image/{n}.png" for n in ("awe/train_00001", "fear/train_00006", "sadness/train_00007")]
    assert len(read_lines(output / "broken.jsonl")) == 2
    assert [line["name"] for line in read_lines(output / "unknown.jsonl") if line["kind"] == "emotion"] == ["joy"]


def test_what_was_prepared_of_other_pictures_is_refused(root):
    output = prepare(root)
    rows = json.loads((root / "train.json").read_text())
    (root / "train.json").write_text(json.dumps(rows + rows[-1:]))
    with pytest.raises(ValueError, match="expected the pictures of the split 'train' that were prepared from"):
        read_rows(DataArguments(data=str(root), prepared=str(output)), "train")


# --------------------------------------------------------------------------------------------------------- statistics


def split_of(arguments: DataArguments):
    transform = EvaluationTransform(CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE))
    return open_split(arguments, "train", PictureSample(transform, open_vocabulary(arguments)))


def test_prepared_statistics_are_those_of_the_rows_that_training_sees(root):
    spoil(root)
    output = prepare(root, smoothing=0.5)
    arguments = DataArguments(data=str(root), prepared=str(output))
    dataset = split_of(arguments)
    found = attribute_statistics(arguments, dataset)
    counted = attribute_statistics(DataArguments(data=str(root)), dataset, smoothing=0.5)
    assert all(map(torch.equal, found, counted))
    sums = load_file(output / "statistics.safetensors")
    assert sums["sums.emotions"].sum() == 12 and sums["sums.scene_pictures"].shape == (len(SCENES),)


def test_statistics_of_another_vocabulary_are_refused(root):
    arguments = DataArguments(data=str(root), prepared=str(prepare(root)))
    dataset = split_of(arguments)
    dataset.vocabulary = Vocabulary(dataset.vocabulary.scenes[::-1], dataset.vocabulary.objects)
    with pytest.raises(
        ValueError, match=r"expected statistics of this data set's 3 scenes and 4 objects, found others"
    ):
        attribute_statistics(arguments, dataset)


def test_a_folder_that_was_not_prepared_or_not_to_its_end_is_named(root):
    arguments = DataArguments(data=str(root), prepared=str(root))
    with pytest.raises(
        FileNotFoundError, match=r"summary\.json, which python -m training\.prepare --output .* writes"
    ):
        read_rows(arguments, "train")
    output = prepare(root)
    arguments = DataArguments(data=str(root), prepared=str(output))
    (output / "statistics.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"run python -m training\.prepare again"):
        attribute_statistics(arguments, split_of(arguments))
    (root / "more.json").write_text((root / "val.json").read_text())
    with pytest.raises(ValueError, match="expected a split 'more' that was prepared, found train, val"):
        read_rows(arguments, "more")


@pytest.fixture
def classifier(tmp_path):
    """An understanding model with random weights and its image processor."""
    clip = write_clip(tmp_path / "clip")
    folder = tmp_path / "classifier"
    torch.manual_seed(0)
    sizes = {"num_scene_queries": 2, "num_object_queries": 2, "classifier_hidden": 16}
    UniEmoUnderstandingModel.from_clip(clip, **sizes).save_pretrained(folder)
    CLIPImageProcessorPil.from_pretrained(clip).save_pretrained(folder)
    return folder


def test_a_classifiers_statistics_are_its_mean_probabilities_over_what_shows_an_attribute(root, classifier):
    output = prepare(root, classifier=str(classifier), smoothing=0.0, batch_size=5, device="cpu")
    arguments = DataArguments(data=str(root), prepared=str(output))
    scenes, objects = attribute_statistics(arguments, split_of(arguments))
    model = UniEmoUnderstandingModel.from_pretrained(classifier).eval()
    transform = EvaluationTransform(CLIPImageProcessorPil.from_pretrained(classifier))
    dataset = open_split(arguments, "train", PictureSample(transform, open_vocabulary(arguments)))
    batch = next(iter(DataLoader(dataset, 16)))
    with torch.no_grad():
        probabilities = model(batch["pixel_values"]).logits.softmax(-1)
    for scene in range(len(SCENES)):
        assert torch.allclose(scenes[scene], probabilities[batch["scene_labels"] == scene].mean(0), atol=1e-5)
    for thing in range(len(OBJECTS)):
        shown = batch["object_labels"][:, thing] == 1
        assert torch.allclose(objects[thing], probabilities[shown].mean(0), atol=1e-5)


def test_a_classifier_that_was_stopped_goes_on_with_its_sums(root, classifier, monkeypatch):
    options = {"classifier": str(classifier), "batch_size": 2, "device": "cpu"}
    output = prepare(root, **options)
    whole = load_file(output / "statistics.safetensors")
    (output / "classifier.safetensors").unlink()
    forward, calls = UniEmoUnderstandingModel.forward, []

    def stop(self, pixels):
        if len(calls) == 5:
            raise KeyboardInterrupt
        return counted(self, pixels)

    def counted(self, pixels):
        calls.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(classifying, "BATCHES_BETWEEN_SAVES", 2)
    monkeypatch.setattr(UniEmoUnderstandingModel, "forward", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, **options)
    assert not (output / "statistics.safetensors").exists()
    monkeypatch.setattr(UniEmoUnderstandingModel, "forward", counted)
    calls.clear()
    prepare(root, **options)
    assert len(calls) == 4  # of eight batches four were done and kept
    found = load_file(output / "statistics.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    calls.clear()
    prepare(root, **{**options, "batch_size": 4})
    assert len(calls) == 4  # another run begins anew


# ------------------------------------------------------------------------------------------------- Hub and the recipe


def test_a_hub_data_set_is_prepared_with_the_names_that_it_uses(tmp_path):
    def change(found):
        found["image"][2] = {"bytes": picture_bytes(2)[:60], "path": None}
        return found

    root = write_parquet(tmp_path / "set", change)
    output = prepare(root)
    assert [line["name"] for line in read_lines(output / "broken.jsonl")] == ["row 2"]
    arguments = DataArguments(data=str(root), prepared=str(output))
    assert open_vocabulary(arguments).scenes == ("amusement park", "bakery shop", "beach")
    rows = read_rows(arguments, "train")
    assert len(rows) == COUNT - 1 and rows[2].picture.name == "row 3"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_prepared_and_then_read_without_its_broken_pictures(tmp_path, workers):
    def change(found):
        found["image"][2] = {"bytes": picture_bytes(2)[:60], "path": "half.png"}
        return found

    root = write_parquet(tmp_path / "set", change)
    output = prepare(root, streaming=True, num_workers=workers)
    [line] = read_lines(output / "broken.jsonl")
    assert line["name"].startswith("half.png ")
    arguments = DataArguments(data=str(root), streaming=True, prepared=str(output))
    dataset = split_of(arguments)
    assert len(list(dataset)) == COUNT - 1
    scenes, objects = attribute_statistics(arguments, dataset)
    assert scenes.shape == (3, 8) and objects.shape == (4, 8)


def test_arguments_are_read_by_the_parser_and_explained():
    parser = HfArgumentParser(PrepareArguments)
    assert parser.parse_args_into_dataclasses(["--data", "a", "--output", "b"]) == (
        PrepareArguments(data="a", output="b"),
    )
    assert all(action.help for action in parser._actions)
