"""INTACT's super-resolution generator."""

import keras
from keras import layers, ops

from keras_xreid.backbones.blocks import NormalizeImage
from keras_xreid.errors import InputError


@keras.saving.register_keras_serializable("keras_xreid")
class PixelShuffle(layers.Layer):
    """Turns channels into pixels: (n, h, w, 4c) becomes (n, 2h, 2w, c).

    Args:
        factor: int, how many times higher and wider; 2 by default.

    Example:

    >>> PixelShuffle()(keras.ops.zeros((1, 16, 8, 64))).shape
    (1, 32, 16, 16)

    Reference:
        Shi et al., Real-time single image and video super-resolution, CVPR 2016.
    """

    def __init__(self, factor=2, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        height, width, channels = x.shape[1:]
        r = self.factor
        x = ops.reshape(x, (-1, height, width, r, r, channels // r**2))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height * r, width * r, channels // r**2))

    def compute_output_shape(self, input_shape):
        n, height, width, channels = input_shape
        r = self.factor
        return (n, height * r, width * r, channels // r**2)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def build_generator(image_size, widths=(64, 128, 256, 512), batch_normalization=True):
    """INTACT's generator G: an encoder-decoder of 16 residual blocks in 8 groups of 2.

    Four groups end in 2x2 max pooling (256x128 becomes 16x8), four in pixel shuffle. The paper
    gives neither widths nor skips nor the output; ours: a group of the decoder adds the feature
    map of the encoder's group of its size, and the network predicts what is to be added to the
    enlarged image. The last convolution starts at zero, so that training starts at G(x) = x.

    Args:
        image_size: (height, width), multiples of 16.
        widths: four ints, channels of the encoder's groups from the first to the last; the
            decoder mirrors them.
        batch_normalization: bool, batch normalization in the residual blocks.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to the same shape. Values
        may leave [0, 1] a little.

    Raises:
        InputError: the size is not a multiple of 16.

    Reference:
        Cheng et al., Inter-Task Association Critic for Cross-Resolution Person
        Re-Identification, CVPR 2020, Section 4.3 and Figure 3.
    """
    height, width = image_size
    if height % 16 or width % 16:
        raise InputError(
            f"image size {height}x{width}: INTACT's generator halves an image four times: give "
            "multiples of 16"
        )

    def convolution(x, filters, kernel_size=3, initializer="glorot_uniform", **kwargs):
        return layers.Conv2D(
            filters, kernel_size, padding="same", kernel_initializer=initializer,
            data_format="channels_last", **kwargs,
        )(x)  # fmt: skip

    def block(x, filters):
        # A block starts as the identity, and a chain of sixteen does not swell: its last kernel
        # starts at zero, or the scale of its last normalization does.
        if batch_normalization:
            y = convolution(x, filters, use_bias=False)
            y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(y)
            y = convolution(layers.Activation("relu")(y), filters, use_bias=False)
            y = layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, gamma_initializer="zeros"
            )(y)  # fmt: skip
        else:
            y = layers.Activation("relu")(convolution(x, filters))
            y = convolution(y, filters, initializer="zeros")
        if x.shape[-1] != filters:
            x = convolution(x, filters, kernel_size=1)
        return layers.Add()([x, y])

    image = keras.Input((height, width, 3), name="image")
    x = convolution(NormalizeImage((0.5,) * 3, (0.5,) * 3)(image), widths[0])
    skips = []
    for filters in widths:
        x = block(block(x, filters), filters)
        skips.append(x)
        x = layers.MaxPooling2D(2, data_format="channels_last")(x)
    for filters, skip in zip(reversed(widths), reversed(skips), strict=True):
        x = block(block(x, filters), filters)
        x = PixelShuffle()(convolution(x, 4 * skip.shape[-1]))
        x = layers.Add()([x, skip])
    x = layers.Activation("relu")(x)
    residual = layers.Conv2D(
        3, 3, padding="same", kernel_initializer="zeros", data_format="channels_last"
    )(x)
    return keras.Model(image, layers.Add()([image, residual]), name="generator")
