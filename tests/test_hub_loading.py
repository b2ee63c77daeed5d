"""Each kind of repository, pushed by the real client and loaded by name in a fresh process without this package."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from hub_server import HubServer, User
from huggingface_hub import HfApi
from PIL import Image

from training.hub import publish
from uniemo_pipelines import UniEmoPipeline, UniEmoXLPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, load_adapter, write_adapter
from uniemo_pipelines.cards_uniemo import write_card
from uniemo_pipelines.textual_inversion_uniemo import export_textual_inversions

ROOT = Path(__file__).parents[1]
XL = (tiny.TEXT_WIDTH, tiny.SECOND_TEXT_WIDTH)

PREAMBLE = """
import os, sys, torch
from pathlib import Path
import numpy as np
from huggingface_hub import snapshot_download
sys.modules["uniemo_pipelines"] = None  # not installed
expected = torch.load("expected", weights_only=False)

def options(**kwargs):
    return {"num_inference_steps": 2, "output_type": "np", "generator": torch.Generator().manual_seed(0)} | kwargs

def draw(pipe, prompt="a <awe> cat", **kwargs):
    pipe.set_progress_bar_config(disable=True)
    return pipe(prompt, **options(**kwargs)).images

def install():
    del sys.modules["uniemo_pipelines"]
    sys.path.insert(0, sys.argv[1])

def fetched(name, cache=None):
    cache = Path(cache or Path(os.environ["HF_HOME"], "hub"))
    return sorted(path.name for path in cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/understanding/*"))

def same(images):
    return np.array_equal(images, expected["images"])
"""


@pytest.fixture
def hub(monkeypatch):
    with HubServer({"secret": User("ann")}) as server:
        server.stand_in(monkeypatch)
        yield server


@pytest.fixture
def pipe(tmp_path) -> UniEmoPipeline:
    """With an adapter that names an understanding model beside it."""
    tiny.save_understanding(tmp_path / "adapter" / "understanding")
    file = tmp_path / "adapter" / ADAPTER_NAME
    write_adapter(file, tiny.fusion(), "some/base", tmp_path / "adapter" / "understanding")
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.load_uniemo(file)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: UniEmoPipeline, prompt: str | None = "a <awe> cat", **kwargs: object) -> np.ndarray:
    options = {"num_inference_steps": 2, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
    return pipe(prompt, **options | kwargs).images


def save_photo(folder: Path) -> str:
    Image.new("RGB", (48, 40), (200, 120, 40)).save(folder / "photo.png")
    return str(folder / "photo.png")


def save_xl(folder: Path) -> None:
    pipe = UniEmoXLPipeline(**tiny.stable_diffusion_xl())
    pipe.load_uniemo(tiny.fusion(XL).state_dict(), config=dict(tiny.fusion(XL).config))
    pipe.save_pretrained(folder)


def expect(pipe: UniEmoPipeline, folder: Path, **others: object) -> None:
    """What a fresh process shall find, in `expected`; and a photo."""
    understood = pipe.understand(save_photo(folder))[0].probabilities
    torch.save({"images": draw(pipe), "probabilities": understood} | others, folder / "expected")


def run(hub: HubServer, folder: Path, script: str, **variables: str) -> None:
    """In a process with an empty cache, in `folder`."""
    threads = str(torch.get_num_threads())  # as many as here, or images differ in their last bits
    environment = hub.environment(folder / "home") | {"PYTHONPATH": "", "OMP_NUM_THREADS": threads} | variables
    subprocess.run([sys.executable, "-c", PREAMBLE + script, str(ROOT)], cwd=folder, env=environment, check=True)


# Whole pipelines


@pytest.mark.slow
def test_a_pipeline_arrives_without_our_package_and_goes_on_from_there(hub, pipe, tmp_path):
    pipe.push_to_hub("ann/model", token="secret")
    HfApi(token="secret").create_tag("ann/model", tag="v1")
    images = draw(pipe)
    expect(pipe.to(torch.float16).to(torch.float32), tmp_path, images=images, half=draw(pipe))
    pipe.unload_uniemo()
    pipe.push_to_hub("ann/model", token="secret")
    script = """
from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline

pipe = DiffusionPipeline.from_pretrained("ann/model", revision="v1", trust_remote_code=True)
assert same(draw(pipe)), "of the revision asked for"
assert fetched("ann/model") == [] and not any("modeling_uniemo" in name for name in sys.modules)
assert pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
assert "model.safetensors" in fetched("ann/model")

other = type(pipe).from_pipe(pipe)
assert other.list_uniemo() == ["default"] and same(draw(other))
embeds, negative = pipe.encode_emotion("a cat", "awe", generator=torch.Generator().manual_seed(0))
redraw = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
encoded = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
picture = redraw(image=expected["images"], **encoded, **options(num_inference_steps=4))
assert picture.images.shape == expected["images"].shape

pipe.save_pretrained("second")
second = DiffusionPipeline.from_pretrained("second", trust_remote_code=True)
assert same(draw(second)) and second.understand("photo.png")[0].probabilities == expected["probabilities"]
half = DiffusionPipeline.from_pretrained("second", dtype=torch.float16, trust_remote_code=True)
assert {half.unet.dtype, half.fusion.dtype} == {torch.float16}
assert np.array_equal(draw(half.to(torch.float32)), expected["half"])

pipe.save_pretrained("variant", variant="fp16")
assert same(draw(DiffusionPipeline.from_pretrained("variant", variant="fp16", trust_remote_code=True)))

install()
from uniemo_pipelines import UniEmoPipeline
ours = UniEmoPipeline.from_pretrained("second")
assert type(ours.fusion).__module__ == "uniemo_pipelines.fusion_uniemo" and same(draw(ours))
ours.save_pretrained("third")
third = DiffusionPipeline.from_pretrained("third", trust_remote_code=True)
assert type(third).__module__.startswith("diffusers_modules") and same(draw(third))
assert third.understand("photo.png")[0].probabilities == expected["probabilities"]
"""
    run(hub, tmp_path, script)


@pytest.mark.slow
def test_with_our_package_no_code_of_a_repository_is_run_and_what_was_fetched_works_offline(hub, pipe, tmp_path):
    """The code of this repository would end the process. Without the package a folder works offline."""
    pipe.save_pretrained(tmp_path / "whole")
    pipe.save_pretrained(tmp_path / "whole", variant="fp16")
    HfApi(token="secret").create_repo("ann/good")
    HfApi(token="secret").upload_folder(repo_id="ann/good", folder_path=tmp_path / "whole")
    for file in (tmp_path / "whole").rglob("*.py"):
        file.write_text("raise SystemExit('ran')")
    hub.create("ann/model", private=True)
    HfApi(token="secret").upload_folder(repo_id="ann/model", folder_path=tmp_path / "whole")
    expect(pipe, tmp_path)
    script = """
install()
from uniemo_pipelines import UniEmoInpaintPipeline, UniEmoPipeline
from diffusers import AutoPipelineForText2Image

pipe = UniEmoPipeline.from_pretrained("ann/model", token="secret", variant="fp16", cache_dir="cache")
assert same(draw(pipe)) and fetched("ann/model", "cache") == []
files = {path.name for path in Path("cache").rglob("*.safetensors")}
assert files == {"diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"}
assert pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
assert "model.safetensors" in fetched("ann/model", "cache"), "with the token and in the cache that were given"
assert same(draw(AutoPipelineForText2Image.from_pretrained("ann/model", token="secret")))
assert UniEmoInpaintPipeline.from_pretrained("ann/model", token="secret").fusion is not None
snapshot_download("ann/good")
"""
    run(hub, tmp_path, script)
    asked = len(hub.requests)
    script = """
from diffusers import DiffusionPipeline
folder = snapshot_download("ann/good", local_files_only=True)
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
assert same(draw(pipe)) and pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
install()
from uniemo_pipelines import UniEmoPipeline
pipe = UniEmoPipeline.from_pretrained("ann/model", cache_dir="cache", variant="fp16")
assert same(draw(pipe)) and pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
"""
    run(hub, tmp_path, script, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked


# Adapters


@pytest.mark.slow
def test_what_the_readme_says_about_the_hub_works(hub, pipe, tmp_path):
    """A pipeline, an adapter and textual inversions on a stock base, without our package."""
    hub.users["yours"] = User("you")
    pipe.push_to_hub("you/uniemo", token="yours")
    pipe.push_uniemo_to_hub("you/adapter", token="yours")
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(tmp_path / "base")
    export_textual_inversions(pipe.fusion, tmp_path / "embeddings")
    for name, folder in (("you/base", "base"), ("you/adapter", "embeddings")):
        HfApi(token="yours").create_repo(name, exist_ok=True)
        HfApi(token="yours").upload_folder(repo_id=name, folder_path=tmp_path / folder)
    save_xl(tmp_path / "xl")
    like_photo = draw(pipe, None, emotion_image=save_photo(tmp_path))
    expect(pipe, tmp_path, like_photo=like_photo, mean=pipe.encode_emotion("a cat", "awe", emotion_variation=0)[0])
    [readme] = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    imports, whole, adapted, inverted = readme.split("\n\n")
    script = f"""
{imports}
{whole}
assert image.size == (32, 32) and same(draw(pipe))

{adapted}
assert same(draw(pipe)) and fetched("you/adapter") == []
assert np.array_equal(draw(pipe, None, emotion_image="photo.png"), expected["like_photo"])
assert "model.safetensors" in fetched("you/adapter")

pipe.save_uniemo("copy")
pipe.unload_uniemo()
pipe.load_uniemo("copy")
pipe.load_uniemo("you/adapter", adapter_name="cached", local_files_only=True)
assert pipe.understand("photo.png")[0].probabilities == expected["probabilities"]
pipe.save_pretrained("whole")
again = DiffusionPipeline.from_pretrained("whole", trust_remote_code=True)
assert same(draw(again)) and again.understand("photo.png")[0].probabilities == expected["probabilities"]

{inverted}
torch.testing.assert_close(pipe.encode_prompt("<awe> a cat", "cpu", 1, False)[0], expected["mean"])

xl = DiffusionPipeline.from_pretrained("xl", trust_remote_code=True)
assert type(xl).__name__ == "UniEmoXLPipeline" and draw(xl, None, emotion="awe").shape == expected["images"].shape
"""
    run(hub, tmp_path, script)


def test_what_is_fetched_of_an_adapter_counted(hub, pipe, tmp_path):
    """To the byte: the adapter's file, and the understanding model when the first image is to be understood."""
    pipe.push_uniemo_to_hub("ann/model", token="secret")
    stock = UniEmoPipeline(**tiny.stable_diffusion())
    hub.sent.clear()
    stock.load_uniemo("ann/model", cache_dir=tmp_path / "cache")
    assert np.array_equal(draw(stock), draw(pipe))
    files = {f"ann/model/{name}": len(content) for name, content in hub.repositories["ann/model"].files.items()}
    adapter = f"ann/model/{ADAPTER_NAME}"
    assert hub.sent == {adapter: files[adapter]}
    photo = save_photo(tmp_path)
    assert np.array_equal(draw(stock, None, emotion_image=photo), draw(pipe, None, emotion_image=photo))
    understanding = ("config.json", "model.safetensors", "preprocessor_config.json")
    needed = [adapter, *(f"ann/model/understanding/{name}" for name in understanding)]
    assert hub.sent == {name: files[name] for name in needed}


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


# Understanding models


@pytest.mark.slow
def test_an_understanding_model_arrives_with_and_without_our_package(hub, tmp_path):
    """From a run's folder with its card."""
    tiny.save_understanding(tmp_path / "model")
    write_card(tmp_path / "model", "ann/model")
    hub.create("ann/model")
    publish(tmp_path / "model", "ann/model", token="secret")
    pixels = torch.rand(2, 3, 32, 32)
    save_photo(tmp_path)
    torch.save({"pixels": pixels, "logits": tiny.understanding()(pixels).logits}, tmp_path / "expected")
    script = """
from transformers import AutoModelForImageClassification, pipeline

def equal(model):
    return torch.equal(model(expected["pixels"]).logits, expected["logits"])

model = AutoModelForImageClassification.from_pretrained("ann/model", trust_remote_code=True)
assert equal(model)
assert len(pipeline("image-classification", model="ann/model", trust_remote_code=True)("photo.png", top_k=8)) == 8
model.save_pretrained("again")
assert equal(AutoModelForImageClassification.from_pretrained("again", trust_remote_code=True))
install()
from uniemo_pipelines import UniEmoUnderstandingModel
assert equal(UniEmoUnderstandingModel.from_pretrained("ann/model"))
"""
    run(hub, tmp_path, script)
