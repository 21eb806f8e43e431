"""k-reciprocal re-ranking (Zhong et al., 2017) in bounded memory, with NumPy alone."""

import math

import numpy as np

from keras_xreid.errors import InputError, check_number
from keras_xreid.evaluation.distances import LazyDistances
from keras_xreid.evaluation.ranking import BLOCK_VALUES


def rerank(distances, queries, k1=20, k2=6, weight=0.3):
    """Ranks again by the neighbours that images have in common (k-reciprocal encoding).

    Two images of one person are among each other's nearest; the sets of such neighbours are
    compared (Eq. 5 to 12 of the paper). The distances of all images to all are read by blocks of
    rows, once where a `LazyDistances` gives pairs, else twice. `feature_distances` of an array
    with itself computes each two images once. Only each image's neighbours are kept, never a
    matrix of all by all.

    Where the paper and its authors' code differ this follows the code, which the published numbers
    come from: a set is joined where more than 2/3 of it is shared (Eq. 5 says 2/3 or more), and
    the weights of an encoding (Eq. 7) are divided by their sum, which makes much of the gain. So it
    does where the paper says nothing: neighbours are looked for among queries and gallery
    together; an image is its own first neighbour, so that it and `k1` others are searched for
    reciprocal ones, and `k2` with itself are averaged; and distances are divided by each image's
    largest one, so that `weight` and exp(-d) mean the same for all features (the authors give
    squared Euclidean ones, twice the cosine distance). Images at equal distance keep their order.

    Args:
        distances: (n, n) array of all images to all, first the queries, then the gallery, smaller
            is more alike; or whatever `evaluate_ranking` takes in its place.
        queries: int, how many of the images are queries.
        k1: how many neighbours are searched for reciprocal ones.
        k2: how many neighbours an image's encoding is averaged over; 1 leaves it as it is.
        weight: the original distance's share in the result, 0 to 1 (lambda in the paper).

    Returns:
        A `LazyDistances` of shape (queries, gallery), values in [0, 1]; `[:]` is the whole array.

    Raises:
        InputError: A matrix that is not square, a distance that is not finite or is below 0, or
            settings out of range.

    Example:

    >>> everything = np.concatenate([query_features, gallery_features])
    >>> distances = rerank(feature_distances(everything, everything), len(query_features))
    >>> evaluate_ranking(distances, data.query, data.gallery)

    Reference:

    - Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017.
    """
    if not hasattr(distances, "shape"):
        distances = np.asarray(distances)
    _check(distances.shape, queries, k1, k2, weight)
    count = distances.shape[0]
    nearest, largest = _nearest_of_each(distances, min(max(k1 + 1, k2), count))
    encodings = _encode(distances, largest, _expanded_neighbours(nearest, k1))
    if k2 > 1:
        encodings = _average(encodings, nearest[:, :k2])
    owners, shares, starts = _invert(encodings[queries:], count)
    encodings = encodings[:queries]

    def function(rows):
        start, stop, _ = rows.indices(queries)
        if getattr(distances, "symmetric", False):
            result = distances.pairs(slice(start, stop), slice(queries, None))
        else:
            result = np.asarray(distances[start:stop])[:, queries:]
        result = result / largest[start:stop, None]
        result = result.astype("float32", copy=False)
        result *= weight
        for row, line in zip(range(start, stop), result, strict=True):
            # Of min(V_q, V_g) only the columns count in which both have a value.
            columns, values = encodings[row]
            found = starts[columns + 1] - starts[columns]
            places = np.repeat(starts[columns] - (np.cumsum(found) - found), found)
            places += np.arange(len(places))
            smaller = np.minimum(np.repeat(values, found), shares[places])
            common = np.bincount(owners[places], smaller, minlength=count - queries)
            # Both sum to 1, so the larger values sum to 2 less the smaller ones (Eq. 10).
            line += (1 - weight) * (1 - common / (2 - common))
        return result

    return LazyDistances(function, (queries, count - queries))


def _check(shape, queries, k1, k2, weight):
    shape = tuple(shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise InputError(
            f"distances have shape {shape}: re-ranking takes those of all images to all, queries "
            "first, (q + g, q + g)"
        )
    check_number(f"the number of queries among {shape[0]} images", queries, 1, shape[0] - 1)
    check_number("k1", k1)
    check_number("k2", k2)
    check_number("weight", weight, 0, 1, whole=False)


def _blocks(distances):
    """Yields (first row, block of float rows), a bounded number of values at a time."""
    count = distances.shape[0]
    step = max(1, BLOCK_VALUES // count)
    for start in range(0, count, step):
        block = np.asarray(distances[start : min(start + step, count)])
        if not np.issubdtype(block.dtype, np.floating):
            block = block.astype("float64")
        yield start, block


def _tiles(distances):
    """Yields (first row, first column, block) until all are compared with all."""
    if not getattr(distances, "symmetric", False):
        for start, block in _blocks(distances):
            yield start, 0, block
        return
    count, side = distances.shape[0], max(1, math.isqrt(BLOCK_VALUES))
    for i in range(0, count, side):
        for j in range(i, count, side):
            block = distances.pairs(slice(i, i + side), slice(j, j + side))
            yield i, j, block
            if i < j:
                yield j, i, block.T


def _nearest_of_each(distances, k):
    """The k nearest images of each, itself first, and each image's largest distance."""
    count = distances.shape[0]
    nearest, values = np.full((count, k), count, "int32"), np.full((count, k), np.inf)
    largest = np.zeros(count)
    for start, left, block in _tiles(distances):
        height, width = block.shape
        rows = slice(start, start + height)
        largest[rows] = np.maximum(largest[rows], block.max(axis=1))
        # Rounding may leave a little less than 0. Written so that NaN fails too.
        if not block.min() >= -1e-5 * block.max() > -np.inf:
            raise InputError(
                f"distances of images {start} to {rows.stop - 1} begin at {block.min()} and end at "
                f"{block.max()}: re-ranking takes distances of 0 or more, all of them finite"
            )
        own = np.arange(max(start, left), min(start + height, left + width))
        if len(own):
            block = block.copy()
            block[own - start, own - left] = -np.inf  # its own first
        bounds = values[rows, -1]
        if np.isinf(bounds).any() and width > k:
            bounds = np.partition(block, k - 1, axis=1)[:, k - 1]
        _keep_nearest(nearest[rows], values[rows], block, left, bounds)
    largest[largest == 0] = 1  # all images are equal to this one
    return nearest, largest


def _keep_nearest(nearest, values, block, left, bounds):
    """Puts images of a block, whose first is `left`, among the nearest ones, in place."""
    k = nearest.shape[1]
    hits = np.less_equal(block, bounds[:, None], out=np.empty(block.shape, bool))
    here, there = np.divmod(np.flatnonzero(hits), block.shape[1])  # many times as fast as nonzero
    touched = here[np.flatnonzero(np.diff(here, prepend=-1))]
    owners = np.concatenate([np.repeat(touched, k), here])
    images = np.concatenate([nearest[touched].ravel(), there + left])
    apart = np.concatenate([values[touched].ravel(), block[here, there]])
    order = np.lexsort((images, apart, owners))
    owners = owners[order]
    places = np.arange(len(owners)) - np.searchsorted(owners, owners)
    best = places < k
    where = owners[best], places[best]
    nearest[where], values[where] = images[order][best], apart[order][best]


def _reciprocal(nearest):
    """(n, k) array of bool: whether an image is among the nearest of its neighbour too."""
    answers = np.empty(nearest.shape, bool)
    step = max(1, BLOCK_VALUES // nearest.shape[1] ** 2)
    for start in range(0, len(nearest), step):
        rows = np.arange(start, min(start + step, len(nearest)))
        answers[rows] = (nearest[nearest[rows]] == rows[:, None, None]).any(axis=2)
    return answers


def _expanded_neighbours(nearest, k1):
    """Yields R*(p, k1) of each image, sorted (Eq. 5)."""
    near, half = nearest[:, : k1 + 1], nearest[:, : round(k1 / 2) + 1]
    near_too, half_too = _reciprocal(near), _reciprocal(half)
    inside = np.zeros(len(nearest), bool)
    for neighbours, chosen in zip(near, near_too, strict=True):
        members = neighbours[chosen]
        inside[members] = True
        theirs, valid = half[members], half_too[members]
        shared = np.count_nonzero(inside[theirs] & valid, axis=1)
        valid &= (3 * shared > 2 * np.count_nonzero(valid, axis=1))[:, None]
        inside[members] = False
        yield np.unique(np.concatenate([members, theirs[valid]]))


def _encode(distances, largest, neighbours_of_each):
    """For each image its expanded neighbours and the weight exp(-d) of each (Eq. 7)."""
    encodings = []
    for columns, values in _of_pairs(distances, neighbours_of_each):
        values = np.exp(-values / largest[len(encodings)])
        encodings.append((columns, (values / values.sum()).astype("float32")))
    return encodings


def _of_pairs(distances, neighbours_of_each):
    """Yields each image's neighbours and their distances."""
    if getattr(distances, "pairs", None) is not None:
        for i, columns in enumerate(neighbours_of_each):
            yield columns, distances.pairs(i, columns)
    else:
        for _, block in _blocks(distances):
            for line in block:
                columns = next(neighbours_of_each)
                yield columns, line[columns]


def _average(encodings, neighbours_of_each):
    """Local query expansion: the mean of the encodings of an image's nearest (Eq. 11)."""
    averaged = []
    for neighbours in neighbours_of_each:
        parts = [encodings[neighbour] for neighbour in neighbours]
        columns, places = np.unique(np.concatenate([c for c, _ in parts]), return_inverse=True)
        values = np.bincount(places, np.concatenate([v for _, v in parts])) / len(parts)
        averaged.append((columns, values.astype("float32")))
    return averaged


def _invert(encodings, count):
    """For each column, who has a value there and which: (owners, values, starts)."""
    columns = np.concatenate([columns for columns, _ in encodings])
    lengths = [len(columns) for columns, _ in encodings]
    order = np.argsort(columns, kind="stable")
    owners = np.repeat(np.arange(len(encodings), dtype="int32"), lengths)[order]
    values = np.concatenate([values for _, values in encodings])[order]
    starts = np.searchsorted(columns[order], np.arange(count + 1))
    return owners, values, starts
