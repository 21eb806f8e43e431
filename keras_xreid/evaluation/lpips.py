"""LPIPS (version 0.1, AlexNet) as a Keras model of plain layers, the same on every backend."""

import hashlib
from pathlib import Path

import keras
import numpy as np
from keras import layers

from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError

ALEXNET = "alexnet-owt-7be5be79.pth"
ALEXNET_URL = f"https://download.pytorch.org/models/{ALEXNET}"
ALEXNET_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
# The authors' file, 6 KB, as they publish it; its licence lies beside it.
HEADS = Path(__file__).with_name("lpips_alex_v0.1.pth")
SMALLEST = 31  # pixels: a smaller image has nothing left after the second pooling

# Filters and kernel of AlexNet's five convolutions, and their names in torchvision's file.
CONVOLUTIONS = ((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))
NAMES = ("features.0", "features.3", "features.6", "features.8", "features.10")


def load_lpips(alexnet=None):
    """Loads LPIPS with its published weights.

    The linear heads come with this library. AlexNet, 233 MB, is downloaded once, from where
    torchvision has it, into Keras's cache (`~/.keras/models`). Its SHA-256 is checked, and it is
    read without running what is in the file.

    Args:
        alexnet: path of torchvision's `alexnet-owt-7be5be79.pth`, where it is at hand.

    Returns:
        A `keras.Model`, see `build_lpips`.

    Raises:
        InputError: the file is not there and cannot be downloaded, or is another one.

    Example:

    >>> network = load_lpips()
    >>> lpips(recovered, originals, network)
    """
    if alexnet is None:
        try:
            alexnet = keras.utils.get_file(
                ALEXNET, ALEXNET_URL, cache_subdir="models", file_hash=ALEXNET_SHA256
            )
        except Exception as error:  # Keras raises a plain Exception where nothing is reached
            raise InputError(
                f"LPIPS needs AlexNet's weights, which cannot be downloaded ({error}): put "
                f"{ALEXNET} (233 MB) into ~/.keras/models"
            ) from error
    alexnet = Path(alexnet)
    if not alexnet.is_file():
        raise InputError(f"no AlexNet weights at {alexnet}: fetch them from {ALEXNET_URL}")
    with alexnet.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != ALEXNET_SHA256:
        raise InputError(
            f"{alexnet} is not torchvision's {ALEXNET}: its SHA-256 is {found}, expected "
            f"{ALEXNET_SHA256}; fetch it again from {ALEXNET_URL}"
        )
    return build_lpips(read_state_dict(alexnet))


def build_lpips(alexnet):
    """Builds LPIPS on given AlexNet weights, with the authors' linear heads.

    Both images pass AlexNet's convolutions. At each of the five ReLUs the channels of each place
    are brought to length 1, and their squared differences are weighted by a linear head, averaged
    over the places and added up (Eq. 1 of the paper).

    Args:
        alexnet: dictionary from torchvision's names ("features.0.weight", (64, 3, 11, 11), ...)
            to arrays; what is not a convolution is not looked at.

    Returns:
        A `keras.Model` from two float32 batches of images, (n, height, width, 3), RGB in [0, 1],
        31 pixels a side or more, to (n, 1): 0 for equal images, larger is less alike. It is not
        trainable, and float32 whatever the policy.

    Raises:
        InputError: a convolution is missing or has another shape.

    Reference:

    - Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
      CVPR 2018.
    """
    trunk = _alexnet()
    images, references = (
        keras.Input((None, None, 3), dtype="float32", name=n) for n in ("images", "references")
    )
    heads, distances = [], []
    for i, pair in enumerate(zip(trunk(images), trunk(references), strict=True)):
        pair = [layers.UnitNormalization(axis=-1, dtype="float32")(x) for x in pair]
        difference = layers.Subtract(dtype="float32")(pair)
        squared = layers.Multiply(dtype="float32")([difference, difference])
        heads.append(_convolution(1, 1, name=f"head{i}", use_bias=False))
        pooling = layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32")
        distances.append(pooling(heads[-1](squared)))
    total = layers.Add(dtype="float32")(distances)
    model = keras.Model([images, references], total, name="lpips")
    linear = read_state_dict(HEADS)
    for i, (name, head) in enumerate(zip(NAMES, heads, strict=True)):
        convolution = trunk.get_layer(f"conv{i + 1}")
        convolution.set_weights(_torch_convolution(alexnet, name, convolution))
        head.set_weights([linear[f"lin{i}.model.1.weight"].transpose(2, 3, 1, 0)])
    model.trainable = False
    return model


def _alexnet():
    """AlexNet as in torchvision (Krizhevsky's "one weird trick"), up to its last ReLU."""
    images = keras.Input((None, None, 3), dtype="float32")
    # LPIPS's own shift and scale, of images in [-1, 1], are ImageNet's mean and deviation.
    x = layers.Normalization(
        mean=(0.485, 0.456, 0.406), variance=np.square((0.229, 0.224, 0.225)), dtype="float32"
    )(images)
    taps = []
    for i, (filters, kernel) in enumerate(CONVOLUTIONS):
        if i in (1, 2):
            pooling = layers.MaxPooling2D(3, 2, data_format="channels_last", dtype="float32")
            x = pooling(x)
        # PyTorch pads both sides alike, which Keras's "same" does not at a stride of 4.
        padding = layers.ZeroPadding2D(
            2 if kernel == 11 else kernel // 2, data_format="channels_last", dtype="float32"
        )
        strides = 4 if kernel == 11 else 1
        convolution = _convolution(
            filters, kernel, name=f"conv{i + 1}", strides=strides, activation="relu"
        )
        x = convolution(padding(x))
        taps.append(x)
    return keras.Model(images, taps, name="alexnet")


def _convolution(filters, kernel, **kwargs):
    return layers.Conv2D(filters, kernel, data_format="channels_last", dtype="float32", **kwargs)


def _torch_convolution(weights, name, layer):
    arrays = []
    for kind, variable in (("weight", layer.kernel), ("bias", layer.bias)):
        array = weights.get(f"{name}.{kind}")
        if kind == "weight" and array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        if array is None or array.shape != tuple(variable.shape):
            found = "is missing" if array is None else f"becomes {array.shape}"
            raise InputError(
                f"{name}.{kind} {found}, expected {tuple(variable.shape)}: these are not the "
                "weights of torchvision's AlexNet"
            )
        arrays.append(array)
    return arrays
