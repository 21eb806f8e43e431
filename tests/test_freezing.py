"""Progressive training: which masks move, by how much, and that a run can be resumed."""

import keras
import numpy as np
import pytest
from small import Repeat, adaptive, levels, snapshot

import keras_xreid as xr
from keras_xreid.layers.mask import ResolutionMask
from keras_xreid.training.phases import Phase, PhasedModel

pytestmark = pytest.mark.backend

RATE = 0.5
X = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 1.0]], "float32")[:, None, None, :]
LEVEL = np.array([1, 2, 2], "int32")
BATCH = {"x": X, "level": LEVEL, "person": LEVEL}


class TwoMasks(PhasedModel):
    """Two masks of one shape, and the square of what the first lets through between them.

    The loss is the mean of what passes both.
    """

    def __init__(self):
        super().__init__()
        x, level = keras.Input((1, 1, 2)), keras.Input((), dtype="int32")
        self.masks = [ResolutionMask(2, name="first"), ResolutionMask(2, name="second")]
        y = self.masks[0]([x, level])
        y = self.masks[1]([keras.layers.Multiply()([y, y]), level])
        self.network = keras.Model([x, level], y)
        self.built = True

    def phases(self):
        def loss(batch):
            y = self.network([batch["x"], batch["level"]], training=True)
            return {"mean": keras.ops.mean(keras.ops.sum(y, axis=(1, 2, 3)))}

        return [Phase(("network",), loss, ("mean",))]


def two_masks():
    model = TwoMasks()
    model.masks[0].logits.assign([[0.1, -0.3], [0.7, 0.2]])
    model.masks[1].logits.assign([[-0.5, 0.4], [0.6, -0.8]])
    model.compile({"network": keras.optimizers.SGD(RATE)})
    return model


def logits(model):
    return [np.array(keras.ops.convert_to_numpy(mask.logits)) for mask in model.masks]


def by_hand(epochs):
    """The logits after each mask was trained for `epochs` steps, the second one first."""
    first, second = logits(two_masks())
    x, k = X[:, 0, 0], LEVEL - 1

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def descend(own, gradient_of_mask):
        for _ in range(epochs):
            mask, gradient = sigmoid(own), np.zeros_like(own)
            np.add.at(gradient, k, gradient_of_mask(mask[k]) / len(x))
            own = own - RATE * gradient * mask * (1 - mask)
        return own

    second = descend(second, lambda mask: x**2)  # the first mask is not there yet
    return descend(first, lambda mask: 2 * x**2 * mask * sigmoid(second)[k]), second


def test_masks_move_by_the_hand_computed_update_and_frozen_ones_do_not():
    model, seen = two_masks(), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logits(model))

    callbacks = [xr.Progressive(model.masks[::-1], [2, 2]), Watch()]
    model.fit(Repeat(BATCH), epochs=4, verbose=0, callbacks=callbacks)
    begin = logits(two_masks())
    first, second = by_hand(2)
    np.testing.assert_array_equal(seen[1][0], begin[0])  # not there yet, not trained
    np.testing.assert_allclose(seen[1][1], second, rtol=1e-5)
    np.testing.assert_array_equal(seen[3][1], seen[1][1])  # frozen, by not one bit
    np.testing.assert_allclose(seen[3][0], first, rtol=1e-5)
    assert np.abs(first - begin[0]).max() > 1e-3
    assert all(mask.trainable for mask in model.masks)


# PyTorch traces nothing. JAX traces anew where shapes change places, as they do here.
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow keeps its trace")
def test_without_tracing_anew_the_test_above_would_fail():
    model = two_masks()
    trace = model.make_train_function
    model.make_train_function = lambda force=False: trace()
    model.fit(
        Repeat(BATCH), epochs=4, verbose=0, callbacks=[xr.Progressive(model.masks[::-1], [2, 2])]
    )
    first, second = by_hand(2)
    wrong = [np.abs(a - b).max() for a, b in zip(logits(model), (first, second), strict=True)]
    assert max(wrong) > 1e-3


def test_a_second_training_trains_every_mask():
    model = two_masks()
    model.fit(
        Repeat(BATCH), epochs=2, verbose=0, callbacks=[xr.Progressive(model.masks[::-1], [1, 1])]
    )
    before = logits(model)
    model.fit(Repeat(BATCH), epochs=1, verbose=0)
    assert all((a != b).all() for a, b in zip(before, logits(model), strict=True))


def test_an_interrupted_training_leaves_nothing_behind(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def __init__(self, at):
            super().__init__()
            self.at = at

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.at:
                raise KeyboardInterrupt

    model, batches = two_masks(), Repeat(BATCH)
    for at in (1, 2):  # the second time resumed
        progressive = xr.Progressive(model.masks[::-1], [2, 2])
        checkpoint = xr.Checkpoint(tmp_path / "a.weights.h5", batches)
        with pytest.raises(KeyboardInterrupt):
            model.fit(
                batches, epochs=4, verbose=0, callbacks=[progressive, checkpoint, Interrupt(at)]
            )
    before = logits(model)
    assert model.fit(batches, epochs=1, verbose=0).epoch == [0]
    assert all((a != b).all() for a, b in zip(before, logits(model), strict=True))


def test_resumed_in_the_middle_of_a_stage_equals_never_stopped(tmp_path):
    def trained(path, *stops):
        for stop in stops:  # each time in a model of its own, as after a restart
            model = adaptive()
            model.compile({p: keras.optimizers.Adam(0.01) for p in model.phases()[0].updates})
            batches = Repeat(levels(0), levels(1))
            checkpoint = xr.Checkpoint(path, batches)
            progressive = xr.Progressive(model.masks[::-1], [1, 2, 1, 1])
            model.fit(
                batches, epochs=stop, verbose=0,
                callbacks=[progressive, checkpoint],
            )  # fmt: skip
        return model

    whole = trained(tmp_path / "whole.weights.h5", 3)
    resumed = trained(tmp_path / "parts.weights.h5", 2, 3)  # after one of two epochs of stage 2
    for a, b in zip(snapshot(whole), snapshot(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    introduced = [float(keras.ops.convert_to_numpy(m.introduced)) for m in resumed.masks]
    assert introduced == [0, 0, 1, 1]


@pytest.mark.parametrize("epochs", [[1], [1, 0], [1, 1, 1]])
def test_epochs_that_do_not_fit(epochs):
    with pytest.raises(xr.InputError, match="for 2 masks"):
        xr.Progressive(two_masks().masks, epochs)
