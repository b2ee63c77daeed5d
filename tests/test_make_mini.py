"""What `make_mini` promises of itself: whole components, gates that stop it, and an old model that survives."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline

from training import make_mini
from training.make_mini import assemble, component, document, gate
from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.training_records_uniemo import (
    Result,
    TrainingRecord,
    read_record,
    read_results,
    write_record,
    write_results,
)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(make_mini, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


def test_a_component_is_made_once_and_keeps_no_checkpoint(runs: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "weights").write_text("trained")
        (folder / "vae.ckpt").write_text("half way")

    def make_again(folder: Path) -> None:
        raise AssertionError("made twice")

    folder = component("vae", make)
    assert [path.name for path in folder.iterdir()] == ["weights"]
    assert component("vae", make_again) == folder


def test_a_component_killed_in_the_middle_goes_on_from_its_checkpoint(runs: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "vae.ckpt").write_text("step 250")
        raise KeyboardInterrupt

    def goes_on(folder: Path) -> None:
        assert (folder / "vae.ckpt").read_text() == "step 250"

    with pytest.raises(KeyboardInterrupt):
        component("vae", killed)
    assert not (runs / "vae").exists()
    assert component("vae", goes_on).exists()


def test_a_gate_is_measured_once_and_a_miss_ends_the_run(tmp_path: Path) -> None:
    measured = []

    def measure() -> dict[str, float]:
        measured.append(1)
        return {"scene": 0.96, "object": 0.79}

    for _ in range(2):
        with pytest.raises(SystemExit, match=r"missed its gate, captions: expected at least {'object': 0.8}"):
            gate(tmp_path, "captions", measure, {"scene": 0.95, "object": 0.80})
    assert gate(tmp_path, "captions", measure, {"scene": 0.95}) == {"scene": 0.96, "object": 0.79}
    assert len(measured) == 1
    gate(tmp_path, "words", lambda: {"scene": 1.0}, {})
    assert set(json.loads((tmp_path / "gate.json").read_text())) == {"captions", "words"}


def write_parts(runs: Path) -> None:
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(runs / "stable-diffusion")
    understanding = tiny.save_understanding(runs / "joint" / "understanding")
    write_adapter(runs / "joint" / ADAPTER_NAME, tiny.fusion(), "tiny", understanding)


def test_the_assembled_model_loads_and_generates(runs: Path, tmp_path: Path) -> None:
    write_parts(runs)
    assemble(tmp_path / "mini")
    pipeline = UniEmoPipeline.from_pretrained(tmp_path / "mini" / "stable-diffusion", safety_checker=None)
    pipeline.load_uniemo(tmp_path / "mini")
    assert pipeline(emotion="awe", num_inference_steps=2).images[0].size == (32, 32)
    assert pipeline.text_encoder.dtype == pipeline.understanding_model.dtype == torch.float32
    for config in (tmp_path / "mini").rglob("*.json"):
        assert str(tmp_path) not in config.read_text() and "auto_map" not in config.read_text()
    assert not list((tmp_path / "mini").rglob("*.py"))


def test_a_model_that_is_too_large_leaves_the_old_one(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(runs)
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "old").touch()
    monkeypatch.setattr(make_mini, "MEGABYTES", 0.001)
    with pytest.raises(SystemExit, match="at most 0.001 MB"):
        assemble(tmp_path / "mini")
    assert (tmp_path / "mini" / "old").exists()


def test_what_cards_are_made_from_is_new_and_the_authors_words_stay(runs: Path, tmp_path: Path) -> None:
    write_parts(runs)
    mini, words = tmp_path / "mini", {"about": "Small.", "license": "mit"}
    for folder in (mini, mini / "understanding"):
        folder.mkdir()
        write_record(folder, TrainingRecord(arguments={"joint": {"rate": 1}}, base_model=f"of {folder.name}", **words))
    for stage in ("understanding", "joint"):
        (runs / stage).mkdir(exist_ok=True)
        write_record(runs / stage, TrainingRecord(arguments={stage: {"rate": 2}}))
    (runs / "evaluation").mkdir()
    (runs / "evaluation" / "contact_sheet_uniemo.jpg").write_bytes(b"sheet")
    tasks = ("image-classification", "text-to-image")
    results = [Result(metric="figure", split="test", value=0.5, task=task) for task in tasks]
    write_results(runs / "evaluation", results)
    assemble(mini)
    document(mini)
    stages = {"understanding": {"rate": 2}, "joint": {"rate": 2}}
    for folder in (mini, mini / "understanding"):
        assert read_record(folder) == TrainingRecord(arguments=stages, base_model=f"of {folder.name}", **words)
    assert read_results(mini) == results and read_results(mini / "understanding") == results[:1]
    assert (mini / "contact_sheet.jpg").read_bytes() == b"sheet"
