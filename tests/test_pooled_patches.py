"""The rival without expert queries, through both stages on sixteen pictures and tiny models."""

import json

import pytest
import torch
from safetensors.torch import load_file
from training_world import SIZE, records, stage1, stage2, write_world
from transformers import CLIPModel

from training import train_joint, train_understanding
from training.pooled_patches import EXPERT_PARTS, PooledPatchesModel, load_trained
from training.train_understanding import UnderstandingArguments
from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel
from uniemo_pipelines.understanding_uniemo import load_understanding


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The world, and in it the folder of a stage-1 run with pooled patches."""
    world = write_world(tmp_path_factory.mktemp("world"))
    train_understanding.main(*stage1(world, world / "pooled", pooled_patches=True))
    return world


@pytest.fixture(scope="module")
def joint(world):
    """The folder of a stage-2 run that goes on from it."""
    train_joint.main(*stage2(world, world / "pooled", world / "adapter"))
    return world / "adapter"


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def fresh(world, **changes) -> UniEmoUnderstandingModel:
    data, arguments, _ = stage1(world, world / "unused", **changes)
    torch.manual_seed(0)
    return train_understanding.build_model(arguments, train_understanding.open_vocabulary(data)).eval()


def test_features_are_means_over_the_patches_of_stock_clip_at_the_two_depths(world):
    tower = CLIPModel.from_pretrained(world / "clip").eval().vision_model
    with torch.no_grad():
        found = fresh(world, pooled_patches=True)(pixels(), output_hidden_states=True)
        expected = tower(pixels(), output_hidden_states=True)
    _, first, second, last = expected.hidden_states
    torch.testing.assert_close(found.scene_features, (first.sum(1) - first[:, 0]) / 4)  # 2 x 2 patches
    torch.testing.assert_close(found.object_features, (second.sum(1) - second[:, 0]) / 4)
    torch.testing.assert_close(found.emotion_features, expected.pooler_output)
    torch.testing.assert_close(found.hidden_states[-1], last)


def test_what_is_shared_with_the_chain_starts_alike(world):
    rival, chain = fresh(world, pooled_patches=True).state_dict(), fresh(world).state_dict()
    assert all(torch.equal(chain[name], value) for name, value in rival.items())
    assert {name.partition(".")[0] for name in chain.keys() - rival.keys()} == set(EXPERT_PARTS)


def test_each_loss_reaches_the_tower_as_deep_as_its_feature_lies(world):
    model = fresh(world, pooled_patches=True)
    objects = torch.eye(2, 4)
    output = model(pixels(), labels=torch.tensor([1, 2]), scene_labels=torch.tensor([0, 1]), object_labels=objects)
    for part, depth in (("scene", 1), ("object", 2), ("emotion", 3)):
        model.zero_grad()
        getattr(output, f"{part}_loss").backward(retain_graph=True)
        layers = model.vision_model.encoder.layers
        reached = [layer.mlp.fc1.weight.grad is not None and layer.mlp.fc1.weight.grad.any() for layer in layers]
        assert reached == [index < depth for index in range(3)]
        own = model.classifier[0] if part == "emotion" else getattr(model, f"{part}_projection")
        assert own.weight.grad.any()


def test_stage_one_trains_tower_head_and_projections(world):
    before, after = fresh(world, pooled_patches=True), load_trained(world / "pooled")
    for name in ("vision_model.encoder.layers.0.mlp.fc1", "classifier.0", "scene_projection", "object_projection"):
        assert not torch.equal(before.get_submodule(name).weight, after.get_submodule(name).weight), name
    assert len(records(world / "pooled", "scene")) == 4


def test_a_folder_is_loaded_by_the_class_that_wrote_it(world, tmp_path):
    model = load_trained(world / "pooled").eval()
    assert type(model) is PooledPatchesModel and model.config.scenes
    model.save_pretrained(tmp_path / "again")
    again, info = PooledPatchesModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        a, b = model(pixels()), again.eval()(pixels())
    for name in ("logits", "scene_features", "object_features"):
        assert torch.equal(a[name], b[name])
    fresh(world).save_pretrained(tmp_path / "chain")
    assert type(load_trained(str(tmp_path / "chain"))) is UniEmoUnderstandingModel
    with pytest.raises(ValueError, match="missing: object_interaction"):
        load_understanding(world / "pooled")


def test_stage_two_trains_mappers_and_linear_heads_alone(world, joint):
    before = load_trained(world / "pooled").state_dict()
    after = load_trained(joint / "understanding").state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    first, last = (load_file(joint / f"checkpoint-{step}" / "model.safetensors") for step in (8, 12))
    mappers = {f"fusion.mappers.0.{kind}.{layer}" for kind in ("emotion", "scene", "object") for layer in (0, 2)}
    assert {name.rpartition(".")[0] for name in last} == mappers | {"scene_head", "object_head"}
    assert all(not torch.equal(first[name], last[name]) for name in last), "every one of them moves"


def test_the_adapter_generates(world, joint):
    pipe = UniEmoPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    pipe.load_uniemo(joint)
    images = [
        pipe(emotion=emotion, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
        for emotion in ("awe", "fear")
    ]
    assert images[0].size == (SIZE, SIZE) and images[0].tobytes() != images[1].tobytes()


def test_the_cards_say_that_it_is_a_rival_and_show_what_runs(world, joint):
    card, adapter = ((folder / "README.md").read_text() for folder in (world / "pooled", joint))
    assert "without the expert queries" in card and "from training.pooled_patches import PooledPatchesModel" in card
    assert "| pooled_patches | `True` |" in card
    assert "means over patch tokens" in adapter and "understand(" not in adapter


def test_stage_one_goes_on_from_it(world, tmp_path):
    train_understanding.main(*stage1(world, tmp_path / "run", start=str(world / "pooled"), num_train_epochs=1))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architectures"] == ["PooledPatchesModel"]


@pytest.mark.parametrize("other", [{"start": "earlier"}, {"lora_rank": 2}])
def test_options_that_do_not_go_with_it_are_refused(other):
    with pytest.raises(ValueError, match=f"--pooled_patches.*leave it out, or --{next(iter(other))}"):
        UnderstandingArguments(clip="clip", pooled_patches=True, **other)
