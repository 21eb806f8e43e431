"""Rows of `xreid compare` judged two by two, on the same queries and the same gallery."""

import itertools

from keras_xreid.app.compare_rows import called, people_of, rates_of_mean, tested_sha256
from keras_xreid.evaluation.paired import DRAWS, FEWEST_PEOPLE, paired_difference
from keras_xreid.evaluation.queries import read_queries
from keras_xreid.report.tables import NOT_MEASURED

PAIRED_NOTES = (
    "Points of rank-1 and mAP by which the row is above the one beside it, on the same queries and "
    f"gallery; in brackets the 95 % interval of a bootstrap over people ({DRAWS:,} draws). Better "
    "or worse: the interval of mean LR leaves out 0. Of 20 pairs without a difference, one is "
    "called better or worse by chance; with fewer than 50 people, up to three. With fewer than "
    f"{FEWEST_PEOPLE} people nothing is called so.",
    "Wins: queries that the row has right : that the other has right, where only one has, all low "
    "rates counted together; p: McNemar's of these counts, too small because a query counts once a "
    "rate.",
    "Where a row has several seeds, a query's hits are averaged over them first (a win is then "
    "more hits). How it would be with other seeds, neither the interval nor p says.",
)


def judged(rows):
    """Every pair of rows, the later beside the earlier, and a sentence on those not judged."""
    kept, on, left_out = {}, {}, {}
    for i, row in enumerate(rows):
        paths = [run["folder"] / "queries.csv" for run in row["runs"]]
        if not all(path.exists() for path in paths):
            reason = "no queries.csv (xreid evaluate --out writes one)"
        elif len({run.get("split_id") for run in row["runs"]}) > 1:
            reason = "several splits"  # each has queries of its own
        else:
            kept[i], on[i] = [read_queries(path) for path in paths], scored_on(row["runs"][0])
            continue
        left_out.setdefault(reason, []).append(f"all pairs with {called([row], rows)}")
    pairs = []
    for i, j in itertools.combinations(kept, 2):
        row, beside = rows[j], rows[i]
        pair = {"row": called([row], rows), "beside": called([beside], rows)}
        same, rates = not on[i].isdisjoint(on[j]), rates_of_both(row, beside)
        if same and rates:
            pairs.append({**pair, **paired_difference(kept[j], kept[i], rates)})
        else:
            reason = "no low rate in common" if same else "another manifest or protocol"
            left_out.setdefault(reason, []).append("{row} beside {beside}".format(**pair))
    reasons = "; ".join(f"{reason}: {' / '.join(names)}" for reason, names in left_out.items())
    return pairs, [f"Not judged: {reasons}."] if reasons and len(rows) > 1 else []


def scored_on(run):
    """The manifest whole and without training images, each with the protocol and the fold.

    Of two runs that share one of them the queries and the gallery are the same; which training
    images they had, the footnotes say.
    """
    shas = {run.get("manifest_sha256"), tested_sha256(run)}
    return {(run.get("protocol"), people_of(run), sha) for sha in shas - {None}}


def rates_of_both(row, other):
    """The low rates that both rows' means are over; where nothing says, those of `evaluate`."""
    told = [rates_of_mean(some["runs"][0]) for some in (row, other)]
    first, second = ("2 3 4" if text == "unknown" else text for text in told)
    return [r for r in first.split() if r in second.split() and r in row["rank1"]]


def paired_table(pairs):
    """Header and cells of the table of paired differences as text."""
    rates = sorted({rate for pair in pairs for rate in pair["per_rate"]}, key=float)
    header = ["row", "beside", "row is", "mean LR", "wins", "p", "mAP"]
    header += [f"r = {rate}" for rate in rates]

    def cell(part):
        if part is None:
            return NOT_MEASURED
        return "{difference:+.1f} [{low:+.1f}, {high:+.1f}]".format(**part)

    lines = []
    for pair in pairs:
        mean = pair["mean_lr"]
        counts = [f"{mean['wins']} : {mean['losses']}", f"{mean['p']:.2g}"]
        of_rates = [cell(pair["per_rate"].get(rate)) for rate in rates]
        words = [pair["row"], pair["beside"], pair["verdict"]]
        lines.append([*words, cell(mean), *counts, cell(pair["mAP"]), *of_rates])
    return header, lines


def paired_csv_rows(pairs):
    """The paired differences in full precision, a line for each pair and score."""
    numbers = ("difference", "low", "high", "wins", "losses", "p")
    yield ["row", "beside", "score", *numbers, "verdict"]
    for pair in pairs:
        of_rates = {f"rank1_r{rate}": part for rate, part in pair["per_rate"].items()}
        for score, part in {"mean_lr": pair["mean_lr"], "mAP": pair["mAP"], **of_rates}.items():
            verdict = pair["verdict"] if score == "mean_lr" else ""
            values = [part.get(name) for name in numbers]
            yield [pair["row"], pair["beside"], score, *values, verdict]
