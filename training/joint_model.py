"""What a stage-2 step touches: understanding model, fusion model and a frozen Stable Diffusion (design 2.3)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from uniemo_pipelines.fusion_uniemo import EMOTIONS, UniEmoFusionModel
from uniemo_pipelines.modeling_uniemo import UniEmoOutput, UniEmoUnderstandingModel

from .data import NO_LABEL
from .distributed import mean_over_processes
from .engine import Batch
from .losses import emotional_condition_loss
from .pooled_patches import expert_parts
from .prompted_diffusion import PromptedDiffusion

UNET_LORA = ["to_q", "to_k", "to_v", "to_out.0"]
LEAST = 1e-3  # of a count's mean over processes: below it there is nothing to divide
TEXT_ENCODER_LORA = ["q_proj", "k_proj", "v_proj", "out_proj"]


@dataclass(kw_only=True)
class ObjectiveArguments:
    """What stage 2 minimises, and what of Stable Diffusion it may change; the defaults are the published settings."""

    understanding_weight: float = field(default=0.5, metadata={"help": "of emotion, scene and object losses together"})
    condition_weight: float = field(default=1e-3, metadata={"help": "cross-entropy of the condition"})
    triplet_weight: float = field(default=1e-6, metadata={"help": "triplet of the condition"})
    alignment_weight: float = field(
        default=0.0,
        metadata={"help": "stage 1's contrast, which keeps alpha's retrieval right; not published"},
    )
    implicit_feedback: bool = field(
        default=True,
        metadata={"help": "the diffusion loss reaches the expert queries; without it, it trains the mappers alone"},
    )
    norm_limit: float = field(
        default=8.0,
        metadata={"help": "lengths of the median token embedding that a condition may have without a penalty; ours"},
    )
    norm_weight: float = field(default=0.1, metadata={"help": "of that penalty, a squared relative excess; ours"})
    min_snr_gamma: float | None = field(
        default=None,
        metadata={
            "help": "weigh timesteps by min(SNR, gamma) / SNR (Hang et al. 2023; they take 5); none if not given"
        },
    )
    unet_lora_rank: int = field(default=0, metadata={"help": "of LoRA on the UNet's attention; 0 leaves it frozen"})
    text_encoder_lora_rank: int = field(
        default=0, metadata={"help": "of LoRA on the text encoder; 0 leaves it frozen"}
    )


class JointModel(PromptedDiffusion):
    """Everything that a stage-2 step touches, and which of it is trained.

    Args:
        understanding: the stage-1 model; only its queries and interactive blocks are trained, where it has any, in
            evaluation mode, so that the frozen head sees in training what it sees in use.
        fusion: its mappers are trained.
        base: frozen but for the LoRA that is asked for; its tokenizer and text encoder receive the pseudo-tokens.
        objective: the weights of the losses, of which the diffusion loss has 1.
        vae: frozen, where pictures come without latents.

    Raises:
        ValueError: a text encoder that does not fit the emotion head; a base that predicts neither noise nor velocity.
    """

    def __init__(
        self,
        understanding: UniEmoUnderstandingModel,
        fusion: UniEmoFusionModel,
        base: StableDiffusionPipeline,
        objective: ObjectiveArguments,
        vae: AutoencoderKL | None = None,
    ) -> None:
        super().__init__(base, vae, objective.min_snr_gamma)
        width, expected = understanding.config.hidden_size, understanding.config.classifier_hidden
        found = base.text_encoder.config.hidden_size
        if found != expected:
            raise ValueError(
                f"Expected a text encoder as wide as the emotion head's last layer, {expected}, for it reads the "
                f"condition; found {found}. Train stage 1 with --classifier_hidden {found}."
            )
        self.understanding = understanding
        self.fusion = fusion
        self.scene_head = nn.Linear(width, len(understanding.config.scenes))
        self.object_head = nn.Linear(width, len(understanding.config.objects))
        self.objective = objective
        self._choose_trained()

    def _choose_trained(self) -> None:
        self.requires_grad_(False)
        experts = expert_parts(self.understanding).values()
        for part in (*experts, self.fusion.mappers, self.scene_head, self.object_head):
            part.requires_grad_(True)
        for model, rank, modules in (
            (self.unet, self.objective.unet_lora_rank, UNET_LORA),
            (self.text_encoder, self.objective.text_encoder_lora_rank, TEXT_ENCODER_LORA),
        ):
            if rank:
                model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=modules))
                cast_training_params(model, torch.float32)

    def train(self, mode: bool = True) -> "JointModel":
        """Everything stays in evaluation mode: what is frozen, and the frozen head, must act as they do in use.

        Only layers that may trade memory for time have to know that they are trained; their parts do not.
        """
        super().train(False)
        for module in self.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = mode
        return self

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Trade time for memory in all three models; called by the Trainer for `--activation_checkpointing`."""
        self.unet.enable_gradient_checkpointing()
        for model in (self.text_encoder, self.understanding):
            model.activation_checkpointing_enable(activation_checkpointing_kwargs, **options)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `PromptedSample`s by part; "loss" is their weighted sum.

        "condition_norm", the conditions' mean length in that of the median token embedding, is no loss.
        """
        named = {kind: batch[kind] for kind in ("scene_labels", "object_labels")}
        condition, output = self.condition(batch["pixel_values"], batch["labels"], **named)
        condition_loss = emotional_condition_loss(
            condition, batch["labels"], output.logits, self.understanding.classifier[-1]
        )
        relative_norm = self.relative_norm(condition)
        drawn_from = condition if self.objective.implicit_feedback else self.fuse(output, batch["labels"], detach=True)
        losses = {
            "diffusion": self.diffusion_loss(drawn_from, self.latents(batch), batch),
            "understanding": self.understanding_loss(output, batch),
            "condition": condition_loss.cross_entropy,
            "triplet": condition_loss.triplet,
            "alignment": output.scene_loss + output.object_loss,
            "norm": functional.relu(relative_norm / self.objective.norm_limit - 1).pow(2).mean(),
        }
        objective = self.objective
        weights = {
            "diffusion": 1.0,
            "understanding": objective.understanding_weight,
            "condition": objective.condition_weight,
            "triplet": objective.triplet_weight,
            "alignment": objective.alignment_weight,
            "norm": objective.norm_weight,
        }
        total = sum(weights[name] * value for name, value in losses.items())
        return {"loss": total, **losses, "condition_norm": relative_norm.detach().mean()}

    def condition(self, pixel_values: Tensor, labels: Tensor, **named: Tensor) -> tuple[Tensor, UniEmoOutput]:
        """Conditions (B, D) of pictures (B, 3, H, W) with emotions (B,), and what they were made of."""
        output = self.understanding(pixel_values, **named)
        return self.fuse(output, labels), output

    def fuse(self, output: UniEmoOutput, labels: Tensor, detach: bool = False) -> Tensor:
        """Conditions (B, D) of features with emotions (B,), with no way back to the features where they `detach`."""
        features = (output.emotion_features, output.scene_features, output.object_features)
        if detach:
            features = tuple(feature.detach() for feature in features)
        return self.fusion(*features, functional.one_hot(labels, len(EMOTIONS)).float())

    def understanding_loss(self, output: UniEmoOutput, batch: Batch) -> Tensor:
        """Stage 1's weighted sum with linear heads; pictures without a scene or object are left out of that part.

        Those that are not are counted over all processes, so that the split over them does not matter.
        """
        weights = self.understanding.config
        emotion = functional.cross_entropy(output.logits, batch["labels"])
        scene_logits = self.scene_head(output.scene_features)
        scene = functional.cross_entropy(scene_logits, batch["scene_labels"], ignore_index=NO_LABEL, reduction="sum")
        scene = scene / mean_over_processes((batch["scene_labels"] != NO_LABEL).sum()).clamp(min=LEAST)
        labelled = batch["object_labels"].any(1)
        object_logits = self.object_head(output.object_features)
        objects = functional.binary_cross_entropy_with_logits(object_logits, batch["object_labels"], reduction="none")
        objects = (objects.mean(1) * labelled).sum() / mean_over_processes(labelled.sum()).clamp(min=LEAST)
        attributes = weights.scene_loss_weight * scene + weights.object_loss_weight * objects
        return weights.emotion_loss_weight * emotion + attributes
