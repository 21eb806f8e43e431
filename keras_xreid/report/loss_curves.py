"""The losses of a training run as a figure: a small panel for each."""

import csv
import math

from keras_xreid.errors import InputError
from keras_xreid.report.pixels import BLUE, ORANGE, add_axes, add_text, new_figure


def loss_curves(path, history):
    """Draws one small panel for each loss of a history.csv, stage after stage.

    Args:
        path: PNG to write.
        history: CSV file with a row for each epoch. Column "stage", where there is one, names the
            training stage; "epoch" the epoch within it; the others are curves, "val_x" drawn with
            "x". An empty cell means that the stage does not have this loss.

    Returns:
        `path`.

    Raises:
        InputError: The file holds no losses, or matplotlib is not installed.

    Example:

    >>> loss_curves("losses.png", "runs/mine/history.csv")
    """
    panels = _read_history(history)
    if not panels:
        raise InputError(f"{history} holds no losses: expected a header and a row for each epoch")
    stages = {}
    for (stage, name), curves in panels.items():
        stages.setdefault(stage, []).append((name, curves))
    columns = min(4, max(len(losses) for losses in stages.values()))
    rows = {stage: math.ceil(len(losses) / columns) for stage, losses in stages.items()}
    cell_w, cell_h, left, above, below, title_h = 305, 226, 70, 28, 46, 28
    titles_h = title_h * sum(bool(stage) for stage in stages)
    total_w, total_h = columns * cell_w + 20, sum(rows.values()) * cell_h + titles_h + 22
    with new_figure(path, total_w, total_h) as figure:
        y = 4
        for stage, losses in stages.items():
            if stage:
                add_text(figure, 12, y + title_h / 2, stage, ha="left", weight="bold")
                y += title_h
            for number, (name, curves) in enumerate(losses):
                x = (number % columns) * cell_w + left
                panel_y = y + (number // columns) * cell_h + above
                axes = add_axes(figure, x, panel_y, cell_w - left, cell_h - above - below)
                _panel(axes, name, curves)
                if number + columns >= len(losses):
                    axes.set_xlabel("epoch", labelpad=1)
            y += rows[stage] * cell_h + 8
    return path


def _panel(axes, name, curves):
    for curve, colour, style in ((name, BLUE, "-"), ("val_" + name, ORANGE, "--")):
        if curve in curves:
            epochs, values = curves[curve]
            single = {"marker": "o", "ms": 3} if len(epochs) == 1 else {}
            axes.plot(epochs, values, color=colour, ls=style, **single)
    axes.set_title(name.replace("_", " "), loc="left", pad=4)
    axes.locator_params(axis="y", nbins=4)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes.grid(axis="y", lw=0.4, color="#DDDDDD")


def _read_history(path):
    """{(stage, loss): {curve: (epochs, values)}} in the order of the file."""
    apart = ("epoch", "stage", "images", "seconds", "images_per_second")
    panels = {}
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            for column, text in row.items():
                # Norms are for the table: a panel each would be as many as the losses.
                if not column or column in apart or column.startswith("norm_") or not text:
                    continue
                try:
                    value, epoch = float(text), float(row.get("epoch") or number)
                except ValueError:
                    continue
                key = (row.get("stage") or "", column.removeprefix("val_"))
                epochs, values = panels.setdefault(key, {}).setdefault(column, ([], []))
                epochs.append(epoch)
                values.append(value)
    # The sum is drawn where a stage has a single term under no other name.
    stages = [stage for stage, _ in panels]
    for stage in {stage for stage in stages if stages.count(stage) > 1}:
        panels.pop((stage, "loss"), None)
    return panels
