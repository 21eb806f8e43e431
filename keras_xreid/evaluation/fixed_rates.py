"""Scores by protocols that fix each query's rate: see `keras_xreid.data.protocols`."""

import functools

import numpy as np

from keras_xreid.data.resolution import prepare_images
from keras_xreid.errors import InputError
from keras_xreid.evaluation.distances import LazyDistances
from keras_xreid.evaluation.image_quality import can_measure, mean_quality, quality_of_each
from keras_xreid.evaluation.ranking import (
    SCORES,
    counted_queries,
    mean_scores,
    score_queries,
    scores_by_rate,
    standard_error,
)
from keras_xreid.evaluation.reranking import rerank

READ_AT_A_TIME = 1024


def evaluate_fixed_rates(
    model, data, train_rates=(2, 3, 4), batch_size=64, image_size=None, verbose=True, keep=None,
    lpips=None, reranked=False,
):  # fmt: skip
    """Scores a model on queries that come with their rates, as the data set's protocol says.

    Queries and gallery are read as they are, shrunk where the protocol asks for it, and enlarged
    to the network's size; the model is told each query's rate. The gallery is ranked in full, or
    as single-shot galleries, exactly or drawn: `data.gallery_shots`, `data.gallery_draws`.

    Args:
        model: a model with `embed`, `distances` and `image_size`, and perhaps `recover`.
        data: a `DataSet` of a protocol other than "each-rate".
        train_rates: rates that `mean_lr` averages over, 1 and those not there left out: those the
            model was trained on, as a rule.
        batch_size: images a forward pass; does not change the scores.
        image_size: (height, width); `model.image_size` by default.
        verbose: print a line for each rate.
        keep: a dictionary to fill with the features, for figures: "gallery" (g, d), "query"
            (q, d), "rates" (q,) and, for a model whose recovery can be left out, "enlarged" (q, d);
            and with each query's scores, "scores" {"plain", "upscaled": as `score_queries`}.
        lpips: what `load_lpips` returned, to measure LPIPS too.
        reranked: rank by k-reciprocal neighbours, see `keras_xreid.evaluation.reranking`.

    Returns:
        A dictionary as of `evaluate`, with "mixed" besides, the scores of all queries together,
        which is what the papers print; also in "standard_error". "queries" is the number of those
        counted, and "queries_per_rate" tells them apart.

    Raises:
        InputError: no query that can be counted, or a model that needs the gallery at the query's
            rate, which is not fixed for it here.

    Example:

    >>> data = load("market1501", "/data/Market-1501-v15.09.15", protocol="paper")
    >>> evaluate_fixed_rates(model, data)["mixed"]["rank1"]
    """
    if getattr(model, "gallery_at_query_rate", False):
        raise InputError(
            f"a {type(model).__name__} shrinks the gallery like the query, which protocol "
            f"{data.protocol} does not: score it with each-rate, on queries of high resolution"
        )
    if not counted_queries(data.query, data.gallery).any():
        raise InputError(
            f"none of the {len(data.query)} queries has a gallery image of its person by another "
            "camera: query and gallery must share people, seen by at least two cameras"
        )
    image_size = tuple(image_size or model.image_size)
    recovers = hasattr(model, "recover")
    control = recovers and getattr(model, "recovery_can_be_left_out", False)
    measure = recovers and can_measure()
    rates = np.array([np.nan if record.rate is None else record.rate for record in data.query])
    known = not np.isnan(rates).any()
    if verbose:
        shots = "one gallery image a person" if data.gallery_shots else "all of the gallery"
        print(f"Scoring {len(data.query)} queries against {shots} ({len(data.gallery)} images)")

    embed, mirrored = embed_and_mirrored(model, batch_size)
    gallery, flip_gallery = [], []
    for part in _parts(data.gallery):
        images = prepare_images(part, image_size)
        gallery.append(embed(images, 1))
        flip_gallery += [mirrored(images, 1)] if mirrored else []
    gallery = np.concatenate(gallery)
    features, plain, other, quality, plain_quality = [], [], [], {}, {}
    for start in range(0, len(data.query), READ_AT_A_TIME):
        records = data.query[start : start + READ_AT_A_TIME]
        own = rates[start : start + READ_AT_A_TIME]
        images = prepare_images(records, image_size)
        features.append(embed(images, own if known else None))
        other += [mirrored(images, own if known else None)] if mirrored else []
        if control:
            plain.append(embed(images, 1))
        # Of an image that is of low resolution by itself nobody has the original.
        shrunk = np.array([record.kernel is not None for record in records])
        if measure and shrunk.any():
            recovered = model.recover(images, batch_size=batch_size)
            originals = prepare_images([record.original() for record in records], image_size)
            for name in dict.fromkeys(f"{rate:g}" for rate in own[shrunk]):
                rows = shrunk & (own == float(name))
                for found, shown in ((quality, recovered), (plain_quality, images)):
                    found.setdefault(name, []).extend(
                        quality_of_each(shown[rows], originals[rows], lpips)
                    )
    features = np.concatenate(features)
    plain = np.concatenate(plain) if control else None
    keep = {} if keep is None else keep
    keep.update(gallery=gallery, query=features, rates=rates, enlarged=plain, scores={})

    def scores(query, told, variant="plain", gallery=gallery):
        distances = LazyDistances(
            lambda rows: model.distances(query[rows], gallery, query_rates=told[rows]),
            (len(query), len(gallery)),
        )
        if reranked:
            both = np.concatenate([query, gallery])
            of_each = np.concatenate([told, np.ones(len(gallery))])

            def symmetric(rows):
                """Two images are compared on what the one of lower resolution has."""
                there = model.distances(both[rows], both, query_rates=of_each[rows])
                back = model.distances(both, both[rows], query_rates=of_each)
                return np.minimum(there, back.T)

            everything = LazyDistances(symmetric, (len(both), len(both)))
            distances = rerank(everything, len(query))
        shots = {"gallery_shots": data.gallery_shots, "draws": data.gallery_draws}
        of_each = score_queries(distances, data.query, data.gallery, **shots, seed=data.seed)
        keep["scores"][variant] = of_each
        return _scores(of_each, rates if known else None, train_rates)

    told = rates if known else np.ones(len(rates))
    system, enlarged, flip = scores(features, told), None, None
    if mirrored:
        of_gallery = (gallery + np.concatenate(flip_gallery)) / 2
        flip = scores((features + np.concatenate(other)) / 2, told, "flip", of_gallery)
    if recovers:
        system["image_quality"] = {name: mean_quality(pairs) for name, pairs in quality.items()}
        # The control must not know that its query is of low resolution, hence rate 1.
        nothing = {"per_rate": None, "mean_lr": None, "standard_error": None, "mixed": None}
        enlarged = scores(plain, np.ones(len(rates)), "upscaled") if control else nothing
        enlarged["image_quality"] = {n: mean_quality(pairs) for n, pairs in plain_quality.items()}
    if verbose:
        for name, values in {**system["per_rate"], "all": system["mixed"]}.items():
            error = system["standard_error"]["mixed" if name == "all" else name]
            label = "all queries" if name == "all" else f"rate {name}"
            print(f"  {label}: rank-1 {values['rank1']:.1f} ± {error:.1f}, mAP {values['mAP']:.1f}")
    return {"image_quality": None, **system, "enlarged": enlarged, "flip": flip}


def embed_and_mirrored(model, batch_size):
    """How images are embedded, without their mirror images, and how those are.

    Args:
        model: a model with `embed`, and perhaps `flip`.
        batch_size: images a forward pass.

    Returns:
        Two functions of images and what the model is told of their rates; the second is None for a
        model that does not average the two.
    """
    if not getattr(model, "flip", False):
        return functools.partial(_embed, model, batch_size, {}), None
    embed = functools.partial(_embed, model, batch_size, {"flip": False})
    return embed, lambda images, told: embed(images[:, :, ::-1], told)


def _embed(model, batch_size, flip, images, told):
    return model.embed(images, rates=told, batch_size=batch_size, **flip)


def _parts(records):
    return [records[i : i + READ_AT_A_TIME] for i in range(0, len(records), READ_AT_A_TIME)]


def _scores(of_each, rates, train_rates):
    """Scores by rate and of all queries; where rates are not known, of all queries only."""
    if rates is None:
        mixed = mean_scores(of_each)
        count = int(np.sum(~np.isnan(of_each[:, -1])))
        found = {"per_rate": {}, "mixed": mixed, "queries": {"mixed": count}}
        found["standard_error"] = {"mixed": standard_error(mixed["rank1"], count)}
    else:
        found = scores_by_rate(of_each, rates)
        found["per_rate"] = {name: value for name, value in found["per_rate"].items() if value}
    names = [f"{rate:g}" for rate in train_rates if rate > 1 and f"{rate:g}" in found["per_rate"]]
    mean = {s: float(np.mean([found["per_rate"][name][s] for name in names])) for s in SCORES}
    counts = found.pop("queries")
    return {
        **found,
        "mean_lr": mean if names else None,
        "queries": counts.pop("mixed"),
        "queries_per_rate": counts,
    }
