"""Numbers that papers print, each with its source, to stand beside our own.

Quoted from each paper's own tables as printed. Their protocol (MLR, single-shot gallery, rates
mixed) is not `each-rate`, so they are company for our numbers and not competitors.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One row of a paper's table.

    Args:
        paper: short name of the paper that prints the row.
        table: number of the table.
        dataset: data set as the paper names it.
        model: name of the row as the paper prints it.
        scores: dictionary of "rank1", "rank5", "rank10" in percent, "ssim", "psnr" in decibels;
            what the paper does not print is absent.
    """

    paper: str
    table: int
    dataset: str
    model: str
    scores: dict


REFERENCES = {
    "INTACT": "Cheng et al., Inter-Task Association Critic for Cross-Resolution Person "
    "Re-Identification, CVPR 2020",
}

# What the paper's data sets are called here.
DATASETS = {
    "market1501": "MLR-Market-1501",
    "cuhk03": "MLR-CUHK03",
    "viper": "MLR-VIPeR",
    "dukemtmc": "MLR-DukeMTMC-reID",
    "caviar": "CAVIAR",
}


def rows(paper, table, dataset=None):
    """Finds the rows of a paper's table, in the order in which the paper prints them.

    Args:
        paper: "INTACT".
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


def _ranks(paper, table, dataset, lines):
    names = ("rank1", "rank5", "rank10")
    return [
        Row(paper, table, dataset, model, dict(zip(names, scores, strict=True)))
        for model, *scores in lines
    ]


# INTACT, Table 1: cross-resolution person re-id, single-shot. A model that a data set lacks was
# not evaluated on it.
_INTACT_1 = [
    *_ranks(
        "INTACT",
        1,
        "MLR-Market-1501",
        [
            ("CamStyle", 74.5, 88.6, 93.0),
            ("FD-GAN", 79.6, 91.6, 93.5),
            ("SING", 74.4, 87.8, 91.6),
            ("CSR-GAN", 76.4, 88.5, 91.9),
            ("CAD", 83.7, 92.7, 95.8),
            ("INTACT", 88.1, 95.0, 96.9),
        ],
    ),
    *_ranks(
        "INTACT",
        1,
        "MLR-CUHK03",
        [
            ("CamStyle", 69.1, 89.6, 93.9),
            ("FD-GAN", 73.4, 93.8, 97.9),
            ("SING", 67.7, 90.7, 94.7),
            ("CSR-GAN", 71.3, 92.1, 97.4),
            ("JUDEA", 26.2, 58.0, 73.4),
            ("SDF", 22.2, 48.0, 64.0),
            ("RAIN", 78.9, 97.3, 98.7),
            ("CAD", 82.1, 97.4, 98.8),
            ("INTACT", 86.4, 97.4, 98.5),
        ],
    ),
    *_ranks(
        "INTACT",
        1,
        "MLR-VIPeR",
        [
            ("CamStyle", 34.4, 56.8, 66.6),
            ("FD-GAN", 39.1, 62.1, 72.5),
            ("SLD2L", 20.3, 44.0, 62.0),
            ("SING", 33.5, 57.0, 66.5),
            ("CSR-GAN", 37.2, 62.3, 71.6),
            ("JUDEA", 26.0, 55.1, 69.2),
            ("SDF", 9.3, 38.1, 52.4),
            ("RAIN", 42.5, 68.3, 79.6),
            ("CAD", 43.1, 68.2, 77.5),
            ("INTACT", 46.2, 73.1, 81.6),
        ],
    ),
    *_ranks(
        "INTACT",
        1,
        "MLR-DukeMTMC-reID",
        [
            ("CamStyle", 64.0, 78.1, 84.4),
            ("FD-GAN", 67.5, 82.0, 85.3),
            ("SING", 65.2, 80.1, 84.8),
            ("CSR-GAN", 67.6, 81.4, 85.1),
            ("CAD", 75.6, 86.7, 89.6),
            ("INTACT", 81.2, 90.1, 92.8),
        ],
    ),
    *_ranks(
        "INTACT",
        1,
        "CAVIAR",
        [
            ("CamStyle", 32.1, 72.3, 85.9),
            ("FD-GAN", 33.5, 71.4, 86.5),
            ("SLD2L", 18.4, 44.8, 61.2),
            ("SING", 33.5, 72.7, 89.0),
            ("CSR-GAN", 34.7, 72.5, 87.4),
            ("JUDEA", 22.0, 60.1, 80.8),
            ("SDF", 14.3, 37.5, 62.5),
            ("RAIN", 42.0, 77.3, 89.6),
            ("CAD", 42.8, 76.2, 91.5),
            ("INTACT", 44.0, 81.8, 93.9),
        ],
    ),
]

# INTACT, Table 2: super-resolution and re-id performance on the MLR-CUHK03 test set.
_INTACT_2 = [
    Row("INTACT", 2, "MLR-CUHK03", model, {"ssim": ssim, "psnr": psnr, "rank1": rank1})
    for model, ssim, psnr, rank1 in [
        ("CycleGAN", 0.55, 14.1, 62.1),
        ("SING", 0.65, 18.1, 67.7),
        ("CSR-GAN", 0.76, 21.5, 71.3),
        ("CAD", 0.73, 20.2, 82.1),
        ("Sole SR", 0.82, 26.6, 23.0),
        ("SR + ID", 0.77, 23.3, 82.7),
        ("INTACT", 0.73, 22.8, 86.4),
    ]
]

# INTACT, Table 3: loss components.
_INTACT_3 = _ranks(
    "INTACT",
    3,
    "MLR-Market-1501",
    [
        ("MSE+ID", 83.7, 93.0, 95.6),
        ("MSE+ID+GAN", 84.7, 93.9, 96.1),
        ("MSE+ID+GAN+Association", 88.1, 95.0, 96.9),
    ],
)

# INTACT, Tables 4 and 5: association designs and bridge constraint. The paper does not name their
# data set; the last row of each equals the one on MLR-Market-1501.
_INTACT_4 = _ranks(
    "INTACT",
    4,
    "MLR-Market-1501",
    [
        ("Common Space (a)", 84.3, 94.0, 95.3),
        ("D-to-R (b)", 83.4, 93.5, 95.0),
        ("R-to-D (c, ours)", 88.1, 95.0, 96.9),
    ],
)
_INTACT_5 = _ranks(
    "INTACT",
    5,
    "MLR-Market-1501",
    [
        ("W/O (Fig. 5 (d))", 84.3, 93.5, 95.8),
        ("W (Fig. 5 (c))", 88.1, 95.0, 96.9),
    ],
)

ROWS = (*_INTACT_1, *_INTACT_2, *_INTACT_3, *_INTACT_4, *_INTACT_5)
