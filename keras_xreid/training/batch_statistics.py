"""Batch normalization by what a batch holds: mean and variance of all its images, and no average.

Keras takes such statistics in training only, mixes them with older ones, and leaves frozen layers
out. Here they are taken in inference: nothing else of a network behaves as in training.
"""

import contextlib
import threading

import keras
from keras import ops

_taking = set()  # layers, by id
_traced = []  # models whose function for predictions was traced meanwhile
_alone = threading.Condition(threading.RLock())  # held while statistics are not the model's own
_users = 0  # threads that rely on statistics now


@contextlib.contextmanager
def in_use():
    """Inside, no other thread changes statistics. Any number of threads may be inside."""
    global _users
    with _alone:
        _users += 1
    try:
        yield
    finally:
        with _alone:
            _users -= 1
            _alone.notify_all()


@contextlib.contextmanager
def changing():
    """Inside, no other thread uses statistics: what is put in place serves this thread only.

    May be nested, and this thread may use them; but not from within `in_use`.
    """
    with _alone:
        _alone.wait_for(lambda: not _users)
        yield


def taking(layer=None):
    """Whether statistics are being taken: of this layer, or of any."""
    return id(layer) in _taking if layer is not None else bool(_taking)


def trace_anew(model):
    """While statistics are taken, lets a model predict by no function that was traced before.

    Args:
        model: a `keras.Model` that is about to predict.
    """
    if _taking and not any(model is known for known in _traced):
        model.make_predict_function(force=True)
        _traced.append(model)


@contextlib.contextmanager
def taken(layers):
    """Inside, layers normalize by the batch that they see, and keep its statistics as their own.

    A layer sees what those before it made of the same batch. So one pass of all images gives the
    exact statistics of all layers. A model that predicts inside is told to `trace_anew`.

    Args:
        layers: list of `keras.layers.BatchNormalization`.
    """
    kind = keras.layers.BatchNormalization
    plain_call = kind.call

    def call(self, inputs, training=None, mask=None):
        if not taking(self):
            return plain_call(self, inputs, training=training, mask=mask)
        x = ops.cast(inputs, "float32")
        axis = self.axis % len(x.shape)
        mean, variance = ops.moments(x, [i for i in range(len(x.shape)) if i != axis])
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        x = ops.batch_normalization(
            x, mean, variance, axis, self.beta if self.center else None,
            self.gamma if self.scale else None, self.epsilon,
        )  # fmt: skip
        return ops.cast(x, self.compute_dtype)

    with changing():
        _taking.update(id(layer) for layer in layers)
        kind.call = call
        try:
            yield
        finally:
            kind.call = plain_call
            _taking.clear()
            while _traced:
                _traced.pop().predict_function = None
