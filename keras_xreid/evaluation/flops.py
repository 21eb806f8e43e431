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
NOT_COUNTED = (
    layers.SeparableConv1D, layers.SeparableConv2D, layers.EinsumDense, layers.MultiHeadAttention,
    layers.GroupQueryAttention, layers.RNN,
)  # fmt: skip


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
        InputError: a model that is not functional, a map without a fixed size, a layer that is
            not counted and costs much (separable convolutions, attention), or one that has
            convolutions or dense layers inside, whose calls cannot be seen.

    Example:

    >>> forward_flops(build_reid_network(401, "osnet_x1_0", (256, 128)))
    1958161408
    """
    if not hasattr(model, "_nodes_by_depth"):
        raise InputError(
            f"{getattr(model, 'name', model)} is no functional keras.Model: "
            "count its functional parts one by one"
        )
    return _cost(model.outputs)[1]


def embedding_cost(model):
    """Counts parameters and operations between a query's image and its embedding.

    What only training needs, such as the classifier behind the embedding, is not counted.

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
    found, flops = _cost([model.embedding(image)])
    weights = {id(w): w for layer in found for w in getattr(layer, "weights", ())}
    return sum(math.prod(w.shape) for w in weights.values()), flops


def cost_of(model):
    """The same for metrics.json; a run of hours is not lost for what cannot be counted.

    Args:
        model: a `ReIDModel`.

    Returns:
        A dict of "parameters" and "flops", or None where they cannot be counted.
    """
    try:
        parameters, flops = embedding_cost(model)
    except (InputError, NotImplementedError, TypeError, ValueError):
        return None
    return {"parameters": parameters, "flops": flops}


def _cost(outputs):
    """The layers that these symbolic tensors come from, and their operations."""
    nodes, ahead = {}, list(outputs)
    while ahead:
        operation, place, output = ahead.pop()._keras_history
        node = operation._inbound_nodes[place]
        if id(node) not in nodes:
            nodes[id(node)] = node, set()
            ahead += node.input_tensors
        nodes[id(node)][1].add(output)
    found, flops = [], 0
    for node, used in nodes.values():
        if hasattr(node.operation, "_nodes_by_depth"):  # a functional model
            inside = _cost([node.operation.outputs[output] for output in used])
            found += inside[0]
            flops += inside[1]
        elif not node.is_input:
            found.append(node.operation)
            flops += _node_flops(node)
    return found, flops


def _node_flops(node):
    """Operations of one call of one layer."""
    layer = node.operation
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
    if isinstance(layer, NOT_COUNTED):
        raise InputError(
            f"layer {layer.name}: operations of {type(layer).__name__} are not counted"
        )
    inside = layer._flatten_layers(include_self=False) if isinstance(layer, layers.Layer) else ()
    hidden = [part.name for part in inside if isinstance(part, COUNTED + NOT_COUNTED)]
    if hidden:
        raise InputError(
            f"layer {layer.name} ({type(layer).__name__}) calls {hidden[0]} inside itself, where "
            "its operations cannot be counted: use a functional model in its place"
        )
    return 0
