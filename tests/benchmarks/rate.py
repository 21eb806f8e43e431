"""How well `keras_xreid.estimate_rate` reads a rate from an image; and how it was fitted.

    python tests/benchmarks/rate.py --data-dir DIR           # the error, on people not fitted to
    python tests/benchmarks/rate.py --data-dir DIR --fit     # writes keras_xreid/data/rate.npz
    python tests/benchmarks/rate.py --data-dir DIR --weights NAME --adapted NAME

The last one says what a wrong rate costs published weights on the test people: mean rank-1 of
queries of two true rates, each told several. `--adapted` measures batch normalization of each
camera and rate on the gallery first; the rate that is told chooses among its statistics.

DIR is Market-1501's folder. Half of the images to fit are its training people's, those of `--split
dev` held out, and half are drawn. Each is shrunk by a rate of 1 to 8 and enlarged, both by a random
kernel, and every second one is stored as JPEG of quality 50 to 95.
"""

import dataclasses
import io
import tempfile
from pathlib import Path

import keras
import numpy as np
import tyro
from PIL import Image

import keras_xreid as xr
from keras_xreid.data import rate as rates
from keras_xreid.data.resolution import KERNELS
from keras_xreid.report.tables import text_table


@dataclasses.dataclass
class Options:
    data_dir: str
    """Folder of Market-1501."""
    fit: bool = False
    """Fit the network again."""
    images: int = 12000
    """Images to fit, and a sixth of them to test."""
    seed: int = 0
    """Of rates, kernels and the fit."""
    weights: tuple[str, ...] = ()
    """Names, files or run folders: what a wrong rate costs them, in place of the error."""
    adapted: tuple[str, ...] = ()
    """The same of weights that are adapted to each camera and rate."""


TRUE, TOLD = (2, 4), (1, 2, 3, 4, 8)


def drawn(records, count, seed):
    """Images that somebody shrank, enlarged and stored; and the rates."""
    rng = np.random.default_rng(seed)
    found, truth = [], np.where(rng.random(count) < 0.25, 1.0, 2 ** rng.uniform(0, 3, count))
    for one in truth:
        image = records[rng.integers(len(records))].read()
        shrink, enlarge = rng.choice(list(KERNELS), 2)
        small = xr.degrade(image, float(one), shrink)
        height, width = rates.SIZE
        large = Image.fromarray(small).resize((width, height), KERNELS[enlarge])
        if rng.random() < 0.5:
            stored = io.BytesIO()
            large.save(stored, "JPEG", quality=int(rng.integers(50, 96)))
            large = Image.open(stored)
        found.append(np.asarray(large))
    return np.stack(found), truth


def wrong_rates(model, data, adapted=None):
    """Rank-1 by what the model is told of queries: {told: [of each true rate]}.

    Of a model that never uses the rate it is the same for all of them.
    """

    def embed(images, records, told):
        cameras = None if adapted is None else [record.camera for record in records]
        return model.embed(images, told, flip=False, cameras=cameras, adapted=adapted)

    high = xr.prepare_images(data.gallery, model.image_size)
    gallery, found = embed(high, data.gallery, 1), {told: [] for told in TOLD}
    for rate in TRUE:
        low = xr.prepare_images(data.query, model.image_size, rate)
        for told in TOLD:
            distances = model.distances(embed(low, data.query, told), gallery, query_rates=told)
            scores = xr.evaluate_ranking(distances, data.query, data.gallery)
            found[told].append(scores["rank1"])
    return found


def costs_of_wrong_rates(o):
    """The table of --weights and --adapted, a row for each rate told."""
    rows, unused = [], []
    for name, adapts in [*((n, False) for n in o.weights), *((n, True) for n in o.adapted)]:
        model, label = xr.load(name, precision="float32"), f"{name}{', adapted' * adapts}"
        data = xr.datasets.load(
            "market1501", o.data_dir, need=("query", "gallery"), image_size=model.image_size
        )
        if not rows:
            with tempfile.TemporaryDirectory() as folder:
                manifest = xr.manifest_rows(data, TRUE)
                sha256 = xr.write_manifest(Path(folder) / "manifest.jsonl", manifest)
            print(
                f"{len(data.query)} queries, {len(data.gallery)} gallery images, seed 0, "
                f"{keras.backend.backend()}, manifest {sha256[:16]}"
            )
        rates = {1, *TRUE, *TOLD}
        adapted = model.adapt(data.gallery, rates=rates, verbose=False) if adapts else None
        found = wrong_rates(model, data, adapted)
        if len({tuple(scores) for scores in found.values()}) == 1:
            unused.append(label)
        for told, scores in found.items():
            cells = [f"{score:.1f}" for score in (*scores, np.mean(scores))]
            rows.append([label, f"{told}", *cells])
        print(f"{label}: done", flush=True)
    columns = ["weights", "told", *(f"true r = {rate}" for rate in TRUE), "mean"]
    print(text_table(columns, rows, left=1))
    print(f"Told any rate, the same scores: {', '.join(unused) or 'none'}")


def main(options):
    o = options
    if o.weights or o.adapted:
        costs_of_wrong_rates(o)
        return
    market = xr.datasets.load("market1501", o.data_dir, split="dev")
    synthetic = xr.datasets.load("synthetic")
    if o.fit:
        fit(o, market.train, synthetic.train)
    rows = []
    for number, (name, data) in enumerate(
        {"market1501, dev people": market, "synthetic, test people": synthetic}.items()
    ):
        images, truth = drawn(data.query + data.gallery, o.images // 6, [o.seed, 2, number])
        apart = np.abs(np.log2(xr.estimate_rate(images) / truth))
        for low, high in ((1, 1), (1.0001, 2), (2, 4), (4, 8)):
            one = (truth >= low) & (truth <= high)
            rows.append([
                name, "1" if high == 1 else f"{low:.0f} to {high}", f"{one.sum()}",
                f"{100 * (2 ** np.median(apart[one]) - 1):.1f} %",
                f"{100 * np.mean(apart[one] < np.log2(1.25)):.1f} %",
            ])  # fmt: skip
    columns = ["images of", "rate", "images", "median error", "within 25 %"]
    print(text_table(columns, rows))


def fit(o, *people):
    """Fits the network by scikit-learn, and writes its numbers."""
    from sklearn.neural_network import MLPRegressor

    images, truth = map(
        np.concatenate,
        zip(*[drawn(p, o.images // 2, [o.seed, 1, n]) for n, p in enumerate(people)], strict=True),
    )
    x = rates.bands(images)
    mean, deviation = x.mean(0), x.std(0)
    network = MLPRegressor(
        hidden_layer_sizes=(32,), early_stopping=True, random_state=o.seed, max_iter=500
    )
    network.fit((x - mean) / deviation, np.log2(truth))
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    numbers = {"mean": mean, "deviation": deviation, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    np.savez(rates.TABLE, **{name: value.astype("float32") for name, value in numbers.items()})
    rates._table.cache_clear()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
