"""A system as one graph, from stored pixels to what a search needs: for runtimes without Keras."""


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
    return model.search_graph()


def takes_level(model):
    """Whether embeddings depend on a level of resolution.

    Args:
        model: a system of this library.

    Returns:
        bool.
    """
    return model.query_levels > 0
