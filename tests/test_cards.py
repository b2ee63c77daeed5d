"""Model cards: true metadata, nothing private in them, and code that runs as it stands."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from card_code import code_of, run_code_of, write_readers_own
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from hub_server import HubServer, User
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from training.hub import publish
from uniemo_pipelines import UniEmoPipeline, embedded
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.card_texts_uniemo import PIPELINE
from uniemo_pipelines.cards_uniemo import add_card, make_card, write_card
from uniemo_pipelines.modeling_uniemo import EMOTIONS
from uniemo_pipelines.textual_inversion_uniemo import export_textual_inversions
from uniemo_pipelines.training_records_uniemo import (
    CONTACT_SHEET,
    Result,
    TrainingRecord,
    copy_records,
    read_record,
    write_record,
    write_results,
)

TESTS = Path(__file__).parent
CLIP = "openai/clip-vit-large-patch14"
BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RECORD = TrainingRecord(base_model=BASE, data="ann/emoset")


def write_understanding(folder: Path) -> None:
    tiny.save_understanding(folder)


def write_adapter_folder(folder: Path) -> None:
    write_adapter(folder / ADAPTER_NAME, tiny.fusion(), None, tiny.save_understanding(folder / "understanding"))


def write_pipeline_code(folder: Path) -> None:
    (folder / "pipeline.py").write_text("from uniemo_pipelines.pipeline_uniemo import UniEmoPipeline\n")


def write_adapter_repository(folder: Path) -> None:
    write_adapter_folder(folder)
    write_pipeline_code(folder)


def write_pipeline(folder: Path) -> None:
    """The full repository."""
    write_adapter_folder(folder)
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.load_uniemo(folder)
    pipe.save_pretrained(folder)
    (folder / ADAPTER_NAME).unlink()


def write_embeddings(folder: Path) -> None:
    export_textual_inversions(tiny.fusion(), folder)


FOLDERS = {
    "understanding": write_understanding,
    "adapter": write_adapter_folder,
    "adapter repository": write_adapter_repository,
    "pipeline": write_pipeline,
    "embeddings": write_embeddings,
}


@pytest.fixture(params=FOLDERS)
def folder(request, tmp_path) -> Path:
    """One of everything that there are cards for."""
    FOLDERS[request.param](tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch):
    with HubServer({"secret": User("ann")}) as server:
        server.stand_in(monkeypatch)
        yield server


# Metadata


def test_the_hubs_own_tools_find_no_fault_in_it(folder, hub):
    write_record(folder, RECORD)
    write_results(folder, [Result(metric="accuracy", split="test", value=0.7, pictures=10)])
    card = ModelCard.load(write_card(folder, "ann/emotions"))
    card.validate()
    index = eval_results_to_model_index("emotions", card.data.eval_results)
    assert model_index_to_eval_results(index) == ("emotions", card.data.eval_results)
    assert str(ModelCard(str(card))) == str(card)
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("kind", ["adapter", "adapter repository", "pipeline", "embeddings"])
def test_the_hub_lists_it_as_an_adapter_of_its_base(tmp_path, hub, kind):
    """By the base's name and the relation; by the library and the task it is found, too."""
    FOLDERS[kind](tmp_path)
    write_record(tmp_path, RECORD)
    write_card(tmp_path, "ann/emotions")
    hub.create("ann/emotions")
    publish(tmp_path, "ann/emotions", token="secret")
    info = HfApi().model_info("ann/emotions")
    assert (info.card_data.base_model, info.card_data["base_model_relation"]) == (BASE, "adapter")
    assert (info.library_name, info.pipeline_tag) == ("diffusers", "text-to-image")
    assert {"uniemo", "emotion", "stable-diffusion"} <= set(info.tags)


def test_a_classifier_is_a_fine_tuned_clip(tmp_path):
    write_understanding(tmp_path)
    write_record(tmp_path, replace(RECORD, base_model=CLIP))
    data = make_card(tmp_path, "ann/emotions").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-classification")
    assert (data.base_model, data.base_model_relation, data.datasets) == (CLIP, "finetune", ["ann/emoset"])
    assert data.eval_results is None and data.model_name is None


def test_figures_of_the_model_itself_are_metadata_and_those_beside_them_are_not(tmp_path):
    write_pipeline(tmp_path)
    write_record(tmp_path, RECORD)
    seen, drawn = ({"task": task, "split": "test", "pictures": 10} for task in ("image-classification", None))
    results = [
        Result(metric="accuracy", value=0.785312345, interval=(0.77, 0.8), **seen),
        Result(metric="accuracy", value=0.8, of="the best possible", **seen),
        Result(metric="coverage", value=0.5, **drawn),
        Result(metric="loss", value=1.7, split="train"),
    ]
    write_results(tmp_path, results)
    card = make_card(tmp_path, "ann/emotions")
    found = [
        (one.task_type, one.metric_type, one.metric_value, one.dataset_type, one.dataset_split)
        for one in card.data.eval_results
    ]
    assert found == [
        ("image-classification", "accuracy", 0.78531, "ann/emoset", "test"),
        ("text-to-image", "coverage", 0.5, "ann/emoset", "test"),
    ]
    assert "| accuracy | test | 0.78531 | 0.7700 to 0.8000 | 10 |\n" in card.text
    assert "| accuracy, the best possible | test | 0.8 |  | 10 |\n" in card.text
    assert "| loss | train | 1.7 |  |  |\n" in card.text


def test_a_classifier_does_not_show_figures_of_drawing(tmp_path):
    write_understanding(tmp_path)
    results = [Result(metric="coverage", value=0.5, split="test", pictures=10, task="text-to-image")]
    write_results(tmp_path, results)
    card = make_card(tmp_path)
    assert card.data.eval_results is None and "Nothing was measured." in card.text


@pytest.mark.parametrize(
    ("chosen", "base", "found", "said"),
    [
        ("mit", None, "mit", "These weights: `mit`."),
        (None, CLIP, None, "not named a licence"),
        (None, BASE, "creativeml-openrail-m", "restrictions of use hold for these weights too"),
        ("apache-2.0", BASE, "apache-2.0", "restrictions of use hold for these weights too"),
        (None, "clip", None, "The base, `clip`: not known here"),
    ],
)
def test_the_licence_is_the_authors_or_that_of_a_base_whose_goes_over(tmp_path, chosen, base, found, said):
    write_understanding(tmp_path)
    write_record(tmp_path, TrainingRecord(base_model=base, license=chosen))
    card = make_card(tmp_path)
    assert card.data.license == found and said in card.text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("ann/emoset", "[ann/emoset](https://huggingface.co/datasets/ann/emoset): as their card says"),
        ("/mnt/MiniEmoSet", "The data, MiniEmoSet: drawn by code"),
        ("/mnt/EmoSet-118K", "its authors name no licence"),
        ("/mnt/mine", "The data, `mine`: not known here"),
        (None, "The data: not known here"),
    ],
)
def test_the_licence_of_the_data_as_far_as_it_is_known(tmp_path, data, said):
    write_understanding(tmp_path)
    write_record(tmp_path, TrainingRecord(data=data))
    assert said in make_card(tmp_path).text


def test_the_adapter_file_names_the_base_where_the_record_does_not(tmp_path):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), BASE)
    assert make_card(tmp_path).data.base_model == BASE
    write_record(tmp_path, TrainingRecord(base_model="ann/base"))
    assert make_card(tmp_path).data.base_model == "ann/base"


# Words


def test_nothing_of_this_machine_is_in_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/emoset").mkdir(parents=True)  # looks like a name on the Hub, and is none
    write_record(folder, TrainingRecord(base_model=str(tmp_path / "base"), data="data/emoset"))
    written = write_card(folder).read_text() + (folder / "training.json").read_text()
    assert str(tmp_path) not in written and "data/emoset" not in written
    assert "`base`" in written and "emoset" in written


def test_what_may_do_harm_is_said_of_all_that_may_do_it(folder):
    text = make_card(folder).text
    assert "one culture's reading" in text and "## Intended use\n" in text and "## Limits\n" in text
    draws = (folder / "config.json").is_file() is False
    assert ("evoke fear, disgust and anger" in text) == draws
    reads = (folder / "awe.safetensors").is_file() is False
    assert ("on people's faces" in text) == reads


def test_the_contact_sheet_is_shown_by_what_draws(folder):
    assert CONTACT_SHEET not in make_card(folder).text
    (folder / CONTACT_SHEET).touch()
    draws = (folder / "config.json").is_file() is False
    assert (f"]({CONTACT_SHEET})" in make_card(folder).text) == draws


def test_a_user_of_each_library_finds_a_few_lines(tmp_path):
    for kind in ("pipeline", "adapter repository"):
        FOLDERS[kind](tmp_path / kind)
        card = make_card(tmp_path / kind, "ann/emotions")
        headings = re.findall(r"### (.*)\n\n```python", card.text)
        assert headings[:5] == ["diffusers", "transformers", "compel", "LoRA", "Textual inversion"]
        assert headings[5].startswith("Image to image, inpainting, ControlNet") and headings[6].startswith("Offline")
        for block in code_of(card):
            assert len([line for line in block.splitlines() if line]) <= 5, block


def test_what_cannot_understand_does_not_claim_to(tmp_path):
    write_adapter(tmp_path / ADAPTER_NAME, tiny.fusion(), BASE)
    pipe = UniEmoPipeline(**tiny.stable_diffusion(), fusion=tiny.fusion())
    pipe.save_pretrained(tmp_path / "whole")
    for folder in (tmp_path, tmp_path / "whole"):
        text = make_card(folder).text
        assert "it draws pictures" in text and "### compel" in text
        assert not [word for word in ("reads which", "reading them", "understanding_model") if word in text]


def test_vectors_of_an_emotions_variety_are_explained(tmp_path):
    export_textual_inversions(tiny.fusion(), tmp_path, vectors=4)
    text = make_card(tmp_path).text
    assert "`<awe>_1` to `<awe>_3`" in text and "the emotion's mean: it evokes" not in text


def test_an_empty_folder_has_no_card(tmp_path):
    with pytest.raises(ValueError, match="expected a pipeline .* an adapter .*found none"):
        write_card(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"base": "x"}'])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(ValueError, match="training.json: expected"):
        read_record(tmp_path)


def test_records_go_along_with_a_model(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        path.mkdir()
    copy_records(source, target)
    assert list(target.iterdir()) == []
    write_record(source, RECORD)
    (source / CONTACT_SHEET).write_bytes(b"sheet")
    copy_records(source, target)
    assert read_record(target) == RECORD and (target / CONTACT_SHEET).read_bytes() == b"sheet"


# Of what was exported


@pytest.fixture
def source(tmp_path) -> Path:
    """A trained adapter's folder, with all that can lie beside it."""
    write_adapter(tmp_path / "run" / ADAPTER_NAME, tiny.fusion(), BASE)
    limits, call = ["Red."], {"num_inference_steps": 4}
    record = TrainingRecord(data="ann/emoset", license="mit", arguments={"joint": {}}, limits=limits, call=call)
    write_record(tmp_path / "run", record)
    write_results(tmp_path / "run", [Result(metric="coverage", split="test", value=0.5, pictures=10)])
    (tmp_path / "run" / CONTACT_SHEET).write_bytes(b"sheet")
    return tmp_path / "run"


def test_an_exported_model_has_all_that_is_known_of_its_adapter(source, folder):
    card = ModelCard.load(add_card(folder, source, "ann/emotions"))
    assert (card.data.license, card.data.datasets) == ("mit", ["ann/emoset"])
    draws, measured = card.data.pipeline_tag == "text-to-image", "textual_inversion" not in card.data.tags
    assert card.data.base_model == (BASE if draws else None)
    assert ((folder / CONTACT_SHEET).is_file(), "Red." in card.text) == (draws and measured,) * 2
    assert ("| coverage |" in card.text) == bool(card.data.eval_results) == (draws and measured)
    assert str(make_card(folder, "ann/emotions")) == str(card), "from what is beside it alone"


def test_a_pipeline_on_another_base_names_that(source, tmp_path):
    write_pipeline(tmp_path / "model")
    drawn, read = (
        Result(metric=name, split="test", value=0.5, pictures=10, task=task)
        for name, task in (("coverage", None), ("accuracy", "image-classification"))
    )
    write_results(source, [drawn, read])
    card = ModelCard.load(add_card(tmp_path / "model", source, base_model="ann/base"))
    assert card.data.base_model == "ann/base"
    assert [found.metric_type for found in card.data.eval_results] == ["accuracy"], "of drawing, on the other base"
    assert not (tmp_path / "model" / CONTACT_SHEET).exists() and "options" not in card.text
    assert (source / CONTACT_SHEET).is_file()


def test_of_several_adapters_in_a_folder_the_exported_one_names_its_base(source, tmp_path):
    write_adapter(tmp_path / "out" / ADAPTER_NAME, tiny.fusion(), "ann/base")
    assert ModelCard.load(add_card(tmp_path / "out", source)).data.base_model == "ann/base"


def test_an_exported_understanding_model_has_its_own_record_where_there_is_one(source, tmp_path):
    tiny.save_understanding(tmp_path / "model")
    (source / "understanding").mkdir()
    write_record(source / "understanding", TrainingRecord(base_model=CLIP, license="apache-2.0"))
    card = ModelCard.load(add_card(tmp_path / "model", source))
    assert (card.data.base_model, card.data.license) == (CLIP, "apache-2.0")


def test_an_export_of_which_nothing_is_known_has_a_card_all_the_same(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    card = ModelCard.load(add_card(folder, tmp_path / "empty"))
    assert "tock base model" in card.text
    assert "Its arguments are not known here." in card.text and "not named a licence" in card.text


# What a reader copies


@pytest.fixture
def here(tmp_path, monkeypatch):
    """path/to in the current folder, where cards say that things would be: a base, and the reader's own."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "path" / "to"
    base = StableDiffusionPipeline(**tiny.stable_diffusion())
    base.save_pretrained(place / "base")
    write_readers_own(base, place)
    return place


def test_code_for_an_adapter(here, capsys):
    write_adapter_folder(here / "model")
    write_record(here / "model", TrainingRecord(base_model="base", call={"num_inference_steps": 4}))
    used = run_code_of(make_card(here / "model"))
    assert used["image"].size == (32, 32) and used["options"] == {"num_inference_steps": 4}
    assert used["pipe"].get_list_adapters() and "<toy>" in used["pipe"].tokenizer.get_vocab()
    assert type(used["redraw"]).__name__ == "UniEmoImg2ImgPipeline" and used["redraw"].list_uniemo() == ["default"]
    assert set(re.findall(r"'label': '(\w+)'", capsys.readouterr().out)) == set(EMOTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adapter repository", "pipeline"])
def test_code_for_what_is_loaded_from_the_hub(hub, here, kind):
    """As it stands, in a fresh process with an empty cache."""
    FOLDERS[kind](here / "model")
    write_record(here / "model", TrainingRecord(base_model="ann/base", call={"num_inference_steps": 4}))
    write_card(here / "model", "ann/emotions")
    for name, path in (("ann/base", here / "base"), ("ann/emotions", here / "model")):
        hub.create(name)
        publish(path, name, token="secret")
    script = """
import sys
sys.path[:0] = sys.argv[1:]
from card_code import run_code_of
from huggingface_hub import ModelCard
used = run_code_of(ModelCard.load("ann/emotions"))
assert used["image"].size == (32, 32) and used["redraw"].list_uniemo() == ["default"]
assert used["pipe"].list_uniemo() == ["default"], "loaded again, from a folder"
"""
    environment = hub.environment(here / "home") | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(TESTS.parent), str(TESTS)]
    subprocess.run(command, cwd=here.parents[1], env=environment, check=True)


def test_code_for_textual_inversions(here):
    FOLDERS["embeddings"](here / "model")
    write_record(here / "model", TrainingRecord(base_model="base"))
    assert run_code_of(make_card(here / "model"))["image"].size == (32, 32)


def test_code_for_textual_inversions_of_xl(here, monkeypatch):
    fusion = tiny.fusion((tiny.TEXT_WIDTH, tiny.SECOND_TEXT_WIDTH))
    export_textual_inversions(fusion, here / "model")
    StableDiffusionXLPipeline(**tiny.stable_diffusion_xl()).save_pretrained(here / "xl")
    write_record(here / "model", TrainingRecord(base_model="xl"))
    (code,) = code_of(make_card(here / "model"))
    monkeypatch.chdir(here / "model")
    names: dict[str, object] = {}
    exec(code.replace("path/to/", f"{here}/"), names)
    assert "<awe>" in names["pipe"].tokenizer_2.get_vocab()


def test_code_for_an_adapter_of_xl(here):
    fusion = tiny.fusion((tiny.TEXT_WIDTH, tiny.SECOND_TEXT_WIDTH))
    write_adapter(here / "model" / ADAPTER_NAME, fusion, None, tiny.save_understanding(here / "understanding"))
    StableDiffusionXLPipeline(**tiny.stable_diffusion_xl()).save_pretrained(here / "xl")
    write_record(here / "model", TrainingRecord(base_model="xl", call={"num_inference_steps": 2}))
    card = make_card(here / "model")
    assert "stable-diffusion-xl" in card.data.tags
    names: dict[str, object] = {}
    drawing, reading, _lora = code_of(card)
    exec(f"{drawing}\n{reading}", names)
    assert names["image"].size == (32, 32)


def test_code_for_a_classifier(here, capsys):
    model = tiny.understanding()
    model.classifier[3].bias.data[4] += 9
    model.save_pretrained(here / "model")
    tiny.processor().save_pretrained(here / "model")
    assert run_code_of(make_card(here / "model"))["classify"]("photo.jpg")[0]["label"] == EMOTIONS[4]


# The embedded model


def test_the_embedded_models_cards_are_made_from_what_is_beside_it():
    card = make_card(embedded.FOLDER, text=PIPELINE)
    measured = {(one.task_type, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert set(measured) == {
        ("image-classification", "accuracy"),
        *(("text-to-image", metric) for metric in ("emotion_accuracy", "total_variation", "coverage")),
    }
    assert card.data.license == "apache-2.0" and card.data.base_model is None
    assert f"]({CONTACT_SHEET})" in card.text and (embedded.FOLDER / CONTACT_SHEET).is_file()
    [accuracy] = make_card(embedded.UNDERSTANDING).data.eval_results
    assert accuracy.metric_value == measured["image-classification", "accuracy"]


@pytest.mark.slow
def test_code_for_the_embedded_model(here, capsys):
    base = StableDiffusionPipeline.from_pretrained(embedded.STABLE_DIFFUSION)
    base.save_pretrained(here / "mini-stable-diffusion")
    write_readers_own(base, here)
    shutil.copytree(embedded.FOLDER, here / "mini")
    used = run_code_of(make_card(here / "mini"))
    assert used["image"].size == (128, 128) and used["options"]["guidance_scale"] == embedded.GUIDANCE
