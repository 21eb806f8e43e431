"""The tables as they are printed: finished rows, and the papers' numbers beside them."""

import dataclasses
import functools
import itertools
import statistics

import keras_xreid as xr
from keras_xreid.app import compare, compare_pairs, compare_rows, table_figures
from keras_xreid.app.table_rows import (
    FIGURE_5,
    LABELED,
    NEAREST,
    NUMBERS,
    OF_PEOPLE,
    PEOPLE,
    SHARES,
    TABLE_5,
    TABLES,
)  # fmt: skip
from keras_xreid.evaluation.ranking import standard_error
from keras_xreid.report import figures, papers
from keras_xreid.report.tables import NOT_MEASURED, markdown, number, text_table

NOTES = {
    "rain-1": "Baseline (train on HR & LR) is RAIN without its adversarial loss: the paper's Table "
    "3 prints the same numbers for the two. Baseline (train on HR) is a plain network trained with "
    "cross-entropy.",
    "rain-4": "Every row is scored at the rates 2, 3 and 4. The last row is the full model; the "
    "strong preset draws its rates from 1 to 4.",
    "adaptive-3": "Baseline is a network for each rate as recipes/baseline.py has it, with the "
    "verification loss: compared by cosine, and without the last dense layer v of the others.",
}

# Where a paper prints a row of the main table.
PRINTED = {
    "RAIN": ("RAIN", 1, "Ours (multi-level)"),
    "RAIN without L_adv": ("RAIN", 1, "Baseline (train on HR & LR)"),
    "CAD-Net": ("CAD-Net", 1, "Ours"),
    "INTACT": ("INTACT", 1, "INTACT"),
    "adaptive": ("Adaptive", 1, "Ours"),
    "IDE + verification": ("Adaptive", 2, "IDE + Verif"),
}
# People that the papers train on and look for.
IN_PAPERS = {
    "market1501": (751, 750), "dukemtmc": (702, 702), "cuhk03": (1367, 100), "viper": (316, 316),
    "caviar": (25, 25),
}  # fmt: skip
LOW = ("2", "3", "4")
NOT_RUN = "not run"


@dataclasses.dataclass
class Section:
    """A table as it is printed and as it is written.

    Args:
        title: its heading.
        tables: header and rows of each part.
        notes: sentences below.
        figures: names of PNGs in the page's folder.
    """

    title: str
    tables: list
    notes: list
    figures: tuple = ()

    def text(self):
        tables = [text_table(header, rows) for header, rows in self.tables]
        return "\n\n".join([self.title, *tables, *filter(None, self.notes)])

    def markdown(self):
        parts = [f"## {self.title}"]
        parts += [markdown(header, rows) for header, rows in self.tables]
        parts += [f"![{self.title.split(',')[0]}]({name})" for name in self.figures]
        return "\n\n".join([*parts, *filter(None, self.notes)])


def scores_of(metrics):
    """What a row is judged by: all queries of a protocol, or the mean of r = 2, 3 and 4."""
    per_rate = metrics.get("per_rate") or {}
    if metrics.get("mixed") or not all(rate in per_rate for rate in LOW):
        found = metrics.get("mixed") or metrics.get("mean_lr")
        if not found:
            raise xr.InputError(
                f"a run of {metrics.get('system')} has scores at r = {', '.join(per_rate)} and no "
                "mean: score it at the rates 2, 3 and 4"
            )
        return found
    shared = [name for name in per_rate["2"] if all(per_rate[r].get(name) is not None for r in LOW)]
    return {name: statistics.mean(per_rate[r][name] for r in LOW) for name in shared}


def rank1_of(runs):
    """Rank-1 of a row and its error: the deviation over seeds or draws, or a standard error."""
    values = [scores_of(metrics)["rank1"] for metrics in runs]
    if len(values) > 1:
        return statistics.mean(values), statistics.stdev(values)
    drawn = (runs[0].get("summary") or {}).get("mixed")
    if drawn:
        return values[0], drawn["rank1"]["deviation"]
    known = (runs[0].get("standard_error") or {}).get("mixed") if runs[0].get("mixed") else None
    return values[0], known or standard_error(values[0], runs[0]["queries"])


def rank1_text(runs):
    """The same as text; of several splits mean, deviation and the mean's 95 % interval."""
    of_split = {}
    for metrics in runs:
        of_split.setdefault(metrics.get("split_id"), []).append(scores_of(metrics)["rank1"])
    if len(of_split) == 1:
        return "{:.1f} ± {:.1f}".format(*rank1_of(runs))
    found = xr.summarise([{"rank1": statistics.mean(values)} for values in of_split.values()])
    return "{mean:.1f} ± {deviation:.1f} [{low:.1f}, {high:.1f}]".format(**found["rank1"])


def mean_quality(runs, name, rates=LOW):
    """Mean PSNR, SSIM or LPIPS of the recovered images of some rates; None if not measured."""
    values = [
        ((metrics.get("image_quality") or {}).get(rate) or {}).get(name)
        for metrics in runs
        for rate in rates
    ]
    values = [value for value in values if value is not None]
    return statistics.mean(values) if values else None


def quality_of(runs, name, digits, rates=LOW):
    """The same as text."""
    return number(mean_quality(runs, name, rates), digits)


def cells(runs):
    """Scores, image quality and minutes of a row as text."""
    text = [rank1_text(runs)]
    for score in ("rank5", "rank10", "mAP"):
        values = [scores_of(metrics).get(score) for metrics in runs]
        text.append(NOT_MEASURED if None in values else f"{statistics.mean(values):.1f}")
    text += [quality_of(runs, *kind) for kind in (("psnr", 1), ("ssim", 3), ("lpips", 3))]
    return [*text, f"{statistics.mean(m['seconds'] for m in runs) / 60:.1f}"]


def order_of(ours):
    """Names from worst to best, ≈ between neighbours less than an error apart."""
    names = sorted(ours, key=lambda name: ours[name][0])
    text = names[0]
    for before, name in itertools.pairwise(names):
        error = max(ours[before][1], ours[name][1])
        text += (" ≈ " if ours[name][0] - ours[before][0] < error else " < ") + name
    return names, text


def described(runs):
    """On what the rows were run, and how long each."""
    if not runs:
        return "nothing was run yet"
    first, words = runs[0], [f"{runs[0]['dataset']} ({compare_rows.people_of(runs[0])} people)"]
    mixed = f"protocol {first['protocol']}, all queries"
    words.append(mixed if first.get("mixed") else "mean over the rates 2, 3, 4")
    for name, title in (("epochs", "epochs a row"), ("seed", "seed"), ("split_id", "split")):
        values = {(run.get("options") or {}).get(name) for run in runs} - {None}
        if values and (values != {0} or name == "seed"):
            words.append(f"{title} {', '.join(map(str, sorted(values)))}")
    precisions = {(run.get("options") or {}).get("precision") for run in runs}
    return ", ".join([*words, *(precisions - {"float32", None})])


def beside_papers(runs):
    """How the data of runs by the papers' protocols differ from theirs, in a sentence."""
    run = next((run for run in runs if run.get("mixed") and run.get("data")), None)
    if run is None:
        return ""
    people = [run["data"][role]["people"] for role in ("train", "query")]
    theirs = IN_PAPERS.get(run["dataset"])
    text = (
        f"Rank-1 of all queries, rates mixed, by protocol {run['protocol']}, as the papers print "
        f"it; trained on {people[0]:,} people, {people[1]:,} looked for"
    )
    if theirs is None:
        return text + "; the papers have other data."
    if tuple(people) == theirs:
        return text + ", as in the papers, who drew other images."
    return text + f"; the papers have {theirs[0]:,} and {theirs[1]:,}: a larger gallery is harder."


def all_runs(found):
    return [metrics for runs in found.values() for metrics in runs]


def show(table, found, folder):
    """A table of a paper, the rivals that it prints included."""
    system, number = table.split("-")
    source, first = papers.OF_SYSTEM[system], next(iter(all_runs(found)), {})
    dataset, printed = papers.rows_beside(source, int(number), first.get("dataset"))
    printed = {row.model: row.scores for row in printed}
    printed |= {name: {} for name in found if name not in printed}  # ours, of other data there
    titles = {"rank1": "rank-1", "mAP": "mAP", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
    quoted = [name for name in titles if any(name in scores for scores in printed.values())]
    header = ["row", "rank-1", "rank-5", "rank-10", "mAP", "PSNR", "SSIM", "LPIPS", "min"]
    empty = [NOT_MEASURED] * (len(header) - 2)
    header += [f"paper's {titles[name]}" for name in quoted]
    rows, ours, psnr = [], {}, {}
    for name, scores in printed.items():
        runs, text = found.get(name), [NOT_MEASURED, *empty]
        if runs:
            text = cells(runs)
            if scores:
                ours[name] = rank1_of(runs)
            if scores and (value := mean_quality(runs, "psnr")) is not None:
                psnr[name] = value
        elif name in TABLES[table]:
            text = [NOT_RUN, *empty]
        paper = [scores.get(score) for score in quoted]
        rows.append([name, *text, *(NOT_MEASURED if v is None else str(v) for v in paper)])
    plain = [
        scores_of({"system": m["system"], **m["enlarged"]})
        for m in all_runs(found)
        if (m.get("enlarged") or {}).get("per_rate")
    ]
    if plain:
        mean = statistics.mean(scores["rank1"] for scores in plain)
        missing = [NOT_MEASURED] * (len(header) - 2)
        rows.append(["upscaled", f"{mean:.1f}", *missing])
    sentence = ""
    if len(ours) > 1:
        names, text = order_of(ours)
        theirs = sorted(ours, key=lambda name: printed[name]["rank1"])
        told = "the paper's order" + (
            ", but for what lies within one standard error" if "≈" in text else ""
        )
        sentence = f"Rank-1 from worst to best (≈: less than ± apart): {text}; " + (
            f"{told}." if names == theirs else f"the paper: {' < '.join(theirs)}."
        )
    if psnr and len(psnr) == len(ours):
        sentence += f" Best PSNR: {max(psnr, key=psnr.get)}."
    runs = all_runs(found)
    title = f"{source} Table {number}, {described(runs)}; paper's numbers on {dataset}"
    notes = [sentence.strip(), NOTES.get(table), beside_papers(runs)]
    return Section(title, [(header, rows)], notes)


def show_rain_2(table, found, folder):
    """RAIN's Table 2: rates trained on, and rate 8, which was not."""
    runs, again = found["Ours"], found.get("Ours, r = 8")
    cell = NOT_RUN
    if again:  # queries of rate 8 alone
        cell = rank1_text(again)
    elif runs and "8" in runs[0]["per_rate"]:
        cell = f"{statistics.mean(m['per_rate']['8']['rank1'] for m in runs):.1f}"
    header = ["row", "rank-1, rates trained on", "rank-1, r = 8"]
    rows = [["RAIN (ours)", rank1_text(runs) if runs else NOT_RUN, cell]]
    printed = {}
    for row in papers.rows("RAIN", 2):
        printed.setdefault(row.model, {})[row.rate] = str(row.scores["rank1"])
    for model, scores in printed.items():
        rows.append([f"{model} (paper)", scores[None], scores.get(8, NOT_MEASURED)])
    title = f"RAIN Table 2, {described(runs)}; paper's numbers on MLR-VIPeR"
    return Section(title, [(header, rows)], [beside_papers(runs)])


def show_cadnet_2(table, found, folder):
    """CAD-Net's Table 2: recovered images and rank-1 at rates trained on, and at rate 8."""
    runs, kinds = found["Ours"], (("ssim", 2), ("psnr", 1), ("lpips", 2))
    header = ["row", "SSIM", "PSNR", "LPIPS", "rank-1"]
    header += [f"{name}, r = 8" for name in header[1:]]
    rows = [["CAD-Net (ours)", *[NOT_RUN] * 8]]
    if runs:
        at_8 = [m["per_rate"]["8"]["rank1"] for m in runs if "8" in m["per_rate"]]
        plain = [m["enlarged"] for m in runs if m.get("enlarged")]
        first = [quality_of(runs, *kind) for kind in kinds]
        unseen = [quality_of(runs, *kind, rates=("8",)) for kind in kinds]
        unseen.append(f"{statistics.mean(at_8):.1f}" if at_8 else NOT_MEASURED)
        rows = [["CAD-Net (ours)", *first, rank1_text(runs), *unseen]]
        quality = [
            [quality_of(plain, *kind, rates=rates) for kind in kinds] for rates in (LOW, "8")
        ]
        nothing = NOT_MEASURED
        rows.append(["upscaled (ours)", *quality[0], nothing, *quality[1], nothing])
    printed = {}
    for row in papers.rows("CAD-Net", 2):
        numbers = [str(row.scores[name]) for name in ("ssim", "psnr", "lpips", "rank1")]
        printed[row.model] = [*printed.get(row.model, []), *numbers]
    rows += [[f"{model} (paper)", *numbers] for model, numbers in printed.items()]
    title = f"CAD-Net Table 2, {described(runs)}; paper's numbers on MLR-CUHK03"
    return Section(title, [(header, rows)], [beside_papers(runs)])


def show_figure_5(table, found, folder):
    """RAIN's Figure 5, drawn, and its points as a table."""
    rows, lines, papers_own = [], Lines(), papers.RAIN_LABELED
    for share in SHARES:
        points = [
            # Without a label nothing of a baseline trains.
            lines.point(label, 100 * share, found.get(f"{label}, {100 * share:g} %"))
            for label in LABELED
        ]
        rows.append([f"{100 * share:g} %", *points, str(papers_own.get(round(100 * share), "-"))])
    runs = all_runs(found)
    drawn = lines.draw(folder / f"{table}.png", "images with a label (%)", found)
    title = f"RAIN Figure 5, rank-1 against the share of labels, {described(runs)}"
    sentence = (
        "RAIN's reconstruction and adversarial losses see every image, labelled or not, and train "
        "alone where no image has a label. The "
        "baselines see those with a label only: networks trained with cross-entropy alone and "
        "compared by cosine, so that the one trained on HR & LR (baseline --train-on hr+lr) is not "
        "Table 1's row of that name (rain --without adv). "
        f"The figure is {table}.png; the paper's numbers are on MLR-CUHK03. With all labels the "
        "paper has 60.6 for the baseline trained on HR and 65.9 for the one trained on HR & LR."
    )
    header = ["labelled", *LABELED, "paper's RAIN"]
    return Section(title, [(header, rows)], [sentence], drawn)


class Lines:
    """Rank-1 of rows against a number that they differ in: cells of a table, and a figure."""

    def __init__(self):
        self.lines = {}

    def point(self, label, x, runs):
        """The cell of one row; None for a row that cannot be."""
        if not runs:
            return NOT_MEASURED if runs is None else NOT_RUN
        line = self.lines.setdefault(label, {"label": label, "x": [], "rank1": [], "error": []})
        for key, value in zip(("x", "rank1", "error"), (x, *rank1_of(runs)), strict=True):
            line[key].append(value)
        return rank1_text(runs)

    def draw(self, path, xlabel, found):
        """Draws what has been run; returns the names of figures."""
        if not self.lines:
            return ()
        several = any(len(of_row) > 1 for of_row in found.values())
        note = f"bars: {'deviation over seeds' if several else '± one standard error'}"
        figures.rank_lines(path, list(self.lines.values()), xlabel, note)
        return (path.name,)


def show_people(table, found, folder):
    """A system and its control with fewer people to train on."""
    lines, rows, pairs, not_judged = Lines(), [], [], []
    for n in NUMBERS:
        if f"HR, {n}" not in found:  # the data set has fewer people
            continue
        runs = {label: found[f"{label}, {n}"] for label in OF_PEOPLE}
        rows.append([str(n), *(lines.point(label, n, of_row) for label, of_row in runs.items())])
        both = [
            compare_rows.row_of(f"{k}, {n}", "", runs[k]) for k in ("HR & LR", "RAIN") if runs[k]
        ]
        judged, left_out = compare_pairs.judged(both)
        pairs, not_judged = pairs + judged, not_judged + left_out
    title = f"Rank-1 against people to train on, {described(all_runs(found))}"
    sentence = (
        "Every run of a column sees as many images, so that those with fewer people see each image "
        "more often. The second and the third column begin from the first. Who is searched for "
        "stays the same."
    )
    tables, notes = [(["people", *OF_PEOPLE], rows)], [sentence]
    if pairs:
        tables.append(compare_pairs.paired_table(pairs))
        not_judged = [*compare_pairs.PAIRED_NOTES, *not_judged]
    notes += ["\n".join(f"- {note}" for note in not_judged)] if not_judged else []
    drawn = lines.draw(folder / f"{table}.png", "people to train on", found)
    return Section(title, tables, notes, drawn)


def show_figure(options, table, found, folder):
    """A figure of a paper that compares several runs."""
    runs = {label: of_row[0] for label, of_row in found.items() if of_row}
    names = table_figures.draw(table, folder, runs, options) if runs else ()
    title = f"{table_figures.TITLES[table]}, {described(list(runs.values()))}"
    return Section(title, [], [table_figures.NOTE], tuple(names))


def show_table_5(table, found, folder):
    """The fourth paper's Table V."""
    scores = ("rank1", "rank5", "rank10", "rank20")
    printed, rows = {row.model: row.scores for row in papers.rows("Adaptive", 5)}, []
    for name, runs in found.items():
        rate = NEAREST[name.split(",")[0]][2]
        text = [NOT_RUN, *[NOT_MEASURED] * 3]
        runs = [m for m in runs if rate in m["per_rate"]]  # --from may hold runs of other rates
        if runs:
            of_rate = [m["per_rate"][rate] for m in runs]
            values = [statistics.mean(per_rate[s] for per_rate in of_rate) for s in scores]
            error = standard_error(values[0], runs[0]["queries"])
            if len(runs) > 1:
                error = statistics.stdev(per_rate["rank1"] for per_rate in of_rate)
            text = [f"{values[0]:.1f} ± {error:.1f}", *(f"{v:.1f}" for v in values[1:])]
        rows.append([name, *text, str(printed[name]["rank1"])])
    runs = all_runs(found)
    on = f"{described(runs).replace('mean over the rates 2, 3, 4', 'rates 3 and 6')}"
    title = f"Adaptive Table 5, rates not trained on, {on}; paper's numbers on MLR-CUHK03"
    sentence = (
        "Trained on rates 2, 4 and 8 beside 1, an image of rate 3 or 6 is treated as one of its "
        'neighbours; "seen" is trained on 2, 3 and 6 instead.'
    )
    header = ["row", "rank-1", "rank-5", "rank-10", "rank-20", "paper's rank-1"]
    return Section(title, [(header, rows)], [sentence])


def show_main(table, found, folder):
    """Every system beside the control: scores, costs, and paired differences."""
    rows = [compare_rows.row_of(label, "", runs) for label, runs in found.items() if runs]
    title = f"Every system with one budget, {described(all_runs(found))}"
    if not rows:
        return Section(title, [(["row", "rank-1"], [[label, NOT_RUN] for label in found])], [])
    header, lines = compare.table(rows)
    at = header.index("mean LR") + 1
    values = [compare_rows.flip_of(row) for row in rows]
    if any(value is not None for value in values):
        header.insert(at, "mean LR, flip")
        for line, value in zip(lines, values, strict=True):
            line.insert(at, NOT_MEASURED if value is None else f"{value:.1f}")
    if any(row["mixed"] is not None for row in rows):
        header.append("paper's rank-1")
        for line, row in zip(lines, rows, strict=True):
            line.append(printed_rank1(row))
    header, lines = header[:1] + header[2:], {line[0]: line[:1] + line[2:] for line in lines}
    empty = [NOT_RUN, *[NOT_MEASURED] * (len(header) - 2)]
    shown = [(header, [lines.get(label, [label, *empty]) for label in found])]
    notes = [f"- {note}" for note in compare_rows.footnotes(rows)]
    if "mean LR, flip" in header:
        notes.append("- Flip: embeddings of image and mirror image averaged, twice the query time.")
    pairs, not_judged = beside_controls(rows)
    if pairs:
        shown.append(compare_pairs.paired_table(pairs))
        notes += [f"- {note}" for note in compare_pairs.PAIRED_NOTES]
        notes.append(f"- {in_words(pairs)}")
    notes += [f"- {note}" for note in not_judged]
    compare.draw(folder / "main.png", [row for row in rows if row["rank1"]])
    below = ["\n".join(notes), beside_papers(all_runs(found))]
    return Section(title, shown, below, ("main.png",))


def printed_rank1(row):
    """What the row's paper prints for it on this data set."""
    paper, number, model = PRINTED.get(row["name"], (None, None, None))
    dataset = papers.DATASETS.get(row["runs"][0]["dataset"])
    known = [r for r in papers.rows(paper, number, dataset) if r.model == model and dataset]
    return str(known[0].scores["rank1"]) if known else NOT_MEASURED


def beside_controls(rows):
    """Each row judged beside the control on HR & LR, and beside the one on HR."""
    pairs, not_judged, of_name = [], {}, {row["name"]: row for row in rows}
    for name in ("control HR & LR", "control HR"):
        beside = of_name.pop(name, None)
        for row in of_name.values() if beside else ():
            found, left_out = compare_pairs.judged([beside, row])
            pairs += found
            not_judged |= dict.fromkeys(left_out)
    return pairs, list(not_judged)


def in_words(pairs):
    """Which rows are above the control on HR & LR."""
    verdicts = {}
    for pair in pairs:
        if pair["beside"] == "control HR & LR":
            verdicts.setdefault(pair["verdict"], []).append(pair["row"])
    told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in verdicts.items())
    return f"Beside control HR & LR in mean LR: {told or 'not judged'}."


def section_of(table, found, folder, options):
    """A table as a section of the page.

    Args:
        table: its name.
        found: {row: metrics of its finished runs}.
        folder: where its figures go.
        options: `tables.Options`.
    """
    special = {"main": show_main, "rain-2": show_rain_2, "cadnet-2": show_cadnet_2}
    special |= {FIGURE_5: show_figure_5, TABLE_5: show_table_5, PEOPLE: show_people}
    special |= dict.fromkeys(table_figures.RUNS, functools.partial(show_figure, options))
    return special.get(table, show)(table, found, folder)
