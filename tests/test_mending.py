"""What others do to a pipeline with emotions: components replaced, copies, shared text encoders, collected pipelines,
calls within calls."""

import copy
import gc
import threading

import numpy as np
import pytest
import tiny
import torch
from diffusers import AutoPipelineForImage2Image, StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline
from transformers import CLIPTokenizer

from uniemo_pipelines import UniEmoImg2ImgPipeline, UniEmoPipeline, UniEmoXLPipeline


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def load(pipe, name="default"):
    pipe.set_progress_bar_config(disable=True)
    fusion = tiny.fusion()
    pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config), adapter_name=name)
    return pipe


@pytest.fixture
def pipe():
    return load(UniEmoPipeline(**tiny.stable_diffusion()))


def draw(pipe, *args, **kwargs):
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "output_type": "np", "generator": seeded()}
    return pipe(*args, **options | kwargs).images


def same(one, other):
    return np.array_equal(draw(one, "a <awe> cat"), draw(other, "a <awe> cat"))


def test_components_that_are_replaced_keep_the_emotion(pipe):
    expected = draw(pipe, "a <awe> cat")
    for name, part in (
        ("tokenizer", tiny.tokenizer()),
        ("text_encoder", tiny.text_encoder()),
        ("text_encoder", copy.deepcopy(pipe.text_encoder)),
        ("fusion", tiny.fusion()),
    ):
        setattr(pipe, name, part)
        assert np.array_equal(draw(pipe, "a <awe> cat"), expected), name
    pipe.unload_uniemo()
    assert "<awe>" not in pipe.tokenizer.get_vocab()
    stock = StableDiffusionPipeline(**tiny.stable_diffusion())
    assert same(pipe, stock)


def test_another_fusion_model_takes_the_adapters_place(pipe):
    other = tiny.fusion()
    other.mean.neg_()
    before = pipe.encode_prompt("<awe>", "cpu", 1, False)[0]
    pipe.fusion = other
    assert pipe.fusion is other and not torch.allclose(pipe.encode_prompt("<awe>", "cpu", 1, False)[0], before)
    with pytest.raises(ValueError, match=r"found one for \[48\]"):
        pipe.fusion = tiny.fusion((48,))
    assert pipe.fusion is other


def test_pipelines_share_a_text_encoder_though_each_has_a_tokenizer(pipe):
    other = load(UniEmoPipeline(**tiny.stable_diffusion() | {"text_encoder": pipe.text_encoder}))
    assert same(pipe, other)
    pipe.unload_uniemo()
    assert not np.array_equal(draw(other, "a <awe> cat"), draw(pipe, "a cat"))
    other.unload_uniemo()
    for one in (pipe, other):
        assert "<awe>" not in one.tokenizer.get_vocab()


def test_the_text_encoder_may_go_when_prompts_are_encoded(pipe):
    embeds, negative = pipe.encode_emotion("a cat", "awe", generator=seeded())
    expected = draw(pipe, prompt_embeds=embeds, negative_prompt_embeds=negative)
    pipe.text_encoder = pipe.tokenizer = None
    assert np.array_equal(draw(pipe, prompt_embeds=embeds, negative_prompt_embeds=negative), expected)
    with pytest.raises(ValueError, match="Expected a text encoder for emotion, found none"):
        pipe(emotion="awe")
    redraw = UniEmoImg2ImgPipeline.from_pipe(pipe)
    assert redraw.list_uniemo() == ["default"]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_goes_on_without_its_original(pipe, duplicate):
    expected, twin = draw(pipe, "a <awe> cat"), duplicate(pipe)
    sibling = UniEmoImg2ImgPipeline.from_pipe(twin)
    pipe.unload_uniemo()
    sibling.unload_uniemo()
    assert np.array_equal(draw(twin, "a <awe> cat"), expected)


def test_a_collected_pipeline_leaves_nothing_behind():
    parts = tiny.stable_diffusion()
    pipe = load(UniEmoPipeline(**parts))
    stock = StableDiffusionPipeline(**parts)
    del pipe
    gc.collect()
    assert "<awe>" not in stock.tokenizer.get_vocab()
    assert same(stock, StableDiffusionPipeline(**tiny.stable_diffusion()))


def test_the_meanings_of_a_collected_pipeline_go_with_it(pipe):
    ids = pipe.tokenizer("a <awe> cat", return_tensors="pt").input_ids
    expected = pipe.text_encoder(ids)[0]
    other = UniEmoPipeline(**pipe.components | {"fusion": None})
    fusion = tiny.fusion()
    fusion.mean.neg_()
    other.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    assert not torch.allclose(pipe.text_encoder(ids)[0], expected)
    del other
    gc.collect()
    assert torch.equal(pipe.text_encoder(ids)[0], expected)


def test_prompts_that_a_callback_encodes_are_its_own(pipe):
    expected, found = pipe.encode_prompt("a dog", "cpu", 1, False)[0], []

    def switch(pipe, step, timestep, tensors):
        found.append(pipe.encode_prompt("a dog", "cpu", 1, False)[0])
        return tensors

    draw(pipe, "a cat", emotion="awe", callback_on_step_end=switch)
    assert torch.equal(found[0], expected)


def test_one_pipeline_encodes_for_two_threads(pipe):
    def embeds(emotion):
        return pipe.encode_emotion("a cat", emotion, generator=seeded())[0]

    expected = {emotion: embeds(emotion) for emotion in ("awe", "fear")}
    found = {emotion: [] for emotion in expected}
    threads = [
        threading.Thread(target=lambda e=emotion: found[e].extend(embeds(e) for _ in range(40)))
        for emotion in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for emotion, all_found in found.items():
        assert len(all_found) == 40 and all(torch.equal(one, expected[emotion]) for one in all_found)


def test_a_textual_inversion_loaded_later_is_saved_without_our_tokens(pipe, tmp_path):
    pipe.load_textual_inversion({"<toy>": torch.randn(tiny.TEXT_WIDTH, generator=seeded())})
    expected = draw(pipe, "a <awe> <toy>")
    rows = pipe.text_encoder.get_input_embeddings().num_embeddings
    pipe.save_pretrained(tmp_path)
    assert np.array_equal(draw(pipe, "a <awe> <toy>"), expected)
    assert pipe.text_encoder.config.vocab_size == rows
    assert "<awe>" not in CLIPTokenizer.from_pretrained(tmp_path / "tokenizer").get_vocab()
    assert np.array_equal(draw(UniEmoPipeline.from_pretrained(tmp_path), "a <awe> <toy>"), expected)


def test_clip_skip_leaves_no_mark_that_lora_loading_could_take_amiss(pipe):
    draw(pipe, "a cat", clip_skip=1)
    assert not hasattr(pipe.text_encoder, "text_model")


def test_auto_pipelines_keep_adapters_and_scale(pipe):
    load(pipe, "second")
    pipe.set_uniemo_adapters(["default", "second"], [1, 2])
    pipe.set_uniemo_scale(0.5)
    made = AutoPipelineForImage2Image.from_pipe(pipe)
    assert made.get_active_uniemo() == {"default": 1, "second": 2} and made._uniemo.scale == 0.5
    assert torch.equal(*(one.encode_emotion("a cat", "awe", generator=seeded())[0] for one in (pipe, made)))


def test_auto_pipelines_take_the_stock_one_where_there_is_none_of_ours():
    pipe = UniEmoXLPipeline(**tiny.stable_diffusion_xl())
    assert type(AutoPipelineForImage2Image.from_pipe(pipe)) is StableDiffusionXLImg2ImgPipeline


def test_switching_adapters_keeps_the_pipelines_type(pipe):
    load(pipe, "second")
    pipe.to(torch.bfloat16)
    pipe.set_uniemo_adapters("default")
    assert pipe.fusion.dtype == torch.bfloat16


def test_conditions_for_one_token_leave_the_others_samples_alone(pipe):
    options = {"num_inference_steps": 1, "output_type": "latent"}
    free = pipe("a <awe> <fear>", generator=seeded(), **options).conditions
    with pipe.emotion_conditions({"<awe>": free["<awe>"]}):
        bound = pipe("a <awe> <fear>", generator=seeded(), **options).conditions
    assert set(bound) == {"<fear>"} and torch.equal(bound["<fear>"], free["<fear>"])


def test_per_image_conditions_go_with_a_scale(pipe):
    free = pipe("a <awe> x", generator=seeded(), num_images_per_prompt=2, num_inference_steps=1).conditions
    half = pipe.encode_emotion("a <awe> x", emotion_scale=0.5, num_images_per_prompt=2, generator=seeded())[0]
    with pipe.emotion_conditions(free):
        again = pipe.encode_emotion("a <awe> x", emotion_scale=0.5, num_images_per_prompt=2)[0]
    torch.testing.assert_close(half, again)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda pipe: pipe("a cat", emotoin="awe"), TypeError, "'emotoin'. Did you mean 'emotion'?"),
        (lambda pipe: pipe(emotion=[]), ValueError, "at least one prompt or emotion"),
        (lambda pipe: pipe(emotion="awe", emotion_scale="1"), TypeError, "a number as emotion_scale, found '1'"),
        (lambda pipe: pipe.set_uniemo_scale(None), TypeError, "a number as scale"),
        (lambda pipe: pipe(emotion={"awe": 1e39, "fear": -1}), ValueError, "weight of 'fear'"),
        (lambda pipe: pipe.encode_emotion([], "awe"), ValueError, "Expected a prompt or a list"),
        (lambda pipe: pipe.encode_emotion("a", "awe", prompt_embeds=1), TypeError, "'prompt_embeds'"),
        (lambda pipe: pipe.load_uniemo("x/y", adapter_nmae="b"), TypeError, "'adapter_nmae'"),
        (lambda pipe: pipe.load_uniemo("../nowhere", adapter_name="b"), FileNotFoundError, "found nothing at"),
        (lambda pipe: pipe.emotion_conditions(None).__enter__(), TypeError, "conditions by token, found None"),
        (
            lambda pipe: pipe("a", negative_emotion="awe", negative_prompt_embeds=torch.zeros(1, 77, 32)),
            ValueError,
            "negative_emotion or negative_prompt_embeds, found both",
        ),
    ],
)
def test_more_bad_calls_are_refused(pipe, call, error, message):
    with pytest.raises(error, match=message.replace("?", r"\?")):
        call(pipe)


def test_huge_weights_are_weights(pipe):
    assert np.isfinite(draw(pipe, emotion={"awe": 1e39, "fear": 1e39})).all()


def test_a_state_dict_stays_its_owners():
    fusion, pipe = tiny.fusion(), UniEmoPipeline(**tiny.stable_diffusion())
    pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    expected = draw(pipe, "a <awe> cat")
    for parameter in fusion.parameters():
        parameter.zero_()
    assert np.array_equal(draw(pipe, "a <awe> cat"), expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mean", torch.full((8, 3, tiny.FEATURES), torch.nan), "mean with NaN or infinity"),
        ("mean", torch.zeros(8, 3, tiny.FEATURES, dtype=torch.long), "mean with numbers of type torch.int64"),
        ("bank_neighbours", torch.full((8, 6, 4), 99), "bank_neighbours with what are no indices"),
        ("mean", [1, 2], "Expected tensors, found others in the state dict: mean"),
    ],
)
def test_tensors_that_would_only_fail_later_are_refused(key, value, message):
    fusion, pipe = tiny.fusion(), UniEmoPipeline(**tiny.stable_diffusion())
    with pytest.raises(ValueError, match=message):
        pipe.load_uniemo(fusion.state_dict() | {key: value}, config=dict(fusion.config))
    assert pipe.list_uniemo() == []
