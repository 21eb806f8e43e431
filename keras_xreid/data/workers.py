"""Processes that make the coming batches."""

import concurrent.futures
import contextlib
import copy
import functools
import math
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from keras_xreid.errors import InputError

# Forked workers start in milliseconds. They use Pillow and NumPy only, so no lock held by a thread
# of the backend can stop them. Elsewhere than on Linux, fork is not to be relied on: there each
# worker imports the package.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


@contextlib.contextmanager
def _told_of_loss():
    """Says in one line that a worker was killed."""
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepares batches was killed, as a system does that runs out of memory: "
            "give fewer --workers, and go on from the last finished epoch with --resume"
        ) from error


class Ahead:
    """Has worker processes make the coming batches, over the end of the epoch.

    A worker is told epoch and index, so which batch comes when does not depend on timing. Forked
    workers leave the pixels in memory that they share with this process, and send the rest: memory
    without a name, which ends with the last process that has it. Batches are copied out of it,
    since nobody knows when a backend is done with them.
    """

    def __init__(self, batches, processes):
        workers_copy = copy.copy(batches)
        self._batches, self._steps = workers_copy, len(batches)
        self._window = 2 * processes + 1
        self._lock = threading.Lock()
        self._futures = {}  # (epoch, index) -> place, future
        slots, self._places = None, []
        if START_METHOD == "fork":
            images = len(batches._positions(0, 0, batches._generator(0, 0))) // batches.share[1]
            shape = (len(batches._names), images, *batches.image_size, 3)
            # Beside those waited for, the pool may be at work on as many that are not any more.
            self._places = list(range(2 * self._window))
            memory = mmap.mmap(-1, len(self._places) * math.prod(shape))
            slots = np.frombuffer(memory, np.uint8).reshape(-1, *shape)
        elif isinstance(batches._images, list):
            workers_copy._images = None
        self._slots = slots
        self._pool = concurrent.futures.ProcessPoolExecutor(
            processes,
            multiprocessing.get_context(START_METHOD),
            _begin_worker,
            (workers_copy, slots),
        )
        # Not left to the end of the interpreter, which takes the pool's modules away before it.
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        with _told_of_loss(), warnings.catch_warnings():  # see START_METHOD
            warnings.filterwarnings("ignore", message=".*fork")
            self._pool.submit(os.getpid).result()

    @_told_of_loss()
    def get(self, epoch, index):
        numbers = range(index, index + self._window)
        keys = [(epoch + i // self._steps, i % self._steps) for i in numbers]
        # TensorFlow may draw from two threads for a moment, when one iterator follows another.
        with self._lock:
            for key in self._futures.keys() - set(keys):
                place, future = self._futures.pop(key)
                future.add_done_callback(functools.partial(self._give_back, place))
                future.cancel()
            for key in keys:
                if key not in self._futures:
                    place = self._places.pop() if self._places else None
                    self._futures[key] = place, self._pool.submit(_make_batch, *key, place)
            place, wanted = self._futures.pop(keys[0])
        try:
            pixels, entries = wanted.result()
            if pixels is None:
                pixels = self._slots[place].copy()
        finally:
            self._give_back(place)
        return self._batches._named(pixels, entries)

    def _give_back(self, place, future=None):
        if place is not None:
            self._places.append(place)


def _begin_worker(batches, slots):
    global _worker_batches, _worker_slots
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a training's own answer is not a worker's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the training ends them
    _worker_batches, _worker_slots = batches, slots
    batches._images = batches._images or batches._read_images()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """A killed run leaves no process behind that waits for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _make_batch(epoch, index, place):
    """Makes a batch in its place in the shared memory; without a place, sends its pixels too."""
    share = _worker_batches.share
    if place is None:
        return _worker_batches._make(epoch, index, share=share)
    _, entries = _worker_batches._make(epoch, index, _worker_slots[place], share)
    return None, entries
