"""LoRA on the understanding model: trained, saved, loaded, switched, disabled and merged as PEFT's users do."""

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from torch import nn

from tests.test_understanding import make_batch, make_model
from uniemo_pipelines.modeling_uniemo import TRAINED_WHOLE, UniEmoConfig, UniEmoUnderstandingModel

MODEL = UniEmoUnderstandingModel


@pytest.fixture
def batch():
    return make_batch()


def trained(seed: int, name: str = "first", rank: int = 2) -> MODEL:
    """A model with an adapter whose weights have moved."""
    model = make_model()
    model.add_adapter(MODEL.lora_config(rank), name)
    move(model, seed, name)
    return model


def move(model: nn.Module, seed: int, adapter: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f".{adapter}." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.eval()(batch["pixel_values"]).logits


def assert_differ(one: torch.Tensor, other: torch.Tensor) -> None:
    assert (one - other).abs().max() > 1e-3


def test_lora_on_the_tower_alone_and_everything_of_ours_whole(batch):
    model = make_model(classifier_dropout=0.0)
    model.add_adapter(MODEL.lora_config(2))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    lora = [name for name in names if "lora_" in name]
    assert len(lora) == 6 * 6 * 2 and all(name.startswith("vision_model.encoder.layers.") for name in lora)
    assert {name.split(".")[0] for name in names if name not in lora} == set(TRAINED_WHOLE)
    model(**batch).loss.backward()
    # B starts at zero, so that A's gradient is zero at the first step.
    dead = [n for n in names if "lora_A" not in n and "k_proj" not in n and not model.get_parameter(n).grad.any()]
    assert dead == []


def test_a_saved_adapter_makes_the_same_model_under_another_name(batch, tmp_path):
    model = trained(1)
    assert_differ(logits(model, batch), logits(make_model(), batch))
    model.save_pretrained(tmp_path)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "model.safetensors").exists()
    loaded = make_model()
    loaded.load_adapter(tmp_path, adapter_name="second")
    assert loaded.active_adapters() == ["second"]
    torch.testing.assert_close(logits(loaded, batch), logits(model, batch))
    assert torch.equal(loaded.scene_text_features, model.scene_text_features), "the vocabulary stays"


def test_switching_disabling_and_enabling(batch):
    model, base = trained(1), logits(make_model(), batch)
    first = logits(model, batch)
    model.add_adapter(MODEL.lora_config(3), "second")
    move(model, 2, "second")
    second = logits(model, batch)
    assert_differ(first, second)
    model.set_adapter("first")
    torch.testing.assert_close(logits(model, batch), first)
    model.disable_adapters()
    torch.testing.assert_close(logits(model, batch), base)
    model.enable_adapters()
    torch.testing.assert_close(logits(model, batch), first)
    model.delete_adapter("first")
    model.set_adapter("second")
    torch.testing.assert_close(logits(model, batch), second)
    with pytest.raises(ValueError, match="one adapter.*merge_adapter"):
        model.set_adapter(["first", "second"])


def test_merged_it_is_a_plain_model(batch, tmp_path):
    model = trained(1)
    expected = logits(model, batch)
    model.merge_adapter()
    torch.testing.assert_close(logits(model, batch), expected)
    assert model.state_dict().keys() == make_model().state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(MODEL.from_pretrained(tmp_path), batch), expected)
    with pytest.raises(ValueError, match="No adapter"):
        model.merge_adapter()


def test_pefts_own_wrapper_takes_it_as_well(batch, tmp_path):
    wrapped = get_peft_model(make_model(), MODEL.lora_config(2))
    move(wrapped, 1, "default")
    expected = logits(wrapped, batch)
    wrapped.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path)
    torch.testing.assert_close(logits(loaded, batch), expected)
    torch.testing.assert_close(logits(loaded.merge_and_unload(), batch), expected)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"vision": {"num_hidden_layers": 4}}, "unknown: .*layers.5.mlp.fc1.lora_A"),
        ({"vision": {"num_hidden_layers": 7}}, "missing: .*layers.6.mlp.fc1.lora_A"),
        ({"vision": {"hidden_size": 64}}, r"misshapen: classifier.*\(24, 32\), not \(24, 64\).*scene_queries"),
        ({"num_scene_queries": 4}, r"misshapen: scene_queries.*\(3, 32\), not \(4, 32\)\.$"),
    ],
)
def test_an_adapter_for_another_model_is_refused_and_taken_out(batch, tmp_path, other, named):
    trained(1).save_pretrained(tmp_path)
    model = make_model(**other)
    before = logits(model, batch)
    with pytest.raises(ValueError, match=f"trained for another. {named}"):
        model.load_adapter(tmp_path)
    torch.testing.assert_close(logits(model, batch), before)


def test_an_adapter_of_vit_l_14_is_under_75_megabytes_in_half_precision():
    with torch.device("meta"):
        model = MODEL(UniEmoConfig())
        model.add_adapter(MODEL.lora_config(16))
    tensors = get_peft_model_state_dict(model, adapter_name="default")
    assert 60e6 < 2 * sum(tensor.numel() for tensor in tensors.values()) < 75e6


def test_the_last_layer_reads_through_its_lora(batch):
    """Its trimmed path must not go round the adapted projections."""
    model = trained(1)
    whole = model.eval()(batch["pixel_values"], output_hidden_states=True).logits
    torch.testing.assert_close(logits(model, batch), whole)
