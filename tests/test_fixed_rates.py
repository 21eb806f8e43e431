"""Protocols that fix the rates, with a model whose scores can be worked out another way."""

import collections
import dataclasses
import json

import numpy as np
import pytest

import keras_xreid as xr
from keras_xreid.data.protocols import apply_protocol
from keras_xreid.data.resolution import prepare_images
from keras_xreid.evaluation.reranking import rerank
from keras_xreid.evaluation.speed import query_ms
from keras_xreid.report import run_figures
from keras_xreid.report.report import _about_scores
from keras_xreid.report.tables import score_table

PIL = pytest.importorskip("PIL.Image")
SIZE = (32, 16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 people, two cameras, two images each, on disk, shared out by the protocol `paper`."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    records = []
    for person in range(12):
        texture = rng.integers(100, 156, (32, 16, 3)).repeat(2, axis=0).repeat(2, axis=1)
        for camera in (1, 2):
            for shot in range(2):
                noisy = texture + rng.normal(0, 30, texture.shape)
                path = folder / f"{person}_{camera}_{shot}.png"
                PIL.fromarray(np.clip(noisy, 0, 255).astype("uint8")).save(path)
                records.append(xr.Record(str(path), f"p{person:02d}", camera))
    query = [r for r in records if r.camera == 1]
    gallery = [r for r in records if r.camera == 2]
    return xr.DataSet("csv", [], query, gallery, root=str(folder))


class Plain:
    """Pixels are the features; an image is told its rate."""

    image_size = SIZE

    def __init__(self):
        self.told = []

    def embed(self, images, rates=None, batch_size=64):
        self.told.append(rates if rates is None else np.broadcast_to(rates, len(images)).tolist())
        return images.reshape(len(images), -1).astype("float32") - 128

    def distances(self, query, gallery, query_rates=None):
        assert np.ndim(query_rates) == 0 or len(query_rates) == len(query)
        return np.linalg.norm(query[:, None] - gallery[None], axis=2)


class Recovering(Plain):
    recovery_can_be_left_out = True

    def embed(self, images, rates=None, batch_size=64):
        low = np.broadcast_to(rates, len(images)) > 1
        images = images.astype("float32")
        images[low] = self.recover(images[low] / 255) * 255
        return super().embed(images, rates)

    def recover(self, images, batch_size=64):
        scale = 255 if images.dtype == np.uint8 else 1
        return np.minimum(images.astype("float32") / scale + 0.1, 1)


@pytest.mark.parametrize("protocol, shots", [("paper", 1), ("multi-shot", None)])
def test_queries_come_with_their_rates(data, protocol, shots):
    fixed, model = apply_protocol(data, protocol), Plain()
    results = xr.evaluate(model, fixed, verbose=False).scores
    rates = [record.rate for record in fixed.query]
    assert model.told == [[1] * len(fixed.gallery), rates] and set(rates) == {2, 3, 4}
    query, gallery = (prepare_images(x, SIZE) for x in (fixed.query, fixed.gallery))
    distances = Plain().distances(Plain().embed(query), Plain().embed(gallery), rates)
    expected = xr.evaluate_ranking(distances, fixed.query, fixed.gallery, gallery_shots=shots)
    assert results["mixed"] == pytest.approx(expected)
    of_2 = [i for i, rate in enumerate(rates) if rate == 2]
    expected = xr.evaluate_ranking(
        distances[of_2], [fixed.query[i] for i in of_2], fixed.gallery, gallery_shots=shots
    )
    assert results["per_rate"]["2"] == pytest.approx(expected)
    means = [results["per_rate"][name]["rank1"] for name in ("2", "3", "4")]
    assert results["mean_lr"]["rank1"] == pytest.approx(np.mean(means))
    assert results["queries"] == len(rates) == sum(results["queries_per_rate"].values())
    assert results["enlarged"] is None and results["image_quality"] is None
    assert "all queries" in score_table(results)
    json.dumps(results)


class ByResolution(Plain):
    """Of a shrunk query only the first quarter of the features counts, as of `Adaptive`'s."""

    def distances(self, query, gallery, query_rates=None):
        first = query.shape[1] // 4
        low = np.broadcast_to(query_rates, len(query)) > 1
        few = np.linalg.norm(query[:, None, :first] - gallery[None, :, :first], axis=2)
        return np.where(low[:, None], few, super().distances(query, gallery, query_rates))


@pytest.mark.parametrize("protocol", ["paper-all-queries", "each-rate"])
def test_reranked_by_what_both_images_have(data, protocol):
    fixed = apply_protocol(data, protocol)
    results = xr.evaluate(ByResolution(), fixed, reranked=True, verbose=False).scores
    gallery = prepare_images(fixed.gallery, SIZE)

    def slow(query, rates):
        both = Plain().embed(np.concatenate([query, gallery]))
        expected = np.zeros((len(both), len(both)))
        for i, a in enumerate(both):
            for j, b in enumerate(both):
                counted = len(a) // 4 if max(rates[i], rates[j]) > 1 else len(a)
                expected[i, j] = np.linalg.norm(a[:counted] - b[:counted])
        shots = 1 if protocol != "each-rate" else None
        expected = rerank(expected, len(query))
        return xr.evaluate_ranking(expected, fixed.query, fixed.gallery, gallery_shots=shots)

    if protocol == "each-rate":  # all images are compared on what a query of the rate has
        images = len(fixed.query) + len(fixed.gallery)
        for rate in (1, 3):
            found = results["per_rate"][str(rate)]
            shrunk = prepare_images(fixed.query, SIZE, rates=rate)
            assert found == pytest.approx(slow(shrunk, [rate] * images))
    else:
        rates = [record.rate for record in fixed.query] + [1] * len(fixed.gallery)
        found = slow(prepare_images(fixed.query, SIZE), rates)
        assert results["mixed"] == pytest.approx(found)


def test_a_model_that_recovers_and_its_figures(data, tmp_path):
    for needed in ("skimage", "sklearn", "matplotlib"):
        pytest.importorskip(needed)
    fixed = apply_protocol(data, "paper-all-queries")
    result = xr.evaluate(Recovering(), fixed, verbose=False)
    results = result.scores
    plain = xr.evaluate(Plain(), fixed, verbose=False).scores
    assert results["enlarged"]["mixed"] == pytest.approx(plain["mixed"])
    assert results["mixed"] != pytest.approx(plain["mixed"])
    records = [record for record in fixed.query if record.rate == 4]
    shrunk = prepare_images(records, SIZE)
    originals = prepare_images([record.original() for record in records], SIZE)
    mse = np.mean((shrunk / 255 - originals / 255) ** 2, axis=(1, 2, 3))
    expected = np.mean(-10 * np.log10(mse))
    assert results["enlarged"]["image_quality"]["4"]["psnr"] == pytest.approx(expected, abs=1e-4)
    written = run_figures.draw_figures(tmp_path, result)
    names = {"rank1", "cmc", "recovered", "ranked", "tsne"}
    assert {path.stem for path in written} == names


def test_queries_that_are_of_low_resolution_by_themselves(data, tmp_path):
    for needed in ("skimage", "sklearn", "matplotlib"):
        pytest.importorskip(needed)

    class Beside(Plain):
        recover = Recovering.recover

    fixed = apply_protocol(data, "multi-shot")
    fixed.query = [xr.Record(r.path, r.person, r.camera, rate=r.rate) for r in fixed.query]
    result = xr.evaluate(Beside(), fixed, verbose=False)
    # Nobody has the originals, so nothing is compared with them and no strip is drawn.
    assert result.scores["image_quality"] == result.scores["enlarged"]["image_quality"] == {}
    written = run_figures.draw_figures(tmp_path, result)
    assert {path.stem for path in written} == {"rank1", "cmc", "ranked", "tsne"}


def test_what_is_refused(data):
    model = Plain()
    with pytest.raises(xr.InputError, match="loaded with paper"):
        xr.evaluate(model, apply_protocol(data, "paper"), protocol="each-rate")
    model.gallery_at_query_rate = True
    with pytest.raises(xr.InputError, match="score it with each-rate"):
        xr.evaluate(model, apply_protocol(data, "paper"))


def test_some_unknown_rates(data):
    """What is known is told and counted as ever: one query without a rate changes no other."""
    fixed = apply_protocol(data, "multi-shot")
    fixed.query = [xr.Record(r.path, r.person, r.camera, rate=r.rate) for r in fixed.query]
    whole = xr.evaluate(Plain(), fixed, verbose=False)
    few = {0, 7}
    fixed.query = [
        dataclasses.replace(r, rate=None) if i in few else r for i, r in enumerate(fixed.query)
    ]
    model = Plain()
    result = xr.evaluate(model, fixed, verbose=False)
    rates = [record.rate for record in fixed.query]
    assert model.told[1:] == [None, [rate for rate in rates if rate]]
    (trial,), (other,) = result.trials, whole.trials
    np.testing.assert_array_equal(trial.query["plain"], other.query["plain"])
    assert trial.compared_at.tolist() == [rate or 1 for rate in rates]
    scores, counts = result.scores, collections.Counter(filter(None, rates))
    assert scores["queries_per_rate"] == {f"{rate}": counts[rate] for rate in (2, 3, 4)}
    assert scores["queries"] == len(rates) and scores["mixed"] == whole.scores["mixed"]
    for rate in counts:
        rows = [i for i, own in enumerate(rates) if own == rate]
        expected = other.scores["plain"][rows, 0].mean()
        assert scores["per_rate"][f"{rate}"]["rank1"] == pytest.approx(expected)
    model.told.clear()
    query_ms(model, result, repeats=1)
    assert model.told == [None, None]
    assert "2 at a rate that nobody knows" in _about_scores({**scores, "protocol": "multi-shot"})


def test_unknown_rates(data):
    fixed = apply_protocol(data, "multi-shot")
    fixed.query = [xr.Record(r.path, r.person, r.camera) for r in fixed.query]
    model = Plain()
    results = xr.evaluate(model, fixed, verbose=False).scores
    assert model.told[-1] is None  # nothing is made up
    assert results["per_rate"] == {} and results["mixed"]["rank1"] > 0
    assert results["mean_lr"] is None
