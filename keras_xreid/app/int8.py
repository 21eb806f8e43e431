"""A graph of `xreid export` in 8 bits: calibrated, compared with the one in float32, and scored."""

import tempfile
from pathlib import Path

import numpy as np

import keras_xreid as xr
from keras_xreid.app import provenance
from keras_xreid.gallery.metric import unit
from keras_xreid.report.tables import text_table

RATES = (1, 2, 3, 4, 8)  # that queries are looked for at
COMPARED = 256  # images whose embeddings are compared
AT_A_TIME = 32  # images that are calibrated on; the last ones may be fewer


def load_data(options, image_size):
    """The images that --data names: some to calibrate on, and others to compare and score by.

    Args:
        options: of `xreid export`.
        image_size: (height, width).

    Returns:
        A `DataSet`.
    """
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, image_size=image_size
    )
    told = provenance.trained_on(options.weights)
    if told.get("dataset") not in (None, options.data):
        print(
            f"Note: {options.weights} was trained on {told['dataset']}, and is calibrated on "
            f"{options.data}; better give --data {told['dataset']}"
        )
    elif told and options.split == "dev" and told.get("split") != "dev":
        print(
            f"Note: {options.weights} was trained on the people of --split dev too: their rank-1 "
            "is higher than that of strangers (--split test)"
        )
    return data


def some(records, most, image_size, seed):
    """Some images, drawn by a seed, at the rates in turn.

    Args:
        records: list of `Record`.
        most: int, how many at most.
        image_size: (height, width).
        seed: 0 or more.

    Returns:
        (n, height, width, 3) uint8 array, and (n,) rates.
    """
    drawn = np.random.default_rng(seed).permutation(len(records))[:most]
    rates = np.resize(RATES, len(drawn))
    return xr.prepare_images([records[i] for i in drawn], image_size, rates), rates


def quantise(path, inputs, about):
    """Puts a graph in 8 bits in the place of one in float32: onnxruntime's static quantisation.

    Activations are uint8 and weights int8, symmetric, with a scale for each channel: what
    onnxruntime is quick with on x86. Weights use 7 of their 8 bits: a processor without VNNI adds
    two products in 16 bits, where those of 8 bits overflow. Inputs and outputs stay as they are.

    Args:
        path: of the graph.
        inputs: dict of arrays by the names of the graph's inputs: what it is calibrated on.
        about: dictionary of texts, to be added to the metadata.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        start = 0

        def get_next(self):
            rows = slice(self.start, self.start + AT_A_TIME)
            self.start += AT_A_TIME
            part = {name: values[rows] for name, values in inputs.items()}
            return part if len(part["image"]) else None

    kept = {value.key: value.value for value in onnx.load(path).metadata_props}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Sizes are known but for the number of images. Symbolic ones would need SymPy.
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        quantization.quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept_in_float(graph),
        )
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {**kept, **about})
    onnx.save(proto, path)


def kept_in_float(graph):
    """Names of the nodes that 8 bits would not speed up: scales and offsets of pixels, features."""
    constants = {value.name for value in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in ("Add", "Sub", "Mul", "Div") and constants & set(node.input)
    ]


def cosines(before, after):
    """The cosine between embeddings of the same images.

    Args:
        before: (n, d) array.
        after: (n, d) array.

    Returns:
        (n,) array.
    """
    return np.einsum("nd,nd->n", unit(before), unit(after))


def compare(before, after, data, seed):
    """What 8 bits change: embeddings of images not calibrated on, and rank-1 at each rate.

    Args:
        before: the graph in float32, which embeds as a model does.
        after: the one in 8 bits.
        data: a `DataSet`.
        seed: draws the images.

    Returns:
        Text of several lines.
    """
    images, rates = some(data.query, COMPARED, before.image_size, seed)
    found = cosines(before.embed(images, rates), after.embed(images, rates))
    scores = [
        xr.evaluate(graph, data, RATES, verbose=False).scores["per_rate"]
        for graph in (before, after)
    ]
    rows = [[rate, *(f"{score[rate]['rank1']:.1f}" for score in scores)] for rate in scores[0]]
    return (
        f"Cosine to the embeddings in float32, {len(images)} queries: smallest "
        f"{found.min():.4f}, mean {found.mean():.4f}\n"
        f"Rank-1 of {len(data.query)} queries, {data.name}, split {data.split}:\n"
        + text_table(["rate", "float32", "int8"], rows)
    )
