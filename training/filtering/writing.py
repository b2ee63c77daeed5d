"""The kept images as a data set in EmoSet's layout, which stage 1 reads beside the real one."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data import DataArguments, Row, read_rows
from ..data.rows import NO_LABEL, Vocabulary
from ..runs import write_json
from .candidates import Candidates
from .corpus import Corpus
from .sieve import CRITERIA, Sieve

ARGUMENTS = "filter.json"
"""Not the name that runs of training have for theirs."""
LIST = "train.json"


def check_output(folder: Path, inputs: Sequence[str]) -> None:
    """Make sure that the folder is one to write: new, empty, or of an earlier filter.

    Args:
        inputs: folders that are read.

    Raises:
        ValueError: the folder is an input, or holds something else.
    """
    if any(Path(one).resolve() == folder.resolve() for one in inputs):
        raise ValueError(f"{folder}: it is read from; give another --output.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ARGUMENTS).is_file():
        raise ValueError(f"{folder} holds files of something else; give another --output.")


def begin_output(folder: Path, arguments: dict[str, Any]) -> None:
    """Write the arguments, the mark of such a folder, and take away the list of an earlier filter."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ARGUMENTS, arguments)
    (folder / LIST).unlink(missing_ok=True)


def write_data_set(folder: Path, corpus: Corpus, candidates: Candidates, sieve: Sieve, vocabulary: Vocabulary) -> None:
    """Images, annotations, label maps, and last `train.json`, without which there is no data set.

    An annotation has `emotion`, `probabilities` (8, the soft label), `scene` and `object` where the one
    meant is the one read, and `generated`: where the image comes from.
    """
    for kind in ("image", "annotation"):
        shutil.rmtree(folder / kind, ignore_errors=True)
        for emotion in EMOTIONS:
            (folder / kind / emotion).mkdir(parents=True)
    write_json(folder / "info.json", label_maps(vocabulary))
    names, agreed = {"scene": vocabulary.scenes, "object": vocabulary.objects}, candidates.agreed
    rows = []
    for index in tqdm(sieve.left.tolist(), "writing", unit="image"):
        one = corpus.pictures[index]
        emotion = EMOTIONS[one.label]
        name = f"{emotion}/{emotion}_{index:07d}"
        image, annotation = f"image/{name}{Path(one.image).suffix}", f"annotation/{name}.json"
        shutil.copyfile(one.picture.path, folder / image)
        content = {
            "image_id": f"{emotion}_{index:07d}",
            "emotion": emotion,
            **_attributes({kind: int(values[index]) for kind, values in agreed.items()}, names),
            "probabilities": [round(value, 6) for value in candidates.probabilities[index].tolist()],
            "generated": {
                "corpus": Path(one.corpus).resolve().name,
                "image": one.image,
                "seed": one.seed,
                "adapter_digest": corpus.adapter_digest,
            },
        }
        (folder / annotation).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        rows.append([emotion, image, annotation])
    write_json(folder / LIST, rows)


def kept_rows(folder: str | Path) -> list[Row]:
    """The images of a data set of kept ones.

    Raises:
        FileNotFoundError: there is none.
    """
    return read_rows(DataArguments(data=str(folder)), LIST.removesuffix(".json"))


def kept_of_each(folder: str | Path) -> list[int]:
    """How many images of each emotion a data set of kept ones has, in EmoSet's order.

    Raises:
        FileNotFoundError: there is none.
    """
    labels = [row.label for row in kept_rows(folder)]
    return np.bincount(labels, minlength=len(EMOTIONS)).tolist()


def _attributes(agreed: dict[str, int], names: dict[str, Sequence[str]]) -> dict[str, Any]:
    found = {kind: names[kind][value] for kind, value in agreed.items() if value != NO_LABEL}
    return {kind: [name] if kind == "object" else name for kind, name in found.items()}


def label_maps(vocabulary: Vocabulary) -> dict[str, dict[str, dict[str, Any]]]:
    """EmoSet's `info.json` of a vocabulary."""
    names = {"emotion": EMOTIONS, "scene": vocabulary.scenes, "object": vocabulary.objects}
    return {
        kind: {
            "label2idx": {name: index for index, name in enumerate(values)},
            "idx2label": {str(index): name for index, name in enumerate(values)},
        }
        for kind, values in names.items()
    }


def verdicts(corpus: Corpus, candidates: Candidates, sieve: Sieve) -> str:
    """A line an image in the corpus' order: what was found, and the criterion that it fell at first, or null."""
    lines, quality = [], candidates.quality
    for index, one in enumerate(corpus.pictures):
        fell = int(sieve.fell[index])
        content = {
            "corpus": Path(one.corpus).resolve().name,
            "image": one.image,
            "probability": round(float(quality[index]), 4),
            **{f"{kind}_clarity": round(float(values[index]), 4) for kind, values in candidates.clarity.items()},
            "distance": round(float(candidates.distance[index]), 4),
            "fell": CRITERIA[fell].name if fell >= 0 else None,
        }
        lines.append(json.dumps(content) + "\n")
    return "".join(lines)
