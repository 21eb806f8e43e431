"""The manifest: every image that a number belongs to, by SHA-256, with its rate and kernel."""

import collections
import hashlib
import io
import json
import math
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from keras_xreid.data.resolution import MAX_RATE, rate_range
from keras_xreid.errors import InputError
from keras_xreid.files import write_bytes_atomic

ROLES = ("train", "query", "gallery")
MANIFEST = "manifest.jsonl"


def _is_inside(path):
    """Whether a manifest's path stays in its folder."""
    return isinstance(path, str) and not {"", "..", "/"} & {path, path[:1], *path.split("/")}


def _is_number(value, least, most):
    return type(value) in (int, float) and least <= value <= most


# What a row of a built set holds, and which values are right.
ROW = {
    "path": _is_inside,
    "role": lambda value: value in ROLES,
    "person": lambda value: value is None or type(value) in (int, str),
    "camera": lambda value: type(value) is int and abs(value) < 2**31,
    "rate": lambda value: value is None or _is_number(value, 1, MAX_RATE),
    "sha256": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value),
    "protocol": lambda value: isinstance(value, str),
    "split": lambda value: value in ("test", "dev"),
    "split_id": lambda value: type(value) is int and value >= 0,
    "seed": lambda value: type(value) is int and value >= 0,
}


def manifest_rows(
    data, rates, kernel="area", train_rates=(), gallery_rates=(1,), train_kernel="area",
    strength=0.0, train_strength=0.0,
):  # fmt: skip
    """Lists every image that a run uses, and how: the answer to "which images, which split?".

    Training images are listed once, with `train_rates`: those of a run's --train-rates, whatever
    its system draws of them (a baseline trained on high resolution draws none); queries once for
    each rate scored; gallery images at rate 1, as a rule. `sha256` is that of the image file as it
    is stored: with rate and kernel it fixes the low-resolution image.

    A protocol that fixes the rates itself (every one but `each-rate`) has rows of its own, see
    `protocol_rows`: they do not depend on `rates` and `gallery_rates`, and
    are the same for a set built on disk and for one made on the fly.

    Args:
        data: a `DataSet`; paths are written relative to its `root`.
        rates: rates scored.
        kernel: how images are shrunk, see `degrade`.
        train_rates: rates listed with the training images; or a range, "1..4".
        gallery_rates: rates of the gallery.
        train_kernel: how training images are shrunk.
        strength: how much a camera adds to queries, see `degrade`.
        train_strength: how much it adds to training images.

    Returns:
        List of dicts with split, role, path, person, camera, rate, kernel, sha256 (and the key of
        an image inside a container, the fold of "dev" but for fold 0, and the strength of a
        camera's degradation but for 0).
    """
    if data.protocol != "each-rate":
        rows = protocol_rows(data, train_kernel, train_rates)
        return [_degraded(row, "train", train_strength) for row in rows]
    used = {
        "train": [_listed(train_rates)] if data.train else [],
        "query": [plain_number(rate) for rate in sorted(rates)],
        "gallery": [plain_number(rate) for rate in sorted(gallery_rates)],
    }
    rows, hashes = [], {}
    for role, role_rates in used.items():
        for record in getattr(data, role):
            if record.path not in hashes:  # a container holds many images
                hashes[record.path] = file_sha256(record.path)
            row = {
                "split": data.split,
                "role": role,
                "path": relative(record, data),
                "person": record.person,
                "camera": record.camera,
                "kernel": train_kernel if role == "train" else kernel,
                "sha256": hashes[record.path],
            }
            if record.key is not None:
                row["key"] = record.key
            row.update(_fold_of(data))
            row = _degraded(_degraded(row, "train", train_strength), "query", strength)
            rows += [{**row, "rate": rate} for rate in role_rates]
    return rows


def _degraded(row, role, strength):
    """A row that says what a camera added to its image, and which draws its kernel too."""
    if not strength or row["role"] != role:
        return row
    return {**row, "kernel": "drawn", "degradation": "camera", "strength": strength}


def protocol_rows(data, kernel="area", train_rates=()):
    """Lists the images of a data set whose protocol fixes the rates: its manifest.

    `path` is where `build` puts the image, `source` where it comes from, and `sha256` that of the
    file that is built: the original file's where the image is not shrunk, else that of the shrunk
    image as BMP.

    Args:
        data: a `DataSet` of a protocol other than "each-rate".
        kernel: how training images are shrunk while training.
        train_rates: rates listed with the training images, a run's --train-rates; none: they are
            listed as they are stored.

    Returns:
        List of dicts with dataset, protocol, split, split_id, seed, role, path, source, person,
        camera, rate, kernel, sha256, and fold as in `manifest_rows`.
    """
    if _is_built(data):
        rows = _rows_of_built(data, read_rows(Path(data.root) / MANIFEST))
    else:
        rows = []
        for row, record in planned_rows(data):
            rows.append({**row, "sha256": hashlib.sha256(content_of(record)).hexdigest()})
    if train_rates:
        shrunk = {"rate": _listed(train_rates), "kernel": kernel}
        rows = [{**row, **shrunk} if row["role"] == "train" else row for row in rows]
    return rows


def _fold_of(data):
    """Not of fold 0, which had no number at first: hashes of what was run stay as they are."""
    return {"fold": data.fold} if data.fold else {}


def _is_built(data):
    return data.name == "mlr" and (Path(data.root) / MANIFEST).is_file()


def _rows_of_built(data, rows):
    """The rows of a built folder's own manifest; `Record.read` compares images with them."""
    by_path = {row["path"]: row for row in rows}
    return [by_path[relative(record, data)] for role in ROLES for record in getattr(data, role)]


def planned_rows(data):
    """Yields (row without hash, record) of every image."""
    taken = collections.Counter()
    for role in ROLES:
        for record in getattr(data, role):
            source = relative(record, data)
            low = role == "query" or (record.rate or 1) > 1
            stem = Path(record.key or record.path).stem
            start = f"{record.person}_c{record.camera}"
            if isinstance(record.person, int):
                start = f"{record.person:04d}_c{record.camera}"
            name = stem if stem.startswith(start) else f"{start}_{stem}"
            if record.kernel is not None:
                name += f"_{plain_number(record.rate)}x"
            name = re.sub(r"[^\w.-]", "-", name)
            path = f"{role}/{'lr' if low else 'hr'}/{name}"
            # A list of one's own may name two images alike, or nearly so for some file systems.
            first, taken_by = path, path.lower()
            while path.lower() in taken:
                taken[taken_by] += 1
                path = f"{first}-{taken[taken_by]}"
            taken[path.lower()] += 1
            stored = record.kernel is None and record.key is None
            row = {
                "dataset": data.name,
                "protocol": data.protocol,
                "split": data.split,
                "split_id": data.split_id,
                "seed": data.seed,
                "role": role,
                "path": path + (Path(record.path).suffix if stored else ".bmp"),
                "source": source if record.key is None else f"{source}/{record.key}",
                "person": record.person,
                "camera": record.camera,
                "rate": None if record.rate is None else plain_number(record.rate),
                "kernel": record.kernel,
                **_fold_of(data),
            }
            yield row, record


def query_names(data):
    """Names the queries as the manifest does: by its `path`, and the key inside a container.

    Args:
        data: a `DataSet`.

    Returns:
        List of str, one for each query; equal for a set built on disk and one made on the fly.
    """
    if data.protocol != "each-rate" and not _is_built(data):
        return [row["path"] for row, _ in planned_rows(data) if row["role"] == "query"]
    return ["/".join(filter(None, [relative(r, data), r.key])) for r in data.query]


def relative(record, data):
    """The path of an image as manifests write it."""
    return Path(os.path.relpath(record.path, data.root or None)).as_posix()


def content_of(record):
    """The bytes of the file to build, after a look that they are an image."""
    pixels = record.read()
    if record.kernel is None and record.key is None:
        return Path(record.path).read_bytes()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def write_manifest(path, rows):
    """Writes a manifest as JSON lines; equal rows give equal bytes on every machine and backend.

    Args:
        path: the file, written whole or not at all.
        rows: list of dicts, see `manifest_rows`; their order does not matter.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Example:

    >>> sha256 = write_manifest("manifest.jsonl", manifest_rows(data, rates=(1, 2, 3, 4, 8)))
    """
    content = manifest_content(rows)
    write_bytes_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def manifest_content(rows):
    """The bytes that `write_manifest` writes."""
    lines = sorted(
        json.dumps(row, sort_keys=True, ensure_ascii=False, default=plain) for row in rows
    )
    # Of a name that is not UTF-8 the odd bytes become "\\udc..", which JSON reads as the same name.
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def read_rows(path):
    """Reads a built folder's manifest.

    Args:
        path: the `manifest.jsonl`.

    Returns:
        List of dicts, one for each image.

    Raises:
        InputError: no such file, or a line that is no row of a built set; the line is named.
    """
    try:
        lines = Path(path).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(
            f"cannot read {path} ({reason}): give a folder that `xreid build DATA DIR OUT` wrote"
        ) from error
    if not lines[-1]:  # the end of the last line; other ends of lines may be in a name
        lines.pop()
    rows, listed = [], set()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            wrong = next((name for name, right in ROW.items() if not right(row[name])), None)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number} lists no image of a built set: build the set again"
            ) from error
        if wrong is None and row["path"] in listed:
            wrong = "path"  # a second time
        if wrong:
            raise InputError(
                f"{path}, line {number}: {wrong} is {str(row[wrong])[:80]!r}, which is not as a "
                "set is built: build it again"
            )
        listed.add(row["path"])
        rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty: build the set again")
    return rows


def _listed(rates):
    """Rates as the manifest writes them: a sorted list, or the text of a range."""
    bounds = rate_range(rates) if len(rates) else None
    return f"{bounds[0]:g}..{bounds[1]:g}" if bounds else [plain_number(r) for r in sorted(rates)]


def plain_number(rate):
    """2, 2.0 and NumPy's 2 are written alike."""
    return int(rate) if int(rate) == rate else float(rate)


def plain(value):
    """Turns a number of any type into Python's own, as JSON and CSV need it.

    Args:
        value: text; or a number, of NumPy or as a tensor of any backend, say.

    Returns:
        str, int, or float where it is no whole number.

    Raises:
        TypeError: it is neither, or more than one number.
        ValueError: it is not finite.

    Example:

    >>> plain(np.int64(3)), plain(np.float32(0.5)), plain(np.str_("anna"))
    (3, 0.5, 'anna')
    """
    if np.ndim(value):
        raise TypeError(f"{type(value).__name__} of shape {np.shape(value)} is no number")
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number")
    return int(value) if number.is_integer() else number


def file_sha256(path):
    try:
        with open(path, "rb") as file:  # which may be larger than the memory
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror}") from error
