"""How long a query takes on this machine."""

import time

import numpy as np

from keras_xreid.data.resolution import prepare_images


def query_ms(model, result, repeats=5, seconds=1.0, adapted=None):
    """Measures the milliseconds of one query: embed it alone, compare it with the gallery, rank.

    The image is read and brought to the network's size before, and the gallery is embedded. One
    query goes before those that count, for it may compile.

    Args:
        model: the model that was scored.
        result: what `evaluate` returned; the first query and the gallery of its last trial count.
        repeats: how often it is measured at most.
        seconds: no further one is begun after so long.
        adapted: statistics of the query's camera, if it was scored with them.

    Returns:
        The median, in milliseconds.

    Example:

    >>> query_ms(model, evaluate(model, data))
    """
    trial = result.trials[-1]
    gallery = trial.gallery.get("flip", trial.gallery["plain"])
    told, compared_at = (
        rates[:1] if np.ndim(rates) else rates for rates in (trial.told_rates, trial.compared_at)
    )
    if np.ndim(told) and np.isnan(told[0]):  # nobody knows it
        told = None
    query = result.data.query[0]
    image = prepare_images([query], result.image_size, trial.shrinks, result.kernel)
    camera = {} if adapted is None else {"cameras": query.camera, "adapted": adapted}
    found, began = [], time.perf_counter()
    for _ in range(1 + repeats):
        start = time.perf_counter()
        features = model.embed(image, rates=told, batch_size=1, **camera)
        distances = model.distances(features, gallery, query_rates=compared_at)
        np.argsort(np.asarray(distances)[0])
        found.append(1000 * (time.perf_counter() - start))
        if len(found) > 1 and time.perf_counter() - began > seconds:
            break
    return float(np.median(found[1:]))
