"""The rate of an image, from its pixels."""

import numpy as np
import pytest
import small
from test_adaptation import made_data

import keras_xreid as xr
from keras_xreid.data.rate import bands


@pytest.fixture(scope="module")
def people():
    return xr.datasets.load("synthetic", limit=20).query[:40]


def test_bands_by_hand():
    """A wave of 16 periods a column lies in the fourth of 16 bands of 4 frequencies each."""
    row = 100 + 50 * np.sin(2 * np.pi * 15.5 * np.arange(128) / 128)
    image = np.repeat(np.repeat(row[:, None, None], 64, 1), 3, 2).round().astype("uint8")
    found = bands(image[None])[0]
    assert found.shape == (32,) and found[:16].argmax() == 3
    # Along rows nothing changes: what is left of the window is no wave.
    assert found[16:].max() < found[3] - 5


@pytest.mark.parametrize("rate", [2, 3, 4, 8])
def test_shrunk_and_enlarged(people, rate):
    found = xr.estimate_rate(xr.prepare_images(people, (128, 64), rate))
    assert found.dtype == np.float32 and found.shape == (len(people),)
    assert rate / 1.2 < np.median(found) < rate * 1.2


def test_as_they_are(people):
    """Images of rate 1, of any stored size; a list gives what an array gives."""
    assert np.median(xr.estimate_rate(people)) < 1.25
    images = xr.prepare_images(people[:5], (128, 64), 4)
    np.testing.assert_array_equal(xr.estimate_rate(list(images)), xr.estimate_rate(images))
    assert xr.estimate_rate([]).shape == (0,)
    flat = np.full((1, 128, 64, 3), 7, "uint8")
    assert 1 <= xr.estimate_rate(flat)[0] <= 16
    with pytest.raises(xr.InputError, match="expected uint8"):
        xr.estimate_rate(images / 255.0)


# --- what a wrong rate costs: tests/benchmarks/rate.py ---


def test_a_wrong_rate_is_scored_as_evaluate_does():
    rate = pytest.importorskip("rate")
    model, data = small.shared(small.adaptive), made_data()
    found = rate.wrong_rates(model, data)
    for told, scores in found.items():
        told_rates = dict.fromkeys(rate.TRUE, told)
        result = xr.evaluate(model, data, rate.TRUE, told_rates=told_rates, verbose=False)
        assert scores == [result.scores["per_rate"][f"{r}"]["rank1"] for r in rate.TRUE]
    assert found[4] == found[8] and found[1] != found[4]


@pytest.mark.parametrize("make", [small.baseline, small.rain, small.cadnet, small.distilled])
def test_these_systems_do_not_use_the_rate(make):
    model, images = small.shared(make), small.couples()["lr"]
    query, other = (model.embed(images, rate) for rate in (1, 8))
    np.testing.assert_array_equal(query, other)
    first, second = (model.distances(query, other, query_rates=rate) for rate in (1, 8))
    np.testing.assert_array_equal(first, second)


def test_intact_asks_only_whether_an_image_is_small():
    model, images = small.shared(small.intact), small.couples()["lr"]
    high, low, lower = (model.embed(images, rate) for rate in (1, 2, 8))
    np.testing.assert_array_equal(low, lower)
    assert np.abs(high - low).max() > 1e-3 * np.abs(high).max()
