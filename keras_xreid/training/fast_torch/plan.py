"""How a functional model is run: which layers compute at once, and when a tensor is let go."""

from typing import NamedTuple

import keras
from keras import layers

MERGING = (layers.Add, layers.Multiply, layers.Concatenate)
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
DIRECT = (
    *MERGING, layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose, layers.Dense,
    layers.BatchNormalization, layers.ReLU, layers.LeakyReLU, layers.Activation,
    layers.ZeroPadding2D, layers.MaxPooling2D, layers.AveragePooling2D,
    layers.GlobalAveragePooling2D, layers.UpSampling2D,
)  # fmt: skip


class _Step(NamedTuple):
    """A chain of nodes that are run as one.

    `direct` stands for the layers of all of them, or is None; `first` says that it takes and makes
    tensors with channels first, `turned` which inputs are not yet as it takes them, and
    `any_integers` that a layer of this package takes integers, too, as its `call` says. Tensors
    have numbers, slots: `inputs` are those that the first node reads, `outputs` those that the
    last one makes, and `last_used` those of the inputs that nobody reads later.
    """

    nodes: tuple
    direct: object
    first: bool
    turned: tuple
    any_integers: bool
    inputs: tuple
    outputs: tuple
    last_used: tuple


class _Plan(NamedTuple):
    """The steps of a functional model, and the policies of the layers that are called directly.

    `slots` is the number of tensors, the model's inputs first; `outputs` are the slots of its
    outputs, and `first` those of tensors with channels first.
    """

    steps: tuple
    policies: tuple
    slots: int
    outputs: tuple
    first: frozenset


def make_plan(function, direct_call):
    # In Keras's order. An input node computes nothing.
    nodes = [
        node
        for depth in sorted(function._nodes_by_depth, reverse=True)
        for node in function._nodes_by_depth[depth]
        if node.operation and not node.is_input
    ]
    readers, makers = {}, {id(x): node for node in nodes for x in node.outputs}
    for node in nodes:
        for x in node.input_tensors:
            readers.setdefault(id(x), []).append(node)
    for x in function.outputs:
        readers.setdefault(id(x), []).append(None)

    def only_reader(node):
        read = readers.get(id(node.outputs[0]), [])
        return read[0] if len(read) == 1 and len(node.outputs) == 1 else None

    def spare_operand(node):
        """The first operand of a sum, or of two either one, that is new memory and read here only.

        It is overwritten with gradients, too: no backward pass reads it.
        """
        read = node.input_tensors
        for i in range(2 if len(read) == 2 else 1):
            maker = makers.get(id(read[i]))
            if maker and only_reader(maker) is node and _is_new(maker.operation, layers.Multiply):
                return i
        return None

    steps, policies, done = [], [], set()
    for node in nodes:
        if id(node) in done:
            continue
        chain = [node]
        if _is_direct(node, function):
            while following := only_reader(chain[-1]):
                if not _is_direct(following, function) or not _joins(chain, following, makers):
                    break
                chain.append(following)
            rank = len(node.outputs[0].shape)
            direct, first = direct_call([n.operation for n in chain], spare_operand(node), rank)
            policies += [(n.operation, n.operation.dtype_policy) for n in chain]
        else:
            direct, first = None, False
        done.update(id(n) for n in chain)
        steps.append((tuple(chain), direct, first))

    slots = {}
    for x in (*function.inputs, *(x for chain, *_ in steps for x in chain[-1].outputs)):
        slots.setdefault(id(x), len(slots))
    results = tuple(slots[id(x)] for x in function.outputs)
    channels_first = frozenset(
        slots[id(chain[-1].outputs[0])] for chain, _, first in steps if first
    )
    kept, planned = set(results), []
    for chain, direct, first in reversed(steps):
        inputs = tuple(slots[id(x)] for x in chain[0].input_tensors)
        outputs = tuple(slots[id(x)] for x in chain[-1].outputs)
        turned = tuple(i for i, slot in enumerate(inputs) if (slot in channels_first) != first)
        last = tuple(set(inputs) - kept)
        kept.update(last)
        ours = is_ours(chain[0].operation)
        planned.append(_Step(chain, direct, first, turned, ours, inputs, outputs, last))
    return _Plan(tuple(reversed(planned)), tuple(policies), len(slots), results, channels_first)


def _is_direct(node, function):
    """Whether a layer may be run by its `call`, which converts and checks nothing."""
    layer, arguments = node.operation, node.arguments
    if not is_ours(layer) and type(layer) not in DIRECT:
        return False
    if isinstance(layer, keras.Model) or layer.activity_regularizer is not None:
        return False
    if any(value is not None for value in arguments.kwargs.values()):  # mask=None says nothing
        return False
    if getattr(layer, "quantization_mode", None) or layer.dtype_policy != function.dtype_policy:
        return False
    if type(layer) in MERGING:
        shapes = {len(x.shape) for x in node.input_tensors}
        return isinstance(arguments.args[0], (list, tuple)) and len(shapes) == 1
    if len(arguments.args) != 1 or not node.input_tensors:
        return False
    if isinstance(arguments.args[0], keras.KerasTensor):
        return True
    several = isinstance(arguments.args[0], (list, tuple)) and len(node.input_tensors) > 1
    return several and is_ours(layer) and len(arguments.args[0]) == len(node.input_tensors)


def _joins(chain, following, makers):
    """Whether a node can be run as one with those before it, of which it is the only reader."""
    before, layer = chain[-1].operation, following.operation
    if type(before) is layers.ZeroPadding2D and len(chain) == 1:
        if before.data_format != "channels_last" or any(a != b for a, b in before.padding):
            return False
        if getattr(layer, "data_format", None) != "channels_last":
            return False
        if getattr(layer, "padding", None) != "valid":
            return False
        if type(layer) is layers.Conv2D:
            return is_linear(layer)
        # PyTorch pads a maximum with minus infinity: all the same behind a ReLU.
        maker = makers.get(id(chain[0].input_tensors[0]))
        return (
            type(layer) is layers.MaxPooling2D
            and maker is not None
            and _is_relu(maker.operation)
            and all(
                2 * a <= size for (a, _), size in zip(before.padding, layer.pool_size, strict=True)
            )
        )
    return _is_new(before, layers.Add) and (_is_relu(layer) or type(layer) is layers.LeakyReLU)


def _is_new(layer, *more):
    """Whether what a layer returns is new memory that its own backward pass does not read again."""
    if type(layer) in CONVOLUTIONS:
        return is_linear(layer)
    return type(layer) in (layers.BatchNormalization, *more)


def is_ours(layer):
    """Whether a layer is of this package: its `call` takes a tensor, or a list of several."""
    return type(layer).__module__.startswith("keras_xreid.") and isinstance(layer, layers.Layer)


def is_linear(layer):
    """Whether a convolution, channels last, is nothing but that."""
    linear = layer.activation is None or layer.activation is keras.activations.linear
    return linear and layer.data_format == "channels_last"


def is_repeating(layer):
    """Whether a layer enlarges channels last by its nearest pixels, which Keras copies twice."""
    return (
        type(layer) is layers.UpSampling2D
        and layer.interpolation == "nearest"
        and layer.data_format == "channels_last"
    )


def is_elementwise(layer):
    if type(layer) is layers.Activation:
        names = ("relu", "sigmoid", "tanh", "linear")
        return layer.activation in [getattr(keras.activations, name) for name in names]
    return type(layer) in (layers.ReLU, layers.LeakyReLU)


def _is_relu(layer):
    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.relu
    return type(layer) is layers.ReLU and layer.negative_slope == 0 and layer.threshold == 0
