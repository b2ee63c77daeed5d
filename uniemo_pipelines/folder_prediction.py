"""What each picture of a folder evokes: pictures are read by threads while the model works, a batch at a time."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from .prediction_table import Value
from .understanding_uniemo import ImageUnderstanding, pixel_values, understand_pixels

NEAREST = 3
SCORE_DIGITS = 7  # all that float32 has

# Formats that Pillow recognises and cannot read.
_STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass(frozen=True)
class Batch:
    """A row for each picture that could be read, as `columns` names its values, and why the others could not."""

    rows: list[list[Value]]
    bad: list[str]


def find_pictures(folder: Path) -> list[str]:
    """Paths, relative and with forward slashes, of the pictures in a folder and below, in order.

    A picture is a file with the suffix of a format that Pillow reads. Hidden files and folders are left out, and links
    to folders are not followed.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN.keys() - _STUBS}
    found: list[str] = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(where, name) for name in files if not name.startswith(".")]
        found += [path.relative_to(folder).as_posix() for path in paths if path.suffix.lower() in suffixes]
    return sorted(found)


def columns(model: PreTrainedModel) -> list[str]:
    """file, emotion, a probability an emotion, positive, negative, scene_1, scene_1_score, ..., object_3_score.

    Flat, so that all three kinds of file read as the same data frame, and `frame[frame.awe > 0.5]` or
    `frame.groupby("scene_1")` need no unpacking.
    """
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    names = ["file", "emotion", *names, "positive", "negative"]
    for kind, vocabulary in (("scene", model.config.scenes), ("object", model.config.objects)):
        for rank in range(1, min(NEAREST, len(vocabulary)) + 1):
            names += [f"{kind}_{rank}", f"{kind}_{rank}_score"]
    return names


def fingerprint(model: PreTrainedModel, processor: BaseImageProcessor) -> str:
    """Digest of weights and settings: a model that was moved is the same, one that was trained on is another."""
    settings = [model.config.to_dict() | {"_name_or_path": None}, processor.to_dict()]
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=8)
    for name, weights in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def predict(
    model: PreTrainedModel, processor: BaseImageProcessor, folder: Path, files: Iterable[str], batch_size: int
) -> Iterator[Batch]:
    """Reads and understands pictures; no more than three batches are in memory at a time.

    Args:
        model: a `UniEmoUnderstandingModel`.
        processor: the image processor that belongs to it.
        folder: what the files are relative to.
        files: see `find_pictures`.
        batch_size: pictures a batch, those that cannot be read included.
    """
    pictures = decoded(processor, folder, files, 2 * batch_size)
    while batch := list(islice(pictures, batch_size)):
        bad = [str(pixels) for _, pixels in batch if isinstance(pixels, ValueError)]
        good = {file: pixels for file, pixels in batch if not isinstance(pixels, ValueError)}
        results = understand_pixels(model, torch.cat(list(good.values())), NEAREST) if good else []
        yield Batch([_values(file, result) for file, result in zip(good, results, strict=True)], bad)


def decoded(
    processor: BaseImageProcessor, folder: Path, files: Iterable[str], ahead: int
) -> Iterator[tuple[str, torch.Tensor | ValueError]]:
    """Each file, in order, with what the model sees of it (1, 3, height, width), or why it cannot be read.

    Threads, a core each, and not processes: Pillow decodes and scales outside Python's lock, and nothing must be
    started, sent across or cleaned up.

    Args:
        ahead: so many files are read before they are asked for.
    """

    def read(file: str) -> torch.Tensor | ValueError:
        try:
            file.encode()  # no table holds a name that is not
            return pixel_values(processor, folder / file)
        except UnicodeEncodeError:
            return ValueError(f"{os.fsencode(folder / file)!r}: expected a name in UTF-8; rename the file")
        except ValueError as error:
            return error

    waiting: deque[tuple[str, Future[torch.Tensor | ValueError]]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for file in files:
            waiting.append((file, pool.submit(read, file)))
            if len(waiting) > ahead:
                file, future = waiting.popleft()
                yield file, future.result()
        for file, future in waiting:
            yield file, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _values(file: str, result: ImageUnderstanding) -> list[Value]:
    nearest = [value for pair in (*result.scenes, *result.objects) for value in pair]
    values = [file, result.label, *result.probabilities.values(), *result.polarity.values(), *nearest]
    return [value if isinstance(value, str) else float(f"{value:.{SCORE_DIGITS}g}") for value in values]
