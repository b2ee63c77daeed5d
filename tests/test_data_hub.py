"""Data sets of the Hub: columns, vocabularies, streams that are shared out and shuffled. No network."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Value
from datasets import Image as ImageFeature
from hub_sets import COUNT, go_offline, picture_bytes, write_parquet
from torch.utils.data import DataLoader
from training_world import SIZE
from transformers import CLIPImageProcessorPil

from training.data import (
    NO_LABEL,
    BrokenPictureError,
    DataArguments,
    EmotionStream,
    EvaluationTransform,
    PictureSample,
    TrainingTransform,
    Vocabulary,
    attribute_statistics,
    open_split,
    open_vocabulary,
    read_rows,
)
from training.engine import Endless
from uniemo_pipelines.fusion_uniemo import EMOTIONS

PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    go_offline(tmp_path, monkeypatch)


def arguments_of(root: Path, **options) -> DataArguments:
    return DataArguments(**{"data": str(root), "vocabulary": str(root.parent / "info.json"), **options})


def opened(arguments: DataArguments, transform=None, seed: int = 0):
    sample = PictureSample(transform or EvaluationTransform(PROCESSOR), open_vocabulary(arguments))
    return open_split(arguments, "train", sample, seed)


def identity(row, picture, source) -> dict[str, float]:
    """Which picture it is, and one random number."""
    return {"number": picture.open().getpixel((0, 0))[0] // 8, "index": row.index, "random": source.random()}


def numbers(found) -> list[int]:
    return [int(item["number"]) for item in found]


# --------------------------------------------------------------------------------------------------------- as a whole


def test_rows_have_the_labels_of_their_columns(tmp_path):
    dataset = opened(arguments_of(write_parquet(tmp_path / "set")))
    assert dataset.labels == [n % 8 for n in range(COUNT)] and dataset.name(17) == "row 17"
    sample = dataset[1]
    assert sample["pixel_values"].shape == (3, SIZE, SIZE) and sample["index"] == 1
    assert dataset.vocabulary.scenes[sample["scene_labels"]] == "bakery shop"
    assert sample["object_labels"].tolist() == [0, 1, 1, 0]
    assert dataset[4]["scene_labels"] == NO_LABEL and not dataset[5]["object_labels"].any()
    assert dataset.image(3).getpixel((0, 0)) == (24, 185, 90)
    loaded = torch.cat([batch["labels"] for batch in DataLoader(dataset, 8, num_workers=2)])
    assert loaded.tolist() == dataset.labels


@pytest.mark.parametrize(
    ("emotions", "kind"),
    [
        ([EMOTIONS[n % 8].title() for n in range(COUNT)], Value("string")),
        ([n % 8 for n in range(COUNT)], Value("int64")),
        ([7 - n % 8 for n in range(COUNT)], ClassLabel(names=list(EMOTIONS)[::-1])),
    ],
)
def test_emotions_are_names_classes_or_numbers(tmp_path, emotions, kind):
    root = write_parquet(tmp_path / "set", lambda found: {**found, "emotion": emotions}, emotion=kind)
    assert opened(arguments_of(root)).labels == [n % 8 for n in range(COUNT)]


def test_columns_may_have_other_names_and_an_object_may_be_one_name(tmp_path):
    def change(found):
        return {
            "picture": found["image"],
            "mood": found["emotion"],
            "place": found["scene"],
            "thing": [o and o[0] for o in found["object"]],
        }

    types = {"picture": ImageFeature(), "mood": Value("int64"), "place": Value("string"), "thing": Value("string")}
    root = write_parquet(tmp_path / "set", change, **types)
    named = {"image_column": "picture", "emotion_column": "mood", "scene_column": "place", "object_column": "thing"}
    rows = read_rows(arguments_of(root, **named), "train")
    assert (rows[1].label, rows[1].scene, rows[1].objects) == (1, 1, (1,)) and rows[5].objects == ()


@pytest.mark.parametrize(
    ("options", "named"), [({}, "emotion"), ({"emotion_column": "mood", "scene_column": "place"}, "place")]
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path, options, named):
    root = write_parquet(tmp_path / "set", lambda f: {"image": f["image"], "mood": f["emotion"]}, mood=Value("int64"))
    with pytest.raises(ValueError, match=f"expected a column '{named}', found image, mood"):
        read_rows(arguments_of(root, **options), "train")


def test_without_attribute_columns_there_are_no_attributes(tmp_path):
    root = write_parquet(tmp_path / "set", lambda f: {"image": f["image"], "emotion": f["emotion"]})
    assert open_vocabulary(arguments_of(root, vocabulary=None)) == Vocabulary()


def test_attributes_without_a_vocabulary_are_refused_with_what_to_do(tmp_path):
    root = write_parquet(tmp_path / "set")
    with pytest.raises(ValueError, match=r"--vocabulary info\.json, or run python -m training\.prepare"):
        opened(arguments_of(root, vocabulary=None))


def test_an_unknown_name_is_refused_with_its_row(tmp_path):
    root = write_parquet(tmp_path / "set", lambda found: {**found, "scene": ["beach"] * 9 + ["moon base"] * 21})
    with pytest.raises(ValueError, match="row 9: scene 'moon base' is not in the vocabulary"):
        read_rows(arguments_of(root), "train")
    root = write_parquet(tmp_path / "joy", lambda f: {**f, "emotion": ["joy"] * COUNT}, emotion=Value("string"))
    with pytest.raises(ValueError, match="row 0: unknown emotion 'joy'; expected one of amusement"):
        read_rows(arguments_of(root), "train")


def test_a_damaged_picture_is_named_by_its_row(tmp_path):
    def change(found):
        found["image"][2] = {"bytes": picture_bytes(2)[:60], "path": None}
        found["image"][3] = None
        return found

    dataset = opened(arguments_of(write_parquet(tmp_path / "set", change)))
    for row in (2, 3):
        with pytest.raises(BrokenPictureError, match=rf"^row {row}: .* Run python -m training\.prepare"):
            dataset[row]


def test_a_data_set_or_split_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="^someone/nothing: expected a folder that is there or a data set on the Hub"):
        read_rows(DataArguments(data="someone/nothing"), "train")
    with pytest.raises(ValueError, match='Unknown split "val"'):
        read_rows(arguments_of(write_parquet(tmp_path / "set")), "val")


# ------------------------------------------------------------------------------------------------------------- streams


def stream_of(root: Path, seed: int = 0, sample=identity) -> EmotionStream:
    return open_split(arguments_of(root, streaming=True), "train", sample, seed)


def test_a_streams_samples_are_those_of_the_whole_set(tmp_path):
    root = write_parquet(tmp_path / "set", files=3)
    whole, streamed = opened(arguments_of(root)), opened(arguments_of(root, streaming=True))
    expected = {tuple(s["pixel_values"].flatten().tolist()): s for s in whole}
    found = list(streamed)
    assert len(found) == COUNT
    for sample in found:
        other = expected.pop(tuple(sample["pixel_values"].flatten().tolist()))
        assert sample["labels"] == other["labels"] and sample["scene_labels"] == other["scene_labels"]
        assert torch.equal(sample["object_labels"], other["object_labels"])


def test_a_streams_order_is_decided_by_seed_and_epoch_so_that_skipping_resumes_it(tmp_path):
    stream = stream_of(write_parquet(tmp_path / "set", files=3))
    first = numbers(stream)
    assert sorted(first) == [*range(COUNT)] and first != sorted(first) and first == numbers(stream)
    assert numbers(islice(stream, 11, None)) == first[11:]
    stream.set_epoch(1)
    assert sorted(numbers(stream)) == [*range(COUNT)] and numbers(stream) != first
    assert numbers(stream_of(tmp_path / "set", seed=1)) != first


@pytest.mark.parametrize(("files", "world", "workers"), [(4, 2, 2), (3, 2, 2), (1, 3, 0), (5, 2, 1)])
def test_over_processes_and_workers_each_sample_comes_once(tmp_path, monkeypatch, files, world, workers):
    root = write_parquet(tmp_path / "set", files=files)
    seen = {int(item["number"]): item for item in stream_of(root)}
    found = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        stream = stream_of(root)
        stream.set_epoch(0)
        loader = DataLoader(stream, None, num_workers=workers)
        mine = list(loader)
        assert mine
        found += mine
    assert sorted(numbers(found)) == [*range(COUNT)]
    for item in found:  # the same augmentation, whoever reads it
        assert item["random"] == seen[int(item["number"])]["random"]


def test_a_worker_without_a_file_is_an_error_and_no_hang(tmp_path):
    stream = stream_of(write_parquet(tmp_path / "set", files=1))
    with pytest.raises(ValueError, match="lower --dataloader_num_workers"):
        list(islice(DataLoader(Endless(stream), 4, num_workers=2), 20))


def test_a_new_epoch_reaches_a_streams_workers_that_live_on(tmp_path):
    stream = stream_of(write_parquet(tmp_path / "set", files=2))
    loader = DataLoader(stream, None, num_workers=2, persistent_workers=True)
    drawn = []
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        drawn.append({int(item["number"]): item["random"] for item in loader})
    assert all(drawn[0][number] != drawn[1][number] for number in range(COUNT))


def test_a_stream_of_files_with_a_table_beside_them(tmp_path):
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    lines = []
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture_bytes(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "emotion": EMOTIONS[number]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    found = list(stream_of_plain(tmp_path / "set"))
    assert sorted(int(sample["labels"]) for sample in found) == [*range(6)]


def stream_of_plain(root: Path) -> EmotionStream:
    return open_split(
        DataArguments(data=str(root), streaming=True), "train", PictureSample(TrainingTransform(PROCESSOR))
    )


def test_what_a_stream_cannot_have_is_refused(tmp_path):
    root = write_parquet(tmp_path / "set")
    for option, value in (("keep_images", True), ("class_balanced", True), ("subset", 8), ("half", 0)):
        with pytest.raises(ValueError, match=f"--{option} needs all rows at hand"):
            opened(arguments_of(root, streaming=True, **{option: value}))
    with pytest.raises(ValueError, match=r"run python -m training\.prepare first"):
        attribute_statistics(arguments_of(root), stream_of(root))
