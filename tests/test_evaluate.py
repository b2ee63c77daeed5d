"""The general evaluation: what it asks of its input, what it writes, and what it keeps."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import save_model
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    ConvNextImageProcessorPil,
    ResNetConfig,
    ResNetForImageClassification,
)

from training import evaluate
from training.backbones.reader import Reader, read
from training.data import DataArguments
from training.data.pictures import FilePicture
from training.emotion_heads import head_of
from training.evaluate import EvaluationArguments
from training.evaluating.images import read_generated
from training.evaluating.networks import (
    ATTRIBUTES,
    CLASSIFIERS,
    EXTRACTORS,
    INCEPTION,
    InceptionFeatures,
    open_network,
)
from training.evaluating.pairs import PAIRWISE, draw_pairs, pairwise_distance
from training.evaluating.scoring import Observed, frechet_figures, match, score
from training.generated import Settings
from training.observing import Observer, Square
from training.train_baseline import PlainClassifier, PlainClassifierConfig
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.understanding_uniemo import load_understanding

REAL_IMAGES, GENERATED_IMAGES = 16, 7


def write_images(folder: Path, count: int, seed: int, edge: int = 128) -> Path:
    """`count` images of noise for each emotion, in folders of emotions."""
    source = np.random.default_rng(seed)
    for emotion in EMOTIONS:
        (folder / emotion).mkdir(parents=True)
        for number in range(count):
            noise = source.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((edge, edge), 0).save(folder / emotion / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    write_images(root / "data" / "val", REAL_IMAGES, 0)
    write_images(root / "generated", GENERATED_IMAGES, 1)
    write_images(root / "second", GENERATED_IMAGES, 2)
    tiny.save_understanding(root / "understanding")
    tiny.save_clip(root / "clip")
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=32, patch_size=16, **shape)
    PlainClassifier(PlainClassifierConfig(**vision.to_dict())).save_pretrained(root / "baseline")
    tiny.processor().save_pretrained(root / "baseline")
    torch.manual_seed(0)
    save_model(Reader("resnet"), root / "judge.safetensors")
    return root


@pytest.fixture
def data(world: Path) -> DataArguments:
    return DataArguments(data=str(world / "data"))


@pytest.fixture
def arguments(world: Path, tmp_path: Path) -> EvaluationArguments:
    reader = f"reader:{world / 'judge.safetensors'}"
    return EvaluationArguments(
        split="val",
        output=str(tmp_path / "out"),
        models=[str(world / "understanding"), str(world / "baseline")],
        generated=[str(world / "generated"), str(world / "second")],
        classifier=f"model:{world / 'baseline'}",
        attributes=f"uniemo:{world / 'understanding'}",
        extractors=[reader, f"clip:{world / 'clip'}"],
        pairwise=reader,
    )


def test_an_evaluation_writes_all_figures_with_their_intervals(
    data: DataArguments, arguments: EvaluationArguments
) -> None:
    evaluate.main(data, arguments)
    output = Path(arguments.output)
    content = json.loads((output / "evaluation.json").read_text())
    assert content["arguments"]["split"] == "val" and content["generation"]["resolution"] == 128
    understanding = content["understanding"]["models"][arguments.models[0]]
    assert understanding["images"] == 8 * REAL_IMAGES
    both = [content["understanding"]["models"][name]["figures"]["accuracy"]["value"] for name in arguments.models]
    assert content["understanding"]["mean"]["accuracy"]["value"] == pytest.approx(sum(both) / 2)
    rows = content["generation"]["rows"]
    assert list(rows) == ["real images", *arguments.generated]
    for row in rows.values():
        assert row["images"] == row["compared"] == 8 * GENERATED_IMAGES and row["reference"] == 8 * 9
        assert {"emotion_accuracy", "total_variation", "semantic_clarity", "reader_map_distance"} <= set(
            row["figures"]
        )
        for space in row["spaces"].values():
            assert {"coverage", "kernel_distance", "semantic_diversity_mse"} <= set(space)
            assert "frechet_distance" not in space
        assert "Fréchet distance: it needs 2,000 images on each side, here are 56" in row["left_out"][0]
        found = (*row["figures"].values(), *(one for space in row["spaces"].values() for one in space.values()))
        for figure in found:
            low, high = figure["interval"]
            assert low - 1e-6 <= figure["value"] <= high + 1e-6
    generated = rows[arguments.generated[0]]
    of_both = [rows[name]["spaces"][arguments.extractors[0]]["coverage"]["value"] for name in arguments.generated]
    mean = content["generation"]["mean"]["spaces"][arguments.extractors[0]]["coverage"]
    assert mean["value"] == pytest.approx(sum(of_both) / 2)
    trace = sum(generated["confusion"][label][label] for label in range(8))
    assert generated["figures"]["emotion_accuracy"]["value"] == pytest.approx(trace / 56)
    assert all(len(values) == 8 for values in generated["by_emotion"].values())
    text = (output / "evaluation.md").read_text()
    for part in ("| Emo-A (8) |", "| total variation, scene |", "| coverage |", "| macro-F1 |", "- Left out: Fréchet"):
        assert part in text
    assert "LPIPS" not in text and "FID" not in text and "KID" not in text
    assert text.count("| mean of generated |") == 3
    assert f"| {arguments.generated[0]}, features of `{arguments.extractors[1]}` | Sem-D (cosine) |" in text
    with Image.open(output / "confusion.png") as picture:
        assert picture.width > 2.5 * picture.height


def test_what_networks_said_is_kept(
    data: DataArguments, arguments: EvaluationArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = arguments.extractors[0]
    fewer = {"models": [], "generated": arguments.generated[:1], "attributes": None, "pairwise": None}
    arguments = replace(arguments, extractors=[reader], **fewer)
    arguments.observed = str(Path(arguments.output).with_name("shared"))  # where other evaluations find it too
    evaluate.main(data, arguments)
    assert not (Path(arguments.output) / "observed").exists()
    first = json.loads((Path(arguments.output) / "evaluation.json").read_text())
    with monkeypatch.context() as patched:
        patched.setattr(PlainClassifier, "forward", lambda *_: pytest.fail("it had spoken"))
        evaluate.main(data, arguments)
    assert json.loads((Path(arguments.output) / "evaluation.json").read_text()) == first


def test_a_stopped_observation_goes_on_and_changed_pictures_are_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.observing.CHUNK", 10)
    rows = read_generated(write_images(tmp_path / "images", 4, 0, edge=8))
    pictures = [row.picture for row in rows]
    observer, load = Observer(tmp_path / "observed", batch_size=5), Square(8)

    class Mean(nn.Module):
        seen, last = 0, 100

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Mean.seen += len(images)
            if Mean.seen > Mean.last:
                raise KeyboardInterrupt
            return images.float().mean(dim=(1, 2, 3))[:, None]

    Mean.last = 25
    with pytest.raises(KeyboardInterrupt):
        observer.observe(pictures, load, {"mean": Mean()}, "")
    Mean.seen, Mean.last = 0, 100
    found = observer.observe(pictures, load, {"mean": Mean()}, "")["mean"]["output"]
    assert Mean.seen == 12, "20 of the 32 were kept"
    expected = [np.asarray(row.picture.open()).mean() for row in rows]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-6)
    rows[3].picture.open().rotate(90).point(lambda value: value // 2).save(rows[3].picture.path)
    again = observer.observe(pictures, load, {"mean": Mean()}, "")["mean"]["output"]
    assert Mean.seen == 22 and again[3] < 0.6 * found[3]


def test_generated_images_are_read_from_a_manifest_or_from_folders(world: Path, tmp_path: Path) -> None:
    from_folders = read_generated(world / "generated")
    assert [row.label for row in from_folders] == sorted(list(range(8)) * GENERATED_IMAGES, key=lambda i: EMOTIONS[i])
    folder = write_images(tmp_path / "images", 1, 0)
    lines = [{"image": f"{emotion}/000.png", "emotion": emotion, "seed": 1} for emotion in EMOTIONS]

    def read_lines(*changed: dict | str) -> list:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in (*lines, *changed)]
        (folder / "manifest.jsonl").write_text("\n".join(texts) + "\n")
        return read_generated(folder)

    assert [row.label for row in read_lines()] == list(range(8))
    with pytest.raises(
        FileNotFoundError, match="1 of the 9 images in manifest.jsonl are missing, for example awe/9.png"
    ):
        read_lines({"image": "awe/9.png", "emotion": "awe"})
    with pytest.raises(ValueError, match="line 9: unknown emotion 'joy'"):
        read_lines({"image": "awe/000.png", "emotion": "joy"})
    with pytest.raises(ValueError, match='line 9: expected.*found \'{"image": "awe'):
        read_lines('{"image": "awe')
    with pytest.raises(ValueError, match="each image once in manifest.jsonl, found awe/000.png 2 times"):
        read_lines(lines[1])
    with pytest.raises(FileNotFoundError, match="expected a folder of generated images"):
        read_generated(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="or a folder of images an emotion; found none"):
        read_generated(tmp_path / "empty")


def test_an_emotion_with_too_few_images_stops_before_any_network_is_asked(
    data: DataArguments, arguments: EvaluationArguments, tmp_path: Path
) -> None:
    few = write_images(tmp_path / "few", 5, 0)
    with pytest.raises(
        ValueError, match="at least 6 generated images of each emotion, found 5 of amusement, 5 of awe"
    ):
        evaluate.main(data, replace(arguments, models=[], generated=[str(few)]))
    assert not (Path(arguments.output) / "observed").exists()


def test_a_generators_own_model_judges_nothing(
    world: Path, data: DataArguments, arguments: EvaluationArguments
) -> None:
    own = head_of(load_understanding(world / "understanding").state_dict())
    folder = Path(arguments.output).parent / "drawn"
    write_images(folder, GENERATED_IMAGES, 1)
    settings = {field.name: None for field in fields(Settings)}
    (folder / "generation.json").write_text(json.dumps(settings | {"emotion_head": own}))
    alone = replace(arguments, models=[], generated=[str(folder)])
    with pytest.raises(ValueError, match=f"drawn: expected judges .* {own}; name other networks as --classifier"):
        evaluate.main(data, alone)
    evaluate.main(data, replace(alone, attributes=None))
    (folder / "generation.json").write_text(json.dumps(settings | {"emotion_head": "another"}))
    evaluate.main(data, replace(alone, output=f"{arguments.output}-2"))
    (folder / "generation.json").write_text("{")
    with pytest.raises(ValueError, match=r"generation\.json: expected settings as training\.generate writes them"):
        evaluate.main(data, alone)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"models": [], "generated": []}, "--models to evaluate understanding"),
        ({"classifier": None}, "need --classifier"),
        ({"extractors": []}, "and --extractors"),
        ({"extractors": ["clip:a", "clip:a"]}, "different --extractors, found clip:a clip:a"),
    ],
)
def test_arguments_that_say_too_little(
    data: DataArguments, arguments: EvaluationArguments, changed: dict, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate.main(data, replace(arguments, **changed))


def test_sets_are_as_large_as_each_other_and_share_no_image() -> None:
    generated = torch.arange(8).repeat(30)
    real = torch.cat([torch.arange(8).repeat(50), torch.zeros(40, dtype=torch.long)])  # more of amusement
    found = match([generated], real, seed=1)
    counts = [torch.bincount(labels[rows]) for labels, rows in ((generated, found.generated[0]), (real, found.held))]
    assert counts[0].tolist() == counts[1].tolist() == [30] + [25] * 7
    assert torch.bincount(real[found.reference]).tolist() == [30] + [25] * 7, "in the same proportions"
    assert not set(found.held.tolist()) & set(found.reference.tolist())
    assert match([generated], real, seed=1).held.tolist() == found.held.tolist()
    assert match([generated], real, seed=2).held.tolist() != found.held.tolist()
    exact = match([torch.arange(8).repeat(41)], torch.arange(8).repeat(105))
    assert len(exact.reference) == 8 * 64, "none is lost to rounding"
    with pytest.raises(ValueError, match="at least 12 real images of each emotion, found 11 of awe"):
        match([generated], torch.cat([torch.arange(8).repeat(11), torch.tensor([0, *range(2, 8)])]))


def observed(seed: int, count: int, shift: float = 0.0, collapse: bool = False) -> Observed:
    """Emotions well apart in two features, a scene and an object that go with them."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(8).repeat(count)
    features = torch.randn(len(labels), 2, generator=source) * (0.01 if collapse else 1) + 9 * labels[:, None] + shift
    scene = torch.zeros_like(labels) if collapse else torch.randint(3, labels.shape, generator=source)
    attributes = {
        "scene": nn.functional.one_hot((labels + scene) % 10, 10).float(),
        "object": torch.full((len(labels), 4), 0.25),
    }
    probabilities = nn.functional.one_hot(labels, 8).float()
    return Observed(labels, probabilities, attributes, {"line": features})


def test_a_collapsed_set_scores_full_emotion_accuracy_and_nothing_else() -> None:
    reference, good, collapsed = observed(0, 60), observed(1, 40), observed(2, 40, collapse=True)
    faithful, bad = score(good, good, reference), score(collapsed, collapsed, reference)
    assert faithful.figures["emotion_accuracy"].value == bad.figures["emotion_accuracy"].value == 1
    assert faithful.figures["total_variation_scene"].value < 0.2 < 0.6 < bad.figures["total_variation_scene"].value
    both = [bad.figures[f"total_variation_{part}"].value for part in ("scene", "object")]
    assert bad.figures["total_variation"].value == pytest.approx(sum(both) / 2)
    assert bad.spaces["line"]["coverage"].value < 0.5 < 0.9 < faithful.spaces["line"]["coverage"].value
    assert bad.spaces["line"]["semantic_diversity_mse"].value < 0.001
    assert faithful.figures["semantic_clarity"].value == 1
    mean = sum(faithful.by_emotion["coverage, line"]) / 8
    assert mean == pytest.approx(faithful.spaces["line"]["coverage"].value)


def test_emotions_that_are_exchanged_show_within_emotions_alone() -> None:
    reference, right = observed(0, 60), observed(1, 40)
    wrong = replace(right, labels=(right.labels + 1) % 8)
    wrong = wrong.take(wrong.labels.argsort(stable=True))
    spaces = [score(one, one, reference).spaces["line"] for one in (right, wrong)]
    assert spaces[0]["kernel_distance"].value == pytest.approx(spaces[1]["kernel_distance"].value)
    assert spaces[1]["kernel_distance_within"].value > 100 * abs(spaces[0]["kernel_distance_within"].value)


def test_frechet_distance_is_called_fid_of_inception_alone() -> None:
    real, generated = observed(0, 250).features["line"], observed(1, 250, shift=3.0).features["line"]
    found = frechet_figures(real, generated, INCEPTION)
    assert set(found) == {"frechet_distance", "fid"} and set(frechet_figures(real, generated, "clip")) == {
        "frechet_distance"
    }
    assert found["fid"].value == pytest.approx(18, rel=0.2) and found["fid"].interval is None
    assert found["frechet_distance"].value == pytest.approx(found["fid"].value), "two components of two features"


def test_frechet_distances_stand_where_there_are_images_enough() -> None:
    found = score(observed(1, 250), observed(1, 250), observed(0, 250))
    assert found.spaces["line"]["frechet_distance"].interval is None and not found.left_out
    floor = found.spaces["line"]["frechet_distance"].value
    shifted = observed(1, 250, shift=1.0)
    assert score(shifted, shifted, observed(0, 250)).spaces["line"]["frechet_distance"].value > floor + 1.5


class Remembered:
    """Networks that have seen all images."""

    def __init__(self, **said: Observed) -> None:
        self.said = said | {evaluate.REAL: observed(0, 500)}

    def look(self, rows: object, load: object, observer: object, description: str) -> Observed:
        return self.said[description]


def test_sets_that_are_too_small_have_frechet_distances_together() -> None:
    near = Remembered(a=observed(1, 125), b=observed(2, 125))
    far = Remembered(a=observed(1, 125), b=observed(2, 125, shift=2.0))
    sets = {"a": [], "b": []}
    found = [evaluate.pooled_distances(sets, [], networks, None, None) for networks in (near, far)]
    together = [one[evaluate.POOLED]["line"]["frechet_distance"].value for one in found]
    assert together[1] > together[0] + 0.5
    assert found[0][evaluate.REAL] == found[1][evaluate.REAL], "the floor is the same"
    few = Remembered(a=observed(1, 125), b=observed(2, 100))
    assert not evaluate.pooled_distances(sets, [], few, None, None)
    assert not evaluate.pooled_distances({"a": []}, [], near, None, None)


def test_a_set_without_readers_of_attributes_says_what_is_missing() -> None:
    bare = replace(observed(0, 10), attributes={})
    assert "give --attributes" in score(bare, bare, bare).left_out[0]


def test_pairs_are_of_one_emotion_and_share_no_image() -> None:
    labels = torch.arange(8).repeat(5)
    pairs = draw_pairs(labels, seed=0)
    assert pairs.shape == (16, 2) and len(set(pairs.flatten().tolist())) == 32
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert draw_pairs(labels, seed=1).tolist() != pairs.tolist()
    with pytest.raises(ValueError, match="found 1 of sadness"):
        draw_pairs(torch.tensor([*range(8), *range(7)]), seed=0)


def test_pairwise_distance_is_the_mean_over_pairs_of_images_in_minus_one_to_one(tmp_path: Path) -> None:
    for emotion in EMOTIONS:
        (tmp_path / emotion).mkdir()
        for name, level in (("a", 0), ("b", 255)):
            Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / emotion / f"{name}.png")

    class Difference(nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            assert {first.min().item(), first.max().item(), second.min().item(), second.max().item()} <= {-1.0, 1.0}
            return (first - second).abs().mean(dim=(1, 2, 3))

    found = pairwise_distance(read_generated(tmp_path), Square(8), Difference(), 3, seed=0)
    assert found.value == pytest.approx(2) and found.interval == pytest.approx((2, 2))


def test_the_readers_maps_tell_images_apart_and_not_from_themselves(world: Path) -> None:
    maps = open_network(PAIRWISE, f"reader:{world / 'judge.safetensors'}")
    images = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert maps(images, images).tolist() == [0, 0, 0]
    apart = maps(images, images.flip(0))
    assert apart.shape == (3,) and apart[0] > 0.001 and apart[0] == pytest.approx(apart[2].item(), rel=1e-4)


def test_a_reader_says_the_same_as_before(world: Path) -> None:
    place = f"reader:{world / 'judge.safetensors'}"
    images = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8)
    judge = open_network(CLASSIFIERS, place)
    reading = read(judge.reader, images.permute(0, 2, 3, 1).numpy())
    assert torch.allclose(judge(images), reading.emotion, atol=1e-6)
    assert torch.allclose(open_network(EXTRACTORS, place)(images), reading.features, atol=1e-5)
    attributes = open_network(ATTRIBUTES, place)(images)
    assert {name: values.shape[1] for name, values in attributes.items()} == {"scene": 16, "object": 24, "palette": 8}
    assert attributes["object"].argmax(dim=1).tolist() == reading.object.tolist()
    with pytest.raises(ValueError, match="128 x 128 pixels, found 64 x 64; set --resolution 128"):
        judge(images[..., :64, :64])


def test_a_classifier_of_any_kind_and_order_judges_in_emosets_order(world: Path, tmp_path: Path) -> None:
    names = [name.capitalize() for name in reversed(EMOTIONS)]
    shape = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    config = ResNetConfig(**shape, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    torch.manual_seed(0)
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "resnet")
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 32})
    processor.save_pretrained(tmp_path / "resnet")
    judge = open_network(CLASSIFIERS, f"model:{tmp_path / 'resnet'}")
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    pixels = processor(list(images.permute(0, 2, 3, 1).numpy()), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = model(pixels).logits.softmax(1).flip(1)
    assert torch.allclose(judge(images), expected, atol=1e-6)
    both = f"classifiers:{tmp_path / 'resnet'},{world / 'understanding'}"
    assert {k: tuple(v.shape) for k, v in open_network(ATTRIBUTES, both)(images).items()} == {
        "scene": (2, 8),
        "object": (2, 8),
    }


def test_clip_features_are_its_image_embeddings_whatever_its_vision_part_says_of_their_width(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = shape | {"image_size": 32, "patch_size": 16}  # with projection_dim 512, as CLIPConfig leaves it
    clip = CLIPModel(CLIPConfig(text_config=shape, vision_config=vision, projection_dim=6)).eval()
    clip.save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features = open_network(EXTRACTORS, f"clip:{tmp_path}")(images)
    pixels = tiny.processor()(list(images.permute(0, 2, 3, 1).numpy()), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = clip.visual_projection(clip.vision_model(pixels).pooler_output)
    assert features.shape == (2, 6) and torch.allclose(features, expected, atol=1e-5)


def test_retrieved_attributes_are_the_models_nearest(world: Path) -> None:
    network = open_network(ATTRIBUTES, f"uniemo:{world / 'understanding'}")
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    found = network(images)
    output = network.model(network.pixels(images))
    scenes, objects = network.model.attribute_scores(output.scene_features, output.object_features)
    assert found["scene"].argmax(1).tolist() == scenes.argmax(1).tolist()
    assert found["object"].argmax(1).tolist() == objects.argmax(1).tolist()
    assert torch.allclose(found["scene"].sum(1), torch.ones(3))


def test_networks_that_are_none_are_named(world: Path, tmp_path: Path) -> None:
    for name in ("vgg:folder", "clip", "clip:", "folder"):
        with pytest.raises(ValueError, match="such as clip:PLACE, inception, reader:PLACE; found"):
            open_network(EXTRACTORS, name)
    with pytest.raises(ValueError, match="expected an image classifier"):
        open_network(CLASSIFIERS, f"model:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="expected the weights of a reader"):
        open_network(CLASSIFIERS, f"reader:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="expected the weights of a reader .*, found others"):
        open_network(CLASSIFIERS, f"reader:{world / 'clip' / 'model.safetensors'}")
    with pytest.raises(ValueError, match="two models, found 'one' alone"):
        open_network(ATTRIBUTES, "classifiers:one")
    with pytest.raises(ValueError, match="lpips:squeeze; found lpips:resnet"):
        open_network(PAIRWISE, "lpips:resnet")


def test_inception_and_lpips_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r'install "\.\[metrics-torchvision\]", or take clip:FOLDER'):
        InceptionFeatures()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match=r'LPIPS needs torchvision.*"\.\[metrics-torchvision\]"'):
        open_network(PAIRWISE, "lpips:alex")


def test_pictures_of_any_shape_become_squares(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((90, 60)).save(tmp_path / "a.png")
    found = Square(30)(FilePicture(str(tmp_path / "a.png")))
    assert found.shape == (3, 30, 30) and found.dtype == torch.uint8
    assert found[0, 0].float().mean() < 20 and found[0, -1].float().mean() > 235, "all of its height"
