"""Parts that are introduced one after the other, and frozen once they are trained."""

import keras
import numpy as np

from keras_xreid.errors import InputError


class Progressive(keras.callbacks.Callback):
    """Introduces masks in turn: each is trained for some epochs, then frozen for good.

    Everything else trains all the time (Algorithm 1). What is trained depends on the number of the
    epoch alone, so a run can be stopped and resumed at any epoch.

    Args:
        masks: list of layers with a variable `introduced`, the one to begin with first.
        epochs: list of ints, epochs that each is trained, as long as `masks`; the last goes on as
            long as training does.

    Raises:
        InputError: another number of epochs than of masks, or fewer than 1.

    Example:

    >>> progressive = Progressive(model.masks[::-1], epochs=[3, 3, 3, 3])
    >>> model.fit(batches, epochs=12, callbacks=[progressive])

    Reference:
        Wu et al., Learning Resolution-Adaptive Representations, Algorithm 1.
    """

    def __init__(self, masks, epochs):
        super().__init__()
        self.masks, self.epochs = list(masks), [int(n) for n in epochs]
        if len(self.epochs) != len(self.masks) or min(self.epochs, default=1) < 1:
            raise InputError(
                f"epochs {self.epochs} for {len(self.masks)} masks: give one number, 1 or more, "
                "for each"
            )
        self.current = None

    @classmethod
    def shared(cls, masks, epochs, shares=None, equal=False):
        """The callback for `epochs` epochs in all; none where there is no mask to introduce.

        Args:
            masks: as above.
            epochs: int, epochs of the training.
            shares: ints, the epochs of each mask; equal ones if None.
            equal: bool, refuse unequal shares.

        Returns:
            A list of one callback, or an empty one.

        Raises:
            InputError: shares that are not `epochs` in all, or not equal.
        """
        if not masks:
            return []
        if shares is None:
            if epochs < len(masks):
                print(f"In {epochs} epochs only the deepest of {len(masks)} masks are introduced")
            shares = [max(1, len(s)) for s in np.array_split(np.arange(epochs), len(masks))]
        elif len(shares) == len(masks) and sum(shares) != epochs:
            raise InputError(
                f"the masks' epochs {' '.join(map(str, shares))} are {sum(shares)} in all, and "
                f"there are {epochs} epochs: give as many"
            )
        if equal and len(set(shares)) > 1:
            raise InputError(
                f"restart takes as many epochs for each mask, and they have {shares}: give epochs "
                f"that {len(masks)} divides"
            )
        return [cls(masks, shares)]

    def on_train_begin(self, logs=None):
        self.current = None

    def on_epoch_begin(self, epoch, logs=None):
        ends = np.cumsum(self.epochs[:-1])
        current = int(np.searchsorted(ends, epoch, side="right"))
        if not self.masks or current == self.current:
            return
        self.current = current
        for place, mask in enumerate(self.masks):
            mask.introduced.assign(float(place <= current))
            mask.trainable = place == current
        # TensorFlow would go on training what it traced, and JAX could take one frozen layer for
        # another, where their variables' shapes follow each other alike: both trace the step anew.
        self.model.make_train_function(force=True)

    def on_epoch_end(self, epoch, logs=None):
        if not self.masks:
            return
        deviation, apart = self.masks[self.current].spread
        logs.update(mask_deviation=deviation, mask_difference=apart)
        if epoch + 1 in np.cumsum(self.epochs):
            print(
                f"{self.masks[self.current].name}: deviation of its logits {deviation:.3f}, "
                f"difference between levels {apart:.3f}"
            )

    def on_train_end(self, logs=None):
        self.leave(self.model)

    def leave(self, model):
        """What `PhasedModel.fit` calls in the end, also where it was interrupted."""
        for mask in self.masks:
            mask.trainable = True
        if self.masks:
            model.train_function = None  # whoever goes on training makes it anew
