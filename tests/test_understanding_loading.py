"""Where the understanding model comes from and where it goes: stock towers, Auto classes, devices, precisions."""

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    pipeline,
)

from tests.test_understanding import make_batch, make_model
from uniemo_pipelines.modeling_uniemo import EMOTIONS, VIT_L_14, UniEmoUnderstandingModel
from uniemo_pipelines.understanding_uniemo import load_understanding

VIT_B = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_attention_heads": 12}
STOCK_TOWERS = {
    "ViT-B/32": VIT_B | {"num_hidden_layers": 12, "patch_size": 32},
    "ViT-B/16": VIT_B | {"num_hidden_layers": 12, "patch_size": 16},
    "ViT-L/14": VIT_L_14,
    "ViT-L/14-336": VIT_L_14 | {"image_size": 336},
}


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def pixels():
    return make_batch()["pixel_values"]


@pytest.mark.parametrize("tower", STOCK_TOWERS)
def test_every_stock_clip_tower_can_be_built_on(tower):
    """At their true sizes, on the device that computes shapes only."""
    with torch.device("meta"):
        clip = CLIPVisionModel(CLIPVisionConfig(**STOCK_TOWERS[tower]))
        model = UniEmoUnderstandingModel.from_clip(clip)
        side = clip.config.image_size
        output = model(torch.empty(2, 3, side, side), output_attentions=True)
    assert output.logits.shape == (2, 8)
    assert output.scene_features.shape == (2, clip.config.hidden_size)
    patches = (side // clip.config.patch_size) ** 2
    assert output.object_attentions.shape == (2, clip.config.num_attention_heads, 32, 1 + patches)


def test_folder_to_classifier_by_the_auto_classes(model, tmp_path):
    model.save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessorPil(**size).save_pretrained(tmp_path)
    image = Image.new("RGB", (40, 30), (200, 120, 40))
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    logits = loaded(**AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")).logits
    (best, *_) = pipeline("image-classification", model=str(tmp_path), device="cpu")(image)
    assert best["label"] == EMOTIONS[logits.argmax()]
    assert best["score"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-5)


@pytest.mark.parametrize("offloaded", ["vision_model", "object_interaction"])
def test_parts_on_disk_change_nothing(model, pixels, tmp_path, offloaded):
    model.save_pretrained(tmp_path / "model")
    places = dict.fromkeys([name for name, _ in model.named_children()], "cpu")
    places |= {name: "cpu" for name in model.state_dict() if "." not in name} | {offloaded: "disk"}
    loaded = UniEmoUnderstandingModel.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    assert next(loaded.get_submodule(offloaded).parameters()).device.type == "meta"
    torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_from_the_file_on(model, pixels, tmp_path, dtype):
    model.to(dtype).save_pretrained(tmp_path)
    loaded = UniEmoUnderstandingModel.from_pretrained(tmp_path)
    assert loaded.dtype == dtype, "as it was saved"
    output = loaded(pixels.to(dtype))
    assert output.logits.dtype == dtype
    tolerance = {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(output.logits.float(), make_model()(pixels).logits, **tolerance)


def test_a_checkpoint_that_does_not_fit_is_refused_with_every_key(model, tmp_path):
    weights = model.state_dict()
    del weights["scene_queries.weight"], weights["classifier.3.bias"]
    weights |= {"visual.proj": torch.zeros(2), "object_queries.weight": torch.zeros(9, 32)}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError) as refusal:
        load_understanding(tmp_path)
    said = str(refusal.value)
    assert "missing: classifier.3.bias, scene_queries.weight" in said
    assert "unknown: visual.proj" in said
    assert "misshapen: object_queries.weight (9, 32), not (5, 32)" in said and "\n" not in said


def test_a_siglip_is_refused_by_name(tmp_path):
    """It has no class token, which the emotion feature is."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="siglip_vision_model"):
        UniEmoUnderstandingModel.from_clip(tmp_path)
