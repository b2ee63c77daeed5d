"""Stage 2: joint training of understanding and generation through a frozen Stable Diffusion (design 2.2 and 2.3).

    python -m training.train_joint --config training/configs/miniemoset.yaml

The condition made of a picture's features is the embedding of one pseudo-token in the prompt, and the diffusion loss
of that same picture flows through it into the mappers and the expert queries: the implicit feedback. Trained are
queries, interactive blocks, mappers and two linear heads; UNet, VAE, text encoder, CLIP backbone and emotion head are
frozen, and so are stage 1's retrieval projections. Queries move while those projections stay, so alpha is looked up
with features that drift from the space they were aligned in, linear heads or not; `alignment_weight` holds them there.

At the end the emotion space is fitted with the final model. The output folder has `uniemo_adapter.safetensors` and
`understanding/`; after stage 1 by LoRA the adapter itself carries the understanding chain, and with LoRA on Stable
Diffusion there is `pytorch_lora_weights.safetensors` for `load_lora_weights`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, set_seed
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import PeftConfig, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPImageProcessorPil

from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.chain_uniemo import UnderstandingChain, take_chain
from uniemo_pipelines.fusion_uniemo import UniEmoFusionModel
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from .compute_emotion_space import fit_emotion_space
from .config import RunArguments, parse
from .data import (
    ALPHAS,
    DataArguments,
    EmotionDataset,
    EvaluationTransform,
    PictureSample,
    coefficient_tables,
    open_split,
    open_vocabulary,
)
from .distributed import gather_rows
from .engine import Batch, Losses, ParameterGroup, StageTrainer
from .files import save_whole
from .joint_model import JointModel, ObjectiveArguments
from .pooled_patches import expert_parts, load_trained
from .prompted_diffusion import load_base
from .prompted_pictures import PromptArguments, in_prompts
from .publishing import carry_out
from .reports import final_losses
from .runs import FIRST_SPACE, Run
from .scripts import errors_in_one_line
from .train_understanding import LORA
from .validation_images import ValidationImages


@dataclass(kw_only=True)
class JointArguments(ObjectiveArguments, PromptArguments):
    """Stage 2; the defaults are the published settings."""

    _argument_group_name = "stage 2"

    understanding: str = field(metadata={"help": "folder that stage 1 wrote"})
    alpha: str = field(
        default="retrieved",
        metadata={
            "help": "where the emotional correlation coefficients come from: the retrieved attributes' statistics, or "
            "for comparison a constant: their mean, one, or zero (the emotion feature alone)",
            "choices": list(ALPHAS),
        },
    )
    mappers_learning_rate: float = field(default=1e-3, metadata={"help": "of the three mappers"})
    queries_learning_rate: float = field(default=5e-4, metadata={"help": "queries and interactive blocks"})
    heads_learning_rate: float = field(default=1e-4, metadata={"help": "of the two linear heads"})
    lora_learning_rate: float = field(default=1e-4, metadata={"help": "of LoRA on UNet and text encoder"})
    trained_weight_decay: float = field(default=1e-2, metadata={"help": "of all that is trained"})
    bank_size: int = field(default=64, metadata={"help": "medoids an emotion in the emotion space's bank"})
    rank: int = field(default=16, metadata={"help": "factors of the emotion space's low-rank form"})
    smoothing: float = field(default=1.0, metadata={"help": "of P(emotion | attribute), in counts"})
    validation_steps: int = field(default=0, metadata={"help": "draw validation images every so many steps; 0: never"})
    validation_guidance: float = field(default=7.5, metadata={"help": "their guidance scale"})


def build_fusion(
    understanding: UniEmoUnderstandingModel,
    pictures: EmotionDataset,
    space: dict[str, Tensor],
    table: Tensor,
    coefficients: tuple[Tensor, Tensor],
) -> UniEmoFusionModel:
    """A fresh fusion model that knows the data's attributes, with conditions that start out like token embeddings.

    Args:
        understanding: the stage-1 model.
        pictures: the training split.
        space: the stage-1 model's emotion space.
        table: the text encoder's input embeddings (V, D).
        coefficients: what alpha is looked up in, of scenes (S, 8) and of objects (O, 8).

    Raises:
        ValueError: the data's vocabulary is empty, or another than the model's.
    """
    vocabulary, config = pictures.vocabulary, understanding.config
    if not vocabulary.scenes or not vocabulary.objects:
        raise ValueError("Joint training needs scenes and objects: expected both in the data's info.json, found none.")
    if (list(vocabulary.scenes), list(vocabulary.objects)) != (config.scenes, config.objects):
        raise ValueError("Expected the vocabulary that the understanding model was trained with, found another one.")
    fusion = UniEmoFusionModel(config.hidden_size, [table.shape[1]], config.projection_dim)
    fusion.set_attribute_bases(
        vocabulary.scenes,
        vocabulary.objects,
        understanding.scene_text_features,
        understanding.object_text_features,
        understanding.scene_projection.weight,
        understanding.object_projection.weight,
        *coefficients,
    )
    fusion.set_emotion_space(**space)
    fusion.init_mappers(table)
    return fusion


def parameter_groups(arguments: JointArguments, understanding: UniEmoUnderstandingModel) -> list[ParameterGroup]:
    """Learning rates of what is trained; the weight decay is stage 1's."""
    decay = arguments.trained_weight_decay
    groups = [ParameterGroup(("fusion.mappers.",), arguments.mappers_learning_rate, decay)]
    if experts := tuple(f"understanding.{name}." for name in expert_parts(understanding)):
        groups.append(ParameterGroup(experts, arguments.queries_learning_rate, decay))
    groups.append(ParameterGroup(("scene_head.", "object_head."), arguments.heads_learning_rate, decay))
    if arguments.unet_lora_rank or arguments.text_encoder_lora_rank:
        groups.append(ParameterGroup(("unet.", "text_encoder."), arguments.lora_learning_rate, decay))
    return groups


def first_emotion_space(run: Run, fit: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The stage-1 model's emotion space, by which the mappers are initialised; fitted once in a run."""
    path, state = run.folder / FIRST_SPACE, PartialState()
    if not path.exists():
        space = fit()
        if state.is_main_process:
            save_whole(path, space)
        state.wait_for_everyone()
    return load_file(path)


def save(run: Run, model: JointModel, base: StableDiffusionPipeline, arguments: JointArguments) -> None:
    """Write understanding model, adapter, and LoRA of Stable Diffusion where it was trained."""
    understanding: Path | UnderstandingChain = run.folder / "understanding"
    model.understanding.save_pretrained(understanding)
    CLIPImageProcessorPil.from_pretrained(arguments.understanding).save_pretrained(understanding)
    lora = Path(arguments.understanding, LORA)
    if lora.is_dir():
        clip = PeftConfig.from_pretrained(lora).base_model_name_or_path
        understanding = take_chain(model.understanding, clip, lora)
    name = Path(arguments.base).name if Path(arguments.base).is_dir() else arguments.base  # no path of this machine
    write_adapter(run.folder / ADAPTER_NAME, model.fusion, name, understanding)
    layers = {
        f"{name}_lora_layers": convert_state_dict_to_diffusers(get_peft_model_state_dict(getattr(model, name)))
        for name in ("unet", "text_encoder")
        if getattr(arguments, f"{name}_lora_rank")
    }
    if layers:
        base.save_lora_weights(run.folder, **layers)


def refuse_what_cannot_go_together(accelerator: Accelerator, data: DataArguments, arguments: JointArguments) -> None:
    """Before any model is loaded.

    Raises:
        ValueError: FSDP, or a stream with what needs all pictures.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError("Stage 2 trains a small part of frozen models, which FSDP would only cut up: use DDP.")
    for option in ("latents", "validation_steps"):
        if data.streaming and getattr(arguments, option):
            raise ValueError(f"--{option} needs all pictures at hand and cannot go with --streaming; leave one out.")


def train(run: Run, data: DataArguments, arguments: JointArguments, training: RunArguments) -> None:
    """Train from the run's last checkpoint, fit the emotion space of the trained model, and write the results.

    Raises:
        ValueError: FSDP, data without scenes or objects, or parts that do not fit each other.
    """
    precision = "fp16" if training.fp16 else "bf16" if training.bf16 else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=training.use_cpu)  # as the Trainer's own will be
    refuse_what_cannot_go_together(accelerator, data, arguments)
    set_seed(training.seed)
    base = load_base(arguments.base, training)
    processor = CLIPImageProcessorPil.from_pretrained(arguments.understanding)
    understanding = load_trained(arguments.understanding, dtype=torch.float32)
    understanding.gather_rows = gather_rows
    seen = PictureSample(EvaluationTransform(processor), open_vocabulary(data))
    pictures = open_split(data, data.train_split, seen, training.seed)
    coefficients = coefficient_tables(arguments.alpha, data, pictures, arguments.smoothing)
    fit = partial(
        fit_emotion_space,
        accelerator,
        understanding=understanding,
        pictures=pictures,
        batch_size=training.per_device_eval_batch_size,
        bank_size=arguments.bank_size,
        rank=arguments.rank,
        seed=training.seed,
        num_workers=training.dataloader_num_workers,
    )
    fusion = build_fusion(
        understanding,
        pictures,
        first_emotion_space(run, fit),
        base.text_encoder.get_input_embeddings().weight.float(),
        coefficients,
    )
    drawn = in_prompts(pictures, base, arguments, training.device)
    model = JointModel(understanding, fusion, base, arguments, vae=None if arguments.latents else base.vae)
    trainer = StageTrainer(
        model,
        training,
        parameter_groups(arguments, understanding),
        losses_of,
        drawn,
        balanced=data.class_balanced,
    )
    if arguments.validation_steps:
        trainer.add_callback(validation_images(run, base, seen, data, arguments, trainer))
    trainer.train(resume_from_checkpoint=run.last_checkpoint())
    fusion.set_emotion_space(**fit())
    if training.should_save:
        save(run, model, base, arguments)
        run.finish(final_losses(trainer.state.log_history, data.train_split), trainer.state.log_history)


def losses_of(model: JointModel, batch: Batch) -> Losses:
    """The stage-2 losses by part."""
    return model(batch)


def validation_images(
    run: Run,
    base: StableDiffusionPipeline,
    seen: PictureSample,
    data: DataArguments,
    arguments: JointArguments,
    trainer: StageTrainer,
) -> ValidationImages:
    """The callback that draws them."""
    return ValidationImages(
        base,
        open_split(data, data.validation_split, seen),
        trainer.callback_handler.callbacks,
        run.folder / "validation",
        arguments.validation_steps,
        arguments.validation_guidance,
        trainer.args.seed,
    )


def main(data: DataArguments, arguments: JointArguments, training: RunArguments) -> None:
    """Train, write the adapter's folder, and publish it if that is asked for."""
    work = partial(train, data=data, arguments=arguments, training=training)
    carry_out("joint", arguments.base, data, arguments, training, work)


if __name__ == "__main__":
    with errors_in_one_line():
        main(*parse((DataArguments, JointArguments, RunArguments), "joint"))
