"""The benchmark's stand-in for the released training recipe computes what ours computes, where it should."""

import copy

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTextConfig, CLIPVisionConfig

from benchmarks import training as benchmark
from benchmarks.released_recipe import ReleasedStage1, ReleasedStage2, with_texts
from training.joint_model import JointModel
from uniemo_pipelines.conversion import release_checkpoint
from uniemo_pipelines.fusion_uniemo import EMOTIONS, UniEmoFusionModel
from uniemo_pipelines.modeling_uniemo import UniEmoConfig

WIDTH, SIDE = 64, 32  # one attention head
SCENES = ["beach", "forest", "street", "stage"]
OBJECTS = ["balloon", "cat", "kite"]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def models() -> benchmark.Models:
    """Of one width, as the released retrieval needs it; without dropout, which differs between the two stages 2."""
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "intermediate_size": 128, "num_attention_heads": 1, "projection_dim": WIDTH}
    vision = CLIPVisionConfig(**shape, num_hidden_layers=3, image_size=SIDE, patch_size=8)
    config = UniEmoConfig(
        vision_config=vision,
        num_scene_queries=2,
        num_object_queries=3,
        projection_dim=WIDTH,
        classifier_hidden=WIDTH,
        classifier_dropout=0.0,
        contrastive="released",
        scenes=SCENES,
        objects=OBJECTS,
    )
    tokenizer = tiny.tokenizer()
    words = CLIPTextConfig(**shape, num_hidden_layers=2, vocab_size=len(tokenizer))
    found = benchmark.understanding_models(config, words, tokenizer)
    return benchmark.Models(*found, tokenizer, components, SIDE)


def components() -> dict:
    """The same at every call."""
    return {name: part for name, part in tiny.stable_diffusion(WIDTH).items() if name != "requires_safety_checker"}


@pytest.fixture
def base() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(**components(), requires_safety_checker=False)


@pytest.fixture
def joint(models) -> JointModel:
    """With the released retrieval: mapped features among all attributes, in one list on either side."""
    understanding = copy.deepcopy(models.understanding)
    fusion = UniEmoFusionModel(
        WIDTH, [WIDTH], WIDTH, retrieval="released", emotion_space="gaussian", bank_size=0, rank=0
    )
    names = [*SCENES, *OBJECTS]
    texts = torch.cat([understanding.scene_text_features, understanding.object_text_features])
    projection, coefficients = torch.eye(WIDTH), torch.rand(len(names), len(EMOTIONS))
    fusion.set_attribute_bases(names, names, texts, texts, projection, projection, coefficients, coefficients)
    pipeline = StableDiffusionPipeline(**components(), requires_safety_checker=False)
    return benchmark.joint_model(understanding, fusion, pipeline)


@pytest.fixture
def released(models, base, joint) -> ReleasedStage2:
    return ReleasedStage2(joint, models.text, models.tokenizer, base)


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


def assert_all_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        scale = value.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(found[name] / scale, value / scale, **TOLERANCE, msg=name)


# ---------------------------------------------------------------------------------------------------------- stage 1


def labelled(models, scenes: list[int], objects: list[list[int]]) -> dict:
    """Pictures with these labels; -100 and [] for none."""
    batch = benchmark.stage1_batch(models.understanding, len(scenes))
    multi_hot = torch.zeros(len(scenes), len(OBJECTS))
    for row, indexes in zip(multi_hot, objects, strict=True):
        row[indexes] = 1
    return with_texts(batch | {"scene_labels": torch.tensor(scenes), "object_labels": multi_hot}, SCENES, OBJECTS)


BATCHES = {
    "each name once": ([0, 1, 2], [[0], [1], [2]]),
    "repeated names": ([3, 3, 1], [[0], [0, 1], [1]]),
    "no names": ([-100, 2, -100], [[2], [], [0]]),
    "none at all": ([-100, -100, -100], [[], [], []]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_stage1_loss_and_gradients_are_ours_in_the_released_form(models, name):
    batch = labelled(models, *BATCHES[name])
    ours = copy.deepcopy(models.understanding).train()
    released = ReleasedStage1(ours, models.text, models.tokenizer)
    loss = ours(**{key: value for key, value in batch.items() if not key.endswith("_texts")}).loss
    torch.testing.assert_close(released.loss(batch), loss, **TOLERANCE)
    loss.backward()
    released.backward(batch)
    expected = release_checkpoint(gradients(ours))
    visual = {key: value for key, value in expected["model"].items() if key.startswith("visual.")}
    assert visual.keys() == {f"visual.{key}" for key in gradients(released.model.chain.visual)}
    assert_all_close(gradients(released.model.chain), visual)
    assert_all_close(gradients(released.model.head), expected["Emo_classifier"])


def test_several_objects_give_the_text_of_the_last(models):
    assert labelled(models, [0, -100], [[0, 2], []])["object_texts"] == ["kite", "object"]
    assert labelled(models, [2, -100], [[0], []])["scene_texts"] == ["street", "scene"]


# ---------------------------------------------------------------------------------------------------------- stage 2


def stage2_batch(joint: JointModel, base: StableDiffusionPipeline, seed: int) -> dict:
    """One picture, with the latents, noise and timestep that the released step draws after the same seed."""
    batch = benchmark.stage2_batch(joint, base, SIDE, 1)
    torch.manual_seed(seed)
    with torch.no_grad():
        latents = base.vae.encode(batch["pictures"]).latent_dist.sample() * base.vae.config.scaling_factor
    noise = torch.randn_like(latents)
    timesteps = torch.randint(joint.scheduler.config.num_train_timesteps, (1,))
    return batch | {"latents": latents, "noise": noise, "timesteps": timesteps}


def test_the_first_stage2_steps_gradients_are_ours(base, joint, released):
    batch = stage2_batch(joint, base, seed=1)
    joint(batch)["loss"].backward()
    torch.manual_seed(1)
    released.backward(batch)
    assert_all_close(gradients(released.mappers), gradients(joint.fusion.mappers[0]))
    assert_all_close(gradients(released.scene_head), gradients(joint.scene_head))
    assert_all_close(gradients(released.object_head), gradients(joint.object_head))
    queries = release_checkpoint(gradients(joint.understanding))["model"]
    assert len(queries) > 20
    assert_all_close(gradients(released.model.chain), queries)


def test_from_the_second_step_on_its_diffusion_term_counts_twice(base, joint, released):
    batch = stage2_batch(joint, base, seed=1)
    losses = joint(batch)
    twice = losses["loss"] + losses["diffusion"]
    twice.backward()
    for seed in (2, 1):  # its own gradient twice, not that of the step before
        released.optimizer.zero_grad()
        torch.manual_seed(seed)
        released.backward(batch)
    assert_all_close(gradients(released.mappers), gradients(joint.fusion.mappers[0]))


def test_stage2_keeps_gradients_that_nobody_uses(base, joint, released):
    """As the released code does, and the reason why it is slow; ours has none of them."""
    batch = stage2_batch(joint, base, seed=1)
    released(batch)
    unused = [*released.unet.parameters(), released.table, released.model.chain.visual.conv1.weight]
    assert all(parameter.grad is not None for parameter in unused)
    joint(batch)["loss"].backward()
    assert not gradients(joint.unet) and not gradients(joint.text_encoder) and not gradients(base.vae)


# ---------------------------------------------------------------------------------------------------- the benchmark


@pytest.mark.parametrize("stage", [benchmark.stage1, benchmark.stage2])
def test_every_step_changes_what_it_trains(models, stage):
    models = models._replace(understanding=copy.deepcopy(models.understanding))
    for (name, size), run in stage(models, [1, 2]).items():
        theirs = name == benchmark.RELEASED
        queries = run.func.model.chain.visual.visual_query_scene if theirs else models.understanding.scene_queries
        before = queries.weight.detach().clone()
        run()
        assert not torch.equal(queries.weight, before), (name, size)


def test_the_released_stage2_takes_one_picture_at_a_time(models):
    models = models._replace(understanding=copy.deepcopy(models.understanding))
    ours = {(f"ours, latents {which}", size) for which in ("at hand", "encoded") for size in (2, 4)}
    assert set(benchmark.stage2(models, [2, 4])) == {(benchmark.RELEASED, 1), *ours}


def test_the_report_compares_each_sides_best_batch(capsys):
    seconds = {
        (benchmark.RELEASED, 1): [1.0, 2.0, 2.0],
        (benchmark.RELEASED, 2): [4.0, 4.0, 4.0],
        ("ours", 1): [0.5, 0.5, 0.5],
        ("ours", 2): [0.5, 0.8, 1.0],
    }
    benchmark.report(seconds)
    printed = capsys.readouterr().out
    assert "2.00x    4.00x" in printed.splitlines()[-2]
    assert "ours 2, released 1" in printed and "4.00x    5.00x" in printed.splitlines()[-1]
