"""The gates that the mini backbones must pass, measured by the reader, each before the next component is built.

1. The reader reads at least 97 % of every attribute of fresh renders.
2. On the VAE's reconstructions it reads within 3 points of that.
3. In pictures from full captions it finds the scene in at least 95 %, each object in at least 80 %.
4. A scene or an object alone as the prompt is drawn as often.
5. Attributes learnt into one token, by a linear map, reach at least 90 % of the full caption's scores.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch import nn
from torch.nn import functional as F

from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN, PseudoTokens

from ..miniemoset.attributes import BRIGHTNESSES, PALETTES
from ..miniemoset.captions import full_caption, readable
from ..miniemoset.objects import OBJECTS
from ..miniemoset.scenes import SCENES
from ..sampling import sample_pictures
from .corpus import Corpus, render_chunk, render_example, to_tensor
from .loop import train
from .reader import Reader, accuracy, read

Scores = dict[str, float]
FRESH_SEED = 900  # a stream that no component was trained on
ATTRIBUTE_SIZES = (len(SCENES), len(OBJECTS), len(PALETTES), len(BRIGHTNESSES))
SAMPLING = {"num_inference_steps": 20, "guidance_scale": 3.0}


def reader_gate(reader: Reader, count: int = 2000) -> Scores:
    """Share of attributes read in fresh renders."""
    images, labels = render_chunk(FRESH_SEED, 0, count)
    return accuracy(read(reader, images), labels)


@torch.no_grad()
def vae_gate(reader: Reader, vae: AutoencoderKL, count: int = 1000) -> Scores:
    """Share of attributes read in the VAE's reconstructions of fresh renders."""
    images, labels = render_chunk(FRESH_SEED, 0, count)
    return accuracy(read(reader, np.concatenate([reconstruct(vae, part) for part in np.split(images, 20)])), labels)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """(B, 128, 128, 3) uint8 through the VAE and back."""
    output = vae.decode(vae.encode(to_tensor(images)).latent_dist.mean).sample
    return ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def caption_gate(reader: Reader, pipeline: StableDiffusionPipeline, count: int = 500) -> Scores:
    """Share of attributes read in pictures from captions that name them all."""
    examples = [render_example(FRESH_SEED, index)[1] for index in range(count)]
    captions = [full_caption(attributes) for attributes in examples]
    pictures = sample_pictures(pipeline, range(count), prompts=captions, description="captions", **SAMPLING)
    return accuracy(read(reader, pictures), _labels(count))


def word_gate(reader: Reader, pipeline: StableDiffusionPipeline, repeats: int = 8) -> Scores:
    """Share of pictures that show the scene, or as their clearest object the object, that is the whole prompt."""
    scores = {}
    for part, names in (("scene", SCENES), ("object", OBJECTS)):
        truth = torch.arange(len(names)).repeat_interleave(repeats)
        prompts = [readable(names[index]) for index in truth]
        pictures = sample_pictures(pipeline, range(len(truth)), prompts=prompts, description=part, **SAMPLING)
        scores[part] = (getattr(read(reader, pictures), part) == truth).float().mean().item()
    return scores


def one_token_gate(
    reader: Reader, pipeline: StableDiffusionPipeline, corpus: Corpus, latents: torch.Tensor, *, steps: int, count: int
) -> Scores:
    """Share of attributes read in pictures whose whole prompt is one token learnt from the attributes.

    A linear map from one-hot scene, first object, palette and brightness to the token's embedding is trained through
    the frozen model. Pictures with one object are drawn, for one vector cannot say which of two objects goes with it.
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
    ids = pipeline.tokenizer([SLOT_TOKEN], padding="max_length", return_tensors="pt").input_ids

    def loss_at(step: int, batch_size: int = 16) -> torch.Tensor:
        rng = np.random.default_rng([40, step])
        chosen = rng.choice(alone, batch_size)
        clean = latents[chosen].float()
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        timesteps = torch.from_numpy(rng.integers(1000, size=batch_size))
        with tokens.conditions({SLOT_TOKEN: embed(one_hot(corpus.labels[chosen]))}):
            text = pipeline.text_encoder(ids.expand(batch_size, -1)).last_hidden_state
        prediction = pipeline.unet(noising.add_noise(clean, noise, timesteps), timesteps, text).sample
        return F.mse_loss(prediction, noising.get_velocity(clean, noise, timesteps))

    train(nn.ModuleDict({"embed": embed}), loss_at, steps=steps, learning_rate=1e-2, name="one token", ema_decay=0.99)
    labels = _labels(4 * count)
    labels = labels[labels[:, 2] < 0][:count]
    pictures = []
    for start in range(0, len(labels), 25):
        rows = embed(one_hot(labels[start : start + 25])).detach()
        # Guidance doubles the batch: the first half is the empty prompt, which has no slot and ignores its rows.
        with tokens.conditions({SLOT_TOKEN: rows}):
            prompts = [SLOT_TOKEN] * len(rows)
            pictures.append(sample_pictures(pipeline, range(start, start + len(rows)), prompts=prompts, **SAMPLING))
    tokens.remove()
    return accuracy(read(reader, np.concatenate(pictures)), labels)


def one_hot(labels: np.ndarray) -> torch.Tensor:
    """Label rows as one-hot scene, first object, palette and brightness, (B, 51)."""
    parts = zip((0, 1, 3, 4), ATTRIBUTE_SIZES, strict=True)
    return torch.cat([F.one_hot(torch.from_numpy(labels[:, i].astype(np.int64)), n) for i, n in parts], dim=1).float()


def _labels(count: int) -> np.ndarray:
    return render_chunk(FRESH_SEED, 0, count)[1]
