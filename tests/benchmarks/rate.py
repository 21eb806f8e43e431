"""How well `keras_xreid.estimate_rate` reads a rate from an image; and how it was fitted.

    python tests/benchmarks/rate.py --data-dir DIR           # the error, on people not fitted to
    python tests/benchmarks/rate.py --data-dir DIR --fit     # writes keras_xreid/data/rate.npz

DIR is Market-1501's folder. Half of the images to fit are its training people's, those of `--split
dev` held out, and half are drawn. Each is shrunk by a rate of 1 to 8 and enlarged, both by a random
kernel, and every second one is stored as JPEG of quality 50 to 95.
"""

import dataclasses
import io

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


def main(options):
    o = options
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
