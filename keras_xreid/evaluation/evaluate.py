"""Scores of a model by any protocol: a plan, one loop, and one object with all that was found."""

import dataclasses
import re

import numpy as np

from keras_xreid.data.camera import check_strength
from keras_xreid.data.protocols import find_protocol
from keras_xreid.data.rate import ESTIMATED, estimate_rate
from keras_xreid.data.resolution import check_rates, lr_rates, prepare_images, rate_range
from keras_xreid.errors import InputError
from keras_xreid.evaluation.distances import LazyDistances, distances_among, model_distances
from keras_xreid.evaluation.image_quality import can_measure, mean_quality, quality_of_each
from keras_xreid.evaluation.ranking import (
    SCORES,
    counted_queries,
    rank_queries,
    scores_by_rate,
    standard_error,
)
from keras_xreid.evaluation.reranking import rerank
from keras_xreid.evaluation.samples import one_query_a_person, queries_to_map, queries_to_show

READ_AT_A_TIME = 1024


@dataclasses.dataclass
class Trial:
    """All queries once, at one rate or each at its own; and what was found for them.

    A variant is "plain", the model as it is; "upscaled", the control whose queries are not
    recovered; or "flip", averages of image and mirror image.

    Args:
        rate: every query is shrunk by it; None: the protocol gave each query its own rate.
        query_rates: (q,) rates that the queries have, NaN where nobody knows.
        told_rates: what the model hears of them: a number, (q,) of them, or None; NaN where it
            hears nothing of one.
        gallery_rate: what the gallery is shrunk by.
        gallery_told: what the model hears of the gallery.
        images: (q,) names of the images that the queries show, where the protocol makes a query of
            an image at each rate; else None.

    Attributes:
        gallery: {"plain", perhaps "flip": (g, d) features}.
        query: {variant: (q, d) features}.
        scores: {variant: (q, 6) scores of each query, as `score_queries` returns them}.
        nearest: {variant: (q, 15) gallery columns, the nearest first, as `rank_queries` has them}.
        first: {variant: (q,) rank of the first true match}.
        quality: {"4": (of the recovered, of the upscaled queries)}, as of `quality_of_each`.
        shown: {rate: [(why it was chosen, query), ...]}, whose lists a report shows.
        recovered: {query: the recovered image}, of those that a report shows.
    """

    rate: float | None
    query_rates: np.ndarray
    told_rates: object
    gallery_rate: float = 1
    gallery_told: float = 1
    images: list | None = None
    gallery: dict = dataclasses.field(default_factory=dict)
    query: dict = dataclasses.field(default_factory=dict)
    scores: dict = dataclasses.field(default_factory=dict)
    nearest: dict = dataclasses.field(default_factory=dict)
    first: dict = dataclasses.field(default_factory=dict)
    quality: dict = dataclasses.field(default_factory=dict)
    shown: dict = dataclasses.field(default_factory=dict)
    recovered: dict = dataclasses.field(default_factory=dict)

    @property
    def shrinks(self):
        """By how much images are shrunk when they are read; a protocol's are shrunk already."""
        return self.rate or 1

    @property
    def compared_at(self):
        """The rates that distances are told: high resolution, where nobody knows them."""
        if self.told_rates is None:
            return np.ones(len(self.query_rates))
        told = self.told_rates
        return np.nan_to_num(told, nan=1.0) if np.ndim(told) else told


@dataclasses.dataclass
class Result:
    """What `evaluate` found: a report is drawn from it, and the model is not asked again.

    Attributes:
        scores: the dictionary that goes into metrics.json, see `evaluate`.
        trials: list of `Trial`, one a rate, or a single one where the protocol fixed the rates.
        data: the `DataSet` that was scored.
        image_size: (height, width) of the network's images.
        kernel: how images were shrunk.
        strength: how much a camera added to the queries.
        samples: queries of some people, drawn by a seed; each trial has them recovered.
        mapped: queries of a map of embeddings, drawn by a seed, the same in each trial.
        map_distances: distances between their embeddings of all trials, trial after trial.
        masks: an `Adaptive` model's (levels, channels) masks, one a stage; else None.
        mask_rates: the rates of its levels; else None.
    """

    scores: dict
    trials: list
    data: object
    image_size: tuple
    kernel: str
    samples: list
    mapped: list
    map_distances: np.ndarray
    masks: list | None = None
    mask_rates: list | None = None
    strength: float = 0.0


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
    told_rates=None,
    lpips=None,
    reranked=False,
    strength=0.0,
    adapted=None,
):
    """Scores a model by the protocol that its data set was loaded with.

    By each-rate every query is shrunk by each rate and upscaled to the network's size, against
    the full gallery at high resolution. The other protocols have shrunk the queries already, and
    may rank single-shot galleries.

    Of a model with `recover` the recovered and the upscaled queries are compared with their
    high-resolution image, in PSNR and SSIM. Where its class says `recovery_can_be_left_out`, as
    INTACT's, the same queries are scored once more without recovery: `rates=1` bypasses the
    generator. Where it says `gallery_at_query_rate` the gallery is shrunk like the query.

    Args:
        model: a model with `embed`, `distances` and `image_size`, and perhaps `recover`.
        data: a `DataSet`; its query and gallery are read.
        rates: rates that each-rate scores, each at least 1 (1 is high resolution).
        train_rates: rates that `mean_lr` averages over, or a range, "1..4"; 1 and those not scored
            left out: those the model was trained on, as a rule.
        protocol: the one that the data set was loaded with, to be sure of it; None takes that.
        batch_size: images a forward pass; does not change the scores.
        image_size: (height, width); `model.image_size` by default.
        kernel: how each-rate shrinks images, see `prepare_images`.
        verbose: print a line for each rate.
        told_rates: "estimated", what `estimate_rate` sees in each query; or
            {rate: rate that the model hears}, to score images of a rate as another one by
            each-rate; the true one where it says nothing.
        lpips: what `load_lpips` returned, to measure LPIPS too.
        reranked: rank by k-reciprocal neighbours, see `keras_xreid.evaluation.reranking`.
        strength: float in [0, 1], how much a camera adds to the queries of rates above 1, see
            `degrade`; 0 is plain shrinking. A query's blur, noise and JPEG are drawn by its name.
            The gallery is never degraded so.
        adapted: statistics of the data set's cameras, from `model.adapt`, for queries and gallery.

    Returns:
        A `Result`. Its `scores` are a dictionary: "per_rate" {"1": {"rank1", "rank5", "rank10",
        "rank20", "mAP", "mINP"}, ...}, "mean_lr", "standard_error" {"1": of rank-1, ...},
        "queries" (counted ones), and, None for a model without `recover`, "enlarged" {"per_rate",
        "mean_lr", "standard_error", "image_quality"}, the upscaled queries, and "image_quality"
        {"2": {"ssim", "psnr", "lpips"}, ...}. What was not measured is None, as are the scores
        of upscaled queries of a model that embeds without recovering. "flip" {"per_rate",
        "mean_lr", "standard_error"} has averages of image and mirror image; None for a model that
        makes none. Where the protocol fixes the rates there is "mixed" besides, all queries
        together, which is what the papers print, and "queries_per_rate". Queries whose rate nobody
        knows count in "mixed" alone, and the model is told no rate of them.

    Raises:
        InputError: another protocol than the data set's, a strength with one that has shrunk the
            queries already, no rates, a rate below 1, no query that
            can be counted, or a model that needs the gallery at a rate that the protocol does not
            shrink it by.

    Example:

    >>> scores = evaluate(model, data, rates=(1, 2, 3, 4, 8)).scores
    >>> scores["per_rate"]["4"]["rank1"], scores["enlarged"]["per_rate"]["4"]["rank1"]
    """
    rule = find_protocol(data.protocol)
    if protocol is not None and find_protocol(protocol) is not rule:
        raise InputError(
            f"protocol {protocol} was asked for, and the data set was loaded with {data.protocol}: "
            "give the protocol to datasets.load"
        )
    check_strength(strength)
    if strength and rule.low is not None:
        raise InputError(
            f"protocol {data.protocol} has shrunk its queries already: a camera's degradation goes "
            "with each-rate, on queries of high resolution"
        )
    if np.size(train_rates):  # none: no mean is taken
        check_rates(train_rates)
    train_rates = lr_rates(train_rates)
    trials = plan(model, data, rates, told_rates or {})
    counted = np.flatnonzero(counted_queries(data.query, data.gallery))
    if not len(counted):
        raise InputError(
            f"none of the {len(data.query)} queries has a gallery image of its person by another "
            "camera: query and gallery must share people, seen by at least two cameras"
        )
    recovers = hasattr(model, "recover")
    control = recovers and getattr(model, "recovery_can_be_left_out", False)
    size = tuple(image_size or model.image_size)
    asked = _Asked(model, size, kernel, batch_size, lpips, strength, adapted)
    # Of an image that is of low resolution by itself nobody has the original.
    shrinks = max(trial.shrinks for trial in trials) > 1
    shrunk = [row for row in counted if shrinks or data.query[row].kernel is not None]
    samples = one_query_a_person(data.query, shrunk, 4) if recovers else []
    if verbose:
        shots = "one gallery image a person" if rule.gallery_shots else "all of the gallery"
        print(f"Scoring {len(data.query)} queries against {shots} ({len(data.gallery)} images)")
    galleries = {}
    for trial in trials:
        at = trial.gallery_rate, trial.gallery_told
        if at not in galleries:
            galleries[at] = asked.gallery(data.gallery, *at)
        trial.gallery = galleries[at]
        low = bool(np.any(trial.query_rates != 1))
        asked.queries(trial, data.query, control and low)
        _rank(trial, model, data, rule, reranked)
        if control and not low:  # nothing is recovered, so the control is the system itself
            for found in (trial.scores, trial.nearest, trial.first):
                found["upscaled"] = found["plain"]
        _choose(trial, data.query, counted)
        shown = [row for of_rate in trial.shown.values() for _, row in of_rate if control]
        rows = sorted({*samples, *shown}) if low else []
        if rows:  # a handful, for figures
            seen = asked.read([data.query[row] for row in rows], trial.shrinks, strength)
            images = asked.recover(seen)
            trial.recovered = dict(zip(rows, images, strict=True))
        if verbose:
            print("\n".join(_lines(trial, train_rates)))
    mapped = queries_to_map(data.query, counted, len(trials))
    return Result(
        scores=_scores(trials, train_rates, len(counted), recovers),
        trials=trials,
        data=data,
        image_size=asked.image_size,
        kernel=kernel,
        samples=samples,
        mapped=mapped,
        map_distances=_among(model, trials, mapped),
        masks=[mask.values for mask in getattr(model, "masks", None) or ()] or None,
        mask_rates=getattr(model, "rates", None),
        strength=strength,
    )


def plan(model, data, rates=(1, 2, 3, 4, 8), told_rates=None):
    """Says what is scored: a trial for each rate, or one where the protocol fixed the rates.

    Args:
        model: read for `gallery_at_query_rate`.
        data: a `DataSet`.
        rates: as for `evaluate`.
        told_rates: as for `evaluate`.

    Returns:
        List of `Trial`, in which nothing is found yet.

    Raises:
        InputError: as `evaluate`, of rates.
    """
    gallery_too = getattr(model, "gallery_at_query_rate", False)
    told_rates = told_rates or {}
    estimated, told_rates = told_rates == ESTIMATED, {} if told_rates == ESTIMATED else told_rates
    if estimated and gallery_too:
        raise InputError(f"a {type(model).__name__} shrinks the gallery: it needs the true rates")
    if find_protocol(data.protocol).low is None:
        check_rates(rates)
        if rate_range(rates):
            raise InputError(f"rates {rates!r} to score: give numbers, no range")
        trials = []
        for rate in dict.fromkeys(rates):
            told = ESTIMATED if estimated else told_rates.get(rate, rate)
            gallery = (rate, told) if gallery_too else (1, 1)
            trials.append(Trial(rate, np.full(len(data.query), float(rate)), told, *gallery))
        return trials
    if told_rates:
        raise InputError(
            f"protocol {data.protocol} fixes each query's rate: give told_rates with each-rate only"
        )
    if gallery_too:
        raise InputError(
            f"a {type(model).__name__} shrinks the gallery like the query, which protocol "
            f"{data.protocol} does not: score it with each-rate, on queries of high resolution"
        )
    own = np.array([np.nan if record.rate is None else record.rate for record in data.query])
    told = None if np.isnan(own).all() else own
    images = _images_of(data) if find_protocol(data.protocol).every_rate else None
    return [Trial(None, own, ESTIMATED if estimated else told, images=images)]


def _images_of(data):
    """Names the images that queries show; `build` wrote a.jpg at rate 1, a_2x.bmp and a_3x.bmp."""
    if data.name == "mlr":
        return [re.sub(r"(_[\d.]+x)?(-\d+)?\.\w+$", r"\2", r.path) for r in data.query]
    return [f"{r.path} {r.key}" for r in data.query]


class _Asked:
    """A model that is asked about images, which are read a bounded number at a time."""

    def __init__(self, model, image_size, kernel, batch_size, lpips, strength, adapted):
        self.model, self.image_size, self.kernel = model, image_size, kernel
        self.batch_size, self.lpips = batch_size, lpips
        self.strength, self.adapted = strength, adapted
        self.flips = getattr(model, "flip", False)
        self.measures = hasattr(model, "recover") and can_measure()

    def read(self, records, rate, strength=0.0):
        return prepare_images(records, self.image_size, rate, self.kernel, strength)

    def embed(self, images, told, records):
        unknown = np.isnan(told) if np.ndim(told) else np.zeros(1, bool)
        if unknown.any():  # nothing is made up: those images are embedded without a rate
            parts = []
            for rows, of in ((unknown, None), (~unknown, told[~unknown])):
                own = [record for record, chosen in zip(records, rows, strict=True) if chosen]
                parts += [self.embed(images[rows], of, own)] if own else []
            order = np.argsort(~unknown, kind="stable")
            return np.concatenate(parts)[np.argsort(order)]
        options = {"flip": False} if self.flips else {}
        if self.adapted is not None:
            cameras = [record.camera for record in records]
            options |= {"cameras": cameras, "adapted": self.adapted}
        return self.model.embed(images, rates=told, batch_size=self.batch_size, **options)

    def recover(self, images):
        return self.model.recover(images, batch_size=self.batch_size)

    def versions(self, images, told, records):
        """Features of images, and of their averages with their mirror images."""
        found = {"plain": self.embed(images, told, records)}
        if self.flips:
            mirrored = self.embed(images[:, :, ::-1], told, records)
            found["flip"] = (found["plain"] + mirrored) / 2
        return found

    def gallery(self, records, rate, told):
        parts = [records[p] for p in _parts(records)]
        return _joined([self.versions(self.read(part, rate), told, part) for part in parts])

    def queries(self, trial, records, control):
        """Features of the queries, and how close the recovered ones are to their originals."""
        found = []
        estimated = isinstance(trial.told_rates, str)
        if estimated:
            trial.told_rates = np.ones(len(records), "float32")
        for rows in _parts(records):
            images = self.read(records[rows], trial.shrinks, self.strength)
            if estimated:
                trial.told_rates[rows] = estimate_rate(images)
            found.append(self.versions(images, _of(trial.told_rates, rows), records[rows]))
            if control:
                # It must not know that its query is of low resolution, hence rate 1.
                found[-1]["upscaled"] = self.embed(images, 1, records[rows])
            if hasattr(self.model, "recover"):
                self.compare(trial, records[rows], trial.query_rates[rows], images)
        trial.query = _joined(found)

    def compare(self, trial, records, rates, images):
        shrunk = np.array([trial.shrinks > 1 or record.kernel is not None for record in records])
        rates = np.array([float(f"{rate:g}") for rate in rates])  # as the scores have them
        names = list(dict.fromkeys(f"{rate:g}" for rate in rates[shrunk]))
        for name in names:
            trial.quality.setdefault(name, ([], []))
        if not names or not self.measures:
            return
        recovered = self.recover(images)
        originals = self.read([record.original() for record in records], 1)
        for name in names:
            rows = shrunk & (rates == float(name))
            for found, shown in zip(trial.quality[name], (recovered, images), strict=True):
                found.extend(quality_of_each(shown[rows], originals[rows], self.lpips))


def _parts(records):
    """Slices of a bounded number: a whole gallery of images may not fit in memory."""
    return [slice(i, i + READ_AT_A_TIME) for i in range(0, len(records), READ_AT_A_TIME)]


def _joined(parts):
    return {variant: np.concatenate([part[variant] for part in parts]) for variant in parts[0]}


def _of(told, rows):
    """What is told of some images, where it may be told of each or of all."""
    return told[rows] if np.ndim(told) else told


def _rank(trial, model, data, rule, reranked):
    told = trial.compared_at
    for variant, query in trial.query.items():
        gallery = trial.gallery["flip" if variant == "flip" else "plain"]
        heard = np.ones_like(told) if variant == "upscaled" else told
        distances = _distances(model, query, gallery, heard, reranked)
        trial.scores[variant], trial.nearest[variant], trial.first[variant] = rank_queries(
            distances, data.query, data.gallery, rule.gallery_shots, rule.gallery_draws, data.seed
        )


def _choose(trial, query, counted):
    """Chooses the queries of each rate whose lists are shown."""
    for rate in np.unique(trial.query_rates[counted]):
        own = counted[trial.query_rates[counted] == rate]
        if len(own):  # none is of a rate that nobody knows
            trial.shown[float(rate)] = queries_to_show(query, own, trial.first)


def _distances(model, query, gallery, told, reranked):
    if not reranked:
        return model_distances(model, query, gallery, told)
    both = np.concatenate([query, gallery])
    if not np.ndim(told):  # all are compared on what a query of this rate has
        return rerank(model_distances(model, both, both, told), len(query))
    of_each = np.concatenate([told, np.ones(len(gallery))])

    def measured(rows):
        there = model.distances(both[rows], both, query_rates=of_each[rows])
        # Two images are compared on what the one of lower resolution has.
        back = model.distances(both, both[rows], query_rates=of_each)
        return np.minimum(there, back.T)

    return rerank(LazyDistances(measured, (len(both), len(both))), len(query))


def _among(model, trials, mapped):
    features = np.concatenate([trial.query["plain"][mapped] for trial in trials])
    told = [np.broadcast_to(t.compared_at, len(t.query_rates))[mapped] for t in trials]
    return distances_among(model.distances, features, np.concatenate(told))


def _scores(trials, train_rates, count, recovers):
    """Everything that goes into metrics.json."""
    system, upscaled, flip = (
        _summary(trials, variant, train_rates) if variant in trials[0].scores else None
        for variant in ("plain", "upscaled", "flip")
    )
    quality, upscaled_quality = (
        {name: mean_quality(found[i]) for trial in trials for name, found in trial.quality.items()}
        for i in (0, 1)
    )
    if recovers:
        missing = {name: None for name in system if not name.startswith("queries")}
        upscaled = {**(upscaled or missing), "image_quality": upscaled_quality}
    quality = quality if recovers else None
    return {
        **system, "queries": count, "image_quality": quality, "enlarged": upscaled, "flip": flip,
    }  # fmt: skip


def _summary(trials, variant, train_rates):
    """Scores by rate, their mean over low rates and, where the protocol mixes them, of all."""
    rates = np.concatenate([trial.query_rates for trial in trials])
    scores = np.concatenate([trial.scores[variant] for trial in trials])
    found = scores_by_rate(scores, rates, trials[0].images)
    per_rate = {name: scores for name, scores in found["per_rate"].items() if scores}
    names = dict.fromkeys(f"{rate:g}" for rate in train_rates if rate > 1)  # each once
    names = [name for name in names if name in per_rate]
    mean = {s: float(np.mean([per_rate[n][s] for n in names])) for s in SCORES} if names else None
    scores = {"per_rate": per_rate, "mean_lr": mean}
    if trials[0].rate is None:
        counts = found["queries"]
        return {
            **scores, "mixed": found["mixed"], "standard_error": found["standard_error"],
            "queries": counts.pop("mixed"), "queries_per_rate": counts,
        }  # fmt: skip
    errors = {n: standard_error(s["rank1"], found["queries"][n]) for n, s in per_rate.items()}
    return {**scores, "standard_error": errors}


def _lines(trial, train_rates):
    """Rank-1 and mAP of each rate, for the terminal."""
    system, upscaled = (
        _summary([trial], variant, train_rates) if variant in trial.scores else {"per_rate": {}}
        for variant in ("plain", "upscaled")
    )
    for name, scores in {**system["per_rate"], "mixed": system.get("mixed")}.items():
        if scores:
            error = system["standard_error"][name]
            line = "  all queries" if name == "mixed" else f"  rate {name}"
            line += f": rank-1 {scores['rank1']:.1f} ± {error:.1f}, mAP {scores['mAP']:.1f}"
            if name != "1" and name in upscaled["per_rate"]:
                line += f" (upscaled: rank-1 {upscaled['per_rate'][name]['rank1']:.1f})"
            yield line
