"""CLIP's view of attribute names: the text side of stage 1, encoded once and stored in the model."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, PreTrainedTokenizerBase

from uniemo_pipelines.attributes import normalise

BATCH = 128


@torch.no_grad()
def encode_vocabulary(clip: CLIPModel, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> Tensor:
    """CLIP's text features of names, for `set_vocabulary`: the bare words, with no template around them.

    Args:
        clip: the CLIP model whose vision tower the understanding model starts from.
        tokenizer: its tokenizer.
        names: scene or object names in any of EmoSet's spellings; ["scene"] and ["object"] give the missing texts.

    Returns:
        (len(names), P) float32 of norm 1, on CLIP's device.
    """
    words = [normalise(name) for name in names]
    features = [torch.empty(0, clip.config.projection_dim, device=clip.device)]
    for start in range(0, len(words), BATCH):
        batch = tokenizer(words[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
        output = clip.get_text_features(batch.input_ids.to(clip.device), batch.attention_mask.to(clip.device))
        features.append(functional.normalize(output.pooler_output.float(), dim=-1))
    return torch.cat(features)
