"""k-reciprocal re-ranking against its formulas, written with sets and loops, and torchreid's."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_xreid.errors import InputError
from keras_xreid.evaluation import reranking
from keras_xreid.evaluation.distances import LazyDistances, feature_distances
from keras_xreid.evaluation.ranking import evaluate_ranking
from keras_xreid.evaluation.reranking import rerank


def by_the_formulas(distances, queries, k1, k2, weight):
    """Eq. 2 to 12 of the paper as its authors' code has them, image by image."""
    everyone = range(len(distances))
    d = [[distances[p][i] / max(distances[p]) for i in everyone] for p in everyone]

    def nearest(p, k):
        return sorted(everyone, key=lambda i: (i != p, d[p][i], i))[:k]

    def reciprocal(p, k):
        return {i for i in nearest(p, k + 1) if p in nearest(i, k + 1)}

    first = [reciprocal(p, k1) for p in everyone]
    half = [reciprocal(p, round(k1 / 2)) for p in everyone]
    encodings = []
    for p in everyone:
        members = set(first[p])
        for candidate in first[p]:
            if len(first[p] & half[candidate]) > 2 / 3 * len(half[candidate]):
                members |= half[candidate]
        encodings.append([math.exp(-d[p][i]) if i in members else 0.0 for i in everyone])
    encodings = np.array([np.array(encoding) / sum(encoding) for encoding in encodings])
    if k2 > 1:
        encodings = np.array([encodings[nearest(p, k2)].mean(axis=0) for p in everyone])
    result = np.empty((queries, len(distances) - queries))
    for p in range(queries):
        for j, g in enumerate(everyone[queries:]):
            smaller = np.minimum(encodings[p], encodings[g]).sum()
            larger = np.maximum(encodings[p], encodings[g]).sum()
            result[p, j] = (1 - weight) * (1 - smaller / larger) + weight * d[p][g]
    return result


def people_around_centres(seed, people=12, images=6, noise=0.9, dimensions=8):
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), images)
    features = rng.normal(size=(people, dimensions))[person]
    return person, features + noise * rng.normal(size=features.shape)


@pytest.mark.parametrize("k1, k2, weight", [(5, 3, 0.3), (20, 6, 0.3), (7, 1, 0.0), (1, 2, 0.5)])
@pytest.mark.parametrize("block", [1, 10**7])
def test_equal_to_the_formulas(monkeypatch, block, k1, k2, weight):
    monkeypatch.setattr(reranking, "BLOCK_VALUES", block)
    _, features = people_around_centres(0)
    distances = feature_distances(features, features, "euclidean")[:].astype("float64")
    found = rerank(distances, 20, k1, k2, weight)
    assert found.shape == (20, 52)
    expected = by_the_formulas(distances, 20, k1, k2, weight)
    assert found[:].dtype == "float32"
    np.testing.assert_allclose(found[:], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[3:5], expected[3:5], rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 100, 1600, 10**7])
def test_each_two_images_are_compared_once(monkeypatch, block, metric):
    monkeypatch.setattr(reranking, "BLOCK_VALUES", block)
    _, features = people_around_centres(6)
    features[5] = features[40]  # equal distances to all others
    distances = feature_distances(features, features, metric)
    whole = distances[:].astype("float64")
    computed, pairs = [], distances.pairs

    def counted(rows, columns):
        found = pairs(rows, columns)
        computed.append(found.size if isinstance(rows, slice) else 0)
        return found

    distances.pairs = counted
    found = rerank(distances, 20, 7, 3)
    expected = by_the_formulas(whole, 20, 7, 3, 0.3)
    # The root of what rounding leaves between equal features is not that of another block.
    apart = {"cosine": 1e-6, "euclidean": 1e-4}[metric]
    side = min(math.isqrt(block), 72)
    assert sum(computed) <= 72 * (72 + side) // 2
    np.testing.assert_allclose(found[:], expected, rtol=0, atol=apart)


def test_equal_to_torchreids():
    """Recorded from re_ranking of torchreid 0.2.5, a port of the authors' code, k1=20, k2=6."""
    recorded = np.load(Path(__file__).parent / "recorded" / "torchreid_reranking.npz")["distances"]
    rng = np.random.RandomState(0)  # NumPy promises that its numbers stay as they are
    features = np.repeat(rng.normal(size=(30, 16)), 6, axis=0) + 0.9 * rng.normal(size=(180, 16))
    features = features[rng.permutation(180)]
    squared = np.sum((features[:, None] - features) ** 2, axis=-1)
    np.testing.assert_allclose(rerank(squared, 40)[:], recorded, rtol=0, atol=1e-5)


def test_equal_distances_keep_their_order():
    rng = np.random.default_rng(1)
    distances = rng.integers(1, 4, (40, 40)).astype("float64")
    distances = np.minimum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    expected = by_the_formulas(distances, 10, 6, 3, 0.3)
    np.testing.assert_allclose(rerank(distances, 10, 6, 3)[:], expected, rtol=0, atol=1e-6)


def test_by_hand():
    """Two pairs far apart; k1=1: each image and its partner are reciprocal, and nobody else."""
    near, far = 0.5, 2.0
    distances = np.full((4, 4), far)
    np.fill_diagonal(distances, 0)
    distances[0, 2] = distances[2, 0] = distances[1, 3] = distances[3, 1] = near
    found = rerank(distances, 2, k1=1, k2=1, weight=0.25)[:]
    # V of a pair is (1, e) and (e, 1) over 1 + e, e = exp(-0.5 / 2): smaller 2 e, larger 2.
    same = 0.75 * (1 - math.exp(-0.25)) + 0.25 * near / far
    np.testing.assert_allclose(found, [[same, 1], [1, same]], rtol=0, atol=1e-6)


def test_weight_of_one_is_the_original_ranking():
    _, features = people_around_centres(2)
    distances = feature_distances(features, features)
    found = rerank(distances, 10, weight=1)[:]
    largest = distances[:].max(axis=1)[:10, None]
    np.testing.assert_allclose(found, distances[:10][:, 10:] / largest, rtol=0, atol=1e-6)


def test_people_are_found_more_often():
    person, features = people_around_centres(3, people=40, images=8, noise=1.0, dimensions=24)
    order = np.argsort(np.arange(len(person)) % 8, kind="stable")  # a query of each person first
    person, features = person[order], features[order]
    records = [
        SimpleNamespace(person=int(p) + 1, camera=int(i >= 40), path=str(i))
        for i, p in enumerate(person)
    ]
    plain = feature_distances(features, features)
    before = evaluate_ranking(plain[:40][:, 40:], records[:40], records[40:])
    after = evaluate_ranking(rerank(plain, 40, k1=7, k2=3), records[:40], records[40:])
    assert after["mAP"] > before["mAP"] + 5


def test_rows_are_read_by_blocks_and_twice(monkeypatch):
    monkeypatch.setattr(reranking, "BLOCK_VALUES", 72 * 10)
    _, features = people_around_centres(4)
    whole, read = feature_distances(features, features)[:], []

    def function(rows):
        read.append((rows.start, rows.stop))
        return whole[rows]

    reranked = rerank(LazyDistances(function, whole.shape), 20)
    assert read == 2 * [(i, min(i + 10, 72)) for i in range(0, 72, 10)]
    read.clear()
    np.testing.assert_allclose(reranked[5:9], rerank(whole, 20)[5:9], rtol=0, atol=1e-6)
    assert read == [(5, 9)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_are_compared_once_where_pairs_can_be_asked_for(metric):
    _, features = people_around_centres(5)
    lazy, read = feature_distances(features, features, metric), []
    expected = rerank(lazy[:], 20)[:]

    def function(rows):
        read.append(rows)
        return lazy[rows]

    found = rerank(LazyDistances(function, lazy.shape, lazy.pairs), 20)
    assert read == [slice(0, 72)]
    # The square root of what rounding leaves of an image's distance to itself is 3e-4.
    np.testing.assert_allclose(found[:], expected, rtol=0, atol=1e-5)


def test_fewer_images_than_neighbours_and_equal_images():
    found = rerank(np.zeros((5, 5)), 2)[:]
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_bad_input():
    square = np.ones((6, 6))
    with pytest.raises(InputError, match=r"shape \(2, 4\): re-ranking takes those of all images"):
        rerank(np.zeros((2, 4)), 2)
    with pytest.raises(
        InputError, match="queries among 6 images is 6: give 1 or more, a whole number up to 5"
    ):
        rerank(square, 6)
    with pytest.raises(InputError, match="k1 is 0: give 1 or more"):
        rerank(square, 2, k1=0)
    with pytest.raises(InputError, match=r"weight is 1\.5: give 0 or more"):
        rerank(square, 2, weight=1.5)
    for wrong in (-0.5, np.nan, np.inf):
        broken = square.copy()
        broken[1, 4] = wrong
        with pytest.raises(InputError, match=r"images 0 to 5 begin at .* distances of 0 or more"):
            rerank(broken, 2)
