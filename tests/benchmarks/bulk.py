"""Bulk embedding: `xreid embed` into Parquet parts, beside a bare loop around `embed`.

    python tests/benchmarks/bulk.py --data-dir DIR
    python tests/benchmarks/bulk.py --data-dir DIR --images 5000 --rounds 1

DIR is Market-1501's folder. 2,000 of its images are drawn, and cropped, flipped and stored anew as
JPEG until there are enough. They lie in a temporary folder. The network has random weights.

The bare loop reads 256 images, prepares and embeds them, and keeps the embeddings. It writes
nothing. Both are processes of their own; the CPU time of one that embeds 256 images is subtracted.
At last the smaller set is embedded once more and killed twice on the way.
"""

import dataclasses
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

PART, FEW = 4096, 256
LOOP = """
import sys
import numpy as np
import keras_xreid as xr
from keras_xreid.app.index import own_images
records, model = own_images(sys.argv[1]), xr.load(sys.argv[2])
found = []
for start in range(0, len(records), 256):
    images = xr.prepare_images(records[start : start + 256], model.image_size)
    found.append(model.embed(images, 1))
print(len(np.concatenate(found)))
"""


@dataclasses.dataclass
class Options:
    data_dir: str
    """Folder of Market-1501."""
    images: tuple[int, ...] = (20_000, 100_000)
    """Images to embed; speed is compared, and processes are killed, at the first number."""
    rounds: int = 3
    """Times that command and loop embed the first number, in turn."""
    backbone: str = "osnet_x0_25"
    """Network, at 128x64."""
    folder: str | None = None
    """Where images and parts lie; a temporary folder if not given."""
    seed: int = 0
    """Of crops and weights."""


def draw(records, folder, first, last, seed):
    """Writes crops of images, each a file of its own."""
    for i in range(first, last):
        rng, image = np.random.default_rng([seed, i]), records[i % len(records)].read()
        top, left = rng.integers(0, 9, 2)
        height, width = np.array(image.shape[:2]) - rng.integers(0, 9, 2)
        image = image[top:height, left:width]
        image = image[:, :: rng.choice([-1, 1])]
        place = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image)).save(place, quality=int(rng.integers(80, 96)))


def ran(command):
    """Runs a command to its end: CPU seconds, peak memory in MB, and what it printed."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        peak = 0
        while (done := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            # Not ru_maxrss: that begins with what this process held when it started the other.
            peak = max(peak, peak_of(process.pid))
            time.sleep(0.2)
        _, status, usage = done
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(text)
    return usage.ru_utime + usage.ru_stime, peak, text


def peak_of(pid):
    """What a process held at most so far, in MB; 0 where it is not known."""
    status = Path(f"/proc/{pid}/status").read_text()
    return max(
        [int(line.split()[1]) / 1024 for line in status.splitlines() if "VmHWM" in line] + [0]
    )


def verb(images, out, weights):
    command = [sys.executable, "-m", "keras_xreid", "embed", "--images", str(images)]
    return [*command, "--out", str(out), "--weights", str(weights)]


def killed(command, out, parts):
    """Runs a command, and kills it when so many parts are there and the next is begun."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(out.glob("part-*.parquet"))) < parts:
        if process.poll() is not None:
            raise SystemExit("it ended before it was killed: give more --images")
        time.sleep(0.1)
    time.sleep(1)
    process.kill()
    process.wait()
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in out.glob("part-*.parquet")}  # fmt: skip


def embedded(out):
    """The paths and embeddings of all parts."""
    from keras_xreid.gallery.parquet import read_parts

    found = list(read_parts(out))
    paths = [path for columns, _, _ in found for path in columns["path"]]
    return paths, np.concatenate([part for _, part, _ in found])


def main(options):
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(options, Path(folder))


def measure(o, folder):
    import keras

    import keras_xreid as xr

    records = xr.datasets.load("market1501", o.data_dir, need=("train",)).train
    rng = np.random.default_rng(o.seed)
    records = [records[i] for i in sorted(rng.permutation(len(records))[:2000])]
    keras.utils.set_random_seed(o.seed)
    weights = folder / "drawn.weights.h5"
    xr.save(xr.Baseline(10, backbone=o.backbone, image_size=(128, 64)), weights)
    print(f"{o.backbone} at 128x64, seed {o.seed}, {keras.backend.backend()}, "
          f"threads {os.environ.get('OMP_NUM_THREADS', 'all')}")  # fmt: skip

    draw(records, folder / "few", 0, FEW, o.seed)
    draw(records, folder / "images", 0, o.images[0], o.seed)

    def command(name, images, out):
        if name == "loop":
            return [sys.executable, "-c", LOOP, str(images), str(weights)]
        return verb(images, folder / out, weights)

    print("| | images | images a CPU second | peak memory, MB |\n| --- | --- | --- | --- |")

    starts = {}  # CPU seconds of a process that embeds few images

    def timed(name, images, count, out):
        """Images a CPU second, without start and end; and peak memory."""
        if name not in starts:
            starts[name] = ran(command(name, folder / "few", "parts-of-few"))[0]
        seconds, memory, _ = ran(command(name, images, out))
        speed = (count - FEW) / (seconds - starts[name])
        shown = "bare loop" if name == "loop" else "`xreid embed`"
        print(f"| {shown} | {count:,} | {speed:.1f} | {memory:.0f} |", flush=True)
        return speed

    ratios = []
    for turn in range(o.rounds):
        speeds = {
            name: timed(name, folder / "images", o.images[0], f"parts-{turn}")
            for name in ("loop", "embed")
        }
        ratios.append(speeds["embed"] / speeds["loop"])
    print(f"`xreid embed`: {statistics.median(ratios):.3f} of the bare loop's speed "
          f"({min(ratios):.3f} to {max(ratios):.3f})", flush=True)  # fmt: skip

    out, again = folder / "killed", verb(folder / "images", folder / "killed", weights)
    first = killed(again, out, 1)
    second = killed(again, out, len(first) + 1)
    said = ran(again)[2]
    last = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in out.glob("part-*.parquet")}  # fmt: skip
    assert first.items() <= second.items() <= last.items(), "a part was made twice"
    left = int(re.search(r"([\d,]+) images to embed", said)[1].replace(",", ""))
    assert left == o.images[0] - PART * len(second)
    (paths, features), (whole, straight) = embedded(out), embedded(folder / "parts-0")
    assert paths == whole and len(set(paths)) == len(paths) == o.images[0]
    print(f"Killed with {len(first)} and with {len(second)} parts of {len(last)}: no part was made "
          f"twice, {left:,} images were left. Embeddings of the run that was not killed: "
          f"{'equal' if np.array_equal(features, straight) else 'not equal'}")  # fmt: skip

    for before, count in zip(o.images, o.images[1:], strict=False):
        draw(records, folder / "images", before, count, o.seed)
        timed("embed", folder / "images", count, f"parts-of-{count}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
