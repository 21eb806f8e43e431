"""Blind degradation: each effect by hand, and draws that repeat."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from keras_xreid.data import camera as module
from keras_xreid.data.batches import ImageBatches, PairBatches
from keras_xreid.data.camera import camera
from keras_xreid.data.manifest import manifest_rows
from keras_xreid.data.records import DataSet, Record
from keras_xreid.data.resolution import degrade, prepare_images, resize
from keras_xreid.errors import InputError
from keras_xreid.evaluation.evaluate import evaluate

SIZE = (64, 32)


def smooth(height, width, seed=0):
    """An image with structure, as photographs have it, and not of noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return resize(coarse, (height, width))


@pytest.fixture
def records(tmp_path):
    found = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.fromarray(smooth(64, 32, number)).save(path)
        found.append(Record(str(path), number // 3, camera=number % 3 + 1))
    return found


class Fixed:
    """A generator whose uniform numbers are given, one after the other."""

    def __init__(self, *numbers, seed=0):
        self.numbers, self.rng = list(numbers), np.random.default_rng(seed)

    def random(self):
        return self.numbers.pop(0)

    def __getattr__(self, name):
        return getattr(self.rng, name)


def impulse(size=21):
    x = np.zeros((size, size, 3), "float32")
    x[size // 2, size // 2] = 1.0
    return x


def spread(x):
    """Variances along rows and columns about the middle, and the sum, of an impulse's image."""
    x = x[..., 0].astype(float)
    place = np.arange(len(x)) - len(x) // 2
    assert (x.sum(1) @ place, x.sum(0) @ place) == pytest.approx((0, 0), abs=1e-4)
    return x.sum(1) @ place**2, x.sum(0) @ place**2, x.sum()


# --- effects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "sampled"), [(0.5, 0.25), (0.7, 0.03), (1.0, 0.01)])
def test_gaussian_blur_has_its_deviation(strength, sampled):
    found = spread(module._blurred(impulse(), strength, Fixed(0.9, 0.8, 0.3)))  # no motion
    expected = (1.2 * 0.8 * strength) ** 2
    assert found[:2] == pytest.approx((expected, expected), rel=sampled)
    assert found[2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("angle", [0.0, 0.5, 0.25])
def test_motion_blur_is_a_line(angle):
    # Over 4 x 0.75 pixels, of uniform speed; interpolated between pixels, the more of it the more
    # it lies between them.
    rows, columns, total = spread(module._blurred(impulse(), 1.0, Fixed(0.1, 0.75, angle)))
    share = np.sin(np.pi * angle) ** 2
    assert total == pytest.approx(1, abs=1e-3)
    assert rows == pytest.approx(share * 9 / 12, abs=0.26)
    assert columns == pytest.approx((1 - share) * 9 / 12, abs=0.26)
    if angle in (0.0, 0.5):  # along an axis nothing moves across it
        assert min(rows, columns) == pytest.approx(0, abs=1e-6)
        assert max(rows, columns) > 0.7


def test_no_blur_is_the_image_and_edges_keep_their_colour():
    x = smooth(20, 10).astype("float32")
    for kind in (0.1, 0.9):
        np.testing.assert_allclose(module._blurred(x, 1.0, Fixed(kind, 0.0, 0.3)), x, atol=1e-3)
        flat = np.full((9, 7, 3), 200.0, "float32")
        found = module._blurred(flat, 1.0, Fixed(kind, 1.0, 0.3))
        np.testing.assert_allclose(found, flat, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_noise_has_its_deviation(strength):
    level = np.repeat(np.array([16.0, 64.0, 255.0], "float32")[:, None, None], 200, 1)
    level = np.broadcast_to(level, (3, 200, 3)).repeat(40, axis=1)
    white = 15 * 0.6 * strength
    same = module._noisy(level, strength, Fixed(0.9, 0.6)) - level
    np.testing.assert_allclose(same.std((1, 2)), white, rtol=0.05)
    photons = module._noisy(level, strength, Fixed(0.1, 0.6)) - level
    np.testing.assert_allclose(photons.std((1, 2)), white * np.array([0.25, 0.5, 1]), rtol=0.05)
    np.testing.assert_allclose(photons.mean((1, 2)), 0, atol=0.3)


@pytest.mark.parametrize(
    ("drawn", "strength", "quality"), [(0.0, 1.0, 95), (1.0, 1.0, 30), (1.0, 0.2, 82)]
)
def test_jpeg_has_its_quality(drawn, strength, quality, monkeypatch):
    kept, save = [], Image.Image.save

    def saved(self, file, kind, **told):
        kept.append((kind, told["quality"]))
        save(self, file, kind, **told)

    monkeypatch.setattr(Image.Image, "save", saved)
    x = smooth(32, 16).astype("float32")
    found = module._stored(x, strength, Fixed(drawn))
    assert kept == [("JPEG", quality)] and found.shape == x.shape
    assert 0 < np.abs(found - x).mean() < 12


def test_effects_come_in_every_order_once_each(monkeypatch):
    orders = set()
    for seed in range(60):
        order = []
        for name in ("_blurred", "_noisy", "_stored"):

            def effect(x, strength, rng, name=name, order=order):
                order.append(name)
                return x

            monkeypatch.setattr(module, name, effect)
        camera(smooth(8, 8), 1.0, np.random.default_rng(seed))
        orders.add(tuple(order))
    assert orders == set(itertools.permutations(["_blurred", "_noisy", "_stored"]))


def test_more_strength_is_farther_from_plain():
    image = smooth(128, 64)
    plain = degrade(image, 4).astype(float)
    apart = [
        np.mean([
            np.abs(degrade(image, 4, strength=s, rng=np.random.default_rng(i)) - plain).mean()
            for i in range(40)
        ])
        for s in (0.1, 0.5, 1.0)
    ]  # fmt: skip
    assert 0 < apart[0] < apart[1] / 1.2 and apart[1] < apart[2] / 1.1, apart


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "much", None])
def test_a_strength_is_a_share(strength):
    with pytest.raises(InputError, match="strength"):
        degrade(smooth(8, 8), 2, strength=strength)


# --- draws ---------------------------------------------------------------------------------------


def test_a_strength_needs_something_that_draws():
    with pytest.raises(InputError, match=r"strength is 0\.5, .*: give rng"):
        degrade(smooth(8, 8), 4, strength=0.5)


def test_strength_0_is_plain_shrinking():
    image = smooth(60, 30)
    assert camera(image, 0, None) is image
    for rate in (1, 1.5, 4):
        np.testing.assert_array_equal(degrade(image, rate, strength=0.0), degrade(image, rate))
    assert degrade(image, 1, strength=1.0, rng=np.random.default_rng(0)) is image


def test_prepared_images_are_drawn_by_their_name(records):
    def seen(images, rates, strength=1.0):
        return prepare_images(images, SIZE, rates, strength=strength)

    whole = seen(records, 4)
    np.testing.assert_array_equal(whole, seen(records, 4))
    np.testing.assert_array_equal(seen(records[5:7], 4), whole[5:7])
    np.testing.assert_array_equal(seen(records, 1), prepare_images(records, SIZE))
    np.testing.assert_array_equal(seen(records, 4, 0.0), prepare_images(records, SIZE, 4))
    assert all((a != b).any() for a, b in zip(whole, prepare_images(records, SIZE, 4), strict=True))
    # Nobody else's: the same pixels under another name are degraded otherwise.
    other = dataclasses.replace(records[0], camera=9)
    assert (seen([other], 4)[0] != whole[0]).any()
    arrays = [record.read() for record in records]
    np.testing.assert_array_equal(seen(arrays, 4), seen(arrays, 4))


@pytest.mark.parametrize("kind", [PairBatches, ImageBatches])
def test_batches_are_a_function_of_seed_epoch_and_index(records, kind):
    def made(epoch=1, index=1, seed=0, **options):
        given = {"rates": (1, 2, 4), "batch_size": 6, "erase": True, "kernel": "random", **options}
        return kind(records, SIZE, seed=seed, **given).batch(epoch, index)

    plain, seen, low = made(), made(strength=1.0), "lr" if kind is PairBatches else "image"
    np.testing.assert_equal(made(strength=1.0), seen)
    np.testing.assert_equal(made(strength=0.0), plain)
    changed = (seen[low] != plain[low]).any((1, 2, 3))
    np.testing.assert_array_equal(changed, plain["rate"] > 1)  # HR images stay as they are
    assert changed.any() and not changed.all()
    for name in plain.keys() - {low}:  # crops, rates and people are those without a camera
        np.testing.assert_array_equal(seen[name], plain[name])
    for other in (made(epoch=2, strength=1.0), made(index=0, strength=1.0)):
        assert (other[low] != seen[low]).any()


def test_two_visits_are_degraded_otherwise(records):
    batches = PairBatches(records, SIZE, (4,), crop=False, flip=False, batch_size=12, strength=1.0)
    first, second = (batches.batch(epoch, 0) for epoch in (0, 1))
    both = [b["lr"][np.argsort(b["hr"].mean((1, 2, 3)))] for b in (first, second)]
    assert all((a != b).any() for a, b in zip(*both, strict=True))


# --- scores --------------------------------------------------------------------------------------


class Pixels:
    """Its embeddings are pixels, and it keeps what it was shown."""

    image_size = SIZE

    def __init__(self):
        self.shown = []

    def embed(self, images, rates=None, batch_size=64):
        self.shown.append(images)
        return images.reshape(len(images), -1).astype("float32")

    def distances(self, query, gallery, query_rates=None):
        return np.linalg.norm(query[:, None] - gallery[None], axis=2)


def test_queries_alone_are_degraded(records):
    data = DataSet("drawn", [], records[::3], records[1::3] + records[2::3])
    shown = {}
    for strength in (0.0, 0.7):
        model = Pixels()
        result = evaluate(model, data, rates=(1, 4), verbose=False, strength=strength)
        assert result.strength == strength
        shown[strength] = model.shown
    (gallery, high, low), (gallery_again, high_again, low_again) = shown.values()
    np.testing.assert_array_equal(gallery, gallery_again)
    np.testing.assert_array_equal(high, high_again)
    np.testing.assert_array_equal(low_again, prepare_images(data.query, SIZE, 4, strength=0.7))
    assert (low != low_again).any()
    with pytest.raises(InputError, match="paper has shrunk its queries already"):
        evaluate(Pixels(), dataclasses.replace(data, protocol="paper"), strength=0.5)


def test_the_manifest_says_it(records):
    data = DataSet("drawn", records[:2], records[2:4], records[4:], root="")
    plain = manifest_rows(data, (4,), train_rates=(2,))
    seen = manifest_rows(data, (4,), train_rates=(2,), strength=0.7, train_strength=0.5)
    assert not any("strength" in row for row in plain)
    told = {"degradation": "camera", "kernel": "drawn"}
    for row, before in zip(seen, plain, strict=True):
        strength = {"train": 0.5, "query": 0.7, "gallery": None}[row["role"]]
        assert row == ({**before, **told, "strength": strength} if strength else before)
