"""Layers that depend on an image's resolution: masks of channels, vectors of varying length."""

import keras
import numpy as np
from keras import layers, ops

from keras_xreid.errors import InputError


@keras.saving.register_keras_serializable("keras_xreid")
class ResolutionMask(layers.Layer):
    """Scales the channels of a feature map by a mask of the image's own resolution level.

    X' = X * sum_k s_k sigmoid(M_k), where s_k is 1 for the image's level k and 0 for the others
    (Eq. 3). A mask that has not been introduced yet, `introduced` 0, is exactly 1.

    Args:
        levels: int, m, number of resolution levels.
        stddev: float, of the Gaussian that the M_k are drawn from, before the sigmoid.
        seed: int or `keras.random.SeedGenerator` of that drawing.
        shared: bool, whether all levels start from one drawing, so that what sets them apart is
            learnt (ours); else each has its own.
        speed: float, ours: M is so many times the weight that is trained. Adam's steps do not
            depend on a gradient's size, so that this is a learning rate so many times higher.

    Call arguments: a list of
        x: (n, h, w, c) feature map.
        level: (n,) integers, 1 (lowest resolution) to m.

    Returns:
        (n, h, w, c).

    Raises:
        InputError: a speed of 0 or less.

    Example:

    >>> mask = ResolutionMask(levels=4)
    >>> mask([np.ones((2, 8, 4, 256)), np.array([1, 4])]).shape
    (2, 8, 4, 256)

    Reference:
        Wu et al., Learning Resolution-Adaptive Representations, Section III-C.
    """

    def __init__(self, levels, stddev=1.0, seed=None, shared=False, speed=1.0, **kwargs):
        super().__init__(**kwargs)
        self.levels, self.stddev, self.seed = levels, stddev, seed
        self.shared, self.speed = shared, float(speed)
        if not self.speed > 0:
            raise InputError(f"masks of speed {speed}: give more than 0, 1 for plain ones")

    def build(self, input_shape):
        draw = keras.initializers.RandomNormal(0.0, self.stddev / self.speed, self.seed)

        def start(shape, dtype=None):
            return ops.tile(draw((1, shape[1]), dtype), (shape[0], 1))

        self.logits = self.add_weight(
            (self.levels, input_shape[0][-1]), start if self.shared else draw, name="logits"
        )
        self.introduced = self.add_weight((), "ones", trainable=False, name="introduced")

    def call(self, inputs):
        x, level = inputs
        logits = self.speed * ops.convert_to_tensor(self.logits)
        masks = ops.where(self.introduced > 0, ops.sigmoid(logits), 1.0)
        # A product and no `take`, whose gradient sums in an order of its own on some devices.
        chosen = _one_hot(level, self.levels, self.compute_dtype)
        return x * ops.matmul(chosen, ops.cast(masks, self.compute_dtype))[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    @property
    def values(self):
        """(m, c) float32 array in [0, 1]: what each level's channels are multiplied by."""
        if not float(ops.convert_to_numpy(self.introduced)):
            return np.ones(self.logits.shape, "float32")
        return ops.convert_to_numpy(ops.sigmoid(self.speed * self.logits.value))

    @property
    def spread(self):
        """How far the mask has come: the deviation of M, and its mean difference between levels.

        The second is the root of the mean square, over channels and pairs of levels, of M_k - M_l.
        """
        logits = self.speed * ops.convert_to_numpy(self.logits.value)
        pairs = [(a - b) ** 2 for i, a in enumerate(logits) for b in logits[:i]]
        return float(logits.std()), float(np.sqrt(np.mean(pairs))) if pairs else 0.0

    def get_config(self):
        return {
            **super().get_config(),
            "levels": self.levels,
            "stddev": self.stddev,
            "seed": self.seed,
            "shared": self.shared,
            "speed": self.speed,
        }


@keras.saving.register_keras_serializable("keras_xreid")
class VaryingLength(layers.Layer):
    """Keeps of a vector what belongs to the image's resolution level, and sets the rest to 0.

    The vector consists of m sub-vectors v_1 to v_m; of an image at level k it keeps the first k,
    z = cat(v_1, ..., v_k), padded with zeros (Section III-B). No gradient passes what is padded.

    Args:
        sizes: list of m ints, dimensions of the sub-vectors, that of the lowest resolution first.

    Call arguments: a list of
        v: (n, d) vectors, d the sum of `sizes`.
        level: (n,) integers, 1 (lowest resolution) to m.

    Returns:
        (n, d).

    Raises:
        InputError: no sub-vector, or one without dimensions.

    Example:

    >>> VaryingLength([1, 2])([np.ones((2, 3)), np.array([1, 2])])
    [[1, 0, 0], [1, 1, 1]]

    Reference:
        Wu et al., Learning Resolution-Adaptive Representations, Section III-B, Algorithm 1.
    """

    def __init__(self, sizes, **kwargs):
        super().__init__(**kwargs)
        self.sizes = [int(size) for size in sizes]
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"sub-vectors of sizes {self.sizes}: give 1 or more for each level")
        self._kept = kept_by_level(self.sizes)

    def call(self, inputs):
        v, level = inputs
        chosen = _one_hot(level, len(self.sizes), v.dtype)
        return v * ops.matmul(chosen, ops.convert_to_tensor(self._kept, v.dtype))

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "sizes": self.sizes}


def _one_hot(level, levels, dtype):
    """(n, m), 1 at each image's level; of levels that there are not the nearest one."""
    # PyTorch refuses another level, other backends would give zeros.
    return ops.one_hot(ops.clip(level, 1, levels) - 1, levels, dtype=dtype)


def kept_by_level(sizes):
    """Which dimensions an image of each level keeps.

    Args:
        sizes: list of m ints, dimensions of the sub-vectors.

    Returns:
        (m, d) float32 array of 0 and 1; row k - 1 belongs to level k.
    """
    ends = np.cumsum(sizes)
    return (np.arange(ends[-1]) < ends[:, None]).astype("float32")
