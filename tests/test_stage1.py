"""Stage 1 and its baseline on sixteen pictures and tiny models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate
from training_world import arguments_of, records, stage1, write_world
from transformers import AutoModelForImageClassification, CLIPImageProcessorPil, CLIPModel

from training import train_baseline, train_understanding
from training.compute_emotion_space import EmotionSpaceArguments
from training.config import RunArguments, SelectingRunArguments, parse
from training.data import DataArguments, EvaluationTransform, PictureSample, open_split
from training.engine import ParameterGroup, grouped_parameters
from training.fine_tuning import FineTuningArguments
from training.train_baseline import PlainClassifier
from training.train_joint import JointArguments
from training.train_textual_inversion import InversionArguments
from training.train_understanding import LORA, UnderstandingArguments
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


OVERFIT = {
    "num_train_epochs": 24,
    "backbone_learning_rate": 1e-3,
    "head_learning_rate": 1e-3,
    "classifier_dropout": 0.0,
    "smallest_crop": 0.6,
}


@pytest.fixture(scope="module")
def trained(world):
    """The folder of a run that overfits: sixteen pictures, many epochs."""
    train_understanding.main(*stage1(world, world / "understanding", **OVERFIT))
    return world / "understanding"


@pytest.fixture(scope="module")
def lora(world):
    """The folder of a run by LoRA."""
    train_understanding.main(*stage1(world, world / "by_lora", **OVERFIT, lora_rank=2))
    return world / "by_lora"


def test_losses_fall_and_are_logged_by_part(trained):
    for part in ("loss", "emotion", "scene", "object"):
        losses = torch.tensor(records(trained, part))
        assert len(losses) == 48 and losses.isfinite().all()
    losses = records(trained, "emotion")
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def validation_accuracy(world, folder):
    model = UniEmoUnderstandingModel.from_pretrained(folder).eval()
    sample = PictureSample(EvaluationTransform(CLIPImageProcessorPil.from_pretrained(folder)))
    batch = default_collate([*open_split(DataArguments(data=str(world / "emoset")), "val", sample)])
    with torch.no_grad():
        hits = model(batch["pixel_values"]).logits.argmax(-1) == batch["labels"]
    return hits.float().mean().item()


@pytest.mark.parametrize("run", ["trained", "lora"])
def test_the_epoch_that_is_best_on_validation_is_kept(world, request, run):
    folder = request.getfixturevalue(run)
    accuracies = records(folder, "eval_accuracy")
    assert len(accuracies) == 24 and len(set(accuracies)) > 1
    assert validation_accuracy(world, folder) == pytest.approx(max(accuracies))
    [found] = json.loads((folder / "results.json").read_text())
    assert found["value"] == pytest.approx(max(accuracies)) and found["pictures"] == 16
    assert found["interval"][0] < found["value"] < found["interval"][1]


def test_the_test_split_is_read_only_where_it_is_named(world, tmp_path):
    assert not (world / "emoset" / "test.json").exists()
    (world / "emoset" / "held_out.json").write_text((world / "emoset" / "val.json").read_text())
    train_understanding.main(*stage1(world, tmp_path, test_split="held_out"))
    validation, test = json.loads((tmp_path / "results.json").read_text())
    assert test == validation | {"split": "held_out"}
    assert "| accuracy | held_out |" in (tmp_path / "results.md").read_text()


def test_validation_reads_every_picture_whatever_the_batch(world, tmp_path):
    for size in (5, 64):
        folder = tmp_path / str(size)
        train_understanding.main(*stage1(world, folder, num_train_epochs=1, per_device_eval_batch_size=size))
        [found] = json.loads((folder / "results.json").read_text())
        assert found["pictures"] == 16 and found["value"] == pytest.approx(validation_accuracy(world, folder))


def test_the_backbone_is_trained_and_the_vocabulary_stored(world, trained):
    model = UniEmoUnderstandingModel.from_pretrained(trained)
    before = CLIPModel.from_pretrained(world / "clip").vision_model.state_dict()
    after = model.vision_model.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("q_proj.weight"))
    assert model.config.scenes == ["beach", "bakery shop", "amusement park"]
    assert torch.allclose(model.scene_text_features.norm(dim=1), torch.ones(3))


def test_lora_trains_the_backbone_by_small_matrices_alone(world, lora):
    """Merged in the folder, and as a PEFT adapter for the stock CLIP; the backbone's own weights are as they were."""
    merged = UniEmoUnderstandingModel.from_pretrained(lora).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    adapted = train_understanding.build_model(
        stage1(world, lora)[1], train_understanding.open_vocabulary(stage1(world, lora)[0])
    )
    adapted.load_adapter(lora / LORA)
    torch.testing.assert_close(adapted.eval()(pixels).logits, merged(pixels).logits)
    stock = CLIPModel.from_pretrained(world / "clip").vision_model.state_dict()
    unadapted = {name.replace(".base_layer", ""): value for name, value in adapted.vision_model.state_dict().items()}
    assert all(torch.equal(unadapted[name], value) for name, value in stock.items())
    assert not torch.equal(
        merged.vision_model.state_dict()["encoder.layers.0.mlp.fc1.weight"], stock["encoder.layers.0.mlp.fc1.weight"]
    )


def test_a_checkpoint_of_lora_holds_no_weight_of_the_backbone(lora):
    from safetensors import safe_open

    with safe_open(sorted(lora.glob("checkpoint-*"))[0] / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names and all(".lora_" in name for name in names if name.startswith("vision_model."))


def test_the_folder_is_one_for_the_auto_classes(trained):
    assert AutoModelForImageClassification.from_pretrained(trained).config.id2label[0] == "amusement"
    assert (trained / "curves.png").stat().st_size > 5000


def test_the_same_seed_gives_the_same_run(world, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train_understanding.main(*stage1(world, tmp_path / name, seed=seed))
    a, b, c = (records(tmp_path / name, "loss") for name in "abc")
    assert a == b and a != c


def test_bfloat16_trains_on_a_processor_with_no_more_flags_and_weights_stay_whole(world, trained, tmp_path):
    data, arguments, training = stage1(world, tmp_path, bf16=True, use_cpu=False)
    assert training.use_cpu == (not torch.accelerator.is_available())
    train_understanding.main(data, arguments, training)
    model = UniEmoUnderstandingModel.from_pretrained(tmp_path)
    assert all(one.dtype == torch.float32 for one in model.parameters())
    losses, whole = records(tmp_path, "loss"), records(trained, "loss")
    assert losses[0] == pytest.approx(whole[0], rel=0.02) and losses != whole


def test_data_without_attributes_train_the_emotion_alone(world, tmp_path):
    pictures = tmp_path / "pictures"
    for split in ("train", "val"):
        for source in (world / "emoset" / "image").rglob(f"{split}_*.png"):
            target = pictures / split / source.parent.name / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    train_understanding.main(*stage1(world, tmp_path / "run", data=str(pictures)))
    log = json.loads((tmp_path / "run" / "training_log.json").read_text())
    assert "emotion" in log[0] and "scene" not in log[0] and "object" not in log[0]


def test_a_run_goes_on_from_an_earlier_model_on_generated_pictures_too(world, trained, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(world / "emoset", kept)
    for path in (kept / "annotation").rglob("train_*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"probabilities": [0.125] * 8}))
    settings = {"start": str(trained), "generated": [str(kept)], "num_train_epochs": 1, "classifier_dropout": 0.0}
    train_understanding.main(*stage1(world, tmp_path / "run", **settings, smallest_crop=0.6))
    first = records(tmp_path / "run", "emotion")[0]
    assert len(records(tmp_path / "run", "loss")) == 4, "sixteen real and as many generated pictures, eight a step"
    assert 1.0 < first, "half of the labels are uniform, which nothing names better than by 2.08"
    before, after = (UniEmoUnderstandingModel.from_pretrained(path) for path in (trained, tmp_path / "run"))
    assert after.config.scenes == before.config.scenes
    assert not torch.equal(after.classifier[0].weight, before.classifier[0].weight)
    assert (after.classifier[0].weight - before.classifier[0].weight).abs().max() < 0.01, "it went on, not anew"


def test_a_run_cannot_go_on_from_a_model_of_another_vocabulary(world, trained, tmp_path):
    shutil.copytree(world / "emoset", tmp_path / "emoset")
    (tmp_path / "emoset" / "info.json").unlink()
    with pytest.raises(ValueError, match="expected a model with the vocabulary of the data"):
        train_understanding.main(*stage1(world, tmp_path / "run", data=str(tmp_path / "emoset"), start=str(trained)))


def test_the_baseline_trains_by_the_same_recipe_and_loads_again(world, tmp_path):
    settings = {"data": str(world / "emoset"), "clip": str(world / "clip"), "classifier_hidden": 32, "use_cpu": True}
    settings |= {"output_dir": str(tmp_path), "num_train_epochs": 2}
    train_baseline.main(*arguments_of((DataArguments, FineTuningArguments, SelectingRunArguments), settings))
    assert len(records(tmp_path, "loss")) == 4
    model = PlainClassifier.from_pretrained(tmp_path).eval()
    assert model(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 8)


def test_weight_decay_spares_biases_and_vectors():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    groups = grouped_parameters(model, [ParameterGroup(("0.", "1."), 0.1, 0.01)])
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight)}


def test_a_parameter_without_a_group_is_named():
    with pytest.raises(ValueError, match=r"in no group: 1\.weight, 1\.bias"):
        grouped_parameters(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), [ParameterGroup(("0.",), 0.1, 0.01)])


@pytest.mark.parametrize("name", ["miniemoset", "emoset"])
def test_the_shipped_configurations_are_complete(name):
    config = str(Path(train_understanding.__file__).parent / "configs" / f"{name}.yaml")
    for arguments, section in (
        ((DataArguments, UnderstandingArguments, SelectingRunArguments), "understanding"),
        ((DataArguments, FineTuningArguments, SelectingRunArguments), "baseline"),
        ((DataArguments, JointArguments, RunArguments), "joint"),
        ((DataArguments, EmotionSpaceArguments), "emotion_space"),
        ((DataArguments, InversionArguments, RunArguments), "textual_inversion"),
    ):
        assert parse(
            arguments,
            section,
            ["--config", config, *(["--fp16", "False"] if name == "emoset" and section != "emotion_space" else [])],
        )[0].data
