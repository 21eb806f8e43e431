"""What processes tell each other, on PyTorch; `processes.py` imports it where there are several.

Each function is called by all processes at once, in the same order.
"""

import functools
import os

import keras
import torch
import torch.distributed as dist
from keras.src.backend.torch import random

from keras_xreid._backend import place
from keras_xreid.errors import InputError, LostProcess
from keras_xreid.training import share

_notes = None  # what processes tell each other beside training, which outlives one of them


def _reached(function):
    """A function that ends in `LostProcess` where another process is gone."""

    @functools.wraps(function)
    def call(*args):
        try:
            return function(*args)
        except RuntimeError as error:
            raise LostProcess(
                "another process of this training has ended or cannot be reached"
            ) from error

    return call


_all_reduce, _all_gather = _reached(dist.all_reduce), _reached(dist.all_gather)
_broadcast, wait = _reached(dist.broadcast), _reached(dist.barrier)


def join():
    """Meets the other processes, and lets layers know of them."""
    global _notes
    on_gpu = torch.cuda.is_available()
    try:
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", place()[0])))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if on_gpu else "gloo")
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        _notes = dist.PrefixStore("keras_xreid", dist.TCPStore(address, port, is_master=False))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the {place()[1]} processes of this training do not meet ({reason}): start them with "
            "torchrun, one for each GPU at most"
        ) from error
    keras.layers.BatchNormalization._moments = _moments
    for name in ("dropout", "normal", "randint", "uniform"):
        setattr(random, name, _DRAWS[name])


def part():
    """Leaves the other processes, when all are done."""
    wait()
    dist.destroy_process_group()


def is_first_to_tell():
    """Whether no other process asked before."""
    try:
        return _notes.add("told", 1) == 1
    except RuntimeError:  # whoever kept the notes is gone
        return True


# --- what each process has, in all of them -----------------------------------------------------


def _device():
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _of_all(tensor):
    """(processes, ...): a tensor as each process has it, in order of their ranks."""
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    _all_gather(found, tensor)
    return torch.stack(found)


def numbers(number):
    """List of what integer each process has."""
    return _of_all(torch.tensor(number, device=_device())).tolist()


def copy_of_first(variables):
    """Sets variables to the values that they have in the first process."""
    for variable in variables:
        value = variable.value.detach()
        # Of any type, also those that NCCL or gloo does not know.
        sent = value.contiguous().clone().reshape(-1).view(torch.uint8).to(_device())
        _broadcast(sent, 0)
        value.copy_(sent.to(value.device).view(value.dtype).reshape(value.shape))


def mean(scalars):
    """List of the means over processes of what each has."""
    total = torch.stack([torch.as_tensor(x).detach().float() for x in scalars]).to(_device())
    _all_reduce(total)
    return list(total / dist.get_world_size())


def averaged(gradients, variables):
    """Means over processes, laid out in memory as the variables are."""
    total = torch.cat([g.reshape(-1) for g in gradients])
    _all_reduce(total)
    total /= dist.get_world_size()
    parts = total.split([g.numel() for g in gradients])
    values = [v.value.detach() for v in variables]
    return [torch.empty_like(v).copy_(x.view(v.shape)) for v, x in zip(values, parts, strict=True)]


class _Whole(torch.autograd.Function):
    """Rows of all processes, in the order of one; the gradient of a row is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        found = _of_all(x.contiguous())
        # (processes, views, n, ...) to (views, processes, n, ...)
        found = found.unflatten(1, (-1, share.rows)).transpose(0, 1)
        ctx.shape = found.shape[:3]
        return found.flatten(0, 2)

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.contiguous().clone()
        _all_reduce(total)
        return total.unflatten(0, ctx.shape)[:, dist.get_rank()].flatten(0, 1)


def gathered(x):
    """(k n processes, ...) of (k n, ...): see `processes.whole`."""
    return None if x is None else _Whole.apply(x)


# --- batch normalization -----------------------------------------------------------------------


def _joined(mean, variance):
    """Mean and variance of all images, of those of each process's as many."""
    means, variances = _of_all(torch.stack([mean, variance])).unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


class _Normalized(torch.autograd.Function):
    """Batch normalization by all processes' images: values, mean and variance."""

    @staticmethod
    def forward(ctx, x, gamma, beta, epsilon):
        axes = [i for i in range(x.ndim) if i != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        mean, variance = _joined(mean, variance)
        y, _, _ = torch.native_batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon)
        ctx.save_for_backward(x, gamma, mean, variance)
        ctx.epsilon = epsilon
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, gradient, *_):
        x, gamma, mean, variance = ctx.saved_tensors
        _, of_gamma, of_beta = torch.ops.aten.native_batch_norm_backward(
            gradient, x, gamma, mean, variance, None, None, False, ctx.epsilon, [False, True, True]
        )
        # The sums over images that the kernel takes for gamma and beta are those that pass through
        # mean and variance, whose images are everybody's.
        sums = torch.stack([of_beta, of_gamma])
        _all_reduce(sums)
        of_mean, of_scale = sums / (dist.get_world_size() * x.numel() / x.shape[1])

        def along(values):
            return values.view(-1, *[1] * (x.ndim - 2))

        scale = torch.rsqrt(variance + ctx.epsilon)
        slope = scale if gamma is None else scale * gamma
        found = torch.addcmul(along(-slope * of_mean), x - along(mean),
                              along(-slope * scale * of_scale))  # fmt: skip
        found.addcmul_(gradient, along(slope))
        own = (
            x if wanted else None
            for x, wanted in zip((of_gamma, of_beta), ctx.needs_input_grad[1:3], strict=True)
        )
        return found, *own, None


def normalized(x, gamma, beta, epsilon):
    """Batch normalization of (n, channels, ...) by the images of all processes.

    Args:
        x: float32.
        gamma, beta: (channels,), or None.
        epsilon: float.

    Returns:
        What x becomes, and the mean and variance of each channel.
    """
    return _Normalized.apply(x, gamma, beta, epsilon)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        total = x.contiguous().clone()
        _all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx, gradient):
        return _Average.forward(None, gradient)


_plain_moments = keras.layers.BatchNormalization._moments


def _moments(self, inputs, mask):
    """Where Keras's own batch normalization runs; it then goes on with these moments."""
    mean, variance = _plain_moments(self, inputs, mask)
    if not share.rows:
        return mean, variance
    of_all = _Average.apply(mean)
    return of_all, _Average.apply(variance + (mean - of_all).square())


# --- random numbers ----------------------------------------------------------------------------


def _views(count):
    """How many views a number of rows is of this process's images; 0 where it is none of them."""
    rows = share.rows
    return 0 if not rows or count % rows else count // rows


def _own(x, views):
    """This process's rows of what was drawn for the whole batch."""
    shape = (views, dist.get_world_size(), share.rows)
    return x.unflatten(0, shape)[:, dist.get_rank()].flatten(0, 1)


def _drawn(plain):
    """Draws numbers of a shape for the whole batch, and returns this process's rows of them."""

    @functools.wraps(plain)
    def draw(shape, *args, **kwargs):
        views = _views(shape[0]) if len(shape) else 0
        if not views:
            return plain(shape, *args, **kwargs)
        rows = shape[0] * dist.get_world_size()
        return _own(plain((rows, *shape[1:]), *args, **kwargs), views)

    return draw


def _dropout(inputs, rate, noise_shape=None, seed=None):
    views = _views(inputs.shape[0])
    if not views:
        return _plain_dropout(inputs, rate, noise_shape, seed)
    rows = inputs.shape[0] * dist.get_world_size()
    if noise_shape is not None and noise_shape[0] == inputs.shape[0]:
        noise_shape = (rows, *noise_shape[1:])
    ones = torch.ones((rows, *inputs.shape[1:]), dtype=inputs.dtype, device=inputs.device)
    return inputs * _own(_plain_dropout(ones, rate, noise_shape, seed), views)


_plain_dropout = random.dropout
_DRAWS = {"dropout": _dropout} | {
    name: _drawn(getattr(random, name)) for name in ("normal", "randint", "uniform")
}
