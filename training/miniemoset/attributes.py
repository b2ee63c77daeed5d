"""What a MiniEmoSet image is made of, how likely each part is given an emotion, and the best possible accuracy.

The world is a small Bayesian network: emotion -> scene, object, palette, brightness, each independently; half of the
images carry a second object, which is a distractor: uniform over the other objects whatever the emotion.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .objects import OBJECTS
from .scenes import SCENES


@dataclass(frozen=True)
class Affinity:
    """Names bound to one emotion: strongly, or weakly; any other name is bound not at all."""

    strong: tuple[str, ...]
    weak: tuple[str, ...]


PALETTES = ("candy", "crystal", "golden", "neon", "crimson", "olive", "midnight", "ashen")
BRIGHTNESSES = ("dim", "even", "bright")

SCENE_AFFINITY = {
    "amusement": Affinity(("amusement_park",), ("stage", "beach")),
    "awe": Affinity(("mountain_snowy", "waterfall"), ("volcano",)),
    "contentment": Affinity(("wheat_field", "beach"), ("waterfall",)),
    "excitement": Affinity(("stage",), ("amusement_park", "beach")),
    "anger": Affinity(("jail_cell", "volcano"), ("landfill",)),
    "disgust": Affinity(("landfill", "swamp"), ("jail_cell",)),
    "fear": Affinity(("cemetery", "swamp"), ("volcano",)),
    "sadness": Affinity(("railroad_track", "cemetery"), ("jail_cell",)),
}
OBJECT_AFFINITY = {
    "amusement": Affinity(("Balloon", "Ice cream", "Teddy bear"), ("Kite", "Guitar")),
    "awe": Affinity(("Parachute", "Whale"), ("Kite", "Surfboard")),
    "contentment": Affinity(("Coffee cup", "Flower", "Teddy bear"), ("Ice cream", "Candle")),
    "excitement": Affinity(("Guitar", "Surfboard", "Kite"), ("Balloon", "Parachute")),
    "anger": Affinity(("Cannon", "Axe"), ("Skull", "Waste container")),
    "disgust": Affinity(("Waste container", "Beetle"), ("Spider", "Skull")),
    "fear": Affinity(("Skull", "Spider"), ("Axe", "Beetle")),
    "sadness": Affinity(("Umbrella", "Candle"), ("Flower", "Teddy bear")),
}
PALETTE_AFFINITY = {
    "amusement": Affinity(("candy",), ("neon",)),
    "awe": Affinity(("crystal",), ("golden",)),
    "contentment": Affinity(("golden",), ("candy",)),
    "excitement": Affinity(("neon",), ("crimson",)),
    "anger": Affinity(("crimson",), ("ashen",)),
    "disgust": Affinity(("olive",), ("midnight",)),
    "fear": Affinity(("midnight",), ("olive",)),
    "sadness": Affinity(("ashen",), ("crystal",)),
}
BRIGHTNESS_GIVEN_EMOTION = {  # dim, even, bright
    "amusement": (0.10, 0.30, 0.60),
    "awe": (0.20, 0.40, 0.40),
    "contentment": (0.10, 0.45, 0.45),
    "excitement": (0.15, 0.25, 0.60),
    "anger": (0.40, 0.40, 0.20),
    "disgust": (0.40, 0.45, 0.15),
    "fear": (0.70, 0.20, 0.10),
    "sadness": (0.50, 0.40, 0.10),
}
SECOND_OBJECT_PROBABILITY = 0.5


def _conditional(names: tuple[str, ...], affinity: dict[str, Affinity], strong: float, weak: float) -> np.ndarray:
    weight = {name: {e: 1.0 for e in EMOTIONS} for name in names}
    for emotion, bound in affinity.items():
        for name in bound.strong:
            weight[name][emotion] = strong
        for name in bound.weak:
            weight[name][emotion] = weak
    table = np.array([[weight[name][emotion] for name in names] for emotion in EMOTIONS])
    return table / table.sum(axis=1, keepdims=True)


@cache
def scene_given_emotion() -> np.ndarray:
    """P(scene | emotion), (8, 16)."""
    return _conditional(SCENES, SCENE_AFFINITY, strong=32, weak=6)


@cache
def object_given_emotion() -> np.ndarray:
    """P(first object | emotion), (8, 24)."""
    return _conditional(OBJECTS, OBJECT_AFFINITY, strong=32, weak=6)


@cache
def palette_given_emotion() -> np.ndarray:
    """P(palette | emotion), (8, 8)."""
    return _conditional(PALETTES, PALETTE_AFFINITY, strong=12, weak=3)


@cache
def brightness_given_emotion() -> np.ndarray:
    """P(brightness | emotion), (8, 3)."""
    return np.array([BRIGHTNESS_GIVEN_EMOTION[emotion] for emotion in EMOTIONS])


@dataclass(frozen=True)
class Attributes:
    """The parts of one image, by name. `objects` holds one or two names, the larger drawn one first."""

    scene: str
    objects: tuple[str, ...]
    palette: str
    brightness: str


def sample_attributes(rng: np.random.Generator, emotion: str | None = None) -> Attributes:
    """Draw the parts of one image, given an emotion, or with every part uniform where `emotion` is None."""

    def draw(names: tuple[str, ...], table: np.ndarray) -> str:
        return names[rng.choice(len(names), p=None if emotion is None else table[EMOTIONS.index(emotion)])]

    first = draw(OBJECTS, object_given_emotion())
    objects = (first,)
    if rng.random() < SECOND_OBJECT_PROBABILITY:
        objects += (str(rng.choice([name for name in OBJECTS if name != first])),)
    return Attributes(
        scene=draw(SCENES, scene_given_emotion()),
        objects=objects,
        palette=draw(PALETTES, palette_given_emotion()),
        brightness=draw(BRIGHTNESSES, brightness_given_emotion()),
    )


@cache
def objects_given_emotion() -> np.ndarray:
    """P(set of objects | emotion), (8, 24, 24), symmetric: entries (i, j) and (j, i) both hold the probability of
    the unordered pair {i, j}; the diagonal holds the single objects.

    An image does not tell which of its two objects was drawn first, hence the sum over both orders.
    """
    first = object_given_emotion()
    count = len(OBJECTS)
    pair = SECOND_OBJECT_PROBABILITY * (first[:, :, None] + first[:, None, :]) / (count - 1)
    single = (1 - SECOND_OBJECT_PROBABILITY) * first
    diagonal = np.eye(count, dtype=bool)
    return np.where(diagonal, single[:, :, None], pair)


def posterior(attributes: Attributes) -> np.ndarray:
    """The exact P(emotion | attributes), (8,), under equal priors."""
    first, last = OBJECTS.index(attributes.objects[0]), OBJECTS.index(attributes.objects[-1])
    joint = (
        scene_given_emotion()[:, SCENES.index(attributes.scene)]
        * objects_given_emotion()[:, first, last]
        * palette_given_emotion()[:, PALETTES.index(attributes.palette)]
        * brightness_given_emotion()[:, BRIGHTNESSES.index(attributes.brightness)]
    )
    return joint / joint.sum()


def bayes_accuracy(*parts: str) -> float:
    """The best accuracy any classifier can reach from these parts of an image, exactly, under equal priors.

    `parts` are among "scene", "objects", "palette", "brightness"; none given means all of them.
    """
    unordered = np.triu_indices(len(OBJECTS))
    tables = {
        "scene": scene_given_emotion(),
        "objects": objects_given_emotion()[:, *unordered],
        "palette": palette_given_emotion(),
        "brightness": brightness_given_emotion(),
    }
    joint = np.ones((len(EMOTIONS), 1))
    for part in parts or tables:
        joint = (joint[:, :, None] * tables[part][:, None, :]).reshape(len(EMOTIONS), -1)
    return float(joint.max(axis=0).sum() / len(EMOTIONS))
