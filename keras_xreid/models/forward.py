"""Parts of a system in inference mode: images in, arrays out."""

import numpy as np

from keras_xreid.models.arrays import as_float
from keras_xreid.training import autodiff, batch_statistics, inference, processes


def predict(part, images, batch_size, first=False):
    """Runs a functional part in inference mode; a list of float32 arrays, one an output.

    Args:
        part: a functional `keras.Model`.
        images: array, uint8 or float in [0, 1], or a list of arrays, one an input.
        batch_size: int, images a forward pass; does not change the result.
        first: bool, whether the first output alone is wanted.
    """
    given = list(images) if isinstance(images, (list, tuple)) else [images]
    if not len(given[0]):
        return [np.zeros((0, *output.shape[1:]), "float32") for output in part.outputs]
    if not batch_statistics.taking():
        return inference.run(part, given, batch_size, as_float, first)
    # Layers behave otherwise for a while, and change: Keras knows how.
    part = inference.network_of(part, first)
    given = [as_float(x) if x.dtype == np.uint8 and x.ndim == 4 else x for x in given]
    if part._jit_compile is None:
        part.jit_compile = autodiff.default_jit_compile()
    batch_statistics.trace_anew(part)
    with processes.undivided():
        outputs = part.predict(
            given if len(given) > 1 else given[0], batch_size=batch_size, verbose=0
        )
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.asarray(output, dtype="float32") for output in outputs]


def predict_first(part, images, batch_size):
    """As `predict`, the first output alone: of a network no logits, which nobody asked for."""
    return predict(part, images, batch_size, first=True)[0]
