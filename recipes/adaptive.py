"""A metric that depends on the query's resolution (Wu et al.): masks and vectors of varying length.

    KERAS_BACKEND=torch python recipes/adaptive.py
    python recipes/adaptive.py --data market1501 --data-dir DIR
    python recipes/adaptive.py --without mask       # a row of Table II
    python recipes/adaptive.py --end-to-end         # a row of Table III
    python recipes/adaptive.py --one-per-rate       # its rival: a network for each rate
    python recipes/adaptive.py --train-rates 2 4 8 --rates 1 2 3 4 6 8

Every step takes pairs, a picture at high resolution and the same one shrunk by 1, 2, 3 or 4 and
enlarged, of 2 images of each of 8 people. The network is told the level of each. Masks come in
stage by stage, the deepest first, and are frozen when the next one comes. At the end every query is
scored at every rate, and compared on what its own resolution has. A protocol that draws the
queries' rates draws them from --query-rates, whatever is trained on.
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
    defaults,
    l2_of,
    pairs_a_step,
    rising_and_falling,
    start,
    tricks,
)

import keras  # isort: skip
import numpy as np

import keras_xreid as xr
from keras_xreid.data.resolution import lr_rates, rate_range
from keras_xreid.models.adaptive import PRESETS
from keras_xreid.training.schedules import RisingAndFalling

# Epochs over all training images, each seen at high resolution and at one rate.
EPOCHS = {"tiny": 12, "strong": 8, "paper": 120}
LOSSES = {"cls": "classification", "verif": "verification"}
MECHANISMS = {"mask": "masks", "val": "varying_length"}


@dataclasses.dataclass
class AdaptiveOptions(BackboneOptions):
    PRESETS: ClassVar = {
        "strong": {
            **STRONG_PAIRS, "restart": True, "mask_stddev": 0.1, "mask_shared": True,
            "mask_speed": 10.0, "prefixes": True,
        }
    }  # fmt: skip

    # With 4 there are too few people in a step: rank-1 of 7.3 on real people's dev split, not 17.7.
    images_per_person: int = 2
    """Pairs of each person in a step."""
    without: tuple[str, ...] = ()
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
    one_per_rate: bool = False
    """The rival of Table III: a network for each rate, which shrinks the gallery too."""


def learning_rate(options, epochs, steps, periods=1):
    """The schedule: Adam's warm-up and steps of the paper, or a short one for the tiny preset.

    Args:
        options: the recipe's, of which the preset and the highest rate count.
        epochs: epochs in all.
        steps: steps an epoch.
        periods: how often the schedule begins anew.
    """
    if options.preset != "paper":
        peak, whole = options.learning_rate or 1e-3, max(1, epochs * steps)
        if periods == 1:
            return rising_and_falling(whole, max(1, whole // 10), peak)
        if options.preset == "strong":  # from trained weights no stage begins at the peak
            return RisingAndFalling(peak, whole, whole // periods // 10, periods)
        return keras.optimizers.schedules.CosineDecayRestarts(peak, -(-whole // periods), t_mul=1)
    # 3.5e-4, less by 10 after epochs 40 and 70 of 120; ten epochs of warm-up (ours).
    boundaries, values = [], []
    for period in range(periods):
        begin, scale = period * epochs / periods, epochs / periods / 120
        marks = [*range(1, 10), 40, 70]
        rates = [*(3.5e-5 * n for n in range(1, 11)), 3.5e-5, 3.5e-6]
        boundaries += [begin] * bool(period) + [begin + mark * scale for mark in marks]
        values += rates
    boundaries = [round(boundary * steps) for boundary in boundaries]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


def adam(network, rate):
    return {part: keras.optimizers.Adam(rate) for part in network.phases()[0].updates}


def progressive(model, options, epochs):
    """The callback that introduces the masks, or None where there is nothing to introduce."""
    masks = len(model.masks)
    if options.end_to_end or not masks:
        return None
    shares = options.mask_epochs
    if shares is None:
        if epochs < masks:
            print(f"In {epochs} epochs only the deepest of {masks} masks are introduced, one each")
        shares = [max(1, len(s)) for s in np.array_split(np.arange(epochs), masks)]
    elif len(shares) == masks and sum(shares) != epochs:
        raise xr.InputError(
            f"--mask-epochs {' '.join(map(str, shares))} are {sum(shares)} in all, and --epochs is "
            f"{epochs}: give as many"
        )
    if options.restart and len(set(shares)) > 1:
        raise xr.InputError(
            f"--restart takes as many epochs for each mask, and they have {shares}: give --epochs "
            f"that {masks} divides, and no --mask-epochs"
        )
    return xr.Progressive(model.masks[::-1], shares)


def check(options):
    """Refuses bad values of this recipe's own options."""
    if options.preset == "paper":
        check_unused(options, ("learning_rate",), "--preset paper has the paper's learning rates")
    check_groups(options, pairs_a_step(options), "the verification loss")
    known = [*MECHANISMS, *LOSSES]
    check_losses([w for w in options.without if w not in MECHANISMS], LOSSES, known)
    default = defaults(AdaptiveOptions, options.preset)
    given = [
        name
        for name in ("without", "end_to_end", "mask_epochs", "restart")
        if getattr(options, name) and getattr(options, name) != getattr(default, name)
    ]
    flags = [f"--{name.replace('_', '-')}" for name in given]
    if options.one_per_rate and given:
        raise xr.InputError(f"--one-per-rate has no masks: give it without {', '.join(flags)}")
    in_turn = {"mask_epochs", "restart"} & set(given)
    if in_turn and (options.end_to_end or "mask" in options.without):
        raise xr.InputError(
            f"no mask is introduced after another with {', '.join(flags)}: leave out --mask-epochs "
            "and --restart, or --end-to-end and --without mask"
        )
    if "mask" in options.without:
        check_unused(options, ("end_to_end",), "--without mask has no masks to train")


def train_one_per_rate(run, epochs):
    """The rival: a network for each rate, which all together see about as many images."""
    o = run.options
    if run.data.protocol != "each-rate":
        raise xr.InputError(
            f"--one-per-rate shrinks the gallery like the query, which protocol "
            f"{run.data.protocol} does not: give --protocol each-rate, and a data set whose "
            "queries are of high resolution (those of caviar and mlr are not)"
        )
    run.batch_size *= 2  # images, where the others have pairs, of as many people
    k, rates = 2 * o.images_per_person, lr_rates(o.train_rates)
    batches = [
        run.batches(xr.ImageBatches, grouped=True, rates=(r,), images_per_person=k) for r in rates
    ]
    model = xr.OnePerRate(
        batches[0].people, preset=o.preset, backbone=run.backbone, rates=rates,
        weights=run.starting_weights(o.weights), **tricks(o),
    )  # fmt: skip
    run.begin()
    each = max(1, round(2 * epochs / len(model.rates)))
    for rate, network in zip(model.rates, model.networks, strict=True):
        own = batches[rates.index(rate)]
        schedule, l2 = learning_rate(o, each, len(own)), l2_of(network, o)
        network.compile(adam(network, schedule), jit_compile=o.compiled, l2=l2)
        run.fit(f"rate{rate:g}", network, own, each)
    return model


def train(run, epochs):
    o = run.options
    # A level for each whole rate of a range; what is drawn from it has the nearest level.
    rates = tuple(sorted({1, *lr_rates(o.train_rates)}))
    drawn = o.train_rates if rate_range(o.train_rates) else rates
    batches = run.batches(xr.PairBatches, grouped=True, rates=drawn)
    off = {LOSSES[name]: 0.0 for name in o.without if name in LOSSES}
    off |= {MECHANISMS[name]: False for name in o.without if name in MECHANISMS}
    model = xr.Adaptive(
        batches.people, preset=o.preset, backbone=run.backbone, rates=rates,
        mask_stddev=o.mask_stddev, mask_shared=o.mask_shared, mask_speed=o.mask_speed,
        prefixes=o.prefixes, weights=run.starting_weights(o.weights), **tricks(o), **off,
    )  # fmt: skip
    masks = progressive(model, o, epochs)
    run.begin()
    periods = len(model.masks) if o.restart and masks else 1
    rate = learning_rate(o, epochs, len(batches), periods)
    model.compile(adam(model, rate), jit_compile=o.compiled, l2=l2_of(model, o))
    run.fit("adaptive", model, batches, epochs, callbacks=[masks] if masks else [])
    return model


def main(options):
    check(options)
    run = Run("adaptive", options, PRESETS, pairs_a_step(options))
    epochs = run.epochs(EPOCHS[options.preset], options.epochs)
    model = (train_one_per_rate if options.one_per_rate else train)(run, epochs)
    run.finish(model)


if __name__ == "__main__":
    start(main, AdaptiveOptions, __doc__)
