"""The backbones' corpus: images with every attribute uniform and independent, rendered once, memory-mapped."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..miniemoset.attributes import BRIGHTNESSES, PALETTES, Attributes, sample_attributes
from ..miniemoset.objects import OBJECTS
from ..miniemoset.render import IMAGE_SIZE, render, render_and_locate
from ..miniemoset.scenes import SCENES

CHUNK = 500
PATCH_SIZE = 16
PATCH_SHARE = 0.25  # of a patch, that an object must cover to be its object


class Corpus:
    """Rendered images with their attributes.

    Attributes:
        images: (N, 128, 128, 3) uint8, memory-mapped.
        labels: (N, 5) int8: scene, first object, second object (-1: none), palette, brightness.
        patches: (N, 8, 8) int8: the object that each patch of 16 px shows (-1: none).
    """

    def __init__(self, folder: Path) -> None:
        self.images: np.ndarray = np.load(folder / "images.npy", mmap_mode="r")
        self.labels: np.ndarray = np.load(folder / "labels.npy")
        self.patches: np.ndarray = np.load(folder / "patches.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def attributes(self, index: int) -> Attributes:
        """The names of one image's parts."""
        scene, first, second, palette, brightness = self.labels[index]
        objects = (OBJECTS[first],) if second < 0 else (OBJECTS[first], OBJECTS[second])
        return Attributes(SCENES[scene], objects, PALETTES[palette], BRIGHTNESSES[brightness])


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: torch.Tensor) -> np.ndarray:
    """The way back, rounded: (B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def label_row(attributes: Attributes) -> list[int]:
    """Attributes as indices: scene, first object, second object (-1: none), palette, brightness."""
    objects = [OBJECTS.index(name) for name in attributes.objects] + [-1]
    return [
        SCENES.index(attributes.scene),
        *objects[:2],
        PALETTES.index(attributes.palette),
        BRIGHTNESSES.index(attributes.brightness),
    ]


def render_example(seed: int, index: int, emotion: str | None = None) -> tuple[np.ndarray, Attributes]:
    """Image `index` of the stream `seed`: the same pixels wherever and in whatever order it is drawn."""
    rng = np.random.default_rng([seed, index])
    attributes = sample_attributes(rng, emotion)
    return np.asarray(render(attributes, rng)), attributes


def render_chunk(seed: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Images `start` to `stop` of the stream `seed`, with their label rows."""
    examples = [render_example(seed, index) for index in range(start, stop)]
    return np.stack([image for image, _ in examples]), np.array([label_row(a) for _, a in examples], dtype=np.int8)


def objects_by_patch(attributes: Attributes, places: np.ndarray) -> np.ndarray:
    """Where the objects are, as `render_and_locate` tells it, as the object of each patch (8, 8), -1 for none."""
    blocks = places.reshape(IMAGE_SIZE // PATCH_SIZE, PATCH_SIZE, -1, PATCH_SIZE)
    shares = np.stack([(blocks == 1).mean(axis=(1, 3)), (blocks == 2).mean(axis=(1, 3))])
    objects = np.array(label_row(attributes)[1:3])[shares.argmax(axis=0)]
    return np.where(shares.max(axis=0) >= PATCH_SHARE, objects, -1)


def render_located_chunk(seed: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `render_chunk` renders, and the object of each patch."""
    images, labels, patches = [], [], []
    for index in range(start, stop):
        rng = np.random.default_rng([seed, index])
        attributes = sample_attributes(rng)
        image, places = render_and_locate(attributes, rng)
        images.append(np.asarray(image))
        labels.append(label_row(attributes))
        patches.append(objects_by_patch(attributes, places))
    return np.stack(images), np.array(labels, dtype=np.int8), np.array(patches, dtype=np.int8)


def make_corpus(folder: Path, size: int, seed: int, workers: int = 2) -> Corpus:
    """Render `size` images of the stream `seed` into `folder`; what is there already is kept.

    Raises:
        ValueError: the corpus that is there has another size.
    """
    if not (folder / "labels.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(
            folder / "images.npy", mode="w+", dtype=np.uint8, shape=(size, IMAGE_SIZE, IMAGE_SIZE, 3)
        )
        labels = np.empty((size, 5), dtype=np.int8)
        patches = np.empty((size, *[IMAGE_SIZE // PATCH_SIZE] * 2), dtype=np.int8)
        starts = range(0, size, CHUNK)
        stops = [min(start + CHUNK, size) for start in starts]
        with ProcessPoolExecutor(workers) as pool:
            chunks = pool.map(render_located_chunk, [seed] * len(stops), starts, stops)
            for start, stop, chunk in zip(starts, stops, tqdm(chunks, "render", total=len(stops)), strict=True):
                images[start:stop], labels[start:stop], patches[start:stop] = chunk
        images.flush()
        np.save(folder / "patches.npy", patches)
        np.save(folder / "labels.npy", labels)  # written last: its presence says that the corpus is whole
    corpus = Corpus(folder)
    if len(corpus) != size:
        raise ValueError(f"Expected {size} images in {folder}, found {len(corpus)}; remove the folder.")
    return corpus
