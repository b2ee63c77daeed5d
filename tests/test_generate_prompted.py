"""Images by the stock base alone: those of stock diffusers, paired with an adapter's, however they came about."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from training import generate, generate_prompted
from training.config import parse
from training.evaluating.images import read_generated
from training.generate_prompted import PromptedArguments, PromptedImage, PromptedSettings, main
from training.generated import MANIFEST, SETTINGS, Settings, read_manifest
from training.miniemoset.captions import truthful_caption
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.fusion_uniemo import EMOTIONS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, embeddings, and a folder of each kind of prompts, made in one go."""
    world = tmp_path_factory.mktemp("world")
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(world / "base")
    write_embeddings(world / "inversion")
    for prompts in ("words", "captions", "embeddings"):
        main(asked(world, world / prompts, prompts))
    return world


def write_embeddings(folder: Path, scale: float = 1.0) -> None:
    folder.mkdir()
    for label, emotion in enumerate(EMOTIONS):
        vector = torch.randn(1, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(label))
        save_file({f"<{emotion}>": scale * vector}, folder / f"{emotion}.safetensors")


def settings(prompts: str, **changes: Any) -> dict[str, Any]:
    """Three images of each emotion in chunks of two, so that the last one is short."""
    return {"prompts": prompts, "images": 3, "batch_size": 2, "steps": 2, "guidance": 3.0, **changes}


def asked(world: Path, output: Path, prompts: str = "words", **changes: Any) -> PromptedArguments:
    given = {"base": str(world / "base"), "output": str(output)}
    given |= {"embeddings": str(world / "inversion")} if prompts == "embeddings" else {}
    return PromptedArguments(**given | settings(prompts, **changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ------------------------------------------------------------------------------------------------------ what is there


def test_the_manifest_has_a_line_an_image_and_evaluation_reads_it(world):
    lines = [json.loads(line) for line in (world / "words" / MANIFEST).read_text().splitlines()]
    assert all(list(line) == ["image", "emotion", "seed", "prompt"] for line in lines)
    assert lines[3 + 2] == {
        "image": "image/awe/awe_000002.png",
        "emotion": "awe",
        "seed": 1_000_002,
        "prompt": "awe",
    }
    rows = read_generated(world / "words")
    assert [row.label for row in rows] == [label for label in range(8) for _ in range(3)]
    assert rows[5].picture.open().size == (32, 32)


def test_seeds_are_those_of_an_adapters_images(world, tmp_path):
    write_adapter(tmp_path / "adapter" / ADAPTER_NAME, tiny.fusion(), "tiny")
    adapter = {"base": str(world / "base"), "adapter": str(tmp_path / "adapter"), "output": str(tmp_path / "corpus")}
    generate.main(generate.GenerationArguments(**adapter, images=3, batch_size=2, steps=1, seed=7))
    main(asked(world, tmp_path / "words", seed=7, steps=1))
    pairs = zip(read_manifest(tmp_path / "corpus"), read_manifest(tmp_path / "words", PromptedImage), strict=True)
    assert all((one.image, one.seed) == (other.image, other.seed) for one, other in pairs)


@pytest.mark.parametrize("prompts", ["words", "captions", "embeddings"])
def test_images_are_stock_diffusers_own_to_the_bit(world, prompts):
    seeds = [2_000_000, 2_000_001]
    texts = {
        "words": ["contentment"] * 2,
        "captions": [truthful_caption("contentment", seed) for seed in seeds],
        "embeddings": ["<contentment>"] * 2,
    }[prompts]
    stock = StableDiffusionPipeline.from_pretrained(world / "base", safety_checker=None)
    if prompts == "embeddings":
        stock.load_textual_inversion(world / "inversion" / "contentment.safetensors")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = stock(texts, num_inference_steps=2, guidance_scale=3.0, generator=generators).images
    found = read_manifest(world / prompts, PromptedImage)[6:8]
    assert [(one.seed, one.prompt) for one in found] == list(zip(seeds, texts, strict=True))
    for one, image in zip(found, images, strict=True):
        assert (pixels(world / prompts / one.image) == np.asarray(image)).all()


def test_each_kind_of_prompts_draws_images_of_its_own(world):
    name = "image/fear/fear_000001.png"
    assert len({pixels(world / prompts / name).tobytes() for prompts in ("words", "captions", "embeddings")}) == 3


def test_settings_and_sheet_are_written(world):
    content = json.loads((world / "embeddings" / SETTINGS).read_text())
    expected = settings("embeddings") | {"base": "base", "embeddings": "inversion", "size": [32, 32]}
    assert {name: content[name] for name in expected} == expected
    assert content["versions"].keys() == {"torch", "diffusers"} and content["dtype"] == "float32"
    assert json.loads((world / "words" / SETTINGS).read_text())["embeddings_digest"] is None
    assert str(world) not in (world / "embeddings" / SETTINGS).read_text()
    with Image.open(world / "words" / "sheet.jpg") as sheet:
        assert sheet.width > 3 * 32 and sheet.height >= 8 * 32


# --------------------------------------------------------------------------------------------------- stopped, gone on

DRIVER = """
import os, runpy, signal
from training import generated
save = generated.save_image_whole
def watched(path, image, **options):
    if path.name == "contentment_000000.png":
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, image, **options)
generated.save_image_whole = watched
runpy.run_module("training.generate_prompted", run_name="__main__")
"""


@pytest.mark.slow
def test_a_run_killed_between_emotions_goes_on_to_the_same_bytes(world, tmp_path, monkeypatch):
    (tmp_path / "driver.py").write_text(DRIVER)
    flags = {"base": world / "base", "output": tmp_path / "words", **settings("words")}
    command = [sys.executable, str(tmp_path / "driver.py")]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert {path.name for path in (tmp_path / "words" / "image").iterdir() if any(path.iterdir())} == {
        "amusement",
        "awe",
    }
    assert not (tmp_path / "words" / MANIFEST).exists()
    drawn, draw = [], generate_prompted.draw
    monkeypatch.setattr(generate_prompted, "draw", lambda *given: (drawn.append(given[2][0]), draw(*given))[1])
    main(asked(world, tmp_path / "words"))
    assert drawn == [*EMOTIONS[2:], *EMOTIONS], "the second chunks too; nothing twice"
    assert contents(tmp_path / "words") == contents(world / "words")


def test_more_images_go_on_and_leave_the_others_as_they_are(world, tmp_path):
    shutil.copytree(world / "captions", tmp_path / "grown")
    main(asked(world, tmp_path / "grown", "captions", images=4))
    main(asked(world, tmp_path / "at_once", "captions", images=4))
    assert contents(tmp_path / "grown") == contents(tmp_path / "at_once")
    grown = contents(tmp_path / "grown")
    assert all(grown[name] == one for name, one in contents(world / "captions").items() if name.startswith("image/"))


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_missing_embedding_is_named_before_anything_is_drawn(world, tmp_path):
    shutil.copytree(world / "inversion", tmp_path / "inversion")
    (tmp_path / "inversion" / "fear.safetensors").unlink()
    message = r"inversion: expected an embedding of each emotion, found no fear\.safetensors; name a finished folder"
    with pytest.raises(FileNotFoundError, match=message):
        main(asked(world, tmp_path / "out", "embeddings", embeddings=str(tmp_path / "inversion")))
    assert not (tmp_path / "out").exists()


def test_embeddings_of_another_base_are_refused(world, tmp_path):
    folder = shutil.copytree(world / "inversion", tmp_path / "inversion")
    save_file({"<fear>": torch.zeros(1, 8)}, folder / "fear.safetensors")
    message = rf"fear\.safetensors: expected one embedding, \(1, {tiny.TEXT_WIDTH}\).*found \[\(1, 8\)\]"
    with pytest.raises(ValueError, match=message):
        main(asked(world, tmp_path / "out", "embeddings", embeddings=str(folder)))
    assert not (tmp_path / "out").exists()


def test_an_embedding_stands_for_its_emotion_whatever_token_its_file_names(world, tmp_path):
    folder = shutil.copytree(world / "inversion", tmp_path / "inversion")
    save_file({"my-awe": load_file(folder / "awe.safetensors")["<awe>"]}, folder / "awe.safetensors")
    main(asked(world, tmp_path / "out", "embeddings", embeddings=str(folder)))
    name = "image/awe/awe_000001.png"
    assert (tmp_path / "out" / name).read_bytes() == (world / "embeddings" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": 4.0, "steps": 3}, r"guidance 3\.0 -> 4\.0; steps 2 -> 3"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"prompts": "captions"}, "prompts 'words' -> 'captions'"),
        ({"dtype": "bfloat16"}, "dtype 'float32' -> 'bfloat16'"),
    ],
)
def test_other_settings_are_refused_by_name(world, changes, message):
    before = contents(world / "words")
    with pytest.raises(ValueError, match=f"images of other settings .base.: {message}. Give the old"):
        main(asked(world, world / "words", **{"prompts": "words", **changes}))
    assert contents(world / "words") == before


def test_other_embeddings_are_refused_by_their_numbers_not_their_place(world, tmp_path):
    shutil.copytree(world / "embeddings", tmp_path / "images")
    shutil.copytree(world / "inversion", tmp_path / "moved")
    main(asked(world, tmp_path / "images", "embeddings", embeddings=str(tmp_path / "moved")))
    assert PromptedSettings.read(tmp_path / "images").embeddings == "moved"
    write_embeddings(tmp_path / "others", scale=2.0)
    with pytest.raises(ValueError, match=r"embeddings_digest '\w+' -> '\w+'"):
        main(asked(world, tmp_path / "images", "embeddings", embeddings=str(tmp_path / "others")))


def test_a_corpus_of_the_other_script_is_refused(world, tmp_path):
    adapter = tmp_path / "adapter" / ADAPTER_NAME
    write_adapter(adapter, tiny.fusion(), "tiny")
    given = {"base": str(world / "base"), "adapter": str(adapter), "images": 1, "batch_size": 1, "steps": 1}
    message = r"generation\.json: expected settings as training\.generate writes them, found others"
    with pytest.raises(ValueError, match=message):
        generate.main(generate.GenerationArguments(**given, output=str(world / "words")))
    generate.main(generate.GenerationArguments(**given, output=str(tmp_path / "corpus")))
    with pytest.raises(ValueError, match=r"settings as training\.generate_prompted writes them, found others"):
        main(asked(world, tmp_path / "corpus"))
    assert Settings.read(tmp_path / "corpus").images == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prompts embeddings", "--embeddings FOLDER with --prompts embeddings, and with no other; found none"),
        ("--prompts words --embeddings e", "and with no other; found --prompts words"),
        ("--prompts poems", "invalid choice: 'poems'"),
        ("--prompts words --images 0", "--images from 1 to 1000000, found 0"),
        ("--prompts words --seed 536", "--seed from 0 to 535, found 536"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_loaded(capsys, flags, message):
    with pytest.raises(SystemExit):
        parse(PromptedArguments, "generate_prompted", f"--base b --output o {flags}".split())
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_configuration_of_the_embedded_world_draws_by_the_corpus_own_seeds():
    config = ["--config", str(ROOT / "training" / "configs" / "miniemoset.yaml")]
    prompted = parse(PromptedArguments, "generate_prompted", config)
    corpus = parse(generate.GenerationArguments, "generate", config)
    assert all(
        getattr(prompted, name) == getattr(corpus, name)
        for name in ("base", "seed", "images", "batch_size", "guidance")
    )
