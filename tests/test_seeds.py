"""Figures over seeds, against tables and cases worked by hand."""

import pytest

from training.metrics.seeds import holm, paired_test, seed_estimate


def test_the_t_interval_of_three_seeds() -> None:
    found = seed_estimate([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    with pytest.raises(ValueError, match="at least two seeds, found 1"):
        seed_estimate([1.0])


def test_a_paired_test_sees_through_what_seeds_share() -> None:
    baseline = [0.50, 0.60, 0.70, 0.80]
    found = paired_test([0.51, 0.62, 0.71, 0.82], baseline)
    # differences .01, .02, .01, .02: t = .015 / (.0057735 / 2) = 5.196 with 3 degrees of freedom
    assert found.difference.value == pytest.approx(0.015) and found.p_value == pytest.approx(0.0138, abs=1e-4)
    assert found.difference.interval[0] > 0
    assert paired_test(baseline, baseline).p_value == 1
    with pytest.raises(ValueError, match="a pair a seed, found 1 and 4"):
        paired_test([1.0], baseline)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([1.2])
