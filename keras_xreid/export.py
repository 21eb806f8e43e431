"""A system as one graph, from stored pixels to what a search needs: for runtimes without Keras."""

import keras
from keras import layers, ops

from keras_xreid.errors import InputError
from keras_xreid.models.base import as_float


def build_graph(model):
    """Builds what a system computes in a search as one functional model.

    Images are uint8, and scaling and normalization are inside: whoever normalised them before has
    floats, which the graph does not take.

    Args:
        model: a system of this library that is one network, in float32.

    Returns:
        A functional `keras.Model` with a list of outputs, named by its `output_names`.

        Inputs: "image", (n, height, width, 3) uint8, RGB, at the model's size; where it
        `takes_level` also "level", (n,) int32, 1 (lowest resolution) to m, m for a gallery;
        another number is taken as the nearest of these.

        Outputs: "embedding", (n, d) float32. Of a system that recovers also "recovered",
        (n, height, width, 3) float32 in [0, 1]. Where images of high resolution bypass the
        recovery (`INTACT`) also "embedding_high", (n, d): of the image as it is, for a gallery.

        A model that averages an image and its mirror image has embeddings that are averages.

    Raises:
        InputError: a system of several networks, or one that does not compute in float32.

    Example:

    >>> graph = build_graph(xr.load("runs/intact-synthetic"))
    >>> dict(zip(graph.output_names, graph.predict(images), strict=True))["embedding"].shape
    """
    if model.compute_dtype != "float32":
        raise InputError(f"the model computes in {model.compute_dtype}: export takes float32")
    inputs = [keras.Input((*model.image_size, 3), dtype="uint8", name="image")]
    level = None
    if takes_level(model):
        inputs.append(keras.Input((), dtype="int32", name="level"))
        level = ops.clip(inputs[1], 1, model.query_levels)  # of another, all would be 0
    image = as_float(inputs[0])
    found = model.graph(image, level)
    if model.flip:
        mirrored = model.graph(ops.flip(image, axis=2), level)
        for name in ("embedding", "embedding_high"):
            if name in found:
                found[name] = (found[name] + mirrored[name]) / 2.0
    outputs = [layers.Identity(name=name)(x) for name, x in found.items()]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name="graph")


def takes_level(model):
    """Whether embeddings depend on a level of resolution.

    Args:
        model: a system of this library.

    Returns:
        bool.
    """
    return model.query_levels > 0
