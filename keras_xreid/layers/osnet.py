"""OSNet, the omni-scale network for person re-identification, and the reader of its weights."""

from keras import layers

WIDTHS = {"osnet_x1_0": 1.0, "osnet_x0_75": 0.75, "osnet_x0_5": 0.5, "osnet_x0_25": 0.25}


def convolution(x, filters, kernel, name, strides=1):
    """Apply a bias-free convolution that pads both sides of each axis by half its kernel.

    Keras's "same" pads a strided convolution on one side only; published PyTorch weights expect
    both sides.

    Args:
        x: image tensor (n, h, w, c).
        filters: number of output channels.
        kernel: odd size of the square kernel.
        name: the layer's name.
        strides: 1 or 2.

    Returns:
        Tensor (n, ceil(h / strides), ceil(w / strides), filters).
    """
    if strides > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, data_format="channels_last", name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        data_format="channels_last",
        name=name,
    )(x)


def batch_norm(x, name):
    """Apply batch normalization over the channels, with PyTorch's epsilon and momentum."""
    return layers.BatchNormalization(axis=-1, momentum=0.9, epsilon=1e-5, name=name)(x)


def stem(x, filters, name="conv1"):
    """Shrink an image to a quarter: 7x7 convolution, batch normalization, ReLU, 3x3 max pooling."""
    x = convolution(x, filters, 7, f"{name}_conv", strides=2)
    x = batch_norm(x, f"{name}_bn")
    x = layers.ReLU(name=f"{name}_relu")(x)
    # What comes from ReLU is not negative, so zeros never win the maximum.
    x = layers.ZeroPadding2D(1, data_format="channels_last", name=f"{name}_pool_pad")(x)
    return layers.MaxPooling2D(3, 2, data_format="channels_last", name=f"{name}_pool")(x)
