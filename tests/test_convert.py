"""`uniemo convert`: from the released files to folders that load, understand and generate."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import released
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoImageProcessor, CLIPTextConfig, CLIPTextModelWithProjection
from typer.testing import CliRunner

from uniemo_pipelines import EMOTIONS, UniEmoPipeline, UniEmoUnderstandingModel
from uniemo_pipelines.adapters_uniemo import read_adapter
from uniemo_pipelines.cli import app
from uniemo_pipelines.conversion import UNUSED, convert_checkpoint

MAPPERS = ("mapper.pth", "mapper_scene.pth", "mapper_object.pth")
EVERYTHING = ("VIT_query.pth", *MAPPERS, "UniEmo_space", "dataset_balance", "info.json")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("released"))


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    """The released files, in the current folder."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments), "--out", "out"])


def converted(*arguments):
    result = convert(*arguments, "--tokenizer", "tokenizer")
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_refused(folder, result, *words):
    """Exit code 2, one line on stderr with these words, and nothing written."""
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1, result.output
    for word in words:
        assert word in result.stderr
    assert not [path.name for path in folder.iterdir() if path.name == "out" or path.name.endswith(".part")]


def test_a_checkpoint_becomes_an_understanding_folder(folder):
    report = converted("VIT_query.pth")
    assert {path.name for path in (folder / "out").iterdir()} == {
        "config.json",
        "modeling_uniemo.py",
        "model.safetensors",
        "preprocessor_config.json",
    }
    for word in ("VIT_query.pth", "3 layers", "optimizer", "out/model.safetensors", "2 scene and 3 object queries"):
        assert word in report
    for keys in UNUSED.values():
        assert all(key in report for key in keys)
    model, loading = UniEmoUnderstandingModel.from_pretrained("out", output_loading_info=True)
    assert not any(loading.values())
    expected = convert_checkpoint(*(released.checkpoint()[part] for part in ("model", "Emo_classifier"))).state_dict
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in expected.items())


def test_pictures_are_normalised_as_the_checkpoint_was_trained(folder):
    converted("VIT_query.pth")
    processor = AutoImageProcessor.from_pretrained("out")
    white = processor(Image.new("RGB", (50, 40), "white"), return_tensors="pt").pixel_values
    assert white.shape == (1, 3, released.SIDE, released.SIDE)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(white[0, :, 5, 5], expected)


def test_what_was_converted_understands(folder):
    Image.new("RGB", (50, 40), "orange").save("photo.png")
    converted("VIT_query.pth")
    arguments = ["understand", "photo.png", "--json", "--model", "out"]
    [bare] = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert set(bare["probabilities"]) == set(EMOTIONS) and bare["scenes"] == bare["objects"] == []
    shutil.rmtree("out")
    assert "3 scenes, 3 objects" in converted("VIT_query.pth", "info.json")
    [named] = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert named["probabilities"] == bare["probabilities"]
    assert {entry["name"] for entry in named["scenes"]} == {"amusement park", "bakery shop", "beach"}
    assert {entry["name"] for entry in named["objects"]} == {"alarm clock", "balloon", "castle"}


def released_texts(texts):
    """Text features by the checkpoint's own tower."""
    content = released.checkpoint()
    chain = convert_checkpoint(content["model"], content["Emo_classifier"])
    tower = CLIPTextModelWithProjection(CLIPTextConfig(**chain.text_config)).eval()
    tower.load_state_dict(chain.text_state_dict)
    with torch.no_grad():
        rows = [tower(**tiny.tokenizer()(text, return_tensors="pt")).text_embeds for text in texts]
    return functional.normalize(torch.cat(rows), dim=-1)


def test_the_vocabulary_is_encoded_in_emosets_spelling(folder):
    """Stage 1 saw that one; the tokens of "bakery/shop" are others than those of "bakery shop"."""
    converted("VIT_query.pth", "info.json")
    model = UniEmoUnderstandingModel.from_pretrained("out")
    torch.testing.assert_close(model.scene_text_features, released_texts(released.SCENES), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.missing_object_text[None], released_texts(["object"]), atol=1e-5, rtol=0)


def test_with_mappers_it_becomes_an_adapter_that_generates(folder):
    report = converted(*EVERYTHING)
    assert "6 attributes" in report and "carousel" in report and "out/uniemo_adapter.safetensors" in report
    pipe = UniEmoPipeline(**tiny.stable_diffusion(released.WIDTH))
    pipe.load_uniemo("out")
    pipe.set_progress_bar_config(disable=True)

    def pixels(emotion):
        generator = torch.Generator().manual_seed(1)
        return pipe(emotion=emotion, num_inference_steps=1, generator=generator, output_type="np").images

    assert pixels("awe").shape == (1, 32, 32, 3)
    assert (pixels("awe") != pixels("fear")).any()
    assert set(pipe.understand(Image.new("RGB", (40, 40)))[0].probabilities) == set(EMOTIONS)


def released_condition(folder, features, emotion):
    """The pseudo-token as the released code makes it, from its own files."""
    mapped = []
    for file, feature in zip(MAPPERS, features, strict=True):
        state = torch.load(folder / file, weights_only=True)
        hidden = functional.relu(functional.linear(feature, state["mlp.0.weight"], state["mlp.0.bias"]))
        mapped.append(functional.linear(hidden, state["mlp.2.weight"], state["mlp.2.bias"]))
    names = [
        name
        for kind in ("object", "scene")
        for group in released.ATTRIBUTES[f"{kind}_attr.pkl"].values()
        for name in group
    ]
    coefficients = {}
    for kind in ("scene", "object"):
        table = folder / "dataset_balance" / f"attr_coefficient_emotion_{kind}.pkl"
        coefficients |= pickle.loads(table.read_bytes())
    texts = released_texts(names)
    total = mapped[0]
    for term in mapped[1:]:
        nearest = names[functional.cosine_similarity(texts, term[None]).argmax()]
        total = total + coefficients.get(nearest, np.zeros(8))[EMOTIONS.index(emotion)].item() * term
    return total


def test_conditions_are_the_released_ones(folder):
    converted(*EVERYTHING)
    fusion = read_adapter(folder / "out" / "uniemo_adapter.safetensors").fusion
    generator = torch.Generator().manual_seed(0)
    alphas = set()
    for index in range(40):
        emotion, features = EMOTIONS[index % 8], torch.randn(3, released.WIDTH, generator=generator)
        weights = functional.one_hot(torch.tensor([index % 8]), 8).float()
        with torch.no_grad():
            found = fusion(*features[:, None], weights)[0]
            alphas |= {alpha.item() for alpha in fusion.coefficients(*features[1:, None], weights)}
        torch.testing.assert_close(found, released_condition(folder, features, emotion), atol=1e-5, rtol=0)
    assert len(alphas) > 8 and 0 in alphas  # several attributes were retrieved, "carousel" among them


def test_the_emotion_space_is_the_released_one(folder):
    converted(*EVERYTHING)
    fusion = read_adapter(folder / "out" / "uniemo_adapter.safetensors").fusion
    assert fusion.config.emotion_space == "gaussian"
    for statistic, found in (("mean", fusion.mean), ("std", fusion.std)):
        for row, emotion in enumerate(EMOTIONS):
            for column, feature in enumerate(("cls_fea", "scene", "object")):
                file = folder / "UniEmo_space" / f"{emotion}_{feature}_{statistic}.pt"
                assert torch.equal(found[row, column], torch.load(file, weights_only=True))


def test_without_attributes_every_coefficient_is_one_and_the_report_says_so(folder):
    assert "every coefficient is 1" in converted("VIT_query.pth", *MAPPERS, "UniEmo_space")
    fusion = read_adapter(folder / "out" / "uniemo_adapter.safetensors").fusion
    features = torch.randn(2, 1, released.WIDTH)
    assert [alpha.item() for alpha in fusion.coefficients(*features, torch.eye(8)[:1])] == [1, 1]


def test_files_may_be_found_in_folders(folder):
    (folder / "params.json").write_text("{}")
    converted(".", "UniEmo_space", "dataset_balance")
    assert (folder / "out" / "uniemo_adapter.safetensors").is_file()


@pytest.mark.parametrize("content", [{"model": released.checkpoint()["model"]}, released.checkpoint()["model"]])
def test_without_an_emotion_head_there_are_features_but_no_answers(folder, content):
    """A head at random would name emotions at random; so none is written, and who needs one is told."""
    torch.save(content, "bare.pth")
    report = converted("bare.pth")
    assert "no emotion head" in report and "for its features" in report
    pixels = torch.randn(1, 3, released.SIDE, released.SIDE)
    bare = UniEmoUnderstandingModel.from_pretrained("out")(pixels)
    (folder / "out").rename("bare")
    torch.save(released.checkpoint(), "best.pth")
    converted("best.pth")
    whole = UniEmoUnderstandingModel.from_pretrained("out")(pixels)
    torch.testing.assert_close(bare.emotion_features, whole.emotion_features)
    torch.testing.assert_close(bare.object_features, whole.object_features)
    Image.new("RGB", (40, 40)).save("photo.png")
    result = CliRunner().invoke(app, ["understand", "photo.png", "--model", "bare"])
    assert result.exit_code == 2 and "missing: classifier.0.bias, classifier.0.weight" in result.stderr


def test_missing_files_and_misshapen_tensors_are_all_listed(folder):
    for name in ("awe_scene_std.pt", "fear_object_mean.pt"):
        (folder / "UniEmo_space" / name).unlink()
    torch.save(torch.zeros(released.WIDTH + 1), folder / "UniEmo_space" / "anger_cls_fea_mean.pt")
    words = (
        "awe_scene_std.pt",
        "fear_object_mean.pt",
        "anger_cls_fea_mean.pt of shape",
        "mapper_object.pth mlp.2.bias",
    )
    assert_refused(folder, convert("VIT_query.pth", *MAPPERS[:2], "UniEmo_space"), *words)


class Act:
    def __reduce__(self):
        return os.mkdir, ("trace",)


@pytest.mark.parametrize("victim", ["best.pth", "mapper_scene.pth", "object_attr.pkl", "other.pkl"])
def test_a_pickle_that_would_act_is_refused(folder, victim):
    (folder / victim).write_bytes(pickle.dumps({"a": Act()}))
    given = [victim] if victim == "best.pth" else ["VIT_query.pth", victim]
    assert_refused(folder, convert(*given), victim, ".mkdir")
    assert not (folder / "trace").exists()


@pytest.mark.parametrize("row", ["often", np.zeros(7, np.float32), np.array(["a"] * 8)])
def test_coefficients_of_another_form_are_refused(folder, row):
    file = folder / "dataset_balance" / "attr_coefficient_emotion_scene.pkl"
    file.write_bytes(pickle.dumps({"beach": row}))
    assert_refused(folder, convert(*EVERYTHING, "--tokenizer", "tokenizer"), file.name, "8 numbers for 'beach'")


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("victim", ["VIT_query.pth", "mapper.pth", "UniEmo_space/awe_scene_std.pt"])
def test_a_file_cut_short_is_named(folder, victim):
    cut_in_half(folder / victim)
    assert_refused(folder, convert(*EVERYTHING), victim, "cut short")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["nowhere.pth"], ["nowhere.pth"]),
        (["mapper.pth"], ["one checkpoint", "none"]),
        (["VIT_query.pth", "best.pth"], ["one checkpoint", "VIT_query.pth, best.pth"]),
        (["VIT_query.pth", "VIT_query.pth"], ["once"]),
        (["tokenizer"], ["tokenizer", "found none"]),
        (["VIT_query.pth", "info.json", "--tokenizer", "./nowhere"], ["./nowhere", "--tokenizer"]),
        (["VIT_query.pth", "--activation", "loud"], ["loud"]),
        (["VIT_query.pth", "--heads", "3"], ["3 heads"]),
        (
            [*EVERYTHING[:5], "dataset_balance/scene_attr.pkl"],
            ["object_attr.pkl", "attr_coefficient_emotion_scene.pkl"],
        ),
    ],
)
def test_what_cannot_be_converted_is_said(folder, given, words):
    shutil.copy("VIT_query.pth", "best.pth")
    assert_refused(folder, convert(*given), *words)


def test_a_tokenizer_of_another_vocabulary_is_refused(folder):
    content = released.checkpoint()
    content["model"]["token_embedding.weight"] = content["model"]["token_embedding.weight"][:-1]
    torch.save(content, "VIT_query.pth")
    assert_refused(
        folder, convert("VIT_query.pth", "info.json", "--tokenizer", "tokenizer"), "tokenizer of 515 tokens"
    )


def test_a_folder_with_something_in_it_is_left_alone(folder):
    (folder / "out").mkdir()
    converted("VIT_query.pth")  # an empty one is filled
    before = load_file("out/model.safetensors")
    result = convert("VIT_query.pth", *MAPPERS, "UniEmo_space")
    assert result.exit_code == 2 and "out: expected a new or an empty folder" in result.stderr
    assert load_file("out/model.safetensors").keys() == before.keys()
    assert not (folder / "out" / "understanding").exists()


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uniemo_pipelines.released_files.write_adapter", full_disk)
    assert_refused(folder, convert("VIT_query.pth", *MAPPERS, "UniEmo_space"), "No space left")
