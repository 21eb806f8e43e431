"""Torch before TensorFlow: the other order can crash where both are installed."""

import importlib.util
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the package's, which Keras precedes here
# Tests run in two processes; threads of their own would only get in each other's way. With one, on
# processors without AVX512, TensorFlow 2.21 crashes in the gradient of 1x1 convolutions with
# strides of fewer than 8 channels, which toys alone have (ONEDNN_MAX_CPU_ISA=AVX2 shows it).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
# JAX compiles every operation of a toy model anew, and that takes far longer than running it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "KERAS_BACKEND" not in os.environ:
    installed = [b for b in ("torch", "tensorflow", "jax") if importlib.util.find_spec(b)]
    os.environ["KERAS_BACKEND"] = installed[0]
sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))


def pytest_runtest_setup():
    """The same draw each time for weights that no test gave a seed: Keras asks Python for it."""
    random.seed(0)
