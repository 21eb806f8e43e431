"""Discriminators: of images, and of feature maps."""

import keras
from keras import layers

from keras_xreid.backbones.blocks import NormalizeImage, basic_block, stem
from keras_xreid.errors import InputError


def build_image_discriminator(image_size, width=64, features=1024):
    """SRGAN's discriminator D, for images of any size.

    Eight 3x3 convolutions in pairs of `width`, 2, 4 and 8 times `width` channels, every second
    one with stride 2, batch normalization after all but the first, leaky ReLU 0.2, a dense layer
    of `features` and one logit. SRGAN flattens before the dense layer, which fixes the image
    size and costs 67 M weights at 256x128; ours: averages over the map.

    Args:
        image_size: (height, width) of its input.
        width: int, channels of the first pair; 64 in the paper.
        features: int, size of the dense layer.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to a list: the activation
        fd of the dense layer, (n, features), and the logit, (n, 1), positive for "real".

    Reference:
        Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative
        Adversarial Network, CVPR 2017, Figure 4.
    """
    image = keras.Input((*image_size, 3), name="image")
    x = NormalizeImage((0.5,) * 3, (0.5,) * 3)(image)
    for index in range(8):
        x = layers.Conv2D(
            width * 2 ** (index // 2), 3, strides=1 + index % 2, padding="same",
            use_bias=index == 0, kernel_initializer="he_normal", data_format="channels_last",
        )(x)  # fmt: skip
        if index:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    fd = layers.LeakyReLU(negative_slope=0.2, name="fd")(layers.Dense(features)(x))
    return keras.Model(image, [fd, layers.Dense(1, name="logit")(fd)], name="discriminator")


def build_resnet_discriminator(image_size, width=64):
    """CAD-Net's image discriminator D_I, "similar to ResNet-18".

    A 7x7 convolution with stride 2 and 3x3 pooling, four stages of two basic blocks of `width`,
    2, 4 and 8 times `width` channels, the average of the map, and one logit.

    Args:
        image_size: (height, width) of its input.
        width: int, channels of the first stage; 64 in ResNet-18.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to the logit, (n, 1),
        positive for "real".

    Reference:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016, Table 1.
    """
    image = keras.Input((*image_size, 3), name="image")
    x = stem(NormalizeImage((0.5,) * 3, (0.5,) * 3)(image), width)
    for stage in range(4):
        for block in range(2):
            strides = 2 if stage and not block else 1
            name = f"stage{stage + 1}_block{block + 1}"
            x = basic_block(x, width * 2**stage, strides, name)
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return keras.Model(image, layers.Dense(1, name="logit")(x), name="image_discriminator")


def build_feature_discriminators(maps, layout="tsai", width=64):
    """Discriminators of feature maps, one a level: is this image of high resolution?

    "tsai": 4x4 convolutions with stride 2 of `width`, 2, 4 and 8 times `width` channels and 1,
    leaky ReLU 0.2 between them, no normalization; one logit a place of the last map. Tsai et al.
    pad by 1 on each side, which leaves nothing of a 16x8 map; ours: "same".
    "rain-code", of RAIN's published code: six 3x3 convolutions with stride 1 of 16, 8, 4, 2, 1
    and half times `width` channels, each with batch normalization and leaky ReLU 0.2, and a dense
    layer to one logit.

    Args:
        maps: list of shapes (h, w, c) of the levels' feature maps.
        layout: "tsai" or "rain-code".
        width: int; 64 in both papers.

    Returns:
        A functional `keras.Model` from the list of maps to the list of logits, (n, h, w, 1) or
        (n, 1), positive for HR. Of a single map it returns the logits alone.

    Raises:
        InputError: an unknown layout.

    Example:

    >>> discriminator = build_feature_discriminators([(16, 8, 1024), (16, 8, 2048)])
    >>> logits_4, logits_5 = discriminator([f4, f5])

    Reference:
        Tsai et al., Learning to Adapt Structured Output Space for Semantic Segmentation,
        CVPR 2018, Section 4.1.
    """
    layouts = {"tsai": _tsai, "rain-code": _rain_code}
    if layout not in layouts:
        raise InputError(f"unknown layout {layout!r} of a discriminator: {', '.join(layouts)}")
    maps = [keras.Input(tuple(shape)) for shape in maps]
    logits = [layouts[layout](x, width) for x in maps]
    return keras.Model(maps, logits, name="feature_discriminator")


def _tsai(x, width):
    for filters in (width, 2 * width, 4 * width, 8 * width):
        x = _halved(x, filters, kernel_initializer="he_normal")
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    return _halved(x, 1)


def _halved(x, filters, **options):
    # "same" padding by a layer of its own: where oneDNN pads a map that is one pixel wide, in
    # TensorFlow 2.21, it reads and writes beyond it (garbage as gradients, or a crash).
    padding = [(1, 1 + size % 2) for size in x.shape[1:3]]
    x = layers.ZeroPadding2D(padding, data_format="channels_last")(x)
    return layers.Conv2D(filters, 4, strides=2, data_format="channels_last", **options)(x)


def _rain_code(x, width):
    for halvings in range(6):
        x = layers.Conv2D(
            max(1, 16 * width // 2**halvings), 3, padding="same", use_bias=False,
            kernel_initializer="he_normal", data_format="channels_last",
        )(x)  # fmt: skip
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    return layers.Dense(1)(layers.Flatten(data_format="channels_last")(x))
