"""What several backbones, and other networks, are made of."""

import keras
from keras import layers, ops


def convolution(x, filters, kernel, name, strides=1):
    """Applies a bias-free convolution that pads both sides of each axis by half its kernel.

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
    """Applies batch normalization over the channels, with PyTorch's epsilon and momentum."""
    return layers.BatchNormalization(axis=-1, momentum=0.9, epsilon=1e-5, name=name)(x)


def stem(x, filters, name="conv1"):
    """Shrinks an image to a quarter: 7x7 convolution, normalization, ReLU, 3x3 max pooling."""
    x = convolution(x, filters, 7, f"{name}_conv", strides=2)
    x = batch_norm(x, f"{name}_bn")
    x = layers.ReLU(name=f"{name}_relu")(x)
    # What comes from ReLU is not negative, so zeros never win the maximum.
    x = layers.ZeroPadding2D(1, data_format="channels_last", name=f"{name}_pool_pad")(x)
    return layers.MaxPooling2D(3, 2, data_format="channels_last", name=f"{name}_pool")(x)


def basic_block(x, filters, strides, name):
    """Applies two 3x3 convolutions and adds the input, projected where its shape differs."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolution(x, filters, 1, f"{name}_shortcut_conv", strides)
        shortcut = batch_norm(shortcut, f"{name}_shortcut_bn")
    x = convolution(x, filters, 3, f"{name}_conv1", strides)
    x = batch_norm(x, f"{name}_bn1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = convolution(x, filters, 3, f"{name}_conv2")
    x = batch_norm(x, f"{name}_bn2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


@keras.saving.register_keras_serializable("keras_xreid")
class NormalizeImage(layers.Layer):
    """Subtracts a mean from each channel and divides by a standard deviation.

    Keras's own `Rescaling` looks for the channels where the global image data format says, and
    this package keeps them last always.

    Args:
        mean: one number for each of the channels red, green, blue.
        std: likewise.
        to_bgr: also reverse the channels.

    Example:

    >>> NormalizeImage((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))(np.ones((1, 2, 2, 3)))[0, 0, 0, 0]
    2.0
    """

    def __init__(self, mean, std, to_bgr=False, **kwargs):
        super().__init__(**kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.to_bgr = to_bgr

    def call(self, images):
        scale = ops.convert_to_tensor([1 / std for std in self.std], self.compute_dtype)
        offset = ops.convert_to_tensor(
            [-m / s for m, s in zip(self.mean, self.std, strict=True)], self.compute_dtype
        )
        x = ops.cast(images, self.compute_dtype) * scale + offset
        return ops.flip(x, axis=-1) if self.to_bgr else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "to_bgr": self.to_bgr,
        }
