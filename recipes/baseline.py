"""The baseline: a re-identification network trained with cross-entropy, on HR or on HR & LR images.

    KERAS_BACKEND=torch python recipes/baseline.py
    python recipes/baseline.py --train-on hr+lr --data market1501 --data-dir DIR
    python recipes/baseline.py --train-on hr+lr --triplet 1 --labeled-fraction 0.2
    python recipes/baseline.py --train-on hr+lr --octuplet 1 --weights RUN      # fine-tuning

It shows what cross-resolution costs: how far rank-1 falls when the query is shrunk. A batch-hard
triplet or a verification term may be added. A step then holds 4 images of each of 8 people, or as
many as --images-per-person says. With an octuplet term it holds half as many pairs, an HR image and
its LR one.
"""

import dataclasses
from typing import ClassVar, Literal

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.data.resolution import rate_range

# Epochs over all training images; 16 of 7,488 are about 120,000 images.
EPOCHS = {"tiny": 10, "strong": 16, "paper": 60}


@dataclasses.dataclass
class Options:
    PRESETS: ClassVar = {"strong": {"batch_size": 64, "triplet": 1.0}}

    train_on: Literal["hr", "hr+lr"] = "hr"
    """hr: HR images only; hr+lr: every image at rate 1 or one of --train-rates."""
    triplet: float = 0.0
    """Weight of a batch-hard triplet term, 0 for none."""
    verification: float = 0.0
    """Weight of a verification term, 0 for none."""
    octuplet: float = 0.0
    """Weight of an octuplet term, 0 for none: triplets within and between HR and LR images."""
    camera_bn: bool = False
    """Batches of one camera each: batch normalization then learns from one camera at a time. Score
    the run by xreid evaluate --adapted gallery, for its cameras' own statistics."""
    labeled_fraction: float = 1.0
    """Train on this share of each person's images, with as many train steps as on all."""


def main(o):
    from keras_xreid.training.schedules import rising_and_falling

    if o.octuplet and o.train_on == "hr":
        raise xr.InputError("--octuplet compares HR with LR images: give --train-on hr+lr")
    shrinking = ["kernel", "degradation", "strength"]
    app.unused(o, o.train_on == "hr", "--train-on hr shrinks no image", *shrinking)
    app.unused(o, not (o.triplet or o.octuplet), "there is no triplet loss", "unit_triplet")
    run = app.Run("baseline", o, xr.Baseline)
    grouped = bool(o.triplet or o.verification or o.octuplet)
    app.unused(o, not grouped, "without --triplet nobody is grouped", "images_per_person")
    rates = (1,)
    if o.train_on == "hr+lr":
        rates = o.train_rates if rate_range(o.train_rates) else (1, *o.train_rates)

    def batches():
        if not o.octuplet:
            return run.images(grouped, rates=rates, one_camera=o.camera_bn)
        # As many images a step, and people.
        size, k = o.batch_size or 32, max(2, o.images_per_person // 2)
        if size % (2 * k) or size < 4 * k:
            more = f"give a multiple of {2 * k}, {4 * k} or more"
            raise xr.InputError(f"--batch-size is {size}; with --octuplet {more}")
        return run.pairs(batch_size=size // 2, images_per_person=k, one_camera=o.camera_bn)

    images = batches()
    each, an_epoch = images.images_each, len(images)
    epochs = run.epochs(EPOCHS[o.preset] // each, o.epochs)
    if o.labeled_fraction < 1:  # shorter epochs, and more of them
        run.keep_labeled(o.labeled_fraction)
        images = batches()
        epochs = round(epochs * an_epoch / len(images))

    model = xr.Baseline(
        images.people, triplet=o.triplet, verification=o.verification, octuplet=o.octuplet,
        **run.extractor(),
    )  # fmt: skip
    rate = rising_and_falling(epochs * len(images), an_epoch // each, o.learning_rate)
    model.compile(app.adam(model, rate), **run.compiling)
    model.fit(images, epochs=epochs, callbacks=run.callbacks("reid", images))
    run.finish(model, trained_on=rates if o.train_on == "hr" else None)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
