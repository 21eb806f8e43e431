"""The backends against each other: equal weights give equal losses, gradients and features."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import baseline

import keras_xreid as xr

# Each in a process of its own; what runs on torch compares them all.
pytestmark = [pytest.mark.slow, pytest.mark.backend]

INSTALLED = [b for b in ("torch", "tensorflow", "jax") if importlib.util.find_spec(b)]


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """The same computation on every installed backend, each in a process of its own."""
    if len(INSTALLED) < 2:
        pytest.skip(f"one backend is installed ({INSTALLED[0]}): nothing to compare it with")
    if os.environ["KERAS_BACKEND"] != INSTALLED[0]:
        pytest.skip(f"compares all backends at once, when the tests run on {INSTALLED[0]}")
    folder = tmp_path_factory.mktemp("parity")
    weights = folder / "baseline.weights.h5"
    xr.save(baseline(backbone="resnet_tiny"), weights)
    found = {}
    for backend in INSTALLED:
        path = folder / f"{backend}.npz"
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("parity_worker.py")), weights, path],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        with np.load(path) as file:
            found[backend] = dict(file)
    return found


def others(computed):
    first, *rest = INSTALLED
    return [(backend, computed[first], computed[backend]) for backend in rest]


def test_losses_of_each_phase_agree(computed):
    for backend, ours, theirs in others(computed):
        for name in (n for n in ours if n.startswith("loss/")):
            np.testing.assert_allclose(
                theirs[name], ours[name], rtol=1e-5, err_msg=f"{backend} {name}"
            )


def test_gradients_of_each_phase_agree(computed):
    for backend, ours, theirs in others(computed):
        for part in ("discriminator", "association", "generator"):
            names = [n for n in ours if n.startswith(f"gradient/{part}/")]
            total = np.sqrt(sum(np.sum(ours[n].astype("float64") ** 2) for n in names))
            assert total > 0
            for name in names:
                # A bias before a normalization has no gradient but rounding: held to the whole.
                size = max(np.linalg.norm(ours[name]), 1e-3 * total)
                error = np.linalg.norm(theirs[name] - ours[name])
                assert error < 1e-3 * size, f"{backend} {name}: {error / size:.1e}"


def test_a_toy_gan_agrees_over_twelve_steps(computed):
    for backend, ours, theirs in others(computed):
        np.testing.assert_allclose(
            theirs["toy/losses"], ours["toy/losses"], rtol=1e-5, err_msg=backend
        )


@pytest.mark.parametrize(
    "what",
    [
        "embed/intact", "embed/rain", "embed/cadnet", "embed/adaptive", "embed/saved",
        "recover/intact",
    ],
)  # fmt: skip
def test_features_agree(computed, what):
    for backend, ours, theirs in others(computed):
        np.testing.assert_allclose(theirs[what], ours[what], atol=1e-4, err_msg=backend)
