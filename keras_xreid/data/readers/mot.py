"""People cut out of a video whose boxes are known: far ones are searched for among near ones."""

import configparser
import contextlib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_xreid.data.images import SUFFIXES, read_image
from keras_xreid.errors import InputError, check_number
from keras_xreid.files import whole_folder, write_csv_atomic
from keras_xreid.progress import Progress

VIDEOS = (".avi", ".mkv", ".mov", ".mp4")
TABLE = "people.csv"
NEAR, FAR = 1, 2  # what stands for the camera, as in CAVIAR
MOST_BOXES = 10_000_000


class Box(NamedTuple):
    """A person in a frame: pixels, the first of which are 0."""

    frame: int
    person: int
    left: int
    top: int
    width: int
    height: int


def cut_people(folder, out, gap=50, near=128, far=64, crops=5, visible=0.5, verbose=True):
    """Cuts far and near images of people out of a sequence in the format of MOT Challenge.

    One camera sees them over time. The height of a box says the rate, `near` / height, rounded. Far
    images, of boxes up to `far` pixels high, are the queries; near ones, from `near` pixels on, are
    the gallery, those of other people too. No query has a gallery image of its person within `gap`
    frames. Images are cut at the size that they have, and stored without loss. What stands for the
    camera is 1 for near and 2 for far.

    Args:
        folder: holds `gt/gt.txt` or `gt.txt` (frame, person, left, top, width, height, and perhaps
            whether it counts, class and visible share), and the frames: `img1/000001.jpg`, or one
            video, which needs PyAV.
        out: new folder; gets `people.csv` and the images, and its name when it is whole.
        gap: int, frames between a query and the gallery images of its person.
        near: int, pixels; least height of a gallery image.
        far: int, pixels; largest height of a query.
        crops: int, images of a person at most, as queries and as gallery.
        visible: float in [0, 1], least visible share, where the file says it.
        verbose: show progress.

    Returns:
        Path of the CSV, which `load("csv", ...)` reads.

    Raises:
        InputError: no boxes, no frames, a damaged line, or nobody who is seen far and near.

    Example:

    >>> data = load("csv", cut_people("MOT17-04", "far-and-near"))

    Reference:
        Milan et al., MOT16: A Benchmark for Multi-Object Tracking, 2016.
    """
    folder, out = Path(folder), Path(out).absolute()
    check_number("gap", gap, least=0)
    check_number("crops", crops)
    check_number("far", far)
    check_number("near", near, least=far + 1)
    with whole_folder(out) as building:
        boxes = read_boxes(folder, visible)
        frames = Frames(folder)
        size = frames.size
        inside = [box for box in boxes if lies_in(box, size)]
        queries, gallery = choose(inside, gap, near, far, crops)
        if not queries:
            raise InputError(
                f"{folder}: nobody is seen far (boxes of {far} pixels or less) and, {gap} frames "
                f"apart, near ({near} or more): give another gap, near or far"
            )
        wanted = sorted([(box, "query") for box in queries] + [(box, "gallery") for box in gallery])
        progress = Progress(f"Cutting {len(wanted):,} images", len(wanted), show=verbose)
        table = [["path", "person", "camera", "split", "rate", "frame", "height"]]
        by_frame = defaultdict(list)
        for box, role in wanted:
            by_frame[box.frame].append((box, role))
        for number, pixels in frames.read(sorted(by_frame)):
            if pixels.shape[:2] != size:
                raise InputError(f"frame {number} of {folder} is not as large as the first one")
            for box, role in by_frame[number]:
                name = f"{role}/{box.person:04d}_{box.frame:06d}.png"
                (building / role).mkdir(exist_ok=True)
                Image.fromarray(cut(pixels, box)).save(building / name)
                rate = max(1, round(near / box.height))
                camera = FAR if role == "query" else NEAR
                table.append([name, box.person, camera, role, rate, box.frame, box.height])
                progress.add()
        write_csv_atomic(building / TABLE, table)
    return out / TABLE


def boxes_of(folder):
    """The file with the boxes of a sequence, or None."""
    places = Path(folder) / "gt" / "gt.txt", Path(folder) / "gt.txt"
    return next((path for path in places if path.is_file()), None)


def read_boxes(folder, visible=0.5):
    """Reads the boxes of people that count.

    Args:
        folder: holds `gt/gt.txt` or `gt.txt`.
        visible: float, least visible share, where the file says it.

    Returns:
        List of `Box`.
    """
    path = boxes_of(folder)
    if path is None:
        raise InputError(f"{folder} has no gt/gt.txt, the boxes of people in MOT's format")
    found, listed = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        if not line.strip():
            continue
        try:
            values = [float(value) for value in line.split(",")]
            frame, person, left, top, width, height = (_whole(value) for value in values[:6])
            if frame < 1 or person < 0 or width < 1 or height < 1:
                raise ValueError("a number is too small")
        except ValueError as error:
            raise InputError(
                f"{path}, line {number + 1}: {line[:80]!r} is no box ({error}): expected frame, "
                "person, left, top, width, height"
            ) from error
        # Of nine columns the last are class and share; MOT15 has ten, with positions instead.
        told = values[6:9] if len(values) == 9 else values[6:7]
        counts, kind, share = [*told, *[1, 1, 1][len(told) :]]
        if counts and kind == 1 and share >= visible:
            before = listed.setdefault((frame, person), number)
            if before != number:
                raise InputError(
                    f"{path}, lines {before + 1} and {number + 1}: both are of person {person} in "
                    f"frame {frame}, remove one"
                )
            found.append(Box(frame, person, left - 1, top - 1, width, height))  # MOT counts from 1
        if len(found) > MOST_BOXES:
            raise InputError(f"{path} has more than {MOST_BOXES:,} boxes: cut it into parts")
    if not found:
        raise InputError(f"{path} has no box of a person that counts")
    return found


def choose(boxes, gap, near, far, crops):
    """Chooses queries and gallery, spread over the time in which a person is seen.

    Args:
        boxes: list of `Box`.
        gap, near, far, crops: as of `cut_people`.

    Returns:
        Two lists of `Box`: queries, and the gallery, which has people without a query, too.
    """
    of_person = defaultdict(list)
    for box in sorted(boxes):
        of_person[box.person].append(box)
    queries, gallery = [], []
    for mine in of_person.values():
        asked = _spread([box for box in mine if box.height <= far], crops)
        apart = [
            box
            for box in mine
            if box.height >= near and all(abs(box.frame - one.frame) >= gap for one in asked)
        ]
        if not apart:  # nobody could find this person
            continue
        queries += asked
        gallery += _spread(apart, crops)
    return queries, gallery


def _spread(boxes, count):
    """So many of a list, evenly spread."""
    places = np.linspace(0, len(boxes) - 1, min(count, len(boxes))).round().astype(int)
    return [boxes[place] for place in places]


def _whole(value):
    if not abs(value) < 1e9:  # of NaN, too
        raise ValueError(f"{value} is no number of pixels")
    return round(value)


def cut(pixels, box):
    """The pixels of a box, (h, w, 3)."""
    found = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    return np.ascontiguousarray(found)


def lies_in(box, size):
    """Whether a box lies in a frame of (height, width), whole."""
    height, width = size
    right, bottom = box.left + box.width, box.top + box.height
    return min(box.left, box.top) >= 0 and right <= width and bottom <= height


class Frames:
    """The frames of a sequence: a folder of images, or one video.

    Attributes:
        images: dict from a number to a path; {} of a video.
        video: path, or None.
        size: (height, width) of the first frame.
    """

    def __init__(self, folder):
        self.folder, images = folder, folder / "img1"
        self.images = {}
        if images.is_dir():
            for path in images.iterdir():
                if path.suffix.lower() in SUFFIXES and path.stem.isdecimal():
                    self.images[int(path.stem)] = path
        videos = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in VIDEOS]
        if not self.images and len(videos) != 1:
            raise InputError(
                f"{folder} has no img1/000001.jpg and so on, and {len(videos)} videos: one of the "
                "two is needed"
            )
        self.video = None if self.images else videos[0]
        first = min(self.images) if self.images else 1
        self.size = next(pixels for _, pixels in self.read([first])).shape[:2]

    def per_second(self):
        """How many there are a second, by `seqinfo.ini` or the video; None where nothing says."""
        found = None
        if self.video is not None:
            import av

            with contextlib.suppress(av.FFmpegError), av.open(str(self.video)) as container:
                found = container.streams.video[0].average_rate
        about = configparser.ConfigParser()
        with contextlib.suppress(configparser.Error, OSError, ValueError):
            about.read(self.folder / "seqinfo.ini", encoding="utf-8")
            found = about.getfloat("Sequence", "frameRate", fallback=found)
        return float(found) if found and 0 < found < 1e6 else None

    def path_of(self, number):
        """The file in which a frame is."""
        if self.video is None and number not in self.images:
            raise InputError(f"frame {number} has boxes and no image beside them")
        return self.images[number] if self.video is None else self.video

    def read(self, numbers):
        """Yields (number, pixels) of frames, in order; the first frame is 1."""
        if self.images:
            for number in numbers:
                yield number, read_image(self.path_of(number))[0]
            return
        yield from _of_video(self.video, numbers)


def _of_video(path, numbers):
    try:
        import av
    except ImportError:
        raise InputError(
            f'{path} is a video, which needs PyAV: pip install -e ".[video]"'
        ) from None
    wanted = set(numbers)
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0), start=1):
                if number in wanted:
                    wanted.discard(number)
                    yield number, frame.to_ndarray(format="rgb24")
                if not wanted:
                    return
    except (av.FFmpegError, IndexError) as error:  # of a file without pictures
        raise InputError(f"{path} cannot be read as a video: {error}") from error
    raise InputError(f"{path} ends before frame {min(wanted)}, which has boxes")
