"""The small model that travels with the package, as it is shipped."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from training.backbones.reader import draw_batch
from training.make_mini import MEGABYTES
from training.miniemoset.streams import Stream
from uniemo_pipelines import EMOTIONS, UniEmoPipeline, embedded

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def pipeline() -> UniEmoPipeline:
    """The embedded model, loaded as the README says."""
    pipeline = UniEmoPipeline.from_pretrained(embedded.STABLE_DIFFUSION, dtype=torch.float32)
    pipeline.load_uniemo(embedded.ADAPTER)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_fits_its_25_megabytes():
    assert sum(path.stat().st_size for path in embedded.FOLDER.rglob("*") if path.is_file()) <= MEGABYTES * 1e6


def test_it_understands_fresh_pictures(pipeline):
    images, _, emotions = draw_batch(Stream.GATES, 10_000, 160, emotional=True)
    results = pipeline.understand([Image.fromarray(image) for image in images])
    hits = sum(result.label == EMOTIONS[label] for result, label in zip(results, emotions, strict=True))
    assert hits / len(images) > 0.7


def test_it_draws_what_it_understands_as_the_emotion_asked_for(pipeline):
    for emotion in ("awe", "disgust"):
        generator = torch.Generator().manual_seed(0)
        options = {"num_images_per_prompt": 8, "num_inference_steps": 10, "guidance_scale": embedded.GUIDANCE}
        images = pipeline(emotion=emotion, generator=generator, **options).images
        assert sum(result.label == emotion for result in pipeline.understand(images)) >= 5
        assert len({image.tobytes() for image in images}) == 8


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((64, 64), 50).convert("RGB").save("photo.jpg")
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
    found: dict[str, object] = {}
    exec(code, found)
    assert found["image"].size == (128, 128)
    assert found["result"].label in EMOTIONS
