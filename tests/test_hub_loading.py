"""What a run's folder holds arrives whole through the Hub: published, and loaded by its name in a fresh process."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from hub_server import HubServer, User
from PIL import Image

from training.hub import publish
from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, load_adapter, write_adapter
from uniemo_pipelines.cards import write_card

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hub(monkeypatch):
    with HubServer({"secret": User("ann")}) as server:
        server.stand_in(monkeypatch)
        yield server


def published(hub: HubServer, folder: Path) -> None:
    """As "ann/model", with a card, as a run does it."""
    write_card(folder, "ann/model")
    hub.create("ann/model")
    publish(folder, "ann/model", token="secret")


def run(hub: HubServer, folder: Path, script: str) -> None:
    """In a process with an empty cache, in `folder`."""
    environment = hub.environment(folder / "home") | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(ROOT)], cwd=folder, env=environment, check=True)


@pytest.mark.slow
def test_an_understanding_model_arrives_with_and_without_our_package(hub, tmp_path):
    published(hub, tiny.save_understanding(tmp_path / "model"))
    pixels = torch.rand(2, 3, 32, 32)
    Image.new("RGB", (48, 40), (200, 120, 40)).save(tmp_path / "photo.png")
    torch.save({"pixels": pixels, "logits": tiny.understanding()(pixels).logits}, tmp_path / "expected")
    script = """
import sys, torch
from transformers import AutoModelForImageClassification, pipeline
expected = torch.load("expected")
sys.modules["uniemo_pipelines"] = None  # not installed
model = AutoModelForImageClassification.from_pretrained("ann/model", trust_remote_code=True)
torch.testing.assert_close(model(expected["pixels"]).logits, expected["logits"])
assert len(pipeline("image-classification", model="ann/model", trust_remote_code=True)("photo.png", top_k=8)) == 8
del sys.modules["uniemo_pipelines"]
sys.path.insert(0, sys.argv[1])
from uniemo_pipelines import UniEmoUnderstandingModel
model = UniEmoUnderstandingModel.from_pretrained("ann/model")
torch.testing.assert_close(model(expected["pixels"]).logits, expected["logits"])
"""
    run(hub, tmp_path, script)


@pytest.mark.slow
def test_an_adapter_arrives_with_its_understanding_model(hub, tmp_path):
    """The folder beside the file, which the file names, is fetched when first used, of the same commit."""
    folder = tmp_path / "adapter"
    tiny.save_understanding(folder / "understanding")
    write_adapter(folder / ADAPTER_NAME, tiny.fusion(), "some/base", folder / "understanding")
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.save_pretrained(tmp_path / "base")
    pipe.load_uniemo(folder)
    image = Image.new("RGB", (48, 40), (200, 120, 40))
    image.save(tmp_path / "photo.png")
    options = {"num_inference_steps": 1, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    expected = {"condition": pipe(emotion="awe", **options).conditions["<emotion>"]}
    torch.save(expected | {"probabilities": pipe.understand(image)[0].probabilities}, tmp_path / "expected")
    published(hub, folder)
    script = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from uniemo_pipelines import UniEmoPipeline
expected = torch.load("expected")
pipe = UniEmoPipeline.from_pretrained("base")
pipe.load_uniemo("ann/model")
options = {"num_inference_steps": 1, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
assert torch.equal(pipe(emotion="awe", **options).conditions["<emotion>"], expected["condition"])
pipe.save_uniemo("copy")
pipe.unload_uniemo()
pipe.load_uniemo("copy")
assert pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
pipe.load_uniemo("ann/model", adapter_name="cached", local_files_only=True)
assert pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
"""
    run(hub, tmp_path, script)


@pytest.mark.parametrize(
    ("subfolder", "named", "found"),
    [
        (None, "understanding", "hf://models/ann/model@{oid}/understanding"),
        ("stage2", "understanding", "hf://models/ann/model@{oid}/stage2/understanding"),
        ("stage2", "../stage1", "hf://models/ann/model@{oid}/stage1"),
        (None, "../stage1", None),
        (None, "ann/understanding", "ann/understanding"),
        (None, "hf://models/ann/other@main/understanding", "hf://models/ann/other@main/understanding"),
    ],
)
def test_what_an_adapter_in_a_repository_names(hub, tmp_path, subfolder, named, found):
    """Of the commit that the adapter is of: what is published later need not fit it."""
    write_adapter(tmp_path / "adapter" / (subfolder or "") / ADAPTER_NAME, tiny.fusion(), understanding=named)
    hub.create("ann/model")
    publish(tmp_path / "adapter", "ann/model", token="secret")
    oid = hub.repositories["ann/model"].commits[-1].oid
    adapter = load_adapter("ann/model", subfolder=subfolder, cache_dir=tmp_path / "cache")
    assert adapter.understanding == (found and found.format(oid=oid))
