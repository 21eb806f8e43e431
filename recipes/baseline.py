"""The baseline: a re-identification network trained with cross-entropy, on HR or on HR & LR images.

    KERAS_BACKEND=torch python recipes/baseline.py
    python recipes/baseline.py --train-on hr+lr --data market1501 --data-dir DIR

It shows what cross-resolution costs: how far rank-1 falls when the query is shrunk.
"""

import dataclasses

from common import Options, Run, start  # before Keras: it chooses the backend

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.models.baseline import PRESETS

# Epochs over all training images.
EPOCHS = {"tiny": 10, "paper": 60}


@dataclasses.dataclass
class BaselineOptions(Options):
    train_on: str = "hr"
    """hr: high-resolution images only; hr+lr: every image at rate 1 or one of --train-rates."""
    label_smoothing: float = 0.0
    """Share of the target's probability spread over all people."""


def train_network(run, epochs, rates=(1,), label_smoothing=0.0):
    """Trains a re-identification network; also INTACT's first stage."""
    batches = run.batches(xr.ImageBatches, rates=rates)
    model = xr.Baseline(
        batches.people, preset=run.options.preset, backbone=run.backbone,
        label_smoothing=label_smoothing,
    )  # fmt: skip
    steps, warm = epochs * len(batches), len(batches)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, max(1, steps - warm), warmup_target=1e-3, warmup_steps=warm
    )
    model.compile({"network": keras.optimizers.Adam(rate)}, jit_compile=run.options.compiled)
    run.fit("reid", model, batches, epochs)
    return model


def main(options):
    if options.train_on not in ("hr", "hr+lr"):
        raise xr.InputError(f"--train-on {options.train_on!r}: give hr or hr+lr")
    run = Run("baseline", options, PRESETS)
    rates = (1,) if options.train_on == "hr" else (1, *options.train_rates)
    run.begin()
    epochs = run.epochs(EPOCHS[options.preset], options.epochs)
    model = train_network(run, epochs, rates, options.label_smoothing)
    run.finish(model)


if __name__ == "__main__":
    start(main, BaselineOptions, __doc__)
