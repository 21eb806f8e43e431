"""Tables for the terminal and in Markdown: rows of text, and the scores of a run."""

from keras_xreid.evaluation.ranking import SCORES

NOT_MEASURED = "-"
HEADINGS = ("rank-1", "rank-5", "rank-10", "rank-20", "mAP", "mINP")


def text_table(header, rows, left=1):
    """Lays out rows of text in columns, the first aligned left and the others right.

    Args:
        header: list of column names.
        rows: list of lists of str; an empty list makes an empty line.
        left: how many columns are aligned left.

    Returns:
        Text of several lines.

    Example:

    >>> print(text_table(["row", "rank-1"], [["MSE+ID", "83.7"]]))
    row     rank-1
    ------  ------
    MSE+ID    83.7
    """
    filled = [row for row in [header, *rows] if row]
    widths = [max(len(row[i]) for row in filled) for i in range(len(header))]

    def line(row):
        cells = [
            c.ljust(w) if i < left else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) if row else "" for row in rows)])


def markdown(header, rows, left=1):
    """Lays out rows of text as a Markdown table.

    Args:
        header: list of column names.
        rows: list of lists of str; empty lists are left out.
        left: how many columns are aligned left.

    Returns:
        Text of several lines.

    Example:

    >>> print(markdown(["row", "rank-1"], [["MSE+ID", "83.7"]]))
    | row | rank-1 |
    | :-- | --: |
    | MSE+ID | 83.7 |
    """
    rule = [":--"] * left + ["--:"] * (len(header) - left)
    cells = [
        [" ".join(cell.splitlines()).replace("|", r"\|") for cell in row]
        for row in [header, rule, *rows]
        if row
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def score_table(results):
    """Lays out the scores of every rate as text for the terminal.

    Args:
        results: the `scores` of what `evaluate` returned, or the content of a metrics.json.

    Returns:
        Text of several lines: for each rate rank-1 with its standard error, rank-5, 10, 20, mAP
        and mINP in percent, then their mean over low-resolution rates (--train-rates); where the
        model recovers images, PSNR and SSIM of the recovered and of the upscaled query, and
        the latter's scores where they were measured.

    Example:

    >>> print(score_table(evaluate(model, data).scores))
    """
    return text_table(*_score_rows(results))


def markdown_table(results):
    """Lays out the same as `score_table` in Markdown.

    Args:
        results: the `scores` of what `evaluate` returned, or the content of a metrics.json.

    Returns:
        A Markdown table.

    Example:

    >>> print(markdown_table(json.loads(Path("runs/mine/metrics.json").read_text())))
    """
    return markdown(*_score_rows(results))


def _score_rows(results):
    enlarged = results.get("enlarged") or {}
    measured = results.get("image_quality") is not None
    control = bool(enlarged.get("per_rate"))
    header = ["query", *HEADINGS]
    if measured:
        found = [
            scores for scores in results["image_quality"].values() if (scores or {}).get("lpips")
        ]
        kinds = [("psnr", 1), ("ssim", 3), *([("lpips", 3)] if found else [])]
        header += [name.upper() for name, _ in kinds]
        header += [] if control else [f"LR's {name.upper()}" for name, _ in kinds]
    if control:
        versions = [("recovered", results), ("upscaled", enlarged)]
    else:
        versions = [("", results)]
    if flip := results.get("flip"):
        versions.append(("mirror images averaged", flip))
    rows = []
    for label, scores in versions:
        errors = scores.get("standard_error") or {}
        shown = [scores] if control else [scores, enlarged]
        qualities = [version.get("image_quality") or {} for version in shown] if measured else []
        for rate, values in (scores.get("per_rate") or {}).items():
            row = _score_cells(values, errors.get(rate))
            for quality in qualities:
                pair = ({} if scores is flip else quality).get(rate) or {}
                row += [number(pair.get(name), digits) for name, digits in kinds]
            # At rate 1 nothing is recovered, and both versions are the query itself.
            name = "as it is" if rate == "1" and control and scores is not flip else label
            rows.append([f"r = {rate}" + (f", {name}" if name else ""), *row])
        for name, of in (("mixed", "all queries"), ("mean_lr", "mean LR")):
            if scores.get(name):
                row = _score_cells(scores[name], errors.get(name))
                row += [NOT_MEASURED] * (len(header) - 1 - len(row))
                rows.append([of + (f", {label}" if label else ""), *row])
        rows.append([])
    return header, rows[:-1]


def _score_cells(values, error=None):
    cells = [number(values.get(name)) for name in SCORES]
    if error is not None:
        cells[0] += f" ± {error:.1f}"
    return cells


def number(value, digits=1):
    """A cell: a number as text, or that there is none."""
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"
