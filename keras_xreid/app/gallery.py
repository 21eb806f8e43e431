"""A gallery of your own images on disk: embedded once, searched often.

    xreid gallery add GALLERY IMAGES --weights NAME
    xreid search --gallery GALLERY query.jpg --rates 4
    xreid gallery remove GALLERY one.jpg two.jpg
    xreid gallery info GALLERY
    xreid gallery verify GALLERY
    xreid gallery compact GALLERY

IMAGES is a folder, a folder with a folder for each person, or a CSV with a column path and, if
known, camera and time (seconds). What was added is there, also if the command is stopped: the same
command goes on, and embeds what has changed. One process adds at a time, and any number search
meanwhile. What was removed, or has changed, gives its room back to `compact`.
"""

import contextlib
import csv
import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.app.bulk import sha256_of
from keras_xreid.app.index import AT_A_TIME, cameras_of, check_finite, noting, own_images
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.resolution import check_rates
from keras_xreid.files import harmless
from keras_xreid.gallery.store import HEADER
from keras_xreid.gallery.told import new_cameras
from keras_xreid.progress import Progress


@dataclasses.dataclass
class Options:
    what: tyro.conf.Positional[Literal["add", "remove", "info", "verify", "compact"]]
    """What to do."""
    gallery: tyro.conf.Positional[str]
    """Folder of the gallery."""
    images: tyro.conf.Positional[tuple[str, ...]] = ()
    """add: one folder or CSV of images; remove: the images to remove."""
    weights: str | None = None
    """add: published name, .weights.h5 file or run folder; the best published weights if not
    given. A gallery holds embeddings of one model."""
    rates: float = 1.0
    """add: down-sampling rate of the images; 1 is high resolution."""
    camera: str | None = None
    """add: the camera of all images, whatever a CSV says."""
    adapted: str | None = None
    """add: statistics of your cameras, a file of `xreid adapt`."""
    int8: bool = False
    """add, to a new gallery: search codes of 8 bits, a quarter of the bytes; nearly exact."""


def main(o):
    if o.what == "add" and len(o.images) != 1:
        raise xr.InputError("add takes one folder or CSV: xreid gallery add GALLERY IMAGES")
    if o.what == "remove" and not o.images:
        raise xr.InputError("remove takes images: xreid gallery remove GALLERY one.jpg two.jpg")
    if o.what in ("info", "verify", "compact") and o.images:
        raise xr.InputError(f"{o.what} takes a gallery alone")
    plain = Options(o.what, o.gallery)
    names = [f.name for f in dataclasses.fields(o) if f.name != "images"]
    useless = [name for name in names if getattr(o, name) != getattr(plain, name)]
    if useless and o.what != "add":
        raise xr.InputError(f"{o.what} takes no --{' and no --'.join(useless)}: add does")
    jobs = {"add": add, "remove": remove, "info": info, "verify": verify, "compact": compact}
    jobs[o.what](o)


def key_of(path):
    """What an image is called in a gallery: its path, from whatever folder it is asked for."""
    path = Path(path)
    return os.path.join(os.path.realpath(path.parent), path.name)


def called(path, there):
    """The key of an image in a gallery, whose rows are given.

    One made of parts has the paths as they were told there. Another folder may hold another image
    under the same relative path: it is the gallery's only if its content is.
    """
    key = key_of(path)
    if key in there or path not in there:
        return key
    same = os.path.isabs(path) or sha256_of(path) in (there[path][3], None)
    return path if same else key


def is_gallery(place):
    """Whether a gallery lies at a place."""
    return (Path(place) / HEADER).is_file()


def times_of(place):
    """Seconds of the images of a CSV that has a column `time`: {path: seconds}."""
    place, found = Path(place), {}
    if place.suffix.lower() != ".csv":
        return found
    with open(place, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            told = (row.get("time") or "").strip()
            if not told:
                continue
            try:
                seconds = float(told)
            except ValueError:
                seconds = math.nan
            if not math.isfinite(seconds):
                raise xr.InputError(f"{place}: time is {told!r}: give seconds, such as 12.5")
            found[str(place.parent / row["path"])] = seconds
    return found


def rows_of(gallery):
    """What stands beside each image of a gallery: {key: (camera, time, rate, sha256)}."""
    key, *others = gallery.columns().values()
    return dict(zip(key, zip(*others, strict=True), strict=True))


def add(o):
    """Embeds the images that are not there yet or have changed, and adds them part by part."""
    source = o.images[0]
    check_rates([o.rates])
    records, times = own_images(source), times_of(source)
    named = {}
    for record in records:
        other = named.setdefault(key_of(record.path), record.path)
        if other != record.path:
            raise xr.InputError(f"{source} lists {record.path}, which is {other}: keep one row")
    model = xr.load(o.weights)
    adapted = xr.CameraStatistics.load(o.adapted) if o.adapted else None
    if adapted:
        adapted.check(model)
        cameras = cameras_of(records, o.camera, source)
    else:
        cameras = [str(o.camera or record.camera or "") for record in records]
    camera_of = {record.path: camera for record, camera in zip(records, cameras, strict=True)}
    statistics = {camera: adapted.hash_of(camera) for camera in set(cameras)} if adapted else {}
    with open_or_create(o, model) as gallery:
        there, rejected, begun, again = rows_of(gallery), {}, len(gallery), 0
        key_by = {record.path: called(record.path, there) for record in records}

        def told(record):
            """Camera, time and rate of an image; those that it has where nothing new is told."""
            camera, time, *_ = there.get(key_by[record.path], ("", None))
            return (
                camera_of[record.path] or camera,
                times.get(record.path, time),
                float(np.float32(o.rates)),
            )

        def is_new(record):
            known = there.get(key_by[record.path])
            if known is None or known[:3] != told(record):
                return True
            return sha256_of(record.path) != known[3]

        # Statistics that have changed embed nothing anew, and are said before anything is done.
        new_cameras(gallery.about["cameras"], {told(record)[0] for record in records}, statistics)
        todo = [record for record in records if is_new(record)]
        print(f"{len(records):,} images, {len(todo):,} to embed")
        progress = Progress(f"Embedding {len(todo):,} images", len(todo), show=bool(todo))
        for start in range(0, len(todo), AT_A_TIME):
            part, pixels, hashes = [], [], []
            for record in todo[start : start + AT_A_TIME]:
                with noting(rejected, record.path):
                    sha256 = file_sha256(record.path)  # first: see `bulk`
                    pixels.append(xr.prepare_images([record], model.image_size)[0])
                    hashes.append(sha256)
                    part.append(record)
            if part:
                own = [camera_of[record.path] for record in part]
                options = {"cameras": own, "adapted": adapted} if adapted else {}
                features = np.asarray(model.embed(np.stack(pixels), o.rates, **options))
                check_finite(features, [record.path for record in part])
                keys, columns = [key_by[r.path] for r in part], zip(*map(told, part), strict=True)
                camera, time, rate = map(list, columns)
                # At once: stopped in between, it would forget what it knows of an image.
                gallery.add(features, keys, camera, time, rate, hashes, statistics, replace=True)
                again += sum(key in there for key in keys)
            progress.add(min(AT_A_TIME, len(todo) - start))
        for reason in rejected.values():
            print(f"Left out: {harmless(reason, name=True)}")
        if len(rejected) == len(records):
            raise xr.InputError(f"no image can be read, such as this one: {reason}")
        again = f", {again:,} embedded anew" if again else ""
        print(f"{len(gallery) - begun:,} images added{again}, {len(gallery):,} in {o.gallery}")


@contextlib.contextmanager
def open_or_create(o, model):
    """The gallery; a new one to which nothing is added is taken away again."""
    if is_gallery(o.gallery):
        with xr.Gallery.open(o.gallery, model, write=True) as gallery:
            if o.int8 and not gallery.about["int8"]:
                raise xr.InputError(
                    f"{o.gallery} is there already without codes: --int8 is for a new gallery"
                )
            yield gallery
        return
    with xr.Gallery.create(o.gallery, model, int8=o.int8) as gallery:
        try:
            yield gallery
        finally:
            gallery.refresh()
            if not len(gallery):
                shutil.rmtree(o.gallery, ignore_errors=True)


def remove(o):
    with xr.Gallery.open(o.gallery, write=True) as gallery:
        there = rows_of(gallery)
        count = gallery.remove([called(path, there) for path in o.images])
        print(f"{count:,} images removed, {len(gallery):,} in {o.gallery}")


def info(o):
    print(json.dumps(xr.Gallery.open(o.gallery).about, indent=1))


def verify(o):
    gallery = xr.Gallery.open(o.gallery)
    damaged = gallery.verify()
    for key in damaged:
        print(f"Damaged: {harmless(key, name=True)}")
    if damaged:
        raise xr.InputError(
            f"{len(damaged):,} of {len(gallery):,} images of {o.gallery} are damaged: leave them "
            "out with xreid gallery compact, and add them again"
        )
    print(f"{len(gallery):,} images, all as they were written")


def compact(o):
    def size():
        return sum(path.stat().st_size for path in Path(o.gallery).iterdir())

    with xr.Gallery.open(o.gallery, write=True) as gallery:
        before, images = size(), len(gallery)
        count = gallery.compact()
        damaged = images - len(gallery)
        if damaged:
            print(f"Left out: {damaged:,} damaged images, add them again")
        print(f"{count - damaged:,} removed images gave back {(before - size()) / 1e6:.1f} MB, "
              f"{len(gallery):,} in {o.gallery}")  # fmt: skip


def cli():
    app.command(main, Options, __doc__)
