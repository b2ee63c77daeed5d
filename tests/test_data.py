"""EmoSet's layout, both transforms, attribute statistics, and arguments from files and flags."""

import json
import random
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from training_world import OBJECTS, SCENES, SIZE, write_emoset
from transformers import CLIPImageProcessorPil

from training.config import LoopArguments, parse
from training.data import (
    NO_LABEL,
    EmoSetDataset,
    EvaluationTransform,
    TrainingTransform,
    Vocabulary,
    emotion_given_attribute,
    normalise,
    random_crop,
)


@pytest.fixture
def root(tmp_path):
    return write_emoset(tmp_path)


@pytest.fixture
def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def test_both_row_forms_give_pictures_and_labels(root, processor):
    dataset = EmoSetDataset(root, "train", EvaluationTransform(processor))
    assert [row.label for row in dataset.rows] == [*range(8), *range(8)]
    sample = dataset[1]
    assert sample["pixel_values"].shape == (3, SIZE, SIZE)
    assert dataset.vocabulary.scenes[sample["scene_labels"]] == normalise(SCENES[1])
    assert sample["object_labels"].tolist() == [0, 1, 1, 0]


def test_what_an_annotation_does_not_name_is_no_label(root, processor):
    dataset = EmoSetDataset(root, "train", EvaluationTransform(processor))
    assert dataset[4]["scene_labels"] == NO_LABEL and dataset[4]["object_labels"].any()
    assert dataset[5]["scene_labels"] != NO_LABEL and not dataset[5]["object_labels"].any()
    assert dataset[3]["scene_labels"] == NO_LABEL and not dataset[3]["object_labels"].any()  # no annotation file


def test_a_folder_without_attributes_has_samples_without_them(root, processor):
    (root / "info.json").unlink()
    dataset = EmoSetDataset(root, "train", EvaluationTransform(processor))
    assert set(dataset[1]) == {"index", "pixel_values", "labels"}


def test_names_are_normalised_and_keep_the_order_of_info(root):
    assert Vocabulary.of(root) == Vocabulary(
        ("beach", "bakery shop", "amusement park"), ("alarm clock", "balloon", "teddy bear", "kite")
    )
    assert normalise(" Kitchen & dining_room  table") == "kitchen & dining room table"


def test_evaluation_is_the_processors_own_and_training_differs_by_epoch(root, processor):
    evaluation = EmoSetDataset(root, "train", EvaluationTransform(processor), keep_images=True)
    expected = processor(evaluation.image(0), return_tensors="pt").pixel_values[0]
    assert torch.equal(evaluation[0]["pixel_values"], expected)
    training = evaluation.with_transform(TrainingTransform(processor))
    first = training[0]["pixel_values"]
    assert torch.equal(first, training[0]["pixel_values"])
    training.set_epoch(1)
    assert not torch.equal(first, training[0]["pixel_values"])


def test_both_transforms_normalise_alike(processor):
    plain = Image.new("RGB", (50, 40), (200, 30, 90))
    source = random.Random(0)
    evaluation, training = EvaluationTransform(processor)(plain, source), TrainingTransform(processor)(plain, source)
    assert torch.allclose(evaluation, training)


def test_random_crops_stay_inside_any_picture():
    source = random.Random(0)
    for size in ((40, 36), (500, 9), (1, 300)):
        for _ in range(200):
            left, top, right, bottom = random_crop(size, (0.08, 1.0), source)
            assert 0 <= left < right <= size[0] + 1e-9 and 0 <= top < bottom <= size[1] + 1e-9


def test_statistics_are_smoothed_towards_the_emotions_share(root, processor):
    dataset = EmoSetDataset(root, "train", EvaluationTransform(processor))
    scenes, objects = emotion_given_attribute(dataset, smoothing=1.0)
    assert scenes.shape == (len(SCENES), 8) and objects.shape == (len(OBJECTS), 8)
    assert torch.allclose(scenes.sum(1), torch.ones(len(SCENES)))
    # The bakery is in pictures 1, 7, 10 and 13: emotions 1, 7, 2 and 5.
    seen = torch.zeros(8)
    seen[[1, 7, 2, 5]] = 1
    assert torch.allclose(scenes[1], (seen + 1 / 8) / 5)
    unsmoothed, _ = emotion_given_attribute(dataset, smoothing=0.0)
    assert torch.allclose(unsmoothed[1], seen / 4)


def test_an_attribute_never_seen_falls_back_to_the_emotions_share(root, processor):
    info = json.loads((root / "info.json").read_text())
    info["scene"]["label2idx"]["swamp"] = len(SCENES)
    (root / "info.json").write_text(json.dumps(info))
    scenes, _ = emotion_given_attribute(EmoSetDataset(root, "train", EvaluationTransform(processor)))
    assert torch.allclose(scenes[-1], torch.full((8,), 1 / 8))


def test_another_layout_is_named(root, processor):
    with pytest.raises(FileNotFoundError, match=r"test\.json; found in .*annotation, image, info\.json"):
        EmoSetDataset(root, "test", EvaluationTransform(processor))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["joy", "a.png", "a.json"], "row 0: unknown emotion 'joy'"),
        (["awe", "a.png"], r"row 0: expected \[emotion"),
        (["awe", "a.png", "strange.json"], r"strange\.json: scene 'moon base' is not in info\.json"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(root, processor, row, message):
    (root / "strange.json").write_text(json.dumps({"scene": "moon base"}))
    (root / "train.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=message):
        EmoSetDataset(root, "train", EvaluationTransform(processor))


@dataclass(kw_only=True)
class Arguments(LoopArguments):
    clip: str
    templates: list[str]


CONFIG = """
common: {data: emoset, seed: 3, keep_images: true, base: for-another-script}
mine: {clip: a clip, output: out, epochs: 2, batch_size: 4, templates: ["<emotion> {scene}", "<emotion>"]}
"""


def test_arguments_come_from_the_file_and_flags_win(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    arguments = parse(Arguments, "mine", ["--config", str(tmp_path / "config.yaml"), "--epochs", "7"])
    assert (arguments.epochs, arguments.batch_size, arguments.seed, arguments.keep_images) == (7, 4, 3, True)
    assert arguments.templates == ["<emotion> {scene}", "<emotion>"] and arguments.clip == "a clip"


@pytest.mark.parametrize(
    ("right", "mistaken", "named"),
    [("clip: a clip, ", "", "--clip"), ("batch_size", "batch_sice", "--batch_sice"), ("seed: 3", "seed: x", "--seed")],
)
def test_a_missing_unknown_or_mistyped_argument_is_named(tmp_path, capsys, right, mistaken, named):
    (tmp_path / "config.yaml").write_text(CONFIG.replace(right, mistaken))
    with pytest.raises(SystemExit):
        parse(Arguments, "mine", ["--config", str(tmp_path / "config.yaml"), "--batch_size", "4"])
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_a_section_that_is_not_there_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(ValueError, match="expected a section 'yours', found common, mine"):
        parse(Arguments, "yours", ["--config", str(tmp_path / "config.yaml")])
