"""INTACT: recover a low-resolution person, then find them (Cheng et al., CVPR 2020).

    KERAS_BACKEND=torch python recipes/intact.py
    python recipes/intact.py --data market1501 --data-dir DIR

Stage 1 trains the re-identification network on HR images. Stage 2 freezes it and alternates the
discriminator, the association critic and the generator. At the end every query is scored at every
rate, recovered and, as a control, upscaled only.
"""

import dataclasses
from typing import ClassVar, Literal

import keras_xreid as xr
from keras_xreid import app

REID_EPOCHS = {"tiny": 10, "strong": 16, "paper": 60}  # of stage 1
EPOCHS = {"tiny": 5, "strong": 8, "paper": 60}  # of stage 2
QUICK = 4  # of stage 2, for the built-in set on a CPU
RATES = {"generator": 1e-4, "discriminator": 1e-4, "association": 1e-3}  # the paper's

ONE = {"images_per_person": 1}  # images of stage 2 come one by one, in random order
STRONG = {"critic_statistics": "moving", "phi_scale": 0.1, "reid_triplet": 1.0}
STAGE_1 = ["reid_epochs", "weights", "learning_rate", "reid_triplet", "unit_triplet", "l2"]


@dataclasses.dataclass
class Options:
    PRESETS: ClassVar = {"tiny": ONE, "paper": ONE, "strong": {**app.STRONG_PAIRS, **STRONG}}

    supervision: Literal["mse", "mse+id", "mse+id+gan", "full"] = "full"
    """The rows of Tables 2 and 3."""
    association: Literal["r-to-d", "d-to-r", "common"] = "r-to-d"
    """The rows of Table 4."""
    bridge: bool = True
    """The bridge constraint of Table 5."""
    reid_epochs: int | None = None
    """Epochs of stage 1; the preset's schedule if not given."""
    reid: str | None = None
    """Weights of a finished stage 1 (reid.weights.h5 of a run, or a baseline's); skips it."""
    reid_triplet: float = 0.0
    """Weight of a batch-hard triplet term in stage 1; 0 for none."""
    critic_statistics: Literal["batch", "moving"] = "batch"
    """What discriminator and association normalise by while the generator trains. moving sees
    what shifts or scales a whole batch."""
    phi_scale: float = 1.0
    """Scale at which the association's output starts; the discriminator's features have 0.1."""
    match: float = 0.0
    """Weight of 1 - cosine between the embeddings of the recovered image and of its HR twin; 0 for
    none. Ours."""


def main(o):
    from keras_xreid.training.schedules import rising_and_falling

    app.unused(o, o.supervision != "full", "only full has phi", "association", "bridge")
    app.unused(o, o.association == "common", "--association common never has a bridge", "bridge")
    app.unused(o, o.reid, "--reid skips stage 1", *STAGE_1)
    run, grouped = app.Run("intact", o, xr.INTACT), o.images_per_person > 1
    pairs = run.pairs(grouped, batch_size=o.batch_size or 32)

    if o.reid:  # stage 1: C, on HR images
        reid = run.trained_network(o.reid, pairs.people)
    else:
        n = 1 + grouped  # a pair is two images
        step = {"batch_size": n * pairs.batch_size, "images_per_person": n * o.images_per_person}
        images = run.images(o.reid_triplet > 0, rates=(1,), **step)
        reid = xr.Baseline(images.people, triplet=o.reid_triplet, **run.extractor())
        epochs = run.epochs(REID_EPOCHS[o.preset], o.reid_epochs)
        rate = rising_and_falling(epochs * len(images), len(images), o.learning_rate)
        reid.compile(app.adam(reid, rate), **run.compiling)
        reid.fit(images, epochs=epochs, callbacks=run.callbacks("reid", images))
        xr.save(reid, run.folder / "reid.weights.h5")

    run.seed()  # stage 2: D, phi and sigma, G
    model = xr.INTACT(
        pairs.people, supervision=o.supervision, association=o.association, bridge=o.bridge,
        critic_statistics=o.critic_statistics, first_scale=o.phi_scale, match=o.match,
        **run.network,
    )  # fmt: skip
    model.reid.set_weights(reid.network.get_weights())
    scheduled = QUICK if (o.data, o.preset) == ("synthetic", "tiny") else EPOCHS[o.preset]
    epochs = run.epochs(scheduled, o.epochs)
    rates, steps = dict(RATES), epochs * len(pairs)
    if o.preset != "paper":  # a short schedule takes larger steps with G
        warm = min(100, max(1, steps // 10))
        rates["generator"] = rising_and_falling(steps, warm, 1e-3, last=0.05)
    model.compile(app.adam(model, rates), jit_compile=o.compiled)
    model.fit(pairs, epochs=epochs, callbacks=run.callbacks("intact", pairs))
    run.finish(model, supervision=o.supervision)


if __name__ == "__main__":
    app.main(main, Options, __doc__)
