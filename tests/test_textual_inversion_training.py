"""Textual inversions as the rival of stage 2, on sixteen pictures and tiny models."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from training_world import arguments_of, records, write_world

from training import train_textual_inversion
from training.config import RunArguments
from training.data import DataArguments
from training.train_textual_inversion import InversionArguments, word_embeddings
from uniemo_pipelines.fusion_uniemo import EMOTIONS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def inversion(world, output, **changes):
    settings = {
        "data": str(world / "emoset"),
        "base": str(world / "epsilon"),
        "resolution": 32,
        "output_dir": str(output),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "embeddings_learning_rate": 1e-2,
        "use_cpu": True,
        **changes,
    }
    return arguments_of((DataArguments, InversionArguments, RunArguments), settings)


@pytest.fixture(scope="module")
def trained(world):
    train_textual_inversion.main(*inversion(world, world / "inversion"))
    return world / "inversion"


def test_a_stock_pipeline_loads_what_was_learnt(world, trained):
    pipe = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    words = word_embeddings(pipe)
    for emotion, word in zip(EMOTIONS, words, strict=True):
        pipe.load_textual_inversion(trained, weight_name=f"{emotion}.safetensors")
        [learnt] = load_file(trained / f"{emotion}.safetensors").values()
        token = pipe.tokenizer.convert_tokens_to_ids(f"<{emotion}>")
        assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[token], learnt[0])
        moved = (learnt[0] - word).abs().max()
        assert 1e-3 < moved < 0.1, "two pictures an epoch each, two epochs from the word"
    assert len(records(trained, "loss")) == 4 and "load_textual_inversion" in (trained / "README.md").read_text()


def test_only_embeddings_of_emotions_in_the_batch_have_gradients(world):
    base = StableDiffusionPipeline.from_pretrained(world / "epsilon", safety_checker=None)
    model = train_textual_inversion.InversionModel(base, base.vae)
    data, arguments, _ = inversion(world, world / "unused")
    pictures = train_textual_inversion.open_split(data, "train", train_textual_inversion.label_alone)
    drawn = train_textual_inversion.in_prompts(pictures, base, arguments, torch.device("cpu"))
    batch = torch.utils.data.default_collate([drawn[1], drawn[2]])
    model(batch)["loss"].backward()
    assert model.embeddings.grad.abs().sum(1).nonzero()[:, 0].tolist() == [1, 2]
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["embeddings"]


def test_latents_at_hand_and_encoded_give_nearly_the_same_run(world, trained, tmp_path):
    latents = str(tmp_path / "latents")
    train_textual_inversion.main(*inversion(world, tmp_path / "run", latents=latents))
    assert records(tmp_path / "run", "loss") == pytest.approx(records(trained, "loss"), rel=1e-3)
