"""Searching a gallery: `xr.Gallery` beside NumPy's own product and FAISS's flat index.

    python tests/benchmarks/gallery.py --rows 1000000
    python tests/benchmarks/gallery.py --rows 1000000 --int8

Embeddings are random, of length 1. FAISS is left out where `faiss-cpu` is not installed. Rounds are
taken in turn, medians are printed, and the ratio is of a round's neighbours. The memory is that of
ours, before the others begin. With OMP_NUM_THREADS=1 times are CPU time, so that other jobs count
less.
"""

import dataclasses
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid.report.tables import text_table

AT_A_TIME = 50_000


@dataclasses.dataclass
class Options:
    rows: int = 1_000_000
    """Rows of the gallery."""
    dimension: int = 256
    """Numbers of an embedding."""
    k: int = 10
    """Rows to find."""
    rounds: int = 5
    """Times that each search is timed."""
    int8: bool = False
    """Search codes of 8 bits first."""
    folder: str | None = None
    """Where the gallery is written; a temporary folder if not given."""


def unit(rng, n, d):
    found = rng.normal(size=(n, d)).astype("float32")
    return found / np.linalg.norm(found, axis=1, keepdims=True)


ALONE = os.environ.get("OMP_NUM_THREADS") == "1"
clock = time.process_time if ALONE else time.perf_counter


def timed(function):
    began = clock()
    found = function()
    return clock() - began, found


def main(options):
    o = options
    with tempfile.TemporaryDirectory(dir=o.folder) as folder:
        measure(o, Path(folder) / "gallery")


def measure(o, path):
    about = {"system": "none", "weights_sha256": "0" * 64, "dimension": o.dimension,
             "flip": False, "kind": "cosine", "lengths": [o.dimension], "rates": []}  # fmt: skip
    rng, began, drawing = np.random.default_rng(0), clock(), 0.0
    with xr.Gallery.create(path, about, int8=o.int8) as gallery:
        for start in range(0, o.rows, AT_A_TIME):
            n = min(AT_A_TIME, o.rows - start)
            seconds, part = timed(lambda n=n: unit(rng, n, o.dimension))
            drawing += seconds
            rows = np.arange(start, start + n)
            gallery.add(part, [f"image-{row}" for row in rows], camera=rows % 100, time=rows)
    built = clock() - began - drawing
    gallery = xr.Gallery.open(path)
    queries = unit(np.random.default_rng(1), 64, o.dimension)
    before = peak()
    searches = {
        "one query": lambda: gallery.search(queries[:1], k=o.k),
        "64 queries": lambda: gallery.search(queries, k=o.k),
    }
    for share in (1, 10, 50, 90):
        cameras = list(range(share))
        for name, few in (("one query", queries[:1]), ("64 queries", queries)):
            searches[f"{name}, {share} % of the cameras"] = lambda few=few, cameras=cameras: (
                gallery.search(few, k=o.k, only_cameras=cameras)
            )
    found = {name: [] for name in searches}
    for _ in range(o.rounds + 1):
        for name, search in searches.items():
            found[name].append(timed(search)[0])
    medians = {name: statistics.median(times[1:]) for name, times in found.items()}
    most = peak()
    print(f"{o.rows:,} x {o.dimension}, built in {built:.1f} s ({o.rows / built:,.0f} rows/s), "
          f"{os.cpu_count()} processors, threads {os.environ.get('OMP_NUM_THREADS', 'all')}, "
          f"peak memory {most:.0f} MB ({most - before:.0f} MB more for searching)")  # fmt: skip
    rivals(o, gallery, queries, medians)
    rows = []
    for name, seconds in medians.items():
        base = medians["64 queries" if name.startswith("64") else "one query"]
        rows.append([name, f"{1000 * seconds:.1f}", f"{seconds / base:.2f}"])
    print(text_table(["search", "ms", "of the search without a filter"], rows))


def rivals(o, gallery, queries, medians):
    """NumPy's product alone, and FAISS, in turn with ours; of some cameras, too."""
    embeddings = np.array(gallery._maps["embeddings.f32"])
    try:
        import faiss
    except ImportError:
        faiss = None
    if faiss:
        if threads := os.environ.get("OMP_NUM_THREADS"):
            faiss.omp_set_num_threads(int(threads))
        index = faiss.IndexFlatIP(o.dimension)
        print(f"FAISS built in {timed(lambda: index.add(embeddings))[0]:.1f} s, in memory alone")
    for share in (100, 1, 10, 50):
        allowed = np.arange(o.rows) % 100 < share
        ours_options = {} if share == 100 else {"only_cameras": range(share)}
        if faiss:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            options = {} if share == 100 else {"params": faiss.SearchParameters(sel=selector)}
        for name, few in (("one query", queries[:1]), ("64 queries", queries)):

            def searched(few=few, options=ours_options):
                return gallery.search(few, k=o.k, **options)

            def product(few=few, allowed=allowed, share=share):
                return few @ (embeddings if share == 100 else embeddings[allowed]).T

            name += "" if share == 100 else f", {share} % of the cameras"
            times = {"ours": [], "product of NumPy alone": []}
            for _ in range(o.rounds + 1):
                seconds, found = timed(searched)
                times["ours"].append(seconds)
                times["product of NumPy alone"].append(timed(product)[0])
                if faiss:
                    seconds, (_, places) = timed(
                        lambda few=few, options=options: index.search(few, o.k, **options)
                    )
                    times.setdefault(f"FAISS {faiss.__version__} flat", []).append(seconds)
                    places = [[f"image-{p}" for p in row if p >= 0] for row in places]
                    assert o.int8 or found.keys == places
            ours = times.pop("ours")
            for other, theirs in times.items():
                medians[f"{name}, {other}"] = statistics.median(theirs[1:])
                ratios = [t / mine for mine, t in zip(ours[1:], theirs[1:], strict=True)]
                print(f"{name}: {statistics.median(ratios):.2f} of the speed of {other} "
                      f"({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


def peak():
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
