"""Batch normalization folded into the convolution or dense layer before it, for inference.

With moving statistics, batch normalization is a scale and a shift of each channel:

    gamma (w x + b - mean) / s + beta  =  (w gamma / s) x + (b - mean) gamma / s + beta.
"""

import keras
import numpy as np
from keras import layers, ops

LINEAR = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def folded(function):
    """Folds a functional model and those inside of it.

    Args:
        function: a functional `keras.Model`.

    Returns:
        A functional model of the same inputs and outputs. Layers with batch normalization behind
        them are new; the others are shared with the given model.
    """
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype), function.input
    )
    return keras.Model(inputs, _through(function, inputs), name=function.name)


def _through(function, inputs):
    # In Keras's order. An input node computes nothing.
    nodes = [
        node
        for depth in sorted(function._nodes_by_depth, reverse=True)
        for node in function._nodes_by_depth[depth]
        if node.operation and not node.is_input
    ]
    into = _pairs(nodes, function.outputs)
    gone = {id(normalization) for normalization in into.values()}
    inside = {}
    values = dict(zip(map(id, function.inputs), keras.tree.flatten(inputs), strict=True))
    for node in nodes:
        args, more = node.arguments.fill_in(values)
        layer = node.operation
        if isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth"):
            if id(layer) not in inside:  # one that is called twice
                inside[id(layer)] = folded(layer)
            found = inside[id(layer)](*args, **more)
        elif id(node) in gone:
            found = args[0]
        elif id(node) in into:
            found = _folded_layer(layer, into[id(node)].operation)(args[0])
        else:
            found = layer(*args, **more)
        values.update(zip(map(id, node.outputs), keras.tree.flatten(found), strict=True))
    outputs = [values[id(x)] for x in function.outputs]
    return keras.tree.pack_sequence_as(function._outputs_struct, outputs)


def _pairs(nodes, outputs):
    """From the ids of linear layers' nodes to the batch normalization's that alone reads them."""
    makers = {id(x): node for node in nodes for x in node.outputs}
    read = [id(x) for node in nodes for x in node.input_tensors] + list(map(id, outputs))
    used = [id(node.operation) for node in nodes]
    found = {}
    for node in nodes:
        normalization = node.operation
        if type(normalization) is not layers.BatchNormalization:
            continue
        (x,) = node.input_tensors
        before = makers.get(id(x))
        layer = before and before.operation
        if (
            type(layer) in LINEAR
            and layer.activation is keras.activations.linear
            and not getattr(layer, "quantization_mode", None)
            and not getattr(layer, "lora_enabled", False)
            and getattr(layer, "data_format", "channels_last") == "channels_last"
            and normalization.axis in (-1, len(x.shape) - 1)
            and read.count(id(x)) == used.count(id(layer)) == 1
        ):
            found[id(before)] = node
    return found


def _folded_layer(layer, normalization):
    def value(variable):
        return ops.convert_to_numpy(ops.cast(variable, "float32")).astype("float64")

    scale = 1.0 / np.sqrt(value(normalization.moving_variance) + normalization.epsilon)
    if normalization.scale:
        scale *= value(normalization.gamma)
    shift = -value(normalization.moving_mean)
    if layer.use_bias:
        shift += value(layer.bias)
    shift *= scale
    if normalization.center:
        shift += value(normalization.beta)
    kernel = value(layer.kernel)
    # Depthwise, the kernel's last two axes make the channels.
    last = kernel.shape[2:] if type(layer) is layers.DepthwiseConv2D else kernel.shape[-1:]
    new = type(layer).from_config({**layer.get_config(), "use_bias": True})
    new.build(layer.input.shape)
    new.kernel.assign(kernel * scale.reshape(last))
    new.bias.assign(shift)
    return new
