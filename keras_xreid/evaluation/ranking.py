"""CMC and mAP over a full gallery or an exact single-shot one, in bounded memory.

Two conventions hold everywhere in this file. An image of the query's person by the query's own
camera is junk and leaves the gallery of that query, and so does every image of person -1. Images
at equal distance keep the order of the gallery.
"""

import numpy as np

from keras_xreid.errors import InputError

RANKS = (1, 5, 10, 20)
SCORES = ("rank1", "rank5", "rank10", "rank20", "mAP")
JUNK, DISTRACTOR = -1, 0
BLOCK_VALUES = 2_000_000  # distances sorted at a time: 16 MB in float64


def evaluate_ranking(distances, query, gallery, gallery_shots=None):
    """Scores a distance matrix: CMC at ranks 1, 5, 10 and 20 and mean average precision.

    A query whose person has no valid gallery image is not counted.

    Args:
        distances: (queries, gallery) array, smaller is more alike.
        query: list of `Record` (`person` and `camera` are read), one for each row.
        gallery: list of `Record`, one for each column. Person 0 marks distractors.
        gallery_shots: None ranks the full gallery. 1 gives the expected CMC when one gallery image
            is drawn for each person, uniformly and independently: exact, nothing is sampled,
            distractors are never drawn. mAP is that of the full gallery in both cases, for with
            one true image a person it would only be the mean of 1/rank.

    Returns:
        A dictionary of "rank1", "rank5", "rank10", "rank20" and "mAP", in percent.

    Raises:
        InputError: The shape does not fit the two lists, a distance is not a number, or no query
            has a valid gallery image.

    Example:

    >>> scores = evaluate_ranking(model.distances(q, g), data.query, data.gallery)
    >>> scores["rank1"], scores["mAP"]

    Reference:

    - Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015
      (junk images, average precision).
    """
    if gallery_shots not in (None, 1):
        raise InputError(
            f"gallery_shots is {gallery_shots!r}: give None (full gallery) or 1 (single-shot)"
        )
    distances = _as_matrix(distances, query, gallery)
    matches, junk, without_person = matches_and_junk(query, gallery)
    counted = [row for row in range(len(query)) if len(matches[row])]
    if not counted:
        raise InputError(
            f"none of the {len(query)} queries has a gallery image of its person by another "
            "camera: query and gallery must share people, seen by at least two cameras"
        )
    first = np.empty(len(counted), "int64")
    average_precision = np.empty(len(counted))
    positions_of_each = _match_positions(distances, counted, matches, junk, without_person)
    for i, positions in enumerate(positions_of_each):
        first[i] = positions[0]
        average_precision[i] = np.mean(np.arange(1, len(positions) + 1) / (positions + 1))
    if gallery_shots is None:
        cmc = [np.mean(first < rank) for rank in RANKS]
    else:
        cmc = _single_shot_cmc(distances, query, gallery, counted, matches)
    values = [*cmc, np.mean(average_precision)]
    return {name: 100 * float(value) for name, value in zip(SCORES, values, strict=True)}


def counted_queries(query, gallery):
    """Tells which queries a score counts: those with a gallery image by another camera.

    Args:
        query: list of `Record`.
        gallery: list of `Record`.

    Returns:
        (queries,) array of bool.
    """
    return np.array([len(match) > 0 for match in matches_and_junk(query, gallery)[0]], bool)


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


def _as_matrix(distances, query, gallery):
    distances = np.asarray(distances)
    if not np.issubdtype(distances.dtype, np.floating):
        distances = distances.astype("float64")
    if distances.shape != (len(query), len(gallery)):
        raise InputError(
            f"distances have shape {distances.shape}, expected ({len(query)}, {len(gallery)}): "
            "one row for each query, one column for each gallery image"
        )
    return distances


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
    cameras = np.array([record.camera for record in gallery])
    nothing = np.empty(0, "int64")
    without_person = columns.pop(JUNK, nothing)
    matches, junk = [], []
    for record in query:
        same_person = columns.get(record.person, nothing)
        same_camera = cameras[same_person] == record.camera
        matches.append(same_person[~same_camera])
        junk.append(same_person[same_camera])
    return matches, junk, without_person


def _match_positions(distances, counted, matches, junk, without_person):
    """Yield, for each counted query, its matches' sorted positions, counted from 0."""
    block = max(1, BLOCK_VALUES // distances.shape[1])
    for start in range(0, len(counted), block):
        rows = counted[start : start + block]
        values = distances[rows]  # a copy, sorted in place below
        if np.isnan(values).any():
            raise InputError(
                f"distances of queries {rows[0]} to {rows[-1]} contain values that are not "
                "numbers (NaN): the features they come from are broken"
            )
        values[:, without_person] = np.inf  # behind everything, so it is ahead of no match
        for row, line in zip(rows, values, strict=True):
            line[junk[row]] = np.inf
        values.sort(axis=1)
        for row, line in zip(rows, values, strict=True):
            match = matches[row]
            distance = distances[row, match]
            positions = np.searchsorted(line, distance, "left")
            tied = np.searchsorted(line, distance, "right") - positions > 1
            if tied.any():
                original = distances[row].copy()
                original[without_person] = np.nan  # equal to nothing
                original[junk[row]] = np.nan
                for i in np.flatnonzero(tied):
                    positions[i] += np.count_nonzero(original[: match[i]] == distance[i])
            positions.sort()
            yield positions


def _single_shot_cmc(distances, query, gallery, counted, matches):
    """Expected CMC with one gallery image drawn for each person, without sampling.

    Given the true image that was drawn, each other person is ahead with probability p_j, the share
    of that person's images that are nearer. The draws are independent, so the number of people
    ahead follows a Poisson-binomial distribution; only its first 20 terms matter.
    """
    bad = next((r for r in query if r.person in (JUNK, DISTRACTOR)), None)
    if bad is not None:
        raise InputError(
            f"query {bad.path} is of person {bad.person}, which marks distractors (0) and junk "
            "(-1) and never enters a single-shot gallery: number people from 1"
        )
    number = {}
    for record in gallery:
        if record.person not in (JUNK, DISTRACTOR):
            number.setdefault(record.person, len(number))
    people = np.array([number.get(record.person, -1) for record in gallery])
    # Columns grouped by person, so that a sum over each person's images is one reduceat.
    order = np.argsort(people, kind="stable")[np.count_nonzero(people < 0) :]
    starts = np.searchsorted(people[order], np.arange(len(number)))
    images = np.diff(np.append(starts, len(order)))
    total = np.zeros(max(RANKS))
    for row in counted:
        line = distances[row]
        candidates = line[order]
        share = np.empty((len(matches[row]), len(number)))
        for i, match in enumerate(matches[row]):
            ahead = candidates < line[match]
            ahead |= (candidates == line[match]) & (order < match)
            share[i] = np.add.reduceat(ahead, starts, dtype="int32") / images
        share[:, number[query[row].person]] = 0
        total += np.mean(_poisson_binomial(share, max(RANKS)), axis=0)
    cmc = np.cumsum(total) / len(counted)
    return [cmc[rank - 1] for rank in RANKS]


def _poisson_binomial(p, terms):
    """First terms of the distribution of a sum of independent coins, for each row of p."""
    # A coin that never falls adds nothing, and in a good ranking that is most of them.
    p = -np.sort(-p, axis=1)[:, : np.count_nonzero(p, axis=1).max()]
    distribution = np.zeros((len(p), terms))
    distribution[:, 0] = 1
    for column in p.T[:, :, None]:
        moved = distribution * column
        distribution -= moved
        distribution[:, 1:] += moved[:, :-1]
    return distribution
