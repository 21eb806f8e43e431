"""Tables for the terminal and for the page, and the page itself: `report.md` of a run folder."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from keras_xreid.data.protocols import PROTOCOLS
from keras_xreid.data.resolution import lr_rates
from keras_xreid.errors import InputError
from keras_xreid.evaluation.ranking import SCORES
from keras_xreid.files import write_text_atomic
from keras_xreid.report import papers
from keras_xreid.report.page import write_page

NOT_MEASURED = "-"
HEADINGS = ("rank-1", "rank-5", "rank-10", "rank-20", "mAP", "mINP")

# The paper that stands beside a system, and the data set of its Table 1 where it has not that of
# the run. A baseline stands beside INTACT's, whose Table 1 has the most systems.
PAPERS = {
    "rain": ("RAIN", "MLR-CUHK03"),
    "cadnet": ("CAD-Net", "MLR-CUHK03"),
    "intact": ("INTACT", "MLR-Market-1501"),
    "adaptive": ("Adaptive", "MLR-CUHK03"),
}

# For a reader who did not run it.
TASK = (
    "Person re-identification across resolutions: a picture of a person (the query), shrunk by a "
    "rate r as if a far camera had taken it, is looked for among high-resolution pictures by other "
    "cameras (the gallery). Rank-k says how often the right person is among the first k pictures "
    "found, mAP how early all pictures of the person come, mINP how early the last of them."
)

# Figures of a run in the order of the page, with what to say under each.
CAPTIONS = {
    "recovered.png": "Queries at each rate: shrunk and enlarged (LR), recovered, and the original "
    "(HR). The people are drawn by the seed, not by result.",
    "ranked.png": "What the gallery returns for a query; where recovery can be left out, before "
    "and after it. Solid green with a tick: the right person; dashed red with a cross: somebody "
    "else. Images of the person by the query's own camera are left out.",
    "ranked_by_rate.png": "One query, drawn by the seed, at every rate, framed as above.",
    "masks.png": "What the mask of each resolution level multiplies the channels of each stage by; "
    "all 0.5 would be no mask at all.",
    "rank1.png": "Rank-1 against the rate by which the query was shrunk.",
    "cmc.png": "How often the right person is among the first k, at each rate (CMC).",
    "tsne.png": "Embeddings of some people's queries at every rate, in the plane (t-SNE, by the "
    "model's own distance). The people are drawn by the seed. One cluster a person, with all rates "
    "mixed in it, is what a resolution-invariant embedding looks like.",
    "losses.png": "Loss terms of each stage, mean of each epoch, weighted as they were trained.",
}


def score_table(results):
    """Lays out the scores of every rate as text for the terminal.

    Args:
        results: what `evaluate` returned, or the content of a metrics.json.

    Returns:
        Text of several lines: for each rate rank-1 with its standard error, rank-5, 10, 20, mAP
        and mINP in percent, then their mean over low-resolution rates (--train-rates); where the
        model recovers images, PSNR and SSIM of the recovered and of the merely enlarged query, and
        the latter's scores where they were measured.

    Example:

    >>> print(score_table(evaluate(model, data)))
    """
    return text_table(*_score_rows(results))


def markdown_table(results):
    """Lays out the same as `score_table` in Markdown.

    Args:
        results: what `evaluate` returned, or the content of a metrics.json.

    Returns:
        A Markdown table.

    Example:

    >>> print(markdown_table(json.loads(Path("runs/mine/metrics.json").read_text())))
    """
    return markdown(*_score_rows(results))


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
    cells = [[cell.replace("|", r"\|") for cell in row] for row in [header, rule, *rows] if row]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def count_data(data):
    """Counts the images, people and cameras of a data set, for metrics.json.

    Args:
        data: a `DataSet`.

    Returns:
        A dictionary from "train", "query" and "gallery" to {"images", "people", "cameras"}.
        Distractors (person 0) and images without a label count as images and not as people.

    Example:

    >>> metrics["data"] = count_data(data)
    """
    return {
        role: {
            "images": len(records),
            "people": len({record.person for record in records} - {0, None}),
            "cameras": len({record.camera for record in records}),
        }
        for role in ("train", "query", "gallery")
        for records in [getattr(data, role)]
    }


def read_metrics(path):
    """Reads a metrics.json.

    Args:
        path: the file.

    Returns:
        A dictionary.

    Raises:
        InputError: the file is missing, broken or without scores.

    Example:

    >>> read_metrics(Path("runs/mine/metrics.json"))["per_rate"]["4"]["rank1"]
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no metrics.json in {path.parent}: is this a finished run?") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(metrics, dict) or not (metrics.get("per_rate") or metrics.get("mixed")):
        raise InputError(f"{path} holds no scores: expected an object with per_rate")
    return metrics


# Stages whose batches are pairs, an image at high and one at low resolution.
PAIRED = ("intact", "rain", "cadnet", "adaptive")


def images_seen(rows):
    """Counts the training images that each stage has seen.

    Args:
        rows: rows of a history, dictionaries with "stage", "seconds" and "images_per_second";
            the values may be text, as read from history.csv.

    Returns:
        A dictionary from stage to int; a pair of an HR and an LR image counts as two.

    Example:

    >>> with open("runs/mine/history.csv", newline="") as file:
    ...     images_seen(csv.DictReader(file))
    {'reid': 16000, 'intact': 12800}
    """
    seen = {}
    for row in rows:
        images = round(float(row["seconds"]) * float(row["images_per_second"]))
        images *= 2 if row["stage"] in PAIRED else 1
        seen[row["stage"]] = seen.get(row["stage"], 0) + images
    return seen


def write_report(folder):
    """Writes `report.md` of a run from its metrics.json and figures, and `report.html` of it.

    Args:
        folder: run folder; metrics.json must be there, figures are shown where they are.

    Returns:
        Path of `report.md`, which is written last.

    Raises:
        InputError: metrics.json is missing, broken or without scores.

    Example:

    >>> write_report("runs/intact-synthetic")
    """
    folder = Path(folder)
    metrics = read_metrics(folder / "metrics.json")
    sections = [
        f"# {metrics.get('system', 'model')} on {metrics.get('dataset', 'a data set')}",
        TASK,
        _in_words(metrics),
        "## Scores",
        markdown_table(metrics),
        _about_scores(metrics),
        *_figures(folder),
        *_beside_papers(metrics),
        "## How it was made",
        *_how_it_was_made(metrics),
    ]
    text = "\n\n".join(part for part in sections if part) + "\n"
    if importlib.util.find_spec("markdown_it") is not None:
        write_page(folder / "report.html", text)
    else:  # a finished run is not lost for that
        print('report.html is left out: pip install "keras-xreid[recipes]"')
    write_text_atomic(folder / "report.md", text)
    return folder / "report.md"


def _score_rows(results):
    enlarged = results.get("enlarged") or {}
    measured = results.get("image_quality") is not None
    control = bool(enlarged.get("per_rate"))
    header = ["query", *HEADINGS]
    if measured:
        found = [scores for scores in results["image_quality"].values() if scores.get("lpips")]
        kinds = [("psnr", 1), ("ssim", 3), *([("lpips", 3)] if found else [])]
        header += [name.upper() for name, _ in kinds]
        header += [] if control else [f"LR's {name.upper()}" for name, _ in kinds]
    if control:
        versions = [("recovered", results), ("merely enlarged", enlarged)]
    else:
        versions = [("", results)]
    if flip := results.get("flip"):
        versions.append(("mirror images averaged", flip))
    rows = []
    for label, scores in versions:
        errors = scores.get("standard_error") or {}
        shown = [scores] if control else [scores, enlarged]
        qualities = [version.get("image_quality") or {} for version in shown] if measured else []
        for rate, values in scores["per_rate"].items():
            row = _score_cells(values, errors.get(rate))
            for quality in qualities:
                pair = ({} if scores is flip else quality).get(rate) or {}
                row += [_number(pair.get(name), digits) for name, digits in kinds]
            # At rate 1 nothing is recovered, and both versions are the query itself.
            name = "as it is" if rate == "1" and control and scores is not flip else label
            rows.append([f"r = {rate}" + (f", {name}" if name else ""), *row])
        if scores.get("mixed"):
            row = _score_cells(scores["mixed"], errors.get("mixed"))
            row += [NOT_MEASURED] * (len(header) - 1 - len(row))
            rows.append(["all queries" + (f", {label}" if label else ""), *row])
        if scores.get("mean_lr"):
            row = _score_cells(scores["mean_lr"])
            row += [NOT_MEASURED] * (len(header) - 1 - len(row))
            rows.append(["mean LR" + (f", {label}" if label else ""), *row])
        rows.append([])
    return header, rows[:-1]


def _score_cells(values, error=None):
    cells = [_number(values.get(name)) for name in SCORES]
    if error is not None:
        cells[0] += f" ± {error:.1f}"
    return cells


def _number(value, digits=1):
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def _in_words(metrics):
    """The result in one sentence."""
    mean, enlarged = metrics.get("mean_lr"), metrics.get("enlarged") or {}
    short = ""
    if metrics.get("short_run"):
        short = "**A short run (--limit or --steps): its scores mean nothing.**\n\n"
    if not mean:
        return short.strip()
    over = lr_rates((metrics.get("options") or metrics).get("train_rates", (2, 3, 4)))
    rates = ", ".join(f"{r:g}" for r in over if f"{r:g}" in metrics["per_rate"])
    if not enlarged.get("mean_lr"):
        return f"{short}Mean rank-1 over the rates {rates}: {mean['rank1']:.1f} %."
    difference = mean["rank1"] - enlarged["mean_lr"]["rank1"]
    return (
        f"{short}Over the rates {rates}, the right person comes first for "
        f"{mean['rank1']:.1f} % of the recovered queries and for "
        f"{enlarged['mean_lr']['rank1']:.1f} % of the merely enlarged ones: "
        f"{difference:+.1f} points."
    )


def _about_scores(metrics):
    text = "In percent"
    counts = metrics.get("queries_per_rate")
    if counts:
        told = ", ".join(f"{count:,} at rate {rate}" for rate, count in counts.items())
        text += f", {metrics['queries']:,} queries counted, {told}"
    elif metrics.get("queries"):
        text += f", {metrics['queries']:,} queries counted at each rate"
    text += ". ± is one standard error. "
    protocol = metrics.get("protocol") or "each-rate"
    if protocol in PROTOCOLS:
        rule = PROTOCOLS[protocol]
        summary = rule.summary
        if metrics.get("gallery_at_query_rate"):
            summary = "every query at every rate, against a gallery shrunk by the same rate"
        text += f"Protocol {protocol}: {summary}. The images of a person by the query's own "
        text += "camera are left out. "
        if rule.gallery_shots:
            text += (
                "CMC is the mean of "
                + (f"{rule.gallery_draws} drawn galleries" if rule.gallery_draws else "all draws")
                + " of one image a person, mAP and mINP are those of the full gallery. "
            )
    enlarged = metrics.get("enlarged")
    if enlarged and not enlarged.get("per_rate"):
        text += (
            "PSNR (decibels) and SSIM (Gaussian window 11 x 11, sigma 1.5) compare the recovered "
            "image with the high-resolution one at the network's size, in RGB; LR's: the query "
            "merely enlarged."
        )
    elif enlarged:
        text += (
            "PSNR (decibels) and SSIM (Gaussian window 11 x 11, sigma 1.5) compare the query with "
            "its high-resolution image at the network's size, in RGB."
        )
    return text.strip()


def _figures(folder):
    """Known figures first and in order, others after them by name."""
    found = sorted(path.name for path in (folder / "figures").glob("*.png"))
    names = [name for name in CAPTIONS if name in found]
    names += [name for name in found if name not in CAPTIONS]
    parts = ["## Figures"] if names else []
    for name in names:
        caption = CAPTIONS.get(name, name.removesuffix(".png").replace("_", " "))
        parts += [f"![{caption.split('.')[0]}](figures/{name})", f"*{caption}*"]
    return parts


def _beside_papers(metrics):
    """The paper's Table 1 for this data set, or for its first one where it has no such table."""
    # Papers print scores of all queries, their rates mixed; of each-rate the mean comes nearest.
    paper, first = PAPERS.get(metrics.get("system"), ("INTACT", "MLR-Market-1501"))
    name = papers.DATASETS.get(metrics.get("dataset"))
    known = papers.rows(paper, 1, name) if name else []
    rows = known or papers.rows(paper, 1, first)
    names = list(rows[0].scores)
    mixed = metrics.get("mixed")
    ours, what = (mixed, "all queries") if mixed else (metrics.get("mean_lr") or {}, "mean LR")
    label = f"{metrics.get('system', 'ours')} (this run, {what})"
    table = [[label, *(_number(ours.get(score)) for score in names)]]
    enlarged = (metrics.get("enlarged") or {}).get("mixed" if mixed else "mean_lr")
    if enlarged:
        cells = [_number(enlarged[score]) for score in names]
        table.append([f"merely enlarged (this run, {what})", *cells])
    for row in rows:
        cells = [_number(row.scores[score]) for score in names]
        table.append([f"{row.model} (paper)", *cells])
    note = f"Papers' rows: {papers.REFERENCES[paper]}, Table 1, {rows[0].dataset}. "
    if mixed and PROTOCOLS[metrics["protocol"]].gallery_shots:
        note += (
            "Ours is their protocol as far as they tell it; which images they drew nobody knows."
        )
    else:
        note += (
            "They were measured on MLR queries (rates mixed) against a single-shot gallery, so "
            "they stand beside ours for orientation and are not to be ranked with them."
        )
    if not known:
        note += f" They are of another data set than {metrics.get('dataset', 'this one')}, too."
    parts = ["## Beside the papers", markdown(["", *HEADINGS[: len(names)]], table), note]
    # Table 2 of both papers; RAIN's says nothing of images.
    if metrics.get("enlarged") and paper in ("INTACT", "CAD-Net"):
        parts += _quality_beside_paper(metrics, paper)
    return parts


def _quality_beside_paper(metrics, paper):
    """Recovered images: pixels that look closer are not people found more often."""
    headings = {"ssim": "SSIM", "psnr": "PSNR", "lpips": "LPIPS", "rank1": "rank-1"}
    digits = {"ssim": 2, "psnr": 1, "lpips": 2, "rank1": 1}
    printed = papers.rows(paper, 2)
    names = [name for name in headings if name in printed[0].scores]
    table = []
    for mixed, wanted in ((True, ("2", "3", "4")), (False, ("8",))):
        rows = [row for row in printed if (row.rate is None) == mixed]
        for label, scores in (("recovered", metrics), ("merely enlarged", metrics["enlarged"])):
            quality = scores.get("image_quality") or {}
            rates = [rate for rate in wanted if (quality.get(rate) or {}).get("psnr")]
            if not rates or not rows:
                continue
            what = f"mean of r = {', '.join(rates)}" if mixed else "r = 8"
            found = {"rank1": scores.get("per_rate") or {}}
            cells = []
            for name in names:
                values = [found.get(name, quality).get(rate, {}).get(name) for rate in rates]
                mean = None if None in values else np.mean(values)
                cells.append(_number(mean, digits[name]))
            table.append([f"{label} (this run, {what})", *cells])
        for row in rows:
            cells = [_number(row.scores[name], digits[name]) for name in names]
            table.append([f"{row.model} (paper{'' if mixed else ', r = 8'})", *cells])
    if len(table) == len(printed):
        return []  # this run has nothing to stand beside them
    note = "Papers' rows: the same paper, Table 2, MLR-CUHK03."
    if paper == "INTACT":
        note += " Sole SR is supervised by MSE alone: the best pixels and the worst rank-1."
    return [markdown(["", *(headings[name] for name in names)], table), note]


def _how_it_was_made(metrics):
    """Everything else in metrics.json that is a plain value, and the counts of the data."""
    apart = {
        "flip",
        "per_rate",
        "mean_lr",
        "enlarged",
        "image_quality",
        "standard_error",
        "queries",
        "queries_per_rate",
        "mixed",
        "data",
        "seconds",
    }
    rows = []
    command = (metrics.get("options") or {}).get("command")
    if command:
        rows.append(["command", f"`{command}`"])
        apart.add("options")
    for key, value in metrics.items():
        if key not in apart and value is not None:
            rows.append([key.replace("_", " "), _setting(value)])
    if metrics.get("seconds") is not None:
        rows.append(["time", _time(metrics["seconds"])])
    parts = [markdown(["setting", "value"], rows).replace("--:", ":--")] if rows else []
    if isinstance(metrics.get("data"), dict):
        counts = [
            [role, *(f"{count.get(name, 0):,}" for name in ("images", "people", "cameras"))]
            for role, count in metrics["data"].items()
            if isinstance(count, dict)
        ]
        parts.append(markdown(["data", "images", "people", "cameras"], counts))
    return parts


def _setting(value):
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_setting(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(part)}" for key, part in value.items())
    return str(value)


def _time(seconds):
    if isinstance(seconds, dict):
        return ", ".join(f"{key} {_time(part)}" for key, part in seconds.items())
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
