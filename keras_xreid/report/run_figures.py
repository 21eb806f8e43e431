"""The figures of a run: which of them it allows, and what they show."""

import importlib.util
from pathlib import Path

import numpy as np

from keras_xreid.data.resolution import prepare_images
from keras_xreid.evaluation.ranking import counted_queries, matches_and_junk
from keras_xreid.report import figures


def draw_figures(
    folder,
    model,
    data,
    results,
    kept,
    train_rates=(2, 3, 4),
    show_rate=4,
    people=4,
    kernel="area",
    seed=0,
):
    """Draws every figure that a run allows into `folder`, after `evaluate`.

    Args:
        folder: the run's `figures` folder, made if missing. `history.csv` is read beside it.
        model: the model that was scored.
        data: the `DataSet` that was scored.
        results: what `evaluate` returned.
        kept: the dictionary that `evaluate(..., keep=kept)` filled.
        train_rates: rates trained on; others are drawn as unseen.
        show_rate: rate of the ranked lists; the largest scored one where it was not scored.
        people: how many people the strips show, drawn by `seed` and not by result.
        kernel: how images are shrunk, as given to `evaluate`.
        seed: chooses the people.

    Returns:
        The list of files written.

    Raises:
        InputError: matplotlib is not installed.

    Example:

    >>> kept = {}
    >>> results = evaluate(model, data, keep=kept)
    >>> draw_figures("runs/mine/figures", model, data, results, kept)
    """
    folder = Path(folder)
    history = folder.parent / "history.csv"
    written = []
    if results["per_rate"]:
        written.append(figures.rank_against_rate(folder / "rank1.png", results, train_rates))
        written.append(figures.cmc_curves(folder / "cmc.png", results))
    if history.exists():
        written.append(figures.loss_curves(folder / "losses.png", history))
    counted = np.flatnonzero(counted_queries(data.query, data.gallery))
    fixed = not isinstance(kept["query"], dict)  # the protocol gave each query its rate
    rates = sorted({rate for rate in kept["rates"] if rate > 0} if fixed else kept["query"])
    if hasattr(model, "recover"):
        # Of an image that is of low resolution by itself nobody has the original.
        whole = counted
        if fixed:
            whole = np.array([row for row in counted if data.query[row].kernel is not None], int)
        rows = _one_query_a_person(data.query, whole, people, seed)
        records = [data.query[row] for row in rows]
        if fixed:
            records = [record.original() for record in records]
        high = prepare_images(records, model.image_size, 1, kernel)
        low = {
            rate: prepare_images(records, model.image_size, rate, kernel)
            for rate in rates
            if rate > 1
        }
        if low and records:
            recovered = {rate: model.recover(images) for rate, images in low.items()}
            written.append(figures.recovered_strips(folder / "recovered.png", low, recovered, high))
    if rates and show_rate not in rates:
        show_rate = rates[-1]
    if fixed and rates:
        kept_of_rate = {
            name: {show_rate: kept[name]}
            for name in ("query", "gallery", "enlarged")
            if kept[name] is not None
        }
        kept_of_rate = {"enlarged": {}, "told": {show_rate: show_rate}, **kept_of_rate}
        own = counted[kept["rates"][counted] == show_rate]
        lists = _lists(model, data, kept_of_rate, show_rate, own, kernel, seed, stored=True)
    elif rates:
        lists = _lists(model, data, kept, show_rate, counted, kernel, seed)
    if rates:
        written.append(figures.ranked_lists(folder / "ranked.png", lists))
    if not fixed and len(rates) > 1:
        lists = _lists_by_rate(model, data, kept, counted, kernel, seed)
        written.append(figures.ranked_lists(folder / "ranked_by_rate.png", lists))
    if getattr(model, "masks", None):
        values = [mask.values for mask in model.masks]
        written.append(figures.mask_heat_map(folder / "masks.png", values, model.rates))
    if importlib.util.find_spec("sklearn") is None:  # a finished run is not lost for that
        print('t-SNE is left out: pip install "keras-xreid[recipes]"')
    elif rates:
        chosen = _queries_to_map(data.query, counted, 1 if fixed else len(rates), seed)
        if fixed:
            features, shown, told = kept["query"][chosen], *[kept["rates"][chosen]] * 2
        else:
            features = np.concatenate([kept["query"][rate][chosen] for rate in rates])
            shown = np.repeat(rates, len(chosen))
            told = np.repeat([kept["told"][rate] for rate in rates], len(chosen))
        if len(features) >= 4:
            places = _tsne(model, features, told, seed)
            persons = [data.query[row].person for row in chosen] * (len(features) // len(chosen))
            path = figures.embedding_map(folder / "tsne.png", places, persons, shown, train_rates)
            written.append(path)
    return written


def _one_query_a_person(query, counted, people, seed):
    """Queries of a few people, chosen by the seed alone."""
    order = np.random.default_rng(seed).permutation(counted)
    first = {}
    for row in order:
        first.setdefault(query[row].person, int(row))
    return list(first.values())[:people]


def _queries_to_map(query, counted, rates, seed, people=15, points=300):
    """Queries of a few people, chosen by the seed alone: with `rates` each, `points` at most."""
    order = np.random.default_rng(seed).permutation(counted)
    of_person = {}
    for row in order:
        of_person.setdefault(query[row].person, []).append(int(row))
    chosen = list(of_person.values())[:people]
    each = max(1, points // (len(chosen) * rates))
    return [row for rows in chosen for row in rows[:each]]


def _tsne(model, features, told, seed):
    """Places of features in the plane, by the model's own distance between them."""
    from sklearn.manifold import TSNE

    distances = np.array(model.distances(features, features, query_rates=told), "float64")
    # Where the metric depends on the resolution, two images are compared on what both have.
    distances = np.maximum(np.minimum(distances, distances.T), 0)
    np.fill_diagonal(distances, 0)
    # The exact method needs seconds for so few; the other one's threads wait for each other, which
    # takes a minute on cores that have something else to do.
    tsne = TSNE(
        method="exact", metric="precomputed", init="random", random_state=seed,
        perplexity=min(30, (len(features) - 1) / 3),
    )  # fmt: skip
    return tsne.fit_transform(distances)


def _lists(model, data, kept, rate, counted, kernel, seed, length=10, stored=False):
    """Groups for `ranked_lists`: queries of three people drawn at random.

    `stored`: the queries are read at their rate, and are not to be shrunk.

    Where recovery can be left out: the query helped most, one at random, the one hurt most, before
    and after recovery.
    """
    versions = {"": kept["query"][rate]}
    if rate in kept["enlarged"]:
        versions = {"merely enlarged": kept["enlarged"][rate], "recovered": kept["query"][rate]}
    drawn = _one_query_a_person(data.query, counted, 1 if len(versions) == 2 else 3, seed)
    rows = counted if len(versions) == 2 else drawn  # the most helped one is sought among all
    orders, first = {}, {}
    for label, features in versions.items():
        told = 1 if label == "merely enlarged" else kept["told"][rate]
        found = _top(model, data, features, kept["gallery"][rate], told, rows, length)
        orders[label], first[label] = found
    chosen = [("a query drawn at random", row) for row in drawn]
    if len(versions) == 2:
        # By the reciprocal of the first match's rank: what happens at the top of a list counts.
        gain = 1 / first["recovered"] - 1 / first["merely enlarged"]
        best, worst = max(counted, key=lambda q: gain[q]), min(counted, key=lambda q: gain[q])
        if gain[best] > 0:
            chosen.insert(0, ("the query that recovery helps most", int(best)))
        if gain[worst] < 0:
            chosen.append(("the query that recovery hurts most", int(worst)))
    groups = []
    for title, row in chosen:
        rows = [
            _ranked_row(
                model, data, label, row, 1 if stored else rate, orders[label], first[label], kernel,
                recovered=label == "recovered",
            )
            for label in versions
        ]  # fmt: skip
        groups.append({"title": f"r = {rate:g}: {title}", "rows": rows})
    return groups


def _lists_by_rate(model, data, kept, counted, kernel, seed, length=10):
    """A group for `ranked_lists`: one query, drawn by the seed, at every rate."""
    (row,) = _one_query_a_person(data.query, counted, 1, seed)
    rows = []
    for rate, features in kept["query"].items():
        gallery, told = kept["gallery"][rate], kept["told"][rate]
        order, first = _top(model, data, features, gallery, told, [row], length)
        label = f"r\u00a0=\u00a0{rate:g}"  # in one line
        rows.append(_ranked_row(model, data, label, row, rate, order, first, kernel))
    return [{"title": "one query at every rate", "rows": rows}]


def _ranked_row(model, data, label, row, rate, order, first, kernel, recovered=False):
    """One query of `ranked_lists` with what was found for it."""
    record, found = data.query[row], [data.gallery[column] for column in order[row]]
    shown = prepare_images([record], model.image_size, rate, kernel)
    gallery_rate = rate if getattr(model, "gallery_at_query_rate", False) else 1
    return {
        "label": label,
        "note": f"first ✓: {first[row]}",
        "query": model.recover(shown)[0] if recovered else shown[0],
        "gallery": prepare_images(found, model.image_size, gallery_rate, kernel),
        "right": [other.person == record.person for other in found],
    }


def _top(model, data, features, gallery, told, rows, length):
    """Some queries' nearest gallery columns without junk, and their first match's rank."""
    matches, junk, without_person = matches_and_junk(data.query, data.gallery)
    order, first = {}, np.ones(len(data.query), int)
    for start in range(0, len(rows), 256):  # never all queries to all of the gallery
        block = np.asarray(rows[start : start + 256])
        distances = np.asarray(model.distances(features[block], gallery, query_rates=told))
        for row, line in zip(block.tolist(), distances, strict=True):
            left_out = np.zeros(len(data.gallery), bool)
            left_out[junk[row]] = left_out[without_person] = True
            ranked = np.argsort(line, kind="stable")
            ranked = ranked[~left_out[ranked]]
            order[row] = ranked[:length]
            first[row] = 1 + np.argmax(np.isin(ranked, matches[row]))
    return order, first
