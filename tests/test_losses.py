"""Loss functions: values by hand, an oracle in NumPy, and gradients on this backend."""

import keras
import numpy as np
import pytest

from keras_xreid import losses
from keras_xreid.training import autodiff

pytestmark = pytest.mark.backend

LINE = [[0.0], [1.0], [3.0], [4.0]]  # two people of two images each, as points on a line
PEOPLE = [0, 0, 1, 1]


def gradient(loss, value):
    """The gradient of `loss(x)` at a value, by this backend."""
    x = keras.Variable(np.asarray(value, "float32"))

    def terms():
        total = loss(x.value)
        return total, {"loss": total}

    _, (found,) = autodiff.losses_and_gradients(terms, [x], [], [x])
    return keras.ops.convert_to_numpy(found)


# --- by hand, on a batch of four images ------------------------------------------------------


def test_absolute_and_squared_error():
    a = [[0.0, 1.0], [2.0, -3.0]]
    b = [[1.0, 1.0], [0.0, 1.0]]
    assert float(losses.absolute_error(a, b)) == pytest.approx((1 + 0 + 2 + 4) / 4)
    assert float(losses.squared_error(a, b)) == pytest.approx((1 + 0 + 4 + 16) / 4)


def test_cross_entropy():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])
    labels = [0, 1, 2, 1]
    by_hand = -np.log([0.5, 0.8, 0.6, 0.05]).mean()
    assert float(losses.cross_entropy(labels, logits)) == pytest.approx(by_hand, rel=1e-5)
    # 0.3 of the target is spread over all three.
    smooth = 0.7 * by_hand - 0.1 * logits.sum(1).mean()
    assert float(losses.cross_entropy(labels, logits, 0.3)) == pytest.approx(smooth, rel=1e-5)


@pytest.mark.parametrize(
    "margin, squared, anchors",
    [
        # Positives are 1 away; negatives 3, 2, 2 and 3.
        (2.5, False, [0.5, 1.5, 1.5, 0.5]),
        (1.5, False, [0.0, 0.5, 0.5, 0.0]),
        (5.0, True, [0.0, 2.0, 2.0, 0.0]),
    ],
)
def test_triplet(margin, squared, anchors):
    found = float(losses.triplet(LINE, PEOPLE, margin, squared))
    assert found == pytest.approx(np.mean(anchors), rel=1e-5)


def test_triplet_pulls_the_positive_and_pushes_the_negative():
    found = gradient(lambda x: losses.triplet(x, PEOPLE, 2.5), LINE)
    # The four terms are (b-a) - (c-a), (b-a) - (c-b), (d-c) - (c-b) and (d-c) - (d-b).
    np.testing.assert_allclose(found[:, 0], np.array([-1, 5, -5, 1]) / 4, rtol=1e-5)


def test_verification():
    logits = np.log([3.0, 3.0, 1.0, 1 / 3])  # probabilities 3/4, 3/4, 1/2, 1/4
    by_hand = -np.log([3 / 4, 1 / 4, 1 / 2, 3 / 4]).mean()
    for shape in ((4,), (4, 1)):
        found = losses.verification(logits.reshape(shape), [1, 0, 1, 0])
        assert float(found) == pytest.approx(by_hand, rel=1e-5)
    assert float(losses.verification([100.0, -100.0], [0, 1])) == pytest.approx(100)


@pytest.mark.parametrize("shape", [(4, 1), (4, 4, 2, 1)])
def test_adversarial_losses_take_maps_of_any_shape(shape):
    real = np.full(shape, np.log(3.0))  # D says 3/4
    fake = np.full((2, *shape[1:]), np.log(1 / 3))  # D says 1/4
    by_hand = -np.log(3 / 4) - np.log(3 / 4)
    assert float(losses.discriminator_loss(real, fake)) == pytest.approx(by_hand, rel=1e-5)
    assert float(losses.generator_loss(fake)) == pytest.approx(-np.log(1 / 4), rel=1e-5)


# --- the triplet against a loop --------------------------------------------------------------


def slow_triplet(features, labels, margin, squared):
    """Batch-hard as it is told: anchor by anchor, pair by pair, in float64."""
    terms = []
    for i, anchor in enumerate(labels):
        positives, negatives = [], []
        for j, other in enumerate(labels):
            if i == j or anchor < 0 or other < 0:
                continue
            distance = ((features[i].astype(float) - features[j]) ** 2).sum()
            distance = distance if squared else distance**0.5
            (positives if other == anchor else negatives).append(distance)
        if positives and negatives:
            terms.append(max(0.0, margin + max(positives) - min(negatives)))
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("squared", [False, True])
def test_triplet_agrees_with_a_loop(squared):
    rng = np.random.default_rng(0)
    shown = set()
    for size in (5, 24):
        for _ in range(8):
            # Some have no label, and some are the only image of their person.
            labels = rng.integers(-1, max(2, size // 3), size)
            features = rng.normal(0, 1, (size, 8)).astype("float32")
            expected = slow_triplet(features, labels, 0.7, squared)
            found = float(losses.triplet(features, labels, 0.7, squared))
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
            shown.add(expected > 0)
    assert shown == {True, False}


def test_triplet_is_exact_where_embeddings_lie_close():
    rng = np.random.default_rng(1)
    features = (100 + 1e-3 * rng.normal(0, 1, (8, 16))).astype("float32")
    labels = np.arange(8) // 2
    found = float(losses.triplet(features, labels, 0.0))
    assert found == pytest.approx(slow_triplet(features, labels, 0.0, False), rel=1e-3)
    assert found > 1e-4


# --- the octuplet ----------------------------------------------------------------------------


def test_octuplet_by_hand():
    # LR images lie 0.5 to the right. HR-HR and LR-LR are as above, 2.5 + 1 - (3, 2, 2, 3).
    low = np.asarray(LINE) + 0.5
    within = np.mean([0.5, 1.5, 1.5, 0.5])
    # HR 0, 1, 3, 4 and LR 0.5, 1.5, 3.5, 4.5: positives 1.5, 0.5, 1.5, 0.5 away, the own twin
    # left out; negatives 3.5, 2.5, 1.5 and 2.5.
    high_low = np.mean([0.5, 0.5, 2.5, 0.5])
    # The other way: positives 0.5, 1.5, 0.5, 1.5; negatives 2.5, 1.5, 2.5, 3.5.
    low_high = np.mean([0.5, 2.5, 0.5, 0.5])
    found = float(losses.octuplet_loss(LINE, low, PEOPLE, 2.5))
    assert found == pytest.approx(2 * within + high_low + low_high, rel=1e-5)
    assert float(losses.octuplet_loss(LINE, LINE, PEOPLE, 2.0)) == pytest.approx(2.0)  # as told


def slow_octuplet(high, low, labels, margin):
    """Anchor by anchor: the hardest of one kind of image, for each kind of anchor."""
    total = 0.0
    for anchors in (high, low):
        for others in (high, low):
            terms = []
            for i, who in enumerate(labels):
                apart = {j: np.linalg.norm(anchors[i].astype(float) - x.astype(float))
                         for j, x in enumerate(others) if labels[j] >= 0 and j != i}  # fmt: skip
                own = [d for j, d in apart.items() if labels[j] == who]
                rest = [d for j, d in apart.items() if labels[j] != who]
                if who >= 0 and own and rest:
                    terms.append(max(0.0, margin + max(own) - min(rest)))
            total += np.mean(terms) if terms else 0.0
    return total


def test_octuplet_agrees_with_a_loop():
    rng = np.random.default_rng(3)
    for size in (5, 16):
        for _ in range(4):
            labels = rng.integers(-1, max(2, size // 3), size)
            high, low = (rng.normal(0, 1, (size, 8)).astype("float32") for _ in range(2))
            found = float(losses.octuplet_loss(high, low, labels))
            expected = slow_octuplet(high, low, labels, 0.5)
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_octuplet_teaches_both_kinds():
    rng = np.random.default_rng(4)
    high, low = (rng.normal(0, 1, (4, 3)).astype("float32") for _ in range(2))
    for loss, value in (
        (lambda x: losses.octuplet_loss(x, low, PEOPLE, 5.0), high),
        (lambda x: losses.octuplet_loss(high, x, PEOPLE, 5.0), low),
    ):
        assert np.abs(gradient(loss, value)).min() > 0


# --- images without a label, and none that takes part ----------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_image_without_a_label_has_no_effect(smoothing):
    rng = np.random.default_rng(2)
    features = rng.normal(0, 1, (6, 5)).astype("float32")
    known, labels = [0, 2, 3, 5], np.array([1, -1, 1, 0, -1, 0])

    def identity(labels):
        return lambda x: losses.cross_entropy(labels, x, smoothing)

    def triplets(labels):
        return lambda x: losses.triplet(x, labels, 0.5)

    def verified(labels):
        return lambda x: losses.verification(x[:, 0], labels)

    for make in (identity, triplets, verified):
        all_of_them, those_known = make(labels), make(labels[known])
        alone = float(those_known(features[known]))
        assert alone > 0
        assert float(all_of_them(features)) == pytest.approx(alone, rel=1e-5)
        found = gradient(all_of_them, features)
        np.testing.assert_allclose(
            found[known], gradient(those_known, features[known]), rtol=1e-4, atol=1e-6
        )
        assert np.abs(found[known]).max() > 0
        assert not found[[1, 4]].any()


def test_nobody_takes_part():
    nobody = [-1, -1, -1, -1]
    for loss in (
        lambda x: losses.cross_entropy(nobody, x),
        lambda x: losses.cross_entropy(nobody, x, 0.1),
        lambda x: losses.triplet(x, nobody, 0.3),
        lambda x: losses.triplet(x, [0, 0, 0, -1], 0.3),  # no negative
        lambda x: losses.triplet(x, [0, 1, 2, 3], 0.3),  # no positive
        lambda x: losses.verification(x, nobody),
        lambda x: losses.octuplet_loss(x, x, nobody),
        lambda x: losses.octuplet_loss(x, x, [0, 1, 2, 3]),  # a twin is no positive
    ):
        assert float(loss(np.asarray(LINE, "float32"))) == 0
        assert not gradient(loss, LINE).any()


# --- gradients stay finite -------------------------------------------------------------------


@pytest.mark.parametrize("squared", [False, True])
def test_triplet_of_equal_embeddings_has_a_finite_gradient(squared):
    for features in (np.zeros((4, 3)), [[0.0], [0.0], [1.0], [2.0]]):
        found = gradient(lambda x: losses.triplet(x, PEOPLE, 2.0, squared), features)
        assert np.isfinite(found).all()
    assert float(losses.triplet(np.zeros((4, 3)), PEOPLE, 2.0, squared)) == pytest.approx(2.0)


def test_losses_are_float32_in_mixed_precision():
    half = keras.ops.cast(LINE, "bfloat16")
    for loss in (
        losses.triplet(half, PEOPLE, 0.3),
        losses.cross_entropy([0, 0, 0, 0], half),
        losses.verification(half, PEOPLE),
        losses.octuplet_loss(half, half, PEOPLE),
        losses.absolute_error(half, half),
    ):
        assert keras.backend.standardize_dtype(loss.dtype) == "float32"


def test_a_row_of_zeros_has_a_slope_like_others():
    """Of `unit` it is that of x itself; a network whose features die goes on."""
    x = np.float32([[0, 0], [3, 4], [0, -2e-3]])
    wanted = np.float32([[0, 0], [0.6, 0.8], [0, -1]])
    np.testing.assert_allclose(losses.unit(x), wanted, rtol=1e-6)
    to = np.float32([[1, 2], [2, 1], [1, 1]])
    found = gradient(lambda x: keras.ops.sum(losses.unit(x) * keras.ops.array(to)), x)
    np.testing.assert_allclose(found[0], to[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], (to[1] - wanted[1] * (to[1] @ wanted[1])) / 5, rtol=1e-4)
    found = gradient(lambda x: losses.cosine_distance(x, to), x)
    np.testing.assert_allclose(found[0], -to[0] / 5**0.5 / 3, rtol=1e-5)
    people = [0, 0, 1]
    found = gradient(lambda x: losses.triplet(losses.unit(x), people, 0.3), x)
    assert np.abs(found[0]).max() < 10
