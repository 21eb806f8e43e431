"""One process trains on several devices, on JAX: it ends where one device does."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import keras
import kills
import numpy as np
import pytest

import keras_xreid as xr
from keras_xreid.errors import InputError
from keras_xreid.training import processes

ROOT = Path(__file__).parents[1]
TWO = "--xla_force_host_platform_device_count=2"
RECIPE = "recipes/baseline.py"
SHORT = ["--limit", "4", "--steps", "2", "--batch-size", "4", "--epochs", "3", "--rates", "1",
         "--devices", "2"]  # fmt: skip
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="on JAX alone a process trains on several devices"
)


def started(script, *words, log):
    """Starts a script in a process that has two CPUs as devices; it, and the file of its words."""
    environment = {**os.environ, "XLA_FLAGS": TWO, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with open(log, "wb") as file:
        words = [sys.executable, str(ROOT / script), *map(str, words)]
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment), log


# --- who may start -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend, says", [("torch", "set KERAS_BACKEND=jax or start it by torch"),
                                           ("tensorflow", "set KERAS_BACKEND=jax$")])  # fmt: skip
def test_other_backends_train_on_one_device(monkeypatch, backend, says):
    monkeypatch.setattr(processes, "BACKEND", backend)
    processes.share_out(1)
    with pytest.raises(InputError, match=rf"--devices is 2, and on {backend} .* one: {says}"):
        processes.share_out(2)
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)  # as TensorFlow's MirroredStrategy
    with pytest.raises(InputError, match=f"2 devices are to share .* on {backend} .* one: set"):
        processes.start(types.SimpleNamespace(distribute_strategy=strategy))
    monkeypatch.setattr(processes, "devices", lambda: 2)
    with pytest.raises(InputError, match=f"2 devices are to share .* on {backend} .* one: set"):
        processes.start()


def test_there_are_as_many_devices(monkeypatch):
    monkeypatch.setattr(processes, "BACKEND", "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "cpu:1"])
    with pytest.raises(InputError, match="--devices is 3, and JAX has cpu:0, cpu:1: give 2 at mo"):
        processes.share_out(3)


def test_devices_divide_a_batch(monkeypatch):
    assert processes.devices() == 1
    monkeypatch.setattr(processes, "devices", lambda: 4)
    processes.check_share(8)
    with pytest.raises(InputError, match=r"6 images or pairs a batch .* 4 devices: give"):
        processes.check_share(6)


# --- two devices and one -------------------------------------------------------------------------


@on_jax
@pytest.mark.backend
@pytest.mark.parametrize("name", [
    "baseline",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("intact", "rain", "cadnet", "thinned")),
])  # fmt: skip
def test_two_devices_end_where_one_does(tmp_path, name):
    words = [tmp_path, tmp_path / "found.npz", name]
    kills.ended(*started("tests/distribution_worker.py", *words, log=tmp_path / "log"))
    found = np.load(tmp_path / "found.npz")
    # Each device has half of the rows of every array of a batch, and all weights.
    assert (found["rows"] == [[0, 4], [4, 8]]).all()
    assert (found["copies"] == 2).all()
    keys = [key.removeprefix("one: ") for key in found.files if key.startswith("one: ")]
    assert len(keys) > 10
    for key in keys:
        one, two = found[f"one: {key}"], found[f"two: {key}"]
        np.testing.assert_allclose(two, one, rtol=2e-5, atol=1e-5, err_msg=key)
    assert found["one: log moved"] > 1e-3
    # Three images are no batch of two devices. Only training has to share them equally.
    assert "3 images or pairs a batch cannot be shared by 2 devices" in str(found["said"])
    np.testing.assert_allclose(found["predicted"], found["embedded"], atol=1e-6)


# --- a recipe ------------------------------------------------------------------------------------


@on_jax
@pytest.mark.backend
@pytest.mark.slow
def test_a_killed_run_on_two_devices_resumes_bit_by_bit(tmp_path):
    never, out = tmp_path / "never", tmp_path / "killed"
    process, log = started(RECIPE, *SHORT, "--out", never, log=tmp_path / "never.log")
    kills.ended(process, log)
    process, _ = started(RECIPE, *SHORT, "--out", out, log=tmp_path / "killed.log")
    assert kills.waited(process, lambda: list(out.glob("checkpoint-*")), 0.05)
    process.kill()
    process.wait()
    process, log = started(RECIPE, *SHORT, "--out", out, "--resume", log=tmp_path / "more.log")
    kills.ended(process, log)
    assert "going on after epoch" in log.read_text()
    one, other = (xr.load(folder).get_weights() for folder in (never, out))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@on_jax
@pytest.mark.backend
@pytest.mark.slow
def test_bad_options_are_one_line(tmp_path):
    words = [*SHORT, "--batch-size", "5", "--out", tmp_path / "run"]
    process, log = started(RECIPE, *words, log=tmp_path / "log")
    assert process.wait() == 2
    said = re.findall(r"^baseline.py: (.*)", log.read_text(), re.MULTILINE)
    assert said == ["5 images or pairs a batch cannot be shared by 2 devices: give a batch size "
                    "that 2 divides"]  # fmt: skip
    assert not (tmp_path / "run").exists()
