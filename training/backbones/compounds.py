"""Compound words: several parts of a picture in a single token, as "nightclub" tells a room, a light and a mood.

UniEmo's condition is one token that tells scene, object and palette at once. A stock text encoder reads such tokens,
for natural language is full of them. The mini world's words name one part each, and a text encoder that had seen no
others drew the scene of a scene + object token in .82 of the pictures and its object in .30.
"""

import numpy as np
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, PseudoTokens

from ..miniemoset.attributes import BRIGHTNESSES, PALETTES
from ..miniemoset.objects import OBJECTS
from ..miniemoset.scenes import SCENES

NAMES = (*SCENES, *OBJECTS, *PALETTES, *BRIGHTNESSES)
PROMPTS = (SLOT_TOKEN, f"a photo of a {SLOT_TOKEN}")
KEPT = 0.75  # probability of a part to be in a compound
SECOND_OBJECT = 0.5  # of the weight of the first, which is drawn larger


class Compounds:
    """The slot of one tokenizer and text encoder, filled with sums of the embeddings of the world's words."""

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> None:
        self.tokens = PseudoTokens(tokenizer, text_encoder)
        self.table = text_encoder.get_input_embeddings()
        self.spelling = torch.zeros(len(NAMES), self.table.num_embeddings)
        for row, name in zip(self.spelling, NAMES, strict=True):
            ids = tokenizer(normalise(name), add_special_tokens=False).input_ids
            row[ids] = 1 / len(ids)

    def rows(self, weights: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) of compounds with these weights (B, 51) of the names, differentiable in the table."""
        return weights @ self.spelling @ self.table.weight


def compound_weights(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights (51,) of the names in a compound: a random part of those in a label row, each from 0.5 to 1."""
    starts = np.cumsum([0, len(SCENES), 0, len(OBJECTS), len(PALETTES)])
    shown = (labels >= 0) & (rng.random(5) < KEPT)
    shown[0] |= not shown.any()
    values = rng.uniform(0.5, 1, 5) * (1, 1, SECOND_OBJECT, 1, 1)
    weights = np.zeros(len(NAMES), dtype=np.float32)
    weights[(starts + labels)[shown]] = values[shown]
    return weights
