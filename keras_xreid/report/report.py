"""The page of a run: `report.md`, and `report.html` of it."""

import importlib.util
import re
import urllib.parse
from pathlib import Path

import numpy as np

from keras_xreid.data.protocols import PROTOCOLS
from keras_xreid.data.resolution import lr_rates
from keras_xreid.files import write_text_atomic
from keras_xreid.report import papers
from keras_xreid.report.page import write_page
from keras_xreid.report.runs import read_metrics
from keras_xreid.report.tables import HEADINGS, NOT_MEASURED, markdown, markdown_table, number

# For a reader who did not run it.
TASK = (
    "A query is an image of a person, shrunk by a rate r as if a far camera had taken it. It is "
    "searched for among high-resolution images by other cameras, the gallery. Rank-k says how "
    "often the right person is among the first k images found. mAP says how early all images of "
    "the person come, mINP how early the last of them comes."
)

# Figures of a run in the order of the page, with what to say under each.
CAPTIONS = {
    "recovered.png": "Queries: upscaled (LR), recovered, and the original (HR). The people are "
    "drawn by the seed, not by result.",
    "ranked.png": "What the gallery returns for a query. Where recovery can be left out, the list "
    "is shown without and with it. Solid green with a tick: the right person. Dashed red with a "
    "cross: somebody else. Images of the person by the query's own camera are left out.",
    "ranked_by_rate.png": "One query, drawn by the seed, at every rate, framed as above.",
    "masks.png": "What the mask of each resolution level multiplies the channels of each stage by. "
    "All 0.5 would be no mask at all.",
    "rank1.png": "Rank-1 against the rate by which the query was shrunk.",
    "cmc.png": "How often the right person is among the first k, at each rate (CMC).",
    "tsne.png": "Embeddings of some people's queries at every rate, in the plane. The places are "
    "t-SNE's, by the model's own distance. The people are drawn by the seed. A "
    "resolution-invariant embedding shows one cluster a person, with all rates mixed in it.",
    "losses.png": "Loss terms of each stage, weighted as they were trained: the mean of each "
    "epoch.",
}

# What is not a setting: it has its own place on the page, or none.
APART = {
    "adapted", "data", "enlarged", "flip", "image_quality", "mean_lr", "mixed", "per_rate",
    "queries", "queries_per_rate", "seconds", "standard_error",
}  # fmt: skip


def write_report(folder, metrics=None):
    """Writes `report.md` of a run from its metrics and figures, and `report.html` of it.

    Args:
        folder: run folder; figures are shown where they are.
        metrics: what its metrics.json holds; read from there if not given.

    Returns:
        Path of `report.md`, which is written last.

    Raises:
        InputError: metrics.json is needed, and missing, broken or without scores.

    Example:

    >>> write_report("runs/intact-synthetic")
    """
    folder = Path(folder)
    metrics = metrics or read_metrics(folder / "metrics.json")
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
        print('report.html is left out: pip install -e ".[recipes]"')
    write_text_atomic(folder / "report.md", text)
    return folder / "report.md"


def _in_words(metrics):
    """The result in one sentence."""
    mean, enlarged = metrics.get("mean_lr"), metrics.get("enlarged") or {}
    short = ""
    if metrics.get("short_run"):
        short = "**A short run (--limit or --steps): its scores mean nothing.**\n\n"
    if (metrics.get("options") or {}).get("everyone"):
        short += "**Trained on the people searched for (--everyone): its scores mean nothing.**\n\n"
    if not mean:
        return short.strip()
    over = lr_rates((metrics.get("options") or metrics).get("train_rates") or (2, 3, 4))
    rates = ", ".join(f"{r:g}" for r in over if f"{r:g}" in (metrics.get("per_rate") or {}))
    if not enlarged.get("mean_lr"):
        return f"{short}Mean rank-1 over the rates {rates}: {mean['rank1']:.1f} %."
    difference = mean["rank1"] - enlarged["mean_lr"]["rank1"]
    return (
        f"{short}Over the rates {rates}, the right person comes first for "
        f"{mean['rank1']:.1f} % of the recovered queries and for "
        f"{enlarged['mean_lr']['rank1']:.1f} % of the upscaled ones: "
        f"{difference:+.1f} points."
    )


def _about_scores(metrics):
    counted = ""
    if metrics.get("queries"):
        counts = metrics.get("queries_per_rate") or {}
        told = [f", {count:,} at rate {rate}" for rate, count in counts.items() if count]
        if metrics.get("mixed") and (rest := metrics["queries"] - sum(counts.values())):
            told.append(f", {rest:,} at a rate that nobody knows")
        counted = f", {metrics['queries']:,} queries counted" + ("".join(told) or " at each rate")
    sentences = [f"In percent{counted}.", "± is one standard error."]
    protocol = metrics.get("protocol") or "each-rate"
    if rule := PROTOCOLS.get(protocol):
        summary = metrics.get("about") or rule.summary
        if metrics.get("gallery_at_query_rate"):
            summary = "every query at every rate, against a gallery shrunk by the same rate"
        sentences += [
            f"Protocol {protocol}: {summary}.",
            "Images of a person by the query's own camera are left out.",
        ]
        if rule.gallery_shots:
            draws = f"{rule.gallery_draws} drawn galleries" if rule.gallery_draws else "all draws"
            sentences += [
                f"CMC is the mean of {draws} of one image a person.",
                "mAP and mINP are those of the full gallery.",
            ]
    if adapted := metrics.get("adapted"):
        images = adapted.get("images") or {}
        told = ", ".join(f"{count} of camera {name}" for name, count in images.items())
        told = f" ({told})" if told else ""
        sentences.append(f"Batch normalization: {adapted.get('on')}{told}.")
    if enlarged := metrics.get("enlarged"):
        beside = "The columns named LR's have the upscaled query."
        sentences += [
            "PSNR (decibels) and SSIM (Gaussian window 11 x 11, sigma 1.5) compare the query with "
            "its high-resolution image, at the network's size, in RGB.",
            "" if enlarged.get("per_rate") else beside,
        ]
    return " ".join(sentences).strip()


def _figures(folder):
    """Known figures first and in order, others after them by name."""
    found = sorted(path.name for path in (folder / "figures").glob("*.png"))
    names = [name for name in CAPTIONS if name in found]
    names += [name for name in found if name not in CAPTIONS]
    parts = ["## Figures"] if names else []
    for name in names:
        caption = CAPTIONS.get(name, name.removesuffix(".png").replace("_", " "))
        parts += [f"![{caption.split('.')[0]}](figures/{urllib.parse.quote(name)})", f"*{caption}*"]
    return parts


def _beside_papers(metrics):
    """The paper's Table 1 for this data set, or for another one where it has no such table."""
    # Papers print scores of all queries, their rates mixed; of each-rate the mean comes nearest.
    # A baseline stands beside INTACT's, whose Table 1 has the most systems.
    paper = papers.OF_SYSTEM.get(metrics.get("system"), "INTACT")
    name, rows = papers.rows_beside(paper, 1, metrics.get("dataset"))
    names = list(rows[0].scores)
    mixed = metrics.get("mixed")
    ours, what = (mixed, "all queries") if mixed else (metrics.get("mean_lr") or {}, "mean LR")
    label = f"{metrics.get('system', 'ours')} (this run, {what})"
    table = [[label, *(number(ours.get(score)) for score in names)]]
    enlarged = (metrics.get("enlarged") or {}).get("mixed" if mixed else "mean_lr")
    if enlarged:
        cells = [number(enlarged.get(score)) for score in names]
        table.append([f"upscaled (this run, {what})", *cells])
    for row in rows:
        cells = [number(row.scores[score]) for score in names]
        table.append([f"{row.model} (paper)", *cells])
    note = f"Papers' rows: {papers.REFERENCES[paper]}, Table 1, {rows[0].dataset}. "
    rule = PROTOCOLS.get(metrics.get("protocol"))
    if mixed and rule and rule.gallery_shots:
        note += "Ours is their protocol as far as they tell it. Which images they drew is unknown."
    else:
        note += (
            "They were measured on MLR queries, rates mixed, against a single-shot gallery. They "
            "are here for orientation: do not rank ours among them."
        )
    if name != papers.DATASETS.get(metrics.get("dataset")):
        note += f" They are of another data set than {metrics.get('dataset', 'this one')}."
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
        for label, scores in (("recovered", metrics), ("upscaled", metrics["enlarged"])):
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
                cells.append(number(mean, digits[name]))
            table.append([f"{label} (this run, {what})", *cells])
        for row in rows:
            cells = [number(row.scores[name], digits[name]) for name in names]
            table.append([f"{row.model} (paper{'' if mixed else ', r = 8'})", *cells])
    if len(table) == len(printed):
        return []  # this run has nothing to stand beside them
    note = "Papers' rows: the same paper, Table 2, MLR-CUHK03."
    if paper == "INTACT":
        note += " Sole SR is supervised by MSE alone: the best pixels and the worst rank-1."
    return [markdown(["", *(headings[name] for name in names)], table), note]


def _how_it_was_made(metrics):
    """Everything else in metrics.json that is a plain value, and the counts of the data."""
    rows, apart = [], APART
    if command := (metrics.get("options") or {}).get("command"):
        rows.append(["command", f"`{command}`"])
        apart = APART | {"options"}
    for key, value in metrics.items():
        if key not in apart and value is not None:
            rows.append([_as_text(key.replace("_", " ")), _as_text(_setting(value))])
    if metrics.get("seconds") is not None:
        rows.append(["time", _time(metrics["seconds"])])
    parts = [markdown(["setting", "value"], rows).replace("--:", ":--")] if rows else []
    if isinstance(metrics.get("data"), dict):
        counts = [
            [role, *(f"{count.get(name) or 0:,}" for name in ("images", "people", "cameras"))]
            for role, count in metrics["data"].items()
            if isinstance(count, dict)
        ]
        parts.append(markdown(["data", "images", "people", "cameras"], counts))
    return parts


def _as_text(value):
    """A value that Markdown takes for no link and no emphasis, as a path may look like them."""
    return re.sub(r"[\\`*\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", value)


def _setting(value):
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return " ".join(_setting(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(part)}" for key, part in value.items())
    return str(value)


def _time(seconds):
    if isinstance(seconds, dict):
        return ", ".join(f"{key} {_time(part)}" for key, part in seconds.items())
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
