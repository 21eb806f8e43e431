"""The decoder of RAIN and CAD-Net: from a backbone's feature maps to a high-resolution image."""

import keras
from keras import layers, ops

from keras_xreid.backbones.blocks import batch_norm, convolution
from keras_xreid.errors import InputError


@keras.saving.register_keras_serializable("keras_xreid")
class ToPixels(layers.Layer):
    """Squashes any number into [0, 1] with a hyperbolic tangent, (tanh x + 1) / 2.

    It computes in float32: in bfloat16 a tangent near -1 would leave dark pixels few values.

    Example:

    >>> ToPixels()(np.zeros((1, 2, 2, 3)))[0, 0, 0, 0]
    0.5
    """

    def call(self, x):
        pixels = (ops.tanh(ops.cast(x, "float32")) + 1.0) / 2.0
        return ops.cast(pixels, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


def build_decoder(maps, image_size, widths=(512, 256, 128, 64), skips=True, residual=False):
    """Builds the decoder G: residual up-blocks from the last feature map to the image.

    A block is BN-ReLU-(nearest x2)-conv3-BN-ReLU-conv3, beside a shortcut of x2 and conv1; there
    are as many as the last map's stride needs, four from stride 16, five from 32. The end is
    BN-ReLU-conv3-tanh, mapped to [0, 1]. With skips, what a block returns is joined to the
    deepest feature map of its size, where there is one.

    Args:
        maps: list of shapes (h, w, c) of the backbone's feature maps, finest first.
        image_size: (height, width) of the image, the last map's times a power of two.
        widths: channels of the blocks. Where more are needed the first is repeated, and where
            fewer are needed the first are left out.
        skips: bool; without them all maps but the last go unread.
        residual: bool, ours: the image itself is a last input, and BN-ReLU-conv3 is what is added
            to it, at first 0; values may leave [0, 1] a little. No map is as fine as the image,
            so that without it fine detail is lost.

    Returns:
        A functional `keras.Model` from the list of maps to the image, (n, height, width, 3) in
        [0, 1].

    Raises:
        InputError: a size that doubling the last map does not reach.

    Example:

    >>> backbone = build_backbone("resnet_tiny", (128, 64))
    >>> decoder = build_decoder([x.shape[1:] for x in backbone.outputs], (128, 64))
    >>> recovered = decoder(backbone(images))

    Reference:
        Miyato and Koyama, cGANs with Projection Discriminator, ICLR 2018.
        Li et al., Recover and Identify, ICCV 2019, Section 3.2.
    """
    maps = [keras.Input(tuple(shape), name=f"map{i}") for i, shape in enumerate(maps, start=1)]
    x = maps[-1]
    size, smallest = tuple(image_size), tuple(x.shape[1:3])
    blocks = (size[0] // smallest[0]).bit_length() - 1
    if tuple(side * 2**blocks for side in smallest) != size:
        raise InputError(
            f"image size {size[0]}x{size[1]}: a decoder doubles the last feature map, "
            f"{smallest[0]}x{smallest[1]}, which does not reach it; give multiples of 32"
        )
    widths = ((widths[0],) * blocks + tuple(widths))[len(widths) :]
    for i, filters in enumerate(widths, start=1):
        x = _up_block(x, filters, f"up{i}")
        beside = [y for y in maps[:-1] if y.shape[1:3] == x.shape[1:3]]
        if skips and beside:
            x = layers.Concatenate(name=f"up{i}_skip")([x, beside[-1]])
    x = _bn_relu(x, "end")
    if residual:
        image = keras.Input((*size, 3), name="image")
        added = layers.Conv2D(
            3, 3, padding="same", kernel_initializer="zeros", data_format="channels_last",
            name="end_conv",
        )(x)  # fmt: skip
        recovered = layers.Add(name="pixels")([image, added])
        return keras.Model([*maps, image], recovered, name="decoder")
    x = layers.Conv2D(3, 3, padding="same", data_format="channels_last", name="end_conv")(x)
    return keras.Model(maps, ToPixels(name="pixels")(x), name="decoder")


def _up_block(x, filters, name):
    # A 1x1 convolution and nearest neighbours commute; before them it is a quarter of the work.
    shortcut = convolution(x, filters, 1, f"{name}_shortcut_conv")
    shortcut = _double(shortcut, f"{name}_shortcut_double")
    x = _double(_bn_relu(x, f"{name}_1"), f"{name}_double")
    x = convolution(x, filters, 3, f"{name}_conv1")
    x = convolution(_bn_relu(x, f"{name}_2"), filters, 3, f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _bn_relu(x, name):
    return layers.ReLU(name=f"{name}_relu")(batch_norm(x, f"{name}_bn"))


def _double(x, name):
    return layers.UpSampling2D(
        2, data_format="channels_last", interpolation="nearest", name=name
    )(x)  # fmt: skip
