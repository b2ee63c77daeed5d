"""An evaluation's figures as Markdown."""

from collections.abc import Mapping, Sequence

from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..metrics import Estimate
from ..metrics.understanding import UnderstandingScores
from .networks import INCEPTION
from .scoring import Figures, Scores

UNDERSTANDING = {
    "accuracy": "accuracy (8)",
    "polarity_accuracy": "accuracy (2)",
    "macro_f1": "macro-F1",
    "calibration_error": "calibration error (15 bins)",
    "brier_score": "Brier score",
    "negative_log_likelihood": "negative log-likelihood",
}
GENERATION = {
    "emotion_accuracy": "Emo-A (8)",
    "polarity_accuracy": "Emo-A (2)",
    "emotion_score": "Emo-score",
    "total_variation": "total variation",
    "semantic_clarity": "Sem-C",
    "lpips": "LPIPS",
    "reader_map_distance": "distance of the reader's maps",
}
SPACE = {
    "coverage": "coverage",
    "density": "density",
    "precision": "precision",
    "recall": "recall",
    "semantic_diversity": "Sem-D (cosine)",
    "semantic_diversity_mse": "Sem-D (MSE)",
    "kernel_distance": "kernel distance",
    "kernel_distance_within": "kernel distance within emotions",
    "frechet_distance": "Fréchet distance",
    "fid": "FID",
}
MEAN = "mean of generated"
OF_INCEPTION = {"kernel_distance": "KID", "kernel_distance_within": "KID within emotions"}


def understanding_tables(models: Mapping[str, UnderstandingScores], over_models: Figures) -> str:
    """A column a model; below, a table of emotions for each."""
    columns = {name: scores.figures for name, scores in models.items()}
    columns |= {"mean": over_models} if over_models else {}
    text = figures_table(columns, UNDERSTANDING)
    for name, scores in models.items():
        lines = [f"| {name} | precision | recall | F1 | images |", "|---|---|---|---|---|"]
        lines += [
            f"| {emotion} | {one.precision:.3f} | {one.recall:.3f} | {one.f1:.3f} | {one.images:,} |"
            for emotion, one in scores.by_emotion.items()
        ]
        text += "\n" + "\n".join(lines) + "\n"
    return text


def generation_tables(rows: Mapping[str, Scores], mean: Figures, mean_spaces: Mapping[str, Figures]) -> str:
    """A column a set, of figures and then of those in each space; below, a table of emotions for each.

    The means are of the generated sets; empty for a single one.
    """
    columns = {name: scores.figures for name, scores in rows.items()} | ({MEAN: mean} if mean else {})
    parts = [name for name in next(iter(rows.values())).figures if name.startswith("total_variation_")]
    labels = GENERATION | {name: f"total variation, {name.rpartition('_')[2]}" for name in parts}
    text = [figures_table(columns, labels)]
    for extractor in next(iter(rows.values())).spaces:
        named = SPACE | (OF_INCEPTION if extractor == INCEPTION else {})
        text.append(f"Features of `{extractor}`:\n")
        columns = {name: scores.spaces[extractor] for name, scores in rows.items()}
        columns |= {MEAN: mean_spaces[extractor]} if mean else {}
        text.append(figures_table(columns, named))
    text += [emotions_table(name, scores.by_emotion) for name, scores in rows.items()]
    counts = [
        f"- {name}: {found.images:,} images, {found.compared:,} of them held against {found.reference:,} real ones."
        for name, found in rows.items()
    ]
    left_out = dict.fromkeys(sentence for scores in rows.values() for sentence in scores.left_out)
    return "\n".join([*text, *counts, *(f"- Left out: {sentence}" for sentence in left_out)]) + "\n"


def pooled_table(rows: Mapping[str, Mapping[str, Figures]]) -> str:
    """A table an extractor of distances that are of all sets together; nothing where there are none."""
    text = ""
    for extractor in next(iter(rows.values()), {}):
        columns = {name: spaces[extractor] for name, spaces in rows.items()}
        text += f"\nFeatures of `{extractor}`:\n\n" + figures_table(columns, SPACE)
    return text


def figures_table(columns: Mapping[str, Figures], labels: Mapping[str, str], corner: str = "figure") -> str:
    """A line for each label that a column has a figure of, with its 95 % interval; `corner` says what lines are."""
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, label in labels.items():
        if any(name in figures for figures in columns.values()):
            cells = [estimate_cell(figures.get(name)) for figures in columns.values()]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def emotions_table(name: str, by_emotion: Mapping[str, Sequence[float]]) -> str:
    """A line an emotion; a table of its own for each extractor, whose name would make wide columns."""
    tables = []
    for extractor in dict.fromkeys(figure.partition(", ")[2] for figure in by_emotion):
        columns = {n.partition(", ")[0]: v for n, v in by_emotion.items() if n.partition(", ")[2] == extractor}
        title = f"{name}, features of `{extractor}`" if extractor else name
        heads = [(GENERATION | SPACE | (OF_INCEPTION if extractor == INCEPTION else {}))[figure] for figure in columns]
        lines = [f"| {title} | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
        for emotion, *values in zip(EMOTIONS, *columns.values(), strict=True):
            lines.append(f"| {emotion} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def estimate_cell(figure: Estimate | None) -> str:
    """A figure and its interval, "0.8790 (0.8700 to 0.8880)"; empty where there is none."""
    if figure is None:
        return ""
    if figure.interval is None:
        return f"{figure.value:.4f}"
    return "{:.4f} ({:.4f} to {:.4f})".format(figure.value, *figure.interval)
