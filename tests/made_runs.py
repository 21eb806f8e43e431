"""Run folders written by hand, as a finished recipe leaves them."""

import dataclasses
import json

import keras

from keras_xreid.app import recipes, settings
from keras_xreid.evaluation.ranking import SCORES
from keras_xreid.report.runs import PAIRED

RATES = ("1", "2", "3", "4", "8")


def made_run(folder, system="baseline", rank1=80.0, seed=0, images=3200, options=(), **changes):
    """A finished run: rank-1 falls by 10 from rate to rate; other scores follow it.

    Args:
        folder: where to write it.
        system: name of a recipe; another one has the options of the baseline.
        rank1: at rate 1.
        seed: its seed.
        images: seen in training, half of them in each of two epochs.
        options: dict of options that are not the recipe's default.
        **changes: of metrics.json.

    Returns:
        What was written to metrics.json.
    """
    known = system if system in recipes.names() else "baseline"
    defaults = dataclasses.asdict(settings.defaults(recipes.options(known)))
    told = {**defaults, "seed": seed, **dict(options), "backend": keras.backend.backend()}
    told = {k: v for k, v in told.items() if k not in ("out", "resume", "overwrite")}

    def scores(value):
        values = (value, value + 4, value + 5, value + 6, value - 8, value - 30)
        return dict(zip(SCORES, values, strict=True))

    metrics = {
        "system": system,
        "dataset": told["data"],
        "split": told["split"],
        "fold": told["fold"] if told["split"] == "dev" else None,
        "protocol": "each-rate",
        "manifest_sha256": "0123456789abcdef" * 4,
        "backend": keras.backend.backend(),
        "preset": "tiny",
        "backbone": "resnet_tiny",
        "seed": seed,
        "parameters": 1_500_000,
        "seconds": 90.0,
        "per_rate": {rate: scores(rank1 - 10 * i) for i, rate in enumerate(RATES)},
        "mean_lr": scores(rank1 - 20),
        "standard_error": dict.fromkeys(RATES, 2.25),
        "queries": 400,
        "enlarged": None,
        "image_quality": None,
        "short_run": False,
        "options": json.loads(json.dumps(told)),
        **changes,
    }
    folder.mkdir(parents=True)
    half = images // (4 if system in PAIRED else 2)
    rows = [f"{system},{epoch},1.0,10.0,{half / 10}" for epoch in (1, 2)]
    header = "stage,epoch,loss,seconds,images_per_second"
    (folder / "history.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "options.json").write_text(json.dumps(metrics["options"]))
    (folder / "report.md").write_text("# done\n")
    return metrics


def made_queries(folder, hits, each=2):
    """The queries.csv of a run, of people with `each` queries; AP is 60 of a hit and 20 of others.

    Args:
        folder: of a run.
        hits: (queries, rates) array of 0 and 1, whether rank 1 is right at each of `RATES`.
        each: queries of a person.
    """
    lines = ["query,person,camera,rate,variant,rank1,AP,INP"]
    for i, row in enumerate(hits):
        for rate, hit in zip(RATES, row, strict=True):
            scores = f"{100.0 * hit},{20.0 + 40.0 * hit},10.0"
            lines.append(f"query/{i}.jpg,{i // each},1,{rate},plain,{scores}")
            lines.append(f"query/{i}.jpg,{i // each},1,{rate},upscaled,0.0,0.0,0.0")
    (folder / "queries.csv").write_text("\n".join(lines) + "\n")
