"""A made-up EmoSet folder of sixteen pictures, and tiny stock models, for the tests of training."""

import json
from pathlib import Path
from typing import Any

import tiny
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from training.config import RunArguments, SelectingRunArguments
from training.data import DataArguments
from training.train_joint import JointArguments
from training.train_understanding import UnderstandingArguments
from uniemo_pipelines.fusion_uniemo import EMOTIONS

SCENES = ("beach", "bakery/shop", "amusement_park")
OBJECTS = ("Alarm clock", "Balloon", "Teddy bear", "Kite")
SIZE = 32
WIDTH = 64


def arguments_of(types: tuple[type, ...], settings: dict[str, Any]) -> tuple[Any, ...]:
    """The dataclasses of a script, each filled with those of the settings that it knows."""
    return tuple(
        one(**{name: value for name, value in settings.items() if name in one.__dataclass_fields__}) for one in types
    )


def stage1(world: Path, output: Path, **changes: Any) -> tuple[Any, ...]:
    """Arguments of train_understanding.main: two epochs of two steps."""
    settings = {
        "data": str(world / "emoset"),
        "keep_images": True,
        "clip": str(world / "clip"),
        "num_scene_queries": 2,
        "num_object_queries": 3,
        "classifier_hidden": 32,
        "output_dir": str(output),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "use_cpu": True,
        **changes,
    }
    return arguments_of((DataArguments, UnderstandingArguments, SelectingRunArguments), settings)


def stage2(world: Path, understanding: Path, output: Path, **changes: Any) -> tuple[Any, ...]:
    """Arguments of train_joint.main: three epochs of four steps."""
    settings = {
        "data": str(world / "emoset"),
        "keep_images": True,
        "understanding": str(understanding),
        "base": str(world / "epsilon"),
        "resolution": 32,
        "bank_size": 2,
        "rank": 2,
        "output_dir": str(output),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        **changes,
    }
    return arguments_of((DataArguments, JointArguments, RunArguments), settings)


def write_world(root: Path) -> Path:
    """Folders of the data, a CLIP and two Stable Diffusions."""
    write_emoset(root / "emoset")
    write_clip(root / "clip")
    for prediction_type in ("epsilon", "v_prediction"):
        write_stable_diffusion(root / prediction_type, prediction_type)
    return root


def records(run: Path, name: str) -> list[float]:
    """The values of a figure in a run's log."""
    log = json.loads((run / "training_log.json").read_text())
    return [record[name] for record in log if name in record]


def write_emoset(root: Path) -> Path:
    """Two pictures an emotion in each split. Every fourth has no scene, every fifth no object, one no annotation."""
    write_info(root)
    for split in ("train", "val"):
        rows = []
        for number in range(2 * len(EMOTIONS)):
            emotion = EMOTIONS[number % len(EMOTIONS)]
            image = f"image/{emotion}/{split}_{number:05d}.png"
            annotation = f"annotation/{emotion}/{split}_{number:05d}.json" if number != 3 else None
            _draw(root / image, number)
            content = {"image_id": f"{number:05d}", "emotion": emotion, "brightness": 0.5}
            if number % 4:
                content["scene"] = SCENES[number % 3]
            if number % 5:
                content["object"] = [OBJECTS[number % 4], OBJECTS[(number + 1) % 4]]
            if annotation is not None:
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
    tokenizer = tiny.tokenizer()
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = CLIPTextConfig(hidden_size=tiny.TEXT_WIDTH, vocab_size=len(tokenizer), **shape, **special)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size).save_pretrained(folder)
    return folder


def write_stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Path:
    """A stock StableDiffusionPipeline folder for 32 x 32 pixels."""
    pipeline = StableDiffusionPipeline(**tiny.stable_diffusion())
    zero_snr = prediction_type == "v_prediction"
    pipeline.scheduler = DDIMScheduler(
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=zero_snr,
    )
    pipeline.save_pretrained(folder)
    return folder


def _draw(path: Path, number: int) -> None:
    image = Image.new("RGB", (40, 36), (number * 13 % 256, number * 57 % 256, 255 - number * 11 % 256))
    ImageDraw.Draw(image).ellipse((number, 4, number + 14, 24), fill=(250, number * 29 % 256, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
