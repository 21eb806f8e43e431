"""A run that was stopped goes on exactly where its last finished epoch ended."""

import contextlib
import csv
import io
import json
import os
import time
import warnings
from pathlib import Path

import h5py
import keras

from keras_xreid.errors import InputError
from keras_xreid.files import room_of, write_text_atomic, writing
from keras_xreid.training import processes


class Checkpoint(keras.callbacks.Callback):
    """Saves model, optimizers, seeds and the place in the data after every epoch.

    A file appears under its final name only when it is whole, so a run may be killed at any
    moment, and a full disk leaves the checkpoint before. With `fit(batches, shuffle=False)` the
    final weights of a resumed run equal those of one that never stopped, bit by bit, on the same
    backend and machine. Of several processes the first one writes, and all read.

    Args:
        path: where the checkpoint is kept, `*.weights.h5`.
        batches: the `PairBatches` or `ImageBatches` that the model is trained on.
        stage: name of this training in the history.
        rows: list of earlier stages' history rows, which this one's rows are added to.
        history: CSV file to write the rows to, or None.

    Where the file is there, `fit` goes on after its last finished epoch, as with Keras's
    `BackupAndRestore`.

    Example:

    >>> checkpoint = Checkpoint("run/intact.weights.h5", batches)
    >>> model.fit(batches, epochs=10, shuffle=False, callbacks=[checkpoint])
    """

    def __init__(self, path, batches, stage="train", rows=(), history=None):
        super().__init__()
        self.path, self.batches, self.stage = Path(path), batches, stage
        self.rows, self.history = list(rows), history

    def restore(self, model):
        """Loads the last finished epoch, if there is one, into a compiled model and the batches.

        Args:
            model: the model, compiled as it was.

        Returns:
            The number of finished epochs.

        Raises:
            InputError: where the checkpoint belongs to another model, optimizer or other batches.
        """
        if not self.path.exists():
            return 0
        try:
            with warnings.catch_warnings():  # where Keras would go on with a fresh optimizer
                warnings.filterwarnings("error", "Skipping variable loading for optimizer")
                model.load_weights(self.path)
            with h5py.File(self.path) as file:
                epoch = int(file.attrs["epoch"])
                self.rows = json.loads(file.attrs["rows"])
                begun = json.loads(file.attrs.get("batches", "{}"))
            now = self._batches()
            for name, value in begun.items():
                if value != now[name]:
                    raise ValueError(f"{name} of its batches was {value}, and is {now[name]}")
        except (ValueError, KeyError, OSError, UserWarning) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{self.path} is no checkpoint of this model ({reason}): "
                "resume with the options of the first start, or start again"
            ) from error
        # The run may have been killed between the two files.
        if self.history is not None and processes.first():
            write_history(self.history, self.rows)
        self.batches.epoch = epoch
        return epoch

    def on_train_begin(self, logs=None):
        first = self.restore(self.model)
        processes.check_same("the last finished epoch", first)
        if first:
            print(f"{self.stage}: going on after epoch {first} of {self.params['epochs']}")
            self.model._initial_epoch = first  # as BackupAndRestore does

    def on_train_end(self, logs=None):
        self.leave(self.model)

    def leave(self, model):
        """What `PhasedModel.fit` calls in the end, also where it was interrupted."""
        model._initial_epoch = 0  # of this training; another one begins at its beginning

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._start
        images = len(self.batches) * self.batches.batch_size
        images *= getattr(self.batches, "images_each", 1)
        self.rows.append(
            {
                "stage": self.stage,
                "epoch": epoch + 1,
                **{name: float(value) for name, value in (logs or {}).items()},
                "images": images,
                "seconds": seconds,
                "images_per_second": images / seconds,
            }
        )
        if processes.first():
            self._save(epoch + 1)
            if self.history is not None:
                write_history(self.history, self.rows)

    def _save(self, epoch):
        """Writes the checkpoint; on a full disk the one before stays."""
        unfinished = self.path.with_name("unfinished-" + self.path.name)
        weights = self.model.variables  # once more, for those that are saved after it
        room = room_of([*weights, *weights, *self.model.optimizer.variables])
        with writing(self.path, room, reserve=True):
            try:
                self.model.save_weights(unfinished, overwrite=True)
                with h5py.File(unfinished, "a") as file:
                    file.attrs["epoch"] = epoch
                    file.attrs["rows"] = json.dumps(self.rows)
                    file.attrs["batches"] = json.dumps(self._batches(), default=int)
                os.replace(unfinished, self.path)
            finally:
                with contextlib.suppress(OSError):
                    unfinished.unlink()

    def _batches(self):
        """What the order of images depends on: other batches would go on with other images."""
        told = {name: getattr(self.batches, name, None) for name in ("seed", "people")}
        return {**told, "batch_size": self.batches.batch_size, "steps": len(self.batches)}


def write_history(path, rows):
    """Writes history rows as CSV: a column for every loss of any stage, empty where it has none.

    Args:
        path: the file, written whole or not at all.
        rows: list of dicts.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: name in ("images", "seconds", "images_per_second"))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())
