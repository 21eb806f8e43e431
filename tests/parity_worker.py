"""Computes, on the backend in KERAS_BACKEND, what `test_parity.py` holds against the others."""

import sys

import keras
import numpy as np
from small import SIZE, adaptive, cadnet, fill, intact, levels, pairs, rain, step
from test_phases import points, toy

import keras_xreid as xr


def features(found):
    """What each system makes of the same images with the same weights."""
    for name, model in (("rain", rain()), ("cadnet", cadnet()), ("adaptive", adaptive())):
        batch = levels()
        found[f"embed/{name}"] = model.embed(batch["lr"], rates=batch["rate"])
    for name in ("osnet_x0_25", "efficientnet_lite0"):
        baseline = fill(xr.Baseline(5, backbone=name, image_size=SIZE))
        found[f"embed/{name}"] = baseline.embed(pairs()["hr"])


def phases_of_intact(found):
    """Each phase's loss terms and gradients from the same weights on the same batch."""
    model = intact(backbone="resnet_tiny")
    found["embed/intact"] = model.embed(pairs()["lr"], rates=4)
    found["recover/intact"] = model.recover(pairs()["lr"])
    model.compile(jit_compile=False)
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in pairs().items()}
    batch = model.prepare(batch)
    for phase in model.phases():
        logs, gradients = model.phase_gradients(phase, batch)
        for term, value in logs.items():
            found[f"loss/{term}"] = keras.ops.convert_to_numpy(value)
        for index, gradient in enumerate(gradients):
            found[f"gradient/{phase.updates[0]}/{index}"] = keras.ops.convert_to_numpy(gradient)


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
