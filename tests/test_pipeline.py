"""UniEmoPipeline and its adapter files, on tiny random models."""

import pickle

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer, CLIPVisionModel

from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter, write_adapter
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.planning_uniemo import sample_generators

CLOSE = {"atol": 1e-4, "rtol": 0}  # images in [0, 1] at another batch size


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(pipe, *args, seed=0, **kwargs):
    """The images as an array, two steps."""
    return output(pipe, *args, seed=seed, **kwargs).images


def output(pipe, *args, seed=0, **kwargs):
    kwargs = {"num_inference_steps": 2, "output_type": "np", "generator": seeded(seed)} | kwargs
    return pipe(*args, **kwargs)


@pytest.fixture
def stock():
    pipe = StableDiffusionPipeline(**tiny.stable_diffusion())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(stock):
    """A pipeline on the stock one's components, with an adapter."""
    made = UniEmoPipeline.from_pipe(stock)
    made.set_progress_bar_config(disable=True)
    fusion = tiny.fusion()
    made.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    return made


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    tiny.save_understanding(folder / "understanding")
    write_adapter(folder / ADAPTER_NAME, tiny.fusion(), "some/base", folder / "understanding")
    return folder


@pytest.fixture(scope="module")
def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# ------------------------------------------------------------------------------------------------ the stock promise


def test_without_an_emotion_images_are_the_stock_ones_to_the_bit(stock, pipe):
    calls = [
        {"prompt": "a cat"},
        {"prompt": ["a cat", "a dog"], "negative_prompt": ["x", "y"], "num_images_per_prompt": 2},
        {"prompt": "a cat", "guidance_scale": 1.0, "negative_prompt": "dog"},
    ]
    loaded = [draw(pipe, **call) for call in calls]
    pipe.unload_uniemo()
    for images, call in zip(loaded, calls, strict=True):
        assert np.array_equal(images, draw(stock, **call))
        assert np.array_equal(images, draw(pipe, **call))


def test_unloading_leaves_nothing_behind(stock, pipe, tmp_path):
    draw(pipe, "a <awe> cat")
    pipe.unload_uniemo()
    fresh = tiny.stable_diffusion()
    assert stock.tokenizer.get_vocab() == fresh["tokenizer"].get_vocab()
    assert pipe.list_uniemo() == [] and pipe.fusion is None and pipe.config.fusion == (None, None)
    assert np.array_equal(draw(pipe, "a <awe> cat"), draw(StableDiffusionPipeline(**fresh), "a <awe> cat"))


def test_outputs_keep_the_stock_order(pipe):
    result = output(pipe, emotion="awe")
    assert isinstance(result, StableDiffusionPipelineOutput) and np.array_equal(result[0], result.images)
    images, nsfw = output(pipe, emotion="awe", return_dict=False)
    assert np.array_equal(images, result.images) and nsfw is None
    assert output(pipe, "a cat").conditions is None and output(pipe, "a cat").attributes is None


# ----------------------------------------------------------------------------------------------------- the emotion


def test_argument_token_and_slot_say_the_same(pipe):
    images = draw(pipe, emotion="awe")
    assert np.array_equal(images, draw(pipe, "<awe>"))
    assert np.array_equal(images, draw(pipe, "<emotion>", emotion={"awe": 2.0}))
    assert np.array_equal(images, draw(pipe, "<awe>", emotion="awe"))
    in_front = draw(pipe, "a cat", emotion="awe")
    assert np.array_equal(in_front, draw(pipe, "<awe> a cat"))
    assert not np.allclose(images, in_front, **CLOSE)
    assert not np.allclose(images, draw(pipe, emotion="fear"), **CLOSE)


def test_several_tokens_have_their_own_conditions(pipe):
    result = output(pipe, "<fear> and <awe> and <emotion>", emotion={"anger": 0.5, "sadness": 0.5})
    assert set(result.conditions) == {"<emotion>", "<awe>", "<fear>"}
    assert result.attributes[0]["<emotion>"]["emotion"] == {"anger": 0.5, "sadness": 0.5}
    rows = torch.cat(list(result.conditions.values()))
    assert torch.pdist(rows).min() > 0.1


def test_attributes_explain_the_condition(pipe):
    [attributes] = output(pipe, emotion="awe").attributes
    found = attributes["<emotion>"]
    assert found["scene"] in tiny.SCENES and found["object"] in tiny.OBJECTS and found["emotion"] == {"awe": 1.0}
    row = pipe.fusion.scene_coefficients[tiny.SCENES.index(found["scene"])]
    assert found["scene_coefficient"] == pytest.approx(row[EMOTIONS.index("awe")].item())


def test_a_list_of_emotions_goes_over_the_batch(pipe):
    generators = [seeded(i) for i in range(2)]
    images = draw(pipe, ["a cat", "a dog"], emotion=["awe", None], generator=generators)
    np.testing.assert_allclose(images[:1], draw(pipe, "a cat", emotion="awe", seed=0), **CLOSE)
    np.testing.assert_allclose(images[1:], draw(pipe, "a dog", seed=1), **CLOSE)
    one_prompt = draw(pipe, "a cat", emotion=["awe", "fear"], generator=[seeded(i) for i in range(2)])
    np.testing.assert_allclose(one_prompt[1:], draw(pipe, "a cat", emotion="fear", seed=1), **CLOSE)


def test_conditions_given_back_make_the_images_again(pipe):
    result = output(pipe, "a <fear> cat", emotion_variation=1.0, num_images_per_prompt=2)
    with pipe.emotion_conditions(result.conditions):
        again = draw(pipe, "a <fear> cat", emotion_variation=0.0, num_images_per_prompt=2)
    assert np.array_equal(result.images, again)


def test_negative_emotion_leads_away(stock, pipe):
    plain = draw(pipe, "a cat")
    away = draw(pipe, "a cat", negative_emotion="fear")
    assert not np.allclose(plain, away, **CLOSE)
    np.testing.assert_allclose(away, draw(pipe, "a cat", negative_prompt="<fear>"), **CLOSE)
    assert np.array_equal(
        draw(pipe, "a cat", negative_emotion="fear", guidance_scale=1.0), draw(pipe, "a cat", guidance_scale=1.0)
    )


def test_scales_and_variation_act_on_the_condition(pipe):
    def condition(**kwargs):
        return output(pipe, emotion="awe", **kwargs).conditions["<emotion>"]

    full = condition()
    assert not torch.allclose(full, condition(scene_scale=0.0)) and not torch.allclose(
        full, condition(object_scale=0.0)
    )
    means = [condition(emotion_variation=0.0, seed=seed) for seed in (1, 2)]
    assert torch.equal(*means) and not torch.allclose(full, means[0])


def test_emotion_scale_goes_from_the_bare_prompt_to_the_whole_and_beyond(stock, pipe):
    def embeds(scale):
        return pipe.encode_emotion("a <awe> cat", emotion_scale=scale, generator=seeded())[0]

    bare, little, half, whole, beyond = (embeds(scale) for scale in (0.0, 1e-6, 0.5, 1.0, 1.5))
    torch.testing.assert_close(beyond - whole, whole - half)
    torch.testing.assert_close(half, (little + whole) / 2)
    # A word stays itself on the way: behind the slot it starts as the bare prompt's one place before.
    slot = 2
    torch.testing.assert_close(little[:, :slot], bare[:, :slot], atol=1e-4, rtol=0)
    torch.testing.assert_close(little[:, slot + 1 :], bare[:, slot:-1], atol=1e-4, rtol=0)
    dropped = draw(pipe, "a <awe> cat", emotion_scale=0.0)
    assert np.array_equal(dropped, draw(pipe, "a cat"))
    pipe.set_uniemo_scale(0.5)
    assert torch.equal(embeds(1.0), half)


def test_outside_a_call_a_token_means_the_mean(pipe):
    bare, _ = pipe.encode_prompt("a <awe> cat", "cpu", 1, False)
    mean, _ = pipe.encode_emotion("a <awe> cat", emotion_variation=0.0, do_classifier_free_guidance=False)
    torch.testing.assert_close(bare, mean)


def test_encode_emotion_serves_a_stock_pipeline(stock, pipe):
    asked = {"emotion": "awe", "negative_emotion": "fear", "negative_prompt": "dog", "num_images_per_prompt": 2}
    embeds, negative = pipe.encode_emotion("a cat", generator=seeded(), **asked)
    images = draw(stock, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert np.array_equal(images, draw(pipe, "a cat", **asked))


# -------------------------------------------------------------------------------------------------- the generator


def test_an_image_does_not_depend_on_its_batch(pipe):
    prompts = ["a <awe> cat", "<fear> and <sadness>"]
    generators = [seeded(seed) for seed in range(4)]
    images = draw(pipe, prompts, num_images_per_prompt=2, generator=generators)
    for k, seed in enumerate(range(4)):
        np.testing.assert_allclose(images[k : k + 1], draw(pipe, prompts[k // 2], seed=seed), **CLOSE)


def test_each_image_of_a_prompt_has_its_own_sample(pipe):
    conditions = output(pipe, emotion="awe", num_images_per_prompt=3).conditions["<emotion>"]
    assert torch.pdist(conditions).min() > 0
    torch.testing.assert_close(conditions[:1], output(pipe, emotion="awe").conditions["<emotion>"])


def test_sampling_leaves_the_noise_to_the_generator(pipe):
    """The latents are those of a call without an emotion, and the global random state is not touched."""
    own, plain = seeded(), seeded()
    state = torch.get_rng_state()
    pipe(emotion="awe", generator=own, num_inference_steps=1, output_type="latent")
    pipe("a cat", generator=plain, num_inference_steps=1, output_type="latent")
    assert torch.equal(own.get_state(), plain.get_state()) and torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    first = draw(pipe, emotion="awe", generator=None)
    torch.manual_seed(5)
    assert np.array_equal(first, draw(pipe, emotion="awe", generator=None))


def test_one_generator_named_twice_gives_two_samples():
    shared = seeded()
    first, second = (g.initial_seed() for g in sample_generators([shared, shared], 2, torch.device("cpu")))
    assert first != second


# ------------------------------------------------------------------------------------------- images as emotions


def test_an_image_is_understood_and_evokes_another(stock, adapter_folder, photo, tmp_path):
    pipe = UniEmoPipeline.from_pipe(stock)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_uniemo(adapter_folder)
    draw(pipe, emotion="awe")
    assert pipe._uniemo.main.model is None, "generation alone must not fetch the understanding model"
    [found] = pipe.understand(photo, top_k=2, attention_maps=True)
    assert found.label == max(found.probabilities, key=found.probabilities.get)
    assert list(found.probabilities) == list(EMOTIONS) and sum(found.probabilities.values()) == pytest.approx(1)
    assert len(found.scenes) == 2 and found.scenes[0][1] >= found.scenes[1][1] and found.scenes[0][0] in tiny.SCENES
    assert found.scene_attention.shape == (4, 4) and 0 < found.object_attention.sum() < 1
    result = output(pipe, emotion_image=photo, num_images_per_prompt=2)
    attributes = result.attributes[0]["<emotion>"]
    assert attributes["emotion"] == pytest.approx(found.probabilities)
    assert torch.equal(*result.conditions["<emotion>"])
    photo.save(tmp_path / "photo.png")
    from_path = output(pipe, "a cat", emotion_image=[tmp_path / "photo.png"])
    torch.testing.assert_close(from_path.conditions["<emotion>"], result.conditions["<emotion>"][:1])


def test_without_an_understanding_model_the_way_out_is_named(pipe, photo):
    with pytest.raises(ValueError, match="set pipe.understanding_model"):
        pipe(emotion_image=photo)
    pipe.understanding_model = tiny.understanding()
    assert output(pipe, emotion_image=photo).conditions["<emotion>"].shape == (1, tiny.TEXT_WIDTH)


def test_an_understanding_model_of_another_kind_is_refused(stock, tmp_path):
    """Its missing parts would be drawn at random."""
    CLIPVisionModel(tiny.understanding().config.vision_config).save_pretrained(tmp_path / "clip")
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=tmp_path / "clip")
    pipe = UniEmoPipeline.from_pipe(stock)
    pipe.load_uniemo(tmp_path)
    with pytest.raises(ValueError, match="'uniemo'.*found 'clip_vision_model'"):
        _ = pipe.understanding_model


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ("a <emotion> cat", {}, "fill <emotion>"),
        ("a cat", {"negative_prompt": "<emotion>"}, "<emotion>, found none"),
        ("a <fear> cat", {"emotion": "awe"}, "to agree, found <fear>"),
        (None, {"emotion": "aww"}, "Did you mean 'awe'"),
        (["a", "b"], {"emotion": ["awe"]}, "2 entries in emotion"),
        (None, {"emotion": "awe", "emotion_image": "x.png"}, "found both"),
        (None, {"emotion": "awe", "emotion_scale": -1}, "emotion_scale of at least 0, found -1"),
        (None, {"emotion": "awe", "emotion_variation": 2}, "from 0 to 1, found 2"),
        (None, {"emotion": "awe", "generator": [seeded()] * 3}, "one generator or 1"),
        (None, {"emotion": "awe", "prompt_embeds": torch.zeros(1, 77, 32)}, "encode_emotion"),
    ],
)
def test_bad_calls_are_refused(pipe, prompt, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(prompt, **arguments)
    assert draw(pipe, "a cat").shape == (1, 32, 32, 3), "the next call is not affected"


def test_a_misspelt_token_is_named_and_the_image_is_stock(stock, pipe, caplog):
    logging.enable_propagation()
    images = draw(pipe, "a <amusment> cat")
    logging.disable_propagation()
    assert "'<amusement>'?" in caplog.text
    assert np.array_equal(images, draw(stock, "a <amusment> cat"))


def test_an_emotion_without_an_adapter_is_refused(stock):
    pipe = UniEmoPipeline.from_pipe(stock)
    for ask in (lambda: pipe(emotion="awe"), lambda: pipe.save_uniemo("x"), pipe.unload_uniemo):
        with pytest.raises(ValueError, match=r"call load_uniemo\(...\) first"):
            ask()


def test_an_adapter_of_another_width_is_refused_and_leaves_no_trace(stock):
    pipe, fusion = UniEmoPipeline.from_pipe(stock), tiny.fusion((48,))
    with pytest.raises(ValueError, match=r"\[32\], found one for \[48\]"):
        pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    two = tiny.fusion((32, 48))
    with pytest.raises(ValueError, match=r"\[32\], found one for \[32, 48\]"):
        pipe.load_uniemo(two.state_dict(), config=dict(two.config))
    assert pipe.list_uniemo() == [] and "<awe>" not in stock.tokenizer.get_vocab()


# --------------------------------------------------------------------------------------------------- adapter files


def test_an_adapter_survives_saving_and_loading(stock, adapter_folder, tmp_path):
    pipe = UniEmoPipeline.from_pipe(stock)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_uniemo(adapter_folder / ADAPTER_NAME, adapter_name="mine")
    assert pipe.list_uniemo() == ["mine"]
    images = draw(pipe, emotion="awe")
    with pytest.raises(ValueError, match="found 'mine', which is loaded"):
        pipe.load_uniemo(adapter_folder, adapter_name="mine")
    saved = pipe.save_uniemo(tmp_path / "copy")
    pipe.unload_uniemo()
    pipe.load_uniemo(tmp_path / "copy")
    assert np.array_equal(images, draw(pipe, emotion="awe"))
    adapter = read_adapter(saved)
    assert adapter.base_model == "some/base" and adapter.understanding == str(adapter_folder / "understanding")
    assert list(saved.parent.iterdir()) == [saved], "no partial file stays"


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_adapter(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_damaged_and_foreign_files_are_refused(adapter_folder, tmp_path):
    data = (adapter_folder / ADAPTER_NAME).read_bytes()
    for size in (0, 5, 2000, len(data) - 10):
        (tmp_path / "cut.safetensors").write_bytes(data[:size])
        refused(tmp_path / "cut.safetensors", "cut short or damaged")
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.ones(1)}, tmp_path / "torch.safetensors")
    for name in ("pickle", "torch"):
        refused(tmp_path / f"{name}.safetensors", "found a pickle")
    save_file({"lora": torch.ones(1)}, tmp_path / "lora.safetensors")
    refused(tmp_path / "lora.safetensors", "no UniEmo adapter")
    save_file({"a": torch.ones(1)}, tmp_path / "new.safetensors", {"format_version": "2", "configuration": "{}"})
    refused(tmp_path / "new.safetensors", "format version 1, found format version 2")
    for configuration, chain in (("{", ""), ("[]", ""), ("{}", "{"), ("{}", '{"clip": "x"}')):
        metadata = {"format_version": "1", "configuration": configuration, "chain": chain}
        save_file({"a": torch.ones(1)}, tmp_path / "header.safetensors", metadata)
        refused(tmp_path / "header.safetensors", "Expected a whole header")
    metadata = {"format_version": "1", "configuration": '{"bank_size": null}'}
    save_file({"a": torch.ones(1)}, tmp_path / "size.safetensors", metadata)
    refused(tmp_path / "size.safetensors", "one that fails")


def test_all_tensors_that_do_not_fit_are_listed(stock):
    fusion = tiny.fusion()
    tensors = fusion.state_dict()
    tensors["surplus"] = tensors.pop("mean")
    del tensors["std"]
    tensors["scene_base"] = tensors["scene_base"][:1]
    pipe = UniEmoPipeline.from_pipe(stock)
    with pytest.raises(ValueError, match=r"missing mean; missing std; unknown surplus; scene_base of shape \(1, 8\)"):
        pipe.load_uniemo(tensors, config=dict(fusion.config))
    with pytest.raises(ValueError, match="unknown|found also \\['colour'\\]"):
        pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config) | {"colour": 1})
    with pytest.raises(ValueError, match="give config"):
        pipe.load_uniemo(fusion.state_dict())


def test_a_place_with_no_adapter_is_named(stock, tmp_path):
    pipe = UniEmoPipeline.from_pipe(stock)
    for place in (tmp_path, tmp_path / "nothing.safetensors", "./nothing/at/all"):
        with pytest.raises(FileNotFoundError, match="Expected an adapter"):
            pipe.load_uniemo(place)


def test_half_precision_adapters_load_onto_the_bases_own_type(stock, adapter_folder, tmp_path, caplog):
    fusion = read_adapter(adapter_folder / ADAPTER_NAME).fusion.half()
    write_adapter(tmp_path / ADAPTER_NAME, fusion)
    assert load_file(tmp_path / ADAPTER_NAME)["fusion.mean"].dtype == torch.float16
    pipe = UniEmoPipeline.from_pipe(stock)
    logging.enable_propagation()
    pipe.load_uniemo(tmp_path)
    logging.disable_propagation()
    assert caplog.text == "", "nothing to warn of"
    assert pipe.fusion.dtype == torch.float32 == pipe.encode_emotion(emotion="awe")[0].dtype


# --------------------------------------------------------------------------------------------- whole pipelines


def test_a_saved_pipeline_loads_with_its_fusion(pipe, tmp_path):
    images = draw(pipe, "a cat", emotion="awe")
    pipe.save_pretrained(tmp_path)
    assert "<awe>" in pipe.tokenizer.get_vocab(), "saving must not take the tokens off"
    again = UniEmoPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.list_uniemo() == ["default"]
    assert np.array_equal(images, draw(again, "a cat", emotion="awe"))
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert "<awe>" not in tokenizer.get_vocab(), "the base's files are the base's own"


def test_a_stock_folder_loads_without_a_fusion(stock, tmp_path):
    stock.save_pretrained(tmp_path)
    pipe = UniEmoPipeline.from_pretrained(tmp_path)
    assert pipe.fusion is None and np.array_equal(draw(pipe, "a cat"), draw(stock, "a cat"))


def test_from_pipe_shares_and_keeps_types(pipe):
    pipe.unet.half()
    other = UniEmoPipeline.from_pipe(pipe)
    assert other.fusion is pipe.fusion and other.unet is pipe.unet and pipe.unet.dtype == torch.float16
    pipe.unet.float()
    images = draw(other, emotion="awe")
    pipe.unload_uniemo()
    assert np.array_equal(images, draw(other, emotion="awe")), "the other pipeline still has its adapter"
    other.unload_uniemo()
    assert "<awe>" not in other.tokenizer.get_vocab()
