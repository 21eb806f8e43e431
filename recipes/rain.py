"""RAIN: features that do not tell the resolution of an image (Chen et al., AAAI 2019).

    KERAS_BACKEND=torch python recipes/rain.py
    python recipes/rain.py --data market1501 --data-dir DIR
    python recipes/rain.py --without adv            # a row of Table 3
    python recipes/rain.py --labeled-fraction 0.2   # a point of Figure 5

A step takes pairs, an HR image and the same one shrunk and upscaled, of 2 images of each of 8
people. The extractor learns who it is, and the decoder what was lost. Both learn to leave
discriminators in doubt. These then learn to tell HR features from LR ones. At the end every query
is scored at every rate.
"""

import dataclasses
from typing import ClassVar, Literal

import keras_xreid as xr
from keras_xreid import app

# Epochs over all training images, each seen at HR and at LR.
EPOCHS = {"tiny": 5, "strong": 8, "paper": 60}
# What --without leaves out, by its weight in xr.RAIN.
LOSSES = {
    "cls": "classification", "tri": "triplet", "rec": "reconstruction", "adv": "adversarial",
}  # fmt: skip


@dataclasses.dataclass
class Options:
    # 2 pairs a person: on real people's dev split, rank-1 is 59.2 after one epoch; with 4, 52.4.
    PRESETS: ClassVar = {
        "tiny": {"images_per_person": 2},
        "paper": {"images_per_person": 2},
        "strong": {**app.STRONG_PAIRS, "margin": 0.3},
    }

    levels: tuple[int, ...] = (4, 5)
    """Feature maps that are aligned. 4 5: multi-level; 5: single-level (Table 1)."""
    settings: Literal["paper", "authors-code"] = "paper"
    """paper: every weight 1; authors-code: the published code's weights and discriminators."""
    without: tuple[Literal["cls", "tri", "rec", "adv"], ...] = ()
    """Losses to leave out (Table 3)."""
    labeled_fraction: float = 1.0
    """Share of each person's images that are labelled; the others are only seen (Figure 5)."""
    margin: float = 2.0
    """Margin of the triplet loss, in units of the features' distance."""
    critic_rate: float = 1e-4
    """Learning rate of the discriminators (Adam); the paper preset has the paper's."""


def main(o):
    from keras_xreid.training.schedules import rising_and_falling

    paper = o.preset == "paper"
    app.unused(o, paper, "--preset paper has its own", "learning_rate", "critic_rate")
    app.unused(o, "adv" in o.without, "--without adv aligns nothing", "levels", "critic_rate")
    triplets = ["margin", "unit_triplet"]
    app.unused(o, "tri" in o.without, "--without tri has no triplet loss", *triplets)
    app.unused(o, "cls" in o.without, "--without cls classifies nobody", "label_smoothing")
    run = app.Run("rain", o, xr.RAIN)
    run.hide_labels(o.labeled_fraction)
    pairs = run.pairs()
    off = {LOSSES[name]: 0.0 for name in o.without}
    if not pairs.people:  # nobody is labelled
        off |= {"classification": 0.0, "triplet": 0.0}

    model = xr.RAIN(
        pairs.people, levels=o.levels, settings=o.settings, margin=o.margin,
        **run.extractor(), **off,
    )  # fmt: skip
    epochs = run.epochs(EPOCHS[o.preset], o.epochs)
    optimizers = None  # the paper's
    if not paper:
        steps = epochs * len(pairs)
        warm = max(1, steps // (10 if o.preset == "strong" else 5))
        rate = rising_and_falling(steps, warm, o.learning_rate)
        optimizers = app.adam(model, rate, o.critic_rate)
    model.compile(optimizers, **run.compiling)
    model.fit(pairs, epochs=epochs, callbacks=run.callbacks("rain", pairs))
    run.finish(model)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
