"""CMC, mAP and mINP over a full gallery or a single-shot one, exact or drawn, in bounded memory.

Two conventions hold everywhere in this file. An image of the query's person by the query's own
camera is junk and leaves the gallery of that query, and so does every image of person -1, see
`keras_xreid.data.people`. Images at equal distance keep the order of the gallery.
"""

import functools

import numpy as np

from keras_xreid.data.people import is_junk, nobody
from keras_xreid.errors import InputError, check_number

RANKS = (1, 5, 10, 20)
SCORES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
BLOCK_VALUES = 8_000_000  # distances looked at a time: 32 MB in float32


def evaluate_ranking(distances, query, gallery, gallery_shots=None, draws=None, seed=0):
    """Scores a distance matrix: CMC at ranks 1, 5, 10 and 20, mAP and mINP.

    mAP is the mean average precision. mINP, the mean inverse negative penalty, is the mean of
    n / R, of n true matches the last of which is at rank R: how far one has to look for all.

    A query whose person has no valid gallery image is not counted. Images at equal distance keep
    the order of the gallery. The matrix is read by blocks of rows, so it need not fit in memory.

    Args:
        distances: (queries, gallery) array, smaller is more alike; or whatever has a `shape` and
            gives rows when it is sliced, such as `feature_distances(q, g)` or a `numpy.memmap`.
        query: list of `Record` (`person` and `camera` are read), one for each row.
        gallery: list of `Record`, one for each column. Person 0 marks distractors where no query
            shows it.
        gallery_shots: None ranks the full gallery. 1 gives the expected CMC when one gallery image
            is drawn for each person, uniformly and independently: exact, nothing is sampled,
            distractors are never drawn. mAP and mINP are those of the full gallery in both cases,
            for with one true image a person they would only be the mean of 1/rank.
        draws: with `gallery_shots=1`, draw so many single-shot galleries for each query instead
            (papers use 10 or 100) and give the mean. A query's draws depend on `seed` and on its
            place among the queries only, and the first 10 of 100 are those of `draws=10`.
        seed: 0 or more, of the draws.

    Returns:
        A dictionary of "rank1", "rank5", "rank10", "rank20", "mAP" and "mINP", in percent.

    Raises:
        InputError: The shape does not fit the two lists, a distance is not a number, or no query
            has a valid gallery image.

    Example:

    >>> scores = evaluate_ranking(model.distances(q, g), data.query, data.gallery)
    >>> scores["rank1"], scores["mAP"]

    Reference:

    - Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015
      (junk images, average precision).
    - Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2022
      (mINP).
    """
    scores = score_queries(distances, query, gallery, gallery_shots, draws, seed)
    _counted(scores)
    return mean_scores(scores)


def evaluate_rates(distances, query, gallery, rates=None, gallery_shots=None, draws=None, seed=0):
    """Scores queries of several rates: those of each rate alone, and all together, mixed.

    Args:
        distances: as for `evaluate_ranking`.
        query: list of `Record`.
        gallery: list of `Record`.
        rates: (queries,) rates; those of the query's records if not given.
        gallery_shots: as for `evaluate_ranking`.
        draws: as for `evaluate_ranking`.
        seed: as for `evaluate_ranking`.

    Returns:
        A dictionary: "per_rate" {"2": {"rank1", ...}, ...}, "mixed" {"rank1", ...}, and, by rate
        and for "mixed", "queries" {"2": those counted, ...} and "standard_error" {"2": of rank-1,
        ...}. A rate without a query that counts has None.

    Raises:
        InputError: as `evaluate_ranking`, or a query without a rate.

    Example:

    >>> scores = evaluate_rates(distances, data.query, data.gallery, gallery_shots=1)
    >>> scores["per_rate"]["4"]["rank1"], scores["mixed"]["rank1"]
    """
    rates = [record.rate for record in query] if rates is None else list(rates)
    if len(rates) != len(query):
        raise InputError(f"{len(rates)} rates were given for {len(query)} queries: give one each")
    unknown = next((record for record, rate in zip(query, rates, strict=True) if not rate), None)
    if unknown is not None:
        raise InputError(
            f"query {unknown.path} has no rate: give `rates`, the down-sampling rate of each query"
        )
    return scores_by_rate(
        score_queries(distances, query, gallery, gallery_shots, draws, seed), rates
    )


def scores_by_rate(scores, rates, images=None):
    """Averages the scores of each query as `evaluate_rates` does, which ranks them first.

    Args:
        scores: what `score_queries` returned.
        rates: (queries,) rates; NaN where nobody knows, which only "mixed" counts.
        images: (queries,) the image that each query shows, a number or a name, where one is a
            query at several rates: the error of "mixed" is then that of the mean of each image.

    Returns:
        As `evaluate_rates`.

    Raises:
        InputError: no query counts.
    """
    counted, rates = _counted(scores), np.asarray(rates)
    known = np.unique(rates[~np.isnan(rates)])
    groups = {f"{rate:g}": counted & (rates == rate) for rate in known}
    result = {"per_rate": {}, "mixed": mean_scores(scores), "queries": {}, "standard_error": {}}
    for name, rows in {**groups, "mixed": counted}.items():
        count = int(rows.sum())
        result["queries"][name] = count
        # Of 0 and 100 this is sqrt(p (100 - p) / n), and exact single-shot scores are between.
        hits = scores[rows, 0]
        if name == "mixed" and images is not None:
            _, image = np.unique(np.asarray(images)[rows], return_inverse=True)
            hits = np.bincount(image, hits) / np.bincount(image)
        error = float(np.std(hits) / np.sqrt(len(hits))) if count else None
        result["standard_error"][name] = error
        if name != "mixed":
            result["per_rate"][name] = mean_scores(scores[rows]) if count else None
    return result


def score_queries(distances, query, gallery, gallery_shots=None, draws=None, seed=0):
    """Gives the scores of each query: `evaluate_ranking` is their mean over those that count.

    Args:
        distances: as for `evaluate_ranking`, and so are all the others.
        query: list of `Record`.
        gallery: list of `Record`.
        gallery_shots: None or 1.
        draws: None, or how many single-shot galleries are drawn.
        seed: of the draws.

    Returns:
        (queries, 6) float64 array: whether the query's person is found within 1, 5, 10 and 20
        images (100 or 0; single-shot the probability or the share of the draws, in percent), its
        average precision, and n / R as `evaluate_ranking` has it, in percent. NaN for a query that
        does not count.

    Raises:
        InputError: as `evaluate_ranking`, but not where no query counts.

    Example:

    >>> rank1 = score_queries(distances, data.query, data.gallery)[:, 0]
    """
    return rank_queries(distances, query, gallery, gallery_shots, draws, seed, length=0)[0]


def rank_queries(distances, query, gallery, gallery_shots=None, draws=None, seed=0, length=15):
    """Scores each query as `score_queries` does, and keeps the head of its ranked list.

    Args:
        distances: as for `evaluate_ranking`, and so are all the others. They are read once.
        query: list of `Record`.
        gallery: list of `Record`.
        gallery_shots: None or 1; lists are those of the full gallery in both cases.
        draws: None, or how many single-shot galleries are drawn.
        seed: of the draws.
        length: how many gallery images of each list are kept.

    Returns:
        Three arrays: the scores, as of `score_queries`; the nearest gallery columns, (queries,
        length), without junk, -1 after the last one; and the rank of the first true match,
        (queries,), 0 for a query that does not count.

    Raises:
        InputError: as `score_queries`.

    Example:

    >>> scores, nearest, first = rank_queries(distances, data.query, data.gallery)
    """
    if gallery_shots not in (None, 1):
        raise InputError(
            f"gallery_shots is {gallery_shots!r}: give None (full gallery) or 1 (single-shot)"
        )
    if draws is not None:
        check_number("draws", draws, 1, 10**6)
        if gallery_shots is None:
            raise InputError(f"draws is {draws} with gallery_shots None: give gallery_shots=1")
    check_number("seed", seed, 0)
    if not hasattr(distances, "shape"):
        distances = np.asarray(distances)
    if tuple(distances.shape) != (len(query), len(gallery)):
        raise InputError(
            f"distances have shape {tuple(distances.shape)}, expected ({len(query)}, "
            f"{len(gallery)}): one row for each query, one column for each gallery image"
        )
    matches, junk, without_person = matches_and_junk(query, gallery)
    people = None if gallery_shots is None else _People(query, gallery)
    scores = np.full((len(query), len(SCORES)), np.nan)
    nearest, first = np.full((len(query), length), -1), np.zeros(len(query), int)
    step = max(1, BLOCK_VALUES // max(1, len(gallery)))
    for start in range(0, len(query), step):
        rows = [row for row in range(start, min(start + step, len(query))) if len(matches[row])]
        if not rows:
            continue
        block = _read_block(distances, slice(start, min(start + step, len(query))))
        lines = block if len(rows) == len(block) else block[np.array(rows) - start]
        positions_of_each = _match_positions(lines, rows, matches, junk, without_person)
        for row, line, positions in zip(rows, lines, positions_of_each, strict=True):
            average_precision = np.mean(np.arange(1, len(positions) + 1) / (positions + 1))
            inverse_penalty = len(positions) / (positions[-1] + 1)
            if people is None:
                hits = [positions[0] < rank for rank in RANKS]
            elif draws is None:
                hits = people.expected_hits(line, matches[row], query[row])
            else:
                rng = np.random.default_rng([seed, row])
                hits = people.drawn_hits(line, matches[row], query[row], draws, rng)
            scores[row] = [*hits, average_precision, inverse_penalty]
            first[row] = positions[0] + 1
            if length:
                found = _nearest(line, np.append(junk[row], without_person), length)
                nearest[row, : len(found)] = found
    return 100 * scores, nearest, first


def mean_scores(scores):
    """Averages the scores of each query over those that count.

    Args:
        scores: what `score_queries` returned.

    Returns:
        A dictionary as of `evaluate_ranking`.

    Example:

    >>> mean_scores(score_queries(distances, data.query, data.gallery))["rank1"]
    """
    means = scores[~np.isnan(scores[:, -1])].mean(axis=0)
    return {name: float(value) for name, value in zip(SCORES, means, strict=True)}


def counted_queries(query, gallery):
    """Tells which queries a score counts: those with a gallery image by another camera.

    Args:
        query: list of `Record`.
        gallery: list of `Record`.

    Returns:
        (queries,) array of bool.
    """
    cameras = {}
    for record in gallery:
        cameras.setdefault(record.person, set()).add(record.camera)
    cameras = {p: seen for p, seen in cameras.items() if p is not None and not is_junk(p)}
    return np.array([bool(cameras.get(r.person, set()) - {r.camera}) for r in query], bool)


def standard_error(percent, n):
    """Gives the standard error of a rank-k score, the share of `n` independent queries.

    Args:
        percent: score between 0 and 100.
        n: number of queries counted.

    Returns:
        The standard error in percentage points: sqrt(p (100 - p) / n).

    Example:

    >>> round(standard_error(65.0, 424), 1)
    2.3
    """
    return float(np.sqrt(percent * (100 - percent) / n))


def summarise(runs):
    """Sums up the scores of several splits or seeds: mean, deviation and 95 % interval.

    The interval is that of the mean by Student's t, mean ± t deviation / sqrt(n): where the
    results of further splits or seeds would have their mean, if the runs were independent.

    Args:
        runs: list of dictionaries with the same keys, such as what `evaluate_ranking` or
            `evaluate_rates` returns; a value is a number, None, or again such a dictionary.

    Returns:
        A dictionary of the same keys; in place of each number {"mean", "deviation" (of the sample,
        n - 1), "low", "high" (ends of the interval), "runs"}. One run alone has a deviation and
        an interval of None, and a value that a run lacks (None) is None.

    Raises:
        InputError: No runs, or runs that do not hold the same scores.

    Example:

    >>> runs = [evaluate_ranking(d, q, g, gallery_shots=1, draws=1, seed=s) for s in range(10)]
    >>> summarise(runs)["rank1"]
    {'mean': 71.2, 'deviation': 1.9, 'low': 69.8, 'high': 72.6, 'runs': 10}
    """
    if not len(runs):
        raise InputError("no runs were given to sum up: give the scores of one run or more")
    if all(isinstance(run, dict) for run in runs):
        names = list(runs[0])
        other = next((list(run) for run in runs if set(run) != set(names)), None)
        if other is not None:
            raise InputError(
                f"runs hold different scores, {', '.join(names)} and {', '.join(other)}: sum up "
                "runs of one protocol and the same rates"
            )
        return {name: summarise([run[name] for run in runs]) for name in names}
    if any(run is None for run in runs):
        return None
    if any(isinstance(run, dict) for run in runs):
        raise InputError("runs hold different scores: sum up runs of one protocol")
    values, n = np.asarray(runs, "float64"), len(runs)
    mean = float(np.mean(values))
    result = {"mean": mean, "deviation": None, "low": None, "high": None, "runs": n}
    if n > 1:
        deviation = float(np.std(values, ddof=1))
        half = student_t(n - 1) * deviation / np.sqrt(n)
        result.update(deviation=deviation, low=float(mean - half), high=float(mean + half))
    return result


# 97.5 % points of Student's t for 1 to 10 degrees of freedom.
STUDENT_T = (
    12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814,
)  # fmt: skip


def student_t(degrees):
    """Gives the factor of a 95 % interval: the 97.5 % point of Student's t distribution.

    Args:
        degrees: degrees of freedom, the number of values less 1; at least 1.

    Returns:
        The point, to 1e-5 relative.

    Example:

    >>> round(student_t(9), 3)
    2.262

    Reference:

    - Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5 (more than 10 degrees).
    """
    if degrees <= len(STUDENT_T):
        return STUDENT_T[degrees - 1]
    z = 1.959963985
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def matches_and_junk(query, gallery):
    """Finds which gallery images are right for each query and which are left out.

    Args:
        query: list of `Record`.
        gallery: list of `Record`.

    Returns:
        Three things that hold gallery indices: for each query an array of its true matches, for
        each query an array of its junk, and one array of what is junk for every query.
    """
    columns = {}
    for column, record in enumerate(gallery):
        columns.setdefault(record.person, []).append(column)
    columns = {person: np.array(indices) for person, indices in columns.items()}
    # As objects: of numbers and names NumPy would make text, which equals no number.
    cameras = np.array([record.camera for record in gallery], object)
    nothing = np.empty(0, "int64")
    dropped = [columns.pop(person) for person in list(columns) if is_junk(person)]
    without_person = np.concatenate([nothing, *dropped])
    columns.pop(None, None)  # two people whom nobody knows are not the same

    @functools.cache  # queries of a person by one camera share their arrays, which may be long
    def parted(person, camera):
        same_person = columns.get(person, nothing)
        same_camera = cameras[same_person] == camera
        return same_person[~same_camera], same_person[same_camera]

    both = [parted(record.person, record.camera) for record in query]
    return [matches for matches, _ in both], [junk for _, junk in both], without_person


def _counted(scores):
    counted = ~np.isnan(scores[:, -1])
    if not counted.any():
        raise InputError(
            f"none of the {len(scores)} queries has a gallery image of its person by another "
            "camera: query and gallery must share people, seen by at least two cameras"
        )
    return counted


def _read_block(distances, rows):
    block = np.asarray(distances[rows])
    if not np.issubdtype(block.dtype, np.floating):
        block = block.astype("float64")
    expected = (rows.stop - rows.start, distances.shape[1])
    if block.shape != expected:
        raise InputError(
            f"distances of queries {rows.start} to {rows.stop - 1} have shape {block.shape}, "
            f"expected {expected}"
        )
    if np.isnan(block).any():
        row, column = np.argwhere(np.isnan(block))[0]
        raise InputError(
            f"the distance of query {rows.start + row} and gallery image {column} (counted from "
            "0) is not a number (NaN): the features it comes from are broken"
        )
    return block


def _match_positions(lines, rows, matches, junk, without_person):
    """Yields, for each line, its matches' sorted positions in the ranking, counted from 0."""
    values = lines.copy()  # sorted in place below
    values[:, without_person] = np.inf  # behind everything, so it is ahead of no match
    for row, line in zip(rows, values, strict=True):
        line[junk[row]] = np.inf
    values.sort(axis=1)
    for row, line, original in zip(rows, values, lines, strict=True):
        match = matches[row]
        distance = original[match]
        positions = np.searchsorted(line, distance, "left")
        tied = np.searchsorted(line, distance, "right") - positions > 1
        if tied.any():
            original = original.copy()
            original[without_person] = np.nan  # equal to nothing
            original[junk[row]] = np.nan
            for i in np.flatnonzero(tied):
                positions[i] += np.count_nonzero(original[: match[i]] == distance[i])
        positions.sort()
        yield positions


def _nearest(line, left_out, length):
    """The nearest columns of a line in order, at equal distance in the gallery's order."""
    line = line.copy()
    line[left_out] = np.nan  # sorted behind everything, and no less than any bound
    length = min(length, len(line) - len(left_out))
    bound = np.partition(line, length - 1)[length - 1]
    near = np.flatnonzero(line <= bound)
    return near[np.argsort(line[near], kind="stable")[:length]]


class _People:
    """The gallery by person, from which single-shot galleries are drawn."""

    def __init__(self, query, gallery):
        absent, self.number = nobody(query), {}
        for record in gallery:
            if not absent(record.person):
                self.number.setdefault(record.person, len(self.number))
        people = np.array([self.number.get(record.person, -1) for record in gallery])
        # Columns grouped by person, so that a sum over each person's images is one reduceat.
        self.columns = np.argsort(people, kind="stable")[np.count_nonzero(people < 0) :]
        self.starts = np.searchsorted(people[self.columns], np.arange(len(self.number)))
        self.images = np.diff(np.append(self.starts, len(self.columns)))

    def expected_hits(self, line, matches, record):
        """Expected CMC of one query, without sampling.

        Given the true image that was drawn, each other person is ahead with probability p_j, the
        share of that person's images that are nearer. The draws are independent, so the number of
        people ahead follows a Poisson-binomial distribution; its first 20 terms are the CMC.
        """
        candidates = line[self.columns]
        share = np.empty((len(matches), len(self.images)))
        for i, match in enumerate(matches):
            ahead = candidates < line[match]
            tied = np.flatnonzero(candidates == line[match])
            ahead[tied] = self.columns[tied] < match
            share[i] = np.add.reduceat(ahead, self.starts, dtype="int32") / self.images
        share[:, self.number[record.person]] = 0
        cmc = np.cumsum(np.mean(_poisson_binomial(share, max(RANKS)), axis=0))
        return [min(cmc[rank - 1], 1) for rank in RANKS]  # rounding may leave a little more

    def drawn_hits(self, line, matches, record, draws, rng):
        """CMC of one query, the mean over galleries of one drawn image a person."""
        own = self.number[record.person]
        uniform = rng.random((draws, len(self.images)))
        chosen = self.columns[self.starts + (uniform * self.images).astype("int64")]
        # Of the query's person only the images that are not junk can be drawn.
        chosen[:, own] = matches[(uniform[:, own] * len(matches)).astype("int64")]
        distances, match = line[chosen], chosen[:, own, None]
        ahead = distances < line[match]
        ahead |= (distances == line[match]) & (chosen < match)
        places = np.count_nonzero(ahead, axis=1)
        return [np.mean(places < rank) for rank in RANKS]


def _poisson_binomial(p, terms):
    """First terms of the distribution of a sum of independent coins, for each row of p."""
    # A coin that never falls adds nothing, and in a good ranking that is most of them.
    p = -np.sort(-p, axis=1)[:, : np.count_nonzero(p, axis=1).max()]
    distribution = np.zeros((len(p), terms))
    distribution[:, 0] = 1
    for i, column in enumerate(p.T[:, :, None]):
        if i % 32 == 0 and distribution.max() < 1e-18:
            break  # surely more people are ahead, and further coins only add to them
        moved = distribution * column
        distribution -= moved
        distribution[:, 1:] += moved[:, :-1]
    return distribution
