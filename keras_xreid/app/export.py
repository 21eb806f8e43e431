"""Exports a system to ONNX: one graph from uint8 images to embeddings and recovered images.

    xreid export runs/intact-synthetic intact.onnx

It takes about half a minute, on the backend torch or tensorflow, and needs
pip install -e ".[onnx]". The graph scales and normalises the images itself. Its metadata say
what it takes and gives, how to resize, by which distance to rank, and which weights it holds, with
their licence. The file gets its name when onnxruntime has computed the same from it as Keras on 64
drawn images, to 1e-4 (of the largest value, where that is above 1).

Use it, without Keras:

    session = onnxruntime.InferenceSession("intact.onnx")
    session.get_modelmeta().custom_metadata_map  # read "image" and "resize" first
    image = PIL.ImageOps.exif_transpose(PIL.Image.open("person.jpg")).convert("RGB")
    image = image.resize((64, 128), PIL.Image.Resampling.BILINEAR)  # width, height
    (features,) = session.run(["embedding"], {"image": numpy.asarray(image)[None]})

INTACT embeds a gallery without recovery: ask for "embedding_high" there. onnxruntime leaves out
what is not asked for with RunOptions().only_execute_path_to_fetches = True.

With --int8 the graph computes in 8 bits, for speed on processors. It is calibrated on training
images of --data, at rates 1, 2, 3, 4 and 8 in turn; give the data set that the weights were trained
on. The command prints how close embeddings are to those in float32, and rank-1 of both:

    xreid export baseline_hrlr_tiny_synthetic small.onnx --int8 --split test
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid import app, hub
from keras_xreid.app import int8, later
from keras_xreid.app.settings import NAMES, changed
from keras_xreid.data.synthetic.people import draw_person
from keras_xreid.errors import check_number

keras, fast_torch = later("keras"), later("keras_xreid.training.fast_torch")
graphs, masks = later("keras_xreid.export"), later("keras_xreid.layers.mask")

IMAGES, LARGEST_DIFFERENCE = 64, 1e-4
INT8_ONLY = ("data", "data_dir", "split", "calibrate", "seed")
NEEDED = {"torch": ("onnx", "onnxruntime"), "tensorflow": ("onnx", "tf2onnx", "onnxruntime")}
OUTPUTS = {
    "embedding": "(n, d) float32",
    "recovered": "(n, height, width, 3) float32 in [0, 1]",
    "embedding_high": "(n, d) float32, of the image without recovery: for a gallery, and for "
    "queries known to be of high resolution; embedding is of the recovered image",
}


@dataclasses.dataclass
class Options:
    weights: tyro.conf.Positional[str]
    """The name of published weights, a .weights.h5 file, or the folder of a finished run."""
    out: tyro.conf.Positional[str]
    """The .onnx file to write."""
    licence: str | None = None
    """Licence of the weights, for the metadata; that of published weights is known."""
    adapted: str | None = None
    """Statistics of your cameras, a file of `xreid adapt`: a graph for one --camera and --rate."""
    camera: str | None = None
    """With --adapted: the camera."""
    rate: float = 1.0
    """With --adapted: the down-sampling rate of its images; 1 for a gallery."""
    int8: bool = False
    """Write the graph in 8 bits."""
    data: Literal[NAMES] = "synthetic"
    """With --int8: data set to calibrate on, and to score by."""
    data_dir: str | None = None
    """With --int8: folder of the data set; synthetic needs none."""
    split: Literal["test", "dev"] = "dev"
    """With --int8: whom to score by. dev: 50 of the training people, who are not calibrated on."""
    calibrate: int = 256
    """With --int8: how many training images to calibrate on."""
    seed: int = 0
    """With --int8: draws these images."""
    benchmark: bool = False
    """Measure the images a second of onnxruntime beside Keras on this backend."""
    overwrite: bool = False
    """Replace the file, if it is there."""


def main(options):
    out = Path(options.out)
    check(out, options.overwrite)
    check_number("--calibrate", options.calibrate)
    check_number("--seed", options.seed, 0)
    useless = changed(options, *INT8_ONLY)
    if useless and not options.int8:
        raise xr.InputError(
            f"{', '.join(useless)}: of use with --int8 only; add it, or leave them out"
        )
    if options.int8 and options.adapted:
        raise xr.InputError(
            "--int8 and --adapted exclude each other: a graph for one camera is not scored by "
            "those of a data set"
        )
    model = xr.load(options.weights, precision="float32")
    if (options.adapted is None) != (options.camera is None):
        raise xr.InputError("--adapted and --camera go together: give both, or neither")
    if options.rate != 1 and not options.adapted:
        raise xr.InputError("--rate is of use with --adapted only: leave it out")
    applied, about = contextlib.nullcontext(), {}
    if options.adapted:
        adapted = xr.CameraStatistics.load(options.adapted)
        applied = adapted.applied(model, options.camera, options.rate)
        about = {
            "camera": options.camera, "camera_rate": f"{options.rate:g}",
            "camera_statistics_sha256": adapted.hash_of(options.camera),
        }  # fmt: skip
    with applied:
        write_checked(model, out, options, about)


def write_checked(model, out, options, about):
    """Writes the graph under its name when it computes what the model does."""
    graph = graphs.build_graph(model)
    data = int8.load_data(options, model.image_size) if options.int8 else None
    about = {**describe(model, options.weights, options.licence), **about}
    images, rates = drawn_images(model.image_size)
    unfinished = out.with_name(f".{out.stem}.{os.getpid()}.onnx")
    try:
        write_onnx(graph, unfinished, about)
        session = open_onnx(unfinished)
        found = differences(model, session, images, rates)
        told = ", ".join(
            f"{k} {apart:.1e} (of values up to {to:.3g})" for k, (apart, to) in found.items()
        )
        print(
            f"Largest difference from Keras on {keras.backend.backend()}, {len(images)} images: "
            + told
        )
        # Not a number is too much, too. Larger numbers are rounded to fewer decimal places.
        if not all(apart <= LARGEST_DIFFERENCE * max(1, to) for apart, to in found.values()):
            raise xr.InputError(
                f"onnxruntime and Keras differ by more than {LARGEST_DIFFERENCE:g}: {told}; "
                f"{out} is not written"
            )
        sessions = {"onnxruntime": session}
        if options.int8:
            quick = in_int8(model, session, unfinished, data, options, about)
            sessions = {"onnxruntime int8": quick, "onnxruntime float32": session}
        os.replace(unfinished, out)
    except OSError as error:
        raise xr.InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, with these metadata:")
    for name, value in about.items():
        print(f"  {name}: {value}")
    if options.benchmark:
        print(benchmark(model, sessions, images, rates))


def in_int8(model, session, path, data, options, about):
    """Puts a graph in 8 bits in the place of the one in float32, and prints what that changes.

    Args:
        model: the model.
        session: of the graph in float32.
        path: its file, which is replaced.
        data: a `DataSet`.
        options: of the command.
        about: dictionary of texts, the metadata; one is added.

    Returns:
        The session of the graph in 8 bits.
    """
    images, rates = int8.some(data.train, options.calibrate, model.image_size, options.seed)
    about["precision"] = (
        f"int8, calibrated on {len(images)} training images of {data.name}, seed {options.seed}"
    )
    before = path.stat().st_size
    print(f"Calibrating on {len(images)} images of {data.name}")
    int8.quantise(path, inputs(model, images, rates), about)
    quick = open_onnx(path)
    print(f"{before / 1e6:.1f} MB in float32, {path.stat().st_size / 1e6:.1f} MB in int8")
    print(int8.compare(*(Graph(model, s) for s in (session, quick)), data, options.seed))
    return quick


def check(out, overwrite):
    """Refuses what can be refused before anything is computed."""
    backend = keras.backend.backend()
    if backend not in NEEDED:
        raise xr.InputError(
            f"no export from {backend}: set KERAS_BACKEND to {' or '.join(NEEDED)}, "
            "which read the same weights"
        )
    missing = [name for name in NEEDED[backend] if importlib.util.find_spec(name) is None]
    if missing:
        raise xr.InputError(
            f"export from {backend} needs {', '.join(missing)}, which is not installed: "
            'pip install -e ".[onnx]"'
        )
    if out.suffix != ".onnx" or not out.parent.is_dir() or out.is_dir():
        raise xr.InputError(
            f"cannot write {out}: give a file ending in .onnx, in an existing folder"
        )
    if out.exists() and not overwrite:
        raise xr.InputError(f"{out} is there already: give another name, or --overwrite")


def weights_sha256(weights):
    """SHA-256 of the file that `xr.load` finds for the same argument."""
    return hub.sha256_of(hub.find(weights))


def describe(model, weights, licence=None):
    """What one must know to use the graph, for its metadata.

    Args:
        model: the model.
        weights: what `xr.load` found it by.
        licence: of the weights; that of published weights is known.

    Returns:
        Dictionary of texts.
    """
    height, width = model.image_size
    name = type(model).__name__
    about = {
        "system": name,
        "backbone": str(model.backbone),
        "weights": Path(weights).name,
        "weights_sha256": weights_sha256(weights),
        "licence": licence or (hub.entry_of(weights) or {}).get("licence", "not stated"),
        "keras_xreid": xr.__version__,
        "image": "uint8, RGB, (n, height, width, 3); the graph scales and normalises, so do "
        "neither before",
        "image_size": json.dumps({"height": height, "width": width}),
        "resize": f"Pillow: image.resize(({width}, {height}), Resampling.BILINEAR) of the uint8 "
        "image as it is stored, small or large, without keeping its aspect ratio (bilinear, "
        "anti-aliased where it shrinks), upright: after ImageOps.exif_transpose(image)",
        "distance": model.metric,
    }
    if graphs.takes_level(model):
        about["level"] = (
            f"int32, (n,), 1 to {len(model.rates)} (another is taken as the nearest of these): of "
            "the nearest rate; of a gallery the highest"
        )
        about["rate_of_level"] = json.dumps(dict(enumerate(model.rates, start=1)))
        if getattr(model, "varying_length", False):
            kept = masks.kept_by_level(model.sizes).sum(1)
            about["distance"] += ", over the first dimensions that the query's level has: "
            about["distance"] += json.dumps(dict(enumerate(map(int, kept), start=1)))
    return about


def write_onnx(graph, path, about):
    """Writes a graph of `build_graph` as ONNX, with any number of images and with metadata.

    Args:
        graph: the functional model.
        path: the file.
        about: dictionary of texts, the metadata.
    """
    import onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with folded(graph), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        # Keras exports only what was called before.
        graph(keras.tree.map_structure(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), graph.input))
        graph.export(str(path), format="onnx", verbose=False)
    proto = onnx.load(path)
    inputs = list(zip(proto.graph.input, graph.inputs, strict=True))
    outputs = list(zip(proto.graph.output, graph.outputs, strict=True))
    names = {value.name: x.name for value, x in inputs}
    names |= {v.name: n for (v, _), n in zip(outputs, graph.output_names, strict=True)}
    for node in proto.graph.node:
        while node.input and not node.input[-1]:  # or onnxruntime would leave zeros around a map
            node.input.pop()  # to a pass of their own, before the convolution
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value, x in inputs + outputs:
        kind = value.type.tensor_type.elem_type
        shape = ["n", *x.shape[1:]]
        value.CopyFrom(onnx.helper.make_tensor_value_info(names[value.name], kind, shape))
    given = {name: OUTPUTS[name] for name in graph.output_names}
    onnx.helper.set_model_props(proto, {**about, "outputs": json.dumps(given)})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


@contextlib.contextmanager
def folded(graph):
    """Batch normalization as what it is in a search: x * scale + offset.

    onnxruntime makes that a part of the convolution before it, and OSNet 1.4 times as fast. The
    fast path on PyTorch is off meanwhile: the exporter does not know its kernels.
    """
    kind, values, fixed = keras.layers.BatchNormalization, keras.ops.convert_to_numpy, {}
    for layer in graph._flatten_layers():
        if isinstance(layer, kind) and layer.axis in (-1, layer.input_spec.ndim - 1):
            mean, variance = map(values, (layer.moving_mean, layer.moving_variance))
            scale = (values(layer.gamma) if layer.scale else 1) / np.sqrt(variance + layer.epsilon)
            offset = (values(layer.beta) if layer.center else 0) - mean * scale
            fixed[id(layer)] = scale, offset
    fast = fast_torch.enabled()
    fast_torch.disable()
    plain_call = kind.call

    def call(self, inputs, training=None, mask=None):
        if id(self) not in fixed:
            return plain_call(self, inputs, training=training, mask=mask)
        # Made here, a tensor is a constant of the graph also where it is traced.
        scale, offset = (keras.ops.convert_to_tensor(x, "float32") for x in fixed[id(self)])
        return inputs * scale + offset

    kind.call = call
    try:
        with known_sizes(), constant(graph):
            yield
    finally:
        kind.call = plain_call
        if fast:
            fast_torch.enable()


@contextlib.contextmanager
def known_sizes():
    """The zeros around a map as numbers, which PyTorch's exporter has the graph compute anew.

    onnxruntime makes them a part of the convolution.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    from keras_xreid.training.fast import of_backend

    nn = of_backend("nn")
    plain = nn._compute_padding_length
    nn._compute_padding_length = lambda size, *args, **kwargs: plain(int(size), *args, **kwargs)
    try:
        yield
    finally:
        nn._compute_padding_length = plain


@contextlib.contextmanager
def constant(graph):
    """Weights that need no gradient, on PyTorch.

    Keras tells its exporter of weights by their paths. Two encoders have the same ones, so that
    one encoder's are constants to it, and it takes none that needs a gradient.
    """
    weights = []
    if keras.backend.backend() == "torch":
        weights = [v.value for v in graph.trainable_variables if v.value.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def open_onnx(path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def inputs(model, images, rates):
    """What the graph is given for images of these rates: a dictionary by the inputs' names."""
    if graphs.takes_level(model):
        return {"image": images, "level": model.levels_of(rates)}
    return {"image": images}


def told_to(model, rates):
    """Rates by which `embed` computes what the graph does for images of these: its levels' own."""
    if graphs.takes_level(model):
        return np.take(model.rates, model.levels_of(rates) - 1)
    return None


def run_onnx(model, session, images, rates, names=None):
    """What the graph computes: a list of arrays, in the order of the names."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True  # and nothing for outputs not asked for
    return session.run(names, inputs(model, images, rates), options)


class Graph:
    """A graph in the place of its model, for `xr.evaluate`: it embeds as the model does.

    Args:
        model: the model that the graph was made of.
        session: of the graph.
    """

    def __init__(self, model, session):
        self.model, self.session = model, session
        self.image_size, self.distances = model.image_size, model.distances
        self.bypasses = "embedding_high" in [output.name for output in session.get_outputs()]

    def embed(self, images, rates=None, batch_size=64):
        """As `ReIDModel.embed`."""
        unknown = rates is None
        rates = np.broadcast_to(1 if unknown else rates, len(images))
        high = (rates == 1) & (self.bypasses and not unknown)
        found = [None] * len(images)
        for name, chosen in (("embedding", ~high), ("embedding_high", high)):
            rows = np.flatnonzero(chosen)
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                (values,) = run_onnx(self.model, self.session, images[part], rates[part], [name])
                for row, value in zip(part, values, strict=True):
                    found[row] = value
        return np.stack(found)


def drawn_images(image_size):
    """People drawn for the check, at rates 1 to 4: (64, height, width, 3) uint8, and the rates."""
    people = [np.asarray(draw_person(i + 1, i % 4 + 1, 0)) for i in range(IMAGES)]
    rates = np.array([1 + i // 4 % 4 for i in range(IMAGES)])
    return xr.prepare_images(people, image_size, rates), rates


def differences(model, session, images, rates):
    """The largest difference between onnxruntime and Keras, of each output, and the largest value.

    Args:
        model: the model; its public methods are what is compared with.
        session: of the graph.
        images: (n, height, width, 3) uint8, n of 3 or more: they are passed as batches of one, of
            two and of all others.
        rates: (n,) array.

    Returns:
        Dictionary from the output's name to two floats, both absolute.
    """
    names = [output.name for output in session.get_outputs()]
    parts = [
        run_onnx(model, session, images[part], rates[part], names)
        for part in (slice(0, 1), slice(1, 3), slice(3, None))
    ]
    told = told_to(model, rates)
    expected = {
        "embedding": lambda: model.embed(images, told),
        "recovered": lambda: model.recover(images),
        "embedding_high": lambda: model.embed(images, rates=1),
    }
    apart = {}
    for name, found in zip(names, zip(*parts, strict=True), strict=True):
        keras_found = expected[name]()
        apart[name] = (
            float(np.max(np.abs(np.concatenate(found) - keras_found))),
            float(np.max(np.abs(keras_found))),
        )
    return apart


def benchmark(model, sessions, images, rates, rounds=5):
    """Images a second of `embed` and of graphs' embeddings, in turn; medians of the rounds."""
    backend = keras.backend.backend()
    contenders = {
        name: functools.partial(run_onnx, model, session, images, rates, ["embedding"])
        for name, session in sessions.items()
    }
    contenders[f"Keras on {backend}"] = lambda: model.embed(images, told_to(model, rates))
    seconds = {name: [] for name in contenders}
    for name, embed in list(contenders.items()) * (rounds + 1):
        began = time.perf_counter()
        embed()
        seconds[name].append(time.perf_counter() - began)
    speeds = {name: len(images) / np.median(found[1:]) for name, found in seconds.items()}
    return "Images a second, batches of 64: " + ", ".join(
        f"{name} {speed:.0f}" for name, speed in speeds.items()
    )


def cli():
    # On the processor, which onnxruntime is compared with: a GPU may round to three digits.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    app.command(main, Options, __doc__)
