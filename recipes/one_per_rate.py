"""The rival of Table III of the resolution-adaptive system: a network for each rate.

    KERAS_BACKEND=torch python recipes/one_per_rate.py
    python recipes/one_per_rate.py --data market1501 --data-dir DIR

Each network is trained on images of its own rate, and all together see about as many images as
recipes/adaptive.py shows: with --epochs 12 each of three networks has 8 epochs. To search, the
gallery is shrunk to each query's rate and embedded anew.
"""

import dataclasses
from typing import ClassVar

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.data.resolution import lr_rates

# Epochs of a system that sees each image twice; shared among the networks.
EPOCHS = {"tiny": 12, "strong": 8, "paper": 120}


@dataclasses.dataclass
class Options:
    PRESETS: ClassVar = {
        "tiny": {"images_per_person": 2},
        "paper": {"images_per_person": 2},
        "strong": app.STRONG_PAIRS,
    }


def main(o):
    from keras_xreid.training.schedules import in_stages

    app.unused(o, o.preset == "paper", "--preset paper has its own", "learning_rate")
    app.unused(o, True, "there is no triplet loss", "unit_triplet")
    run = app.Run("one_per_rate", o, xr.OnePerRate)
    if run.data.protocol != "each-rate":
        raise xr.InputError(
            f"the gallery is shrunk like the query here, and protocol {run.data.protocol} does not "
            "do that: give --protocol each-rate, and a data set with HR queries (not caviar or mlr)"
        )
    if not (rates := lr_rates(o.train_rates)):
        raise xr.InputError("--train-rates has no whole rate above 1: give one for each network")
    k = 2 * o.images_per_person
    size = 2 * run.pairs().batch_size  # images, where the others have pairs, of as many people
    batches = [
        run.images(grouped=True, rates=(rate,), batch_size=size, images_per_person=k)
        for rate in rates
    ]
    model = xr.OnePerRate(
        batches[0].people, rates=rates, weights=run.starting_weights(), **run.network
    )
    epochs = max(1, round(2 * run.epochs(EPOCHS[o.preset], o.epochs) / len(model.rates)))
    for rate, network in zip(model.rates, model.networks, strict=True):
        images = batches[rates.index(rate)]
        schedule = in_stages(o.preset, epochs, len(images), peak=o.learning_rate)
        network.compile(app.adam(network, schedule), **run.compiling)
        network.fit(images, epochs=epochs, callbacks=run.callbacks(f"rate{rate:g}", images))
    run.finish(model)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
