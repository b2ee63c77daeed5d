"""UniEmoPipeline.from_single_file: checkpoints as they are shared, in the original code's layout."""

from pathlib import Path

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from single_file import write_checkpoint

from uniemo_pipelines import UniEmoPipeline


def latents(pipe: UniEmoPipeline, prompt: str) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, num_inference_steps=2, generator=generator, output_type="pt").images


@pytest.mark.parametrize(
    ("width", "prediction", "open_clip"),
    [
        pytest.param(tiny.TEXT_WIDTH, "epsilon", False, id="Stable Diffusion 1.x"),
        pytest.param(64, "v_prediction", True, id="Stable Diffusion 2.x"),
    ],
)
def test_a_single_file_takes_the_adapter(tmp_path: Path, width: int, prediction: str, open_clip: bool) -> None:
    components = tiny.stable_diffusion(width)
    components["scheduler"].register_to_config(prediction_type=prediction)
    stock = StableDiffusionPipeline(**components)
    stock.save_pretrained(tmp_path / "config")
    for weights in (tmp_path / "config").glob("*/*.safetensors"):
        weights.unlink()  # a configuration is all that shall be read from there
    checkpoint = write_checkpoint(tmp_path / "model.safetensors", components, open_clip)

    pipe = UniEmoPipeline.from_single_file(checkpoint, config=str(tmp_path / "config"), local_files_only=True)
    assert pipe.scheduler.config.prediction_type == prediction
    expected = UniEmoPipeline.from_pipe(stock)
    fusion = tiny.fusion((width,))
    for each in (pipe, expected):
        each.load_uniemo(fusion.state_dict(), config=dict(fusion.config))
    for prompt in ("a cat", "a <awe> cat"):
        assert torch.equal(latents(pipe, prompt), latents(expected, prompt))
    assert not torch.allclose(latents(pipe, "a cat"), latents(pipe, "a <awe> cat"), atol=1e-3)
