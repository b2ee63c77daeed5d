"""What the filter reads in pictures: emotions, scenes and objects by understanding models, features by a CLIP."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPModel

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.modeling_uniemo import UniEmoOutput, UniEmoUnderstandingModel
from uniemo_pipelines.understanding_uniemo import load_understanding

from ..data.pictures import Picture
from ..data.rows import Vocabulary
from ..observing import OUTPUT, Observer, Seen

FILTER, EXTRACTOR = "filter", "extractor"


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


class Committee(nn.Module):
    """Understanding models that judge together, of pixels (B, 3, height, width) as their processor gives them."""

    def __init__(self, models: Sequence[UniEmoUnderstandingModel], kinds: Sequence[str]) -> None:
        super().__init__()
        self.models, self.kinds = nn.ModuleList(models), kinds
        self.settings = " ".join(model.config.to_json_string() for model in models)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """The mean of their log-probabilities as "logits", (B, 8).

        By kind the likeliest attribute by the mean of their probabilities, (B,), and how likely, as "scene_clarity".
        """
        each = [_probabilities(model, model(pixels), self.kinds) for model in self.models]
        mean = {name: torch.stack([one[name] for one in each]).mean(dim=0) for name in each[0]}
        found = {"logits": mean["logits"]}
        for kind in self.kinds:
            found[f"{kind}_clarity"], found[kind] = mean[kind].max(dim=-1)
        return found


class Filter:
    """One or several understanding models that judge together.

    Args:
        locations: their folders or Hub repositories.
        vocabulary: of the data, which must be theirs.
        arguments: how pictures are read.

    Raises:
        ValueError: a model of another vocabulary, or models that see pictures in different ways.
    """

    def __init__(self, locations: Sequence[str], vocabulary: Vocabulary, arguments: ReadingArguments) -> None:
        self.locations = list(locations)
        self.models = [load_understanding(location, dtype=torch.float32).eval() for location in locations]
        for location, model in zip(locations, self.models, strict=True):
            _check_vocabulary(location, model, vocabulary)
        self.kinds = [kind for kind in ("scene", "object") if getattr(vocabulary, f"{kind}s")]
        self._seen = _seen_alike(locations)
        self._observer = _observer(arguments)
        self._committee = Committee(self.models, self.kinds).to(self._observer.device)

    def read(self, pictures: Sequence[Picture], description: str) -> Readings:
        """What it reads; computed once."""
        networks = {FILTER: self._committee}
        said = self._observer.observe(pictures, self._seen, networks, f"reading {description}")[FILTER]
        return Readings(
            said["logits"],
            {kind: said[kind].numpy() for kind in self.kinds},
            {kind: said[f"{kind}_clarity"].numpy() for kind in self.kinds},
        )


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


def _seen_alike(locations: Sequence[str]) -> Seen:
    first, *others = [Seen(CLIPImageProcessorPil.from_pretrained(location)) for location in locations]
    for location, seen in zip(locations[1:], others, strict=True):
        if repr(seen) != repr(first):
            raise ValueError(
                f"{location}: expected an image processor as that of {locations[0]}, found another one; models that "
                "judge together see the same pixels."
            )
    return first


class UnitFeatures(nn.Module):
    """Image embeddings (B, F) of a CLIP, of length 1."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip, self.settings = clip, clip.config.to_json_string()

    def forward(self, pixels: Tensor) -> Tensor:
        """In half precision: half the disk, and distances move by less than a thousandth."""
        return functional.normalize(self.clip.get_image_features(pixels).pooler_output, dim=-1).half()


class Extractor:
    """Image embeddings of a CLIP, of length 1.

    A distance in the filter's own features would repeat its judgement: take a CLIP that was not fine-tuned with it. In
    the embedded world it is the one that the filter's fine-tuning started from, for there is no other.

    Args:
        location: its folder or Hub repository.
        arguments: how pictures are read.
    """

    def __init__(self, location: str, arguments: ReadingArguments) -> None:
        self._observer = _observer(arguments)
        clip = CLIPModel.from_pretrained(location, dtype=torch.float32).eval()
        self._network = UnitFeatures(clip).to(self._observer.device)
        self._seen = Seen(CLIPImageProcessorPil.from_pretrained(location))

    def parts(self, pictures: Sequence[Picture], description: str) -> Iterator[np.ndarray]:
        """Features (n, F) chunk by chunk; computed once."""
        networks = {EXTRACTOR: self._network}
        for said in self._observer.parts(pictures, self._seen, networks, f"features {description}"):
            yield said[EXTRACTOR][OUTPUT].float().numpy()


def _observer(arguments: ReadingArguments) -> Observer:
    device = torch.device(arguments.device or torch.accelerator.current_accelerator() or "cpu")
    return Observer(Path(arguments.features), arguments.batch_size, arguments.num_workers, device)
