"""The baseline: a re-identification network trained with cross-entropy, on HR or on HR & LR images.

    KERAS_BACKEND=torch python recipes/baseline.py
    python recipes/baseline.py --train-on hr+lr --data market1501 --data-dir DIR
    python recipes/baseline.py --train-on hr+lr --triplet 1 --labeled-fraction 0.2

It shows what cross-resolution costs: how far rank-1 falls when the query is shrunk. A batch-hard
triplet or a verification term may be added; steps then hold 4 images of each of 8 people, see
--images-per-person.
"""

import dataclasses
import math
from typing import ClassVar

# Before Keras: it chooses the backend.
from common import (
    BackboneOptions,
    Run,
    check_groups,
    check_unused,
    l2_of,
    rising_and_falling,
    start,
    tricks,
)

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.data.resolution import rate_range
from keras_xreid.models.baseline import PRESETS

# Epochs over all training images; 16 of 7,488 are about 120,000 images.
EPOCHS = {"tiny": 10, "strong": 16, "paper": 60}


@dataclasses.dataclass
class BaselineOptions(BackboneOptions):
    PRESETS: ClassVar = {
        "strong": {**BackboneOptions.PRESETS["strong"], "batch_size": 64, "triplet": 1.0}
    }

    train_on: str = "hr"
    """hr: high-resolution images only; hr+lr: every image at rate 1 or one of --train-rates."""
    triplet: float = 0.0
    """Weight of a batch-hard triplet term, 0 for none."""
    verification: float = 0.0
    """Weight of a verification term, 0 for none."""
    labeled_fraction: float = 1.0
    """Train on this share of each person's images, with as many train steps as on all."""


def train_network(run, epochs, rates=(1,), triplet=0.0, verification=0.0, warm=None, **step):
    """Trains a re-identification network; also INTACT's first stage.

    The learning rate rises over `warm` steps, one epoch if not given, and then falls. `step`:
    batch size and images of a person, where they are not the options'.
    """
    o = run.options
    batches = run.batches(xr.ImageBatches, bool(triplet or verification), rates=rates, **step)
    model = xr.Baseline(
        batches.people, preset=o.preset, backbone=run.backbone, triplet=triplet,
        verification=verification, unit_triplet=o.unit_triplet,
        weights=run.starting_weights(o.weights), **tricks(o),
    )  # fmt: skip
    steps, warm = epochs * len(batches), warm or len(batches)
    rate = rising_and_falling(steps, warm, o.learning_rate)
    optimizers = {part: keras.optimizers.Adam(rate) for part in model.phases()[0].updates}
    model.compile(optimizers, jit_compile=o.compiled, l2=l2_of(model, o))
    run.fit("reid", model, batches, epochs)
    return model


def check(options):
    """Refuses bad values of this recipe's own options."""
    if options.train_on not in ("hr", "hr+lr"):
        raise xr.InputError(f"--train-on {options.train_on!r}: give hr or hr+lr")
    for name in ("triplet", "verification"):
        weight = getattr(options, name)
        if not 0 <= weight < math.inf:
            raise xr.InputError(f"--{name} is {weight}: give a weight of 0 (none) or more")
        if weight:
            check_groups(options, options.batch_size or 32, f"--{name}")
    if not (options.triplet or options.verification):
        check_unused(options, ("images_per_person",), "without --triplet nobody is grouped")
    if not 0 < options.labeled_fraction <= 1:
        raise xr.InputError(
            f"--labeled-fraction is {options.labeled_fraction}: give a share above 0, up to 1 (all)"
        )


def keep_labeled(run, fraction):
    """Leaves the run only those training images that keep their label."""
    records = xr.hide_labels(run.records, fraction, run.options.seed)
    kept = [record for record in records if record.person is not None]
    if not kept:
        raise xr.InputError(f"--labeled-fraction is {fraction}: nobody keeps a label; give more")
    print(f"{len(kept)} of {len(records)} images keep their label; epochs are shorter, and more")
    run.records = kept


def main(options):
    check(options)
    run = Run("baseline", options, PRESETS)
    rates = (1,)
    if options.train_on == "hr+lr":
        ranged = rate_range(options.train_rates)
        rates = options.train_rates if ranged else (1, *options.train_rates)
    terms = {"triplet": options.triplet, "verification": options.verification}
    epochs = run.epochs(EPOCHS[options.preset], options.epochs)
    grouped = any(terms.values())
    an_epoch = len(run.batches(xr.ImageBatches, grouped))
    if options.labeled_fraction < 1:
        keep_labeled(run, options.labeled_fraction)
        epochs = round(epochs * an_epoch / len(run.batches(xr.ImageBatches, grouped)))
    run.begin()
    model = train_network(run, epochs, rates, **terms, warm=an_epoch)
    run.finish(model, trained_on=rates if options.train_on == "hr" else None)


if __name__ == "__main__":
    start(main, BaselineOptions, __doc__)
