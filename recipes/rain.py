"""RAIN: features that do not tell the resolution of an image (Chen et al., AAAI 2019).

    KERAS_BACKEND=torch python recipes/rain.py
    python recipes/rain.py --data market1501 --data-dir DIR
    python recipes/rain.py --without adv            # a row of Table 3
    python recipes/rain.py --labeled-fraction 0.2   # a point of Figure 5

Every step takes pairs, a picture at high resolution and the same one shrunk and enlarged, of 2
images of each of 8 people. The extractor learns who it is, the decoder what was lost, and both to
leave discriminators in doubt, which then learn to tell features of the two kinds of pictures apart.
At the end every query is scored at every rate.
"""

import dataclasses
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
    rising_and_falling,
    start,
    tricks,
)

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.models.rain import PRESETS, SETTINGS

# Epochs over all training images, each seen at high and at low resolution.
EPOCHS = {"tiny": 5, "strong": 8, "paper": 60}
# What --without leaves out, by its weight in xr.RAIN.
LOSSES = {
    "cls": "classification", "tri": "triplet", "rec": "reconstruction", "adv": "adversarial",
}  # fmt: skip


@dataclasses.dataclass
class RainOptions(BackboneOptions):
    PRESETS: ClassVar = {"strong": {**STRONG_PAIRS, "margin": 0.3}}

    # Real people's dev split after one epoch: rank-1 59.2, and 52.4 with 4 pairs of each of 4.
    images_per_person: int = 2
    """Pairs of each person in a step."""
    levels: tuple[int, ...] = (4, 5)
    """Feature maps that are aligned. 4 5: multi-level; 5: single-level (Table 1)."""
    settings: str = "paper"
    """paper: every weight 1; authors-code: the published code's weights and discriminators."""
    without: tuple[str, ...] = ()
    """Losses to leave out: cls, tri, rec, adv (Table 3)."""
    labeled_fraction: float = 1.0
    """Share of each person's images that are labelled; the others are only seen (Figure 5)."""
    margin: float = 2.0
    """Margin of the triplet loss, in units of the features' distance."""
    critic_rate: float = 1e-4
    """Learning rate of the discriminators (Adam); the paper preset has the paper's."""


def optimizers(model, steps, options):
    """Adam with a short schedule for the tiny and strong presets, else the settings' own."""
    if model.preset == "paper":
        return None
    warm = steps // (10 if model.preset == "strong" else 5)
    rate = rising_and_falling(steps, max(1, warm), options.learning_rate)
    first, *judges = model.phases()
    made = {part: keras.optimizers.Adam(rate) for part in first.updates}
    critics = {p.updates[0]: keras.optimizers.Adam(options.critic_rate) for p in judges}
    return made | critics


def check(options):
    """Refuses bad values of this recipe's own options."""
    if options.settings not in SETTINGS:
        raise xr.InputError(f"--settings {options.settings!r}: give {' or '.join(SETTINGS)}")
    if options.preset == "paper":
        reason = "--preset paper has the paper's learning rates"
        check_unused(options, ("learning_rate", "critic_rate"), reason)
    check_groups(options, pairs_a_step(options), "the triplet loss")
    check_losses(options.without, LOSSES)
    if "adv" in options.without:
        check_unused(options, ("levels",), "--without adv aligns no feature maps")
    if "tri" in options.without:
        check_unused(options, ("margin",), "--without tri has no triplet loss")


def main(options):
    check(options)
    run = Run("rain", options, PRESETS, pairs_a_step(options))
    run.hide_labels(options.labeled_fraction)
    batches = run.batches(xr.PairBatches, grouped=True, rates=options.train_rates)
    off = {LOSSES[name]: 0.0 for name in options.without}
    if not batches.people:  # nobody is labelled
        off |= {"classification": 0.0, "triplet": 0.0}
    model = xr.RAIN(
        batches.people, preset=options.preset, backbone=run.backbone, levels=options.levels,
        settings=options.settings, margin=options.margin, unit_triplet=options.unit_triplet,
        weights=run.starting_weights(options.weights), **tricks(options), **off,
    )  # fmt: skip
    run.begin()
    epochs = run.epochs(EPOCHS[options.preset], options.epochs)
    steps = epochs * len(batches)
    model.compile(
        optimizers(model, steps, options), jit_compile=options.compiled, l2=l2_of(model, options)
    )
    run.fit("rain", model, batches, epochs)
    run.finish(model)


if __name__ == "__main__":
    start(main, RainOptions, __doc__)
