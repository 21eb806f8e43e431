"""Backbones: from an image to the feature maps of its five stages."""

import keras
from keras import layers, ops

from keras_xreid.errors import InputError
from keras_xreid.layers.osnet import batch_norm, convolution, stem

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NAMES = ("resnet_tiny",)


def build_backbone(name_or_model, image_size, weights=None, last_stride=1):
    """Build the network that turns images into feature maps."""
    height, width = image_size
    if name_or_model not in NAMES:
        raise InputError(
            f"unknown backbone {name_or_model!r}: the known ones are {', '.join(NAMES)}"
        )
    inputs = layers.Input((height, width, 3), name="image")
    x = NormalizeImage(IMAGENET_MEAN, IMAGENET_STD, name="normalize")(inputs)
    return keras.Model(inputs, resnet_tiny(x, last_stride), name=name_or_model)


def resnet_tiny(x, last_stride=1):
    """Apply a ResNet of two basic blocks a stage, 64-96-160-256 channels wide (3.5 M parameters).

    Args:
        x: normalised images (n, h, w, 3).
        last_stride: stride of the last stage, 1 or 2.

    Returns:
        The five feature maps: the stem's (stride 4), and the four stages' (4, 8, 16, 16).
    """
    x = stem(x, 64)
    taps = [x]
    for stage, (filters, strides) in enumerate(
        zip((64, 96, 160, 256), (1, 2, 2, last_stride), strict=True), start=1
    ):
        x = basic_block(x, filters, strides, f"stage{stage}_block1")
        x = basic_block(x, filters, 1, f"stage{stage}_block2")
        taps.append(x)
    return taps


def basic_block(x, filters, strides, name):
    """Apply two 3x3 convolutions and add the input, projected where its shape differs."""
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
    """Subtract a mean from each channel and divide by a standard deviation.

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
