"""How hard each term of a loss pulls, once an epoch."""

import keras


class TermNorms(keras.callbacks.Callback):
    """Adds the gradient norm of each weighted term to an epoch's logs, as "norm_TERM".

    Taken on the epoch's first batch, over all weights that the term's phase updates. Terms whose
    norms differ much do not weigh what their weights say. Give it before `Checkpoint`, which
    writes the logs into the history.

    Args:
        batches: the `PairBatches` or `ImageBatches` that the model is trained on.

    Example:

    >>> model.fit(batches, epochs=10, callbacks=[TermNorms(batches), checkpoint])
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_epoch_end(self, epoch, logs=None):
        norms = self.model.gradient_norms(self.batches.batch(epoch, 0))
        logs.update({f"norm_{term}": norm for term, norm in norms.items()})
        if norms:
            told = ", ".join(f"{term} {norm:.3g}" for term, norm in norms.items())
            print(f"Gradient norms: {told}")
