"""UniEmo on Stable Diffusion XL: two text encoders of unequal widths, pooled embeddings, a second prompt."""

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionXLPipeline

from uniemo_pipelines import UniEmoPipeline, UniEmoXLPipeline

CLOSE = {"atol": 1e-4, "rtol": 0}
WIDTHS = (tiny.TEXT_WIDTH, tiny.SECOND_TEXT_WIDTH)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def run(pipe, *args, seed=0, **kwargs):
    return pipe(*args, **{"num_inference_steps": 2, "output_type": "np", "generator": seeded(seed)} | kwargs)


@pytest.fixture
def stock():
    pipe = StableDiffusionXLPipeline(**tiny.stable_diffusion_xl())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(stock):
    made = UniEmoXLPipeline.from_pipe(stock)
    made.set_progress_bar_config(disable=True)
    fusion = tiny.fusion(WIDTHS)
    made.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    return made


def test_without_an_emotion_images_are_the_stock_ones_to_the_bit(stock, pipe):
    calls = [
        {"prompt": "a cat"},
        {"prompt": "a cat", "prompt_2": "a dog", "negative_prompt": "x", "negative_prompt_2": "y"},
        {"prompt": ["a cat", "a dog"], "guidance_scale": 1.0, "clip_skip": 1},
    ]
    images = [run(pipe, **call).images for call in calls]
    pipe.unload_uniemo()
    for found, call in zip(images, calls, strict=True):
        assert np.array_equal(found, run(stock, **call).images)
    assert "<awe>" not in stock.tokenizer.get_vocab() and "<awe>" not in stock.tokenizer_2.get_vocab()


def test_both_text_encoders_get_their_condition(pipe):
    result = run(pipe, "a cat", emotion="awe")
    first, second = result.conditions["<emotion>"]
    assert first.shape == (1, WIDTHS[0]) and second.shape == (1, WIDTHS[1])
    assert result.attributes[0]["<emotion>"]["emotion"] == {"awe": 1.0}
    with pipe.emotion_conditions(result.conditions):
        again = run(pipe, "<emotion> a cat").images
        without_first = {"<emotion>": (torch.zeros_like(first), second)}
        with pipe.emotion_conditions(without_first):
            first_gone = run(pipe, "<emotion> a cat").images
        with pipe.emotion_conditions({"<emotion>": (first, torch.zeros_like(second))}):
            second_gone = run(pipe, "<emotion> a cat").images
    assert np.array_equal(result.images, again)
    assert not np.allclose(again, first_gone, **CLOSE) and not np.allclose(again, second_gone, **CLOSE)
    (images,) = run(pipe, "a cat", emotion="awe", return_dict=False)
    assert np.array_equal(images, result.images)


def test_pooled_embeddings_take_part(pipe):
    bare = pipe.encode_emotion("a cat", generator=seeded())[2]
    whole = pipe.encode_emotion("a cat", "awe", generator=seeded())[2]
    half = pipe.encode_emotion("a cat", "awe", emotion_scale=0.5, generator=seeded())[2]
    assert not torch.allclose(bare, whole)
    torch.testing.assert_close(half, (bare + whole) / 2)


def test_on_the_way_to_the_emotion_each_text_encoder_keeps_its_own_words(pipe):
    """The slot stands third in the first encoder's prompt and second in the other's."""
    prompts = {"prompt": "a <awe> cat", "prompt_2": "<awe> dog"}
    start = pipe.encode_emotion(**prompts, emotion_scale=1e-6, generator=seeded())[0]
    bare = pipe.encode_emotion(**prompts, emotion_scale=0.0)[0]
    for part, slot in zip((slice(WIDTHS[0]), slice(WIDTHS[0], None)), (2, 1), strict=True):
        torch.testing.assert_close(start[:, slot + 1 :, part], bare[:, slot:-1, part], atol=1e-4, rtol=0)


def test_the_second_prompt_shares_the_emotion(pipe):
    def embeds(**kwargs):
        return pipe.encode_emotion("a <awe> cat", generator=seeded(), **kwargs)[0]

    assert torch.equal(embeds(), embeds(prompt_2="a <awe> cat"))
    assert not torch.allclose(embeds(), embeds(prompt_2="a <fear> cat"))
    slot = pipe.encode_emotion("a <emotion> cat", "awe", prompt_2="a dog", generator=seeded())[0]
    in_front = pipe.encode_emotion("a <emotion> cat", "awe", prompt_2="<emotion> a dog", generator=seeded())[0]
    assert torch.equal(slot, in_front)


def test_negatives_are_zero_only_where_stock_makes_them_so(pipe):
    _, zero, _, pooled = pipe.encode_emotion(emotion="awe", generator=seeded())
    assert not zero.any() and not pooled.any()
    for asked in ({"negative_prompt": "dog"}, {"negative_emotion": "fear"}, {"negative_prompt": ""}):
        _, negative, _, pooled = pipe.encode_emotion(emotion="awe", generator=seeded(), **asked)
        assert negative.any() and pooled.any()
    stock = super(UniEmoXLPipeline, pipe).encode_prompt("a cat", negative_prompt="dog", device="cpu")
    _, negative, _, pooled = pipe.encode_emotion("a cat", "awe", negative_prompt="dog")
    torch.testing.assert_close([negative, pooled], [stock[1], stock[3]])


def test_an_image_does_not_depend_on_its_batch(pipe):
    generators = [seeded(seed) for seed in range(4)]
    images = run(pipe, ["a cat", "a dog"], emotion="awe", num_images_per_prompt=2, generator=generators).images
    for k in range(4):
        single = run(pipe, ["a cat", "a dog"][k // 2], emotion="awe", seed=k).images
        np.testing.assert_allclose(images[k], single[0], **CLOSE)


def test_embeddings_serve_the_stock_pipeline(stock, pipe):
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = pipe.encode_emotion("a cat", "awe", negative_emotion="fear", generator=seeded())
    images = run(stock, **dict(zip(names, embeds, strict=True))).images
    assert np.array_equal(images, run(pipe, "a cat", emotion="awe", negative_emotion="fear").images)


def test_it_is_saved_and_loaded(pipe, tmp_path):
    images = run(pipe, "a cat", emotion="awe").images
    pipe.save_pretrained(tmp_path / "whole")
    pipe.save_uniemo(tmp_path)
    assert np.array_equal(
        images, run(UniEmoXLPipeline.from_pretrained(tmp_path / "whole"), "a cat", emotion="awe").images
    )
    pipe.unload_uniemo()
    pipe.load_uniemo(tmp_path)
    assert np.array_equal(images, run(pipe, "a cat", emotion="awe").images)


def test_an_adapter_for_one_text_encoder_is_refused(stock):
    pipe, fusion = UniEmoXLPipeline.from_pipe(stock), tiny.fusion()
    with pytest.raises(ValueError, match=r"widths \[32, 48\], found one for \[32\]"):
        pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    two = tiny.fusion(WIDTHS)
    one = UniEmoPipeline(**tiny.stable_diffusion())
    with pytest.raises(ValueError, match=r"widths \[32\], found one for \[32, 48\]"):
        one.load_uniemo(two.state_dict(), config=dict(two.config))


def test_conditions_for_one_text_encoder_are_refused(pipe):
    with pytest.raises(ValueError, match="Expected 2 conditions for <awe>, one a text encoder, found 1"):
        with pipe.emotion_conditions({"<awe>": torch.zeros(32)}):
            pass


def test_a_textual_inversion_on_the_second_tokenizer_leaves_the_first_alone(stock):
    stock.tokenizer_2.add_tokens("<awe>")
    stock.text_encoder_2.resize_token_embeddings(len(stock.tokenizer_2))
    pipe, fusion = UniEmoXLPipeline.from_pipe(stock), tiny.fusion(WIDTHS)
    with pytest.raises(ValueError, match="textual inversions"):
        pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    assert pipe.list_uniemo() == [] and pipe.fusion is None and "<awe>" not in stock.tokenizer.get_vocab()
