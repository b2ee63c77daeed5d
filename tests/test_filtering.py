"""Which generated images are kept as a data set, with tiny models."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from training_world import OBJECTS, SCENES, arguments_of, records, stage1, write_clip, write_info

from training import filter_generated, train_understanding
from training.config import parse
from training.data import DataArguments, open_vocabulary, read_rows
from training.data.rows import NO_LABEL
from training.emotion_heads import head_of
from training.filter_generated import STEPS, FilterArguments
from training.filtering import reading
from training.filtering.purity import Truth
from training.generated import Settings
from uniemo_pipelines.fusion_uniemo import EMOTIONS

ROOT = Path(__file__).parents[1]


def draw(path: Path, label: int, number: int) -> None:
    """A colour an emotion, with a little noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.array([255 * (label >> bit & 1) for bit in range(3)]) * 0.7 + 30
    noise = np.random.default_rng(number).normal(0, 12, (8, 8, 3))
    small = Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8))
    small.resize((32, 32), Image.Resampling.NEAREST).save(path)


def write_real(folder: Path) -> None:
    """Four pictures an emotion in each of three splits, of all scenes and objects, so that none has no quota."""
    write_info(folder)
    for start, split in enumerate(("train", "val", "calibration")):
        rows = []
        for number in range(32):
            label = number % 8
            image = f"image/{EMOTIONS[label]}/{split}_{number:05d}.png"
            draw(folder / image, label, 100 * start + number)
            content = {"emotion": EMOTIONS[label], "scene": SCENES[number // 8 % 3], "object": [OBJECTS[number // 8]]}
            annotation = folder / f"annotation/{EMOTIONS[label]}/{split}_{number:05d}.json"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(json.dumps(content))
            rows.append([EMOTIONS[label], image, annotation.relative_to(folder).as_posix()])
        (folder / f"{split}.json").write_text(json.dumps(rows))


def write_corpus(folder: Path, real: Path, digest: str = "a1") -> Path:
    """Five images an emotion: three good ones, one of another emotion's colour, and one that is

    of the first emotion a copy of a validation image, of others of the first good one.
    """
    lines = []
    for label, emotion in enumerate(EMOTIONS):
        for number in range(5):
            image = f"image/{emotion}/{emotion}_{number:06d}.png"
            draw(folder / image, label if number != 3 else (label + 1) % 8, 1000 + 10 * label + number)
            if number == 4:
                source = folder / lines[-4]["image"] if label else real / f"image/{emotion}/val_00000.png"
                (folder / image).write_bytes(source.read_bytes())
            scene, thing = SCENES[label % 3].replace("_", " "), OBJECTS[label % 4].lower()
            lines.append(
                {"image": image, "emotion": emotion, "seed": 10 * label + number, "scene": scene, "object": thing}
                | {"condition": [f"conditions/{emotion}-000000.safetensors", number]}
            )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = Settings(
        adapter="a", adapter_digest=digest, base="b", base_digest="b1", prompt=None, guidance=2.0, steps=2,
        emotion_space="joint", variation=1.0, seed=0, batch_size=5, dtype="float32", size=[32, 32], images=5,
        versions={},
    )  # fmt: skip
    (folder / "generation.json").write_text(json.dumps(asdict(settings)))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images, a filter that was trained on them, an extractor, a corpus, and `kept`, what is left of it."""
    world = tmp_path_factory.mktemp("world")
    write_real(world / "emoset")
    write_clip(world / "clip")
    settings = {"num_train_epochs": 40, "backbone_learning_rate": 1e-3, "head_learning_rate": 1e-3}
    settings |= {"classifier_dropout": 0.0, "smallest_crop": 0.6}
    train_understanding.main(*stage1(world, world / "filter", **settings))
    tiny.save_clip(world / "extractor")
    write_corpus(world / "corpus", world / "emoset")
    filter_generated.main(*asked(world, world / "kept"))
    return world


def asked(world: Path, output: Path, **changes: Any) -> tuple[Any, ...]:
    settings = {
        "data": str(world / "emoset"),
        "corpora": [str(world / "corpus")],
        "models": [str(world / "filter")],
        "extractor": str(world / "extractor"),
        "output": str(output),
        "features": str(world / "features"),
        "keep": 5,
        "clarity_percentile": 0.0,
        "manifold_percentile": 100.0,
        "skip": ["clear", "manifold"],
        "device": "cpu",
        **changes,
    }
    return arguments_of((DataArguments, FilterArguments), settings)


def fell(folder: Path) -> dict[str, str | None]:
    verdicts = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    return {one["image"]: one["fell"] for one in verdicts}


def test_wrong_colours_and_copies_fall_each_at_its_criterion(world):
    found = fell(world / "kept")
    for label, emotion in enumerate(EMOTIONS):
        names = [f"image/{emotion}/{emotion}_{number:06d}.png" for number in range(5)]
        assert found[names[3]] == "probability"
        copies = {found[names[4]]} if label == 0 else {found[names[1]], found[names[4]]}
        assert ("real copy" if label == 0 else "own copy") in copies
        assert None in {found[name] for name in names[:3]}
    report = json.loads((world / "kept" / "report.json").read_text())
    assert sum(report["kept"].values()) + sum(sum(row.values()) for row in report["fallen"].values()) == 40
    for name in ("kept.jpg", "rejected.jpg", "report.png"):
        Image.open(world / "kept" / name).load()
    assert "| fell: own copy |" in (world / "kept" / "report.md").read_text()


def test_what_is_kept_opens_as_a_data_set_with_soft_labels(world):
    kept, real = DataArguments(data=str(world / "kept")), DataArguments(data=str(world / "emoset"))
    assert open_vocabulary(kept) == open_vocabulary(real)
    rows = read_rows(kept, "train")
    assert len(rows) == sum(one is None for one in fell(world / "kept").values())
    for row in rows:
        assert sum(row.probabilities) == pytest.approx(1, abs=1e-5) and np.argmax(row.probabilities) == row.label
        assert row.scene in (NO_LABEL, row.label % 3), "the intended one or none"
        assert set(row.objects) <= {row.label % 4}
    path = next((world / "kept" / "annotation" / "awe").iterdir())
    generated = json.loads(path.read_text())["generated"]
    assert generated["adapter_digest"] == "a1"
    copied = next((world / "kept" / "image" / "awe").glob(path.stem + ".*"))
    assert copied.read_bytes() == (world / "corpus" / generated["image"]).read_bytes()


def test_stage_1_learns_from_it_beside_the_real_ones(world, tmp_path):
    settings = {"generated": [str(world / "kept")], "num_train_epochs": 1, "per_device_train_batch_size": 4}
    train_understanding.main(*stage1(world, tmp_path / "run", **settings))
    kept = sum(one is None for one in fell(world / "kept").values())
    assert len(records(tmp_path / "run", "loss")) >= (32 + min(kept, 32)) // 4


def test_other_thresholds_need_no_network_and_the_same_give_the_same(world, tmp_path, monkeypatch):
    def never(*_: Any) -> None:
        raise AssertionError("images are looked at once")

    monkeypatch.setattr(reading.Committee, "forward", never)
    monkeypatch.setattr(reading.UnitFeatures, "forward", never)
    filter_generated.main(*asked(world, tmp_path / "again"))
    for file in ("verdicts.jsonl", "train.json", "report.json"):
        assert (tmp_path / "again" / file).read_bytes() == (world / "kept" / file).read_bytes()
    filter_generated.main(*asked(world, tmp_path / "again", skip=["faithful", "clear", "manifold", "diverse"], keep=2))
    assert len(json.loads((tmp_path / "again" / "train.json").read_text())) == 16, "of another filter in its place"
    assert len(list((tmp_path / "again" / "image").rglob("*.png"))) == 16


def test_an_emptied_emotion_leaves_the_earlier_data_set_alone(world):
    before = {path: path.read_bytes() for path in (world / "kept").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="'margin'.*lower --margin"):
        filter_generated.main(*asked(world, world / "kept", margin=1.1))
    assert before == {path: path.read_bytes() for path in (world / "kept").rglob("*") if path.is_file()}


def test_an_emotion_of_which_none_is_kept_is_missing_in_data_set_and_sheet_where_that_is_allowed(
    world, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        filter_generated,
        "ask_faithful",
        lambda sieve, candidates, limits: sieve.ask("probability", sieve.labels[sieve.left] != 1),
    )
    filter_generated.main(*asked(world, tmp_path / "out", allow_empty=True))
    kept = json.loads((tmp_path / "out" / "report.json").read_text())["kept"]
    assert kept["awe"] == 0 and all(count for emotion, count in kept.items() if emotion != "awe")
    rows = json.loads((tmp_path / "out" / "train.json").read_text())
    assert {row[0] for row in rows} == set(EMOTIONS) - {"awe"} and (tmp_path / "out" / "kept.jpg").is_file()


def test_two_models_judge_by_the_mean_of_their_logarithms(world, tmp_path):
    data, arguments = asked(world, tmp_path / "out", features=str(tmp_path / "features"))
    vocabulary = open_vocabulary(data)
    pictures = [row.picture for row in read_rows(data, "val")]
    alone = reading.Filter([str(world / "filter")], vocabulary, arguments).read(pictures, "alone")
    twice = reading.Filter([str(world / "filter")] * 2, vocabulary, arguments).read(pictures, "twice")
    assert torch.allclose(alone.logits, twice.logits, atol=1e-5) and alone.logits.exp().sum(-1).allclose(
        torch.ones(32)
    )


def test_what_an_earlier_filter_kept_is_not_kept_again(world, tmp_path):
    found = asked(world, tmp_path / "out", guarded_folders=[str(world / "kept")], allow_empty=True, skip=STEPS)
    filter_generated.main(*found)
    first, second = fell(world / "kept"), fell(tmp_path / "out")
    assert all(second[name] == "real copy" for name in first if first[name] is None)
    assert None in second.values()


def test_images_that_need_not_be_faithful_need_no_model_of_that_precision(world, tmp_path, monkeypatch):
    def never(*_: Any) -> float:
        raise ValueError("no such precision")

    monkeypatch.setattr("training.filtering.candidates.least_probability", never)
    filter_generated.main(*asked(world, tmp_path / "out", skip=STEPS, keep=1))
    assert "at temperature" not in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(ValueError, match="no such precision"):
        filter_generated.main(*asked(world, tmp_path / "other"))


# ------------------------------------------------------------------------------------------------------------ oracle


def right_ones(*_: Any) -> Truth:
    """A truth that contradicts the filter: it trusts none but the images of another emotion's colour and two more."""
    labels = np.repeat(np.arange(8), 5)
    likeliest = np.where(np.arange(40) % 5 >= 2, labels, (labels + 1) % 8)
    posterior = 0.02 + 0.84 * np.eye(8)[likeliest]
    return Truth(np.ones(40, bool), posterior, {kind: np.zeros(40, int) for kind in ("scene", "object")})


def test_an_oracle_stands_in_place_of_the_faithful_ones(world, tmp_path, monkeypatch):
    monkeypatch.setattr(filter_generated, "read_truth", right_ones)
    changes = {"judge": "judge", "oracle": True, "skip": ["clear", "manifold", "diverse"], "keep": 2}
    filter_generated.main(*asked(world, tmp_path / "out", **changes))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["fallen"]) == ["truth", "real copy", "draw"]
    assert set(report["fallen"]["truth"].values()) == {2} and set(report["kept"].values()) == {2}
    found = fell(tmp_path / "out")
    assert {found[f"image/awe/awe_00000{number}.png"] for number in (0, 1)} == {"truth"}
    assert report["purity"]["after truth"]["images"] == 24
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| fell: truth |" in text and "- filtered and labelled by an oracle, the judge" in text
    assert "at temperature" not in text and "clarity at least" not in text, "what was not asked is not said"


def test_labels_and_annotations_of_an_oracle_are_the_truth_and_not_the_models(world, tmp_path, monkeypatch):
    monkeypatch.setattr(filter_generated, "read_truth", right_ones)
    changes = {"judge": "judge", "oracle": True, "skip": ["clear", "manifold", "diverse"], "keep": 2}
    filter_generated.main(*asked(world, tmp_path / "out", **changes))
    for row in read_rows(DataArguments(data=str(tmp_path / "out")), "train"):
        assert row.probabilities == pytest.approx([0.86 if label == row.label else 0.02 for label in range(8)])
        assert row.scene in (NO_LABEL, 0) and set(row.objects) <= {0}


def test_what_an_oracle_draws_among_the_right_ones_is_decided_by_the_seed(world, tmp_path, monkeypatch):
    monkeypatch.setattr(filter_generated, "read_truth", right_ones)
    changes = {"judge": "judge", "oracle": True, "skip": ["clear", "manifold", "diverse"], "keep": 1}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        filter_generated.main(*asked(world, tmp_path / name, seed=seed, **changes))
    one, same, other = (fell(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    assert all(one[name] == "truth" for name in one if int(name[-5]) < 2)


# ---------------------------------------------------------------------------------------------------- self-filtering


def named_head(world: Path, folder: Path, head: str | None) -> str:
    """The corpus with that head in its settings; without the key where it is None, as older ones are."""
    shutil.copytree(world / "corpus", folder)
    content = json.loads((folder / "generation.json").read_text())
    del content["emotion_head"]
    (folder / "generation.json").write_text(json.dumps(content | ({} if head is None else {"emotion_head": head})))
    return str(folder)


def own_head(world: Path) -> str:
    return head_of(load_file(world / "filter" / "model.safetensors"))


@pytest.mark.parametrize(
    ("whose", "own", "said"),
    [
        ("its own", True, "- filtered and labelled by its own model: filter"),
        ("another's", False, "- filtered and labelled by another model than its own: filter"),
        ("nobody's", None, "- filtered and labelled by a model that may be its own or not: filter"),
    ],
)
def test_report_and_warning_say_whether_the_filter_is_the_generators_own(world, tmp_path, capsys, whose, own, said):
    head = {"its own": own_head(world), "another's": "0123456789ab", "nobody's": None}[whose]
    corpus = named_head(world, tmp_path / "corpus", head)
    filter_generated.main(*asked(world, tmp_path / "out", corpora=[corpus]))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["filtered_by"] == [{"model": "filter", "own": own}]
    assert said in (tmp_path / "out" / "report.md").read_text().splitlines()
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning")]
    assert len(warnings) == (own is True)
    assert all("filtered by its own model: filter has the emotion head" in line for line in warnings)


def test_of_several_models_each_is_told_and_a_corpus_that_knows_speaks_for_one_that_does_not(world, tmp_path, capsys):
    corpora = [named_head(world, tmp_path / "old", None), named_head(world, tmp_path / "new", own_head(world))]
    other = shutil.copytree(world / "filter", tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["classifier.3.bias"] = tensors["classifier.3.bias"] + 0.1
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    models = [str(world / "filter"), str(other)]
    filter_generated.main(*asked(world, tmp_path / "out", corpora=corpora, models=models, skip=STEPS, keep=1))
    found = json.loads((tmp_path / "out" / "report.json").read_text())["filtered_by"]
    assert found == [{"model": "filter", "own": True}, {"model": "other", "own": False}]
    assert "its own model: filter has" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- bad input


def refused(world: Path, tmp_path: Path, message: str, **changes: Any) -> None:
    with pytest.raises(ValueError, match=message):
        filter_generated.main(*asked(world, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_images_missing_from_a_manifest(world, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", world / "emoset")
    (corpus / "image/awe/awe_000002.png").unlink()
    message = r"lists 40 images, of which 1 are not there, for example .*awe_000002\.png; repeat"
    refused(world, tmp_path, message, corpora=[str(corpus)])


def test_a_manifest_that_was_cut(world, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", world / "emoset")
    lines = (corpus / "manifest.jsonl").read_text().splitlines(keepends=True)
    (corpus / "manifest.jsonl").write_text("".join(lines[:-1]))
    message = r"manifest\.jsonl: expected 40 images, as generation\.json says, found 39; repeat training\.generate"
    refused(world, tmp_path, message, corpora=[str(corpus)])
    (corpus / "manifest.jsonl").write_text("".join(lines)[:-10])
    refused(world, tmp_path, "manifest.jsonl: expected lines as training.generate writes", corpora=[str(corpus)])


def test_corpora_of_different_adapters(world, tmp_path):
    other = write_corpus(tmp_path / "corpus", world / "emoset", digest="b2")
    refused(world, tmp_path, r"the adapter that drew .* \(a1\), found b2", corpora=[str(world / "corpus"), str(other)])


def test_a_manifest_of_another_form(world, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", world / "emoset")
    (corpus / "manifest.jsonl").write_text('{"image": "a.png"}\n')
    refused(world, tmp_path, "manifest.jsonl: expected lines as training.generate writes", corpora=[str(corpus)])


def test_too_few_images_of_an_emotion(world, tmp_path):
    refused(world, tmp_path, "at least 6 generated images of each emotion, found 5 of .*lower --keep", keep=6)


def test_a_model_of_another_vocabulary(world, tmp_path):
    tiny.save_understanding(tmp_path / "other")
    refused(world, tmp_path, "expected a model of this data set's 3 scenes", models=[str(tmp_path / "other")])


def test_models_that_see_pictures_in_different_ways(world, tmp_path):
    other = shutil.copytree(world / "filter", tmp_path / "other")
    content = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(content | {"image_mean": [0.0, 0.0, 0.0]}))
    message = "other: expected an image processor as that of .*filter, found another one"
    refused(world, tmp_path, message, models=[str(world / "filter"), str(other)])


def test_an_output_that_is_read_from_or_holds_something_else(world, tmp_path):
    with pytest.raises(ValueError, match="it is read from"):
        filter_generated.main(*asked(world, world / "corpus"))
    with pytest.raises(ValueError, match="holds files of something else"):
        filter_generated.main(*asked(world, world / "filter"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skip": ["clean"]}, "--skip knows faithful, clear, manifold, diverse; found clean"),
        ({"precision": 0.0}, "--precision is above 0"),
        ({"manifold_percentile": 101.0}, "--manifold_percentile is from 0 to 100; found 101"),
        ({"keep": 0}, "--keep is at least 1"),
        ({"oracle": True}, "--oracle asks a judge; name its weights as --judge"),
        ({"oracle": True, "judge": "j", "skip": ["faithful"]}, "--oracle takes the place of faithful"),
        ({"oracle": True, "judge": "j", "skip": ["clear"]}, "give --skip clear diverse as well"),
    ],
)
def test_arguments_out_of_range(world, tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        asked(world, tmp_path / "out", **changes)


@pytest.mark.parametrize(("name", "split"), [("miniemoset", "calibration"), ("emoset", "val")])
def test_the_configurations_name_all_but_the_models_that_filter(name, split, capsys):
    asked = ["--config", str(ROOT / "training" / "configs" / f"{name}.yaml")]
    types = (DataArguments, FilterArguments)
    data, arguments = parse(types, "filter_generated", [*asked, "--models", "other_half"])
    assert data.data and arguments.keep and arguments.calibration_split == split
    with pytest.raises(SystemExit):
        parse(types, "filter_generated", asked)
    assert "required: --models" in capsys.readouterr().err
