"""INTACT: recover a low-resolution person, then find them (Cheng et al., CVPR 2020).

    KERAS_BACKEND=torch python recipes/intact.py
    python recipes/intact.py --data market1501 --data-dir DIR

Stage 1 trains the re-identification network on high-resolution images. Stage 2 freezes it and
alternates the discriminator, the association critic and the generator. At the end every query is
scored at every rate, recovered and, as a control, merely enlarged.
"""

import dataclasses

from baseline import scheduled_epochs, train_network
from common import Options, Run, start  # before Keras: it chooses the backend

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.models.intact import PRESETS, SUPERVISIONS

# Epochs of stage 2; `quick` for the embedded set on a CPU. The paper states the learning rates of
# `paper`; a short schedule on a CPU takes larger steps.
EPOCHS = {"tiny": 8, "paper": 60}
QUICK = 4
LEARNING_RATES = {
    "tiny": {"generator": 1e-3, "discriminator": 1e-4, "association": 1e-3},
    "paper": {"generator": 1e-4, "discriminator": 1e-4, "association": 1e-3},
}


@dataclasses.dataclass
class IntactOptions(Options):
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


def pretrained(path, run, people):
    """Reads a finished stage 1, and refuses one that belongs to another model or other people."""
    model = xr.load(path)
    if not isinstance(model, xr.Baseline):
        raise xr.InputError(f"{path} holds a {type(model).__name__}; --reid takes a Baseline")
    for name, found, wanted in (
        ("backbone", model.backbone, run.backbone),
        ("image size", model.image_size, run.image_size),
        ("number of people", model.people, people),
    ):
        if found != wanted:
            raise xr.InputError(f"{path} was trained with {name} {found}; this run needs {wanted}")
    return model


def main(options):
    if options.supervision not in SUPERVISIONS:
        known = ", ".join(SUPERVISIONS)
        raise xr.InputError(f"--supervision {options.supervision!r}: give one of {known}")
    if options.association not in ("r-to-d", "d-to-r", "common"):
        raise xr.InputError(f"--association {options.association!r}: give r-to-d, d-to-r or common")
    run = Run("intact", options, PRESETS)
    batches = run.batches(xr.PairBatches, rates=options.train_rates)

    # Stage 1: C, on high-resolution images.
    if options.reid:
        reid = pretrained(options.reid, run, batches.people)
    else:
        epochs = run.epochs(scheduled_epochs(options), options.reid_epochs)
        reid = train_network(run, epochs)
        xr.save(reid, run.folder / "reid.weights.h5")

    # Stage 2: D, phi and sigma, G.
    model = xr.INTACT(
        batches.people, preset=options.preset, backbone=run.backbone,
        supervision=options.supervision, association=options.association, bridge=options.bridge,
    )  # fmt: skip
    model.reid.set_weights(reid.network.get_weights())
    model.compile(
        {
            part: keras.optimizers.Adam(rate)
            for part, rate in LEARNING_RATES[options.preset].items()
            if getattr(model, part) is not None
        }
    )
    quick = options.data == "synthetic" and options.preset == "tiny"
    scheduled = QUICK if quick else EPOCHS[options.preset]
    run.fit("intact", model, batches, run.epochs(scheduled, options.epochs))
    run.finish(model, supervision=options.supervision)


if __name__ == "__main__":
    start(main, IntactOptions, __doc__)
