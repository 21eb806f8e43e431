import dataclasses
import errno
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_xreid.data import decoded
from keras_xreid.data.datasets import Record
from keras_xreid.data.decoded import DecodedImages, decode
from keras_xreid.errors import InputError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of its own, in which even a few images are kept."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(decoded, "STORE_FROM", 1)
    return tmp_path / "home" / "keras_xreid" / "decoded"


@pytest.fixture
def records(tmp_path):
    """Images of different sizes, PNG and JPEG, in color and in grey."""
    records = []
    for number, (height, width) in enumerate([(48, 24), (31, 17), (1, 1), (64, 32)]):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise).convert("L" if number == 1 else "RGB")
        path = tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}"
        image.save(path)
        records.append(Record(str(path), number, 1))
    return records


def assert_decoded(images, records):
    assert len(images) == len(records)
    for image, record in zip(images, records, strict=True):
        assert image.dtype == np.uint8 and not image.flags.writeable
        np.testing.assert_array_equal(image, record.read())


def test_images_are_those_of_the_records_and_come_from_one_file(home, records, monkeypatch):
    images = decode(records)
    assert isinstance(images, DecodedImages)
    assert_decoded(images, records)
    (file,) = home.iterdir()
    pixels = 3 * (48 * 24 + 31 * 17 + 1 + 64 * 32)
    assert file.stat().st_size == pixels + 4 * 8 + 32 + 16
    expected = [record.read() for record in records]
    monkeypatch.setattr(Record, "read", lambda self: pytest.fail("decoded again"))
    for image, other in zip(decode(records), expected, strict=True):
        np.testing.assert_array_equal(image, other)
    with pytest.raises(IndexError):
        images[4]


def test_the_file_goes_by_content(home, records, tmp_path):
    decode(records)
    (first,) = home.iterdir()
    # Other names and times of the same content share it.
    moved = []
    for record in records:
        path = tmp_path / f"moved_{Path(record.path).name}"
        path.write_bytes(Path(record.path).read_bytes())
        moved.append(Record(str(path), "another", 7))
    assert_decoded(decode(moved), records)
    assert list(home.iterdir()) == [first]
    # Another order, fewer images, a rate, a kernel, or one other pixel do not.
    low, lower, other = (
        [dataclasses.replace(record, rate=rate, kernel=kernel) for record in records]
        for rate, kernel in ((2, "area"), (4, "area"), (4, "bicubic"))
    )
    for others in (records[::-1], records[:3], low, lower, other):
        assert_decoded(decode(others), others)
    image = records[0].read()
    image[5, 6, 1] ^= 1
    size, times = os.path.getsize(records[0].path), os.stat(records[0].path)
    Image.fromarray(image).save(records[0].path)
    assert abs(os.path.getsize(records[0].path) - size) < 9
    os.utime(records[0].path, ns=(times.st_atime_ns, times.st_mtime_ns))
    np.testing.assert_array_equal(decode(records)[0], image)
    assert len(list(home.iterdir())) == 7


def test_images_of_one_container_are_kept_apart(home, tmp_path, monkeypatch):
    container = tmp_path / "images.mat"
    container.write_bytes(b"all of them")
    monkeypatch.setattr(Record, "read", lambda self: np.full((4, 2, 3), int(self.key), np.uint8))
    for keys in ("12", "21", "13"):
        records = [Record(str(container), 1, 1, key=key) for key in keys]
        assert [image[0, 0, 0] for image in decode(records)] == [int(key) for key in keys]
    assert len(list(home.iterdir())) == 3


@pytest.mark.parametrize("contained", [False, True])
def test_an_image_that_changes_after_it_was_hashed_is_not_kept(
    home, records, monkeypatch, caplog, contained
):
    """Else what the first content is called by would be the pixels of the second, for good."""
    if contained:  # as of CUHK03: one file, whose bytes are the pixels
        records = [dataclasses.replace(records[0], key=key) for key in "12"]

        def read(self):
            return np.full((4, 2, 3), os.path.getsize(self.path) % 256, np.uint8)

        monkeypatch.setattr(Record, "read", read)
    path, write = Path(records[0].path), decoded._write
    first = path.read_bytes()

    def late(*arguments):
        Image.new("RGB", (4, 4), (255, 0, 0)).save(path)
        write(*arguments)

    monkeypatch.setattr(decoded, "_write", late)
    assert_decoded(decode(records), records)
    (message,) = caplog.messages
    assert "an image was changed" in message and "stay in memory" in message
    assert not list(home.iterdir())
    monkeypatch.setattr(decoded, "_write", write)
    path.write_bytes(first)
    assert_decoded(decode(records), records)
    assert len(list(home.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[1:],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"x",
        lambda content: bytes(len(content)),
        lambda content: content[:-48] + bytes(32) + content[-16:],  # of another key
        lambda content: content[:-80] + b"\xff" * 32 + content[-48:],  # sizes
    ],
)
def test_a_file_that_is_not_whole_is_built_again(home, records, damage):
    decode(records)
    (file,) = home.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert_decoded(decode(records), records)
    assert list(home.iterdir()) == [file] and file.read_bytes() == whole


@pytest.mark.parametrize("reason", ["unwritable", "full"])
def test_where_nothing_can_be_kept_images_stay_in_memory(
    home, records, monkeypatch, caplog, reason
):
    if reason == "unwritable":  # a file where the folder should be: holds for root too
        home.parent.parent.mkdir()
        home.parent.write_text("")
    else:

        def fsync(file):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
    images = decode(records)
    assert isinstance(images, list)
    assert_decoded(images, records)
    (message,) = caplog.messages
    assert str(home) in message and "stay in memory" in message and "\n" not in message
    assert reason == "unwritable" or not list(home.iterdir())
    monkeypatch.setattr(decoded, "MEMORY_BYTES", records[0].read().nbytes)
    assert len(decode(records)) == 2


def test_few_images_are_not_worth_a_file(home, records, monkeypatch):
    monkeypatch.setattr(decoded, "STORE_FROM", 5)
    assert_decoded(decode(records), records)
    assert not home.exists()


def test_broken_and_missing_images_are_named(home, records):
    Path(records[2].path).write_bytes(Path(records[2].path).read_bytes()[:40])
    with pytest.raises(InputError, match=r"2\.png"):
        decode(records)
    assert not list(home.iterdir())
    os.remove(records[1].path)
    with pytest.raises(InputError, match=r"cannot read image .*1\.jpg"):
        decode(records)


def test_a_process_is_sent_the_files_path_only(records):
    images = decode(records)
    sent = pickle.dumps(images)
    assert len(sent) < 500
    assert_decoded(pickle.loads(sent), records)


def decode_and_tell(records, barrier, queue):
    barrier.wait()
    queue.put([int(image.sum()) for image in decode(records)])


def test_two_processes_may_build_at_once(home, records):
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    both = [context.Process(target=decode_and_tell, args=(records, barrier, queue)) for _ in "ab"]
    for process in both:
        process.start()
    sums = [int(record.read().sum()) for record in records]
    assert [queue.get(timeout=20) for _ in both] == [sums, sums]
    for process in both:
        process.join()
    assert len(list(home.iterdir())) == 1
    assert_decoded(decode(records), records)
