"""Scores saved weights on any data set: only its query and gallery folders are needed.

python recipes/evaluate.py --weights runs/intact-synthetic --data synthetic
python recipes/evaluate.py --weights FILE.weights.h5 --data market1501 --data-dir DIR
"""

import dataclasses
import time
from pathlib import Path

import common  # first: it chooses the backend

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.evaluation import files, report
from keras_xreid.evaluation.lpips import load_lpips


@dataclasses.dataclass
class EvaluateOptions:
    weights: str
    """A .weights.h5 file, or the folder of a finished run."""
    data: str = "synthetic"
    """Data set: synthetic, market1501, dukemtmc, cuhk03, viper, caviar, mlr or csv."""
    data_dir: str | None = None
    """Folder of the data set; synthetic needs none."""
    split: str = "test"
    """test or dev."""
    protocol: str | None = None
    """each-rate, if not given: every query at every rate, against the full high-resolution gallery;
    or one that fixes each query's rate: paper, paper-camera-per-person, paper-all-queries,
    rain-code, multi-shot, multi-shot-camera-3 (see recipes/build_mlr.py)."""
    split_id: int = 0
    """Which of a data set's splits; a protocol other than each-rate draws anew for each."""
    rates: tuple[float, ...] = (1, 2, 3, 4, 8)
    """Down-sampling rates scored."""
    train_rates: tuple[float, ...] = (2, 3, 4)
    """Rates that the mean is taken over."""
    lpips: bool = False
    """Measure LPIPS of recovered images too; downloads AlexNet once (233 MB)."""
    score_as: tuple[str, ...] = ()
    """Rates that the model is told otherwise, 3=2 6=8: images of rate 3 as if they had rate 2."""
    out: str | None = None
    """Folder for metrics.json and manifest.jsonl; nothing is written if not given."""


def told_rates(options):
    """Reads --score-as: {rate: rate that the model is told}."""
    found = {}
    for text in options.score_as:
        try:
            rate, told = (float(part) for part in text.split("="))
        except ValueError:
            raise xr.InputError(f"--score-as {text}: give RATE=RATE, such as 3=2") from None
        if rate not in options.rates or not told >= 1:
            known = ", ".join(f"{r:g}" for r in options.rates)
            raise xr.InputError(f"--score-as {text}: give one of --rates ({known}) = 1 or more")
        found[rate] = told
    return found


def network_of_lpips(model, asked):
    """LPIPS's network, where it is asked for and can be had; the other scores never wait for it."""
    if not asked or not hasattr(model, "recover"):
        return None
    try:
        return load_lpips()
    except xr.InputError as error:
        print(f"LPIPS is left out: {error}")
        return None


def main(options):
    began = time.perf_counter()
    told = told_rates(options)
    model = xr.load(options.weights)
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, image_size=model.image_size,
        need=("query", "gallery"), protocol=options.protocol, split_id=options.split_id,
    )  # fmt: skip
    folder = Path(options.out) if options.out else None
    if folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise xr.InputError(f"cannot write to {folder}: {error.strerror}") from error
        if any(folder.iterdir()):
            raise xr.InputError(f"{folder} is not empty: give another --out")
    results = xr.evaluate(
        model, data, options.rates, options.train_rates, told_rates=told,
        lpips=network_of_lpips(model, options.lpips),
    )  # fmt: skip
    print(report.score_table(results))
    if folder is None:
        return
    shrunk = getattr(model, "gallery_at_query_rate", False)
    rows = xr.manifest_rows(data, options.rates, gallery_rates=options.rates if shrunk else (1,))
    metrics = {
        "system": type(model).__name__.lower(),
        "weights": options.weights,
        "dataset": options.data,
        "split": options.split,
        "protocol": data.protocol,
        "split_id": data.split_id,
        "manifest_sha256": xr.write_manifest(folder / "manifest.jsonl", rows),
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "preset": model.preset,
        "backbone": model.backbone,
        "score_as": {f"{rate:g}": other for rate, other in told.items()},
        "seed": None,
        "images_per_second": None,
        "parameters": model.count_params(),
        "seconds": time.perf_counter() - began,
        **results,
    }
    files.write_json_atomic(folder / "metrics.json", metrics)


if __name__ == "__main__":
    common.start(main, EvaluateOptions, __doc__)
