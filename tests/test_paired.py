"""Paired differences against slow loops, SciPy, and what is known beforehand."""

import math

import numpy as np
import pytest

from keras_xreid.errors import InputError
from keras_xreid.evaluation.paired import mcnemar, paired_difference

LOW = ("2", "3", "4")


def scored(hits, people, rates=("1", *LOW)):
    """A run as `read_queries` gives it, from (queries, rates) of 0 and 1."""
    return {
        (f"q{i:03d}", rate): (people[i], 100.0 * hit, 50.0 * hit + 10, 20.0)
        for i, line in enumerate(hits)
        for rate, hit in zip(rates, line, strict=True)
    }


def drawn_case(seed, people=12, queries=40):
    rng = np.random.default_rng(seed)
    names = [f"p{person}" for person in rng.integers(0, people, queries)]
    first, second = (rng.random((queries, 4)) < share for share in (0.7, 0.5))
    return scored(first, names), scored(second, names)


def slow_interval(first, second, rates, column, draws, seed):
    """Draw by draw, all queries of each drawn person written down."""
    people = sorted({row[0] for row in first.values()})
    of_person = {p: [key for key in first if first[key][0] == p] for p in people}
    found = []
    for line in np.random.default_rng(seed).integers(0, len(people), (draws, len(people))):
        keys = [key for i in line for key in of_person[people[i]]]
        means = [
            [np.mean([run[key][column] for key in keys if key[1] == rate]) for rate in rates]
            for run in (first, second)
        ]
        found.append(np.mean(means[0]) - np.mean(means[1]))
    return np.percentile(found, [2.5, 97.5])


def test_intervals_equal_a_slow_loop_over_the_same_draws():
    for seed in range(3):
        first, second = drawn_case(seed)
        found = paired_difference([first], [second], LOW, draws=60, seed=seed)
        for part, rates, column in (
            (found["mean_lr"], LOW, 1), (found["mAP"], LOW, 2), (found["per_rate"]["1"], ["1"], 1),
            (found["per_rate"]["4"], ["4"], 1),
        ):  # fmt: skip
            expected = slow_interval(first, second, rates, column, 60, seed)
            assert [part["low"], part["high"]] == pytest.approx(expected.tolist(), abs=1e-9)
            means = [
                np.mean([row[column] for key, row in run.items() if key[1] in rates])
                for run in (first, second)
            ]
            assert part["difference"] == pytest.approx(means[0] - means[1], abs=1e-9)
        assert list(found["per_rate"]) == ["1", *LOW]


def test_draws_repeat_by_their_seed():
    first, second = drawn_case(1)
    once = paired_difference([first], [second])
    assert once == paired_difference([first], [second])
    assert once["mean_lr"]["low"] != paired_difference([first], [second], seed=1)["mean_lr"]["low"]


def test_mcnemar_is_scipys_binomial_test():
    stats = pytest.importorskip("scipy.stats")
    for wins, losses in ((0, 1), (1, 0), (3, 3), (1, 7), (20, 41), (300, 220), (5100, 4900)):
        expected = stats.binomtest(wins, wins + losses, 0.5).pvalue
        assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(0, 0) == 1.0
    assert 0 <= mcnemar(0, 5000) < 1e-300  # no overflow


def test_mcnemar_by_hand():
    # 1 of 8 or fewer, or as many on the other side: 2 (1 + 8) / 256.
    assert mcnemar(1, 7) == mcnemar(7, 1) == 18 / 256


def test_wins_and_losses_are_counted_at_one_rate_and_pooled():
    people = ["a", "a", "b", "c"]
    first = scored(np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 1]]), people)
    second = scored(np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]), people)
    found = paired_difference([first], [second])
    counts = {rate: (part["wins"], part["losses"]) for rate, part in found["per_rate"].items()}
    assert counts == {"1": (1, 0), "2": (2, 0), "3": (1, 0), "4": (0, 1)}
    # The high-resolution query is no part of mean LR.
    assert (found["mean_lr"]["wins"], found["mean_lr"]["losses"]) == (3, 1)
    assert found["mean_lr"]["p"] == mcnemar(3, 1)
    # Rank-1 75 - 25, 75 - 50 and 50 - 75 in percent.
    assert found["mean_lr"]["difference"] == pytest.approx((50 + 25 - 25) / 3)
    assert found["mAP"]["difference"] == pytest.approx((50 + 25 - 25) / 3 / 2)


def test_equal_runs_show_no_difference():
    first, _ = drawn_case(4)
    found = paired_difference([first], [dict(first)])
    nothing = {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert found["mean_lr"] == {**nothing, "wins": 0, "losses": 0, "p": 1.0}
    assert found["mAP"] == nothing and found["verdict"] == "no difference shown"


def test_a_clear_difference_is_better_and_from_the_other_side_worse():
    people = [f"p{i}" for i in range(50)]
    second = np.random.default_rng(0).random((50, 4)) < 0.5
    first = second | (np.arange(50)[:, None] % 4 == 0)  # gains some, loses none
    runs = [scored(first, people)], [scored(second, people)]
    found, back = paired_difference(*runs), paired_difference(*runs[::-1])
    assert found["verdict"] == "better" and back["verdict"] == "worse"
    assert found["mean_lr"]["low"] > 0 and found["mean_lr"]["p"] < 0.001
    assert found["mean_lr"]["high"] == pytest.approx(-back["mean_lr"]["low"])


def test_the_verdict_is_on_the_low_rates_alone():
    people = [f"p{i}" for i in range(40)]
    second = np.zeros((40, 4))
    first = second.copy()
    first[:, 0] = 1  # at high resolution only
    found = paired_difference([scored(first, people)], [scored(second, people)])
    assert found["per_rate"]["1"]["low"] == 100 and found["verdict"] == "no difference shown"


def test_people_are_drawn_and_not_queries():
    """Nine queries a person, found or missed together, are worth one: 3x as wide an interval."""
    rng, each = np.random.default_rng(5), 9
    won = rng.choice([-1, 0, 1], 60, p=[0.2, 0.5, 0.3]).repeat(each)
    first, second = (np.tile((won == sign)[:, None], 4) for sign in (1, -1))
    together = [f"p{i // each}" for i in range(len(won))]
    alone = [f"p{i}" for i in range(len(won))]
    widths = []
    for people in (together, alone):
        found = paired_difference([scored(first, people)], [scored(second, people)])["mean_lr"]
        widths.append(found["high"] - found["low"])
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.15)
    # And as wide as a mean of 60 values is uncertain.
    expected = 2 * 1.96 * 100 * np.std(won) / math.sqrt(60)
    assert widths[0] == pytest.approx(expected, rel=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say():
    covered = 0
    for seed in range(150):
        rng = np.random.default_rng([6, seed])
        ease = rng.normal(0, 1, 60).repeat(3)  # a person is easy or hard for both
        names = [f"p{i // 3}" for i in range(180)]
        first, second = (ease[:, None] + rng.normal(0, 1, (180, 4)) + 0.5 > 0 for _ in range(2))
        part = paired_difference([scored(first, names)], [scored(second, names)], draws=300)
        covered += part["verdict"] == "no difference shown"
    assert 0.89 < covered / 150 <= 0.99


def test_seeds_are_averaged_query_by_query_first():
    people = ["a", "b", "c", "d"]
    one, other = np.array([[1] * 4, [1] * 4, [0] * 4, [1] * 4]), np.array([[1] * 4] + [[0] * 4] * 3)
    rival = np.array([[1] * 4, [0] * 4, [0] * 4, [1] * 4])
    found = paired_difference([scored(one, people), scored(other, people)], [scored(rival, people)])
    # Halves of b won and of d lost; of a run each, b would be 1 : 0 and 0 : 1 in turn.
    assert found["per_rate"]["2"]["difference"] == 0
    assert (found["per_rate"]["2"]["wins"], found["per_rate"]["2"]["losses"]) == (1, 1)
    assert found["mean_lr"]["low"] < 0 < found["mean_lr"]["high"]


def test_each_query_may_have_a_rate_of_its_own():
    """As under the papers' protocols; a draw without a query of some rate is no reason to fail."""
    first = {(f"q{i}", LOW[i % 3]): (f"p{i}", 100.0 * (i % 2), 50.0, 50.0) for i in range(6)}
    second = {key: (row[0], 0.0, 50.0, 50.0) for key, row in first.items()}
    found = paired_difference([first], [second])
    assert found["mean_lr"]["difference"] == pytest.approx(50)
    assert all(math.isfinite(x) for part in found["per_rate"].values() for x in part.values())


def test_few_people_are_not_judged():
    """Two people have the interval [100, 100] in spite of a p of 0.5."""
    for people, verdict in ((2, "no difference shown"), (12, "better")):
        queries = [(f"q{i}", rate) for i in range(people) for rate in LOW]
        first, second = (
            {(q, rate): (q, score, score, score) for q, rate in queries} for score in (100.0, 0.0)
        )
        found = paired_difference([first], [second])
        assert found["mean_lr"]["low"] == 100 and found["verdict"] == verdict


def test_what_cannot_be_judged():
    first, second = drawn_case(7)
    with pytest.raises(InputError, match="scores of other queries"):
        paired_difference([first], [second, dict(list(second.items())[1:])])
    with pytest.raises(InputError, match="no query has the low rate 8"):
        paired_difference([first], [second], ("2", "8"))
    with pytest.raises(InputError, match="none was asked for"):
        paired_difference([first], [second], ())
