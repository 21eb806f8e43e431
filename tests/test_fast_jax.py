"""The fast depthwise convolution on JAX against plain Keras, forwards and backwards."""

import os

import keras
import numpy as np
import pytest
from keras import layers

if os.environ["KERAS_BACKEND"] != "jax":
    pytest.skip("the fast path is for JAX", allow_module_level=True)
jax = pytest.importorskip("jax")
from keras_xreid.training import fast_jax  # noqa: E402 - it imports JAX

pytestmark = pytest.mark.backend


@pytest.fixture(autouse=True)
def fast():
    on = fast_jax.enabled()
    fast_jax.enable()
    yield
    if not on:
        fast_jax.disable()


def both(function, *arrays):
    """What a function gives with the fast path, and without."""
    found = function(*arrays)
    fast_jax.disable()
    plain = function(*arrays)
    fast_jax.enable()
    return found, plain


@pytest.mark.parametrize(
    "size, width, options",
    [
        ((9, 6), 3, {"padding": "same"}),
        ((9, 6), 5, {"padding": "same", "strides": 2}),
        ((8, 7), (3, 5), {"padding": "same", "strides": (2, 1)}),
        ((2, 1), 5, {"padding": "same"}),
        ((9, 6), 3, {}),
        ((9, 6), 3, {"strides": 3}),
        # Keras's own:
        ((9, 6), 3, {"padding": "same", "dilation_rate": 2}),
        ((9, 6), 3, {"depth_multiplier": 2}),
    ],
)
@pytest.mark.parametrize("devices", [1, 2])
def test_values_and_gradients(size, width, options, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    rng = np.random.default_rng(0)
    layer = layers.DepthwiseConv2D(width, **options)
    x = rng.normal(size=(3, *size, 4)).astype("float32")
    layer.build(x.shape)
    kernel = rng.normal(size=layer.kernel.shape).astype("float32")

    def run(x, kernel):
        def call(x, kernel):
            return layer.stateless_call([kernel, layer.bias.value], [], x)[0]

        y = call(x, kernel)
        back = jax.grad(lambda *given: (call(*given) ** 2).sum(), argnums=(0, 1))(x, kernel)
        return [y, *back]

    found, plain = both(run, x, kernel)
    assert found[0].shape == layer.compute_output_shape(x.shape)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_summed_in_float32():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 8, 6, 4)), rng.normal(size=(5, 5, 4, 1))
    exact = keras.ops.depthwise_conv(x.astype("float32"), kernel.astype("float32"), padding="same")
    x, kernel = (keras.ops.convert_to_tensor(v, "bfloat16") for v in (x, kernel))
    found = keras.ops.depthwise_conv(x, kernel, padding="same")
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    np.testing.assert_allclose(np.array(found, "float32"), exact, rtol=0.02, atol=0.1)


def test_others_are_keras_s():
    x = np.ones((2, 4, 8, 6), "float32")
    with keras.device("cpu"):
        found, plain = both(
            lambda x: keras.ops.depthwise_conv(
                x, np.ones((3, 3, 4, 1), "float32"), padding="same", data_format="channels_first"
            ),
            x,
        )
    np.testing.assert_allclose(found, plain)
    with pytest.raises(ValueError, match="channel"):
        keras.ops.depthwise_conv(x, np.ones((3, 3, 4, 1), "float32"))


def test_switched_off():
    nn = fast_jax.nn
    assert nn.depthwise_conv is fast_jax.depthwise_conv
    fast_jax.disable()
    assert nn.depthwise_conv is not fast_jax.depthwise_conv


def test_a_keras_that_was_not_tested(monkeypatch, caplog):
    fast_jax.disable()
    monkeypatch.setattr(keras, "__version__", "4.0.0")
    with caplog.at_level("WARNING", "keras_xreid"):
        assert not fast_jax.enable()
    assert "Keras 4.0.0 is not among those" in caplog.text
