"""Parquet parts of embeddings, as `xreid embed` writes them."""

import json
from pathlib import Path

from keras_xreid.errors import InputError


def arrow():
    """PyArrow, or one line."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError('Parquet needs pyarrow: pip install "keras-xreid[parquet]"') from None
    return pyarrow


def read_parts(out):
    """Yields the parts of a folder, in order, as (columns, embeddings, about the model)."""
    pa = arrow()
    for path in sorted(Path(out).glob("part-*.parquet")):
        try:
            table = pa.parquet.read_table(path)
            about = json.loads(table.schema.metadata[b"model"])
            columns = {n: table[n].to_pylist() for n in table.column_names if n != "embedding"}
            flat = table["embedding"].combine_chunks()
            embeddings = flat.flatten().to_numpy().reshape(len(flat), -1)
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it, and embed again") from error
        yield columns, embeddings, about
