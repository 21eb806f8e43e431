"""INTACT: recover a low-resolution person, then find them (Cheng et al., CVPR 2020).

    KERAS_BACKEND=torch python recipes/intact.py
    python recipes/intact.py --data market1501 --data-dir DIR

Stage 1 trains the re-identification network on high-resolution images. Stage 2 freezes it and
alternates the discriminator, the association critic and the generator. At the end every query is
scored at every rate, recovered and, as a control, merely enlarged.
"""

import dataclasses
from typing import ClassVar

from baseline import EPOCHS as REID_EPOCHS
from baseline import train_network

# Before Keras: it chooses the backend.
from common import (
    HALVED,
    BackboneOptions,
    Run,
    check_groups,
    check_unused,
    pairs_a_step,
    start,
    trained_as,
    tricks,
)

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.models.intact import PRESETS, SUPERVISIONS

# Epochs of stage 2; QUICK for the embedded set on a CPU. `paper` keeps the paper's learning rates;
# a short schedule on a CPU takes larger steps with G, that warm up and decay.
EPOCHS = {"tiny": 5, "strong": 8, "paper": 60}
QUICK = 4
LEARNING_RATES = {"generator": 1e-4, "discriminator": 1e-4, "association": 1e-3}


def optimizers(model, steps):
    """Adam for every part that this variant has."""
    rates = dict(LEARNING_RATES)
    if model.preset != "paper":
        warm = min(100, max(1, steps // 10))
        rates["generator"] = keras.optimizers.schedules.CosineDecay(
            1e-4, max(1, steps - warm), alpha=0.05, warmup_target=1e-3, warmup_steps=warm
        )
    return {
        part: keras.optimizers.Adam(rate)
        for part, rate in rates.items()
        if getattr(model, part) is not None
    }


@dataclasses.dataclass
class IntactOptions(BackboneOptions):
    PRESETS: ClassVar = {
        "strong": {
            **BackboneOptions.PRESETS["strong"], "batch_size": 32, "images_per_person": 2,
            "critic_statistics": "moving", "phi_scale": 0.1, "reid_triplet": 1.0,
        }
    }  # fmt: skip

    # Without a strong preset's groups, images of stage 2 come one by one.
    images_per_person: int = 1
    """Pairs of each person in a step of stage 2; 1 takes all images in random order."""
    supervision: str = "full"
    """mse, mse+id, mse+id+gan or full: the rows of Tables 2 and 3."""
    association: str = "r-to-d"
    """r-to-d, d-to-r or common: the rows of Table 4."""
    bridge: bool = True
    """The bridge constraint of Table 5."""
    reid_epochs: int | None = None
    """Epochs of stage 1; the preset's schedule if not given."""
    reid: str | None = None
    """Weights of a finished stage 1 (reid.weights.h5 of a run, or a baseline's); skips it."""
    reid_triplet: float = 0.0
    """Weight of a batch-hard triplet term in stage 1; 0 for none."""
    critic_statistics: str = "batch"
    """What discriminator and association normalise by while the generator trains: batch, or moving,
    which sees what shifts or scales a whole batch."""
    phi_scale: float = 1.0
    """Scale at which the association's output starts; the discriminator's features have 0.1."""
    match: float = 0.0
    """Weight of 1 - cosine between the embeddings of the recovered image and of its HR twin; 0 for
    none. Ours."""


def check(options):
    """Refuses bad values of this recipe's own options."""
    if options.supervision not in SUPERVISIONS:
        known = ", ".join(SUPERVISIONS)
        raise xr.InputError(f"--supervision {options.supervision!r}: give one of {known}")
    if options.association not in ("r-to-d", "d-to-r", "common"):
        raise xr.InputError(f"--association {options.association!r}: give r-to-d, d-to-r or common")
    if options.supervision != "full":
        reason = f"--supervision {options.supervision} has no association critic"
        check_unused(options, ("association", "bridge"), reason)
    if options.association == "common":
        check_unused(options, ("bridge",), "--association common never has a bridge")
    if options.critic_statistics not in ("batch", "moving"):
        raise xr.InputError(
            f"--critic-statistics {options.critic_statistics!r}: give batch or moving"
        )
    if options.images_per_person > 1:
        check_groups(options, pairs_a_step(options), "--images-per-person")
    if options.reid:
        names = ("reid_epochs", "weights", "learning_rate", "reid_triplet", "l2")
        check_unused(options, names, "--reid skips stage 1")


def pretrained(path, run, people):
    """Reads a finished stage 1, and refuses one that belongs to another model or other people."""
    model = xr.load(path)
    if not isinstance(model, xr.Baseline):
        raise xr.InputError(f"{path} holds a {type(model).__name__}; --reid takes a Baseline")
    told, o = trained_as(path), run.options
    if not told:
        print(f"Nothing beside {path} says on whom it was trained, so that is not checked")
    fold = (told.get("fold") or 0) if told else o.fold  # what says nothing is of fold 0
    split_id = told.get("split_id", o.split_id) if o.data in HALVED else o.split_id
    for name, found, wanted in (
        ("--data", told.get("dataset", o.data), o.data),
        ("--split", told.get("split", o.split), o.split),
        ("--fold", fold, o.fold),
        ("--split-id", split_id, o.split_id),
        ("backbone", model.backbone, run.backbone),
        ("image size", model.image_size, run.image_size),
        ("number of people", model.people, people),
        ("last stride", model.last_stride, 1),
        ("--neck", bool(model.neck), o.neck),
    ):
        if found != wanted:
            raise xr.InputError(f"{path} was trained with {name} {found}; this run needs {wanted}")
    return model


def main(options):
    check(options)
    run = Run("intact", options, PRESETS)
    grouped = options.images_per_person > 1
    batches = run.batches(xr.PairBatches, grouped, rates=options.train_rates)
    reid = pretrained(options.reid, run, batches.people) if options.reid else None
    run.begin()

    # Stage 1: C, on high-resolution images.
    if reid is None:
        epochs = run.epochs(REID_EPOCHS[options.preset], options.reid_epochs)
        step = {}
        if grouped:  # a pair is two images
            k = 2 * options.images_per_person
            step = {"batch_size": 2 * run.batch_size, "images_per_person": k}
        reid = train_network(run, epochs, triplet=options.reid_triplet, **step)
        xr.save(reid, run.folder / "reid.weights.h5")

    # Stage 2: D, phi and sigma, G.
    model = xr.INTACT(
        batches.people, preset=options.preset, backbone=run.backbone,
        supervision=options.supervision, association=options.association, bridge=options.bridge,
        critic_statistics=options.critic_statistics, first_scale=options.phi_scale,
        match=options.match, **tricks(options),
    )  # fmt: skip
    model.reid.set_weights(reid.network.get_weights())
    quick = options.data == "synthetic" and options.preset == "tiny"
    epochs = run.epochs(QUICK if quick else EPOCHS[options.preset], options.epochs)
    model.compile(optimizers(model, epochs * len(batches)), jit_compile=options.compiled)
    run.fit("intact", model, batches, epochs)
    run.finish(model, supervision=options.supervision)


if __name__ == "__main__":
    start(main, IntactOptions, __doc__)
