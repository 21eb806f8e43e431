"""What an image costs by each way to embed it: a price list of published weights.

    OMP_NUM_THREADS=1 python tests/benchmarks/prices.py
    OMP_NUM_THREADS=1 python tests/benchmarks/prices.py --weights intact_tiny_synthetic

The ways: `embed` of the model as it is loaded, of the copy that `for_inference` makes, of the model
in bfloat16, and onnxruntime on its graph in float32 and in 8 bits (calibrated on drawn images: for
speed alone). They take turns on the same 64 drawn images. Mirror images are averaged where the
weights do so. Printed are medians of the rounds, in brackets the smallest and largest ratio to
`embed` within a round. The largest difference of an embedding from `embed`'s stands below.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

PUBLISHED = tuple(
    f"{name}_strong_market1501_501"
    for name in ("baseline_hrlr", "distilled", "rain", "cadnet", "intact", "adaptive")
)


@dataclasses.dataclass
class Options:
    weights: tuple[str, ...] = PUBLISHED
    """Names of published weights, or folders of finished runs."""
    rounds: int = 7
    """How often each way is timed, after warming up."""


def ways(weights, folder):
    """The ways to embed 64 images: a dictionary of functions without arguments."""
    import keras_xreid as xr
    from keras_xreid.app import export, int8
    from keras_xreid.export import build_graph

    model = xr.load(weights, precision="float32")
    images, rates = export.drawn_images(model.image_size)
    told = export.told_to(model, rates)
    copy, half = model.for_inference(), xr.load(weights, precision="mixed_bfloat16")
    found = {
        "embed": lambda: model.embed(images, told),
        "for_inference": lambda: copy.embed(images, told),
        "bfloat16": lambda: half.embed(images, told),
    }
    sessions = {}
    for name in ("onnxruntime", "onnxruntime int8"):
        path = folder / f"{name}.onnx"
        export.write_onnx(build_graph(model), path, {})
        if name.endswith("int8"):
            int8.quantise(path, export.inputs(model, images, rates), {})
        sessions[name] = opened(path)
        found[name] = lambda name=name: export.run_onnx(
            model, sessions[name], images, rates, ["embedding"]
        )[0]
    return found, len(images)


def opened(path):
    """A session of onnxruntime with as many threads as the others have."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def measure(weights, rounds):
    """Seconds of each way in each round, the images, and the largest difference from `embed`."""
    with tempfile.TemporaryDirectory() as folder:
        embeds, count = ways(weights, Path(folder))
        first = {name: np.asarray(embed(), "float32") for name, embed in embeds.items()}
        seconds = {name: [] for name in embeds}
        for number in range(rounds):
            names = list(embeds)
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:  # nobody is always the first
                began = time.perf_counter()
                embeds[name]()
                seconds[name].append(time.perf_counter() - began)
    apart = {name: np.abs(value - first["embed"]).max() for name, value in first.items()}
    return seconds, count, apart, np.abs(first["embed"]).max()


def main(options):
    from keras_xreid.app.machine import machine
    from keras_xreid.report.tables import markdown

    rows, notes = [], []
    for weights in options.weights:
        seconds, count, apart, largest = measure(weights, options.rounds)
        plain = seconds["embed"]
        row = [weights]
        for name, taken in seconds.items():
            ratios = [a / b for a, b in zip(plain, taken, strict=True)]
            cell = f"{count / statistics.median(taken):.0f}"
            if name != "embed":
                middle = statistics.median(ratios)
                cell += f" ({middle:.2f}; {min(ratios):.2f} to {max(ratios):.2f})"
            row.append(cell)
        rows.append(row)
        told = ", ".join(f"{name} {value:.1e}" for name, value in apart.items() if name != "embed")
        notes.append(f"{weights}: values up to {largest:.2f}; apart by {told}")
        print(f"{weights} is measured", flush=True)
    print("\n" + markdown(["images a second", *seconds], rows) + "\n")
    print("\n".join(notes))
    print(f"{machine()['cpu']}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    main(tyro.cli(Options, description=__doc__))
