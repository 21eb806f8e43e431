"""Keras on PyTorch at the speed of PyTorch: no layout copies, fused kernels, memory freed early.

Importing `keras_xreid` with the PyTorch backend switches this on, for the versions of Keras it was
tested with; the environment variable `KERAS_XREID_FAST_TORCH=0` or `disable()` switches it off.
Results agree with plain Keras to the accuracy of float32; weights and files are the same.

What Keras 3.15 does, and what is done here:

- Keras copies the input of every convolution and pooling to channels first, and PyTorch copies it
  back to channels last, the order its kernels prefer. Here the input is only viewed in the other
  order: in memory it has channels last already.
- The kernel of a convolution is copied to PyTorch's order in every call. Here the variable is laid
  out in memory once as PyTorch reads it; its shape and values, and what is saved, stay Keras's.
- The bias is added in a pass of its own over the feature map, and so are zeros around it. Here the
  convolution does both.
- Batch normalization is a dozen elementwise operations, each with its own backward pass. Here it
  is one kernel. PyTorch's running variance is unbiased and Keras's is not, so the moving averages
  are updated here, from the statistics that the kernel returns.
- Adam is ten passes over the weights. Here it is one.
- A functional model calls each layer through some hundred lines of Python that convert and check,
  and keeps every intermediate tensor until it has finished. Here layers whose inputs are known to
  be right compute at once, ReLU works in place where nobody else reads its input, and a tensor is
  let go after its last use.

Each function below stands for one of Keras's, takes what that takes and hands what it does not
treat to Keras's own: it could replace it there.
"""

import logging
import os
from typing import NamedTuple

import keras
from keras import layers

TESTED = ("3.15",)
_replaced = []


def enabled():
    """Returns whether the fast path is on."""
    return bool(_replaced)


def enable():
    """Replaces the slow functions of Keras's PyTorch backend, if this Keras was tested.

    Returns:
        Whether the fast path is on.

    Example:

    >>> fast_torch.disable()    # plain Keras, to compare
    >>> fast_torch.enable()
    True
    """
    if enabled():
        return True
    if keras.backend.backend() != "torch":
        return False
    version = ".".join(keras.__version__.split(".")[:2])
    if version not in TESTED:
        logging.getLogger("keras_xreid").warning(
            "Keras %s is not among those that the fast path on PyTorch was tested with (%s): "
            "going on with plain Keras, about half as fast",
            keras.__version__, ", ".join(TESTED),
        )  # fmt: skip
        return False
    for owner, name, function in _replacements():
        _replaced.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, function)
    return True


def disable():
    """Puts Keras's own functions back."""
    while _replaced:
        owner, name, original = _replaced.pop()
        if original is None:  # it was inherited
            delattr(owner, name)
        else:
            setattr(owner, name, original)


def plan_ahead(model):
    """Plans how the functional models inside a model are run, which a compiler would trace slowly.

    Args:
        model: a `keras.Model`.
    """
    for layer in model._flatten_layers():
        plan_of = getattr(type(layer).call, "plan_of", None)
        if plan_of:
            plan_of(layer)


def _replacements():
    """Triples (owner, name, function) of what stands for what; PyTorch is imported here only."""
    import torch
    from keras.src.backend.common.variables import AutocastScope
    from keras.src.backend.torch import core, nn
    from keras.src.backend.torch.optimizers.torch_adam import Adam
    from keras.src.layers.convolutional.base_conv import BaseConv
    from keras.src.models.functional import Functional, operation_fn, unpack_singleton

    plain_conv, plain_conv_call = nn.conv, BaseConv.call
    plain_batch_normalization_call = layers.BatchNormalization.call
    plain_update_step = Adam._parallel_update_step
    plain_functional_call, plain_functional_dunder_call = Functional.call, Functional.__call__

    # Views: "first" has channels before height and width, as PyTorch counts; in memory they are
    # last in either.

    def first(x):
        return x.permute(0, 3, 1, 2)

    def last(x):
        return x.permute(0, 2, 3, 1)

    # --- convolution and pooling ---

    def transpose_spatial_inputs(inputs):
        # A view. What is asked for channels last in memory finds that it has them.
        return torch.movedim(inputs, -1, 1)

    def laid_out(kernel):
        """A kernel (height, width, in, out) that lies in memory as (out, height, width, in)."""
        if isinstance(kernel, keras.Variable):
            value = kernel._value
            if value is not None and not torch.compiler.is_compiling():
                order = value.permute(3, 0, 1, 2)
                # Of one output channel, PyTorch takes any stride for contiguous, and then refuses
                # the kernel where the processor has no bfloat16: so its stride counts as well.
                laid = order.is_contiguous() and order.stride(0) >= order[0].numel()
                if not laid and value.device.type != "meta":
                    order = order.clone(memory_format=torch.contiguous_format)
                    value.data = order.permute(1, 2, 3, 0)
        return nn.convert_to_tensor(kernel)

    def conv_2d(x, kernel, bias, strides, padding, dilation_rate):
        """Convolves (n, in, height, width); `padding`: "valid", "same" or a number for each axis.

        The kernel is (height, width, in, out).
        """
        groups, rest = divmod(x.shape[1], kernel.shape[2])
        if rest:
            raise ValueError(
                f"Input channels ({x.shape[1]}) must be divisible by "
                f"kernel input channels ({kernel.shape[2]})"
            )
        kernel = kernel.permute(3, 2, 0, 1)
        if padding == "same":
            x, padding = nn._apply_same_padding(
                x, kernel.shape[2:], strides, "channels_first", "conv", dilation_rate
            )
        elif padding == "valid":
            padding = 0
        if kernel.shape[2:] == (1, 1) and max(strides) > 1 and x.shape[1] < 16:
            # The gradient of such a kernel of few channels is where oneDNN writes beyond its memory
            # (its issue 6035; seen on AVX2), so that the process is killed or the gradient wrong.
            # What the stride skips is left out first.
            x, strides = x[:, :, :: strides[0], :: strides[1]], (1, 1)
            x = x.contiguous(memory_format=torch.channels_last)
        bias = None if bias is None else nn.convert_to_tensor(bias)
        return torch.conv2d(x, kernel, bias, strides, padding, dilation_rate, groups)

    def conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
        channels_last = nn.backend.standardize_data_format(data_format) == "channels_last"
        if not channels_last or len(kernel.shape) != 4:
            return plain_conv(inputs, kernel, strides, padding, data_format, dilation_rate)
        strides = nn.standardize_tuple(strides, 2, "strides")
        x, kernel = first(nn.convert_to_tensor(inputs)), laid_out(kernel)
        return last(conv_2d(x, kernel, None, strides, padding, dilation_rate))

    def conv_layer(layer, x, around=None):
        """What a `Conv2D` computes; `around`: zeros above and below, left and right."""
        bias = layer.bias if layer.use_bias else None
        padding = around or layer.padding
        kernel = laid_out(layer.kernel)
        return conv_2d(x, kernel, bias, layer.strides, padding, layer.dilation_rate)

    def depthwise_layer(layer, x, around=None):
        """What a `DepthwiseConv2D` computes."""
        bias = layer.bias if layer.use_bias else None
        kernel = nn.convert_to_tensor(layer.kernel)
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)  # a few numbers
        padding = around or layer.padding
        return conv_2d(x, kernel, bias, layer.strides, padding, layer.dilation_rate)

    def conv_call(self, inputs):
        direct = (
            self.rank == 2
            and self.data_format == "channels_last"
            and type(self).convolution_op is BaseConv.convolution_op
        )
        if not direct:
            return plain_conv_call(self, inputs)
        outputs = last(conv_layer(self, first(nn.convert_to_tensor(inputs))))
        return outputs if self.activation is None else self.activation(outputs)

    # --- batch normalization ---

    def normalizes_channels(layer, rank):
        return (
            not layer.renorm
            and layer.axis in (-1, rank - 1)
            and layer.moving_mean.dtype == "float32"
        )

    def batch_normalization(layer, x, training):
        """What a `BatchNormalization` computes of (n, channels, ...)."""
        dtype = x.dtype
        if torch.compiler.is_compiling():
            # Compiled, statistics have the type of the input on a CPU; the cast costs nothing.
            x = x.float()
        gamma = layer.gamma.value if layer.scale else None
        beta = layer.beta.value if layer.center else None
        if training and layer.trainable:
            y, mean, scale = torch.native_batch_norm(
                x, gamma, beta, None, None, True, 0.0, layer.epsilon
            )
            # The kernel returns 1 / sqrt(variance + epsilon).
            variance = scale.square().reciprocal().sub(layer.epsilon).clamp(min=0)
            for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
                moving.assign(torch.lerp(batch, moving.value, layer.momentum))
        else:
            y, _, _ = torch.native_batch_norm(
                x, gamma, beta, layer.moving_mean.value, layer.moving_variance.value, False, 0.0,
                layer.epsilon,
            )  # fmt: skip
        return y.to(dtype)

    def batch_normalization_call(self, inputs, training=None, mask=None):
        direct = (
            mask is None
            and normalizes_channels(self, inputs.ndim)
            and inputs.dtype in (torch.float32, torch.bfloat16, torch.float16)
        )
        if not direct:
            return plain_batch_normalization_call(self, inputs, training=training, mask=mask)
        y = batch_normalization(self, torch.movedim(inputs, -1, 1), training)
        return nn.cast(torch.movedim(y, 1, -1), self.compute_dtype)

    # --- Adam ---

    def lies_like(tensor, model):
        """Whether two tensors of one shape have their elements in the same order in memory."""
        strides = zip(tensor.stride(), model.stride(), model.shape, strict=True)
        return all(a == b for a, b, size in strides if size > 1)

    def flat(tensor):
        """All elements in the order of memory; the kernel copies what is ordered otherwise."""
        return tensor if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))

    def update_step(self, grads, variables, learning_rate):
        if torch.compiler.is_compiling():  # the compiler makes one pass of Keras's ten
            return plain_update_step(self, grads, variables, learning_rate)
        values = [v.value for v in variables]
        index = [self._get_variable_index(v) for v in variables]
        moments = [[of[i].value for i in index] for of in (self._momentums, self._velocities)]
        tensors = [t for group in (values, grads, *moments) for t in group]
        direct = values[0].device.type in ("cpu", "cuda") and not self.amsgrad
        if not direct or any(t.dtype != torch.float32 for t in tensors):
            return plain_update_step(self, grads, variables, learning_rate)
        # The kernel runs through memory, so all four of a kind must lie there alike.
        for value, *own in zip(values, *moments, strict=True):
            for moment in own:
                if not lies_like(moment, value):
                    moment.data = torch.empty_like(value).copy_(moment)
        grads = [
            g if lies_like(g, v) else torch.empty_like(v).copy_(g)
            for g, v in zip(grads, values, strict=True)
        ]
        step = keras.ops.cast(self.iterations + 1, "float32")
        rate = keras.ops.cast(learning_rate, "float32")
        rate = rate * torch.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        # PyTorch adds epsilon after it has corrected the second moment, Keras before. So the
        # correction is in the rate, and PyTorch is told a step so late that it corrects nothing.
        late = torch.full((), 1e9, device=values[0].device)
        values, grads, *moments = (list(map(flat, of)) for of in (values, grads, *moments))
        torch._fused_adam_(
            values, grads, *moments, [], [late] * len(values), lr=rate, beta1=self.beta_1,
            beta2=self.beta_2, weight_decay=0.0, eps=self.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    # --- functional models ---

    def in_place(layer):
        """The function that stands for a ReLU and overwrites what it is given."""
        if type(layer) is layers.LeakyReLU:
            return lambda x: torch.nn.functional.leaky_relu_(x, layer.negative_slope)
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
        if rank == 4 and type(layer) in CONVOLUTIONS and _is_linear(layer):
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
        if _is_repeating(layer):
            return lambda x, training: torch.nn.functional.interpolate(
                *x, scale_factor=layer.size, mode="nearest"
            ), True
        if type(layer) is layers.ZeroPadding2D and layer.data_format == "channels_last":
            (top, bottom), (left, right) = layer.padding
            zeros = (left, right, top, bottom)
            return lambda x, training: torch.nn.functional.pad(*x, zeros), True
        if type(layer) is layers.BatchNormalization:
            return lambda x, training: after(layer.call(*x, training=training)), False
        if _is_ours(layer):
            return lambda x, training: layer.call(x if len(x) > 1 else x[0]), False
        return lambda x, training: after(layer.call(*x)), rank == 4 and _is_elementwise(layer)

    def functional_dunder_call(self, *args, **kwargs):
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
            return plain_functional_dunder_call(self, *args, **kwargs)
        inputs = nn.cast(args[0], self.input_dtype)
        if self.compute_dtype == self.variable_dtype:
            return functional_call(self, inputs, **kwargs)
        with AutocastScope(self.compute_dtype):
            return functional_call(self, inputs, **kwargs)

    def plan_of(function):
        plan = function.__dict__.get("_plan")
        if plan is None or any(layer.dtype_policy is not known for layer, known in plan.policies):
            plan = _make_plan(function, direct_call)
            # Past Keras's own __setattr__, which would look for layers in it.
            object.__setattr__(function, "_plan", plan)
        return plan

    def functional_call(self, inputs, training=None, mask=None, **kwargs):
        masked = any(m is not None for m in keras.tree.flatten(mask))  # one of several inputs
        if masked or kwargs:
            return plain_functional_call(self, inputs, training=training, mask=mask, **kwargs)
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

    functional_call.plan_of = plan_of

    def through_layers(nodes, given, training):
        """A step as Keras runs it, layer by layer."""
        read = nodes[0].input_tensors
        args, more = nodes[0].arguments.fill_in(
            {id(x): value for x, value in zip(read, given, strict=True)}
        )
        outputs = operation_fn(nodes[0].operation, training=training)(*args, **more)
        for node in nodes[1:]:
            outputs = operation_fn(node.operation, training=training)(outputs)
        return outputs

    return [
        (nn, "_transpose_spatial_inputs", transpose_spatial_inputs),
        (nn, "conv", conv),
        (BaseConv, "call", conv_call),
        (layers.BatchNormalization, "call", batch_normalization_call),
        (Adam, "_parallel_update_step", update_step),
        (Functional, "call", functional_call),
        (Functional, "__call__", functional_dunder_call),
    ]


# --- how a functional model is run ---------------------------------------------------------------

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


def _make_plan(function, direct_call):
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
        ours = _is_ours(chain[0].operation)
        planned.append(_Step(chain, direct, first, turned, ours, inputs, outputs, last))
    return _Plan(tuple(reversed(planned)), tuple(policies), len(slots), results, channels_first)


def _is_direct(node, function):
    """Whether a layer may be run by its `call`, which converts and checks nothing."""
    layer, arguments = node.operation, node.arguments
    if not _is_ours(layer) and type(layer) not in DIRECT:
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
    return several and _is_ours(layer) and len(arguments.args[0]) == len(node.input_tensors)


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
            return _is_linear(layer)
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
        return _is_linear(layer)
    return type(layer) in (layers.BatchNormalization, *more)


def _is_ours(layer):
    """Whether a layer is of this package: its `call` takes a tensor, or a list of several."""
    return type(layer).__module__.startswith("keras_xreid.") and isinstance(layer, layers.Layer)


def _is_linear(layer):
    """Whether a convolution, channels last, is nothing but that."""
    linear = layer.activation is None or layer.activation is keras.activations.linear
    return linear and layer.data_format == "channels_last"


def _is_repeating(layer):
    """Whether a layer enlarges channels last by its nearest pixels, which Keras copies twice."""
    return (
        type(layer) is layers.UpSampling2D
        and layer.interpolation == "nearest"
        and layer.data_format == "channels_last"
    )


def _is_elementwise(layer):
    if type(layer) is layers.Activation:
        names = ("relu", "sigmoid", "tanh", "linear")
        return layer.activation in [getattr(keras.activations, name) for name in names]
    return type(layer) in (layers.ReLU, layers.LeakyReLU)


def _itself(x):
    return x


def _is_relu(layer):
    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.relu
    return type(layer) is layers.ReLU and (
        layer.max_value is None and layer.negative_slope == 0 and layer.threshold == 0
    )


if os.environ.get("KERAS_XREID_FAST_TORCH", "1") != "0":
    enable()
