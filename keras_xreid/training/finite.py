"""Training stops where a number is no number."""

import keras
import numpy as np

from keras_xreid.errors import InputError


class StopWhereNotFinite(keras.callbacks.Callback):
    """Ends training at the first step whose terms are not finite; `fit` puts it before all others.

    It reads the logs that Keras hands to every callback, so that the device waits no oftener. A
    gradient can be infinite where the loss is not: so at the end of an epoch, before anybody saves
    a checkpoint, it looks at the weights and at the state of the optimizers, too.

    Raises:
        InputError: with the epoch, the step and the term.
    """

    async_safe = True  # Keras may read the logs in a thread of its own

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # Means over the epoch: they stay infinite from the first such step on.
        wrong = {name: value for name, value in (logs or {}).items() if not np.isfinite(value)}
        terms = {name: value for name, value in wrong.items() if name != "loss"} or wrong
        if terms:
            self._stop(f"step {batch + 1}", *next(iter(terms.items())))

    def on_epoch_end(self, epoch, logs=None):
        for variable in (*self.model.variables, *self.model.optimizer.variables):
            if "float" in variable.dtype:
                value = keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
                if not np.isfinite(value).all():
                    self._stop("its end", variable.path, "not finite")

    def _stop(self, where, name, value):
        raise InputError(
            f"epoch {self.epoch + 1}, {where}: {name} is {value}; training stops, and nothing is "
            "saved of this epoch: give a lower learning rate, or look at images and labels"
        )
