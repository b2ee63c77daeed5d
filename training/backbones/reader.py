"""Networks that tell a picture's attributes and emotion: the reader of the gates, and the two judges.

They take no part in UniEmo. The reader checks the backbones; the development judge may guide choices; the final judge
(another architecture, other data, another seed) is opened once per reported table.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, RegNetConfig, RegNetModel, ResNetConfig, ResNetModel

from ..miniemoset.attributes import BRIGHTNESSES, EMOTIONS, PALETTES
from ..miniemoset.objects import OBJECTS
from ..miniemoset.scenes import SCENES
from ..miniemoset.streams import Stream
from .corpus import label_row, render_example, to_tensor
from .loop import train

HEADS = {
    "scene": len(SCENES),
    "objects": len(OBJECTS),
    "palette": len(PALETTES),
    "brightness": len(BRIGHTNESSES),
    "emotion": len(EMOTIONS),
}
Augmentation = Callable[[torch.Tensor], torch.Tensor]


def _resnet(*sizes: int) -> PreTrainedModel:
    return ResNetModel(ResNetConfig(embedding_size=32, hidden_sizes=sizes, depths=[1] * 4, layer_type="basic"))


def _regnet(*sizes: int) -> PreTrainedModel:
    depths = [1, 1, 2, 2]
    return RegNetModel(
        RegNetConfig(embedding_size=32, hidden_sizes=sizes, depths=depths, groups_width=16, layer_type="y")
    )


ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "resnet": partial(_resnet, 48, 96, 160, 224),
    "small_resnet": partial(_resnet, 32, 64, 96, 120),  # this and the next are below 1 MB in half precision
    "regnet": partial(_regnet, 32, 64, 128, 208),
}


class Reader(nn.Module):
    """A small CNN with one linear head per attribute.

    `forward` takes (B, 3, 128, 128) in [-1, 1] and returns logits per head, and the features (B, F) that the heads
    read; objects are independent (sigmoid), for a picture may hold two.
    """

    def __init__(self, architecture: str = "resnet") -> None:
        super().__init__()
        self.backbone = ARCHITECTURES[architecture]()
        width = self.backbone.config.hidden_sizes[-1]
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEADS.items()})

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(pixels).last_hidden_state.mean(dim=(-2, -1))
        return {name: head(features) for name, head in self.heads.items()} | {"features": features}


@dataclass
class Reading:
    """What a reader saw in N pictures: logits of the four attributes, probabilities (N, 8), features (N, F)."""

    scene_logits: torch.Tensor
    object_logits: torch.Tensor
    palette_logits: torch.Tensor
    brightness_logits: torch.Tensor
    emotion: torch.Tensor
    features: torch.Tensor

    @property
    def scene(self) -> torch.Tensor:
        """(N,)."""
        return self.scene_logits.argmax(dim=-1)

    @property
    def object(self) -> torch.Tensor:
        """The clearest object of each picture, (N,)."""
        return self.object_logits.argmax(dim=-1)

    @property
    def palette(self) -> torch.Tensor:
        """(N,)."""
        return self.palette_logits.argmax(dim=-1)

    @property
    def brightness(self) -> torch.Tensor:
        """(N,)."""
        return self.brightness_logits.argmax(dim=-1)


def load_reader(path: str | Path) -> Reader:
    """A trained reader, ready to read, from its weights alone: of the architecture whose parameters they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected the weights of a reader, as in training/judges, found no file.")
    with safe_open(path, "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    for architecture in ARCHITECTURES:
        reader = Reader(architecture)
        if found == {name: tuple(value.shape) for name, value in reader.state_dict().items()}:
            load_model(reader, path)
            return reader.eval()
    raise ValueError(f"{path}: expected the weights of a reader ({' or '.join(ARCHITECTURES)}), found others.")


@torch.no_grad()
def read(reader: Reader, images: np.ndarray, batch_size: int = 100) -> Reading:
    """Read (N, 128, 128, 3) uint8 pictures."""
    logits = [reader.eval()(to_tensor(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
    joined = {name: torch.cat([part[name] for part in logits]) for name in (*HEADS, "features")}
    return Reading(
        scene_logits=joined["scene"],
        object_logits=joined["objects"],
        palette_logits=joined["palette"],
        brightness_logits=joined["brightness"],
        emotion=joined["emotion"].softmax(-1),
        features=joined["features"],
    )


def accuracy(reading: Reading, labels: np.ndarray) -> dict[str, float]:
    """Share read rightly, per attribute; for objects the share of those present that are among the clearest as many.

    Args:
        labels: (N, 5) rows of scene, first object, second object (-1: none), palette, brightness.
    """
    truth = torch.from_numpy(labels.astype(np.int64))
    ranks = reading.object_logits.argsort(dim=-1, descending=True)
    present = truth[:, 1:3] >= 0
    count = present.sum(dim=1, keepdim=True)
    place = (ranks[:, None, :] == truth[:, 1:3, None]).float().argmax(dim=-1)
    return {
        "scene": (reading.scene == truth[:, 0]).float().mean().item(),
        "object": (place < count)[present].float().mean().item(),
        "palette": (reading.palette == truth[:, 3]).float().mean().item(),
        "brightness": (reading.brightness == truth[:, 4]).float().mean().item(),
    }


def train_reader(
    path: Path,
    *,
    architecture: str = "resnet",
    stream: Stream,
    steps: int,
    batch_size: int = 32,
    emotional: bool = False,
    augmentation: Augmentation | None = None,
) -> Reader:
    """Train a reader on endless fresh renders and save it to `path`; what is there already is loaded.

    It takes minutes and is not resumable: a second process draws the pictures in order, ahead of the steps.

    Args:
        stream: Of the pictures; also the seed of everything else that is random.
        emotional: Draw pictures from P(attributes | emotion) and train the emotion head (a judge), instead of drawing
            every attribute uniformly (the reader).
        augmentation: Applied to a quarter of each batch, such as a VAE's reconstruction, which costs more than a step.
    """
    if path.exists():
        return load_reader(path)
    torch.manual_seed(stream)
    reader = Reader(architecture)
    batches = fresh_batches(stream, range(steps), batch_size, emotional)

    def loss_at(step: int) -> torch.Tensor:
        images, labels, emotions = next(batches)
        pixels = to_tensor(images)
        if augmentation is not None:
            quarter = batch_size // 4
            pixels = torch.cat([augmentation(pixels[:quarter]), pixels[quarter:]])
        return reading_loss(reader(pixels), labels, emotions)

    train(nn.ModuleDict({"reader": reader}), loss_at, steps=steps, learning_rate=2e-3, name=path.stem)
    save_model(reader, path)
    return reader


def reading_loss(logits: dict[str, torch.Tensor], labels: torch.Tensor, emotions: torch.Tensor | None) -> torch.Tensor:
    """The sum of the heads' cross entropies; without `emotions` the emotion head is left out."""
    objects = F.one_hot(labels[:, 1:3] + 1, len(OBJECTS) + 1).amax(dim=1)[:, 1:].float()
    loss = (
        F.cross_entropy(logits["scene"], labels[:, 0])
        + F.binary_cross_entropy_with_logits(logits["objects"], objects) * len(OBJECTS) / 2
        + F.cross_entropy(logits["palette"], labels[:, 3])
        + F.cross_entropy(logits["brightness"], labels[:, 4])
    )
    return loss if emotions is None else loss + F.cross_entropy(logits["emotion"], emotions)


def fresh_batches(
    seed: int, batches: range, batch_size: int, emotional: bool
) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor | None]]:
    """Batches by number, drawn ahead by a second process: (images, label rows, emotions or None)."""
    with ProcessPoolExecutor(1) as pool:
        ahead = [pool.submit(draw_batch, seed, index, batch_size, emotional) for index in batches[:8]]
        for index in batches:
            images, labels, emotions = ahead.pop(0).result()
            if index + 8 in batches:
                ahead.append(pool.submit(draw_batch, seed, index + 8, batch_size, emotional))
            yield images, torch.from_numpy(labels), torch.from_numpy(emotions) if emotional else None


def draw_batch(seed: int, index: int, size: int, emotional: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batch `index` of a stream: (images, label rows, emotions); emotions take turns and count only if `emotional`."""
    numbers = range(index * size, (index + 1) * size)
    emotions = np.array([number % len(EMOTIONS) for number in numbers])
    examples = [
        render_example(seed, number, EMOTIONS[e] if emotional else None)
        for number, e in zip(numbers, emotions, strict=True)
    ]
    labels = np.array([label_row(attributes) for _, attributes in examples], dtype=np.int64)
    return np.stack([image for image, _ in examples]), labels, emotions
