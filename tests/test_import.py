"""Importing the library loads nothing that the backend does not need, and settles what it can."""

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


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "torch", reason="says something on torch only")
def test_import_on_torch_adds_nothing_heavy():
    # Compared with Keras alone, which itself loads some of these where they are installed.
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


# Imports the package up to where it imports Keras, and prints what was settled by then.
UP_TO_KERAS = """
import importlib.util, json, os, sys
installed, keras_first = sys.argv[1].split(), len(sys.argv) > 2
importlib.util.find_spec = lambda name: name in installed or None
if keras_first:
    sys.modules["keras"] = None

class Stop:
    def find_spec(name, path=None, target=None):
        if name in ("keras", "torch", "tensorflow", "jax"):
            raise ImportError(f"not {name}")

sys.meta_path.insert(0, Stop)
try:
    import keras_xreid
except ImportError as error:
    assert "keras" in str(error), error
print(json.dumps([os.environ.get(v) for v in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS")]))
"""


def settled(home, installed="torch tensorflow jax", *keras_first, **variables):
    """What a fresh process has settled before Keras is imported: the backend, and oneDNN."""
    environment = {k: v for k, v in os.environ.items() if k not in ("KERAS_HOME", "KERAS_BACKEND")}
    environment.pop("TF_ENABLE_ONEDNN_OPTS")
    done = subprocess.run(
        [sys.executable, "-c", UP_TO_KERAS, installed, *keras_first],
        env={**environment, "HOME": str(home), **variables}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_tensorflow_computes_with_onednn_unless_told_otherwise(tmp_path):
    assert settled(tmp_path)[1] == "1"
    assert settled(tmp_path, TF_ENABLE_ONEDNN_OPTS="0")[1] == "0"


def test_an_installed_backend_is_taken_where_nobody_chose_one(tmp_path):
    def chosen(*arguments, **variables):
        return settled(tmp_path, *arguments, **variables)[0]

    assert chosen("torch") == chosen("jax torch") == "torch" and chosen("jax") == "jax"
    assert chosen("") is None  # Keras says what it misses
    assert chosen("torch tensorflow") is None  # Keras's own default is there
    assert chosen("torch", KERAS_BACKEND="jax") == "jax"
    assert chosen("torch", "keras first") is None
    (tmp_path / ".keras").mkdir()
    file = tmp_path / ".keras" / "keras.json"
    for written, expected in (
        ('{"backend": "tensorflow"}', "torch"),  # as Keras writes it by itself
        ('{"backend": "jax"}', None),
        ("[", "torch"),
    ):
        file.write_text(written)
        assert chosen("torch") == expected, written
    file.write_text('{"backend": "jax"}')
    file.rename(tmp_path / "keras.json")
    assert chosen("torch", KERAS_HOME=str(tmp_path)) is None


def test_every_public_name_is_there():
    import keras_xreid as xr

    assert sorted(xr.__all__, key=str.lower) == sorted(set(xr.__all__), key=str.lower)
    for name in xr.__all__:
        assert getattr(xr, name) is not None
        assert (getattr(xr, name).__doc__ or "").strip(), name


def test_backbones_are_named_without_keras():
    code = "import sys; from keras_xreid.backbones import NAMES; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
