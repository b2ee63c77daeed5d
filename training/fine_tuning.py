"""What stage 1 and its baseline share: a CLIP vision tower with an emotion head learns to name emotions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, PreTrainedModel

from uniemo_pipelines.training_records_uniemo import Result

from .config import SelectingRunArguments
from .data import (
    DataArguments,
    EmotionDataset,
    EmotionStream,
    EvaluationTransform,
    PictureSample,
    TrainingTransform,
    open_split,
    open_vocabulary,
    with_generated,
)
from .engine import Batch, Losses, ParameterGroup, StageTrainer
from .metrics import wilson_interval
from .reports import Record
from .runs import Run


@dataclass(kw_only=True)
class FineTuningArguments:
    """Fine-tuning of a CLIP vision tower with an emotion head; the defaults are the published settings."""

    _argument_group_name = "fine-tuning"

    clip: str = field(metadata={"help": "stock CLIP to start from: a folder or a Hub name"})
    backbone_learning_rate: float = field(default=8e-6, metadata={"help": "of the vision tower, or of its LoRA"})
    backbone_weight_decay: float = field(default=1e-3, metadata={"help": "of the vision tower, or of its LoRA"})
    head_learning_rate: float = field(default=1e-4, metadata={"help": "of the emotion head and the projections"})
    head_weight_decay: float = field(default=1e-2, metadata={"help": "of the emotion head and the projections"})
    classifier_hidden: int = field(default=768, metadata={"help": "width of the head; that of the text encoder"})
    classifier_dropout: float = field(default=0.5, metadata={"help": "in the head, while it is trained"})
    smallest_crop: float = field(default=0.08, metadata={"help": "share of a picture that a crop shows at least"})
    color_jitter: float = field(
        default=0.0, metadata={"help": "range of brightness, contrast and saturation; colour carries emotion"}
    )
    generated: list[str] | None = field(
        default=None, metadata={"help": "folders that training.filter_generated wrote, to learn from as well"}
    )
    generated_share: float = field(default=0.5, metadata={"help": "of an epoch's pictures, at most, is generated"})
    test_split: str | None = field(
        default=None, metadata={"help": "split to read once, at the end; none if not given"}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.generated_share < 1:
            raise ValueError(f"Expected --generated_share from 0 to below 1, found {self.generated_share}.")


def fine_tune(
    model: PreTrainedModel,
    groups: Sequence[ParameterGroup],
    losses_of: Callable[[nn.Module, Batch], Losses],
    processor: CLIPImageProcessorPil,
    data: DataArguments,
    arguments: FineTuningArguments,
    training: SelectingRunArguments,
    run: Run,
) -> tuple[nn.Module, list[Result], list[Record]]:
    """Train from the run's last checkpoint.

    Returns:
        The model as it was in the epoch that is best on the validation split, the results, and the trainer's records.
    """
    if training.bf16 and training.use_cpu:
        # A processor's matrix units take products of bfloat16, but PyTorch's own attention leaves them idle: forward
        # and backward of MiniEmoSet's batch of 32 take .41 s of a core with it and .29 without (.51 in float32).
        model.set_attn_implementation("eager")
    vocabulary = open_vocabulary(data)
    transform = TrainingTransform(processor, (arguments.smallest_crop, 1.0), arguments.color_jitter)
    seen = PictureSample(EvaluationTransform(processor), vocabulary)
    soft = PictureSample(transform, vocabulary, soft=bool(arguments.generated))
    pictures = open_split(data, data.train_split, soft, training.seed)
    trainer = StageTrainer(
        model,
        training,
        groups,
        losses_of,
        with_generated(pictures, arguments.generated) if arguments.generated else pictures,
        open_split(data, data.validation_split, seen),
        classify,
        data.class_balanced,
        arguments.generated_share,
    )
    trainer.train(resume_from_checkpoint=run.last_checkpoint())
    results = [measure(trainer, data.validation_split, trainer.eval_dataset)]
    if arguments.test_split is not None:
        results.append(measure(trainer, arguments.test_split, open_split(data, arguments.test_split, seen)))
    return trainer.whole_model(), results, trainer.state.log_history


def measure(trainer: StageTrainer, split: str, pictures: EmotionDataset | EmotionStream) -> Result:
    """Accuracy of the model as it is, with its 95 % interval."""
    found = trainer.evaluate(pictures, metric_key_prefix="final")
    accuracy, count = found["final_accuracy"], found["final_pictures"]
    interval = wilson_interval(round(accuracy * count), count)
    return Result(metric="accuracy", split=split, value=accuracy, interval=interval, pictures=count)


def classify(model: nn.Module, batch: Batch) -> Tensor:
    """Logits (B, 8)."""
    return model(batch["pixel_values"]).logits
