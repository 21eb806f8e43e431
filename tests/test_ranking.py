"""CMC, mAP and mINP against slow loops, scikit-learn, torchreid and enumeration."""

import itertools
import math
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import keras_xreid as xr
from keras_xreid.errors import InputError
from keras_xreid.evaluation import ranking
from keras_xreid.evaluation.distances import LazyDistances, distances_among, feature_distances
from keras_xreid.evaluation.ranking import (
    RANKS,
    SCORES,
    counted_queries,
    evaluate_ranking,
    evaluate_rates,
    rank_queries,
    score_queries,
    scores_by_rate,
    standard_error,
    student_t,
    summarise,
)


def records(*people_and_cameras):
    return [
        SimpleNamespace(person=person, camera=camera, path=f"{person}_{camera}.png")
        for person, camera in people_and_cameras
    ]


def slow_scores(distances, query, gallery):
    """The definition, image by image."""
    hits, precisions, penalties = [], [], []
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
        # How many have to be looked at until nobody is missing.
        looked_at = next(n for n in range(1, len(ranked) + 1) if not any(ranked[n:]))
        penalties.append(found / looked_at)
    if not hits:
        return None
    return [*(100 * np.mean(hits, axis=0)), 100 * np.mean(precisions), 100 * np.mean(penalties)]


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
    for case in range(230):
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
    assert compared > 200


def test_ranked_lists_equal_slow_ones():
    rng = np.random.default_rng(3)
    distances, query, gallery = random_case(rng, values=6)  # many at equal distance
    distances[:, ::7] = np.inf
    scores, nearest, first = rank_queries(distances, query, gallery, length=33)
    np.testing.assert_array_equal(scores, score_queries(distances, query, gallery))
    for row, q in enumerate(query):
        if np.isnan(scores[row, 0]):
            assert first[row] == 0 and (nearest[row] == -1).all()
            continue
        valid = [
            i
            for i in range(len(gallery))
            if gallery[i].person != -1
            and (gallery[i].person, gallery[i].camera) != (q.person, q.camera)
        ]
        order = sorted(valid, key=lambda i, row=row: distances[row, i])
        assert nearest[row].tolist() == (order + [-1] * 33)[:33]
        right = [gallery[i].person == q.person for i in order]
        assert first[row] == 1 + right.index(True)


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
    assert scores["mINP"] == pytest.approx(100 * (2 / 3 + 1 / 4) / 2)  # the last ones at 3 and 4
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


def test_minp_of_junk_and_ties_by_hand():
    query = records((1, 0))
    gallery = records((1, 1), (-1, 1), (1, 0), (2, 1), (1, 2), (0, 3), (1, 3))
    # Without the junk (-1, and the own camera's) 1, 2, 1, 0, 1 at equal distance; all three at 5.
    scores = evaluate_ranking(np.zeros((1, 7)), query, gallery)
    assert scores["mINP"] == pytest.approx(100 * 3 / 5)
    # Junk behind the last match is no burden, nor is anybody else there.
    row = [[0.1, 0.9, 0.9, 0.9, 0.1, 0.9, 0.3]]
    assert evaluate_ranking(row, query, gallery)["mINP"] == pytest.approx(100)
    row[0][3] = 0.2  # one stranger before the last match
    assert evaluate_ranking(row, query, gallery)["mINP"] == pytest.approx(75)
    # Of single-shot galleries, too, it is that of the full one.
    assert evaluate_ranking(row, query, gallery, 1)["mINP"] == pytest.approx(75)


def torchreid_case(seed):
    """One of the recorded cases; NumPy promises that RandomState's numbers stay as they are."""
    rng = np.random.RandomState(seed)
    people, queries, images = rng.randint(3, 25), rng.randint(3, 15), rng.randint(50, 90)
    query = np.stack([rng.randint(1, people + 3, queries), rng.randint(0, 3, queries)], axis=1)
    gallery = np.stack([rng.randint(-1, people + 1, images), rng.randint(0, 3, images)], axis=1)
    return rng.random_sample((queries, images)), records(*query), records(*gallery)


def test_scores_are_torchreids():
    """Recorded from evaluate_rank of torchreid 0.2.5, its Python version, on NumPy 2.4.6.

    It was given the gallery without person -1, which torchreid's data sets leave out on reading.
    """
    recorded = np.load(Path(__file__).parent / "recorded" / "torchreid_ranking.npz")
    assert len(recorded["full"]) == 200
    for seed, expected in enumerate(recorded["full"]):
        distances, query, gallery = torchreid_case(seed)
        scores = np.array(list(evaluate_ranking(distances, query, gallery).values())) / 100
        assert scores[4] == pytest.approx(expected[4], rel=0, abs=1e-9)
        # torchreid divides in float32; the numbers of queries found are whole and compare exactly.
        count = counted_queries(query, gallery).sum()
        found = np.round(expected[:4] * count)
        np.testing.assert_allclose(expected[:4] * count, found, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores[:4], found / count, rtol=0, atol=1e-9)


def test_exact_single_shot_is_what_torchreid_draws():
    """Rank-1 of torchreid's use_metric_cuhk03, 1,000 draws, recorded without persons -1 and 0."""
    recorded = np.load(Path(__file__).parent / "recorded" / "torchreid_ranking.npz")
    off = []
    for seed, drawn in enumerate(recorded["single_shot_rank1"]):
        exact = score_queries(*torchreid_case(seed), gallery_shots=1)[:, 0] / 100
        exact = exact[~np.isnan(exact)]
        off.append((drawn - exact.mean()) / error_of_draws(exact, 1000))
    assert len(off) == 20
    assert np.max(np.abs(off)) < 4
    assert 0.4 < np.std(off) < 1.6


def error_of_draws(probabilities, draws):
    """Standard error of a mean over queries and independent draws, by the queries' own chances."""
    variance = np.sum(probabilities * (1 - probabilities)) / len(probabilities) ** 2
    one = 1 / (draws * len(probabilities))  # where next to nothing is drawn, one hit more or less
    return math.sqrt(variance / draws + one**2)


def test_map_is_scikit_learns_average_precision():
    metrics = pytest.importorskip("sklearn.metrics")
    compared = 0
    for seed in range(200):
        distances, query, gallery = torchreid_case(seed)
        precisions = score_queries(distances, query, gallery)[:, 4]
        for q, row, precision in zip(query, distances, precisions, strict=True):
            junk = [g.person == -1 or (g.person, g.camera) == (q.person, q.camera) for g in gallery]
            right = np.array([g.person == q.person for g in gallery])[np.invert(junk)]
            if not right.any():
                assert np.isnan(precision)
                continue
            expected = metrics.average_precision_score(right, -row[np.invert(junk)])
            assert precision == pytest.approx(100 * expected, rel=0, abs=1e-9)
            compared += 1
        if compared > 400:
            break
    assert compared > 400


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
        assert scores["mAP"] == full["mAP"] and scores["mINP"] == full["mINP"]
        compared += 1
    assert compared > 10


@pytest.mark.parametrize("galleries, draws", [(20, 2000)])
def test_exact_single_shot_is_the_mean_of_draws(galleries, draws):
    """Sampled scores, and galleries drawn here, off by no more than chance allows."""
    off = []
    for seed in range(galleries):
        rng = np.random.default_rng([7, seed])
        people = int(rng.integers(5, 40))  # so that the distribution is cut off at 20 terms, too
        distances, query, gallery = random_case(
            rng, queries=6, images=3 * people, people=people, values=[None, 50][seed % 2]
        )
        for q, row in zip(query, distances, strict=True):  # people are often found, and not always
            row -= [0.4 * (g.person == q.person) for g in gallery]
        exact = score_queries(distances, query, gallery, gallery_shots=1) / 100
        counted = ~np.isnan(exact[:, 0])
        if not counted.any():
            continue
        scores = evaluate_ranking(distances, query, gallery, 1, draws=draws, seed=seed)
        for i, name in enumerate(SCORES[:4]):
            error = error_of_draws(exact[counted, i], draws)
            off.append((scores[name] / 100 - exact[counted, i].mean()) / error)
        drawn = drawn_rank1(distances, query, gallery, 50, rng)
        error = error_of_draws(exact[counted, 0], 50)
        off.append((drawn - exact[counted, 0].mean()) / error)
        assert scores["mAP"] == pytest.approx(100 * exact[counted, 4].mean(), abs=1e-9)
    assert len(off) > 80
    assert np.max(np.abs(off)) < 4
    assert np.std(off) < 1.3


def drawn_rank1(distances, query, gallery, draws, rng):
    hits = []
    for q, row in zip(query, distances, strict=True):
        people = valid_images(q, gallery)
        if q.person in people:
            for _ in range(draws):
                chosen = [int(rng.choice(images)) for images in people.values()]
                first = min(chosen, key=lambda i, row=row: (row[i], i))
                hits.append(gallery[first].person == q.person)
    return np.mean(hits)


def test_draws_depend_on_the_seed_alone(monkeypatch):
    distances, query, gallery = random_case(np.random.default_rng(8), images=80)
    arguments = distances, query, gallery, 1
    ten = score_queries(*arguments, draws=10, seed=3)
    monkeypatch.setattr(ranking, "BLOCK_VALUES", 1)
    np.testing.assert_array_equal(score_queries(*arguments, draws=10, seed=3), ten)
    assert not np.array_equal(score_queries(*arguments, draws=10, seed=4), ten, equal_nan=True)
    # The first 10 of 20 draws are those of draws=10, so what is left is a share of 10 draws.
    rest = 2 * score_queries(*arguments, draws=20, seed=3) - ten
    rest = rest[~np.isnan(rest[:, 0]), :4]
    np.testing.assert_allclose(rest / 10, np.round(rest / 10), rtol=0, atol=1e-9)
    assert rest.min() >= -1e-9 and rest.max() <= 100 + 1e-9


def test_draws_never_take_junk_or_distractors():
    gallery = records((1, 0), (1, 1), (0, 1), (-1, 1), (2, 1))
    # The junk image, the distractor and the image of nobody are nearest; then the right one.
    scores = evaluate_ranking(
        [[0.0, 0.4, 0.1, 0.1, 0.5]], records((1, 0)), gallery, gallery_shots=1, draws=50
    )
    assert scores["rank1"] == 100
    assert scores["mAP"] == pytest.approx(50)  # the distractor counts in the full gallery


def test_first_terms_of_the_distribution_of_many_coins():
    """By hand: binomial where all coins are alike; 300 coins of 1/2 leave nothing for 20 terms."""
    p = np.array([np.full(300, 0.5), np.full(300, 0.01), np.zeros(300), [1.0] * 3 + [0.0] * 297])
    found = ranking._poisson_binomial(p, 20)
    binomial = [
        [math.comb(300, k) * x**k * (1 - x) ** (300 - k) for k in range(20)] for x in (0.5, 0.01)
    ]
    np.testing.assert_allclose(found[:2], binomial, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found[2:], np.eye(20)[[0, 3]])
    np.testing.assert_allclose(ranking._poisson_binomial(p[:1], 20), binomial[:1], atol=1e-12)


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


def with_rates(records_, rates):
    for record, rate in zip(records_, rates, strict=True):
        record.rate = rate
    return records_


@pytest.mark.parametrize("shots", [None, 1])
def test_rates_alone_and_mixed(shots):
    rng = np.random.default_rng(9)
    distances, query, gallery = random_case(rng, queries=30, images=60)
    rates = [2, 3, 4] * 10
    result = evaluate_rates(distances, with_rates(query, rates), gallery, gallery_shots=shots)
    assert list(result["per_rate"]) == ["2", "3", "4"]
    for i, name in enumerate(("2", "3", "4")):
        alone = evaluate_ranking(distances[i::3], query[i::3], gallery, shots)
        assert result["per_rate"][name] == pytest.approx(alone, abs=1e-9)
        assert result["queries"][name] == counted_queries(query[i::3], gallery).sum()
        if shots is None:
            expected = standard_error(alone["rank1"], result["queries"][name])
            assert result["standard_error"][name] == pytest.approx(expected)
    assert result["mixed"] == evaluate_ranking(distances, query, gallery, shots)
    assert result["queries"]["mixed"] == counted_queries(query, gallery).sum()
    # Given rates count, and not those of the records.
    other = evaluate_rates(distances, query, gallery, rates=np.full(30, 8.0), gallery_shots=shots)
    assert other["per_rate"] == {"8": result["mixed"]}


def test_cameras_may_be_numbers_and_names_in_one_gallery():
    gallery = records((1, 1), (1, "two"), (2, 3), (1, 0))
    matches, junk, _ = ranking.matches_and_junk(records((1, 1), (1, "two"), (1, "1")), gallery)
    assert [found.tolist() for found in matches] == [[1, 3], [0, 3], [0, 1, 3]]
    assert [found.tolist() for found in junk] == [[0], [1], []]


def test_an_image_at_several_rates_is_counted_once_in_the_error_of_all():
    rng = np.random.default_rng(0)
    alone = 100 * rng.integers(0, 2, (40, len(SCORES))).astype("float64")
    scores, rates, images = np.tile(alone, (3, 1)), np.repeat([2, 3, 4], 40), np.tile(range(40), 3)
    error = standard_error(alone[:, 0].mean(), 40)
    found = scores_by_rate(scores, rates, images)
    assert found["standard_error"] == pytest.approx(dict.fromkeys(("2", "3", "4", "mixed"), error))
    assert scores_by_rate(scores, rates)["standard_error"]["mixed"] < 0.6 * error
    scores[3] = np.nan  # not counted
    assert scores_by_rate(scores, rates, images)["standard_error"]["mixed"] == pytest.approx(error)
    others = np.tile(range(60), 2)  # each at two rates: the mean of its hits
    pairs = scores[:, 0].reshape(2, 60)
    expected = np.nanmean(pairs, 0).std() / np.sqrt(60)
    found = scores_by_rate(scores, rates, others)["standard_error"]
    assert found["mixed"] == pytest.approx(expected)


def test_a_rate_without_a_counted_query_has_no_score():
    query = with_rates(records((1, 0), (7, 0)), [2, 4])
    result = evaluate_rates([[0.1], [0.1]], query, records((1, 1)))
    assert result["per_rate"]["2"]["rank1"] == 100 and result["per_rate"]["4"] is None
    assert result["queries"] == {"2": 1, "4": 0, "mixed": 1}
    assert result["standard_error"] == {"2": 0.0, "4": None, "mixed": 0.0}


def test_summary_by_hand():
    runs = [{"rank1": 70.0, "mAP": 50.0}, {"rank1": 72.0, "mAP": 50.0}, {"rank1": 77.0, "mAP": 50}]
    summary = summarise(runs)
    # Deviations -3, -1 and 4 from 73: sqrt(26 / 2); t of 2 degrees is 4.30265.
    half = 4.30265 * math.sqrt(13) / math.sqrt(3)
    assert summary["rank1"] == pytest.approx(
        {"mean": 73, "deviation": math.sqrt(13), "low": 73 - half, "high": 73 + half, "runs": 3}
    )
    assert summary["mAP"] == {"mean": 50, "deviation": 0, "low": 50, "high": 50, "runs": 3}


def test_summary_of_what_is_nested_missing_or_alone():
    run = {"per_rate": {"2": {"rank1": 10.0}, "4": None}, "mixed": {"rank1": 20.0}}
    summary = summarise([run, run])
    assert summary["per_rate"]["2"]["rank1"]["mean"] == 10 and summary["per_rate"]["4"] is None
    alone = {"mean": 20.0, "deviation": None, "low": None, "high": None, "runs": 1}
    assert summarise([run])["mixed"]["rank1"] == alone
    with pytest.raises(InputError, match=r"different scores, rank1 and mAP: sum up runs of one"):
        summarise([{"rank1": 1.0}, {"mAP": 1.0}])
    with pytest.raises(InputError, match="no runs"):
        summarise([])


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(10)
    covered = 0
    for _ in range(2000):
        found = summarise([{"rank1": value} for value in rng.normal(60, 5, 4)])["rank1"]
        covered += found["low"] <= 60 <= found["high"]
    assert 0.93 < covered / 2000 < 0.97


def test_students_t_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    degrees = [*range(1, 40), 99, 999, 10**6]
    np.testing.assert_allclose(
        [student_t(n) for n in degrees], stats.t.ppf(0.975, degrees), rtol=1e-5
    )


# --- distances from elsewhere, and those that do not fit in memory --------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_feature_distances_are_the_formulas(metric):
    rng = np.random.default_rng(11)
    q, g = rng.normal(size=(7, 5)), rng.normal(size=(9, 5))
    if metric == "cosine":
        expected = [[1 - a @ b / np.sqrt(a @ a * (b @ b)) for b in g] for a in q]
    else:
        expected = [[np.sqrt(np.sum((a - b) ** 2)) for b in g] for a in q]
    distances = feature_distances(q, g, metric)
    assert distances.shape == (7, 9) and distances[:].dtype == "float32"
    np.testing.assert_allclose(distances[:], expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(distances[2:4].shape, (2, 9))
    np.testing.assert_allclose(distances[2:4], expected[2:4], rtol=0, atol=2e-6)
    assert feature_distances(q, q, metric)[:].min() >= 0
    with pytest.raises(InputError, match="unknown metric 'dot': choose from cosine, euclidean"):
        feature_distances(q, g, "dot")
    with pytest.raises(InputError, match=r"shape \(7, 5\) cannot be compared with .* \(9, 4\)"):
        feature_distances(q, g[:, :4])


@pytest.mark.parametrize("source", ["lazy", "memmap", "hdf5", "tensor", "list"])
def test_distances_from_anywhere(source, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_VALUES", 100)
    distances, query, gallery = random_case(np.random.default_rng(12))
    distances = distances.astype("float32")
    if source == "lazy":
        given = LazyDistances(lambda rows: distances[rows], distances.shape)
    elif source == "memmap":
        np.save(tmp_path / "distances.npy", distances)
        given = np.load(tmp_path / "distances.npy", mmap_mode="r")
    elif source == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "distances.h5", "w") as file:
            given = file.create_dataset("distances", data=distances)
            assert evaluate_ranking(given, query, gallery) == evaluate_ranking(
                distances, query, gallery
            )
        return
    elif source == "tensor":
        import keras

        given = keras.ops.convert_to_tensor(distances)
    else:
        given = distances.tolist()
    for shots in (None, 1):
        assert evaluate_ranking(given, query, gallery, shots) == evaluate_ranking(
            distances, query, gallery, shots
        )


def test_memory_is_bounded():
    """300 x 60,000 distances would take 72 MB; two blocks of 4 MB and the gallery are enough."""
    rng = np.random.default_rng(13)
    gallery = records(*zip(rng.integers(1, 5000, 60_000), rng.integers(0, 2, 60_000), strict=True))
    query = records(*((int(person), 2) for person in rng.integers(1, 5000, 300)))
    distances = feature_distances(rng.random((300, 4)), rng.random((60_000, 4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_VALUES", 1_000_000)
        tracemalloc.start()
        evaluate_ranking(distances, query, gallery)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 30e6


def test_what_is_right_is_kept_once_for_a_person_and_a_camera():
    """2,000 queries of 5 people among 20,000 images: an array for each query would take 64 MB."""
    gallery = records(*((i % 5, i % 7) for i in range(20_000)))
    query = records(*((i % 5, i % 3) for i in range(2_000)))
    for call in (ranking.matches_and_junk, counted_queries):
        tracemalloc.start()
        found = call(query, gallery)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6
    assert found.all()
    gallery = records((1, 1), (2, 1), (2, 2), (None, 3), (-1, 4), ("-1", 5))
    query = records((1, 1), (1, 2), (2, 1), (3, 1), (None, 1), (-1, 1), ("-1", 1), ("1", 2))
    assert counted_queries(query, gallery).tolist() == [False, True, True] + [False] * 5
    assert counted_queries([], gallery).shape == (0,)


def test_a_block_of_another_shape_is_refused():
    distances = LazyDistances(lambda rows: np.zeros((1, 1)), (2, 1))
    with pytest.raises(InputError, match=r"queries 0 to 1 have shape \(1, 1\), expected \(2, 1\)"):
        evaluate_ranking(distances, records((1, 0), (1, 0)), records((1, 1)))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_that_are_no_numbers_are_refused(metric):
    good, bad = np.ones((3, 4)), np.ones((3, 4))
    bad[1, 2] = np.nan
    with pytest.raises(InputError, match=r"1 features are not finite, that of query 1 "):
        feature_distances(bad, good, metric)
    bad[1:, 2] = np.inf
    with pytest.raises(InputError, match=r"2 features are not finite, that of gallery image 1 "):
        feature_distances(good, bad, metric)


def test_what_is_normalised_is_kept_and_what_is_not_kept_is_small(monkeypatch):
    """A system's distances by blocks, bit by bit, with one normalisation of the gallery."""
    from keras_xreid.evaluation import distances

    model = xr.Baseline(5, backbone="osnet_x0_25", image_size=(64, 32))
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 512)).astype("float32") for n in (9, 200))
    called, unit = [], distances.unit
    monkeypatch.setattr(distances, "unit", lambda x: called.append(len(x)) or unit(x))
    lazy = distances.model_distances(model, query, gallery, 4)
    for rows in (slice(0, 4), slice(4, 9)):
        np.testing.assert_array_equal(lazy[rows], model.distances(query[rows], gallery, 4))
    assert called == [200, 9]
    apart = [1 - np.float64(q) @ g / np.linalg.norm(q) / np.linalg.norm(g)
             for q in query for g in gallery]  # fmt: skip
    np.testing.assert_allclose(lazy[0:9].ravel(), apart, atol=1e-6)
    gallery = np.ones((100_000, 64), "float32")  # 26 MB, and 0.8 MB of distances
    tracemalloc.start()
    model.distances(query[:2, :64], gallery)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8e6

    class Own(type(model)):
        def distances(self, query_features, gallery_features, query_rates=None):
            return np.full((len(query_features), len(gallery_features)), query_rates, "float32")

    lazy = distances.model_distances(Own.from_config(model.get_config()), query, gallery, 4)
    assert (lazy[0:2] == 4).all()  # whoever measures in another way is asked


def test_bad_input():
    query, gallery = records((1, 0)), records((1, 1), (2, 1))
    with pytest.raises(InputError, match=r"shape \(1, 3\), expected \(1, 2\)"):
        evaluate_ranking(np.zeros((1, 3)), query, gallery)
    with pytest.raises(InputError, match=r"query 0 and gallery image 1 .* not a number"):
        evaluate_ranking([[0.1, np.nan]], query, gallery)
    with pytest.raises(InputError, match="gallery_shots is 2"):
        evaluate_ranking([[0.1, 0.2]], query, gallery, gallery_shots=2)
    with pytest.raises(InputError, match="none of the 1 queries"):
        evaluate_ranking([[0.1, 0.2]], records((3, 0)), gallery)
    with pytest.raises(InputError, match="none of the 1 queries"):
        evaluate_ranking([[0.1]], records((-1, 0)), records((-1, 1)), gallery_shots=1)
    with pytest.raises(InputError, match="none of the 1 queries"):  # nobody knows who they are
        evaluate_ranking([[0.1, 0.2]], records((None, 0)), records((None, 1), (2, 1)))
    with pytest.raises(InputError, match="none of the 0 queries"):
        evaluate_ranking(np.zeros((0, 2)), [], gallery)
    with pytest.raises(InputError, match="draws is 10 with gallery_shots None"):
        evaluate_ranking([[0.1, 0.2]], query, gallery, draws=10)
    with pytest.raises(InputError, match="draws is 0: give 1 or more"):
        evaluate_ranking([[0.1, 0.2]], query, gallery, 1, draws=0)
    with pytest.raises(InputError, match=r"query 1_0.png has no rate: give `rates`"):
        evaluate_rates([[0.1, 0.2]], with_rates(records((1, 0)), [None]), gallery)
    with pytest.raises(InputError, match="2 rates were given for 1 queries"):
        evaluate_rates([[0.1, 0.2]], query, gallery, rates=[2, 4])


def test_distances_among_compare_two_images_on_what_both_have():
    apart = np.random.default_rng(0).uniform(1, 2, (9, 9))
    told = np.arange(9)

    def measure(query, gallery, query_rates):
        assert query_rates is told
        return apart

    found = distances_among(measure, np.zeros((9, 4)), told)
    np.testing.assert_array_equal(found, np.minimum(apart, apart.T) * (1 - np.eye(9)))
