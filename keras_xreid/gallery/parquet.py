"""Embeddings as `xreid embed` writes them: Parquet parts, or one .npz file."""

import json
from pathlib import Path

import numpy as np

from keras_xreid import files
from keras_xreid.errors import InputError, check_number

PLAN = "plan.json"
COLUMNS = ("path", "sha256", "person", "camera", "time", "rate")  # of an image


def arrow():
    """PyArrow, or one line."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError('Parquet needs pyarrow: pip install -e ".[parquet]"') from None
    return pyarrow


def part_of(out, number):
    """The file of a part."""
    return Path(out) / f"part-{number:06d}.parquet"


def read_parts(out):
    """Yields the parts of a folder, in order, as (columns, embeddings, about the model).

    A .npz file is one part; what it says of its model is None if it is an old one.

    Raises:
        InputError: a damaged part, or a missing one of those that were planned.
    """
    if Path(out).suffix == ".npz" and Path(out).is_file():
        yield _read_npz(out)
        return
    pa, out = arrow(), Path(out)
    if (out / PLAN).is_file():
        plan = files.read_json(out / PLAN)
        check_number(f"images in {out / PLAN}", plan.get("images"), least=0)
        check_number(f"part in {out / PLAN}", plan.get("part"))
        numbers = range(-(-plan["images"] // plan["part"]))
        missing = [n for n in numbers if not part_of(out, n).is_file()]
        if missing:
            raise InputError(
                f"{len(missing):,} of {len(numbers):,} parts of {out} are not there, such as "
                f"{part_of(out, missing[0]).name}: run xreid embed to its end"
            )
    for path in sorted(out.glob("part-*.parquet")):
        try:
            table = pa.parquet.read_table(path)
            about = json.loads(table.schema.metadata[b"model"])
            width = about["dimension"]
            columns = {name: table[name].to_pylist() for name in COLUMNS}
            flat = table["embedding"].combine_chunks().flatten().to_numpy()
            embeddings = flat.reshape(table.num_rows, width)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it, and embed again") from error
        yield columns, embeddings, about


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            if "adapted" in file:
                raise InputError(
                    f"{path} was embedded with statistics of its cameras: make the gallery with "
                    "xreid gallery add --adapted"
                )
            about = json.loads(str(file["model"])) if "model" in file else None
            embeddings, paths = file["features"], file["paths"].tolist()
            columns = {"path": paths, **dict.fromkeys(("sha256", "time", "rate"))}
            columns |= {"person": None, "camera": ""}
            # Old files have none of them.
            names = {"sha256": "sha256", "cameras": "camera", "times": "time"}
            columns |= {name: file[key].tolist() for key, name in names.items() if key in file}
            if "rates" in file:
                columns["rate"] = np.broadcast_to(file["rates"], len(paths)).tolist()
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises this and that
        raise InputError(f"{path} is damaged ({error}): embed again") from error
    return columns, embeddings, about
