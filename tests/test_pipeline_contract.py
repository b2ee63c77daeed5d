"""What diffusers promises of every pipeline: the points where an extra component and nine tokens could break it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from diffusers import (
    AutoPipelineForText2Image,
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)

from uniemo_pipelines import UniEmoPipeline

PROMPT = "a <awe> cat"


def quiet(pipe: DiffusionPipeline) -> DiffusionPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe: DiffusionPipeline, prompt: str | None = PROMPT, **kwargs: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return quiet(pipe)(prompt, num_inference_steps=2, output_type="pt", generator=generator, **kwargs).images


@pytest.fixture
def pipe() -> UniEmoPipeline:
    """A pipeline that was given its adapter as a component."""
    return quiet(UniEmoPipeline(**tiny.stable_diffusion(), fusion=tiny.fusion()))


def test_the_call_takes_the_stock_arguments_by_name_with_their_defaults() -> None:
    stock = inspect.signature(StableDiffusionPipeline.__call__).parameters
    ours = inspect.signature(UniEmoPipeline.__call__).parameters
    order = [name for name in ours if name in stock]
    assert order == list(stock), "positional arguments mean what they mean there"
    assert {name: parameter.default for name, parameter in stock.items()} == {
        name: ours[name].default for name in stock
    }


def test_the_components_make_the_pipeline_again(pipe: UniEmoPipeline) -> None:
    assert torch.equal(images(UniEmoPipeline(**pipe.components, requires_safety_checker=False)), images(pipe))


def test_the_pipeline_is_also_loaded_where_a_variant_is_asked_for(pipe: UniEmoPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert [file.name for file in (tmp_path / "fusion").glob("*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    assert torch.equal(images(UniEmoPipeline.from_pretrained(tmp_path, variant="fp16")), images(pipe))
    with pytest.raises(ValueError, match="bf16"):
        UniEmoPipeline.from_pretrained(tmp_path, variant="bf16")


def test_each_component_is_loaded_in_the_type_asked_for(pipe: UniEmoPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = UniEmoPipeline.from_pretrained(tmp_path, dtype={"unet": torch.bfloat16, "default": torch.float16})
    types = {name: part.dtype for name, part in loaded.components.items() if isinstance(part, torch.nn.Module)}
    half = dict.fromkeys(("vae", "text_encoder", "fusion"), torch.float16)
    assert types == half | {"unet": torch.bfloat16}


def test_our_weights_are_never_written_as_a_pickle(pipe: UniEmoPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    assert torch.equal(images(UniEmoPipeline.from_pretrained(tmp_path)), images(pipe))
    assert not list((tmp_path / "fusion").glob("*.bin"))


def test_prompts_are_encoded_without_the_other_models(pipe: UniEmoPipeline) -> None:
    """Text encoder and fusion encode on one machine; UNet and VAE draw on another, without an adapter."""
    textual = {"text_encoder", "tokenizer", "fusion"}
    halves: list[UniEmoPipeline] = []
    for wanted in (textual, pipe.components.keys() - textual):
        parts = {name: part if name in wanted else None for name, part in pipe.components.items()}
        halves.append(UniEmoPipeline(**parts, requires_safety_checker=False))
    embeds, negative = halves[0].encode_prompt(PROMPT, "cpu", 1, True)
    found = images(halves[1], None, prompt_embeds=embeds, negative_prompt_embeds=negative)
    torch.testing.assert_close(found, images(pipe, emotion_variation=0.0))


def test_optional_components_can_be_taken_off_by_hand(pipe: UniEmoPipeline, tmp_path: Path) -> None:
    for name in pipe._optional_components:
        setattr(pipe, name, None)
    found = images(pipe)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(images(UniEmoPipeline.from_pretrained(tmp_path)), found)
    assert torch.equal(images(StableDiffusionPipeline(**tiny.stable_diffusion())), found)


@pytest.mark.parametrize("make", [StableDiffusionPipeline.from_pipe, StableDiffusionImg2ImgPipeline.from_pipe])
def test_stock_pipelines_are_made_from_ours_and_back(
    pipe: UniEmoPipeline, make: Callable[[DiffusionPipeline], DiffusionPipeline]
) -> None:
    expected = images(pipe)
    other = make(pipe)
    assert "fusion" not in other.components
    back = UniEmoPipeline.from_pipe(other, fusion=pipe.fusion)
    assert torch.equal(images(back), expected) and torch.equal(images(pipe), expected)
    if isinstance(other, StableDiffusionPipeline):
        assert torch.equal(images(other, "a cat"), images(pipe, "a cat"))


def test_the_auto_class_makes_ours_from_ours(pipe: UniEmoPipeline, tmp_path: Path) -> None:
    made = AutoPipelineForText2Image.from_pipe(pipe)
    assert torch.equal(images(made), images(pipe))
    pipe.save_pretrained(tmp_path)
    assert torch.equal(images(AutoPipelineForText2Image.from_pretrained(tmp_path)), images(pipe))


def test_callbacks_see_and_change_every_tensor_that_the_stock_pipeline_shows(pipe: UniEmoPipeline) -> None:
    seen: dict[str, torch.Tensor] = {}

    def last_step_to_zero(
        pipe: UniEmoPipeline, step: int, _: int, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        seen.update(tensors)
        if step == pipe.num_timesteps - 1:
            tensors["latents"] = torch.zeros_like(tensors["latents"])
        return tensors

    names = pipe._callback_tensor_inputs
    options = {"callback_on_step_end": last_step_to_zero, "callback_on_step_end_tensor_inputs": names}
    found = images(pipe, num_images_per_prompt=2, **options)
    assert seen.keys() == set(names) and len(seen["prompt_embeds"]) == 4  # two images, with and without the prompt
    nothing = pipe.vae.decode(torch.zeros(2, 4, 16, 16)).sample / 2 + 0.5
    torch.testing.assert_close(found, nothing.detach().clamp(0, 1))
