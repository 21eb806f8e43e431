"""A system as one graph, from stored pixels to what a search needs: for runtimes without Keras."""

import keras
from keras import layers, ops

from keras_xreid.errors import InputError
from keras_xreid.models.adaptive import Adaptive
from keras_xreid.models.baseline import Baseline
from keras_xreid.models.cadnet import CADNet
from keras_xreid.models.intact import INTACT
from keras_xreid.models.rain import RAIN


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
        level = ops.clip(inputs[1], 1, len(model.rates))  # of another, all would be 0
    image = ops.cast(inputs[0], "float32") / 255.0
    found = _found(model, image, level)
    if model.flip:
        mirrored = _found(model, ops.flip(image, axis=2), level)
        for name in ("embedding", "embedding_high"):
            if found[name] is not None:
                found[name] = (found[name] + mirrored[name]) / 2.0
    outputs = [layers.Identity(name=k)(x) for k, x in found.items() if x is not None]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name="graph")


def _found(model, image, level):
    """What a system makes of images, without their mirror images."""
    recovered = high = None
    if isinstance(model, Adaptive):
        embedding = model.call(image, level, training=False)
    elif isinstance(model, Baseline):
        embedding = model.network(image, training=False)[0]
    elif isinstance(model, CADNet):
        u, recovered = model._joint_and_recovered(image, training=False)
        embedding = u if model.neck is None else model.neck(u, training=False)
        if model.residual and recovered is not None:
            recovered = ops.clip(recovered, 0.0, 1.0)
    elif isinstance(model, INTACT):
        recovered = ops.clip(model.generator(image, training=False), 0.0, 1.0)
        embedding = model.reid(recovered, training=False)[0]
        high = model.reid(image, training=False)[0]
    elif isinstance(model, RAIN):
        *maps, v = model.extractor(image, training=False)
        embedding = v if model.neck is None else model.neck(v, training=False)
        if model.decoder is not None:
            recovered = model.decoder(maps, training=False)
    else:
        raise InputError(
            f"{type(model).__name__} is not one network from an image to an embedding: "
            "it cannot be exported as one graph"
        )
    return {"embedding": embedding, "recovered": recovered, "embedding_high": high}


def takes_level(model):
    """Whether embeddings depend on a level: of `Adaptive` with masks or a varying length.

    Args:
        model: a system of this library.

    Returns:
        bool.
    """
    return isinstance(model, Adaptive) and (bool(model.masks) or model.varying_length)
