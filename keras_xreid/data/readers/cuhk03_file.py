"""CUHK03's one file of images: opening it, naming what is in it, reading one image.

`Record.read` needs this as much as the reader does, so that it stands apart and knows no `Record`.
"""

import numpy as np

from keras_xreid.data.images import MAX_PIXELS
from keras_xreid.errors import InputError

CUHK03_EXPECTED = (
    "expected cuhk03_release/cuhk-03.mat (HDF5, 1.9 GB): labeled (14,096 images), detected "
    "(14,097), 1,467 people by 5 pairs of cameras, and testsets (20 of 100 people)"
)


def open_cuhk03(path):
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"cuhk03: {path} is no whole HDF5 file ({reason}): copy it again; {CUHK03_EXPECTED}"
        ) from error


def cuhk03_entries(file, kind):
    """Yields (key, person, camera) of the images in one of the two cell arrays.

    MATLAB stores arrays by columns, so that HDF5 shows them transposed: a pair's cells are
    (10, people), an image is (3, width, height), and an empty cell is an array of one dimension.
    """
    for pair, reference in enumerate(file[kind][0], 1):
        cells = file[reference][:]
        for number, person_cells in enumerate(cells.T, 1):
            for i, cell in enumerate(person_cells, 1):
                if file[cell].ndim == 3:
                    view = 1 if i <= 5 else 2
                    key = f"{kind}/{pair}_{number:03d}_{view}_{i:02d}"
                    yield key, 1000 * pair + number, 2 * (pair - 1) + view


def read_cuhk03_image(path, key):
    with open_cuhk03(path) as file:
        try:
            kind, name = key.split("/")
            pair, number, _, i = (int(part) for part in name.split("_"))
            stored = file[file[file[kind][0, pair - 1]][i - 1, number - 1]]
            if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[0] != 3:
                raise InputError(f"it is {stored.dtype} of shape {stored.shape}")
            if stored.size > 3 * MAX_PIXELS:
                raise InputError(f"at most {MAX_PIXELS:,} pixels are read")
            return np.ascontiguousarray(stored[:].T)
        except Exception as error:  # h5py raises this and that
            raise InputError(f"cannot read image {key} in {path}: {error}") from error
