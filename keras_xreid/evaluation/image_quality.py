"""PSNR, SSIM and LPIPS of batches of images, in RGB with data range 1.

PSNR and SSIM are scikit-image's; LPIPS runs on the Keras backend.
"""

import functools
import importlib.util

import numpy as np

from keras_xreid.errors import InputError
from keras_xreid.evaluation.lpips import SMALLEST, load_lpips
from keras_xreid.models.forward import predict


def psnr(images, references):
    """Gives the peak signal-to-noise ratio, the mean over the images of a batch.

    The squared error is the mean over R, G and B, and the peak is 1, the data range.

    Args:
        images: (n, height, width, 3) float array in [0, 1], RGB.
        references: array of the same shape and range.

    Returns:
        Decibels, higher is closer; infinite where an image equals its reference.

    Raises:
        InputError: The shapes differ, values leave [0, 1], or scikit-image is not installed.

    Example:

    >>> psnr(model.recover(images), originals)
    """
    metrics = _scikit_image()
    pairs = zip(*_checked(images, references, "float64"), strict=True)
    with np.errstate(divide="ignore"):  # equal images: infinite, as documented
        return float(
            np.mean([metrics.peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in pairs])
        )


def ssim(images, references):
    """Gives the structural similarity, the mean over the images of a batch.

    As in the paper: Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03,
    population covariance; computed on each of R, G and B with data range 1 and averaged.

    Args:
        images: (n, height, width, 3) float array in [0, 1], RGB, at least 11 x 11 pixels.
        references: array of the same shape and range.

    Returns:
        Similarity, 1 for equal images.

    Raises:
        InputError: The shapes differ, values leave [0, 1], images are smaller than the window, or
            scikit-image is not installed.

    Example:

    >>> ssim(model.recover(images), originals)

    Reference:

    - Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity,
      IEEE TIP 2004.
    """
    metrics = _scikit_image()
    images, references = _checked(images, references, "float64")
    height, width = images.shape[1:3]
    if min(height, width) < 11:
        raise InputError(
            f"images of {height}x{width} pixels are smaller than the 11x11 window of SSIM"
        )
    return float(
        np.mean(
            [
                metrics.structural_similarity(
                    b,
                    a,
                    data_range=1.0,
                    channel_axis=-1,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in zip(images, references, strict=True)
            ]
        )
    )


def lpips(images, references, network=None, batch_size=64):
    """Gives LPIPS (version 0.1, AlexNet), the mean over the images of a batch.

    Args:
        images: (n, height, width, 3) float array in [0, 1], RGB, at least 31 x 31 pixels. Nothing
            is resized: the paper's own images are of 64 x 64, and the size changes the values.
        references: array of the same shape and range.
        network: what `load_lpips` returned; loaded, and perhaps downloaded, if not given.
        batch_size: images a forward pass.

    Returns:
        Perceptual distance, 0 for equal images, larger is less alike.

    Raises:
        InputError: The shapes differ, values leave [0, 1], images are too small, or the weights
            are not at hand.

    Example:

    >>> lpips(model.recover(images), originals)

    Reference:

    - Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
      CVPR 2018.
    """
    images, references = _checked(images, references, "float32")
    height, width = images.shape[1:3]
    if min(height, width) < SMALLEST:
        raise InputError(
            f"images of {height}x{width} pixels are too small for LPIPS: give {SMALLEST} pixels a "
            "side or more"
        )
    network = _network() if network is None else network
    return float(np.mean(predict(network, [images, references], batch_size)[0], dtype="float64"))


_network = functools.cache(load_lpips)


def can_measure():
    """Whether PSNR and SSIM can be measured; says how, where they cannot."""
    found = importlib.util.find_spec("skimage") is not None
    if not found:  # the scores of a long run are not lost for that
        print('PSNR and SSIM are left out: pip install -e ".[recipes]"')
    return found


def quality_of_each(images, references, network=None):
    """Measures each image of a batch.

    Args:
        images: (n, height, width, 3) uint8, or float in [0, 1], RGB.
        references: array of the same shape, uint8 or float.
        network: what `load_lpips` returned, or None: LPIPS is not measured.

    Returns:
        List of n dictionaries of "ssim", "psnr" and "lpips" (None where not measured).
    """
    images, references = (
        x / np.float32(255) if x.dtype == np.uint8 else x for x in (images, references)
    )
    distances = [None] * len(images)
    if network is not None:
        distances = predict(network, [images, references], 64)[0][:, 0].tolist()
    return [
        {"ssim": ssim(x[None], y[None]), "psnr": psnr(x[None], y[None]), "lpips": distance}
        for x, y, distance in zip(images, references, distances, strict=True)
    ]


def mean_quality(found):
    """The mean of what `quality_of_each` returned; None for what was not measured.

    Args:
        found: list of dictionaries of "ssim", "psnr" and "lpips"; may be empty.

    Returns:
        A dictionary of the same three.
    """
    names = ("ssim", "psnr", "lpips")
    values = {name: [one[name] for one in found] for name in names}
    return {
        name: None if not of or None in of else float(np.mean(of)) for name, of in values.items()
    }


def _scikit_image():
    try:
        import skimage.metrics
    except ImportError as error:
        raise InputError(
            'PSNR and SSIM need scikit-image, which is not installed: pip install -e ".[recipes]"'
        ) from error
    return skimage.metrics


def _checked(images, references, dtype):
    images, references = np.asarray(images), np.asarray(references)
    if images.shape != references.shape or images.ndim != 4 or not len(images):
        raise InputError(
            f"images of shape {images.shape} cannot be compared with references of shape "
            f"{references.shape}: give two equal (n, height, width, 3) arrays, n at least 1"
        )
    for name, batch in (("images", images), ("references", references)):
        low, high = batch.min(), batch.max()
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails too
            raise InputError(
                f"{name} range from {low} to {high}: give float values in [0, 1] "
                "(divide uint8 images by 255)"
            )
    return images.astype(dtype, copy=False), references.astype(dtype, copy=False)
