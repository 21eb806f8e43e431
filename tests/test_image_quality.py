"""PSNR and SSIM against their formulas; LPIPS itself is tested in test_lpips.py."""

import sys

import numpy as np
import pytest

from keras_xreid.errors import InputError
from keras_xreid.evaluation.image_quality import psnr, ssim

pytest.importorskip("skimage")
rng = np.random.default_rng(0)
IMAGES = rng.random((3, 24, 16, 3)).astype("float32")
REFERENCES = np.clip(IMAGES + 0.1 * rng.normal(size=IMAGES.shape), 0, 1).astype("float32")


def test_psnr_is_the_mean_of_each_images_own():
    errors = np.mean((IMAGES.astype("float64") - REFERENCES) ** 2, axis=(1, 2, 3))
    assert psnr(IMAGES, REFERENCES) == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-9)
    # A tenth off everywhere is 20 dB, by hand.
    assert psnr(np.full((2, 12, 12, 3), 0.5), np.full((2, 12, 12, 3), 0.6)) == pytest.approx(20)


def test_ssim_is_the_papers_formula():
    """Wang et al. by hand, where the whole window lies inside the image."""
    x = np.arange(-5, 6)
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    scores = []
    for a, b in zip(IMAGES.astype("float64"), REFERENCES.astype("float64"), strict=True):
        for channel in range(3):
            values = []
            for i in range(24 - 10):
                for j in range(16 - 10):
                    p, q = (z[i : i + 11, j : j + 11, channel] for z in (a, b))
                    mp, mq = np.sum(window * p), np.sum(window * q)
                    vp = np.sum(window * p * p) - mp * mp
                    vq = np.sum(window * q * q) - mq * mq
                    cov = np.sum(window * p * q) - mp * mq
                    values.append(
                        (2 * mp * mq + 0.01**2)
                        * (2 * cov + 0.03**2)
                        / ((mp * mp + mq * mq + 0.01**2) * (vp + vq + 0.03**2))
                    )
            scores.append(np.mean(values))
    assert ssim(IMAGES, REFERENCES) == pytest.approx(np.mean(scores), abs=1e-6)


def test_known_answers():
    black, white = np.zeros((1, 16, 16, 3)), np.ones((1, 16, 16, 3))
    assert psnr(black, white) == 0  # an error of 1 everywhere
    # Without contrast SSIM is (2 a b + C1) / (a^2 + b^2 + C1), C1 = 0.01^2, in every channel.
    a, b = np.array([0.2, 0.5, 1.0]), np.array([0.4, 0.5, 0.0])
    expected = np.mean((2 * a * b + 1e-4) / (a * a + b * b + 1e-4))
    assert ssim(white * a, white * b) == pytest.approx(expected, abs=1e-9)


def test_they_are_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    settings = {"data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    values = [
        metrics.structural_similarity(x[..., c], y[..., c], **settings)
        for x, y in zip(REFERENCES.astype("float64"), IMAGES.astype("float64"), strict=True)
        for c in range(3)
    ]
    assert ssim(IMAGES, REFERENCES) == pytest.approx(np.mean(values), abs=1e-12)


def test_equal_images():
    assert psnr(IMAGES, IMAGES) == np.inf
    assert ssim(IMAGES, IMAGES) == pytest.approx(1)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bad_input(metric):
    with pytest.raises(InputError, match="cannot be compared"):
        metric(IMAGES, REFERENCES[:2])
    with pytest.raises(InputError, match="cannot be compared"):
        metric(IMAGES[0], REFERENCES[0])
    with pytest.raises(InputError, match="divide uint8 images by 255"):
        metric(IMAGES * 255, REFERENCES)
    with pytest.raises(InputError, match="references range from nan"):
        metric(IMAGES, REFERENCES * np.nan)


def test_images_smaller_than_the_window():
    with pytest.raises(InputError, match="smaller than the 11x11 window"):
        ssim(IMAGES[:, :10], REFERENCES[:, :10])


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[recipes\]\""):
        psnr(IMAGES, REFERENCES)
