"""Trains toys for some steps, alone or as one of several processes; `test_processes.py` runs it.

python tests/processes_worker.py FOLDER OUT.npz intact rain
"""

import sys
from pathlib import Path

import keras
import numpy as np
import small
from PIL import Image

import keras_xreid as xr
from keras_xreid._backend import place
from keras_xreid.training.norms import TermNorms


def sgd():
    return keras.optimizers.SGD(1e-4, momentum=0.9)


# Adam divides by the size of a gradient. Where that is rounding alone (a bias before batch
# normalization), two runs step apart; the baseline has no such weight.
OPTIMIZERS = {"baseline": lambda: keras.optimizers.Adam(1e-3)}


def drawn(folder):
    """Eight smooth images of each of five people, as records; the first process draws them."""
    records = []
    for number in range(8 * small.PEOPLE):
        path = Path(folder) / f"{number}.png"
        if not path.exists():
            rng = np.random.default_rng([7, number])
            coarse = Image.fromarray(rng.integers(0, 255, (8, 4, 3), "uint8"))
            coarse.resize((32, 64), Image.Resampling.BILINEAR).save(path)
        records.append(xr.Record(str(path), number // 8, camera=number % 4))
    return records


def batches_of(kind, records, **given):
    """Five batches of two images, or pairs, of each of four people, with all that is random."""
    return kind(
        records, image_size=small.SIZE, rates=(2, 3, 4), people_per_batch=4, images_per_person=2,
        erase=True, jitter=True, kernel="random", strength=0.5, **given,
    )  # fmt: skip


@keras.saving.register_keras_serializable("tests")
class Thinned(keras.Model):
    """A backbone that draws random numbers in each step, with a batch normalization of its own."""

    def __init__(self, **kwargs):
        x = image = keras.Input((None, None, 3))
        levels = {}
        for i, strides in enumerate((4, 1, 2, 2, 1), start=1):
            x = keras.layers.Conv2D(4 + i, 3, strides, "same", data_format="channels_last")(x)
            x = keras.layers.BatchNormalization(renorm=i == 2)(x)
            x = levels[f"P{i}"] = keras.layers.ReLU()(x)
            x = keras.layers.GaussianNoise(0.1, seed=i)(keras.layers.Dropout(0.2, seed=i)(x))
        super().__init__(image, x, **kwargs)
        self.pyramid_outputs = levels

    def get_config(self):
        return {}


def thinned(**given):
    return small.baseline(backbone=Thinned(), **given)


def trained(name, records):
    """A toy after its steps: weights by place, the logs, and how far the farthest weight went."""
    make, kind, given, more = {
        "intact": (small.intact, xr.PairBatches, {"match": 1.0, "pixel_scale": 1.0}, {}),
        "rain": (small.rain, xr.PairBatches, {}, {}),
        # One step: from 1e-6 after it, another order of the rows takes it 3e-3 apart after five.
        "cadnet": (small.cadnet, xr.PairBatches, {}, {"independent": True, "steps": 1}),
        "adaptive": (small.adaptive, xr.PairBatches, {"neck": True}, {}),
        "baseline": (small.baseline, xr.ImageBatches, {"neck": True, "label_smoothing": 0.1}, {}),
        "by_batch": (small.baseline, xr.ImageBatches, {"neck": True}, {}),
        "thinned": (thinned, xr.ImageBatches, {"octuplet": 0.0}, {}),
        "distilled": (small.distilled, xr.PairBatches, {}, {}),
    }[name]  # fmt: skip
    model, batches = make(**given), batches_of(kind, records, **more)
    # In one order in all processes, which a set has not.
    parts = dict.fromkeys(part for phase in model.phases() for part in phase.updates)
    model.compile({part: OPTIMIZERS.get(name, sgd)() for part in parts}, l2=1e-3)
    before = model.get_weights()
    if name == "by_batch" and place()[0]:  # they begin with those of the first process
        model.set_weights([w + 1 for w in before])
    norms = [TermNorms(batches)] if name == "rain" else []
    if name == "by_batch":
        told = [model.train_on_batch(batches[i], return_dict=True) for i in range(len(batches))]
        told = {term: [float(told[-1][term])] for term in told[-1]}
    else:
        told = model.fit(batches, epochs=1, verbose=0, callbacks=norms).history
    # By place: the number in a name counts the layers that the process built before.
    found = {f"{i} {v.name}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.weights)}
    logs = {f"log {term}": values[-1] for term, values in told.items()}
    moved = zip(before, model.get_weights(), strict=True)
    return {**found, **logs, "log moved": max(np.abs(a - b).max() for a, b in moved)}


def main(folder, out, *names):
    records = drawn(folder)
    found = {f"{n}: {k}": v for n in names for k, v in trained(n, records).items()}
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
