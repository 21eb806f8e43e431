"""The figures of a run: which of them it allows, and what they show."""

import importlib.util
from pathlib import Path

import numpy as np

from keras_xreid.data.resolution import prepare_images
from keras_xreid.report import figures, image_figures
from keras_xreid.report.loss_curves import loss_curves


def draw_figures(folder, result, train_rates=(2, 3, 4), show_rate=4):
    """Draws every figure that a result allows. Only images are read; no model is asked.

    Args:
        folder: the run's `figures` folder, made if missing. `history.csv` is read beside it.
        result: what `evaluate` returned.
        train_rates: rates trained on; others are drawn as unseen.
        show_rate: rate of the ranked lists; the largest scored one where it was not scored.

    Returns:
        The list of files written.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> draw_figures("runs/mine/figures", evaluate(model, data))
    """
    folder = Path(folder)
    history = folder.parent / "history.csv"
    rates = [float(rate) for rate in result.scores["per_rate"]]
    written = []
    if rates:
        written.append(figures.rank_against_rate(folder / "rank1.png", result.scores, train_rates))
        written.append(figures.cmc_curves(folder / "cmc.png", result.scores))
    if history.exists():
        written.append(loss_curves(folder / "losses.png", history))
    if strips := recovered_strips(result):
        written.append(image_figures.image_strips(folder / "recovered.png", strips))
    if rates:
        show_rate = show_rate if f"{show_rate:g}" in result.scores["per_rate"] else max(rates)
        lists = ranked_lists(result, show_rate)
        written.append(image_figures.ranked_lists(folder / "ranked.png", lists))
    if len(result.trials) > 1:
        lists = ranked_lists_by_rate(result)
        written.append(image_figures.ranked_lists(folder / "ranked_by_rate.png", lists))
    if result.masks:
        path = folder / "masks.png"
        written.append(figures.mask_heat_map(path, result.masks, result.mask_rates))
    if importlib.util.find_spec("sklearn") is None:  # a finished run is not lost for that
        print('t-SNE is left out: pip install -e ".[recipes]"')
    elif rates and len(result.map_distances) >= 4:
        people = [result.data.query[row].person for row in result.mapped] * len(result.trials)
        shown = np.concatenate([trial.query_rates[result.mapped] for trial in result.trials])
        places = places_of(result.map_distances)
        path = folder / "tsne.png"
        written.append(figures.embedding_map(path, places, people, shown, train_rates))
    return written


def recovered_strips(result):
    """Columns for `image_strips`: a few people's queries as they are, recovered, and originals."""
    records, groups = [result.data.query[row] for row in result.samples], []
    for trial in result.trials:
        if records and result.samples[0] in trial.recovered:
            low = prepare_images(
                records, result.image_size, trial.shrinks, result.kernel, result.strength
            )
            recovered = [trial.recovered[row] for row in result.samples]
            title = f"r = {trial.rate:g}" if trial.rate else "each at its rate"
            groups.append((title, {"LR": low, "recovered": recovered}))
    if groups:
        high = prepare_images([record.original() for record in records], result.image_size)
        groups.append(("", {"HR": high}))
    return groups


def ranked_lists(result, rate, length=10):
    """Groups for `image_figures.ranked_lists`: the queries that `evaluate` chose, at one rate.

    Where recovery can be left out, each of them without and with it.
    """
    trial, shown = next(
        (trial, shown)
        for trial in result.trials
        for of, shown in trial.shown.items()
        if f"{of:g}" == f"{rate:g}"  # as the scores have it, in six digits
    )
    labels = {"plain": ""}
    if "upscaled" in trial.first:
        labels = {"upscaled": "upscaled", "plain": "recovered"}
    return [
        {
            "title": f"r = {rate:g}: {why}",
            "rows": [ranked_row(result, trial, row, v, labels[v], length) for v in labels],
        }
        for why, row in shown
    ]


def ranked_lists_by_rate(result, length=10):
    """A group for `image_figures.ranked_lists`: one query, drawn by the seed, at every rate."""
    row = result.mapped[0]
    rows = [
        # With a hard space, so that it stays in one line.
        ranked_row(result, trial, row, "plain", f"r\u00a0=\u00a0{trial.rate:g}", length)
        for trial in result.trials
    ]
    return [{"title": "one query at every rate", "rows": rows}]


def ranked_row(result, trial, row, variant, label, length=10):
    """One query of `image_figures.ranked_lists` with what was found for it."""
    record, size = result.data.query[row], result.image_size
    columns = trial.nearest[variant][row][:length]
    found = [result.data.gallery[column] for column in columns if column >= 0]
    if label == "recovered" and row in trial.recovered:
        query = trial.recovered[row]
    else:
        query = prepare_images([record], size, trial.shrinks, result.kernel, result.strength)[0]
    return {
        "label": label,
        "note": f"first ✓: {trial.first[variant][row]}",
        "query": query,
        "gallery": prepare_images(found, size, trial.gallery_rate, result.kernel),
        "right": [other.person == record.person for other in found],
    }


def places_of(distances, seed=0):
    """Places in the plane of what is so far apart, by t-SNE."""
    from sklearn.manifold import TSNE

    # The exact method needs seconds for so few; the other one's threads wait for each other, which
    # takes a minute on cores that have something else to do.
    tsne = TSNE(
        method="exact", metric="precomputed", init="random", random_state=seed,
        perplexity=min(30, (len(distances) - 1) / 3),
    )  # fmt: skip
    return tsne.fit_transform(distances)
