"""Released key names to ours, held against the outputs of the released code."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from uniemo_pipelines.conversion import convert_chain
from uniemo_pipelines.modeling_uniemo import (
    UniEmoConfig,
    UniEmoUnderstandingModel,
    cosine_logits,
    released_contrastive_loss,
)

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "golden" / "understanding_chain.safetensors"
TOLERANCE = 3e-5
UNUSED = {
    "logit_scale_last",
    "logit_scale_object_last",
    "visual.proj",
    "visual.transformer.visual_query_interact.0.query_alpha",
    "visual.transformer.visual_query_interact.1.query_alpha",
    "visual_query_object_last_proj",
    "visual_query_scene_last_proj",
}


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN.name} is not here")
    with safe_open(GOLDEN, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        sizes = json.loads(file.metadata()["config"])
    return tensors, sizes


@pytest.fixture(scope="module")
def released(golden):
    prefix = "weights."
    return {key.removeprefix(prefix): value for key, value in golden[0].items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def chain(released):
    return convert_chain(released)


@pytest.fixture(scope="module")
def model(chain):
    model = UniEmoUnderstandingModel(UniEmoConfig(**chain.config)).eval()
    loaded = model.load_state_dict(chain.state_dict, strict=False)
    assert not loaded.unexpected_keys
    # What the released chain does not hold: the emotion head is a file of its own, the vocabulary a list of names.
    assert all(key.startswith("classifier.") or "_text" in key for key in loaded.missing_keys)
    return model


@pytest.fixture(scope="module")
def text_model(chain):
    model = CLIPTextModelWithProjection(CLIPTextConfig(**chain.text_config)).eval()
    model.load_state_dict(chain.text_state_dict)
    return model


def test_sizes_come_from_the_tensors(golden, chain):
    sizes, vision, text = golden[1], chain.config["vision_config"], chain.text_config
    assert vision["num_hidden_layers"] == sizes["vision_layers"]
    assert vision["hidden_size"] == sizes["vision_width"]
    assert vision["image_size"] == sizes["image_resolution"]
    assert vision["patch_size"] == sizes["vision_patch_size"]
    assert chain.config["projection_dim"] == sizes["embed_dim"]
    assert chain.config["num_scene_queries"] == chain.config["num_object_queries"] == sizes["query_len"]
    assert text["num_hidden_layers"] == sizes["transformer_layers"]
    assert text["max_position_embeddings"] == sizes["context_length"]
    assert text["vocab_size"] == sizes["vocab_size"]


def test_unused_keys_are_reported(chain):
    assert set(chain.unused) == UNUSED


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_features_are_the_released_ones(golden, model, implementation):
    tensors = golden[0]
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        output = model(tensors["input.pixel_values"], output_hidden_states=True)
    patches = tensors["output.patch_tokens"].shape[1]
    found = {
        "cls": output.emotion_features,
        "scene": output.scene_features,
        "object": output.object_features,
        "patch_tokens": output.hidden_states[-1][:, 1 : 1 + patches],
    }
    for name, features in found.items():
        torch.testing.assert_close(features, tensors[f"output.{name}"], atol=TOLERANCE, rtol=0, msg=name)


@pytest.mark.parametrize(("kind", "missing"), [("scene", 1), ("object", 3)])
def test_contrastive_losses_are_the_released_ones(golden, model, text_model, kind, missing):
    tensors = golden[0]
    with torch.no_grad():
        features = getattr(model(tensors["input.pixel_values"]), f"{kind}_features")
        images = getattr(model, f"{kind}_projection")(features)
        texts = text_model(tensors[f"input.{kind}_input_ids"]).text_embeds
        scale = getattr(model, f"{kind}_logit_scale")
        valid = torch.arange(len(images)) != missing
        logits = scale.exp() * cosine_logits(images, texts)
        loss = released_contrastive_loss(images, texts, scale, valid)
    torch.testing.assert_close(logits, tensors[f"output.logits_{kind}"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(loss, tensors[f"output.loss_{kind}_missing{missing}"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["scene", "object"])
def test_the_models_released_form_is_the_released_loss(golden, chain, model, text_model, kind):
    """The same loss through the model's own labels, vocabulary and missing text."""
    tensors, missing = golden[0], {"scene": 1, "object": 3}[kind]
    with torch.no_grad():
        texts = text_model(tensors[f"input.{kind}_input_ids"]).text_embeds
    names, width = [str(index) for index in range(len(texts))], texts.shape[1]
    other = UniEmoUnderstandingModel(UniEmoConfig(**chain.config, contrastive="released")).eval()
    other.load_state_dict(model.state_dict())
    other.set_vocabulary(names, names, texts, texts, texts[missing], texts[missing])
    assert other.config.projection_dim == width
    labels = torch.arange(len(texts)).masked_fill(torch.arange(len(texts)) == missing, -100)
    multi_hot = labels[:, None] == torch.arange(len(texts))
    with torch.no_grad():
        output = other(tensors["input.pixel_values"], scene_labels=labels, object_labels=multi_hot)
    found = getattr(output, f"{kind}_loss")
    torch.testing.assert_close(found, tensors[f"output.loss_{kind}_missing{missing}"], atol=TOLERANCE, rtol=0)


def test_unequal_temperatures_go_where_they_belong(released):
    changed = dict(released, logit_scale=torch.tensor(1.0), logit_scale_object=torch.tensor(2.0))
    changed |= {"logit_scale_last": torch.tensor(3.0), "logit_scale_object_last": torch.tensor(4.0)}
    ours = convert_chain(changed).state_dict
    assert (ours["scene_logit_scale"].item(), ours["object_logit_scale"].item()) == (1.0, 2.0)


def test_another_models_weights_are_refused_with_all_missing_names():
    with pytest.raises(ValueError, match=r"missing visual\.class_embedding, visual\.conv1\.weight, .*text_projection"):
        convert_chain({"weight": torch.zeros(1)})
