"""Stage 2: joint training of understanding and generation through a frozen Stable Diffusion (design 2.2 and 2.3).

    python -m training.train_joint --config training/configs/miniemoset.yaml

The condition made of a picture's features is the embedding of one pseudo-token in the prompt, and the diffusion loss
of that same picture flows through it into the mappers and the expert queries: the implicit feedback. Trained are
queries, interactive blocks, mappers and two linear heads; UNet, VAE, text encoder, CLIP backbone and emotion head are
frozen, and so are stage 1's retrieval projections. Queries move while those projections stay, so alpha is looked up
with features that drift from the space they were aligned in, linear heads or not; `alignment_weight` holds them there.

At the end the emotion space is fitted with the final model, and all goes to one folder: `understanding/` and
`uniemo_adapter.safetensors`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import tqdm
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import CLIPImageProcessorPil, CLIPTokenizer

from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.fusion_uniemo import EMOTIONS, UniEmoFusionModel
from uniemo_pipelines.modeling_uniemo import UniEmoOutput, UniEmoUnderstandingModel
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, PseudoTokens

from .compute_emotion_space import fit_emotion_space
from .config import LoopArguments, parse
from .data import NO_LABEL, EmoSetDataset, EvaluationTransform, emotion_given_attribute
from .engine import Batch, ParameterGroup, make_accelerator, save_log, train
from .losses import emotional_condition_loss


@dataclass(kw_only=True)
class JointArguments(LoopArguments):
    """Stage 2; the defaults are the published settings."""

    base: str = field(metadata={"help": "stock Stable Diffusion: a folder or a Hub name"})
    understanding: str = field(metadata={"help": "folder that stage 1 wrote"})
    resolution: int = 512
    epochs: int = 1
    batch_size: int = 8
    mappers_learning_rate: float = 1e-3
    queries_learning_rate: float = 5e-4
    heads_learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    understanding_weight: float = 0.5
    condition_weight: float = field(default=1e-3, metadata={"help": "cross-entropy of the condition"})
    triplet_weight: float = field(default=1e-6, metadata={"help": "triplet of the condition"})
    alignment_weight: float = field(
        default=0.0,
        metadata={"help": "stage 1's contrast, which keeps alpha's retrieval right; not published"},
    )
    template_share: float = field(default=0.4, metadata={"help": "share of samples with a template as the prompt"})
    templates: list[str] = field(
        default_factory=lambda: [
            "a photo of a <emotion>",
            "a photo of a <emotion> {scene}",
            "a photo of a <emotion> {object}",
            "<emotion> {scene}",
            "<emotion> {object}",
        ],
        metadata={"help": "prompts; {scene} and {object} stand for the picture's own"},
    )
    bank_size: int = field(default=64, metadata={"help": "medoids an emotion in the emotion space's bank"})
    rank: int = field(default=16, metadata={"help": "factors of the emotion space's low-rank form"})
    smoothing: float = field(default=1.0, metadata={"help": "of P(emotion | attribute), in counts"})


class JointDataset(Dataset):
    """Pictures with everything that a diffusion step needs; the sample alone decides what is random.

    A sample is an `EmoSetDataset` sample and: `latents` and `noise` (C, h, w), `timesteps` () long, `input_ids` (L,).
    """

    def __init__(
        self,
        pictures: EmoSetDataset,
        latents: Tensor,
        tokenizer: CLIPTokenizer,
        num_timesteps: int,
        templates: Sequence[str],
        template_share: float,
    ) -> None:
        self.pictures = pictures
        self.latents = latents
        self.tokenizer = tokenizer
        self.num_timesteps = num_timesteps
        self.templates = templates
        self.template_share = template_share

    def set_epoch(self, epoch: int) -> None:
        self.pictures.set_epoch(epoch)

    def prompt(self, index: int, source: random.Random) -> str:
        """The bare token, or for a share of the samples a template that the picture's own attributes can fill."""
        if source.random() >= self.template_share:
            return SLOT_TOKEN
        row, vocabulary = self.pictures.rows[index], self.pictures.vocabulary
        names = {}
        if row.scene != NO_LABEL:
            names["scene"] = vocabulary.scenes[row.scene]
        if row.objects:
            names["object"] = vocabulary.objects[source.choice(row.objects)]
        lacking = [f"{{{kind}}}" for kind in ("scene", "object") if kind not in names]
        fitting = [template for template in self.templates if not any(slot in template for slot in lacking)]
        return source.choice(fitting).format(**names) if fitting else SLOT_TOKEN

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        source = self.pictures.random_source(index)
        latents = self.latents[index]
        noise = torch.Generator().manual_seed(source.getrandbits(62))
        tokens = self.tokenizer(self.prompt(index, source), padding="max_length", truncation=True, return_tensors="pt")
        return {
            **self.pictures[index],
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=noise),
            "timesteps": torch.tensor(source.randrange(self.num_timesteps)),
            "input_ids": tokens.input_ids[0],
        }


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, pictures: EmoSetDataset, resolution: int, batch_size: int = 16) -> Tensor:
    """Scaled latents (N, C, h, w) of the unaugmented pictures, on the CPU: centre crops of `resolution` pixels.

    The mode of the encoder's distribution is kept: its spread is far below the noise that training adds, and a fixed
    latent needs half the memory.
    """
    processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))
    latents = []
    for start in tqdm(range(0, len(pictures), batch_size), desc="latents"):
        images = [pictures.image(index) for index in range(start, min(start + batch_size, len(pictures)))]
        pixels = [processor.preprocess(image, resolution, resolution, resize_mode="crop") for image in images]
        mode = vae.encode(torch.cat(pixels).to(vae.device, vae.dtype)).latent_dist.mode()
        latents.append((mode * vae.config.scaling_factor).float().cpu())
    return torch.cat(latents)


class JointModel(nn.Module):
    """Everything that a stage-2 step touches, and which of it is trained.

    Args:
        understanding: the stage-1 model; only its queries and interactive blocks are trained, in evaluation mode, so
            that the frozen head sees in training what it sees in use.
        fusion: its mappers are trained.
        base: frozen; its tokenizer and text encoder receive the pseudo-tokens.
        loss_weights: of understanding, condition, triplet and alignment; the diffusion loss counts once.

    Raises:
        ValueError: a text encoder that does not fit the emotion head.
    """

    def __init__(
        self,
        understanding: UniEmoUnderstandingModel,
        fusion: UniEmoFusionModel,
        base: StableDiffusionPipeline,
        loss_weights: tuple[float, float, float, float],
    ) -> None:
        super().__init__()
        width, expected = understanding.config.hidden_size, understanding.config.classifier_hidden
        found = base.text_encoder.config.hidden_size
        if found != expected:
            raise ValueError(
                f"Expected a text encoder as wide as the emotion head's last layer, {expected}, for it reads the "
                f"condition; found {found}. Train stage 1 with --classifier_hidden {found}."
            )
        self.understanding = understanding.eval()
        self.fusion = fusion
        self.scene_head = nn.Linear(width, len(understanding.config.scenes))
        self.object_head = nn.Linear(width, len(understanding.config.objects))
        self.text_encoder = base.text_encoder.eval()
        self.unet = base.unet.eval()
        self.scheduler = DDPMScheduler.from_config(base.scheduler.config)
        self.pseudo_tokens = PseudoTokens(base.tokenizer, base.text_encoder)
        self.loss_weights = loss_weights
        self.requires_grad_(False)
        for part in (
            understanding.scene_queries,
            understanding.object_queries,
            understanding.scene_interaction,
            understanding.object_interaction,
            fusion.mappers,
            self.scene_head,
            self.object_head,
        ):
            part.requires_grad_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a `JointDataset` batch by part; "loss" is their weighted sum."""
        named = {kind: batch[kind] for kind in ("scene_labels", "object_labels")}
        output = self.understanding(batch["pixel_values"], **named)
        condition = self.fusion(
            output.emotion_features,
            output.scene_features,
            output.object_features,
            functional.one_hot(batch["labels"], len(EMOTIONS)).float(),
        )
        condition_loss = emotional_condition_loss(
            condition, batch["labels"], output.logits, self.understanding.classifier[-1]
        )
        losses = {
            "diffusion": self.diffusion_loss(condition, batch),
            "understanding": self.understanding_loss(output, batch),
            "condition": condition_loss.cross_entropy,
            "triplet": condition_loss.triplet,
            "alignment": output.scene_loss + output.object_loss,
        }
        weights = (1.0, *self.loss_weights)
        return {"loss": sum(w * value for w, value in zip(weights, losses.values(), strict=True)), **losses}

    def diffusion_loss(self, condition: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of the frozen UNet's prediction; the condition (B, D) stands in the prompt's slot."""
        latents, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
        with self.pseudo_tokens.conditions({SLOT_TOKEN: condition}):
            prompt_embeds = self.text_encoder(batch["input_ids"])[0]
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, prompt_embeds).sample
        return functional.mse_loss(prediction.float(), self.target(latents, noise, timesteps))

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the base's UNet predicts."""
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        if self.scheduler.config.prediction_type == "v_prediction":
            return self.scheduler.get_velocity(latents, noise, timesteps)
        raise ValueError(
            "Expected a base that predicts epsilon or v_prediction, found "
            f"{self.scheduler.config.prediction_type!r} in its scheduler's configuration."
        )

    def understanding_loss(self, output: UniEmoOutput, batch: Batch) -> Tensor:
        """Stage 1's weighted sum with linear heads; pictures without a scene or object are left out of that part."""
        weights = self.understanding.config
        emotion = functional.cross_entropy(output.logits, batch["labels"])
        scene_logits = self.scene_head(output.scene_features)
        scene = functional.cross_entropy(scene_logits, batch["scene_labels"], ignore_index=NO_LABEL, reduction="sum")
        scene = scene / (batch["scene_labels"] != NO_LABEL).sum().clamp(min=1)
        labelled = batch["object_labels"].any(1)
        object_logits = self.object_head(output.object_features)
        objects = functional.binary_cross_entropy_with_logits(object_logits, batch["object_labels"], reduction="none")
        objects = (objects.mean(1) * labelled).sum() / labelled.sum().clamp(min=1)
        attributes = weights.scene_loss_weight * scene + weights.object_loss_weight * objects
        return weights.emotion_loss_weight * emotion + attributes


def build_fusion(
    understanding: UniEmoUnderstandingModel,
    pictures: EmoSetDataset,
    space: dict[str, Tensor],
    table: Tensor,
    smoothing: float,
) -> UniEmoFusionModel:
    """A fresh fusion model that knows the data's attributes, with conditions that start out like token embeddings.

    Args:
        understanding: the stage-1 model.
        pictures: the training split, for the attribute statistics.
        space: the stage-1 model's emotion space.
        table: the text encoder's input embeddings (V, D).
        smoothing: of the statistics.

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
        *emotion_given_attribute(pictures, smoothing),
    )
    fusion.set_emotion_space(**space)
    fusion.init_mappers(table)
    return fusion


def parameter_groups(arguments: JointArguments) -> list[ParameterGroup]:
    """Learning rates of what is trained; the weight decay is stage 1's."""
    queries = ("scene_queries.", "object_queries.", "scene_interaction.", "object_interaction.")
    queries = tuple(f"understanding.{name}" for name in queries)
    return [
        ParameterGroup(("fusion.mappers.",), arguments.mappers_learning_rate, arguments.weight_decay),
        ParameterGroup(queries, arguments.queries_learning_rate, arguments.weight_decay),
        ParameterGroup(("scene_head.", "object_head."), arguments.heads_learning_rate, arguments.weight_decay),
    ]


def main(arguments: JointArguments) -> list[dict[str, float]]:
    """Train, fit the emotion space, and write the adapter's folder."""
    accelerator = make_accelerator(arguments)
    processor = CLIPImageProcessorPil.from_pretrained(arguments.understanding)
    understanding = UniEmoUnderstandingModel.from_pretrained(arguments.understanding)
    base = StableDiffusionPipeline.from_pretrained(arguments.base, dtype=torch.float32, safety_checker=None)
    pictures = EmoSetDataset(
        arguments.data, "train", EvaluationTransform(processor), arguments.seed, arguments.keep_images
    )

    def space() -> dict[str, Tensor]:
        sizes = (arguments.bank_size, arguments.rank, arguments.seed)
        return fit_emotion_space(accelerator, understanding, pictures, 4 * arguments.batch_size, *sizes)

    table = base.text_encoder.get_input_embeddings().weight
    fusion = build_fusion(understanding, pictures, space(), table, arguments.smoothing)
    names = ("understanding_weight", "condition_weight", "triplet_weight", "alignment_weight")
    loss_weights = tuple(getattr(arguments, name) for name in names)
    model = JointModel(understanding, fusion, base, loss_weights)
    latents = encode_latents(base.vae.requires_grad_(False).to(accelerator.device), pictures, arguments.resolution)
    dataset = JointDataset(
        pictures,
        latents,
        base.tokenizer,
        model.scheduler.config.num_train_timesteps,
        arguments.templates,
        arguments.template_share,
    )
    log = train(accelerator, model, dataset, parameter_groups(arguments), arguments, lambda model, batch: model(batch))
    fusion.set_emotion_space(**space())
    if accelerator.is_main_process:
        folder = Path(arguments.output)
        understanding.save_pretrained(folder / "understanding")
        processor.save_pretrained(folder / "understanding")
        write_adapter(folder / ADAPTER_NAME, fusion, arguments.base, folder / "understanding")
        save_log(folder, arguments, log)
    return log


if __name__ == "__main__":
    main(parse(JointArguments, "joint"))
