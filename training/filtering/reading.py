"""What the filter reads in pictures: emotions, scenes and objects by understanding models, features by a CLIP."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPModel

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.modeling_uniemo import UniEmoOutput, UniEmoUnderstandingModel
from uniemo_pipelines.understanding_uniemo import load_understanding

from ..data.pictures import Picture
from ..data.rows import Vocabulary
from .chunks import batches, digest_of_weights, kept_chunks


class ReadingArguments(Protocol):
    """How pictures are read."""

    features: str
    batch_size: int
    num_workers: int
    device: str | None


@dataclass(frozen=True)
class Readings:
    """What the filtering models read in N pictures.

    Attributes:
        logits: (N, 8), the mean over the models of log-probabilities; not yet calibrated.
        attributes: by kind ("scene", "object"), the likeliest one, (N,), a number of the vocabulary.
        clarity: by kind, its probability, (N,).
    """

    logits: Tensor
    attributes: dict[str, np.ndarray]
    clarity: dict[str, np.ndarray]


class Filter:
    """One or several understanding models that judge together.

    Args:
        locations: their folders or Hub repositories.
        vocabulary: of the data, which must be theirs.
        arguments: how pictures are read.

    Raises:
        ValueError: a model of another vocabulary.
    """

    def __init__(self, locations: Sequence[str], vocabulary: Vocabulary, arguments: ReadingArguments) -> None:
        self.arguments = arguments
        self.locations = list(locations)
        self.device = _device(arguments)
        self.models = [load_understanding(location, dtype=torch.float32).eval() for location in locations]
        for location, model in zip(locations, self.models, strict=True):
            _check_vocabulary(location, model, vocabulary)
        self.processors = [CLIPImageProcessorPil.from_pretrained(location) for location in locations]
        self.kinds = [kind for kind in ("scene", "object") if getattr(vocabulary, f"{kind}s")]
        settings = [one.to_dict() for one in self.processors] + [one.config.to_json_string() for one in self.models]
        self.key = f"readings {digest_of_weights(*self.models)} {settings}"

    def read(self, pictures: Sequence[Picture], description: str) -> Readings:
        """What it reads; computed once."""
        folder = Path(self.arguments.features)
        parts = list(kept_chunks(pictures, self._compute, self.key, folder, f"reading {description}"))
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Readings(
            joined["logits"],
            {kind: joined[kind].numpy() for kind in self.kinds},
            {kind: joined[f"{kind}_clarity"].numpy() for kind in self.kinds},
        )

    @torch.no_grad()
    def _compute(self, pictures: Sequence[Picture]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for model, processor in zip(self.models, self.processors, strict=True):
            model.to(self.device)
            loader = batches(pictures, processor, self.arguments.batch_size, self.arguments.num_workers)
            found = [_probabilities(model, model(pixels.to(self.device)), self.kinds) for pixels in loader]
            for name in found[0]:
                sums[name] = sums.get(name, 0) + torch.cat([one[name] for one in found]).cpu() / len(self.models)
        readings = {"logits": sums["logits"]}
        for kind in self.kinds:
            readings[f"{kind}_clarity"], readings[kind] = sums[kind].max(-1)
        return readings


def _probabilities(model: UniEmoUnderstandingModel, output: UniEmoOutput, kinds: Sequence[str]) -> dict[str, Tensor]:
    """Log-probabilities of the emotions, and probabilities over each base, at stage 1's own temperatures."""
    scenes, objects = model.attribute_scores(output.scene_features, output.object_features)
    scores = {"scene": scenes, "object": objects}
    found = {kind: (getattr(model, f"{kind}_logit_scale").exp() * scores[kind]).softmax(-1) for kind in kinds}
    return {"logits": output.logits.float().log_softmax(-1), **found}


def _check_vocabulary(location: str, model: UniEmoUnderstandingModel, vocabulary: Vocabulary) -> None:
    own = Vocabulary.of(map(normalise, model.config.scenes), map(normalise, model.config.objects))
    if own != vocabulary:
        raise ValueError(
            f"{location}: expected a model of this data set's {len(vocabulary.scenes)} scenes and "
            f"{len(vocabulary.objects)} objects, found one of {len(own.scenes)} and {len(own.objects)}, or of others; "
            "filter with a model that was trained on this data."
        )


class Extractor:
    """Image embeddings of a CLIP, of length 1.

    A distance in the filter's own features would repeat its judgement: take a CLIP that was not fine-tuned with it. In
    the embedded world it is the one that the filter's fine-tuning started from, for there is no other.

    Args:
        location: its folder or Hub repository.
        arguments: how pictures are read.
    """

    def __init__(self, location: str, arguments: ReadingArguments) -> None:
        self.arguments = arguments
        self.device = _device(arguments)
        self.model = CLIPModel.from_pretrained(location, dtype=torch.float32).eval().to(self.device)
        self.processor = CLIPImageProcessorPil.from_pretrained(location)
        settings = f"{self.processor.to_dict()} {self.model.config.to_json_string()}"
        self.key = f"features {digest_of_weights(self.model)} {settings}"

    def parts(self, pictures: Sequence[Picture], description: str) -> Iterator[np.ndarray]:
        """Features (n, F) chunk by chunk; computed once."""
        folder = Path(self.arguments.features)
        for part in kept_chunks(pictures, self._compute, self.key, folder, f"features {description}"):
            yield part["features"].float().numpy()

    @torch.no_grad()
    def _compute(self, pictures: Sequence[Picture]) -> dict[str, Tensor]:
        loader = batches(pictures, self.processor, self.arguments.batch_size, self.arguments.num_workers)
        found = [self.model.get_image_features(pixels.to(self.device)).pooler_output for pixels in loader]
        features = functional.normalize(torch.cat(found).float(), dim=-1)
        return {"features": features.half().cpu()}  # half the disk; distances move by less than a thousandth


def _device(arguments: ReadingArguments) -> torch.device:
    return torch.device(arguments.device or torch.accelerator.current_accelerator() or "cpu")
