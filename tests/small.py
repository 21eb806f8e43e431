"""Small models and batches with the same numbers on every backend."""

import keras
import numpy as np

import keras_xreid as xr

SIZE = (64, 32)
PEOPLE = 5


def fill(model, seed=0):
    """Sets every weight from NumPy, by its name and shape: backends draw different numbers.

    With other scales of the kernels an activation can lie within rounding of ReLU's kink, fall on
    either side of it, and set gradients of two backends 5e-3 apart instead of 1e-5.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.7, 1.3, shape)
        elif name in ("kernel", "pointwise_kernel", "depthwise_kernel") and len(shape) > 1:
            value = rng.normal(0, (1.0 / np.prod(shape[:-1])) ** 0.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        variable.assign(value.astype("float32"))
    return model


def intact(**kwargs):
    """INTACT as a toy: every part there, few channels."""
    options = {
        "preset": "tiny", "image_size": SIZE, "generator_widths": (4, 6, 8, 8),
        "discriminator_width": 4, "batch_normalization": True,
    }  # fmt: skip
    return fill(xr.INTACT(PEOPLE, **{**options, **kwargs}))


def pairs(n=8, seed=0):
    """A batch as `PairBatches` makes it: smooth images, and coarser versions of them."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (n, SIZE[0] // 8, SIZE[1] // 8, 3))
    smooth = np.repeat(np.repeat(coarse, 8, 1), 8, 2)
    hr = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype("uint8")
    return {
        "hr": hr,
        "lr": smooth.astype("uint8"),
        "person": (np.arange(n) % PEOPLE).astype("int32"),
        "rate": np.full(n, 4, "int32"),
    }


class Repeat(keras.utils.PyDataset):
    """The same few batches every epoch."""

    def __init__(self, *batches):
        super().__init__()
        self.batches, self.batch_size, self.epoch = batches, len(batches[0]["person"]), 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def step(model, batch):
    """One train step through `fit`, as a user takes it; the logs."""
    history = model.fit(Repeat(batch), epochs=1, verbose=0, shuffle=False)
    return {name: values[0] for name, values in history.history.items()}


def snapshot(part):
    """The values of a part's weights, moving averages included."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in part.weights]


def moved(before, part):
    """Which of a part's weights differ from before, by path."""
    return {
        v.path
        for v, old in zip(part.weights, before, strict=True)
        if not np.array_equal(old, keras.ops.convert_to_numpy(v))
    }
