"""Random changes of training images."""

import numpy as np

# Smallest share of each edge that a random crop keeps.
CROP_KEEPS = 7 / 8


def random_box(height, width, rng):
    """Slices of a random part of an image that keeps at least `CROP_KEEPS` of each edge."""
    rows = rng.integers(int(np.ceil(height * CROP_KEEPS)), height, endpoint=True)
    columns = rng.integers(int(np.ceil(width * CROP_KEEPS)), width, endpoint=True)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return slice(top, top + rows), slice(left, left + columns)


def random_light(rng):
    """Random brightness, contrast and saturation, as `jittered` takes them."""
    return tuple(rng.uniform(1 - d, 1 + d) for d in (0.2, 0.15, 0.2))


def jittered(image, light):
    """An image (height, width, 3) uint8 as another camera might see it: other light, other colours.

    Brightness moves the mean, contrast scales what is about it, saturation what is beside grey.
    """
    brightness, contrast, saturation = light
    x = image.astype("float32")
    grey = x @ np.array([0.299, 0.587, 0.114], "float32")
    x = grey[..., None] * (1 - saturation) + x * saturation
    x = (x - grey.mean()) * contrast + grey.mean() * brightness
    return np.clip(x + 0.5, 0, 255).astype("uint8")


def random_hole(height, width, rng):
    """Slices of a random rectangle of 2 to 40 % of the area and an aspect of 0.3 to 3.3."""
    area = rng.uniform(0.02, 0.4) * height * width
    aspect = np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
    rows = min(height, max(1, round((area * aspect) ** 0.5)))
    columns = min(width, max(1, round((area / aspect) ** 0.5)))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return slice(top, top + rows), slice(left, left + columns)
