"""Distances between the features of queries and those of a gallery."""

import numpy as np

from keras_xreid.errors import InputError
from keras_xreid.models.arrays import as_numpy

BLOCK = 8192  # images of a gallery that are normalised at a time


def cosine(query, gallery):
    """1 - cosine of features (q, d) and (g, d): (q, g) float32, in [0, 2]."""
    query, gallery = features_to_compare(query, gallery)
    query, found = _unit(query), np.empty((len(query), len(gallery)), "float32")
    # By blocks: a normalised copy of a whole gallery would be as large as it.
    for start in range(0, len(gallery), BLOCK):
        block = slice(start, start + BLOCK)
        found[:, block] = query @ _unit(gallery[block]).T
    np.subtract(1.0, found, out=found)
    return np.maximum(found, 0.0, out=found)  # rounding may leave a little less


def euclidean(a, b):
    """Euclidean distances of features (q, d) and (g, d): (q, g) float32."""
    a, b = features_to_compare(a, b)
    # In place: a large gallery's distances are hundreds of megabytes.
    squared = a @ b.T
    squared *= -2.0
    squared += np.sum(np.square(a), axis=1)[:, None]
    squared += np.sum(np.square(b), axis=1)
    return np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)


def features_to_compare(query, gallery):
    """Features of two sides as float32 arrays that fit each other.

    Args:
        query: (q, d), whatever `as_numpy` takes.
        gallery: (g, d).

    Returns:
        Two float32 arrays.

    Raises:
        InputError: where they are no matrices, or of unequal width.
    """
    query, gallery = as_numpy(query), as_numpy(gallery)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"features of shapes {query.shape} and {gallery.shape} cannot be compared: give "
            "(q, d) and (g, d), embedded by the same model"
        )
    return query.astype("float32", copy=False), gallery.astype("float32", copy=False)


def _unit(features):
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
