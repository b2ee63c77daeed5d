"""The understanding model as its users meet it: losses, training, saving, explaining, loading by transformers."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    CLIPImageProcessorPil,
    pipeline,
)

from uniemo_pipelines import modeling_uniemo
from uniemo_pipelines.modeling_uniemo import (
    EMOTIONS,
    UniEmoConfig,
    UniEmoUnderstandingModel,
    multi_positive_contrastive_loss,
    released_contrastive_loss,
)

WIDTH, PROJECTION, PATCHES = 32, 16, 4
VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "projection_dim": PROJECTION,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
SIZES = {"num_scene_queries": 3, "num_object_queries": 5, "projection_dim": PROJECTION, "classifier_hidden": 24}
SCENES = ["beach", "bakery/shop", "forest"]
OBJECTS = ["Alarm clock", "tree", "dog", "carousel"]


def make_model(vision=None, **config) -> UniEmoUnderstandingModel:
    torch.manual_seed(0)
    config = {**SIZES, **config}
    model = UniEmoUnderstandingModel(UniEmoConfig(vision_config={**VISION, **(vision or {})}, **config)).eval()
    texts = torch.randn(len(SCENES) + len(OBJECTS) + 2, PROJECTION)
    scene_texts, object_texts, missing = texts.split([len(SCENES), len(OBJECTS), 2])
    model.set_vocabulary(SCENES, OBJECTS, scene_texts, object_texts, *missing)
    return model


def make_batch(size: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(size, 3, 16, 16, generator=generator),
        "labels": torch.tensor([0, 3, 7, 1])[:size],
        "scene_labels": torch.tensor([0, 0, -100, 2])[:size],
        "object_labels": torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])[:size].float(),
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


# Losses


def angle(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_multi_positive_loss_by_hand():
    """Two images of one name are no negatives of each other, an image with two names counts both."""
    images, texts = angle(0, 10, 80), angle(0, 90, 180)
    positives = torch.tensor([[True, False, False], [True, True, False], [False, False, False]])
    candidates = torch.tensor([True, True, False])
    scale = 2.0
    cosines = [[math.cos(math.radians(i - t)) for t in (0, 90)] for i in (0, 10, 80)]
    e = [[math.exp(scale * c) for c in row] for row in cosines]
    first = -math.log(e[0][0] / sum(e[0]))
    second = -(math.log(e[1][0] / sum(e[1])) + math.log(e[1][1] / sum(e[1]))) / 2
    of_first_text = [row[0] for row in e]
    of_second_text = [row[1] for row in e]
    beach = -(math.log(e[0][0] / sum(of_first_text)) + math.log(e[1][0] / sum(of_first_text))) / 2
    shop = -math.log(e[1][1] / sum(of_second_text))
    expected = ((first + second) / 2 + (beach + shop) / 2) / 2

    loss = multi_positive_contrastive_loss(images, texts, torch.tensor(math.log(scale)), positives, candidates)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_multi_positive_form_is_the_default_and_differs_for_repeated_names(batch):
    assert UniEmoConfig(vision_config=VISION).contrastive == "multi_positive"
    ours, released = make_model()(**batch), make_model(contrastive="released")(**batch)
    assert not torch.isclose(ours.scene_loss, released.scene_loss, rtol=1e-3)
    assert not torch.isclose(ours.object_loss, released.object_loss, rtol=1e-3)
    # Where every image has a name of its own and one has none, both are the same.
    batch["scene_labels"] = torch.tensor([0, 1, -100, 2])
    batch["object_labels"] = F.one_hot(torch.tensor([0, 1, 2, 3]), 4) * torch.tensor([1, 1, 0, 1])[:, None]
    ours, released = make_model()(**batch), make_model(contrastive="released")(**batch)
    torch.testing.assert_close(ours.scene_loss, released.scene_loss)
    torch.testing.assert_close(ours.object_loss, released.object_loss)


def test_every_object_of_an_image_counts(model, batch):
    both = model(**batch).object_loss
    for dropped in (0, 1):
        fewer = batch["object_labels"].clone()
        fewer[0, dropped] = 0
        assert not torch.isclose(model(**{**batch, "object_labels": fewer}).object_loss, both)


def test_released_form_uses_the_last_object_only(batch):
    model = make_model(contrastive="released")
    last = batch["object_labels"].clone()
    last[0, 0] = last[3, 2] = 0
    torch.testing.assert_close(model(**{**batch, "object_labels": last}).object_loss, model(**batch).object_loss)


def test_loss_is_the_weighted_sum_of_what_has_labels(model, batch):
    output = model(**batch)
    emotion = F.cross_entropy(output.logits, batch["labels"])
    torch.testing.assert_close(output.emotion_loss, emotion)
    expected = 0.9 * emotion + 0.05 * output.scene_loss + 0.05 * output.object_loss
    torch.testing.assert_close(output.loss, expected)

    emotion_only = model(pixel_values=batch["pixel_values"], labels=batch["labels"])
    torch.testing.assert_close(emotion_only.loss, 0.9 * emotion)
    assert emotion_only.scene_loss is None

    soft = torch.rand(len(batch["labels"]), 8).softmax(-1)
    expected = -(soft * output.logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(model(**{**batch, "labels": soft}).emotion_loss, expected)
    assert model(batch["pixel_values"]).loss is None


@pytest.mark.parametrize("form", ["multi_positive", "released"])
def test_a_batch_without_any_attribute_gives_zero_and_no_nan(batch, form):
    model = make_model(contrastive=form)
    batch["scene_labels"] = torch.full((4,), -100)
    batch["object_labels"] = torch.zeros(4, len(OBJECTS))
    output = model(**batch)
    assert output.scene_loss.item() == output.object_loss.item() == 0
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_multi_positive_loss_without_candidates_has_finite_gradients():
    images = torch.randn(2, 3, requires_grad=True)
    none = torch.zeros(2, 2, dtype=torch.bool)
    loss = multi_positive_contrastive_loss(images, torch.randn(2, 3), torch.tensor(1.0), none, none.any(0))
    loss.backward()
    assert loss.item() == 0 and images.grad.abs().max() == 0


def test_losses_are_computed_in_full_precision_under_autocast():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(4, 64, generator=generator), torch.randn(4, 64, generator=generator)
    scale, every, own = torch.tensor(100.0).log(), torch.ones(4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)

    def losses():
        released = released_contrastive_loss(images, texts, scale, every)
        return torch.stack([released, multi_positive_contrastive_loss(images, texts, scale, own, every)])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses()
    torch.testing.assert_close(found, losses(), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_losses(batch, dtype):
    batch["pixel_values"] = batch["pixel_values"].to(dtype)
    output = make_model().to(dtype)(**batch)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == output.scene_loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, make_model()(**make_batch()).loss, atol=0.05, rtol=0.05)


def test_gradients_reach_everything_that_is_trained(batch):
    model = make_model().train()
    model(**batch).loss.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Softmax does not see a constant on all its keys, so the gradient of the key bias is rounding or zero.
    assert [name for name in dead if "k_proj.bias" not in name] == []
    for name in ("scene_queries.weight", "object_queries.weight"):
        assert model.get_parameter(name).grad.any(dim=1).all(), "every query of a kind is trained"


@pytest.mark.parametrize("kind", ["scene", "object"])
def test_each_kind_learns_from_its_own_loss(batch, kind):
    model = make_model()
    getattr(model(**batch), f"{kind}_loss").backward()
    names = (f"{kind}_queries.weight", f"{kind}_interaction.fc2.weight", f"{kind}_projection.weight")
    for name in (*names, f"{kind}_interaction.attention.q_proj.weight", f"{kind}_logit_scale"):
        assert model.get_parameter(name).grad.any(), name


# The chain


def test_the_chain_is_the_papers(model, pixels):
    """Written out step by step, with transformers' own layers."""
    tower, (first, second, third) = model.vision_model, model.config.stages
    visual = tower.pre_layrnorm(tower.embeddings(pixels))
    scenes = model.scene_queries.weight.expand(len(pixels), -1, -1)
    objects = model.object_queries.weight.expand(len(pixels), -1, -1)
    n = visual.shape[1]

    def run(stage, tokens):
        for index in stage:
            tokens = tower.encoder.layers[index](tokens, None)
        return tokens

    def interact(block, queries, visual):
        q, v = block.query_norm(queries), block.visual_norm(visual)
        heads = [
            part.unflatten(-1, (2, -1)).transpose(1, 2)
            for part in (block.attention.q_proj(q), block.attention.k_proj(v), block.attention.v_proj(v))
        ]
        queries = queries + block.attention.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        hidden = block.fc1(block.mlp_norm(queries))
        return queries + block.fc2(hidden * torch.sigmoid(1.702 * hidden))

    tokens = run(first, torch.cat([visual, scenes], 1))
    scenes = interact(model.scene_interaction, tokens[:, n:], tokens[:, :n])
    tokens = run(second, torch.cat([tokens[:, :n], scenes, objects], 1))
    updated = interact(model.object_interaction, tokens[:, n + 3 :], tokens[:, :n])
    tokens = run(third, torch.cat([tokens[:, : n + 3], updated], 1))

    output = model(pixels)
    torch.testing.assert_close(output.scene_features, scenes.mean(1))
    torch.testing.assert_close(output.object_features, updated.mean(1))
    torch.testing.assert_close(output.emotion_features, tower.post_layernorm(tokens[:, 0]))
    torch.testing.assert_close(output.logits, model.classifier(output.emotion_features))
    assert output.logits.shape == (4, 8)


@pytest.mark.parametrize(
    ("layers", "boundaries", "lengths"),
    [(24, None, [8, 8, 8]), (12, None, [4, 4, 4]), (4, None, [1, 1, 2]), (5, None, [1, 2, 2]), (7, [1, 6], [1, 5, 1])],
)
def test_stages_of_any_depth(layers, boundaries, lengths):
    vision = {**VISION, "num_hidden_layers": layers}
    config = UniEmoConfig(vision_config=vision, stage_boundaries=boundaries)
    assert [len(stage) for stage in config.stages] == lengths
    assert [index for stage in config.stages for index in stage] == list(range(layers))


def test_stage_boundaries_decide_where_the_blocks_run(pixels):
    model = make_model(vision={"num_hidden_layers": 5}, stage_boundaries=(1, 4))
    hidden = model(pixels, output_hidden_states=True).hidden_states
    # The input of the first layer and one output a layer; object queries join at the second stage's first layer.
    assert [h.shape[1] - 1 - PATCHES for h in hidden] == [3, 3, 8, 8, 8, 8]


def test_eager_equals_sdpa(model, batch):
    model.set_attn_implementation("sdpa")
    fused = model(**batch)
    model.set_attn_implementation("eager")
    written_out = model(**batch)
    for name in ("loss", "logits", "emotion_features", "scene_features", "object_features"):
        torch.testing.assert_close(fused[name], written_out[name], msg=name)


def test_gradient_checkpointing_changes_nothing(batch):
    plain, checkpointed = make_model(classifier_dropout=0.0).train(), make_model(classifier_dropout=0.0).train()
    checkpointed.activation_checkpointing_enable()
    assert checkpointed.scene_interaction.gradient_checkpointing
    for model in (plain, checkpointed):
        model(**batch).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=0, rtol=0, msg=name)


def test_outputs_come_in_order_also_as_a_tuple(model, batch):
    output = model(**batch)
    expected = ["loss", "logits", "emotion_features", "scene_features", "object_features"]
    assert list(output.keys()) == [*expected, "emotion_loss", "scene_loss", "object_loss"]
    for one, other in zip(model(**batch, return_dict=False), output.to_tuple(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(model(batch["pixel_values"])[0], output.logits)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_query_attention_maps(model, pixels, implementation):
    model.set_attn_implementation(implementation)
    plain, output = model(pixels), model(pixels, output_attentions=True)
    assert plain.scene_attentions is None and plain.object_attentions is None
    assert output.scene_attentions.shape == (4, 2, 3, 1 + PATCHES)
    assert output.object_attentions.shape == (4, 2, 5, 1 + PATCHES)
    for maps in (output.scene_attentions, output.object_attentions):
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    torch.testing.assert_close(plain.logits, output.logits)
    assert len(output.attentions) == (6 if implementation == "eager" else 0)


def test_no_attention_map_is_computed_unasked(model, pixels, monkeypatch):
    monkeypatch.setattr(modeling_uniemo, "attention_weights", lambda *_: pytest.fail("computed a map"))
    model.set_attn_implementation("sdpa")
    model(pixels)


def test_the_last_layer_computes_only_what_is_read(model, batch):
    """The class token alone, unless its whole output is asked for; to the user it is the same."""
    rows = []
    hook = model.vision_model.encoder.layers[-1].register_forward_hook(lambda *seen: rows.append(seen[2].shape[1]))
    trimmed, whole = model(**batch), model(**batch, output_hidden_states=True)
    hook.remove()
    assert rows == [1, 1 + PATCHES + 3 + 5]
    torch.testing.assert_close(trimmed.emotion_features, whole.emotion_features)
    names, values = zip(*model.named_parameters(), strict=True)
    for name, *gradients in zip(
        names, *(torch.autograd.grad(out.loss, values) for out in (trimmed, whole)), strict=True
    ):
        torch.testing.assert_close(*gradients, msg=name)


def test_attention_maps_are_those_of_the_feature(pixels):
    """With the values made constant but at one token, a query's update shows that token's weight."""
    model = make_model()
    block = model.scene_interaction
    queries, visual = torch.randn(2, 3, WIDTH), torch.randn(2, 5, WIDTH)
    update, maps = block.attention(queries, visual, output_attentions=True)
    values = block.attention.v_proj(visual).unflatten(-1, (2, -1)).transpose(1, 2)
    torch.testing.assert_close(block.attention.out_proj((maps @ values).transpose(1, 2).flatten(2)), update)


def test_compiles_without_a_graph_break(model, batch):
    expected = model(**batch)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**batch).loss, expected.loss)
    torch.testing.assert_close(compiled(batch["pixel_values"]).logits, expected.logits)


def test_other_image_sizes_on_request(model):
    larger = torch.randn(1, 3, 24, 24)
    assert model(larger, interpolate_pos_encoding=True).logits.shape == (1, 8)
    with pytest.raises(ValueError, match="16"):
        model(larger)


# Vocabulary


def test_attribute_scores_are_cosines_in_the_aligned_space(model, pixels):
    output = model(pixels)
    scenes, objects = model.attribute_scores(output.scene_features, output.object_features)
    assert scenes.shape == (4, len(SCENES)) and objects.shape == (4, len(OBJECTS))
    expected = F.cosine_similarity(
        model.scene_projection(output.scene_features)[:, None], model.scene_text_features[None], dim=-1
    )
    torch.testing.assert_close(scenes, expected)
    assert objects.abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": ["a", "a", "b"]}, "scenes must be named once; repeated: a"),
        ({"scenes": ["a", "b"]}, r"scene_text_features of shape \(2, 16\).*found \(3, 16\)"),
        ({"object_text_features": torch.zeros(4, 8)}, r"object_text_features of shape \(4, 16\).*found \(4, 8\)"),
        ({"missing_scene_text": torch.full((16,), torch.nan)}, "finite missing_scene_text"),
    ],
)
def test_a_bad_vocabulary_is_refused_and_changes_nothing(model, change, message):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    vocabulary = {
        "scenes": ["a", "b", "c"],
        "objects": OBJECTS,
        "scene_text_features": torch.ones(3, PROJECTION),
        "object_text_features": torch.ones(4, PROJECTION),
        "missing_scene_text": torch.ones(PROJECTION),
        "missing_object_text": torch.ones(PROJECTION),
    }
    with pytest.raises(ValueError, match=message):
        model.set_vocabulary(**{**vocabulary, **change})
    assert model.config.scenes == SCENES
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_labels_of_no_or_another_vocabulary_are_refused(model, batch):
    bare = UniEmoUnderstandingModel(UniEmoConfig(vision_config=VISION, **SIZES))
    with pytest.raises(ValueError, match="need the scene vocabulary; the model has no names: call set_vocabulary"):
        bare(**batch)
    names_only = UniEmoUnderstandingModel(UniEmoConfig(vision_config=VISION, **SIZES, scenes=SCENES, objects=OBJECTS))
    with pytest.raises(ValueError, match="3 names without text features"):
        names_only(**batch)
    with pytest.raises(ValueError, match="from 0 to 2, for the model has 3 scenes; found labels from 0 to 253"):
        model(batch["pixel_values"], scene_labels=torch.tensor([0, 253, 1, 1]))
    with pytest.raises(ValueError, match=r"must be \(B, 4\), for the model has 4 objects; found \(4, 409\)"):
        model(batch["pixel_values"], object_labels=torch.zeros(4, 409))


# Configuration


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stage_boundaries": [2, 6]}, r"a < b from 1 to 5, for the vision tower has 6 layers; found \[2, 6\]"),
        ({"stage_boundaries": [4, 2]}, r"found \[4, 2\]"),
        ({"stage_boundaries": [0, 2]}, r"found \[0, 2\]"),
        ({"stage_boundaries": [2]}, r"found \[2\]"),
        ({"vision_config": {**VISION, "num_hidden_layers": 2}}, "at least 3 layers; found 2"),
        ({"num_scene_queries": 0}, "num_scene_queries must be at least 1; found 0"),
        ({"contrastive": "supcon"}, "one of .*found 'supcon'"),
    ],
)
def test_a_bad_configuration_is_refused_in_one_line(config, message):
    with pytest.raises(ValueError, match=message) as error:
        UniEmoConfig(**{"vision_config": VISION, **config})
    assert "\n" not in str(error.value)


def test_the_default_is_the_papers():
    config = UniEmoConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.vision_config.patch_size) == (1024, 24, 14)
    assert config.vision_config.hidden_act == "quick_gelu"
    assert tuple(config.id2label.values()) == EMOTIONS
    assert config.num_scene_queries == config.num_object_queries == 32


def test_initial_weights(pixels):
    model = UniEmoUnderstandingModel(UniEmoConfig(vision_config=VISION, num_scene_queries=400, num_object_queries=400))
    for queries in (model.scene_queries, model.object_queries):
        assert queries.weight.std().item() == pytest.approx(1, abs=0.05)
    assert model.scene_logit_scale.item() == pytest.approx(math.log(1 / 0.07), abs=1e-3)


# Saving and loading


def test_save_and_load_to_the_bit(model, pixels, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, info = UniEmoUnderstandingModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.config.scenes == SCENES and loaded.config.objects == OBJECTS
    for (name, one), other in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)
    assert list(tmp_path.glob("*.bin")) == []


def test_save_and_load_without_a_vocabulary(pixels, tmp_path):
    model = UniEmoUnderstandingModel(UniEmoConfig(vision_config=VISION, **SIZES)).eval()
    model.save_pretrained(tmp_path)
    loaded = UniEmoUnderstandingModel.from_pretrained(tmp_path)
    assert loaded.scene_text_features.shape == (0, PROJECTION)
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)


def test_missing_tensors_are_reported_and_start_as_they_should(model, tmp_path):
    """From a checkpoint without our parts, nothing is left as uninitialised memory."""
    ours = ("vision_model.",)
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if k.startswith(ours)})
    loaded, info = UniEmoUnderstandingModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {"scene_queries.weight", "scene_text_features", "object_logit_scale"} <= set(info["missing_keys"])
    assert not loaded.scene_text_features.any()
    assert loaded.object_logit_scale.item() == pytest.approx(2.6592)
    assert 0.5 < loaded.scene_queries.weight.std() < 1.5


def test_auto_classes_load_it(model, pixels, tmp_path):
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), UniEmoConfig)
    for auto in (AutoModel, AutoModelForImageClassification):
        assert torch.equal(auto.from_pretrained(tmp_path)(pixels).logits, model(pixels).logits)


def test_image_classification_pipeline(model, tmp_path):
    model.save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessorPil(**size).save_pretrained(tmp_path)
    image = Image.new("RGB", (40, 30), (200, 120, 40))
    scores = pipeline("image-classification", model=str(tmp_path), device="cpu")(image, top_k=8)
    assert {score["label"] for score in scores} == set(EMOTIONS)
    assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-5)


def test_a_saved_folder_loads_where_no_package_of_ours_is(model, pixels, tmp_path):
    """It carries its code, which imports nothing of ours; what is loaded so saves the same folder again."""
    model.save_pretrained(tmp_path / "model")
    torch.save({"pixels": pixels, "logits": model(pixels).logits}, tmp_path / "expected")
    script = """
import sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification
sys.modules["uniemo_pipelines"] = None  # not installed
expected = torch.load("expected")
for folder, auto in (("model", AutoModelForImageClassification), ("again", AutoModel)):
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "uniemo"
    loaded = auto.from_pretrained(folder, trust_remote_code=True)
    torch.testing.assert_close(loaded(expected["pixels"]).logits, expected["logits"])
    loaded.save_pretrained("again")
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    saved, again = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "again"))
    assert again["auto_map"] == saved["auto_map"] and len(saved["auto_map"]) == 3
    code = (tmp_path / "again" / "modeling_uniemo.py").read_text()
    assert code == Path(modeling_uniemo.__file__).read_text()
