"""Made-up data sets of the Hub, as folders of parquet files."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from training_world import OBJECTS, SCENES, write_info

from uniemo_pipelines.fusion_uniemo import EMOTIONS

COUNT = 30


def go_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh cache in a folder, and no Hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # five seconds an epoch


def picture_bytes(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 36), (number * 8, 200 - number * 5, 90)).save(stream, "PNG")
    return stream.getvalue()


def columns(start: int, stop: int) -> dict[str, list]:
    """Every fourth has no scene, every fifth no object."""
    numbers = range(start, stop)
    return {
        "image": [{"bytes": picture_bytes(n), "path": f"{n:03d}.png"} for n in numbers],
        "emotion": [n % 8 for n in numbers],
        "scene": [SCENES[n % 3] if n % 4 else None for n in numbers],
        "object": [[OBJECTS[n % 4], OBJECTS[(n + 1) % 4]] if n % 5 else None for n in numbers],
    }


def write_parquet(root: Path, change: Callable[[dict], dict] = lambda found: found, files: int = 1, **types) -> Path:
    """A data set folder of one split "train", in so many files."""
    (root / "data").mkdir(parents=True)
    features = {
        "image": ImageFeature(),
        "emotion": ClassLabel(names=list(EMOTIONS)),
        "scene": Value("string"),
        "object": List(Value("string")),
        **types,
    }
    for number in range(files):
        found = change(columns(number * COUNT // files, (number + 1) * COUNT // files))
        rows = Dataset.from_dict(found, Features({name: features[name] for name in found}))
        rows.to_parquet(root / "data" / f"train-{number:05d}-of-{files:05d}.parquet")
    write_info(root.parent)
    return root
