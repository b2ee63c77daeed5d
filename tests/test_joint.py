"""Stage 2 on sixteen pictures and tiny models."""

import json
import resource
import shutil
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from hub_sets import COUNT, columns, go_offline, write_parquet
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import default_collate
from training_world import SIZE, records, stage1, stage2, write_world
from transformers import CLIPImageProcessorPil

from training import prepare, train_joint, train_understanding
from training.compute_emotion_space import fit_emotion_space
from training.data import DataArguments, EvaluationTransform, PictureSample, attribute_statistics, open_split
from training.engine import grouped_parameters
from training.joint_model import JointModel
from training.prepare import PrepareArguments
from training.prompted_pictures import LatentPixels, PromptedSample, cache_latents
from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN

TRAINED = ("scene_queries", "object_queries", "scene_interaction", "object_interaction")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The world, and in it the folder of a stage-1 run."""
    world = write_world(tmp_path_factory.mktemp("world"))
    train_understanding.main(*stage1(world, world / "understanding", classifier_dropout=0.0))
    return world


@pytest.fixture(scope="module")
def joint(world):
    """The folder of a run of three epochs."""
    train_joint.main(*stage2(world, world / "understanding", world / "adapter"))
    return world / "adapter"


def build(world, base="epsilon", template_share=0.5, **changes):
    """A model, and the training split as stage 2 sees it with latents from a cache."""
    torch.manual_seed(0)
    data, arguments, _ = stage2(
        world, world / "understanding", world / "unused", condition_weight=1e-2, triplet_weight=1e-3, **changes
    )
    understanding = UniEmoUnderstandingModel.from_pretrained(world / "understanding")
    seen = PictureSample(
        EvaluationTransform(CLIPImageProcessorPil.from_pretrained(world / "understanding")),
        train_joint.open_vocabulary(data),
    )
    pictures = open_split(data, "train", seen)
    pipeline = StableDiffusionPipeline.from_pretrained(world / base, safety_checker=None)
    space = fit_emotion_space(Accelerator(), understanding, pictures, 16, bank_size=2, rank=2)
    table = pipeline.text_encoder.get_input_embeddings().weight
    fusion = train_joint.build_fusion(understanding, pictures, space, table, attribute_statistics(data, pictures))
    model = JointModel(understanding, fusion, pipeline, arguments, pipeline.vae)
    sample = PromptedSample(
        seen=seen,
        tokenizer=pipeline.tokenizer,
        vocabulary=pictures.vocabulary,
        templates=arguments.templates,
        template_share=template_share,
        num_timesteps=1000,
        pixels=LatentPixels.of(pipeline.vae, SIZE),
        cache=cache_latents(pipeline.vae, pictures, SIZE, world / "latents"),
    )
    return model, pictures.with_sample(sample)


def batch_of(dataset, size: int = 8) -> dict[str, torch.Tensor]:
    return default_collate([dataset[index] for index in range(size)])


@pytest.mark.parametrize("base", ["epsilon", "v_prediction"])
def test_overfits_a_batch(world, base):
    model, dataset = build(world, base)
    batch = batch_of(dataset)
    _, arguments, _ = stage2(world, world / "understanding", "unused", mappers_learning_rate=1e-2)
    optimizer = torch.optim.AdamW(
        grouped_parameters(model, train_joint.parameter_groups(arguments, model.understanding))
    )
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


def test_targets_follow_the_base(world):
    model, dataset = build(world, "v_prediction")
    batch = batch_of(dataset)
    latents, noise = batch["latents"], batch["noise"]
    last = torch.full((8,), 999)
    assert model.scheduler.alphas_cumprod[-1] == 0  # zero terminal signal
    assert torch.allclose(model.target(latents, noise, last), -latents, atol=1e-6)
    model, _ = build(world, "epsilon")
    assert torch.equal(model.target(latents, noise, last), noise)


def test_keeps_what_is_frozen_to_the_bit(world, joint):
    before = UniEmoUnderstandingModel.from_pretrained(world / "understanding").state_dict()
    after = UniEmoUnderstandingModel.from_pretrained(joint / "understanding").state_dict()
    for name, value in before.items():
        moved = not torch.equal(value, after[name])
        assert moved == name.startswith(TRAINED), name


def test_leaves_the_base_alone(world):
    model, dataset = build(world)
    fresh = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    _, arguments, _ = stage2(world, world / "understanding", "unused")
    optimizer = torch.optim.AdamW(
        grouped_parameters(model, train_joint.parameter_groups(arguments, model.understanding))
    )
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


def test_the_diffusion_loss_alone_reaches_both_kinds_of_queries(world):
    model, dataset = build(world)
    assert all(gradient.abs().sum() > 0 for gradient in query_gradients(model, batch_of(dataset), "diffusion"))


def test_alignment_is_stage_ones_contrast_and_moves_the_queries_alone(world):
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


def test_without_implicit_feedback_the_queries_update_is_another_and_the_mappers_is_not(world):
    model, dataset = build(world)
    batch = batch_of(dataset)
    with_feedback = query_gradients(model, batch, "loss")
    mappers = [parameter.grad.clone() for parameter in model.fusion.mappers.parameters()]
    model.objective = replace(model.objective, implicit_feedback=False)
    without = query_gradients(model, batch, "loss")
    assert all(not torch.allclose(a, b, atol=0) for a, b in zip(with_feedback, without, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in without)
    for before, parameter in zip(mappers, model.fusion.mappers.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, before)
    model.zero_grad()
    model(batch)["diffusion"].backward()
    assert model.understanding.scene_queries.weight.grad is None


def test_a_batch_is_the_mean_of_its_samples(world):
    """Each picture's condition goes into its own prompt alone."""
    model, dataset = build(world)
    with torch.no_grad():
        together = model(batch_of(dataset))["diffusion"]
        alone = [model(default_collate([dataset[index]]))["diffusion"] for index in range(8)]
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_pictures_without_labels_are_left_out(world):
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


def test_prompts_are_the_bare_token_or_templates_of_the_picture(world):
    _, dataset = build(world, template_share=0.5)
    prompts = {}
    for epoch in range(40):
        dataset.set_epoch(epoch)
        for index in range(16):
            prompt = dataset.sample.prompt(dataset.rows[index], dataset.random_source(index))
            prompts.setdefault(index, []).append(prompt)
    every = [prompt for several in prompts.values() for prompt in several]
    assert all(prompt.count(SLOT_TOKEN) == 1 for prompt in every)
    assert 0.4 < every.count(SLOT_TOKEN) / len(every) < 0.6
    assert any("bakery shop" in prompt for prompt in prompts[1])
    assert set(prompts[3]) == {SLOT_TOKEN, "a photo of a <emotion>"}  # a picture without an annotation


def test_a_sample_is_random_by_seed_epoch_and_index_alone(world):
    _, dataset = build(world)
    first = dataset[3]
    dataset[4], torch.randn(3)
    again = dataset[3]
    assert all(torch.equal(first[name], again[name]) for name in first)
    dataset.set_epoch(1)
    assert not torch.equal(first["noise"], dataset[3]["noise"])


def test_conditions_start_out_like_token_embeddings(world):
    model, dataset = build(world)
    batch = batch_of(dataset, 16)
    table = model.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        output = model.understanding(batch["pixel_values"])
        weights = nn.functional.one_hot(batch["labels"], 8).float()
        condition = model.fusion(output.emotion_features, output.scene_features, output.object_features, weights)
    assert condition.norm(dim=1).median() < 2 * table.norm(dim=1).median()


def test_the_same_seed_gives_the_same_run(world, tmp_path):
    for name in "ab":
        train_joint.main(*stage2(world, world / "understanding", tmp_path / name, num_train_epochs=1))
    assert records(tmp_path / "a", "loss") == records(tmp_path / "b", "loss")
    a, b = (read_adapter(tmp_path / run / ADAPTER_NAME).fusion.state_dict() for run in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_writes_what_a_pipeline_loads(world, joint):
    adapter = read_adapter(joint / ADAPTER_NAME)
    assert adapter.base_model == "epsilon"
    assert adapter.understanding == str((joint / "understanding").resolve())
    assert adapter.fusion.config.scenes == ["beach", "bakery shop", "amusement park"]
    assert CLIPImageProcessorPil.from_pretrained(joint / "understanding").crop_size["height"] == 32


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        ("mean", (0.240341, 0.255141)),  # the fractions are in test_data
        ("one", (1.0, 1.0)),
        ("zero", (0.0, 0.0)),
    ],
)
def test_constant_coefficients_ride_in_the_adapter(world, tmp_path, alpha, expected):
    train_joint.main(*stage2(world, world / "understanding", tmp_path, alpha=alpha, num_train_epochs=1))
    fusion = read_adapter(tmp_path / ADAPTER_NAME).fusion
    features = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    found = fusion.coefficients(features[1], features[2], torch.eye(8)[:5])
    for coefficients, value in zip(found, expected, strict=True):
        torch.testing.assert_close(coefficients, torch.full((5,), value), atol=1e-6, rtol=0)
    mapped = fusion.mappers[0]["emotion"](features[0])
    alone = torch.allclose(fusion(*features, torch.eye(8)[:5]), mapped, atol=1e-6)
    assert alone == (alpha == "zero"), "with zero the emotion feature makes the condition by itself"


def test_a_text_encoder_of_another_width_is_refused_at_once(world):
    understanding = UniEmoUnderstandingModel.from_pretrained(world / "understanding")
    understanding.config.classifier_hidden = 48
    base = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    with pytest.raises(ValueError, match="last layer, 48.*found 32.*--classifier_hidden"):
        JointModel(understanding, None, base, stage2(world, world / "understanding", "unused")[1])


def test_a_base_that_predicts_something_else_is_refused_at_once(world):
    base = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    base.scheduler.register_to_config(prediction_type="sample")
    understanding = UniEmoUnderstandingModel.from_pretrained(world / "understanding")
    with pytest.raises(ValueError, match="expected|Expected.*'sample'"):
        JointModel(understanding, None, base, stage2(world, world / "understanding", "unused")[1])


# ---------------------------------------------------------------------------------------------------------- latents


def test_latents_from_the_cache_are_those_that_the_step_would_encode(world):
    model, dataset = build(world)
    cached = batch_of(dataset)
    sample = dataset.sample
    encoded = batch_of(dataset.with_sample(PromptedSample(**{**sample.__dict__, "cache": None})))
    assert "latent_pixels" in encoded and "latents" not in encoded
    assert torch.equal(cached["noise"], encoded["noise"]) and torch.equal(cached["input_ids"], encoded["input_ids"])
    torch.testing.assert_close(model.latents(cached), model.latents(encoded), atol=2e-3, rtol=2e-3)


def test_a_cache_goes_on_where_it_was_stopped_and_is_used_again(world, tmp_path):
    _, dataset = build(world)
    vae = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None).vae
    whole = cache_latents(vae, dataset, SIZE, tmp_path / "whole")
    encoded = []

    class Stop(Exception):
        pass

    def encode(*args, original=vae.encode, limit=2):
        if len(encoded) >= limit:
            raise Stop
        encoded.append(len(args[0]))
        return original(*args)

    vae.encode = encode
    with pytest.raises(Stop):
        cache_latents(vae, dataset, SIZE, tmp_path / "stopped", batch_size=4)
    assert not [path for path in (tmp_path / "stopped").iterdir() if path.name.count(".") == 1]
    vae.encode = lambda *args: encode(*args, limit=4)
    again = cache_latents(vae, dataset, SIZE, tmp_path / "stopped", batch_size=4)
    assert encoded == [4, 4, 4, 4]
    assert all(torch.allclose(whole[index], again[index], atol=1e-3) for index in range(16))
    vae.encode = lambda *args: encode(*args, limit=0)
    assert torch.equal(cache_latents(vae, dataset, SIZE, tmp_path / "stopped")[3], again[3])
    with pytest.raises(Stop):  # another resolution is another cache
        cache_latents(vae, dataset, 2 * SIZE, tmp_path / "stopped")


def test_other_pictures_of_the_same_names_have_latents_of_their_own(world, tmp_path, monkeypatch):
    vae = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None).vae
    shutil.copytree(world / "emoset", tmp_path / "emoset")
    pictures = open_split(DataArguments(data=str(tmp_path / "emoset")), "train", None)
    first = cache_latents(vae, pictures, SIZE, tmp_path / "latents")
    Image.new("RGB", (40, 40), (250, 10, 10)).save(pictures.name(2))
    changed = cache_latents(vae, pictures, SIZE, tmp_path / "latents")
    assert not torch.equal(first[2], changed[2]) and torch.equal(first[3], changed[3])


def test_two_sets_of_the_hub_have_latents_of_their_own(world, tmp_path, monkeypatch):
    vae = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None).vae
    go_offline(tmp_path, monkeypatch)
    paths = []
    for name, start in (("a", 0), ("b", 0), ("c", 100)):
        pictures = columns(start, start + COUNT)["image"]
        root = write_parquet(tmp_path / name, lambda found, pictures=pictures: found | {"image": pictures})
        rows = open_split(DataArguments(data=str(root), vocabulary=str(tmp_path / "info.json")), "train", None)
        paths.append(cache_latents(vae, rows, SIZE, tmp_path / "latents").path)
    assert paths[2] not in paths[:2], "their rows have the same numbers"


def test_a_disk_without_room_for_the_latents_is_found_before_encoding(world, tmp_path):
    _, dataset = build(world)
    vae = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None).vae
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="expected room for the latents of 16 pictures.*--latents"):
            cache_latents(vae, dataset, SIZE, tmp_path / "latents")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "latents").iterdir())
    cache_latents(vae, dataset, SIZE, tmp_path / "latents")


# ----------------------------------------------------------------------------------------------------------- options


def test_min_snr_weighs_timesteps_by_its_formula(world):
    timesteps = torch.tensor([0, 200, 500, 999])
    for base, extra in (("epsilon", 0.0), ("v_prediction", 1.0)):
        model, _ = build(world, base, min_snr_gamma=5.0)
        alphas = model.scheduler.alphas_cumprod[timesteps]
        snr = alphas / (1 - alphas)
        expected = snr.clamp(max=5) / (snr + extra)
        expected[snr + extra == 0] = 1.0
        torch.testing.assert_close(model.timestep_weights(timesteps), expected, rtol=1e-4, atol=1e-6)
    plain, dataset = build(world)
    weighted, _ = build(world, min_snr_gamma=5.0)
    batch = batch_of(dataset)
    with torch.no_grad():
        assert not torch.isclose(plain(batch)["diffusion"], weighted(batch)["diffusion"])
        assert torch.equal(plain(batch)["understanding"], weighted(batch)["understanding"])


def test_activation_checkpointing_gives_the_same_gradients(world):
    model, dataset = build(world)
    batch = batch_of(dataset)
    plain = query_gradients(model.train(), batch, "loss")
    calls = []
    original = torch.utils.checkpoint.checkpoint
    torch.utils.checkpoint.checkpoint = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    try:
        model.activation_checkpointing_enable({"use_reentrant": False})
        saved = query_gradients(model.train(), batch, "loss")
    finally:
        torch.utils.checkpoint.checkpoint = original
    for a, b in zip(plain, saved, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    assert calls


def test_everything_frozen_acts_in_training_as_in_use(world):
    model, _ = build(world)
    model.activation_checkpointing_enable()
    model.train()
    assert not any(module.training for module in model.modules() if isinstance(module, nn.Dropout))


def test_lora_on_stable_diffusion_is_trained_and_loads_in_a_stock_pipeline(world, tmp_path):
    changes = {"unet_lora_rank": 2, "text_encoder_lora_rank": 3, "num_train_epochs": 1}
    train_joint.main(*stage2(world, world / "understanding", tmp_path, **changes))
    pipe = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe.load_lora_weights(tmp_path)
    for model in (pipe.unet, pipe.text_encoder):
        moved = [value for name, value in model.named_parameters() if ".lora_B" in name]
        assert moved and all(value.any() for value in moved)
    after = {name.replace(".base_layer", ""): value for name, value in pipe.unet.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_after_stage_one_by_lora_the_adapter_carries_the_chain(world, tmp_path):
    train_understanding.main(*stage1(world, tmp_path / "lora", lora_rank=2))
    train_joint.main(*stage2(world, tmp_path / "lora", tmp_path / "joint", num_train_epochs=1))
    (tmp_path / "alone").mkdir()
    (tmp_path / "joint" / ADAPTER_NAME).rename(tmp_path / "alone" / ADAPTER_NAME)
    pipe = UniEmoPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    pipe.load_uniemo(tmp_path / "alone")
    photo = Image.new("RGB", (50, 40), (200, 30, 90))
    found = pipe.understand(photo)[0].probabilities
    expected = UniEmoUnderstandingModel.from_pretrained(tmp_path / "joint" / "understanding").eval()
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path / "joint" / "understanding")(photo, return_tensors="pt")
    probabilities = expected(pixels.pixel_values).logits.softmax(-1)[0]
    assert list(found.values()) == pytest.approx(probabilities.tolist(), abs=1e-6)


def test_validation_images_are_drawn_every_so_many_steps(world, tmp_path):
    changes = {"validation_steps": 5, "report_to": ["tensorboard"], "num_train_epochs": 3}
    train_joint.main(*stage2(world, world / "understanding", tmp_path, **changes))
    sheets = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert sheets == ["step-10.jpg", "step-5.jpg"]
    with Image.open(tmp_path / "validation" / "step-5.jpg") as sheet:
        assert sheet.size == (8 * SIZE, 2 * SIZE)
    (events,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    accumulator = EventAccumulator(str(events)).Reload()
    assert [image.step for image in accumulator.Images("validation")] == [5, 10]
    assert "train/diffusion" in accumulator.Tags()["scalars"]


def test_the_results_name_every_loss(joint):
    results = {result["metric"]: result["value"] for result in json.loads((joint / "results.json").read_text())}
    assert {
        "loss",
        "diffusion",
        "understanding",
        "condition",
        "triplet",
        "alignment",
        "norm",
        "condition_norm",
    } == results.keys()
    assert results["diffusion"] == pytest.approx(records(joint, "diffusion")[-1])


@pytest.mark.slow
def test_a_stream_is_trained_on_with_the_statistics_of_a_prepared_folder(world, tmp_path, monkeypatch):
    go_offline(tmp_path, monkeypatch)
    write_parquet(tmp_path / "set")
    source = {"data": str(tmp_path / "set"), "vocabulary": str(tmp_path / "info.json")}
    prepare.main(PrepareArguments(**source, output=str(tmp_path / "prepared"), num_workers=0))
    changes = source | {
        "streaming": True,
        "keep_images": False,
        "prepared": str(tmp_path / "prepared"),
        "max_steps": 9,
    }
    train_joint.main(*stage2(world, world / "understanding", tmp_path / "run", **changes, save_strategy="no"))
    assert len(records(tmp_path / "run", "diffusion")) == 9  # 30 pictures, 4 a step: over the stream's end
    fusion = read_adapter(tmp_path / "run" / ADAPTER_NAME).fusion
    scenes = load_file(tmp_path / "prepared" / "statistics.safetensors")["scenes"]
    assert torch.allclose(fusion.scene_coefficients, scenes)
    for option, value in (("latents", str(tmp_path / "latents")), ("validation_steps", 5)):
        with pytest.raises(ValueError, match=f"--{option} needs all pictures"):
            train_joint.main(*stage2(world, world / "understanding", tmp_path / option, **changes, **{option: value}))


@pytest.mark.parametrize(
    "changes", [{"templates": ["a photo"]}, {"templates": ["<emotion> {scenes}"]}, {"template_share": 40.0}]
)
def test_prompts_without_the_condition_are_refused(world, changes):
    with pytest.raises(ValueError, match=f"Expected --{next(iter(changes))}"):
        stage2(world, world / "understanding", "unused", **changes)
