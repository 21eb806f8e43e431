"""Publishes the weights of a finished run: a small file, a line in the index, and a card.

    xreid publish runs/rain-synthetic rain_synthetic

The file goes into weights/, with kernels as float16 and without the critics, which only training
needs, and a row into the table of weights/README.md. It is scored once more as it was stored, and
refused if a score moved by more than one query. So is what is too large for the repository (a file
of 20 MB, 120 MB in all): --to publishes it elsewhere.
"""

import contextlib
import dataclasses
import hashlib
import re
import shlex
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid import app, files, hub
from keras_xreid.app import folder as folders
from keras_xreid.app import later, provenance, recipes, settings
from keras_xreid.app.machine import machine
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.resolution import lr_rates
from keras_xreid.report import report
from keras_xreid.report.runs import read_metrics
from keras_xreid.report.tables import NOT_MEASURED, markdown, markdown_table

keras, flops = later("keras"), later("keras_xreid.evaluation.flops")

FILE_BYTES, ALL_BYTES = 20e6, 120e6
LICENCES = {
    "synthetic": "Apache-2.0",
    "csv": "Apache-2.0 for the weights; trained on pictures of one's own",
    None: "for research use only, as the data set; what is ours in them is under Apache-2.0",
}
SCORES = (
    "per_rate", "mean_lr", "standard_error", "queries", "image_quality", "enlarged", "flip",
)  # fmt: skip
KEPT = (
    "system", "backbone", "preset", "dataset", "split", "fold", "split_id", "protocol", "seed",
    "backend", "keras", "train_rates", "images_seen", "seconds", "parameters", "to_embed", *SCORES,
)  # fmt: skip


# Without these there is no card.
NEEDED = ("system", "dataset", "split", "split_id", "protocol", "per_rate", "queries", "backend",
          "seconds", "images_seen", "data", "manifest_sha256", "options")  # fmt: skip


@dataclasses.dataclass
class Options:
    run: tyro.conf.Positional[str]
    """Folder of a finished run."""
    name: tyro.conf.Positional[str]
    """Name to publish by: letters, digits and underscores."""
    out: str = "weights"
    """Folder of index.json, the files and the cards."""
    to: str | None = None
    """Publish elsewhere: hf://user/name, or a new folder. Weights, entry and card are written."""
    best: bool = False
    """Make these the weights that `xr.load()` takes."""
    data_dir: str | None = None
    """The data set's folder, where it lies elsewhere than the run found it."""
    like: str | None = None
    """Of a run with --everyone: published weights of the same command without it. The card prints
    their scores, and says so."""


def command_of(metrics, began=None):
    """The command line of a run, without where it lay: as it was typed, where it says so."""
    if command := metrics["options"].get("command"):
        return " ".join(began if word == "RUN" else word for word in command.split(" "))
    words = ["python", f"recipes/{metrics['system']}.py"]
    kind = common_options(metrics["system"], metrics["options"]["preset"])
    for name, value in metrics["options"].items():
        if name in ("backend", "data_dir", "workers") or value == kind.get(name, value):
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(kind.get(name), bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    if metrics["options"].get("data_dir"):
        words += ["--data-dir", "DIR"]
    return f"KERAS_BACKEND={metrics['backend']} {shlex.join(words)}"


def common_options(system, preset):
    """Defaults of a recipe."""
    return settings.plain(settings.defaults(recipes.options(system), preset))


def most_different(found, metrics):
    """The largest difference of a rank-1 from the run's, in queries."""
    apart = [
        abs(found["per_rate"][rate]["rank1"] - scores["rank1"])
        for rate, scores in metrics["per_rate"].items()
    ]
    return max(apart) * metrics["queries"] / 100


def embedding_speed(model, images=256, rounds=5):
    """Images a second of `embed`, low-resolution ones in memory: the median of some rounds."""
    pixels = np.zeros((images, *model.image_size, 3), np.uint8)
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        model.embed(pixels, rates=3)
        seconds.append(time.perf_counter() - began)
    return images / float(np.median(seconds[1:]))  # the first one compiles


def speed_here(speed):
    """What an entry says of its speed, and where it was measured."""
    where = "{}, {cores} cores, {cpu}".format(keras.backend.backend(), **machine())
    return {"embedded_per_second": speed, "embedded_on": where}


def write_speeds(out, speeds):
    """Puts speeds that were measured here, a dictionary by name, into cards and index."""
    with folders.locked(out):
        known = files.read_json(out / "index.json")
        for name, speed in speeds.items():
            known[name] |= speed_here(speed)
            files.write_text_atomic(out / f"{name}.md", card(name, known[name]) + "\n")
        write_index(out, known)


def write_index(out, known):
    """Writes the index of all weights, and their page."""
    files.write_text_atomic(out / "README.md", zoo(known) + "\n")
    files.write_json_atomic(out / "index.json", known)
    xr.published.cache_clear()


def card(name, entry, place=None):
    """What there is to know of published weights, as Markdown. `place`: where else they lie."""
    data = entry["data"]["train"]
    like = entry.get("scores_of")
    again = f"xreid evaluate --weights {like or place or name} --data {entry['dataset']}"
    again += "" if entry["dataset"] == "synthetic" else " --data-dir DIR"
    again += "" if entry["split"] == "test" else f" --split {entry['split']}"
    again += f" --fold {entry['fold']}" if entry.get("fold") else ""
    again += f" --split-id {entry['split_id']}" if entry["split_id"] else ""
    again += f" --rates {' '.join(entry['per_rate'])}"
    again += f" --train-rates {' '.join(f'{rate:g}' for rate in entry['train_rates'])}"
    left_out = ", ".join(entry.get("left_out", ())).replace("_", " ")
    rows = [
        ["system, backbone, preset", f"{entry['system']}, {entry['backbone']}, {entry['preset']}"],
        ["trained on", f"{entry['dataset']}: {data['people']} people, {data['images']:,} images"],
        ["images seen", ", ".join(f"{k} {v:,}" for k, v in entry["images_seen"].items())],
        ["command", f"`{entry['command']}`"],
        ["manifest of the run (SHA-256)", f"`{entry['manifest_sha256']}`"],
        ["manifest of query and gallery", f"`{entry['scored_manifest_sha256']}`"],
        ["file", f"{entry['file']}, {entry['bytes'] / 1e6:.1f} MB, SHA-256 `{entry['sha256']}`"],
        *([["left out", f"what only training needs: {left_out}"]] if left_out else []),
        *([["with mirror images averaged", "mean LR rank-1 {rank1:.1f}, mAP {mAP:.1f}".format(
            **entry["flip"]["mean_lr"])]] if (entry.get("flip") or {}).get("mean_lr") else []),
        *([["began from", f"{entry['began_from']}; its images and time are not counted here"]]
          if entry.get("began_from") else []),
        ["time", f"{entry['seconds'] / 60:.1f} min on {entry['backend']}"],
        ["embeds", f"{entry['embedded_per_second']:.0f} images/s on {entry['embedded_on']}"],
        ["licence", entry["licence"]],
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"# {name}",
            report.TASK,
            *(
                [
                    f"**The scores are those of `{like}`**, the same command without `--everyone`. "
                    "These weights were trained on the people searched for, too: on "
                    f"{entry['dataset']} nobody is left to score them by."
                ]
                if like
                else []
            ),
            markdown_table(entry),
            "In percent, protocol each-rate, scored as stored in the file. Every number again: "
            f"`{again}`.",
            markdown(["", ""], rows).replace("--:", ":--"),
        ]
    )


def zoo(index):
    """The page of all published weights: a table of scores, and one of commands."""
    rates = sorted({rate for entry in index.values() for rate in entry["per_rate"]}, key=float)
    header = ["name", "data", *(f"r = {rate}" for rate in rates), "mean LR", "parameters"]
    header += ["images/s", "manifest"]
    scores, commands = [], []
    for name, entry in index.items():
        rank1 = {rate: f"{found['rank1']:.1f}" for rate, found in entry["per_rate"].items()}
        if "1" in rank1:
            rank1["1"] += f" ± {entry['standard_error']['1']:.1f}"
        cost, mean = entry["to_embed"], entry["mean_lr"]
        like = f", scores of {entry['scores_of']}" if entry.get("scores_of") else ""
        scores.append(
            [f"[{name}]({name}.md){like}", entry["dataset"]]
            + [rank1.get(rate, NOT_MEASURED) for rate in rates]
            + [f"{mean['rank1']:.1f}" if mean else NOT_MEASURED]
            + [f"{cost['parameters'] / 1e6:.1f} M" if cost else NOT_MEASURED]
            + [f"{entry['embedded_per_second']:.0f}", f"`{entry['manifest_sha256'][:16]}`"]
        )
        where = f"{entry['bytes'] / 1e6:.1f} MB"
        took = f"{entry['seconds'] / 60:.0f} min"
        commands.append([name, where, f"`{entry['command']}`", took])
    return "\n\n".join(
        [
            "# Published weights",
            '`xr.load("NAME")` returns the model, `xreid evaluate --weights NAME` scores it. '
            "Rank-1 in percent of the test people, protocol each-rate, ± one standard error. "
            "Each card says on which machine and backend so many images a second are embedded.",
            markdown(header, scores, left=2),
            "What made them:",
            markdown(["name", "file", "command", "training"], commands, left=3),
        ]
    )


def main(options):
    if not re.fullmatch(r"\w+", options.name) or options.name.lower() == "readme":
        raise xr.InputError(f"name {options.name!r}: give letters, digits and underscores")
    if options.best and options.to:
        raise xr.InputError("--best with --to: it marks weights of an index, leave one of them out")
    run, out = Path(options.run), Path(options.out)
    if not (run / "report.md").exists():
        raise xr.InputError(f"{run} holds no finished run: give the folder of one")
    metrics = read_metrics(run / "metrics.json", NEEDED)
    if metrics.get("short_run"):
        raise xr.InputError(f"{run} is a short run (--limit or --steps): its scores mean nothing")
    if metrics["protocol"] != "each-rate":
        raise xr.InputError(f"{run} was scored by {metrics['protocol']}: cards are by each-rate")
    if cameras := metrics["options"].get("test_cameras"):
        raise xr.InputError(f"{run} was scored on cameras {', '.join(cameras)}: cards are of all")
    with contextlib.nullcontext() if options.to else folders.locked(out):
        publish(options, run, out, metrics)


def recipe_of(command):
    """A command without --everyone: what two runs have in common that differ in that alone."""
    return [word for word in shlex.split(command) if word != "--everyone"]


def counterpart(options, metrics, known, began):
    """The entry of --like, whose scores a run with --everyone is published with; else None."""
    name, everyone = options.like, provenance.is_of_everyone(metrics)
    if not everyone and name is None:
        return None
    if not everyone:
        raise xr.InputError(f"--like {name}: {options.run} has scores of its own, leave it out")
    if name not in known:
        raise xr.InputError(
            f"{options.run} was trained on everyone, and its scores mean nothing: give --like with "
            f"published weights of the same command without --everyone, not {name}"
        )
    ours, theirs = (recipe_of(c) for c in (command_of(metrics, began), known[name]["command"]))
    if ours != theirs:
        raise xr.InputError(
            f"{name} was made by another command, {shlex.join(theirs)}; this run by "
            f"{shlex.join(ours)}"
        )
    return known[name]


def people_of(run, dataset):
    """Names of those whom a run was trained on, in one line; None of one's own list of people."""
    told = files.read_json(run / "options.json") if (run / "options.json").is_file() else {}
    people = (told.get("inputs") or {}).get("people")
    return " ".join(people) if people and dataset not in provenance.ANYBODY else None


def scores_as_stored(stored, run, metrics, data_dir):
    """Scores of a stored file, and the SHA-256 of the images that they are of."""
    asked, model = metrics["options"], xr.load(stored)
    data = xr.datasets.load(
        metrics["dataset"], data_dir or asked.get("data_dir"), split=metrics["split"],
        image_size=model.image_size, need=("query", "gallery"), protocol="each-rate",
        split_id=metrics["split_id"], fold=metrics.get("fold") or 0,
    )  # fmt: skip
    found = xr.evaluate(model, data, asked["rates"], lr_rates(asked["train_rates"])).scores
    shrunk = asked["rates"] if metrics.get("gallery_at_query_rate") else (1,)
    rows = xr.manifest_rows(data, asked["rates"], gallery_rates=shrunk)
    scored = xr.write_manifest(stored.parent / "manifest.jsonl", rows)
    apart = most_different(found, metrics)
    print(f"As stored, rank-1 differs from the run's by {apart:.1f} queries at most")
    if apart > 1.001:
        raise xr.InputError(f"stored as float16, {run} scores {apart:.1f} queries differently")
    return found, scored


def publish(options, run, out, metrics):
    """Writes weights, card and index; nobody else writes them meanwhile."""
    index = out / "index.json"
    known = files.read_json(index) if index.exists() else {}
    if (began := provenance.started_as(metrics["options"], known)) and began not in known:
        raise xr.InputError(
            f"{run} began from {began}, so that no command makes it: publish a run without --reid "
            "and --weights, or with the name of published weights there"
        )
    if options.name in known:
        raise xr.InputError(f"{options.name} is published already: give another name")
    for path in (out / f"{options.name}.weights.h5", out / f"{options.name}.md"):
        if path.exists() and not options.to:
            raise xr.InputError(f"{path} is there, and no published weights': give another name")
    like = counterpart(options, metrics, known, began)
    # As it was scored, however it was trained.
    model = xr.load(run, precision="float32")
    file = out / f"{options.name}.weights.h5"
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / file.name
        xr.save(model, stored, half=True, critics=False)
        content = stored.read_bytes()
        total = sum(entry["bytes"] for entry in known.values() if entry["file"])
        if not options.to and (len(content) > FILE_BYTES or total + len(content) > ALL_BYTES):
            raise xr.InputError(
                f"{len(content) / 1e6:.1f} MB are too much for {out}, which holds "
                f"{total / 1e6:.1f} of {ALL_BYTES / 1e6:.0f} MB: give --to hf://user/name or a "
                "folder, or take another file out"
            )
        if like:  # nobody is left to score it by
            found, scored = {name: like[name] for name in SCORES}, like["scored_manifest_sha256"]
        else:
            found, scored = scores_as_stored(stored, run, metrics, options.data_dir)
    entry = {
        **{name: {**metrics, **found}.get(name) for name in KEPT},
        **({"everyone": True, "scores_of": options.like} if like else {}),
        "to_embed": flops.cost_of(model),
        "train_rates": lr_rates(metrics["options"]["train_rates"]),
        "data": metrics["data"],
        "people": people_of(run, metrics["dataset"]),
        "command": command_of(metrics, began),
        "began_from": began,
        "manifest_sha256": metrics["manifest_sha256"],
        "scored_manifest_sha256": scored,
        "file": file.name,
        "url": None,
        "left_out": [part for part in model.critics if getattr(model, part) is not None],
        "sha256": hashlib.sha256(content).hexdigest(),
        # By which a run that begins from this one's own folder is known to.
        "run_sha256": file_sha256(run / "model.weights.h5"),
        "bytes": len(content),
        **speed_here(embedding_speed(model)),
        "licence": LICENCES.get(metrics["dataset"], LICENCES[None]),
    }
    if options.to:
        entry["file"] = hub.WEIGHTS
        place = options.to if hub.is_address(options.to) else "FOLDER"
        hub.push(options.to, content, entry, card(options.name, entry, place) + "\n")
        print(f"Published as {options.to}")
        return
    files.write_bytes_atomic(file, content)
    files.write_text_atomic(out / f"{options.name}.md", card(options.name, entry) + "\n")
    if options.best:
        known = {name: {**other, "best": False} for name, other in known.items()}
    known[options.name] = {**entry, "best": options.best}
    write_index(out, known)
    print(f"Published as {options.name}: {out / (options.name + '.md')}, Keras {keras.__version__}")


def cli():
    app.command(main, Options, __doc__)
