"""Discriminators."""

import keras
from keras import layers

from keras_xreid.layers.backbone import NormalizeImage


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
