"""Several adapters on one pipeline: names, weights, deleting, disabling; clip_skip; threads."""

import threading

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging

from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.fusion_uniemo import UniEmoFusionModel


def other_fusion() -> UniEmoFusionModel:
    """A second adapter's, with mappers and an emotion space of its own."""
    fusion = tiny.fusion()
    torch.manual_seed(7)
    for tensor in (*fusion.mappers.parameters(), fusion.mean, fusion.bank):
        tensor.data = torch.randn_like(tensor)
    return fusion


@pytest.fixture
def pipe():
    made = UniEmoPipeline(**tiny.stable_diffusion())
    made.set_progress_bar_config(disable=True)
    load(made, tiny.fusion(), "a")
    load(made, other_fusion(), "b")
    return made


def load(pipe, fusion, name):
    pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config), adapter_name=name)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def condition(pipe, **kwargs):
    asked = {"emotion": "awe", "generator": seeded(), "num_inference_steps": 1, "output_type": "latent"}
    return pipe(**asked | kwargs).conditions["<emotion>"]


def mean(pipe):
    return pipe.encode_prompt("a <awe> cat", "cpu", 1, False)[0]


def test_the_last_one_loaded_is_active(pipe):
    assert pipe.list_uniemo() == ["a", "b"] and pipe.get_active_uniemo() == {"b": 1.0}
    second, second_mean = condition(pipe), mean(pipe)
    pipe.set_uniemo_adapters("a")
    assert not torch.allclose(condition(pipe), second) and not torch.allclose(mean(pipe), second_mean)
    alone = UniEmoPipeline(**tiny.stable_diffusion())
    load(alone, tiny.fusion(), "a")
    assert torch.equal(condition(pipe), condition(alone)) and torch.equal(mean(pipe), mean(alone))


def test_weights_mix_what_each_gives_alone(pipe):
    alone, means = {}, {}
    for name in ("a", "b"):
        pipe.set_uniemo_adapters(name)
        alone[name], means[name] = condition(pipe), pipe._pseudo_tokens[0].defaults["<awe>"]
    pipe.set_uniemo_adapters(["a", "b"], [3.0, 1.0])
    torch.testing.assert_close(condition(pipe), 0.75 * alone["a"] + 0.25 * alone["b"])
    torch.testing.assert_close(pipe._pseudo_tokens[0].defaults["<awe>"], 0.75 * means["a"] + 0.25 * means["b"])
    pipe.set_uniemo_adapters(["a", "b"], [0, 2.0])
    assert torch.equal(condition(pipe), alone["b"]) and pipe.get_active_uniemo() == {"b": 2.0}
    pipe.set_uniemo_adapters(["a", "b"])
    torch.testing.assert_close(condition(pipe), (alone["a"] + alone["b"]) / 2)


def test_a_mixture_is_explained_by_its_heaviest(pipe):
    pipe.set_uniemo_adapters(["a", "b"], [1, 2])
    mixed = pipe(emotion="awe", generator=seeded(), num_inference_steps=1).attributes
    pipe.set_uniemo_adapters("b")
    assert mixed == pipe(emotion="awe", generator=seeded(), num_inference_steps=1).attributes


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ("c", None, r"loaded adapters \(a, b\), found c"),
        (["a", "b"], [1.0], "2 adapter_weights.*found 1"),
        (["a", "b"], [1.0, -1.0], "at least 0"),
        (["a", "b"], [0.0, 0.0], "one of the adapter_weights above 0"),
        ("a", float("nan"), "finite"),
    ],
)
def test_weights_that_make_no_sense_are_refused(pipe, names, weights, message):
    with pytest.raises(ValueError, match=message):
        pipe.set_uniemo_adapters(names, weights)
    assert pipe.get_active_uniemo() == {"b": 1.0}


def test_deleting(pipe):
    first = condition_of(pipe, "a")
    pipe.set_uniemo_adapters("b")
    with pytest.raises(ValueError, match="found c"):
        pipe.delete_uniemo("c")
    pipe.delete_uniemo("b")
    assert pipe.list_uniemo() == ["a"] and torch.equal(condition(pipe), first)
    pipe.delete_uniemo("a")
    assert pipe.list_uniemo() == [] and pipe.fusion is None and "<awe>" not in pipe.tokenizer.get_vocab()


def condition_of(pipe, name):
    pipe.set_uniemo_adapters(name)
    return condition(pipe)


def test_disabled_emotions_leave_the_prompt_bare(pipe):
    def images(*args, **kwargs):
        return pipe(*args, **{"generator": seeded(), "num_inference_steps": 2, "output_type": "np"} | kwargs).images

    active = images("a <awe> cat")
    bare = images("a cat")
    assert not np.array_equal(active, bare)
    pipe.disable_uniemo()
    assert np.array_equal(bare, images("a <awe> cat"))
    assert np.array_equal(bare, images("a cat", emotion="awe", negative_emotion="fear"))
    assert np.array_equal(bare, images("a cat", negative_prompt="<fear>"))
    assert torch.equal(mean(pipe), pipe.encode_prompt("a cat", "cpu", 1, False)[0])
    pipe.enable_uniemo()
    assert np.array_equal(active, images("a <awe> cat"))


def test_each_is_saved_by_its_name(pipe, tmp_path, caplog):
    expected = {name: condition_of(pipe, name) for name in ("a", "b")}
    for name in ("a", "b"):
        pipe.save_uniemo(tmp_path / name, adapter_name=name)
    logging.enable_propagation()
    pipe.save_pretrained(tmp_path / "whole")
    logging.disable_propagation()
    assert "one adapter of several" in caplog.text
    pipe.unload_uniemo()
    for name in ("a", "b"):
        pipe.load_uniemo(tmp_path / name, adapter_name=name)
        assert torch.equal(condition(pipe), expected[name])
    assert torch.equal(condition(UniEmoPipeline.from_pretrained(tmp_path / "whole")), expected["b"])


def test_each_has_its_own_understanding_model(pipe, tmp_path):
    tiny.save_understanding(tmp_path / "understanding")
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=tmp_path / "understanding")
    pipe.load_uniemo(tmp_path, adapter_name="c")
    assert pipe.understanding_model.config.model_type == "uniemo"
    pipe.set_uniemo_adapters("a")
    with pytest.raises(ValueError, match="names its understanding model"):
        _ = pipe.understanding_model


def test_a_second_pipeline_on_the_same_text_encoder_keeps_its_own_meanings(pipe):
    pipe.delete_uniemo("b")
    own = mean(pipe)
    other = UniEmoPipeline(**pipe.components | {"fusion": None})
    load(other, other_fusion(), "b")
    assert torch.equal(mean(pipe), own) and not torch.allclose(mean(other), own)


def test_clip_skip_is_repaired(pipe):
    """Stock Stable Diffusion's fails with this version of transformers."""
    pipe.unload_uniemo()
    encoder, ids = pipe.text_encoder, pipe.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    hidden = encoder(ids, output_hidden_states=True).hidden_states[-2]
    skipped, _ = pipe.encode_prompt("a cat", "cpu", 1, False, clip_skip=1)
    assert torch.equal(skipped, encoder.final_layer_norm(hidden))
    load(pipe, tiny.fusion(), "a")
    with_emotion = pipe.encode_emotion("a <awe> cat", generator=seeded(), clip_skip=1)[0]
    assert not torch.allclose(with_emotion, skipped)
    assert torch.equal(pipe.encode_emotion("a <awe> cat", emotion_scale=0.0, clip_skip=1)[0], skipped)


def test_threads_do_not_mix_up_conditions(pipe):
    """Two pipelines on one text encoder, each in its thread, with different adapters and numbers of prompts."""
    pipe.delete_uniemo("b")
    other = UniEmoPipeline(**pipe.components | {"fusion": None})
    load(other, other_fusion(), "b")
    asked = {"a": (pipe, ["a <awe> cat"]), "b": (other, ["a <awe> dog, far away", "<fear>"])}

    def encode(name, seed):
        own, prompts = asked[name]
        return own.encode_emotion(prompts, generator=seeded(seed))[0]

    expected = {name: [encode(name, seed) for seed in range(40)] for name in asked}
    found = {name: [] for name in asked}
    started = threading.Barrier(2)

    def work(name):
        started.wait()
        found[name] += [encode(name, seed) for seed in range(40)]

    threads = [threading.Thread(target=work, args=(name,)) for name in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in asked:
        assert len(found[name]) == 40
        assert all(torch.equal(a, b) for a, b in zip(expected[name], found[name], strict=True))


def test_stock_images_come_back_when_all_are_unloaded(pipe):
    pipe.unload_uniemo()
    call = {"prompt": "a <awe> cat", "num_inference_steps": 2, "output_type": "np"}
    stock = StableDiffusionPipeline(**tiny.stable_diffusion())
    assert np.array_equal(pipe(generator=seeded(), **call).images, stock(generator=seeded(), **call).images)
