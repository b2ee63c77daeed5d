"""What a saved pipeline and an adapter's repository hold, whatever the pipeline was made of."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from diffusers.utils import logging
from hub_server import HubServer, User
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from uniemo_pipelines import (
    UniEmoControlNetPipeline,
    UniEmoImg2ImgPipeline,
    UniEmoInpaintPipeline,
    UniEmoPipeline,
    UniEmoXLPipeline,
)
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, read_adapter, write_adapter
from uniemo_pipelines.chain_uniemo import take_chain
from uniemo_pipelines.cli import app
from uniemo_pipelines.cli_shared import load_pipeline
from uniemo_pipelines.exporting import export_adapter, export_pipeline, export_understanding
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel
from uniemo_pipelines.training_records_uniemo import Result, read_results, write_results

RESULTS = [Result(metric="emotion_accuracy", split="test", value=0.75, pictures=10)]
PHOTO = Image.new("RGB", (48, 40), (200, 120, 40))


@pytest.fixture
def adapter(tmp_path) -> Path:
    """An adapter's file that names an understanding model beside it."""
    tiny.save_understanding(tmp_path / "adapter" / "understanding")
    understanding = tmp_path / "adapter" / "understanding"
    return write_adapter(tmp_path / "adapter" / ADAPTER_NAME, tiny.fusion(), "some/base", understanding)


@pytest.fixture
def pipe(adapter) -> UniEmoPipeline:
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.load_uniemo(adapter)
    return pipe


def index(folder: Path) -> dict[str, object]:
    return json.loads((folder / "model_index.json").read_text(encoding="utf-8"))


def probabilities(pipe: UniEmoPipeline) -> dict[str, float]:
    return pipe.understand(PHOTO)[0].probabilities


def test_a_saved_pipeline_names_its_own_files_and_no_place_of_this_machine(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "whole")
    UniEmoPipeline.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "again")
    for folder in (tmp_path / "whole", tmp_path / "again"):
        found = index(folder)
        assert found["_class_name"] == ["pipeline", "UniEmoPipeline"]
        assert found["fusion"] == ["fusion_uniemo", "UniEmoFusionModel"] and found["understanding"] == "understanding"
        texts = [file.read_text(encoding="utf-8") for file in folder.rglob("*.json")]
        assert not [text for text in texts if str(tmp_path) in text or "_name_or_path" in text]
        files = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
        assert {"pipeline.py", "pipeline_uniemo.py", "fusion/fusion_uniemo.py"} < files
        assert set(found["_ignore_files"]) == {name for name in files if name.startswith("understanding/")}
    assert (tmp_path / "again" / "pipeline.py").read_bytes() == (tmp_path / "whole" / "pipeline.py").read_bytes()


def test_a_folder_that_was_moved_still_finds_its_understanding_model(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "whole")
    expected = probabilities(pipe)
    (tmp_path / "whole").rename(tmp_path / "moved")
    for name in ("adapter",):
        (tmp_path / name).rename(tmp_path / f"no longer {name}")
    assert probabilities(UniEmoPipeline.from_pretrained(tmp_path / "moved")) == expected


def test_a_pipeline_saved_over_the_folder_that_it_came_from_is_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "whole")
    expected = probabilities(pipe)
    UniEmoPipeline.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "whole")
    assert probabilities(UniEmoPipeline.from_pretrained(tmp_path / "whole")) == expected


def test_without_an_adapter_or_an_understanding_model_none_is_named(tmp_path):
    UniEmoPipeline(**tiny.stable_diffusion()).save_pretrained(tmp_path / "bare")
    assert index(tmp_path / "bare")["fusion"] == [None, None]
    UniEmoPipeline(**tiny.stable_diffusion(), fusion=tiny.fusion()).save_pretrained(tmp_path / "mute")
    for folder in (tmp_path / "bare", tmp_path / "mute"):
        assert index(folder)["understanding"] is None and not (folder / "understanding").exists()


def test_an_understanding_model_that_was_set_by_hand_is_saved(pipe, tmp_path):
    mute = UniEmoPipeline(**tiny.stable_diffusion(), fusion=tiny.fusion())
    mute.understanding_model = tiny.understanding()
    mute.save_pretrained(tmp_path)
    assert probabilities(UniEmoPipeline.from_pretrained(tmp_path)) == probabilities(mute)
    mute.understanding_model.add_adapter(mute.understanding_model.lora_config(2))
    with pytest.raises(ValueError, match=r"found LoRA on it; call its merge_adapter\(\)"):
        mute.save_pretrained(tmp_path)


@pytest.mark.parametrize("lora", [False, True])
def test_an_adapters_own_chain_is_saved_as_the_model_that_it_makes(tmp_path, lora):
    clip = tiny.save_clip(tmp_path / "clip")
    sizes = {"num_scene_queries": 2, "num_object_queries": 3, "classifier_hidden": tiny.TEXT_WIDTH}
    model = UniEmoUnderstandingModel.from_clip(str(clip), **sizes).eval()
    tiny.set_vocabulary(model)
    if lora:
        model.add_adapter(model.lora_config(2))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += 0.3 * torch.randn_like(parameter) if ".lora_" in name else 0
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.load_uniemo(write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), understanding=take_chain(model, str(clip))))
    expected = probabilities(pipe)
    pipe.save_pretrained(tmp_path / "whole")
    clip.rename(tmp_path / "no clip")
    assert probabilities(UniEmoPipeline.from_pretrained(tmp_path / "whole")) == expected
    assert probabilities(pipe) == expected


def test_a_users_own_subclass_is_saved_as_ours(pipe, tmp_path):
    class Own(UniEmoPipeline):
        """Whose code is no matter of the repository's."""

    Own.from_pipe(pipe).save_pretrained(tmp_path / "whole")
    assert index(tmp_path / "whole")["_class_name"] == ["pipeline", "UniEmoPipeline"]
    assert type(Own.from_pretrained(tmp_path / "whole")) is Own


@pytest.mark.parametrize("kind", [UniEmoImg2ImgPipeline, UniEmoInpaintPipeline, UniEmoControlNetPipeline])
def test_its_siblings_load_the_same_folder(pipe, tmp_path, kind):
    pipe.save_pretrained(tmp_path / "whole")
    given = {"controlnet": tiny.controlnet()} if kind is UniEmoControlNetPipeline else {}
    loaded = kind.from_pretrained(tmp_path / "whole", **given)
    assert loaded.list_uniemo() == ["default"] and probabilities(loaded) == probabilities(pipe)
    loaded.save_pretrained(tmp_path / "sibling")
    assert index(tmp_path / "sibling")["_class_name"] == ["pipeline", kind.__name__]
    entry = (tmp_path / "sibling" / "pipeline.py").read_text(encoding="utf-8")
    assert f"import {kind.__name__}" in entry and not (tmp_path / "sibling" / "pipeline_uniemo.py").exists()


# What `uniemo export` writes


@pytest.fixture
def base(tmp_path) -> str:
    UniEmoPipeline(**tiny.stable_diffusion()).save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def test_a_pipeline_is_exported_with_a_card_of_what_is_known_beside_its_adapter(adapter, base, pipe, tmp_path):
    write_results(adapter.parent, RESULTS)
    export_pipeline(tmp_path / "whole", base, str(adapter.parent), "ann/whole")
    loaded = UniEmoPipeline.from_pretrained(tmp_path / "whole")
    assert torch.equal(
        loaded.encode_prompt("<awe>", "cpu", 1, False)[0], pipe.encode_prompt("<awe>", "cpu", 1, False)[0]
    )
    assert probabilities(loaded) == probabilities(pipe)
    card = ModelCard.load(tmp_path / "whole" / "README.md")
    assert 'DiffusionPipeline.from_pretrained("ann/whole", trust_remote_code=True)' in card.text
    assert [found.metric_value for found in card.data.eval_results] == [0.75]


def test_lora_that_an_adapter_was_trained_with_goes_along(adapter, base, tmp_path):
    trained = UniEmoPipeline(**tiny.stable_diffusion())
    trained.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    trained.save_lora_weights(adapter.parent, unet_lora_layers=get_peft_model_state_dict(trained.unet))
    export_adapter(tmp_path / "small", str(adapter.parent), "ann/small")
    assert (tmp_path / "small" / "pytorch_lora_weights.safetensors").is_file()
    assert 'pipe.load_lora_weights("ann/small")' in (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
    export_pipeline(tmp_path / "whole", base, str(adapter.parent))
    inputs = (torch.rand(1, 4, 16, 16), 5, torch.rand(1, 3, tiny.TEXT_WIDTH))
    merged = UniEmoPipeline.from_pretrained(tmp_path / "whole").unet
    assert torch.allclose(merged(*inputs).sample, trained.unet(*inputs).sample, atol=1e-5)
    drawn = load_pipeline(base, str(adapter.parent), "cpu").unet  # as `uniemo generate` does
    assert torch.allclose(drawn(*inputs).sample, trained.unet(*inputs).sample, atol=1e-5)
    assert not torch.allclose(merged(*inputs).sample, tiny.stable_diffusion()["unet"](*inputs).sample, atol=1e-3)


@pytest.mark.parametrize("here", ["dreamshaper", "base"])
def test_a_pipelines_card_names_the_folder_that_it_was_loaded_from_unless_that_is_the_adapters_base(
    adapter, base, tmp_path, monkeypatch, here
):
    write_results(adapter.parent, RESULTS)
    folder = Path(base).rename(tmp_path / here)
    export_pipeline(tmp_path / "whole", str(folder), str(adapter))
    cards = [ModelCard.load(tmp_path / "whole" / "README.md")]
    pipe = UniEmoPipeline.from_pretrained(folder)
    pipe.load_uniemo(adapter)
    with HubServer({"secret": User("ann")}) as hub:
        hub.stand_in(monkeypatch)
        pipe.push_to_hub("ann/whole", token="secret")
        cards.append(ModelCard(hub.repositories["ann/whole"].files["README.md"].decode()))
    for card in cards:
        other = here != "base"
        assert card.data.base_model == (None if other else "some/base")
        assert ("`dreamshaper` and an adapter" in card.text) == other != bool(card.data.eval_results)


def test_a_pipeline_that_came_whole_is_not_called_its_own_base(adapter, pipe, tmp_path, monkeypatch):
    with HubServer({"secret": User("ann")}) as hub:
        hub.stand_in(monkeypatch)
        pipe.push_to_hub("ann/whole", token="secret")
        loaded = UniEmoPipeline.from_pretrained("ann/whole", token="secret", cache_dir=tmp_path / "cache")
        loaded.push_to_hub("ann/again", token="secret")
        loaded.push_uniemo_to_hub("ann/adapter", token="secret")
        for name in ("again", "adapter"):
            card = ModelCard(hub.repositories[f"ann/{name}"].files["README.md"].decode())
            assert card.data.base_model is None and "stock base model" in card.text.lower()


@pytest.mark.parametrize(("widths", "kind"), [((32,), UniEmoPipeline), ((32, 48), UniEmoXLPipeline)])
def test_an_adapter_is_exported_with_the_code_for_its_base(tmp_path, widths, kind):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(widths), "some/base", "ann/understanding")
    export_adapter(tmp_path / "out", str(tmp_path))
    found = read_adapter(tmp_path / "out" / ADAPTER_NAME)
    assert found.base_model == "some/base" and found.understanding == "ann/understanding", "which is on the Hub"
    assert f"import {kind.__name__}" in (tmp_path / "out" / "pipeline.py").read_text(encoding="utf-8")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "some/base" and 'custom_pipeline="path/to/out"' in card.text


def test_an_adapters_understanding_model_is_exported_for_the_auto_classes(adapter, pipe, tmp_path):
    export_understanding(tmp_path / "out", str(adapter))
    assert (tmp_path / "out" / "modeling_uniemo.py").is_file()
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(pixels).logits, tiny.understanding()(pixels).logits)


def test_the_command_line_reads_what_it_exported(adapter, base, tmp_path):
    export_pipeline(tmp_path / "whole", base, str(adapter))
    export_pipeline(tmp_path / "again", str(tmp_path / "whole"), str(adapter))
    for options in ((), ("--adapter", str(adapter))):
        out = tmp_path / f"{len(options)}.png"
        whole = ("--model", str(tmp_path / "again"), "--steps", "1", "--device", "cpu")
        result = CliRunner().invoke(app, ["generate", "awe", "--out", str(out), *whole, *options])
        assert result.exit_code == 0 and out.is_file(), result.output


def test_an_export_that_fails_says_why_and_leaves_nothing(adapter, tmp_path):
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="found nothing at '.*no base'"):
        export_pipeline(tmp_path / "whole", str(tmp_path / "no base"), str(adapter))
    with pytest.raises(ValueError, match="Stable Diffusion 1.x, 2.x or XL, found at '.*flux' a FluxPipeline"):
        export_pipeline(tmp_path / "whole", str(tmp_path / "flux"), str(adapter))
    write_adapter(tmp_path / "adapter" / "mute.safetensors", tiny.fusion())
    with pytest.raises(ValueError, match="names its understanding model"):
        export_understanding(tmp_path / "whole", str(tmp_path / "adapter" / "mute.safetensors"))
    assert sorted(tmp_path.iterdir()) == before


# Publishing


def test_a_push_keeps_the_folders_own_card_and_makes_the_repository_asked_for(pipe, tmp_path, monkeypatch, caplog):
    (tmp_path / "sd1.5").mkdir()
    (tmp_path / "sd1.5" / "README.md").write_text("# A card", encoding="utf-8")
    with HubServer({"secret": User("ann")}) as hub:
        hub.stand_in(monkeypatch)
        hub_arguments = {"private": True, "token": "secret", "commit_message": "First"}
        logging.enable_propagation()
        pipe.save_pretrained(tmp_path / "sd1.5", push_to_hub=True, **hub_arguments)
        logging.disable_propagation()
        assert "a dot in its name: 'sd1.5'" in caplog.text
        repository = hub.repositories["ann/sd1.5"]
        assert repository.private and repository.commits[-1].message == "First"
        assert repository.files["README.md"] == b"# A card"
        pipe.push_to_hub("ann/model", token="secret", subfolder="deep")
        assert "deep/model_index.json" in hub.repositories["ann/model"].files
        assert "deep/README.md" not in hub.repositories["ann/model"].files, "its code would load from above"


def test_a_push_says_what_is_known_beside_the_adapter(adapter, pipe, tmp_path, monkeypatch):
    write_results(adapter.parent, RESULTS)
    with HubServer({"secret": User("ann")}) as hub:
        hub.stand_in(monkeypatch)
        pipe.push_uniemo_to_hub("ann/adapter", token="secret")
        export_adapter(tmp_path / "again", "ann/adapter", "ann/again")
        assert read_results(tmp_path / "again") == RESULTS, "from the Hub too"
        pipe.push_to_hub("ann/whole", token="secret")
        pipe.save_pretrained(tmp_path / "folder", push_to_hub=True, token="secret")
        for name, code in {
            "adapter": 'custom_pipeline="ann/adapter"',
            "whole": '"ann/whole"',
            "folder": '"ann/folder"',
        }.items():
            card = ModelCard(hub.repositories[f"ann/{name}"].files["README.md"].decode())
            assert code in card.text and [found.metric_value for found in card.data.eval_results] == [0.75]
        pipe.push_to_hub("ann/half", token="secret", variant="fp16")
        card = ModelCard(hub.repositories["ann/half"].files["README.md"].decode())
        assert 'from_pretrained("ann/half", variant="fp16", trust_remote_code=True)' in card.text
        redraw = UniEmoImg2ImgPipeline.from_pipe(pipe)
        redraw.push_to_hub("ann/redraw", token="secret")
        redraw.push_uniemo_to_hub("ann/redraw-adapter", token="secret")
        for name in ("redraw", "redraw-adapter"):
            assert "README.md" not in hub.repositories[f"ann/{name}"].files, "whose code draws from text"
        redraw.unload_uniemo()
        pipe.unload_uniemo()
        pipe.push_to_hub("ann/stock", token="secret")
        assert "README.md" not in hub.repositories["ann/stock"].files, "it is not ours to describe"
