import collections
import dataclasses
import multiprocessing
import os
import pickle
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_xreid.data import decoded
from keras_xreid.data import workers as workers_module
from keras_xreid.data.batches import ImageBatches, PairBatches, check_people
from keras_xreid.data.datasets import Record
from keras_xreid.data.resolution import KERNELS, degrade, resize
from keras_xreid.errors import InputError

PLAIN = {"crop": False, "flip": False}


def save_records(folder, images_of, draw):
    """Writes PNG files: `images_of` maps each person to a number of images."""
    records = []
    for person, number in images_of.items():
        for i in range(number):
            path = folder / f"{person}_{i}.png"
            Image.fromarray(draw(len(records))).save(path)
            records.append(Record(str(path), person, camera=i % 3 + 1))
    return records


@pytest.fixture
def records(tmp_path):
    """20 images of noise of five people; the mean of the first channel tells them apart."""

    def draw(number):
        image = np.random.default_rng(number).integers(0, 40, (48, 24, 3))
        image[:, :, 0] = 10 * number + 3
        return image.astype(np.uint8)

    return save_records(tmp_path, {"e": 4, "d": 4, "c": 4, "b": 4, "a": 4}, draw)


def numbers(images):
    """Which of the `records` fixture each image shows."""
    return [round((image[:, :, 0].mean() - 3) / 10) for image in images]


def assert_equal(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def epochs_of(batches, epochs):
    """All batches of the epochs, drawn as Keras does."""
    drawn = []
    for _ in range(epochs):
        batches.on_epoch_begin()
        drawn += [batches[index] for index in range(len(batches))]
        batches.on_epoch_end()
    return drawn


# --- what a batch holds ----------------------------------------------------------------------


def test_pairs_are_the_image_and_the_image_shrunk_from_its_stored_size(records):
    batches = PairBatches(records, (64, 32), rates=(2, 3, 4), batch_size=8, **PLAIN)
    batch = batches[0]
    assert {name: value.dtype for name, value in batch.items()} == {
        "hr": np.uint8, "lr": np.uint8, "person": np.int32, "rate": np.int32
    }  # fmt: skip
    assert batch["hr"].shape == batch["lr"].shape == (8, 64, 32, 3)
    shown = numbers(batch["hr"])
    for i, number in enumerate(shown):
        stored = records[number].read()
        np.testing.assert_array_equal(batch["hr"][i], resize(stored, (64, 32)))
        low = resize(degrade(stored, batch["rate"][i]), (64, 32))
        np.testing.assert_array_equal(batch["lr"][i], low)
    # Labels go by the sorted order of persons, not by the order of the records.
    assert batches.people == 5
    assert [records[n].person for n in shown] == ["abcde"[label] for label in batch["person"]]


def test_images_hold_one_rate_each_and_their_camera(records):
    batch = ImageBatches(records, (64, 32), rates=(1, 4), batch_size=20, **PLAIN)[0]
    assert batch["image"].shape == (20, 64, 32, 3)
    assert set(batch["rate"]) == {1, 4}
    for image, number, rate, camera in zip(
        batch["image"], numbers(batch["image"]), batch["rate"], batch["camera"], strict=True
    ):
        stored = records[number].read()
        np.testing.assert_array_equal(image, resize(degrade(stored, rate), (64, 32)))
        assert camera == records[number].camera


def test_every_image_is_visited_once_an_epoch(records):
    for make, name in ((PairBatches, "hr"), (ImageBatches, "image")):
        batches = make(records, (48, 24), batch_size=5)
        assert len(batches) == 4
        orders = []
        for batch in epochs_of(batches, 2):
            orders += numbers(batch[name])
        assert sorted(orders[:20]) == sorted(orders[20:]) == list(range(20))
        assert orders[:20] != orders[20:]
        assert orders[:20] != list(range(20))


def test_incomplete_last_batch_is_left_out_unless_it_is_the_only_one(records):
    assert len(PairBatches(records, batch_size=6)) == 3
    assert all(len(b["rate"]) == 6 for b in epochs_of(PairBatches(records, batch_size=6), 1))
    few = PairBatches(records, (48, 24), batch_size=32)
    assert len(few) == 1 and len(few[0]["hr"]) == 20
    assert len(PairBatches(records, batch_size=5, steps=2)) == 2
    assert len(PairBatches(records, batch_size=5, steps=200)) == 4
    with pytest.raises(IndexError):
        few[1]


def test_rates_are_drawn_anew_and_equally_often(records):
    batches = PairBatches(records, (16, 8), rates=(2, 3, 4), batch_size=20)
    rates = np.stack([batch["rate"] for batch in epochs_of(batches, 60)])
    shares = [(rates == rate).mean() for rate in (2, 3, 4)]
    assert sum(shares) == 1
    assert max(shares) - min(shares) < 0.08  # five standard deviations
    assert PairBatches(records, rates=(2.5,), batch_size=4)[0]["rate"].dtype == np.float32


def without_labels(records, hidden):
    """The records, those at the given positions without a person."""
    return [
        dataclasses.replace(record, person=None) if position in hidden else record
        for position, record in enumerate(records)
    ]


def test_an_image_without_a_label_is_visited_like_the_others(records):
    hidden = {0, 1, 2, 3, 6}  # all of person e, and one of d
    some = without_labels(records, hidden)
    for make, name in ((PairBatches, "hr"), (ImageBatches, "image")):
        batches = make(some, (48, 24), batch_size=5)
        assert batches.people == 4
        drawn, labelled = epochs_of(batches, 2), epochs_of(make(records, (48, 24), batch_size=5), 2)
        for batch, other in zip(drawn, labelled, strict=True):
            np.testing.assert_array_equal(batch[name], other[name])
            expected = [
                -1 if n in hidden else other["person"][i]
                for i, n in enumerate(numbers(batch[name]))
            ]
            assert batch["person"].tolist() == expected
        none = make(without_labels(records, range(20)), (48, 24), batch_size=20)
        assert none.people == 0 and set(none[0]["person"]) == {-1}


# --- augmentation ----------------------------------------------------------------------------


@pytest.fixture
def ramps(tmp_path):
    """Images whose first two channels are the row and the column of each pixel."""
    rows, columns = np.indices((128, 64))
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    return save_records(tmp_path, {1: 16, 2: 16}, lambda number: image)


def test_crops_keep_seven_eighths_and_are_those_of_the_pair(ramps):
    batches = PairBatches(ramps, (128, 64), rates=(2,), batch_size=32, flip=False)
    edges = []
    for batch in epochs_of(batches, 4):
        for hr, lr in zip(batch["hr"].astype(int), batch["lr"].astype(int), strict=True):
            top, bottom = hr[0, 0, 0], hr[-1, -1, 0]
            left, right = hr[0, 0, 1], hr[-1, -1, 1]
            edges.append((top, 127 - bottom, left, 63 - right))
            # Another crop would be shifted or scaled as a whole.
            assert abs(hr - lr)[4:-4, 4:-4].max() <= 2
    edges = np.array(edges)
    assert edges.min() == 0
    assert (edges[:, 0] + edges[:, 1]).max() in (15, 16)
    assert (edges[:, 2] + edges[:, 3]).max() in (7, 8)
    assert (edges.max(0) >= (10, 10, 5, 5)).all()


def test_both_of_a_pair_are_flipped_or_neither(ramps):
    batches = PairBatches(ramps, (128, 64), rates=(4,), batch_size=32, crop=False)
    turned = []
    for batch in epochs_of(batches, 8):
        hr, lr = (np.diff(batch[name][:, 64, 8:-8, 1].astype(int)) for name in ("hr", "lr"))
        assert (np.sign(hr.sum(1)) == np.sign(lr.sum(1))).all()
        turned += list(hr.sum(1) < 0)
    assert 0.35 < np.mean(turned) < 0.65


def test_both_of_a_pair_lose_the_same_rectangle(tmp_path):
    image = np.zeros((128, 64, 3), np.uint8)
    image[:, 32:] = 200  # mean 100, which no pixel has
    records = save_records(tmp_path, {1: 16, 2: 16}, lambda number: image)
    batches = PairBatches(records, (128, 64), rates=(2,), batch_size=32, erase=True, **PLAIN)
    areas = []
    for batch in epochs_of(batches, 4):
        for hr, lr in zip(batch["hr"], batch["lr"], strict=True):
            hole = (hr == 100).all(-1)
            areas.append(hole.mean())
            if hole.any():
                rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
                assert hole.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                assert (lr[hole] == 100).all()
    areas = np.array(areas)
    assert 0.3 < (areas > 0).mean() < 0.7
    assert areas[areas > 0].min() > 0.015 and 0.25 < areas.max() < 0.42
    # The image in memory, and so the next visit, stays whole.
    np.testing.assert_array_equal(batches._image(0), image)


def test_both_of_a_pair_change_colour_alike(tmp_path):
    image = np.full((128, 64, 3), (110, 60, 50), np.uint8)
    image[:, 32:] = (120, 150, 160)
    records = save_records(tmp_path, {1: 16, 2: 16}, lambda number: image)
    batches = PairBatches(records, (128, 64), rates=(2,), batch_size=32, jitter=True, **PLAIN)
    luma, found = np.array([0.299, 0.587, 0.114]), []
    for batch in epochs_of(batches, 16):
        for side in (slice(28), slice(36, None)):  # shrinking mixes colours between them
            np.testing.assert_array_equal(batch["hr"][:, :, side], batch["lr"][:, :, side])
        found += [hr[0, [0, 63]].astype(float) for hr in batch["hr"]]
    before, after = image[0, [0, 63]].astype(float), np.array(found)
    light, now = before @ luma, after @ luma
    brightness = now.mean(1) / light.mean()
    contrast = (now[:, 1] - now[:, 0]) / (light[1] - light[0])
    beside_grey = (after[:, 0, 0] - now[:, 0]) / (before[0, 0] - light[0])
    for factor, most in ((brightness, 0.2), (contrast, 0.15), (beside_grey / contrast, 0.2)):
        low, high = factor.min() - 1, factor.max() - 1
        assert -most - 0.03 < low < -most + 0.03 and most - 0.03 < high < most + 0.03
        assert abs(factor.mean() - 1) < 0.02
    np.testing.assert_array_equal(batches._image(0), image)


@pytest.mark.parametrize("size", [(256, 128), (48, 24), (30, 40)])
@pytest.mark.parametrize("kernel", ["area", "bicubic"])
def test_pixels_are_those_of_pillow(records, size, kernel):
    """An oracle that crops, shrinks, enlarges and flips with Pillow alone."""
    batches = PairBatches(records, size, rates=(1, 1.5, 4), batch_size=20, seed=5, kernel=kernel)
    batch = batches[0]
    rng = np.random.default_rng([5, 0, 2])
    order = np.random.default_rng([5, 0, 1]).permutation(20)
    rates = rng.choice([1, 1.5, 4], 20)
    for i, (number, rate) in enumerate(zip(order, rates, strict=True)):
        height, width = rng.integers((42, 21), (49, 25))
        top, left = rng.integers((49 - height, 25 - width))
        box = (left, top, left + width, top + height)
        high = low = Image.open(records[number].path).convert("RGB").crop(box)
        if rate > 1:
            low = low.resize((round(width / rate), round(height / rate)), KERNELS[kernel])
        mirror = rng.random() < 0.5
        for name, image in (("hr", high), ("lr", low)):
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            image = np.asarray(ImageOps.mirror(image) if mirror else image)
            np.testing.assert_array_equal(batch[name][i], image)


# --- P people x K images ---------------------------------------------------------------------


@pytest.mark.parametrize("make, name", [(PairBatches, "hr"), (ImageBatches, "image")])
def test_batches_hold_k_different_images_of_p_people(records, make, name):
    batches = make(records, (48, 24), people_per_batch=3, images_per_person=2, batch_size=99)
    assert len(batches) == 20 // 6
    visits = collections.Counter()
    for batch in epochs_of(batches, 10):
        labels = batch["person"].reshape(3, 2)
        assert (labels[:, 0] == labels[:, 1]).all()
        assert len(set(labels[:, 0])) == 3
        shown = numbers(batch[name])
        assert len(set(shown)) == 6
        assert [records[n].person for n in shown] == ["abcde"[i] for i in batch["person"]]
        visits.update(labels[:, 0])
    assert set(visits) == set(range(5))


def test_no_person_comes_again_before_all_others_came(records):
    batches = ImageBatches(records, (8, 4), people_per_batch=2, images_per_person=2)
    assert len(batches) == 5
    for _ in range(10):
        people = [p for batch in epochs_of(batches, 1) for p in batch["person"][::2]]
        assert sorted(people[:5]) == sorted(people[5:]) == [0, 1, 2, 3, 4]


def test_an_epochs_order_is_drawn_once_whatever_batch_is_asked_for(records, monkeypatch):
    def slow(index):
        """The people of a batch of two, all rounds drawn anew."""
        rng, order = np.random.default_rng([3, 1, 1]), []
        while len(order) < 2 * index + 2:
            begun = order[len(order) - len(order) % 2 :]
            people = rng.permutation(5).tolist()
            order += sorted(people, key=begun.__contains__)
        return order[2 * index : 2 * index + 2]

    batches = ImageBatches(records, (8, 4), people_per_batch=2, images_per_person=2, seed=3)
    rounds, isin = [], np.isin
    monkeypatch.setattr(np, "isin", lambda *a: rounds.append(1) or isin(*a))

    def people(index):
        return batches.labels[batches._positions(1, index, np.random.default_rng(0))][::2].tolist()

    for index in (7, 0, 60, 33, *range(100)):
        assert people(index) == slow(index)
    assert len(rounds) < 200
    batches = pickle.loads(pickle.dumps(batches))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(people, reversed(range(100))))
    assert found == [slow(index) for index in reversed(range(100))]
    # All images in random order, too; of what is shared nobody may change anything.
    batches = ImageBatches(records, (8, 4), batch_size=4, seed=3)
    order = np.random.default_rng([3, 1, 1]).permutation(20)
    drawn, generator = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda s: drawn.append(s) or generator(s))
    for index in (4, 0, 2):
        found = batches._positions(1, index, None)
        assert found.tolist() == order[4 * index : 4 * index + 4].tolist()
        assert not found.flags.writeable
    assert len(drawn) <= 1


def test_a_person_with_few_images_is_drawn_with_replacement(tmp_path):
    records = save_records(tmp_path, {1: 2, 2: 7}, lambda n: np.full((8, 4, 3), 10 * n, np.uint8))
    batches = ImageBatches(records, (8, 4), people_per_batch=2, images_per_person=4)
    for batch in epochs_of(batches, 20):
        shown = batch["image"][:, 0, 0, 0] // 10
        assert set(shown[batch["person"] == 0]) <= {0, 1}
        assert len(set(shown[batch["person"] == 1])) == 4


def test_groups_and_images_without_a_label_share_a_batch_as_they_share_the_records(records):
    hidden = {n for n in range(20) if n % 4 > 1}  # each person keeps two labels: half of all
    batches = PairBatches(
        without_labels(records, hidden), (48, 24), people_per_batch=4, images_per_person=2
    )
    assert len(batches) == 20 // 8
    visits = collections.Counter()
    for batch in epochs_of(batches, 10):
        labels, shown = batch["person"][:4].reshape(2, 2), numbers(batch["hr"])
        assert (labels[:, 0] == labels[:, 1]).all() and labels[0, 0] != labels[1, 0]
        assert (batch["person"][4:] == -1).all()
        assert [records[n].person for n in shown[:4]] == ["abcde"[i] for i in labels.ravel()]
        assert not hidden & set(shown[:4]) and hidden >= set(shown[4:])
        assert len(set(shown)) == 8
        visits.update(shown)
    assert set(visits) == set(range(20))
    # Those without a label come in rounds: 8 of the 10 an epoch, none of them twice.
    shown = [n for batch in epochs_of(batches, 1) for n in numbers(batch["hr"])[4:]]
    assert len(set(shown)) == len(shown) == 8


@pytest.mark.parametrize(
    "hidden, groups",
    [
        ({0}, 4),  # 3.8 of 4 people, rounded
        (set(range(4)) | {4, 8}, 3),  # 2.8
        (set(range(20)) - {0, 1, 4, 5}, 2),  # 0.8, but one person makes no triplet
        (set(range(20)), 0),
    ],
)
def test_people_a_batch_go_by_the_share_of_labels(records, hidden, groups):
    some = without_labels(records, hidden)
    batches = PairBatches(some, (8, 4), people_per_batch=4, images_per_person=2)
    for batch in epochs_of(batches, 3):
        labels = batch["person"]
        assert len(labels) == 8 and (labels >= 0).sum() == 2 * groups
        assert len(set(labels) - {-1}) == groups


def test_without_any_label_people_are_not_grouped(records):
    batches = ImageBatches(
        without_labels(records, range(20)), (48, 24), people_per_batch=2, images_per_person=2
    )
    assert len(batches) == 5 and batches.people == 0
    shown = [n for batch in epochs_of(batches, 1) for n in numbers(batch["image"])]
    assert sorted(shown) == list(range(20))


# --- high resolution drawn on its own --------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"batch_size": 10}, {"people_per_batch": 3, "images_per_person": 2}]
)
def test_independent_images_come_beside_the_pairs(records, options):
    options = {"image_size": (48, 24), **options}
    batches = PairBatches(records, independent=True, **options)
    drawn, alike, orders = epochs_of(batches, 4), 0, []
    for batch, pair in zip(drawn, epochs_of(PairBatches(records, **options), 4), strict=True):
        assert set(batch) == {"hr", "hr_person", "target", "lr", "person", "rate"}
        assert batch["hr"].dtype == np.uint8 and batch["hr_person"].dtype == np.int32
        for name in ("lr", "person", "rate"):
            np.testing.assert_array_equal(batch[name], pair[name])
        np.testing.assert_array_equal(batch["target"], pair["hr"])
        shown = numbers(batch["hr"])
        assert [records[n].person for n in shown] == ["abcde"[i] for i in batch["hr_person"]]
        alike += sum(n == m for n, m in zip(shown, numbers(batch["target"]), strict=True))
        orders.append(shown)
        if "people_per_batch" in options:
            labels = batch["hr_person"].reshape(3, 2)
            assert (labels[:, 0] == labels[:, 1]).all() and len(set(labels[:, 0])) == 3
    assert alike < 0.3 * sum(map(len, orders))  # by chance, one in twenty
    assert len(set(map(tuple, orders))) == len(orders)
    if "batch_size" in options:  # each image once an epoch
        assert sorted(orders[0] + orders[1]) == sorted(orders[2] + orders[3]) == list(range(20))


def test_independent_images_are_of_high_resolution_with_crops_of_their_own(records, ramps):
    batch = PairBatches(records, (64, 32), rates=(4,), independent=True, batch_size=20, **PLAIN)[0]
    for view in ("hr", "target"):
        for image, number in zip(batch[view], numbers(batch[view]), strict=True):
            np.testing.assert_array_equal(image, resize(records[number].read(), (64, 32)))
    # All of these are one image, so that only crops and flips tell them apart.
    batch = PairBatches(ramps, (128, 64), rates=(2,), independent=True, batch_size=32)[0]
    same = (batch["hr"] == batch["target"]).all((1, 2, 3))
    assert same.mean() < 0.2
    assert len({image.tobytes() for image in batch["hr"]}) > 25


def test_independent_images_without_labels(records):
    hidden = {n for n in range(20) if n % 4 > 1}
    batches = PairBatches(
        without_labels(records, hidden), (48, 24), people_per_batch=4, images_per_person=2,
        independent=True,
    )  # fmt: skip
    for batch in epochs_of(batches, 5):
        for view, labels in (("hr", "hr_person"), ("target", "person")):
            assert (batch[labels][:4] >= 0).all() and (batch[labels][4:] == -1).all()
            assert [n in hidden for n in numbers(batch[view])] == 4 * [False] + 4 * [True]


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [PairBatches, ImageBatches])
def test_a_person_with_a_single_image_is_named(records, make):
    alone = [*records, Record("x/anna_0.png", "anna", 1)]
    with pytest.raises(InputError, match=r"person anna has a single .*anna_0\.png"):
        make(alone)
    with pytest.raises(InputError, match=r"person anna \(and 1 other people\)"):
        make([*alone, Record("x/ben_0.png", "ben", 1)])
    with pytest.raises(InputError, match="no training images"):
        make([])
    assert check_people(records)["e"] == [0, 1, 2, 3]


def test_other_bad_input_is_refused(records):
    for options, expected in (
        ({"rates": (2, 0.5)}, "rate 0.5 is below 1"),
        ({"rates": ()}, "no rates"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"steps": 0}, "steps is 0"),
    ):
        with pytest.raises(InputError, match=expected):
            PairBatches(records, **options)
    for make in (PairBatches, ImageBatches):
        with pytest.raises(InputError, match="6 people a batch, but there are 5"):
            make(records, people_per_batch=6)
    few = without_labels(records, range(2, 20))
    with pytest.raises(InputError, match="2 people a batch, but there are 1"):
        PairBatches(few, people_per_batch=4)


@pytest.mark.parametrize("kind", [PairBatches, ImageBatches])
def test_an_unknown_argument_is_refused(records, kind):
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        kind(records, colour=True)


def test_a_broken_image_is_named_before_training(records):
    Path(records[-1].path).write_text("not an image")
    batches = PairBatches(records, batch_size=4)
    model = Recorder()
    with pytest.raises(InputError, match=os.path.basename(records[-1].path)):
        model.fit(batches, shuffle=False, verbose=0)
    assert model.seen == []


# --- a pure function of (seed, epoch, index) -------------------------------------------------


def test_a_batch_depends_on_seed_epoch_and_index_alone(records):
    for make, more in (
        (PairBatches, {}),
        (ImageBatches, {"rates": (1, 2, 4)}),
        (ImageBatches, {"people_per_batch": 2, "images_per_person": 2}),
        (PairBatches, {"people_per_batch": 2, "images_per_person": 2, "independent": True}),
    ):
        options = {"image_size": (16, 8), "batch_size": 4, "erase": True, "jitter": True}
        options |= more
        first, second = make(records, **options), make(records, **options)
        expected = first[0]
        second.epoch = 2
        second[3]
        second.epoch = 0
        assert_equal(expected, second[0])
        # No two of them are alike.
        pixels = "hr" if make is PairBatches else "image"
        drawn = {
            batches[index][pixels].tobytes()
            for seed in (0, 1)
            for epoch in (0, 1)
            for batches in [at_epoch(make(records, seed=seed, **options), epoch)]
            for index in (0, 1)
        }
        assert len(drawn) == 8


def at_epoch(batches, epoch):
    batches.epoch = epoch
    return batches


def test_changing_the_memory_limit_changes_no_batch(records, monkeypatch):
    expected = epochs_of(PairBatches(records, (16, 8), batch_size=5), 1)
    monkeypatch.setattr(decoded, "MEMORY_BYTES", 3 * records[0].read().nbytes)
    little_memory = PairBatches(records, (16, 8), batch_size=5)
    for batch, other in zip(expected, epochs_of(little_memory, 1), strict=True):
        assert_equal(batch, other)
    assert len(little_memory._images) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4, "steps": 3, "jitter": True},
        {"people_per_batch": 3, "images_per_person": 2, "independent": True},
    ],
)
def test_workers_give_the_same_batches(records, options):
    if "independent" in options:
        records = without_labels(records, range(0, 20, 2))
    options = {"image_size": (16, 8), **options}
    expected = epochs_of(PairBatches(records, **options), 4)
    batches = PairBatches(records, workers=2, **options)
    for batch, other in zip(expected, epochs_of(batches, 2), strict=False):
        assert_equal(batch, other)
    # Neither drawing at will nor setting the epoch puts them out of step.
    batches[2], batches[0]
    for epoch in (3, 1):
        batches.epoch = epoch
        for index in range(3):
            assert_equal(batches[index], expected[3 * epoch + index])


def test_batches_of_workers_may_be_kept_changed_and_drawn_in_any_order(records):
    options = {"image_size": (16, 8), "people_per_batch": 2, "images_per_person": 3}
    alone, batches = ImageBatches(records, **options), ImageBatches(records, workers=2, **options)
    order = np.random.default_rng(0).integers((6, 3), size=(60, 2)).tolist()
    drawn = [at_epoch(batches, epoch)[index] for epoch, index in order]  # more than there is room
    for batch, (epoch, index) in zip(drawn, order, strict=True):
        expected = alone.batch(epoch, index)
        assert_equal(batch, expected)
        assert all(value.flags.writeable for value in batch.values())
        batch["image"][:] = 7  # changes neither another batch nor a later one
    assert_equal(at_epoch(batches, 0)[0], alone.batch(0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm")
def test_workers_leave_no_shared_memory_behind(records):
    before = set(os.listdir("/dev/shm"))
    batches = PairBatches(records, (16, 8), batch_size=4, workers=2)
    batches[0]
    assert {n for n in os.listdir("/dev/shm") if not n.startswith("sem.")} <= before
    workers = list(batches._ahead._pool._processes)
    del batches
    deadline = time.time() + 10
    while any(map(alive, workers)) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


@pytest.mark.parametrize("kept", [pytest.param(False, marks=pytest.mark.slow), True])
def test_started_afresh_workers_give_the_same_batches(records, monkeypatch, tmp_path, kept):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(workers_module, "START_METHOD", "spawn")
    monkeypatch.setattr(decoded, "STORE_FROM", 1 if kept else 200)
    options = {"image_size": (16, 8), "batch_size": 4}
    assert_equal(PairBatches(records, workers=1, **options)[2], PairBatches(records, **options)[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_run_decodes_nothing(records, monkeypatch, tmp_path, workers):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(decoded, "STORE_FROM", 1)
    options = {"image_size": (16, 8), "batch_size": 4}
    expected = epochs_of(PairBatches(records, **options), 1)
    monkeypatch.setattr(Record, "read", lambda self: pytest.fail("an image was decoded again"))
    drawn = epochs_of(PairBatches(records, workers=workers, **options), 1)
    for batch, other in zip(drawn, expected, strict=True):
        assert_equal(batch, other)


def test_a_broken_image_is_named_by_workers(records, monkeypatch):
    monkeypatch.setattr(decoded, "MEMORY_BYTES", 1)  # so that they are read by the workers
    Path(records[-1].path).write_text("not an image")
    batches = PairBatches(records, (16, 8), batch_size=4, workers=1)
    with pytest.raises(InputError, match=os.path.basename(records[-1].path)):
        epochs_of(batches, 1)


def begin_and_wait(records, pipe):
    batches = PairBatches(records, (16, 8), workers=2)
    batches[0]
    pipe.send(list(batches._ahead._pool._processes))
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_killed_run(records):
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    run = context.Process(target=begin_and_wait, args=(records, theirs))
    run.start()
    assert mine.poll(20)
    workers = mine.recv()
    assert len(workers) == 2 and all(map(alive, workers))
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    deadline = time.time() + 10
    while any(map(alive, workers)) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the pool")
def test_workers_leave_ctrl_c_to_the_run_and_a_killed_one_is_told_in_one_line(records):
    batches = PairBatches(records, (16, 8), batch_size=4, workers=2)
    batches[0]
    workers = list(batches._ahead._pool._processes)
    for worker in workers:
        os.kill(worker, signal.SIGINT)
    expected = PairBatches(records, (16, 8), batch_size=4)
    for index in (1, 2, 3, 0, 1, 2):  # more than are waiting already
        assert_equal(batches[index], expected[index])
    assert list(batches._ahead._pool._processes) == workers and all(map(alive, workers))
    os.kill(workers[0], signal.SIGKILL)
    with pytest.raises(InputError, match=r"memory: give fewer --workers, .* --resume"):
        for index in (0, 1, 2, 3, 4) * 20:
            batches[index]
            time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- in fit, on this backend -----------------------------------------------------------------


class Recorder(keras.Model):
    """Notes what reaches a training step."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = []
        self.compile(optimizer="sgd", run_eagerly=True)

    def call(self, batch):
        return self.dense(keras.ops.cast(batch["lr"], "float32") / 255)

    def train_step(self, *arguments):
        batch = arguments[-1]
        self.seen.append({k: keras.ops.convert_to_numpy(v) for k, v in batch.items()})
        logs = {"loss": 0.0}
        return (logs, arguments[0]) if keras.backend.backend() == "jax" else logs


@pytest.mark.backend
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("built", [True, False])
def test_fit_sees_each_epochs_batches_in_order_and_resumes(records, workers, built):
    def fit(epoch, initial_epoch, epochs):
        model = Recorder()
        batches = PairBatches(records, (16, 8), batch_size=6, workers=workers)
        batches.epoch = epoch
        if built:
            model(batches[0])
        model.fit(batches, initial_epoch=initial_epoch, epochs=epochs, shuffle=False, verbose=0)
        assert batches.epoch == epochs
        return model.seen

    expected = epochs_of(PairBatches(records, (16, 8), batch_size=6), 3)
    assert len(expected) == 9
    whole, resumed = fit(0, 0, 3), fit(1, 1, 3)
    assert (len(whole), len(resumed)) == (9, 6)
    for seen, wanted in ((whole, expected), (resumed, expected[3:])):
        for batch, other in zip(seen, wanted, strict=True):
            assert_equal(batch, other)


@pytest.mark.backend
def test_fit_sees_images_that_were_drawn_on_their_own(records):
    options = {"people_per_batch": 2, "images_per_person": 3, "independent": True}
    model = Recorder()
    model.fit(PairBatches(records, (16, 8), **options), shuffle=False, verbose=0)
    expected = epochs_of(PairBatches(records, (16, 8), **options), 1)
    for batch, other in zip(model.seen, expected, strict=True):
        assert_equal(batch, other)


@pytest.mark.backend
def test_two_fits_go_on_where_the_first_ended(records):
    model = Recorder()
    batches = PairBatches(records, (16, 8), batch_size=6)
    for _ in range(2):
        model.fit(batches, shuffle=False, verbose=0)
    for batch, other in zip(
        model.seen, epochs_of(PairBatches(records, (16, 8), batch_size=6), 2), strict=True
    ):
        assert_equal(batch, other)


@pytest.mark.backend
@pytest.mark.parametrize("batch_size", [20, 10, 5])
def test_fit_begins_with_the_first_epoch_however_few_batches_it_has(records, batch_size):
    # TensorFlow draws up to two batches beforehand.
    model = Recorder()
    model(PairBatches(records, (16, 8), batch_size=batch_size)[0])
    batches = PairBatches(records, (16, 8), batch_size=batch_size)
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    assert batches.epoch == 2
    expected = epochs_of(PairBatches(records, (16, 8), batch_size=batch_size), 2)
    for batch, other in zip(model.seen, expected, strict=True):
        assert_equal(batch, other)


@pytest.mark.backend
def test_an_epoch_that_was_cut_short_does_not_count(records):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    batches = PairBatches(records, (16, 8), batch_size=1)
    Recorder().fit(batches, shuffle=False, verbose=0, callbacks=[Stop()])
    if keras.backend.backend() != "tensorflow":  # which draws ahead, up to the end of the epoch
        assert batches.epoch == 0


@pytest.mark.parametrize("grouped", [{}, {"people_per_batch": 2, "images_per_person": 2}])
def test_a_batch_is_of_one_camera(records, grouped):
    """Each camera comes as often as it has images; the batches are a function of their place."""
    options = {"image_size": (48, 24), "batch_size": 4, "one_camera": True, **PLAIN, **grouped}
    batches = ImageBatches(records, seed=3, **options)
    of_camera, came = collections.Counter(r.camera for r in records), collections.Counter()
    for epoch in range(60):
        for index in range(len(batches)):
            batch = batches.batch(epoch, index)
            (camera,) = set(batch["camera"].tolist())
            came[camera] += 1
            shown = [records[i] for i in numbers(batch["image"])]
            assert {record.camera for record in shown} == {camera} and len(shown) == 4
            labels = [sorted("abcde").index(record.person) for record in shown]
            assert batch["person"].tolist() == labels
            if grouped:
                assert labels[0] == labels[1] != labels[2] == labels[3]
    for camera, count in of_camera.items():
        assert abs(came[camera] / came.total() - count / len(records)) < 0.1
    assert_equal(ImageBatches(records, seed=3, **options).batch(2, 1), batches.batch(2, 1))
