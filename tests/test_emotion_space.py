"""Fitting an emotion space: moments, bank, low-rank Gaussian; the same however the data are split."""

import pytest
import torch
from torch import Tensor

from training.emotion_space import (
    Candidates,
    EmotionSpaceFit,
    Moments,
    block_scale,
    distances,
    fit_bank,
    fit_low_rank,
    k_medoids,
)
from uniemo_pipelines.fusion_uniemo import UniEmoFusionModel

WIDTH, IMAGES = 5, 600


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> tuple[Tensor, Tensor]:
    """Labels and features far from zero, where a naive sum of squares would lose its digits."""
    labels = torch.randint(8, (IMAGES,), generator=seeded(1))
    features = torch.randn(IMAGES, 3, WIDTH, generator=seeded(2)) + 100 * labels[:, None, None] + 1000
    return labels, features


def fit_of(rows: Tensor, batch: int, candidates: int = 40) -> EmotionSpaceFit:
    """The images of these indices, in batches."""
    labels, features = images()
    fit = EmotionSpaceFit(WIDTH, candidates)
    for part in rows.split(batch):
        fit.update(labels[part], features[part], part)
    return fit


def test_streamed_moments_are_those_of_all_images_at_once():
    labels, features = images()
    moments = fit_of(torch.arange(IMAGES), 37).moments
    for emotion in range(8):
        rows = features[labels == emotion].double()
        torch.testing.assert_close(moments.mean[emotion], rows.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(moments.std[emotion], rows.std(0), rtol=1e-9, atol=0)


def assert_same_fit(found: EmotionSpaceFit, expected: EmotionSpaceFit) -> None:
    assert torch.equal(found.moments.count, expected.moments.count)
    torch.testing.assert_close(found.moments.mean, expected.moments.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.moments.std, expected.moments.std, rtol=1e-9, atol=0)
    two, one = (fit.fit(bank_size=6, rank=2) for fit in (found, expected))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6)
    assert torch.equal(one["bank"], two["bank"])


def test_neither_order_nor_batches_change_the_fit():
    assert_same_fit(fit_of(torch.randperm(IMAGES, generator=seeded()), 31), fit_of(torch.arange(IMAGES), 64))


@pytest.mark.parametrize("seed", range(8))
def test_random_shares_merged_in_any_order_are_the_whole(seed):
    g = seeded(seed)
    parts = 2 + seed
    owner = torch.randint(parts, (IMAGES,), generator=g)
    owner[owner == 1] = seed % 2  # in every other case the second has none
    shares = [fit_of((owner == part).nonzero().squeeze(-1), 23) for part in range(parts)]
    merged = EmotionSpaceFit(WIDTH, candidates=40)
    for part in torch.randperm(parts, generator=g).tolist():
        merged.merge(shares[part])
    assert_same_fit(merged, fit_of(torch.arange(IMAGES), 64))


@pytest.mark.parametrize("first", ["a single image", "a missing emotion", "none"])
def test_it_does_not_matter_which_is_merged_into_which(first):
    labels, _ = images()
    chosen = {
        "a single image": torch.arange(IMAGES) == 17,
        "a missing emotion": labels > 0,
        "none": torch.zeros(IMAGES, dtype=torch.bool),
    }[first]

    def halves() -> tuple[EmotionSpaceFit, EmotionSpaceFit]:
        mine, others = (rows.nonzero().squeeze(-1) for rows in (chosen, ~chosen))
        return fit_of(mine, 50), fit_of(others, 50)

    a, b = halves()
    a.merge(b)
    c, d = halves()
    d.merge(c)
    assert_same_fit(a, d)
    assert_same_fit(a, fit_of(torch.arange(IMAGES), 64))


def test_merging_leaves_the_other_as_it_was_and_refuses_one_of_another_kind():
    one, other = fit_of(torch.arange(300), 64), fit_of(torch.arange(300, IMAGES), 64)
    one.merge(other)
    assert_same_fit(other, fit_of(torch.arange(300, IMAGES), 64))
    for unlike in (EmotionSpaceFit(WIDTH + 1, 40), EmotionSpaceFit(WIDTH, 41), EmotionSpaceFit(WIDTH, 40, seed=1)):
        with pytest.raises(ValueError, match=r"same width, candidates and seed, \(5, 40, 0\); found"):
            one.merge(unlike)


def test_a_single_image_has_no_deviation():
    moments = Moments(WIDTH)
    moments.update(torch.tensor([2]), torch.ones(1, 3, WIDTH))
    assert torch.equal(moments.std, torch.zeros(8, 3, WIDTH))


def test_candidates_are_bounded_and_drawn_uniformly():
    candidates = Candidates(1, limit=200)
    for part in torch.arange(4000).split(100):
        candidates.update(torch.zeros(len(part), dtype=torch.int64), part[:, None, None].expand(-1, 3, 1), part)
    kept = candidates.rows(0)[:, 0, 0]
    assert len(kept) == len(kept.unique()) == 200
    counts = torch.histc(kept, 4, 0, 4000)
    assert counts.min() > 30 and counts.max() < 70


def test_memory_does_not_grow_with_the_images():
    few, many = fit_of(torch.arange(8), 8), fit_of(torch.arange(IMAGES), 64)
    sizes = [
        [t.shape for t in (*vars(f.moments).values(), *vars(f.candidates).values()) if isinstance(t, Tensor)]
        for f in (few, many)
    ]
    assert sizes[0] == sizes[1] and len(sizes[0]) == 5


def test_bank_members_are_real_images_and_shares_sum_to_one():
    labels, features = images()
    fitted = fit_of(torch.arange(IMAGES), 64).fit(bank_size=6, rank=2)
    for emotion in range(8):
        real = features[labels == emotion].flatten(1)
        bank = fitted["bank"][emotion].flatten(1)
        assert all((real == medoid).all(1).any() for medoid in bank)
        assert len(bank.unique(dim=0)) == 6
    torch.testing.assert_close(fitted["bank_weights"].sum(-1), torch.ones(8))
    assert (fitted["bank_weights"].diff(dim=-1) <= 0).all()


def test_the_bank_finds_clusters_and_their_shares():
    sizes, centres = (50, 30, 20), torch.tensor([0.0, 10.0, 20.0])
    rows = torch.cat(
        [c + 0.1 * torch.randn(n, 3, 2, generator=seeded(n)) for n, c in zip(sizes, centres, strict=True)]
    )
    bank, shares = fit_bank(rows, torch.ones(3, 1), 3, seeded())
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    torch.testing.assert_close(bank.mean((1, 2)), centres, atol=0.1, rtol=0)


def test_distances_are_exact_where_rounding_could_decide_between_two_medoids():
    # of two members of a cluster either may be its medoid, unless one is nearer to itself or by the way back
    rows = 1000 + torch.randn(300, 3, 16, generator=seeded())
    found = distances(rows, torch.full((3, 1), 2.0))
    assert torch.equal(found, found.T) and not found.diagonal().any()
    flat = rows.double().flatten(1) / 2
    expected = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_every_feature_counts_alike_in_the_bank():
    # two clusters in the emotion and scene features; the object feature is noise, and a thousand times as large
    rows = torch.randn(100, 3, 4, generator=seeded()) * torch.tensor([0.1, 0.01, 1000.0])[:, None]
    rows[:50, :2] += torch.tensor([10.0, 1.0])[:, None]
    bank, shares = fit_bank(rows, block_scale(rows.std(0)), 2, seeded())
    assert shares.tolist() == [0.5, 0.5]
    assert (bank[:, 1].mean(-1) > 0.5).sum() == 1


def test_medoids_are_better_than_their_start():
    points = torch.randn(300, 4, generator=seeded())
    distance = torch.cdist(points, points)
    start, _ = k_medoids(distance, 10, seeded(3), rounds=0)
    medoids, assigned = k_medoids(distance, 10, seeded(3))
    assert distance[:, medoids].min(-1).values.sum() < 0.95 * distance[:, start].min(-1).values.sum()
    assert torch.equal(assigned[medoids], torch.arange(10))


def test_fewer_different_images_than_medoids_fill_up_with_weight_zero():
    rows = torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None, None].expand(-1, 3, WIDTH)
    bank, shares = fit_bank(rows, torch.ones(3, 1), 5, seeded())
    assert bank[:, 0, 0].tolist() == [1, 2, 1, 1, 1]
    assert shares.tolist() == [0.75, 0.25, 0, 0, 0]


def test_low_rank_covariance_approximates_the_truth():
    g = seeded(4)
    loadings = torch.randn(2, 3 * WIDTH, generator=g) * torch.tensor([3.0, 2.0])[:, None]
    noise = 0.5
    rows = torch.randn(4000, 2, generator=g) @ loadings + noise * torch.randn(4000, 3 * WIDTH, generator=g)
    rows = (rows + 7).view(-1, 3, WIDTH)
    mean, std = rows.double().mean(0), rows.double().std(0)
    factors, diagonal = fit_low_rank(rows, mean, std, block_scale(std), 2)
    truth = (loadings.T @ loadings + noise**2 * torch.eye(3 * WIDTH)).double()
    fitted = factors.T @ factors + diagonal.square().diag()
    assert (fitted - truth).norm() / truth.norm() < 0.06
    torch.testing.assert_close(fitted.diagonal(), std.flatten() ** 2)
    # the independent form misses what ties the three features together
    assert (std.flatten().square().diag() - truth).norm() / truth.norm() > 0.6


def test_factors_that_few_images_cannot_have_are_zero():
    rows = torch.randn(3, 3, WIDTH, generator=seeded())
    std = rows.double().std(0)
    factors, diagonal = fit_low_rank(rows, rows.double().mean(0), std, block_scale(std), 8)
    assert factors.shape == (8, 3 * WIDTH)
    assert factors.isfinite().all() and diagonal.isfinite().all()
    assert factors[2:].abs().max() < 1e-6


def test_a_fitted_space_goes_into_a_fusion_model():
    model = UniEmoFusionModel(WIDTH, [4], 4, bank_size=1, rank=1)
    model.set_emotion_space(**fit_of(torch.arange(IMAGES), 64).fit(bank_size=6, rank=2))
    assert (model.config.bank_size, model.config.rank) == (6, 2)
    for form in ("bank", "low_rank", "gaussian"):
        model.register_to_config(emotion_space=form)
        sample = model.sample(torch.eye(8), seeded())
        torch.testing.assert_close(sample.scene_features.mean(-1), 1000 + 100.0 * torch.arange(8), atol=5, rtol=0)


def test_one_image_an_emotion_is_enough():
    fit = EmotionSpaceFit(WIDTH)
    features = torch.randn(8, 3, WIDTH, generator=seeded())
    fit.update(torch.arange(8), features, torch.arange(8))
    model = UniEmoFusionModel(WIDTH, [4], 4)
    model.set_emotion_space(**fit.fit(bank_size=3, rank=2))
    for form in ("bank", "low_rank", "gaussian"):
        model.register_to_config(emotion_space=form)
        torch.testing.assert_close(torch.stack(model.sample(torch.eye(8), seeded()), 1), features)


def test_missing_emotions_and_broken_features_are_named():
    fit = EmotionSpaceFit(WIDTH)
    fit.update(torch.arange(7), torch.ones(7, 3, WIDTH), torch.arange(7))
    with pytest.raises(ValueError, match="sadness"):
        fit.fit()
    with pytest.raises(ValueError, match="at least 1, but are 4 and 0"):
        fit.fit(bank_size=4, rank=0)
    broken = torch.ones(2, 3, WIDTH)
    broken[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"index \[41\]"):
        fit.update(torch.tensor([0, 1]), broken, torch.tensor([40, 41]))
    with pytest.raises(ValueError, match=r"\(2, 3, 5\), but have \(2, 3, 4\)"):
        fit.update(torch.tensor([0, 1]), torch.ones(2, 3, 4), torch.arange(2))
