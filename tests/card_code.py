"""The code that model cards show, run as it stands, and what of the reader's own it names."""

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file


def code_of(card: ModelCard | str) -> list[str]:
    """Every block of Python, in its order."""
    return re.findall(r"```python\n(.*?)\n```", str(card), re.DOTALL)


def run_code_of(card: ModelCard | str) -> dict[str, object]:
    """Run it all, and tell what is there then."""
    names: dict[str, object] = {}
    for block in code_of(card):
        exec(block, names)
    return names


def write_readers_own(base: StableDiffusionPipeline, place: Path) -> None:
    """A photo in the current folder; in `place`, a LoRA of the base and a textual inversion for it."""
    Image.effect_noise((48, 40), 50).convert("RGB").save("photo.jpg")
    width = base.text_encoder.get_input_embeddings().embedding_dim
    base.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(base.unet))
    base.save_lora_weights(place / "lora", unet_lora_layers=layers)
    save_file({"<toy>": torch.ones(1, width)}, place / "toy.safetensors")
