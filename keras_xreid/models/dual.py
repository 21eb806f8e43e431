"""What RAIN and CAD-Net share: they identify people and recover images from the same features."""

import functools

import keras
import numpy as np
from keras import ops

from keras_xreid import losses
from keras_xreid.models.arrays import high_and_low
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.distances import euclidean
from keras_xreid.models.forward import predict
from keras_xreid.models.presets import check_settings
from keras_xreid.training.processes import whole


class DualModel(ReIDModel):
    """Base of systems with a classifier and a decoder on one feature extractor, and with critics.

    A system sets its parts, among them `neck` and `decoder` or None, calls `_test_by`, and has the
    loss weights `classification` and `triplet`.

    Args:
        people: int, number of training people.
        preset: str, kept for the configuration.
        sizes: namespace of `preset_or`: what the system was given, or its preset has.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        **kwargs: of `keras.Model`.
    """

    unpaired = True
    without_decoder = "a model without a decoder recovers nothing"

    def __init__(self, people, preset, sizes, last_stride, **kwargs):
        super().__init__(
            people, sizes.backbone, sizes.image_size, last_stride, sizes.flip, **kwargs
        )
        self.preset, self.margin = preset, 2.0 if sizes.margin is False else sizes.margin
        check_settings(sizes.label_smoothing, margin=self.margin)
        self.label_smoothing, self.joint = float(sizes.label_smoothing), sizes.joint
        self.unit_triplet = sizes.unit_triplet
        self.decoder_widths = tuple(sizes.decoder_widths)
        self.discriminator_width = sizes.discriminator_width

    def _test_by(self, image, embedding, recovered=None):
        """Sets the networks for the test; inside of functions, for Keras would save them again."""
        self._predict_embedding = functools.partial(predict, keras.Model(image, embedding))
        if recovered is not None:
            self._predict_recovered = functools.partial(predict, keras.Model(image, recovered))

    def prepare(self, batch):
        return high_and_low(batch)

    def identity_terms(self, batch, feature, logits):
        """The identity and the triplet term of a joint batch, weighted, and what "id" shows.

        With `joint` the terms are over all images at once, so that triplets hold both kinds and the
        identity term is a mean. Else they are sums of one within HR and one within LR images.

        Args:
            batch: of `high_and_low`.
            feature: (2n, d), what triplets compare.
            logits: (2n, people), or None.

        Returns:
            A dict of terms, and a dict with "id", the mean cross-entropy of an image in nats.
        """
        over, terms, shown = (_at_once if self.joint else hr_and_lr), {}, {}
        feature, logits, person = whole([feature, logits, batch["person"]])
        if self.classification:

            def entropy(person, logits):
                return losses.cross_entropy(person, logits, self.label_smoothing)

            found = over(entropy, person, logits)
            terms["id"] = self.classification * found
            shown["id"] = found if self.joint else found / 2.0
        if self.triplet:
            if self.unit_triplet:
                feature = losses.unit(feature)
            found = over(lambda x, y: losses.triplet(x, y, self.margin), feature, person)
            terms["triplet"] = self.triplet * found
        return terms, shown

    def _embed(self, images, rates, batch_size):
        return self._predict_embedding(images, batch_size)[0]

    def distances(self, query_features, gallery_features, query_rates=None):
        """Euclidean distances of the embeddings; behind a neck 1 - cosine.

        Args:
            query_features: (q, d) array from `embed`.
            gallery_features: (g, d) array from `embed`.
            query_rates: not used.

        Returns:
            (q, g) float32 array.
        """
        if self.neck is not None:
            return super().distances(query_features, gallery_features)
        return euclidean(query_features, gallery_features)

    @property
    def metric(self):
        """What `distances` measures, in words."""
        return "Euclidean" if self.neck is None else super().metric

    @property
    def recover(self):
        """`recover(images, batch_size=64)`: what G recovers from images; not there without a G.

        Images are (n, height, width, 3) at the model's size, uint8 or float in [0, 1], and so are
        those returned, as float32.
        """
        if self.decoder is None:
            raise AttributeError(self.without_decoder)
        return self._recover

    def _recover(self, images, batch_size=64):
        def recover(part, _):  # what was added to an image may leave the range
            return np.clip(self._predict_recovered(part, batch_size)[0], 0.0, 1.0)

        return self._in_chunks(recover, self._checked(images), None, batch_size)

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "margin": self.margin,
            "label_smoothing": self.label_smoothing,
            "neck": self.neck is not None,
            "joint": self.joint,
            "unit_triplet": self.unit_triplet,
            "decoder_widths": list(self.decoder_widths),
            "discriminator_width": self.discriminator_width,
        }


def hr_and_lr(loss, *tensors):
    """Adds up a loss within the HR images and within the LR images of a joint batch.

    Args:
        loss: function of as many tensors as are given, returning a scalar.
        *tensors: (2n, ...) each, HR first.

    Returns:
        A scalar.
    """
    halves = [ops.split(x, 2) for x in tensors]
    return loss(*(hr for hr, _ in halves)) + loss(*(lr for _, lr in halves))


def _at_once(loss, *tensors):
    return loss(*tensors)
