"""Importing the library loads nothing that the backend does not need."""

import json
import os
import subprocess
import sys

import pytest

LOOK = """
import json, sys
import keras
before = set(sys.modules)
import keras_xreid
heavy = ("torch", "tensorflow", "jax", "matplotlib", "skimage", "sklearn", "tyro")
print(json.dumps([m for m in heavy if m in sys.modules and m not in before]))
"""


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="says something on torch only")
def test_import_on_torch_adds_nothing_heavy():
    # Compared with Keras alone, which itself loads some of these where they are installed.
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_public_name_is_there():
    import keras_xreid as xr

    assert sorted(xr.__all__, key=str.lower) == sorted(set(xr.__all__), key=str.lower)
    for name in xr.__all__:
        assert getattr(xr, name) is not None
        assert (getattr(xr, name).__doc__ or "").strip(), name
