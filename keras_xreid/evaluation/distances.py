"""Distances that are computed where they are looked at, for matrices that do not fit in memory."""

import numpy as np

from keras_xreid.errors import InputError
from keras_xreid.gallery.metric import unit

METRICS = ("cosine", "euclidean")


class LazyDistances:
    """A distance matrix that is computed by blocks of rows, whenever it is sliced.

    `evaluate_ranking` and `rerank` take it in place of an array, as they take whatever else has a
    `shape` and gives rows when it is sliced: `numpy.memmap`, an HDF5 data set, a backend's tensor.

    Args:
        function: gives the distances of some rows: it is called with a slice and returns an array
            of (rows, gallery).
        shape: (queries, gallery).
        pairs: optional, gives the distances of one query to some gallery images: it is called with
            a row and an array of columns. `rerank` then computes the matrix once less.
        symmetric: whether row i has in column j what row j has in column i. `rerank` then computes
            half of the matrix, and asks `pairs` for a slice of rows and a slice of columns, too.

    Example:

    >>> distances = LazyDistances(
    ...     lambda rows: model.distances(q[rows], g, query_rates=rates[rows]), (len(q), len(g))
    ... )
    >>> evaluate_ranking(distances, data.query, data.gallery)
    """

    def __init__(self, function, shape, pairs=None, symmetric=False):
        self.function = function
        self.shape = tuple(shape)
        self.pairs = pairs
        self.symmetric = symmetric

    def __getitem__(self, rows):
        return self.function(rows)


def feature_distances(query_features, gallery_features, metric="cosine"):
    """Gives the distances between two sets of features, computed where they are looked at.

    Args:
        query_features: (q, d) array.
        gallery_features: (g, d) array.
        metric: "cosine" (1 - cosine, in [0, 2]) or "euclidean".

    Returns:
        A `LazyDistances` of shape (q, g); its blocks are float32.

    Raises:
        InputError: An unknown metric, or features that do not fit together.

    Example:

    >>> evaluate_ranking(feature_distances(q, g), data.query, data.gallery)
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    same = query_features is gallery_features
    query = np.asarray(query_features, "float32")
    gallery = query if same else np.asarray(gallery_features, "float32")
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features of shape {query.shape} cannot be compared with gallery features of "
            f"shape {gallery.shape}: give a (q, d) and a (g, d) array"
        )
    squares = [np.einsum("nd,nd->n", x, x) for x in (query, gallery)]
    for what, square in zip(("query", "gallery image"), squares, strict=True):
        bad = np.flatnonzero(~np.isfinite(square))
        if len(bad):
            raise InputError(
                f"{len(bad)} features are not finite, that of {what} {bad[0]} (counted from 0) "
                "first: the model or its input is broken"
            )
    if metric == "euclidean":

        def measured(rows, columns=slice(None)):
            squared = query[rows] @ gallery[columns].T
            squared *= -2
            squared += squares[0][rows, None]
            squared += squares[1][columns]
            np.maximum(squared, 0, out=squared)  # rounding may leave a little less
            return np.sqrt(squared, out=squared)

    else:
        # Kept: a gallery may have hundreds of megabytes, and is asked for many blocks.
        gallery_unit = unit(gallery)
        query_unit = gallery_unit if same else unit(query)

        def measured(rows, columns=slice(None)):
            cosine = query_unit[rows] @ gallery_unit[columns].T
            np.subtract(1.0, cosine, out=cosine)
            return np.maximum(cosine, 0.0, out=cosine)  # rounding may leave a little less

    def pairs(row, columns):
        if isinstance(row, slice):
            return measured(row, columns)
        return measured(slice(row, row + 1), columns)[0]

    return LazyDistances(measured, (len(query), len(gallery)), pairs, same)


def model_distances(model, query_features, gallery_features, query_rates=None):
    """Gives the distances that a model measures, computed where they are looked at.

    Of our systems that measure cosines the features are normalised once. All others are asked for
    each block of rows.

    Args:
        model: a system, or whatever has its `distances`.
        query_features: (q, d) array.
        gallery_features: (g, d) array.
        query_rates: as for the model's `distances`.

    Returns:
        A `LazyDistances` of shape (q, g), its values those of `model.distances`, bit by bit.

    Raises:
        InputError: features that are not finite, or do not fit together.
    """
    ours = type(model).__module__.startswith("keras_xreid.models.")
    # Where a query is compared on a part of the vector, that part has a length of its own.
    whole = not getattr(model, "varying_length", False)
    if ours and whole and model.metric == "1 - cosine":
        return feature_distances(query_features, gallery_features)

    def function(rows):
        rates = query_rates[rows] if np.ndim(query_rates) else query_rates
        return model.distances(query_features[rows], gallery_features, query_rates=rates)

    return LazyDistances(function, (len(query_features), len(gallery_features)))


def distances_among(measure, features, rates):
    """Distances between some images and themselves, each two compared on what both have.

    Args:
        measure: a model's `distances`, whose metric may depend on the resolution.
        features: (n, d) array.
        rates: number or (n,) array, what `measure` is told of their resolution.

    Returns:
        (n, n) float64 array: symmetric, 0 on its diagonal.

    Example:

    >>> apart = distances_among(model.distances, features, rates=4)
    """
    found = np.array(measure(features, features, query_rates=rates), "float64")
    found = np.maximum(np.minimum(found, found.T), 0)
    np.fill_diagonal(found, 0)
    return found
