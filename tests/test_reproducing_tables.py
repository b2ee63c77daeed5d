"""The report of the reproduction, on made-up numbers whose differences, p-values and corrections are known by hand."""

from copy import deepcopy

import pytest

from training.reproducing.comparing import compare, compare_feedback
from training.reproducing.figures import curves_figure, feedback_figure, figures, understanding_figure
from training.reproducing.results import Results, together
from training.reproducing.rows import (
    FEEDBACK,
    FEEDBACK_COMPARISONS,
    GENERATION,
    GENERATION_COMPARISONS,
    REAL,
    TABLES,
    UNDERSTANDING,
    UNDERSTANDING_COMPARISONS,
    Comparison,
)
from training.reproducing.tables import report

GENERATION_VALUES = {
    "emotion_accuracy": 0.7,
    "total_variation": 0.2,
    "coverage": 0.5,
    "kernel_distance_within": 0.01,
    "semantic_clarity": 0.6,
    "semantic_diversity": 0.3,
}


def around(value: float, seeds: int, place: int) -> list[float]:
    """Values of seeds: a trend that rows share, and a part of the row's own."""
    return [value + 0.01 * seed + 0.002 * ((seed + 1) * (place + 1) % 17) for seed in range(seeds)]


def made_up(understanding: int = 4, generation: int = 3, feedback: int = 3) -> Results:
    """Every row of every table."""
    rows = {}
    for place, row in enumerate(GENERATION):
        rows[row.name] = {n: around(v + 0.01 * place, generation, place) for n, v in GENERATION_VALUES.items()}
        rows[row.name]["frechet_distance"] = 3.25 + place
    real = {name: [value] for name, value in GENERATION_VALUES.items()} | {"frechet_distance": None}
    curve = [
        {"setting": f"variation {share}"}
        | {name: around(value + share / 10, generation, 0) for name, value in GENERATION_VALUES.items()}
        for share in (0.0, 0.5, 1.0)
    ]
    return {
        "size": "full",
        "seeds": {"understanding": understanding, "generation": generation, "feedback": feedback},
        "facts": {
            "understanding": {"machine": "two cores"},
            "generation": {"machine": "four cores", "judge": "another network"},
            "feedback": {"machine": "two cores"},
        },
        "best_accuracy": 0.879,
        "understanding": {
            row.name: {
                figure: around(0.6 + 0.01 * place, understanding, place)
                for figure in ("accuracy", "polarity_accuracy", "macro_f1", "calibration_error")
            }
            for place, row in enumerate(UNDERSTANDING)
        },
        "generation": {REAL.name: real, **rows},
        "curves": {"UniEmo": curve},
        "feedback": {
            str(labels): {
                row.name: {"accuracy": around(0.5 + labels / 10000 + 0.01 * place, feedback, place)}
                for place, row in enumerate(FEEDBACK)
            }
            for labels in (1600, 400, 800)
        },
    }


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_comparisons_name_rows_and_titles_are_unlike() -> None:
    tables = (
        (UNDERSTANDING, UNDERSTANDING_COMPARISONS),
        (GENERATION, GENERATION_COMPARISONS),
        (FEEDBACK, FEEDBACK_COMPARISONS),
    )
    for rows, comparisons in tables:
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        assert {name for one in comparisons for name in (one.row, one.against)} <= set(names)
        assert len({(one.row, one.against) for one in comparisons}) == len(comparisons)
    whys = [one.why for one in UNDERSTANDING_COMPARISONS]
    assert len(set(whys)) == len(whys)  # the figure names differences by them
    assert {one.against for one in GENERATION_COMPARISONS} == {row.name for row in GENERATION} - {"complete"}
    titles = [row.title for rows, _ in tables for row in rows]
    assert len(set(titles)) == len(titles)


def test_every_row_stands_in_the_report_once() -> None:
    text = report(made_up())
    for row in (*UNDERSTANDING, REAL, *GENERATION, *FEEDBACK):
        assert len(lines_of(text, f"| {row.title} |")) == 1, row
    assert lines_of(text, "| best possible accuracy, exact |") == [
        "| best possible accuracy, exact | 0.8790 |  |  |  |"
    ]
    assert "not measured" not in text and "Smoke test" not in text
    assert text.count("- machine: two cores\n") == 2 and "- machine: four cores\n- judge: another network\n" in text


def test_a_row_is_a_mean_with_its_interval_and_a_pooled_figure_has_none() -> None:
    results = made_up()
    results["generation"]["complete"] |= {"emotion_accuracy": [0.1, 0.2, 0.3], "frechet_distance": 7.5}
    text = report(results)
    [row] = lines_of(text, "| UniEmo, complete (bank) |")
    # 4.3027 * .1 / sqrt(3) = .2484 with 2 degrees of freedom
    assert row.startswith("| UniEmo, complete (bank) | 0.2000 (-0.0484 to 0.4484) |") and "| 7.5000 |" in row
    [heads] = lines_of(text, "| images |")
    cells = dict(zip(heads.split(" | "), lines_of(text, "| real images |")[0].split(" | "), strict=True))
    assert "Without an interval are what is pooled over the seeds" in text
    assert cells["Emo-A (8) ↑"] == "0.7000" and cells["Fréchet distance, emotions and seeds together ↓"] == ""
    [heads] = lines_of(text, "| model |")
    assert heads == "| model | accuracy (8) | accuracy (2) | macro-F1 | calibration error (15 bins) |"


def test_differences_p_values_and_holm_by_hand() -> None:
    results = made_up()
    base = [0.50, 0.60, 0.70, 0.80]
    results["understanding"] = {
        "baseline": {"accuracy": base},
        "wide_head": {"accuracy": [0.51, 0.62, 0.71, 0.82]},
        "queries": {"accuracy": [0.53, 0.62, 0.73, 0.82]},
    }
    # wide_head from baseline: .01, .02, .01, .02, t = 5.196 with 3 degrees of freedom, p = .01385
    # queries from baseline: .03, .02, .03, .02, t = 8.660, p = .00324; from wide_head: .02, 0, .02, 0, t = 1.732
    tested = compare(results["understanding"], UNDERSTANDING_COMPARISONS, "accuracy")
    assert [(one.comparison.row, one.comparison.against) for one in tested] == [
        ("wide_head", "baseline"),
        ("queries", "baseline"),
        ("queries", "wide_head"),
    ]
    assert [one.test.difference.value for one in tested] == pytest.approx([0.015, 0.025, 0.01])
    assert [one.test.p_value for one in tested] == pytest.approx([0.01385, 0.00324, 0.18169], abs=1e-5)
    assert [one.adjusted for one in tested] == pytest.approx([2 * 0.01385, 3 * 0.00324, 0.18169], abs=2e-5)
    text = report(results)
    [line] = lines_of(text, "| with a head of as many parameters as queries and blocks − backbone fine-tuned alone |")
    # 3.1824 * .0057735 / 2 = .0092
    assert line.endswith("| parameters alone | 0.0150 (0.0058 to 0.0242) | 0.0138 | 0.0277 |")
    assert "the number of comparisons in this table, 3." in text


def test_a_tiny_p_value_is_not_printed_as_zero() -> None:
    results = made_up()
    results["understanding"]["baseline"]["accuracy"] = [0.5, 0.6, 0.7, 0.8]
    results["understanding"]["queries"]["accuracy"] = [0.6, 0.701, 0.802, 0.901]
    [line] = lines_of(report(results), "| with expert queries − backbone fine-tuned alone |")
    assert line.endswith("| < 0.0001 | < 0.0001 |")


def test_each_figure_of_generation_is_corrected_by_itself() -> None:
    results = made_up()
    for name in [row.name for row in GENERATION if row.name not in ("words", "captions", "complete")]:
        del results["generation"][name]
    values = results["generation"]
    # the complete model has .02, .04, .03 more: t = 5.196 with 2 degrees of freedom, p = .0351
    values["complete"] |= {"emotion_accuracy": [0.72, 0.74, 0.73], "coverage": [0.52, 0.54, 0.53]}
    values["words"] |= {"emotion_accuracy": [0.7, 0.7, 0.7], "coverage": [0.52, 0.54, 0.53]}
    values["captions"] |= {"emotion_accuracy": [0.7, 0.7, 0.7], "coverage": [0.5, 0.5, 0.5]}
    tested = compare(values, GENERATION_COMPARISONS, "emotion_accuracy")
    assert [one.adjusted for one in tested] == pytest.approx([0.0702, 0.0702], abs=1e-4)
    assert tested[0].test.difference.value == pytest.approx(0.03), "what the complete model has more"
    tested = compare(values, GENERATION_COMPARISONS, "coverage")
    assert [one.adjusted for one in tested] == pytest.approx([1.0, 0.0702], abs=1e-4)
    text = report(results)
    assert len(lines_of(text, "| UniEmo, complete (bank) − stock, the emotion's word, which its captions lack |")) == 3
    for label in ("Emo-A (8) ↑", "total variation ↓", "coverage ↑"):
        assert f"Differences in {label} seed by seed, of pairs fixed in advance" in text


def test_feedback_is_paired_by_seed_over_the_labels_that_both_arms_have() -> None:
    results = made_up()
    results["feedback"] = {
        "800": {"none": {"accuracy": [0.5, 0.5, 0.5]}, "random": {"accuracy": [0.52, 0.56, 0.54]}},
        "400": {"none": {"accuracy": [0.4, 0.4, 0.4]}, "random": {"accuracy": [0.42, 0.42, 0.42]}},
        "1600": {"none": {"accuracy": [0.9, 0.1, 0.9]}},
    }
    # by seed: .02, .04, .03, as t = 5.196 with 2 degrees of freedom; three cells a seed would give another p
    [tested] = compare_feedback(results)
    assert tested.comparison == Comparison("random", "none", "generated images")
    assert tested.test.difference.value == pytest.approx(0.03)
    assert tested.test.p_value == tested.adjusted == pytest.approx(0.0351, abs=1e-4)
    text = report(results)
    [heads] = lines_of(text, "| added to the labelled images |")
    assert [head.split(", ")[1] for head in heads.strip("| ").split(" | ")[1:]] == [
        "400 labels",
        "800 labels",
        "1,600 labels",
    ]
    assert lines_of(text, "| N generated, drawn at random |")[0].endswith("|  |")
    assert "Rows that were not measured: N filtered; N filtered, without diversity; " in text


def test_missing_rows_are_named_and_so_are_missing_tables() -> None:
    results = made_up()
    del results["understanding"]["queries"]
    results["generation"], results["curves"] = {}, {}
    del results["facts"]["generation"]
    text = report(results)
    assert "Rows that were not measured: with expert queries.\n" in text
    assert not lines_of(text, "| with expert queries")
    assert len(lines_of(text, "| with queries and both contrastive losses −")) == 0
    assert "the number of comparisons in this table, 4." in text
    assert "## Generation\n\nNot measured.\n" in text
    assert list(figures(results)) == ["understanding", "feedback"]


def test_tables_that_were_made_apart_are_one_report() -> None:
    whole = made_up()
    apart = []
    for table in TABLES:
        parts = {"generation", "curves"} if table == "generation" else {table}
        own = {
            name: whole[name] if name in parts else {}
            for name in ("understanding", "generation", "curves", "feedback")
        }
        apart.append(whole | own | {name: {table: whole[name][table]} for name in ("seeds", "facts")})
    assert together(apart) == whole
    assert "## Understanding\n\nNot measured.\n" in report(together(apart[1:]))
    with pytest.raises(ValueError, match="of one size, found full, small"):
        together([apart[0], apart[1] | {"size": "small"}])


def test_one_seed_has_values_alone() -> None:
    text = report(made_up(1, 1, 1))
    assert "(" not in "".join(lines_of(text, "| N")) and "Differences" not in text and "Holm" not in text
    assert text.count("One seed: its values alone, without intervals and without tests.") == 3
    assert lines_of(text, "| with expert queries |") == ["| with expert queries | 0.6260 | 0.6260 | 0.6260 | 0.6260 |"]


def test_a_smoke_test_is_marked_in_report_and_figures() -> None:
    results = made_up()
    results["size"] = "small"
    assert "> **Smoke test.** This is the small size: its numbers are not to be quoted." in report(results)
    for figure in figures(results).values():
        assert "not to be quoted" in figure.get_suptitle()
    for figure in figures(made_up()).values():
        assert not figure.get_suptitle()


def test_results_that_do_not_fit_are_refused() -> None:
    results = made_up()
    results["understanding"]["quereis"] = results["understanding"]["queries"]
    with pytest.raises(ValueError, match="Results of understanding: expected the rows baseline, .*, found quereis"):
        report(results)
    results = made_up()
    results["feedback"]["800"]["oracle"]["accuracy"].pop()
    with pytest.raises(ValueError, match=r"feedback, 800 labels, oracle: expected 3 of accuracy, one a seed, found 2"):
        report(results)
    results = made_up()
    results["generation"]["real"]["coverage"] = [0.5, 0.6]
    with pytest.raises(ValueError, match=r"generation, real: expected 1 of coverage, one a seed, found 2"):
        report(results)
    with pytest.raises(ValueError, match="small or full, found 'tiny'"):
        report(made_up() | {"size": "tiny"})


def test_figures_show_the_rows_that_there_are() -> None:
    results = made_up()
    del results["understanding"]["joint"], results["generation"]["patches"], results["feedback"]["800"]["oracle"]
    accuracy, differences = understanding_figure(results).axes
    assert len(accuracy.get_yticks()) == 7 and len(differences.get_yticks()) == 5
    assert accuracy.yaxis_inverted()
    figure = curves_figure(results)
    [axis] = figure.axes
    named = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert len(named) == 1 + 13 + 1 and "UniEmo, by variation" in named and "real images" in named
    assert {"0.0", "0.5", "1.0"} <= {text.get_text() for text in axis.texts}
    arms, differences = feedback_figure(results).axes
    assert [tick.get_text() for tick in arms.get_xticklabels()] == ["400", "800", "1,600"]
    assert len(arms.containers) == 6 and len(differences.get_yticks()) == 6


def test_figures_of_one_seed_have_no_error_bars() -> None:
    results = made_up(1, 1, 1)
    assert len(understanding_figure(results).axes) == 1
    for figure in figures(results).values():
        assert all(not box.has_xerr and not box.has_yerr for axis in figure.axes for box in axis.containers)
    for figure in figures(made_up()).values():
        assert any(box.has_xerr or box.has_yerr for axis in figure.axes for box in axis.containers)


def test_a_curve_of_unlike_settings_names_them_whole() -> None:
    results = made_up()
    curve = deepcopy(results["curves"]["UniEmo"])
    curve[1]["setting"] = "guidance 3"
    results["curves"] = {"UniEmo": curve}
    [axis] = curves_figure(results).axes
    assert {"variation 0.0", "guidance 3"} <= {text.get_text() for text in axis.texts}
