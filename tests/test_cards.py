"""Model cards: true metadata, nothing private in them, and code that runs as it stands."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from training.cards import CardContent, Result, changed_arguments, make_card, write_card
from training.train_baseline import PlainClassifier, PlainClassifierConfig
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.modeling_uniemo import EMOTIONS

CLIP = "openai/clip-vit-large-patch14"
BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def content(**changes) -> CardContent:
    settings = {"kind": "understanding", "name": "ann/emotions", "base_model": CLIP, "data": "ann/emoset"}
    return CardContent(**settings | {"arguments": {}} | changes)


def test_metadata_by_which_the_hub_finds_a_classifier(tmp_path):
    results = [
        Result(metric="accuracy", value=0.785312345, split="validation", interval=(0.77, 0.8), pictures=5000),
        Result(metric="macro_f1", value=0.7, split="validation", pictures=5000),
        Result(metric="loss", value=1.7, split="train"),
    ]
    data = ModelCard.load(write_card(tmp_path, content(results=results))).data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "image-classification",
        "apache-2.0",
    )
    assert (data.base_model, data.base_model_relation, data.datasets) == (CLIP, "finetune", ["ann/emoset"])
    assert data.model_name == "emotions"
    measured = [(one.metric_type, one.metric_value, one.dataset_type, one.dataset_split) for one in data.eval_results]
    assert measured == [
        ("accuracy", 0.78531, "ann/emoset", "validation"),
        ("macro_f1", 0.7, "ann/emoset", "validation"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"], "no partial file stays"


def test_metadata_by_which_the_hub_finds_an_adapter(tmp_path):
    card = make_card(tmp_path, content(kind="joint", base_model=BASE, license="creativeml-openrail-m"))
    assert (card.data.library_name, card.data.pipeline_tag) == ("diffusers", "text-to-image")
    assert (card.data.base_model, card.data.base_model_relation) == (BASE, "adapter")
    assert card.data.license == "creativeml-openrail-m"
    assert card.data.eval_results is None and "Nothing was measured." in card.text


def test_the_table_shows_figures_and_their_intervals(tmp_path):
    plain = Result(metric="diffusion", value=0.785312345, split="train")
    whole = Result(metric="accuracy", value=0.7, split="validation", interval=(0.68, 0.72), pictures=5000)
    text = make_card(tmp_path, content(results=[plain, whole])).text
    assert "| diffusion | train | 0.78531 |  |  |\n" in text
    assert "| accuracy | validation | 0.7 | 0.6800 to 0.7200 | 5,000 |\n" in text


def test_folders_of_this_machine_are_nobody_elses_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/emoset").mkdir(parents=True)  # looks like a name on the Hub, and is none
    card = make_card(tmp_path, content(name="emotions", base_model=str(tmp_path / "clip"), data="data/emoset"))
    assert card.data.base_model is None and card.data.datasets is None
    assert "the vision tower of `clip`" in card.text and "fine-tuned on `emoset`" in card.text
    assert str(tmp_path) not in str(card) and 'model="path/to/emotions"' in card.text


@dataclass
class Arguments:
    clip: str
    output: str
    data: str = "data"
    rate: float = 1e-3
    evaluate: bool = True
    resume: str | None = None
    templates: list[str] = field(default_factory=lambda: ["a <emotion>"])
    hub_token: str | None = None
    push_to_hub: bool = False

    def __post_init__(self):
        self.resume = self.resume or False


def test_the_arguments_that_differ_and_no_secrets(tmp_path):
    assert changed_arguments(Arguments("some/clip", "out")) == {"clip": "some/clip"}
    given = Arguments(str(tmp_path / "clip"), "out", rate=0.1, evaluate=False, hub_token="hf_x", push_to_hub=True)
    given.templates = ["<emotion> | {scene}", "<emotion>"]
    changed = changed_arguments(given)
    assert changed == {"clip": "clip", "rate": 0.1, "evaluate": False, "templates": given.templates}
    text = make_card(tmp_path, content(arguments=changed)).text
    assert "| rate | `0.1` |" in text and "| templates | `<emotion> \\| {scene}`, `<emotion>` |" in text


def test_pictures_are_shown_where_the_folder_has_them(tmp_path):
    assert "![" not in make_card(tmp_path, content(kind="joint")).text
    (tmp_path / "validation").mkdir()
    for name in ("curves.png", "validation/step-20.jpg", "validation/step-100.jpg"):
        (tmp_path / name).touch()
    text = make_card(tmp_path, content(kind="joint")).text
    assert "after step 100" in text and "](validation/step-100.jpg)" in text and "step-20" not in text
    assert "](curves.png)" in text


def test_the_refit_card_says_what_its_figures_are_of(tmp_path):
    text = make_card(tmp_path, content(kind="emotion_space", base_model=None)).text
    assert "fitted again on [ann/emoset]" in text and "trained on" not in text


# What a reader copies


def run_code_of(card: ModelCard) -> dict[str, object]:
    (code,) = re.findall(r"```python\n(.*?)\n```", card.text, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a photo and stock models in path/to, where cards say that a folder would be."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 40), (200, 120, 40)).save("photo.jpg")
    return tmp_path / "path" / "to"


@pytest.mark.parametrize("lora", [False, True])
def test_code_of_an_understanding_model(here, lora):
    model = tiny.understanding()
    if lora:
        model.add_adapter(model.lora_config(2))
        model.save_pretrained(here / "model" / "lora")
        model.merge_adapter()
    model.classifier[3].bias.data[4] += 9
    model.save_pretrained(here / "model")
    tiny.processor().save_pretrained(here / "model")
    card = make_card(here / "model", content(name="model"))
    assert ("lora" in card.data.tags) == ("`lora/` has it" in card.text) == lora
    assert run_code_of(card)["classify"]("photo.jpg")[0]["label"] == EMOTIONS[4], "as it was trained"


def test_code_of_the_baseline(here, capsys):
    torch.manual_seed(0)
    model = PlainClassifier(PlainClassifierConfig(**tiny.VISION, classifier_hidden=8))
    model.save_pretrained(here / "model")
    tiny.processor().save_pretrained(here / "model")
    names = run_code_of(make_card(here / "model", content(kind="baseline", name="model")))
    assert torch.equal(names["model"](names["pixels"]).logits, model.eval()(names["pixels"]).logits)


@pytest.mark.parametrize(("kind", "lora"), [("joint", False), ("joint", True), ("emotion_space", False)])
def test_code_of_an_adapter(here, kind, lora):
    pipe = StableDiffusionPipeline(**tiny.stable_diffusion())
    pipe.save_pretrained(here / "base")
    tiny.save_understanding(here / "model" / "understanding")
    write_adapter(here / "model" / ADAPTER_NAME, tiny.fusion(), None, here / "model" / "understanding")
    if lora:
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
        pipe.save_lora_weights(here / "model", unet_lora_layers=layers)
    card = make_card(here / "model", content(kind=kind, name="model", base_model="/elsewhere/base"))
    used = run_code_of(card)
    assert used["image"].size == (32, 32)
    assert bool(used["pipe"].get_list_adapters()) == ("lora" in card.data.tags) == lora
