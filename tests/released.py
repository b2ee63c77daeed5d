"""Files as the released code and EmoGen's release leave them, with tiny random weights."""

import json
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import tiny
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig

from uniemo_pipelines.conversion import release_checkpoint
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.modeling_uniemo import UniEmoConfig, UniEmoUnderstandingModel

WIDTH = 64  # of everything: one attention head, and conditions as wide as CLIP's text features
SIDE = 32
SCENES = ("amusement_park", "bakery/shop", "beach")
OBJECTS = ("Alarm clock", "Balloon", "Castle")
ATTRIBUTES = {
    "object_attr.pkl": {"attr_amusement": ["balloon", "castle"], "attr_fear": ["alarm_clock"]},
    "scene_attr.pkl": {"attr_amusement": ["amusement_park", "carousel"], "attr_awe": ["beach", "castle"]},
}
COEFFICIENTS = {
    "attr_coefficient_emotion_scene.pkl": ("amusement_park", "bakery/shop", "beach", "castle"),
    "attr_coefficient_emotion_object.pkl": ("alarm_clock", "balloon", "castle"),
}


def checkpoint() -> dict:
    """All that a stage-1 checkpoint holds."""
    torch.manual_seed(4)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 1, "projection_dim": WIDTH}
    sizes["hidden_act"] = "quick_gelu"
    vision = CLIPVisionConfig(**sizes, num_hidden_layers=3, image_size=SIDE, patch_size=8)
    config = UniEmoConfig(
        vision_config=vision,
        num_scene_queries=2,
        num_object_queries=3,
        projection_dim=WIDTH,
        classifier_hidden=WIDTH,
    )
    tokens = len(tiny.tokenizer())
    text = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, num_hidden_layers=2, vocab_size=tokens))
    released = release_checkpoint(UniEmoUnderstandingModel(config).state_dict() | text.state_dict())
    for block in range(2):
        released["model"][f"visual.transformer.visual_query_interact.{block}.query_alpha"] = torch.randn(WIDTH)
    for name in ("visual.proj", "visual_query_scene_last_proj", "visual_query_object_last_proj"):
        released["model"][name] = torch.randn(WIDTH, WIDTH)
    released["model"] |= {"logit_scale_last": torch.tensor(3.0), "logit_scale_object_last": torch.tensor(4.0)}
    return {**released, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}, "config": Namespace(seed=500)}


def write(folder: Path) -> Path:
    """Everything that an adapter is made of."""
    torch.save(checkpoint(), folder / "VIT_query.pth")
    for name in ("mapper.pth", "mapper_scene.pth", "mapper_object.pth"):
        mapper = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH))
        torch.save({f"mlp.{key}": tensor for key, tensor in mapper.state_dict().items()}, folder / name)
    (folder / "UniEmo_space").mkdir()
    for emotion in EMOTIONS:
        for feature in ("cls_fea", "scene", "object"):
            torch.save(torch.randn(WIDTH), folder / "UniEmo_space" / f"{emotion}_{feature}_mean.pt")
            torch.save(torch.rand(WIDTH), folder / "UniEmo_space" / f"{emotion}_{feature}_std.pt")
    balance = folder / "dataset_balance"
    balance.mkdir()
    for name, attributes in ATTRIBUTES.items():
        (balance / name).write_bytes(pickle.dumps(attributes))
    rows = np.random.default_rng(0)
    for name, attributes in COEFFICIENTS.items():
        table = {key: rows.dirichlet(np.ones(len(EMOTIONS))).astype(np.float32) for key in attributes}
        (balance / name).write_bytes(pickle.dumps(table))
    maps = {"scene": SCENES, "object": OBJECTS}
    info = {kind: {"label2idx": {name: index for index, name in enumerate(names)}} for kind, names in maps.items()}
    (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")
    tiny.tokenizer().save_pretrained(folder / "tokenizer")
    return folder
