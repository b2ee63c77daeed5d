"""The rows of the tables and what is compared with what, both fixed before anything is measured.

The rows are those of the paper's ablations and rivals, and the controls that tell a part of the method from the mere
parameters or steps that it brings.
"""

from dataclasses import dataclass

TABLES = ("understanding", "generation", "feedback")


@dataclass(frozen=True)
class Row:
    """`name` is its key in the results, `title` what a table shows."""

    name: str
    title: str


@dataclass(frozen=True)
class Comparison:
    """Two rows by name, the difference being `row` less `against`, and in a few words what it is about."""

    row: str
    against: str
    why: str


UNDERSTANDING = (
    Row("baseline", "backbone fine-tuned alone"),
    Row("wide_head", "with a head of as many parameters as queries and blocks"),
    Row("queries", "with expert queries"),
    Row("contrast", "with queries and both contrastive losses"),
    Row("joint", "joint training"),
    Row("detached", "the same steps, diffusion gradient detached"),
    Row("more_steps", "contrast, as many more steps of stage 1"),
    Row("feedback", "explicit feedback from one half's generator, in those steps"),
)
UNDERSTANDING_COMPARISONS = (
    Comparison("wide_head", "baseline", "parameters alone"),
    Comparison("queries", "baseline", "queries, parameters included"),
    Comparison("queries", "wide_head", "queries, beyond parameters"),
    Comparison("contrast", "queries", "the contrastive losses"),
    Comparison("joint", "contrast", "joint training, steps included"),
    Comparison("joint", "detached", "implicit feedback, beyond steps"),
    Comparison("feedback", "more_steps", "explicit feedback, beyond steps"),
)

REAL = Row("real", "real images")
COMPLETE = "complete"
GENERATION = (
    Row("words", "stock, the emotion's word, which its captions lack"),
    Row("captions", "stock, captions from P(attributes given emotion)"),
    Row("textual_inversion", "stock, textual inversion of each emotion"),
    Row("one_feature", "one feature, as EmoGen's mapper has"),
    Row("patches", "mean-pooled patches instead of queries, frozen in stage 2"),
    Row("alpha_one", "α = 1"),
    Row("alpha_mean", "α at its mean"),
    Row("no_condition_loss", "without the condition loss"),
    Row("released_condition_loss", "condition loss at the released weights"),
    Row("detached", "diffusion gradient detached from the queries"),
    Row(COMPLETE, "UniEmo, complete (bank)"),
    Row("low_rank", "complete, joint low-rank emotion space"),
    Row("gaussian", "complete, independent Gaussians as released"),
    Row("mean", "complete, the emotion's mean"),
)
GENERATION_COMPARISONS = tuple(
    Comparison(COMPLETE, row, why)
    for row, why in {
        "words": "prompting by name",
        "captions": "prompting by known attributes",
        "textual_inversion": "one embedding an emotion",
        "one_feature": "scene and object features",
        "patches": "expert queries, and that stage 2 trains them",
        "alpha_one": "α",
        "alpha_mean": "α by attribute",
        "no_condition_loss": "the condition loss",
        "released_condition_loss": "the condition loss's weights",
        "detached": "implicit feedback",
        "low_rank": "the emotion space",
        "gaussian": "the emotion space",
        "mean": "variation",
    }.items()
)

FEEDBACK = (
    Row("none", "no more images"),
    Row("random", "N generated, drawn at random"),
    Row("filtered", "N filtered"),
    Row("undiverse", "N filtered, without diversity"),
    Row("oracle", "N by an oracle"),
    Row("real", "N more real images"),
)
FEEDBACK_COMPARISONS = (
    Comparison("random", "none", "generated images"),
    Comparison("filtered", "none", "generated and filtered images"),
    Comparison("filtered", "random", "filtering"),
    Comparison("filtered", "undiverse", "the best of each cell, within quotas"),
    Comparison("undiverse", "oracle", "the filter's mistakes"),
    Comparison("real", "filtered", "real in place of generated images"),
)


def titles(rows: tuple[Row, ...]) -> dict[str, str]:
    """Titles by name, in the order of a table."""
    return {row.name: row.title for row in rows}
