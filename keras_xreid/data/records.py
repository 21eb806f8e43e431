"""What a data set is made of: a `Record` for each image, and a `DataSet` of three lists of them."""

import dataclasses
import hashlib
from types import NoneType

from keras_xreid.data.images import read_image
from keras_xreid.data.manifest import plain
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
        sha256: of the file, where a manifest says it; `read` refuses another one.

    Numbers may be of any type, NumPy's say: here they become Python's.

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
    sha256: str | None = None

    def __post_init__(self):
        for name in ("person", "camera", "rate"):
            value = getattr(self, name)
            if type(value) in (int, str, NoneType):
                continue
            try:
                object.__setattr__(self, name, plain(value))  # the class is frozen
            except (TypeError, ValueError, ArithmeticError) as error:
                raise InputError(
                    f"{name} of {self.path} is {value!r}: give a whole number, or a person's name"
                ) from error

    def read(self):
        """Reads the image at its stored size, or shrunk where a protocol asks for that.

        It is turned upright where its EXIF orientation says how; 16 bits of grey, and floats,
        become 8 bits.

        Returns:
            (h, w, 3) uint8 array, RGB.

        Raises:
            InputError: the file is missing, empty, too large, no complete image, or not the one
                that was listed.
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
        pixels, content = read_image(self.path)
        if self.sha256 is not None:
            check_sha256(self, hashlib.sha256(content).hexdigest())
        return pixels


class OtherImage(InputError):
    """The bytes of an image are not those of its `sha256`."""


def check_sha256(record, found):
    """Refuses an image that is not the one its manifest lists.

    Args:
        record: a `Record`; where it says no `sha256`, any image is right.
        found: the SHA-256 of the file.

    Raises:
        OtherImage: it is another one.
    """
    if record.sha256 not in (None, found):
        raise OtherImage(
            f"image {record.path} is not the one that its manifest lists: its SHA-256 is "
            f"{found[:16]}..., expected {record.sha256[:16]}...; build the set again"
        )


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
        about: what has to be said beside its scores.

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
    about: str = ""

    def everyone(self):
        """The same, with the people who are searched for among those to train on.

        Images of people whom nobody searches for (distractors) stay out.

        Example:

        >>> len(data.train), len(data.everyone().train)
        (7544, 9189)
        """
        searched = {record.person for record in self.query} - {None}
        known = {(record.path, record.key) for record in self.train}
        more = (r for r in [*self.query, *self.gallery] if r.person in searched)
        # As they are stored, whatever a protocol has shrunk.
        more = dict.fromkeys(record.original() for record in more)
        more = [record for record in more if (record.path, record.key) not in known]
        return dataclasses.replace(self, train=[*self.train, *more])

    @property
    def gallery_shots(self):
        return PROTOCOLS[self.protocol].gallery_shots

    @property
    def gallery_draws(self):
        return PROTOCOLS[self.protocol].gallery_draws
