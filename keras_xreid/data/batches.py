"""Training batches: each one a pure function of (seed, epoch, index).

A run that was stopped goes on with exactly the batches it would have seen, on every backend and
with any number of workers. `fit(batches, shuffle=False)` is needed for that: Keras's own shuffling
draws from Python's global random numbers.
"""

import functools
import operator

import keras
import numpy as np

from keras_xreid.data.augment import jittered, random_box, random_hole, random_light
from keras_xreid.data.camera import check_strength
from keras_xreid.data.decoded import decode
from keras_xreid.data.people import is_junk, people_in
from keras_xreid.data.resolution import (
    KERNELS,
    RANDOM,
    check_kernel,
    check_rates,
    check_size,
    rate_range,
    write_views,
)
from keras_xreid.data.workers import Ahead
from keras_xreid.errors import InputError, check_number


def check_people(records):
    """Refuses a person with a single image, who cannot form a pair, and a person alone.

    Args:
        records: list of `Record` to train on; those without a person are passed over.

    Returns:
        Dict person -> list of positions in `records`, in sorted order of person.

    Raises:
        InputError: no records, a person with one image, a single person, or junk; the message
            names the person.
    """
    if not records:
        raise InputError("no training images: check the data set's folder and the limit of people")
    images = {person: [] for person in people_in(records)}
    junk = next((record for record in records if is_junk(record.person)), None)
    if junk is not None:
        raise InputError(f"{junk.path} is of person {junk.person}, which marks junk: leave it out")
    for position, record in enumerate(records):
        if record.person is not None:
            images[record.person].append(position)
    alone = [person for person, positions in images.items() if len(positions) == 1]
    if alone:
        others = f" (and {len(alone) - 1} other people)" if len(alone) > 1 else ""
        path = records[images[alone[0]][0]].path
        raise InputError(
            f"person {alone[0]}{others} has a single training image, {path}, and cannot form a "
            "pair: add a second image or remove the person"
        )
    if len(images) == 1 and len(next(iter(images.values()))) == len(records):
        raise InputError(
            f"person {records[0].person} is the only one to train on: nobody is there to be told "
            "apart, add a second person"
        )
    return images


class Batches(keras.utils.PyDataset):
    """What pairs and single images share: epochs, people, augmentation, memory and workers.

    Args:
        records: list of `Record` to train on, two or more of each person; those whose person is
            None are visited like the others, with label -1.
        image_size: (height, width) in pixels of all images.
        rates: down-sampling rates of 1 or more, one drawn for each image; or a range, "1..4".
        batch_size: pairs or images a batch; P x K takes its place where `people_per_batch` is
            given.
        people_per_batch: P, or None for all images in random order.
        images_per_person: K.
        seed: 0 or more; batches are a pure function of (seed, epoch, index).
        crop: crop at random.
        flip: mirror left to right at random.
        erase: put the image's mean colour in a random rectangle of 2 to 40 % of the area.
        jitter: change brightness and saturation by up to 20 % and contrast by up to 15 %.
        workers: processes that make the coming batches, 0 for none. The batches stay the same.
        kernel: how images are shrunk, see `degrade`; or "random": each image draws area, bilinear,
            bicubic or lanczos.
        strength: float in [0, 1], how much a camera adds to images of rates above 1, see `degrade`;
            0 is plain shrinking. All other draws are the same at every strength.
        one_camera: fill each batch with images of one camera, so that batch normalization sees one
            at a time. It is drawn anew for each batch, in proportion to the cameras' images.
        steps: at most so many batches an epoch, for a short run. (`steps_per_epoch` of `fit` would
            leave epochs unfinished, and the order of the data with them.)

    Attributes:
        people: number of people; labels are 0 to people - 1 in sorted order of person.
        epoch: number of the epoch that comes next or is under way. It goes up when an epoch has
            been drawn to its end; set it to resume.

    Raises:
        InputError: a person with a single image, fewer people than P, a rate below 1, or a broken
            image (all are read at the first batch).
    """

    _names = ()  # names of a batch's images
    _hr_share = 0.0  # of the visits, where rates are a range

    images_each = 1  # of an item of a batch
    failed = None  # what workers have raised, for `fit`
    share = (0, 1)  # which share of a batch is drawn, and of how many, see `draw_share`

    def __init__(
        self, records, image_size, rates, batch_size=32, people_per_batch=None,
        images_per_person=4, seed=0, crop=True, flip=True, erase=False, jitter=False, workers=0,
        kernel="area", steps=None, strength=0.0, one_camera=False,
    ):  # fmt: skip
        # Keras's own workers stay off: the batches they still hold when `fit` builds a model are
        # handed out again as the first ones of the epoch, and each epoch starts new processes.
        super().__init__(workers=0, use_multiprocessing=False)
        check_rates(rates)
        check_strength(strength)
        if kernel != RANDOM:
            check_kernel(kernel)
        if people_per_batch is not None:
            check_number("number of people a batch", people_per_batch)
            check_number("number of images a person", images_per_person)
            batch_size = people_per_batch * images_per_person
        for name, value, least, most in (
            ("batch size", batch_size, 1, 1_000_000),
            ("seed", seed, 0, None),
            ("number of workers", workers, 0, 1024),
            ("number of steps", 1 if steps is None else steps, 1, None),
        ):
            check_number(name, value, least, most)
        images_of = check_people(records)
        self.people = len(images_of)
        self.records = list(records)
        self.images_of = [np.array(positions) for positions in images_of.values()]
        self.labels = np.full(len(records), -1, np.int32)
        for label, positions in enumerate(self.images_of):
            self.labels[positions] = label
        self.unlabeled = np.flatnonzero(self.labels < 0)
        self.people_per_batch, self.images_per_person = people_per_batch, images_per_person
        self._groups = self._people_a_batch()
        self._of_camera = _by_camera(self.records, self.labels) if one_camera else None
        self.image_size = check_size(image_size)
        self._range = rate_range(rates)
        self.rates = rates if self._range else np.asarray(rates)
        self.batch_size = batch_size
        self.seed = seed
        self.crop, self.flip, self.erase, self.jitter = crop, flip, erase, jitter
        self.kernel, self.strength = kernel, strength
        self.steps = steps
        self.epoch = 0
        self._under_way = self._complete = False
        self._images = None
        self._processes = workers
        self._ahead = None

    def _people_a_batch(self):
        """How many of a batch's P people there are labels for; 0 where its order is random."""
        p = self.people_per_batch
        if p is None or not self.people:
            return 0
        share = 1 - len(self.unlabeled) / len(self.records)
        groups = min(p, max(2, round(p * share)))  # 2, for there is no triplet in one person
        if groups > self.people:
            raise InputError(
                f"{groups} people a batch, but there are {self.people} to train on: give fewer"
            )
        return groups

    def __len__(self):
        full = max(1, len(self.records) // self.batch_size)
        return full if self.steps is None else min(full, self.steps)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        self._complete = self._under_way and index == len(self) - 1
        if self._images is None:
            self._images = self._read_images()
        if not self._processes:
            return self._named(*self._make(self.epoch, index, share=self.share))
        try:
            if self._ahead is None:
                self._ahead = Ahead(self, self._processes)
            return self._ahead.get(self.epoch, index)
        except InputError as error:
            self.failed = error
            raise

    def on_epoch_begin(self):
        self._under_way, self._complete = True, False

    def on_epoch_end(self):
        # `fit` also calls this before its first epoch, and after drawing one batch to build a
        # model with; on TensorFlow it draws the first two to see what they are. Only an epoch that
        # was begun and drawn to its end counts.
        if self._complete:
            self.epoch += 1
        self._under_way = self._complete = False

    def draw_share(self, rank, count):
        """From here on, `batches[index]` is one of `count` equal shares of the batch.

        All shares together are the batch, in order. `batch` makes the whole one, as ever.

        Args:
            rank: int, which share, from 0.
            count: int, 1 for the whole batch.

        Raises:
            InputError: where a batch cannot be shared equally.
        """
        images = len(self._positions(0, 0, self._generator(0, 0)))
        if images % count:
            raise InputError(
                f"{images} images or pairs a batch cannot be shared by {count} processes: "
                f"give a batch size that {count} divides"
            )
        self.share, self._ahead = (rank, count), None

    def batch(self, epoch, index):
        """Makes one batch, without regard to the epoch that is under way.

        Args:
            epoch: number of the epoch, from 0.
            index: number of the batch in it, from 0.

        Returns:
            The batch, a dict of NumPy arrays.
        """
        if self._images is None:
            self._images = self._read_images()
        return self._named(*self._make(epoch, index))

    def _make(self, epoch, index, pixels=None, share=(0, 1)):
        """Makes the pixels (views, n, height, width, 3), into an array if given, and the rest.

        Of a share of the batch, the others' random numbers are drawn as well, and no pixels made.
        """
        rng = self._generator(epoch, index)
        positions = self._positions(epoch, index, rng)
        rates = self._drawn_rates(len(positions), rng)
        own = _share(len(positions), share)
        if pixels is None:
            shape = (len(self._names), len(own), *self.image_size, 3)
            pixels = np.empty(shape, np.uint8)
        for i, (position, rate) in enumerate(zip(positions, rates, strict=True)):
            # Views before the last two are of images that are drawn on their own.
            # A camera has random numbers of its own, so that crops are the same without it.
            camera = self._generator(epoch, index, 2, i) if self.strength else None
            views = pixels[-2:, i - own.start] if i in own else None
            self._draw(views, position, rate, rng, camera)
        entries = self._entries(positions, rates)
        return pixels, {name: values[own.start : own.stop] for name, values in entries.items()}

    def _drawn_rates(self, count, rng):
        if not self._range:
            return rng.choice(self.rates, count)
        low, high = self._range
        rates = high - (high - low) * rng.random(count)  # the lower end is left out
        return np.where(rng.random(count) < self._hr_share, 1.0, rates)

    def _named(self, pixels, entries):
        return {**dict(zip(self._names, pixels, strict=True)), **entries}

    def _entries(self, positions, rates):
        whole = np.issubdtype(rates.dtype, np.integer)
        rates = rates.astype(np.int32 if whole else np.float32)
        return {"person": self.labels[positions], "rate": rates}

    def _positions(self, epoch, index, rng, *stream):
        """The batch's share of all images in the epoch's order, or K images of each of P people."""
        order = self._seeds(epoch, -1, *stream)
        if self._of_camera is not None:
            drawn = _shuffled(len(self.records), order)[index % len(self.records)]
            return self._positions_of_camera(self.records[drawn].camera, rng)
        if not self._groups:
            begin, end = index * self.batch_size, (index + 1) * self.batch_size
            return _shuffled(len(self.records), order)[begin:end]
        k = self.images_per_person
        people = _in_turn(self.people, self._groups, index, order)
        images = [self.images_of[label] for label in people]
        positions = [rng.choice(mine, k, replace=len(mine) < k) for mine in images]
        rest = self.batch_size - k * self._groups
        if rest:
            order = self._seeds(epoch, -2, *stream)
            others = _in_turn(len(self.unlabeled), rest, index, order)
            positions.append(self.unlabeled[others])
        return np.concatenate(positions)

    def _positions_of_camera(self, camera, rng):
        """One camera's images: any, or K of each of P people, some twice where it has too few."""
        people = self._of_camera[camera]
        if not self._groups:
            own = np.concatenate(list(people.values()))
            return rng.choice(own, self.batch_size, replace=len(own) < self.batch_size)
        k, labels = self.images_per_person, [label for label in people if label >= 0]
        chosen = rng.choice(
            labels, self.batch_size // k, replace=len(labels) < self.batch_size // k
        )
        images = [people[label] for label in chosen]
        return np.concatenate([rng.choice(own, k, replace=len(own) < k) for own in images])

    def _seeds(self, epoch, index, *stream):
        """What one batch is drawn by; index -1 is for the epoch's order.

        Index -2 is for the order of the images without a label. A stream of its own is for what is
        drawn beside the batch.
        """
        # 1 for the order, 2 and up for the batches: NumPy takes [s, e] and [s, e, 0] for one seed.
        return tuple(map(operator.index, (self.seed, epoch, index + 2, *stream)))

    def _generator(self, epoch, index, *stream):
        return np.random.default_rng(self._seeds(epoch, index, *stream))

    def _read_images(self):
        """Decodes the images once, at the first batch.

        Lazily would do, but TensorFlow asks for later batches from a thread of its own and wraps
        whatever they raise: so a broken image is named at once, and not in the middle of training.
        """
        return decode(self.records)

    def _image(self, position):
        at_hand = position < len(self._images)
        return self._images[position] if at_hand else self.records[position].read()

    def _draw(self, pixels, position, rate, rng, camera=None):
        """One crop of an image in each view, (views, height, width, 3), flipped and erased alike.

        The last view has the rate; one before it is at high resolution. Without views, None, it
        draws the same random numbers.
        """
        image = self._image(position)
        if self.crop:
            image = image[random_box(*image.shape[:2], rng)]
        light = random_light(rng) if self.jitter else None
        mirror = self.flip and rng.random() < 0.5
        kernel = self.kernel
        if kernel == RANDOM:
            kernel = list(KERNELS)[rng.integers(len(KERNELS))]
        erased = self.erase and rng.random() < 0.5
        hole = random_hole(*self.image_size, rng) if erased else None
        if pixels is None:
            return
        if light:
            image = jittered(image, light)
        rates = [1] * (len(pixels) - 1) + [rate]
        write_views(pixels, image, rates, kernel, mirror, self.strength, camera)
        if hole:
            pixels[:, *hole] = image.mean((0, 1)).round()


class PairBatches(Batches):
    """Batches of pairs: an image at high resolution, and the same crop shrunk and enlarged.

    Each image is visited once an epoch, at one rate drawn anew from `rates`, all equally likely.
    An image is cropped at its stored size (at least 7/8 of each edge stays), its colours changed
    with `jitter`, shrunk by its rate and enlarged to `image_size`, flipped with probability 0.5,
    and erased, where asked for, with probability 0.5; both images of a pair alike. `len(batches)`
    is the number of whole batches; an incomplete last one is left out, unless it is the only one.
    Files are decoded once, see `keras_xreid.data.decoded`; pixels are handed over as uint8, and
    networks normalise them.

    With `people_per_batch`, a batch holds K images of each of P people, see `ImageBatches`. With
    `independent`, the images at high resolution are drawn on their own, as CAD-Net does: "lr" and
    its "target" are the pairs, and "hr" shows other images, with labels "hr_person".

    Args:
        records: list of `Record` to train on, see `Batches`.
        image_size: (height, width) in pixels of all images.
        rates: down-sampling rates of 1 or more; or a range, "1..4", which draws from (1, 4].
        independent: draw the images at high resolution apart from those at low resolution.
        **common: of `Batches`: `batch_size`, `people_per_batch`, `crop` and so on.

    Returns:
        `batches[index]` is a dict: "hr" and "lr" (n, height, width, 3) uint8, "person" (n,) int32
        labels, "rate" (n,) int32 (float32 where a rate is no whole number). With `independent`
        also "target", like "hr": the image at high resolution of each in "lr"; "person" and
        "rate" belong to "lr", and "hr_person" (n,) int32 to "hr".

    Example:

    >>> batches = PairBatches(data.train, image_size=(128, 64), rates=(2, 3, 4))
    >>> model.fit(batches, epochs=10, shuffle=False)
    """

    _names = ("hr", "lr")

    images_each = 2  # a pair is two images

    def __init__(self, records, image_size=(128, 64), rates=(2, 3, 4), independent=False, **common):
        super().__init__(records, image_size, rates, **common)
        self.independent = independent
        if independent:
            self._names = ("hr", "target", "lr")

    def _make(self, epoch, index, pixels=None, share=(0, 1)):
        pixels, entries = super()._make(epoch, index, pixels, share)
        if self.independent:
            rng = self._generator(epoch, index, 1)
            positions = self._positions(epoch, index, rng, 1)
            own = _share(len(positions), share)
            for i, position in enumerate(positions):
                self._draw(pixels[:1, i - own.start] if i in own else None, position, 1, rng)
            entries["hr_person"] = self.labels[positions[own.start : own.stop]]
        return pixels, entries


class ImageBatches(Batches):
    """Batches of single images at random rates: all in random order, or P people x K images.

    Images are made as in `PairBatches`. With `people_per_batch`, a batch holds K images of each of
    P different people, all of one person in a row; a person with fewer than K images is sampled
    with replacement. People come in rounds, so that none is visited a second time before all the
    others were visited once. An epoch has as many batches as the images fill: 7,544 images and
    8 people x 4 images make 235, in which each of 401 people comes up four or five times.

    Where only a share of the images has labels, the same share of the P people is drawn, rounded,
    and at least two; images without a label, in rounds of their own, fill the rest of the batch.
    Where none has, all images come in random order.

    Args:
        records: list of `Record` to train on, see `Batches`.
        image_size: (height, width) in pixels of all images.
        rates: down-sampling rates of 1 or more, one drawn for each image; or a range, "1..4", which
            draws 1 for a third of the images, and from (1, 4] for the others.
        **common: of `Batches`: `batch_size`, `people_per_batch`, `crop` and so on.

    Returns:
        `batches[index]` is a dict: "image" (n, height, width, 3) uint8, "person" (n,) int32
        labels, "rate" (n,) int32 (float32 where a rate is no whole number), "camera" (n,) int32.

    Example:

    >>> batches = ImageBatches(data.train, rates=(1, 2, 3, 4), people_per_batch=8)
    """

    _names = ("image",)
    _hr_share = 1 / 3

    def __init__(self, records, image_size=(128, 64), rates=(1,), **common):
        super().__init__(records, image_size, rates, **common)
        for record in records:
            check_number(f"camera of {record.path}", record.camera, -(2**31), 2**31 - 1)
        self.cameras = np.array([record.camera for record in records], np.int32)

    def _entries(self, positions, rates):
        return {**super()._entries(positions, rates), "camera": self.cameras[positions]}


def _share(count, share):
    """The range of one share of `count` things: (which, of how many)."""
    rank, shares = share
    return range(rank * count // shares, (rank + 1) * count // shares)


def _by_camera(records, labels):
    """{camera: {label: positions of its images}}."""
    found = {}
    for i, (record, label) in enumerate(zip(records, labels.tolist(), strict=True)):
        found.setdefault(record.camera, {}).setdefault(label, []).append(i)
    for camera, people in found.items():
        if set(people) == {-1}:
            raise InputError(f"camera {camera} has no labelled image, and one_camera needs some")
    return found


# An epoch's order is drawn once, and not for each of its batches. These are functions of numbers
# alone, so threads and processes may each draw it for themselves. Eight: a batch may take four
# orders, and those made ahead may be of two epochs.
@functools.lru_cache(maxsize=8)
def _shuffled(count, seeds):
    order = np.random.default_rng(seeds).permutation(count)
    order.setflags(write=False)
    return order


def _in_turn(count, share, index, seeds):
    """A batch's share of `count` things that come in rounds, each round in a new random order."""
    begin, end = index * share, (index + 1) * share
    # In powers of two: whoever asks for one batch after another has each round drawn twice at most.
    return _rounds(count, share, 1 << (end - 1).bit_length(), seeds)[begin:end]


@functools.lru_cache(maxsize=8)
def _rounds(count, share, length, seeds):
    rng, order = np.random.default_rng(seeds), []
    while len(order) < length:
        # A round may begin within a batch: what that batch holds already comes up last.
        begun = order[len(order) - len(order) % share :]
        things = rng.permutation(count)
        again = np.isin(things, begun)
        order += [*things[~again], *things[again]]
    order = np.array(order)
    order.setflags(write=False)
    return order
