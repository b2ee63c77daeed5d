"""Stage 1: fine-tune CLIP with scene and object expert queries to understand emotions (design 2.1).

    python -m training.train_understanding --config training/configs/miniemoset.yaml

Loss: 0.9 cross-entropy of the emotion + 0.05 scene contrast + 0.05 object contrast, computed by the model itself. The
epoch that is best on the validation split is kept; the test split is never read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from .config import LoopArguments, parse
from .data import EmoSetDataset, EvaluationTransform, TrainingTransform, Vocabulary
from .engine import Batch, ParameterGroup, make_accelerator, make_loader, save_log, train
from .vocabulary import encode_vocabulary


@dataclass(kw_only=True)
class FineTuningArguments(LoopArguments):
    """Fine-tuning of a CLIP vision tower with an emotion head."""

    clip: str = field(metadata={"help": "stock CLIP to start from: a folder or a Hub name"})
    epochs: int = 15
    batch_size: int = 64
    backbone_learning_rate: float = 8e-6
    head_learning_rate: float = 1e-4
    backbone_weight_decay: float = 1e-3
    head_weight_decay: float = 1e-2
    classifier_hidden: int = field(default=768, metadata={"help": "width of the head; that of the text encoder"})
    classifier_dropout: float = 0.5
    smallest_crop: float = field(default=0.08, metadata={"help": "share of a picture that a crop shows at least"})


@dataclass(kw_only=True)
class UnderstandingArguments(FineTuningArguments):
    """Stage 1; the defaults are the published settings."""

    queries_learning_rate: float = field(default=5e-4, metadata={"help": "queries and interactive blocks"})
    queries_weight_decay: float = 1e-2
    num_scene_queries: int = 32
    num_object_queries: int = 32
    contrastive: str = field(default="multi_positive", metadata={"choices": ["multi_positive", "released"]})
    emotion_loss_weight: float = 0.9
    scene_loss_weight: float = 0.05
    object_loss_weight: float = 0.05


def build_model(arguments: UnderstandingArguments, vocabulary: Vocabulary) -> UniEmoUnderstandingModel:
    """Stock CLIP's vision tower with fresh queries, blocks and head; the text side is encoded once and stored."""
    clip = CLIPModel.from_pretrained(arguments.clip).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.clip)
    model = UniEmoUnderstandingModel.from_clip(
        clip,
        num_scene_queries=arguments.num_scene_queries,
        num_object_queries=arguments.num_object_queries,
        classifier_hidden=arguments.classifier_hidden,
        classifier_dropout=arguments.classifier_dropout,
        contrastive=arguments.contrastive,
        emotion_loss_weight=arguments.emotion_loss_weight,
        scene_loss_weight=arguments.scene_loss_weight,
        object_loss_weight=arguments.object_loss_weight,
    )
    model.set_vocabulary(
        vocabulary.scenes,
        vocabulary.objects,
        encode_vocabulary(clip, tokenizer, vocabulary.scenes),
        encode_vocabulary(clip, tokenizer, vocabulary.objects),
        *encode_vocabulary(clip, tokenizer, ["scene", "object"]),
    )
    return model


def losses_of(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
    """The stage-1 losses by part."""
    output = model(**{name: values for name, values in batch.items() if name != "index"})
    parts = {"loss": output.loss, "emotion": output.emotion_loss, "scene": output.scene_loss}
    parts["object"] = output.object_loss
    return {name: value for name, value in parts.items() if value is not None}


@torch.no_grad()
def accuracy(accelerator: Accelerator, model: nn.Module, loader: DataLoader) -> float:
    """Share of pictures whose emotion is predicted, in evaluation mode; the same on any number of processes."""
    training = model.training
    model.eval()
    hits = []
    for batch in loader:
        hit = model(batch["pixel_values"]).logits.argmax(-1) == batch["labels"]
        hits.append(accelerator.gather_for_metrics(hit))  # within the loop, or the last batch's padding is kept
    model.train(training)
    return torch.cat(hits).float().mean().item()


def fine_tune(
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    losses_of: Callable[[nn.Module, Batch], Mapping[str, Tensor]],
    processor: CLIPImageProcessorPil,
    arguments: FineTuningArguments,
) -> list[dict[str, float]]:
    """Train a classifier and keep in `arguments.output` the epoch that is best on the validation split."""
    accelerator = make_accelerator(arguments)
    kept = arguments.keep_images
    transform = TrainingTransform(processor, scale=(arguments.smallest_crop, 1.0))
    training = EmoSetDataset(arguments.data, "train", transform, arguments.seed, kept)
    validation = EmoSetDataset(arguments.data, "val", EvaluationTransform(processor), arguments.seed, kept)
    loader = accelerator.prepare(make_loader(validation, arguments, training=False))
    best = -1.0

    def after_epoch(model: nn.Module) -> dict[str, float]:
        nonlocal best
        score = accuracy(accelerator, model, loader)
        if score > best:
            best = score
            if accelerator.is_main_process:
                model.save_pretrained(arguments.output)
        return {"validation_accuracy": score, "best": best}

    model.train()
    log = train(accelerator, model, training, groups, arguments, losses_of, after_epoch)
    if accelerator.is_main_process:
        processor.save_pretrained(arguments.output)
        save_log(arguments.output, arguments, log)
    return log


def main(arguments: UnderstandingArguments) -> list[dict[str, float]]:
    """Train, and write a transformers folder: the model, its image processor and the run's log."""
    groups = [
        ParameterGroup(("vision_model.",), arguments.backbone_learning_rate, arguments.backbone_weight_decay),
        ParameterGroup(
            ("scene_queries.", "object_queries.", "scene_interaction.", "object_interaction."),
            arguments.queries_learning_rate,
            arguments.queries_weight_decay,
        ),
        ParameterGroup(
            ("classifier.", "scene_projection.", "object_projection.", "scene_logit_scale", "object_logit_scale"),
            arguments.head_learning_rate,
            arguments.head_weight_decay,
        ),
    ]
    set_seed(arguments.seed)  # decides the fresh weights
    model = build_model(arguments, Vocabulary.of(arguments.data))
    processor = CLIPImageProcessorPil.from_pretrained(arguments.clip)
    return fine_tune(model, groups, losses_of, processor, arguments)


if __name__ == "__main__":
    main(parse(UnderstandingArguments, "understanding"))
