"""What INTACT's association critic measures on HR, recovered and upscaled images.

    python tests/benchmarks/critic.py RUN --data market1501 --data-dir DIR --split dev

It should grow in this order. Each run is measured by the statistics of the batch, and by the moving
ones. A run folder is needed: published files leave the critics out.
"""

import dataclasses

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.report.tables import text_table

AT_A_TIME = 109  # images a batch, whose statistics count


@dataclasses.dataclass
class Options:
    runs: tyro.conf.Positional[tuple[str, ...]]
    """Folders of INTACT's runs."""
    data: str = "synthetic"
    """Data set."""
    data_dir: str | None = None
    """Its folder."""
    split: str = "test"
    """test or dev: whose queries are looked at."""
    rate: float = 4
    """Down-sampling rate."""


def measured(model, images, by_batch):
    """phi's mean distance between the features of D and of C."""
    from keras import ops

    found = []
    for start in range(0, len(images), AT_A_TIME):
        part = ops.convert_to_tensor(images[start : start + AT_A_TIME])
        fc = model.reid(part, training=False)[0]
        fd = model.discriminator(part, training=by_batch)[0]
        found.append(ops.convert_to_numpy(model.association.distances(fc, fd, by_batch)[0]))
    return float(np.mean(found))


def main(options):
    o, rows = options, []
    for run in o.runs:
        for by_batch in (True, False):
            model = xr.load(run)  # anew: what is measured by the batch moves the moving ones
            data = xr.datasets.load(
                o.data, o.data_dir, split=o.split, image_size=model.image_size,
                need=("query", "gallery"),
            )  # fmt: skip
            high, low = (
                xr.prepare_images(data.query, model.image_size, rates=rate).astype("float32") / 255
                for rate in (1, o.rate)
            )
            images = (high, model.recover(low), low)
            kind = "batch" if by_batch else "moving"
            rows.append([run, kind, *(f"{measured(model, x, by_batch):.4f}" for x in images)])
    print(text_table(["run", "statistics", "HR", "recovered", "upscaled"], rows, left=2))


if __name__ == "__main__":
    app.command(main, Options, __doc__)
