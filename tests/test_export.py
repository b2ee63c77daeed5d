"""Exports: textual inversions (what is in the files, that stock diffusers reads them), and the command."""

from pathlib import Path

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from uniemo_pipelines import (
    EMOTIONS,
    UniEmoFusionModel,
    UniEmoPipeline,
    UniEmoUnderstandingModel,
    UniEmoXLPipeline,
)
from uniemo_pipelines.adapters_uniemo import write_adapter
from uniemo_pipelines.cli import app
from uniemo_pipelines.textual_inversion_uniemo import emotion_vectors, export_textual_inversions

FILES = [f"{emotion}.safetensors" for emotion in EMOTIONS]
BANK = 6


@pytest.fixture
def fusion() -> UniEmoFusionModel:
    return tiny.fusion()


@pytest.fixture
def stock() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(**tiny.stable_diffusion())


@pytest.fixture
def live(tmp_path: Path, fusion: UniEmoFusionModel) -> UniEmoPipeline:
    pipeline = UniEmoPipeline(**tiny.stable_diffusion())
    pipeline.load_uniemo(write_adapter(tmp_path / "uniemo_adapter.safetensors", fusion))
    return pipeline


def load(pipeline: StableDiffusionPipeline, folder: Path, **options: str) -> None:
    pipeline.load_textual_inversion(str(folder), weight_name="awe.safetensors", **options)


def embeddings(pipeline: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    return pipeline.encode_prompt(prompt, "cpu", 1, False)[0]


@pytest.mark.parametrize("prompt", ["<awe>", "a photo of a <awe> street"])
def test_a_stock_pipeline_reads_the_mean_as_the_live_adapter_writes_it(tmp_path, fusion, live, stock, prompt):
    files = export_textual_inversions(fusion, tmp_path / "embeddings")
    assert [file.name for file in files] == FILES
    for file in files:
        stock.load_textual_inversion(str(file.parent), weight_name=file.name)
    expected, _ = live.encode_emotion(prompt, emotion_variation=0, do_classifier_free_guidance=False)
    torch.testing.assert_close(embeddings(stock, prompt), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(embeddings(stock, prompt.replace("awe", "fear")), expected, atol=1e-2)


def test_several_vectors_stand_in_a_row_or_one_by_one(tmp_path, fusion, live, stock):
    export_textual_inversions(fusion, tmp_path / "embeddings", vectors=4)
    load(stock, tmp_path / "embeddings")
    [vectors] = emotion_vectors(fusion, "awe", 4)
    tokens = stock.tokenizer.tokenize(stock.maybe_convert_prompt("a <awe> cat", stock.tokenizer))
    assert tokens[1:-1] == ["<awe>", "<awe>_1", "<awe>_2", "<awe>_3"]
    for number in (1, 2, 3):
        with live.emotion_conditions({"<awe>": vectors[number]}):
            expected = embeddings(live, "a <awe> cat")
        torch.testing.assert_close(embeddings(stock, f"a <awe>_{number} cat"), expected, atol=1e-5, rtol=1e-5)


def test_vectors_are_the_mean_and_distinct_medoids_and_more_only_add_to_fewer(fusion):
    [every] = emotion_vectors(fusion, "awe", 1 + BANK)
    [some] = emotion_vectors(fusion, "awe", 3)
    [mean] = emotion_vectors(fusion, "awe")
    assert every.shape == (1 + BANK, tiny.TEXT_WIDTH) and every.dtype == torch.float32
    assert every[:3].equal(some) and every[:1].equal(mean)
    apart = torch.cdist(every, every).fill_diagonal_(torch.inf)
    assert apart.min() > 1e-3
    awe = torch.eye(len(EMOTIONS))[EMOTIONS.index("awe")]
    bank = fusion(*fusion.bank[EMOTIONS.index("awe")].unbind(1), awe)
    torch.testing.assert_close(torch.cdist(every[1:], bank).amin(0), torch.zeros(BANK), atol=1e-4, rtol=0)


def test_the_first_medoid_is_the_weighted_centre_and_rows_without_weight_do_not_count(fusion):
    weights = torch.full((len(EMOTIONS), BANK), 1e-6)
    weights[:, 4], weights[:, 5] = 1, 0
    fusion.bank_weights = weights
    awe = torch.eye(len(EMOTIONS))[1]
    heavy = fusion(*fusion.bank[1, 4:5].unbind(1), awe)
    torch.testing.assert_close(emotion_vectors(fusion, "awe", 2)[0][1:], heavy)
    with pytest.raises(ValueError, match=f"from 1 to {BANK} vectors.*found {BANK + 1}"):
        emotion_vectors(fusion, "awe", BANK + 1)


def test_stable_diffusion_xl_reads_a_tensor_for_each_text_encoder(tmp_path):
    fusion = tiny.fusion((tiny.TEXT_WIDTH, tiny.SECOND_TEXT_WIDTH))
    live = UniEmoXLPipeline(**tiny.stable_diffusion_xl())
    live.load_uniemo(write_adapter(tmp_path / "uniemo_adapter.safetensors", fusion))
    export_textual_inversions(fusion, tmp_path)
    tensors = load_file(tmp_path / "awe.safetensors")
    stock = StableDiffusionXLPipeline(**tiny.stable_diffusion_xl())
    first = {"text_encoder": stock.text_encoder, "tokenizer": stock.tokenizer}
    second = {"text_encoder": stock.text_encoder_2, "tokenizer": stock.tokenizer_2}
    stock.load_textual_inversion(tensors["clip_l"], token="<awe>", **first)
    stock.load_textual_inversion(tensors["clip_g"], token="<awe>", **second)
    expected = live.encode_emotion("a <awe> cat", emotion_variation=0)[0]
    found = stock.encode_prompt("a <awe> cat", device="cpu")[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_where_uniemo_is_loaded_the_token_is_taken_and_another_is_not(tmp_path, fusion, live):
    export_textual_inversions(fusion, tmp_path / "embeddings")
    before = embeddings(live, "a <awe> cat")
    with pytest.raises(ValueError, match="<awe> already in tokenizer vocabulary"):
        load(live, tmp_path / "embeddings")
    assert embeddings(live, "a <awe> cat").equal(before)
    load(live, tmp_path / "embeddings", token="<exported>")
    torch.testing.assert_close(embeddings(live, "a <exported> cat"), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embeddings(live, "a <awe> cat"), before)


def test_where_an_export_is_loaded_uniemo_says_how_to_unload_it(tmp_path, fusion, live):
    export_textual_inversions(fusion, tmp_path / "embeddings")
    pipeline = UniEmoPipeline(**tiny.stable_diffusion())
    load(pipeline, tmp_path / "embeddings")
    with pytest.raises(ValueError, match=r"without <awe>.*unload_textual_inversion\(\)"):
        pipeline.load_uniemo(tmp_path)
    assert pipeline.list_uniemo() == []
    pipeline.unload_textual_inversion()
    pipeline.load_uniemo(tmp_path)
    torch.testing.assert_close(embeddings(pipeline, "<awe>"), embeddings(live, "<awe>"))


def test_a_base_of_another_width_refuses_the_file_and_stays_as_it_was(tmp_path, fusion):
    export_textual_inversions(fusion, tmp_path)
    other = StableDiffusionPipeline(**tiny.stable_diffusion(width=48))
    words = len(other.tokenizer)
    with pytest.raises(ValueError, match="incorrect shape"):
        load(other, tmp_path)
    assert len(other.tokenizer) == words == other.text_encoder.get_input_embeddings().num_embeddings


def test_a_failed_write_leaves_nothing(tmp_path, fusion, monkeypatch):
    def full_disk(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        if "<fear>" in tensors:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("uniemo_pipelines.textual_inversion_uniemo.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export_textual_inversions(fusion, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def uniemo(tmp_path, monkeypatch, fusion):
    """Runs `uniemo export` in a folder with `adapter.safetensors`."""
    monkeypatch.chdir(tmp_path)
    write_adapter(tmp_path / "adapter.safetensors", fusion)
    return lambda *arguments: CliRunner().invoke(app, ["export", "--adapter", "adapter.safetensors", *arguments])


def test_the_command_writes_the_files_beside_others_and_names_them(uniemo, tmp_path):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "toy.safetensors").write_bytes(b"another's")
    result = uniemo("--textual-inversion", "embeddings", "--vectors", "3")
    assert result.exit_code == 0, result.output
    assert [Path(line).name for line in result.stdout.split()] == FILES
    others = {"toy.safetensors", "README.md", "training.json"}
    assert {path.name for path in (tmp_path / "embeddings").iterdir()} == {*FILES, *others}
    assert "<awe>_1" in (tmp_path / "embeddings" / "README.md").read_text()
    assert load_file(tmp_path / "embeddings" / "fear.safetensors")["<fear>"].shape == (3, tiny.TEXT_WIDTH)


@pytest.mark.parametrize("name", ["README.md", "training.json"])
def test_what_is_said_of_a_folder_already_stays_when_embeddings_join_it(uniemo, tmp_path, name):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / name).write_text("another's")
    result = uniemo("--textual-inversion", "project")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "project").iterdir()} == {*FILES, name}
    assert (tmp_path / "project" / name).read_text() == "another's"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--textual-inversion", "adapter.safetensors"), ("adapter.safetensors", "found a file")),
        (("--textual-inversion", "adapter.safetensors/below"), ("adapter.safetensors",)),
        (("--textual-inversion", "full"), ("full", "awe.safetensors", "fear.safetensors", "remove")),
        (("--textual-inversion", "new", "--vectors", "0"), ("--vectors",)),
        (("--textual-inversion", "new", "--vectors", str(BANK + 2)), (f"from 1 to {BANK + 1}", f"found {BANK + 2}")),
        (("--textual-inversion", "new", "--adapter", "nowhere.safetensors"), ("nowhere.safetensors",)),
        (("--textual-inversion", "new", "--adapter", "full/awe.safetensors"), ("full/awe.safetensors",)),
        ((), ("--hub-repo", "--adapter-repo", "--understanding", "--textual-inversion")),
        (("--hub-repo", "full"), ("full", "new or an empty folder")),
        (("--adapter-repo", "new", "--repo-id", "name"), ("YOU/NAME", "'name'")),
        (("--adapter-repo", "new", "--repo-id", "you/a/name"), ("YOU/NAME", "'you/a/name'")),
        (("--adapter-repo", "new", "--understanding", "new"), ("new", "twice")),
        (("--adapter-repo", "new", "--model", "base"), ("--hub-repo",)),
        (("--hub-repo", "new", "--model", "nowhere"), ("nowhere",)),
        (("--understanding", "new"), ("names its understanding model",)),
    ],
)
def test_bad_requests_are_refused_in_one_line_and_write_nothing(uniemo, tmp_path, arguments, words):
    (tmp_path / "full").mkdir()
    for name in ("awe", "fear"):
        (tmp_path / "full" / f"{name}.safetensors").write_bytes(b"here before")
    before = sorted(tmp_path.rglob("*"))
    result = uniemo(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_writes_repositories_that_load(uniemo, tmp_path):
    tiny.save_understanding(tmp_path / "understanding")
    write_adapter(tmp_path / "adapter.safetensors", tiny.fusion(), understanding=tmp_path / "understanding")
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(tmp_path / "base")
    written = ["--hub-repo", "whole", "--adapter-repo", "small", "--understanding", "classifier"]
    result = uniemo(*written, "--model", "base", "--textual-inversion", "small")
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:3] == ["whole", "small", "classifier"] and result.stderr.count(" MB") == 3
    whole = UniEmoPipeline.from_pretrained("whole")
    small = UniEmoPipeline(**tiny.stable_diffusion())
    small.load_uniemo("small")
    assert embeddings(whole, "<awe>").equal(embeddings(small, "<awe>"))
    classifier = UniEmoUnderstandingModel.from_pretrained("classifier")
    for pipe in (whole, small):
        assert pipe.understanding_model.classifier[0].weight.equal(classifier.classifier[0].weight)
    assert (tmp_path / "small" / "awe.safetensors").is_file()
    again = uniemo(*written, "--model", "base")
    assert again.exit_code == 2 and "whole: expected a new or an empty folder" in again.stderr
