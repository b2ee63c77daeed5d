"""EmoSet's layout on disk, the two image transforms of training, and the attribute statistics that alpha comes from.

    info.json                       label maps; the order of its scenes and objects is the order of the vocabularies
    train.json, val.json, test.json rows [emotion, image, annotation] or [emotion, id, image, annotation]
    image/<emotion>/*.jpg           pictures of any size
    annotation/<emotion>/*.json     optional "scene" (a string) and "object" (a string or a list of strings)

MiniEmoSet has the same layout, so the same scripts train on either.
"""

import copy
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import CLIPImageProcessorPil

from uniemo_pipelines.attributes import normalise, read_names
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.images_uniemo import open_image

NO_LABEL = -100
Transform = Callable[[Image.Image, random.Random], Tensor]


@dataclass(frozen=True)
class Vocabulary:
    """Normalised attribute names; a name's position is its label. Either list is empty where a data set has none."""

    scenes: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: str | Path) -> "Vocabulary":
        """Read a data set's `info.json`; without that file there are no attributes."""
        path = Path(root, "info.json")
        scenes, objects = read_names(path) if path.is_file() else ([], [])
        return cls(tuple(map(normalise, scenes)), tuple(map(normalise, objects)))


@dataclass(frozen=True)
class Row:
    """One labelled picture. `scene` is NO_LABEL and `objects` empty where the annotation names none."""

    image: Path
    label: int
    scene: int = NO_LABEL
    objects: tuple[int, ...] = ()


def read_split(root: Path, split: str, vocabulary: Vocabulary) -> list[Row]:
    """Read `<split>.json` and the annotations that it names. A missing annotation means a picture without attributes.

    Raises:
        FileNotFoundError: the folder has no such split file.
        ValueError: a row of another form, an unknown emotion, or an attribute that `info.json` does not list.
    """
    path = root / f"{split}.json"
    if not path.is_file():
        found = ", ".join(sorted(entry.name for entry in root.iterdir())) if root.is_dir() else "no such folder"
        raise FileNotFoundError(f"Expected EmoSet's layout with {path}; found in {root}: {found or 'nothing'}.")
    scenes = {name: index for index, name in enumerate(vocabulary.scenes)}
    objects = {name: index for index, name in enumerate(vocabulary.objects)}
    rows = []
    for number, entry in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        if len(entry) not in (3, 4):
            raise ValueError(f"{path}, row {number}: expected [emotion, (id,) image, annotation], found {entry}.")
        emotion, (image, annotation) = entry[0], entry[-2:]
        if emotion not in EMOTIONS:
            raise ValueError(f"{path}, row {number}: unknown emotion {emotion!r}; expected one of {EMOTIONS}.")
        scene, things = _read_annotation(root, annotation)
        known = _lookup(scenes, [scene] if scene else [], "scene", annotation)
        labels = _lookup(objects, things, "object", annotation)
        rows.append(Row(root / image, EMOTIONS.index(emotion), known[0] if known else NO_LABEL, labels))
    return rows


def _read_annotation(root: Path, annotation: str | None) -> tuple[str | None, list[str]]:
    path = root / annotation if annotation else None
    if path is None or not path.is_file():
        return None, []
    content = json.loads(path.read_text(encoding="utf-8"))
    things = content.get("object") or []
    return content.get("scene"), [things] if isinstance(things, str) else things


def _lookup(index: dict[str, int], names: Sequence[str], kind: str, annotation: str | None) -> tuple[int, ...]:
    if index:  # a data set whose info.json lists no scenes (or objects) has none
        for name in names:
            if normalise(name) not in index:
                raise ValueError(f"{annotation}: {kind} {name!r} is not in info.json; add it there or remove it.")
        return tuple(dict.fromkeys(index[normalise(name)] for name in names))
    return ()


class EmoSetDataset(Dataset):
    """One split of a folder in EmoSet's layout.

    Args:
        root: the folder.
        split: "train", "val" or "test".
        transform: picture and a random source -> (3, height, width).
        seed: with the epoch and the position it decides everything random about a sample, so that neither the order,
            nor the workers, nor a distribution over processes matters.
        keep_images: keep every decoded picture in memory; for sets that fit there.

    A sample is a dictionary: `index` (), `pixel_values` (3, height, width), `labels` () long, `scene_labels` () long
    with -100 for no label, `object_labels` (O,) multi-hot floats, all zero for no label. The last two are left out
    where the data set has no scenes or no objects at all.
    """

    def __init__(
        self, root: str | Path, split: str, transform: Transform, seed: int = 0, keep_images: bool = False
    ) -> None:
        root = Path(root)
        self.vocabulary = Vocabulary.of(root)
        self.rows = read_split(root, split, self.vocabulary)
        self.transform = transform
        self.seed = seed
        self.epoch = 0
        self._kept: dict[int, Image.Image] | None = {} if keep_images else None

    def set_epoch(self, epoch: int) -> None:
        """Augmentation differs from epoch to epoch, and is the same each time an epoch is run."""
        self.epoch = epoch

    def with_transform(self, transform: Transform) -> "EmoSetDataset":
        """The same rows (and kept pictures) seen through another transform."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def random_source(self, index: int) -> random.Random:
        """The randomness of one sample in the current epoch."""
        digest = hashlib.blake2b(f"{self.seed}/{self.epoch}/{index}".encode(), digest_size=7).digest()
        return random.Random(int.from_bytes(digest, "little"))

    def image(self, index: int) -> Image.Image:
        """The picture as RGB."""
        if self._kept is None:
            return open_image(self.rows[index].image)
        if index not in self._kept:
            self._kept[index] = open_image(self.rows[index].image)
        return self._kept[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.rows[index]
        sample = {
            "index": torch.tensor(index),
            "pixel_values": self.transform(self.image(index), self.random_source(index)),
            "labels": torch.tensor(row.label),
        }
        if self.vocabulary.scenes:
            sample["scene_labels"] = torch.tensor(row.scene)
        if self.vocabulary.objects:
            sample["object_labels"] = torch.zeros(len(self.vocabulary.objects))
            sample["object_labels"][list(row.objects)] = 1.0
        return sample


@dataclass(frozen=True)
class EvaluationTransform:
    """What the model's own image processor does: resize, centre crop, normalise."""

    processor: CLIPImageProcessorPil

    def __call__(self, image: Image.Image, source: random.Random) -> Tensor:
        return self.processor(image, return_tensors="pt").pixel_values[0]


@dataclass(frozen=True)
class TrainingTransform:
    """Random resized crop and horizontal flip, then the processor's normalisation.

    The crop covers a share of the area within `scale`, at an aspect ratio within [3/4, 4/3] (released settings). No
    change of colour: colour carries emotion.
    """

    processor: CLIPImageProcessorPil
    scale: tuple[float, float] = (0.08, 1.0)

    def __call__(self, image: Image.Image, source: random.Random) -> Tensor:
        size = (self.processor.crop_size["width"], self.processor.crop_size["height"])
        box = random_crop(image.size, self.scale, source)
        image = image.resize(size, Image.Resampling.BICUBIC, box=box)
        if source.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.processor(image, do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values[0]


def random_crop(
    size: tuple[int, int], scale: tuple[float, float], source: random.Random
) -> tuple[float, float, float, float]:
    """A box (left, top, right, bottom) inside a picture of `size`, cut down where its shape would not fit."""
    width, height = size
    area = width * height * source.uniform(*scale)
    ratio = (4 / 3) ** source.uniform(-1, 1)
    crop_width, crop_height = min((area * ratio) ** 0.5, width), min((area / ratio) ** 0.5, height)
    left, top = source.uniform(0, width - crop_width), source.uniform(0, height - crop_height)
    return left, top, left + crop_width, top + crop_height


def emotion_given_attribute(dataset: EmoSetDataset, smoothing: float = 1.0) -> tuple[Tensor, Tensor]:
    """P(emotion | attribute) of a split, the number that alpha comes from: (S, 8) and (O, 8), rows sum to 1.

    (count + smoothing * P(emotion)) / (total + smoothing): a name that was never seen falls back to the share of each
    emotion in the split. The released tables hold a classifier's mean probabilities; counts need no classifier.
    """
    labels = torch.tensor([row.label for row in dataset.rows])
    prior = torch.bincount(labels, minlength=len(EMOTIONS)).double() / len(labels)
    scenes = torch.zeros(len(dataset.vocabulary.scenes), len(EMOTIONS), dtype=torch.float64)
    objects = torch.zeros(len(dataset.vocabulary.objects), len(EMOTIONS), dtype=torch.float64)
    for row in dataset.rows:
        if row.scene != NO_LABEL:
            scenes[row.scene, row.label] += 1
        objects[list(row.objects), row.label] += 1

    def smoothed(counts: Tensor) -> Tensor:
        return ((counts + smoothing * prior) / (counts.sum(1, keepdim=True) + smoothing)).float()

    return smoothed(scenes), smoothed(objects)
