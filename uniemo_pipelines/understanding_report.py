"""What `uniemo understand` shows of a photo: figures on the terminal or as JSON, and where the queries look."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from . import drawing
from .images_uniemo import open_image

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

    from .understanding_uniemo import ImageUnderstanding


def overlay_files(explain: Path | None, photos: Sequence[Path]) -> list[Path | None]:
    """The file of each photo's overlay, numbered where there are several.

    Raises:
        ValueError: one of them cannot be written, or is one of the photos.
    """
    if explain is None:
        return [None] * len(photos)
    several = len(photos) > 1
    overlays = [drawing.numbered(explain, index) if several else explain for index in range(1, len(photos) + 1)]
    for overlay in overlays:
        _check_overlay(overlay, photos)
    return list(overlays)


def _check_overlay(overlay: Path, photos: Sequence[Path]) -> None:
    drawing.check_writable(overlay, "--explain")
    if overlay.exists() and any(overlay.samefile(photo) for photo in photos):
        raise ValueError(f"{overlay}: expected a file to write, found a photo to read; choose another --explain.")


def plain_values(photo: Path, result: "ImageUnderstanding") -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "file": str(photo),
        "emotion": result.label,
        "probabilities": result.probabilities,
        "polarity": result.polarity,
        "scenes": [{"name": name, "score": score} for name, score in result.scenes],
        "objects": [{"name": name, "score": score} for name, score in result.objects],
    }


def print_result(result: dict[str, Any]) -> None:
    """What a person reads: the label, bars of the probabilities, the nearest scenes and objects."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{result['file']}: {result['emotion']}", style="bold")
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, share in {**result["probabilities"], **result["polarity"]}.items():
        if name == "positive":
            table.add_row()
        table.add_row(name, "█" * round(share * 30) or "▏", f"{share:6.1%}")
    console.print(table)
    for kind in ("scenes", "objects"):
        nearest = ", ".join(f"{entry['name']} {entry['score']:.2f}" for entry in result[kind])
        console.print(f"nearest {kind}: {nearest or 'the model names none'}")


def write_overlay(photo: Path, result: "ImageUnderstanding", processor: "BaseImageProcessor", path: Path) -> None:
    """Draws where the scene queries and, below, the object queries look, over the photo and as maps beside it."""
    share = processor.crop_size["height"] / processor.size["shortest_edge"]
    image = open_image(photo)
    maps = {"scenes": result.scene_attention, "objects": result.object_attention}
    drawing.write_image(
        drawing.sheet({name: drawing.overlay(image, one.numpy(), share) for name, one in maps.items()}), path
    )
