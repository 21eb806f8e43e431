"""CAD-Net: features that no resolution changes, joined to recovered ones (Li et al., ICCV 2019).

    KERAS_BACKEND=torch python recipes/cadnet.py
    python recipes/cadnet.py --data market1501 --data-dir DIR
    python recipes/cadnet.py --features f       # a row of Table 1
    python recipes/cadnet.py --without adv_i    # a row of Table 3

Every step takes pictures at high resolution and, drawn apart from them, pictures at low resolution
with what they were before, 4 images of each of 4 people. Encoder, decoder, the recovered image's
encoder and the classifier learn together; then one discriminator learns to judge features, and one
recovered images. At the end every query is scored at every rate, and its recovered image measured.
"""

import dataclasses
import math
from typing import ClassVar

# Before Keras: it chooses the backend.
from common import (
    STRONG_PAIRS,
    BackboneOptions,
    Run,
    check_groups,
    check_losses,
    check_unused,
    l2_of,
    pairs_a_step,
    start,
    tricks,
)
from rain import optimizers

import keras_xreid as xr
from keras_xreid.models.cadnet import FEATURES, PRESETS

# Epochs over all training images, each seen at high and at low resolution.
EPOCHS = {"tiny": 4, "strong": 8, "paper": 60}
# Weight of L_rec, a mean over pixels in [0, 1] (ours; the paper leaves its norm open). With 1 and
# a short schedule G pleases D_I and recovers nothing: chosen on the embedded set's dev split.
RECONSTRUCTION = {"tiny": 10.0, "strong": 10.0, "paper": 1.0}
# What --without leaves out, by its weight in xr.CADNet.
LOSSES = {
    "cls": "classification", "rec": "reconstruction", "adv_f": "adversarial_features",
    "adv_i": "adversarial_images",
}  # fmt: skip


@dataclasses.dataclass
class CADNetOptions(BackboneOptions):
    PRESETS: ClassVar = {"strong": {**STRONG_PAIRS, "margin": 0.3}}

    features: str = "fg"
    """What the classifier takes: fg, the joint feature; f or g alone (Table 1)."""
    without: tuple[str, ...] = ()
    """Losses to leave out: cls, rec, adv_f, adv_i (Table 3)."""
    reconstruction: float | None = None
    """Weight of the reconstruction loss; 10 with the tiny preset, if not given, and 1 (the paper's
    lambda) with the paper's."""
    margin: float = 2.0
    """Margin of the triplet loss, in units of the features' distance."""
    critic_rate: float = 1e-4
    """Learning rate of the discriminators (Adam); the paper preset has the paper's."""
    residual: bool | None = None
    """Let the decoder add to its image, so that no detail is lost; only with the strong preset, if
    not given."""


def check(options):
    """Refuses bad values of this recipe's own options."""
    if options.features not in FEATURES:
        raise xr.InputError(f"--features {options.features!r}: give one of {', '.join(FEATURES)}")
    if options.preset == "paper":
        reason = "--preset paper has the paper's learning rates"
        check_unused(options, ("learning_rate", "critic_rate"), reason)
    check_groups(options, pairs_a_step(options), "the triplet loss")
    check_losses(options.without, LOSSES)
    if options.reconstruction is not None and not 0 < options.reconstruction < math.inf:
        raise xr.InputError(
            f"--reconstruction is {options.reconstruction:g}: give more than 0, or --without rec"
        )
    if "rec" in options.without:
        check_unused(options, ("reconstruction",), "--without rec has no reconstruction loss")
    if "cls" in options.without:  # L_cls holds the triplets, too
        check_unused(options, ("margin",), "--without cls has no triplet loss")


def main(options):
    check(options)
    run = Run("cadnet", options, PRESETS, pairs_a_step(options))
    batches = run.batches(xr.PairBatches, grouped=True, rates=options.train_rates, independent=True)
    weights = {"reconstruction": options.reconstruction or RECONSTRUCTION[options.preset]}
    weights |= {LOSSES[name]: 0.0 for name in options.without}
    model = xr.CADNet(
        batches.people, preset=options.preset, backbone=run.backbone, features=options.features,
        margin=options.margin, unit_triplet=options.unit_triplet, residual=options.residual,
        weights=run.starting_weights(options.weights), **tricks(options), **weights,
    )  # fmt: skip
    run.begin()
    epochs = run.epochs(EPOCHS[options.preset], options.epochs)
    steps = epochs * len(batches)
    model.compile(
        optimizers(model, steps, options), jit_compile=options.compiled, l2=l2_of(model, options)
    )
    run.fit("cadnet", model, batches, epochs)
    run.finish(model)


if __name__ == "__main__":
    start(main, CADNetOptions, __doc__)
