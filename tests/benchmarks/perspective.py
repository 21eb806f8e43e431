"""Draws people who walk away from a camera: frames and boxes in the format of MOT Challenge.

    python tests/benchmarks/perspective.py sequence
    xreid build mot sequence small --crops 10
    xreid evaluate --weights baseline_hrlr_tiny_synthetic --data csv --data-dir small

So queries are small because people were far away; nobody shrank them. They are the embedded test
people, ten at a time. What the camera adds is the same in every pixel of a frame, whatever the
person's height: blur by its lens, noise of its sensor, and JPEG.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageFilter

from keras_xreid.data.synthetic.people import PEOPLE, draw_person
from keras_xreid.files import whole_folder
from keras_xreid.progress import Progress

NEAR, FAR = (150, 144, 138, 132, 128), (64, 56, 48, 43, 38, 32, 28, 24, 20, 16)
PLACE, APART = (160, 80), 60  # the room of a person in a frame; frames from near to far


@dataclasses.dataclass
class Options:
    out: tyro.conf.Positional[str]
    """New folder for the sequence."""
    people: int = PEOPLE
    """How many of the test people."""
    blur: float = 0.6
    """Of the lens: standard deviation in pixels of the frame."""
    noise: float = 3.0
    """Of the sensor: standard deviation in grey values, of 255."""
    quality: int = 80
    """Of JPEG."""
    seed: int = 0
    """Draws people and noise."""


def seen(person, shot, height, o):
    """A drawn person as a sensor sees it in so many rows, before its noise."""
    large = draw_person(person, 1, shot, (256, 128), o.seed)
    sharp = large.filter(ImageFilter.GaussianBlur(o.blur * 256 / height))
    return np.asarray(sharp.resize((height // 2, height), Image.Resampling.BOX), "float32")


def main(options):
    o = options
    with whole_folder(Path(o.out).absolute()) as folder:
        (folder / "img1").mkdir()
        (folder / "gt").mkdir()
        lines, groups = [], [range(i, min(i + 10, o.people)) for i in range(0, o.people, 10)]
        moments = [*enumerate(NEAR), *enumerate(FAR, APART)]
        progress = Progress("Drawing", len(groups) * len(moments), "frame")
        for number, group in enumerate(groups):
            for shot, height in moments:
                frame = number * 2 * APART + shot + 1
                pixels = np.full((PLACE[0], len(group) * PLACE[1], 3), 110, "float32")
                for place, index in enumerate(group):
                    person, left, top = PEOPLE + 1 + index, place * PLACE[1], PLACE[0] - height
                    width = height // 2
                    pixels[top:, left : left + width] = seen(person, shot, height, o)
                    box = (frame, person, left + 1, top + 1, width, height, 1, 1, 1)
                    lines.append(",".join(map(str, box)))
                pixels += np.random.default_rng((o.seed, 3, frame)).normal(0, o.noise, pixels.shape)
                image = Image.fromarray(pixels.round().clip(0, 255).astype("uint8"))
                image.save(folder / "img1" / f"{frame:06d}.jpg", quality=o.quality)
                progress.add()
        (folder / "gt" / "gt.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
