"""The evaluation, whole, on tiny models: what it writes, and what it says of missed marks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_model
from transformers import CLIPVisionConfig

from training import choose_sampling, compare_emotion_spaces, evaluate_mini, measure_export, measure_strength
from training.backbones.reader import HEADS, Reader, Reading
from training.evaluate_mini import EvaluationArguments, RowScores, score_row, table, verdict
from training.evaluating.scoring import Scores
from training.judging import JUDGE, bayes_emotions
from training.metrics import Estimate, total_variation
from training.metrics.understanding import score_understanding
from training.miniemoset.captions import truthful_caption
from training.miniemoset.dataset import write_dataset
from training.train_baseline import PlainClassifier, PlainClassifierConfig
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.training_records_uniemo import read_results


def row_scores(accuracy: float = 0.8, variation: float = 0.15) -> RowScores:
    values = {"emotion_accuracy": accuracy, "total_variation": variation}
    values |= {"total_variation_scene": 0.1, "total_variation_object": 0.2, "total_variation_palette": 0.15}
    figures = {name: Estimate(value, (value - 0.02, value + 0.02)) for name, value in values.items()}
    by_emotion = {"emotion_accuracy": [accuracy] * 8}
    scores = Scores(2000, 2000, 6000, figures, {JUDGE: {"coverage": Estimate(0.9)}}, by_emotion, [[250] * 8] * 8, [])
    return RowScores(scores, Estimate(0.79))


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> EvaluationArguments:
    root = tmp_path_factory.mktemp("evaluation")
    write_dataset(root / "data", {"test": 12 * len(EMOTIONS)}, workers=1)
    StableDiffusionPipeline(**tiny.stable_diffusion()).save_pretrained(root / "base")
    understanding = tiny.save_understanding(root / "adapter" / "understanding")
    write_adapter(root / "adapter" / ADAPTER_NAME, tiny.fusion(), "tiny", understanding)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=32, patch_size=16, **shape)
    PlainClassifier(PlainClassifierConfig(**vision.to_dict())).save_pretrained(root / "baseline")
    tiny.processor().save_pretrained(root / "baseline")
    torch.manual_seed(0)
    save_model(Reader("regnet"), root / "judge.safetensors")
    return EvaluationArguments(
        data=str(root / "data"),
        base=str(root / "base"),
        adapter=str(root / "adapter"),
        baseline=str(root / "baseline"),
        judge=str(root / "judge.safetensors"),
        output=str(root / "evaluation"),
        split="test",
        guidance=3.0,
        images=6,
        steps=2,
        batch_size=4,
    )


def test_evaluation_writes_every_row_with_its_arguments_and_sheets(arguments: EvaluationArguments) -> None:
    evaluate_mini.main(arguments)
    output = Path(arguments.output)
    content = json.loads((output / "evaluation.json").read_text())
    assert content["arguments"]["images"] == 6
    assert set(content["generation"]) == {"real", "uniemo", "word", "captions"}
    assert all(row["scores"]["images"] == 48 for row in content["generation"].values())
    assert set(content["understanding"]) == {"uniemo", "baseline", "bayes"}
    assert content["understanding"]["uniemo"]["images"] == 96
    assert content["understanding"]["bayes"] == pytest.approx(0.8438, abs=1e-4)
    assert (output / "confusion.png").exists()
    results = {(result.metric, result.of): result for result in read_results(output)}
    assert len(results) == 9 and all(result.split == "test" for result in results.values())
    found = content["generation"]["uniemo"]["scores"]["figures"]["total_variation"]["value"]
    assert results["total_variation", None].value == found and results["coverage", "real pictures"].pictures == 48
    assert results["accuracy", None].pictures == 96 and results["accuracy", "the best possible"].interval is None
    text = (output / "evaluation.md").read_text()
    assert all(name in text for name in evaluate_mini.ROWS.values())
    with Image.open(output / "contact_sheet_uniemo.jpg") as sheet:
        assert sheet.size == (6 * 32, 8 * 32)


def test_kept_images_are_those_of_their_settings_and_weights(
    arguments: EvaluationArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def fake(_pipeline: object, row: str, emotion: str, asked: EvaluationArguments) -> np.ndarray:
        drawn.append(emotion)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return np.full((asked.images, 8, 8, 3), asked.guidance, dtype=np.uint8)

    monkeypatch.setattr(evaluate_mini, "generate", fake)
    with pytest.raises(KeyboardInterrupt):
        evaluate_mini.kept_images(None, "word", arguments, tmp_path)
    first = evaluate_mini.kept_images(None, "word", arguments, tmp_path)
    assert drawn == [*EMOTIONS[:3], *EMOTIONS[2:]], "it went on where it was stopped"
    assert evaluate_mini.kept_images(None, "word", arguments, tmp_path)[5].tolist() == first[5].tolist()
    assert len(drawn) == 9
    assert evaluate_mini.kept_images(None, "word", replace(arguments, guidance=4.0), tmp_path)[0].max() == 4
    here = replace(arguments, adapter=str(tmp_path))
    digests = []
    for shift in (0, 1):
        fusion = tiny.fusion()
        fusion.mean += shift
        write_adapter(tmp_path / ADAPTER_NAME, fusion)
        digests.append(evaluate_mini.decisive_digest("uniemo", here))
    assert digests[0] != digests[1], "other weights, other images"


def test_too_few_real_images_are_said_so(arguments: EvaluationArguments) -> None:
    with pytest.raises(ValueError, match="at least 14 images of each emotion.*found 12"):
        evaluate_mini.main(replace(arguments, images=7))


def test_verdict_asks_for_faithful_and_varied() -> None:
    def said(accuracy: float, variation: float) -> str:
        return verdict({"real": row_scores(), "uniemo": row_scores(accuracy, variation)})

    assert said(0.70, 0.20).endswith(": met.")
    assert said(0.60, 0.20).endswith(": missed.")  # unfaithful
    assert said(0.95, 0.30).endswith(": missed.")  # collapsed


def test_table_has_a_line_a_row() -> None:
    understood = {"uniemo": score_understanding(torch.eye(8).repeat(2, 1), torch.arange(8).repeat(2))}
    text = table(understood, {"real": row_scores(), "uniemo": row_scores()})
    assert "| uniemo | 1.0000 | 0.8064-1.0000 |" in text and "| best possible | 0.8438 | exact |" in text
    assert "| UniEmo | 0.800 | 0.780-0.820 | 0.790 | 0.150 | 0.100 / 0.200 / 0.150 | 0.900 |" in text


def test_a_row_is_scored_by_the_judges_head_and_by_the_attributes_that_it_reads() -> None:
    generator = torch.Generator().manual_seed(0)

    def reading(label: int, count: int) -> Reading:
        logits = [torch.randn(count, size, generator=generator) for size in HEADS.values()]
        logits[-1][:, label] += 2
        return Reading(*logits[:-1], logits[-1].softmax(dim=1), torch.randn(count, 4, generator=generator))

    readings, reference = ([reading(label, count) for label in range(8)] for count in (20, 50))
    found = score_row(readings, reference)
    hits = [(one.emotion.argmax(dim=1) == label).sum().item() for label, one in enumerate(readings)]
    by_bayes = [(bayes_emotions(one) == label).sum().item() for label, one in enumerate(readings)]
    assert found.scores.figures["emotion_accuracy"].value == pytest.approx(sum(hits) / 160)
    assert found.scores.by_emotion["emotion_accuracy"] == pytest.approx([hit / 20 for hit in hits])
    assert found.bayes_emotion_accuracy.value == pytest.approx(sum(by_bayes) / 160) and sum(by_bayes) != sum(hits)
    pairs = list(zip(readings, reference, strict=True))
    by_emotion = [total_variation(a.object, b.object, HEADS["objects"]) for a, b in pairs]
    assert found.scores.figures["total_variation_object"].value == pytest.approx(sum(by_emotion) / 8)


def test_truthful_captions_are_drawn_for_the_emotion_and_differ() -> None:
    captions = [truthful_caption("awe", seed) for seed in range(40)]
    assert len(set(captions)) > 20
    assert sum("mountain snowy" in text or "waterfall" in text for text in captions) > 20
    assert captions == [truthful_caption("awe", seed) for seed in range(40)]


def test_sampling_sweeps_guidance_then_variation_at_the_best_guidance(arguments: EvaluationArguments) -> None:
    settings = {name: getattr(arguments, name) for name in evaluate_mini.JudgedArguments.__dataclass_fields__}
    swept = choose_sampling.SamplingArguments(**settings, guidances=[1.0, 3.0], variations=[0.0])
    choose_sampling.main(swept)
    output = Path(arguments.output)
    content = json.loads((output / "sampling.json").read_text())
    first, second, third = content["points"]
    assert (first["guidance"], second["guidance"]) == (1.0, 3.0)
    chosen = min(first, second, key=lambda point: point["kernel_distance_within"])
    assert (third["guidance"], third["variation"]) == (chosen["guidance"], 0.0)
    assert third["coverage"] <= 1 and content["best"]["kernel_distance_within"] <= chosen["kernel_distance_within"]
    assert "**" in (output / "sampling.md").read_text()
    with Image.open(output / "sampling.png") as picture:
        assert picture.size == (1300, 600)


def test_strength_is_measured_over_scales_and_fusions_from_shared_images(arguments: EvaluationArguments) -> None:
    settings = {name: getattr(arguments, name) for name in evaluate_mini.SampledArguments.__dataclass_fields__}
    swept = measure_strength.StrengthArguments(
        **settings,
        prompts=["<emotion>", "a <emotion> cat"],
        scales=[0.0, 1.0],
        pairs=["awe+fear"],
        weights=[0, 0.5, 1],
    )
    measure_strength.main(swept)
    output = Path(arguments.output)
    content = json.loads((output / "strength.json").read_text())
    curves = content["strength"]["<emotion>"]
    assert list(curves) == [*EMOTIONS, "mean"]
    assert curves["awe"][0]["rise"] is None and curves["awe"][0]["interval"][0] <= curves["awe"][0]["judge"]
    assert sum(curves[name][0]["judge"] for name in EMOTIONS) == pytest.approx(1), "at 0 all share the stock images"
    fused = content["fusion"]["awe+fear"]
    assert fused["awe"][0]["judge"] == curves["awe"][1]["judge"] and fused["fear"][2] != fused["fear"][0]
    assert "| awe+fear: fear | " in (output / "strength.md").read_text()
    assert (output / "strength.png").exists() and (output / "sheet_1.jpg").exists()
    kept = list((output / "images").glob("*/*cat*.npy"))
    assert len(kept) == 1 + len(EMOTIONS) and np.load(kept[0]).shape[0] == arguments.images


def test_curves_rise_and_saturate_where_they_say() -> None:
    points = [torch.full((2, 4), value) + torch.tensor([0.0, 0.1, 0.0, 0.1]) for value in (0.1, 0.5, 0.8, 0.79)]
    found = measure_strength.curve(points)
    assert found[1].rise[0] == pytest.approx(0.4), "seed by seed: what differs between seeds is no uncertainty of it"
    assert found[1].rise[1] == pytest.approx((0.4, 0.4), abs=1e-6)
    assert found[1].interval[1] - found[1].interval[0] > 0.1
    assert measure_strength.rises(found, 3) and not measure_strength.rises(found, 4)
    assert measure_strength.saturation((0, 0.5, 1, 2), found) == 1


def test_exports_are_measured_by_a_stock_pipeline_that_loads_them(arguments: EvaluationArguments) -> None:
    settings = {name: getattr(arguments, name) for name in evaluate_mini.JudgedArguments.__dataclass_fields__}
    measure_export.main(measure_export.ExportArguments(**settings, vectors=3))
    output = Path(arguments.output)
    content = json.loads((output / "export.json").read_text())
    assert list(content["figures"]) == ["real", *measure_export.ROWS]
    images = {row: np.load(next((output / "images").glob(f"*/{row}-awe.npy"))) for row in measure_export.ROWS}
    assert all((images[row] != images["live"]).any() for row in ("mean", "drawn", "all"))
    assert (images["drawn"][0] != images["all"][0]).any()
    assert "3 vectors" in (output / "export.md").read_text()


@pytest.mark.slow
def test_emotion_spaces_are_compared_by_the_same_seeds_and_kept(
    arguments: EvaluationArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {name: getattr(arguments, name) for name in evaluate_mini.JudgedArguments.__dataclass_fields__}
    settings |= {"output": str(tmp_path / "compared"), "adapter": str(tmp_path)}
    fusion = tiny.fusion()
    space = {name: getattr(fusion, name) for name in ("mean", "std", "bank", "bank_weights")}
    width = 3 * tiny.FEATURES
    fusion.set_emotion_space(
        **space, low_rank_factors=torch.ones(8, 2, width), low_rank_diagonal=torch.zeros(8, width)
    )
    write_adapter(tmp_path / ADAPTER_NAME, fusion)
    asked = compare_emotion_spaces.ComparisonArguments(**settings)
    compare_emotion_spaces.main(asked)
    output = Path(asked.output)
    content = json.loads((output / "emotion_spaces.json").read_text())
    assert list(content["rows"]) == ["real", *compare_emotion_spaces.FORMS]
    for row in content["rows"].values():
        assert list(row) == list(compare_emotion_spaces.FIGURES)
        for value, (low, high) in (one.values() for one in row.values()):
            assert low - 1e-6 <= value <= high + 1e-6
    images = {f: np.load(next((output / "images").glob(f"*/{f}-awe.npy"))) for f in compare_emotion_spaces.FORMS}
    assert len({pictures.tobytes() for pictures in images.values()}) == 4
    assert all((output / f"sheet_{form}.jpg").exists() for form in images)
    assert "**" in (output / "emotion_spaces.md").read_text()
    monkeypatch.setattr(compare_emotion_spaces, "generate", lambda *_: pytest.fail("all images were kept"))
    compare_emotion_spaces.main(asked)
    assert json.loads((output / "emotion_spaces.json").read_text()) == content


def test_the_best_emotion_space_is_the_most_varied_of_the_faithful() -> None:
    def row(accuracy: float, variation: float) -> compare_emotion_spaces.Row:
        estimate = compare_emotion_spaces.Estimate
        return {
            "emotion_accuracy": estimate(accuracy, (accuracy - 0.05, accuracy + 0.05)),
            "total_variation": estimate(variation, (variation, variation)),
        }

    rows = {"real": row(0.8, 0.1), "gaussian": row(0.7, 0.15), "low_rank": row(0.76, 0.2), "bank": row(0.9, 0.21)}
    assert compare_emotion_spaces.best(rows | {"mean": row(1.0, 0.5)}) == "low_rank"
    assert compare_emotion_spaces.best(rows | {"low_rank": row(0.74, 0.2), "mean": row(1.0, 0.5)}) == "bank"
    unfaithful = {name: row(0.1, 0.1) for name in ("gaussian", "low_rank", "bank")} | {"mean": row(0.1, 0.05)}
    assert compare_emotion_spaces.best({"real": rows["real"]} | unfaithful) == "mean"
