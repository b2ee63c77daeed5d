"""The fusion model: conditions, coefficients, emotion space, storage."""

import pytest
import torch
from torch import Tensor

from uniemo_pipelines.fusion_uniemo import BANK_JITTER, EMOTION_SPACES, EMOTIONS, UniEmoFusionModel

WIDTH, ALIGNED, CONDITION, BANK, RANK = 12, 6, 10, 5, 3
AWE, FEAR = EMOTIONS.index("awe"), EMOTIONS.index("fear")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot(emotion: int) -> Tensor:
    return torch.eye(8)[emotion]


def fusion_of(emotion_space: str = "bank", condition_dims: tuple[int, ...] = (CONDITION,)) -> UniEmoFusionModel:
    """A small model with an emotion space that is not the standard one, and no attributes."""
    torch.manual_seed(0)
    model = UniEmoFusionModel(WIDTH, condition_dims, ALIGNED, bank_size=BANK, rank=RANK, emotion_space=emotion_space)
    g = seeded(1)
    bank = torch.randn(8, BANK, 3, WIDTH, generator=g) + 3 * torch.randn(8, 1, 3, WIDTH, generator=g)
    model.set_emotion_space(
        mean=bank.mean(1),
        std=bank.std(1),
        bank=bank,
        bank_weights=torch.tensor([0.4, 0.0, 0.3, 0.2, 0.1]).repeat(8, 1),
        low_rank_factors=torch.randn(8, RANK, 3 * WIDTH, generator=g),
        low_rank_diagonal=torch.rand(8, 3 * WIDTH, generator=g),
    )
    return model


def give_attributes(model: UniEmoFusionModel) -> None:
    """Scene k and object k lie on axis k of the aligned space, which the projection cuts out of the feature."""
    model.set_attribute_bases(
        scenes=["beach", "street"],
        objects=["dog", "cake", "knife"],
        scene_base=5 * torch.eye(2, ALIGNED),
        object_base=torch.eye(3, ALIGNED),
        scene_projection=torch.eye(ALIGNED, WIDTH),
        object_projection=torch.eye(ALIGNED, WIDTH),
        scene_coefficients=torch.stack([torch.full((8,), 0.25), torch.arange(8) / 8]),
        object_coefficients=torch.stack([torch.zeros(8), torch.ones(8), torch.arange(8).flip(0) / 8]),
    )


def features_on_axes(*axes: int) -> Tensor:
    """Features whose projection lies mostly on the given axes, one each; large elsewhere, where it is cut off."""
    features = torch.full((len(axes), WIDTH), 0.1)
    features[:, ALIGNED:] = 50.0
    features[torch.arange(len(axes)), torch.tensor(axes)] = 2.0
    return features


# ------------------------------------------------------------------------------------------------------ condition


def test_condition_is_the_weighted_sum_of_the_three_mappings():
    model = fusion_of()
    give_attributes(model)
    e, s, o = torch.randn(1, WIDTH, generator=seeded()), features_on_axes(1), features_on_axes(2)
    mapped = model.mappers[0]
    condition = model(e, s, o, one_hot(AWE), scene_scale=2.0, object_scale=torch.tensor([3.0]))
    expected = mapped["emotion"](e) + 2 * 1 / 8 * mapped["scene"](s) + 3 * 6 / 8 * mapped["object"](o)
    torch.testing.assert_close(condition, expected)


def test_one_set_of_mappers_for_each_text_encoder():
    model = fusion_of(condition_dims=(CONDITION, 7))
    conditions = model(*model.mean_features(torch.eye(8)), torch.eye(8))
    assert [c.shape for c in conditions] == [(8, CONDITION), (8, 7)]


def test_gradients_reach_features_and_mappers_but_no_buffer():
    model = fusion_of()
    give_attributes(model)
    features = [torch.randn(2, WIDTH, generator=seeded(k)).requires_grad_() for k in range(3)]
    model(*features, torch.eye(8)[:2] * 0.5 + 0.0625).square().sum().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any(b.requires_grad for b in model.buffers())


def test_a_batch_gives_each_row_its_own_condition():
    model = fusion_of()
    give_attributes(model)
    features = [torch.randn(3, WIDTH, generator=seeded(k)) for k in range(3)]
    weights = torch.eye(8)[[0, 3, 7]]
    batch = model(*features, weights)
    singles = [model(*(f[k : k + 1] for f in features), weights[k]) for k in range(3)]
    torch.testing.assert_close(batch, torch.cat(singles))


def test_features_of_another_width_are_refused_with_both_widths():
    with pytest.raises(ValueError, match=r"\(B, 12\).*\(1, 9\)"):
        fusion_of()(*[torch.zeros(1, 9)] * 3, one_hot(AWE))


@pytest.mark.parametrize("weights", [torch.ones(7), torch.ones(3, 8), torch.ones(1, 1, 8)])
def test_emotion_weights_that_do_not_fit_the_batch_are_refused(weights):
    with pytest.raises(ValueError, match=r"emotion_weights must have shape \(2, 8\)"):
        fusion_of()(*[torch.zeros(2, WIDTH)] * 3, weights)


# --------------------------------------------------------------------------------------------------- coefficients


def test_alpha_is_the_emotions_share_of_the_nearest_attribute():
    model = fusion_of()
    give_attributes(model)
    scenes, objects = features_on_axes(0, 1, 1), features_on_axes(1, 0, 2)
    weights = torch.eye(8)[[AWE, FEAR, FEAR]]
    assert [index.tolist() for index in model.retrieve(scenes, objects)] == [[0, 1, 1], [1, 0, 2]]
    alpha_scene, alpha_object = model.coefficients(scenes, objects, weights)
    assert alpha_scene.tolist() == [0.25, FEAR / 8, FEAR / 8]
    assert alpha_object.tolist() == [1.0, 0.0, (7 - FEAR) / 8]


def test_alpha_of_a_fusion_is_the_weighted_mean():
    model = fusion_of()
    give_attributes(model)
    weights = 0.75 * one_hot(AWE) + 0.25 * one_hot(FEAR)
    alpha_scene, alpha_object = model.coefficients(features_on_axes(1), features_on_axes(2), weights)
    assert alpha_scene.item() == 0.75 * AWE / 8 + 0.25 * FEAR / 8
    assert alpha_object.item() == 0.75 * (7 - AWE) / 8 + 0.25 * (7 - FEAR) / 8


def test_alpha_has_no_gradient():
    model = fusion_of()
    give_attributes(model)
    features = features_on_axes(1).requires_grad_()
    assert not any(alpha.requires_grad for alpha in model.coefficients(features, features, one_hot(AWE)))


def test_alpha_is_one_where_there_are_no_attributes():
    model = fusion_of()
    features = torch.randn(2, WIDTH, generator=seeded())
    assert [index.tolist() for index in model.retrieve(features, features)] == [[-1, -1], [-1, -1]]
    assert [alpha.tolist() for alpha in model.coefficients(features, features, one_hot(AWE))] == [[1, 1], [1, 1]]


def test_alpha_is_the_same_under_autocast():
    model = fusion_of()
    give_attributes(model)
    # bfloat16 cannot tell these two apart
    close = torch.zeros(1, WIDTH)
    close[0, :2] = torch.tensor([1.0, 1.0001])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.retrieve(close, close)[0].item() == 1


def test_the_released_retrieval_compares_mapped_features():
    model = UniEmoFusionModel(WIDTH, [ALIGNED], ALIGNED, retrieval="released", bank_size=BANK, rank=RANK)
    names, base = list("abcdef"), torch.eye(ALIGNED)
    tables = [torch.zeros(ALIGNED, len(EMOTIONS))] * 2
    model.set_attribute_bases(names, names, base, base, *[torch.zeros(ALIGNED, WIDTH)] * 2, *tables)
    scenes, objects = torch.randn(2, 9, WIDTH, generator=seeded())
    expected = [model.mappers[0][kind](f).argmax(-1).tolist() for kind, f in (("scene", scenes), ("object", objects))]
    assert [index.tolist() for index in model.retrieve(scenes, objects)] == expected
    assert len(set(expected[0])) > 1 and expected[0] != expected[1]
    with pytest.raises(ValueError, match="widths 10 and 6"):
        UniEmoFusionModel(WIDTH, [CONDITION], ALIGNED, retrieval="released")
    with pytest.raises(ValueError, match="aligned, released, but is 'mapped'"):
        UniEmoFusionModel(WIDTH, [CONDITION], ALIGNED, retrieval="mapped")


def test_attribute_bases_that_do_not_fit_are_refused():
    good = {
        "scenes": ["beach"],
        "objects": [],
        "scene_base": torch.ones(1, ALIGNED),
        "object_base": torch.ones(0, ALIGNED),
        "scene_projection": torch.ones(ALIGNED, WIDTH),
        "object_projection": torch.ones(ALIGNED, WIDTH),
        "scene_coefficients": torch.ones(1, 8),
        "object_coefficients": torch.ones(0, 8),
    }
    model = fusion_of()
    with pytest.raises(ValueError, match=r"scene_base must have shape \(2, 6\), but has \(1, 6\)"):
        model.set_attribute_bases(**good | {"scenes": ["beach", "street"]})
    with pytest.raises(ValueError, match="scene_coefficients must be probabilities"):
        model.set_attribute_bases(**good | {"scene_coefficients": torch.full((1, 8), 1.5)})
    with pytest.raises(ValueError, match="object_projection must be finite"):
        model.set_attribute_bases(**good | {"object_projection": torch.full((ALIGNED, WIDTH), torch.nan)})
    assert model.config.scenes == []
    model.set_attribute_bases(**good)
    assert model.config.scenes == ["beach"]


# -------------------------------------------------------------------------------------------------- emotion space


@pytest.mark.parametrize("form", EMOTION_SPACES)
def test_no_variation_is_the_mean_to_the_bit(form):
    model = fusion_of(form)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.15, 0.05, 0.2, 0.0])
    sample, mean = model.sample(weights, seeded(), variation=0.0), model.mean_features(weights)
    assert all(torch.equal(a, b) for a, b in zip(sample, mean, strict=True))
    torch.testing.assert_close(torch.stack(mean)[:, 0], torch.einsum("e,ekf->kf", weights, model.mean))


@pytest.mark.parametrize("form", EMOTION_SPACES)
def test_variation_moves_from_the_mean_to_the_sample(form):
    model = fusion_of(form)
    mean, half, full = (torch.stack(model.sample(one_hot(AWE), seeded(), variation=v)) for v in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (mean + full) / 2)
    assert not torch.equal(mean, full)


@pytest.mark.parametrize("variation", [-0.1, 1.01, float("nan")])
def test_variation_outside_its_range_is_refused(variation):
    with pytest.raises(ValueError, match="variation must be between 0"):
        fusion_of().sample(one_hot(AWE), seeded(), variation=variation)


@pytest.mark.parametrize("form", EMOTION_SPACES)
def test_the_generator_alone_decides(form):
    model = fusion_of(form)
    weights = torch.eye(8)[[AWE, FEAR, AWE]]
    state = torch.random.get_rng_state()
    listed = model.sample(weights, [seeded(k) for k in range(3)])
    shared = seeded(0)
    sequence = [model.sample(row, shared) for row in weights]
    batch = model.sample(weights, seeded(0))
    for k in range(3):
        single = model.sample(weights[k], seeded(k))
        assert all(torch.equal(rows[k : k + 1], row) for rows, row in zip(listed, single, strict=True))
        assert all(torch.equal(rows[k : k + 1], row) for rows, row in zip(batch, sequence[k], strict=True))
    assert not torch.equal(batch.scene_features[0], batch.scene_features[2])
    model.sample(weights)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_emotion_for_a_list_of_generators_gives_a_row_each():
    model = fusion_of()
    assert model.sample(one_hot(AWE), [seeded(k) for k in range(3)]).scene_features.shape == (3, WIDTH)
    with pytest.raises(ValueError, match=r"\(3, 8\)"):
        model.sample(torch.eye(8)[:2], [seeded(k) for k in range(3)])


@pytest.mark.parametrize("form", EMOTION_SPACES)
def test_a_fusion_weighs_samples_of_one_draw(form):
    model = fusion_of(form)
    awe, fear = (torch.stack(model.sample(one_hot(e), seeded(3))) for e in (AWE, FEAR))
    fused = torch.stack(model.sample(0.6 * one_hot(AWE) + 0.4 * one_hot(FEAR), seeded(3)))
    torch.testing.assert_close(fused, 0.6 * awe + 0.4 * fear)


def test_a_bank_sample_lies_between_a_medoid_and_its_neighbour():
    model = fusion_of("bank")
    samples = torch.stack(model.sample(one_hot(AWE).expand(200, 8), seeded()), dim=1)
    bank = model.bank[AWE]
    nearest = torch.cdist(samples.flatten(1), bank.flatten(1)).argmin(-1)
    assert set(nearest.tolist()) == {0, 2, 3, 4}  # the second has weight 0
    for sample, medoid in zip(samples, nearest.tolist(), strict=True):
        towards = bank[model.bank_neighbours[AWE, medoid]] - bank[medoid]
        step = (sample - bank[medoid]).flatten()
        amounts = (towards.flatten(1) @ step) / towards.flatten(1).square().sum(-1).clamp_min(1e-12)
        leftover = (step - amounts[:, None] * towards.flatten(1)).norm(dim=-1)
        best = leftover.argmin()
        assert leftover[best] < 1e-4
        assert -1e-6 <= amounts[best] <= BANK_JITTER + 1e-6


def test_bank_weights_are_the_chances_of_the_medoids():
    model = fusion_of("bank")
    samples = torch.stack(model.sample(one_hot(FEAR).expand(2000, 8), seeded()), dim=1)
    nearest = torch.cdist(samples.flatten(1), model.bank[FEAR].flatten(1)).argmin(-1)
    shares = nearest.bincount(minlength=BANK) / 2000
    torch.testing.assert_close(shares, model.bank_weights[FEAR], atol=0.04, rtol=0)


def test_neighbours_are_the_nearest_medoids_that_count():
    model = UniEmoFusionModel(1, [2], 2, bank_size=4, rank=0)
    bank = torch.tensor([0.0, 1.0, 1.5, 9.0])[None, :, None, None].expand(8, 4, 3, 1)
    weights = torch.tensor([0.4, 0.0, 0.3, 0.3]).repeat(8, 1)
    model.set_emotion_space(torch.zeros(8, 3, 1), torch.ones(8, 3, 1), bank, weights)
    assert model.bank_neighbours[AWE].tolist() == [[2, 3, 2, 2], [2, 0, 3, 2], [0, 3, 0, 0], [2, 0, 2, 2]]


def test_gaussian_and_low_rank_have_the_moments_that_they_were_given():
    model = fusion_of("gaussian")
    weights = one_hot(AWE).expand(4000, 8)
    samples = torch.stack(model.sample(weights, seeded()), dim=1)
    torch.testing.assert_close(samples.mean(0), model.mean[AWE], atol=0.1, rtol=0)
    torch.testing.assert_close(samples.std(0), model.std[AWE], atol=0.1, rtol=0)
    model.register_to_config(emotion_space="low_rank")
    samples = torch.stack(model.sample(weights, seeded()), dim=1)
    factors = model.low_rank_factors[AWE]
    covariance = factors.T @ factors + model.low_rank_diagonal[AWE].square().diag()
    torch.testing.assert_close(samples.flatten(1).T.cov(), covariance, atol=0.6, rtol=0)
    torch.testing.assert_close(samples.mean(0), model.mean[AWE], atol=0.2, rtol=0)


def test_an_emotion_space_without_the_form_to_sample_from_is_refused():
    model = fusion_of("bank")
    mean, std = torch.zeros(8, 3, WIDTH), torch.ones(8, 3, WIDTH)
    with pytest.raises(ValueError, match='no "bank" form'):
        model.set_emotion_space(mean, std)
    model.set_emotion_space(mean, std, emotion_space="gaussian")
    assert (model.config.emotion_space, model.config.bank_size, model.config.rank) == ("gaussian", 0, 0)
    with pytest.raises(ValueError, match="gaussian, but is 'gauss'"):
        UniEmoFusionModel(WIDTH, [CONDITION], ALIGNED, emotion_space="gauss")
    with pytest.raises(ValueError, match=r"std must have shape \(8, 3, 12\)"):
        model.set_emotion_space(mean, std[:, :1])
    with pytest.raises(ValueError, match="bank_weights must give each"):
        model.set_emotion_space(mean, std, torch.zeros(8, 2, 3, WIDTH), torch.zeros(8, 2), emotion_space="bank")


# ------------------------------------------------------------------------------------------------- initialisation


def test_conditions_start_spread_like_token_embeddings():
    model = fusion_of("gaussian", (CONDITION, 7))
    tables = [0.03 * torch.randn(500, width, generator=seeded()) + 0.01 for width in (CONDITION, 7)]
    model.init_mappers(tables)
    weights = torch.eye(8).repeat(40, 1)
    conditions = model(*model.sample(weights, seeded(5)), weights)
    for condition, table in zip(conditions, tables, strict=True):
        typical = (table - table.mean(0)).norm(dim=-1).median()
        assert 0.5 < (condition - table.mean(0)).norm(dim=-1).median() / typical < 2
        assert (condition.mean(0) - table.mean(0)).norm() < 0.5 * typical
    before = [p.clone() for p in model.parameters()]
    model.init_mappers(tables)
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-4)


def test_text_encoders_of_another_width_are_refused_with_both_widths():
    with pytest.raises(ValueError, match=r"\[10\].*\[7\]"):
        fusion_of().init_mappers(torch.zeros(5, 7))


# -------------------------------------------------------------------------------------------------------- storage


def state_of(model: UniEmoFusionModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("attributes", [True, False])
def test_a_saved_model_loads_to_the_bit(tmp_path, dtype, attributes):
    model = fusion_of("low_rank", (CONDITION, 7)).to(dtype)
    if attributes:
        give_attributes(model)
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = UniEmoFusionModel.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.config.scenes == (["beach", "street"] if attributes else [])
    assert (loaded.config.emotion_space, loaded.config.condition_dims) == ("low_rank", [CONDITION, 7])
    before, after = state_of(model), state_of(loaded)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype and torch.equal(value, after[name]), name
    weights = torch.eye(8)
    first, second = (m(*m.sample(weights, seeded()), weights) for m in (model, loaded))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("form", EMOTION_SPACES)
def test_float16_storage_computes_in_float32(form):
    model, weights = fusion_of(form), torch.eye(8)
    give_attributes(model)
    exact = model.sample(weights, seeded())
    model.to(torch.float16)
    stored = model.sample(weights, seeded())
    assert all(value.dtype == torch.float32 for value in stored)
    for a, b in zip(stored, exact, strict=True):
        torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-3)
    assert model.mean_features(weights).emotion_features.dtype == torch.float32
    assert model.coefficients(*stored[1:], weights)[0].dtype == torch.float32
    assert model(*stored, weights).dtype == torch.float16


def test_a_fresh_model_is_usable_and_the_same_each_time():
    first, second = UniEmoFusionModel(WIDTH, [CONDITION]), UniEmoFusionModel(WIDTH, [CONDITION])
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))
    sample = first.sample(torch.eye(8), seeded())
    assert first(*sample, torch.eye(8)).isfinite().all()
    assert sample.emotion_features.std() > 0.5


def test_the_emotions_are_those_of_the_understanding_model():
    modeling = pytest.importorskip("uniemo_pipelines.modeling_uniemo")
    assert modeling.EMOTIONS == EMOTIONS
