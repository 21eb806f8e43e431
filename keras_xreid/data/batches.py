"""Training batches: each one a pure function of (seed, epoch, index).

So a run that was stopped goes on with exactly the batches it would have seen.
"""

import keras
import numpy as np

from keras_xreid.data.resolution import check_rates, degrade, resize
from keras_xreid.errors import InputError

# Smallest share of each edge that a random crop keeps.
CROP_KEEPS = 7 / 8
# Decoded images are kept in memory below this many bytes (estimated from the first image).
CACHE_BYTES = 2 * 1024**3


def check_people(records):
    """Refuses a person with a single image, who cannot form a pair.

    Args:
        records: list of `Record` to train on.

    Returns:
        Dict person -> list of positions in `records`, in sorted order of person.

    Raises:
        InputError: no records, or a person with one image; the message names the person.
    """
    if not records:
        raise InputError("no training images: check the data set's folder and the limit of people")
    images = {person: [] for person in sorted({record.person for record in records})}
    for position, record in enumerate(records):
        images[record.person].append(position)
    alone = [person for person, positions in images.items() if len(positions) == 1]
    if alone:
        others = f" (and {len(alone) - 1} other people)" if len(alone) > 1 else ""
        path = records[images[alone[0]][0]].path
        raise InputError(
            f"person {alone[0]}{others} has a single training image, {path}, and cannot form a "
            "pair: add a second image or remove the person"
        )
    return images


class _Batches(keras.utils.PyDataset):
    """What pairs and single images share: order, epochs, augmentation, memory, workers."""

    def __init__(
        self, records, image_size, rates, batch_size, seed, crop, flip, erase, kernel, steps
    ):
        super().__init__(workers=0, use_multiprocessing=False)
        check_rates(rates)
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}: give 1 or more")
        if seed < 0:
            raise InputError(f"seed is {seed}: give 0 or more")
        self.images_of = check_people(records)
        self.people = len(self.images_of)
        self.records = list(records)
        label = {person: i for i, person in enumerate(self.images_of)}
        self.labels = np.array([label[record.person] for record in records], np.int32)
        self.image_size = tuple(image_size)
        self.rates = np.asarray(rates)
        self.batch_size = batch_size
        self.seed = seed
        self.crop, self.flip, self.erase, self.kernel = crop, flip, erase, kernel
        self.steps = steps
        self.epoch = 0
        self._begun = False
        self._cache = {}

    def __len__(self):
        full = max(1, self._images_per_epoch() // self.batch_size)
        return full if self.steps is None else min(full, self.steps)

    def _images_per_epoch(self):
        return len(self.records)

    def on_epoch_begin(self):
        self._begun = True

    def on_epoch_end(self):
        # `fit` calls this once before its first epoch, too.
        if self._begun:
            self.epoch += 1
        self._begun = False

    def _generator(self, epoch, index):
        """The random numbers of one batch; index -1 orders the epoch.

        Trailing zeros do not change a SeedSequence, so no number here may be a trailing zero.
        """
        return np.random.default_rng([self.seed, epoch, index + 2])

    def _order(self, epoch):
        return self._generator(epoch, -1).permutation(len(self.records))

    def _read(self, position):
        image = self._cache.get(position)
        if image is None:
            image = self.records[position].read()
            if image.nbytes * len(self.records) < CACHE_BYTES:
                self._cache[position] = image
        return image

    def _crop(self, image, rng):
        if not self.crop:
            return image
        height, width = image.shape[:2]
        new_height = rng.integers(int(np.ceil(height * CROP_KEEPS)), height, endpoint=True)
        new_width = rng.integers(int(np.ceil(width * CROP_KEEPS)), width, endpoint=True)
        top = rng.integers(height - new_height, endpoint=True)
        left = rng.integers(width - new_width, endpoint=True)
        return image[top : top + new_height, left : left + new_width]

    def _views(self, position, rates, rng):
        """Views of one image, one for each rate, of one crop, flipped and erased alike."""
        crop = self._crop(self._read(position), rng)
        views = [resize(degrade(crop, rate, self.kernel), self.image_size) for rate in rates]
        if self.flip and rng.random() < 0.5:
            views = [view[:, ::-1] for view in views]
        if self.erase and rng.random() < 0.5:
            top, left, height, width = _rectangle(*self.image_size, rng)
            colour = crop.mean((0, 1)).round()
            views = [view.copy() for view in views]
            for view in views:
                view[top : top + height, left : left + width] = colour
        return views


def _rectangle(height, width, rng):
    """A random rectangle: (top, left, height, width), 2 to 40 % of the area, aspect 0.3 to 3.3."""
    while True:
        area = rng.uniform(0.02, 0.4) * height * width
        aspect = np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
        rows, columns = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < rows < height and 0 < columns < width:
            top, left = rng.integers(height - rows), rng.integers(width - columns)
            return top, left, rows, columns


class PairBatches(_Batches):
    """Batches of pairs: an image at high resolution, and the same crop shrunk and enlarged."""

    def __init__(
        self,
        records,
        image_size=(128, 64),
        rates=(2, 3, 4),
        batch_size=32,
        seed=0,
        crop=True,
        flip=True,
        erase=False,
        workers=0,
        kernel="area",
        steps=None,
    ):
        super().__init__(
            records, image_size, rates, batch_size, seed, crop, flip, erase, kernel, steps
        )

    def __getitem__(self, index):
        rng = self._generator(self.epoch, index)
        order = self._order(self.epoch)
        positions = order[index * self.batch_size : (index + 1) * self.batch_size]
        rates = rng.choice(self.rates, len(positions))
        hr = np.empty((len(positions), *self.image_size, 3), np.uint8)
        lr = np.empty_like(hr)
        for i, (position, rate) in enumerate(zip(positions, rates, strict=True)):
            hr[i], lr[i] = self._views(position, (1, rate), rng)
        return {"hr": hr, "lr": lr, "person": self.labels[positions], "rate": _as_rate(rates)}


class ImageBatches(_Batches):
    """Batches of single images at random rates: shuffled, or P people x K images each."""

    def __init__(
        self,
        records,
        image_size=(128, 64),
        rates=(1,),
        batch_size=32,
        people_per_batch=None,
        images_per_person=4,
        seed=0,
        crop=True,
        flip=True,
        erase=False,
        workers=0,
        kernel="area",
        steps=None,
    ):
        if people_per_batch is not None:
            batch_size = people_per_batch * images_per_person
        super().__init__(
            records, image_size, rates, batch_size, seed, crop, flip, erase, kernel, steps
        )
        self.people_per_batch, self.images_per_person = people_per_batch, images_per_person
        self.cameras = np.array([record.camera for record in records], np.int32)

    def __getitem__(self, index):
        rng = self._generator(self.epoch, index)
        positions = self._positions(index, rng)
        rates = rng.choice(self.rates, len(positions))
        images = np.empty((len(positions), *self.image_size, 3), np.uint8)
        for i, (position, rate) in enumerate(zip(positions, rates, strict=True)):
            (images[i],) = self._views(position, (rate,), rng)
        return {
            "image": images,
            "person": self.labels[positions],
            "rate": _as_rate(rates),
            "camera": self.cameras[positions],
        }

    def _positions(self, index, rng):
        if self.people_per_batch is None:
            return self._order(self.epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        people = self._people_order(self.epoch)
        positions = []
        for label in people[index * self.people_per_batch : (index + 1) * self.people_per_batch]:
            images = np.flatnonzero(self.labels == label)
            few = len(images) < self.images_per_person
            positions.append(rng.choice(images, self.images_per_person, replace=few))
        return np.concatenate(positions)

    def _people_order(self, epoch):
        rng = self._generator(epoch, -1)
        order = []
        while len(order) < len(self) * self.people_per_batch:
            begun = order[len(order) - len(order) % self.people_per_batch :]
            people = rng.permutation(self.people)
            again = np.isin(people, begun)
            order += [*people[~again], *people[again]]
        return order


def _as_rate(rates):
    whole = np.issubdtype(rates.dtype, np.integer)
    return rates.astype(np.int32 if whole else np.float32)
