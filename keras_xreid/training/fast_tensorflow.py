"""Training of Keras on TensorFlow, on a CPU: one kernel where Keras or oneDNN take the slow way.

- Batch normalization is a dozen passes over the feature map, forwards and backwards. Here it is
  TensorFlow's own kernel.
- oneDNN has a fast gradient for a depthwise kernel of 3x3, and takes ten times as long for 5x5.
  Here a wider kernel's is put together from blocks of 3x3.
- It has no good gradients in bfloat16, where a depthwise convolution skips pixels and for its
  kernel. Here both are found in float32, which costs less than they do.

Numbers agree to the accuracy of float32. `FastPath` says how it is switched on and off.
"""

import keras
import tensorflow as tf
from keras import layers

from keras_xreid.training.fast import FastPath, of_backend

BLOCK = 3
nn = of_backend("nn")
plain_depthwise_conv = nn.depthwise_conv
plain_batch_normalization_call = layers.BatchNormalization.call
plain_moments = layers.BatchNormalization._moments


def on_cpu():
    return not tf.config.list_logical_devices("GPU")


# --- depthwise convolutions ---


def depthwise_conv(
    inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1
):  # fmt: skip
    """As `keras.ops.depthwise_conv`. Where its gradient is not slow, it is handed to Keras."""
    x, kernel = map(nn.convert_to_tensor, (inputs, kernel))
    pair = (strides, strides) if isinstance(strides, int) else tuple(strides)
    slow = max(kernel.shape[:2]) > BLOCK or x.dtype == tf.bfloat16
    known = (
        slow
        and x.dtype == kernel.dtype
        and x.dtype in (tf.float32, tf.bfloat16)
        and (data_format or keras.config.image_data_format()) == "channels_last"
        and len(kernel.shape) == 4
        and kernel.shape[2] == x.shape[3]
        and None not in x.shape[1:3]
        and pair[0] == pair[1]
        and dilation_rate in (1, (1, 1))
        and on_cpu()
    )
    if not known:
        return plain_depthwise_conv(inputs, kernel, strides, padding, data_format, dilation_rate)
    # Of a variable, its value: TensorFlow wants a gradient of ours to know of none.
    return _convolution(x, tf.convert_to_tensor(kernel), (1, *pair, 1), padding.upper())


def _convolution(x, kernel, strides, padding):
    """The convolution, with a gradient of its own."""
    step, shape = strides[1], tuple(kernel.shape)

    @tf.custom_gradient
    def convolve(x, kernel):
        y = tf.nn.depthwise_conv2d(x, kernel, strides, padding)

        def back(gradient):
            dtype, exact = x.dtype, tf.cast(gradient, tf.float32)
            direct = step == 1 or dtype == tf.float32
            of_x = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel if direct else tf.cast(kernel, tf.float32),
                out_backprop=gradient if direct else exact,
                strides=strides,
                padding=padding,
            )
            exact = tf.ensure_shape(exact, y.shape)
            of_kernel = _of_kernel(tf.cast(x, tf.float32), exact, shape, step, padding)
            return tf.cast(of_x, dtype), tf.cast(of_kernel, dtype)

        return y, back

    return convolve(x, kernel)


def _of_kernel(x, gradient, shape, step, padding):
    """The kernel's gradient, in blocks of at most 3x3: each is that of a smaller convolution."""
    sizes, starts, pads = tuple(gradient.shape[1:3]), [], []
    for size, out, wide in zip(tuple(x.shape[1:3]), sizes, shape[:2], strict=True):
        zeros = max((out - 1) * step + wide - size, 0) if padding == "SAME" else 0
        pads.append((zeros // 2, zeros - zeros // 2))
        # The last block overlaps: one of two or one rows is slower than one of three.
        starts.append([*range(0, wide - BLOCK, BLOCK), max(wide - BLOCK, 0)])
    x = tf.pad(x, ((0, 0), *pads, (0, 0)))
    high, wide = (min(BLOCK, size) for size in shape[:2])

    def block(top, left):
        down = slice(top, top + (sizes[0] - 1) * step + high)
        across = slice(left, left + (sizes[1] - 1) * step + wide)
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=x[:, down, across],
            filter_sizes=(high, wide, *shape[2:]),
            out_backprop=gradient,
            strides=(1, step, step, 1),
            padding="VALID",
        )

    def joined(blocks, starts, axis):
        """Blocks side by side; of one that overlaps the blocks before it, what is new."""
        parts, end = [], 0
        for part, start in zip(blocks, starts, strict=True):
            parts.append(part[(slice(None),) * axis + (slice(end - start, None),)])
            end = start + part.shape[axis]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis)

    rows = [joined([block(i, j) for j in starts[1]], starts[1], 1) for i in starts[0]]
    return joined(rows, starts[0], 0)


# --- batch normalization ---


def batch_normalization_call(self, inputs, training=None, mask=None):
    x = tf.convert_to_tensor(inputs)
    direct = (
        isinstance(training, (bool, int))
        and training
        and self.trainable
        and mask is None
        and not self.renorm
        and not self.synchronized
        and x.dtype in (tf.float32, tf.bfloat16)
        and self.moving_mean.dtype == "float32"
        and self.axis in (-1, len(x.shape) - 1)
        and None not in x.shape[1:]
        and type(self)._moments is plain_moments
        and on_cpu()
    )
    if not direct:
        return plain_batch_normalization_call(self, inputs, training=training, mask=mask)
    shape, channels = tf.shape(x), x.shape[-1]
    gamma = tf.cast(self.gamma, tf.float32) if self.scale else tf.ones(channels)
    beta = tf.cast(self.beta, tf.float32) if self.center else tf.zeros(channels)
    image = x if len(x.shape) == 4 else tf.reshape(x, (shape[0], -1, 1, channels))
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        image, gamma, beta, epsilon=self.epsilon, is_training=True
    )
    # The kernel's variance is unbiased, Keras's is not.
    values = tf.cast(tf.size(x) // channels, tf.float32)
    variance = variance * (tf.maximum(values - 1, 1) / values)
    for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
        moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
    return tf.cast(y if image is x else tf.reshape(y, shape), self.compute_dtype)


_path = FastPath(
    "tensorflow",
    lambda: [
        (nn, "depthwise_conv", depthwise_conv),
        (layers.BatchNormalization, "call", batch_normalization_call),
    ],
    "a train step takes half as long again without it",
)
enabled, enable, disable = _path.enabled, _path.enable, _path.disable
