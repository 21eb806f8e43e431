"""CMC and mAP against slow loops, scikit-learn and enumeration."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from keras_xreid.errors import InputError
from keras_xreid.evaluation import ranking
from keras_xreid.evaluation.ranking import (
    RANKS,
    SCORES,
    counted_queries,
    evaluate_ranking,
    standard_error,
)


def records(*people_and_cameras):
    return [
        SimpleNamespace(person=person, camera=camera, path=f"{person}_{camera}.png")
        for person, camera in people_and_cameras
    ]


def slow_scores(distances, query, gallery):
    """The definition, image by image."""
    hits, precisions = [], []
    for q, row in zip(query, distances, strict=True):
        # Python's sort keeps the order of the gallery at equal distance.
        order = sorted(range(len(gallery)), key=lambda i, row=row: row[i])
        ranked = [
            gallery[i].person == q.person
            for i in order
            if gallery[i].person != -1
            and not (gallery[i].person == q.person and gallery[i].camera == q.camera)
        ]
        if not any(ranked):
            continue
        hits.append([any(ranked[:rank]) for rank in RANKS])
        found, total = 0, 0.0
        for place, right in enumerate(ranked, 1):
            if right:
                found += 1
                total += found / place
        precisions.append(total / found)
    if not hits:
        return None
    return [*(100 * np.mean(hits, axis=0)), 100 * np.mean(precisions)]


def valid_images(q, gallery):
    """Gallery indices by person, as one single-shot gallery is drawn from for this query."""
    people = {}
    for i, g in enumerate(gallery):
        if g.person > 0 and not (g.person == q.person and g.camera == q.camera):
            people.setdefault(g.person, []).append(i)
    return people


def enumerated_cmc(distances, query, gallery):
    """Mean over every gallery that can be drawn, all equally likely."""
    scores = []
    for q, row in zip(query, distances, strict=True):
        people = valid_images(q, gallery)
        if q.person not in people:
            continue
        hits = np.zeros(len(RANKS))
        draws = list(itertools.product(*people.values()))
        for draw in draws:
            order = sorted(draw, key=lambda i, row=row: (row[i], i))
            place = [gallery[i].person for i in order].index(q.person) + 1
            hits += [place <= rank for rank in RANKS]
        scores.append(hits / len(draws))
    return 100 * np.mean(scores, axis=0)


def random_case(rng, queries=12, images=40, people=9, values=None):
    def pairs(count, first, last):
        return np.stack([rng.integers(first, last, count), rng.integers(0, 3, count)], axis=1)

    query = records(*pairs(queries, 1, people + 3))
    gallery = records(*pairs(images, -1, people + 1))
    distances = rng.random((queries, images))
    if values:  # few different values: many ties
        distances = np.floor(distances * values) / values
    return distances, query, gallery


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_scores_equal_slow_loops(monkeypatch, block):
    monkeypatch.setattr(ranking, "BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    compared = 0
    for case in range(80):
        distances, query, gallery = random_case(
            rng,
            images=int(rng.integers(1, 60)),
            people=int(rng.integers(1, 12)),
            values=[None, 2, 5][case % 3],
        )
        expected = slow_scores(distances, query, gallery)
        if expected is None:
            with pytest.raises(InputError, match="none of the 12 queries"):
                evaluate_ranking(distances, query, gallery)
            continue
        scores = evaluate_ranking(distances, query, gallery)
        assert tuple(scores) == SCORES
        np.testing.assert_allclose(list(scores.values()), expected, rtol=0, atol=1e-9)
        compared += 1
    assert compared > 60


def test_hand_computed():
    query = records((1, 0), (2, 0), (3, 0))
    gallery = records((1, 0), (2, 1), (1, 1), (1, 2), (3, 0))
    distances = [
        [0.0, 0.2, 0.3, 0.1, 0.9],  # the first is junk; then 1, 2, 1: matches at 1 and 3
        [0.1, 0.4, 0.2, 0.3, 0.5],  # the match at 4
        [0.1, 0.1, 0.1, 0.1, 0.1],  # person 3 is there by its own camera only: not counted
    ]
    scores = evaluate_ranking(distances, query, gallery)
    assert scores["rank1"] == pytest.approx(50)
    assert scores["rank5"] == pytest.approx(100)
    assert scores["mAP"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 / 4) / 2)
    np.testing.assert_array_equal(counted_queries(query, gallery), [True, True, False])


def test_ties_keep_the_order_of_the_gallery():
    query = records((1, 0))
    for place in range(4):
        people = [2, 3, 4]
        people.insert(place, 1)
        gallery = records(*((person, 1) for person in people))
        scores = evaluate_ranking(np.zeros((1, 4), "float32"), query, gallery)
        assert scores["mAP"] == pytest.approx(100 / (place + 1))
        assert scores["rank1"] == (100 if place == 0 else 0)


def test_map_is_scikit_learns_average_precision():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    distances, query, gallery = random_case(rng, queries=30, images=200)
    expected = []
    for q, row in zip(query, distances, strict=True):
        keep = [g.person != -1 and (g.person != q.person or g.camera != q.camera) for g in gallery]
        right = np.array([g.person == q.person for g in gallery])[keep]
        if right.any():
            expected.append(metrics.average_precision_score(right, -row[keep]))
    assert evaluate_ranking(distances, query, gallery)["mAP"] == pytest.approx(
        100 * np.mean(expected), abs=1e-9
    )


@pytest.mark.parametrize("dtype", ["int64", "float16", "float32"])
def test_number_types(dtype):
    rng = np.random.default_rng(2)
    distances, query, gallery = random_case(rng)
    distances = (distances * 30).astype(dtype)
    scores = evaluate_ranking(distances, query, gallery)
    expected = slow_scores(distances.tolist(), query, gallery)
    np.testing.assert_allclose(list(scores.values()), expected, rtol=0, atol=1e-9)


def test_infinite_distances_rank_last_but_ahead_of_nothing():
    query = records((1, 0))
    gallery = records((1, 0), (2, 1), (1, 1))
    distances = np.full((1, 3), np.inf)
    assert evaluate_ranking(distances, query, gallery)["mAP"] == pytest.approx(50)


def test_people_may_have_names():
    query = records(("anna", 0))
    gallery = records(("ben", 1), ("anna", 1))
    assert evaluate_ranking([[0.2, 0.1]], query, gallery)["rank1"] == 100


def test_distances_are_not_changed():
    distances, query, gallery = random_case(np.random.default_rng(3), values=3)
    before = distances.copy()
    evaluate_ranking(distances, query, gallery)
    evaluate_ranking(distances, query, gallery, gallery_shots=1)
    np.testing.assert_array_equal(distances, before)


@pytest.mark.parametrize("values", [None, 3])
def test_single_shot_equals_enumeration(values):
    rng = np.random.default_rng(4)
    compared = 0
    for _ in range(15):
        distances, query, gallery = random_case(rng, queries=5, images=13, people=5, values=values)
        if not counted_queries(query, gallery).any():
            continue
        scores = evaluate_ranking(distances, query, gallery, gallery_shots=1)
        expected = enumerated_cmc(distances, query, gallery)
        np.testing.assert_allclose(list(scores.values())[:4], expected, rtol=0, atol=1e-9)
        full = evaluate_ranking(distances, query, gallery)
        assert scores["mAP"] == full["mAP"]
        compared += 1
    assert compared > 10


def test_single_shot_beyond_the_ranks_that_matter():
    """Thirty people, so that the distribution is cut off at 20 terms, against drawn galleries."""
    rng = np.random.default_rng(5)
    pairs = [(person, camera) for person in range(1, 31) for camera in (1, 2, 3)]
    gallery = records(*pairs, *[(0, 1)] * 20)
    query = records(*((person, 0) for person in range(1, 31)))
    distances = rng.random((len(query), len(gallery)))
    exact = evaluate_ranking(distances, query, gallery, gallery_shots=1)
    draws = np.zeros((500, len(RANKS)))
    for draw in draws:
        for row in range(len(query)):
            # Independent for each query, as the closed form has it.
            chosen = distances[row, 3 * np.arange(30) + rng.integers(0, 3, 30)]
            place = 1 + np.count_nonzero(chosen < chosen[row])
            draw += [100 * (place <= rank) / len(query) for rank in RANKS]
    error = draws.std(axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - list(exact.values())[:4]) < 4 * error)


def test_single_shot_of_one_image_a_person_is_the_full_gallery():
    rng = np.random.default_rng(6)
    gallery = records(*((person, 1) for person in range(1, 41)))
    query = records(*((person, 0) for person in range(1, 41)))
    distances = rng.random((40, 40))
    one, full = (evaluate_ranking(distances, query, gallery, shots) for shots in (1, None))
    assert one == pytest.approx(full, abs=1e-9)


def test_perfect_ranking_single_shot():
    gallery = records((1, 1), (2, 1), (2, 2))
    query = records((1, 0), (2, 0))
    distances = [[0, 1, 1], [1, 0, 0]]
    assert set(evaluate_ranking(distances, query, gallery, 1).values()) == {100.0}


def test_standard_error():
    assert standard_error(65.0, 424) == pytest.approx(2.3164, abs=1e-4)
    assert standard_error(100.0, 10) == 0


def test_bad_input():
    query, gallery = records((1, 0)), records((1, 1), (2, 1))
    with pytest.raises(InputError, match=r"shape \(1, 3\), expected \(1, 2\)"):
        evaluate_ranking(np.zeros((1, 3)), query, gallery)
    with pytest.raises(InputError, match="not numbers"):
        evaluate_ranking([[0.1, np.nan]], query, gallery)
    with pytest.raises(InputError, match="gallery_shots is 2"):
        evaluate_ranking([[0.1, 0.2]], query, gallery, gallery_shots=2)
    with pytest.raises(InputError, match="none of the 1 queries"):
        evaluate_ranking([[0.1, 0.2]], records((3, 0)), gallery)
    with pytest.raises(InputError, match="number people from 1"):
        evaluate_ranking([[0.1]], records((0, 0)), records((0, 1)), gallery_shots=1)
    with pytest.raises(InputError, match="none of the 0 queries"):
        evaluate_ranking(np.zeros((0, 2)), [], gallery)
