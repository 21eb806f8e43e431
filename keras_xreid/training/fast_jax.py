"""Depthwise convolutions of Keras on JAX, on a CPU, at the speed of elementwise operations.

XLA has no kernel of its own for them on a CPU, and its loop takes many times as long. Here a
convolution is the sum of shifted images, each times what the kernel has there, which XLA fuses.
Numbers agree to the accuracy of float32.

`FastPath` says how it is switched on and off.
"""

import functools

import jax
import jax.numpy as jnp
import keras
from jax import lax

from keras_xreid.training.fast import FastPath, of_backend

nn = of_backend("nn")
plain = nn.depthwise_conv


def depthwise_conv(
    inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1
):  # fmt: skip
    """As `keras.ops.depthwise_conv`. What is not an image on a CPU is handed to Keras."""
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
    """The convolution of a padded image, with a gradient of its own."""
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


_path = FastPath(
    "jax",
    lambda: [(nn, "depthwise_conv", depthwise_conv)],
    "depthwise convolutions are many times as slow without it",
)
enabled, enable, disable = _path.enabled, _path.enable, _path.disable
