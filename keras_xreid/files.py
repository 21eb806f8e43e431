"""Files that are there complete or not at all."""

import json
import math
import os
from pathlib import Path

import numpy as np


def write_json_atomic(path, value):
    """Writes JSON so that the file is there complete or not at all.

    Args:
        path: file to write.
        value: dictionary or list; NumPy numbers and arrays become plain ones, and what is not
            finite becomes null, for JSON has no such number.

    Example:

    >>> write_json_atomic("runs/mine/metrics.json", metrics)
    """
    write_text_atomic(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def write_text_atomic(path, text):
    """Writes text so that the file is there complete or not at all.

    Args:
        path: file to write; its folder is made if missing.
        text: str.

    Example:

    >>> write_text_atomic("runs/mine/notes.md", "One line.")
    """
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path, content):
    """Writes bytes so that the file is there complete or not at all.

    Args:
        path: file to write; its folder is made if missing.
        content: bytes.

    Example:

    >>> write_bytes_atomic("weights/mine.weights.h5", content)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
