"""The nearest rows of a gallery, found in blocks: in float32, or in codes of 8 bits first."""

from typing import NamedTuple

import numpy as np

BLOCK = 16384  # rows a product; the scores of 64 queries are 4 MB then
RESCORED = 1000  # candidates of int8 codes that are measured in float32
GATHERED = 0.5  # of all rows: if fewer are allowed, they are copied together first
GATHER = 512  # rows that are copied at a time


class Rows(NamedTuple):
    """What is searched: n rows, and what is kept of them.

    Args:
        embeddings: (n, d) float32.
        norms: as of `Metric.norms`, or None.
        codes: (n, d) int8, to be searched first, or None.
        scales: (n,) float32, what a step of each row's codes is worth.
    """

    embeddings: np.ndarray
    norms: np.ndarray | None = None
    codes: np.ndarray | None = None
    scales: np.ndarray | None = None


def nearest(metric, rows, query, level, k, allowed=None):
    """For each query the k best scores and their rows, the best first; of equals the older.

    Args:
        metric: a `Metric`.
        rows: a `Rows`.
        query: (q, length), of `Metric.query`.
        level: int.
        k: int, how many.
        allowed: (n,) bool; None: all.

    Returns:
        A list of (scores, rows), one for each query.
    """
    coarse = rows.codes is not None
    best = _Best(len(query), max(k, RESCORED) if coarse else k)
    matrix = rows.codes if coarse else rows.embeddings
    n = len(matrix)
    if allowed is not None and np.count_nonzero(allowed) < GATHERED * n:
        chosen = np.flatnonzero(allowed)
        # One buffer that stays in the processor's cache: memory is read once.
        buffer = np.empty((min(len(chosen), GATHER), matrix.shape[1]), matrix.dtype)
        for start in range(0, len(chosen), GATHER):
            part = chosen[start : start + GATHER]
            block = buffer[: len(part)]
            np.take(matrix, part, axis=0, out=block, mode="clip")
            best.add(_scores(metric, rows, query, block, part, level, coarse, cached=True), part)
    else:
        for start in range(0, n, BLOCK):
            part = slice(start, min(start + BLOCK, n))
            scores = _scores(metric, rows, query, matrix[part], part, level, coarse)
            free = None if allowed is None else allowed[part]
            best.add(scores, np.arange(part.start, part.stop), free)
    found = best.sorted()
    if not coarse:
        return found
    exact = []
    for one, (_, part) in zip(query, found, strict=True):
        block = rows.embeddings[part]
        scores = _scores(metric, rows, one[None], block, part, level, False)[0]
        exact.append(_sorted(scores, part, k))
    return exact


def _scores(metric, rows, query, block, part, level, coarse, cached=False):
    """Scores of a block, which are some of the rows; of codes nearly so."""
    norms = None if rows.norms is None else rows.norms[part]
    if not coarse:
        return metric.scores(query, block, norms, level, cached)
    found = metric.products(query, block.astype("float32"), level, cached)
    found *= rows.scales[part]
    return metric.refine(found, norms, level)


def codes_of(embeddings):
    """Embeddings in 8 bits, and what a step of each row is worth."""
    scales = np.maximum(np.abs(embeddings).max(1), 1e-12) / 127
    return np.rint(embeddings / scales[:, None]).astype("int8"), scales.astype("<f4")


class _Best:
    """The best scores of each query so far."""

    def __init__(self, queries, k):
        self.k = k
        self.scores = [np.empty(0, "float32")] * queries
        self.rows = [np.empty(0, "int64")] * queries
        self.least = np.full(queries, -np.inf, "float32")

    def add(self, scores, rows, allowed=None):
        """Looks at the scores (q, n) of some rows, in ascending order; `allowed` is (n,) bool."""
        # Nearly all are worse than the k best of the blocks before, and are never sorted.
        hits = scores > self.least[:, None]
        if allowed is not None:
            hits &= allowed
        for query in np.flatnonzero(hits.any(1)):
            new = np.flatnonzero(hits[query])
            values = np.concatenate([self.scores[query], scores[query, new]])
            places = np.concatenate([self.rows[query], rows[new]])
            if len(values) > self.k:
                # The k-th best value; of those that equal it the older rows stay.
                least = np.partition(values, len(values) - self.k)[len(values) - self.k]
                above = values > least
                equal = np.flatnonzero(values == least)[: self.k - np.count_nonzero(above)]
                above[equal] = True
                values, places = values[above], places[above]
                self.least[query] = least
            self.scores[query], self.rows[query] = values, places

    def sorted(self):
        return [
            _sorted(scores, rows, self.k)
            for scores, rows in zip(self.scores, self.rows, strict=True)
        ]


def _sorted(scores, rows, k):
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]
