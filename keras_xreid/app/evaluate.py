"""Scores saved weights on any data set: only its query and gallery folders are needed.

    xreid evaluate --weights runs/intact-synthetic --data synthetic
    xreid evaluate --weights FILE.weights.h5 --data market1501 --data-dir DIR

It prints the scores at each rate. --out keeps them.
"""

import contextlib
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Literal

import keras_xreid as xr
from keras_xreid import app, files, hub
from keras_xreid.app import folder as folders
from keras_xreid.app import later, provenance
from keras_xreid.app.settings import NAMES, Protocol, changed, strength_of
from keras_xreid.data.manifest import manifest_content, plain_number
from keras_xreid.data.rate import ESTIMATED
from keras_xreid.data.resolution import DEGRADATIONS, check_rates, told_of_large
from keras_xreid.evaluation.queries import write_queries
from keras_xreid.evaluation.speed import query_ms
from keras_xreid.report.tables import score_table, text_table

keras, flops = later("keras"), later("keras_xreid.evaluation.flops")


@dataclasses.dataclass
class Options:
    weights: str
    """Name of published weights, a .weights.h5 file, or the folder of a finished run."""
    data: Literal[NAMES] = "synthetic"
    """Data set."""
    data_dir: str | None = None
    """Folder of the data set; synthetic needs none."""
    split: Literal["test", "dev"] = "test"
    """dev: 50 of the training people, held out."""
    fold: int = 0
    """Which people dev holds out: 0, 1 or 2."""
    protocol: Protocol | None = None
    """each-rate, if not given: every query at every rate, against the full HR gallery. The others
    fix each query's rate, see `xreid build --help`. LR queries are not shrunk: caviar has
    paper then, a csv with rates multi-shot, mlr what it was built by, or multi-shot."""
    split_id: int = 0
    """Which of a data set's splits; a protocol other than each-rate draws anew for each."""
    rates: tuple[float, ...] = (1, 2, 3, 4, 8)
    """Down-sampling rates scored by each-rate."""
    query_rates: tuple[float, ...] = (2, 3, 4)
    """Rates that a protocol's queries are shrunk by, where it draws them; of a paper that tests on
    others, such as 2 4 8, give those."""
    train_rates: tuple[float, ...] = (2, 3, 4)
    """Rates that the mean is taken over."""
    repeats: int = 1
    """Draw cameras and rates of the protocol so often: mean, deviation and 95 % interval."""
    limit: int | None = None
    """Take this many people only."""
    rerank: bool = False
    """Rank by k-reciprocal neighbours (Zhong et al., CVPR 2017)."""
    lpips: bool = False
    """Measure LPIPS of recovered images too, of systems that recover them; downloads AlexNet once
    (233 MB)."""
    degradation: Literal[DEGRADATIONS] = "plain"
    """camera: each-rate's queries get blur, noise and JPEG besides, at the small size, each drawn
    by the query's name. Rate 1 and the gallery stay as they are."""
    strength: float = 0.5
    """How much a camera adds, from 0 (plain shrinking) to 1."""
    adapted: str | None = None
    """Statistics of the cameras: a file of `xreid adapt`, or "gallery", which measures them on the
    gallery's images, without labels; queries are not looked at."""
    test_cameras: tuple[str, ...] = ()
    """Score queries and gallery images of these cameras only."""
    score_as: tuple[str, ...] = ()
    """Rates that the model is told otherwise, 3=2 6=8: images of rate 3 as if they had rate 2; or
    estimated: what xr.estimate_rate sees in each query."""
    out: str | None = None
    """Folder for metrics.json, manifest.jsonl and, of one draw, the queries' scores in queries.csv;
    nothing is written if not given."""


def told_rates(options):
    """Reads --score-as: {rate: rate that the model is told}, or "estimated"."""
    if options.score_as == (ESTIMATED,):
        return ESTIMATED
    found = {}
    for text in options.score_as:
        try:
            rate, told = (float(part) for part in text.split("="))
        except ValueError:
            raise xr.InputError(
                f"--score-as {text}: give RATE=RATE, such as 3=2, or estimated"
            ) from None
        if rate not in options.rates or not told >= 1:
            known = ", ".join(f"{r:g}" for r in options.rates)
            raise xr.InputError(f"--score-as {text}: give one of --rates ({known}) = 1 or more")
        if rate in found:
            raise xr.InputError(f"--score-as gives rate {rate:g} twice: give each rate once")
        check_rates([told])
        found[rate] = told
    return found


def network_of_lpips(asked):
    """LPIPS's network, where it is asked for and can be had; the other scores never wait for it."""
    if not asked:
        return None
    try:
        return later("keras_xreid.evaluation.lpips").load_lpips()
    except xr.InputError as error:
        print(f"LPIPS is left out: {error}")
        return None


def check(options, data):
    """Refuses what would give a wrong number without a word."""
    if options.repeats > 1 and data.protocol == "each-rate":
        raise xr.InputError(
            f"--repeats {options.repeats} with protocol each-rate, which draws nothing: give "
            "another --protocol, or no --repeats"
        )
    if options.score_as not in ((), (ESTIMATED,)) and data.protocol != "each-rate":
        raise xr.InputError(
            f"--score-as with protocol {data.protocol}, which fixes each query's rate: it goes "
            "with each-rate, on queries of high resolution"
        )
    if strength_of(options) and data.protocol != "each-rate":
        raise xr.InputError(
            f"--degradation camera with protocol {data.protocol}, which has shrunk its queries "
            "already: it goes with each-rate"
        )
    each_rate = data.protocol == "each-rate"
    if useless := changed(options, "query_rates" if each_rate else "rates"):
        other = "scores --rates" if each_rate else "takes --query-rates, where it draws rates"
        raise xr.InputError(
            f"{useless[0]} is of no use with protocol {data.protocol}, which {other}: leave it out"
        )
    provenance.refuse_overlap(options.weights, options, options.data_dir, data.query)


@contextlib.contextmanager
def open_folder(out):
    """An empty folder that no other process writes; None where none is given."""
    if out is None:
        yield None
        return
    with folders.locked(out):
        if not folders.is_empty(out):
            raise xr.InputError(f"{out} is not empty: give another --out")
        yield Path(out)


def alike(runs):
    """Runs with what all of them hold: of few queries a draw may lack a rate."""
    if not all(isinstance(run, dict) for run in runs):
        return runs
    names = [name for name in runs[0] if all(name in run for run in runs)]
    parts = {name: alike([run[name] for run in runs]) for name in names}
    return [{name: parts[name][i] for name in names} for i in range(len(runs))]


def averaged(runs):
    """The scores of several draws as those of one run: means, and deviations beside them."""
    names = ("per_rate", "mixed", "mean_lr", "image_quality", "enlarged", "flip", "queries")
    summary = xr.summarise(alike([{name: run.get(name) for name in names} for run in runs]))

    def part(found, name):
        if found is None or "runs" in found:
            return found and found[name]
        return {key: part(value, name) for key, value in found.items()}

    means = {name: part(summary[name], "mean") for name in names}
    # What is not the same for all draws is not told as if it were.
    apart = {"standard_error": None, "queries_per_rate": None}
    for name in ("enlarged", "flip"):
        means[name] = means[name] and {**means[name], **apart}
    return {**means, **apart, "summary": summary}


def interval_table(summary):
    """Rank-1, mAP and mINP of several splits: mean, deviation, 95 % interval of the mean."""
    groups = {f"r = {rate}": scores for rate, scores in summary["per_rate"].items()}
    groups |= {"all queries": summary["mixed"], "mean LR": summary["mean_lr"]}
    rows, titles = [], {"rank-1": "rank1", "mAP": "mAP", "mINP": "mINP"}
    for label, scores in groups.items():
        for title, name in titles.items() if scores else ():
            found = scores[name]
            numbers = (found[n] for n in ("mean", "deviation", "low", "high"))
            rows.append([f"{label}, {title}", *(f"{number:.1f}" for number in numbers)])
    return text_table(["score", "mean", "deviation", "95 % from", "to"], rows)


def beside_card(options, data, results, shrunk):
    """Says whether published weights score here as their card says, on the card's images."""
    entry = hub.entry_of(options.weights)
    on = {"dataset": options.data, "split": options.split, "split_id": options.split_id}
    on["protocol"] = data.protocol
    asked_otherwise = options.score_as or options.rerank or options.limit or strength_of(options)
    asked_otherwise = asked_otherwise or options.adapted or options.test_cameras
    if entry is None or asked_otherwise or any(entry.get(k) != v for k, v in on.items()):
        return
    if (entry.get("fold") or 0) != options.fold:
        return
    apart = apart_from_card(entry, results)
    if apart is None:
        return
    rates = [float(rate) for rate in entry["per_rate"]]
    rows = xr.manifest_rows(data, rates, gallery_rates=rates if shrunk else (1,))
    found = hashlib.sha256(manifest_content(rows)).hexdigest()
    if entry.get("scored_manifest_sha256", found) != found:
        print(f"The card of {options.weights} is of other images, so it is not compared")
    else:
        print(f"The card of {options.weights} differs by {apart:.1f} queries at most")


def apart_from_card(entry, results):
    """The largest difference of a rank-1 from a card's, in queries; None without a common rate."""
    apart = [
        abs(entry["per_rate"][rate]["rank1"] - scores["rank1"]) * results["queries"] / 100
        for rate, scores in results["per_rate"].items()
        if rate in entry["per_rate"]
    ]
    return max(apart, default=None)


def main(options):
    began = time.perf_counter()
    rates = {}
    for rate in options.rates:  # scores are kept by six digits
        rates.setdefault(f"{rate:g}", rate)
    options.rates = tuple(rates.values())
    told = told_rates(options)
    strength_of(options)
    if options.repeats < 1:
        raise xr.InputError(f"--repeats is {options.repeats}: give 1 or more")
    try:
        check_rates(options.train_rates)
    except xr.InputError as error:
        raise xr.InputError(f"--train-rates: {error}") from error
    options.train_rates = tuple(dict.fromkeys(map(plain_number, options.train_rates)))
    model = xr.load(options.weights, precision="float32")
    if options.lpips and not hasattr(model, "recover"):
        raise xr.InputError(
            f"--lpips with {options.weights}, a {type(model).__name__} that recovers no images: "
            "leave it out"
        )
    sets = [
        xr.datasets.load(
            options.data, options.data_dir, split=options.split, image_size=model.image_size,
            need=("query", "gallery"), protocol=options.protocol, split_id=options.split_id,
            seed=seed, rates=options.query_rates, limit=options.limit, fold=options.fold,
            test_cameras=options.test_cameras,
        )
        for seed in range(options.repeats)
    ]  # fmt: skip
    data = sets[0]
    check(options, data)
    if large := told_of_large(data.query, model.image_size, options.rates):
        print(large)
    own = (hub.named(options.weights) or {}).get("dataset", options.data)
    if options.data == "synthetic" != own:
        print(
            f"{options.weights} was trained on {own}; these are scores on the built-in people: for "
            f"its own give --data {own} --data-dir DIR"
        )
    with open_folder(options.out) as folder:
        score(options, model, sets, told, folder, began)


def adapted_on(options):
    """What metrics.json and the report say of --adapted."""
    if options.adapted == "gallery":
        return "adapted on unlabelled gallery images, queries not looked at"
    return f"adapted by {options.adapted}"


def adapted_to(options, model, data, told):
    """The statistics of --adapted; of several draws each has its own gallery."""
    if options.adapted is None:
        return None
    if options.adapted != "gallery":
        return xr.CameraStatistics.load(options.adapted)
    rates = options.rates if data.protocol == "each-rate" else options.query_rates
    print("Adapting to unlabelled gallery images; queries are not looked at")
    if told != ESTIMATED:
        rates = [told.get(rate, rate) for rate in rates]
    return model.adapt(data.gallery, rates={1, *rates})


def score(options, model, sets, told, folder, began):
    """Scores a model on each draw of a data set; writes what was found into a folder, or None."""
    data = sets[0]
    network = network_of_lpips(options.lpips)
    shrunk, strength = getattr(model, "gallery_at_query_rate", False), strength_of(options)
    runs, rows = [], []
    for drawn in sets:
        adapted = adapted_to(options, model, drawn, told)
        result = xr.evaluate(
            model, drawn, options.rates, options.train_rates, told_rates=told, lpips=network,
            reranked=options.rerank, strength=strength, adapted=adapted,
        )  # fmt: skip
        runs.append(result.scores)
        rates = options.rates if shrunk else (1,)
        rows += xr.manifest_rows(drawn, options.rates, gallery_rates=rates, strength=strength)
    results = runs[0]
    if len(runs) > 1:
        results = averaged(runs)
        print(interval_table(results["summary"]) + "\n")
    print(score_table(results))
    if len(runs) == 1:
        beside_card(options, data, results, shrunk)
    if folder is None:
        return
    costs = {
        "to_embed": flops.cost_of(model),
        "query_ms": query_ms(model, result, adapted=adapted),
    }
    # Written last, and at once: a repetition of the command takes an empty folder only.
    metrics = {
        "system": type(model).__name__.lower(),
        "weights": options.weights,
        "weights_sha256": hub.sha256_of(hub.find(options.weights)),
        "dataset": options.data,
        "data_dir": options.data_dir,
        "split": data.split,
        "fold": data.fold if data.split == "dev" else None,
        "protocol": data.protocol,
        "about": data.about or None,
        "gallery_at_query_rate": shrunk or None,
        "split_id": data.split_id,
        # Of what the protocol drew; "seed" is that of a training.
        "protocol_seed": data.seed if data.protocol != "each-rate" and len(runs) == 1 else None,
        "train_rates": options.train_rates,
        "test_cameras": list(options.test_cameras) or None,
        "adapted": adapted and {"on": adapted_on(options), **adapted.about()},
        "repeats": options.repeats,
        "reranked": options.rerank,
        "manifest_sha256": xr.write_manifest(folder / "manifest.jsonl", rows),
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "preset": model.preset,
        "backbone": model.backbone,
        "degradation": options.degradation,
        "strength": strength,
        "score_as": told if told == ESTIMATED else {f"{k:g}": v for k, v in told.items()},
        "seed": None,
        "short_run": bool(options.limit),
        "images_per_second": None,
        "parameters": model.count_params(),
        **costs,
        "seconds": time.perf_counter() - began,
        **results,
    }
    if len(runs) == 1:
        write_queries(folder / "queries.csv", result)
    files.write_json_atomic(folder / "metrics.json", metrics)


def cli():
    app.command(main, Options, __doc__)
