"""Depthwise convolutions of Keras on JAX, on a CPU, at the speed of elementwise operations.

XLA has no kernel of its own for them on a CPU, and its loop takes many times as long. Here a
convolution is the sum of shifted images, each times what the kernel has there, which XLA fuses.
Numbers agree to the accuracy of float32.

Importing `keras_xreid` with the JAX backend switches this on; the environment variable
`KERAS_XREID_FAST_JAX=0` or `disable()` switches it off.
"""

import functools
import logging
import os

import keras

from keras_xreid.training.fast_torch import TESTED

_plain = []


def enabled():
    """Returns whether the fast path is on."""
    return bool(_plain)


def enable():
    """Replaces Keras's function on JAX, if this Keras was tested.

    Returns:
        Whether the fast path is on.
    """
    if keras.backend.backend() == "jax" and not enabled():
        if ".".join(keras.__version__.split(".")[:2]) not in TESTED:
            logging.getLogger("keras_xreid").warning(
                "Keras %s is not among those that the fast path on JAX was tested with (%s): "
                "depthwise convolutions are many times as slow without it",
                keras.__version__, ", ".join(TESTED),
            )  # fmt: skip
            return False
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
    pads, sizes, strides = [], [], _pair(strides)
    for size, wide, step in zip(x.shape[1:3], shape, strides, strict=False):
        out = -(-size // step) if padding == "same" else (size - wide) // step + 1
        zeros = max((out - 1) * step + wide - size, 0) if padding == "same" else 0
        pads.append((zeros // 2, zeros - zeros // 2))
        sizes.append(out)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return _convolution()(x, kernel[..., 0], tuple(sizes), strides).astype(dtype)


@functools.cache
def _convolution():
    """The convolution of a padded image, with a gradient of its own; JAX is imported here only."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    hold = lax.optimization_barrier  # else XLA computes what comes before anew for each shift

    def shifted(x, kernel, sizes, strides):
        """What each number of the kernel meets, of images or of one."""
        ends = [(size - 1) * step + 1 for size, step in zip(sizes, strides, strict=True)]
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                down, across = slice(i, i + ends[0], strides[0]), slice(j, j + ends[1], strides[1])
                yield x[..., down, across, :], kernel[i, j]

    def forward(x, kernel, sizes, strides):
        x = hold(x)
        return sum(part * weight for part, weight in shifted(x, kernel, sizes, strides))

    def kept(x, kernel, sizes, strides):
        return forward(x, kernel, sizes, strides), (x, kernel)

    def backward(sizes, strides, saved, gradient):
        x, kernel = saved
        around = [
            (wide - 1, size - 1 - (out - 1) * step, step - 1)
            for size, wide, out, step in zip(
                x.shape[1:3], kernel.shape[:2], sizes, strides, strict=True
            )
        ]
        zero = jnp.zeros((), gradient.dtype)
        spread = lax.pad(gradient, zero, ((0, 0, 0), *around, (0, 0, 0)))
        of_x = forward(spread, kernel[::-1, ::-1], x.shape[1:3], (1, 1))
        x, gradient = hold((x, gradient))

        # Image by image: XLA sums over images and pixels at once many times as slowly. Several
        # devices share the images, and sum theirs.
        def add(sums, one):
            parts = shifted(one[0], kernel, sizes, strides)
            return [
                so_far + part * one[1] for so_far, (part, _) in zip(sums, parts, strict=True)
            ], None

        if jax.device_count() > 1:
            sums = [(p * gradient).sum(0) for p, _ in shifted(x, kernel, sizes, strides)]
        else:
            zeros = jnp.zeros(gradient.shape[1:], gradient.dtype)
            sums, _ = lax.scan(add, [zeros] * (kernel.shape[0] * kernel.shape[1]), (x, gradient))
        of_kernel = jnp.stack([total.sum((0, 1)) for total in sums]).reshape(kernel.shape)
        return of_x, of_kernel

    found = jax.custom_vjp(forward, nondiff_argnums=(2, 3))
    found.defvjp(kept, backward)
    return found


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


if os.environ.get("KERAS_XREID_FAST_JAX", "1") != "0":
    enable()
