"""Floating-point operations of a network, counted from its layers: nothing is run."""

import math

import keras
from keras import layers

from keras_xreid.errors import InputError

CONVOLUTIONS = (
    layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D,
)  # fmt: skip
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
COUNTED = (*CONVOLUTIONS, *TRANSPOSED, layers.Dense)


def forward_flops(model):
    """Counts the floating-point operations of one image's forward pass.

    A multiply-add counts as 2. Convolutions, depthwise and transposed ones included, and dense
    layers are counted, each as often as it is called, inside nested models too. Biases and all
    other layers (normalization, activations, pooling) are not, as is usual in the field. The
    zeros that a convolution pads with count like pixels.

    Args:
        model: a functional `keras.Model` whose images have a fixed size.

    Returns:
        int, operations an image.

    Raises:
        InputError: a model that is not functional, a map without a fixed size, or a layer that
            has convolutions or dense layers inside, whose calls cannot be seen.

    Example:

    >>> forward_flops(build_reid_network(401, "osnet_x1_0", (256, 128)))
    1958161408
    """
    if not hasattr(model, "_nodes_by_depth"):
        raise InputError(
            f"{getattr(model, 'name', model)} is no functional keras.Model: "
            "count its functional parts one by one"
        )
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    return sum(_node_flops(node) for node in nodes if not node.is_input)


def embedding_cost(model):
    """Counts parameters and operations between a query's image and its embedding.

    Args:
        model: a `ReIDModel`.

    Returns:
        Two ints: parameters, and operations an image, see `forward_flops`.

    Raises:
        InputError: as `forward_flops`.

    Example:

    >>> parameters, flops = embedding_cost(xr.load("runs/rain-synthetic"))
    """
    image = keras.Input((*model.image_size, 3))
    network = keras.Model(image, model.call(image))
    return network.count_params(), forward_flops(network)


def _node_flops(node):
    """Operations of one call of one layer."""
    layer = node.operation
    if isinstance(layer, keras.Model):
        return forward_flops(layer)
    if isinstance(layer, COUNTED):
        # Each weight of a kernel is used once at every place of the map: of the output, or, where
        # it is the input's pixels that are spread out, of the input.
        tensor = node.input_tensors[0] if isinstance(layer, TRANSPOSED) else node.outputs[0]
        places = tensor.shape[1:-1]
        if getattr(layer, "data_format", None) == "channels_first":
            places = tensor.shape[2:]
        if None in places:
            raise InputError(
                f"layer {layer.name} has a map of size {places}: build the model for images of "
                "a fixed size"
            )
        return 2 * math.prod(layer.kernel.shape) * math.prod(places)
    inside = layer._flatten_layers(include_self=False) if isinstance(layer, layers.Layer) else ()
    hidden = [part.name for part in inside if isinstance(part, COUNTED)]
    if hidden:
        raise InputError(
            f"layer {layer.name} ({type(layer).__name__}) calls {hidden[0]} inside itself, where "
            "its operations cannot be counted: use a functional model in its place"
        )
    return 0
