"""Measures scoring and re-ranking, from made-up features at the sizes of real data sets.

    python tests/benchmarks/ranking.py
    python tests/benchmarks/ranking.py --cases market1501 matrix torchreid
    python tests/benchmarks/ranking.py --cases msmt17

Each case runs in a process of its own on one core (--threads). Seconds are those of one call, by
the clock and of the processor (the same on a machine that does nothing else), and the memory is
what the process needed at most beyond what it held before, features included in what it held.
Features are of people around a centre each, with as many images as the real set has on average;
they are random, so their scores say only that two cases rank the same. torchreid's mAP may differ
in the fifth digit: of float32 distances some are equal, and its sort takes those in any order.

Cases: `market1501`, from features (3,368 and 15,913 of 2,048 numbers) to CMC and mAP; `matrix`, the
same from a distance matrix that is there already; `torchreid`, torchreid's own Python function on
that matrix, where torchreid is installed (only the file of that function is loaded); `single-shot`,
exact, from features; `draws`, single-shot with 10 draws; `rerank`, k-reciprocal re-ranking of
Market-1501 and its scores; `msmt17`, from features (11,659 and 82,161 of 512 numbers).

About 3 minutes on one core, and 1 to 2 more for torchreid. Expect 3 to 5 s and 0.1 GB beside the
features for `market1501`, about a minute and 0.3 GB for `rerank`, and a minute for `msmt17`.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SIZES = {  # people, query images, gallery images, of which distractors, cameras, dimensions
    "market1501": (750, 3_368, 15_913, 2_798, 6, 2_048),
    "msmt17": (3_060, 11_659, 82_161, 0, 15, 512),
}
CASES = ("market1501", "matrix", "torchreid", "single-shot", "draws", "rerank", "msmt17")
NOISE = 1.7  # of a feature beside its person's centre: most first images are right, as in real sets


@dataclasses.dataclass
class Options:
    cases: tuple[str, ...] = CASES
    """market1501, matrix, torchreid, single-shot, draws, rerank, msmt17."""
    threads: int = 1
    """Cores that NumPy may use."""
    shrink: int = 1
    """Divide every number of images and people by this: a first look."""


def main(options):
    import keras_xreid as xr
    from keras_xreid.report.tables import markdown

    unknown = [case for case in options.cases if case not in CASES]
    if unknown or not options.cases:
        what = f"unknown case {unknown[0]!r}" if unknown else "no case was given"
        raise xr.InputError(f"{what}: known are {', '.join(CASES)}")
    if options.threads < 1 or options.shrink < 1:
        raise xr.InputError("--threads and --shrink are 1 or more")
    limits = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")
    threads = {f"{name}_NUM_THREADS": str(options.threads) for name in limits}
    rows = []
    for case in options.cases:
        if case == "torchreid" and torchreid_ranking() is None:
            print("torchreid is left out: it is not installed")
            continue
        print(f"{case} ...", flush=True)
        done = subprocess.run(
            [sys.executable, __file__, "--worker", json.dumps([case, options.shrink])],
            env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            raise xr.InputError(f"case {case} failed: see the lines above")
        found = json.loads(done.stdout.splitlines()[-1])
        memory = "not measured" if found["bytes"] is None else f"{found['bytes'] / 1e9:.2f}"
        scores = (f"{found['scores'][name]:.4f}" for name in ("rank1", "rank20", "mAP"))
        seconds = (f"{found[name]:.2f}" for name in ("seconds", "processor"))
        rows.append([case, *seconds, memory, *scores])
    header = ["case", "seconds", "processor's", "peak extra memory, GB", "rank-1", "rank-20", "mAP"]
    print(f"\n{options.threads} thread(s)\n\n" + markdown(header, rows))


# --- in a case's process -----------------------------------------------------------------------


def work(case, shrink):
    import numpy as np

    from keras_xreid.evaluation.distances import feature_distances
    from keras_xreid.evaluation.ranking import evaluate_ranking
    from keras_xreid.evaluation.reranking import rerank

    size = SIZES["msmt17" if case == "msmt17" else "market1501"]
    query, gallery, features = made_up(size, shrink)
    q, g = features[: len(query)], features[len(query) :]
    shots, draws = None, None
    if case in ("single-shot", "draws"):
        shots, draws = 1, 10 if case == "draws" else None
    matrix = feature_distances(q, g)[:] if case in ("matrix", "torchreid") else None

    before, began, processor = memory_now(), time.perf_counter(), time.process_time()
    if case == "torchreid":
        people, cameras = (
            [np.array([getattr(r, name) for r in records]) for records in (query, gallery)]
            for name in ("person", "camera")
        )
        cmc, precision = torchreid_ranking().evaluate_rank(
            matrix, *people, *cameras, max_rank=20, use_cython=False
        )
        scores = {"rank1": 100 * cmc[0], "rank20": 100 * cmc[19], "mAP": 100 * precision}
    else:
        if case == "rerank":
            distances = rerank(feature_distances(features, features), len(query))
        else:
            distances = matrix if matrix is not None else feature_distances(q, g)
        scores = evaluate_ranking(distances, query, gallery, shots, draws)
    seconds, peak = time.perf_counter() - began, memory_peak()
    processor = time.process_time() - processor
    extra = None if before is None or peak is None else peak - before
    scores = {name: float(value) for name, value in scores.items()}
    found = {"seconds": seconds, "processor": processor, "bytes": extra, "scores": scores}
    print(json.dumps(found))


def made_up(size, shrink):
    """Query and gallery records, and the features of both, one after the other."""
    import numpy as np

    from keras_xreid import Record

    people, queries, images, distractors, cameras, dimensions = size
    people, queries, images, distractors = (
        max(1, n // shrink) if n else 0 for n in (people, queries, images, distractors)
    )
    rng = np.random.default_rng(0)
    # Each query image is of another person and camera in turn, as in Market-1501.
    shown = np.concatenate(
        [
            np.arange(queries) % people + 1,
            rng.integers(1, people + 1, images - distractors),
            np.zeros(distractors, int),
        ]
    )
    seen = np.concatenate(
        [np.arange(queries) // people % cameras, rng.integers(0, cameras, images)]
    )
    records = [
        Record(f"{i}.jpg", int(p), int(c)) for i, (p, c) in enumerate(zip(shown, seen, strict=True))
    ]
    features = np.empty((len(records), dimensions), "float32")
    centres = rng.standard_normal((people, dimensions), "float32")
    for start in range(0, len(features), 1000):  # no second array of this size at any time
        part, of = features[start : start + 1000], shown[start : start + 1000]
        rng.standard_normal(dtype="float32", out=part)
        part *= NOISE * (dimensions / 100) ** 0.25
        part[of > 0] += centres[of[of > 0] - 1]
    return records[:queries], records[queries:], features


def torchreid_ranking():
    """The file of torchreid's ranking: the package needs what only its training uses."""
    found = importlib.util.find_spec("torchreid")
    folders = found.submodule_search_locations if found else []
    files = [file for folder in folders for file in Path(folder).rglob("metrics/rank.py")]
    if not files:
        return None
    spec = importlib.util.spec_from_file_location("torchreid_ranking", files[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def memory_now():
    """Bytes that this process holds; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def memory_peak():
    """Bytes that this process held at most."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*json.loads(sys.argv[2]))
    else:
        from keras_xreid import app

        app.command(main, Options, __doc__)
