"""Emotions as textual inversions: one embedding file an emotion, for every program that reads those.

`awe.safetensors` holds one tensor, (k, D), under the key `<awe>`, which a stock pipeline reads as it is:

    export_textual_inversions(pipe.fusion, "embeddings")
    stock.load_textual_inversion("embeddings", weight_name="awe.safetensors")
    stock("a photo of a <awe> street")

For a base with two text encoders the tensors' names are `clip_l` and `clip_g`, as usual for Stable Diffusion XL, and
each goes to its encoder by `load_textual_inversion(tensor, token="<awe>", text_encoder=..., tokenizer=...)`.
"""

import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .fusion_uniemo import EMOTIONS, UniEmoFusionModel

ENCODER_KEYS = ("clip_l", "clip_g")


@torch.no_grad()
def emotion_vectors(fusion: UniEmoFusionModel, emotion: str, vectors: int = 1) -> tuple[Tensor, ...]:
    """The conditions that stand for an emotion without the adapter: its mean, then medoids that span its variety.

    The mean is that of `emotion_variation=0`. Medoids are chosen among the conditions of the emotion space's bank by
    weighted k-medoids' greedy start (BUILD of Kaufman and Rousseeuw 1990): each next one is that which brings the bank
    nearest to those chosen. So nothing is random, and more vectors only add to fewer.

    Args:
        fusion: the fusion model, of any type; conditions are computed in its own.
        emotion: one of `EMOTIONS`.
        vectors: k, the mean and k - 1 medoids.

    Returns:
        For each text encoder (k, D) float32 on the CPU.

    Raises:
        ValueError: k below 1, or above the number of medoids in the bank and the mean.
    """
    index = EMOTIONS.index(emotion)
    weights = fusion.bank_weights[index].float()
    present = weights.nonzero()[:, 0]
    if not 1 <= vectors <= 1 + len(present):
        raise ValueError(
            f"expected from 1 to {1 + len(present)} vectors (the mean and what the adapter's bank holds for "
            f"{emotion}), found {vectors}."
        )
    target = torch.eye(len(EMOTIONS))[index]
    features = zip(fusion.mean_features(target), fusion.bank[index, present].float().unbind(1), strict=True)
    conditions = fusion(*(torch.cat(pair) for pair in features), target)
    conditions = conditions if isinstance(conditions, tuple) else (conditions,)
    conditions = [encoder.float().cpu() for encoder in conditions]
    chosen = _build(torch.cat(conditions, dim=-1)[1:], weights[present].cpu(), vectors - 1)
    return tuple(encoder[[0, *(1 + medoid for medoid in chosen)]] for encoder in conditions)


def _build(points: Tensor, weights: Tensor, count: int) -> list[int]:
    """Indices of `count` points, each the one that most lowers the weighted sum of distances to the nearest chosen."""
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, chosen = torch.full_like(weights, torch.inf), []
    for _ in range(count):
        costs = (torch.minimum(nearest[:, None], distances) * weights[:, None]).sum(0)
        costs[chosen] = torch.inf
        chosen.append(int(costs.argmin()))
        nearest = torch.minimum(nearest, distances[:, chosen[-1]])
    return chosen


def export_textual_inversions(
    fusion: UniEmoFusionModel, directory: str | os.PathLike[str], vectors: int = 1
) -> list[Path]:
    """Write `<emotion>.safetensors` for each of the eight emotions; see `emotion_vectors` for what is in them.

    Diffusers gives a file of one vector the token `<awe>`. Of a file of several, `<awe>` in a prompt stands for all of
    them in a row, and `<awe>_3` for the fourth alone, so that `<awe>_1` ... are the medoids one by one.

    Where UniEmo itself is loaded, `<awe>` is taken and diffusers refuses the file, unless `token=` names another.

    Args:
        fusion: the fusion model of an adapter.
        directory: the folder to write into, made if it is missing.
        vectors: of each emotion, k.

    Returns:
        The files, in the order of `EMOTIONS`.

    Raises:
        ValueError: k out of range, or one of the files is there already; nothing is written then.
        OSError: the folder cannot be made or written to.
    """
    directory = Path(directory)
    tensors = {emotion: emotion_vectors(fusion, emotion, vectors) for emotion in EMOTIONS}
    files = [directory / f"{emotion}.safetensors" for emotion in EMOTIONS]
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: expected a folder to write into, found a file.")
    if found := [file.name for file in files if file.exists()]:
        raise ValueError(f"{directory}: expected a folder without {', '.join(found)}; remove them or name another.")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".uniemo-") as partial:
        for file, (emotion, encoders) in zip(files, tensors.items(), strict=True):
            keys = [f"<{emotion}>"] if len(encoders) == 1 else ENCODER_KEYS
            save_file(dict(zip(keys, encoders, strict=True)), Path(partial, file.name))
        for file in files:  # all are whole before the first is there
            os.replace(Path(partial, file.name), file)
    return files
