import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionModel
from typer.testing import CliRunner

from uniemo_pipelines import EMOTIONS, __version__, drawing, embedded
from uniemo_pipelines.adapters_uniemo import write_adapter
from uniemo_pipelines.cli import app

SIDE = 32


@pytest.fixture(scope="module", autouse=True)
def tiny_embedded_model(tmp_path_factory):
    """Random weights in the embedded model's layout take its place."""
    folder = tmp_path_factory.mktemp("mini")
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(folder / "stable-diffusion")
    understanding = tiny.save_understanding(folder / "understanding")
    write_adapter(folder / "uniemo_adapter.safetensors", tiny.fusion(), understanding=understanding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "FOLDER", folder)
        patch.setattr(embedded, "STABLE_DIFFUSION", folder / "stable-diffusion")
        patch.setattr(embedded, "ADAPTER", folder / "uniemo_adapter.safetensors")
        patch.setattr(embedded, "UNDERSTANDING", folder / "understanding")
        yield


@pytest.fixture
def uniemo(tmp_path, monkeypatch):
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def generate(uniemo, *arguments):
    result = uniemo("generate", *arguments, "--steps", "1")
    assert result.exit_code == 0, result.output
    return result


def assert_refused(result, *words: str) -> None:
    """Exit code 2, one line on stderr with these words, nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def cut_in_half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_an_emotion_gives_four_images_in_a_grid(uniemo, tmp_path):
    result = generate(uniemo, "awe", "--out", "awe.png", "--seed", "1")
    assert result.stdout.split() == ["awe.png"]
    assert "4 images" in result.stderr and "seed 1" in result.stderr
    width, height = Image.open(tmp_path / "awe.png").size
    assert 2 * SIDE <= width == height < 3 * SIDE


def test_the_seed_decides_and_image_k_can_be_made_alone(uniemo, tmp_path):
    generate(uniemo, "awe", "--seed", "1", "--separate", "--num", "3", "--out", "awe.png")
    generate(uniemo, "awe", "--seed", "3", "--num", "1", "--out", "third.png")
    generate(uniemo, "awe", "--seed", "4", "--num", "1", "--out", "fourth.png")
    assert not (tmp_path / "awe.png").exists()
    third = pixels(tmp_path / "awe-3.png").astype(int)
    assert abs(third - pixels(tmp_path / "third.png")).max() <= 1  # batches of other sizes round differently
    assert abs(third - pixels(tmp_path / "fourth.png")).max() > 1


def test_all_emotions_on_one_sheet(uniemo, tmp_path):
    generate(uniemo, "all", "--num", "2", "--out", "emotions.png")
    width, height = Image.open(tmp_path / "emotions.png").size
    assert height >= 8 * SIDE and width >= 2 * SIDE


def test_all_emotions_separately(uniemo, tmp_path):
    generate(uniemo, "a street", "--emotion", "all", "--num", "1", "--separate", "--out", "street.png")
    assert {path.name for path in tmp_path.iterdir()} == {f"street-{emotion}-1.png" for emotion in EMOTIONS}


@pytest.mark.parametrize(
    "arguments",
    [
        ("a photo of a <awe> street",),
        ("a street at dawn", "--emotion", "awe"),
        ("a <emotion> street", "--emotion", "amusement=0.6,fear=0.4"),
        ("amusement=0.6,fear=0.4",),
    ],
)
def test_every_way_to_ask(uniemo, tmp_path, arguments):
    """Each gives other images than the prompt or the emotion alone."""
    generate(uniemo, *arguments, "--seed", "1", "--num", "1", "--out", "asked.png")
    generate(uniemo, "a street at dawn", "--seed", "1", "--num", "1", "--out", "plain.png")
    generate(uniemo, "awe", "--seed", "1", "--num", "1", "--out", "awe.png")
    asked = pixels(tmp_path / "asked.png")
    assert (asked != pixels(tmp_path / "plain.png")).any()
    assert (asked != pixels(tmp_path / "awe.png")).any()


@pytest.mark.parametrize(
    ("spaced", "plain"),
    [("amusement = 0.75, fear=0.25", "amusement=0.75,fear=0.25"), ("amusement , fear", "amusement,fear")],
)
def test_blanks_in_a_fusion_do_not_make_it_a_prompt(uniemo, tmp_path, spaced, plain):
    for name, text in (("spaced.png", spaced), ("plain.png", plain)):
        generate(uniemo, text, "--seed", "1", "--num", "1", "--out", name)
    assert (pixels(tmp_path / "spaced.png") == pixels(tmp_path / "plain.png")).all()


def test_a_prompt_without_an_emotion_gives_the_stock_picture_and_says_so(uniemo):
    def notes(*arguments: str) -> list[str]:
        lines = generate(uniemo, *arguments, "--num", "1").stderr.splitlines()
        return [line for line in lines if "no emotion in the prompt" in line]

    [note] = notes("a street, a cat")
    assert "<awe>" in note and "--emotion" in note and "stock picture" in note
    assert not notes("an <Awe> street, 1+1=2")
    assert not notes("a street", "--emotion", "awe")
    assert not notes("a street", "--negative-emotion", "fear")


def test_repeated_emotions_are_fused(uniemo, tmp_path):
    common = ("a street", "--seed", "1", "--num", "1")
    generate(uniemo, *common, "--emotion", "amusement=3", "--emotion", "fear", "--out", "repeated.png")
    generate(uniemo, *common, "--emotion", "amusement=0.75,fear=0.25", "--out", "listed.png")
    assert (pixels(tmp_path / "repeated.png") == pixels(tmp_path / "listed.png")).all()


@pytest.mark.parametrize(
    "option",
    [
        ("--variation", "0"),
        ("--scale", "0.3"),
        ("--scene-scale", "0"),
        ("--object-scale", "9"),
        ("--negative-emotion", "fear"),
    ],
)
def test_every_knob_changes_the_image(uniemo, tmp_path, option):
    generate(uniemo, "awe", "--seed", "1", "--num", "1", "--out", "plain.png")
    generate(uniemo, "awe", "--seed", "1", "--num", "1", "--out", "turned.png", *option)
    assert (pixels(tmp_path / "plain.png") != pixels(tmp_path / "turned.png")).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("awee",), ("awee", "Did you mean 'awe'?")),
        (("joy",), ("joy", "amusement, awe")),
        (("a street", "--emotion", "sadnes"), ("Did you mean 'sadness'?",)),
        (("a street", "--emotion", "awe=-1,fear=2"), ("at least 0", "awe")),
        (("a street", "--emotion", "awe=0"), ("sum",)),
        (("a street", "--emotion", "awe=much"), ("number after 'awe='", "much")),
        (("a street", "--emotion", "awe,fear,awe"), ("awe twice",)),
        (("awe", "--negative-emotion", "feer"), ("Did you mean 'fear'?",)),
        (("amusement=0.6, feer=-0.4",), ("Did you mean 'fear'?",)),
        (("amusement, feer",), ("Did you mean 'fear'?",)),
        (("a street = 2",), ("found 'a street'",)),
        (("a <emotion> street",), ("<emotion>",)),
        (("a <amusment> street",), ("<amusement>",)),
        (("",), ("empty",)),
        (("awe", "--device", "abacus"), ("abacus",)),
        (("awe", "--variation", "2"), ("--variation",)),
        (("awe", "--num", "none"), ("--num",)),
        (("awe", "--out", "missing/awe.png"), ("no folder missing",)),
        (("awe", "--out", "awe.doc"), (".doc",)),
        (("awe", "--out", "."), ("folder",)),
        (("awe", "--out", ".", "--separate"), (".png, .jpg",)),
        (("awe", "--model", "./nowhere"), ("./nowhere",)),
        (("awe", "--adapter", "nowhere.safetensors"), ("nowhere.safetensors",)),
    ],
)
def test_bad_requests_are_refused_in_one_line(uniemo, tmp_path, arguments, words):
    (tmp_path / "uniemo.png").write_bytes(b"what was there before")
    assert_refused(uniemo("generate", *arguments), *words)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"what was there before"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_refuses_files_is_named(uniemo, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert_refused(uniemo("generate", "awe", "--out", locked / "awe.png"), "locked", "Permission denied")


def test_the_option_that_names_the_refusing_folder_is_said(uniemo, photo, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("uniemo_pipelines.drawing.tempfile.NamedTemporaryFile", refuse)
    assert_refused(uniemo("generate", "awe"), "Permission denied", "choose another --out")
    assert_refused(uniemo("understand", photo, "--explain", "o.png"), "Permission denied", "choose another --explain")


def test_separate_files_are_the_ones_checked(uniemo, tmp_path):
    """A folder in the way of the second file stops it before the first is made; one at --out itself does not."""
    (tmp_path / "awe-2.png").mkdir()
    assert_refused(uniemo("generate", "awe", "--separate", "--out", "awe.png"), "Error: awe-2.png", "folder")
    (tmp_path / "fear.png").mkdir()
    generate(uniemo, "fear", "--separate", "--num", "1", "--out", "fear.png")
    assert {path.name for path in tmp_path.iterdir()} == {"awe-2.png", "fear.png", "fear-1.png"}


def test_a_failed_write_leaves_the_old_file(uniemo, tmp_path, monkeypatch):
    def full_disk(*_: object, **__: object) -> None:
        (tmp_path / f".awe.{os.getpid()}.png").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "awe.png").write_bytes(b"what was there before")
    monkeypatch.setattr(Image.Image, "save", full_disk)
    result = uniemo("generate", "awe", "--steps", "1", "--num", "1", "--out", "awe.png")
    assert_refused(result, "No space left")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"what was there before"]


def test_understand_prints_emotion_shares_and_attributes(uniemo, photo):
    result = uniemo("understand", photo)
    assert result.exit_code == 0, result.output
    for word in (*EMOTIONS, "positive", "negative", "nearest scenes", "nearest objects", "photo.jpg"):
        assert word in result.stdout


def test_understand_json(uniemo, photo, tmp_path):
    second = tmp_path / "second.png"
    Image.new("RGBA", (500, 20), (0, 0, 255, 90)).save(second)
    result = uniemo("understand", photo, second, "--json")
    assert result.exit_code == 0, result.output
    first, other = json.loads(result.stdout)
    assert (first["file"], other["file"]) == (str(photo), str(second))
    assert tuple(first["probabilities"]) == EMOTIONS
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["emotion"] == max(first["probabilities"], key=first["probabilities"].get)
    positive = sum(first["probabilities"][emotion] for emotion in EMOTIONS[:4])
    assert first["polarity"] == pytest.approx({"positive": positive, "negative": 1 - positive})
    for kind in ("scenes", "objects"):
        scores = [entry["score"] for entry in first[kind]]
        assert scores and scores == sorted(scores, reverse=True)
    assert first["probabilities"] != other["probabilities"]


def test_explain_draws_an_overlay_a_photo(uniemo, photo, tmp_path):
    assert uniemo("understand", photo, "--explain", "overlay.png").exit_code == 0
    width, height = Image.open(tmp_path / "overlay.png").size
    assert width > 2 * 1.5 * 384 and height > 2 * 384  # two rows of two, each of the photo's shape
    assert uniemo("understand", photo, photo, "--explain", "many.png").exit_code == 0
    assert (pixels(tmp_path / "many-1.png") == pixels(tmp_path / "many-2.png")).all()


@pytest.mark.parametrize("size", [(300, 200), (150, 260), (200, 200)])
def test_an_overlay_is_where_the_model_looks(size):
    """A mark on the patch that attention is on is under the heat: landscape, portrait, square, the crop smaller."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    share = 32 / 40
    image = Image.new("RGB", size, "black")
    left, top, right, bottom = drawing.middle_square(size, share)
    patch = (right - left) / 4
    corner = (round(left + patch), round(top + 2 * patch))
    image.paste("white", (*corner, corner[0] + round(patch), corner[1] + round(patch)))
    seen = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np").pixel_values[0, 0]
    attention = seen.reshape(4, 8, 4, 8).mean((1, 3)).astype(np.float32)
    assert np.unravel_index(attention.argmax(), (4, 4)) == (2, 1)
    over, alone = (np.asarray(panel, dtype=int) for panel in drawing.overlay(image, attention, share, edge=200))
    mark = np.asarray(image.resize(over.shape[1::-1]).convert("L")) > 128
    bright = abs(alone - drawing.HEAT[-1]).max(-1) < 30
    assert (mark & bright).sum() > 0.9 * (mark | bright).sum()
    assert over[mark].sum(1).mean() > 1.5 * over[~mark & (alone.sum(2) < 700)].sum(1).mean()


@pytest.mark.parametrize(
    ("content", "words"), [(b"dear diary", "expected a picture"), (b"", "empty file"), (None, "no such file")]
)
def test_understand_names_the_file_that_is_no_picture(uniemo, photo, tmp_path, content, words):
    bad = tmp_path / "bad.jpg"
    if content is not None:
        bad.write_bytes(content)
    assert_refused(uniemo("understand", photo, bad, "--explain", "o.png"), "bad.jpg", words)
    assert not list(tmp_path.glob("o*.png"))


def test_understand_refuses_an_overlay_that_cannot_be_written(uniemo, photo):
    assert_refused(uniemo("understand", photo, "--explain", "missing/o.png"), "no folder missing")


def test_an_overlay_never_replaces_a_photo(uniemo, photo, tmp_path):
    before = photo.read_bytes()
    assert_refused(uniemo("understand", "photo.jpg", "--explain", photo), "photo.jpg", "--explain")
    (tmp_path / "o-1.jpg").write_bytes(before)
    assert_refused(uniemo("understand", photo, "o-1.jpg", "--explain", "o.jpg"), "o-1.jpg", "--explain")
    assert photo.read_bytes() == (tmp_path / "o-1.jpg").read_bytes() == before


def test_understand_names_a_model_that_is_not_there(uniemo, photo):
    assert_refused(uniemo("understand", photo, "--model", "./nowhere"), "./nowhere")


def test_understand_refuses_a_model_of_another_kind(uniemo, photo, tmp_path):
    """Its missing parts would be drawn at random."""
    shutil.copytree(embedded.UNDERSTANDING, tmp_path / "clip")
    CLIPVisionModel(tiny.understanding().config.vision_config).save_pretrained(tmp_path / "clip")
    assert_refused(uniemo("understand", photo, "--model", "./clip"), "'uniemo'", "'clip_vision_model'", "./clip")
    assert_refused(uniemo("understand", photo, "--model", embedded.STABLE_DIFFUSION), "'uniemo'", "none")


def test_a_model_cut_short_is_named(uniemo, photo, tmp_path):
    shutil.copytree(embedded.FOLDER, tmp_path / "models")
    cut_in_half(tmp_path / "models/understanding/model.safetensors")
    cut_in_half(tmp_path / "models/stable-diffusion/text_encoder/model.safetensors")
    understood = uniemo("understand", photo, "--model", "models/understanding")
    assert_refused(understood, "models/understanding", "cut short")
    assert_refused(uniemo("generate", "awe", "--model", "models/stable-diffusion"), "stable-diffusion", "cut short")


def test_info_tells_versions_and_sizes(uniemo):
    result = uniemo("info")
    assert result.exit_code == 0, result.output
    for word in (__version__, "torch", "diffusers", str(embedded.FOLDER), "unet", "understanding", "MB", "scenes"):
        assert word in result.stdout


def test_a_missing_embedded_model_is_said(uniemo, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "STABLE_DIFFUSION", tmp_path / "gone")
    monkeypatch.setattr(embedded, "UNDERSTANDING", tmp_path / "gone")
    assert_refused(uniemo("generate", "awe"), "embedded model is missing")
    assert_refused(uniemo("understand", photo), "embedded model is missing")


def run_alone(*arguments: str, cwd: Path, program: str = "from uniemo_pipelines.cli import main; main()"):
    """A fresh process, as a user's shell starts it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_help_and_version_do_not_wait_for_torch(tmp_path):
    program = "import sys; from uniemo_pipelines import cli; print({'torch', 'diffusers', 'numpy'} & set(sys.modules))"
    assert run_alone(cwd=tmp_path, program=program).stdout.strip() == "set()"
    shown = run_alone("--help", cwd=tmp_path)
    assert shown.returncode == 0 and "generate" in shown.stdout and "understand" in shown.stdout
    assert run_alone("--version", cwd=tmp_path).stdout.strip() == f"uniemo {__version__}"
    as_module = "import runpy; runpy.run_module('uniemo_pipelines', run_name='__main__')"
    assert run_alone("--version", cwd=tmp_path, program=as_module).stdout.strip() == f"uniemo {__version__}"


@pytest.mark.slow
def test_a_fresh_process_keeps_the_libraries_quiet(tmp_path):
    folder = embedded.FOLDER
    arguments = ("generate", "awe", "--steps", "2", "--seed", "1", "--out", "awe.png")
    models = ("--model", str(folder / "stable-diffusion"), "--adapter", str(folder / "uniemo_adapter.safetensors"))
    made = run_alone(*arguments, *models, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "awe.png\n"
    assert len(made.stderr.strip().splitlines()) == 1, made.stderr
    refused = run_alone("generate", "awee", cwd=tmp_path)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1 and "Did you mean 'awe'?" in refused.stderr


def test_a_stable_diffusion_xl_is_a_base_as_well(uniemo, tmp_path):
    StableDiffusionXLPipeline(**tiny.stable_diffusion_xl()).save_pretrained(tmp_path / "xl")
    write_adapter(tmp_path / "xl.safetensors", tiny.fusion((tiny.TEXT_WIDTH, tiny.SECOND_TEXT_WIDTH)))
    generate(uniemo, "awe", "--model", "./xl", "--adapter", "xl.safetensors", "--num", "1", "--out", "awe.png")
    assert Image.open(tmp_path / "awe.png").size == (SIDE, SIDE)
    assert_refused(uniemo("generate", "awe", "--model", "./xl"), "widths [32, 48], found one for [32]")
