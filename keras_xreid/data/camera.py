"""What a camera does to a small image beside making it small: blur, noise and JPEG.

Real images of low resolution are not shrunk ones of high resolution. Training images are degraded
here as cameras, transmission and storage do it: blur (Gaussian or of motion), noise (Gaussian or
Poisson) and JPEG, in random order, all at the small size. One number says how much.

The idea is that of blind super-resolution; the ranges are ours, and at strength 1 they are:

- Gaussian blur with a deviation of up to 1.2 pixels, or motion over up to 4 pixels;
- noise with a deviation of up to 15 grey levels: the same everywhere, or, as photons have it,
  that of a white pixel, and less in dark ones;
- JPEG of quality 95 down to 30; below 90 at 4:2:0.

Reference:
    Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data,
    ICCV Workshops 2021.
    Zhang et al., Designing a Practical Degradation Model for Deep Blind Image Super-Resolution,
    ICCV 2021 (the random order).
"""

import io
import math

import numpy as np
from PIL import Image

from keras_xreid.errors import InputError

BLUR, MOTION = 1.2, 4.0  # pixels of the small image
NOISE = 15.0  # grey levels
BEST, WORST = 95, 30  # JPEG quality


def camera(image, strength, rng):
    """Degrades a small image as a camera would.

    For one generator's state, the order of the effects is the same at every strength. Each is
    drawn between nothing and the strength's share of its range; noise takes more draws of a larger
    image, so that what comes after it differs.

    Args:
        image: (h, w, 3) uint8, at its small size.
        strength: float in [0, 1]; 0 returns the image itself.
        rng: NumPy's random generator, which draws everything.

    Returns:
        (h, w, 3) uint8.

    Raises:
        InputError: a strength outside of [0, 1].

    Example:

    >>> small = degrade(image, 4)
    >>> as_seen = camera(small, 0.5, np.random.default_rng(0))
    """
    check_strength(strength)
    if not strength:
        return image
    x = image.astype("float32")
    for effect in rng.permutation(3):
        x = (_blurred, _noisy, _stored)[effect](x, strength, rng)
    return _whole(x)


def check_strength(strength):
    """Refuses a strength that is no number from 0 to 1.

    Args:
        strength: of a camera's degradation.

    Raises:
        InputError: it is something else.
    """
    try:
        right = 0 <= strength <= 1  # of NaN this is False
    except TypeError:
        right = False
    if not right:
        raise InputError(f"strength {strength!r}: give 0 (plain shrinking) to 1")


def _whole(x):
    return np.clip(np.rint(x), 0, 255).astype("uint8")


def _blurred(x, strength, rng):
    moves, much, angle = rng.random() < 0.5, strength * rng.random(), math.pi * rng.random()
    if moves:
        return _filtered(x, _line(MOTION * much, angle))
    radius, deviation = math.ceil(3 * BLUR), max(BLUR * much, 1e-3)
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return _filtered(_filtered(x, bell[:, None]), bell[None])


def _line(length, angle):
    """Weights of a straight movement about the middle: points on it, shared out to pixels."""
    radius = math.ceil(MOTION / 2)
    along = np.linspace(-length / 2, length / 2, 33)
    pixels = np.arange(-radius, radius + 1)
    rows, columns = (
        np.maximum(0, 1 - abs(part * along[:, None] - pixels))
        for part in (math.sin(angle), math.cos(angle))
    )
    return rows.T @ columns


def _filtered(x, weights):
    """Each pixel as the weighted mean of those about it; the outermost ones are continued."""
    height, width = x.shape[:2]
    up, left = (size // 2 for size in weights.shape)
    wide = np.pad(x, ((up, up), (left, left), (0, 0)), "edge")
    weights = np.where(weights > 1e-4 * weights.sum(), weights, 0.0)
    weights = (weights / weights.sum()).astype("float32")
    found = np.zeros_like(x)
    for i, j in np.argwhere(weights):
        found += weights[i, j] * wide[i : i + height, j : j + width]
    return found


def _noisy(x, strength, rng):
    photons, deviation = rng.random() < 0.5, NOISE * strength * rng.random()
    if photons:
        # So many photons a grey level that a white pixel has this deviation.
        a_level = 255 / max(deviation, 1e-2) ** 2
        x = rng.poisson(np.clip(x, 0, 255) * a_level) / a_level
    else:
        x = x + deviation * rng.standard_normal(x.shape)
    return x.astype("float32")


def _stored(x, strength, rng):
    file = io.BytesIO()
    quality = round(BEST - (BEST - WORST) * strength * rng.random())
    # Colours at half the size, as cameras store them; whole at high quality, as programs do.
    subsampling = 0 if quality >= 90 else 2
    Image.fromarray(_whole(x)).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file), dtype="float32")
