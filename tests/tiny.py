"""Tiny random components: a stock Stable Diffusion, and UniEmo's two models to go with it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedModel,
)

from uniemo_pipelines.fusion_uniemo import EMOTIONS, UniEmoFusionModel
from uniemo_pipelines.modeling_uniemo import UniEmoConfig, UniEmoUnderstandingModel

TEXT_WIDTH = 32
SECOND_TEXT_WIDTH = 48
POOLED_WIDTH = 16
FEATURES = 16
ALIGNED = 8
SCENES = ("beach", "forest", "street")
OBJECTS = ("balloon", "cat")
VISION = {
    "hidden_size": FEATURES,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": ALIGNED,
}


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with one token a byte, and a merge so that there is one."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8")
        merges.write_text("#version: 0.2\nc a\nca t</w>\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def text_encoder(
    width: int = TEXT_WIDTH, eos_token_id: int | None = None, kind: type[PreTrainedModel] = CLIPTextModel
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Width 32, two layers; with `eos_token_id=2` it pools as Stable Diffusion 1.5's configuration makes it."""
    torch.manual_seed(0)
    made = tokenizer()
    config = CLIPTextConfig(
        projection_dim=POOLED_WIDTH,
        vocab_size=len(made),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id if eos_token_id is None else eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    encoder = kind(config).eval()
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(10)  # at CLIP's initialisation words hardly matter
    return encoder


def unet(width: int, **settings: Any) -> UNet2DConditionModel:
    """Of two levels, for 32 x 32 pixels; `width` is that of the prompt embeddings."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=2,
        **settings,
    ).eval()


def stable_diffusion(width: int = TEXT_WIDTH) -> dict[str, object]:
    """The components of a stock StableDiffusionPipeline for 32 x 32 pixels."""
    torch.manual_seed(1)
    denoiser = unet(width)
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=32,
    )
    return {
        "vae": vae.eval(),
        "text_encoder": text_encoder(width),
        "tokenizer": tokenizer(),
        "unet": denoiser,
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False, set_alpha_to_one=False),
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }


def stable_diffusion_xl() -> dict[str, object]:
    """The components of a stock StableDiffusionXLPipeline for 32 x 32 pixels, its text encoders of unequal widths."""
    first = stable_diffusion()
    torch.manual_seed(1)
    pooled = {"addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": POOLED_WIDTH + 6 * 4}
    denoiser = unet(TEXT_WIDTH + SECOND_TEXT_WIDTH, addition_embed_type="text_time", **pooled)
    shared = ("vae", "text_encoder", "tokenizer", "scheduler", "feature_extractor", "image_encoder")
    return {name: first[name] for name in shared} | {
        "text_encoder_2": text_encoder(SECOND_TEXT_WIDTH, kind=CLIPTextModelWithProjection),
        "tokenizer_2": tokenizer(),
        "unet": denoiser,
        "add_watermarker": False,
    }


def controlnet() -> ControlNetModel:
    """For `stable_diffusion()`; unlike a fresh one's, its output layers are not zero."""
    torch.manual_seed(4)
    model = ControlNetModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        conditioning_embedding_out_channels=(4, 8),
        norm_num_groups=2,
    )
    for block in (*model.controlnet_down_blocks, model.controlnet_mid_block):
        torch.nn.init.normal_(block.weight)
    return model.eval()


def fusion(widths: tuple[int, ...] = (TEXT_WIDTH,)) -> UniEmoFusionModel:
    """Random mappers, bases, coefficients and emotion space, the emotions well apart."""
    torch.manual_seed(2)
    model = UniEmoFusionModel(FEATURES, widths, ALIGNED, bank_size=6, rank=2)
    model.set_attribute_bases(
        SCENES,
        OBJECTS,
        torch.randn(len(SCENES), ALIGNED),
        torch.randn(len(OBJECTS), ALIGNED),
        torch.randn(ALIGNED, FEATURES),
        torch.randn(ALIGNED, FEATURES),
        torch.rand(len(SCENES), len(EMOTIONS)),
        torch.rand(len(OBJECTS), len(EMOTIONS)),
    )
    mean = torch.randn(len(EMOTIONS), 3, FEATURES)
    bank = mean[:, None] + 2 * torch.randn(len(EMOTIONS), 6, 3, FEATURES)
    model.set_emotion_space(mean, torch.ones_like(mean), bank, torch.ones(len(EMOTIONS), 6))
    return model.requires_grad_(False).eval()


def understanding() -> UniEmoUnderstandingModel:
    """Three layers of width 16 (the fusion's feature width) on 32 x 32 pixels, with the fusion's vocabularies."""
    torch.manual_seed(3)
    vision = CLIPVisionConfig(**VISION)
    model = UniEmoUnderstandingModel(
        UniEmoConfig(
            vision_config=vision,
            num_scene_queries=2,
            num_object_queries=3,
            projection_dim=ALIGNED,
            classifier_hidden=TEXT_WIDTH,
        )
    )
    set_vocabulary(model)
    return model.eval()


def set_vocabulary(model: UniEmoUnderstandingModel) -> None:
    """The fusion's scenes and objects, with text features of their own."""
    model.set_vocabulary(
        SCENES,
        OBJECTS,
        torch.randn(len(SCENES), ALIGNED),
        torch.randn(len(OBJECTS), ALIGNED),
        torch.randn(ALIGNED),
        torch.randn(ALIGNED),
    )


def save_clip(folder: Path, seed: int = 5) -> Path:
    """A stock CLIP, with its image processor beside it."""
    torch.manual_seed(seed)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=ALIGNED)).save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def processor() -> CLIPImageProcessorPil:
    """For pictures of 32 x 32 pixels."""
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def save_understanding(folder: Path) -> Path:
    """The understanding model as it is published: with its image processor beside it."""
    understanding().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder
