"""Layers and the optimizer on PyTorch: what stands for Keras's own functions.

Imported on PyTorch only, and before anything was replaced.
"""

import keras
import torch
from keras import layers
from keras.src.backend.torch.optimizers.torch_adam import Adam
from keras.src.layers.convolutional.base_conv import BaseConv

from keras_xreid.training import batch_statistics, share
from keras_xreid.training.fast import of_backend

nn = of_backend("nn")
plain_conv, plain_conv_call = nn.conv, BaseConv.call
plain_batch_normalization_call = layers.BatchNormalization.call
plain_update_step = Adam._parallel_update_step

# Views: "first" has channels before height and width, as PyTorch counts; in memory they are last
# in either.


def first(x):
    return x.permute(0, 3, 1, 2)


def last(x):
    return x.permute(0, 2, 3, 1)


# --- convolution and pooling ---


def transpose_spatial_inputs(inputs, channels_last_memory_format=True):
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
    bias = None if bias is None else nn.convert_to_tensor(bias)
    if padding == "same" and kernel.shape[1] == 1 < groups and max(dilation_rate) == 1:
        if has_slow_gradient(x, kernel, strides):
            y = _Depthwise.apply(x, kernel, tuple(strides))
            return y if bias is None else y + bias[:, None, None]
        kernel, padding = evenly(kernel, x.shape[2:], strides)
    elif padding == "same":
        each = zip(x.shape[2:], kernel.shape[2:], strides, dilation_rate, strict=True)
        (top, bottom), (left, right) = (nn._compute_padding_length(*numbers) for numbers in each)
        padding = (top, left)
        if (top, left) != (bottom, right):
            x, padding = torch.nn.functional.pad(x, (left, right, top, bottom)), 0
    elif padding == "valid":
        padding = 0
    if kernel.shape[2:] == (1, 1) and max(strides) > 1 and x.shape[1] < 16:
        # The gradient of such a kernel of few channels is where oneDNN writes beyond its memory
        # (its issue 6035; seen on AVX2), so that the process is killed or the gradient wrong.
        # What the stride skips is left out first.
        x, strides = x[:, :, :: strides[0], :: strides[1]], (1, 1)
        x = x.contiguous(memory_format=torch.channels_last)
    return torch.conv2d(x, kernel, bias, strides, padding, dilation_rate, groups)


def evenly(kernel, sizes, strides):
    """A depthwise kernel and padding that stand for "same": as many zeros before as after an image.

    Where "same" pads once more after than before, the kernel begins with zeros in place of it:
    images are many and large, and would be copied.
    """
    (top, bottom), (left, right) = (
        nn._compute_padding_length(*each)
        for each in zip(sizes, kernel.shape[2:], strides, strict=True)
    )
    if (top, left) != (bottom, right):
        kernel = torch.nn.functional.pad(kernel, (right - left, 0, bottom - top, 0))
    return kernel, (bottom, right)


def has_slow_gradient(x, kernel, strides):
    """Whether `_Depthwise` computes a "same" convolution of these, and is quicker than oneDNN."""
    height, width = kernel.shape[2:]
    known = len(kernel) == x.shape[1] and height % 2 == width % 2 == 1
    if not known or x.device.type != "cpu":
        return False
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if tuple(strides) == (1, 1):
        return width > 3
    halves = tuple(strides) == (2, 2) and x.shape[2] % 2 == x.shape[3] % 2 == 0
    return halves and min(height, width) > 1


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution, "same", on a CPU: of an odd width of 5 or more, or of stride 2.

    oneDNN's gradient of a wide kernel takes ten times as long as that of one 3 wide. So it is
    found by columns: the three in the middle, and each of the others by itself.

    In bfloat16 its gradients of stride 2 take many times as long as those of stride 1. So the
    gradient is spread out first, with zeros between its pixels.
    """

    @staticmethod
    def forward(ctx, x, kernel, strides):
        ctx.save_for_backward(x, kernel)
        ctx.strides = strides
        kernel, padding = evenly(kernel, x.shape[2:], strides)
        return torch.conv2d(x, kernel, None, strides, padding, 1, len(kernel))

    @staticmethod
    def backward(ctx, gradient):
        x, kernel = ctx.saved_tensors
        high, wide = padding = [side // 2 for side in kernel.shape[2:]]
        if ctx.strides == (2, 2):
            spread = torch.zeros_like(x)
            spread[:, :, 1::2, 1::2] = gradient  # "same" begins one pixel later with even sides
            gradient = spread

        def of_kernel(x, gradient, columns, pad):
            x, gradient = (t.contiguous(memory_format=torch.channels_last) for t in (x, gradient))
            return back(x, gradient, columns, (high, pad), [False, True, False])[1]

        def back(x, gradient, kernel, padding, wanted):
            return torch.ops.aten.convolution_backward(
                gradient, x, kernel, [0], [1, 1], padding, [1, 1], False, [0, 0], len(kernel),
                wanted,
            )  # fmt: skip

        of_x = back(x, gradient, kernel, padding, [True, False, False])[0]
        if not ctx.needs_input_grad[1]:
            return of_x, None, None
        found = torch.zeros_like(kernel)
        found[..., wide - 1 : wide + 2] = of_kernel(
            x, gradient, kernel[..., wide - 1 : wide + 2], 1
        )
        width = x.shape[3]
        for away in range(2, min(wide, width - 1) + 1):
            # What lies so far to the right of a pixel, or to its left.
            ahead, behind = slice(away, None), slice(width - away)
            for column, of, at in ((wide + away, ahead, behind), (wide - away, behind, ahead)):
                columns = kernel[..., column : column + 1]
                found[..., column : column + 1] = of_kernel(
                    x[..., of], gradient[..., at], columns, 0
                )
        return of_x, found, None


def conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    channels_last = nn.backend.standardize_data_format(data_format) == "channels_last"
    if not channels_last or len(kernel.shape) != 4:
        return plain_conv(inputs, kernel, strides, padding, data_format, dilation_rate)
    strides = nn.standardize_tuple(strides, 2, "strides")
    dilation_rate = nn.standardize_tuple(dilation_rate, 2, "dilation_rate")
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


# --- ReLU with a limit ---


def limited_(x, limit):
    """Overwrites a tensor with its values between 0 and `limit`."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and x.requires_grad):
        return x.clamp_(0, limit)
    return _Limited.apply(x, limit)


class _Limited(torch.autograd.Function):
    """`clamp_`, whose backward pass reads its result. PyTorch's reads a copy of its input."""

    @staticmethod
    def forward(ctx, x, limit):
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(0, limit))
        ctx.limit = limit
        return x

    @staticmethod
    def backward(ctx, gradient):
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, y, 0, ctx.limit), None


# --- batch normalization ---


def normalizes_channels(layer, rank):
    return (
        not layer.renorm and layer.axis in (-1, rank - 1) and layer.moving_mean.dtype == "float32"
    )


def batch_normalization(layer, x, training):
    """What a `BatchNormalization` computes of (n, channels, ...)."""
    dtype = x.dtype
    if torch.compiler.is_compiling():
        # Compiled, statistics have the type of the input on a CPU; the cast costs nothing.
        x = x.float()
    gamma = layer.gamma.value if layer.scale else None
    beta = layer.beta.value if layer.center else None
    taken = batch_statistics.taking(layer)
    if taken or (training and layer.trainable):
        if share.rows:
            from keras_xreid.training import collectives  # which torchrun's processes alone need

            x = x.float()
            y, mean, variance = collectives.normalized(x, gamma, beta, layer.epsilon)
        else:
            y, mean, scale = torch.native_batch_norm(
                x, gamma, beta, None, None, True, 0.0, layer.epsilon
            )
            # The kernel returns 1 / sqrt(variance + epsilon).
            variance = scale.square().reciprocal().sub(layer.epsilon).clamp(min=0)
        momentum = 0.0 if taken else layer.momentum
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(torch.lerp(batch, moving.value, momentum))
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


REPLACEMENTS = [
    (nn, "_transpose_spatial_inputs", transpose_spatial_inputs),
    (nn, "conv", conv),
    (BaseConv, "call", conv_call),
    (layers.BatchNormalization, "call", batch_normalization_call),
    (Adam, "_parallel_update_step", update_step),
]
