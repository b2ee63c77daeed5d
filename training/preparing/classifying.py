"""The released form of the attribute statistics: a trained model's mean predicted probabilities."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from ..data.rows import NO_LABEL, Vocabulary
from ..data.statistics import AttributeSums
from ..files import save_whole

BATCHES_BETWEEN_SAVES = 50


@torch.no_grad()
def sum_probabilities(
    model: UniEmoUnderstandingModel,
    loader: Iterable[dict[str, Tensor]],
    vocabulary: Vocabulary,
    state: Path,
    key: str,
) -> AttributeSums:
    """Sums of the probabilities (B, 8) that a model gives the pictures of a loader.

    Args:
        model: in evaluation mode.
        loader: batches of `PictureSample`, the same each time.
        vocabulary: of the data.
        state: a file that has the sums so far, so that a run that was stopped goes on where it was.
        key: what makes two runs the same; a state with another one is not gone on with.
    """
    sums, done = read_state(state, vocabulary, key)
    number = 0
    for number, batch in enumerate(tqdm(loader, "classifier", unit="batch"), start=1):
        if number > done:
            probabilities = model(batch["pixel_values"].to(model.device)).logits.double().softmax(-1).cpu()
            add_batch(sums, probabilities, batch)
            if number % BATCHES_BETWEEN_SAVES == 0:
                write_state(state, sums, number, key)
    write_state(state, sums, number, key)
    return sums


def add_batch(sums: AttributeSums, probabilities: Tensor, batch: dict[str, Tensor]) -> None:
    """Add the (B, 8) probabilities of a batch."""
    scenes = batch.get("scene_labels", torch.full((len(probabilities),), NO_LABEL)).tolist()
    objects = batch.get("object_labels", torch.zeros(len(probabilities), 0))
    for emotions, scene, things in zip(probabilities, scenes, objects, strict=True):
        sums.add(emotions, scene, things.nonzero().flatten().tolist())


def read_state(state: Path, vocabulary: Vocabulary, key: str) -> tuple[AttributeSums, int]:
    """Sums and the number of batches that they cover; nothing and 0 without a state of this run."""
    if state.is_file():
        with safe_open(state, "pt") as file:
            if file.metadata()["key"] == key:
                sums = AttributeSums(*(file.get_tensor(field.name) for field in fields(AttributeSums)))
                return sums, int(file.metadata()["batches"])
    return AttributeSums.empty(vocabulary), 0


def write_state(state: Path, sums: AttributeSums, batches: int, key: str) -> None:
    """What `read_state` reads."""
    save_whole(state, vars(sums), {"key": key, "batches": str(batches)})
