"""What a data set is made of: a `Record` for each image, and a `DataSet` of three lists of them."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from keras_xreid.data.protocols import PROTOCOLS
from keras_xreid.data.readers.cuhk03_file import read_cuhk03_image
from keras_xreid.data.resolution import degrade
from keras_xreid.errors import InputError


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of one person, not yet read.

    Args:
        path: the file.
        person: the person's name or number as the data set gives it; None for a training image
            without a label.
        camera: the camera's number.
        rate: down-sampling rate, where the data set states it (1 = high resolution), else None.
        size: stored (height, width) in pixels where known, else None.
        key: the entry inside a container file such as CUHK03's `.mat`, else None.
        kernel: how `read` shrinks the stored image by `rate`, see `degrade`; None: not at all.

    Example:

    >>> image = data.query[0].read()  # (h, w, 3) uint8 at its stored size
    """

    path: str
    person: str | int | None
    camera: int
    rate: int | None = None
    size: tuple[int, int] | None = None
    key: str | None = None
    kernel: str | None = None

    def read(self):
        """Reads the image at its stored size, or shrunk where a protocol asks for that.

        It is turned upright where its EXIF orientation says how; 16 bits of grey become 8.

        Returns:
            (h, w, 3) uint8 array, RGB.

        Raises:
            InputError: the file is missing, empty or no complete image.
        """
        image = self._stored() if self.key is None else read_cuhk03_image(self.path, self.key)
        return image if self.kernel is None else degrade(image, self.rate, self.kernel)

    def original(self):
        """Returns the record of the image before `read` shrinks it, to compare with.

        Returns:
            A `Record` of rate 1, or the record itself where `read` does not shrink.
        """
        return self if self.kernel is None else dataclasses.replace(self, rate=1, kernel=None)

    def _stored(self):
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read image {self.path}: {error.strerror}") from error
        if not content:
            raise InputError(f"image {self.path} is empty (0 bytes): restore or remove it")
        try:
            with Image.open(io.BytesIO(content)) as image:
                # Cameras store what the sensor saw, and beside it how they were held.
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode.startswith("I"):  # 16 bits of grey: Pillow makes 255 of all above
                    grey = np.clip(np.asarray(image) >> 8, 0, 255).astype("uint8")
                    return np.repeat(grey[..., None], 3, axis=2)
                return np.array(image.convert("RGB"))
        except Image.UnidentifiedImageError as error:
            raise InputError(
                f"image {self.path} is no image that can be read: restore or remove it"
            ) from error
        # Pillow reports damage in several ways, SyntaxError for a bad PNG among them.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"image {self.path} is broken ({reason}): restore or remove it"
            ) from error


@dataclasses.dataclass
class DataSet:
    """A data set, or one split of it: three lists of `Record`.

    Args:
        name: the data set's name, as given to `load`.
        train: images to train on.
        query: images that are looked for.
        gallery: images that are searched.
        split: "test" (as distributed) or "dev" (held out of the training people).
        fold: which of them "dev" has held out.
        root: folder that the manifest's paths are relative to.
        protocol: what fixed the queries, their rates and the gallery, see `PROTOCOLS`.
        split_id: which of the data set's splits.
        seed: what the protocol's draws started from.

    Attributes:
        gallery_shots: 1, a gallery of one image a person, or None, of all; for `evaluate_ranking`.
        gallery_draws: number of such galleries that the protocol draws; None: the expectation.
    """

    name: str
    train: list[Record]
    query: list[Record]
    gallery: list[Record]
    split: str = "test"
    fold: int = 0
    root: str = ""
    protocol: str = "each-rate"
    split_id: int = 0
    seed: int = 0

    @property
    def gallery_shots(self):
        return PROTOCOLS[self.protocol].gallery_shots

    @property
    def gallery_draws(self):
        return PROTOCOLS[self.protocol].gallery_draws
