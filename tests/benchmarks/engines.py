"""Bulk embedding by several workers: `xreid embed`, our workers of Ray, Ray Data, and Daft.

    pip install ray daft
    python tests/benchmarks/engines.py --data-dir DIR

DIR is Market-1501's folder. The images are drawn as in `bulk.py`, the network has random weights.
Each contender is a process of its own, and so are its workers. Each writes Parquet files with the
paths, embeddings and SHA-256 of all images. Images a second are wall time, from a process's first
line to its end, less that of a run on 256 images. Peak memory is of the process and all below it.
"""

import dataclasses
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tyro
from bulk import FEW, draw

WORKER = """
import hashlib, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import numpy as np
import keras_xreid as xr
IMAGES, WEIGHTS, OUT, WORKERS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
PATHS = sorted(str(path) for path in Path(IMAGES).rglob("*.jpg"))

def embedded(model, paths):
    records = [xr.Record(path, None, 0) for path in paths]
    features = model.embed(xr.prepare_images(records, model.image_size), 1)
    return features, [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
"""
RAY_DATA = (
    WORKER
    + """
import ray
class Embed:
    def __init__(self):
        self.model = xr.load(WEIGHTS)
    def __call__(self, batch):
        batch["embedding"], batch["sha256"] = embedded(self.model, list(batch["path"]))
        return batch
ray.init(log_to_driver=False, logging_level="error")
ray.data.DataContext.get_current().enable_progress_bars = False
rows = ray.data.from_items([{"path": path} for path in PATHS], override_num_blocks=2 * WORKERS)
rows = rows.map_batches(Embed, batch_size=256, compute=ray.data.ActorPoolStrategy(size=WORKERS))
rows.write_parquet(OUT)
"""
)
DAFT = (
    WORKER
    + """
import daft
@daft.cls(max_concurrency=WORKERS, use_process=WORKERS > 1)
class Embed:
    def __init__(self):
        self.model = xr.load(WEIGHTS)
    @daft.method.batch(batch_size=256, return_dtype=daft.DataType.struct({
        "embedding": daft.DataType.list(daft.DataType.float32()),
        "sha256": daft.DataType.string()}))
    def run(self, path):
        features, hashes = embedded(self.model, path.to_pylist())
        return [dict(embedding=e, sha256=s) for e, s in zip(features.tolist(), hashes)]
rows = daft.from_pydict({"path": PATHS}).into_partitions(2 * WORKERS)
rows.select(daft.col("path"), Embed().run(daft.col("path")).alias("found")).write_parquet(OUT)
"""
)


@dataclasses.dataclass
class Options:
    data_dir: str
    """Folder of Market-1501."""
    images: int = 20_000
    """Images to embed."""
    workers: int = 2
    """Worker processes of each engine."""
    rounds: int = 1
    """Times that each contender embeds them, in turn."""
    contenders: tuple[str, ...] = ("alone", "ray", "ray-data", "daft")
    """Who is measured."""
    backbone: str = "osnet_x0_25"
    """Network, at 128x64."""
    seed: int = 0
    """Of crops and weights."""


def below(pid):
    """Proportional memory in MB of a process and all below it."""
    total, children = 0.0, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    todo = [pid]
    while todo:
        one = todo.pop()
        todo += children.get(one, [])
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def ran(command):
    """Runs a command to its end: wall seconds, and peak memory in MB."""
    with tempfile.TemporaryFile("w+") as said:
        began, most = time.time(), 0.0
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        done = threading.Event()
        threading.Thread(target=lambda: (process.wait(), done.set()), daemon=True).start()
        while not done.wait(1):
            most = max(most, below(process.pid))
        seconds = time.time() - began
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(text)
    return seconds, most


def command(name, images, out, weights, workers):
    scripts = {"ray-data": RAY_DATA, "daft": DAFT}
    if name in scripts:
        return [sys.executable, "-c", scripts[name], *map(str, (images, weights, out, workers))]
    words = [sys.executable, "-m", "keras_xreid", "embed", "--images", images, "--out", out]
    words += ["--weights", weights]
    if name == "ray":
        words += ["--engine", "ray", "--workers", workers]
    return list(map(str, words))


def main(o):
    import keras
    import pyarrow.parquet as pq

    import keras_xreid as xr

    records = xr.datasets.load("market1501", o.data_dir, need=("train",)).train
    rng = np.random.default_rng(o.seed)
    records = [records[i] for i in sorted(rng.permutation(len(records))[:2000])]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        keras.utils.set_random_seed(o.seed)
        weights = folder / "drawn.weights.h5"
        xr.save(xr.Baseline(10, backbone=o.backbone, image_size=(128, 64)), weights)
        draw(records, folder / "few", 0, FEW, o.seed)
        draw(records, folder / "images", 0, o.images, o.seed)
        print(f"{o.images:,} images, {o.backbone} at 128x64, {o.workers} workers, seed {o.seed}, "
              f"{keras.backend.backend()}\n\n"
              "| | images/s | seconds of start and end | peak memory, MB |\n"
              "| --- | --- | --- | --- |", flush=True)  # fmt: skip
        first, starts = None, {}
        for turn in range(o.rounds):
            for name in o.contenders:
                if name not in starts:
                    few = folder / f"few-{name}"
                    starts[name] = ran(command(name, folder / "few", few, weights, o.workers))[0]
                out = folder / f"{name}-{turn}"
                seconds, memory = ran(command(name, folder / "images", out, weights, o.workers))
                speed = (o.images - FEW) / (seconds - starts[name])
                print(f"| {name} | {speed:.0f} | {starts[name]:.1f} | {memory:.0f} |", flush=True)
                tables = [pq.read_table(path, columns=["path"]) for path in out.rglob("*.parquet")]
                found = sorted(path for table in tables for path in table["path"].to_pylist())
                first = found if first is None else first
                assert len(found) == o.images and found == first, f"{name} lost images"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
