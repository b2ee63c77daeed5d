"""Model cards of training runs: what they say of a stage's folder and of its arguments, and code that runs."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny
import torch
from card_code import run_code_of, write_readers_own
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from training.cards import Kind, changed_arguments, run_text
from training.pooled_patches import PooledPatchesModel
from training.train_baseline import PlainClassifier, PlainClassifierConfig
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.cards_uniemo import make_card
from uniemo_pipelines.modeling_uniemo import EMOTIONS
from uniemo_pipelines.training_records_uniemo import TrainingRecord, write_record


def card_of(folder: Path, kind: Kind, **record: object) -> ModelCard:
    """The card of a run on "base", with no results yet."""
    write_record(folder, TrainingRecord(**{"base_model": "base", "data": "ann/emoset"} | record))
    return make_card(folder, text=run_text(folder, kind))


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
    given.templates = ["<emotion> | {scene}", str(tmp_path / "more")]
    changed = changed_arguments(given)
    assert changed == {"clip": "clip", "rate": 0.1, "evaluate": False, "templates": ["<emotion> | {scene}", "more"]}
    tiny.save_understanding(tmp_path)
    text = card_of(tmp_path, "understanding", arguments={"understanding": changed}).text
    assert "| rate | `0.1` |" in text and "| templates | `<emotion> \\| {scene}`, `more` |" in text
    assert "hf_x" not in text


def test_pictures_are_shown_where_the_folder_has_them(tmp_path):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion())
    assert "![" not in card_of(tmp_path, "joint").text
    (tmp_path / "validation").mkdir()
    for name in ("curves.png", "validation/step-20.jpg", "validation/step-100.jpg"):
        (tmp_path / name).touch()
    text = card_of(tmp_path, "joint").text
    assert "after step 100" in text and "](validation/step-100.jpg)" in text and "step-20" not in text
    assert "](curves.png)" in text


@pytest.mark.parametrize("lora", [False, True])
def test_the_refit_card_says_what_its_figures_are_of(tmp_path, lora):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding="ann/understanding")  # that it was fitted by
    if lora:
        (tmp_path / "pytorch_lora_weights.safetensors").touch()
    text = card_of(tmp_path, "emotion_space").text
    assert "fitted again on [ann/emoset]" in text and "was trained on" not in text
    assert ("LoRA weights of the base" in text) == lora


# What a reader copies


@pytest.fixture
def here(tmp_path, monkeypatch):
    """path/to in the current folder, where cards say that things would be: a base, and the reader's own."""
    monkeypatch.chdir(tmp_path)
    base = StableDiffusionPipeline(**tiny.stable_diffusion())
    base.save_pretrained(tmp_path / "path" / "to" / "base")
    write_readers_own(base, tmp_path / "path" / "to")
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
    card = card_of(here / "model", "understanding")
    assert ("lora" in card.data.tags) == ("`lora/` has it" in card.text) == lora
    assert run_code_of(card)["classify"]("photo.jpg")[0]["label"] == EMOTIONS[4], "as it was trained"


def test_code_of_the_baseline(here, capsys):
    torch.manual_seed(0)
    model = PlainClassifier(PlainClassifierConfig(**tiny.VISION, classifier_hidden=8))
    model.save_pretrained(here / "model")
    tiny.processor().save_pretrained(here / "model")
    names = run_code_of(card_of(here / "model", "baseline"))
    assert torch.equal(names["model"](names["pixels"]).logits, model.eval()(names["pixels"]).logits)


@pytest.mark.parametrize(("kind", "lora"), [("joint", False), ("joint", True), ("emotion_space", False)])
def test_code_of_an_adapter(here, kind, lora):
    tiny.save_understanding(here / "model" / "understanding")
    write_adapter(here / "model" / ADAPTER_NAME, tiny.fusion(), None, here / "model" / "understanding")
    if lora:
        name = "pytorch_lora_weights.safetensors"
        shutil.copyfile(here / "lora" / name, here / "model" / name)
    card = card_of(here / "model", kind, call={"num_inference_steps": 4})
    used = run_code_of(card)
    assert used["image"].size == (32, 32)
    assert (len(used["pipe"].get_list_adapters()["unet"]) == 2) == ("lora" in card.data.tags) == lora


def test_code_of_the_rivals(here):
    """Of stage 1 without queries, of stage 2 upon it, and of stage 2 without understanding."""
    model = PooledPatchesModel(tiny.understanding().config)
    for folder in (here / "pooled", here / "joint" / "understanding"):
        model.save_pretrained(folder)
        tiny.processor().save_pretrained(folder)
    assert run_code_of(card_of(here / "pooled", "understanding"))["model"].config.model_type == "uniemo"
    write_adapter(here / "joint" / ADAPTER_NAME, tiny.fusion(), None, here / "joint" / "understanding")
    card = card_of(here / "joint", "joint", call={"num_inference_steps": 4})
    assert "in place of expert queries" in card.text and "understanding_model" not in card.text
    assert run_code_of(card)["image"].size == (32, 32)
    (here / "inversion").mkdir()
    for emotion in EMOTIONS:
        save_file({f"<{emotion}>": torch.ones(1, tiny.TEXT_WIDTH)}, here / "inversion" / f"{emotion}.safetensors")
    card = card_of(here / "inversion", "textual_inversion", call={"num_inference_steps": 4})
    assert "without understanding" in card.text and run_code_of(card)["image"].size == (32, 32)
