"""The baseline: a re-identification network trained with cross-entropy, on HR or on HR & LR images.

    KERAS_BACKEND=torch python recipes/baseline.py
    python recipes/baseline.py --train-on hr+lr --data market1501 --data-dir DIR
    python recipes/baseline.py --train-on hr+lr --triplet 1 --labeled-fraction 0.2

It shows what cross-resolution costs: how far rank-1 falls when the query is shrunk. A batch-hard
triplet or a verification term may be added; batches then hold 4 images of each of 8 people.
"""

import dataclasses
import math

from common import Options, Run, start  # before Keras: it chooses the backend

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.models.baseline import PRESETS

# Epochs over all training images.
EPOCHS = {"tiny": 10, "paper": 60}
# Images of a person in a batch, where people are grouped.
IMAGES_PER_PERSON = 4


@dataclasses.dataclass
class BaselineOptions(Options):
    train_on: str = "hr"
    """hr: high-resolution images only; hr+lr: every image at rate 1 or one of --train-rates."""
    label_smoothing: float = 0.0
    """Share of the target's probability spread over all people."""
    triplet: float = 0.0
    """Weight of a batch-hard triplet term, 0 for none."""
    verification: float = 0.0
    """Weight of a verification term, 0 for none."""
    labeled_fraction: float = 1.0
    """Train on this share of each person's images, with as many train steps as on all."""


def image_batches(run, rates, triplet, verification):
    """Batches in random order, or of 4 images a person where a term compares people."""
    grouped = {}
    if triplet or verification:
        grouped["people_per_batch"] = run.options.batch_size // IMAGES_PER_PERSON
        grouped["images_per_person"] = IMAGES_PER_PERSON
    return run.batches(xr.ImageBatches, rates=rates, **grouped)


def train_network(
    run, epochs, rates=(1,), label_smoothing=0.0, triplet=0.0, verification=0.0, warm=None
):
    """Trains a re-identification network; also INTACT's first stage.

    The learning rate rises over `warm` steps, one epoch if not given, and then falls.
    """
    batches = image_batches(run, rates, triplet, verification)
    model = xr.Baseline(
        batches.people, preset=run.options.preset, backbone=run.backbone,
        label_smoothing=label_smoothing, triplet=triplet, verification=verification,
    )  # fmt: skip
    steps, warm = epochs * len(batches), warm or len(batches)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, max(1, steps - warm), warmup_target=1e-3, warmup_steps=warm
    )
    optimizers = {part: keras.optimizers.Adam(rate) for part in model.phases()[0].updates}
    model.compile(optimizers, jit_compile=run.options.compiled)
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
        size = options.batch_size
        if weight and (size % IMAGES_PER_PERSON or size < 2 * IMAGES_PER_PERSON):
            raise xr.InputError(
                f"--{name} takes {IMAGES_PER_PERSON} images of each person, and --batch-size is "
                f"{size}: give a multiple of {IMAGES_PER_PERSON}, {2 * IMAGES_PER_PERSON} or more"
            )
    if not 0 < options.labeled_fraction <= 1:
        raise xr.InputError(
            f"--labeled-fraction is {options.labeled_fraction}: give a share above 0, up to 1 (all)"
        )


def keep_labeled(run, fraction):
    """Leaves the run only those training images that keep their label."""
    everyone = run.data.train
    kept = [r for r in xr.hide_labels(everyone, fraction, run.options.seed) if r.person is not None]
    if not kept:
        raise xr.InputError(f"--labeled-fraction is {fraction}: nobody keeps a label; give more")
    run.data = dataclasses.replace(run.data, train=kept)
    print(f"{len(kept)} of {len(everyone)} images keep their label; epochs are shorter, and more")


def main(options):
    check(options)
    run = Run("baseline", options, PRESETS)
    rates = (1,) if options.train_on == "hr" else (1, *options.train_rates)
    terms = {"triplet": options.triplet, "verification": options.verification}
    epochs = run.epochs(EPOCHS[options.preset], options.epochs)
    an_epoch = len(image_batches(run, rates, **terms))
    if options.labeled_fraction < 1:
        keep_labeled(run, options.labeled_fraction)
        epochs = round(epochs * an_epoch / len(image_batches(run, rates, **terms)))
    run.begin()
    model = train_network(run, epochs, rates, options.label_smoothing, **terms, warm=an_epoch)
    run.finish(model)


if __name__ == "__main__":
    start(main, BaselineOptions, __doc__)
