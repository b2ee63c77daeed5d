"""MiniEmoSet on disk, in EmoSet's layout."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .attributes import EMOTIONS, PALETTES, Attributes, sample_attributes
from .objects import OBJECTS
from .render import render
from .scenes import SCENES
from .streams import Stream

SPLITS = {"train": Stream.TRAIN, "val": Stream.VAL, "calibration": Stream.CALIBRATION, "test": Stream.TEST}
"""The stream of each split. `val` picks checkpoints (validation A), `calibration` settings (validation B)."""

SPLIT_SIZES = {"train": 1600, "val": 800, "calibration": 4000, "test": 8000}
EMOSET_BRIGHTNESS = {"dim": 0.2, "even": 0.5, "bright": 0.8}
JPEG_QUALITY = 95


def example(seed: int, index: int) -> tuple[str, Attributes, np.random.Generator]:
    """Emotion and attributes of image `index` of a stream, and the generator that goes on to draw it.

    Emotions take turns, so that a split is balanced.
    """
    rng = np.random.default_rng([seed, index])
    emotion = EMOTIONS[index % len(EMOTIONS)]
    return emotion, sample_attributes(rng, emotion), rng


def write_dataset(root: Path, sizes: dict[str, int] = SPLIT_SIZES, workers: int = 2) -> None:
    """Draw every split into `root`; the same files, to the byte, wherever it runs.

    Args:
        root: Folder to write: `info.json`, `<split>.json`, `image/` and `annotation/`.
        sizes: Images per split.
    """
    for kind in ("image", "annotation"):
        for emotion in EMOTIONS:
            (root / kind / emotion).mkdir(parents=True, exist_ok=True)
    _write_json(root / "info.json", _info())
    for split, size in sizes.items():
        with ProcessPoolExecutor(workers) as pool:
            jobs = pool.map(_write_example, [root] * size, [split] * size, range(size), chunksize=50)
            rows = list(tqdm(jobs, split, total=size, unit="image"))
        _write_json(root / f"{split}.json", rows)


def _write_example(root: Path, split: str, index: int) -> list[str]:
    emotion, attributes, rng = example(SPLITS[split], index)
    name = f"{emotion}/{split}_{index:05d}"
    image, annotation = f"image/{name}.jpg", f"annotation/{name}.json"
    render(attributes, rng).save(root / image, quality=JPEG_QUALITY)
    content = {
        "image_id": f"{split}_{index:05d}",
        "emotion": emotion,
        "scene": attributes.scene,
        "object": list(attributes.objects),
        "brightness": EMOSET_BRIGHTNESS[attributes.brightness],
        "palette": attributes.palette,  # not in EmoSet; the evaluation needs it
    }
    _write_json(root / annotation, content)
    return [emotion, image, annotation]


def _info() -> dict[str, dict[str, dict]]:
    names = {"emotion": EMOTIONS, "scene": SCENES, "object": OBJECTS, "palette": PALETTES}
    return {
        kind: {
            "label2idx": {name: index for index, name in enumerate(values)},
            "idx2label": {str(index): name for index, name in enumerate(values)},
        }
        for kind, values in names.items()
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
