"""The pipelines beside text to image on Stable Diffusion 1.x and 2.x, and going from one to the other."""

import inspect

import numpy as np
import pytest
import tiny
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from uniemo_pipelines import (
    UniEmoControlNetPipeline,
    UniEmoImg2ImgPipeline,
    UniEmoInpaintPipeline,
    UniEmoPipeline,
)
from uniemo_pipelines.planning_uniemo import EmotionSettings

CLOSE = {"atol": 1e-4, "rtol": 0}
FAMILY = {
    UniEmoPipeline: StableDiffusionPipeline,
    UniEmoImg2ImgPipeline: StableDiffusionImg2ImgPipeline,
    UniEmoInpaintPipeline: StableDiffusionInpaintPipeline,
    UniEmoControlNetPipeline: StableDiffusionControlNetPipeline,
}


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def own_arguments(kind):
    """What the task needs beside a prompt."""
    mask = Image.fromarray(np.pad(np.full((16, 32), 255, np.uint8), ((16, 0), (0, 0))))
    return {
        UniEmoPipeline: {},
        UniEmoImg2ImgPipeline: {"image": picture(), "strength": 0.8},
        UniEmoInpaintPipeline: {"image": picture(), "mask_image": mask},
        UniEmoControlNetPipeline: {"image": picture()},
    }[kind]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def run(pipe, *args, **kwargs):
    kind = next((ours for ours, stock in FAMILY.items() if type(pipe) in (ours, stock)), None)
    defaults = {"num_inference_steps": 3, "output_type": "np", "generator": seeded(), **own_arguments(kind)}
    pipe.set_progress_bar_config(disable=True)
    return pipe(*args, **defaults | kwargs)


def components(kind):
    parts = tiny.stable_diffusion()
    return parts | {"controlnet": tiny.controlnet()} if kind is UniEmoControlNetPipeline else parts


def loaded(kind):
    pipe = kind(**components(kind))
    fusion = tiny.fusion()
    pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    return pipe


family = pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)


@family
def test_without_an_emotion_it_is_the_stock_pipeline(kind):
    stock = FAMILY[kind](**components(kind))
    for call in ({}, {"num_images_per_prompt": 2, "negative_prompt": "a dog"}, {"guidance_scale": 1.0}):
        expected = run(stock, "a cat", **call).images
        assert np.array_equal(expected, run(loaded(kind), "a cat", **call).images)


@family
def test_emotions_act(kind):
    pipe = loaded(kind)
    plain, awe = run(pipe, "a cat"), run(pipe, "a cat", emotion="awe")
    assert not np.allclose(plain.images, awe.images, **CLOSE)
    assert np.array_equal(awe.images, run(pipe, "<awe> a cat").images)
    assert np.array_equal(plain.images, run(pipe, "a <awe> cat", emotion_scale=0.0).images)
    assert not np.allclose(plain.images, run(pipe, "a cat", negative_emotion="awe").images, **CLOSE)
    assert plain.conditions is None and awe.conditions["<emotion>"].shape == (1, tiny.TEXT_WIDTH)
    assert awe.attributes[0]["<emotion>"]["emotion"] == {"awe": 1.0}
    images, nsfw = run(pipe, "a cat", emotion="awe", return_dict=False)
    assert np.array_equal(images, awe.images) and nsfw is None


@family
def test_an_image_does_not_depend_on_its_batch(kind):
    pipe = loaded(kind)
    own = {name: [value] * 2 for name, value in own_arguments(kind).items() if name != "strength"}
    each = 1 if kind is UniEmoInpaintPipeline else 2  # stock inpainting encodes k images by the first k generators
    prompts, emotions = ["a cat", "a dog"], ["awe", {"fear": 1, "anger": 2}]
    generators = [seeded(seed) for seed in range(2 * each)]
    batch = run(pipe, prompts, emotion=emotions, generator=generators, num_images_per_prompt=each, **own)
    for k in range(2 * each):
        single = run(pipe, prompts[k // each], emotion=emotions[k // each], generator=seeded(k))
        np.testing.assert_allclose(batch.images[k], single.images[0], **CLOSE)


@family
def test_the_call_has_the_stock_arguments_and_the_emotions_by_name(kind):
    ours, theirs = (inspect.signature(one.__call__).parameters for one in (kind, FAMILY[kind]))
    emotions = inspect.signature(EmotionSettings).parameters
    assert [name for name in ours if name not in emotions] == list(theirs)
    assert all(ours[name].default == theirs[name].default for name in theirs)
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in emotions)
    assert all(f"{name}" in kind.__call__.__doc__ for name in (*emotions, *theirs) if name not in ("self", "kwargs"))


@family
def test_it_is_saved_and_loaded_with_its_fusion(kind, tmp_path):
    pipe = loaded(kind)
    pipe.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    expected = run(pipe, "a cat", emotion="awe").images
    assert np.array_equal(expected, run(again, "a cat", emotion="awe").images)


@family
def test_from_pipe_hands_the_adapters_over(kind):
    source = loaded(UniEmoPipeline)
    source.set_uniemo_scale(0.5)
    source.text_encoder.half()
    given = {"controlnet": tiny.controlnet()} if kind is UniEmoControlNetPipeline else {}
    made = kind.from_pipe(source, **given)
    assert made.fusion is source.fusion and made.unet is source.unet and made._uniemo.scale == 0.5
    assert made.text_encoder.dtype == torch.float16 and made.unet.dtype == torch.float32
    source.text_encoder.float()
    source.unload_uniemo()
    assert run(made, "a cat", emotion="awe").conditions is not None
    back = UniEmoPipeline.from_pipe(made)
    assert back.list_uniemo() == ["default"] and back.unet is source.unet


def test_from_pipe_names_what_is_lacking():
    with pytest.raises(ValueError, match=r"Expected controlnet .*from_pipe\(pipe, controlnet=controlnet\)"):
        UniEmoControlNetPipeline.from_pipe(loaded(UniEmoPipeline))


def test_from_pipe_goes_to_stock_and_back():
    source = loaded(UniEmoPipeline)
    stock = StableDiffusionPipeline.from_pipe(source)
    assert stock.unet is source.unet
    assert np.array_equal(run(stock, "a cat").images, run(source, "a cat").images)
    ours = UniEmoImg2ImgPipeline.from_pipe(stock)
    assert ours.fusion is None and ours.list_uniemo() == []
    with pytest.raises(ValueError, match="call load_uniemo"):
        run(ours, emotion="awe")


def test_auto_pipelines_go_from_task_to_task():
    source = loaded(UniEmoPipeline)
    redraw = AutoPipelineForImage2Image.from_pipe(source)
    assert type(redraw) is UniEmoImg2ImgPipeline and redraw.fusion is source.fusion
    assert type(AutoPipelineForInpainting.from_pipe(redraw)) is UniEmoInpaintPipeline
    back = AutoPipelineForText2Image.from_pipe(redraw)
    assert type(back) is UniEmoPipeline
    expected = run(source, "a <awe> cat").images
    assert np.array_equal(expected, run(back, "a <awe> cat").images)
    controlled = AutoPipelineForText2Image.from_pipe(source, controlnet=tiny.controlnet())
    assert type(controlled) is UniEmoControlNetPipeline
    assert run(controlled, emotion="awe").conditions is not None


def test_auto_pipelines_load_what_was_saved(tmp_path):
    loaded(UniEmoPipeline).save_pretrained(tmp_path)
    assert type(AutoPipelineForText2Image.from_pretrained(tmp_path)) is UniEmoPipeline
    assert type(AutoPipelineForInpainting.from_pretrained(tmp_path)) is UniEmoInpaintPipeline


def test_a_list_of_control_images_meets_a_list_of_emotions():
    pipe = loaded(UniEmoControlNetPipeline)
    result = run(
        pipe, "a cat", emotion=["awe", "fear"], image=[picture(0), picture(1)], generator=[seeded(), seeded()]
    )
    single = run(pipe, "a cat", emotion="fear", image=picture(1))
    np.testing.assert_allclose(result.images[1], single.images[0], **CLOSE)
