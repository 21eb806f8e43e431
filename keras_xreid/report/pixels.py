"""Figures that are laid out in pixels, from the top left corner, at 150 dots per inch.

Colours follow the palette of Okabe and Ito, which colour-blind people can tell apart, and nothing
is said by colour alone.
"""

import io
from contextlib import contextmanager

import numpy as np

from keras_xreid.errors import InputError
from keras_xreid.files import write_bytes_atomic

DPI = 150
GREEN, RED, BLUE, ORANGE, GREY = "#009E73", "#C1272D", "#0072B2", "#D55E00", "#6B6B6B"
PURPLE, YELLOW, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)
MARKERS = "os^DvPX"
LINES = ("-", "--", "-.", ":")
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are equal everywhere
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "axes.linewidth": 0.6,
    "axes.edgecolor": GREY, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "xtick.color": GREY, "ytick.color": GREY,
    "lines.linewidth": 1.3,
    "text.parse_math": False,  # names may hold two $
}  # fmt: skip


@contextmanager
def new_figure(path, width, height):
    """An empty white figure, written at the end under a name that is never half-written."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            'figures need matplotlib, which is not installed: pip install -e ".[recipes]"'
        ) from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", facecolor="white")
        write_bytes_atomic(path, content.getvalue())


def add_axes(figure, x, y, width, height, **style):
    total_w, total_h = figure.get_size_inches() * DPI
    place = [x / total_w, 1 - (y + height) / total_h, width / total_w, height / total_h]
    return figure.add_axes(place, **style)


def add_image(figure, image, x, y, width, height):
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.clip(np.asarray(image, "float32"), 0, 1)
    axes = add_axes(figure, x, y, width, height, frameon=False, xticks=[], yticks=[])
    axes.imshow(image, aspect="auto", interpolation="lanczos")


def add_text(figure, x, y, text, ha="center", **style):
    total_w, total_h = figure.get_size_inches() * DPI
    figure.text(x / total_w, 1 - y / total_h, text, ha=ha, va="center", **style)


def add_line(figure, x0, x1, y):
    from matplotlib.lines import Line2D

    total_w, total_h = figure.get_size_inches() * DPI
    ends = [x0 / total_w, x1 / total_w], [1 - y / total_h] * 2
    figure.add_artist(Line2D(*ends, color=GREY, lw=0.6))


def add_frame(figure, x, y, width, height, colour, style):
    from matplotlib.patches import Rectangle

    total_w, total_h = figure.get_size_inches() * DPI
    out = 2  # pixels between image and frame
    corner = (x - out) / total_w, 1 - (y + height + out) / total_h
    sides = (width + 2 * out) / total_w, (height + 2 * out) / total_h
    figure.add_artist(Rectangle(corner, *sides, fill=False, ec=colour, ls=style, lw=1.6))
