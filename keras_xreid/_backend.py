"""What has to be settled before Keras is imported; so this is imported first, and imports nothing.

The variables are set where the user has not set them, and do nothing where Keras came first.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("torch", "tensorflow", "jax")  # in the order in which one is chosen

# TensorFlow's convolutions take half the time with oneDNN. On processors without AVX512 it has to
# be asked for.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# PyTorch puts tensors of 2 MB and more into huge pages: the system fetches 1 page for 512.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def place():
    """The rank of this process among those that a launcher started to train together, and how many.

    Returns:
        Two ints, as `torchrun` tells them; 0 and 1 of a process that was started alone.
    """
    told = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    launched = "MASTER_ADDR" in os.environ and all(number.isdigit() for number in told)
    return tuple(map(int, told)) if launched else (0, 1)


def choose():
    """Sets KERAS_BACKEND to an installed backend where Keras would take one that is not there.

    Keras takes what its file names, and writes TensorFlow there if nobody did: any other backend
    in that file is somebody's choice.
    """
    if os.environ.get("KERAS_BACKEND") or "keras" in sys.modules:
        return
    home = os.environ.get("KERAS_HOME")
    file = (Path(home) if home else Path("~/.keras").expanduser()) / "keras.json"
    try:
        wanted = json.loads(file.read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        wanted = None
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if wanted in (None, "tensorflow") and "tensorflow" not in installed and installed:
        os.environ["KERAS_BACKEND"] = installed[0]


def check():
    """Settles the backend of a command; refuses one that is unknown or not installed.

    A command takes the first that is installed of torch, tensorflow, jax, where KERAS_BACKEND does
    not say which.
    """
    from keras_xreid.errors import InputError

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its errors here are remarks
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    chosen = os.environ.get("KERAS_BACKEND") or next(iter(installed), None)
    if chosen is None:
        raise InputError("no backend is installed: pip install one of torch, tensorflow-cpu, jax")
    if chosen not in BACKENDS:
        raise InputError(f"KERAS_BACKEND is {chosen!r}: give one of {', '.join(BACKENDS)}")
    if chosen not in installed:
        found = ", ".join(installed) or "none"
        raise InputError(f"KERAS_BACKEND is {chosen!r}, which is not installed; installed: {found}")
    os.environ["KERAS_BACKEND"] = chosen


choose()
