"""The comparisons of a table: paired tests over seeds, corrected for their number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.seeds import PairedTest, holm, paired_test
from .results import Results, RowValues, by_labels
from .rows import FEEDBACK_COMPARISONS, Comparison

Pair = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Tested:
    """A comparison, its paired t test, and the p-value after Holm's correction."""

    comparison: Comparison
    test: PairedTest
    adjusted: float


def compare(measured: Mapping[str, RowValues], comparisons: Iterable[Comparison], figure: str) -> list[Tested]:
    """Test one figure of rows, as far as both of a pair have it; none with fewer than two seeds."""
    values = {name: row[figure] for name, row in measured.items() if row.get(figure) is not None}
    paired = [one for one in comparisons if {one.row, one.against} <= values.keys()]
    return _test({one: (values[one.row], values[one.against]) for one in paired})


def compare_feedback(results: Results) -> list[Tested]:
    """Test the accuracy of arms, averaged for each seed over the numbers of labels at which both were measured.

    The cells of one seed are not independent (they share its initialisation and order), hence a pair a seed.
    """
    pairs = {}
    for one in FEEDBACK_COMPARISONS:
        both = [
            (arms[one.row]["accuracy"], arms[one.against]["accuracy"])
            for arms in by_labels(results).values()
            if {one.row, one.against} <= arms.keys()
        ]
        if both:
            row, against = np.mean(both, axis=0).tolist()
            pairs[one] = row, against
    return _test(pairs)


def _test(pairs: Mapping[Comparison, Pair]) -> list[Tested]:
    tests = [paired_test(*pair) for pair in pairs.values() if len(pair[0]) > 1]
    if not tests:
        return []
    adjusted = holm([test.p_value for test in tests])
    return [Tested(*found) for found in zip(pairs, tests, adjusted, strict=True)]
