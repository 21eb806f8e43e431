"""Which queries a report shows: drawn by a seed, or said to be chosen by their result."""

import numpy as np


def one_query_a_person(query, rows, people, seed=0):
    """Draws queries of a few people.

    Args:
        query: list of `Record`.
        rows: indices of the queries to draw from.
        people: how many people at most.
        seed: of the draw.

    Returns:
        List of indices, one for each person.
    """
    first = {}
    for row in np.random.default_rng(seed).permutation(rows):
        first.setdefault(query[row].person, int(row))
    return list(first.values())[:people]


def queries_to_map(query, rows, times, people=15, points=300, seed=0):
    """Draws queries of a few people for a map of embeddings.

    Args:
        query: list of `Record`.
        rows: indices of the queries to draw from.
        times: how many points each query becomes, one a rate.
        people: how many people at most.
        points: how many points at most.
        seed: of the draw.

    Returns:
        List of indices.
    """
    of_person = {}
    for row in np.random.default_rng(seed).permutation(rows):
        of_person.setdefault(query[row].person, []).append(int(row))
    chosen = list(of_person.values())[:people]
    each = max(1, points // (len(chosen) * times))
    return [row for rows in chosen for row in rows[:each]]


def queries_to_show(query, rows, first, seed=0):
    """Chooses the queries whose ranked lists are shown.

    Args:
        query: list of `Record`.
        rows: indices of the queries to choose from.
        first: {variant: (queries,) rank of the first true match}.
        seed: of the draw.

    Returns:
        List of (why it was chosen, index): queries of three people drawn at random. Where there
        is a variant "upscaled", without recovery: the query that recovery helps most, one drawn
        at random, and the one that it hurts most.
    """
    if "upscaled" not in first:
        drawn = one_query_a_person(query, rows, 3, seed)
        return [("a query drawn at random", row) for row in drawn]
    chosen = [("a query drawn at random", *one_query_a_person(query, rows, 1, seed))]
    # By the reciprocal of the first match's rank: what happens at the top of a list counts.
    gain = 1 / first["plain"][rows] - 1 / first["upscaled"][rows]
    best, worst = np.argmax(gain), np.argmin(gain)
    if gain[best] > 0:
        chosen.insert(0, ("the query that recovery helps most", int(rows[best])))
    if gain[worst] < 0:
        chosen.append(("the query that recovery hurts most", int(rows[worst])))
    return chosen
