"""Released key names to ours and back, held against the outputs of the released code."""

import json
from pathlib import Path

import pytest
import released as released_files
import torch
from safetensors import safe_open
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from typer.testing import CliRunner

from uniemo_pipelines.cli import app
from uniemo_pipelines.conversion import UNUSED, convert_checkpoint, release_checkpoint
from uniemo_pipelines.modeling_uniemo import (
    UniEmoConfig,
    UniEmoUnderstandingModel,
    cosine_logits,
    released_contrastive_loss,
)

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "golden" / "understanding_chain.safetensors"
TOLERANCE = 3e-5
TEMPERATURES = {"logit_scale": 1.0, "logit_scale_object": 2.0, "logit_scale_last": 3.0, "logit_scale_object_last": 0.5}
WITHOUT_LABEL = {"scene": 1, "object": 3}


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN.name} is not here")
    with safe_open(GOLDEN, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        sizes = json.loads(file.metadata()["config"])
    return tensors, sizes


@pytest.fixture(scope="module")
def chain(golden):
    prefix = "weights."
    return {key.removeprefix(prefix): value for key, value in golden[0].items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def head(golden):
    """The golden chain comes without one."""
    width = golden[1]["vision_width"]
    torch.manual_seed(0)
    head = {"fc0.weight": torch.randn(96, width), "fc0.bias": torch.randn(96)}
    return head | {"fc1.weight": torch.randn(8, 96), "fc1.bias": torch.randn(8)}


@pytest.fixture(scope="module")
def converted(chain, head):
    return convert_checkpoint(chain, head)


def convert_and_load(folder: Path, **content) -> UniEmoUnderstandingModel:
    """By way of `uniemo convert`."""
    torch.save(content, folder / "best.pth")
    result = CliRunner().invoke(app, ["convert", str(folder / "best.pth"), "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return UniEmoUnderstandingModel.from_pretrained(folder / "out").eval()


@pytest.fixture(scope="module")
def model(chain, head, tmp_path_factory):
    return convert_and_load(tmp_path_factory.mktemp("golden"), model=chain, Emo_classifier=head)


@pytest.fixture(scope="module")
def text_model(converted):
    model = CLIPTextModelWithProjection(CLIPTextConfig(**converted.text_config)).eval()
    model.load_state_dict(converted.text_state_dict)
    return model


def test_sizes_come_from_the_tensors(golden, converted):
    sizes, vision, text = golden[1], converted.config["vision_config"], converted.text_config
    assert vision["num_hidden_layers"] == sizes["vision_layers"]
    assert vision["hidden_size"] == sizes["vision_width"]
    assert vision["num_attention_heads"] == sizes["vision_width"] // 64
    assert vision["image_size"] == sizes["image_resolution"]
    assert vision["patch_size"] == sizes["vision_patch_size"]
    assert converted.config["projection_dim"] == sizes["embed_dim"]
    assert converted.config["num_scene_queries"] == converted.config["num_object_queries"] == sizes["query_len"]
    assert converted.config["classifier_hidden"] == 96
    assert text["num_hidden_layers"] == sizes["transformer_layers"]
    assert text["max_position_embeddings"] == sizes["context_length"]
    assert text["vocab_size"] == sizes["vocab_size"]


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


def test_the_head_reads_the_emotion_feature(golden, model, head):
    with torch.no_grad():
        logits = model(golden[0]["input.pixel_values"]).logits
    hidden = functional.relu(functional.linear(golden[0]["output.cls"], head["fc0.weight"], head["fc0.bias"]))
    torch.testing.assert_close(
        logits, functional.linear(hidden, head["fc1.weight"], head["fc1.bias"]), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize(("kind", "missing"), WITHOUT_LABEL.items())
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


def own_loss(model, text_model, tensors, kind: str) -> torch.Tensor:
    """The model's loss in the released form, through its own labels, vocabulary and missing text."""
    missing = WITHOUT_LABEL[kind]
    with torch.no_grad():
        texts = text_model(tensors[f"input.{kind}_input_ids"]).text_embeds
    names = [str(index) for index in range(len(texts))]
    other = UniEmoUnderstandingModel(UniEmoConfig(**model.config.to_dict() | {"contrastive": "released"})).eval()
    other.load_state_dict(model.state_dict())
    other.set_vocabulary(names, names, texts, texts, texts[missing], texts[missing])
    labels = torch.arange(len(texts)).masked_fill(torch.arange(len(texts)) == missing, -100)
    multi_hot = labels[:, None] == torch.arange(len(texts))
    with torch.no_grad():
        output = other(tensors["input.pixel_values"], scene_labels=labels, object_labels=multi_hot)
    return getattr(output, f"{kind}_loss")


@pytest.mark.parametrize("kind", ["scene", "object"])
def test_the_models_released_form_is_the_released_loss(golden, model, text_model, kind):
    expected = golden[0][f"output.loss_{kind}_missing{WITHOUT_LABEL[kind]}"]
    torch.testing.assert_close(own_loss(model, text_model, golden[0], kind), expected, atol=TOLERANCE, rtol=0)


def loss_at(tensors, chain, kind: str, temperature: float) -> torch.Tensor:
    """The golden loss, had the released code had another temperature."""
    logits = tensors[f"output.logits_{kind}"] * (temperature - chain["logit_scale"]).exp()
    own = torch.arange(len(logits)).masked_fill(torch.arange(len(logits)) == WITHOUT_LABEL[kind], -100)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def test_each_temperature_drives_its_own_loss(golden, chain, head, text_model, tmp_path):
    """In the golden sample all four are equal, so that it cannot tell."""
    assert len({chain[key].item() for key in TEMPERATURES}) == 1
    other = chain | {key: torch.tensor(value) for key, value in TEMPERATURES.items()}
    model = convert_and_load(tmp_path, model=other, Emo_classifier=head)
    for kind, key in (("scene", "logit_scale"), ("object", "logit_scale_object")):
        found = own_loss(model, text_model, golden[0], kind)
        expected = {name: loss_at(golden[0], chain, kind, value) for name, value in TEMPERATURES.items()}
        torch.testing.assert_close(found, expected.pop(key), atol=TOLERANCE, rtol=0)
        assert all((found - swapped).abs() > 10 * TOLERANCE for swapped in expected.values())


def test_there_and_back_is_the_same_to_the_bit(chain, head, converted):
    back = release_checkpoint(converted.state_dict | converted.text_state_dict)
    unused = {key for keys in UNUSED.values() for key in keys}
    assert back["model"].keys() == chain.keys() - unused
    assert back["Emo_classifier"].keys() == head.keys()
    for part, original in (("model", chain), ("Emo_classifier", head)):
        assert all(torch.equal(tensor, original[key]) for key, tensor in back[part].items())


def test_a_models_own_state_dict_is_released_without_the_text_tower(model, chain):
    back = release_checkpoint(model.state_dict())["model"]
    assert all(torch.equal(tensor, chain[key]) for key, tensor in back.items())
    assert {key for key in chain if key.startswith("visual.transformer.resblocks.")} < back.keys()
    assert not any(key.startswith(("transformer.", "token_embedding.", "ln_final.")) for key in back)


def test_prefixes_of_distributed_runs_are_dropped():
    content = released_files.checkpoint()
    plain = convert_checkpoint(content["model"], content["Emo_classifier"])
    prefixed = [{f"module.{key}": t for key, t in content[part].items()} for part in ("model", "Emo_classifier")]
    other = convert_checkpoint(*prefixed)
    assert other.config == plain.config
    assert all(torch.equal(other.state_dict[key], tensor) for key, tensor in plain.state_dict.items())


def test_all_faults_are_listed():
    content = released_files.checkpoint()
    chain, head = content["model"], content["Emo_classifier"]
    width = released_files.WIDTH
    missing = ["visual.conv1.weight", "visual.transformer.resblocks.1.attn.in_proj_bias", "text_projection"]
    missing += [key for key in chain if key.startswith("visual.transformer.resblocks.0.")]
    unknown = {"visual.extra": torch.zeros(1), "visual.transformer.resblocks.77.ln_1.weight": torch.zeros(width)}
    misshapen = {
        "visual.class_embedding": torch.zeros(width + 1),
        "visual.positional_embedding": chain["visual.positional_embedding"][1:],
        "visual.proj": torch.zeros(width),
        "logit_scale": torch.zeros(1),
        "token_embedding.weight": chain["token_embedding.weight"].T,
    }
    chain = {key: tensor for key, tensor in chain.items() if key not in missing} | unknown | misshapen
    head = head | {"fc1.weight": head["fc1.weight"][:7], "fc1.bias": head["fc1.bias"][:7]}
    with pytest.raises(ValueError) as caught:
        convert_checkpoint(chain, head, "best.pth")
    message = str(caught.value)
    expected = {f"missing {key}" for key in missing} | {f"unknown {key}" for key in unknown}
    expected |= {f"{key} of shape {tuple(tensor.shape)} instead of" for key, tensor in misshapen.items()}
    expected |= {f"Emo_classifier.fc1.{kind} of shape" for kind in ("weight", "bias")}
    assert message.startswith("best.pth: ")
    assert not [fault for fault in expected if fault not in message]
    assert f"found {len(expected)} faults" in message and message.count(";") == len(expected) - 1


def test_another_models_weights_are_refused_with_all_missing_names():
    with pytest.raises(
        ValueError, match=r"visual\.class_embedding.*logit_scale_object.*text_projection.*unknown weight"
    ):
        convert_checkpoint({"weight": torch.zeros(1)}, {})


def test_towers_without_layers_miss_them():
    content = released_files.checkpoint()
    chain = {key: tensor for key, tensor in content["model"].items() if "resblocks" not in key}
    with pytest.raises(
        ValueError, match=r"missing visual\.transformer\.resblocks\.0.*missing transformer\.resblocks\.0"
    ):
        convert_checkpoint(chain, content["Emo_classifier"])


def test_heads_and_activation_can_be_given():
    content = released_files.checkpoint()
    converted = convert_checkpoint(content["model"], content["Emo_classifier"], heads=4, activation="gelu")
    assert converted.config["vision_config"]["num_attention_heads"] == 4
    assert converted.config["vision_config"]["hidden_act"] == converted.text_config["hidden_act"] == "gelu"
    with pytest.raises(ValueError, match="3 heads"):
        convert_checkpoint(content["model"], content["Emo_classifier"], heads=3)
