"""Low resolution, made once with Pillow so that every backend sees equal pixels."""

import functools
import hashlib
import operator
import re
from pathlib import Path

import numpy as np
from PIL import Image

from keras_xreid.data.camera import camera, check_strength
from keras_xreid.errors import InputError, check_number

# Pillow widens its filters by the scale when it shrinks, so that all of these are anti-aliased.
KERNELS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_POOL = "max-pool"  # the brightest pixel of each block, in each colour: what RAIN's authors did
RANDOM = "random"  # in training batches: each image draws one of KERNELS
DEGRADATIONS = ("plain", "camera")

MAX_RATE = 1000  # of a larger one no image has more than a pixel left
MAX_SIDE = 8000  # pixels of an image that is made: 192 MB at most

WEIGHT_BITS = 22  # of Pillow's weights, for images of 8 bits
PIECE = 96 * 1024  # bytes


def degrade(image, rate, kernel="area", strength=0.0, rng=None):
    """Shrinks an image by a rate, anti-aliased, from the size it is stored at.

    With a strength above 0 it is degraded as a camera would, see `keras_xreid.data.camera`: one
    of `KERNELS` is drawn in the place of the kernel given, then blur, noise and JPEG at the small
    size. An image of rate 1 stays as it is.

    Args:
        image: (h, w, 3) uint8.
        rate: the down-sampling rate, any number of 1 or more; 1 returns the image itself.
        kernel: "area" (mean of the pixels under each new one), "bilinear", "bicubic", "lanczos", or
            "max-pool" (largest value of each block of rate x rate pixels; incomplete blocks at the
            lower and right edge are left out), which takes whole rates only.
        strength: float in [0, 1], how much a camera adds; 0 is plain shrinking.
        rng: NumPy's random generator, which draws what a camera adds; needed with a strength.

    Returns:
        (max(1, round(h / rate)), max(1, round(w / rate)), 3) uint8; "max-pool" rounds down.

    Raises:
        InputError: rate below 1, unknown kernel, a strength outside of [0, 1] or without `rng`, or
            an image of another type or shape.

    Example:

    >>> degrade(np.zeros((128, 64, 3), "uint8"), 4).shape
    (32, 16, 3)
    """
    _check_image(image)
    check_rates([rate])
    check_kernel(kernel)
    check_strength(strength)
    if rate == 1:
        return image
    return np.array(_degraded(Image.fromarray(image), rate, kernel, strength, rng))


def resize(image, size):
    """Brings an image to a size, bilinear (anti-aliased where that shrinks it).

    Args:
        image: (h, w, 3) uint8.
        size: (height, width) in pixels.

    Returns:
        (height, width, 3) uint8; the image itself where it has that size already.

    Raises:
        InputError: an image of another type or shape.
    """
    _check_image(image)
    size = check_size(size)
    if image.shape[:2] == size:
        return image
    resized = np.empty((*size, 3), np.uint8)
    _resize_into(resized, Image.fromarray(image))
    return resized


def prepare_images(images, image_size, rates=1, kernel="area", strength=0.0):
    """Reads images and makes them what a network takes, low resolution included.

    Each image is shrunk by its rate from the size it is stored at (`degrade`), then enlarged to
    the network's size (`resize`): the same in training and test. An image of rate 1 is only
    resized.

    Args:
        images: list of `Record`, or of (h, w, 3) uint8 arrays; their sizes may differ.
        image_size: (height, width) in pixels that the network takes.
        rates: down-sampling rate of 1 or more for all images, or an (n,) list or array.
        kernel: how images are shrunk, see `degrade`.
        strength: float in [0, 1], how much a camera adds, see `degrade`. What it adds to a record
            is drawn by its person, camera and file name, and to an array by its place in the list:
            it is the same each time, and at every rate in the same order.

    Returns:
        (n, height, width, 3) uint8.

    Raises:
        InputError: rate below 1, another number of rates than of images, a strength outside of
            [0, 1], unreadable image.

    Example:

    >>> queries = prepare_images(data.query, (128, 64), rates=4)
    """
    height, width = check_size(image_size)
    rates = np.asarray(rates)
    if rates.ndim == 0:
        rates = np.full(len(images), rates)
    if rates.shape != (len(images),):
        raise InputError(
            f"{len(images)} images but rates of shape {rates.shape}: give one rate or one for each"
        )
    prepared = np.empty((len(images), height, width, 3), np.uint8)
    for i, (image, rate) in enumerate(zip(images, rates, strict=True)):
        pixels = image.read() if hasattr(image, "read") else np.asarray(image)
        rng = _generator_of(image, i) if strength else None
        prepared[i] = resize(degrade(pixels, rate, kernel, strength, rng), (height, width))
    return prepared


def _generator_of(image, place):
    """What draws a camera's effects for an image: by its name, whatever other images there are."""
    own = [place]
    if hasattr(image, "path"):
        own = [image.person, image.camera, Path(image.key or image.path).stem]
    digest = hashlib.sha256(" ".join(map(str, ["camera", *own])).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def rates_from_sizes(records, full_height=256):
    """Estimates the down-sampling rate of images from the heights they are stored at.

    A standing person fills the height of a picture, and people are about equally tall: so the
    rate is `full_height` / height, and 1 where that is below 1. It is not rounded; a system of
    trained levels takes the nearest. It cannot see that a small image was enlarged before it was
    stored, nor that a picture shows half a person.

    Args:
        records: list of `Record` (`size` where it is there and `read` does not shrink, else the
            image is read), or of (h, w, 3) arrays.
        full_height: int, height in pixels of an image of rate 1; 128 for Market-1501.

    Returns:
        (n,) float32 array, 1 or more.

    Raises:
        InputError: `full_height` below 1, or an unreadable image.

    Example:

    >>> rates = rates_from_sizes(data.query, full_height=128)
    >>> features = model.embed(prepare_images(data.query, (128, 64)), rates)

    Reference:
        Wu et al., Learning Resolution-Adaptive Representations, Section III-A: "the resolution
        could be estimated from the size (number of pixels) of images".
    """
    check_number("full_height, that of a picture of rate 1,", full_height, whole=False)
    heights = []
    for record in records:
        if hasattr(record, "read"):
            size = _size_of(record)
        else:
            _check_image(record)
            size = record.shape
        heights.append(size[0])
    return np.maximum(1.0, full_height / np.array(heights, "float64")).astype("float32")


def _size_of(record):
    """The size that a record's image is read at: that which is stored, where nothing shrinks it."""
    return record.size if record.size and record.kernel is None else record.read().shape


def told_of_large(records, image_size, rates):
    """Says where shrunk images still have all pixels that a network takes; "" where they do not.

    Args:
        records: list of `Record`; some fifty of them are looked at.
        image_size: (height, width) of the network's images.
        rates: rates by which the images will be shrunk.

    Returns:
        A sentence, or "".
    """
    rate = min((rate for rate in rates if rate > 1), default=None)
    some = records[:: len(records) // 50 + 1]
    if rate is None or not some:
        return ""
    high = np.median([_size_of(record)[0] for record in some])
    if high < rate * image_size[0]:
        return ""
    return (
        f"Images are {high:.0f} pixels high (median), and the network takes {image_size[0]}: "
        f"shrunk by {rate:g} they lose nothing that it sees. Rates are of the stored image: store "
        f"images at {image_size[0]} pixels, or less"
    )


def rate_range(rates):
    """Reads a range of rates, "1..4".

    Args:
        rates: a string, or a list that holds it alone; or a list of numbers.

    Returns:
        (low, high), or None for a list of numbers.

    Raises:
        InputError: a text that is no range, or one that does not rise.

    Example:

    >>> rate_range("1..4")
    (1.0, 4.0)
    """
    text = rates if isinstance(rates, str) else rates[0] if len(rates) == 1 else None
    if not isinstance(text, str):
        wrong = next((rate for rate in rates if isinstance(rate, str)), None)
        if wrong is not None:
            raise InputError(f"rates {' '.join(map(str, rates))}: give numbers, or one range, 1..4")
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)", text)
    low, high = map(float, found.groups()) if found else (0.0, 0.0)
    if not 1 <= low < high:
        raise InputError(f"rates {text!r}: give numbers of 1 or more, or a range such as 1..4")
    return low, high


def lr_rates(rates):
    """The low rates that a mean is taken over: whole numbers, where trained rates are a range.

    Args:
        rates: list of rates, or a range, see `rate_range`.

    Returns:
        Tuple of rates above 1.

    Example:

    >>> lr_rates("1..4"), lr_rates([1, 2, 4])
    ((2, 3, 4), (2, 4))
    """
    bounds = rate_range(rates)
    if bounds:
        rates = range(int(bounds[0]) + 1, int(bounds[1]) + 1)
    return tuple(rate for rate in rates if rate > 1)


def check_rates(rates):
    """Refuses a rate below 1.

    Args:
        rates: list of down-sampling rates, or a range, see `rate_range`.

    Raises:
        InputError: the list is empty, or a rate is no number of 1 or more.
    """
    if np.ndim(rates) == 0 and not isinstance(rates, str):
        raise InputError(f"rates {rates}: give a list, or a range such as 1..4")
    if len(rates) == 0:
        raise InputError("no rates: give at least one, such as 2 3 4")
    if rate_range(rates):
        return
    for rate in rates:
        try:
            right = 1 <= rate <= MAX_RATE  # of NaN this is False
        except (TypeError, ValueError):
            right = False
        if not right:
            raise InputError(
                f"rate {rate} is below 1, above {MAX_RATE} or no number: give 1 (high resolution) "
                "or more"
            )


def check_size(size):
    """Refuses an image size that is no two whole numbers, or too large to be meant.

    Args:
        size: (height, width) in pixels.

    Returns:
        The size, a tuple of two int.

    Raises:
        InputError: it is something else.
    """
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError) as error:
        raise InputError(f"image size {size!r}: give (height, width) in pixels") from error
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise InputError(f"image size {height} x {width}: give 1 to {MAX_SIDE} pixels each")
    return height, width


def check_kernel(kernel):
    """Refuses an unknown kernel.

    Args:
        kernel: name of a kernel, see `degrade`.

    Raises:
        InputError: there is no such kernel.
    """
    known = (*KERNELS, MAX_POOL)
    if kernel not in known:
        raise InputError(f"unknown kernel {kernel!r}: known are {', '.join(known)}")


def _check_image(image):
    kind, shape = getattr(image, "dtype", type(image).__name__), np.shape(image)
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(f"image is {kind} of shape {shape}: expected uint8 of shape (h, w, 3)")


def write_views(pixels, image, rates, kernel="area", mirror=False, strength=0.0, rng=None):
    """Writes `resize(degrade(image, rate, kernel), size)` of one image at several rates.

    The pixels are the same, with less copying between NumPy and Pillow.

    Args:
        pixels: (rates, height, width, 3) uint8, which takes the result.
        image: (h, w, 3) uint8.
        rates: list of down-sampling rates of 1 or more.
        kernel: how images are shrunk, see `degrade`.
        mirror: turn all left to right.
        strength: float in [0, 1], how much a camera adds, see `degrade`.
        rng: what draws it.
    """
    _check_image(image)
    check_kernel(kernel)
    stored = Image.fromarray(image)
    for view, rate in zip(pixels, rates, strict=True):
        _resize_into(view, _degraded(stored, rate, kernel, strength, rng), mirror)


def _degraded(image, rate, kernel, strength=0.0, rng=None):
    if rate == 1:
        return image
    if strength:
        if rng is None:
            raise InputError(
                f"strength is {strength}, and nothing draws what a camera adds: give rng, such "
                "as np.random.default_rng(0)"
            )
        kernel = list(KERNELS)[rng.integers(len(KERNELS))]
        small = _degraded(image, rate, kernel)
        return Image.fromarray(camera(np.asarray(small), strength, rng))
    if kernel == MAX_POOL:
        return Image.fromarray(_max_pool(np.asarray(image), rate))
    width, height = (max(1, round(edge / float(rate))) for edge in image.size)
    return image.resize((width, height), KERNELS[kernel])


def _max_pool(image, rate):
    if rate != int(rate):
        raise InputError(f"rate {rate} with max-pool: its blocks take a whole rate, or use 'area'")
    height, width = (min(edge, int(rate)) for edge in image.shape[:2])  # of a block
    rows, columns = image.shape[0] // height, image.shape[1] // width
    whole = image[: rows * height, : columns * width]
    return whole.reshape(rows, height, columns, width, 3).max((1, 3))


def _resize_into(pixels, image, mirror=False):
    """Resizes a Pillow image, bilinear, to the size of an array."""
    height, width = pixels.shape[:2]
    # Pillow works along the rows first, then along the columns, and rounds in between. Enlarging
    # along the columns takes it two thirds of the time, and NumPy about half of that.
    enlarged = height > image.height
    image = image.resize((width, image.height if enlarged else height), Image.Resampling.BILINEAR)
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if enlarged:
        _enlarge_columns(pixels, np.asarray(image))
    else:
        pixels[:] = image


def _enlarge_columns(pixels, image):
    """Interpolates linearly between rows, in the whole numbers that Pillow computes with."""
    height = len(pixels)
    first, weight = _rows_between(len(image), height)
    lower = image.reshape(len(image), -1).astype(np.int32)
    step = np.zeros_like(lower)
    np.subtract(lower[1:], lower[:-1], out=step[:-1])
    lower <<= WEIGHT_BITS
    lower += 1 << (WEIGHT_BITS - 1)  # so that the shift rounds
    # In pieces that stay in the processor's cache: at once, it takes six times as long.
    rows = max(1, PIECE // lower[0].nbytes)
    for begin in range(0, height, rows):
        piece = slice(begin, begin + rows)
        mixed = step.take(first[piece], axis=0)
        mixed *= weight[piece]
        mixed += lower.take(first[piece], axis=0)
        mixed >>= WEIGHT_BITS
        pixels[piece] = mixed.reshape(-1, *image.shape[1:])


@functools.lru_cache(maxsize=4096)
def _rows_between(rows, height):
    """For each new row, the one above it, and the weight of the next as a share of 2^22."""
    # Positions of the new rows' centres, in units of 1 / (2 height); outer rows are not left.
    centre = (2 * np.arange(height) + 1) * rows - height
    first, part = np.divmod(centre.clip(0, 2 * height * (rows - 1)), 2 * height)
    weight = ((part << WEIGHT_BITS) + height) // (2 * height)
    return first, weight.astype(np.int32)[:, None]
