"""A corpus of generated images, as it stands on disk.

generation.json  what all images share, see `CorpusSettings`
manifest.jsonl   a line an image, see `CorpusImage`, in the order of emotion and number; written when all is there
image/           awe/awe_000012.png, ...
conditions/      awe-000000.safetensors, ...: "condition" (n, D), of n images the pseudo-token's embeddings; where an
                 adapter drew them
parts/           awe-000000.jsonl, ...: the lines of images that were drawn at once; those that it names are there
sheet.jpg        the first images of each emotion

Conditions and lines of images drawn at once are named by the first of them.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from PIL import Image
from safetensors import SafetensorError

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

SHEET_COLUMNS, SHEET_EDGE = 8, 128


@dataclass(frozen=True)
class CorpusImage:
    """An image of a corpus.

    Attributes:
        image: its file, from the corpus' folder on.
        emotion: the target.
        seed: of the image's own generator.
    """

    image: str
    emotion: str
    seed: int

    @classmethod
    def of(cls, line: dict[str, Any]) -> Self:
        """From its line."""
        return cls(**line)

    @property
    def files(self) -> tuple[str, ...]:
        """All that belongs to it."""
        return (self.image,)


@dataclass(frozen=True)
class GeneratedImage(CorpusImage):
    """An image that an adapter drew.

    Attributes:
        scene, object: the attributes that its sampled features retrieve, and that alpha was taken from; None where the
            adapter has no base of them.
        condition: the file of conditions, and the row in it.
    """

    scene: str | None
    object: str | None
    condition: tuple[str, int]

    @classmethod
    def of(cls, line: dict[str, Any]) -> Self:
        """From its line."""
        return cls(**line | {"condition": tuple(line["condition"])})

    @property
    def files(self) -> tuple[str, ...]:
        """All that belongs to it."""
        return (self.image, self.condition[0])


AnyImage = TypeVar("AnyImage", bound=CorpusImage)


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """What the images of a corpus share, so that any of them can be made again.

    Attributes:
        base: a Hub name as it is, a folder by the last part of its path.
        base_digest: of its weights and scheduler.
        seed: of the corpus, from which each image's own comes, see `seed_of`.
        batch_size: images drawn at once, which decides how sums are rounded, and nothing else.
        size: width and height in pixels.
        dtype: of the weights.
        images: of each emotion.
        versions: of the packages that drew them.
    """

    script: ClassVar[str]
    kind: ClassVar[type[CorpusImage]]
    free: ClassVar[tuple[str, ...]] = ("base", "images")
    """Settings that decide no image: where the weights lie, and how far the numbers go."""

    base: str
    base_digest: str
    guidance: float
    steps: int
    seed: int
    batch_size: int
    size: list[int]
    dtype: str
    images: int
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a corpus.

        Raises:
            FileNotFoundError: the folder holds none.
            ValueError: they are of another script.
        """
        text = _text(folder / SETTINGS)
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            raise ValueError(
                f"{folder / SETTINGS}: expected settings as {cls.script} writes them, found others; give a folder of "
                "that script's."
            ) from None

    @property
    def decisive(self) -> dict[str, Any]:
        """Those that decide what an image looks like."""
        return {name: value for name, value in asdict(self).items() if name not in self.free}

    @property
    def source(self) -> str:
        """What drew them, for people."""
        return self.base


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """Of images that an adapter drew.

    Attributes:
        adapter: a Hub name as it is, a folder or file by the last part of its path.
        adapter_digest: of its weights.
        emotion_head: digest of its understanding model's, see training/emotion_heads.py; None where it is not at hand,
            and of corpora that were drawn before there was one.
        emotion_space: the form that was sampled from, with `variation` from 0 to 1.
        prompt: with `<emotion>` in it; None for the emotion alone.
    """

    script: ClassVar[str] = "training.generate"
    kind: ClassVar[type[CorpusImage]] = GeneratedImage
    free: ClassVar[tuple[str, ...]] = (*CorpusSettings.free, "adapter", "emotion_head")

    adapter: str
    adapter_digest: str
    emotion_head: str | None = None
    prompt: str | None
    emotion_space: str
    variation: float

    @property
    def source(self) -> str:
        """What drew them, for people."""
        return f"{self.adapter} on {self.base}"


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


def refuse_other_settings(folder: Path, settings: CorpusSettings) -> None:
    """Leave alone what is no corpus, or one that has images of other settings.

    Raises:
        ValueError: with the name of each setting that differs.
    """
    if is_begun(folder):
        before = settings.read(folder)
        if changed := changes(before.decisive, settings.decisive):
            raise ValueError(
                f"{folder} holds images of other settings ({before.source}): {'; '.join(changed)}. "
                "Give the old ones to go on with it, or another --output to begin a new corpus."
            )
    elif folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise ValueError(f"{folder} holds files of something else; give another --output.")


def read_chunk(folder: Path, chunk: Chunk, kind: type[AnyImage]) -> list[AnyImage]:
    """The chunk's images; none of them if it is not whole, or if files of it were lost."""
    path = folder / chunk.lines
    found = _lines(path, kind)[: chunk.count] if path.is_file() else []
    files = {file for one in found for file in one.files}
    return found if len(found) == chunk.count and all((folder / file).is_file() for file in files) else []


@contextmanager
def saying_what_is_full(folder: Path) -> Iterator[None]:
    """Say of files that could not be written that the work can be gone on with.

    Raises:
        OSError: the disk is full, or the folder refuses files.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{folder} could not be written ({error}); make room there, then give the same command again to go on."
        ) from error


def write_chunk(folder: Path, chunk: Chunk, found: Sequence[CorpusImage], images: Sequence[Image.Image]) -> None:
    """Write a chunk's images and then its lines.

    Args:
        found: the chunk's images as the manifest has them.
        images: at least as many, the chunk's first.
    """
    for file in (chunk.image(0), chunk.lines):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    for one, image in zip(found, images, strict=False):
        save_image_whole(folder / one.image, image)
    write_whole(folder / chunk.lines, _as_lines(found))


def write_generated(folder: Path, chunk: Chunk, seeds: Sequence[int], output: UniEmoPipelineOutput) -> None:
    """Write a chunk that an adapter drew: conditions, images, and then its lines.

    Args:
        seeds: of the images.
        output: at least as many images as the chunk has, the chunk's first.
    """
    (folder / chunk.conditions).parent.mkdir(parents=True, exist_ok=True)
    condition = output.conditions[SLOT_TOKEN][: chunk.count].cpu().contiguous()
    save_whole(folder / chunk.conditions, {"condition": condition})
    found = []
    for row, seed in enumerate(seeds[: chunk.count]):
        attributes = output.attributes[row][SLOT_TOKEN]
        names = attributes["scene"], attributes["object"]
        found.append(GeneratedImage(chunk.image(row), chunk.emotion, seed, *names, (chunk.conditions, row)))
    write_chunk(folder, chunk, found, output.images)


def write_manifest(folder: Path, settings: CorpusSettings) -> None:
    """Draw the sheet, and merge the lines of all chunks, last; what the manifest names is all there.

    Raises:
        FileNotFoundError: a chunk is not whole.
    """
    found = []
    chunks = chunks_of(settings.images, settings.batch_size)
    for chunk in sorted(chunks, key=lambda one: (EMOTIONS.index(one.emotion), one.first)):
        own = read_chunk(folder, chunk, settings.kind)
        if not own:
            raise FileNotFoundError(
                f"{folder / chunk.lines}: expected {chunk.count} images, found some missing; repeat the command."
            )
        found += own
    write_json(folder / SETTINGS, asdict(settings))
    save_image_whole(folder / SHEET, sheet(folder, found), quality=92)
    write_whole(folder / MANIFEST, _as_lines(found))


def read_manifest(folder: Path, kind: type[AnyImage] = GeneratedImage) -> list[AnyImage]:
    """All images of a corpus.

    Raises:
        FileNotFoundError: the folder has no manifest, or not yet.
    """
    return _lines(folder / MANIFEST, kind)


def sheet(folder: Path, images: Sequence[CorpusImage]) -> Image.Image:
    """A row an emotion of its first images, made small if they are large."""
    rows: dict[str, list[Image.Image]] = {}
    for one in images:
        row = rows.setdefault(one.emotion, [])
        if len(row) < SHEET_COLUMNS:
            with Image.open(folder / one.image) as image:
                image.thumbnail((SHEET_EDGE, SHEET_EDGE))
                row.append(image.copy())
    return drawing.sheet(rows)


def _as_lines(images: Sequence[CorpusImage]) -> str:
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in images)


def _lines(path: Path, kind: type[AnyImage]) -> list[AnyImage]:
    return [kind.of(json.loads(line)) for line in _text(path).splitlines()]


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a corpus of generated images, found no such file; finish it first.")
    return path.read_text(encoding="utf-8")
