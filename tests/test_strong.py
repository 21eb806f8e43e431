"""The field's tricks that `preset="strong"` turns on: each by itself, against values by hand."""

import hashlib
import importlib.util

import keras
import numpy as np
import pytest
from small import PEOPLE, SIZE, Levels, arrays, couples, fill, step

import keras_xreid as xr
from keras_xreid.data.resolution import KERNELS, degrade, lr_rates, rate_range, resize
from keras_xreid.layers.head import build_reid_network
from keras_xreid.training.schedules import RisingAndFalling

pytestmark = pytest.mark.backend


def strong(**options):
    """A strong baseline as a toy: its backbone is small, all else is the preset's."""
    return fill(xr.Baseline(PEOPLE, preset="strong", backbone=Levels(), image_size=SIZE, **options))


def test_the_preset_turns_the_tricks_on():
    model = strong()
    assert model.neck and model.flip and model.triplet == 1 and model.label_smoothing == 0.1
    assert xr.Baseline(PEOPLE, preset="tiny", backbone=Levels(), image_size=SIZE).neck is False
    assert strong(flip=False, neck=False, triplet=0.0).get_config()["neck"] is False
    again = xr.Baseline.from_config(model.get_config())
    assert again.neck and again.flip and len(again.network.outputs) == 3


def test_the_neck_normalises_without_a_shift():
    """(v - mean) / sqrt(variance + 1e-5) x gamma over the batch; the classifier has no bias."""
    network = fill(build_reid_network(PEOPLE, Levels(), SIZE, neck=True))
    images = couples()["hr"].astype("float32") / 255
    embedding, logits, raw = arrays(network(images, training=True))
    gamma = arrays(network.get_layer("neck").gamma)[0]
    by_hand = (raw - raw.mean(0)) / np.sqrt(raw.var(0) + 1e-5) * gamma
    np.testing.assert_allclose(embedding, by_hand, rtol=1e-3, atol=1e-4)
    (kernel,) = arrays(network.get_layer("classifier").weights)
    np.testing.assert_allclose(logits, embedding @ kernel, rtol=1e-4, atol=1e-5)
    assert network.get_layer("neck").beta is None


def test_the_triplet_compares_what_lies_before_the_neck(monkeypatch):
    compared = {}
    model = strong()
    found = xr.models.baseline.losses.triplet

    def spy(features, labels, margin):
        compared.update(features=arrays(features)[0], margin=margin)
        return found(features, labels, margin)

    monkeypatch.setattr(xr.models.baseline.losses, "triplet", spy)
    images = couples()["hr"].astype("float32") / 255
    model._terms({"image": keras.ops.convert_to_tensor(images), "person": np.array([0, 0, 1, 1])})
    raw = arrays(model.network(images, training=True))[2]
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(compared["features"], unit, rtol=1e-4, atol=1e-6)
    assert compared["margin"] == 0.3


def test_flip_is_the_mean_of_two_embeddings():
    model, images = strong(), couples()["hr"]
    plain = model.embed(images, flip=False)
    mirrored = model.embed(images[:, :, ::-1], flip=False)
    np.testing.assert_allclose(model.embed(images, flip=True), (plain + mirrored) / 2, atol=1e-6)
    np.testing.assert_array_equal(model.embed(images), model.embed(images, flip=True))
    assert np.abs(plain - mirrored).max() > 1e-3
    model.flip = False
    np.testing.assert_array_equal(model.embed(images), plain)


def test_l2_is_in_the_gradient():
    """One step of Adam with L2 and no loss: torch.optim.Adam(weight_decay=...) does lr sign(w)."""
    model = strong()
    model.phases = lambda: [
        xr.Phase(("network",), lambda batch: {"id": 0.0 * keras.ops.sum(batch["image"])}, ("id",))
    ]
    model.compile({"network": keras.optimizers.SGD(0.1)}, run_eagerly=True, l2={"network": 0.5})
    before = arrays(model.network.trainable_variables)
    step(model, {"image": couples()["hr"], "person": couples()["person"]})
    for old, new in zip(before, arrays(model.network.trainable_variables), strict=True):
        np.testing.assert_allclose(new, old - 0.1 * 0.5 * old, rtol=1e-5, atol=1e-7)
    again = keras.saving.deserialize_keras_object(model.get_compile_config())
    assert again["l2"] == {"network": 0.5}
    with pytest.raises(ValueError, match="decoder"):
        model.compile({"network": "sgd"}, l2={"decoder": 1.0})


# --- batches ---------------------------------------------------------------------------------


@pytest.fixture
def records(tmp_path):
    from PIL import Image

    rng, made = np.random.default_rng(0), []
    for person in range(4):
        for i in range(4):
            path = tmp_path / f"{person}_{i}.png"
            Image.fromarray(rng.integers(0, 255, (64, 32, 3), dtype="uint8")).save(path)
            made.append(xr.Record(path=str(path), person=f"p{person}", camera=i))
    return made


def test_a_range_of_rates():
    assert rate_range("1..4") == rate_range(("1..4",)) == (1, 4)
    assert rate_range((2, 3, 4)) is None and lr_rates(["1..4"]) == (2, 3, 4)
    assert lr_rates((1, 2, 8)) == (2, 8) and lr_rates("2..4.5") == (3, 4)
    for wrong in ("4..1", "0..4", "1-4", ("1..4", 8)):
        with pytest.raises(xr.InputError, match=r"1\.\.4"):
            rate_range(wrong)


def test_rates_of_a_range_are_drawn_evenly(records):
    plain = {"crop": False, "flip": False, "image_size": (64, 32)}
    batches = xr.ImageBatches(records, rates="1..4", batch_size=16, **plain)
    rates = np.concatenate([batches.batch(epoch, 0)["rate"] for epoch in range(200)])
    assert rates.dtype == np.float32 and rates.min() == 1 and rates.max() <= 4
    assert abs(np.mean(rates == 1) - 1 / 3) < 0.03
    low = rates[rates > 1]
    assert abs(low.mean() - 2.5) < 0.06 and abs(np.quantile(low, 0.25) - 1.75) < 0.1
    pairs = xr.PairBatches(records, rates="1..4", batch_size=16, **plain)
    assert pairs.batch(0, 0)["rate"].min() > 1  # the HR image is there beside
    again = xr.PairBatches(records, rates="1..4", batch_size=16, **plain)
    for name, value in pairs.batch(3, 0).items():
        np.testing.assert_array_equal(value, again.batch(3, 0)[name])


def test_each_image_draws_a_kernel(records):
    """Every LR image is one that a kernel of Pillow makes, and all of them occur."""
    batches = xr.PairBatches(
        records, rates=(2,), batch_size=16, crop=False, flip=False, image_size=(64, 32),
        kernel="random",
    )  # fmt: skip
    found = set()
    for epoch in range(4):
        batch = batches.batch(epoch, 0)
        for hr, lr in zip(batch["hr"], batch["lr"], strict=True):
            same = [
                name for name in KERNELS
                if np.array_equal(resize(degrade(hr, 2, name), (64, 32)), lr)
            ]  # fmt: skip
            assert same
            found.update(same)
    assert found == set(KERNELS)
    with pytest.raises(xr.InputError, match="nearest"):
        xr.PairBatches(records, kernel="nearest")


def test_a_schedule_rises_and_falls_in_each_period():
    rate = RisingAndFalling(1e-3, steps=100, warm=10, periods=2)
    at = {
        step: float(keras.ops.convert_to_numpy(rate(step))) for step in (0, 5, 10, 30, 49, 50, 60)
    }
    by_hand = {0: 1e-4, 5: 5.5e-4, 10: 1e-3, 30: 5e-4, 50: 1e-4, 60: 1e-3}
    for step_, value in by_hand.items():
        assert at[step_] == pytest.approx(value, rel=1e-4), step_
    assert at[49] < 2e-6
    again = RisingAndFalling.from_config(rate.get_config())
    assert float(keras.ops.convert_to_numpy(again(30))) == pytest.approx(5e-4, rel=1e-4)


# --- recipes ---------------------------------------------------------------------------------

recipes = pytest.mark.skipif(
    importlib.util.find_spec("tyro") is None,
    reason='recipes need pip install -e ".[recipes]"',
)


@recipes
@pytest.mark.parametrize("name", ["baseline", "intact", "rain", "cadnet", "adaptive"])
def test_a_preset_brings_defaults_that_the_command_line_overrides(name):
    from keras_xreid.app import recipes, settings

    kind = recipes.options(name)
    plain, strong = settings.parsed(kind, []), settings.parsed(kind, ["--preset", "strong"])
    assert strong.neck and strong.flip and strong.erase and strong.label_smoothing == 0.1
    assert strong.train_rates == ("1..4",) and strong.kernel == "random" and strong.l2 == 5e-4
    assert not (plain.neck or plain.flip or plain.erase or plain.l2 or plain.label_smoothing)
    images = strong.batch_size * (1 if name == "baseline" else 2)  # a pair is two
    assert images == 64 and strong.weights == "imagenet"
    # 16 people, of each of which there are four images.
    assert strong.batch_size == 16 * strong.images_per_person
    given = settings.parsed(kind, ["--preset=strong", "--no-erase", "--neck", "--l2", "0"])
    assert given.erase is False and given.neck and given.l2 == 0 and given.flip
    assert settings.parsed(kind, ["--train-rates", "2", "3.5"]).train_rates == (2.0, 3.5)


@recipes
def test_the_command_is_kept_as_typed(monkeypatch, tmp_path):
    from keras_xreid.app import recipes as known
    from keras_xreid.app import settings
    from keras_xreid.app.provenance import command_typed

    run = tmp_path / "other run"
    run.mkdir()
    (run / "model.weights.h5").write_bytes(b"weights")
    words = ["--preset", "strong", "--data-dir=/data/people", "--weights", str(run), "--out", "x"]
    monkeypatch.setattr("sys.argv", ["/there/recipes/baseline.py", *words, "--resume"])
    command, sha256 = command_typed("baseline")
    expected = "python recipes/baseline.py --preset strong --data-dir DIR --weights RUN"
    assert command == f"KERAS_BACKEND={keras.backend.backend()} {expected}"
    assert sha256 == hashlib.sha256(b"weights").hexdigest()
    for spelled in (["--data_dir=/data/people"], ["--data_dir", "/data/people"]):
        told, _ = command_typed("baseline", [*words[:2], *spelled, *words[3:]])
        assert told == command
    assert (
        settings.parsed(known.options("baseline"), spelled).data_dir == "/data/people"
    )  # the parser takes it
    words[4] = next(iter(xr.published()))
    monkeypatch.setattr("sys.argv", ["baseline.py", *words])
    assert command_typed("baseline")[1] is None
