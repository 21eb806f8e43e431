"""Figures of a run, as PNG: recovered images, ranked lists, rank-1, embeddings, loss curves.

Colours follow the palette of Okabe and Ito, which colour-blind people can tell apart, and nothing
is said by colour alone. Sizes are in pixels at 150 dots per inch.
"""

import csv
import math
import os
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from keras_xreid.errors import InputError

DPI = 150
GREEN, RED, BLUE, ORANGE, GREY = "#009E73", "#C1272D", "#0072B2", "#D55E00", "#6B6B6B"
PURPLE, YELLOW, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)
MARKERS = "os^DvPX"
LINES = ("-", "--", "-.", ":")
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are equal everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 1.3,
}


def recovered_strips(path, low, recovered, high):
    """Draws LR | recovered for every rate and HR at the end, one row for each person.

    Args:
        path: PNG to write.
        low: {rate: (n, height, width, 3) images}, shrunk and upscaled; uint8 or float in [0, 1].
        recovered: {rate: (n, height, width, 3) images}, the same rates.
        high: (n, height, width, 3) images.

    Returns:
        `path`.

    Raises:
        InputError: The rates differ, or matplotlib is not installed.

    Example:

    >>> recovered_strips("recovered.png", {4: low}, {4: model.recover(low)}, high)
    """
    if list(low) != list(recovered):
        raise InputError(f"rates of low {list(low)} and recovered {list(recovered)} images differ")
    groups = [(f"r = {r:g}", {"LR": low[r], "recovered": recovered[r]}) for r in low]
    return image_strips(path, [*groups, ("", {"HR": high})])


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
    with _figure(path, total_w, total_h) as figure:
        x = gap
        for title, group in groups:
            width = len(group) * (cell_w + gap) - gap
            if title:
                _text(figure, x + width / 2, 16, title, weight="bold")
                _line(figure, x, x + width, 33)
            for label, images in group.items():
                _text(figure, x + cell_w / 2, 49, label)
                for row in range(count):
                    y = top + row * (cell_h + gap)
                    _image(figure, images[row], x, y, cell_w, cell_h)
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
    with _figure(path, total_w, total_h) as figure:
        y = 4
        for group in lists:
            _text(figure, 12, y + title_h / 2, group["title"], ha="left", weight="bold")
            y += title_h
            for row in group["rows"]:
                middle = y + mark_h + cell_h / 2
                _text(figure, 12, middle - 14, row["label"].replace(" ", "\n"), ha="left")
                _text(figure, 12, middle + 28, row.get("note", ""), ha="left", color=GREY)
                _text(figure, left + cell_w / 2, y + mark_h / 2, "query", color=GREY)
                _image(figure, row["query"], left, y + mark_h, cell_w, cell_h)
                found = zip(row["gallery"], row["right"], strict=True)
                for rank, (image, right) in enumerate(found, 1):
                    x = left + split + rank * (cell_w + gap)
                    colour = GREEN if right else RED
                    mark = f"{rank} {'✓' if right else '✗'}"
                    _text(figure, x + cell_w / 2, y + mark_h / 2, mark, color=colour)
                    _image(figure, image, x, y + mark_h, cell_w, cell_h)
                    _frame(figure, x, y + mark_h, cell_w, cell_h, colour, "-" if right else "--")
                y += row_h
    return path


def rank_against_rate(path, results, train_rates=(2, 3, 4)):
    """Draws rank-1 against rate with standard errors, for the system and the upscaled control.

    Args:
        path: PNG to write.
        results: the `scores` of what `evaluate` returned, or the content of a metrics.json.
        train_rates: rates trained on, with 1; markers of others are hollow.

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> rank_against_rate("rank1.png", results)
    """
    versions = [("recovered", results)]
    if (results.get("enlarged") or {}).get("per_rate"):
        versions.append(("upscaled", results["enlarged"]))
    lines, unseen = [], set()
    for label, scores in versions:
        line = line_of_rates(label, scores, train_rates)
        lines.append(line)
        unseen |= line["hollow"]
    note = "bars: ± one standard error" + ("; hollow: rate not trained on" if unseen else "")
    return rank_lines(path, lines, note=note)


def cmc_curves(path, results):
    """Draws the CMC, how often the right person is among the first k, a line for each rate.

    Args:
        path: PNG to write.
        results: the `scores` of what `evaluate` returned, or the content of a metrics.json.

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> cmc_curves("cmc.png", results)
    """
    ranks = (1, 5, 10, 20)
    with _figure(path, 84 + 476 + 90, 440) as figure:
        axes = _axes(figure, 84, 40, 476, 334)
        for number, (rate, scores) in enumerate(results["per_rate"].items()):
            colour = COLOURS[number % len(COLOURS)]
            values = [scores[f"rank{rank}"] for rank in ranks]
            axes.plot(
                ranks, values, color=colour, ls=LINES[number % len(LINES)],
                marker=MARKERS[number % len(MARKERS)], ms=4, label=f"r = {rate}",
            )  # fmt: skip
        axes.set_xticks(ranks)
        axes.set_xlabel("rank k")
        axes.set_ylabel("right person within the first k (%)")
        axes.grid(axis="y", lw=0.4, color="#DDDDDD")
        axes.legend(loc="lower right", frameon=False, fontsize=7)
    return path


def line_of_rates(label, scores, train_rates=(2, 3, 4)):
    """Makes a line of `rank_lines` of the scores of each rate.

    Args:
        label: name of the line.
        scores: those of `evaluate`, their "enlarged", or the content of a metrics.json.
        train_rates: rates trained on, with 1; markers of others are hollow.

    Returns:
        A dictionary of "label", "x", "rank1", "error" and "hollow".
    """
    names = list(scores["per_rate"])
    rates = [float(name) for name in names]
    errors = scores.get("standard_error") or {}
    return {
        "label": label,
        "x": rates,
        "rank1": [scores["per_rate"][name]["rank1"] for name in names],
        "error": [errors.get(name) or 0 for name in names],
        "hollow": {rate for rate in rates if rate != 1 and rate not in train_rates},
    }


def rank_lines(path, lines, xlabel="downsampling rate r", note="bars: ± one standard error"):
    """Draws rank-1 with its errors, a line for each system, named at its end if there are several.

    Args:
        path: PNG to write.
        lines: list of dictionaries of "label", "x" (k numbers), "rank1" (k, in percent), "error"
            (k) and perhaps "hollow" (a set of values of x whose markers are hollow).
        xlabel: what x is.
        note: what stands above the plot.

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> lines = [{"label": "RAIN", "x": [2, 4], "rank1": [61.0, 55.0], "error": [2.0, 2.1]}]
    >>> rank_lines("rank1.png", lines)
    """
    ticks = sorted({x for line in lines for x in line["x"]})
    several = len(lines) > 1
    names = [textwrap.wrap(line["label"], 32) for line in lines]
    names_w = 30 + 10 * max(len(row) for rows in names for row in rows) if several else 28
    with _figure(path, 84 + 476 + names_w, 440) as figure:
        axes = _axes(figure, 84, 40, 476, 334)
        # Aside of each other, so that no bar hides another.
        step = min(0.012, 0.05 / len(lines)) * (ticks[-1] - ticks[0])
        ends = []
        for number, line in enumerate(lines):
            colour = COLOURS[number % len(COLOURS)]
            marker, style = MARKERS[number % len(MARKERS)], LINES[number % len(LINES)]
            places = [x + step * (number - (len(lines) - 1) / 2) for x in line["x"]]
            axes.errorbar(
                places, line["rank1"], line["error"], color=colour, ls=style, capsize=2,
                elinewidth=0.8,
            )  # fmt: skip
            for place, x, value in zip(places, line["x"], line["rank1"], strict=True):
                face = "white" if x in line.get("hollow", ()) else colour
                axes.plot(place, value, marker, color=colour, mfc=face, ms=5, mew=1.2, zorder=3)
            ends.append((line["rank1"][-1], "\n".join(names[number]), colour))
        if several:  # a name at the end of each line needs no legend
            bottom, top = axes.get_ylim()
            gap = 0.065 * (top - bottom) * max(map(len, names))
            heights = _apart([value for value, _, _ in ends], gap)
            heights += max(0, bottom - min(heights))
            for height, (_, label, colour) in zip(heights, ends, strict=True):
                axes.annotate(
                    label,
                    (ticks[-1], height),
                    (12, 0),
                    textcoords="offset points",
                    color=colour,
                    va="center",
                    annotation_clip=False,
                )
            axes.set_ylim(bottom, top)
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.set_xlabel(xlabel)
        axes.set_ylabel("rank-1 (%)")
        axes.grid(axis="y", lw=0.4, color="#DDDDDD")
        axes.set_axisbelow(True)
        axes.set_title(note, loc="left", color=GREY, fontsize=7)
    return path


def rank_against_cost(path, points, xlabel="milliseconds of a query"):
    """Draws rank-1 against cost, a named point for each system, and the front.

    On the front are those that no other one beats at the same cost or less: their markers are
    filled, and a line of steps shows the best that a cost buys.

    Args:
        path: PNG to write.
        points: list of dictionaries of "label", "x" (the cost), "rank1" (in percent) and "error"
            (None where it is not known).
        xlabel: what x is.

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> points = [{"label": "RAIN", "x": 12.5, "rank1": 61.0, "error": 2.0}]
    >>> rank_against_cost("costs.png", points)
    """
    points = sorted(points, key=lambda point: point["x"])
    front = front_of(points)
    names = [textwrap.wrap(point["label"], 40) for point in points]
    longest = max(len(row) for rows in names for row in rows)
    with _figure(path, 84 + 476 + 40 + 10 * longest, 440) as figure:
        axes = _axes(figure, 84, 40, 476, 334)
        end = 1.08 * points[-1]["x"]
        axes.step(
            [*(point["x"] for point in front), end],
            [*(point["rank1"] for point in front), front[-1]["rank1"]],
            where="post", color=BLACK, lw=1, ls="--", zorder=2,
        )  # fmt: skip
        for number, point in enumerate(points):
            colour = COLOURS[number % len(COLOURS)]
            axes.errorbar(
                point["x"], point["rank1"], point["error"], color=colour, capsize=2,
                elinewidth=0.8, marker=MARKERS[number % len(MARKERS)], ms=6, mew=1.2,
                mfc=colour if any(point is one for one in front) else "white", zorder=3,
            )  # fmt: skip
        axes.set_xlim(0, end)
        bottom, top = axes.get_ylim()
        gap = 0.065 * (top - bottom) * max(map(len, names))
        heights = _apart([point["rank1"] for point in points], gap)
        heights += max(0, bottom - min(heights))
        for number, (point, height) in enumerate(zip(points, heights, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            thin = {"arrowstyle": "-", "color": colour, "lw": 0.4, "alpha": 0.6, "shrinkB": 6}
            axes.annotate(
                "\n".join(names[number]), (point["x"], point["rank1"]), (1.02 * end, height),
                color=colour, va="center", annotation_clip=False, arrowprops=thin,
            )  # fmt: skip
        axes.set_ylim(bottom, top)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("rank-1 (%), mean LR")
        axes.grid(axis="y", lw=0.4, color="#DDDDDD")
        axes.set_axisbelow(True)
        note = "filled: none is better at this cost or less"
        if any(point["error"] is not None for point in points):
            note = "bars: ± one standard error; " + note
        axes.set_title(note, loc="left", color=GREY, fontsize=7)
    return path


def front_of(points):
    """Those points that no other one beats at the same cost or less, the cheapest first."""
    front = []
    for point in sorted(points, key=lambda point: (point["x"], -point["rank1"])):
        if not front or point["rank1"] > front[-1]["rank1"]:
            front.append(point)
    return front


def _apart(values, gap):
    """Moves values as little as possible, in squares, until each two are `gap` apart."""
    order = np.argsort(values, kind="stable")
    blocks = []  # [mean of value - gap * place, members]: equal after pooling, so `gap` apart
    for place, index in enumerate(order):
        blocks.append([values[index] - gap * place, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            before, members = blocks[-1]
            total = members + count
            blocks[-1] = [(before * members + mean * count) / total, total]
    means, counts = zip(*blocks, strict=True)
    moved = np.empty(len(values))
    moved[order] = np.repeat(means, counts) + gap * np.arange(len(values))
    return moved


def embedding_map(path, places, people, rates, train_rates=(2, 3, 4)):
    """Draws embeddings in the plane twice: coloured by person and coloured by rate.

    Args:
        path: PNG to write.
        places: (n, 2) array, where each embedding lies, from t-SNE for instance.
        people: (n,) persons.
        rates: (n,) down-sampling rates.
        train_rates: rates trained on, with 1; others are hollow and called unseen.

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> embedding_map("tsne.png", TSNE().fit_transform(features), people, rates)
    """
    places, people, rates = np.asarray(places), np.asarray(people), np.asarray(rates)
    side, gap, top, legend_w = 500, 24, 40, 170
    with _figure(path, 3 * gap + 2 * side + legend_w, top + side + gap) as figure:
        import matplotlib

        left, right = (
            _axes(figure, gap + x, top, side, side, xticks=[], yticks=[]) for x in (0, side + gap)
        )
        names = list(dict.fromkeys(people.tolist()))
        for number, name in enumerate(names):
            of_person = places[people == name]
            colour = COLOURS[number % len(COLOURS)]
            marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
            left.scatter(*of_person.T, s=16, c=colour, marker=marker, lw=0)
        scored = sorted(set(rates.tolist()))
        for number, rate in enumerate(scored):
            of_rate = places[rates == rate]
            unseen = rate != 1 and rate not in train_rates
            # From dark to light with the rate; the lightest yellow would be lost on white.
            colour = matplotlib.colormaps["viridis"](0.85 * number / max(1, len(scored) - 1))
            right.scatter(
                *of_rate.T, s=16, marker=MARKERS[number % len(MARKERS)], lw=0.9,
                facecolor="white" if unseen else colour, edgecolor=colour,
                label=f"r = {rate:g}" + (" (unseen)" if unseen else ""),
            )  # fmt: skip
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(True)
        left.set_title(f"by person ({len(names)} people, each a colour and marker)", loc="left")
        right.set_title("the same, by rate", loc="left")
        right.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return path


def mask_heat_map(path, values, rates):
    """Draws what each level's mask multiplies each channel by, a panel for each stage.

    Channels are sorted by the difference between the highest and the lowest resolution, so that
    those that one level has for itself stand at the ends.

    Args:
        path: PNG to write.
        values: list of (m, c) arrays in [0, 1], a stage each, the lowest resolution first.
        rates: list of the levels' m rates, in the same order.

    Returns:
        `path`.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> mask_heat_map("masks.png", [mask.values for mask in model.masks], model.rates)
    """
    left, width, row_h, above, below = 76, 700, 30, 34, 26
    heights = [row_h * len(rates)] * len(values)
    total_h = sum(heights) + len(values) * (above + below)
    with _figure(path, left + width + 110, total_h) as figure:
        y = above
        for number, (mask, height) in enumerate(zip(values, heights, strict=True), start=1):
            order = np.argsort(mask[-1] - mask[0], kind="stable")
            axes = _axes(figure, left, y, width, height)
            drawn = axes.imshow(
                mask[:, order], aspect="auto", vmin=0, vmax=1, cmap="viridis",
                interpolation="nearest",
            )  # fmt: skip
            axes.set_yticks(range(len(rates)), [f"r = {rate:g}" for rate in rates])
            axes.set_xticks([0, mask.shape[1] - 1], ["1", str(mask.shape[1])])
            axes.tick_params(length=0)
            note = ": channels, sorted by highest less lowest level" if number == 1 else ""
            axes.set_title(f"stage {number}{note}", loc="left", pad=4)
            y += height + above + below
        bar = figure.colorbar(drawn, cax=_axes(figure, left + width + 24, above, 14, heights[0]))
        bar.set_ticks([0, 0.5, 1])
        bar.outline.set_linewidth(0.6)
    return path


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
    with _figure(path, total_w, total_h) as figure:
        y = 4
        for stage, losses in stages.items():
            if stage:
                _text(figure, 12, y + title_h / 2, stage, ha="left", weight="bold")
                y += title_h
            for number, (name, curves) in enumerate(losses):
                x = (number % columns) * cell_w + left
                panel_y = y + (number // columns) * cell_h + above
                axes = _axes(figure, x, panel_y, cell_w - left, cell_h - above - below)
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


# Drawing, in pixels from the top left corner.


@contextmanager
def _figure(path, width, height):
    """An empty white figure, written at the end under a name that is never half-written."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            'figures need matplotlib, which is not installed: pip install "keras-xreid[recipes]"'
        ) from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(temporary, format="png", facecolor="white")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _axes(figure, x, y, width, height, **style):
    total_w, total_h = figure.get_size_inches() * DPI
    place = [x / total_w, 1 - (y + height) / total_h, width / total_w, height / total_h]
    return figure.add_axes(place, **style)


def _image(figure, image, x, y, width, height):
    image = np.asarray(image)
    if image.dtype != np.uint8:
        image = np.clip(np.asarray(image, "float32"), 0, 1)
    axes = _axes(figure, x, y, width, height, frameon=False, xticks=[], yticks=[])
    axes.imshow(image, aspect="auto", interpolation="lanczos")


def _text(figure, x, y, text, ha="center", **style):
    total_w, total_h = figure.get_size_inches() * DPI
    figure.text(x / total_w, 1 - y / total_h, text, ha=ha, va="center", **style)


def _line(figure, x0, x1, y):
    from matplotlib.lines import Line2D

    total_w, total_h = figure.get_size_inches() * DPI
    ends = [x0 / total_w, x1 / total_w], [1 - y / total_h] * 2
    figure.add_artist(Line2D(*ends, color=GREY, lw=0.6))


def _frame(figure, x, y, width, height, colour, style):
    from matplotlib.patches import Rectangle

    total_w, total_h = figure.get_size_inches() * DPI
    out = 2  # pixels between image and frame
    figure.add_artist(
        Rectangle(
            ((x - out) / total_w, 1 - (y + height + out) / total_h),
            (width + 2 * out) / total_w,
            (height + 2 * out) / total_h,
            fill=False,
            edgecolor=colour,
            linestyle=style,
            linewidth=1.6,
        )
    )
