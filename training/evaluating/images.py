"""Generated images with the emotions that were asked for."""

import json
from collections import Counter
from pathlib import Path

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.folder_prediction import find_pictures
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data import Row
from ..data.pictures import FilePicture

MANIFEST = "manifest.jsonl"


def read_generated(folder: Path) -> list[Row]:
    """The images of a folder with a manifest (`training.generate`), or of one folder an emotion, in order.

    Raises:
        FileNotFoundError: no such folder, or images that the manifest lists and that are not there.
        ValueError: a line that is none, an unknown emotion, an image that is listed twice, or no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of generated images, found none.")
    listed = _from_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else _from_folders(folder)
    if not listed:
        raise ValueError(f"{folder}: expected a {MANIFEST} with images, or a folder of images an emotion; found none.")
    missing = [path for path, _ in listed if not (folder / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of the {len(listed)} images in {MANIFEST} are missing, for example "
            f"{missing[0]}; generate them again, or take their lines out."
        )
    [(path, times)] = Counter(path for path, _ in listed).most_common(1)
    if times > 1:
        raise ValueError(f"{folder}: expected each image once in {MANIFEST}, found {path} {times} times.")
    return [
        Row(index=index, label=EMOTIONS.index(emotion), picture=FilePicture(str(folder / path)))
        for index, (path, emotion) in enumerate(listed)
    ]


def _from_manifest(manifest: Path) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            content = json.loads(line)
            path, emotion = str(content["image"]), normalise(content["emotion"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f'{manifest}, line {number}: expected {{"image": path, "emotion": name}}, found {line[:80]!r}.'
            ) from None
        if emotion not in EMOTIONS:
            raise ValueError(
                f"{manifest}, line {number}: unknown emotion {emotion!r}; expected one of {', '.join(EMOTIONS)}."
            )
        found.append((path, emotion))
    return found


def _from_folders(folder: Path) -> list[tuple[str, str]]:
    emotions = {path: normalise(path.name) for path in sorted(folder.iterdir()) if path.is_dir()}
    return [
        ((path / name).relative_to(folder).as_posix(), emotion)
        for path, emotion in emotions.items()
        if emotion in EMOTIONS
        for name in find_pictures(path)
    ]
