"""Distances and neighbourhoods of image sets, against closed forms and cases worked by hand."""

import math

import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from training.metrics import (
    diversity_by_cosine,
    diversity_by_mse,
    emotion_score,
    frechet_distance,
    kernel_distance,
    kernel_estimate,
    neighbourhoods,
    principal_space,
    semantic_clarity,
)
from training.metrics.distances import gaussian_distance


def draws(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_distance_of_gaussians_in_closed_form() -> None:
    mean, other = torch.zeros(3).double(), torch.tensor([1.0, 2.0, 2.0]).double()
    s, t = torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()), torch.diag(torch.tensor([4.0, 4.0, 1.0]).double())
    # 9 of the means; (1 - 2)² + 0 + (3 - 1)² of the deviations
    assert gaussian_distance(mean, s, other, t) == pytest.approx(14)
    assert gaussian_distance(mean, s, mean, s) == pytest.approx(0, abs=1e-12)
    turn, _ = torch.linalg.qr(draws(3, 3, 0).double())
    turned = gaussian_distance(turn @ mean, turn @ s @ turn.T, turn @ other, turn @ t @ turn.T)
    assert turned == pytest.approx(14), "no rotation changes it"


def test_distance_of_covariances_that_do_not_commute_is_torchmetrics() -> None:
    s, t = (torch.cov(draws(50, 6, seed, scale=2).double().T) for seed in (1, 2))
    zero = torch.zeros(6).double()
    assert gaussian_distance(zero, s, zero, t) == pytest.approx(_compute_fid(zero, s, zero, t).item(), rel=1e-8)


def test_frechet_distance_of_samples_nears_that_of_their_gaussians() -> None:
    found = frechet_distance(draws(20_000, 4, 1), draws(20_000, 4, 2, shift=0.5, scale=2.0))
    assert found == pytest.approx(4 * (0.5**2 + 1), rel=0.03)
    assert 0 < frechet_distance(draws(20_000, 4, 1), draws(20_000, 4, 3)) < 0.005


def test_frechet_distance_is_refused_where_its_bias_rules() -> None:
    with pytest.raises(ValueError, match="at least 2,000 images on each side.*found 2,000 and 1,999"):
        frechet_distance(draws(2_000, 4, 1), draws(1_999, 4, 2))


def test_principal_space_keeps_what_varies_most_in_real_images() -> None:
    real = draws(500, 5, 1) * torch.tensor([0.1, 5.0, 0.1, 3.0, 0.1]) + 7
    space = principal_space(real, 2)
    assert space.axes.shape == (5, 2) and space.axes[[1, 3], [0, 1]].abs().min() > 0.99
    assert space.project(real).mean(dim=0).abs().max() < 1e-6
    assert space.project(real).var(dim=0).tolist() == pytest.approx([25, 9], rel=0.15)
    whole = principal_space(real, 64)
    assert torch.cdist(whole.project(real[:9]), whole.project(real[:9])).sum().item() == pytest.approx(
        torch.cdist(real[:9].double(), real[:9].double()).sum().item()
    ), "with all components it is a rotation"
    with pytest.raises(ValueError, match="over 4 images for 4 components, found 4"):
        principal_space(real[:4], 4)


def test_kernel_estimate_has_the_kernel_distance_in_its_middle() -> None:
    real, generated = draws(40, 6, 1), draws(30, 6, 2, shift=0.4)
    found = kernel_estimate(real, generated)
    assert found.value == pytest.approx(kernel_distance(real, generated), rel=1e-9)
    assert sum(found.interval) / 2 == pytest.approx(found.value)
    with pytest.raises(ValueError, match="three images on each side, found 40 and 2"):
        kernel_estimate(real, generated[:2])


def test_the_jackknife_leaves_out_one_image_at_a_time() -> None:
    real, generated = draws(7, 3, 1), draws(5, 3, 2, shift=0.5)

    def without(side: torch.Tensor, index: int) -> torch.Tensor:
        return torch.cat([side[:index], side[index + 1 :]])

    of_real = torch.tensor([kernel_distance(without(real, i), generated) for i in range(7)]).double()
    of_generated = torch.tensor([kernel_distance(real, without(generated, i)) for i in range(5)]).double()
    variance = 6 * of_real.var(correction=0) + 4 * of_generated.var(correction=0)
    low, high = kernel_estimate(real, generated).interval
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=1e-5)


def test_the_interval_of_the_kernel_distance_is_as_wide_as_its_values_scatter() -> None:
    pairs = [(draws(60, 4, seed), draws(40, 4, 1000 + seed, shift=0.7)) for seed in range(150)]
    found = [kernel_estimate(*pair) for pair in pairs]
    scatter = torch.tensor([one.value for one in found]).std().item()
    said = sum((one.interval[1] - one.interval[0]) / 2 / 1.96 for one in found) / len(found)
    assert said == pytest.approx(scatter, rel=0.25)


def test_kernel_sums_go_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = draws(50, 6, 1), draws(30, 6, 2)
    whole = kernel_estimate(real, generated)
    monkeypatch.setattr("training.metrics.distances.ROWS", 7)
    assert kernel_estimate(real, generated).interval == pytest.approx(whole.interval)


def test_neighbourhoods_on_a_line() -> None:
    real = torch.arange(10.0)[:, None]  # the second neighbour is 1 away, at the ends 2
    generated = torch.tensor([[4.2], [4.4], [4.6], [30.0]])
    found = neighbourhoods(real, generated, neighbours=2)
    # within 4.2's reach of 1 are 4 and 5; 30 is nowhere
    assert found.precise.tolist() == [True, True, True, False]
    assert found.density.tolist() == [1, 1, 1, 0]
    assert found.covered.tolist() == [index in (4, 5) for index in range(10)]
    # radii of the generated: .4, .2, .4, 25.6, so that the last one reaches 5 to 9
    assert found.recalled.tolist() == [index in (4,) or index >= 5 for index in range(10)]


def test_neighbourhoods_tell_a_collapse_from_a_good_set(monkeypatch: pytest.MonkeyPatch) -> None:
    real, same = draws(300, 3, 1), draws(300, 3, 2)
    good = neighbourhoods(real, same)
    collapsed = neighbourhoods(real, 0.01 * draws(300, 3, 3))
    assert good.covered.float().mean() > 0.9 and 0.8 < good.density.mean() < 1.2
    assert collapsed.precise.all() and collapsed.covered.float().mean() < 0.2 and not collapsed.recalled.all()
    monkeypatch.setattr("training.metrics.neighbours.ROWS", 17)
    in_blocks = neighbourhoods(real, same)
    assert in_blocks.recalled.tolist() == good.recalled.tolist()
    assert in_blocks.density.tolist() == pytest.approx(good.density.tolist())
    with pytest.raises(ValueError, match="over 5 images on each side, found 300 real and 5 generated"):
        neighbourhoods(real, same[:5])


def test_diversity_is_the_mean_over_all_pairs() -> None:
    features = draws(12, 5, 1)
    pairs = torch.combinations(torch.arange(12))
    first, second = features[pairs[:, 0]], features[pairs[:, 1]]
    cosines = torch.nn.functional.cosine_similarity(first, second)
    assert diversity_by_cosine(features) == pytest.approx((1 - cosines).mean().item(), rel=1e-5)
    assert diversity_by_mse(features) == pytest.approx((first - second).square().mean().item(), rel=1e-5)
    assert diversity_by_cosine(features[:1].repeat(3, 1)) == pytest.approx(0, abs=1e-12)
    assert diversity_by_mse(torch.tensor([[0.0, 0.0], [3.0, 1.0]])) == pytest.approx(5)
    for figure in (diversity_by_cosine, diversity_by_mse):
        with pytest.raises(ValueError, match="two images of the emotion, found 1"):
            figure(features[:1])


def test_clarity_is_the_larger_of_scene_and_object() -> None:
    scenes, objects = torch.tensor([[0.7, 0.3], [0.5, 0.5]]), torch.tensor([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1]])
    assert semantic_clarity(scenes, objects).tolist() == pytest.approx([0.7, 0.8])
    for first, second in ((2, 1), (1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"at least two, found {first} and {second}"):
            semantic_clarity(scenes[:first], objects[:second])


def test_emotion_score_is_the_mean_probability_of_the_target() -> None:
    labels = torch.arange(8).repeat(2)
    probabilities = torch.cat([torch.eye(8), torch.full((8, 8), 1 / 8)])
    assert emotion_score(probabilities, labels).value == pytest.approx((1 + 1 / 8) / 2)
