"""Numbers that papers print, each with its source, to stand beside our own.

They are in papers.csv, a line for each row of a paper's own tables, as printed. Their protocol
(MLR, single-shot gallery, rates mixed) is not `each-rate`, so they are company for our numbers and
not competitors. What to know of some tables:

- A model that a data set lacks was not evaluated on it. A column that a paper lacks is empty.
- RAIN, Table 1: "Baseline (train on HR & LR)" has the numbers of "Ours w/o Ladv" in Table 3.
- RAIN, Table 2: for SING and CSR-GAN at rate 8 it prints a cross, no number.
- RAIN, Table 4: rates trained on beside HR. The full model's mAP on MLR-CUHK03 is 75.9 here and
  74.5 in Table 3, both as printed.
- CAD-Net, Table 1: in the text at hand CAVIAR has lost the heading of rank 10; the numbers are
  all there.
- CAD-Net, Table 2: in the text at hand the first three models share their cells; the order of the
  numbers is the models'.
- INTACT, Tables 4 and 5: the paper does not name their data set; the last row of each equals the
  one on MLR-Market-1501.
- Adaptive, Table 1: INTACT's and HRNet-ReID's numbers are as this paper quotes them, which for
  INTACT differs from its own paper.
- Adaptive, Tables 2 and 3: what each mechanism adds ("val": varying length; *: end-to-end), and a
  model of its own for each rate.
- Adaptive, Table 5: a rate that was not trained on is treated as a trained one; "seen": the same
  rate after training on {2, 3, 6}.
"""

import csv
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One row of a paper's table.

    Args:
        paper: short name of the paper that prints the row.
        table: number of the table.
        dataset: data set as the paper names it.
        model: name of the row as the paper prints it.
        scores: dictionary of "rank1", "rank5", "rank10", "rank20", "mAP" in percent, "ssim",
            "psnr" in decibels, "lpips"; what the paper does not print is absent.
        rate: 8 where every query is of this rate, which was not trained on; None for the
            paper's usual mixture of rates.
    """

    paper: str
    table: int
    dataset: str
    model: str
    scores: dict
    rate: int | None = None


REFERENCES = {
    "RAIN": "Chen et al., Learning Resolution-Invariant Deep Representations for Person "
    "Re-Identification, AAAI 2019",
    "CAD-Net": "Li et al., Recover and Identify: A Generative Dual Model for Cross-Resolution "
    "Person Re-Identification, ICCV 2019",
    "INTACT": "Cheng et al., Inter-Task Association Critic for Cross-Resolution Person "
    "Re-Identification, CVPR 2020",
    "Adaptive": "Wu et al., Learning Resolution-Adaptive Representations for Cross-Resolution "
    "Person Re-Identification",
}

# The paper of a recipe, whose name is the paper's in small letters: {"cadnet": "CAD-Net"}.
OF_SYSTEM = {paper.lower().replace("-", ""): paper for paper in REFERENCES}

# What the papers call the data sets.
DATASETS = {
    "market1501": "MLR-Market-1501",
    "cuhk03": "MLR-CUHK03",
    "viper": "MLR-VIPeR",
    "dukemtmc": "MLR-DukeMTMC-reID",
    "caviar": "CAVIAR",
}

# RAIN, Figure 5: {percent of the images labelled: rank-1} on MLR-CUHK03, as the text gives it. The
# curves' other points are nowhere printed as numbers.
RAIN_LABELED = {0: 3.3, 20: 66.3, 40: 76.1, 100: 78.9}


def rows(paper, table, dataset=None):
    """Finds the rows of a paper's table, in the order in which the paper prints them.

    Args:
        paper: "RAIN", "CAD-Net", "INTACT" or "Adaptive".
        table: number of the table.
        dataset: keep only this data set, as the paper names it.

    Returns:
        List of `Row`, empty where the paper says nothing about the data set.

    Example:

    >>> [row.model for row in rows("INTACT", 3)]
    ['MSE+ID', 'MSE+ID+GAN', 'MSE+ID+GAN+Association']
    """
    return [
        row
        for row in ROWS
        if (row.paper, row.table) == (paper, table) and dataset in (None, row.dataset)
    ]


def rows_beside(paper, table, dataset):
    """Finds the rows of a paper's table to stand beside a run.

    Args:
        paper: as `rows` takes it.
        table: number of the table.
        dataset: data set of the run, as we name it, or None.

    Returns:
        The name of a data set and the list of its rows: of the run's own where the table has it,
        else of the one that most papers' tables are on.

    Example:

    >>> rows_beside("RAIN", 3, "market1501")[0]
    'MLR-CUHK03'
    """
    known = [row.dataset for row in rows(paper, table)]
    for name in (DATASETS.get(dataset), "MLR-CUHK03", known[0]):
        if name in known:
            return name, rows(paper, table, name)


def _read(path):
    names = ("paper", "table", "dataset", "model", "rate")
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            paper, table, dataset, model, rate = (line.pop(name) for name in names)
            scores = {name: float(value) for name, value in line.items() if value}
            yield Row(paper, int(table), dataset, model, scores, int(rate) if rate else None)


ROWS = tuple(_read(Path(__file__).with_name("papers.csv")))
