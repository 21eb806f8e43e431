"""Bulk embedding into Parquet parts: stopped and gone on, shared among machines."""

import csv
import hashlib
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import keras_xreid as xr
from keras_xreid import files
from keras_xreid.app.index import check_finite, noting
from keras_xreid.data.manifest import file_sha256
from keras_xreid.gallery import about_model
from keras_xreid.gallery.parquet import PLAN, arrow, part_of
from keras_xreid.progress import Progress

PART = 4096  # images a file
AT_A_TIME = 256  # images a call of the network; the next ones are decoded meanwhile
REJECTED = "rejected.csv"


def embed_in_parts(records, times, out, model, rate, shard=(0, 1), part=PART):
    """Embeds images into Parquet files, each of which appears only when it is whole.

    A part that is there is not made again. An image that cannot be read is a row of rejected.csv.

    Args:
        records: list of `Record`.
        times: dict from a path to seconds.
        out: folder; of an earlier run of the same images and model it is gone on with.
        model: the model.
        rate: down-sampling rate of the images.
        shard: (i, n): this process makes the parts i, i + n, i + 2 n, ...
        part: images a file.

    Returns:
        (images embedded now, images rejected in all parts that are there).

    Raises:
        InputError: the folder holds other parts, or pyarrow is missing.
    """
    pa, out = arrow(), Path(out)
    about = about_model(model)
    listed = [(r.path, str(r.person), str(r.camera), times.get(r.path)) for r in records]
    digest = hashlib.sha256(json.dumps(listed).encode())
    plan = {"images": len(records), "list": digest.hexdigest(), "part": part, "rate": rate,
            "model": about}  # fmt: skip
    _begin(out, plan)
    starts = list(range(0, len(records), part))
    mine = [number for number in range(len(starts)) if number % shard[1] == shard[0]]
    todo = [number for number in mine if not part_of(out, number).exists()]
    count = sum(len(records[starts[n] : starts[n] + part]) for n in todo)
    print(f"{len(records):,} images in {len(starts):,} parts, {len(mine):,} of them here, "
          f"{count:,} images to embed")  # fmt: skip
    progress, began = Progress(f"Embedding {count:,} images", count, show=bool(todo)), time.time()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for number in todo:
            chosen = records[starts[number] : starts[number] + part]
            table = _part(pa, chosen, times, model, rate, about, pool, progress)
            content = io.BytesIO()
            pa.parquet.write_table(table, content, compression="zstd")
            files.write_bytes_atomic(part_of(out, number), content.getbuffer(), sync=True)
    rejected = _collect(pa, out)
    if count:
        seconds = time.time() - began
        print(f"{count / seconds:.1f} images/s")
    return count, rejected


def _begin(out, plan):
    if out.exists() and not out.is_dir():
        raise xr.InputError(f"{out} is a file: give a folder, or a name ending in .npz")
    # Other shards may begin at the same time: files with a dot are theirs, not yet whole.
    full = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if not (out / PLAN).is_file():
        if full:
            raise xr.InputError(f"{out} holds other files: give another --out")
        files.write_json_atomic(out / PLAN, plan)
    begun = files.read_json(out / PLAN)
    other = [name for name in plan if begun.get(name) != plan[name]]
    if other:
        raise xr.InputError(f"{out} was begun with another {other[0]}: give another --out")


def _read(records, size, rejected):
    """Decodes images, and hashes their files."""
    found = []
    for record in records:
        with noting(rejected, record.path):
            if not _is_text(record.path):
                raise xr.InputError(f"{record.path}: the name is not UTF-8, rename the file")
            pixels = xr.prepare_images([record], size)[0]
            found.append((record, pixels, file_sha256(record.path)))
    return found


def _is_text(path):
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _part(pa, records, times, model, rate, about, pool, progress):
    rejected, rows, features = {}, [], []
    slices = [records[i : i + AT_A_TIME] for i in range(0, len(records), AT_A_TIME)]
    waiting = [pool.submit(_read, one, model.image_size, rejected) for one in slices[:2]]
    for number, one in enumerate(slices):
        read = waiting.pop(0).result()
        if number + 2 < len(slices):  # decoded while the network runs
            waiting.append(pool.submit(_read, slices[number + 2], model.image_size, rejected))
        if read:
            found = np.asarray(model.embed(np.stack([pixels for _, pixels, _ in read]), rate))
            check_finite(found, [record.path for record, _, _ in read])
            features.append(found)
            rows += [(record, sha256) for record, _, sha256 in read]
        progress.add(len(one))
    width = about["dimension"]
    flat = np.concatenate([*features, np.zeros((0, width), "float32")]).ravel()
    text, number = pa.string(), pa.float64()
    columns = {
        "path": pa.array([record.path for record, _ in rows], text),
        "sha256": pa.array([sha256 for _, sha256 in rows], text),
        "person": pa.array([None if r.person is None else str(r.person) for r, _ in rows], text),
        "camera": pa.array([str(record.camera or "") for record, _ in rows], text),
        "time": pa.array([times.get(record.path) for record, _ in rows], number),
        "rate": pa.array([float(rate)] * len(rows), pa.float32()),
        "model": pa.array([about["weights_sha256"]] * len(rows), text).dictionary_encode(),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), width),
    }
    told = {"model": json.dumps(about), "rejected": json.dumps(rejected)}
    return pa.table(columns, metadata=told)


def _collect(pa, out):
    """Writes rejected.csv of all parts that are there."""
    rejected = {}
    for path in sorted(out.glob("part-*.parquet")):
        try:
            told = pa.parquet.read_schema(path).metadata
            rejected |= json.loads(told[b"rejected"])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise xr.InputError(
                f"{path} is damaged ({error}): remove it, and embed again"
            ) from error
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "reason"])
    table.writerows(rejected.items())
    files.write_text_atomic(out / REJECTED, text.getvalue())
    return len(rejected)
