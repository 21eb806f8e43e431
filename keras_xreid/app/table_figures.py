"""The papers' figures that compare several runs: `tables.py intact-figure-4` and the others.

They show people of the data set, so they are drawn into the tables' folder and nowhere else.
"""

import dataclasses

import numpy as np

import keras_xreid as xr
from keras_xreid.app import later
from keras_xreid.data.resolution import lr_rates, prepare_images
from keras_xreid.evaluation.distances import distances_among
from keras_xreid.evaluation.ranking import counted_queries
from keras_xreid.evaluation.samples import one_query_a_person, queries_to_map
from keras_xreid.report import figures, image_figures, run_figures

distances = later("keras_xreid.models.distances")
forward = later("keras_xreid.models.forward")

# What each shows: rows of the main table by their names, or a recipe with its options.
RUNS = {
    "intact-figure-4": {
        "Sole SR": "intact --supervision mse",
        "SR + ID": "intact --supervision mse+id",
        "INTACT": "intact",
    },
    "cadnet-figure-3": {"INTACT": "INTACT", "CAD-Net": "CAD-Net"},
    "cadnet-figure-4": {"without D_F": "cadnet --without adv_f", "with D_F": "cadnet"},
    "rain-figure-3": {"RAIN": "RAIN"},
    "rain-figure-4": {
        "train\u00a0on HR": "control HR",
        "train\u00a0on HR\u00a0&\u00a0LR": "RAIN without L_adv",
        "RAIN": "RAIN",
    },
    "adaptive-figure-4": {"adaptive": "adaptive"},
}
TITLES = {
    "intact-figure-4": "INTACT Figure 4: queries at r = 4, recovered by models of Table 2",
    "cadnet-figure-3": "CAD-Net Figure 3: recovered queries; r = 1 is the image as it is",
    "cadnet-figure-4": "CAD-Net Figure 4: GAP(f) of 15 people in the plane (t-SNE), without and "
    "with the feature discriminator",
    "rain-figure-3": "RAIN Figure 3: v of 35 people in the plane (t-SNE), by person and by rate",
    "rain-figure-4": "RAIN Figure 4: the first 7 gallery images of a query at r = 8",
    "adaptive-figure-4": "Adaptive Figure 4: the first 15 gallery images of a query at r = 1 to 4",
}
RATES = (1, 2, 4, 8)  # of CAD-Net's and RAIN's figures
NOTE = "People are drawn by the seed, not by result."


def draw(figure, folder, found, options):
    """Draws a figure.

    Args:
        figure: a name of `RUNS`.
        folder: where the PNGs go.
        found: {label: metrics of a finished run}, as many as there are.
        options: `tables.Options`.

    Returns:
        Names of the PNGs.
    """
    for label, run in found.items():
        if run["dataset"] != options.data:
            raise xr.InputError(
                f"{label} was run on {run['dataset']}, and --data is {options.data}: give its own "
                "--data and --data-dir"
            )
    models = {label: xr.load(run["trained"], precision="float32") for label, run in found.items()}
    size = next(iter(models.values())).image_size
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, fold=options.fold,
        split_id=options.split_id[0], limit=options.limit, image_size=size,
        need=("query", "gallery"),
    )  # fmt: skip
    counted = np.flatnonzero(counted_queries(data.query, data.gallery))
    path = folder / f"{figure}.png"
    if figure.startswith(("intact", "cadnet-figure-3")):
        rates = (4,) if figure == "intact-figure-4" else RATES
        rows = one_query_a_person(data.query, counted, 6)
        recovered_by(path, models, [data.query[row] for row in rows], rates, size)
    elif figure == "rain-figure-4":
        ranked_by(path, models, data, counted)
    elif figure == "adaptive-figure-4":
        (model,) = models.values()
        result = ranked(model, data, one_query_a_person(data.query, counted, 1), (1, 2, 3, 4))
        image_figures.ranked_lists(path, run_figures.ranked_lists_by_rate(result, length=15))
    else:
        trained = lr_rates(next(iter(found.values()))["options"]["train_rates"])
        return maps_of(path, models, data, counted, trained)
    return [path.name]


def recovered_by(path, models, records, rates, size):
    """Strips: the query and what each model recovers, at every rate, and the original."""
    high = prepare_images(records, size, 1)
    groups = []
    for rate in rates:
        low = prepare_images(records, size, rate)
        shown = {label: model.recover(low) for label, model in models.items()}
        groups.append((f"r = {rate}", {"LR" if rate > 1 else "HR": low, **shown}))
    image_figures.image_strips(path, [*groups, ("", {"HR": high})])


def ranked(model, data, rows, rates):
    """What `evaluate` finds for a few of the queries."""
    few = dataclasses.replace(data, query=[data.query[row] for row in rows])
    return xr.evaluate(model, few, rates, verbose=False)


def ranked_by(path, models, data, counted, rate=8, length=7):
    """The first gallery images of three people's queries, by each model."""
    rows = one_query_a_person(data.query, counted, 3)
    groups = [{"title": f"r = {rate}: a query drawn at random", "rows": []} for _ in rows]
    for label, model in models.items():
        result = ranked(model, data, rows, (rate,))
        for i, group in enumerate(groups):
            row = run_figures.ranked_row(result, result.trials[0], i, "plain", label, length)
            group["rows"].append(row)
    image_figures.ranked_lists(path, groups)


def maps_of(path, models, data, counted, trained):
    """Embeddings in the plane, a PNG for each model: RAIN's v, or GAP(f) of CAD-Net."""
    of_f = path.name.startswith("cadnet")
    people = 15 if of_f else 35
    chosen = queries_to_map(data.query, counted, len(RATES), people, points=16 * people)
    records, names = [data.query[row] for row in chosen], []
    told = np.repeat(RATES, len(records))
    for label, model in models.items():
        parts = []
        for rate in RATES:
            images = prepare_images(records, model.image_size, rate)
            if of_f:
                parts.append(forward.predict(model.encoder, images, 64)[-1])
            else:
                parts.append(model.embed(images, rates=rate))
        measure = (lambda a, b, query_rates: distances.euclidean(a, b)) if of_f else model.distances
        apart = distances_among(measure, np.concatenate(parts), told)
        places = run_figures.places_of(apart)
        persons = [record.person for record in records] * len(RATES)
        ending = f"-{label.replace(' ', '-')}" if len(RUNS[path.stem]) > 1 else ""
        name = f"{path.stem}{ending}.png"
        figures.embedding_map(path.with_name(name), places, persons, told, trained)
        names.append(name)
    return names
