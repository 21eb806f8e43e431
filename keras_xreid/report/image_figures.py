"""Figures of images, as PNG: recovered ones in columns, and ranked lists."""

import numpy as np

from keras_xreid.errors import InputError
from keras_xreid.report import pixels


def image_strips(path, groups):
    """Draws columns of images, a row for each person.

    Args:
        path: PNG to write.
        groups: list of (title, {name of a column: (n, height, width, 3) images}).

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> image_strips("strips.png", [("r = 4", {"LR": low, "INTACT": model.recover(low)})])
    """
    columns = [images for _, group in groups for images in group.values()]
    count, height, width = np.shape(columns[0])[:3]
    cell_w, gap, group_gap, top = 128, 6, 30, 62
    cell_h = round(cell_w * height / width)
    total_w = len(columns) * (cell_w + gap) + (len(groups) - 1) * (group_gap - gap) + gap
    total_h = top + count * (cell_h + gap) + gap
    with pixels.new_figure(path, total_w, total_h) as figure:
        x = gap
        for title, group in groups:
            width = len(group) * (cell_w + gap) - gap
            if title:
                pixels.add_text(figure, x + width / 2, 16, title, weight="bold")
                pixels.add_line(figure, x, x + width, 33)
            for label, images in group.items():
                pixels.add_text(figure, x + cell_w / 2, 49, label)
                for row in range(count):
                    y = top + row * (cell_h + gap)
                    pixels.add_image(figure, images[row], x, y, cell_w, cell_h)
                x += cell_w + gap
            x += group_gap - gap
    return path


def ranked_lists(path, lists):
    """Draws queries with the gallery images found for them, right ones and wrong ones framed.

    Right ones have a solid green frame and a tick, wrong ones a dashed red frame and a cross.

    Args:
        path: PNG to write.
        lists: list of groups, each a dictionary of "title" and "rows"; a row is a dictionary of
            "label", "query" (one image), "gallery" (k images), "right" (k bool) and perhaps "note".

    Returns:
        `path`.

    Raises:
        InputError: Nothing to draw, or matplotlib is not installed.

    Example:

    >>> row = {"label": "recovered", "query": x, "gallery": found, "right": [True, False]}
    >>> ranked_lists("ranked.png", [{"title": "r = 4", "rows": [row]}])
    """
    if not lists:
        raise InputError("no ranked list to draw: no query has a true match in the gallery")
    rows = [row for group in lists for row in group["rows"]]
    height, width = np.shape(rows[0]["query"])[:2]
    longest = max(len(row["gallery"]) for row in rows)
    cell_w, gap, left, split, title_h, mark_h = 96, 14, 114, 26, 36, 24
    cell_h = round(cell_w * height / width)
    row_h = mark_h + cell_h + gap
    total_w = left + (longest + 1) * (cell_w + gap) + split
    total_h = len(lists) * title_h + len(rows) * row_h + gap
    with pixels.new_figure(path, total_w, total_h) as figure:
        y = 4
        for group in lists:
            pixels.add_text(figure, 12, y + title_h / 2, group["title"], ha="left", weight="bold")
            y += title_h
            for row in group["rows"]:
                middle = y + mark_h + cell_h / 2
                pixels.add_text(figure, 12, middle - 14, row["label"].replace(" ", "\n"), ha="left")
                pixels.add_text(
                    figure, 12, middle + 28, row.get("note", ""), ha="left", color=pixels.GREY
                )
                pixels.add_text(
                    figure, left + cell_w / 2, y + mark_h / 2, "query", color=pixels.GREY
                )
                pixels.add_image(figure, row["query"], left, y + mark_h, cell_w, cell_h)
                found = zip(row["gallery"], row["right"], strict=True)
                for rank, (image, right) in enumerate(found, 1):
                    x = left + split + rank * (cell_w + gap)
                    colour = pixels.GREEN if right else pixels.RED
                    mark = f"{rank} {'✓' if right else '✗'}"
                    pixels.add_text(figure, x + cell_w / 2, y + mark_h / 2, mark, color=colour)
                    pixels.add_image(figure, image, x, y + mark_h, cell_w, cell_h)
                    pixels.add_frame(
                        figure, x, y + mark_h, cell_w, cell_h, colour, "-" if right else "--"
                    )
                y += row_h
    return path
