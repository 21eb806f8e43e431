"""Distilled: a student of any resolution beside a frozen HR teacher (Shin et al., 2303.04681).

    KERAS_BACKEND=torch python recipes/distilled.py
    python recipes/distilled.py --reid RUN --data market1501 --data-dir DIR
    python recipes/distilled.py --relation-weight 0     # an ablation

Stage 1 trains the re-identification network on HR images; --reid takes a finished one. It is the
teacher then, and where the student starts. In stage 2 the student sees one view of each image, at
rate 1 or at one of --train-rates, and the teacher the same crop at HR. A step takes 4 images of
each of several people. At the end every query is scored at every rate.
"""

import dataclasses
from typing import ClassVar

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.data.resolution import rate_range

REID_EPOCHS = {"tiny": 10, "strong": 16, "paper": 60}  # of stage 1
EPOCHS = {"tiny": 10, "strong": 16, "paper": 60}  # of stage 2


@dataclasses.dataclass
class Options:
    PRESETS: ClassVar = {
        "tiny": {"kernel": "random"},
        "strong": {"batch_size": 64, "triplet": 1.0},
        "paper": {"kernel": "random"},
    }

    tap_weight: float = 20.0
    """Weight of the mean of 1 - cosine over the feature maps of student and teacher."""
    relation_weight: float = 4.0
    """Weight of 1 - cosine of the relations between images of a person."""
    triplet: float = 0.0
    """Weight of a batch-hard triplet term in both stages, 0 for none."""
    reid_epochs: int | None = None
    """Epochs of stage 1; the preset's schedule if not given."""
    reid: str | None = None
    """The teacher: a published HR baseline, or the folder of a run; skips stage 1."""


def main(o):
    from keras_xreid.training.schedules import rising_and_falling

    app.unused(o, o.reid, "--reid skips stage 1", "reid_epochs", "weights")
    run = app.Run("distilled", o, xr.Distilled)
    rates = o.train_rates if rate_range(o.train_rates) else (1, *o.train_rates)
    pairs = run.pairs(rates=rates, batch_size=o.batch_size or 32)
    pairs.images_each = 1  # the student learns from one view; the teacher's costs minutes

    if o.reid:  # stage 1: the teacher, on HR images
        reid = run.trained_network(o.reid, pairs.people)
    else:
        images = run.images(o.triplet > 0, rates=(1,))
        reid = xr.Baseline(images.people, triplet=o.triplet, **run.extractor())
        epochs = run.epochs(REID_EPOCHS[o.preset], o.reid_epochs)
        rate = rising_and_falling(epochs * len(images), len(images), o.learning_rate)
        reid.compile(app.adam(reid, rate), **run.compiling)
        reid.fit(images, epochs=epochs, callbacks=run.callbacks("reid", images))
        xr.save(reid, run.folder / "reid.weights.h5")

    run.seed()
    model = xr.Distilled(  # stage 2: the student
        pairs.people, tap_weight=o.tap_weight, relation_weight=o.relation_weight,
        triplet=o.triplet, unit_triplet=o.unit_triplet, **run.network,
    )  # fmt: skip
    model.teach(reid.network)
    epochs = run.epochs(EPOCHS[o.preset], o.epochs)
    rate = rising_and_falling(epochs * len(pairs), len(pairs), o.learning_rate)
    model.compile(app.adam(model, rate), **run.compiling)
    model.fit(pairs, epochs=epochs, callbacks=run.callbacks("distilled", pairs))
    run.finish(model)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
