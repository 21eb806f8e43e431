"""A network for each rate: the naive rival of the adaptive system (Wu et al., Table III)."""

import keras
import numpy as np
from keras import ops

from keras_xreid.errors import InputError
from keras_xreid.models.adaptive import PRESETS, nearest_level
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.baseline import Baseline
from keras_xreid.models.presets import check_each_rate, preset_or


@keras.saving.register_keras_serializable("keras_xreid")
class OnePerRate(ReIDModel):
    """The naive rival of Table III: a network of its own for each rate.

    Query and gallery are both shrunk by the rate of the query, and the network of that rate, or of
    the nearest, compares them. The networks are `Baseline` with a verification term, in
    `networks`; each is trained on its own. Ours: they are compared by cosine as `Baseline` is, and
    have not the last dense layer v of `Adaptive`.

    Args:
        people: int, number of training people.
        preset: "paper", "strong" or "tiny", as of `Adaptive`; none has a triplet term.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone.
        image_size: (height, width).
        rates: rates of the networks.
        verification: float, weight of the verification term.
        weights: None, "imagenet" or a model to copy from, where the backbones start.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.

    Example:

    >>> model = OnePerRate(people=401, preset="tiny", rates=(2, 3, 4))
    >>> for rate, network in zip(model.rates, model.networks):
    ...     network.compile({part: Adam(3.5e-4) for part in ("network", "verifier")})
    ...     network.fit(ImageBatches(data.train, rates=(rate,), people_per_batch=8), epochs=10)
    >>> features = model.embed(images, rates=4)

    Reference:
        Wu et al., Learning Resolution-Adaptive Representations, Section V-E1, Table III.
    """

    # `evaluate` shrinks the gallery as it shrinks the query.
    gallery_at_query_rate = True
    normalizes_by_level = True

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, rates=(2, 3, 4),
        verification=0.5, weights=None, last_stride=1, label_smoothing=None, neck=None, flip=None,
        **kwargs,
    ):  # fmt: skip
        sizes = preset_or(PRESETS, preset, backbone=backbone, image_size=image_size, flip=flip)
        backbone = sizes.backbone
        super().__init__(people, backbone, sizes.image_size, last_stride, sizes.flip, **kwargs)
        check_each_rate(rates)
        self.preset, self.verification = preset, verification
        self.label_smoothing, self.neck = label_smoothing, neck
        self.rates = sorted(rates, reverse=True)
        self.networks = [
            Baseline(
                people, preset, backbone, self.image_size, label_smoothing, last_stride,
                triplet=0.0, verification=verification, weights=weights, neck=neck, flip=False,
                name=f"rate_{rate:g}".replace(".", "_"),
            )
            for rate in self.rates
        ]  # fmt: skip
        self.built = True

    def phases(self):
        raise InputError("OnePerRate is several networks: compile and fit each of model.networks")

    def check_data(self, data):
        self.phases()

    def from_images_and_labels(self, images, labels):
        self.phases()

    def embedding(self, images, level=None, training=False):
        return self.networks[-1](images, training=training)

    def _embed(self, images, rates, batch_size):
        if rates is None:
            rates = np.full(len(images), self.rates[-1])
        level = ops.convert_to_numpy(nearest_level(np.asarray(rates, "float32"), self.rates))
        features = self.networks[-1].embed(images[:0])
        features = np.zeros((len(images), features.shape[1]), "float32")
        for number, network in enumerate(self.networks, start=1):
            mine = level == number
            if mine.any():
                features[mine] = network.embed(images[mine], batch_size=batch_size)
        return features

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "rates": list(self.rates),
            "verification": self.verification,
            "label_smoothing": self.label_smoothing,
            "neck": self.neck,
        }
