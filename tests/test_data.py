"""What users bring, EmoSet or a folder per emotion, as samples; transforms, order, attribute statistics."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_sets import go_offline, write_parquet
from PIL import ExifTags, Image
from torch.utils.data import DataLoader, default_collate
from training_world import OBJECTS, SCENES, SIZE, write_emoset, write_info
from transformers import CLIPImageProcessorPil, HfArgumentParser

from training import prepare
from training.data import (
    NO_LABEL,
    BrokenPictureError,
    DataArguments,
    EmotionDataset,
    EpochSampler,
    EvaluationTransform,
    OpenedPicture,
    PictureSample,
    Row,
    TrainingTransform,
    Vocabulary,
    attribute_statistics,
    coefficient_tables,
    open_split,
    open_vocabulary,
    read_rows,
    with_generated,
)
from training.data.folders import split_of
from training.data.pictures import FilePicture
from training.data.transforms import crop
from training.prepare import PrepareArguments
from uniemo_pipelines.fusion_uniemo import EMOTIONS

WIDE = CLIPImageProcessorPil(size={"shortest_edge": 96}, crop_size={"height": 64, "width": 96})


@pytest.fixture
def root(tmp_path):
    return write_emoset(tmp_path)


@pytest.fixture
def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def opened(root, transform, split="train", seed=0, **options):
    """A split with everything that its data set has."""
    arguments = DataArguments(data=str(root), **options)
    return open_split(arguments, split, PictureSample(transform, open_vocabulary(arguments)), seed)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with fine texture."""
    noise = np.random.default_rng(seed)
    coarse = Image.fromarray(noise.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    texture = noise.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + texture).clip(0, 255).astype(np.uint8))


# -------------------------------------------------------------------------------------------------- EmoSet's layout


def test_both_row_forms_give_pictures_and_labels(root, processor):
    dataset = opened(root, EvaluationTransform(processor))
    assert dataset.labels == [*range(8), *range(8)]
    assert [row.index for row in dataset.rows] == [*range(16)]
    sample = dataset[1]
    assert sample["pixel_values"].shape == (3, SIZE, SIZE)
    assert dataset.vocabulary.scenes[sample["scene_labels"]] == "bakery shop"
    assert sample["object_labels"].tolist() == [0, 1, 1, 0]
    assert dataset.name(1) == str(root / "image/awe/train_00001.png")


def test_what_an_annotation_does_not_name_is_no_label(root, processor):
    dataset = opened(root, EvaluationTransform(processor))
    assert dataset[4]["scene_labels"] == NO_LABEL and dataset[4]["object_labels"].any()
    assert dataset[5]["scene_labels"] != NO_LABEL and not dataset[5]["object_labels"].any()
    assert dataset[3]["scene_labels"] == NO_LABEL and not dataset[3]["object_labels"].any()  # it has no annotation


def test_a_folder_without_attributes_has_samples_without_them(root, processor):
    (root / "info.json").unlink()
    assert set(opened(root, EvaluationTransform(processor))[1]) == {"index", "pixel_values", "labels"}


def test_names_are_normalised_and_keep_the_order_of_info(root):
    assert open_vocabulary(DataArguments(data=str(root))) == Vocabulary(
        ("beach", "bakery shop", "amusement park"), ("alarm clock", "balloon", "teddy bear", "kite")
    )


def test_a_split_that_is_not_there_is_named_with_what_is(root, processor):
    with pytest.raises(FileNotFoundError, match=r"with .*test\.json; found in .*annotation, image, info\.json"):
        opened(root, EvaluationTransform(processor), "test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["joy", "a.png", "a.json"], r"a\.png: unknown emotion 'joy'; expected one of amusement, awe"),
        (["awe", "a.png"], r"train\.json, row 0: expected \[emotion"),
        (
            ["awe", "a.png", "strange.json"],
            r"a\.png: scene 'moon base' is not in the vocabulary; add it to info\.json",
        ),
        (["awe", "a.png", "half.json"], r"half\.json: expected JSON"),
        (["awe", "a.png", "gone.json"], r"a\.png: expected its annotation gone\.json, found no such file.*prepare"),
        (["awe", "a.png", "list.json"], r"list\.json: expected an object, found list"),
        (["awe", "a.png", "number.json"], r"number\.json: expected names of a scene and of objects, found 3 and"),
        (["awe", "a.png", 3], r"row 0: expected paths of an image and its annotation, found a\.png, 3"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(root, processor, row, message):
    (root / "strange.json").write_text(json.dumps({"scene": "moon base"}))
    (root / "half.json").write_text('{"scene": ')
    (root / "list.json").write_text("[]")
    (root / "number.json").write_text('{"scene": 3}')
    (root / "train.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=message):
        opened(root, EvaluationTransform(processor))


def test_a_missing_picture_is_named_when_it_is_read_with_what_to_do(root, processor):
    dataset = opened(root, EvaluationTransform(processor))
    Path(dataset.name(2)).unlink()
    for workers in (0, 1):
        with pytest.raises(
            BrokenPictureError, match=r"train_00002\.png: no such file.* Run python -m training\.prepare"
        ):
            list(DataLoader(dataset, 4, num_workers=workers))


def test_a_folder_in_no_known_form_is_named_with_what_was_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"info\.json, train\.json.*train/awe or awe.*parquet.*found pictures\."
    ):
        read_rows(DataArguments(data=str(tmp_path)), "train")


def test_streaming_from_a_folder_of_pictures_is_refused(root, processor):
    with pytest.raises(ValueError, match="--streaming is for Hub data sets"):
        opened(root, EvaluationTransform(processor), streaming=True)


# ------------------------------------------------------------------------------------------- a folder for each emotion


def write_folders(root: Path, names: dict[str, int]) -> Path:
    """Plain pictures in folders of these names, so many in each."""
    for folder, count in names.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 36), (number, 90, 30)).save(root / folder / f"{number:03d}.png")
    return root


def test_split_folders_of_emotions(tmp_path, processor):
    root = write_folders(tmp_path, {"train/Awe": 2, "train/fear": 1, "val/Awe ": 1, "val/SADNESS": 2, ".cache": 1})
    dataset = opened(root, EvaluationTransform(processor))
    assert dataset.labels == [EMOTIONS.index(name) for name in ("awe", "awe", "fear")]
    assert set(dataset[0]) == {"index", "pixel_values", "labels"} and dataset.vocabulary == Vocabulary()
    assert opened(root, EvaluationTransform(processor), "val").labels == [1, 7, 7]
    with pytest.raises(FileNotFoundError, match="expected a split 'test', found train, val"):
        opened(root, EvaluationTransform(processor), "test")


def test_without_split_folders_a_path_decides_its_split_for_good(tmp_path):
    root = write_folders(tmp_path / "set", {"awe": 150, "fear": 150})
    arguments = DataArguments(data=str(root))
    splits = {split: {row.picture.name for row in read_rows(arguments, split)} for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 300
    for split, share in {"train": 0.80, "val": 0.05, "test": 0.15}.items():
        assert len(splits[split]) == pytest.approx(300 * share, abs=25)
    assert (split_of("awe/000.png"), split_of("awe/001.png"), split_of("fear/005.png")) == ("train", "test", "train")
    (root / "awe/000.png").unlink()  # others stay where they were
    left = {row.picture.name for row in read_rows(arguments, "train")}
    assert left == splits["train"] - {str(root / "awe/000.png")}


def test_a_folder_of_another_name_is_refused(tmp_path):
    root = write_folders(tmp_path, {"awe": 1, "joy": 1})
    with pytest.raises(ValueError, match="unknown emotion 'joy'; expected folders named amusement, awe"):
        read_rows(DataArguments(data=str(root)), "train")


def test_a_split_without_a_picture_is_refused(tmp_path):
    root = write_folders(tmp_path, {"train/awe": 1, "val/awe": 0})
    with pytest.raises(ValueError, match="expected pictures in the split 'val', found none"):
        read_rows(DataArguments(data=str(root)), "val")


# -------------------------------------------------------------------------------------------------- samples and order


def test_evaluation_is_the_processors_own_and_training_differs_by_epoch(root, processor):
    evaluation = opened(root, EvaluationTransform(processor), keep_images=True)
    expected = processor(evaluation.image(0), return_tensors="pt").pixel_values[0]
    assert torch.equal(evaluation[0]["pixel_values"], expected)
    training = evaluation.with_sample(PictureSample(TrainingTransform(processor)))
    first = training[0]["pixel_values"]
    assert torch.equal(first, training[0]["pixel_values"])
    training.set_epoch(1)
    assert not torch.equal(first, training[0]["pixel_values"])
    assert evaluation.random_source(0).random() != training.random_source(0).random()  # epochs of their own


def test_kept_pictures_are_read_once_and_shared_by_views(root, processor):
    dataset = opened(root, EvaluationTransform(processor), keep_images=True)
    expected = [dataset[index]["pixel_values"] for index in range(2)]
    for index in range(2):
        Path(dataset.name(index)).unlink()
    view = dataset.with_sample(
        lambda row, picture, source: {"pixels": EvaluationTransform(processor)(picture, source)}
    )
    assert all(torch.equal(view[index]["pixels"], expected[index]) for index in range(2))
    with pytest.raises(BrokenPictureError):
        opened(root, EvaluationTransform(processor))[0]


def test_neither_order_nor_workers_nor_torchs_randomness_decide_a_sample(root, processor):
    dataset = opened(root, TrainingTransform(processor, color_jitter=0.3), seed=5)
    dataset.set_epoch(3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    alone = [dataset[index]["pixel_values"] for index in reversed(range(16))][::-1]
    assert torch.equal(torch.get_rng_state(), before)
    loaded = torch.cat([batch["pixel_values"] for batch in DataLoader(dataset, 4, num_workers=2)])
    assert torch.equal(loaded, torch.stack(alone))


def test_a_new_epoch_reaches_workers_that_live_on(root, processor):
    dataset = opened(root, TrainingTransform(processor))
    loader = DataLoader(dataset, 16, num_workers=1, persistent_workers=True)
    found = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        found.append(next(iter(loader))["pixel_values"])
    assert torch.equal(found[1], torch.stack([dataset[index]["pixel_values"] for index in range(16)]))
    assert not torch.equal(*found)


def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_decide():
    dataset = EmotionDataset([Row(index=i, label=0, picture=None) for i in range(50)], Vocabulary(), sample=None)
    sampler = EpochSampler(dataset, seed=3)
    first = list(sampler)
    assert sorted(first) == [*range(50)] and first == list(sampler) and len(sampler) == 50
    before = dataset.random_source(0).random()
    sampler.set_epoch(1)
    assert list(sampler) != first != list(EpochSampler(dataset, seed=4))
    assert dataset.random_source(0).random() != before  # the data set is in the same epoch


def test_balanced_order_draws_emotions_alike_even_if_one_has_no_picture():
    labels = [0] * 900 + [1] * 90 + [7] * 10
    rows = [Row(index=index, label=label, picture=None) for index, label in enumerate(labels)]
    sampler = EpochSampler(EmotionDataset(rows, Vocabulary(), sample=None), balanced=True)
    drawn = torch.bincount(torch.tensor(labels)[list(sampler)], minlength=8)
    assert len(sampler) == drawn.sum() == 1000
    assert drawn[[0, 1, 7]].float().sub(1000 / 3).abs().max() < 60  # four standard deviations


def test_balanced_order_has_no_more_generated_rows_than_its_share():
    """Generated rows are as many of each emotion, real ones are not: 1,000 and 10, and of the third none at all."""
    labels = [0] * 1000 + [1] * 10 + [0, 1, 7] * 100
    rows = [Row(index=i, label=label, picture=None, generated=i >= 1010) for i, label in enumerate(labels)]
    sampler = EpochSampler(EmotionDataset(rows, Vocabulary(), sample=None), balanced=True, generated_share=0.25)
    drawn = torch.tensor(list(sampler))
    total, generated = (
        torch.bincount(torch.tensor(labels)[some], minlength=8) for some in (drawn, drawn[drawn >= 1010])
    )
    assert len(drawn) == 1310 and total[7] == 0
    assert (total[:2] - 655).abs().max() < 73, "four standard deviations"
    assert abs(generated[1] / total[1] - 0.25) < 0.07 and abs(generated[0] / total[0] - 100 / 1100) < 0.05


def test_arguments_are_read_by_the_parser_and_explained():
    parser = HfArgumentParser(DataArguments)
    arguments = parser.parse_args_into_dataclasses(["--data", "somewhere", "--class_balanced", "--train_split", "all"])
    assert arguments == (DataArguments(data="somewhere", class_balanced=True, train_split="all"),)
    assert all(action.help for action in parser._actions)


# --------------------------------------------------------------------------------------------------------- transforms


def test_both_transforms_normalise_alike(processor):
    plain = OpenedPicture("plain", Image.new("RGB", (50, 40), (200, 30, 90)))
    source = random.Random(0)
    evaluation, training = EvaluationTransform(processor)(plain, source), TrainingTransform(processor)(plain, source)
    assert torch.allclose(evaluation, training, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 36), (500, 9), (1, 300), (700, 500)])
def test_crops_of_any_picture_have_the_models_shape(size):
    picture, source = OpenedPicture("picture", photograph(*size)), random.Random(0)
    found = torch.stack([TrainingTransform(WIDE)(picture, source) for _ in range(40)])
    assert found.shape == (40, 3, 64, 96) and found.isfinite().all()
    assert len({crop.sum().item() for crop in found}) > 30


def test_crops_cover_the_asked_share_at_the_published_ratios(monkeypatch):
    boxes = []
    monkeypatch.setattr(
        "training.data.transforms.crop", lambda picture, full, box, *_: boxes.append(box) or picture.open()
    )
    picture, source = OpenedPicture("picture", Image.new("RGB", (96, 64))), random.Random(1)
    for _ in range(200):
        TrainingTransform(WIDE, scale=(0.3, 0.6))(picture, source)
    left, top, right, bottom = np.array(boxes).T
    shares, ratios = (right - left) * (bottom - top) / (96 * 64), (right - left) / (bottom - top)
    assert 0.27 < shares.min() < 0.35 and 0.5 < shares.max() < 0.63
    assert 0.72 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.39
    assert left.min() == 0 and right.max() == 96 and top.min() == 0 and bottom.max() == 64


def test_half_of_the_samples_are_flipped(processor):
    ramp = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (48, 64, 3))
    picture, source = OpenedPicture("ramp", Image.fromarray(ramp.copy())), random.Random(2)
    rising = [
        (p[0, 0, -1] > p[0, 0, 0]).item() for p in (TrainingTransform(processor)(picture, source) for _ in range(200))
    ]
    assert 70 < sum(rising) < 130


def test_colour_changes_only_when_asked_and_never_the_hue(processor):
    picture = OpenedPicture("plain", Image.new("RGB", (50, 40), (180, 90, 60)))
    plain = [TrainingTransform(processor)(picture, random.Random(seed)) for seed in range(8)]
    assert all(torch.allclose(one, plain[0], atol=1e-5) for one in plain)
    mean, std = (torch.tensor(values)[:, None] for values in (processor.image_mean, processor.image_std))
    for seed in range(8):
        changed = TrainingTransform(processor, color_jitter=0.3)(picture, random.Random(seed)).flatten(1) * std + mean
        red, green, blue = changed.mean(1)
        assert (changed.std(1) < 1e-3).all() and red > green > blue
        assert not torch.allclose(changed.mean(1) * 255, torch.tensor([180.0, 90.0, 60.0]), atol=1)


def test_a_jpeg_is_decoded_no_finer_than_its_crop_needs_and_looks_the_same(tmp_path):
    photograph(800, 600).save(tmp_path / "a.jpg", quality=95)
    picture = FilePicture(str(tmp_path / "a.jpg"))
    assert picture.size == (800, 600) and picture.open(300).size == (400, 300) and picture.open(301).size == (800, 600)
    box = (100.0, 60.0, 740.0, 540.0)
    coarse = crop(picture, (800, 600), box, (96, 64), Image.BICUBIC)  # decoded at a quarter
    fine = crop(OpenedPicture("a", picture.open()), (800, 600), box, (96, 64), Image.BICUBIC)
    difference = np.abs(np.asarray(coarse, float) - np.asarray(fine, float))
    assert 0 < difference.mean() < 1 and difference.max() < 12


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_photograph_is_cropped_upright(tmp_path, orientation):
    photo = photograph(320, 200)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    picture = FilePicture(str(tmp_path / "turned.jpg"))
    whole = picture.open()
    assert picture.size == whole.size == ((320, 200) if orientation in (1, 3) else (200, 320))
    box = (20.0, 30.0, 180.0, 190.0)
    expected = crop(OpenedPicture("turned", whole), whole.size, box, (40, 40), Image.BICUBIC)
    found = crop(picture, whole.size, box, (40, 40), Image.BICUBIC)
    assert np.abs(np.asarray(found, float) - np.asarray(expected, float)).mean() < 2


# --------------------------------------------------------------------------------------------------------- statistics


def test_statistics_are_smoothed_towards_the_emotions_share(root, processor):
    arguments = DataArguments(data=str(root))
    dataset = opened(root, EvaluationTransform(processor))
    scenes, objects = attribute_statistics(arguments, dataset, smoothing=1.0)
    assert scenes.shape == (len(SCENES), 8) and objects.shape == (len(OBJECTS), 8)
    assert torch.allclose(scenes.sum(1), torch.ones(len(SCENES)))
    # The bakery is in pictures 1, 7, 10 and 13: emotions 1, 7, 2 and 5.
    seen = torch.zeros(8)
    seen[[1, 7, 2, 5]] = 1
    assert torch.allclose(scenes[1], (seen + 1 / 8) / 5)
    unsmoothed, _ = attribute_statistics(arguments, dataset, smoothing=0.0)
    assert torch.allclose(unsmoothed[1], seen / 4)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_an_attribute_never_seen_falls_back_to_the_emotions_share(root, processor, smoothing):
    info = json.loads((root / "info.json").read_text())
    info["scene"]["label2idx"]["swamp"] = len(SCENES)
    (root / "info.json").write_text(json.dumps(info))
    dataset = opened(root, EvaluationTransform(processor))
    scenes, _ = attribute_statistics(DataArguments(data=str(root)), dataset, smoothing)
    assert torch.allclose(scenes[-1], torch.full((8,), 1 / 8))


def test_the_mean_coefficient_is_that_of_the_attributes_that_pictures_name(root, processor):
    arguments, dataset = DataArguments(data=str(root)), opened(root, EvaluationTransform(processor))
    scenes, objects = coefficient_tables("mean", arguments, dataset, smoothing=1.0)
    assert scenes.shape == (len(SCENES), 8) and objects.shape == (len(OBJECTS), 8)
    # The beach is in pictures 6, 9 and 15, the bakery in 1, 7, 10 and 13, the park in 2, 5, 11 and 14: each time as
    # many emotions. So a picture's own has 1 + 1/8 of its scene's pictures and 1.
    assert torch.allclose(scenes, torch.tensor((3 * (9 / 8) / 4 + 8 * (9 / 8) / 5) / 11))
    # Two objects are in five pictures, two of which share an emotion; two in six, of which twice two do.
    five, six = (2 * (2 + 1 / 8) + 3 * (1 + 1 / 8)) / 6, (4 * (2 + 1 / 8) + 2 * (1 + 1 / 8)) / 7
    assert torch.allclose(objects, torch.tensor((2 * five + 2 * six) / 22))


def test_the_mean_coefficient_follows_what_was_prepared(root, processor, tmp_path):
    prepare.main(PrepareArguments(data=str(root), output=str(tmp_path / "prepared"), smoothing=8.0, num_workers=0))
    dataset = opened(root, EvaluationTransform(processor))
    plain = DataArguments(data=str(root))
    prepared = DataArguments(data=str(root), prepared=str(tmp_path / "prepared"))
    of_prepared = coefficient_tables("mean", prepared, dataset)
    smoothed = coefficient_tables("mean", plain, dataset, smoothing=8.0)
    assert all(torch.allclose(a, b) for a, b in zip(of_prepared, smoothed, strict=True))
    assert not torch.allclose(of_prepared[0], coefficient_tables("mean", plain, dataset)[0])


def test_a_stream_has_no_mean_coefficient(tmp_path, monkeypatch):
    go_offline(tmp_path, monkeypatch)
    write_parquet(tmp_path / "set")
    source = {"data": str(tmp_path / "set"), "vocabulary": str(tmp_path / "info.json"), "streaming": True}
    arguments = DataArguments(**source)
    stream = open_split(arguments, "train", None)
    with pytest.raises(ValueError, match="--alpha mean counts over all rows and cannot go with --streaming"):
        coefficient_tables("mean", arguments, stream)
    scenes, objects = coefficient_tables("zero", arguments, stream)
    assert scenes.shape == (len(stream.vocabulary.scenes), 8) and not scenes.any() and not objects.any()


# ---------------------------------------------------------------------------------- fewer labels, generated pictures


def names_of(dataset: EmotionDataset) -> set[str]:
    return {row.picture.name for row in dataset.rows}


def chosen(root: Path, seed: int = 0, **options) -> EmotionDataset:
    return open_split(DataArguments(data=str(root), **options), "train", None, seed)


def test_two_halves_of_a_subset_are_the_subset_and_have_every_emotion(tmp_path):
    root = write_folders(tmp_path, {f"train/{emotion}": 6 for emotion in EMOTIONS})
    subset, more = chosen(root, subset=32), chosen(root, subset=40)
    halves = [chosen(root, subset=32, half=half) for half in (0, 1)]
    assert names_of(halves[0]) | names_of(halves[1]) == names_of(subset) < names_of(more)
    assert all(sorted(half.labels) == [label for label in range(8) for _ in range(2)] for half in halves)
    assert [row.index for row in halves[1].rows] == [*range(16)]
    assert names_of(chosen(root, seed=1, subset=32)) != names_of(subset)
    assert len(chosen(root, half=0)) == 24


def test_a_subset_that_cannot_be_drawn_is_refused(tmp_path):
    root = write_folders(tmp_path, {f"train/{emotion}": 2 for emotion in EMOTIONS})
    with pytest.raises(ValueError, match="multiple of 8, found 12"):
        chosen(root, subset=12)
    with pytest.raises(ValueError, match="Expected 3 pictures of amusement for --subset 24, found 2"):
        chosen(root, subset=24)


def write_generated(root: Path, count: int, probabilities: list[float] | None = None) -> Path:
    """Pictures of fear with soft labels, as the filter leaves them."""
    write_info(root)
    content = {"scene": "beach", "probabilities": probabilities or [0.1, 0, 0, 0, 0, 0, 0.9, 0]}
    (root / "annotation").mkdir()
    rows = []
    for number in range(count):
        Image.new("RGB", (40, 40), (number, 90, 30)).save(root / f"{number}.png")
        (root / f"annotation/{number}.json").write_text(json.dumps(content))
        rows.append(["fear", f"{number}.png", f"annotation/{number}.json"])
    (root / "train.json").write_text(json.dumps(rows))
    return root


def test_generated_pictures_stand_behind_the_real_ones_with_soft_labels(root, tmp_path, processor):
    generated = write_generated(tmp_path / "kept", 5)
    sample = PictureSample(EvaluationTransform(processor), open_vocabulary(DataArguments(data=str(root))), soft=True)
    real = open_split(DataArguments(data=str(root)), "train", sample)
    mixed = with_generated(real, [str(generated), str(generated)])
    assert len(mixed) == 26 and [row.generated for row in mixed.rows] == [False] * 16 + [True] * 10
    assert mixed[3]["labels"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    torch.testing.assert_close(mixed[20]["labels"], torch.tensor([0.1, 0, 0, 0, 0, 0, 0.9, 0]))
    assert mixed[20]["index"] == 20 and mixed[20]["scene_labels"] == 0 and len(default_collate([*mixed])) == 5


@pytest.mark.parametrize(("share", "count"), [(0.5, 16), (0.2, 4), (0.0, 0), (0.9, 40)])
def test_an_epoch_has_at_most_a_share_of_generated_pictures(root, tmp_path, share, count):
    real = open_split(DataArguments(data=str(root)), "train", None)
    mixed = with_generated(real, [str(write_generated(tmp_path / "kept", 40))])
    sampler = EpochSampler(mixed, generated_share=share)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(sampler) == len(set(epochs[-1])) == 16 + count and set(range(16)) <= set(epochs[-1])
    assert (set(epochs[0]) != set(epochs[1])) == (0 < count < 40)


def test_generated_pictures_of_another_vocabulary_or_with_strange_labels_are_refused(root, tmp_path):
    real = open_split(DataArguments(data=str(root)), "train", None)
    strange = write_generated(tmp_path / "strange", 1, [0.5] * 8)
    with pytest.raises(ValueError, match=r"0\.json: expected 8 probabilities that sum to 1"):
        with_generated(real, [str(strange)])
    other = write_generated(tmp_path / "other", 1)
    (other / "info.json").unlink()
    with pytest.raises(ValueError, match="other: expected the real pictures' vocabulary"):
        with_generated(real, [str(other)])
