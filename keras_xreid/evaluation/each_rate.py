"""The protocol `each-rate`: every query at every rate, against the full high-resolution gallery."""

import importlib.util

import numpy as np

from keras_xreid.data.resolution import prepare_images
from keras_xreid.errors import InputError
from keras_xreid.evaluation.image_quality import psnr, ssim
from keras_xreid.evaluation.ranking import (
    SCORES,
    counted_queries,
    evaluate_ranking,
    standard_error,
)

PROTOCOLS = ("each-rate",)


def evaluate(
    model,
    data,
    rates=(1, 2, 3, 4, 8),
    train_rates=(2, 3, 4),
    protocol="each-rate",
    batch_size=64,
    image_size=None,
    kernel="area",
    verbose=True,
):
    """Score a model rate by rate, and a super-resolution model's merely enlarged queries with it.

    Every query is shrunk by each rate and enlarged to the network's size; the gallery stays at
    high resolution. For a model with `recover` the same queries are scored once more without
    recovery (`rates=1` bypasses the generator), and both versions are compared with the
    high-resolution image at the network's size, in PSNR and SSIM.

    Args:
        model: a model with `embed`, `distances` and `image_size`, and perhaps `recover`.
        data: a `DataSet`; its query and gallery are read.
        rates: rates to score, each at least 1 (1 is high resolution).
        train_rates: rates the model was trained on; `mean_lr` averages over those that are scored.
        protocol: "each-rate".
        batch_size: images read, enlarged and embedded at a time.
        image_size: (height, width); `model.image_size` by default.
        kernel: how images are shrunk, see `prepare_images`.
        verbose: print a line for each rate.

    Returns:
        A dictionary: "per_rate" {"1": {"rank1", "rank5", "rank10", "rank20", "mAP"}, ...},
        "mean_lr", "standard_error" {"1": of rank-1, ...}, "queries" (counted ones), and, None for
        a model without `recover`, "enlarged" {"per_rate", "mean_lr", "standard_error",
        "image_quality"} and "image_quality" {"2": {"ssim", "psnr", "lpips"}, ...}. What was not
        measured is None.

    Raises:
        InputError: An unknown protocol, no rates, a rate below 1, or no query that can be counted.

    Example:

    >>> scores = evaluate(model, data, rates=(1, 2, 3, 4, 8))
    >>> scores["per_rate"]["4"]["rank1"], scores["enlarged"]["per_rate"]["4"]["rank1"]
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    if not rates or min(rates) < 1:
        raise InputError(f"rates are {list(rates)}: give at least one rate, each 1 or more")
    image_size = tuple(image_size or model.image_size)
    count = int(counted_queries(data.query, data.gallery).sum())
    if not count:
        raise InputError(
            f"none of the {len(data.query)} queries has a gallery image of its person by another "
            "camera: query and gallery must share people, seen by at least two cameras"
        )
    recovers = hasattr(model, "recover")
    measure = importlib.util.find_spec("skimage") is not None
    if recovers and not measure:
        print('PSNR and SSIM are left out: pip install "keras-xreid[recipes]"')

    def batches(records, rate):
        for start in range(0, len(records), batch_size):
            yield prepare_images(records[start : start + batch_size], image_size, rate, kernel)

    def score(features, rate):
        distances = model.distances(features, gallery_features, query_rates=rate)
        return evaluate_ranking(distances, data.query, data.gallery)

    if verbose:
        print(f"Scoring {len(data.query)} queries against {len(data.gallery)} gallery images")
    gallery_features = np.concatenate([model.embed(x, rates=1) for x in batches(data.gallery, 1)])
    system, enlarged = _empty_scores(), _empty_scores()
    for rate in rates:
        name = f"{rate:g}"
        features, plain_features, quality, plain_quality = [], [], [], []
        for images, originals in zip(
            batches(data.query, rate), batches(data.query, 1), strict=True
        ):
            features.append(model.embed(images, rates=rate))
            if recovers and rate > 1:
                plain_features.append(model.embed(images, rates=1))
                quality.append(_image_quality(model.recover(images), originals, measure))
                plain_quality.append(_image_quality(images, originals, measure))
        system["per_rate"][name] = score(np.concatenate(features), rate)
        if recovers and rate > 1:
            enlarged["per_rate"][name] = score(np.concatenate(plain_features), rate)
            sizes = [len(part) for part in features]
            system["image_quality"][name] = _weighted_mean(quality, sizes)
            enlarged["image_quality"][name] = _weighted_mean(plain_quality, sizes)
        elif recovers:  # at rate 1 nothing is recovered, so the control is the system itself
            enlarged["per_rate"][name] = dict(system["per_rate"][name])
        if verbose:
            print(_progress(name, system, enlarged, count))
    for scores in (system, enlarged):
        scores["mean_lr"] = _mean_over_rates(scores["per_rate"], train_rates)
        scores["standard_error"] = {
            name: standard_error(values["rank1"], count)
            for name, values in scores["per_rate"].items()
        }
    if not recovers:
        system["image_quality"] = enlarged = None
    return {**system, "queries": count, "enlarged": enlarged}


def _empty_scores():
    return {"per_rate": {}, "image_quality": {}}


def _image_quality(images, originals, measure):
    if not measure:
        return {"ssim": None, "psnr": None, "lpips": None}
    images, originals = (
        x.astype("float32") / 255 if x.dtype == np.uint8 else np.asarray(x, "float32")
        for x in (images, originals)
    )
    return {"ssim": ssim(images, originals), "psnr": psnr(images, originals), "lpips": None}


def _weighted_mean(parts, sizes):
    """Mean over all images of the means over batches; a metric not measured stays None."""
    return {
        name: None
        if parts[0][name] is None
        else float(np.average([part[name] for part in parts], weights=sizes))
        for name in parts[0]
    }


def _mean_over_rates(per_rate, train_rates):
    names = [f"{rate:g}" for rate in train_rates if rate > 1 and f"{rate:g}" in per_rate]
    if not names:
        return None
    return {s: float(np.mean([per_rate[name][s] for name in names])) for s in SCORES}


def _progress(name, system, enlarged, count):
    scores = system["per_rate"][name]
    error = standard_error(scores["rank1"], count)
    line = f"  rate {name}: rank-1 {scores['rank1']:.1f} ± {error:.1f}, mAP {scores['mAP']:.1f}"
    if name in enlarged["image_quality"]:
        line += f" (merely enlarged: rank-1 {enlarged['per_rate'][name]['rank1']:.1f})"
    return line
