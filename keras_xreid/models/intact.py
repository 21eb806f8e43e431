"""INTACT: super-resolution tied to re-identification by an association critic.

Cheng, Dong, Gong, Zhu: Inter-Task Association Critic for Cross-Resolution Person
Re-Identification, CVPR 2020. In the paper's letters: C is `reid`, G is `generator`, D is
`discriminator`, phi and sigma are `association`; fc is C's embedding, fd the dense layer of D,
and a prime marks what belongs to the recovered image G(x_l).

One train step runs Algorithm 1: D (Eq. 1), then phi and sigma on HR images (Eq. 7), then G
(Eq. 4 and 8). C was trained on HR images before and is frozen, its classifier included: the
identity loss is its cross-entropy on G(x_l), and the gradient passes through it into G.

Where the paper is silent, ours: norms are means over elements, so pixels are multiplied by
`pixel_scale` before the squared error of Eq. 4, chosen so that no weighted term dominates at the
start; the generator's adversarial loss is non-saturating; while they are not trained themselves, D
and phi normalise by moving statistics (`critic_statistics="moving"`, the strong preset), or by the
batch, which hides what shifts or scales a whole batch of fc; phi starts at `first_scale`; no batch
normalization in G's residual blocks, which would halve the speed on a CPU (a switch); Adam; gallery
images and queries known to be of high resolution bypass G; embeddings are compared by cosine. The
text also speaks of regularising D with Eq. 8; Algorithm 1 and Figure 2 say G only, and they are
followed.
"""

import keras
import numpy as np
from keras import ops

from keras_xreid import losses
from keras_xreid.errors import InputError
from keras_xreid.layers.association import Association
from keras_xreid.layers.discriminator import build_image_discriminator
from keras_xreid.layers.generator import build_generator
from keras_xreid.layers.head import build_reid_network
from keras_xreid.models.arrays import as_float
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.forward import predict, predict_first
from keras_xreid.models.presets import STRONG, check_settings, preset_or
from keras_xreid.training.phases import Phase
from keras_xreid.training.processes import whole

SUPERVISIONS = ("mse", "mse+id", "mse+id+gan", "full")
ASSOCIATIONS = ("r-to-d", "d-to-r", "common")

PRESETS = {
    "paper": {
        "backbone": "osnet_x1_0",
        "image_size": (256, 128),
        "generator_widths": (64, 128, 256, 512),
        "discriminator_width": 64,
    },
    "tiny": {
        "backbone": "resnet_tiny",
        "image_size": (128, 64),
        "generator_widths": (16, 24, 32, 48),
        "discriminator_width": 16,
    },
    "strong": {
        **STRONG,
        "generator_widths": (16, 24, 32, 48),
        "discriminator_width": 16,
        "critic_statistics": "moving",
        "first_scale": 0.1,
    },
}


@keras.saving.register_keras_serializable("keras_xreid")
class INTACT(ReIDModel):
    """INTACT, with every variant of its Tables 2 to 5.

    Args:
        people: int, number of training people.
        preset: "paper", "tiny" or "strong"; what is given besides replaces the preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, of C.
        image_size: (height, width), multiples of 16.
        supervision: "mse" (Sole SR), "mse+id" (SR+ID), "mse+id+gan" or "full" (Tables 2, 3).
        association: "r-to-d", "d-to-r" or "common" (Table 4).
        bridge: bool, the bridge sigma of Eq. 6 (Table 5).
        lambda_g: float, weight of the adversarial term (Eq. 4).
        lambda_c: float, weight of the identity term (Eq. 4).
        association_weight: float, weight of the association term (Eq. 8).
        pixel_scale: float, unit in which the pixels of the squared error are measured: images
            reach from 0 to this.
        batch_normalization: bool, in the generator's residual blocks.
        generator_widths: four ints, channels of the generator's groups.
        discriminator_width: int, channels of the discriminator's first convolutions.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        neck: bool, whether C has a BNNeck.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        label_smoothing: float in [0, 1), of the identity term.
        critic_statistics: "moving" or "batch": what D and phi normalise by in steps that do not
            train them. By the batch, Eq. 8 is blind to any shift and scale of fc.
        first_scale: float, deviation of phi's output at first, see `Association`.
        match: float, weight of 1 - cosine between the embeddings of the recovered image and of its
            HR twin; 0 for none (ours). L_id is nearly 0 on people whom C knows by heart; this
            term is not.

    Raises:
        InputError: an unknown supervision, association or kind of statistics, a negative weight, or
            a label smoothing outside of [0, 1).

    Example:

    >>> model = INTACT(people=401, preset="tiny")
    >>> model.reid.set_weights(baseline.network.get_weights())     # stage 1
    >>> model.compile()
    >>> model.fit(PairBatches(data.train, image_size=(128, 64)), epochs=10, shuffle=False)
    >>> recovered = model.recover(low_resolution_images)

    Reference:
        Cheng et al., CVPR 2020, Algorithm 1.
    """

    critics = ("discriminator", "association")
    _recoverer = None  # what `recovering` made last, and of which parts
    multiple_of = 16  # the generator halves an image four times
    recovery_can_be_left_out = True  # C embeds an image that was not recovered, too

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, supervision="full",
        association="r-to-d", bridge=True, lambda_g=0.1, lambda_c=0.3, association_weight=1.0,
        pixel_scale=16.0, batch_normalization=False, generator_widths=None,
        discriminator_width=None, last_stride=1, neck=None, flip=None, label_smoothing=None,
        critic_statistics=None, first_scale=None, match=0.0, **kwargs,
    ):  # fmt: skip
        given = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, neck=neck, flip=flip,
            label_smoothing=label_smoothing, critic_statistics=critic_statistics,
            first_scale=first_scale, generator_widths=generator_widths,
            discriminator_width=discriminator_width,
        )  # fmt: skip
        backbone = given.backbone
        super().__init__(people, backbone, given.image_size, last_stride, given.flip, **kwargs)
        if supervision not in SUPERVISIONS:
            raise InputError(f"supervision {supervision!r}: give one of {', '.join(SUPERVISIONS)}")
        if association not in ASSOCIATIONS:
            raise InputError(f"association {association!r}: give one of {', '.join(ASSOCIATIONS)}")
        check_settings(
            given.label_smoothing, lambda_g=lambda_g, lambda_c=lambda_c, match=match,
            association_weight=association_weight, pixel_scale=pixel_scale,
        )  # fmt: skip
        self.preset, self.supervision = preset, supervision
        self.association_design, self.bridge = association, bridge
        self.lambda_g, self.lambda_c = lambda_g, lambda_c
        self.association_weight, self.pixel_scale = association_weight, pixel_scale
        self.batch_normalization = batch_normalization
        self.generator_widths = tuple(given.generator_widths)
        self.discriminator_width = given.discriminator_width
        self.neck, self.label_smoothing = given.neck, float(given.label_smoothing)
        self.critic_statistics = given.critic_statistics or "batch"
        if self.critic_statistics not in ("moving", "batch"):
            raise InputError(f"critic_statistics {critic_statistics!r}: give moving or batch")
        self.first_scale, self.match = given.first_scale or 1.0, match

        self.reid = build_reid_network(
            self.people, backbone, self.image_size, last_stride=last_stride, neck=self.neck
        )
        self.reid.trainable = False
        self.generator = build_generator(
            self.image_size, self.generator_widths, batch_normalization
        )
        self.discriminator = self.association = None
        if supervision in ("mse+id+gan", "full"):
            self.discriminator = build_image_discriminator(
                self.image_size, self.discriminator_width
            )
        if supervision == "full":
            self.association = Association(
                self.reid.outputs[0].shape[-1], self.discriminator.outputs[0].shape[-1],
                association, bridge,
                # fc's deviation is near 1, so that phi from D to R starts there.
                first_scale=self.first_scale if association == "r-to-d" else 1.0,
            )  # fmt: skip
        self.built = True

    def default_optimizers(self):
        """Adam at the paper's rates: 1e-4 for G and D, 1e-3 for phi and sigma."""
        rates = {"generator": 1e-4, "discriminator": 1e-4, "association": 1e-3}
        return {
            part: keras.optimizers.Adam(rate)
            for part, rate in rates.items()
            if getattr(self, part) is not None
        }

    def phases(self):
        steps, terms = [], ["mse"]
        if self.supervision != "mse":
            terms.append("id")
        if self.discriminator is not None:
            own = ("discriminator",)
            steps.append(Phase(own, self._step_1, own, ("discriminator_accuracy",)))
            terms.append("gan")
        if self.association is not None:
            terms_2 = ("phi", "bridge") if self.association.bridge else ("phi",)
            steps.append(Phase(("association",), self._step_2, terms_2))
            terms.append("association")
        if self.match:
            terms.append("match")
        measures = ("id",) if self.supervision != "mse" else ()
        return [*steps, Phase(("generator",), self._step_3, tuple(terms), measures)]

    def prepare(self, batch):
        hr, lr = as_float(batch["hr"]), as_float(batch["lr"])
        batch = {"hr": hr, "lr": lr, "person": batch["person"]}
        if self.discriminator is not None:
            batch["recovered"] = self.generator(batch["lr"], training=self.learning)
        if self.association is not None or self.match:
            batch["fc"] = self.reid(batch["hr"], training=False)[0]
        return batch

    def _step_1(self, batch):
        """D tells HR images from recovered ones (Eq. 1, 2)."""
        _, real = self.discriminator(batch["hr"], training=self.learning)
        _, fake = self.discriminator(batch["recovered"], training=self.learning)
        terms = {"discriminator": losses.discriminator_loss(real, fake)}
        return terms, {"discriminator_accuracy": losses.critic_accuracy(real, fake)}

    def _step_2(self, batch):
        """phi and sigma learn how fc and fd of HR images belong together (Eq. 5 to 7)."""
        fd, _ = self.discriminator(batch["hr"], training=self._by_batch)
        fd = ops.stop_gradient(fd)
        found = self.association.distances(batch["fc"], fd, training=self.learning)
        return dict(zip(("phi", "bridge"), found, strict=False))

    def _step_3(self, batch):
        """G recovers images that C knows, D believes and phi finds consistent (Eq. 4, 8)."""
        recovered = self.generator(batch["lr"], training=self.learning)
        pixels = losses.squared_error(recovered, batch["hr"])
        terms, handed = {"mse": self.pixel_scale**2 * pixels}, {}
        if self.supervision != "mse" or self.match:
            fc, logits, *_ = self.reid(recovered, training=False)
        if self.supervision != "mse":
            person, logits = whole([batch["person"], logits])
            nats = losses.cross_entropy(person, logits, self.label_smoothing)
            terms["id"], handed["id"] = self.lambda_c * nats, nats
        if self.discriminator is not None:
            fd, logit = self.discriminator(recovered, training=self._by_batch)
            terms["gan"] = self.lambda_g * losses.generator_loss(logit)
        if self.association is not None:
            distance = self.association.distances(fc, fd, training=self._by_batch)[0]
            terms["association"] = self.association_weight * distance
        if self.match:
            terms["match"] = self.match * losses.cosine_distance(fc, batch["fc"])
        return terms, handed

    @property
    def _by_batch(self):
        """Whether a critic normalises by the batch while it is not trained."""
        return self.learning and self.critic_statistics == "batch"

    def embedding(self, images, level=None, training=False):
        recovered = ops.clip(self.generator(images, training=training), 0.0, 1.0)
        return self.reid(recovered, training=False)[0]

    def graph(self, images, level=None):
        recovered = ops.clip(self.generator(images, training=False), 0.0, 1.0)
        return {
            "embedding": self.reid(recovered, training=False)[0],
            "recovered": recovered,
            "embedding_high": self.reid(images, training=False)[0],
        }

    def recover(self, images, batch_size=64):
        """Recovers the high resolution of images.

        Args:
            images: (n, height, width, 3) at the model's size, shrunk and enlarged, uint8 or float
                in [0, 1].
            batch_size: int, images a forward pass.

        Returns:
            (n, height, width, 3) float32 array in [0, 1].
        """
        return self._in_chunks(
            lambda part, _: self._recover(part, batch_size), self._checked(images), None, batch_size
        )

    def _recover(self, images, batch_size):
        return np.clip(predict(self.generator, images, batch_size)[0], 0.0, 1.0)

    def recovering(self):
        """G, then C, as one functional model of LR images."""
        parts = self.generator, self.reid
        if self._recoverer is None or self._recoverer()[0] != parts:
            image = keras.Input((*self.image_size, 3), name="image")
            joined = parts, keras.Model(image, self.embedding(image))
            self._recoverer = lambda: joined  # a function, for Keras would save the network again
        return self._recoverer()[1]

    def _embed(self, images, rates, batch_size):
        low = np.ones(len(images), bool) if rates is None else rates > 1
        if low.all():
            return predict_first(self.recovering(), images, batch_size)
        high = predict_first(self.reid, images[~low], batch_size)
        features = np.empty((len(images), high.shape[1]), "float32")
        features[~low] = high
        if low.any():
            features[low] = predict_first(self.recovering(), images[low], batch_size)
        return features

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "supervision": self.supervision,
            "association": self.association_design,
            "bridge": self.bridge,
            "lambda_g": self.lambda_g,
            "lambda_c": self.lambda_c,
            "association_weight": self.association_weight,
            "pixel_scale": self.pixel_scale,
            "batch_normalization": self.batch_normalization,
            "generator_widths": list(self.generator_widths),
            "discriminator_width": self.discriminator_width,
            "neck": self.neck,
            "label_smoothing": self.label_smoothing,
            "critic_statistics": self.critic_statistics,
            "first_scale": self.first_scale,
            "match": self.match,
        }
