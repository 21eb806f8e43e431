"""Paired judgement: is a run better than another one on the same queries and the same gallery?"""

import numpy as np

from keras_xreid.errors import InputError

DRAWS = 1000
# With fewer people the interval is too narrow: of 8 it leaves out the truth in 13 % of all cases.
FEWEST_PEOPLE = 10
BETTER, WORSE, NOTHING = "better", "worse", "no difference shown"


def paired_difference(first, second, low_rates=("2", "3", "4"), draws=DRAWS, seed=0):
    """Judges the difference of two systems, first - second, query by query.

    A query's scores are averaged over the runs of a system, its seeds, before they are subtracted.
    The interval is the bootstrap's over people: people are drawn with replacement, each with all
    queries, for images of one person are found or missed together. It says how far the difference
    hangs on who was to be found, and nothing of how it would be with other seeds of training.

    McNemar's exact test looks at the queries that one system has at rank 1 more often than the
    other one; of one run each, at one rate, that is the test as it is known. For mean LR the
    counts of the low rates are pooled: a query then counts once a rate, and these are not
    independent, so this p is too small rather than too large. The interval is not touched by that,
    and it alone decides the verdict.

    Args:
        first: list of what `read_queries` returned, one for each run of a system.
        second: the same of the other system.
        low_rates: rates, as text, that mean LR and mAP are over.
        draws: bootstrap draws.
        seed: 0 or more, of the draws.

    Returns:
        A dictionary: "mean_lr" (rank-1), "mAP" (mean of the low rates) and "per_rate" {"1":
        (rank-1), ...}, each {"difference", "low", "high"} in percentage points, low and high being
        the ends of the 95 % percentile interval; of rank-1 also "wins", "losses" (of first) and
        "p"; and "verdict" on mean LR: "better", "worse", or "no difference shown" where the
        interval holds 0, or is of fewer than 10 people.

    Raises:
        InputError: the runs are not over the same queries, or not at the low rates.

    Example:

    >>> ours, theirs = (read_queries(f"runs/{name}/queries.csv") for name in ("intact", "rain"))
    >>> paired_difference([ours], [theirs])["verdict"]
    'no difference shown'

    Reference:

    - Efron and Tibshirani, An Introduction to the Bootstrap, 1993, Chapters 8 (units) and 13.
    - McNemar, Note on the sampling error of the difference between correlated proportions or
      percentages, Psychometrika 1947.
    """
    queries = sorted(first[0])
    if any(run.keys() != first[0].keys() for run in [*first, *second]):
        raise InputError("the runs hold the scores of other queries: score them on the same ones")
    rates = np.array([rate for _, rate in queries])
    missing = [rate for rate in low_rates if rate not in rates]
    if missing or not low_rates:
        raise InputError(f"no query has the low rate {' '.join(missing) or '(none was asked for)'}")
    ours, theirs = (
        np.mean([[run[query][1:3] for query in queries] for run in runs], axis=0)
        for runs in (first, second)
    )
    apart = ours - theirs  # (queries, 2): rank-1 and AP
    people, person = np.unique([first[0][query][0] for query in queries], return_inverse=True)
    n = len(people)
    drawn = np.random.default_rng(seed).integers(0, n, (draws, n))
    # How often each person is there: once in the data themselves, then in each draw.
    times = np.array([np.ones(n), *(np.bincount(line, minlength=n) for line in drawn)])

    def means(rate, column):
        rows = rates == rate
        sums = np.bincount(person[rows], apart[rows, column], n)
        with np.errstate(invalid="ignore"):  # a draw may lack a rate that few queries have
            return times @ sums / (times @ np.bincount(person[rows], minlength=n))

    def interval(values):
        low, high = np.nanpercentile(values[1:], [2.5, 97.5])
        return {"difference": float(values[0]), "low": float(low), "high": float(high)}

    def test(rows):
        # Chances of a single-shot gallery that differ by rounding are equal.
        wins, losses = (int(np.sum(sign * apart[rows, 0] > 1e-9)) for sign in (1, -1))
        return {"wins": wins, "losses": losses, "p": mcnemar(wins, losses)}

    known = sorted(set(rates.tolist()) - {""}, key=float)
    of_low = [np.nanmean([means(rate, column) for rate in low_rates], axis=0) for column in (0, 1)]
    mean_lr = {**interval(of_low[0]), **test(np.isin(rates, low_rates))}
    verdict = BETTER if mean_lr["low"] > 0 else WORSE if mean_lr["high"] < 0 else NOTHING
    verdict = verdict if n >= FEWEST_PEOPLE else NOTHING
    return {
        "mean_lr": mean_lr,
        "mAP": interval(of_low[1]),
        "per_rate": {rate: {**interval(means(rate, 0)), **test(rates == rate)} for rate in known},
        "verdict": verdict,
    }


def mcnemar(wins, losses):
    """Gives the two-sided p of McNemar's exact test: were wins and losses tossed by a fair coin?

    Args:
        wins: queries that only one system has right.
        losses: queries that only the other one has right.

    Returns:
        A float in [0, 1]; 1 where there are none.

    Example:

    >>> mcnemar(1, 7)
    0.0703125
    """
    n, fewer = wins + losses, min(wins, losses)
    ways, tail = 1, 0  # whole numbers of any size, so that nothing is rounded
    for k in range(fewer + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n)
