"""Stage 1, its baseline, and stage 2 on sixteen pictures and tiny models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from torch import nn
from torch.utils.data import default_collate
from training_world import write_clip, write_emoset, write_stable_diffusion
from transformers import CLIPImageProcessorPil, CLIPModel

from training import compute_emotion_space, train_baseline, train_joint, train_understanding
from training.compute_emotion_space import EmotionSpaceArguments, fit_emotion_space
from training.config import parse
from training.data import EmoSetDataset, EvaluationTransform
from training.engine import ParameterGroup, make_optimizer
from training.train_baseline import PlainClassifier
from training.train_joint import JointArguments, JointDataset, JointModel
from training.train_understanding import FineTuningArguments, UnderstandingArguments
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

TRAINED = ("scene_queries", "object_queries", "scene_interaction", "object_interaction")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of the data, a CLIP and two Stable Diffusions."""
    root = tmp_path_factory.mktemp("world")
    write_emoset(root / "emoset")
    write_clip(root / "clip")
    for prediction_type in ("epsilon", "v_prediction"):
        write_stable_diffusion(root / prediction_type, prediction_type)
    return root


def stage1_arguments(world, output, **changes) -> UnderstandingArguments:
    settings = {
        "data": str(world / "emoset"),
        "output": str(output),
        "clip": str(world / "clip"),
        "epochs": 2,
        "batch_size": 8,
        "num_scene_queries": 2,
        "num_object_queries": 3,
        "classifier_hidden": 32,
        "keep_images": True,
        **changes,
    }
    return UnderstandingArguments(**settings)


@pytest.fixture(scope="module")
def stage1(world):
    """The folder of a stage-1 run that overfits: sixteen pictures, many epochs."""
    changes = {"epochs": 24, "backbone_learning_rate": 1e-3, "head_learning_rate": 1e-3, "classifier_dropout": 0.0}
    train_understanding.main(stage1_arguments(world, world / "understanding", **changes))
    return world / "understanding"


@pytest.fixture(scope="module")
def joint(world, stage1):
    """The folder of a stage-2 run of three epochs."""
    train_joint.main(stage2_arguments(world, world / "adapter"))
    return world / "adapter"


def stage2_arguments(world, output, **changes) -> JointArguments:
    settings = {
        "data": str(world / "emoset"),
        "output": str(output),
        "understanding": str(world / "understanding"),
        "base": str(world / "epsilon"),
        "resolution": 32,
        "epochs": 3,
        "batch_size": 4,
        "bank_size": 2,
        "rank": 2,
        "keep_images": True,
        **changes,
    }
    return JointArguments(**settings)


def steps(log: list[dict[str, float]], name: str) -> list[float]:
    return [record[name] for record in log if name in record]


def read_log(folder) -> list[dict[str, float]]:
    return json.loads((folder / "training_log.json").read_text())["log"]


# ---------------------------------------------------------------------------------------------------------- stage 1


def test_stage1_losses_fall_and_are_logged_by_part(stage1):
    log = read_log(stage1)
    for part in ("loss", "emotion", "scene", "object"):
        losses = steps(log, part)
        assert len(losses) == 48 and torch.tensor(losses).isfinite().all()
    losses = steps(log, "emotion")
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_stage1_keeps_the_epoch_that_is_best_on_validation(world, stage1):
    best = max(steps(read_log(stage1), "validation_accuracy"))
    model = UniEmoUnderstandingModel.from_pretrained(stage1).eval()
    processor = CLIPImageProcessorPil.from_pretrained(stage1)
    samples = [*EmoSetDataset(world / "emoset", "val", EvaluationTransform(processor))]
    batch = default_collate(samples)
    with torch.no_grad():
        hits = model(batch["pixel_values"]).logits.argmax(-1) == batch["labels"]
    assert hits.float().mean().item() == pytest.approx(best)


def test_stage1_never_reads_the_test_split(world, stage1):
    assert not (world / "emoset" / "test.json").exists()


def test_stage1_trains_the_backbone_and_stores_the_vocabulary(world, stage1):
    model = UniEmoUnderstandingModel.from_pretrained(stage1)
    before = CLIPModel.from_pretrained(world / "clip").vision_model.state_dict()
    after = model.vision_model.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("q_proj.weight"))
    assert model.config.scenes == ["beach", "bakery shop", "amusement park"]
    assert torch.allclose(model.scene_text_features.norm(dim=1), torch.ones(3))


def test_stage1_is_the_same_run_with_the_same_seed(world, tmp_path):
    logs = [train_understanding.main(stage1_arguments(world, tmp_path / str(seed), seed=seed)) for seed in (5, 5, 6)]
    assert logs[0] == logs[1]
    assert steps(logs[0], "loss") != steps(logs[2], "loss")


def test_the_baseline_trains_by_the_same_recipe_and_loads_again(world, tmp_path):
    arguments = FineTuningArguments(
        data=str(world / "emoset"), output=str(tmp_path), clip=str(world / "clip"), epochs=2, classifier_hidden=32
    )
    log = train_baseline.main(arguments)
    assert len(steps(log, "loss")) == 2 and torch.tensor(steps(log, "loss")).isfinite().all()
    model = PlainClassifier.from_pretrained(tmp_path).eval()
    assert model(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 8)


def test_weight_decay_spares_biases_and_vectors():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    groups = make_optimizer(model, [ParameterGroup(("0.", "1."), 0.1, 0.01)]).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight)}


def test_a_parameter_without_a_group_is_named():
    with pytest.raises(ValueError, match=r"in no group: 1\.weight, 1\.bias"):
        make_optimizer(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), [ParameterGroup(("0.",), 0.1, 0.01)])


# ---------------------------------------------------------------------------------------------------------- stage 2


def build(world, base="epsilon", template_share=0.5) -> tuple[JointModel, JointDataset]:
    torch.manual_seed(0)
    understanding = UniEmoUnderstandingModel.from_pretrained(world / "understanding")
    processor = CLIPImageProcessorPil.from_pretrained(world / "understanding")
    pipeline = StableDiffusionPipeline.from_pretrained(world / base, safety_checker=None)
    pictures = EmoSetDataset(world / "emoset", "train", EvaluationTransform(processor))
    space = fit_emotion_space(Accelerator(), understanding, pictures, 16, bank_size=2, rank=2)
    table = pipeline.text_encoder.get_input_embeddings().weight
    fusion = train_joint.build_fusion(understanding, pictures, space, table, smoothing=1.0)
    model = JointModel(understanding, fusion, pipeline, (0.5, 1e-2, 1e-3, 0.1))
    latents = train_joint.encode_latents(pipeline.vae, pictures, 32)
    templates = JointArguments.__dataclass_fields__["templates"].default_factory()
    return model, JointDataset(pictures, latents, pipeline.tokenizer, 1000, templates, template_share)


def batch_of(dataset: JointDataset, size: int = 8) -> dict[str, torch.Tensor]:
    return default_collate([dataset[index] for index in range(size)])


@pytest.mark.parametrize("base", ["epsilon", "v_prediction"])
def test_stage2_overfits_a_batch(world, stage1, base):
    model, dataset = build(world, base)
    batch = batch_of(dataset)
    arguments = stage2_arguments(world, "unused", mappers_learning_rate=1e-2)
    optimizer = make_optimizer(model, train_joint.parameter_groups(arguments))
    losses = []
    for _ in range(25):
        parts = model(batch)
        parts["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(parts)
    assert all(value.isfinite() for parts in losses for value in parts.values())
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert losses[-1]["diffusion"] < losses[0]["diffusion"]


def test_stage2_targets_follow_the_base(world, stage1):
    model, dataset = build(world, "v_prediction")
    batch = batch_of(dataset)
    latents, noise = batch["latents"], batch["noise"]
    last = torch.full((8,), 999)
    assert model.scheduler.alphas_cumprod[-1] == 0  # zero terminal signal
    assert torch.allclose(model.target(latents, noise, last), -latents, atol=1e-6)
    model, _ = build(world, "epsilon")
    assert torch.equal(model.target(latents, noise, last), noise)


def test_stage2_keeps_what_is_frozen_to_the_bit(world, stage1, joint):
    before = UniEmoUnderstandingModel.from_pretrained(stage1).state_dict()
    after = UniEmoUnderstandingModel.from_pretrained(joint / "understanding").state_dict()
    for name, value in before.items():
        moved = not torch.equal(value, after[name])
        assert moved == name.startswith(TRAINED), name


def test_stage2_leaves_the_base_alone(world, stage1):
    model, dataset = build(world)
    fresh = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    optimizer = make_optimizer(model, train_joint.parameter_groups(stage2_arguments(world, "unused")))
    model(batch_of(dataset))["loss"].backward()
    optimizer.step()
    for name in ("unet", "text_encoder"):
        before, after = getattr(fresh, name).state_dict(), getattr(model, name).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert all(parameter.grad is None for parameter in getattr(model, name).parameters())


def query_gradients(model: JointModel, batch: dict[str, torch.Tensor], part: str) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    model(batch)[part].backward()
    understanding = model.understanding
    return understanding.scene_queries.weight.grad.clone(), understanding.object_queries.weight.grad.clone()


def test_the_diffusion_loss_alone_reaches_both_kinds_of_queries(world, stage1):
    model, dataset = build(world)
    assert all(gradient.abs().sum() > 0 for gradient in query_gradients(model, batch_of(dataset), "diffusion"))


def test_alignment_is_stage_ones_contrast_and_moves_the_queries_alone(world, stage1):
    model, dataset = build(world)
    batch = batch_of(dataset)
    assert all(gradient.abs().sum() > 0 for gradient in query_gradients(model, batch, "alignment"))
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert all(name.removeprefix("understanding.").startswith(TRAINED) for name in touched)
    with torch.no_grad():
        alone = model.understanding(
            **{name: batch[name] for name in ("pixel_values", "scene_labels", "object_labels")}
        )
        assert torch.equal(model(batch)["alignment"], alone.scene_loss + alone.object_loss)


def test_detaching_the_features_changes_the_queries_update(world, stage1):
    model, dataset = build(world)
    batch = batch_of(dataset)
    with_feedback = query_gradients(model, batch, "loss")
    model.fusion.register_forward_pre_hook(lambda module, inputs: tuple(value.detach() for value in inputs))
    without = query_gradients(model, batch, "loss")
    assert all(not torch.allclose(a, b, atol=0) for a, b in zip(with_feedback, without, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in without)


def test_a_batch_is_the_mean_of_its_samples(world, stage1):
    """Each picture's condition goes into its own prompt alone."""
    model, dataset = build(world)
    with torch.no_grad():
        together = model(batch_of(dataset))["diffusion"]
        alone = [model(default_collate([dataset[index]]))["diffusion"] for index in range(8)]
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_pictures_without_labels_are_left_out(world, stage1):
    model, dataset = build(world)
    config = model.understanding.config
    config.emotion_loss_weight, config.scene_loss_weight, config.object_loss_weight = 0.5, 0.3, 0.2
    batch = batch_of(dataset)
    with torch.no_grad():
        output = model.understanding(batch["pixel_values"])
        scenes = batch["scene_labels"] != -100
        objects = batch["object_labels"].any(1)
        assert 0 < scenes.sum() < 8 and 0 < objects.sum() < 8
        expected = (
            0.5 * nn.functional.cross_entropy(output.logits, batch["labels"])
            + 0.3
            * nn.functional.cross_entropy(
                model.scene_head(output.scene_features)[scenes], batch["scene_labels"][scenes]
            )
            + 0.2
            * nn.functional.binary_cross_entropy_with_logits(
                model.object_head(output.object_features)[objects], batch["object_labels"][objects]
            )
        )
        assert torch.allclose(model.understanding_loss(output, batch), expected)
        batch["scene_labels"][:], batch["object_labels"][:] = -100, 0
        bare = 0.5 * nn.functional.cross_entropy(output.logits, batch["labels"])
        assert torch.allclose(model.understanding_loss(output, batch), bare)


def test_prompts_are_the_bare_token_or_templates_of_the_picture(world, stage1):
    _, dataset = build(world, template_share=0.5)
    prompts = {}
    for epoch in range(40):
        dataset.set_epoch(epoch)
        for index in range(16):
            prompts.setdefault(index, []).append(dataset.prompt(index, dataset.pictures.random_source(index)))
    every = [prompt for several in prompts.values() for prompt in several]
    assert all(prompt.count(SLOT_TOKEN) == 1 for prompt in every)
    assert 0.4 < every.count(SLOT_TOKEN) / len(every) < 0.6
    assert any("bakery shop" in prompt for prompt in prompts[1])
    assert set(prompts[3]) == {SLOT_TOKEN, "a photo of a <emotion>"}  # a picture without an annotation


def test_a_sample_is_random_by_seed_epoch_and_index_alone(world, stage1):
    _, dataset = build(world)
    first = dataset[3]
    dataset[4], torch.randn(3)
    again = dataset[3]
    assert all(torch.equal(first[name], again[name]) for name in first)
    dataset.set_epoch(1)
    assert not torch.equal(first["noise"], dataset[3]["noise"])


def test_conditions_start_out_like_token_embeddings(world, stage1):
    model, dataset = build(world)
    batch = batch_of(dataset, 16)
    table = model.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        output = model.understanding(batch["pixel_values"])
        weights = nn.functional.one_hot(batch["labels"], 8).float()
        condition = model.fusion(output.emotion_features, output.scene_features, output.object_features, weights)
    assert condition.norm(dim=1).median() < 2 * table.norm(dim=1).median()


def test_stage2_is_the_same_run_with_the_same_seed(world, stage1, tmp_path):
    arguments = stage2_arguments(world, tmp_path / "a", epochs=1)
    first = train_joint.main(arguments)
    assert first == train_joint.main(replace(arguments, output=str(tmp_path / "b")))
    a, b = (read_adapter(tmp_path / run / ADAPTER_NAME).fusion.state_dict() for run in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_stage2_writes_what_a_pipeline_loads(world, joint):
    adapter = read_adapter(joint / ADAPTER_NAME)
    assert adapter.base_model == str(world / "epsilon")
    assert adapter.understanding == str((joint / "understanding").resolve())
    assert adapter.fusion.config.scenes == ["beach", "bakery shop", "amusement park"]
    assert CLIPImageProcessorPil.from_pretrained(joint / "understanding").crop_size["height"] == 32


def test_a_text_encoder_of_another_width_is_refused_at_once(world, stage1, tmp_path):
    understanding = UniEmoUnderstandingModel.from_pretrained(stage1)
    understanding.config.classifier_hidden = 48
    base = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    with pytest.raises(ValueError, match="last layer, 48.*found 32.*--classifier_hidden"):
        JointModel(understanding, None, base, (0.5, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("name", ["miniemoset", "emoset"])
def test_the_shipped_configurations_are_complete(name):
    config = str(Path(train_joint.__file__).parent / "configs" / f"{name}.yaml")
    for arguments, section in (
        (UnderstandingArguments, "understanding"),
        (FineTuningArguments, "baseline"),
        (JointArguments, "joint"),
        (EmotionSpaceArguments, "emotion_space"),
    ):
        assert parse(arguments, section, ["--config", config]).data


# ---------------------------------------------------------------------------------------------------- emotion space


def test_the_emotion_space_is_that_of_the_evaluation_pictures(world, stage1):
    understanding = UniEmoUnderstandingModel.from_pretrained(stage1).eval()
    processor = CLIPImageProcessorPil.from_pretrained(stage1)
    pictures = EmoSetDataset(world / "emoset", "train", EvaluationTransform(processor))
    space = fit_emotion_space(Accelerator(), understanding, pictures, batch_size=5, bank_size=2, rank=1)
    batch = default_collate([*pictures])
    with torch.no_grad():
        output = understanding(batch["pixel_values"])
    features = torch.stack([output.emotion_features, output.scene_features, output.object_features], dim=1)
    for emotion in range(8):
        expected = features[batch["labels"] == emotion].mean(0)
        assert torch.allclose(space["mean"][emotion], expected, atol=1e-5)


def test_the_emotion_space_of_stage2_is_the_final_models(world, joint, tmp_path):
    shutil.copytree(joint, tmp_path / "again")
    sizes = {"bank_size": 2, "rank": 2}
    compute_emotion_space.main(
        EmotionSpaceArguments(data=str(world / "emoset"), adapter=str(tmp_path / "again"), **sizes)
    )
    before = read_adapter(joint / ADAPTER_NAME).fusion.state_dict()
    after = read_adapter(tmp_path / "again" / ADAPTER_NAME).fusion.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)
