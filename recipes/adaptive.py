"""A metric that depends on the query's resolution (Wu et al.): masks and vectors of varying length.

    KERAS_BACKEND=torch python recipes/adaptive.py
    python recipes/adaptive.py --data market1501 --data-dir DIR
    python recipes/adaptive.py --without mask       # a row of Table II
    python recipes/adaptive.py --end-to-end         # a row of Table III
    python recipes/adaptive.py --train-rates 2 4 8 --rates 1 2 3 4 6 8

A step takes pairs, an HR image and the same one shrunk by 1, 2, 3 or 4 and upscaled, of 2 images of
each of 8 people. The network is told the level of each. Masks come in stage by stage, the deepest
first, and are frozen when the next one comes. At the end every query is scored at every rate, and
compared on what its own resolution has. recipes/one_per_rate.py is its rival.
"""

import dataclasses
from typing import ClassVar, Literal

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.data.resolution import lr_rates, rate_range

# Epochs over all training images, each seen at HR and at one rate.
EPOCHS = {"tiny": 12, "strong": 8, "paper": 120}
# What --without leaves out, by its argument of xr.Adaptive.
LEFT_OUT = {
    "mask": {"masks": False}, "val": {"varying_length": False},
    "cls": {"classification": 0.0}, "verif": {"verification": 0.0},
}  # fmt: skip


@dataclasses.dataclass
class Options:
    # 2 pairs a person: with 4 there are too few people in a step; rank-1 on dev is 7.3, not 17.7.
    PRESETS: ClassVar = {
        "tiny": {"images_per_person": 2},
        "paper": {"images_per_person": 2},
        "strong": {
            **app.STRONG_PAIRS, "restart": True, "mask_stddev": 0.1, "mask_shared": True,
            "mask_speed": 10.0, "prefixes": True,
        },
    }  # fmt: skip

    without: tuple[Literal["mask", "val", "cls", "verif"], ...] = ()
    """What to leave out: mask, val (varying length; Table II), cls, verif (losses; Table IV)."""
    end_to_end: bool = False
    """Train all masks at once, and all the time (Tables II, III and V)."""
    mask_epochs: tuple[int, ...] | None = None
    """Epochs of each mask, the deepest first; equal shares of all epochs if not given."""
    restart: bool = False
    """Begin the learning rate's schedule anew with each mask."""
    mask_stddev: float = 1.0
    """Spread of the Gaussian that masks start from, before the sigmoid."""
    mask_shared: bool = False
    """Start all levels' masks from one drawing: what sets them apart is learnt then."""
    mask_speed: float = 1.0
    """How many times faster than all else masks learn."""
    prefixes: bool = False
    """Verify and rank on the parts that both images have, by cosine; else as the paper prints it,
    padded pairs and squared Euclidean distances."""


def main(o):
    from keras_xreid.training.schedules import in_stages

    app.unused(o, o.preset == "paper", "--preset paper has its own", "learning_rate")
    app.unused(o, True, "there is no triplet loss", "unit_triplet")
    without = "mask" in o.without
    app.unused(o, without, "--without mask has no masks to train", "end_to_end", "mask_speed")
    app.unused(o, without or o.end_to_end, "no mask comes after another", "mask_epochs", "restart")
    run = app.Run("adaptive", o, xr.Adaptive)
    # A level for each whole rate of a range; what is drawn from it has the nearest level.
    rates = tuple(sorted({1, *lr_rates(o.train_rates)}))
    if len(rates) == 1:
        raise xr.InputError("--train-rates has no whole rate above 1: give one for each level")
    pairs = run.pairs(rates=o.train_rates if rate_range(o.train_rates) else rates)

    model = xr.Adaptive(
        pairs.people, rates=rates, mask_stddev=o.mask_stddev, mask_shared=o.mask_shared,
        mask_speed=o.mask_speed, prefixes=o.prefixes, weights=run.starting_weights(),
        **run.network, **{k: v for name in o.without for k, v in LEFT_OUT[name].items()},
    )  # fmt: skip
    epochs = run.epochs(EPOCHS[o.preset], o.epochs)
    masks = [] if o.end_to_end else model.masks[::-1]  # the deepest first
    progressive = xr.Progressive.shared(masks, epochs, o.mask_epochs, o.restart)
    periods = len(masks) if o.restart and masks else 1
    rate = in_stages(o.preset, epochs, len(pairs), periods, o.learning_rate)
    model.compile(app.adam(model, rate), **run.compiling)
    callbacks = [*progressive, *run.callbacks("adaptive", pairs)]
    model.fit(pairs, epochs=epochs, callbacks=callbacks)
    run.finish(model)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
