"""Stage 1: fine-tune CLIP with scene and object expert queries to understand emotions (design 2.1).

    python -m training.train_understanding --config training/configs/miniemoset.yaml

Loss: 0.9 cross-entropy of the emotion + 0.05 scene contrast + 0.05 object contrast, computed by the model itself. The
epoch that is best on the validation split is kept. The test split is read once, at the end, if `--test_split` names
it.

The output is a folder for `UniEmoUnderstandingModel.from_pretrained`. With `--lora_rank` the backbone learns by LoRA
alone; it is merged in that folder, and `lora/` has the PEFT adapter for the stock CLIP.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate.utils import set_seed
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from .config import SelectingRunArguments, parse
from .data import DataArguments, Vocabulary, open_vocabulary
from .distributed import gather_rows
from .engine import Batch, Losses, ParameterGroup
from .fine_tuning import FineTuningArguments, fine_tune
from .pooled_patches import PooledPatchesModel, expert_parts, load_trained
from .publishing import carry_out
from .runs import Run
from .scripts import errors_in_one_line
from .vocabulary import encode_vocabulary

LORA = "lora"


@dataclass(kw_only=True)
class UnderstandingArguments(FineTuningArguments):
    """Stage 1; the defaults are the published settings."""

    _argument_group_name = "stage 1"

    queries_learning_rate: float = field(default=5e-4, metadata={"help": "queries and interactive blocks"})
    queries_weight_decay: float = field(default=1e-2, metadata={"help": "queries and interactive blocks"})
    num_scene_queries: int = field(default=32, metadata={"help": "scene expert queries"})
    num_object_queries: int = field(default=32, metadata={"help": "object expert queries"})
    pooled_patches: bool = field(
        default=False,
        metadata={"help": "mean over the patches at the same depths instead of queries and blocks; for comparison"},
    )
    contrastive: str = field(
        default="multi_positive",
        metadata={"help": "form of the contrasts", "choices": ["multi_positive", "released"]},
    )
    emotion_loss_weight: float = field(default=0.9, metadata={"help": "of the emotion's cross-entropy"})
    scene_loss_weight: float = field(default=0.05, metadata={"help": "of the scene contrast"})
    object_loss_weight: float = field(default=0.05, metadata={"help": "of the object contrast"})
    lora_rank: int = field(default=0, metadata={"help": "of LoRA on the backbone; 0 trains the backbone whole"})
    start: str | None = field(
        default=None,
        metadata={"help": "understanding model to go on from, instead of fresh queries"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start is not None and self.lora_rank:
            raise ValueError("--lora_rank is for the stock CLIP; leave it out, or --start.")
        for name in ("start", "lora_rank"):
            if self.pooled_patches and getattr(self, name):
                raise ValueError(f"--pooled_patches is for a fresh model trained whole; leave it out, or --{name}.")


def build_model(arguments: UnderstandingArguments, vocabulary: Vocabulary) -> UniEmoUnderstandingModel:
    """What the run starts from.

    Raises:
        ValueError: an earlier run's model of another vocabulary.
    """
    model = fresh_model(arguments, vocabulary) if arguments.start is None else earlier_model(arguments, vocabulary)
    model.gather_rows = gather_rows
    freeze_unlabelled(model)
    return model


def earlier_model(arguments: UnderstandingArguments, vocabulary: Vocabulary) -> UniEmoUnderstandingModel:
    """The model of an earlier run with this run's losses and dropout."""
    model = load_trained(arguments.start, dtype=torch.float32, **loss_settings(arguments))
    if (model.config.scenes, model.config.objects) != (list(vocabulary.scenes), list(vocabulary.objects)):
        raise ValueError(f"{arguments.start}: expected a model with the vocabulary of the data, found another one.")
    return model


def loss_settings(arguments: UnderstandingArguments) -> dict[str, Any]:
    """What of a model's configuration is about training alone."""
    names = ("classifier_dropout", "contrastive", "emotion_loss_weight", "scene_loss_weight", "object_loss_weight")
    return {name: getattr(arguments, name) for name in names}


def fresh_model(arguments: UnderstandingArguments, vocabulary: Vocabulary) -> UniEmoUnderstandingModel:
    """Stock CLIP's vision tower with what is learnt beside it fresh; the text side is encoded once and stored."""
    clip = CLIPModel.from_pretrained(arguments.clip).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.clip)
    kind = PooledPatchesModel if arguments.pooled_patches else UniEmoUnderstandingModel
    model = kind.from_clip(
        clip,
        num_scene_queries=arguments.num_scene_queries,
        num_object_queries=arguments.num_object_queries,
        classifier_hidden=arguments.classifier_hidden,
        **loss_settings(arguments),
    )
    model.set_vocabulary(
        vocabulary.scenes,
        vocabulary.objects,
        encode_vocabulary(clip, tokenizer, vocabulary.scenes),
        encode_vocabulary(clip, tokenizer, vocabulary.objects),
        *encode_vocabulary(clip, tokenizer, ["scene", "object"]),
    )
    if arguments.lora_rank:
        model.add_adapter(model.lora_config(arguments.lora_rank))
        model.peft_config["default"].base_model_name_or_path = arguments.clip  # transformers knows no name
    return model


def freeze_unlabelled(model: UniEmoUnderstandingModel) -> None:
    """Data without scenes (or objects) train neither their projection nor their temperature."""
    for kind in ("scene", "object"):
        if not getattr(model.config, f"{kind}s"):
            getattr(model, f"{kind}_projection").requires_grad_(False)
            getattr(model, f"{kind}_logit_scale").requires_grad_(False)


def losses_of(model: UniEmoUnderstandingModel, batch: Batch) -> Losses:
    """The stage-1 losses by part."""
    output = model(**batch)
    parts = {"loss": output.loss, "emotion": output.emotion_loss, "scene": output.scene_loss}
    parts["object"] = output.object_loss
    return {name: value for name, value in parts.items() if value is not None}


def parameter_groups(arguments: UnderstandingArguments, model: UniEmoUnderstandingModel) -> list[ParameterGroup]:
    """Backbone, queries with their blocks where there are any, and heads."""
    heads = ("classifier.", "scene_projection.", "object_projection.", "scene_logit_scale", "object_logit_scale")
    groups = [ParameterGroup(("vision_model.",), arguments.backbone_learning_rate, arguments.backbone_weight_decay)]
    if experts := tuple(f"{name}." for name in expert_parts(model)):
        groups.append(ParameterGroup(experts, arguments.queries_learning_rate, arguments.queries_weight_decay))
    groups.append(ParameterGroup(heads, arguments.head_learning_rate, arguments.head_weight_decay))
    return groups


def train(run: Run, data: DataArguments, arguments: UnderstandingArguments, training: SelectingRunArguments) -> None:
    """Train, and write a transformers folder: the model, its image processor and the run's log."""
    set_seed(training.seed)  # decides the fresh weights
    model = build_model(arguments, open_vocabulary(data))
    processor = CLIPImageProcessorPil.from_pretrained(arguments.clip)
    model, results, log = fine_tune(
        model, parameter_groups(arguments, model), losses_of, processor, data, arguments, training, run
    )
    if training.should_save:
        if arguments.lora_rank:
            model.save_pretrained(run.folder / LORA)
            model.merge_adapter()
        model.save_pretrained(run.folder)
        processor.save_pretrained(run.folder)
        run.finish(results, log)


def main(data: DataArguments, arguments: UnderstandingArguments, training: SelectingRunArguments) -> None:
    """Train, and publish what was trained if that is asked for."""
    work = partial(train, data=data, arguments=arguments, training=training)
    carry_out("understanding", arguments.clip, data, arguments, training, work)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, UnderstandingArguments, SelectingRunArguments), "understanding"))
