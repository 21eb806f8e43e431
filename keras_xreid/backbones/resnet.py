"""ResNets: ResNet-50 of `keras.applications`, and a small one of our own."""

import gc

import keras

from keras_xreid.backbones.blocks import NormalizeImage, basic_block, stem
from keras_xreid.errors import InputError


def resnet50(image, weights=None, last_stride=1):
    """Builds the ResNet-50 of `keras.applications`, without the biases of its convolutions.

    Args:
        image: input of images (n, h, w, 3) in [0, 1].
        weights: None or "imagenet".
        last_stride: stride of the last stage, 1 or 2.

    Returns:
        A functional `keras.Model` from images to the five feature maps: the stem's (stride 4), and
        the four stages' (4, 8, 16, 16).

    Raises:
        InputError: weights that cannot be fetched.
    """
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
