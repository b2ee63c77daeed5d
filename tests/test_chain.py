"""Adapter files that carry the understanding chain, on a stock Stable Diffusion and a stock CLIP."""

import shutil

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from uniemo_pipelines import UniEmoPipeline, UniEmoUnderstandingModel
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter, write_adapter
from uniemo_pipelines.chain_uniemo import take_chain
from uniemo_pipelines.understanding_uniemo import understand_images


@pytest.fixture
def clip(tmp_path):
    return tiny.save_clip(tmp_path / "clip")


def trained(clip, lora):
    """A model on the stock CLIP as stage 1 leaves it: everything of ours has moved, of the tower LoRA at most."""
    torch.manual_seed(6)
    settings = {"num_scene_queries": 2, "num_object_queries": 3, "classifier_hidden": tiny.TEXT_WIDTH}
    model = UniEmoUnderstandingModel.from_clip(clip, **settings)
    tiny.set_vocabulary(model)
    if lora:
        model.add_adapter(model.lora_config(2, lora_alpha=7))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("vision_model.") or ".lora_" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8))


def loaded(folder):
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.set_progress_bar_config(disable=True)
    pipe.load_uniemo(folder)
    return pipe


@pytest.mark.parametrize("lora", [False, True])
def test_the_adapter_alone_understands_as_the_model_did(clip, photo, tmp_path, lora):
    model = trained(clip, lora)
    [expected] = understand_images(model, tiny.processor(), photo)
    [start] = understand_images(trained(clip, False), tiny.processor(), photo)
    assert lora != np.allclose(list(expected.probabilities.values()), list(start.probabilities.values()))
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(model, str(clip)))
    pipe = loaded(tmp_path)
    [found] = pipe.understand(photo)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert found.scenes == [(name, pytest.approx(score, abs=1e-5)) for name, score in expected.scenes]
    pipe.save_uniemo(tmp_path / "again")
    assert loaded(tmp_path / "again").understand(photo)[0].probabilities == pytest.approx(found.probabilities)


def test_a_merged_adapter_is_taken_apart_again(clip, photo, tmp_path):
    model = trained(clip, True)
    model.save_pretrained(tmp_path / "lora")
    model.merge_adapter()
    with torch.no_grad():
        model.scene_queries.weight += 0.5  # as stage 2 does after the merge
    [expected] = understand_images(model, tiny.processor(), photo)
    write_adapter(
        tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(model, str(clip), tmp_path / "lora")
    )
    assert loaded(tmp_path).understand(photo)[0].probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    with torch.no_grad():
        model.vision_model.pre_layrnorm.weight += 0.1
    with pytest.raises(ValueError, match="trained whole"):
        take_chain(model, str(clip), tmp_path / "lora")


def test_no_weight_of_the_tower_is_in_the_file(clip, tmp_path):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(trained(clip, True), str(clip)))
    with safe_open(tmp_path / ADAPTER_NAME, framework="pt") as file:
        tower = [name for name in file.keys() if "vision_model" in name]
    assert len(tower) == 3 * 6 * 2 and all(".lora_" in name for name in tower)


def test_generation_does_not_need_the_clip(clip, photo, tmp_path):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(trained(clip, False), str(clip)))
    shutil.rmtree(clip)
    pipe = loaded(tmp_path)
    assert pipe(emotion="awe", num_inference_steps=1).conditions is not None
    with pytest.raises(OSError, match="clip"):
        pipe.understand(photo)


def test_a_tower_that_was_trained_whole_is_refused(clip):
    model = trained(clip, True)
    with torch.no_grad():
        model.vision_model.post_layernorm.weight += 0.1
    with pytest.raises(ValueError, match="trained whole, or another CLIP's"):
        take_chain(model, str(clip))


def test_another_clip_is_refused(clip, photo, tmp_path):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(trained(clip, False), str(clip)))
    tiny.save_clip(clip, seed=8)
    with pytest.raises(ValueError, match="found another at"):
        loaded(tmp_path).understand(photo)


def test_all_tensors_of_a_chain_that_do_not_fit_are_listed(clip, photo, tmp_path):
    path = write_adapter(
        tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(trained(clip, False), str(clip))
    )
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    del tensors["chain.scene_queries.weight"]
    tensors["chain.surplus"] = torch.ones(1)
    tensors["chain.scene_logit_scale"] = torch.ones(2)
    save_file(tensors, path, metadata)
    assert read_adapter(path).fusion is not None
    with pytest.raises(
        ValueError, match=r"missing: scene_queries.weight; unknown: surplus; misshapen: scene_logit_scale"
    ):
        loaded(tmp_path).understand(photo)
