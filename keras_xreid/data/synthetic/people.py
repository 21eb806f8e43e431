"""The embedded data set: people drawn with Pillow, so that every recipe runs without a download.

Everything is drawn at four times the wanted size and reduced, from a description of each person
that follows from the seed alone. People come in groups of four. A group shares what survives a low
resolution: build, skin, hair, its bag, the kinds and the mean colours of its clothes. Its members
differ in details two to six pixels wide: the pattern or the print of the top, the trims of sleeves
and legs, the shoes, the pocket of the bag. Shrinking an image takes these away step by step.

The module is its own worker: `python -m keras_xreid.data.synthetic.people FOLDER ...` draws a share
of the images. It does not import Keras, so a worker starts at once. The calling program needs no
guard for its processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from keras_xreid.data.synthetic import cloth
from keras_xreid.data.synthetic.body import Body
from keras_xreid.data.synthetic.canvas import Canvas, photograph
from keras_xreid.data.synthetic.scenes import panorama
from keras_xreid.progress import Progress

VERSION = "7"  # part of the cache's name: raise it whenever a single pixel changes
PEOPLE = 100  # in the training part, and as many others in the test part
GROUP = 4  # people who differ in fine detail only
CAMERAS = 4
SHOTS = 4  # images of a person in one camera

# fmt: off
SKIN = ((244, 212, 188), (236, 194, 164), (224, 172, 136), (198, 142, 104), (166, 112, 80),
        (126, 82, 58), (96, 64, 48))
HAIR = ((34, 28, 30), (52, 38, 32), (82, 54, 36), (120, 74, 44), (152, 78, 42), (204, 164, 104),
        (168, 164, 160))
TOPS = ((178, 62, 58), (196, 112, 62), (198, 164, 76), (104, 146, 84), (58, 122, 106),
        (72, 134, 170), (70, 92, 158), (112, 86, 152), (184, 96, 132), (126, 122, 118),
        (172, 164, 152), (92, 100, 112), (148, 104, 76), (126, 56, 82))
BOTTOMS = ((62, 76, 112), (92, 112, 148), (84, 84, 90), (130, 112, 88), (164, 146, 116),
           (92, 78, 66), (98, 106, 82), (118, 74, 72), (132, 134, 140))
SHOES = ((206, 204, 198), (66, 62, 62), (118, 84, 60), (140, 66, 62), (74, 96, 136))
ACCENTS = ((240, 238, 230), (34, 32, 36), (206, 48, 48), (238, 200, 62), (58, 148, 84),
           (48, 92, 190), (92, 192, 212), (232, 128, 164), (236, 132, 48))

# What each camera sees: its scene, the direction people walk in (degrees, 0 is towards the camera)
# and the spread of it, how far it looks down, framing, lens, light, colour, blur and noise.
VIEWS = (
    {"scene": "street", "turn": 0, "spread": 32, "pitch": 0.10, "scale": 0.885, "tilt": -0.8,
     "shear": 0.01, "widen": 0.02, "light": (-0.8, -0.5), "gain": (1.05, 1.01, 0.94),
     "gamma": 0.93, "blur": 0.45, "noise": 0.9},
    {"scene": "wall", "turn": 180, "spread": 32, "pitch": 0.14, "scale": 0.86, "tilt": 1.6,
     "shear": -0.03, "widen": 0.09, "light": (0.8, -0.6), "gain": (0.93, 0.99, 1.07),
     "gamma": 1.08, "blur": 0.55, "noise": 1.4},
    {"scene": "park", "turn": 42, "spread": 22, "pitch": 0.08, "scale": 0.91, "tilt": 0.4,
     "shear": 0.03, "widen": -0.02, "light": (0.6, -0.9), "gain": (1.01, 1.04, 0.93),
     "gamma": 0.98, "blur": 0.42, "noise": 1.0},
    {"scene": "corridor", "turn": -140, "spread": 24, "pitch": 0.17, "scale": 0.84, "tilt": -2.0,
     "shear": 0.02, "widen": 0.13, "light": (-0.3, -1.0), "gain": (1.04, 0.98, 0.96),
     "gamma": 1.02, "blur": 0.60, "noise": 1.6},
)
# Other cameras, of style "b": other places, stronger tints, softer lenses, more noise.
VIEWS_B = (
    {"scene": "platform", "turn": 20, "spread": 40, "pitch": 0.16, "scale": 0.82, "tilt": 2.2,
     "shear": 0.05, "widen": 0.15, "light": (0.2, -1.0), "gain": (0.82, 0.95, 1.08),
     "gamma": 1.15, "blur": 0.80, "noise": 4.0},
    {"scene": "night", "turn": 165, "spread": 40, "pitch": 0.12, "scale": 0.90, "tilt": -1.5,
     "shear": -0.02, "widen": 0.04, "light": (0.9, -0.2), "gain": (0.98, 0.82, 0.62),
     "gamma": 1.20, "blur": 0.70, "noise": 6.0},
    {"scene": "snow", "turn": -50, "spread": 30, "pitch": 0.09, "scale": 0.87, "tilt": 0.8,
     "shear": 0.0, "widen": 0.0, "light": (-0.5, -0.8), "gain": (1.15, 1.22, 1.32),
     "gamma": 0.75, "blur": 0.60, "noise": 2.0},
    {"scene": "hall", "turn": 130, "spread": 30, "pitch": 0.20, "scale": 0.80, "tilt": -2.5,
     "shear": -0.04, "widen": 0.18, "light": (-0.7, -0.7), "gain": (0.92, 1.05, 0.86),
     "gamma": 0.90, "blur": 0.95, "noise": 3.0},
)
STYLES = {"a": VIEWS, "b": VIEWS_B}
# fmt: on


def load_synthetic(
    image_size=(128, 64), people=PEOPLE, seed=0, cache_dir=None, verbose=True, style="a"
):
    """Draw the built-in people on first use, keep them on disk, and read them from there.

    The training and the test part hold `people` different people each, with four images in each of
    four cameras. The first image of each test person and camera is a query, the others are the
    gallery. The same arguments give the same images on every machine.

    Args:
        image_size: (height, width) of the stored images, in pixels: (128, 64) or (256, 128).
        people: People in each of the two parts, at least 2.
        seed: 0 or more; another seed draws other people.
        cache_dir: Folder to keep the images under; None: `keras_xreid` in the Keras home directory.
        verbose: Show progress while drawing.
        style: "a"; or "b", the same people in four other cameras: other places, tints and lenses.

    Returns:
        A `DataSet` named "synthetic", or "synthetic-b": `16 * people` training images,
        `4 * people` queries and `12 * people` gallery images. Training people are 1 to `people`,
        test people follow.

    Raises:
        InputError: A size, a number of people or a seed out of range, or a folder that cannot be
            written.

    Example:

    >>> data = load_synthetic(people=4, verbose=False)
    >>> len(data.train), len(data.query), len(data.gallery), data.train[0].read().shape
    (64, 16, 48, (128, 64, 3))
    """
    from keras_xreid.data.records import DataSet, Record
    from keras_xreid.errors import InputError

    height, width = (int(n) for n in image_size)
    if height < 32 or width < 16:
        raise InputError(f"image size {height}x{width} is too small to draw people: 32x16 or more")
    if people < 2:
        raise InputError(f"{people} people cannot be told apart: ask for 2 or more")
    if seed < 0:
        raise InputError(f"seed {seed} is negative: give 0 or more")
    if style not in STYLES:
        raise InputError(f"style {style!r} is unknown: give a or b")
    name = "synthetic" if style == "a" else f"synthetic-{style}"
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    parent = Path(cache_dir) if cache_dir is not None else home / "keras_xreid"
    folder = parent / f"{name}-{VERSION}-{height}x{width}-{people}-{seed}"
    if not folder.is_dir():
        try:
            _draw_all(folder, (height, width), people, seed, verbose, style)
        except OSError as error:
            raise InputError(
                f"cannot draw the images into {parent} ({error.strerror or error}): "
                "make it writable or give another cache folder"
            ) from error

    parts = {"train": [], "query": [], "gallery": []}
    for part, person, camera, shot in _shots(people):
        path = folder / _file_name(part, person, camera, shot)
        parts[part].append(Record(str(path), person, camera, size=(height, width)))
    return DataSet(name, **parts)


def draw_person(person, camera, shot, image_size=(128, 64), seed=0, style="a"):
    """Draw one image.

    Args:
        person: Number of the person, from 1.
        camera: 1 to 4.
        shot: Number of the image within the camera, from 0: pose, place and noise change with it.
        image_size: (height, width) in pixels.
        seed: 0 or more; another seed draws other people.
        style: "a" or "b", which cameras.

    Returns:
        A `PIL.Image.Image` in RGB of that size.

    Example:

    >>> draw_person(1, 2, 0, (256, 128)).save("person.png")
    """
    height, width = image_size
    view = STYLES[style][camera - 1]
    rng = np.random.default_rng((seed, 2, person, camera, shot))
    canvas = Canvas(rng, view, height, width)
    Body(canvas, describe_person(person, seed), rng).paint()
    return photograph(canvas, rng, panorama(view["scene"], height, width, seed))


def describe_person(person, seed=0):
    """Say what a person looks like: what the group shares, and the fine details of this one.

    Args:
        person: Number of the person, from 1; people 1-4, 5-8, ... are the groups.
        seed: 0 or more.

    Returns:
        A dictionary of plain values; its entry "fine" holds what differs within the group.

    Example:

    >>> describe_person(1)["top"] == describe_person(2)["top"]
    True
    """
    group, member = divmod(person - 1, GROUP)
    rng = np.random.default_rng((seed, 1, group))

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    def own(choices):
        """Another one for each member of the group."""
        return choices[rng.permutation(len(choices))[member]]

    def accent(cloth):
        """A colour of one's own that stands out from the cloth."""
        return own([c for c in ACCENTS if np.abs(np.subtract(c, cloth)).sum() > 190])

    look = {
        "skin": pick(*SKIN),
        "hair": pick(*HAIR),
        "hair_style": pick("short", "short", "crop", "bob", "long", "ponytail", "bun", "afro"),
        "hat": pick(None, None, None, None, "cap", "beanie"),
        "beard": bool(rng.random() < 0.25),
        "top": pick("shirt", "shirt", "sweater", "sweater", "hoodie", "coat", "dress"),
        "top_colour": pick(*TOPS),
        "bottom": pick("trousers", "trousers", "trousers", "shorts", "skirt"),
        "bottom_colour": pick(*BOTTOMS),
        "shoes": pick(*SHOES),
        "bag": pick(None, None, "backpack", "shoulder bag", "handbag"),
        "bag_colour": pick(*cloth.BAGS),
        "girth": rng.uniform(0.9, 1.12),
        "height": rng.uniform(0.95, 1.02),
        "print": bool(rng.random() < 0.5),  # a print on plain cloth, or a pattern all over
        "tint": pick((1, 1, 1), (1, 1, 0.75), (0.8, 1, 1), (1, 0.9, 0.8)),
    }
    if look["hair_style"] in ("bob", "long", "ponytail", "bun"):
        look["beard"] = False
    if look["hat"] and look["hair_style"] in ("afro", "bun"):
        look["hair_style"] = "short"
    if look["top"] == "dress":
        look["bottom"] = "trousers"
    look["fine"] = {
        "pattern": own(cloth.PATTERNS),
        "print": own(tuple(cloth.PRINTS)),
        "print_ink": accent(look["top_colour"]),
        "hem_ink": accent(look["top_colour"]),
        "sleeves": own(cloth.TRIMS),
        "sleeves_ink": accent(look["top_colour"]),
        "legs": own(cloth.TRIMS),
        "legs_ink": accent(look["bottom_colour"]),
        "shoes_ink": accent(look["shoes"]),
        "bag": own(cloth.PATTERNS),
    }
    return look


# ---------------------------------------------------------------- files
def _shots(people):
    """(part, person, camera, shot) of every image, in the order of the file names."""
    for person in range(1, 2 * people + 1):
        for camera in range(1, CAMERAS + 1):
            for shot in range(SHOTS):
                part = "train" if person <= people else "gallery" if shot else "query"
                yield part, person, camera, shot


def _file_name(part, person, camera, shot):
    return f"{part}/{person:04d}_c{camera}_{shot:03d}.png"


def _draw_all(folder, image_size, people, seed, verbose, style="a"):
    """Draw every image into a temporary neighbour of `folder`, renamed when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    workers = []
    try:
        for part in ("train", "query", "gallery"):
            (building / part).mkdir()
        title = f"Drawing {2 * people} people, once, into {folder}"
        progress = Progress(title, 2 * people, "person", show=verbose)
        # A worker finds the package where this process has it.
        places = (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        count = min(os.cpu_count() or 1, 8)
        read, write = os.pipe()  # one for all workers
        for worker in range(count):
            words = (style, *image_size, people, seed, worker, count)
            command = [sys.executable, "-P", "-m", __name__, str(building), *map(str, words)]
            workers.append(subprocess.Popen(command, stdout=write, env=environment))
        os.close(write)
        with open(read) as lines:
            for _ in lines:  # one for each person drawn
                progress.add()
        if any(worker.wait() for worker in workers):
            raise OSError("a drawing process failed, see above")
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir():  # unless another process was first with the same images
                raise
    finally:
        for worker in workers:
            worker.kill()
        shutil.rmtree(building, ignore_errors=True)


def _draw_share(folder, style, height, width, people, seed, worker, workers):
    """Draw every `workers`-th person, with a line on stdout for each."""
    for part, person, camera, shot in _shots(people):
        if person % workers == worker:
            image = draw_person(person, camera, shot, (height, width), seed, style)
            image.save(Path(folder) / _file_name(part, person, camera, shot), compress_level=1)
            if (camera, shot) == (CAMERAS, SHOTS - 1):
                print(person, flush=True)


if __name__ == "__main__":
    _draw_share(sys.argv[1], sys.argv[2], *(int(word) for word in sys.argv[3:]))
