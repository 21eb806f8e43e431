"""Your own cameras: batch normalization by each camera and rate, from images without labels.

A network normalizes its maps by the mean and variance that its training images had. Another camera
has other colours, another sharpness, another background, and so other statistics. Here they are
measured on images of each camera, shrunk by each rate, and take the place of the stored ones while
images of that camera and rate are embedded.

All images of a camera pass the network at once: in each layer the statistics are exactly those of
all these images, and not an average over batches. They do not depend on a batch size. More than
`most` images are not needed; a seed draws which are taken.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import time
import warnings
import zipfile

import keras
import numpy as np

from keras_xreid import files
from keras_xreid.data.resolution import check_rates, prepare_images
from keras_xreid.errors import InputError, check_number
from keras_xreid.training import batch_statistics

MOST = 256  # images of a camera that are looked at
LEAST = 32  # statistics of fewer are noisy: docs/tutorials/your-cameras.md has the table
MOST_BYTES = 1_000_000_000  # of a file that is read


@dataclasses.dataclass
class CameraStatistics:
    """Statistics of batch normalization for each camera and rate: what `model.adapt` returns.

    Args:
        weights_sha256: of the model's weights, see `weights_sha256`.
        rates: the rates measured, rising.
        values: {camera: (rates, 2, channels) float32}: mean and variance of all layers in a row.
        counts: {camera: how many images were looked at}.
        too_few: {camera: how many images}; these cameras keep the published statistics.
        interpolates: whether other rates lie between those measured; a model that has a level for
            each rate takes those of the nearest.

    Example:

    >>> adapted = model.adapt(records)
    >>> adapted.save("cameras.npz")
    >>> adapted = CameraStatistics.load("cameras.npz")
    """

    weights_sha256: str
    rates: tuple
    values: dict
    counts: dict
    too_few: dict = dataclasses.field(default_factory=dict)
    interpolates: bool = True

    @property
    def cameras(self):
        """All cameras, as text: those with statistics, and those with too few images."""
        return sorted({*self.values, *self.too_few})

    def hash_of(self, camera):
        """SHA-256 of a camera's statistics, by which a gallery knows them; "" of the published."""
        values = self.values.get(self._known(camera))
        if values is None:
            return ""
        digest = hashlib.sha256(f"{self.rates} {self.interpolates}".encode())
        digest.update(np.ascontiguousarray(values, "<f4").data)
        return digest.hexdigest()

    def about(self):
        """What a report says of the statistics, as JSON has it."""
        return {
            "rates": [float(rate) for rate in self.rates],
            "images": self.counts,
            "too_few": self.too_few,
            "sha256": {camera: self.hash_of(camera) for camera in self.values},
        }

    def at(self, camera, rate):
        """A camera's statistics at a rate.

        Between two rates they are interpolated along the rate's logarithm; outside, those of the
        nearest rate are taken.

        Args:
            camera: number or name.
            rate: 1 or more.

        Returns:
            (2, channels) float32, or None: the published ones.

        Raises:
            InputError: nothing is known of the camera.
        """
        values = self.values.get(self._known(camera))
        if values is None:
            return None
        rates = np.asarray(self.rates, "float64")
        if not self.interpolates:  # of two equally near ones the lower resolution
            return values[::-1][np.argmin(np.abs(rates - rate)[::-1])]
        place = np.interp(np.log(rate), np.log(rates), np.arange(len(rates)))
        below, share = int(place), np.float32(place % 1)
        if not share:
            return values[below]
        return values[below] + share * (values[below + 1] - values[below])

    @contextlib.contextmanager
    def applied(self, model, camera, rate):
        """Inside, a model normalizes by a camera's statistics; afterwards it is as before.

        Other threads that embed wait meanwhile.

        Args:
            model: the model that was adapted.
            camera: number or name.
            rate: 1 or more.

        Raises:
            InputError: another model, or nothing is known of the camera.

        Example:

        >>> with adapted.applied(model, camera=2, rate=4):
        ...     features = model.embed(images, rates=4)
        """
        self.check(model)
        with self._applied(model, camera, rate):
            yield

    @contextlib.contextmanager
    def _applied(self, model, camera, rate):
        values, layers = self.at(camera, rate), normalizations(model)
        if values is None:
            yield
            return
        with batch_statistics.changing():
            before = read(layers)
            try:
                write(layers, values)
                yield
            finally:
                write(layers, before)

    def by_group(self, model, embed, images, rates, cameras):
        """Embeds images, those of one camera and rate together.

        Args:
            model: the model that was adapted.
            embed: function of (n, height, width, 3) images and (n,) rates.
            images: (n, height, width, 3) array.
            rates: (n,) array.
            cameras: one, or (n,) of them.

        Returns:
            (n, d) float32 array.

        Raises:
            InputError: rates or cameras are not known, or it is another model.
        """
        model.refuse_folded()
        if rates is None:
            raise InputError(
                "statistics are of a camera and a rate: say which rates the images have"
            )
        self.check(model)
        names = names_of(cameras, len(images))
        if not len(images):
            return embed(images, rates)
        check_rates(rates)
        groups = {}
        for i, group in enumerate(zip(names, rates.tolist(), strict=True)):
            groups.setdefault(group, []).append(i)
        found = None
        for (camera, rate), rows in groups.items():
            with self._applied(model, camera, rate):
                part = embed(images[rows], rates[rows])
            if found is None:
                found = np.empty((len(images), part.shape[1]), "float32")
            found[rows] = part
        return found

    def check(self, model):
        """Refuses a model with other weights than those that were adapted."""
        own = weights_sha256(model)
        if own != self.weights_sha256:
            raise InputError(
                f"these statistics were measured with other weights (SHA-256 "
                f"{self.weights_sha256[:16]}..., this model's is {own[:16]}...): adapt this model"
            )

    def save(self, path):
        """Writes the statistics into one file, NumPy's .npz, whole or not at all.

        Args:
            path: the file.

        Raises:
            InputError: another ending, or it cannot be written.
        """
        if not str(path).endswith(".npz"):
            raise InputError(f"cannot write {path}: give a file ending in .npz")
        about = {
            "weights_sha256": self.weights_sha256,
            "interpolates": self.interpolates,
            **self.about(),
        }
        values, content = list(self.values.values()), io.BytesIO()
        stacked = np.stack(values) if values else np.zeros((0, len(self.rates), 2, 0), "float32")
        np.savez(content, about=np.array(json.dumps(about)), values=stacked)
        files.write_bytes_atomic(path, content.getvalue())

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote.

        Args:
            path: the file.

        Returns:
            A `CameraStatistics`.

        Raises:
            InputError: it is not there, of another kind or damaged.
        """
        broken = (OSError, TypeError, ValueError, KeyError, AttributeError, EOFError,
                  zipfile.BadZipFile)  # fmt: skip
        try:
            if os.path.getsize(path) > MOST_BYTES:
                raise ValueError("it is too large")
            with zipfile.ZipFile(path) as members:  # nothing in it is compressed
                if sum(member.file_size for member in members.infolist()) > os.path.getsize(path):
                    raise ValueError("it claims more than it holds")
            with np.load(path, allow_pickle=False) as held:
                about, stacked = json.loads(str(held["about"])), held["values"]
            rates = tuple(about["rates"])
            cameras = about["sha256"]
            shape = (len(cameras), len(rates), 2)
            if stacked.shape[:3] != shape or stacked.ndim != 4 or stacked.dtype != np.float32:
                raise ValueError(f"statistics of shape {stacked.shape}")
            found = cls(
                about["weights_sha256"], rates, dict(zip(cameras, stacked, strict=True)),
                about["images"], about["too_few"], about["interpolates"],
            )  # fmt: skip
            check_rates(rates)
            for name, sha256 in cameras.items():
                if found.hash_of(name) != sha256:
                    raise ValueError(f"camera {name} is not as it was saved")
        except broken as error:
            reason = str(getattr(error, "strerror", None) or error).partition("\n")[0]
            raise InputError(f"no cameras' statistics are at {path} ({reason})") from error
        return found

    def _known(self, camera):
        name = str(camera)
        if name not in self.values and name not in self.too_few:
            raise InputError(
                f"nothing is known of camera {name}, only of {', '.join(self.cameras)}: adapt with "
                "images of it, or say by folders or a CSV which camera took what (a number such as "
                "_c3 in a file's name counts before its folder)"
            )
        return name


def adapt(
    model, images, cameras=None, rates=(1, 2, 3, 4, 8), *, most=MOST, least=LEAST, seed=0,
    kernel="area", verbose=True,
):  # fmt: skip
    """Measures the statistics of each camera and rate; `ReIDModel.adapt` calls it.

    Args:
        model: the model; it is as before afterwards.
        images: list of `Record` or of (h, w, 3) uint8 arrays.
        cameras: the camera of each image, or of all; None: as the records say.
        rates: rates to measure at, of 1 or more.
        most: int, so many images of a camera are looked at.
        least: int, a camera with fewer keeps the published statistics, with a warning.
        seed: int, draws which images are taken of a camera that has more.
        kernel: how images are shrunk, see `degrade`.
        verbose: print a line for each camera.

    Returns:
        A `CameraStatistics`.

    Raises:
        InputError: no images, another number of cameras, fewer of most than of least, or a model
            without batch normalization.
    """
    model.refuse_folded()
    rates = sorted(set(rates))
    check_rates(rates)
    check_number("most, the images of a camera,", most)
    check_number("least, the images of a camera,", least)
    if most < least:
        raise InputError(f"most is {most} and least is {least}: give more of most or less of least")
    check_number("seed", seed, 0)
    rates = tuple(float(rate) for rate in rates)
    images, layers = list(images), normalizations(model)
    if not images or not layers:
        raise InputError(
            "no images to adapt to: give some of each camera" if layers else
            f"this {type(model).__name__} has no batch normalization: nothing can be adapted"
        )  # fmt: skip
    if cameras is None:
        cameras = [getattr(image, "camera", None) for image in images]
        if None in cameras:
            raise InputError("no camera is known of the images: give cameras, one for each")
    names = names_of(cameras, len(images))
    between = not model.normalizes_by_level
    found = CameraStatistics(weights_sha256(model), rates, {}, {}, {}, between)
    with batch_statistics.taken(layers):
        published = read(layers)
        try:
            for camera in sorted(set(names)):
                own = [image for image, name in zip(images, names, strict=True) if name == camera]
                if len(own) < least:
                    found.too_few[camera] = len(own)
                    continue
                began = time.perf_counter()
                own = _drawn(own, most, seed)
                measured = []
                for rate in rates:
                    prepared = prepare_images(own, model.image_size, rate, kernel)
                    write(layers, published)  # of layers that this rate does not use
                    prepared = prepared.astype("float32") / 255
                    model._embed(prepared, np.full(len(own), rate), len(own))
                    measured.append(read(layers))
                found.values[camera], found.counts[camera] = np.stack(measured), len(own)
                if verbose:
                    told = f"camera {camera}: {len(own)} images, {len(rates)} rates"
                    print(f"{told}, {time.perf_counter() - began:.1f} s", flush=True)
        finally:
            write(layers, published)
    for camera, count in found.too_few.items():
        warnings.warn(
            f"camera {camera} has {count} images and keeps the published statistics: {least} or "
            f"more are needed, and {most} are better",
            stacklevel=3,
        )
    return found


def _drawn(images, most, seed):
    """At most so many of a camera's images, in their order."""
    if len(images) <= most:
        return images
    drawn = np.random.default_rng([seed, len(images)]).permutation(len(images))[:most]
    return [images[i] for i in sorted(drawn)]


def normalizations(model):
    """The layers of batch normalization that an embedding passes, in order.

    Neither critics nor what makes an image, INTACT's generator and RAIN's decoder: it was taught
    what images look like. CAD-Net's decoder is among them, for its embedding is of what that makes.

    Args:
        model: a system of this library.

    Returns:
        List of `keras.layers.BatchNormalization`.
    """
    apart = set()
    for name in (*model.critics, *model.keeps_statistics):
        part = getattr(model, name, None)
        if part is not None:
            apart.update(id(layer) for layer in part._flatten_layers())
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and id(layer) not in apart
    ]
    # In the order of the weights, of which the model's hash is taken: another order is refused.
    place = {id(variable): i for i, variable in enumerate(model.weights)}
    return sorted(found, key=lambda layer: place[id(layer.moving_mean)])


def read(layers):
    """Mean and variance of layers in a row: (2, channels) float32."""
    statistics = zip(*((layer.moving_mean, layer.moving_variance) for layer in layers), strict=True)
    return np.stack(
        [np.concatenate([keras.ops.convert_to_numpy(v) for v in kind]) for kind in statistics]
    ).astype("float32")


def write(layers, values):
    """Sets mean and variance of layers from a row, see `read`."""
    begin = 0
    for layer in layers:
        end = begin + layer.moving_mean.shape[0]
        layer.moving_mean.assign(values[0, begin:end])
        layer.moving_variance.assign(values[1, begin:end])
        begin = end


def weights_sha256(model):
    """SHA-256 of what a model embeds with: of all weights but those of critics, in order.

    A file without critics, as published ones are, has the same.
    """
    judging = set()
    for name in model.critics:
        part = getattr(model, name, None)
        if part is not None:
            judging.update(id(variable) for variable in part.weights)
    digest = hashlib.sha256()
    with batch_statistics.in_use():  # statistics are among the weights
        for variable in model.weights:
            if id(variable) not in judging:
                value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable), "<f4")
                digest.update(f"{value.shape}".encode())
                digest.update(value.data)
    return digest.hexdigest()


def names_of(cameras, count):
    """Cameras as text, one for each of so many images.

    Raises:
        InputError: none are given, or another number of them.
    """
    if isinstance(cameras, str) or np.ndim(cameras) == 0:
        cameras = [cameras] * count
    names = ["" if camera is None else str(camera) for camera in cameras]
    if len(names) != count or "" in names:
        told = "a camera is missing" if "" in names else f"{len(names)} cameras"
        raise InputError(f"{told} for {count} images: give one, or one for each")
    return names
