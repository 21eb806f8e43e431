"""Turns images into feature vectors, one row an image: one NumPy file, or Parquet parts.

    xreid embed --images FOLDER --out features.npz
    xreid embed --weights NAME --images people.csv --rates 4 --out features.npz
    xreid embed --images FOLDER --out PARTS [--shard 0/4] [--engine ray --workers 4]

The file holds `features` (n, d) float32, `paths`, `rates` where they are known, `people` where a
folder for each person or the CSV names them, and `model`, the network with the hash of its weights.
`numpy.load("features.npz")["features"]` reads it.

A folder takes any number of images, as Parquet parts of 4,096 (path, sha256, bytes, modified,
person, camera, time, rate, box, model, embedding). A part appears when it is whole. The same
command goes on where it was stopped, and makes parts of changed images anew. `--shard 0/4` to `3/4`
share the parts among four processes or machines. `--engine ray --workers 4` has Ray share them, on
this machine or on the cluster of RAY_ADDRESS. Images that cannot be read are listed in
rejected.csv.

Of a sequence in MOT's format (gt/gt.txt, and img1/000001.jpg or one video) people are cut out of
their boxes, into Parquet parts. The camera is the folder's name.
"""

import dataclasses
import functools
import io
import json
import re
from pathlib import Path
from typing import Literal

import numpy as np

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app import bulk, on_ray
from keras_xreid.app.export import weights_sha256
from keras_xreid.app.gallery import times_of
from keras_xreid.app.index import (
    AT_A_TIME,
    cache_folder,
    cameras_of,
    check_finite,
    embed_by_camera,
    embed_once,
    noting,
    own_images,
)
from keras_xreid.app.settings import changed
from keras_xreid.data.readers.mot import boxes_of
from keras_xreid.data.resolution import check_rates
from keras_xreid.errors import check_number
from keras_xreid.gallery import about_model
from keras_xreid.progress import Progress

# Endings that no folder has; of these .npz is written.
FILES = (".npz", ".npy", ".csv", ".txt", ".json", ".parquet", ".h5", ".pkl", ".mat", ".pt")


@dataclasses.dataclass
class Options:
    images: str
    """Folder of images, folder with a folder for each person, or a CSV with a column path; for
    Parquet parts also a sequence in MOT's format."""
    out: str
    """The .npz file to write, or the folder of Parquet parts."""
    weights: str | None = None
    """Published name, .weights.h5 file or run folder; the best published weights if not given."""
    rates: float | None = 1.0
    """Down-sampling rate of the images; 1 for a gallery of high resolution."""
    shrink: bool = False
    """Shrink each image by --rates first: LR embeddings for `xreid pan`. They are not kept."""
    adapted: str | None = None
    """Statistics of your cameras, a file of `xreid adapt`. Cameras are told by the CSV, by names
    such as 0001_c3.jpg, or by folders."""
    camera: str | None = None
    """With --adapted: the camera of all images, whatever names and folders say."""
    shard: str = "0/1"
    """i/n, of a folder: make every n-th part, beginning with the i-th (from 0)."""
    engine: Literal["ray"] | None = None
    """Of a folder: have the parts made by workers of Ray, rather than here."""
    workers: int = 2
    """With --engine: how many workers make parts at a time."""
    cache: str = "~/.cache/keras_xreid"
    """Folder that keeps the embeddings of a .npz file; it may be deleted at any time."""
    overwrite: bool = False
    """Replace the .npz file, if it is there."""


def main(options):
    out = Path(options.out)
    if options.rates is not None:
        check_rates([options.rates])
    if options.camera and not options.adapted:
        raise xr.InputError("--camera is of no use without --adapted: leave it out")
    if out.is_dir() or out.suffix.lower() not in FILES:  # "runs/v1.2" is a folder
        in_parts(options, out)
        return
    if out.suffix != ".npz":
        raise xr.InputError(f"cannot write {out}: give a file ending in .npz, or a folder")
    if options.shard != "0/1":
        raise xr.InputError("--shard shares Parquet parts: give a folder as --out")
    if options.engine or changed(options, "workers"):
        raise xr.InputError("--engine and --workers make Parquet parts: give a folder as --out")
    if boxes_of(options.images):
        raise xr.InputError(f"{options.images} is a sequence with boxes: give a folder as --out")
    if options.shrink and options.adapted:
        raise xr.InputError("--shrink and --adapted exclude each other: give one")
    if options.shrink and changed(options, "cache"):
        raise xr.InputError("embeddings of --shrink are not kept: leave out --cache")
    if out.exists() and not options.overwrite:
        raise xr.InputError(f"{out} is there already: give another name, or --overwrite")
    records, times, told = own_images(options.images), times_of(options.images), {}
    model = xr.load(options.weights)
    sha256 = weights_sha256(options.weights)
    if options.shrink:
        records, features = shrunk_features(model, records, options.rates)
    elif options.adapted:
        adapted = xr.CameraStatistics.load(options.adapted)
        cameras = cameras_of(records, options.camera, options.images)
        records, told["sha256"], features, _ = embed_by_camera(
            model, records, cameras, adapted, options.cache, sha256, options.rates
        )
        told["adapted"] = json.dumps(adapted.about())
    else:
        folder = cache_folder(options.cache, sha256, model, options.rates)
        records, told["sha256"], features, _ = embed_once(model, records, folder, options.rates)
    content = io.BytesIO()
    people = np.array([record.person or "" for record in records])
    paths = np.array([record.path for record in records])
    told["cameras"] = np.array([str(record.camera or "") for record in records])
    told["times"] = np.array([times.get(record.path, np.nan) for record in records])
    if options.rates is not None:
        told["rates"] = np.full(len(paths), options.rates, "float32")
    if not getattr(model, "gallery_at_query_rate", False):  # those are of no gallery
        told["model"] = json.dumps(about_model(model))
    np.savez(content, features=features, paths=paths, people=people, **told)
    files.write_bytes_atomic(out, content.getvalue())
    print(f"{len(paths)} images, {features.shape[1]} numbers each: {out}")


def in_parts(options, out):
    """Embeds into a folder of Parquet parts."""
    found = re.fullmatch(r"(\d+)/(\d+)", options.shard)
    shard = tuple(map(int, found.groups())) if found else (0, 0)
    if not shard[0] < shard[1]:
        raise xr.InputError(f"--shard is {options.shard}: give i/n with i from 0 to n - 1, as 0/4")
    if options.shrink or options.rates is None:
        raise xr.InputError("a folder takes images as they are: give --rates, and no --shrink")
    if options.adapted:
        raise xr.InputError(
            "parts hold no statistics of cameras: give --adapted with a .npz file, or to "
            "xreid gallery add"
        )
    if options.overwrite:
        raise xr.InputError(
            "--overwrite replaces a .npz file: without it a folder is gone on with, and parts of "
            "changed images are made anew; to begin again, remove the folder or give another --out"
        )
    if changed(options, "workers") and not options.engine:
        raise xr.InputError("--workers is of use with --engine only: add --engine ray")
    if changed(options, "cache"):
        raise xr.InputError("parts are kept in their folder alone: leave out --cache")
    if boxes_of(options.images):
        source = bulk.Boxes(options.images)
    else:
        source = bulk.Images(own_images(options.images), times_of(options.images))
    engine = None
    if options.engine:
        check_number("--workers", options.workers)
        on_ray.imported()
        engine = functools.partial(on_ray.made, weights=options.weights, workers=options.workers)
    model = xr.load(options.weights)
    count, rejected = bulk.embed_in_parts(source, out, model, options.rates, shard, engine=engine)
    print(f"{count:,} images done, {rejected:,} rejected (rejected.csv): {out}")


def shrunk_features(model, records, rate):
    """Embeddings of images that are shrunk by a rate and upscaled, and whose they are."""
    if rate is None:
        raise xr.InputError("--shrink needs --rates")
    progress = Progress(f"Embedding {len(records):,} images at rate {rate:g}", len(records))
    kept, parts, unreadable = [], [], {}
    for start in range(0, len(records), AT_A_TIME):
        some, images = records[start : start + AT_A_TIME], []
        for record in some:
            with noting(unreadable, record.path):
                images.append(record.read())
                kept.append(record)
        if images:
            shrunk = xr.prepare_images(images, model.image_size, rate)
            parts.append(np.asarray(model.embed(shrunk, rate)))
            check_finite(parts[-1], [record.path for record in kept[-len(images) :]])
        progress.add(len(some))
    for reason in unreadable.values():
        print(f"Left out: {files.harmless(reason, name=True)}")
    if not kept:
        raise xr.InputError("no image can be read")
    return kept, np.concatenate(parts)


def cli():
    app.command(main, Options, __doc__)
