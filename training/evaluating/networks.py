"""Networks that look at images for an evaluation, by name: who judges emotions, who reads attributes, whose features.

Each is a module of images (B, 3, H, W) uint8, so that another one is another class here or in a script of one's own.
None should have taken part in training, tuning or filtering what it judges.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    CLIPModel,
    PreTrainedModel,
)

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.understanding_uniemo import load_understanding

from ..backbones.reader import Reader, load_reader
from ..miniemoset.render import IMAGE_SIZE
from ..train_baseline import PlainClassifier, PlainClassifierConfig

INCEPTION = "inception"

AutoConfig.register(PlainClassifierConfig.model_type, PlainClassifierConfig)
AutoModelForImageClassification.register(PlainClassifierConfig, PlainClassifier)


class ThroughProcessor(nn.Module):
    """A transformers model that sees images as its own image processor prepares them."""

    def __init__(self, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
        super().__init__()
        self.model, self.processor = model.eval(), processor
        self.settings = json.dumps(processor.to_dict(), sort_keys=True, default=str) + model.config.to_json_string()

    def pixels(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> what the model sees, on its device."""
        pictures = [Image.fromarray(one) for one in images.permute(0, 2, 3, 1).cpu().numpy()]
        return self.processor(images=pictures, return_tensors="pt").pixel_values.to(self.model.device)


class ClipFeatures(ThroughProcessor):
    """CLIP's image embeddings (B, P), not normalised."""

    def forward(self, images: Tensor) -> Tensor:
        return self.model.get_image_features(self.pixels(images)).pooler_output


class InceptionFeatures(nn.Module):
    """The 2,048 features that FID and KID are defined by: TensorFlow's network of 2015 as torch-fidelity ports it."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError(
                f"Inception's features need torch-fidelity and torchvision, found: {error}; install "
                '".[metrics-torchvision]", or take clip:FOLDER.'
            ) from None
        self.network = FeatureExtractorInceptionV3("inception", ["2048"])

    def forward(self, images: Tensor) -> Tensor:
        [features] = self.network(images)
        return features


class EmotionProbabilities(ThroughProcessor):
    """Probabilities (B, 8), in EmoSet's order, of an image classifier that has the eight emotions as its labels.

    Raises:
        ValueError: other labels.
    """

    def __init__(self, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
        super().__init__(model, processor)
        names = [normalise(name) for _, name in sorted(model.config.id2label.items())]
        if sorted(names) != sorted(EMOTIONS):
            raise ValueError(
                f"Expected a classifier whose labels (id2label) are {', '.join(EMOTIONS)}; found {', '.join(names)}."
            )
        self.order = [names.index(emotion) for emotion in EMOTIONS]

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """What the processor gave, (B, 3, h, w), -> probabilities."""
        return self.model(pixels.to(self.model.device)).logits[:, self.order].float().softmax(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.of_pixels(self.pixels(images))


class OfPixels(nn.Module):
    """An `EmotionProbabilities` for pixels that its processor has already prepared."""

    def __init__(self, classifier: EmotionProbabilities) -> None:
        super().__init__()
        self.classifier, self.settings = classifier, classifier.settings

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier.of_pixels(pixels)


class RetrievedAttributes(ThroughProcessor):
    """Scenes and objects by a UniEmo model's own vocabularies: softmax of the scaled cosines of stage 1."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        output = self.model(self.pixels(images))
        scenes, objects = self.model.attribute_scores(output.scene_features, output.object_features)
        return {
            "scene": (self.model.scene_logit_scale.exp() * scenes).softmax(dim=1),
            "object": (self.model.object_logit_scale.exp() * objects).softmax(dim=1),
        }


class ClassifiedAttributes(nn.Module):
    """Scenes and objects by two image classifiers of any labels, of Places365 and of ImageNet say."""

    def __init__(self, scenes: ThroughProcessor, objects: ThroughProcessor) -> None:
        super().__init__()
        self.scenes, self.objects = scenes, objects
        self.settings = scenes.settings + objects.settings

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        parts = {"scene": self.scenes, "object": self.objects}
        return {part: one.model(one.pixels(images)).logits.float().softmax(1) for part, one in parts.items()}


class ReaderOutputs(nn.Module):
    """What a reader of MiniEmoSet says of images of 128 pixels: `probabilities`, `attributes` or `features`."""

    def __init__(self, reader: Reader, output: str) -> None:
        super().__init__()
        self.reader, self.settings = reader, output

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        if images.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"A reader of MiniEmoSet expects images of {IMAGE_SIZE} x {IMAGE_SIZE} pixels, found "
                f"{images.shape[3]} x {images.shape[2]}; set --resolution {IMAGE_SIZE}."
            )
        logits = self.reader(images.float() / 127.5 - 1)
        if self.settings == "features":
            return logits["features"]
        if self.settings == "probabilities":
            return logits["emotion"].softmax(dim=1)
        # Objects are independent: a picture may hold two.
        return {
            "scene": logits["scene"].softmax(dim=1),
            "object": logits["objects"].sigmoid(),
            "palette": logits["palette"].softmax(dim=1),
        }


def open_model(location: str) -> EmotionProbabilities:
    """An emotion classifier from a folder or the Hub: UniEmo's, the plain one of train_baseline, or any other.

    Raises:
        ValueError: no image classifier, weights that are missing, or other labels.
    """
    return EmotionProbabilities(*_classifier(location))


@contextmanager
def _expecting(what: str, location: str) -> Iterator[None]:
    """transformers' errors as one line of ours."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise ValueError(
            f"{location}: expected {what} with its image processor, a folder or a Hub name. {reason}"
        ) from None


def _classifier(location: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    with _expecting("an image classifier", location):
        model, loading = AutoModelForImageClassification.from_pretrained(
            location, dtype=torch.float32, output_loading_info=True
        )
        processor = _processor(location)
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{location}: expected a whole image classifier, found no weights for {', '.join(missing)}.")
    return model, processor


def _processor(location: str) -> BaseImageProcessor:
    return AutoImageProcessor.from_pretrained(location, backend="pil")


def _clip(location: str) -> ClipFeatures:
    with _expecting("a CLIP", location):
        model, loading = CLIPModel.from_pretrained(location, dtype=torch.float32, output_loading_info=True)
        processor = _processor(location)
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{location}: expected a whole CLIP, found no weights for {', '.join(missing)}.")
    return ClipFeatures(model, processor)


def _retrieved(location: str) -> RetrievedAttributes:
    model = load_understanding(location, dtype=torch.float32)
    if not (model.config.scenes and model.config.objects):
        raise ValueError(
            f"{location}: expected a model with scenes and objects, found one without; retrieve by another."
        )
    return RetrievedAttributes(model, _processor(location))


def _pair(locations: str) -> ClassifiedAttributes:
    scenes, comma, objects = locations.partition(",")
    if not comma:
        raise ValueError(f"Expected classifiers:SCENES,OBJECTS, two models, found {locations!r} alone.")
    return ClassifiedAttributes(ThroughProcessor(*_classifier(scenes)), ThroughProcessor(*_classifier(objects)))


def _reader(output: str) -> Callable[[str], ReaderOutputs]:
    return lambda weights: ReaderOutputs(load_reader(weights), output)


Openers = Mapping[str, Callable[[str], nn.Module]]
CLASSIFIERS: Openers = {"model": open_model, "reader": _reader("probabilities")}
ATTRIBUTES: Openers = {"uniemo": _retrieved, "classifiers": _pair, "reader": _reader("attributes")}
EXTRACTORS: Openers = {"clip": _clip, INCEPTION: lambda _: InceptionFeatures(), "reader": _reader("features")}


def open_network(openers: Openers, name: str) -> nn.Module:
    """A network by its name, `kind:place`, ready on the device that accelerate picks.

    Raises:
        ValueError: an unknown kind; what the network's own opener refuses.
        OSError: nothing at the place.
    """
    kind, _, place = name.partition(":")
    if kind not in openers or (not place and kind != INCEPTION):
        known = ", ".join(one if one == INCEPTION else f"{one}:PLACE" for one in openers)
        raise ValueError(f"Expected a network such as {known}; found {name!r}.")
    return openers[kind](place).eval().requires_grad_(False).to(PartialState().device)
