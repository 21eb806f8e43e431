"""Computes, on the backend in KERAS_BACKEND, what `test_parity.py` holds against the others."""

import sys

import keras
import numpy as np
from small import adaptive, cadnet, intact, levels, pairs, rain, step
from test_phases import points, toy

import keras_xreid as xr


def features(found):
    """What each system makes of the same images with the same weights."""
    for name, model in (("rain", rain()), ("cadnet", cadnet()), ("adaptive", adaptive())):
        batch = levels()
        found[f"embed/{name}"] = model.embed(batch["lr"], rates=batch["rate"])


def phases_of_intact(found):
    """Each phase's loss terms and gradients from the same weights on the same batch."""
    model = intact(backbone="resnet_tiny")
    found["embed/intact"] = model.embed(pairs()["lr"], rates=4)
    found["recover/intact"] = model.recover(pairs()["lr"])
    model.compile(jit_compile=False)
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in pairs().items()}
    for phase, (logs, gradients) in zip(model.phases(), compiled(model)(batch), strict=True):
        for term, value in logs.items():
            found[f"loss/{term}"] = keras.ops.convert_to_numpy(value)
        for index, gradient in enumerate(gradients):
            found[f"gradient/{phase.updates[0]}/{index}"] = keras.ops.convert_to_numpy(gradient)


def compiled(model):
    """A function of a batch: terms and gradients of every phase. On JAX it is one program.

    To compile its operations one by one takes a minute there.
    """

    def run(batch):
        batch = model.prepare(batch)
        return [model.phase_gradients(phase, batch) for phase in model.phases()]

    def pure(batch):
        with keras.StatelessScope():
            return run(batch)

    if keras.backend.backend() != "jax":
        return run
    import jax

    return jax.jit(pure)


def toy_gan(found):
    model = toy()
    losses = [list(step(model, points(seed)).values()) for seed in range(12)]
    found["toy/losses"] = np.array(losses)


def saved_weights(found, path):
    """Embeddings of weights that another backend saved."""
    found["embed/saved"] = xr.load(path).embed(pairs()["lr"], rates=2)


if __name__ == "__main__":
    results = {}
    sys.stderr = sys.stdout
    toy_gan(results)
    phases_of_intact(results)
    features(results)
    saved_weights(results, sys.argv[1])
    np.savez(sys.argv[2], **results)
