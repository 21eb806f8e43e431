"""Trains a toy on one JAX device, then on two; `test_distribution.py` runs it where there are two.

python tests/distribution_worker.py FOLDER OUT.npz intact
"""

import contextlib
import sys

import keras
import numpy as np
import processes_worker
import small

from keras_xreid.errors import InputError
from keras_xreid.training.phases import PhasedModel


def rows_by_device(x):
    """Which rows of an array lie on which device, [[0, 4], [4, 8]]."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.device.id)
    return [shard.index[0].indices(len(x))[:2] for shard in shards]


@contextlib.contextmanager
def watched(seen):
    """Inside, `fit` notes which rows of a step's batch and how many copies of weights lie where."""
    plain = PhasedModel.make_train_function

    def make(self, force=False):
        plain(self, force)
        step = self.train_function

        def train(state, iterator):
            data = next(iterator)
            arrays = [x for x in keras.tree.flatten(data) if x is not None]
            seen["rows"] = [rows_by_device(x) for x in arrays]
            seen["copies"] = [
                len(x.sharding.device_set) if x.is_fully_replicated else 0
                for x in keras.tree.flatten(state)
            ]
            return step(state, iter([data]))

        self.train_function = train

    PhasedModel.make_train_function = make
    yield
    PhasedModel.make_train_function = plain


def trained(name, records):
    keras.utils.set_random_seed(3)  # of layers whose seed nobody gave
    return processes_worker.trained(name, records)


def refused(model):
    """What is said of three images, and which embeddings of three images `predict` finds."""
    batch = {name: value[:3] for name, value in small.images().items()}
    try:
        model.train_on_batch(batch)
    except InputError as error:
        said = str(error)
    return {"said": said, "predicted": model.predict(batch["image"], verbose=0),
            "embedded": model.embed(batch["image"])}  # fmt: skip


def main(folder, out, name):
    records = processes_worker.drawn(folder)
    seen, on_one = {}, trained(name, records)
    with keras.distribution.DataParallel().scope():
        with watched(seen):
            on_two = trained(name, records)
        found = {**seen, **refused(small.compiled(small.baseline(), rate=0))}
    for kind, values in (("one", on_one), ("two", on_two)):
        found |= {f"{kind}: {key}": value for key, value in values.items()}
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
