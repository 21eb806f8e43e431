"""The baseline: one re-identification network, trained on HR images or on HR and LR images."""

import keras
from keras import layers, ops

from keras_xreid import losses
from keras_xreid.layers.head import build_reid_network
from keras_xreid.models.arrays import as_float, high_and_low
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.forward import predict_first
from keras_xreid.models.presets import STRONG, check_settings, preset_or
from keras_xreid.training.phases import Phase
from keras_xreid.training.processes import whole

PRESETS = {
    "paper": {"backbone": "osnet_x1_0", "image_size": (256, 128)},
    "tiny": {"backbone": "resnet_tiny", "image_size": (128, 64)},
    "strong": {**STRONG, "triplet": 1.0},
}


@keras.saving.register_keras_serializable("keras_xreid")
class Baseline(ReIDModel):
    """A re-identification network trained with cross-entropy (INTACT Eq. 3).

    Which images it sees is up to the batches: rate 1 only gives the HR baseline and INTACT's
    first stage, rates 1 to 4 the baseline on HR and LR.

    Three terms may be added; all want batches of P people x K images. The triplet term is
    batch-hard as RAIN's (Eq. 6), on the embedding; where batches hold HR and LR images, its
    triplets hold both kinds, and RAIN's one kind each. The octuplet term has triplets within and
    between HR and LR images, see `octuplet_loss`; it takes the pairs of `PairBatches`, and every
    term then sees HR and LR images at once. The verification term asks a small network whether the
    difference v_i - v_j of two embeddings is that of one person (ours: a hidden layer of 256 with
    ReLU; each image is paired with one of its person and with one of another, see `pairs_within`).

    Args:
        people: int, number of training people.
        preset: "paper" (OSNet x1.0 at 256x128), "tiny" (a 3.5 M ResNet at 128x64), or "strong"
            (EfficientNet-Lite0 at 128x64 with the field's tricks: neck, triplet term, label
            smoothing, averages of mirror images); what is given besides replaces the preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone.
        image_size: (height, width).
        label_smoothing: float in [0, 1).
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        triplet: float, weight of the batch-hard triplet term, 0 for none. With a neck it compares
            features before it.
        unit_triplet: bool, whether triplets compare unit vectors. Of a network that starts from
            ImageNet the features are long, and a margin of 0.3 is met by making them short.
        neck: bool, a BNNeck before the embedding, see `build_reid_network`.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        verification: float, weight of the verification term, 0 for none. Its network is the part
            `verifier`, which then needs an optimizer too.
        margin: float, of the triplet term, in units of the embedding.
        octuplet: float, weight of the octuplet term, 0 for none. It compares what triplets do, with
            margin 0.5.
        weights: None, "imagenet" or a model to copy from, where the backbone starts.

    Raises:
        InputError: a negative weight or margin, or a label smoothing outside of [0, 1).

    Example:

    >>> model = Baseline(people=401, preset="tiny")
    >>> model.compile({"network": keras.optimizers.Adam(1e-3)})
    >>> model.fit(ImageBatches(data.train, image_size=(128, 64)), epochs=10, shuffle=False)
    >>> features = model.embed(images)
    """

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, label_smoothing=None,
        last_stride=1, triplet=None, verification=0.0, margin=0.3, weights=None, neck=None,
        flip=None, unit_triplet=None, octuplet=0.0, **kwargs,
    ):  # fmt: skip
        given = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, neck=neck, flip=flip,
            label_smoothing=label_smoothing, triplet=triplet, unit_triplet=unit_triplet,
        )  # fmt: skip
        backbone = given.backbone
        super().__init__(people, backbone, given.image_size, last_stride, given.flip, **kwargs)
        check_settings(
            given.label_smoothing, triplet=given.triplet, margin=margin, octuplet=octuplet,
            verification=verification,
        )  # fmt: skip
        self.preset, self.label_smoothing = preset, float(given.label_smoothing)
        self.triplet, self.verification, self.margin = float(given.triplet), verification, margin
        self.neck, self.unit_triplet, self.octuplet = given.neck, given.unit_triplet, octuplet
        self.network = build_reid_network(
            self.people, backbone, self.image_size, weights, last_stride, self.neck
        )
        self.verifier = None
        if verification:
            difference = keras.Input(self.network.outputs[0].shape[1:], name="difference")
            x = layers.Activation("relu")(layers.Dense(256)(difference))
            self.verifier = keras.Model(difference, layers.Dense(1)(x), name="verifier")
        self.built = True

    @property
    def batch_names(self):
        """What a batch to train on has."""
        return ("hr", "lr", "person") if self.octuplet else ("image", "person")

    def phases(self):
        parts, terms = ["network"], ["id"]
        if self.triplet:
            terms.append("triplet")
        if self.octuplet:
            terms.append("octuplet")
        if self.verification:
            parts.append("verifier")
            terms.append("verification")
        return [Phase(tuple(parts), self._terms, tuple(terms))]

    def from_images_and_labels(self, images, labels):
        return {"image": images, "person": labels}

    def prepare(self, batch):
        if self.octuplet:
            return high_and_low(batch)
        return {"image": as_float(batch["image"]), "person": batch["person"]}

    def _terms(self, batch):
        found = self.network(batch["image"], training=self.learning)
        (features, logits, *raw), person = whole([found, batch["person"]])
        terms = {"id": losses.cross_entropy(person, logits, self.label_smoothing)}
        compared = raw[0] if raw else features
        if self.unit_triplet:
            compared = losses.unit(compared)
        if self.triplet:
            terms["triplet"] = self.triplet * losses.triplet(compared, person, self.margin)
        if self.octuplet:
            found = losses.octuplet_loss(*ops.split(compared, 2), ops.split(person, 2)[0])
            terms["octuplet"] = self.octuplet * found
        if self.verification:
            first, second, same = pairs_within(person)
            difference = ops.take(features, first, axis=0) - ops.take(features, second, axis=0)
            logits = self.verifier(difference, training=self.learning)
            terms["verification"] = self.verification * losses.verification(logits, same)
        return terms

    def embedding(self, images, level=None, training=False):
        return self.network(images, training=training)[0]

    def graph(self, images, level=None):
        return {"embedding": self.embedding(images)}

    def _embed(self, images, rates, batch_size):
        return predict_first(self.network, images, batch_size)

    def get_config(self):
        # Neither `weights` nor `last_stride`'s default matter to a model whose weights follow.
        return {
            **super().get_config(),
            "preset": self.preset,
            "label_smoothing": self.label_smoothing,
            "neck": self.neck,
            "unit_triplet": self.unit_triplet,
            "triplet": self.triplet,
            "verification": self.verification,
            "margin": self.margin,
            "octuplet": self.octuplet,
        }


def pairs_within(labels):
    """Pairs each image of a batch with one of the same person and with one of another.

    The labels alone decide, so that pairs are the same on every backend: the next image of the
    person in the batch, and the first of somebody else from half a batch further on; after the
    last image comes the first.

    Args:
        labels: (n,) integers; -1 is in no pair.

    Returns:
        Three (2n,) int32 tensors: the positions of a pair's two images, and 1 for one person, 0
        for two, -1 where there is no such image to pair with.

    Example:

    >>> pairs_within([0, 0, 1, 1])    # second: 1 0 3 2 and 2 3 0 1
    """
    labels = ops.cast(labels, "int32")
    n = ops.shape(labels)[0]
    place = ops.cumsum(ops.ones_like(labels)) - 1
    ahead = place[None, :] - place[:, None]
    known = labels >= 0
    both = ops.logical_and(known[:, None], known[None, :])
    equal = labels[:, None] == labels[None, :]
    seconds, kinds = [], []
    for kind, wanted, start in (
        (1, ops.logical_and(equal, ahead != 0), 1),
        (0, ops.logical_not(equal), n // 2),
    ):
        wanted = ops.logical_and(wanted, both)
        further = ops.where(wanted, ops.mod(ahead - start, n), n)
        seconds.append(ops.cast(ops.argmin(further, axis=1), "int32"))
        kinds.append(ops.where(ops.any(wanted, axis=1), kind, -1))
    return (
        ops.concatenate([place, place]),
        ops.concatenate(seconds),
        ops.cast(ops.concatenate(kinds), "int32"),
    )
