"""Makes images/strip.png, the README's picture, from images/recovered.png.

    python docs/make_strip.py

images/recovered.png is figures/recovered.png of `python recipes/intact.py`: drawn people, no real
ones. The strip is its header and its second row, resized to a width of 1,200 and 256 colours.
"""

from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
HEADER, ROW, WIDTH = (0, 60), (324, 582), 1200  # pixels, from the top


def main():
    figure = Image.open(IMAGES / "recovered.png").convert("RGB")
    parts = [figure.crop((0, top, figure.width, bottom)) for top, bottom in (HEADER, ROW)]
    strip = Image.new("RGB", (figure.width, sum(part.height for part in parts)), "white")
    strip.paste(parts[0], (0, 0))
    strip.paste(parts[1], (0, parts[0].height))
    height = round(strip.height * WIDTH / strip.width)
    strip = strip.resize((WIDTH, height), Image.Resampling.LANCZOS)
    strip = strip.quantize(256, dither=Image.Dither.NONE)
    strip.save(IMAGES / "strip.png", optimize=True)


if __name__ == "__main__":
    main()
