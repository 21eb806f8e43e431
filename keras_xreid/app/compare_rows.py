"""The rows of `xreid compare`: runs, what sets each apart, means over seeds, and footnotes."""

import csv
import dataclasses
import hashlib
import itertools
import json
import statistics
from pathlib import Path

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.app import later, provenance, recipes, settings
from keras_xreid.data.resolution import lr_rates
from keras_xreid.evaluation.queries import read_queries
from keras_xreid.report.runs import images_seen, read_metrics

flops = later("keras_xreid.evaluation.flops")

# Options that say on what a run was done, which the footnotes tell, or where and how fast.
NOT_A_VARIANT = (
    "data", "data_dir", "split", "fold", "protocol", "split_id", "rates", "query_rates", "seed",
    "workers", "compiled", "reid", "out", "resume", "overwrite", "command", "changed",
    "began_from_sha256",
)  # fmt: skip
SHARED = tuple(
    field.name
    for kind in settings.GROUPS.values()
    for field in dataclasses.fields(kind)
    if field.name not in (*settings.STRONG_PAIRS, *settings.STRONG, "learning_rate")
    or field.name in ("batch_size", "train_rates", "kernel", "erase")
)


def read_run(folder):
    """The metrics of a finished run, with its folder; refuses what is not finished."""
    card, folder = hub.named(folder), Path(folder)
    if card:
        return {**card, "weights": str(folder), "folder": folder}
    begun = (folder / "options.json").exists()
    if begun and not (folder / "report.md").exists():
        raise xr.InputError(f"the run in {folder} is not finished: go on with it with --resume")
    metrics = read_metrics(folder / "metrics.json", needed=("system", "per_rate"))
    return {**metrics, "folder": folder}


def options_of(run):
    """What a run was told, with the backbone and the backend that it took."""
    told = dict(run.get("options") or {})
    for name in ("weights", "reid"):
        if told.get(name) and told[name] == provenance.began_from(told):
            started, sha256 = provenance.started_as(told), told.get("began_from_sha256")
            # A folder says nothing elsewhere; the first digits of what lay in it do.
            own = f"RUN-{sha256[:8]}" if sha256 else Path(started).name
            told[name] = started if hub.named(started) else own
    return {**told, "backbone": run.get("backbone"), "backend": run.get("backend")}


def defaults_of(system, preset="tiny"):
    """Defaults of a system's recipe; those that all recipes share where it has none."""
    try:
        options = recipes.options(system)
    except xr.InputError:
        options = settings.Nothing
    return settings.plain(settings.defaults(options, preset))


def variants(runs):
    """What each run's options say that sets it apart, in the spelling of the command line.

    An option of its own recipe is named where it is not the default; one that all recipes share
    where the runs differ in it. A run with nothing of its own to name names its defaults that are
    words, `--train-on hr`, and that other runs of its system have otherwise.
    """
    texts = []
    for run in runs:
        default = defaults_of(run["system"], run.get("preset") or "tiny")
        own, words, shared = [], [], []
        for name, value in options_of(run).items():
            if name in NOT_A_VARIANT:
                continue
            common_to_all = name in SHARED or name == "backend"
            differ = any(
                options_of(other).get(name, default.get(name)) != value
                for other in runs
                if common_to_all or other["system"] == run["system"]
            )
            if common_to_all:
                shared += [spelled(name, value)] if differ else []
            elif value != default.get(name, value):
                own.append(spelled(name, value))
            elif differ and isinstance(value, str):
                words.append(spelled(name, value))
        if "weights" in run:  # scores of xreid evaluate
            own += [f"weights {run['weights']}", *scored_otherwise(run)]
        if on := adapted_on(run):  # by a file, which is named, or on the gallery
            own.append(on if on.startswith("adapted by ") else "adapted")
        texts.append(", ".join(filter(None, [*(own or words), *shared])))
    return texts


def scored_otherwise(run):
    """What `xreid evaluate` was told beside the weights and the data, as it is typed."""
    told, cameras = run.get("score_as"), run.get("test_cameras")
    if isinstance(told, dict):
        told = " ".join(f"{rate}={as_rate:g}" for rate, as_rate in told.items())
    parts = [
        "rerank" * bool(run.get("reranked")),
        f"score-as {told}" if told else "",
        f"degradation camera, strength {run['strength']:g}" if run.get("strength") else "",
        f"test-cameras {' '.join(map(str, cameras))}" if cameras else "",
    ]
    return list(filter(None, parts))


def spelled(name, value):
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return f"{name} {value}" if value not in (None, "") else ""


def joined(runs):
    """The rows of the table: runs that differ in nothing but the seed are one."""
    groups = {}
    for run, variant in zip(runs, variants(runs), strict=True):
        # Which training images keep their label the seed draws, too.
        labels = (run.get("options") or {}).get("labeled_fraction", 1)
        images = (labels != 1 and tested_sha256(run)) or run.get("manifest_sha256")
        on = (run.get("dataset"), run.get("protocol"), images, people_of(run))
        groups.setdefault((run["system"], variant, *on), []).append(run)
    rows = []
    for (system, variant, *_), members in groups.items():
        for a, b in itertools.combinations(members, 2):
            if a.get("seed") == b.get("seed"):
                raise xr.InputError(
                    f"{a['folder']} and {b['folder']} hold the same system, variant and seed: "
                    "give one of them"
                )
        rows.append(row_of(system, variant, members))
    return rows


def adapted_on(run):
    """What a run's statistics of batch normalization were measured on; None: as trained."""
    return (run.get("adapted") or {}).get("on")


def tested_sha256(run):
    """The SHA-256 of a run's manifest without its training images; None where it has none."""
    manifest = run["folder"] / "manifest.jsonl"
    if not manifest.is_file():
        return None
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
        tested = [line for line in lines if json.loads(line)["role"] != "train"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise xr.InputError(f"{manifest} is no manifest of a run: {error!r}") from error
    return hashlib.sha256("\n".join(tested).encode()).hexdigest()


def people_of(run):
    """Who was to be found: "test", "dev", which is its fold 0, or "dev, fold 1"."""
    return str(run.get("split")) + (f", fold {run['fold']}" if run.get("fold") else "")


def row_of(system, variant, runs):
    """One row: means over the runs, which differ in their seed."""

    def mean(values):
        values = list(values)
        return None if None in values or not values else statistics.mean(values)

    def deviation(values):
        return None if None in values or len(runs) == 1 else statistics.stdev(values)

    rates = sorted(set.intersection(*(set(run["per_rate"]) for run in runs)), key=float)
    scores = {rate: [run["per_rate"][rate]["rank1"] for run in runs] for rate in rates}
    mixed = [(run.get("mixed") or {}).get("rank1") for run in runs]
    errors = {rate: deviation(values) for rate, values in {**scores, "mixed": mixed}.items()}
    if len(runs) == 1:
        errors = runs[0].get("standard_error") or {}
    lr = [run.get("mean_lr") or {} for run in runs]
    rank1 = [scores.get("rank1") for scores in lr]
    cost = runs[0].get("to_embed")
    if not cost:
        cost = dict(zip(("parameters", "flops"), cost_of_run(runs[0]["folder"]), strict=True))
    return {
        "name": ", ".join(filter(None, [system, variant])),
        "system": system,
        "variant": variant,
        "runs": runs,
        "rank1": {rate: mean(values) for rate, values in scores.items()},
        "error": errors,
        "mixed": mean(mixed),
        "mixed_error": errors.get("mixed"),
        "mean_lr": mean(rank1),
        "mean_lr_error": deviation(rank1),
        "mAP": mean(scores.get("mAP") for scores in lr),
        "mINP": mean(scores.get("mINP") for scores in lr),
        "parameters": cost["parameters"] or runs[0].get("parameters"),
        "flops": cost["flops"],
        "query_ms": mean(run.get("query_ms") for run in runs),
        "embed_ms": mean(
            1000 / run["embedded_per_second"] if run.get("embedded_per_second") else None
            for run in runs
        ),
        "images": mean(images_of(run) for run in runs),
        "seconds": mean(run.get("seconds") for run in runs),
    }


def flip_of(row):
    """Mean LR of averages of image and mirror image; None where the model makes none."""
    values = [((run.get("flip") or {}).get("mean_lr") or {}).get("rank1") for run in row["runs"]]
    return None if None in values else statistics.mean(values)


def error_of_mean(run, variant):
    """The standard error of a run's mean LR over its queries; None where it is not known.

    Without the queries' own scores it is what it is at most: the mean of the rates' errors.
    """
    path, hits = run["folder"] / "queries.csv", {}
    rates = [rate for rate in rates_of_mean(run).split() if rate in run["per_rate"]]
    try:
        found = read_queries(path, variant) if path.exists() else {}
    except xr.InputError:  # from before mirror images were written
        found = {}
    for (query, rate), (_, rank1, *_) in found.items():
        if rate in rates:
            hits.setdefault(query, []).append(rank1)
    if len(hits) > 1 and all(len(of_query) == len(rates) for of_query in hits.values()):
        return statistics.stdev(map(statistics.mean, hits.values())) / len(hits) ** 0.5
    scores = run if variant == "plain" else run["flip"]
    errors = [(scores.get("standard_error") or {}).get(rate) for rate in rates]
    return None if None in errors or not errors else statistics.mean(errors)


def start_of(row):
    """What a row's runs began from, as they were told: "--reid RUN-1a2b3c4d"; else ""."""
    told = [
        f"--{name} {options[name]}"
        for options in map(options_of, row["runs"])
        for name in ("reid", "weights")
        if provenance.began_from({name: options.get(name)})
    ]
    return ", ".join(dict.fromkeys(told))


def rates_of_mean(run):
    """The rates that a run's mean LR is over, if it says so."""
    rates = (run.get("options") or run).get("train_rates")
    return "unknown" if rates is None else " ".join(f"{rate:g}" for rate in lr_rates(rates))


def cost_of_run(folder):
    """The same of a run's model; None where it is not known."""
    try:
        return flops.embedding_cost(xr.load(folder))
    except (xr.InputError, NotImplementedError, TypeError, ValueError) as error:
        # Runs of hours are not kept from their table by what cannot be counted.
        print(f"Parameters and operations of {folder} are not counted: {error}")
        return None, None


def images_of(run):
    """Images that a run has seen in training, over all its stages."""
    seen, history = run.get("images_seen"), run["folder"] / "history.csv"
    if seen is None and history.exists():
        try:
            with open(history, newline="", encoding="utf-8") as file:
                seen = images_seen(csv.DictReader(file))
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise xr.InputError(f"{history} is no history of a run: {error!r}") from error
    return sum(seen.values()) if seen else None


def called(some, rows):
    """Names of some of the rows; a system's own name for all of its rows."""
    names = []
    for row in some:
        of_system = [other for other in rows if other["system"] == row["system"]]
        whole = all(other in some for other in of_system)
        names.append(row["system"] if whole else row["name"])
    return " / ".join(dict.fromkeys(names))


def footnotes(rows):
    """What the numbers belong to, where the rows differ in it, and what the columns are."""

    def of_runs(name):
        return lambda row: ", ".join(dict.fromkeys(str(run.get(name)) for run in row["runs"]))

    told = {
        "protocol": of_runs("protocol"),
        "data set": of_runs("dataset"),
        "people (--split)": lambda row: people_of(row["runs"][0]),
        "manifest": lambda row: ", ".join(
            dict.fromkeys(str(run.get("manifest_sha256"))[:16] for run in row["runs"])
        ),
        "queries counted": of_runs("queries"),
        "rates of the mean (--train-rates)": lambda row: rates_of_mean(row["runs"][0]),
        "seeds": of_runs("seed"),
        "images seen in training": lambda row: (
            "unknown" if row["images"] is None else f"{row['images']:,.0f}"
        ),
        "preset": of_runs("preset"),
        "backend": of_runs("backend"),
    }
    if any(adapted_on(run) for row in rows for run in row["runs"]):
        told["batch normalization"] = lambda row: adapted_on(row["runs"][0]) or "as trained"
    same, different = [], []
    for what, value_of in told.items():
        values = {}
        for row in rows:
            values.setdefault(value_of(row), []).append(row)
        if len(values) == 1:
            same.append(f"{what} {next(iter(values))}")
        else:
            found = "; ".join(f"{value} ({called(of, rows)})" for value, of in values.items())
            different.append(f"Not like for like, {what}: {found}.")
    for what, applies in (
        ("Short runs (--limit or --steps)", lambda run: run.get("short_run")),
        ("Trained on the people searched for (--everyone)", provenance.is_of_everyone),
    ):
        if found := [row for row in rows if any(map(applies, row["runs"]))]:
            different.append(f"{what}, scores mean nothing: {called(found, rows)}.")
    first = [(row, start) for row in rows if (start := start_of(row))]
    if first:
        told = "; ".join(f"{row['name']} ({start})" for row, start in first)
        different.append(f"Images and minutes of what a run began from are not counted: {told}.")
    several = any(len(row["runs"]) > 1 for row in rows)
    single = any(len(row["runs"]) == 1 for row in rows)
    errors = ["one standard error over the queries"] if single else []
    errors += ["the deviation over seeds, where a row has several"] if several else []
    return [
        f"The same in every row: {', '.join(same)}.",
        *different,
        f"Rank-1 in percent; ± is {'; or '.join(errors)}. Mean LR (rank-1), mAP and mINP are "
        "means over the low-resolution rates of --train-rates. Parameters and GFLOPs: between an "
        "image of the query and its embedding, a multiply-add counts as 2; parameters of the whole "
        "model where GFLOPs are not known. Images: seen in training, a pair of an HR and an LR "
        "image counts as two. Minutes include scoring.",
    ]
