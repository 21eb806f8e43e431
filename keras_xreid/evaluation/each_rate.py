"""The protocol `each-rate`: every query at every rate, against the full high-resolution gallery."""

import functools

import numpy as np

from keras_xreid.data.protocols import find_protocol
from keras_xreid.data.resolution import prepare_images
from keras_xreid.errors import InputError
from keras_xreid.evaluation.distances import LazyDistances
from keras_xreid.evaluation.fixed_rates import embed_and_mirrored, evaluate_fixed_rates
from keras_xreid.evaluation.image_quality import can_measure, mean_quality, quality_of_each
from keras_xreid.evaluation.ranking import (
    SCORES,
    counted_queries,
    mean_scores,
    score_queries,
    standard_error,
)
from keras_xreid.evaluation.reranking import rerank

READ_AT_A_TIME = 1024


def evaluate(
    model,
    data,
    rates=(1, 2, 3, 4, 8),
    train_rates=(2, 3, 4),
    protocol=None,
    batch_size=64,
    image_size=None,
    kernel="area",
    verbose=True,
    keep=None,
    told_rates=None,
    lpips=None,
    reranked=False,
):
    """Scores a model rate by rate, and a super-resolution model's merely enlarged queries with it.

    By protocol each-rate; a data set of another protocol, which fixes the rates of its queries, is
    handed to `evaluate_fixed_rates`.

    Every query is shrunk by each rate and enlarged to the network's size; the gallery stays at
    high resolution. For a model with `recover` the recovered queries, and those merely enlarged,
    are compared with the high-resolution image at the network's size, in PSNR and SSIM. Where
    moreover the class attribute `recovery_can_be_left_out` is True, as for INTACT, the same queries
    are scored once more without recovery (`rates=1` bypasses the generator). For a model with the
    class attribute `gallery_at_query_rate` the gallery is shrunk like the query.

    Args:
        model: a model with `embed`, `distances` and `image_size`, and perhaps `recover`.
        data: a `DataSet`; its query and gallery are read.
        rates: rates to score, each at least 1 (1 is high resolution).
        train_rates: rates that `mean_lr` averages over, 1 and those not scored left out: those the
            model was trained on, as a rule.
        protocol: the one that the data set was loaded with, to be sure of it; None takes that.
        batch_size: images a forward pass; does not change the scores.
        image_size: (height, width); `model.image_size` by default.
        kernel: how images are shrunk, see `prepare_images`.
        verbose: print a line for each rate.
        keep: a dictionary to fill with the features, for figures: "gallery" {rate: (g, d)},
            "query" {rate: (q, d)}, "enlarged" {rate: (q, d)} and "told" {rate: rate told}; of a
            model that averages mirror images also "flip" and "flip_gallery"; and with each query's
            scores, "scores" {variant: {rate: what `score_queries` returns}}, for `write_queries`:
            "plain", "upscaled" where the control is scored, and "flip".
        told_rates: {rate: rate that the model is told}, to score images of a rate as another one;
            the true one where it says nothing.
        lpips: what `load_lpips` returned, to measure LPIPS too.
        reranked: rank by k-reciprocal neighbours, see `keras_xreid.evaluation.reranking`.

    Returns:
        A dictionary: "per_rate" {"1": {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}, ...},
        "mean_lr", "standard_error" {"1": of rank-1, ...}, "queries" (counted ones), and, None for
        a model without `recover`, "enlarged" {"per_rate", "mean_lr", "standard_error",
        "image_quality"} and "image_quality" {"2": {"ssim", "psnr", "lpips"}, ...}. What was not
        measured is None, as are the enlarged queries' scores of a model that embeds without
        recovering, or cannot without. "flip" {"per_rate", "mean_lr", "standard_error"} has the
        scores of averages of image and mirror image; None for a model that makes none.

    Raises:
        InputError: Another protocol than the data set's, no rates, a rate below 1, or no query
            that can be counted.

    Example:

    >>> scores = evaluate(model, data, rates=(1, 2, 3, 4, 8))
    >>> scores["per_rate"]["4"]["rank1"], scores["enlarged"]["per_rate"]["4"]["rank1"]
    """
    of_data = getattr(data, "protocol", "each-rate")
    if protocol is not None and find_protocol(protocol) is not find_protocol(of_data):
        raise InputError(
            f"protocol {protocol} was asked for, and the data set was loaded with {of_data}: give "
            "the protocol to datasets.load"
        )
    if of_data != "each-rate" and told_rates:
        raise InputError(
            f"protocol {of_data} fixes each query's rate: give told_rates with each-rate only"
        )
    if of_data != "each-rate":
        return evaluate_fixed_rates(
            model, data, train_rates, batch_size, image_size, verbose, keep, lpips,
            reranked,
        )  # fmt: skip
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
    control = recovers and getattr(model, "recovery_can_be_left_out", False)
    measure = recovers and can_measure()

    keep = {} if keep is None else keep
    told_rates = told_rates or {}
    keep.update(query={}, enlarged={}, gallery={}, flip={}, flip_gallery={})
    keep.update(told={r: told_rates.get(r, r) for r in rates})
    of_each = keep["scores"] = {"plain": {}, **({"upscaled": {}} if control else {})}
    shrink_gallery = getattr(model, "gallery_at_query_rate", False)

    embed, mirrored = embed_and_mirrored(model, batch_size)
    if mirrored:
        of_each["flip"] = {}

    def score(features, gallery, told, rate, variant="plain"):
        first, second = features, gallery
        if reranked:  # all images to all
            first = second = np.concatenate([features, gallery])
        distances = LazyDistances(
            lambda rows: model.distances(first[rows], second, query_rates=told),
            (len(first), len(second)),
        )
        if reranked:
            distances = rerank(distances, len(features))
        of_each[variant][rate] = score_queries(distances, data.query, data.gallery)
        return mean_scores(of_each[variant][rate])

    if verbose:
        print(f"Scoring {len(data.query)} queries against {len(data.gallery)} gallery images")
    prepare = functools.partial(prepare_images, image_size=image_size, kernel=kernel)

    def embed_gallery(rate):
        told, plain, other = keep["told"][rate] if shrink_gallery else 1, [], []
        for part in _parts(data.gallery):
            images = prepare(part, rates=rate)
            plain.append(embed(images, told))
            other += [mirrored(images, told)] if mirrored else []
        plain = np.concatenate(plain)
        return plain, (plain + np.concatenate(other)) / 2 if mirrored else None

    if not shrink_gallery:
        both = embed_gallery(1)
        for place, features in zip(("gallery", "flip_gallery"), both, strict=True):
            keep[place] = dict.fromkeys(rates, features)
    system, enlarged, flip = _empty_scores(), _empty_scores(), {"per_rate": {}}
    for rate in rates:
        name, told = f"{rate:g}", keep["told"][rate]
        if shrink_gallery:
            keep["gallery"][rate], keep["flip_gallery"][rate] = embed_gallery(rate)
        features, plain_features, other, quality, plain_quality = [], [], [], [], []
        for records in _parts(data.query):
            images = prepare(records, rates=rate)
            features.append(embed(images, told))
            other += [mirrored(images, told)] if mirrored else []
            if control and rate > 1:
                plain_features.append(embed(images, 1))
            if measure and rate > 1:
                originals = prepare(records, rates=1)
                recovered = model.recover(images, batch_size=batch_size)
                quality.extend(quality_of_each(recovered, originals, lpips))
                plain_quality.extend(quality_of_each(images, originals, lpips))
        keep["query"][rate] = np.concatenate(features)
        system["per_rate"][name] = score(keep["query"][rate], keep["gallery"][rate], told, rate)
        if mirrored:
            keep["flip"][rate] = (keep["query"][rate] + np.concatenate(other)) / 2
            flip["per_rate"][name] = score(
                keep["flip"][rate], keep["flip_gallery"][rate], told, rate, "flip"
            )
        if recovers and rate > 1:
            system["image_quality"][name] = mean_quality(quality)
            enlarged["image_quality"][name] = mean_quality(plain_quality)
        if control and rate > 1:
            # The control must not know that its query is of low resolution, hence rate 1.
            keep["enlarged"][rate] = np.concatenate(plain_features)
            enlarged["per_rate"][name] = score(
                keep["enlarged"][rate], keep["gallery"][rate], 1, rate, "upscaled"
            )
        elif control:  # at rate 1 nothing is recovered, so the control is the system itself
            enlarged["per_rate"][name] = dict(system["per_rate"][name])
            of_each["upscaled"][rate] = of_each["plain"][rate]
        if verbose:
            print(_progress(name, system, enlarged, count))
    for scores in (system, enlarged, flip):
        scores["mean_lr"] = _mean_over_rates(scores["per_rate"], train_rates)
        scores["standard_error"] = {
            name: standard_error(values["rank1"], count)
            for name, values in scores["per_rate"].items()
        }
    if not control:
        enlarged.update(per_rate=None, mean_lr=None, standard_error=None)
    if not recovers:
        system["image_quality"] = enlarged = None
    return {**system, "queries": count, "enlarged": enlarged, "flip": flip if mirrored else None}


def _empty_scores():
    return {"per_rate": {}, "image_quality": {}}


def _parts(records):
    """The records a bounded number at a time: a whole gallery of images may not fit in memory."""
    return [records[i : i + READ_AT_A_TIME] for i in range(0, len(records), READ_AT_A_TIME)]


def _mean_over_rates(per_rate, train_rates):
    names = [f"{rate:g}" for rate in train_rates if rate > 1 and f"{rate:g}" in per_rate]
    if not names:
        return None
    return {s: float(np.mean([per_rate[name][s] for name in names])) for s in SCORES}


def _progress(name, system, enlarged, count):
    scores = system["per_rate"][name]
    error = standard_error(scores["rank1"], count)
    line = f"  rate {name}: rank-1 {scores['rank1']:.1f} ± {error:.1f}, mAP {scores['mAP']:.1f}"
    if name != "1" and name in enlarged["per_rate"]:
        line += f" (merely enlarged: rank-1 {enlarged['per_rate'][name]['rank1']:.1f})"
    return line
