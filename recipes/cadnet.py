"""CAD-Net: features that no resolution changes, joined to recovered ones (Li et al., ICCV 2019).

    KERAS_BACKEND=torch python recipes/cadnet.py
    python recipes/cadnet.py --data market1501 --data-dir DIR
    python recipes/cadnet.py --features f       # a row of Table 1
    python recipes/cadnet.py --without adv_i    # a row of Table 3

A step takes HR images and, drawn apart from them, LR images with what they were before, 4 images of
each of 4 people. Encoder, decoder, the recovered image's encoder and the classifier learn together.
Then one discriminator learns to judge features, and one recovered images. At the end every query is
scored at every rate, and its recovered image is measured.
"""

import dataclasses
from typing import ClassVar, Literal

import keras_xreid as xr
from keras_xreid import app

# Epochs over all training images, each seen at HR and at LR.
EPOCHS = {"tiny": 4, "strong": 8, "paper": 60}
# Weight of L_rec, a mean over pixels in [0, 1] (ours; the paper leaves its norm open). With 1 and
# a short schedule G pleases D_I and recovers nothing: chosen on the built-in set's dev split.
RECONSTRUCTION = {"tiny": 10.0, "strong": 10.0, "paper": 1.0}
# What --without leaves out, by its weight in xr.CADNet.
LOSSES = {
    "cls": "classification", "rec": "reconstruction", "adv_f": "adversarial_features",
    "adv_i": "adversarial_images",
}  # fmt: skip


@dataclasses.dataclass
class Options:
    PRESETS: ClassVar = {"strong": {**app.STRONG_PAIRS, "margin": 0.3}}

    features: Literal["fg", "f", "g"] = "fg"
    """What the classifier takes: fg, the joint feature; f or g alone (Table 1)."""
    without: tuple[Literal["cls", "rec", "adv_f", "adv_i"], ...] = ()
    """Losses to leave out (Table 3)."""
    reconstruction: float | None = None
    """Weight of the reconstruction loss. If not given: 1 (the paper's lambda) with the paper
    preset, else 10."""
    margin: float = 2.0
    """Margin of the triplet loss, in units of the features' distance."""
    critic_rate: float = 1e-4
    """Learning rate of the discriminators (Adam); the paper preset has the paper's."""
    residual: bool | None = None
    """Let the decoder add to its image, so that no detail is lost; only with the strong preset, if
    not given."""


def main(o):
    from keras_xreid.training.schedules import rising_and_falling

    paper = o.preset == "paper"
    app.unused(o, paper, "--preset paper has its own", "learning_rate", "critic_rate")
    app.unused(o, "rec" in o.without, "--without rec has no such loss", "reconstruction")
    app.unused(o, "cls" in o.without, "--without cls has no triplet loss", "margin")
    alone = {"adv_i", "adv_f"} <= set(o.without)
    app.unused(o, alone, "nothing judges --without adv_i adv_f", "critic_rate")
    run = app.Run("cadnet", o, xr.CADNet)
    pairs = run.pairs(independent=True)
    weights = {"reconstruction": o.reconstruction or RECONSTRUCTION[o.preset]}
    weights |= {LOSSES[name]: 0.0 for name in o.without}

    model = xr.CADNet(
        pairs.people, features=o.features, margin=o.margin, residual=o.residual,
        **run.extractor(), **weights,
    )  # fmt: skip
    epochs = run.epochs(EPOCHS[o.preset], o.epochs)
    optimizers = None  # the paper's
    if not paper:
        steps = epochs * len(pairs)
        warm = max(1, steps // (10 if o.preset == "strong" else 5))
        rate = rising_and_falling(steps, warm, o.learning_rate)
        optimizers = app.adam(model, rate, o.critic_rate)
    model.compile(optimizers, **run.compiling)
    model.fit(pairs, epochs=epochs, callbacks=run.callbacks("cadnet", pairs))
    run.finish(model)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
