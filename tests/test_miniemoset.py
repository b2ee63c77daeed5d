"""The synthetic world: what is drawn, how likely it is, and how it lies on disk."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import DataArguments, open_vocabulary, read_rows
from training.miniemoset.attributes import (
    BRIGHTNESSES,
    EMOTIONS,
    PALETTES,
    Attributes,
    bayes_accuracy,
    object_given_emotion,
    objects_given_emotion,
    palette_given_emotion,
    posterior,
    sample_attributes,
    scene_given_emotion,
)
from training.miniemoset.captions import full_caption, sample_caption
from training.miniemoset.dataset import write_dataset
from training.miniemoset.objects import OBJECTS, draw_object
from training.miniemoset.render import PALETTE_COLORS, render
from training.miniemoset.scenes import SCENES, draw_scene

SHARED_INFO = Path(__file__).resolve().parents[2] / "shared" / "data" / "emoset" / "info.json"


def test_names_are_emosets_own() -> None:
    if not SHARED_INFO.exists():
        pytest.skip("needs EmoSet's info.json")
    info = json.loads(SHARED_INFO.read_text())
    assert set(SCENES) <= set(info["scene"]["label2idx"])
    assert set(OBJECTS) <= set(info["object"]["label2idx"])
    assert len(SCENES) >= 16 and len(OBJECTS) >= 24


def test_same_seed_same_pixels_and_every_part_changes_them() -> None:
    base = Attributes("beach", ("Kite",), "candy", "even")

    def pixels(attributes: Attributes) -> np.ndarray:
        return np.asarray(render(attributes, np.random.default_rng(3)))

    assert pixels(base).shape == (128, 128, 3)
    assert np.array_equal(pixels(base), pixels(base))
    others = [
        Attributes("street", ("Kite",), "candy", "even"),
        Attributes("beach", ("Skull",), "candy", "even"),
        Attributes("beach", ("Kite", "Car"), "candy", "even"),
        Attributes("beach", ("Kite",), "olive", "even"),
        Attributes("beach", ("Kite",), "candy", "dim"),
    ]
    assert all(not np.array_equal(pixels(base), pixels(other)) for other in others)


def test_light_orders_brightness_in_every_palette() -> None:
    for palette in PALETTES:
        means = [
            np.asarray(render(Attributes("street", ("Box",), palette, light), np.random.default_rng(0))).mean()
            for light in BRIGHTNESSES
        ]
        assert means == sorted(means)


@pytest.mark.parametrize("draw", [lambda name, rng: draw_object(name, 64, rng), None])
def test_unknown_names_are_refused_with_the_known_ones(draw) -> None:
    draw = draw or (lambda name, rng: draw_scene(name, PALETTE_COLORS["candy"], rng))
    with pytest.raises(ValueError, match="[Bb]each|Balloon"):
        draw("spaceship", np.random.default_rng(0))


def test_conditionals_are_distributions_and_favour_what_is_bound() -> None:
    for table in (scene_given_emotion(), object_given_emotion(), palette_given_emotion()):
        np.testing.assert_allclose(table.sum(axis=1), 1)
    awe = scene_given_emotion()[EMOTIONS.index("awe")]
    strong, weak, none = (awe[SCENES.index(name)] for name in ("waterfall", "volcano", "street"))
    assert strong / none == pytest.approx(32) and weak / none == pytest.approx(6)
    pairs = objects_given_emotion()[:, *np.triu_indices(len(OBJECTS))]
    np.testing.assert_allclose(pairs.sum(axis=1), 1)


def test_bayes_accuracy_is_what_the_exact_posterior_scores_on_draws() -> None:
    rng = np.random.default_rng(0)
    draws = [(label, sample_attributes(rng, emotion)) for label, emotion in enumerate(EMOTIONS) for _ in range(500)]
    hits = np.mean([posterior(attributes).argmax() == label for label, attributes in draws])
    assert hits == pytest.approx(bayes_accuracy(), abs=4 * np.sqrt(0.25 / len(draws)))
    assert bayes_accuracy("scene") < bayes_accuracy("scene", "objects") < bayes_accuracy()


def test_bayes_accuracy_of_one_part_by_hand() -> None:
    assert bayes_accuracy("palette") == pytest.approx(12 / (12 + 3 + 6))


def test_captions_name_no_emotion() -> None:
    rng = np.random.default_rng(0)
    captions = [sample_caption(sample_attributes(rng), rng) for _ in range(500)]
    captions += [full_caption(Attributes(*parts)) for parts in product(SCENES[:2], [OBJECTS[:2]], PALETTES, ("dim",))]
    words = {word for caption in captions for word in caption.replace("amusement park", "").split()}
    assert not words & set(EMOTIONS)
    assert full_caption(Attributes("amusement_park", ("Teddy bear", "Car"), "neon", "dim")) == (
        "a photo of a amusement park with a teddy bear and a car, neon colors, dim light"
    )


def test_data_set_is_emosets_layout_and_the_same_bytes_again(tmp_path: Path) -> None:
    sizes = {"train": 16, "test": 8}
    for root in (tmp_path / "one", tmp_path / "two"):
        write_dataset(root, sizes)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 3 + 2 * 24
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    arguments = DataArguments(data=str(tmp_path / "one"))
    rows, vocabulary = read_rows(arguments, "train"), open_vocabulary(arguments)
    assert [row.label for row in rows] == [*range(8), *range(8)]
    assert vocabulary.scenes[rows[0].scene] and len(vocabulary.objects) == len(OBJECTS)
    train, test = (Image.open(tmp_path / "one/image/awe" / f"{split}_00001.jpg") for split in ("train", "test"))
    assert train.size == (128, 128) and train.tobytes() != test.tobytes()
