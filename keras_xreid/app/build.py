"""Builds a data set of multiple low resolution (MLR) by a protocol, with a manifest; checks one.

    xreid build market1501 DIR mlr-market1501 --protocol paper --split-id 0 --seed 0
    xreid build --verify mlr-market1501
    xreid build mot MOT17-04 far-and-near --gap 50

The first command takes about a minute for Market-1501 (32,000 images) and prints the SHA-256 of
the manifest, which lists every image: quote it beside every score. The second names each image
that is missing, differs or was added. The protocols:

    paper                    one camera LR at a drawn rate, one HR gallery image a person
    paper-camera-per-person  the same with an LR camera drawn for each person
    paper-all-queries        every test image LR at a drawn rate (resolution-adaptive paper)
    rain-code                every test image max-pooled by 2, 3 and 4 (RAIN's authors)
    multi-shot               as paper, against all HR images by the other cameras
    multi-shot-camera-3      the same with camera 3 LR (MDIFF's code)

The third cuts people out of a sequence with boxes (MOT's gt.txt beside img1/ or a video): far
images are searched for among near ones. `--data csv --data-dir far-and-near` reads them.

The same images come without building, from keras_xreid.datasets.load(..., protocol="paper").
"""

import collections
import contextlib
import dataclasses
from pathlib import Path

import tyro

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.app import folder as folders
from keras_xreid.app.settings import changed
from keras_xreid.data.datasets import DRAWN
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.protocols import MANIFEST, build, find_protocol, verify


@dataclasses.dataclass
class Options:
    data: tyro.conf.Positional[str | None] = None
    """Data set: market1501, dukemtmc, cuhk03, viper, caviar, csv; or synthetic or
    synthetic-b, without DIR."""
    data_dir: tyro.conf.Positional[str | None] = None
    """Folder of the data set."""
    out: tyro.conf.Positional[str | None] = None
    """New folder to write."""
    protocol: str = "paper"
    """Which images are shrunk and searched for, see above."""
    split: str = "test"
    """test, or dev: 50 of the training people held out, for every choice of settings."""
    fold: int = 0
    """Which people dev holds out: 0, 1 or 2."""
    split_id: int = 0
    """Which of the data set's splits; each also redraws cameras and rates."""
    seed: int = 0
    """Redraws cameras and rates."""
    rates: tuple[int, ...] = (2, 3, 4)
    """Rates to draw from."""
    kernel: str | None = None
    """area, bilinear, bicubic, lanczos or max-pool; the protocol's if not given."""
    boxes: str | None = None
    """Images of CUHK03: detected, labeled or both; the protocol's if not given."""
    gap: int = 50
    """mot: frames between a query and the gallery images of its person."""
    near: int = 128
    """mot: least height in pixels of a gallery image."""
    far: int = 64
    """mot: largest height in pixels of a query."""
    crops: int = 5
    """mot: images of a person at most, far and near."""
    verify: bool = False
    """Compare a built folder, given alone, with its manifest."""


OF_MOT = ("gap", "near", "far", "crops")
NOT_OF_MOT = ("protocol", "split", "fold", "split_id", "seed", "rates", "kernel", "boxes")


def main(options):
    o = options
    given = [value for value in (o.data, o.data_dir, o.out) if value is not None]
    mot = o.data == "mot" and not o.verify
    useless = changed(o, *(NOT_OF_MOT if mot else OF_MOT), *(NOT_OF_MOT if o.verify else ()))
    if o.verify:
        if len(given) != 1 or useless:
            raise xr.InputError("--verify takes the folder that was built, and nothing else")
        check(Path(given[0]))
        return
    data_dir = o.data_dir
    if o.data in DRAWN and len(given) == 2:
        data_dir = None
    elif len(given) != 3:
        raise xr.InputError(
            "give the data set's name, its folder and a new folder, or --verify and a built folder"
        )
    if useless:
        others = "other data sets" if mot else "mot"
        raise xr.InputError(f"leave out {' and '.join(useless)}: of use with {others} only")
    if mot:
        cut(o)
        return
    data = xr.datasets.load(
        o.data, data_dir, split=o.split, protocol=o.protocol, split_id=o.split_id, seed=o.seed,
        rates=o.rates, kernel=o.kernel, boxes=o.boxes, fold=o.fold,
    )  # fmt: skip
    # Beside the folder, which gets its name when it is whole; what a killed one left goes.
    out = Path(given[-1]).absolute()
    beside = out.with_name(f".{out.name}-unfinished")
    try:
        with folders.locked(beside):
            sha256 = build(data, out, meanwhile=beside / "images")
    finally:
        with contextlib.suppress(OSError):
            beside.rmdir()
    about = data.about or find_protocol(o.protocol).summary
    print(f"{o.protocol}: {about}; split {o.split_id}, seed {o.seed}")
    for role in ("train", "query", "gallery"):
        records = getattr(data, role)
        counts = sorted(collections.Counter(r.rate for r in records if r.rate).items())
        rates = ", ".join(f"{count:,} at rate {rate}" for rate, count in counts)
        print(
            f"{role}: {len(records):,} images of {len({r.person for r in records}):,} people by "
            f"{len({r.camera for r in records})} cameras" + (f" ({rates})" if rates else "")
        )
    print(f"{Path(given[-1]) / MANIFEST}, SHA-256 {sha256}")


def cut(o):
    """Cuts people out of a sequence."""
    table = xr.datasets.cut_people(o.data_dir, o.out, o.gap, o.near, o.far, o.crops)
    data = xr.datasets.load("csv", table, need=("query", "gallery"))
    rates = sorted(collections.Counter(record.rate for record in data.query).items())
    told = ", ".join(f"{count:,} at rate {rate}" for rate, count in rates)
    far, near = (len({record.person for record in part}) for part in (data.query, data.gallery))
    print(
        f"{len(data.query):,} far images of {far:,} people ({told}), {len(data.gallery):,} near "
        f"images of {near:,}, by one camera over time, {o.gap} frames apart: {table}"
    )


def check(folder):
    """Names what differs from the manifest."""
    wrong = verify(folder)
    for path, what in wrong.items():
        print(f"{path}: {what}")
    if wrong:
        raise xr.InputError(
            f"{len(wrong):,} images of {folder} are not as {MANIFEST} lists them: build it again"
        )
    print(f"all images are as listed in {folder / MANIFEST}, SHA-256 "
          f"{file_sha256(folder / MANIFEST)}")  # fmt: skip


def cli():
    app.command(main, Options, __doc__)
