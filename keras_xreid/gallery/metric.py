"""How a gallery compares: what a model measures, as a product that is to be large."""

import dataclasses

import numpy as np

from keras_xreid.errors import InputError

TINY = 1e-12
FEW = 2  # queries


@dataclasses.dataclass(frozen=True)
class Metric:
    """A distance that one product of matrices decides.

    Args:
        kind: "cosine" (1 - cosine), "euclidean" or "squared" (Euclidean).
        lengths: how many of its first numbers a query is compared on, one length a level, the
            lowest resolution first; of most systems one length, all of them.
        rates: the rate of each level; () where there is one.
    """

    kind: str
    lengths: tuple
    rates: tuple = ()

    @property
    def stores_unit(self):
        """Whether a gallery may store vectors of length 1."""
        return self.kind == "cosine" and len(self.lengths) == 1

    def levels(self, rates, count):
        """The level of each query, from 0: that of the nearest rate, the lower resolution of two.

        Args:
            rates: number or (count,) array; None takes the highest resolution.
            count: int, queries.

        Returns:
            (count,) ints.
        """
        if len(self.lengths) == 1:
            return np.zeros(count, int)
        known = np.asarray(self.rates, "float32")
        rates = known[-1] if rates is None else np.asarray(rates, "float32")
        if rates.shape not in ((), (count,)):
            raise InputError(f"{len(rates)} rates for {count} queries: give one, or one for each")
        if not (rates > 0).all():  # of NaN the lowest resolution would be taken
            raise InputError(f"rates of queries are {rates}: give numbers of 1 or more")
        apart = np.abs(np.broadcast_to(rates, (count,))[:, None] - known)
        return (apart + 1e-5 * np.arange(len(known))).argmin(1)

    def norms(self, embeddings):
        """(n, levels) float32 lengths of the gallery's vectors at each level; None if all are 1."""
        if self.stores_unit:
            return None
        ends = np.cumsum(np.square(embeddings, dtype="float32"), axis=1)
        return np.ascontiguousarray(np.sqrt(ends[:, np.array(self.lengths) - 1]))

    def query(self, queries, level):
        """Queries of one level, cut to its length, and each one's own length."""
        cut = np.ascontiguousarray(queries[:, : self.lengths[level]], "float32")
        own = np.linalg.norm(cut, axis=1, keepdims=True)
        return (cut / np.maximum(own, TINY) if self.kind == "cosine" else cut), own

    def scores(self, query, block, norms, level, cached=False):
        """(q, n) products, larger for what is nearer.

        Args:
            query: (q, length), of `query`.
            block: (n, d) of the gallery.
            norms: (n, levels) of `norms`, or None.
            level: int.
            cached: whether the block lies in the processor's cache.
        """
        return self.refine(self.products(query, block, level, cached), norms, level)

    def products(self, query, block, level, cached=False):
        """(q, n) products with the part of the gallery's vectors that the level has."""
        part = block[:, : self.lengths[level]]
        if cached or len(query) > FEW:
            return query @ part.T
        # Of few queries NumPy's loop reads memory faster than its matrix product.
        return np.stack([np.einsum("nd,d->n", part, one) for one in query])

    def refine(self, found, norms, level):
        """Products as scores, in place: what the gallery's own lengths do to them."""
        if norms is None:
            return found
        length = norms[:, level]
        if self.kind == "cosine":
            found /= np.maximum(length, TINY)
        else:
            found -= np.square(length) / 2
        return found

    def distances(self, scores, own):
        """The distances that scores stand for; `own` are the queries' lengths."""
        if self.kind == "cosine":
            return np.maximum(1 - scores, 0)
        squared = np.maximum(np.square(own) - 2 * scores, 0)
        return squared if self.kind == "squared" else np.sqrt(squared)


def unit(embeddings):
    """Embeddings of length 1, as a system's `distances` makes them."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), TINY)
