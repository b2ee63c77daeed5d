"""Where the understanding model comes from and where it goes: stock towers, Auto classes, devices, precisions."""

import json
import sys

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BertConfig,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    pipeline,
)
from transformers.dynamic_module_utils import get_imports

from tests.test_understanding import OBJECTS, PROJECTION, SCENES, SIZES, VISION, make_batch, make_model
from training.vocabulary import encode_vocabulary
from uniemo_pipelines import modeling_uniemo
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
def batch():
    return make_batch()


@pytest.fixture
def pixels(batch):
    return batch["pixel_values"]


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
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="siglip_vision_model"):
        UniEmoUnderstandingModel.from_clip(tmp_path)


# Starting from CLIP


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    torch.manual_seed(0)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 530,
        "max_position_embeddings": 24,
        "projection_dim": PROJECTION,
        "bos_token_id": 512,
        "eos_token_id": 513,
        "pad_token_id": 513,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=PROJECTION)).eval()


def make_tokenizer() -> CLIPTokenizer:
    """Single characters, with and without the end-of-word mark, and no merges."""
    characters = [chr(code) for code in range(33, 127)]
    vocabulary = {token: index for index, token in enumerate([*characters, *(c + "</w>" for c in characters)])}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24)


@pytest.mark.parametrize("source", ["CLIPModel", "CLIPModel folder", "CLIPVisionModel", "CLIPVisionModel folder"])
def test_from_clip_takes_names_folders_and_instances(clip, pixels, tmp_path, source):
    stock = clip if source.startswith("CLIPModel") else CLIPVisionModel(clip.vision_model.config).eval()
    if source.endswith("folder"):
        stock.save_pretrained(tmp_path)
    model = UniEmoUnderstandingModel.from_clip(tmp_path if source.endswith("folder") else stock, num_scene_queries=2)
    tower = getattr(stock, "vision_model", stock)
    assert model.config.num_scene_queries == 2
    assert model.config.projection_dim == PROJECTION
    assert model.config.vision_config.hidden_act == "quick_gelu"
    with torch.no_grad():
        # up to rounding: the activation is computed in another way
        torch.testing.assert_close(model.eval().vision_model(pixels).pooler_output, tower(pixels).pooler_output)
    own = model.vision_model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in tower.state_dict().items())
    assert str(tmp_path) not in model.config.to_json_string()
    # The stock model is not shared.
    with torch.no_grad():
        model.vision_model.post_layernorm.weight.zero_()
    assert tower.post_layernorm.weight.any()


def test_from_clip_refuses_what_is_no_clip(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Expected a CLIP model at .*found one of type 'bert'"):
        UniEmoUnderstandingModel.from_clip(tmp_path)
    with pytest.raises(TypeError, match="found Linear"):
        UniEmoUnderstandingModel.from_clip(torch.nn.Linear(1, 1))


def test_from_clip_refuses_a_misspelt_field(clip):
    with pytest.raises(TypeError, match="no field num_scene_querys"):
        UniEmoUnderstandingModel.from_clip(clip, num_scene_querys=3)


def test_encode_vocabulary_reads_names_as_words(clip):
    tokenizer = make_tokenizer()
    features = encode_vocabulary(clip, tokenizer, ["bakery/shop", "alarm_clock", "sea"])
    assert features.shape == (3, PROJECTION) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))
    with torch.no_grad():
        for name, feature in zip(["bakery shop", "alarm clock", "sea"], features, strict=True):
            expected = clip.get_text_features(**tokenizer(name, return_tensors="pt")).pooler_output[0]
            torch.testing.assert_close(feature, expected / expected.norm(), atol=1e-5, rtol=0)
    assert encode_vocabulary(clip, tokenizer, []).shape == (0, PROJECTION)


def test_its_code_asks_for_no_package_beside_transformers_and_pytorch():
    """Or transformers refuses to run it from a repository: it reads the imports, those in functions too."""
    assert set(get_imports(modeling_uniemo.__file__)) - set(sys.stdlib_module_names) == {"torch", "transformers"}


def test_a_model_with_its_vocabulary_from_one_clip(clip, batch, tmp_path):
    tokenizer = make_tokenizer()
    model = UniEmoUnderstandingModel.from_clip(clip, **SIZES)
    texts = [encode_vocabulary(clip, tokenizer, names) for names in (SCENES, OBJECTS, ["scene"], ["object"])]
    model.set_vocabulary(SCENES, OBJECTS, texts[0], texts[1], texts[2][0], texts[3][0])
    assert model(**batch).loss.isfinite()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["scenes"] == SCENES
