"""OSNet, the omni-scale network for person re-identification, and the reader of its weights."""

from keras import layers

from keras_xreid.backbones.blocks import batch_norm, convolution, stem
from keras_xreid.backbones.torch_weights import keras_layout, read_state_dict
from keras_xreid.errors import InputError

WIDTHS = {"osnet_x1_0": 1.0, "osnet_x0_75": 0.75, "osnet_x0_5": 0.5, "osnet_x0_25": 0.25}


def osnet(x, name="osnet_x1_0"):
    """Applies OSNet, whose blocks see a person at four scales and weigh them by channel gates.

    Layers carry torchreid's parameter names with "_" for ".", so that its weights can be read.

    Args:
        x: normalised images (n, h, w, 3).
        name: one of osnet_x1_0, osnet_x0_75, osnet_x0_5, osnet_x0_25; the number is the width.

    Returns:
        The five feature maps, of conv1 with its pooling (stride 4), conv2 (8), conv3 (16),
        conv4 (16) and conv5 (16); at width 1 they are 64, 256, 384, 512 and 512 channels wide.

    Reference:
        Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019.
    """
    widths = [int(WIDTHS[name] * width) for width in (64, 256, 384, 512)]
    x = stem(x, widths[0])
    taps = [x]
    for stage, filters in zip(("conv2", "conv3", "conv4"), widths[1:], strict=True):
        x = omni_scale_block(x, filters, f"{stage}_0")
        x = omni_scale_block(x, filters, f"{stage}_1")
        if stage != "conv4":
            x = _conv_bn_relu(x, filters, f"{stage}_2_0")
            x = layers.AveragePooling2D(2, data_format="channels_last", name=f"{stage}_2_pool")(x)
        taps.append(x)
    taps.append(_conv_bn_relu(x, widths[3], "conv5"))
    return taps


def omni_scale_block(x, filters, name):
    """Applies OSNet's residual block: one to four light 3x3 convolutions side by side, gated.

    Args:
        x: tensor (n, h, w, c).
        filters: number of output channels; the inside is a quarter as wide.
        name: prefix of the layers' names.

    Returns:
        Tensor (n, h, w, filters).
    """
    middle = filters // 4
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = convolution(x, filters, 1, f"{name}_downsample_conv")
        shortcut = batch_norm(shortcut, f"{name}_downsample_bn")
    x = _conv_bn_relu(x, middle, f"{name}_conv1")

    # One gate serves the four streams: its weights are shared.
    mean = layers.GlobalAveragePooling2D(
        data_format="channels_last", keepdims=True, name=f"{name}_gate_mean"
    )
    squeeze = layers.Dense(middle // 16, activation="relu", name=f"{name}_gate_fc1")
    excite = layers.Dense(middle, activation="sigmoid", name=f"{name}_gate_fc2")
    streams = []
    for depth, letter in enumerate("abcd", start=1):
        stream = x
        for i in range(depth):
            # torchreid numbers the convolutions of a stream only where there are several.
            number = f"_{i}" if depth > 1 else ""
            stream = _light_convolution(stream, middle, f"{name}_conv2{letter}{number}")
        gate = excite(squeeze(mean(stream)))
        streams.append(layers.Multiply(name=f"{name}_gated_{letter}")([stream, gate]))
    x = layers.Add(name=f"{name}_sum")(streams)

    x = convolution(x, filters, 1, f"{name}_conv3_conv")
    x = batch_norm(x, f"{name}_conv3_bn")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


def _conv_bn_relu(x, filters, name):
    x = convolution(x, filters, 1, f"{name}_conv")
    x = batch_norm(x, f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x)


def _light_convolution(x, filters, name):
    """Pointwise first, then depthwise: the reverse of MobileNet's order."""
    x = convolution(x, filters, 1, f"{name}_conv1")
    x = layers.DepthwiseConv2D(
        3,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        data_format="channels_last",
        name=f"{name}_conv2",
    )(x)
    x = batch_norm(x, f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x)


def load_torchreid_weights(network, path):
    """Fills an OSNet from a weights file of torchreid.

    A classifier is filled only if it was trained on as many people as the network's.

    Args:
        network: a backbone from `build_backbone("osnet_...", ...)`, or a network that has one and
            may have the layers `fc`, `fc_bn` and `classifier` after it.
        path: torchreid's `.pth` or `.pth.tar` file; see `torch_weights.read_state_dict`.

    Returns:
        List of the file's parameter names that found no place in the network: of `fc` and
        `classifier` at most.

    Raises:
        InputError: the file cannot be read, or is not of this network and width.

    Example:

    >>> backbone = build_backbone("osnet_x1_0", (256, 128))
    >>> load_torchreid_weights(backbone, "osnet_x1_0_imagenet.pth")
    ['fc.0.weight', ..., 'classifier.weight', 'classifier.bias']

    Reference:
        https://kaiyangzhou.github.io/deep-person-reid/MODEL_ZOO
    """
    arrays = read_state_dict(path)
    names = {_place(name, arrays): name for name in arrays}
    places = {v.path: tuple(v.path.split("/")[-2:]) for v in network.weights}
    missing = [place for place in places.values() if place not in names]
    if missing:
        raise InputError(
            f"{path} has no weights for {'/'.join(missing[0])}: it is not torchreid's OSNet, "
            "or the network is not an OSNet"
        )
    found = []
    for variable in network.weights:
        place = places[variable.path]
        name = names[place]
        array = keras_layout(arrays[name], variable.shape)
        if array.shape == tuple(variable.shape):
            found.append((name, variable, array))
        elif place[0] != "classifier":
            raise InputError(
                f"{path} has {name} of shape {array.shape} where the network has "
                f"{tuple(variable.shape)}: build the OSNet of the file's width"
            )
    used = {name for name, _, _ in found}
    left = [n for n in arrays if n not in used and not n.endswith("num_batches_tracked")]
    strangers = [n for n in left if not n.startswith(("fc.", "classifier."))]
    if strangers:
        raise InputError(
            f"{path} has {strangers[0]}, which OSNet has not: it is another network's file"
        )
    for _, variable, array in found:  # only now, so that a refused file changes nothing
        variable.assign(array)
    return left


def _place(name, names):
    """Returns the Keras layer and variable for one of torchreid's parameter names."""
    layer, _, kind = name.rpartition(".")
    if f"{layer}.running_mean" in names:
        kinds = {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }
    else:
        kinds = {"weight": "kernel"}
    renamed = {"fc.0": "fc", "fc.1": "fc_bn"}
    return renamed.get(layer, layer.replace(".", "_")), kinds.get(kind, kind)
