"""The gates that the mini backbones must pass, measured by the reader, each before the next component is built.

1. The reader reads at least 97 % of every attribute of fresh renders.
2. On the VAE's reconstructions it reads within 3 points of that.
3. In pictures from full captions it finds the scene in at least 95 %, each object in at least 80 %.
4. A scene or an object alone as the prompt is drawn as often.
5. Attributes learnt into one token, by a linear map, reach at least 90 % of the full caption's scores, both on
   attributes with one object: one vector cannot say which of two objects is the large one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch import nn
from torch.nn import functional as F

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, PseudoTokens

from ..miniemoset.attributes import BRIGHTNESSES, PALETTES, Attributes, sample_attributes
from ..miniemoset.captions import full_caption
from ..miniemoset.objects import OBJECTS
from ..miniemoset.scenes import SCENES
from ..miniemoset.streams import Stream
from ..sampling import sample_pictures
from .corpus import Corpus, label_row, render_chunk, to_pictures, to_tensor
from .diffusion import draw_timesteps, velocity_loss
from .loop import train
from .reader import Reader, accuracy, draw_batch, read
from .vae import reconstruct

Scores = dict[str, float]
ATTRIBUTE_SIZES = (len(SCENES), len(OBJECTS), len(PALETTES), len(BRIGHTNESSES))
SAMPLING = {"num_inference_steps": 20, "guidance_scale": 3.0}


def render_gate(reader: Reader, count: int = 2000) -> Scores:
    """Share of attributes read in fresh renders."""
    images, labels = render_chunk(Stream.GATES, 0, count)
    return accuracy(read(reader, images), labels)


def reconstruction_gate(reader: Reader, vae: AutoencoderKL, count: int = 1000) -> Scores:
    """Share of attributes read in the VAE's reconstructions of fresh renders."""
    images, labels = render_chunk(Stream.GATES, 0, count)
    parts = [to_pictures(reconstruct(vae, to_tensor(images[i : i + 50]))) for i in range(0, count, 50)]
    return accuracy(read(reader, np.concatenate(parts)), labels)


def caption_gate(reader: Reader, pipeline: StableDiffusionPipeline, examples: Sequence[Attributes]) -> Scores:
    """Share of attributes read in pictures from captions that name them all."""
    captions = [full_caption(attributes) for attributes in examples]
    pictures = sample_pictures(pipeline, range(len(captions)), prompts=captions, description="captions", **SAMPLING)
    return accuracy(read(reader, pictures), _labels(examples))


def word_gate(reader: Reader, pipeline: StableDiffusionPipeline, repeats: int = 8) -> Scores:
    """Share of pictures that show the scene, or as their clearest object the object, that is the whole prompt."""
    scores = {}
    for part, names in (("scene", SCENES), ("object", OBJECTS)):
        truth = torch.arange(len(names)).repeat_interleave(repeats)
        prompts = [normalise(names[index]) for index in truth]
        pictures = sample_pictures(pipeline, range(len(truth)), prompts=prompts, description=part, **SAMPLING)
        scores[part] = (getattr(read(reader, pictures), part) == truth).float().mean().item()
    return scores


def judge_gate(judge: Reader, vae: AutoencoderKL, count: int = 2000) -> Scores:
    """Share of emotions named in pictures of the gates' stream, drawn for an emotion each, and in reconstructions."""
    images, _, emotions = draw_batch(Stream.GATES, 0, count, emotional=True)
    parts = [to_pictures(reconstruct(vae, to_tensor(images[i : i + 50]))) for i in range(0, count, 50)]
    return {
        name: (read(judge, pictures).emotion.argmax(-1).numpy() == emotions).mean().item()
        for name, pictures in (("renders", images), ("reconstructions", np.concatenate(parts)))
    }


def one_token_gate(
    reader: Reader, pipeline: StableDiffusionPipeline, embed: nn.Linear, examples: Sequence[Attributes]
) -> Scores:
    """Share of attributes read in pictures whose whole prompt is one token that `embed` makes of the attributes."""
    tokens = PseudoTokens(pipeline.tokenizer, pipeline.text_encoder)
    rows = embed(one_hot(_labels(examples))).detach()
    pictures = []
    for start in range(0, len(rows), 25):
        # The empty negative prompt is encoded apart; it has no slot, so that it takes no rows.
        with tokens.conditions({SLOT_TOKEN: rows[start : start + 25]}):
            seeds = range(start, min(start + 25, len(rows)))
            pictures.append(sample_pictures(pipeline, seeds, prompts=[SLOT_TOKEN] * len(seeds), **SAMPLING))
    tokens.remove()
    return accuracy(read(reader, np.concatenate(pictures)), _labels(examples))


def learn_one_token(
    pipeline: StableDiffusionPipeline, corpus: Corpus, latents: torch.Tensor, *, steps: int, batch_size: int = 16
) -> nn.Linear:
    """A linear map from one-hot scene, object, palette and brightness to a token's embedding (B, D).

    Trained through the frozen model on the corpus's pictures with one object.
    """
    torch.manual_seed(0)
    tokens = PseudoTokens(pipeline.tokenizer, pipeline.text_encoder)
    table = pipeline.text_encoder.get_input_embeddings().weight
    embed = nn.Linear(sum(ATTRIBUTE_SIZES), table.shape[1])
    nn.init.normal_(embed.weight, std=table.std().item())
    for frozen in (pipeline.unet, pipeline.text_encoder):
        frozen.requires_grad_(False)
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    alone = np.flatnonzero(corpus.labels[: len(latents), 2] < 0)
    ids = pipeline.tokenizer([SLOT_TOKEN] * batch_size, padding="max_length", return_tensors="pt").input_ids

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([Stream.ONE_TOKEN, step])
        chosen = rng.choice(alone, batch_size)
        with tokens.conditions({SLOT_TOKEN: embed(one_hot(corpus.labels[chosen]))}):
            text = pipeline.text_encoder(ids).last_hidden_state
        timesteps = draw_timesteps(batch_size, 1, rng)
        return velocity_loss(pipeline.unet, noising, latents[chosen].float(), timesteps, text, rng)

    train(nn.ModuleDict({"embed": embed}), loss_at, steps=steps, learning_rate=1e-2, name="one token", ema_decay=0.99)
    tokens.remove()
    return embed


def one_hot(labels: np.ndarray) -> torch.Tensor:
    """Label rows as one-hot scene, first object, palette and brightness, (B, 51)."""
    parts = zip((0, 1, 3, 4), ATTRIBUTE_SIZES, strict=True)
    return torch.cat([F.one_hot(torch.from_numpy(labels[:, i].astype(np.int64)), n) for i, n in parts], dim=1).float()


def fresh_attributes(count: int, alone: bool = False) -> list[Attributes]:
    """Attributes of the gates' own stream, every one uniform; on request only those with one object."""
    drawn = (sample_attributes(np.random.default_rng([Stream.GATES, index])) for index in range(4 * count))
    return [attributes for attributes in drawn if not alone or len(attributes.objects) == 1][:count]


def _labels(examples: Sequence[Attributes]) -> np.ndarray:
    return np.array([label_row(attributes) for attributes in examples])
