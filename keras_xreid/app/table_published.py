"""The published weights, scored again from their files: `xreid tables published`."""

import dataclasses
import shutil
from pathlib import Path

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app import evaluate
from keras_xreid.data.manifest import plain_number
from keras_xreid.report.page import write_page
from keras_xreid.report.runs import read_metrics
from keras_xreid.report.tables import NOT_MEASURED, markdown, text_table


def refuse_others(options):
    """Refuses other tables, and options that have no meaning here: a card says how it is scored."""
    taken = ("tables", "data", "data_dir", "limit", "out")
    changed = [
        f"--{field.name.strip('_').replace('_', '-')}"
        for field in dataclasses.fields(options)
        if field.name not in taken and getattr(options, field.name) != field.default
    ]
    more = [name for name in options.tables if name != "published"]
    if changed or more:
        raise xr.InputError(
            f"published with {', '.join(more + changed)}: it goes alone, and takes --data, "
            "--data-dir, --limit and --out"
        )


def write(options, folder):
    """Scores what is not scored yet, and prints all beside the cards.

    Each name has a folder of `xreid evaluate`, which `xreid compare` takes. Its own name holds the
    beginning of the file's SHA-256 and the --limit, so that other weights of the same name, or
    other people, are scored anew.

    Args:
        options: those of `xreid tables`, of which data, data_dir, limit and out count.
        folder: `Path` to write into.

    Raises:
        InputError: no weights of this data set are published.
        SystemExit: with status 1, where a score is more than one query from its card.
    """
    names = {
        n: entry
        for n, entry in xr.published().items()
        if entry["file"] and not entry.get("scores_of")
    }
    entries = {n: entry for n, entry in names.items() if entry["dataset"] == options.data}
    if not entries:
        raise xr.InputError(f"no weights of {options.data} are published: see xreid weights")
    results = {name: scored(name, entry, options, folder) for name, entry in entries.items()}
    rates = sorted({rate for found in results.values() for rate in found["per_rate"]}, key=float)
    header = ["weights", *(f"r = {rate}" for rate in rates), "mean LR", "queries from the card"]
    rows, wrong, others = [], [], []
    for name, found in results.items():
        scores = [found["per_rate"].get(rate) for rate in rates] + [found.get("mean_lr")]
        cells = [f"{s['rank1']:.1f}" if s else NOT_MEASURED for s in scores]
        own = not options.limit and found["manifest_sha256"] == entries[name].get(
            "scored_manifest_sha256", found["manifest_sha256"]
        )
        apart = evaluate.apart_from_card(entries[name], found) if own else None
        others += [] if own or options.limit else [name]
        rows.append([name, *cells, NOT_MEASURED if apart is None else f"{apart:.1f}"])
        wrong += [name] if (apart or 0) > 1.001 else []
    about = (
        "Rank-1 in percent, from the files. The last column is the largest difference of a rank-1 "
        f"from the card's; of {options.data}, manifests "
        f"{', '.join(sorted({found['manifest_sha256'][:16] for found in results.values()}))}."
    )
    left = [f"{n} ({entry['dataset']})" for n, entry in names.items() if n not in entries]
    notes = [about, *([f"Of other data sets: {', '.join(left)}."] if left else [])]
    if others:
        notes.append(f"Cards of other images, so they are not compared: {', '.join(others)}.")
    print("\n" + "\n\n".join([text_table(header, rows), *notes]))
    text = "\n\n".join(["# Published weights, scored again", markdown(header, rows), *notes]) + "\n"
    page = folder / "published.md"
    write_page(page.with_suffix(".html"), text)
    files.write_text_atomic(page, text)
    print(f"\nWritten to {page}")
    if wrong:
        app.leave(f"not as on the card: {', '.join(wrong)}", status=1)


def scored(name, entry, options, folder):
    """The metrics of one name, by `xreid evaluate` where its folder has none."""
    limit = f"-limit{options.limit}" if options.limit else ""
    place = folder / f"{name}-{entry['sha256'][:8]}{limit}"
    if not (place / "metrics.json").exists():
        print(f"\n== {name}", flush=True)
        if place.exists():  # of a scoring that was interrupted
            shutil.rmtree(place)
        evaluate.main(
            evaluate.Options(
                name, data=options.data, data_dir=options.data_dir, split=entry["split"],
                fold=entry.get("fold") or 0, protocol=entry["protocol"],
                split_id=entry["split_id"], train_rates=tuple(entry["train_rates"]),
                rates=tuple(plain_number(float(rate)) for rate in entry["per_rate"]),
                limit=options.limit, out=str(place),
            )
        )  # fmt: skip
    found = read_metrics(place / "metrics.json", needed=("per_rate", "queries", "manifest_sha256"))
    here, there = options.data_dir, found.get("data_dir", options.data_dir)
    if there != here and (not there or not here or Path(there).resolve() != Path(here).resolve()):
        raise xr.InputError(f"{place} holds scores of {there}, not of {here}: give another --out")
    return found
