"""A corpus of generated images: what its folder says, and that it is the same however it came about."""

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
from hub_server import HubServer, User
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from training import generate, generated
from training.config import parse
from training.emotion_heads import head_of, head_of_adapter
from training.generate import GenerationArguments, Weights, load_pipeline, main
from training.generated import MANIFEST, MOST_IMAGES, MOST_SEED, SETTINGS, Settings, read_manifest, seed_of
from training.hub import publish
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.chain_uniemo import take_chain
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

ROOT = Path(__file__).parents[1]
KEYS = ["image", "emotion", "seed", "scene", "object", "condition"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter, and `whole`, a corpus that was made in one go."""
    world = tmp_path_factory.mktemp("world")
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(world / "base")
    write_adapter(world / "adapter" / ADAPTER_NAME, tiny.fusion(), "tiny")
    main(asked(world, world / "whole"))
    return world


def asked(world: Path, output: Path, **changes: Any) -> GenerationArguments:
    """Five images of each emotion in chunks of two, so that the last one is short."""
    settings = {"images": 5, "batch_size": 2, "steps": 2, "guidance": 3.0, **changes}
    given = {"base": str(world / "base"), "adapter": str(world / "adapter"), "output": str(output)}
    return GenerationArguments(**given | settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """In place of the image of this number in turn, the error."""
    save, saved = generated.save_image_whole, []

    def stopped(path: Path, image: Image.Image, **options: Any) -> None:
        saved.append(path)
        if len(saved) == number:
            raise error
        save(path, image, **options)

    monkeypatch.setattr(generated, "save_image_whole", stopped)


# ------------------------------------------------------------------------------------------------------ what is there


def test_the_manifest_has_a_line_an_image_in_order(world):
    lines = [json.loads(line) for line in (world / "whole" / MANIFEST).read_text().splitlines()]
    assert all(list(line) == KEYS for line in lines)
    expected = [f"image/{emotion}/{emotion}_{number:06d}.png" for emotion in EMOTIONS for number in range(5)]
    assert [line["image"] for line in lines] == expected
    assert [line["emotion"] for line in lines] == [emotion for emotion in EMOTIONS for _ in range(5)]
    assert lines[5 + 3]["seed"] == 1_000_003 and lines[5 + 3]["condition"] == ["conditions/awe-000002.safetensors", 1]
    assert {line["scene"] for line in lines} <= set(tiny.SCENES) and len({line["object"] for line in lines}) == 2
    files = {path.relative_to(world / "whole").as_posix() for path in (world / "whole" / "image").rglob("*.png")}
    assert files == set(expected)
    assert all(pixels(world / "whole" / name).shape == (32, 32, 3) for name in expected)


def test_conditions_and_attributes_are_those_that_the_image_was_drawn_from(world):
    arguments = asked(world, world / "whole")
    pipeline = load_pipeline(Weights.find(arguments.base, arguments.adapter), "float32", torch.device("cpu"))
    for image in read_manifest(world / "whole")[::7]:
        generator = torch.Generator().manual_seed(image.seed)
        output = pipeline(emotion=image.emotion, generator=generator, num_inference_steps=2, guidance_scale=3.0)
        attributes = output.attributes[0]["<emotion>"]
        assert (image.scene, image.object) == (attributes["scene"], attributes["object"])
        file, row = image.condition
        own = load_file(world / "whole" / file)["condition"][row]
        torch.testing.assert_close(own, output.conditions["<emotion>"][0], atol=1e-6, rtol=1e-6)
        assert abs(pixels(world / "whole" / image.image) - np.asarray(output.images[0])).max() <= 1


def test_settings_and_sheet_are_written(world):
    content = json.loads((world / "whole" / SETTINGS).read_text())
    assert {name: content[name] for name in ("adapter", "base", "images", "steps", "guidance", "prompt")} == {
        "adapter": "adapter",
        "base": "base",
        "images": 5,
        "steps": 2,
        "guidance": 3.0,
        "prompt": None,
    }
    assert content["size"] == [32, 32] and content["emotion_space"] == "bank"
    assert content["versions"].keys() == {"uniemo_pipelines", "torch", "diffusers"}
    assert str(world) not in (world / "whole" / SETTINGS).read_text()
    with Image.open(world / "whole" / "sheet.jpg") as sheet:
        assert sheet.width > 5 * 32 and sheet.height >= 8 * 32


def test_no_two_images_have_the_same_seed():
    corners = [(seed, emotion, n) for seed in (0, 1, MOST_SEED) for emotion in EMOTIONS for n in (0, MOST_IMAGES - 1)]
    seeds = sorted(seed_of(*corner) for corner in corners)
    assert len(set(seeds)) == len(corners) and seeds[0] == 0 and seeds[-1] < 2**32
    assert seed_of(0, "awe", 12) == 1_000_012


def test_a_prompt_and_a_form_of_the_emotion_space_change_the_images(world, tmp_path):
    main(asked(world, tmp_path / "prompt", images=1, prompt="a photo of a <emotion> cat"))
    main(asked(world, tmp_path / "form", images=1, emotion_space="gaussian"))
    name = "image/awe/awe_000000.png"
    assert len({pixels(folder / name).tobytes() for folder in (world / "whole", *tmp_path.iterdir())}) == 3
    conditions = [load_file(f / "conditions/awe-000000.safetensors")["condition"][0] for f in tmp_path.iterdir()]
    assert not torch.equal(*conditions)
    assert Settings.read(tmp_path / "form").emotion_space == "gaussian"


def test_lora_beside_the_adapter_is_used(world, tmp_path):
    pipeline = StableDiffusionPipeline(**tiny.stable_diffusion())
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(pipeline.unet)
    shutil.copytree(world / "adapter", tmp_path / "adapter")
    pipeline.save_lora_weights(tmp_path / "adapter", unet_lora_layers=layers)
    main(asked(world, tmp_path / "lora", adapter=str(tmp_path / "adapter")))
    with_lora, without = (read_manifest(folder)[0] for folder in (tmp_path / "lora", world / "whole"))
    assert with_lora == without
    assert (pixels(tmp_path / "lora" / without.image) != pixels(world / "whole" / without.image)).any()
    assert Settings.read(tmp_path / "lora").adapter_digest != Settings.read(world / "whole").adapter_digest


def test_the_generators_emotion_head_is_named_where_it_is_at_hand(world, tmp_path):
    assert Settings.read(world / "whole").emotion_head is None
    understanding = tiny.save_understanding(tmp_path / "adapter" / "understanding")
    beside = write_adapter(tmp_path / "adapter" / ADAPTER_NAME, tiny.fusion(), "tiny", understanding)
    head = head_of(load_file(tmp_path / "adapter" / "understanding" / "model.safetensors"))
    assert head is not None and head_of_adapter(beside) == head
    clip = str(tiny.save_clip(tmp_path / "clip"))
    torch.manual_seed(9)  # or the head would be the other's
    chain = take_chain(UniEmoUnderstandingModel.from_clip(clip, num_scene_queries=2, num_object_queries=2), clip)
    inside = write_adapter(tmp_path / "chain.safetensors", tiny.fusion(), "tiny", chain)
    assert head_of_adapter(inside) == head_of(chain.tensors) != head
    main(asked(world, tmp_path / "corpus", adapter=str(inside), images=1))
    assert Settings.read(tmp_path / "corpus").emotion_head == head_of(chain.tensors)
    shutil.rmtree(tmp_path / "adapter" / "understanding")
    assert head_of_adapter(beside) is None


def test_a_corpus_from_before_heads_were_named_is_gone_on_with(world, tmp_path):
    shutil.copytree(world / "whole", tmp_path / "corpus")
    content = json.loads((tmp_path / "corpus" / SETTINGS).read_text())
    del content["emotion_head"]
    (tmp_path / "corpus" / SETTINGS).write_text(json.dumps(content))
    assert Settings.read(tmp_path / "corpus").emotion_head is None
    main(asked(world, tmp_path / "corpus"))
    assert contents(tmp_path / "corpus") == contents(world / "whole")


def test_a_head_is_the_same_as_trained_and_as_published_but_not_another():
    head = {"classifier.0.weight": torch.randn(4, 4), "classifier.0.bias": torch.randn(4)}
    assert head_of(head | {"scene_queries": torch.ones(2)}) == head_of(head)
    assert head_of({name: tensor.half() for name, tensor in reversed(head.items())}) == head_of(head)
    assert head_of(head | {"classifier.0.bias": head["classifier.0.bias"] + 0.1}) != head_of(head)
    assert head_of({"scene_queries": torch.ones(2)}) is None


# --------------------------------------------------------------------------------------------------- stopped, gone on


@pytest.mark.parametrize("number", [1, 2, 20, 40, 41])
def test_a_corpus_stopped_anywhere_goes_on_to_the_same_bytes(world, tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, number, KeyboardInterrupt())
        main(asked(world, tmp_path / "corpus"))
    whole = len(list(tmp_path.glob("corpus/parts/*")))
    drawn, draw = [], generate.draw_chunk
    monkeypatch.setattr(generate, "draw_chunk", lambda *given: (drawn.append(given[2]), draw(*given)))
    main(asked(world, tmp_path / "corpus"))
    assert contents(tmp_path / "corpus") == contents(world / "whole")
    assert len(drawn) == 24 - whole


DRIVER = """
import os, runpy, signal
from training import generated
save, names, saved = generated.save_image_whole, os.environ["NAMES"] + os.environ.get("RANK", ""), []
def watched(path, image, **options):
    saved.append(path.name)
    if len(saved) == int(os.environ.get("KILL_AT", 0)):
        image.save(path.with_name(path.name + ".partial"), "PNG")
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, image, **options)
    open(names, "a").write(path.name + "\\n")
generated.save_image_whole = watched
runpy.run_module("training.generate", run_name="__main__")
"""


@pytest.mark.slow
def test_a_corpus_killed_on_one_process_goes_on_over_two_to_the_same_bytes(world, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    flags = ["--base", world / "base", "--adapter", world / "adapter", "--output", tmp_path / "corpus"]
    flags += ["--images", 5, "--batch_size", 2, "--steps", 2, "--guidance", 3.0]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "ACCELERATE_USE_CPU": "true"}
    environment |= {"PYTHONPATH": str(ROOT), "NAMES": str(tmp_path / "names")}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command, kill_at, expected in (([], 12, -signal.SIGKILL), (launcher, 0, 0)):
        command = [sys.executable, *command, str(tmp_path / "driver.py"), *map(str, flags)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment | {"KILL_AT": str(kill_at)}, capture_output=True, text=True
        )
        assert done.returncode == expected, done.stderr[-3000:]
    assert contents(tmp_path / "corpus") == contents(world / "whole")
    first, second = (set((tmp_path / f"names{rank}").read_text().split()) for rank in (0, 1))
    assert first - {"sheet.jpg"} and second and not first & second, "each drew a share of its own"


def test_more_images_go_on_and_leave_the_others_as_they_are(world, tmp_path):
    shutil.copytree(world / "whole", tmp_path / "grown")
    main(asked(world, tmp_path / "grown", images=8))
    main(asked(world, tmp_path / "at_once", images=8))
    grown = contents(tmp_path / "grown")
    assert grown == contents(tmp_path / "at_once")
    assert all(grown[name] == content for name, content in contents(world / "whole").items() if name[:6] == "image/")
    main(asked(world, tmp_path / "grown"))
    assert read_manifest(tmp_path / "grown") == read_manifest(world / "whole")


def test_a_file_that_was_lost_is_made_again_to_the_bit(world, tmp_path):
    shutil.copytree(world / "whole", tmp_path / "corpus")
    for name in ("image/fear/fear_000003.png", "conditions/awe-000000.safetensors", MANIFEST):
        (tmp_path / "corpus" / name).unlink()
    main(asked(world, tmp_path / "corpus"))
    assert contents(tmp_path / "corpus") == contents(world / "whole")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_is_said_and_what_was_done_is_kept(world, tmp_path, monkeypatch, error):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="could not be written .*No space left.*go on"):
        stop_at(patch, 7, error)
        main(asked(world, tmp_path / "corpus"))
    assert len(list(tmp_path.glob("corpus/parts/*"))) == 3
    main(asked(world, tmp_path / "corpus"))
    assert contents(tmp_path / "corpus") == contents(world / "whole")


# ----------------------------------------------------------------------------------------------------------- one alone


def test_one_image_alone_is_the_corpus_own_within_a_grey_level(world, tmp_path, capsys):
    shutil.copytree(world / "whole", tmp_path / "corpus")
    (tmp_path / "corpus" / "image/fear/fear_000003.png").unlink()
    before = contents(tmp_path / "corpus")
    main(asked(world, tmp_path / "corpus", only="image/fear/fear_000003.png"))
    path = tmp_path / "corpus" / "again" / "fear_000003.png"
    assert capsys.readouterr().out.strip() == str(path)
    assert contents(tmp_path / "corpus").keys() - before.keys() == {"again/fear_000003.png"}
    own, other = (pixels(world / "whole" / f"image/fear/fear_00000{number}.png") for number in (3, 2))
    assert abs(pixels(path) - own).max() <= 1 < abs(pixels(path) - other).max()


def test_an_image_that_the_manifest_does_not_have_is_refused(world, tmp_path):
    with pytest.raises(ValueError, match=r"image of the manifest.*found 'image/awe/awe_000005\.png'"):
        main(asked(world, world / "whole", only="image/awe/awe_000005.png"))
    with pytest.raises(FileNotFoundError, match=r"manifest\.jsonl.*finish it first"):
        main(asked(world, tmp_path / "none", only="image/awe/awe_000000.png"))


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": 4.0, "batch_size": 3}, r"batch_size 2 -> 3; guidance 3\.0 -> 4\.0"),
        ({"prompt": "a <emotion> cat"}, "prompt None -> 'a <emotion> cat'"),
        ({"emotion_space": "low_rank", "seed": 1}, "emotion_space 'bank' -> 'low_rank'; seed 0 -> 1"),
        ({"dtype": "bfloat16"}, "dtype 'float32' -> 'bfloat16'"),
    ],
)
def test_other_settings_are_refused_by_name(world, changes, message):
    before = contents(world / "whole")
    with pytest.raises(ValueError, match=f"images of other settings .adapter on base.: {message}. Give the old"):
        main(asked(world, world / "whole", **changes))
    assert contents(world / "whole") == before


def test_another_adapter_or_base_is_refused_by_its_weights_not_its_place(world, tmp_path):
    shutil.copytree(world / "whole", tmp_path / "corpus")
    shutil.copytree(world / "adapter", tmp_path / "moved")
    shutil.copytree(world / "base", tmp_path / "base")
    main(asked(world, tmp_path / "corpus", adapter=str(tmp_path / "moved")))
    assert Settings.read(tmp_path / "corpus").adapter == "moved"
    fusion = tiny.fusion()
    fusion.mean += 1
    write_adapter(tmp_path / "moved" / ADAPTER_NAME, fusion)
    with pytest.raises(ValueError, match=r"settings .moved on base.: adapter_digest '\w+' -> '\w+'\."):
        main(asked(world, tmp_path / "corpus", adapter=str(tmp_path / "moved")))
    scheduler = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"timestep_spacing": "trailing"}))
    with pytest.raises(ValueError, match=r"base_digest '\w+' -> '\w+'\."):
        main(asked(world, tmp_path / "corpus", base=str(tmp_path / "base")))


def test_a_folder_of_something_else_is_left_alone(world, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="files of something else; give another --output"):
        main(asked(world, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_form_that_the_adapter_lacks_leaves_the_folder_free_for_another(world, tmp_path):
    fusion = tiny.fusion()
    fusion.set_emotion_space(fusion.mean, fusion.std, emotion_space="gaussian")
    adapter = str(write_adapter(tmp_path / "gaussian.safetensors", fusion))
    with pytest.raises(ValueError, match='no "bank" form'):
        main(asked(world, tmp_path / "corpus", adapter=adapter, emotion_space="bank", images=1))
    main(asked(world, tmp_path / "corpus", adapter=adapter, images=1))
    assert Settings.read(tmp_path / "corpus").emotion_space == "gaussian"


@pytest.mark.parametrize("name", ["base", "adapter"])
def test_what_is_nowhere_is_named_in_one_line(world, tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="a folder, or what can be fetched from the Hub, found 'no where'") as error:
        main(asked(world, tmp_path / "corpus", **{name: "no where"}))
    assert "\n" not in str(error.value) and not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--images 0", "--images from 1 to 1000000, found 0"),
        ("--images 1000001", "found 1000001"),
        ("--batch_size 0", "--batch_size from 1"),
        ("--seed 536", "--seed from 0 to 535, found 536"),
        ("--variation 1.5", "emotion_variation from 0 to 1, found 1.5"),
        ("--prompt cat", "--prompt with <emotion> in it, found 'cat'"),
        ("--dtype float64", "invalid choice: 'float64'"),
        ("--emotion_space cloud", "invalid choice: 'cloud'"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_loaded(capsys, flags, message):
    with pytest.raises(SystemExit):
        parse(GenerationArguments, "generate", f"--base b --adapter a --output o {flags}".split())
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["miniemoset", "emoset"])
def test_the_shipped_configurations_are_read(name):
    config = str(Path(generate.__file__).parent / "configs" / f"{name}.yaml")
    arguments = parse(GenerationArguments, "generate", ["--config", config])
    assert arguments.seed == 1 and arguments.images % arguments.batch_size == 0


# ------------------------------------------------------------------------------------------------------------- the Hub


@pytest.mark.slow
def test_base_and_adapter_of_the_hub_are_named_as_there(world, tmp_path, monkeypatch):
    with HubServer({"secret": User("ann")}) as hub:
        hub.stand_in(monkeypatch)
        for name in ("base", "adapter"):
            hub.create(f"ann/{name}")
            publish(world / name, f"ann/{name}", token="secret")
        flags = "--base ann/base --adapter ann/adapter --images 5 --batch_size 2 --steps 2 --guidance 3".split()
        command = [sys.executable, "-m", "training.generate", *flags, "--output", str(tmp_path / "corpus")]
        environment = hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    settings = Settings.read(tmp_path / "corpus")
    assert (settings.base, settings.adapter) == ("ann/base", "ann/adapter")
    assert settings.decisive == Settings.read(world / "whole").decisive
    assert read_manifest(tmp_path / "corpus") == read_manifest(world / "whole")
