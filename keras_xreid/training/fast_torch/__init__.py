"""Keras on PyTorch at the speed of PyTorch: no layout copies, fused kernels, memory freed early.

`FastPath` says how it is switched on and off.
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

`ops.py` and `functional.py` hold the functions that stand for Keras's. Each takes what Keras's
takes, and hands what it does not treat to it. `plan.py` says how a functional model is run.
"""

from keras_xreid.training.fast import FastPath


def plan_ahead(model):
    """Plans how the functional models inside a model are run, which a compiler would trace slowly.

    Args:
        model: a `keras.Model`.
    """
    if not enabled():
        return
    from keras_xreid.training.fast_torch import functional

    for layer in model._flatten_layers():
        if type(layer).call is functional.call:
            functional.plan_of(layer)


def _replacements():
    """What stands for what; PyTorch is imported here only."""
    from keras_xreid.training.fast_torch import functional, ops

    return [*ops.REPLACEMENTS, *functional.REPLACEMENTS]


_path = FastPath("torch", _replacements, "going on with plain Keras, about half as fast")
enabled, enable, disable = _path.enabled, _path.enable, _path.disable
