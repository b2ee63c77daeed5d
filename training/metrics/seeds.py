"""Figures over seeds: each value is a whole run's, so that the interval holds what training varies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .intervals import Estimate


@dataclass(frozen=True)
class PairedTest:
    """What a paired t test says: the mean difference with its 95 % interval, and the two-sided p-value."""

    difference: Estimate
    p_value: float


def seed_estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its 95 % t interval.

    Raises:
        ValueError: fewer than two seeds.
    """
    if len(values) < 2:
        raise ValueError(f"Expected the figures of at least two seeds, found {len(values)}.")
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(mean, (mean - half, mean + half))


def paired_test(values: Sequence[float], baseline: Sequence[float]) -> PairedTest:
    """The t test of differences seed by seed (values - baseline).

    Raises:
        ValueError: unequal numbers, or fewer than two seeds.
    """
    if len(values) != len(baseline):
        raise ValueError(f"Expected a pair a seed, found {len(values)} and {len(baseline)} values.")
    differences = np.subtract(values, baseline)
    estimate = seed_estimate(differences.tolist())
    if not differences.any():
        return PairedTest(estimate, 1.0)  # scipy's is 0 / 0
    return PairedTest(estimate, float(stats.ttest_rel(values, baseline).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in their order (Holm 1979); scipy has only false discovery rates.

    Raises:
        ValueError: a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"Expected p-values from 0 to 1, found {list(p_values)}.")
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = most
    return adjusted
