"""Image files: the formats that are opened, the limits they are believed in, and their pixels.

Every image file is decoded here, so that a hostile one ends in one line, whatever it does.
"""

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from keras_xreid.errors import InputError

# Pillow's names and the endings. Nothing else is opened, whatever a file is called: of PostScript,
# say, Pillow would start ghostscript.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm",),
    "WEBP": (".webp",),
}
SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
# A file of a few megabytes may claim any number of pixels. Cameras have fewer than these.
MAX_PIXELS = 64_000_000
MAX_BYTES = 512_000_000


def read_image(path):
    """Decodes an image file, upright as its EXIF orientation says, in 8 bits a colour.

    16 bits of grey become 8. Floats are taken as 0 to 1, or as 0 to 255 where one is above 1.

    Args:
        path: the file.

    Returns:
        ((h, w, 3) uint8 array, RGB; the file's bytes).

    Raises:
        InputError: the file is missing, empty, too large, of another format or no complete image.
    """
    content = _content(path)
    return decode_image(content, f"image {path}"), content


def decode_image(content, name, cure="restore or remove it"):
    """Decodes the bytes of an image file, as `read_image` does.

    Args:
        content: bytes.
        name: what the image is called in a message.
        cure: what to do with one that cannot be read, for the message.

    Returns:
        (h, w, 3) uint8 array, RGB.

    Raises:
        InputError: it is empty, too large, of another format or no complete image.

    Example:

    >>> pixels = decode_image(Path("query.jpg").read_bytes(), "query.jpg")
    """
    if not content:
        raise InputError(f"{name} is empty (0 bytes): {cure}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about size and EXIF, beside our line
            with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
                return _pixels(image)
    except InputError as error:
        raise InputError(f"{name} is not read: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no image that can be read ({', '.join(FORMATS)} are): {cure}"
        ) from error
    except Exception as error:  # a decoder may raise anything on a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name} is broken ({reason}): {cure}") from error


def _content(path):
    if not isinstance(path, (str, os.PathLike)):  # a number would be an open file
        raise InputError(f"cannot read image {str(path)[:80]}: its path is no text")
    try:
        about = os.stat(path)
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"cannot read image {path!r}: {error}") from error
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, and a device never ends
        raise InputError(f"cannot read image {path}: this is no file, give one")
    if about.st_size > MAX_BYTES:
        raise InputError(
            f"image {path} has {about.st_size:,} bytes: at most {MAX_BYTES:,} are read"
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror}") from error


def _pixels(image):
    count = image.width * image.height
    if count > MAX_PIXELS:
        raise InputError(
            f"{image.width:,} x {image.height:,} are {count:,} pixels, and at most "
            f"{MAX_PIXELS:,} are decoded"
        )
    # Of a camera's JPEG the others are previews.
    frames = getattr(image, "n_frames", 1) if image.format not in ("JPEG", "MPO") else 1
    if frames > 1:
        raise InputError(f"it holds {frames} images: store each in a file of its own")
    # Cameras store what the sensor saw, and beside it how they were held.
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] not in "IF":
        return np.array(image.convert("RGB"))
    grey = np.asarray(image)  # Pillow would make 255 of all above, and 0 of all fractions
    low, high = grey.min(), grey.max()
    if image.mode == "F":
        if not 0 <= low <= high <= 255:  # catches NaN too
            raise InputError(f"its values are {low:g} to {high:g}: store 0 to 1, or 0 to 255")
        grey = np.round(grey * (255 if high <= 1 else 1))
    else:
        if not 0 <= low <= high <= 65535 or 0 < high < 256:
            raise InputError(
                f"its values are {low} to {high}: store 8 bits a pixel, or 16 from 0 to 65535"
            )
        grey = grey >> 8
    return np.repeat(grey.astype("uint8")[..., None], 3, axis=2)
