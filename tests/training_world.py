"""A made-up EmoSet folder of sixteen pictures, and tiny stock models, for the tests of training."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from uniemo_pipelines.fusion_uniemo import EMOTIONS

SCENES = ("beach", "bakery/shop", "amusement_park")
OBJECTS = ("Alarm clock", "Balloon", "Teddy bear", "Kite")
SIZE = 32
WIDTH = 64
TEXT_WIDTH = 32


def write_emoset(root: Path) -> Path:
    """Two pictures an emotion in each split. Every fourth has no scene, every fifth no object, one no annotation."""
    write_info(root)
    for split in ("train", "val"):
        rows = []
        for number in range(2 * len(EMOTIONS)):
            emotion = EMOTIONS[number % len(EMOTIONS)]
            image = f"image/{emotion}/{split}_{number:05d}.png"
            annotation = f"annotation/{emotion}/{split}_{number:05d}.json"
            _draw(root / image, number)
            content = {"image_id": f"{number:05d}", "emotion": emotion, "brightness": 0.5}
            if number % 4:
                content["scene"] = SCENES[number % 3]
            if number % 5:
                content["object"] = [OBJECTS[number % 4], OBJECTS[(number + 1) % 4]]
            if number != 3:
                _write(root / annotation, content)
            rows.append([emotion, image, annotation] if number % 2 else [emotion, str(number), image, annotation])
        _write(root / f"{split}.json", rows)
    return root


def write_info(root: Path) -> None:
    maps = {"emotion": EMOTIONS, "scene": SCENES, "object": OBJECTS}
    info = {kind: {"label2idx": {name: index for index, name in enumerate(names)}} for kind, names in maps.items()}
    _write(root / "info.json", info)


def write_clip(folder: Path) -> Path:
    """A stock CLIP folder: model, tokenizer, image processor. Three layers of width 64 on 32 x 32 pixels."""
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 3, "num_attention_heads": 1, "intermediate_size": 64, "projection_dim": 24}
    vision = CLIPVisionConfig(hidden_size=WIDTH, image_size=SIZE, patch_size=16, **shape)
    tokenizer = make_tokenizer()
    text = CLIPTextConfig(hidden_size=TEXT_WIDTH, **shape, **text_sizes(tokenizer))
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size).save_pretrained(folder)
    return folder


def write_stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Path:
    """A stock StableDiffusionPipeline folder for 32 x 32 pixels."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "projection_dim": TEXT_WIDTH}
    text = CLIPTextModel(CLIPTextConfig(hidden_size=TEXT_WIDTH, **shape, **text_sizes(tokenizer)))
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIZE,
    )
    zero_snr = prediction_type == "v_prediction"
    scheduler = DDIMScheduler(
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=zero_snr,
    )
    pipeline = StableDiffusionPipeline(
        vae,
        text,
        tokenizer,
        unet,
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with one token a letter."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789<>-_.,!?'&"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77)


def text_sizes(tokenizer: CLIPTokenizer) -> dict[str, int]:
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {"vocab_size": len(tokenizer), "max_position_embeddings": 77, **special}


def _draw(path: Path, number: int) -> None:
    image = Image.new("RGB", (40, 36), (number * 13 % 256, number * 57 % 256, 255 - number * 11 % 256))
    ImageDraw.Draw(image).ellipse((number, 4, number + 14, 24), fill=(250, number * 29 % 256, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
