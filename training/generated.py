"""A corpus of generated images, as it stands on disk.

generation.json  what all images share, see `Settings`
manifest.jsonl   a line an image, see `GeneratedImage`, in the order of emotion and number; written when all are there
image/           awe/awe_000012.png, ...
conditions/      awe-000000.safetensors, ...: "condition" (n, D), of n images the pseudo-token's embeddings
parts/           awe-000000.jsonl, ...: the lines of images that were drawn at once; those that it names are there
sheet.jpg        the first images of each emotion

Conditions and lines of images drawn at once are named by the first of them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image

from uniemo_pipelines import drawing
from uniemo_pipelines.conditioning_uniemo import UniEmoPipelineOutput
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

from .files import save_image_whole, save_whole, write_whole
from .runs import changes, write_json

SETTINGS, MANIFEST, SHEET = "generation.json", "manifest.jsonl", "sheet.jpg"
MOST_IMAGES = 10**6
MOST_SEED = 2**32 // (len(EMOTIONS) * MOST_IMAGES) - 1
"""A generator on the CPU uses 32 bits of its seed: above this one, images would come twice."""

FREE = ("adapter", "base", "images")
"""Settings that decide no image: where the weights lie, and how far the numbers go."""

SHEET_COLUMNS, SHEET_EDGE = 8, 128


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the images of a corpus share, so that any of them can be made again.

    Attributes:
        adapter, base: a Hub name as it is, a folder or file by the last part of its path.
        adapter_digest, base_digest: of the weights, and of the base's scheduler.
        emotion_space: the form that was sampled from, with `variation` from 0 to 1.
        prompt: with `<emotion>` in it; None for the emotion alone.
        seed: of the corpus, from which each image's own comes, see `seed_of`.
        batch_size: images drawn at once, which decides how sums are rounded, and nothing else.
        size: width and height in pixels.
        images: of each emotion.
        versions: of the packages that drew them.
    """

    adapter: str
    adapter_digest: str
    base: str
    base_digest: str
    prompt: str | None
    guidance: float
    steps: int
    emotion_space: str
    variation: float
    seed: int
    batch_size: int
    dtype: str
    size: list[int]
    images: int
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a corpus.

        Raises:
            FileNotFoundError: the folder holds none.
        """
        return cls(**json.loads(_text(folder / SETTINGS)))

    @property
    def decisive(self) -> dict[str, Any]:
        """Those that decide what an image looks like."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}


@dataclass(frozen=True)
class GeneratedImage:
    """An image of a corpus.

    Attributes:
        image: its file, from the corpus' folder on.
        emotion: the target.
        seed: of the image's own generator.
        scene, object: the attributes that its sampled features retrieve, and that alpha was taken from; None where the
            adapter has no base of them.
        condition: the file of conditions, and the row in it.
    """

    image: str
    emotion: str
    seed: int
    scene: str | None
    object: str | None
    condition: tuple[str, int]


@dataclass(frozen=True)
class Chunk:
    """Images `first` to `first + count - 1` of an emotion: they are drawn at once, and there whole or not at all."""

    emotion: str
    first: int
    count: int

    @property
    def lines(self) -> str:
        """The file of its lines."""
        return f"parts/{self.emotion}-{self.first:06d}.jsonl"

    @property
    def conditions(self) -> str:
        """The file of its conditions."""
        return f"conditions/{self.emotion}-{self.first:06d}.safetensors"

    def image(self, row: int) -> str:
        """The file of one of its images."""
        return f"image/{self.emotion}/{self.emotion}_{self.first + row:06d}.png"


def seed_of(seed: int, emotion: str, number: int) -> int:
    """The seed of image `number` of an emotion; no two images have the same, of one corpus seed or of several."""
    return (seed * len(EMOTIONS) + EMOTIONS.index(emotion)) * MOST_IMAGES + number


def chunks_of(images: int, batch_size: int) -> list[Chunk]:
    """All chunks of a corpus, the emotions in turn, so that a corpus in the making has about as many of each."""
    starts = range(0, images, batch_size)
    return [Chunk(emotion, start, min(batch_size, images - start)) for start in starts for emotion in EMOTIONS]


def is_begun(folder: Path) -> bool:
    """Whether there are images of a corpus in the folder."""
    return any(folder.glob("parts/*.jsonl"))


def refuse_other_settings(folder: Path, settings: Settings) -> None:
    """Leave alone what is no corpus, or one that has images of other settings.

    Raises:
        ValueError: with the name of each setting that differs.
    """
    if is_begun(folder):
        before = Settings.read(folder)
        if changed := changes(before.decisive, settings.decisive):
            raise ValueError(
                f"{folder} holds images of other settings ({before.adapter} on {before.base}): {'; '.join(changed)}. "
                "Give the old ones to go on with it, or another --output to begin a new corpus."
            )
    elif folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise ValueError(f"{folder} holds files of something else; give another --output.")


def read_chunk(folder: Path, chunk: Chunk) -> list[GeneratedImage]:
    """The chunk's images; none of them if it is not whole, or if files of it were lost."""
    path = folder / chunk.lines
    found = _lines(path)[: chunk.count] if path.is_file() else []
    files = [chunk.conditions, *(one.image for one in found)]
    return found if len(found) == chunk.count and all((folder / file).is_file() for file in files) else []


def write_chunk(folder: Path, chunk: Chunk, seeds: Sequence[int], output: UniEmoPipelineOutput) -> None:
    """Write a chunk's images, conditions, and then its lines.

    Args:
        seeds: of the images.
        output: at least as many images as the chunk has, the chunk's first.
    """
    for file in (chunk.image(0), chunk.conditions, chunk.lines):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    found = []
    for row, seed in enumerate(seeds[: chunk.count]):
        save_image_whole(folder / chunk.image(row), output.images[row])
        attributes = output.attributes[row][SLOT_TOKEN]
        condition = (chunk.conditions, row)
        found.append(
            GeneratedImage(chunk.image(row), chunk.emotion, seed, attributes["scene"], attributes["object"], condition)
        )
    condition = output.conditions[SLOT_TOKEN][: chunk.count].cpu().contiguous()
    save_whole(folder / chunk.conditions, {"condition": condition})
    write_whole(folder / chunk.lines, _as_lines(found))


def write_manifest(folder: Path, settings: Settings) -> None:
    """Merge the lines of all chunks, and draw the sheet; what the manifest then names is all there.

    Raises:
        FileNotFoundError: a chunk is not whole.
    """
    found = []
    chunks = chunks_of(settings.images, settings.batch_size)
    for chunk in sorted(chunks, key=lambda one: (EMOTIONS.index(one.emotion), one.first)):
        own = read_chunk(folder, chunk)
        if not own:
            raise FileNotFoundError(
                f"{folder / chunk.lines}: expected {chunk.count} images, found some missing; repeat the command."
            )
        found += own
    write_json(folder / SETTINGS, asdict(settings))
    write_whole(folder / MANIFEST, _as_lines(found))
    save_image_whole(folder / SHEET, sheet(folder, found), quality=92)


def read_manifest(folder: Path) -> list[GeneratedImage]:
    """All images of a corpus.

    Raises:
        FileNotFoundError: the folder has no manifest, or not yet.
    """
    return _lines(folder / MANIFEST)


def sheet(folder: Path, images: Sequence[GeneratedImage]) -> Image.Image:
    """A row an emotion of its first images, made small if they are large."""
    rows: dict[str, list[Image.Image]] = {}
    for one in images:
        row = rows.setdefault(one.emotion, [])
        if len(row) < SHEET_COLUMNS:
            with Image.open(folder / one.image) as image:
                image.thumbnail((SHEET_EDGE, SHEET_EDGE))
                row.append(image.copy())
    return drawing.sheet(rows)


def _as_lines(images: Sequence[GeneratedImage]) -> str:
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in images)


def _lines(path: Path) -> list[GeneratedImage]:
    return [GeneratedImage(**one | {"condition": tuple(one["condition"])}) for one in _json_lines(path)]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in _text(path).splitlines())


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a corpus of training.generate, found no such file; finish it first."
        )
    return path.read_text(encoding="utf-8")
