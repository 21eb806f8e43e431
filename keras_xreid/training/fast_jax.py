"""Depthwise convolutions of Keras on JAX, on a CPU, at the speed of elementwise operations.

XLA has no kernel of its own for them on a CPU: a loop over all channels takes 5 to 30 times as
long, and its gradient 3 to 8 times. Here a convolution is the sum of shifted images, each times
what the kernel has there, which XLA fuses. Numbers agree to the accuracy of float32.

Importing `keras_xreid` with the JAX backend switches this on; the environment variable
`KERAS_XREID_FAST_JAX=0` or `disable()` switches it off.
"""

import os

import keras

_plain = []


def enabled():
    """Returns whether the fast path is on."""
    return bool(_plain)


def enable():
    """Replaces Keras's function on JAX.

    Returns:
        Whether the fast path is on.
    """
    if keras.backend.backend() == "jax" and not enabled():
        from keras.src.backend.jax import nn

        _plain.append((nn, nn.depthwise_conv))
        nn.depthwise_conv = depthwise_conv
    return enabled()


def disable():
    """Puts Keras's own function back."""
    while _plain:
        nn, function = _plain.pop()
        nn.depthwise_conv = function


def depthwise_conv(
    inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1
):  # fmt: skip
    """As `keras.ops.depthwise_conv`. What is not an image on a CPU is handed to Keras."""
    import jax
    import jax.numpy as jnp

    nn, plain = _plain[0]
    x, kernel = map(nn.convert_to_tensor, (inputs, kernel))
    shape = kernel.shape
    known = (
        jax.default_backend() == "cpu"
        and (data_format or keras.config.image_data_format()) == "channels_last"
        and len(shape) == 4
        and shape[3] == 1  # one output of each channel
        and x.shape[3:] == shape[2:3]
        and _pair(dilation_rate) == (1, 1)
        and (padding == "same" or (x.shape[1] >= shape[0] and x.shape[2] >= shape[1]))
    )
    if not known:
        return plain(x, kernel, strides, padding, data_format, dilation_rate)
    dtype = jnp.result_type(x, kernel)
    x, kernel = (jnp.asarray(v, jnp.promote_types(dtype, "float32")) for v in (x, kernel))
    pads, sizes = [], []
    for size, wide, step in zip(x.shape[1:3], shape, _pair(strides), strict=False):
        if padding == "same":
            last = -(-size // step) - 1
            zeros = max(last * step + wide - size, 0)
        else:
            last, zeros = (size - wide) // step, 0
        pads.append((zeros // 2, zeros - zeros // 2))
        sizes.append(last * step + 1)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    down, across = _pair(strides)
    terms = [
        x[:, i : i + sizes[0] : down, j : j + sizes[1] : across] * kernel[i, j, :, 0]
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    return sum(terms[1:], terms[0]).astype(dtype)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


if os.environ.get("KERAS_XREID_FAST_JAX", "1") != "0":
    enable()
