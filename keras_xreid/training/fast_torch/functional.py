"""Functional models on PyTorch: their layers compute at once, and tensors are let go early.

Imported on PyTorch only, and before anything was replaced.
"""

import keras
import torch
from keras import layers
from keras.src.backend.common.variables import AutocastScope
from keras.src.models.functional import Functional, unpack_singleton

from keras_xreid.training.fast import of_backend
from keras_xreid.training.fast_torch.ops import (
    batch_normalization,
    conv_layer,
    depthwise_layer,
    first,
    last,
    limited_,
    normalizes_channels,
)
from keras_xreid.training.fast_torch.plan import (
    CONVOLUTIONS,
    MERGING,
    is_elementwise,
    is_linear,
    is_ours,
    is_repeating,
    make_plan,
)

core, nn = of_backend("core"), of_backend("nn")

plain_call, plain_dunder_call = Functional.call, Functional.__call__


def dunder_call(self, *args, **kwargs):
    # What Keras does on the way into a model, the compiler cannot follow a second time.
    direct = (
        torch.compiler.is_compiling()
        and len(args) == 1
        and isinstance(args[0], torch.Tensor)
        and args[0].is_floating_point()
        and kwargs.keys() <= {"training", "mask"}
        and kwargs.get("training") is not None
    )
    if not direct:
        return plain_dunder_call(self, *args, **kwargs)
    inputs = nn.cast(args[0], self.input_dtype)
    if self.compute_dtype == self.variable_dtype:
        return call(self, inputs, **kwargs)
    with AutocastScope(self.compute_dtype):
        return call(self, inputs, **kwargs)


def call(self, inputs, training=None, mask=None, **kwargs):
    masked = any(m is not None for m in keras.tree.flatten(mask))  # one of several inputs
    if masked or kwargs:
        return plain_call(self, inputs, training=training, mask=mask, **kwargs)
    inputs = self._standardize_inputs(inputs)
    plan = plan_of(self)
    dtype = core.to_torch_dtype(self.compute_dtype) if plan.policies else None
    values = [*inputs, *[None] * (plan.slots - len(inputs))]
    for step in plan.steps:
        given = [values[slot] for slot in step.inputs]
        if step.direct is not None and all(
            isinstance(x, torch.Tensor)
            and (x.dtype == dtype or (step.any_integers and not x.dtype.is_floating_point))
            and not hasattr(x, "_keras_mask")
            for x in given
        ):
            for i in step.turned:
                given[i] = first(given[i]) if step.first else last(given[i])
            outputs = step.direct(given, training)
        else:
            given = [
                last(x) if slot in plan.first else x
                for slot, x in zip(step.inputs, given, strict=True)
            ]
            outputs = through_layers(step.nodes, given, training)
            if step.first:
                outputs = first(outputs)
        if len(step.outputs) == 1:
            values[step.outputs[0]] = outputs
        else:
            for slot, output in zip(step.outputs, keras.tree.flatten(outputs), strict=True):
                values[slot] = output
        del given, outputs
        for slot in step.last_used:
            values[slot] = None
    outputs = [last(values[s]) if s in plan.first else values[s] for s in plan.outputs]
    return unpack_singleton(keras.tree.pack_sequence_as(self._outputs_struct, outputs))


def through_layers(nodes, given, training):
    """A step as Keras runs it, layer by layer."""
    read = nodes[0].input_tensors
    args, more = nodes[0].arguments.fill_in(
        {id(x): value for x, value in zip(read, given, strict=True)}
    )
    outputs = called(nodes[0].operation, training, args, more)
    for node in nodes[1:]:
        outputs = called(node.operation, training, (outputs,), {})
    return outputs


def called(operation, training, args, more):
    """What an operation makes of its inputs; one that takes `training` is told."""
    if training is not None and "training" in getattr(operation, "_call_context_args", ()):
        more = {**more, "training": training}
    return operation(*args, **more)


def plan_of(function):
    plan = function.__dict__.get("_plan")
    if plan is None or any(layer.dtype_policy is not known for layer, known in plan.policies):
        plan = make_plan(function, direct_call)
        # Past Keras's own __setattr__, which would look for layers in it.
        object.__setattr__(function, "_plan", plan)
    return plan


def direct_call(chain, spare, rank):
    """What stands for a chain of layers, and whether it takes and makes channels first.

    A function of the first layer's inputs and `training`. Channels first, tensors are what
    PyTorch's functions made, and no views of that: less to do, and sums can be in place.
    """
    around = None
    if type(chain[0]) is layers.ZeroPadding2D and len(chain) > 1:
        around = tuple(begin for begin, _ in chain[0].padding)
        chain = chain[1:]
    layer = chain[0]
    after = in_place(chain[1]) if len(chain) > 1 else _itself
    if rank == 4 and type(layer) in CONVOLUTIONS and is_linear(layer):
        compute = conv_layer if type(layer) is layers.Conv2D else depthwise_layer
        return lambda x, training: after(compute(layer, *x, around)), True
    if rank == 4 and type(layer) is layers.BatchNormalization and normalizes_channels(layer, 4):
        return lambda x, training: after(batch_normalization(layer, *x, training)), True
    if rank == 4 and type(layer) is layers.MaxPooling2D and around:
        return lambda x, training: torch.nn.functional.max_pool2d(
            *x, layer.pool_size, layer.strides, around
        ), True
    if type(layer) is layers.Add and rank == 4:
        return lambda x, training: after(add(x, spare)), True
    if type(layer) is layers.Add:
        return lambda x, training: after(add(x, None)), False
    if type(layer) is layers.Concatenate and rank == 4 and layer.axis in (-1, 3):
        return lambda x, training: torch.cat(x, 1), True
    if type(layer) in MERGING:
        return lambda x, training: layer.call(x), rank == 4 and type(layer) is layers.Multiply
    if is_repeating(layer):
        return lambda x, training: torch.nn.functional.interpolate(
            *x, scale_factor=layer.size, mode="nearest"
        ), True
    if type(layer) is layers.ZeroPadding2D and layer.data_format == "channels_last":
        (top, bottom), (left, right) = layer.padding
        zeros = (left, right, top, bottom)
        return lambda x, training: torch.nn.functional.pad(*x, zeros), True
    if type(layer) is layers.BatchNormalization:
        return lambda x, training: after(layer.call(*x, training=training)), False
    if is_ours(layer):
        return lambda x, training: layer.call(x if len(x) > 1 else x[0]), False
    return lambda x, training: after(layer.call(*x)), rank == 4 and is_elementwise(layer)


def in_place(layer):
    """The function that stands for a ReLU and overwrites what it is given."""
    if type(layer) is layers.LeakyReLU:
        return lambda x: torch.nn.functional.leaky_relu_(x, layer.negative_slope)
    if type(layer) is layers.ReLU and layer.max_value is not None:
        return lambda x: limited_(x, float(layer.max_value))
    return torch.relu_


def add(tensors, spare):
    """The sum, in the memory of the operand that nobody else reads."""
    if spare is None or len({t.shape for t in tensors}) > 1:
        total, others = tensors[0] + tensors[1], tensors[2:]
    else:
        total, others = tensors[spare], tensors[:spare] + tensors[spare + 1 :]
    for tensor in others:
        total += tensor
    return total


def _itself(x):
    return x


REPLACEMENTS = [(Functional, "call", call), (Functional, "__call__", dunder_call)]
