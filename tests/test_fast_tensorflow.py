"""The fast path on TensorFlow against plain Keras: values, gradients, moving averages."""

import os

import keras
import numpy as np
import pytest
from keras import layers

if os.environ["KERAS_BACKEND"] != "tensorflow":
    pytest.skip("the fast path is for TensorFlow", allow_module_level=True)
tf = pytest.importorskip("tensorflow")
from keras_xreid.training import fast_tensorflow  # noqa: E402 - it imports TensorFlow

pytestmark = pytest.mark.backend


@pytest.fixture(autouse=True)
def fast():
    on = fast_tensorflow.enabled()
    fast_tensorflow.enable()
    yield
    if not on:
        fast_tensorflow.disable()


def both(function, *arrays):
    """What a function gives with the fast path, and without."""
    found = function(*arrays)
    fast_tensorflow.disable()
    plain = function(*arrays)
    fast_tensorflow.enable()
    return found, plain


def trained(layer, x, compiled=True):
    """A layer's output, and the gradients of its input and weights, as float32."""
    x = tf.cast(x, layer.compute_dtype)

    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
        weights = [w.value for w in layer.trainable_variables]
        return [y, *tape.gradient(loss, [x, *weights])]

    return [np.array(tf.cast(v, "float32")) for v in (tf.function(step) if compiled else step)()]


DEPTHWISE = [
    ((9, 6), 3, {"padding": "same"}),
    ((9, 6), 5, {"padding": "same", "strides": 2}),
    ((9, 6), 5, {"padding": "same"}),
    ((8, 7), (3, 5), {"padding": "same"}),
    ((8, 7), (7, 4), {"padding": "same", "strides": 2}),
    ((2, 1), 5, {"padding": "same"}),
    ((9, 6), 5, {}),
    ((9, 8), 4, {"strides": 3}),
    ((9, 6), 5, {"padding": "same", "depth_multiplier": 2}),
    # Keras's own:
    ((9, 6), 5, {"padding": "same", "dilation_rate": 2}),
]


@pytest.mark.parametrize("size, width, options", DEPTHWISE)
@pytest.mark.parametrize("compiled", [False, True])
def test_depthwise(size, width, options, compiled):
    x = np.random.default_rng(0).normal(size=(3, *size, 4)).astype("float32")
    layer = layers.DepthwiseConv2D(width, **options)
    found, plain = both(lambda x: trained(layer, x, compiled), x)
    assert found[0].shape == layer.compute_output_shape(x.shape)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("width", [3, 5])
def test_gradients_in_bfloat16_are_those_of_float32(width, strides):
    """Rounded once: the many products of a kernel's gradient are not summed in bfloat16."""
    rng = np.random.default_rng(0)

    def rounded(*shape):
        return np.array(tf.cast(tf.cast(rng.normal(size=shape), "bfloat16"), "float32"))

    x, kernel = rounded(8, 16, 8, 4), rounded(width, width, 4, 1)
    from_above = rounded(8, 16 // strides, 8 // strides, 4)

    def gradients(dtype):
        options = {"strides": strides, "padding": "same", "use_bias": False}
        layer = layers.DepthwiseConv2D(width, dtype=dtype, **options)
        layer.build(x.shape)
        layer.set_weights([kernel])
        inputs = tf.cast(x, layer.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = layer(inputs)
        weight = layer.trainable_variables[0].value
        found = tape.gradient(y, [inputs, weight], tf.cast(from_above, y.dtype))
        return [np.array(tf.cast(v, "float32")) for v in found]

    wanted = gradients("float32")
    for one, other, most in zip(gradients("mixed_bfloat16"), wanted, [0.02, 2**-8], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=most * np.abs(other).max())


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (16, 3), (4, 7, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize("options", [{}, {"scale": False, "center": False}, {"axis": 1}])
@pytest.mark.parametrize("compiled", [False, True])
def test_batch_normalization(shape, options, compiled):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * 3 + 2).astype("float32")

    def run(x):
        layer = layers.BatchNormalization(momentum=0.7, **options)
        layer.build(x.shape)
        numbers = np.random.default_rng(1)
        layer.set_weights([numbers.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
        return [*trained(layer, x, compiled), *layer.get_weights()]

    found, plain = both(run, x)
    for one, other in zip(found, plain, strict=True):
        scale = max(np.abs(other).max(), 1)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * scale)


def test_batch_normalization_in_bfloat16():
    x = (np.random.default_rng(0).normal(size=(8, 6, 5, 3)) * 3 + 2).astype("float32")

    def run(x):
        layer = layers.BatchNormalization(momentum=0.7, dtype="mixed_bfloat16")
        y, *back = trained(layer, x)
        return [y, *back, *layer.get_weights()]

    found, plain = both(run, x)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())


@pytest.mark.parametrize("options", [{"trainable": False}, {"renorm": True}])
def test_other_batch_normalization_is_keras_s(options):
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype("float32")

    def run(x):
        layer = layers.BatchNormalization(**options)
        return [np.array(layer(x, training=True)), np.array(layer(x)), *layer.get_weights()]

    for one, other in zip(*both(run, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wide_kernels_have_a_gradient_in_blocks(monkeypatch):
    """Else the tests above compare Keras with itself."""
    seen, plain = [], fast_tensorflow._of_kernel
    monkeypatch.setattr(fast_tensorflow, "_of_kernel", lambda *a: (seen.append(1), plain(*a))[1])
    for width in (3, 5):
        trained(layers.DepthwiseConv2D(width, padding="same"), np.ones((1, 8, 8, 2)), False)
    assert len(seen) == 1


def test_switched_off():
    nn = fast_tensorflow.nn
    assert nn.depthwise_conv is fast_tensorflow.depthwise_conv
    fast_tensorflow.disable()
    assert nn.depthwise_conv is fast_tensorflow.plain_depthwise_conv
    assert layers.BatchNormalization.call is fast_tensorflow.plain_batch_normalization_call


def test_a_keras_that_was_not_tested(monkeypatch, caplog):
    fast_tensorflow.disable()
    monkeypatch.setattr(keras, "__version__", "4.0.0")
    with caplog.at_level("WARNING", "keras_xreid"):
        assert not fast_tensorflow.enable()
    assert "Keras 4.0.0 is not among those" in caplog.text
