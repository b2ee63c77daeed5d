"""A stand-in for the released training recipe (JiuTian-VL/UniEmo), to measure and to compare with, not to train with.

What a step does was read off the released sources, `train_vit_class/` for stage 1 and `training/fine_tune.py` for
stage 2.

Stage 1:

- Scene and object text of every picture are tokenized and encoded at every step, padded to the text tower's full
  length. The tower is frozen, so no graph is kept.
- The vision tower is OpenAI's: tokens before batch, `nn.MultiheadAttention` without weights. Queries read visual
  tokens by attention written out.
- The last layer computes all tokens; of four sets of logits, two are read by no loss.
- AdamW by PyTorch's defaults; no gradient is clipped; the learning rate's cosine has a half-period of 32 steps.

Stage 2, beyond that:

- One picture a step. Its latents are encoded at every step (the VAE is frozen), and so are its two texts, which no
  loss reads here. The attributes that alpha is retrieved from are encoded once, before the first step.
- The condition is written into the text encoder's embedding table, past autograd. Its gradient is read off the
  table's, and a hook hands it on in a second backward pass, of a loss that is zero.
- UNet, vision tower, emotion head and embedding table are not frozen: their gradients are computed, added to those of
  earlier steps, and used by nobody.
- From the second step on the first backward pass finds the table's gradient in the hook as well, for the hook holds a
  view of it: the diffusion term then counts twice.

Left out, to its advantage: its tokenizer in Python (a compiled one is used), outputs of linear heads in stage 1 that
no loss reads, logging, and what its runs on several processes add (a search for unused parameters). Precision is
float32 on both sides, where the released runs have fp16.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from training.data import NO_LABEL
from training.train_joint import JointModel
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from .released_chain import EmotionHead, Features, ReleasedChain

HALF_PERIOD = 32  # steps

Batch = dict[str, Any]


def with_texts(batch: Batch, scenes: Sequence[str], objects: Sequence[str]) -> Batch:
    """The batch and what the released data set adds to it: a scene text and an object text of each picture.

    Args:
        batch: as `UniEmoUnderstandingModel` takes it; of several objects the last gives the text.
        scenes, objects: the names that its labels are indexes of.
    """
    scene_texts = ["scene" if label == NO_LABEL else scenes[label] for label in batch["scene_labels"].tolist()]
    named = [row.nonzero().flatten().tolist() for row in batch["object_labels"]]
    object_texts = [objects[indexes[-1]] if indexes else "object" for indexes in named]
    return {**batch, "scene_texts": scene_texts, "object_texts": object_texts}


def adamw(groups: Iterable[tuple[Iterable[nn.Module], float, float]]) -> torch.optim.AdamW:
    """AdamW over modules with their learning rate and weight decay, none on vectors; PyTorch's defaults otherwise."""
    options = []
    for modules, learning_rate, decay in groups:
        mine = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
        for matrices in (True, False):
            parameters = [parameter for parameter in mine if (parameter.ndim > 1) == matrices]
            options.append({"params": parameters, "lr": learning_rate, "weight_decay": decay if matrices else 0.0})
    return torch.optim.AdamW(options)


class ReleasedUnderstanding(nn.Module):
    """Chain and emotion head in training mode, with a copy of our weights.

    Args:
        understanding: gives vision tower, queries, blocks, projections and head.
        text: gives the text tower.
        tokenizer: the text tower's.
    """

    def __init__(
        self,
        understanding: UniEmoUnderstandingModel,
        text: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.length = text.config.max_position_embeddings
        self.chain = ReleasedChain(understanding, text)
        self.head = EmotionHead(understanding)

    def forward(self, batch: Batch) -> tuple[Features, Tensor, dict[str, Tensor]]:
        """Of a `with_texts` batch the features, the emotion logits (B, 8), and the logits of the contrasts."""
        scene_ids, object_ids = (self.tokenize(batch[f"{kind}_texts"]) for kind in ("scene", "object"))
        features, contrasts = self.chain(batch["pixel_values"], scene_ids, object_ids)
        return features, self.head(features.emotion), contrasts

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(B, L) ids, padded to the text tower's full length."""
        options = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        return self.tokenizer(list(texts), **options).input_ids

    def query_modules(self) -> list[nn.Module]:
        """Queries and interactive blocks."""
        visual = self.chain.visual
        return [visual.visual_query_scene, visual.visual_query_object, visual.transformer.visual_query_interact]

    def tower_modules(self) -> list[nn.Module]:
        """The rest of the vision tower."""
        visual = self.chain.visual
        bare = nn.ParameterList([visual.class_embedding, visual.positional_embedding])
        return [visual.conv1, bare, visual.ln_pre, visual.transformer.resblocks, visual.ln_post]


class ReleasedStep(ABC):
    """What the steps of both stages end with."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.schedule = CosineAnnealingLR(optimizer, HALF_PERIOD)

    @abstractmethod
    def backward(self, batch: Batch) -> None:
        """Compute the gradients of a batch."""

    def __call__(self, batch: Batch) -> None:
        """One step."""
        self.backward(batch)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


class ReleasedStage1(ReleasedStep):
    """A step of stage 1, on a `with_texts` batch. Takes what `ReleasedUnderstanding` takes."""

    def __init__(
        self,
        understanding: UniEmoUnderstandingModel,
        text: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
    ) -> None:
        self.model = ReleasedUnderstanding(understanding, text, tokenizer)
        queries, tower = self.model.query_modules(), self.model.tower_modules()
        super().__init__(adamw([([self.model.head], 1e-4, 1e-2), (queries, 5e-4, 1e-2), (tower, 8e-6, 1e-3)]))

    def backward(self, batch: Batch) -> None:
        self.loss(batch).backward()

    def loss(self, batch: Batch) -> Tensor:
        """Emotion and both contrasts, ()."""
        _, logits, contrasts = self.model(batch)
        emotion = functional.cross_entropy(logits, batch["labels"])
        scene = contrast(contrasts["scene"], batch["scene_labels"] != NO_LABEL)
        object_ = contrast(contrasts["object"], batch["object_labels"].any(1))
        return 0.05 * scene + 0.05 * object_ + 0.9 * emotion


def contrast(logits: Tensor, valid: Tensor) -> Tensor:
    """Symmetric cross-entropy of pictures and texts (B, B); 0 where no picture has a label."""
    if not valid.any():
        return torch.zeros(())
    own = torch.arange(len(logits)).masked_fill(~valid, NO_LABEL)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


class ReleasedStage2(ReleasedStep):
    """A step of stage 2, on a `with_texts` batch of one picture with "pictures" (1, 3, R, R) in [-1, 1].

    It has copies of all weights but the VAE's.

    Args:
        model: gives all that is trained; its fusion's two bases are searched as one list.
        text, tokenizer: CLIP's text tower.
        base: gives the VAE, the UNet, the text encoder and its tokenizer.
    """

    def __init__(
        self,
        model: JointModel,
        text: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        base: StableDiffusionPipeline,
    ) -> None:
        self.model = ReleasedUnderstanding(model.understanding, text, tokenizer)
        parts = copy.deepcopy([model.fusion.mappers[0], model.scene_head, model.object_head])
        self.mappers, self.scene_head, self.object_head = parts
        self.attributes = torch.cat([model.fusion.scene_base, model.fusion.object_base])
        self.coefficients = torch.cat([model.fusion.scene_coefficients, model.fusion.object_coefficients])
        self.scheduler = DDPMScheduler.from_config(base.scheduler.config)
        self.vae = base.vae.requires_grad_(False)
        self.unet = copy.deepcopy(base.unet).requires_grad_(True)
        self.text_encoder = with_placeholder(base.text_encoder)
        self.table = self.text_encoder.get_input_embeddings().weight
        self.prompt = placeholder_prompt(base.tokenizer, len(self.table) - 1)
        self.condition_gradient = torch.zeros(1)
        queries, heads = self.model.query_modules(), [self.scene_head, self.object_head]
        super().__init__(adamw([(queries, 5e-4, 1e-2), ([self.mappers], 1e-3, 1e-2), (heads, 1e-4, 1e-2)]))

    def backward(self, batch: Batch) -> None:
        """Both backward passes."""
        features, logits, _ = self.model(batch)
        condition = self.condition(features, batch["labels"])
        condition.register_hook(lambda gradient: gradient + self.condition_gradient)
        loss = self.diffusion_loss(condition, batch["pictures"])
        loss = loss + 0.5 * self.understanding_loss(features, logits, batch)
        loss = loss + self.condition_loss(condition, logits, batch["labels"])
        loss.backward(retain_graph=True)
        self.condition_gradient = self.table.grad[-1].detach()[None]  # a view, as released
        (0 * condition.mean()).backward(retain_graph=True)
        self.table.grad[-1] *= 0

    def condition(self, features: Features, label: Tensor) -> Tensor:
        """The pseudo-token's embedding (1, D)."""
        mapped = [self.mappers[kind](getattr(features, kind)) for kind in ("emotion", "scene", "object")]
        nearest = [functional.cosine_similarity(self.attributes, term).argmax() for term in mapped[1:]]
        scene, object_ = (self.coefficients[index][label].item() for index in nearest)
        return mapped[0] + scene * mapped[1] + object_ * mapped[2]

    def understanding_loss(self, features: Features, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the emotion and, where there are labels, the losses of both linear heads."""
        loss = 0.9 * functional.cross_entropy(logits, batch["labels"])
        if (batch["scene_labels"] != NO_LABEL).any():
            loss = loss + 0.05 * functional.cross_entropy(self.scene_head(features.scene), batch["scene_labels"])
        if (objects := batch["object_labels"].float()).any():
            probabilities = self.object_head(features.object).sigmoid()
            loss = loss + 0.05 * functional.binary_cross_entropy(probabilities, objects)
        return loss

    def condition_loss(self, condition: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy and triplet of the condition, read by the emotion head's last layer, with released weights."""
        first, second = logits.topk(2).indices[0]
        hardest = first if first != label else second
        anchor = self.model.head.fc1(condition)
        true, wrong = (functional.one_hot(which.view(1), len(EMOTIONS)).float() for which in (label, hardest))
        near, far = (functional.cosine_similarity(anchor, target) for target in (true, wrong))
        triplet = (0.5 + far - near).clamp(min=0).mean()
        return 1e-3 * functional.cross_entropy(anchor, label) + 1e-6 * triplet

    def diffusion_loss(self, condition: Tensor, pictures: Tensor) -> Tensor:
        """Mean squared error of the UNet's prediction; latents, noise and timestep come from the global generator."""
        self.table.data[-1] = condition.detach()[0]
        latents = self.vae.encode(pictures).latent_dist.sample() * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(latents),))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, self.text_encoder(self.prompt)[0]).sample
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
        return functional.mse_loss(prediction, target)


def with_placeholder(original: CLIPTextModel) -> CLIPTextModel:
    """A copy of the text encoder with one more token at the end of its table, the table alone not frozen."""
    text_encoder = type(original)(copy.deepcopy(original.config)).eval()  # a deep copy would have our hooks
    text_encoder.load_state_dict(original.state_dict())
    text_encoder.resize_token_embeddings(original.config.vocab_size + 1, mean_resizing=False)
    text_encoder.requires_grad_(False)
    text_encoder.get_input_embeddings().requires_grad_(True)
    return text_encoder


def placeholder_prompt(tokenizer: CLIPTokenizer, placeholder: int) -> Tensor:
    """Ids (1, L) of the prompt that is the placeholder alone."""
    start, *rest = tokenizer("", padding="max_length", truncation=True).input_ids
    return torch.tensor([[start, placeholder, *rest[:-1]]])
