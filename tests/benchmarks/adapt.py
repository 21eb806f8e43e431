"""What statistics of each camera are worth: the tables of docs/tutorials/your-cameras.md.

    python tests/benchmarks/adapt.py --weights NAME --data synthetic-b
    python tests/benchmarks/adapt.py --weights RUN --data market1501 --data-dir DIR --split dev
    python tests/benchmarks/adapt.py --weights NAME --data synthetic-b --images 8 16 32 64 128

Each row embeds queries and gallery with other statistics of batch normalization: as published; of
all cameras together; of each camera, from high resolution; of each camera and rate. They come from
gallery images without labels; queries are not looked at. With --images it is the last row, from so
many images of each camera, drawn by --seeds seeds. Scores are averages of mirror images where the
model makes them. Brackets hold what a row gains over the first one in the mean of r = 2, 3 and 4,
and the 95 % interval of a bootstrap over people, as `xreid compare` computes it.
"""

import argparse
import dataclasses
import hashlib
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_xreid as xr
from keras_xreid.app import provenance
from keras_xreid.evaluation.paired import paired_difference
from keras_xreid.evaluation.queries import read_queries, write_queries

ROWS = ("published", "together", "together-rate", "camera", "camera-rate")


class Kept:
    """A model that embeds no image twice by the same statistics."""

    def __init__(self, model):
        self.model, self.kept = model, {}

    def __getattr__(self, name):
        return getattr(self.model, name)

    def embed(self, images, rates, cameras=None, adapted=None, **options):
        digest = hashlib.sha256(np.ascontiguousarray(images).data)
        digest.update(f"{rates} {options}".encode())
        for camera in dict.fromkeys(cameras or ()):
            digest.update(f"{camera}".encode())
            digest.update(np.ascontiguousarray(adapted.at(camera, rates)).data)
        key = digest.digest()
        if key not in self.kept:
            found = self.model.embed(images, rates, cameras=cameras, adapted=adapted, **options)
            self.kept[key] = found
        return self.kept[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", default="synthetic-b")
    parser.add_argument("--data-dir")
    parser.add_argument("--split", default="test")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--split-id", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--test-cameras", nargs="*", default=())
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--images", type=int, nargs="*", default=())
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = xr.load(options.weights, precision="float32")
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, fold=options.fold,
        need=("query", "gallery"), image_size=model.image_size, limit=options.limit,
        test_cameras=options.test_cameras,
    )  # fmt: skip
    provenance.refuse_overlap(options.weights, options, options.data_dir, data.query)
    rates, kept = [float(rate) for rate in options.rates], Kept(model)
    cameras = sorted({str(record.camera) for record in data.query + data.gallery})
    count = [sum(str(r.camera) == camera for r in data.gallery) for camera in cameras]
    print(
        f"{options.weights} on {options.data} {options.split}, {len(data.query)} queries, gallery "
        f"images of cameras {' '.join(cameras)}: {count}"
    )
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.jsonl"
        sha256 = xr.write_manifest(manifest, xr.manifest_rows(data, rates))
    print(f"Seed 0, {keras.backend.backend()}, manifest {sha256[:16]}")
    titles = " | ".join(f"r = {rate:g}" for rate in rates)
    print(f"| statistics from | score | {titles} | beside the first row | CPU time |")
    print(f"|{' --- |' * (len(rates) + 4)}")
    low = [f"{rate:g}" for rate in rates if rate in (2, 3, 4)]
    first = []  # the queries' scores of the first row

    def row(name, adapted, seconds):
        result = xr.evaluate(kept, data, rates, verbose=False, adapted=adapted)
        flip = result.scores["flip"]
        per_rate, apart = (flip or result.scores)["per_rate"], {}
        with tempfile.TemporaryDirectory() as folder:
            write_queries(Path(folder) / "queries.csv", result)
            found = read_queries(Path(folder) / "queries.csv", "flip" if flip else "plain")
        if not first:
            first.append(found)
        elif low:
            apart = paired_difference([found], first, low)
        for score, mean in (("rank1", "mean_lr"), ("mAP", "mAP")):
            told = " | ".join(f"{per_rate[f'{rate:g}'][score]:.1f}" for rate in rates)
            gain = "{difference:+.1f} [{low:+.1f}, {high:+.1f}]" if apart else ""
            gain = gain.format(**apart.get(mean, {}))
            print(f"| {name} | {score} | {told} | {gain} | {seconds:.0f} s |", flush=True)
        return [per_rate[f"{rate:g}"]["rank1"] for rate in rates]

    def measured(where=None, **more):
        return model.adapt(data.gallery, where, {1.0, *rates}, verbose=False, least=1, **more)

    def high(adapted):
        """Of high resolution only."""
        values = {camera: value[:1] for camera, value in adapted.values.items()}
        return dataclasses.replace(adapted, rates=(1.0,), values=values)

    if options.images:
        row("training people, as published", None, 0)
        for most in options.images:
            found = []
            for seed in range(options.seeds):
                began = time.process_time()
                adapted = measured(most=most, seed=seed)
                seconds = time.process_time() - began
                found.append(row(f"{most} images a camera, seed {seed}", adapted, seconds))
            mean = " | ".join(f"{value:.1f}" for value in np.mean(found, axis=0))
            print(f"| {most} images a camera, mean | rank1 | {mean} | | |", flush=True)
        return
    if "published" in options.rows:
        row("training people, as published", None, 0)
    for what in ("camera", "together"):
        wanted = [name for name in options.rows if name.startswith(what)]
        if not wanted:
            continue
        began = time.process_time()
        if what == "camera":
            name, adapted = "each camera", measured()
        else:  # one camera, whose statistics all have
            name, adapted = "all cameras together", measured("all", most=512)
            values = dict.fromkeys(cameras, adapted.values["all"])
            adapted = dataclasses.replace(adapted, values=values)
        seconds = time.process_time() - began
        if f"{what}-rate" in wanted:
            row(f"{name}, each rate", adapted, seconds)
        if what in wanted:
            row(f"{name}, HR images", high(adapted), seconds)


if __name__ == "__main__":
    main()
