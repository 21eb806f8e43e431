"""Makes images/degradation.png: drawn people as a camera degrades them, at several strengths.

    python docs/make_degradation.py

A column for each strength. The people are of the built-in set, at rate 4 and enlarged; nobody is
real. Each person's blur, noise and JPEG are drawn by the name of the image, and are the same in
each column but for their strength.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import keras_xreid as xr

OUT = Path(__file__).parent / "images" / "degradation.png"
SIZE, RATE, PEOPLE = (192, 96), 4, 4
COLUMNS = {"HR": None, "plain": 0.0, "0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "1": 1.0}
HEADER, GAP = 22, 4  # pixels


def main():
    query = xr.datasets.load("synthetic").query
    people = [query[i] for i in np.linspace(0, len(query) - 1, PEOPLE).round().astype(int)]
    height, width = SIZE
    rows = 2  # of two people a column
    wide = len(COLUMNS) * (PEOPLE // rows * width + 3 * GAP)
    strip = Image.new("RGB", (wide, HEADER + rows * (height + GAP)), "white")
    draw, left = ImageDraw.Draw(strip), GAP
    for title, strength in COLUMNS.items():
        rate = RATE if strength is not None else 1
        images = xr.prepare_images(people, SIZE, rate, strength=strength or 0.0)
        draw.text((left, 4), title, fill="black", font_size=13)
        for i, image in enumerate(images):
            place = left + i // rows * (width + GAP), HEADER + i % rows * (height + GAP)
            strip.paste(Image.fromarray(image), place)
        left += PEOPLE // rows * width + 3 * GAP
    strip.quantize(256, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
