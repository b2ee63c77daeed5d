"""The rival of stage 1: the same backbone, head and recipe without expert queries.

    python -m training.train_baseline --config training/configs/miniemoset.yaml

What stage 1 gains over it is the queries' doing.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, PreTrainedModel

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from .config import SelectingRunArguments, parse
from .data import DataArguments
from .engine import Batch, Losses, ParameterGroup
from .fine_tuning import FineTuningArguments, fine_tune
from .publishing import carry_out
from .runs import Run
from .scripts import errors_in_one_line


class PlainClassifierConfig(CLIPVisionConfig):
    """CLIP's vision configuration and the size of the head."""

    model_type = "plain_emotion_classifier"
    classifier_hidden: int = 768
    classifier_dropout: float = 0.5

    def __post_init__(self, **kwargs: Any) -> None:
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = dict(enumerate(EMOTIONS))
            self.label2id = {emotion: index for index, emotion in enumerate(EMOTIONS)}
        super().__post_init__(**kwargs)


class PlainClassifier(PreTrainedModel):
    """CLIP's vision tower and UniEmo's emotion head: post-layernorm(CLS) -> Linear, ReLU, Dropout, Linear."""

    config_class = PlainClassifierConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PlainClassifierConfig) -> None:
        super().__init__(config)
        self.vision_model = CLIPVisionModel(config)
        self.classifier = nn.Sequential(
            nn.Linear(config.hidden_size, config.classifier_hidden),
            nn.ReLU(),
            nn.Dropout(config.classifier_dropout),
            nn.Linear(config.classifier_hidden, len(EMOTIONS)),
        )
        self.post_init()

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Pictures (B, 3, H, W) -> an object with `logits` (B, 8)."""
        return SimpleNamespace(logits=self.classifier(self.vision_model(pixel_values).pooler_output))


def build_model(arguments: FineTuningArguments) -> PlainClassifier:
    """Stock CLIP's vision tower with a fresh head."""
    tower = CLIPVisionModel.from_pretrained(arguments.clip)
    head = {name: getattr(arguments, name) for name in ("classifier_hidden", "classifier_dropout")}
    model = PlainClassifier(PlainClassifierConfig(**tower.config.to_dict(), **head))
    model.vision_model.load_state_dict(tower.state_dict())
    return model


def parameter_groups(arguments: FineTuningArguments) -> list[ParameterGroup]:
    """Backbone and head."""
    return [
        ParameterGroup(("vision_model.",), arguments.backbone_learning_rate, arguments.backbone_weight_decay),
        ParameterGroup(("classifier.",), arguments.head_learning_rate, arguments.head_weight_decay),
    ]


def losses_of(model: nn.Module, batch: Batch) -> Losses:
    """The cross-entropy alone."""
    return {"loss": nn.functional.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])}


def train(run: Run, data: DataArguments, arguments: FineTuningArguments, training: SelectingRunArguments) -> None:
    """Train, and write a folder that `PlainClassifier.from_pretrained` reads."""
    set_seed(training.seed)
    model = build_model(arguments)
    processor = CLIPImageProcessorPil.from_pretrained(arguments.clip)
    model, results, log = fine_tune(
        model, parameter_groups(arguments), losses_of, processor, data, arguments, training, run
    )
    if training.should_save:
        model.save_pretrained(run.folder)
        processor.save_pretrained(run.folder)
        run.finish(results, log)


def main(data: DataArguments, arguments: FineTuningArguments, training: SelectingRunArguments) -> None:
    """Train, and publish what was trained if that is asked for."""
    work = partial(train, data=data, arguments=arguments, training=training)
    carry_out("baseline", arguments.clip, data, arguments, training, work)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, FineTuningArguments, SelectingRunArguments), "baseline"))
