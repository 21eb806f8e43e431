"""Inference on each backend: a functional model as one function of its inputs, traced once.

Keras's `predict` makes a pipeline of data, callbacks and metrics at each call, and traces a batch
of another size anew. On a CPU, TensorFlow runs beside its own pipeline at half the speed.

TensorFlow takes any number of images by one graph. JAX and XLA compile for one number: the last
batch is filled up, and a few images alone are filled up to a power of 2. In inference no image
depends on another, so that this changes nothing. PyTorch runs as it is written.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_xreid.training import autodiff, folding

BACKEND = keras.backend.backend()


def run(part, inputs, batch_size, scale, first=False):
    """Runs a functional model in inference mode, by batches.

    Weights are arguments of what is traced, so that one that changes is seen. Several threads may
    run one model.

    Args:
        part: a functional `keras.Model`.
        inputs: list of arrays of n rows, one an input.
        batch_size: int, rows at a time; does not change the result.
        scale: function of a uint8 tensor, which makes floats of it.
        first: bool, whether the first output alone is wanted.

    Returns:
        List of float32 arrays of n rows, one an output.
    """
    count = len(inputs[0])
    jit = part._jit_compile
    jit = autodiff.default_jit_compile() if jit is None else jit
    step = _of(part).step(inputs, jit, scale, first)
    rows = None
    if jit and BACKEND != "torch":
        rows = batch_size if count > batch_size else min(batch_size, 1 << (count - 1).bit_length())
    found = []
    for start in range(0, count, batch_size):
        batch = [_filled(x[start : start + batch_size], rows) for x in inputs]
        found.append([ops.convert_to_numpy(x) for x in step(*map(ops.convert_to_tensor, batch))])
    return [np.concatenate(outputs)[:count] for outputs in zip(*found, strict=True)]


def _is_uint8_image(x):
    """Levels are integers as well."""
    return keras.backend.standardize_dtype(x.dtype) == "uint8" and len(x.shape) == 4


def _filled(x, rows):
    """A copy, of so many rows: PyTorch wants memory that may be written."""
    if rows is None or len(x) == rows:
        return np.array(x)
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])


def network_of(part, first):
    """The part itself, or a model of its first output alone, which shares its layers."""
    return _of(part).first if first and len(part.outputs) > 1 else part


def fold(model):
    """From now on the functional models in a model are run with folded batch normalization.

    It is folded when they are run first: what changes later is not seen.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, "_nodes_by_depth"):
            object.__setattr__(layer, "_folds", True)


def _folds(part):
    return any(getattr(layer, "_folds", False) for layer in (part, *part.layers))


class _Function:
    """What was traced of a functional model.

    Args:
        part: the model.
        variables: those that it reads.
    """

    def __init__(self, part, variables):
        self.part, self.variables, self.steps = part, variables, {}

    @functools.cached_property
    def first(self):
        return keras.Model(self.part.input, self.part.outputs[0])

    def step(self, inputs, jit, scale, first):
        eagerly = self.part.run_eagerly
        key = (first, eagerly, jit, *((x.shape[1:], x.dtype.name) for x in inputs))
        if key not in self.steps:
            network = network_of(self.part, first)
            if _folds(self.part):
                network = folding.folded(network)

            def function(*tensors):
                given = [scale(x) if _is_uint8_image(x) else x for x in tensors]
                found = network(given if len(given) > 1 else given[0], training=False)
                return [ops.cast(x, "float32") for x in keras.tree.flatten(found)]

            kind = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}[BACKEND]
            self.steps[key] = kind(
                function, network.variables, inputs, jit and not eagerly, eagerly
            )
        return self.steps[key]


def _of(part):
    """The `_Function` of a model; another one where the model has other variables by now."""
    known, variables = part.__dict__.get("_inference"), part.variables
    if (
        known is None
        or len(known.variables) != len(variables)
        or any(a is not b for a, b in zip(known.variables, variables, strict=True))
    ):
        # Past Keras's own __setattr__, and in an object: Keras would look for layers in it.
        known = _Function(part, variables)
        object.__setattr__(part, "_inference", known)
    return known


def _torch(function, variables, inputs, jit, eagerly):
    import torch

    if jit:
        function = torch.compile(function)
    return torch.no_grad()(function)


def _tensorflow(function, variables, inputs, jit, eagerly):
    import tensorflow as tf

    if eagerly:
        return function
    signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in inputs]
    return tf.function(function, input_signature=signature, jit_compile=jit or None)


def _jax(function, variables, inputs, jit, eagerly):
    import jax

    if not jit:
        return function

    def pure(values, tensors):
        # Read outside a scope, weights would become constants of what is compiled.
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return function(*tensors)

    compiled = jax.jit(pure)
    return lambda *tensors: compiled([v.value for v in variables], tensors)
