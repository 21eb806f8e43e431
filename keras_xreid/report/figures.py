"""Charts of a run, as PNG: rank-1, CMC, cost, embeddings, masks."""

import textwrap
from contextlib import contextmanager

import numpy as np

from keras_xreid.report import pixels
from keras_xreid.report.pixels import BLACK, COLOURS, GREY, LINES, MARKERS


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
    lines = [line_of_rates("recovered", results, train_rates)]
    if (results.get("enlarged") or {}).get("per_rate"):
        lines.append(line_of_rates("upscaled", results["enlarged"], train_rates))
    return rank_lines(path, lines)


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
    with _chart(path, 90, "rank k", "right person within the first k (%)") as axes:
        for number, (rate, scores) in enumerate(results["per_rate"].items()):
            colour, marker, style = _style(number)
            values = [scores[f"rank{rank}"] for rank in ranks]
            axes.plot(
                ranks, values, color=colour, ls=style, marker=marker, ms=4, label=f"r = {rate}"
            )
        axes.set_xticks(ranks)
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
    trained = {"1", *(f"{rate:g}" for rate in train_rates)}
    return {
        "label": label,
        "x": rates,
        "rank1": [scores["per_rate"][name]["rank1"] for name in names],
        "error": [errors.get(name) or 0 for name in names],
        "hollow": {float(name) for name in names if f"{float(name):g}" not in trained},
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
    names, longest = _wrapped([line["label"] for line in lines], 36)  # a published name in one line
    if any(line.get("hollow") for line in lines):
        note += "; hollow: rate not trained on"
    beside = 30 + 10 * longest if several else 28
    with _chart(path, beside, xlabel, "rank-1 (%)", note) as axes:
        # Aside of each other, so that no bar hides another.
        step = min(0.012, 0.05 / len(lines)) * (ticks[-1] - ticks[0])
        for number, line in enumerate(lines):
            colour, marker, style = _style(number)
            places = [x + step * (number - (len(lines) - 1) / 2) for x in line["x"]]
            axes.errorbar(
                places, line["rank1"], line["error"], color=colour, ls=style, capsize=2,
                elinewidth=0.8,
            )  # fmt: skip
            for place, x, value in zip(places, line["x"], line["rank1"], strict=True):
                face = "white" if x in line.get("hollow", ()) else colour
                axes.plot(place, value, marker, color=colour, mfc=face, ms=5, mew=1.2, zorder=3)
        if several:  # a name at the end of each line needs no legend
            heights = _heights(axes, [line["rank1"][-1] for line in lines], names)
            for number, (name, height) in enumerate(zip(names, heights, strict=True)):
                axes.annotate(
                    name, (ticks[-1], height), (12, 0), textcoords="offset points",
                    color=COLOURS[number % len(COLOURS)], va="center", annotation_clip=False,
                )  # fmt: skip
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
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
    names, longest = _wrapped([point["label"] for point in points], 40)
    note = "filled: none is better at this cost or less"
    if any(point["error"] is not None for point in points):
        note = "bars: ± one standard error; " + note
    with _chart(path, 40 + 10 * longest, xlabel, "rank-1 (%), mean LR", note) as axes:
        end = 1.08 * points[-1]["x"]
        axes.step(
            [*(point["x"] for point in front), end],
            [*(point["rank1"] for point in front), front[-1]["rank1"]],
            where="post", color=BLACK, lw=1, ls="--", zorder=2,
        )  # fmt: skip
        for number, point in enumerate(points):
            colour, marker, _ = _style(number)
            axes.errorbar(
                point["x"], point["rank1"], point["error"], color=colour, capsize=2,
                elinewidth=0.8, marker=marker, ms=6, mew=1.2,
                mfc=colour if any(point is one for one in front) else "white", zorder=3,
            )  # fmt: skip
        axes.set_xlim(0, end)
        heights = _heights(axes, [point["rank1"] for point in points], names)
        for number, (point, height) in enumerate(zip(points, heights, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            thin = {"arrowstyle": "-", "color": colour, "lw": 0.4, "alpha": 0.6, "shrinkB": 6}
            axes.annotate(
                names[number], (point["x"], point["rank1"]), (1.02 * end, height),
                color=colour, va="center", annotation_clip=False, arrowprops=thin,
            )  # fmt: skip
    return path


def front_of(points):
    """Those points that no other one beats at the same cost or less, the cheapest first."""
    front = []
    for point in sorted(points, key=lambda point: (point["x"], -point["rank1"])):
        if not front or point["rank1"] > front[-1]["rank1"]:
            front.append(point)
    return front


@contextmanager
def _chart(path, beside, xlabel, ylabel, note=""):
    """Axes with so many pixels on their right."""
    with pixels.new_figure(path, 84 + 476 + beside, 440) as figure:
        axes = pixels.add_axes(figure, 84, 40, 476, 334, xlabel=xlabel, ylabel=ylabel)
        axes.grid(axis="y", lw=0.4, color="#DDDDDD")
        axes.set_axisbelow(True)
        axes.set_title(note, loc="left", color=GREY, fontsize=7)
        yield axes


def _style(number):
    """Colour, marker and line of what is drawn as the number-th."""
    return tuple(kind[number % len(kind)] for kind in (COLOURS, MARKERS, LINES))


def _wrapped(labels, width):
    """Labels in lines, and the length of the longest line."""
    names = ["\n".join(textwrap.wrap(label, width)) for label in labels]
    return names, max(len(row) for name in names for row in name.split("\n"))


def _heights(axes, values, names):
    """Where names beside values stand, that none covers another; the axis stays as it is."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top)
    heights = apart(values, 0.065 * (top - bottom) * (1 + max(n.count("\n") for n in names)))
    return heights + max(0, bottom - min(heights))


def apart(values, gap):
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
    with pixels.new_figure(path, 3 * gap + 2 * side + legend_w, top + side + gap) as figure:
        import matplotlib

        left, right = (
            pixels.add_axes(figure, gap + x, top, side, side, xticks=[], yticks=[])
            for x in (0, side + gap)
        )
        names = list(dict.fromkeys(people.tolist()))
        for number, name in enumerate(names):
            of_person = places[people == name]
            colour = COLOURS[number % len(COLOURS)]
            marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
            left.scatter(*of_person.T, s=16, c=colour, marker=marker, lw=0)
        scored = np.unique(rates[~np.isnan(rates)]).tolist()  # one that nobody knows has no colour
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
    with pixels.new_figure(path, left + width + 110, total_h) as figure:
        y = above
        for number, (mask, height) in enumerate(zip(values, heights, strict=True), start=1):
            order = np.argsort(mask[-1] - mask[0], kind="stable")
            axes = pixels.add_axes(figure, left, y, width, height)
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
        bar = figure.colorbar(
            drawn, cax=pixels.add_axes(figure, left + width + 24, above, 14, heights[0])
        )
        bar.set_ticks([0, 0.5, 1])
        bar.outline.set_linewidth(0.6)
    return path
