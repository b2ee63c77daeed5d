"""Emotion heads by a digest: whose head was a generator trained to please?

Stage 2 freezes the emotion head, so that a generator's is that of the stage-1 model that it was trained with.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_NAME

from uniemo_pipelines.adapters_uniemo import read_adapter

HEAD = "classifier."


def head_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Digest of the emotion head among an understanding model's tensors; None where there is none.

    Of half precision, so that a head is the same as it was trained and as it is published.
    """
    head = {name: tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    digest = sha256()
    for name, tensor in sorted(head.items()):
        digest.update(name.encode() + tensor.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:12] if head else None


def head_of_adapter(file: Path) -> str | None:
    """That of the understanding chain in an adapter file, or of the model in the folder that it names.

    None where neither is at hand: nothing is fetched for it.
    """
    adapter = read_adapter(file)
    if adapter.chain:
        return head_of(adapter.chain.tensors)
    weights = file.parent / (adapter.understanding or "") / SAFE_WEIGHTS_NAME
    if not adapter.understanding or not weights.is_file():
        return None
    with safe_open(weights, framework="pt") as tensors:
        return head_of({name: tensors.get_tensor(name) for name in tensors.keys() if name.startswith(HEAD)})
