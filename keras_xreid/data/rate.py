"""The down-sampling rate of an image, seen in its spectrum."""

import functools
from pathlib import Path

import numpy as np

from keras_xreid.data.resolution import prepare_images

SIZE = (128, 64)  # at which it is measured: rate 1 is an image of this size or more
BANDS = 16  # of frequencies, along each axis
MOST = 16.0  # a higher rate leaves 8 rows
SHARP = 1.1  # a lower estimate is rate 1
TABLE = Path(__file__).with_name("rate.npz")
AT_A_TIME = 1024
ESTIMATED = "estimated"  # in the place of rates: what is seen here


def estimate_rate(images):
    """Estimates the down-sampling rate of images from their pixels.

    An image that was shrunk and enlarged lacks high frequencies, whatever size it is stored at. A
    small network reads the rate from the energy of 16 bands of frequencies along each axis (ours).
    It was fitted by `tests/benchmarks/rate.py`, which prints its error. Where images are stored as
    they came, `rates_from_sizes` is exact; an image that is out of focus looks enlarged here.

    Args:
        images: list of `Record`, or of (h, w, 3) uint8 arrays; or an (n, h, w, 3) uint8 array.

    Returns:
        (n,) float32 array, 1 (as sharp as 128x64 can be) to 16.

    Raises:
        InputError: an unreadable image, or one of another type or shape.

    Example:

    >>> rates = estimate_rate(queries)
    >>> features = model.embed(prepare_images(queries, model.image_size), rates)
    """
    found = [np.ones(0, "float32")]
    for start in range(0, len(images), AT_A_TIME):
        part = prepare_images(images[start : start + AT_A_TIME], SIZE)
        found.append(_from_bands(bands(part)))
    return np.concatenate(found)


def bands(images):
    """Logarithm of the energy in bands of frequencies, along columns and along rows.

    Args:
        images: (n, 128, 64, 3) uint8.

    Returns:
        (n, 32) float32.
    """
    grey = images.astype("float32") @ np.float32([0.299, 0.587, 0.114])
    found = []
    for axis in (1, 2):
        length = grey.shape[axis]
        window = np.hanning(length + 2)[1:-1].astype("float32")  # edges are no frequencies
        lines = grey - grey.mean(axis, keepdims=True)
        lines *= window[:, None] if axis == 1 else window
        energy = (np.abs(np.fft.rfft(lines, axis=axis)) ** 2).mean(3 - axis)[:, 1:]
        found.append(energy.reshape(len(images), BANDS, -1).mean(2))
    return np.log1p(np.concatenate(found, axis=1)).astype("float32")


def _from_bands(x):
    """The network: one hidden layer, to log2 of the rate."""
    table = _table()
    hidden = np.maximum((x - table["mean"]) / table["deviation"] @ table["w1"] + table["b1"], 0)
    rate = 2.0 ** np.clip(hidden @ table["w2"] + table["b2"], 0, np.log2(MOST))[:, 0]
    return np.where(rate < SHARP, 1, rate).astype("float32")


@functools.cache
def _table():
    with np.load(TABLE, allow_pickle=False) as file:
        return {name: file[name].astype("float32") for name in file.files}
