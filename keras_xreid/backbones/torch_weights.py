"""Read PyTorch weight files without PyTorch, and without running what is in them.

A `.pth` file is a pickle, and a pickle may call any function on the reader's machine. The reader
here knows only the few names a state dict needs; any other name ends it.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from keras_xreid.errors import InputError

STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "BoolStorage": "|b1",
}
# Training checkpoints hold the epoch's score and the scheduler beside the weights. These names
# are read as `_Ignored`, which does nothing.
IGNORED = {
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
}
# Files of PyTorch before 1.6 begin with this number, pickled.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Tensors may share numbers, and no file of weights has more of them than twice its size. Tables of
# what is in it are small.
MOST_PER_BYTE, MOST_NAMES = 2, 1_000_000


def read_state_dict(path):
    """Reads the weights of a PyTorch file, `.pth` or `.pth.tar`, as numpy arrays.

    Nothing in the file is run: a file that names anything but tensors is refused. A checkpoint's
    `state_dict` is taken, and the prefix `module.` of parallel training is removed.

    Args:
        path: the file, in the zip format of PyTorch 1.6 and later or the format before it.

    Returns:
        Dictionary from PyTorch's parameter names to numpy arrays.

    Raises:
        InputError: the file is missing, damaged, not a state dict, or names something refused.

    Example:

    >>> weights = read_state_dict("osnet_x1_0_imagenet.pth")
    >>> weights["conv1.conv.weight"].shape
    (64, 3, 7, 7)
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weights file at {path}: give the path of a .pth or .pth.tar file")
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        return _state_dict(content, MOST_PER_BYTE * path.stat().st_size)
    except InputError as error:
        raise InputError(f"{path} is refused: {error}") from None
    except Exception as error:  # pickle raises nearly anything on a damaged file
        raise InputError(
            f"{path} cannot be read as PyTorch weights ({type(error).__name__}: {error}): "
            "it is damaged, or another kind of file"
        ) from None


class _Ignored:
    """Takes the place of an object that is not a weight."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


class _Storage:
    """The numbers of one or more tensors; in old files they come after the names."""

    def __init__(self, dtype, count):
        self.dtype = np.dtype(dtype)
        self.count = count
        self.data = None


class _Tensor:
    """A view of a storage; offset, shape and strides are counted in numbers, not bytes."""

    def __init__(self, storage, offset, shape, strides, *unused):
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.strides = strides

    def nbytes(self):
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def array(self):
        storage, size = self.storage, self.storage.dtype.itemsize
        if storage.data is None or len(storage.data) != storage.count * size:
            raise InputError("a tensor's numbers are missing or cut short")
        if np.prod(self.shape, dtype=object) > storage.count:
            raise InputError(f"a tensor of shape {self.shape} is larger than its numbers")
        # numpy refuses strides that leave the buffer.
        view = np.ndarray(
            self.shape,
            storage.dtype,
            buffer=storage.data,
            offset=self.offset * size,
            strides=tuple(step * size for step in self.strides),
        )
        return view.copy()


class _RestrictedUnpickler(pickle.Unpickler):
    """Unpickles state dicts: knows ordered dictionaries and tensors, and refuses the rest."""

    def __init__(self, file):
        # latin1 reads the byte strings of Python 2, in which older weights were saved.
        super().__init__(file, encoding="latin1")
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *unused: tensor
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        if (module, name) in IGNORED:
            return _Ignored
        raise InputError(f"it names {module}.{name}, which a file of weights has no use for")

    def persistent_load(self, identity):
        kind, dtype, key, _location, count = identity[:5]
        if kind != "storage" or (len(identity) > 5 and identity[5] is not None):
            raise InputError("it holds something else than plain tensors")
        if key not in self.storages:
            self.storages[key] = _Storage(dtype, count)
        return self.storages[key]


def _unpickler(file):
    """Reads ahead to the end of a pickle, and refuses one that asks for what no state dict needs.

    A pickle of twelve bytes may ask for a table of 2^32 entries, or a text of as many bytes.
    """
    begin = file.tell()
    for operation, value, _ in pickletools.genops(file):
        if operation.name in ("PUT", "LONG_BINPUT") and value > MOST_NAMES:
            raise InputError("its table of names is too large for a file of weights")
    file.seek(begin)
    return _RestrictedUnpickler(file)


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        size = path.stat().st_size
        claimed = sum(entry.file_size for entry in archive.infolist())
        if claimed > MOST_PER_BYTE * size:
            raise InputError(f"it claims {claimed:,} bytes of numbers, and has {size:,}")
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(names) != 1:
            raise InputError("it is a zip file without data.pkl, so not written by PyTorch")
        folder = names[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise InputError("its numbers are big-endian; only little-endian files are read")
        unpickler = _unpickler(io.BytesIO(archive.read(names[0])))
        content = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.data = archive.read(f"{folder}data/{key}")
    return content


def _read_legacy(path):
    with path.open("rb") as file:
        if _unpickler(file).load() != LEGACY_MAGIC:
            raise InputError("it was not written by PyTorch 0.4 or later: save it again there")
        _unpickler(file).load()  # version of the format
        system = _unpickler(file).load()
        if not system.get("little_endian", True):
            raise InputError("its numbers are big-endian; only little-endian files are read")
        unpickler = _unpickler(file)
        content = unpickler.load()
        for key in _unpickler(file).load():
            storage = unpickler.storages[key]
            if int.from_bytes(file.read(8), "little") != storage.count:
                raise InputError("a tensor's numbers are missing or cut short")
            nbytes = storage.count * storage.dtype.itemsize
            if nbytes > path.stat().st_size:
                raise InputError("a tensor's numbers are missing or cut short")
            storage.data = file.read(nbytes)
    return content


def _state_dict(content, most):
    """The arrays of a state dict, of `most` bytes together."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise InputError(f"it holds a {type(content).__name__}, not a state dict")
    for name, value in content.items():
        if not isinstance(value, _Tensor):
            raise InputError(f"its entry {name!r} is not a tensor, so it is not a state dict")
    claimed = sum(value.nbytes() for value in content.values())
    if claimed > most:
        raise InputError(f"its tensors would take {claimed:,} bytes, far more than the file has")
    return {name.removeprefix("module."): value.array() for name, value in content.items()}


def keras_layout(array, shape):
    """Turns PyTorch's order of axes (out, in, height, width) into that of a Keras variable.

    Args:
        array: a weight of `read_state_dict`.
        shape: the variable's.

    Returns:
        The array, its axes in Keras's order; its shape may still be another one.
    """
    if array.ndim == 4 and array.shape[2:] == (1, 1) and len(shape) == 2:
        array = array[:, :, 0, 0]  # torchreid writes the gates' dense layers as convolutions
    if array.ndim == 2:
        return array.T
    if array.ndim == 4:
        depthwise = shape[-1] == 1
        return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return array
