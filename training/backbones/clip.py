"""The mini CLIP, which knows the world by half: scenes always, objects in half of its captions, palettes never.

A CLIP that knew the world perfectly would leave nothing to understand, and no claim about understanding could show.
From captions alone it learnt no object in 96,000 pictures: their scenes tell the captions of a batch apart. So a head
that is thrown away afterwards names the object of every patch, and captions have only to put names to what is seen.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from uniemo_pipelines.attributes import normalise

from ..miniemoset.attributes import Attributes
from ..miniemoset.captions import SENTENCES
from ..miniemoset.objects import OBJECTS
from ..miniemoset.render import IMAGE_SIZE
from ..miniemoset.scenes import SCENES
from ..miniemoset.streams import Stream
from .corpus import PATCH_SIZE, Corpus, to_tensor
from .loop import train
from .tokenizer import MAX_LENGTH, make_tokenizer

OBJECT_CAPTIONS = 0.5
SCENELESS = 0.5  # of the captions with objects
REFINING_STEPS = 40
PATCH_WEIGHT = 10.0  # most patches show no object, so that their mean loss is small


def new_clip(vocab_size: int, eos_token_id: int) -> CLIPModel:
    """An untrained CLIP: vision 192 wide, 6 layers, patches of 16; text 128 wide, 3 layers."""
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=eos_token_id - 1,
        eos_token_id=eos_token_id,
        pad_token_id=eos_token_id,
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


def new_processor() -> CLIPImageProcessorPil:
    """128 px, values in [-1, 1]: one normalisation for every part of the embedded world."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def clip_caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """The scene, and in half of the captions the objects; never palette or light.

    Half of the captions with objects leave the scene out: beside a scene that tells the pictures of a batch apart
    almost alone, objects are hardly learnt.
    """
    scene, objects = normalise(attributes.scene), " and a ".join(normalise(name) for name in attributes.objects)
    if rng.random() >= OBJECT_CAPTIONS:
        return str(rng.choice([scene, f"a photo of a {scene}"]))
    if rng.random() < SCENELESS:
        return str(rng.choice([objects, f"a photo of a {objects}"]))
    return SENTENCES[rng.integers(len(SENTENCES))].format(scene=scene, objects=objects)


def train_clip(
    corpus: Corpus,
    folder: Path,
    *,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    muon_learning_rate: float = 3e-3,
    enough: Callable[[CLIPModel], bool] = lambda clip: True,
) -> CLIPModel:
    """Train a CLIP contrastively on half-telling captions and save it, with tokenizer and processor, to `folder`.

    Args:
        enough: asked after the steps; as long as it says no, 40 more follow at half the rates, up to as many again.
            What a CLIP knows of objects rises so steeply, once it does, that no number of steps gives the same on two
            machines.
    """
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    clip = new_clip(len(tokenizer), tokenizer.eos_token_id)
    patch_head = nn.Linear(clip.config.vision_config.hidden_size, len(OBJECTS) + 1)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([Stream.CLIP, step])
        chosen = np.sort(rng.integers(len(corpus), size=batch_size))
        captions = [clip_caption(corpus.attributes(i), rng) for i in chosen]
        text = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        output = clip(**text, pixel_values=to_tensor(corpus.images[chosen]), return_loss=True)
        named = patch_head(output.vision_model_output.last_hidden_state[:, 1:])
        objects = torch.from_numpy(corpus.patches[chosen] + 1).long()
        return output.loss + PATCH_WEIGHT * nn.functional.cross_entropy(named.flatten(0, 1), objects.flatten())

    modules = nn.ModuleDict({"clip": clip, "patch_head": patch_head})
    rates = {"learning_rate": learning_rate, "muon_learning_rate": muon_learning_rate}
    train(modules, loss_at, steps=steps, **rates, name="clip", checkpoint=folder / "clip.ckpt")
    for start in range(steps, 2 * steps, REFINING_STEPS):
        if enough(clip):
            break
        half = {name: rate / 2 for name, rate in rates.items()}
        train(
            modules,
            lambda step, start=start: loss_at(start + step),
            steps=REFINING_STEPS,
            **half,
            name="clip, refined",
            warmup=REFINING_STEPS // 4,
        )
    for part in (clip, tokenizer, new_processor()):
        part.save_pretrained(folder)
    return clip


@torch.no_grad()
def zero_shot(clip: CLIPModel, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy of naming scene and first object by the nearest caption, on pictures with one object."""
    tokenizer, alone = make_tokenizer(), labels[:, 2] < 0
    images, labels = images[alone], labels[alone]
    pixels = to_tensor(images).split(100)
    features = torch.cat([clip.get_image_features(part).pooler_output for part in pixels])
    result = {}
    for column, (part, names) in enumerate({"scene": SCENES, "object": OBJECTS}.items()):
        prompts = [f"a photo of a {normalise(name)}" for name in names]
        text = clip.get_text_features(**tokenizer(prompts, padding="max_length", return_tensors="pt")).pooler_output
        found = (features @ nn.functional.normalize(text, dim=-1).T).argmax(dim=-1)
        result[part] = (found == torch.from_numpy(labels[:, column].astype(np.int64))).float().mean().item()
    return result
