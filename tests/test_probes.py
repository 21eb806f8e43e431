"""What is published computes what it did when it was published, on every backend.

All scores come again in `test_published.py`, slowly; here it is two images. Files published since
are recorded by

    python tests/test_probes.py
"""

from pathlib import Path

import numpy as np
import pytest
from small import not_on_jax

import keras_xreid as xr
from keras_xreid import hub

RECORDED = Path(__file__).parent / "recorded" / "published.npz"
FILES = [name for name, entry in xr.published().items() if entry["file"]]


def embeddings(name):
    """Of two images of coloured squares, at high resolution and at a quarter of it."""
    model = xr.load(name)
    height, width = model.image_size
    squares = np.random.default_rng(0).integers(0, 256, (2, height // 8, width // 8, 3))
    images = squares.repeat(8, 1).repeat(8, 2).astype("uint8")
    return np.stack([model.embed(images, rates=rate) for rate in (1, 4)])


@pytest.mark.backend
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == hub.best() else [not_on_jax]) for n in FILES]
)
def test_the_embeddings_come_again(name):
    with np.load(RECORDED) as recorded:
        assert name in recorded, "not recorded yet: python tests/test_probes.py"
        expected = recorded[name].astype("float32")
    found = embeddings(name)
    # They are stored as float16, of which the last digit is half a thousandth.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


if __name__ == "__main__":
    kept = dict(np.load(RECORDED)) if RECORDED.exists() else {}
    kept = {
        name: kept[name] if name in kept else embeddings(name).astype("float16") for name in FILES
    }
    np.savez_compressed(RECORDED, **kept)
