"""What makes a generated image fall, criterion by criterion on small arrays, and the figures of a filter's report."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from training.backbones.reader import Reading
from training.data.pictures import FilePicture
from training.data.rows import NO_LABEL
from training.filtering import diverse, purity
from training.filtering.candidates import Candidates
from training.filtering.diverse import apportion, choose, without_duplicates
from training.filtering.faithful import calibrated, fit_temperature, least_probability, margins
from training.filtering.manifold import distance_to_real, is_clear, percentile
from training.filtering.neighbours import MOST_EXACT, Neighbours, Reduction, cells_of, nearest_other
from training.filtering.purity import Truth, purity_by_stage
from training.filtering.report import attribute_distance, attribute_floor
from training.filtering.sieve import Sieve
from training.filtering.sifting import ask_true
from training.miniemoset.attributes import PALETTES, Attributes, posterior
from training.miniemoset.objects import OBJECTS
from training.miniemoset.scenes import SCENES
from uniemo_pipelines.fusion_uniemo import EMOTIONS

# ---------------------------------------------------------------------------------------------------------- faithful


def test_the_temperature_has_a_closed_form_for_two_classes():
    # three of four right with logits (4, 0): calibrated where sigmoid(4 / T) = 3/4, that is T = 4 / log 3
    logits, labels = torch.tensor([[4.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(4 / np.log(3), rel=1e-6)
    assert calibrated(logits, temperature)[0] == pytest.approx([0.75, 0.25])


def test_a_temperature_without_a_minimum_ends_at_its_bound():
    assert fit_temperature(torch.tensor([[1.0, 0.0]] * 3), torch.zeros(3, dtype=torch.long)) == pytest.approx(0.05)
    assert fit_temperature(torch.tensor([[1.0, 0.0]] * 3), torch.ones(3, dtype=torch.long)) == pytest.approx(20)


def graded(hits: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Two-class probabilities .99, .98, ... for class 0, right where said."""
    top = 0.99 - 0.01 * np.arange(len(hits))
    return np.stack([top, 1 - top], 1), np.where(hits, 0, 1)


def test_the_threshold_is_the_least_with_that_precision_above():
    # wrong at the 10th and from the 28th on: of the first 30, 27 would be right if only 3 were wrong
    probabilities, labels = graded([index != 9 and index < 28 for index in range(40)])
    assert least_probability(probabilities, labels, 0.9) == pytest.approx(0.99 - 0.29)
    assert least_probability(probabilities, labels, 0.95) == pytest.approx(0.99 - 0.27)


def test_a_few_lucky_images_set_no_threshold():
    probabilities, labels = graded([index < 19 for index in range(40)])
    assert least_probability(probabilities, labels, 0.95) == pytest.approx(0.99 - 0.19)
    with pytest.raises(ValueError, match=r"99\.0% of 40 .* found 95\.0% at the best; lower --precision"):
        least_probability(probabilities, labels, 0.99)


def test_a_threshold_asks_for_enough_images():
    with pytest.raises(ValueError, match="at least 20 calibration images, found 19"):
        least_probability(*graded([True] * 19), 0.5)


def test_equal_probabilities_stand_or_fall_together():
    probabilities = np.array([[0.9, 0.1]] * 20 + [[0.8, 0.2]] * 20)
    labels = np.array([0] * 20 + [0] * 10 + [1] * 10)
    assert least_probability(probabilities, labels, 0.8) == pytest.approx(0.9), "with all of the second 20: 0.75"


def test_margins_are_over_the_best_other_emotion():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert margins(probabilities, np.array([0, 1])) == pytest.approx([0.2, -0.2])


# --------------------------------------------------------------------------------------------- clear, on the manifold


def test_either_attribute_makes_an_image_clear():
    scores = {"scene": np.array([0.9, 0.1, 0.1]), "object": np.array([0.0, 0.5, 0.4])}
    assert is_clear(scores, {"scene": 0.8, "object": 0.5}).tolist() == [True, True, False]


def test_percentiles_ask_for_enough_images():
    assert percentile(np.arange(101.0), 95, "manifold") == 95
    with pytest.raises(ValueError, match="at least 20 real images for the manifold, found 19"):
        percentile(np.arange(19.0), 95, "manifold")


def test_the_distance_is_to_the_kth_nearest():
    real = Neighbours(np.array([[0.0, 0], [3, 0], [0, 10]]))
    assert distance_to_real(real, np.array([[0.0, 4], [3, 0]]), 2) == pytest.approx([5, 3])
    with pytest.raises(ValueError, match="at least 4 images .* found 3"):
        distance_to_real(real, np.zeros((1, 2)), 4)


def test_the_reduction_keeps_what_lies_in_few_directions_and_refuses_another_width():
    flat = np.random.default_rng(0).standard_normal((50, 2)) @ np.array([[1.0, 2, 3, 4], [0, 1, 0, -1]])
    reduce = Reduction(flat, 2)
    points = reduce(flat)
    assert points.shape == (50, 2) and reduce.explained == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(points[0] - points[1:], axis=1) == pytest.approx(
        np.linalg.norm(flat[0] - flat[1:], axis=1), rel=1e-4
    )
    assert reduce.all([flat[:20], flat[20:]]) == pytest.approx(points, abs=1e-5)
    with pytest.raises(ValueError, match="features 4 wide, as the real images', found 3"):
        reduce(flat[:, :3])


def test_the_nearest_other_point_is_not_the_point_itself():
    points = np.array([[0.0], [0], [1], [4]])
    assert nearest_other(points) == pytest.approx([0, 0, 1, 3])


def test_a_search_among_many_finds_nearly_all_and_the_same_each_time():
    random = np.random.default_rng(0)
    points = random.standard_normal((MOST_EXACT + 1, 4)).astype(np.float32)
    queries = points[:200] + 0.001
    found = Neighbours(points, seed=3).search(queries, 3)
    again = Neighbours(points, seed=3).search(queries, 3)
    assert (found.positions == again.positions).all() and (found.distances == again.distances).all()
    exact = np.argsort(((queries[:, None] - points[None]) ** 2).sum(-1), 1)[:, :3]
    assert np.mean(found.positions == exact) > 0.97


# ----------------------------------------------------------------------------------------------------------- diverse


def test_of_near_duplicates_the_best_stays():
    points = np.array([[0.0], [0.1], [5], [5.1], [9]])
    quality = np.array([0.5, 0.9, 0.8, 0.2, 0.1])
    assert without_duplicates(points, quality, 0.2).tolist() == [False, True, True, False, True]


def test_where_nothing_is_near_all_stay():
    assert without_duplicates(np.array([[0.0], [1], [2]]), np.ones(3), 0.5).all()


def test_a_chain_of_duplicates_keeps_every_other():
    # the second is near the first and falls; the third is near the second alone, which is gone
    assert without_duplicates(np.array([[0.0], [1], [2]]), np.array([0.9, 0.8, 0.7]), 1.5).tolist() == [
        True,
        False,
        True,
    ]


def test_more_duplicates_than_are_compared_at_once_leave_one():
    count = 7 * diverse.NEIGHBOURS
    points = np.concatenate([np.zeros((count, 2)), np.full((count, 2), 9.0)])
    quality = np.random.default_rng(0).permutation(2 * count) / count
    stays = np.flatnonzero(without_duplicates(points, quality, 0.5))
    assert sorted(stays) == sorted([quality[:count].argmax(), count + quality[count:].argmax()])


@pytest.mark.parametrize("radius", [0.02, 0.1, 0.4])
def test_no_two_that_stay_are_near_and_each_that_falls_is_near_a_better_one(radius):
    random = np.random.default_rng(1)
    points, quality = random.uniform(size=(400, 2)).astype(np.float32), random.uniform(size=400)
    stays = without_duplicates(points, quality, radius)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert 0 < stays.sum() < 400 and distances[np.ix_(stays, stays)].min() > radius
    better = quality[None] > quality[:, None]
    assert ((distances <= radius) & better).any(1)[~stays].all()


def test_quotas_by_largest_remainder():
    assert apportion(10, np.array([47.0, 16, 15.8, 12, 6.1, 3.1])).tolist() == [5, 2, 1, 1, 1, 0]
    assert apportion(1, np.array([1.0, 1])).tolist() == [1, 0], "the first of equals"
    assert apportion(7, np.array([0.0, 2])).tolist() == [0, 7]
    with pytest.raises(ValueError, match="more than 0"):
        apportion(3, np.zeros(2))


def test_the_best_of_each_cell_comes_first():
    cells, quality = np.array([0, 0, 1, 2]), np.array([0.9, 0.8, 0.1, 0.2])
    assert choose(cells, quality, {}, {}, 3).tolist() == [True, False, True, True]
    assert choose(cells, quality, {}, {}, 2).tolist() == [True, False, False, True]


def test_no_attribute_takes_more_than_its_quota():
    cells, quality = np.arange(5), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    shown = {"scene": np.array([0, 0, 0, 1, NO_LABEL])}
    chosen = choose(cells, quality, shown, {"scene": np.array([2, 1])}, 4)
    assert chosen.tolist() == [True, True, False, True, True], "an image that shows nothing has no quota"


def test_cells_part_what_lies_apart():
    points = np.concatenate([np.full((10, 2), centre) for centre in (0.0, 5.0)])
    cells = cells_of(points + 0.01 * np.arange(20)[:, None] % 0.1, 2, seed=1)
    assert len(set(cells[:10])) == len(set(cells[10:])) == 1 and cells[0] != cells[10]
    assert len(set(cells_of(points[:3], 3))) == 3


# ------------------------------------------------------------------------------------------------- sieve and figures

LABELS = np.arange(16) % 8


def one_hot(index: int, count: int) -> Tensor:
    return functional.one_hot(torch.tensor([index]), count).float()


def test_an_image_falls_at_the_first_criterion_only():
    sieve = Sieve(LABELS)
    sieve.ask("probability", np.arange(16) != 3)
    sieve.ask("manifold", sieve.left != 4)
    assert sieve.counts() == [2, 2, 2, 1, 1, 2, 2, 2]
    assert [(one.name, sum(sieve.fallen(one))) for one in sieve.asked] == [("probability", 1), ("manifold", 1)]


def test_an_emptied_emotion_names_criterion_and_remedy():
    sieve = Sieve(LABELS)
    sieve.ask("probability", np.arange(16) != 2)
    message = f"'manifold'.*none of {EMOTIONS[2]} \\(had 1\\); raise --manifold_percentile"
    with pytest.raises(ValueError, match=message):
        sieve.ask("manifold", sieve.left != 10)


def test_an_emotion_may_be_emptied_where_that_is_allowed_but_not_all_of_them():
    sieve = Sieve(LABELS, allow_empty=True)
    sieve.ask("probability", LABELS != 2)
    assert sieve.counts() == [2, 2, 0, 2, 2, 2, 2, 2]
    with pytest.raises(ValueError, match=f"'manifold'.*none of {EMOTIONS[0]} "):
        sieve.ask("manifold", np.zeros(14, bool))


def test_emotions_without_a_candidate_are_refused():
    with pytest.raises(ValueError, match=f"found none of {EMOTIONS[7]}"):
        Sieve(np.arange(7))


def test_purity_after_each_criterion():
    probabilities = np.eye(8)[LABELS]
    read = {"scene": np.zeros(16, int)}
    intended = {"scene": np.where(np.arange(16) < 4, 0, 1)}
    empty = np.zeros(16)
    candidates = Candidates(LABELS, probabilities, intended, read, {"scene": empty}, empty[:, None], empty, empty)
    assert candidates.agreed["scene"].tolist() == [0] * 4 + [NO_LABEL] * 12
    truth = Truth(
        hits=np.arange(16) >= 8,
        posterior=np.eye(8)[LABELS] * np.where(np.arange(16) >= 8, 0.9, 0.1)[:, None],
        read={"scene": np.arange(16) % 2},
    )
    sieve = Sieve(LABELS)
    sieve.ask("probability", np.arange(16) >= 4)
    shares = purity_by_stage(truth, candidates, sieve)
    assert (shares["generated"].judged, shares["generated"].attributes["scene"]) == (0.5, 0.5)
    after = shares["after probability"]
    assert (after.images, after.judged, after.attributes["scene"]) == (12, pytest.approx(8 / 12), None)
    assert after.posterior == pytest.approx((8 * 0.9 + 4 * 0.1) / 12)


def test_an_oracle_asks_what_is_likeliest_and_not_what_the_judges_own_head_sees():
    empty, likeliest = np.zeros(16), np.where(np.arange(16) >= 4, LABELS, 7)
    candidates = Candidates(LABELS, np.eye(8)[(LABELS + 1) % 8], {}, {}, {}, empty[:, None], empty, empty)
    truth = Truth(likeliest != LABELS, np.eye(8)[likeliest], {"scene": LABELS})
    seen, sieve = purity.seen_by_oracle(candidates, truth), Sieve(LABELS)
    ask_true(sieve, seen)
    assert sieve.left.tolist() == list(range(4, 16)) and [one.name for one in sieve.asked] == ["truth"]
    assert seen.read["scene"].tolist() == LABELS.tolist() and seen.quality.tolist() == [0.0] * 4 + [1.0] * 12
    with pytest.raises(ValueError, match="'truth'.*none of .*; leave out --oracle"):
        ask_true(Sieve(LABELS), candidates)


def repeated(reading: Reading, times: int) -> Reading:
    return Reading(**{one.name: getattr(reading, one.name).repeat(times, 1) for one in fields(Reading)})


def test_the_truth_is_the_worlds_posterior_of_the_attributes_read(tmp_path, monkeypatch):
    awe = Attributes("waterfall", ("Whale",), "crystal", "even")
    assert posterior(awe).argmax() == EMOTIONS.index("awe")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    seen = Reading(
        scene_logits=one_hot(SCENES.index(awe.scene), len(SCENES)),
        object_logits=one_hot(OBJECTS.index("Whale"), len(OBJECTS)) - 0.5,
        palette_logits=one_hot(PALETTES.index("crystal"), len(PALETTES)),
        brightness_logits=one_hot(1, 3),
        emotion=one_hot(EMOTIONS.index("fear"), 8),
        features=torch.zeros(1, 2),
    )
    monkeypatch.setattr(purity, "load_reader", lambda *_: torch.nn.Linear(1, 1))
    monkeypatch.setattr(purity, "read", lambda _, images: repeated(seen, len(images)))
    pictures = [FilePicture(str(tmp_path / "image.png"))] * 2
    labels = np.array([EMOTIONS.index("awe"), EMOTIONS.index("fear")])
    truth = purity.read_truth("judge", pictures, labels, str(tmp_path / "features"))
    assert truth.hits.tolist() == [False, True]
    assert truth.posterior == pytest.approx(np.stack([posterior(awe)] * 2))


def test_the_distance_of_attributes_is_the_mean_over_emotions_with_labels():
    counts = np.zeros((8, 2))
    counts[0], counts[1] = (1, 1), (4, 0)
    read, labels = np.array([0, 0, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    assert attribute_distance(read, labels, counts) == pytest.approx((0.5 + 1) / 2)
    assert attribute_distance(read[:3], labels[:3], counts) == pytest.approx(0.5), "one image is no sample"
    assert attribute_distance(read, labels, np.zeros((8, 2))) is None


def test_the_floor_is_what_chance_makes_of_so_few():
    counts = np.zeros((8, 2))
    counts[0] = 5, 5  # of two draws 0.5 half of the time, of very many nearly 0
    assert attribute_floor(np.array([0]), counts) is None, "one image is no sample"
    assert 0.1 < attribute_floor(np.array([0, 0]), counts) < 0.4
    assert attribute_floor(np.zeros(4000, int), counts) < 0.02
    assert attribute_floor(np.array([3]), counts) is None, "no real image of that emotion names one"
