"""Distilled: a network for LR images, held close to a frozen teacher that sees them at HR.

Shin, Yu, Lee: Enhancing Low-Resolution Face Recognition with Feature Similarity Knowledge
Distillation, arXiv 2303.04681. The paper is about faces; here are its losses on people. The weights
20 and 4, and the relation term, are those of its published code (method F_SKD_CROSS_BN).

The student `network` begins as a copy of the `hr_teacher`, a network trained on HR images. It sees
one view of an image, shrunk and enlarged; the teacher sees the same crop at HR. With s and t the
two networks' feature maps of an image, flattened, and d(a, b) = 1 - cosine(a, b), a step minimises

    identity (+ triplet) + 20 * mean over taps of d(s, t) + 4 * relation.

The relation matrix of two images has a row for each position of the one's last feature map and a
column for each of the other's: R(a, b) = a^T b, with maps as (channels, positions). An image is
related to another one of its person, marked by a prime:

    relation = (d(R(t, t'), R(t, s')) + d(R(t, t'), R(s, t'))) / 2 + d(R(t, t'), R(s, s')).

Both terms are means over images, and the weights are for means.

Ours: the taps are all feature maps of the backbone, behind their activations; the partner is the
next image of the person in the batch, and an image whose person has no other there is its own;
identity and triplet terms are those of `Baseline`. The classifier is copied from the teacher too.
"""

import keras
from keras import ops

from keras_xreid import losses
from keras_xreid.errors import InputError
from keras_xreid.layers.head import build_reid_network
from keras_xreid.models.arrays import as_float
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.baseline import PRESETS, pairs_within
from keras_xreid.models.forward import predict_first
from keras_xreid.models.presets import check_settings, preset_or
from keras_xreid.training.phases import Phase
from keras_xreid.training.processes import whole


@keras.saving.register_keras_serializable("keras_xreid")
class Distilled(ReIDModel):
    """A student of any resolution, whose feature maps follow those of a frozen HR teacher.

    A term of weight 0 is off. The teacher is inference only: it has no gradient, its statistics
    stay, and published files leave it out.

    Args:
        people: int, number of training people.
        preset: "paper", "tiny" or "strong", as of `Baseline`; what is given besides replaces the
            preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, of both networks.
        image_size: (height, width).
        tap_weight: float, weight of the mean of 1 - cosine over the feature maps.
        relation_weight: float, weight of the relation term.
        label_smoothing: float in [0, 1).
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        triplet: float, weight of the batch-hard triplet term, 0 for none.
        unit_triplet: bool, whether triplets compare unit vectors.
        neck: bool, a BNNeck before the embedding, see `build_reid_network`.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        margin: float, of the triplet term.

    Raises:
        InputError: a negative weight or margin, or a label smoothing outside of [0, 1).

    Example:

    >>> model = Distilled(people=401, preset="tiny")
    >>> model.teach(baseline.network)     # trained on HR images
    >>> model.compile({"network": keras.optimizers.Adam(1e-3)})
    >>> model.fit(PairBatches(data.train, rates=(1, 2, 3, 4), people_per_batch=8), epochs=10)
    >>> features = model.embed(images)

    Reference:
        Shin, Yu, Lee, arXiv 2303.04681.
    """

    critics = ("hr_teacher",)

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, tap_weight=20.0,
        relation_weight=4.0, label_smoothing=None, last_stride=1, triplet=None, margin=0.3,
        neck=None, flip=None, unit_triplet=None, **kwargs,
    ):  # fmt: skip
        given = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, neck=neck, flip=flip,
            label_smoothing=label_smoothing, triplet=triplet, unit_triplet=unit_triplet,
        )  # fmt: skip
        backbone = given.backbone
        super().__init__(people, backbone, given.image_size, last_stride, given.flip, **kwargs)
        for name, weight in (("tap", tap_weight), ("relation", relation_weight)):
            if not weight >= 0:
                raise InputError(f"{name} weight {weight}: give 0 (off) or more")
        check_settings(given.label_smoothing, triplet=given.triplet, margin=margin)
        self.preset, self.label_smoothing = preset, float(given.label_smoothing)
        self.tap_weight, self.relation_weight = float(tap_weight), float(relation_weight)
        self.triplet, self.margin = float(given.triplet), margin
        self.neck, self.unit_triplet = given.neck, given.unit_triplet
        shape = self.people, backbone, self.image_size, None, last_stride, self.neck
        self.network = build_reid_network(*shape)
        # Keras saves a part by its own name only where that stands before "layers" in the alphabet,
        # and only so can a file leave it out.
        self.hr_teacher = build_reid_network(*shape)
        self.hr_teacher.trainable = False
        self._student_sees, self._teacher_sees = _sees(self.network), _sees(self.hr_teacher)
        self.built = True

    def teach(self, network):
        """Makes a trained network the teacher, and the student a copy of it.

        Args:
            network: of the same shape, as `Baseline` has it.
        """
        for part in (self.hr_teacher, self.network):
            part.set_weights(network.get_weights())

    def phases(self):
        weights = {
            "id": 1.0,
            "triplet": self.triplet,
            "taps": self.tap_weight,
            "relation": self.relation_weight,
        }
        terms = tuple(term for term, weight in weights.items() if weight)
        return [Phase(("network",), self._terms, terms)]

    def prepare(self, batch):
        prepared = {"image": as_float(batch["lr"]), "person": batch["person"]}
        if self.tap_weight or self.relation_weight:
            prepared["taught"] = self._teacher_sees(as_float(batch["hr"]), training=False)[1]
        return prepared

    def _terms(self, batch):
        found, maps = self._student_sees(batch["image"], self.learning)
        (features, logits, *raw), person = whole([found, batch["person"]])
        terms = {"id": losses.cross_entropy(person, logits, self.label_smoothing)}
        if self.triplet:
            compared = raw[0] if raw else features
            if self.unit_triplet:
                compared = losses.unit(compared)
            terms["triplet"] = self.triplet * losses.triplet(compared, person, self.margin)
        if self.tap_weight:
            found = [distance(s, t) for s, t in zip(maps, batch["taught"], strict=True)]
            terms["taps"] = self.tap_weight * sum(found) / len(found)
        if self.relation_weight:
            found = relation(*whole([maps[-1], batch["taught"][-1]]), person)
            terms["relation"] = self.relation_weight * found
        return terms

    def embedding(self, images, level=None, training=False):
        return self.network(images, training=training)[0]

    def graph(self, images, level=None):
        return {"embedding": self.embedding(images)}

    def _embed(self, images, rates, batch_size):
        return predict_first(self.network, images, batch_size)

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "tap_weight": self.tap_weight,
            "relation_weight": self.relation_weight,
            "label_smoothing": self.label_smoothing,
            "triplet": self.triplet,
            "margin": self.margin,
            "neck": self.neck,
            "unit_triplet": self.unit_triplet,
        }


def _sees(network):
    """A function of images: a re-identification network's outputs, and its backbone's maps."""
    backbone, pool = network.layers[1], network.get_layer("pool")
    head = keras.Model(pool.input, network.outputs)

    def call(images, training):
        maps = backbone(images, training=training)
        return head(maps[-1], training=training), maps

    return call


def distance(a, b):
    """Mean of 1 - cosine between what two tensors have of each image, flattened.

    Args:
        a: (n, ...).
        b: likewise.

    Returns:
        A scalar in [0, 2].
    """
    return losses.cosine_distance(*(ops.reshape(x, (ops.shape(x)[0], -1)) for x in (a, b)))


def relation(student, teacher, labels):
    """How far the student's relations between images of a person are from the teacher's.

    Args:
        student: (n, h, w, c) feature maps of the student.
        teacher: likewise, of the same images at HR.
        labels: (n,) integers; -1 is somebody unknown, related to nobody else.

    Returns:
        A scalar in [0, 4], see the equation above.
    """
    n = ops.shape(labels)[0]
    own, partner, same = (x[:n] for x in pairs_within(labels))
    partner = ops.where(same == 1, partner, own)
    s, t = (ops.cast(x, "float32") for x in (student, teacher))
    s, t = (ops.reshape(x, (n, -1, x.shape[-1])) for x in (s, t))
    s2, t2 = (ops.take(x, partner, axis=0) for x in (s, t))

    def related(a, b):
        return ops.matmul(a, ops.transpose(b, (0, 2, 1)))

    wanted = related(t, t2)
    crossed = distance(wanted, related(t, s2)) + distance(wanted, related(s, t2))
    return crossed / 2.0 + distance(wanted, related(s, s2))
