"""The protocol each-rate with a model whose scores can be worked out another way."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from keras_xreid.data.rate import estimate_rate
from keras_xreid.data.records import DataSet
from keras_xreid.data.resolution import prepare_images
from keras_xreid.errors import InputError
from keras_xreid.evaluation import evaluate as module
from keras_xreid.evaluation import image_quality, speed
from keras_xreid.evaluation.evaluate import evaluate
from keras_xreid.evaluation.image_quality import psnr, ssim
from keras_xreid.evaluation.ranking import SCORES, evaluate_ranking, standard_error
from keras_xreid.evaluation.speed import query_ms

SIZE = (32, 16)


class Picture(SimpleNamespace):
    """A record that holds its pixels."""

    kernel = key = None

    def read(self):
        return self.pixels

    def original(self):
        return self


def drawn_data(people=12, seed=0):
    """People of fine random texture, stored larger than the network's size, with camera noise."""
    rng = np.random.default_rng(seed)
    textures = rng.integers(116, 140, (people, 32, 16, 3)).repeat(2, axis=1).repeat(2, axis=2)

    def shots(cameras):
        return [
            Picture(
                path=f"{person}_{camera}.png",
                person=person + 1,
                camera=camera,
                pixels=np.clip(texture + rng.normal(0, 30, texture.shape), 0, 255).astype("uint8"),
            )
            for person, texture in enumerate(textures)
            for camera in cameras
        ]

    return DataSet("drawn", [], shots([0]), shots([0, 1, 2]), root="somewhere")


class Plain:
    """Pixels are the features."""

    image_size = SIZE

    def __init__(self):
        self.told = []

    def embed(self, images, rates=None, batch_size=64):
        self.told.append((len(images), rates))
        return images.reshape(len(images), -1).astype("float32") - 128

    def distances(self, query, gallery, query_rates=None):
        self.told.append(("distances", query_rates))
        return np.linalg.norm(query[:, None] - gallery[None], axis=2)


class Recovering(Plain):
    """Recovers an image by making it brighter, and embeds what it recovered."""

    recovery_can_be_left_out = True

    def embed(self, images, rates=None, batch_size=64):
        if rates != 1:
            images = np.rint(self.recover(images) * 255)
        return super().embed(images, rates)

    def recover(self, images, batch_size=64):
        return np.minimum(images.astype("float32") / 255 + 0.1, 1)


@pytest.mark.parametrize("part", [5, 1024])
def test_a_plain_model(monkeypatch, part):
    monkeypatch.setattr(module, "READ_AT_A_TIME", part)
    data, model = drawn_data(), Plain()
    results = evaluate(model, data, rates=(1, 2, 4, 8), verbose=False).scores
    gallery = prepare_images(data.gallery, SIZE)
    for rate in (1, 2, 4, 8):
        query = prepare_images(data.query, SIZE, rates=rate)
        distances = Plain().distances(Plain().embed(query), Plain().embed(gallery))
        expected = evaluate_ranking(distances, data.query, data.gallery)
        assert results["per_rate"][str(rate)] == pytest.approx(expected)
        error = standard_error(expected["rank1"], 12)
        assert results["standard_error"][str(rate)] == pytest.approx(error)
    assert results["per_rate"]["1"]["rank1"] > results["per_rate"]["8"]["rank1"]
    # 3 was not scored and 8 was not trained, so neither counts in the mean.
    means = [np.mean([results["per_rate"][r][s] for r in ("2", "4")]) for s in SCORES]
    assert list(results["mean_lr"].values()) == pytest.approx(means)
    assert results["queries"] == 12
    assert results["enlarged"] is None and results["image_quality"] is None
    json.dumps(results)


def test_the_gallery_is_embedded_once_and_rates_are_told():
    model = Plain()
    evaluate(model, drawn_data(), rates=(1, 3), verbose=False)
    assert model.told[:-1] == [(36, 1), (12, 1), ("distances", 1), (12, 3), ("distances", 3)]
    # The last are the distances between a map's points, each told its own rate.
    assert model.told[-1][1].tolist() == [1] * 12 + [3] * 12


def test_a_rate_can_be_told_otherwise():
    model = Plain()
    told = evaluate(model, drawn_data(), rates=(1, 3), told_rates={3: 2}, verbose=False)
    assert model.told[:-1] == [(36, 1), (12, 1), ("distances", 1), (12, 2), ("distances", 2)]
    plain = evaluate(Plain(), drawn_data(), rates=(1, 3), verbose=False)
    assert told.scores["per_rate"] == plain.scores["per_rate"]


def test_a_rate_can_be_estimated():
    """Each query is told what `estimate_rate` sees in it, shrunk and enlarged; the gallery 1."""
    model, data = Plain(), drawn_data()
    evaluate(model, data, rates=(4,), told_rates="estimated", verbose=False)
    (_, of_gallery), (_, of_queries), (_, compared), _ = model.told
    wanted = estimate_rate(prepare_images(data.query, model.image_size, 4))
    assert of_gallery == 1 and len(set(wanted)) > 1
    np.testing.assert_array_equal(of_queries, wanted)
    np.testing.assert_array_equal(compared, wanted)


def test_what_is_told_of_a_query_is_not_told_of_the_gallery():
    model = Plain()
    evaluate(model, drawn_data(), rates=(1,), told_rates={1: 2}, verbose=False)
    assert model.told[:-1] == [(36, 1), (12, 2), ("distances", 2)]


def test_a_gallery_shrunk_like_the_query():
    data, model = drawn_data(), Plain()
    model.gallery_at_query_rate = True
    results = evaluate(model, data, rates=(2, 4), verbose=False).scores
    assert model.told[:-1] == [
        (36, 2),
        (12, 2),
        ("distances", 2),
        (36, 4),
        (12, 4),
        ("distances", 4),
    ]
    query, gallery = (prepare_images(x, SIZE, rates=4) for x in (data.query, data.gallery))
    distances = Plain().distances(Plain().embed(query), Plain().embed(gallery))
    expected = evaluate_ranking(distances, data.query, data.gallery)
    assert results["per_rate"]["4"] == pytest.approx(expected)


def test_a_model_that_recovers(capsys):
    pytest.importorskip("skimage")
    data, model = drawn_data(), Recovering()
    result = evaluate(model, data, rates=(1, 2, 4))
    results = result.scores
    plain = evaluate(Plain(), data, rates=(1, 2, 4), verbose=False).scores
    # The control is the same model without recovery, at rate 1 the model itself.
    assert results["enlarged"]["per_rate"] == plain["per_rate"]
    assert results["enlarged"]["mean_lr"] == plain["mean_lr"]
    assert results["per_rate"]["1"] == plain["per_rate"]["1"]
    assert results["per_rate"]["4"] != plain["per_rate"]["4"]
    assert set(results["image_quality"]) == {"2", "4"}
    originals = prepare_images(data.query, SIZE) / 255
    low = prepare_images(data.query, SIZE, rates=4)
    quality = results["image_quality"]["4"]
    assert quality["psnr"] == pytest.approx(psnr(model.recover(low), originals), abs=1e-4)
    assert quality["ssim"] == pytest.approx(ssim(model.recover(low), originals), abs=1e-5)
    enlarged = results["enlarged"]["image_quality"]["4"]
    assert enlarged["psnr"] == pytest.approx(psnr(low / 255, originals), abs=1e-4)
    assert enlarged["ssim"] == pytest.approx(ssim(low / 255, originals), abs=1e-5)
    assert quality["lpips"] is None
    assert [list(trial.query) for trial in result.trials] == [
        ["plain"],
        *[["plain", "upscaled"]] * 2,
    ]
    assert all(len(trial.gallery["plain"]) == 36 for trial in result.trials)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "rate 4: rank-1" in lines[-1] and "upscaled" in lines[-1]


def test_a_model_that_recovers_beside_its_embedding(capsys):
    pytest.importorskip("skimage")

    class Beside(Plain):
        recover = Recovering.recover

    data, model = drawn_data(), Beside()
    result = evaluate(model, data, rates=(1, 2, 4))
    results = result.scores
    plain = evaluate(Plain(), data, rates=(1, 2, 4), verbose=False).scores
    assert results["per_rate"] == plain["per_rate"]
    # It has no control: a score without recovery would be the score itself.
    enlarged = results["enlarged"]
    assert enlarged["per_rate"] is enlarged["mean_lr"] is enlarged["standard_error"] is None
    assert all(list(trial.query) == ["plain"] for trial in result.trials)
    assert [told for told in model.told if told[0] == 12] == [(12, 1), (12, 2), (12, 4)]
    # The images are measured as they are for a model with a control.
    measured = evaluate(Recovering(), data, rates=(1, 2, 4), verbose=False).scores
    assert results["image_quality"] == measured["image_quality"]
    assert enlarged["image_quality"] == measured["enlarged"]["image_quality"]
    assert "upscaled" not in capsys.readouterr().out
    json.dumps(results)


def test_scores_survive_without_scikit_image(monkeypatch, capsys):
    monkeypatch.setattr(image_quality.importlib.util, "find_spec", lambda name: None)
    results = evaluate(Recovering(), drawn_data(), rates=(2,), verbose=False).scores
    assert results["image_quality"]["2"] == {"ssim": None, "psnr": None, "lpips": None}
    assert results["per_rate"]["2"]["rank1"] >= 0
    assert ".[recipes]" in capsys.readouterr().out


def test_no_trained_rate_was_scored():
    results = evaluate(Plain(), drawn_data(), rates=(1, 8), verbose=False).scores
    assert results["mean_lr"] is None


def test_trained_rates_may_be_a_range():
    found = [
        evaluate(Plain(), drawn_data(), rates=(1, 2, 4, 8), train_rates=trained, verbose=False)
        for trained in ("1..4", (2, 3, 4))
    ]
    assert found[0].scores == found[1].scores


def test_bad_input():
    data = drawn_data()
    with pytest.raises(InputError, match=r"protocol paper was asked for, .* each-rate"):
        evaluate(Plain(), data, protocol="paper")
    with pytest.raises(InputError, match="unknown protocol 'mine'"):
        evaluate(Plain(), data, protocol="mine")
    model = Plain()
    for options, words in (
        ({"rates": (0.5, 2)}, "rate 0.5 is below 1"), ({"rates": ()}, "give at least one"),
        ({"rates": 2}, "rates 2: give a list"), ({"rates": "1..4"}, "numbers, no range"),
        ({"train_rates": 4}, "rates 4: give a list"), ({"train_rates": "1-4"}, "a range such as"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            evaluate(model, data, **options)
    assert not model.told  # before any work
    data.gallery = [record for record in data.gallery if record.camera == 0]
    with pytest.raises(InputError, match="none of the 12 queries"):
        evaluate(Plain(), data)


def test_a_query_is_timed_alone(monkeypatch):
    class Slow(Plain):
        def embed(self, images, rates=None, batch_size=64):
            if len(images) == 1:
                clock[0] += next(durations)
            return super().embed(images, rates)

    clock, durations = [0.0], iter([9.0, 0.01, 0.05, 0.02, 0.04, 0.03])
    model = Slow()
    result = evaluate(model, drawn_data(), rates=(1, 4), verbose=False)
    model.told.clear()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    # The first one compiles; the median of 10, 50, 20, 40 and 30 ms is 30.
    assert query_ms(model, result, seconds=99) == pytest.approx(30)
    assert model.told == [(1, 4), ("distances", 4)] * 6
    durations = iter([9.0, 0.01])
    assert query_ms(model, result) == pytest.approx(10)  # the time is up
