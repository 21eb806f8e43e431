"""Vector panning: move the embeddings of LR queries to their HR place (arXiv 2510.00936).

    KERAS_BACKEND=torch python recipes/panned.py
    python recipes/panned.py --reid baseline_hr_strong_market1501_501 --preset strong \\
        --data market1501 --data-dir DIR

Stage 1 trains the re-identification network on HR images. Stage 2 embeds each training image at HR
and at drawn rates, and trains a small network on these embeddings alone. The gallery stays as it
is. For embeddings of another network see `xreid pan`.
"""

import dataclasses
from typing import ClassVar

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.data.resolution import lr_rates

REID_EPOCHS = {"tiny": 10, "strong": 16, "paper": 60}  # of stage 1
EPOCHS = {"tiny": 60, "strong": 60, "paper": 120}  # of stage 2

STAGE_1 = [
    "reid_epochs", "weights", "learning_rate", "reid_triplet", "unit_triplet", "label_smoothing",
    "l2",
]  # fmt: skip


@dataclasses.dataclass
class Options:
    PRESETS: ClassVar = {"strong": {**app.STRONG_PAIRS, "reid_triplet": 1.0}}

    reid: str | None = None
    """Weights of a finished stage 1 (reid.weights.h5 of a run, or a baseline's); skips it."""
    reid_epochs: int | None = None
    """Epochs of stage 1; the preset's schedule if not given."""
    reid_triplet: float = 0.0
    """Weight of a batch-hard triplet term in stage 1; 0 for none."""
    views: int = 4
    """How often each training image is embedded for stage 2, each time at another drawn rate."""
    hidden: int = 512
    """Units of the hidden layer that moves embeddings."""


def main(o):
    from keras_xreid.training.schedules import rising_and_falling

    app.unused(o, o.reid, "--reid skips stage 1", *STAGE_1)
    app.unused(o, not o.reid_triplet, "there is no triplet loss", "unit_triplet")
    alone = o.reid or not o.reid_triplet
    app.unused(o, alone, "images come in random order without --reid-triplet", "images_per_person")
    run = app.Run("panned", o, xr.Panned)
    pairs = run.pairs(grouped=False)

    if o.reid:  # stage 1, on HR images
        reid = run.trained_network(o.reid, pairs.people)
    else:
        images = run.images(o.reid_triplet > 0, rates=(1,))
        reid = xr.Baseline(images.people, triplet=o.reid_triplet, **run.extractor())
        epochs = run.epochs(REID_EPOCHS[o.preset], o.reid_epochs)
        rate = rising_and_falling(epochs * len(images), len(images), o.learning_rate)
        reid.compile(app.adam(reid, rate), **run.compiling)
        reid.fit(images, epochs=epochs, callbacks=run.callbacks("reid", images))
        xr.save(reid, run.folder / "reid.weights.h5")

    run.seed()  # stage 2, on embeddings
    model = xr.Panned(
        pairs.people, o.preset, run.backbone, hidden=o.hidden, neck=o.neck, flip=o.flip,
        rates=sorted({1, *lr_rates(o.train_rates)}),
    )  # fmt: skip
    model.network.set_weights(reid.network.get_weights())
    features = model.features_of(pairs, o.views, o.seed)
    run.seconds = features.seconds
    model.panning.compile(app.adam(model.panning, 2e-4), jit_compile=o.compiled)
    epochs = run.epochs(EPOCHS[o.preset], o.epochs)
    model.panning.fit(features, epochs=epochs, callbacks=run.callbacks("panned", features))
    run.finish(model)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
