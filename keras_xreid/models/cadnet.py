"""CAD-Net: features that know no resolution, joined to those of a recovered image.

Li, Chen, Lin, Du, Wang: Recover and Identify: A Generative Dual Model for Cross-Resolution Person
Re-Identification, ICCV 2019. In the paper's letters: E is `encoder`, G is `decoder`, F is
`image_encoder`, C is `classifier`, D_F is `feature_discriminator`, D_I is `image_discriminator`;
f is E's last feature map, g that of F on the recovered image G(f), u = GAP([f, g]).

One train step: E, G, F and C together (Eq. 6), then D_F (Eq. 1) and D_I (Eq. 3) on the same
features and recovered images, which are not computed a second time. No gradient is stopped: L_cls
reaches E through f and through F(G(f)), and G through F, which makes the recovery "re-ID
oriented"; D_F's term reaches E, and D_I's G and E.

Where the paper is silent, ours: norms are means over elements, pixels in [0, 1]; adversarial terms
are non-saturating, and E minimises both terms of Eq. 1, so that it shows D_F swapped labels;
triplets are batch-hard; HR and LR images pass E, G and F as one batch, so that both are normalised
as they will be in the test and D_F sees all of their difference; D_I sees real and recovered
images in batches of their own, as G meets it; last stride 1; of the decoder's skips the deepest
map of each size; widths of the decoder. `preset="strong"` has a BNNeck between u and C, triplets of
margin 0.3 over HR and LR images together, label smoothing, ranks by cosine, and lets G add to its
input (`residual`), which leaves no detail of the query behind. SGD for D_F and D_I has no momentum
and no weight decay, since only their learning rate is given.
"""

import functools

import keras
from keras import ops

from keras_xreid import losses
from keras_xreid.backbones import build_extractor
from keras_xreid.errors import InputError
from keras_xreid.layers.decoder import build_decoder
from keras_xreid.layers.discriminator import (
    build_feature_discriminators,
    build_resnet_discriminator,
)
from keras_xreid.layers.head import build_neck, classifier
from keras_xreid.models.dual import DualModel, hr_and_lr
from keras_xreid.models.presets import STRONG, check_loss_weights, preset_or
from keras_xreid.training.phases import Phase

FEATURES = ("fg", "f", "g")

PRESETS = {
    "paper": {
        "backbone": "resnet50",
        "image_size": (256, 128),
        "decoder_widths": (512, 256, 128, 64),
        "discriminator_width": 64,
    },
    "tiny": {
        "backbone": "resnet_tiny",
        "image_size": (128, 64),
        "decoder_widths": (96, 64, 32, 16),
        "discriminator_width": 16,
    },
    "strong": {
        **STRONG,
        "decoder_widths": (96, 64, 32, 16),
        "discriminator_width": 16,
        "joint": True,
        "residual": True,
    },
}


@keras.saving.register_keras_serializable("keras_xreid")
class CADNet(DualModel):
    """CAD-Net, with every variant of its Tables 1 and 3.

    A term of weight 0 is off, and so are the parts that it alone needs. Without L_cls there is no
    C, and F stays as it began.

    Args:
        people: int, number of training people.
        preset: "paper" (ResNet-50 at 256x128), "tiny" (3.5 M ResNets at 128x64) or "strong"
            (EfficientNet-Lite0 at 128x64, with the field's tricks); what is given besides replaces
            the preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, of E and of F,
            which share no weights.
        image_size: (height, width), multiples of 16; of 32 where the backbone's stride is 32.
        features: what C takes: "fg", the joint feature; "f" or "g" alone (Table 1).
        classification: float, weight of L_cls, identity and triplet loss (Eq. 4, 5).
        reconstruction: float, lambda_rec (Eq. 6).
        adversarial_features: float, lambda of L_adv^D_F (Eq. 6).
        adversarial_images: float, lambda of L_adv^D_I (Eq. 6).
        margin: float, of the triplet loss, in units of the features' distance; 2 in "paper".
        label_smoothing: float in [0, 1).
        neck: bool, a BNNeck between u and C: the embedding lies behind it, triplets before it.
            Distances are cosine then.
        unit_triplet: bool, whether triplets compare unit vectors.
        joint: bool, whether identity and triplet terms are over HR and LR images at once.
        residual: bool, whether G returns what is to be added to its image, see `build_decoder`.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        weights: None, "imagenet" or a model to copy from, where E and F start.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        decoder_widths: channels of the decoder's up-blocks.
        discriminator_width: int, channels of both discriminators' first convolutions.

    Raises:
        InputError: unknown `features`, a negative weight, or no loss left.

    Example:

    >>> model = CADNet(people=401, preset="tiny")
    >>> model.compile()
    >>> batches = PairBatches(data.train, people_per_batch=4, independent=True)
    >>> model.fit(batches, epochs=10)
    >>> features, recovered = model.embed(images), model.recover(images)

    Reference:
        Li et al., ICCV 2019, Section 3.
    """

    critics = ("feature_discriminator", "image_discriminator")
    without_decoder = "a CADNet with C on f alone and no loss on images has no decoder"

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, features="fg",
        classification=1.0, reconstruction=1.0, adversarial_features=1.0, adversarial_images=1.0,
        margin=None, weights=None, last_stride=1, decoder_widths=None, discriminator_width=None,
        label_smoothing=None, neck=None, joint=None, residual=None, flip=None, unit_triplet=None,
        **kwargs,
    ):  # fmt: skip
        sizes = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, margin=margin, neck=neck,
            label_smoothing=label_smoothing, joint=joint, flip=flip, residual=residual,
            unit_triplet=unit_triplet,
            decoder_widths=decoder_widths, discriminator_width=discriminator_width,
        )  # fmt: skip
        super().__init__(people, preset, sizes, last_stride, **kwargs)
        if features not in FEATURES:
            raise InputError(f"features {features!r}: give one of {', '.join(FEATURES)}")
        self.features, self.residual = features, sizes.residual
        self.classification, self.reconstruction = classification, reconstruction
        self.adversarial_features = adversarial_features
        self.adversarial_images = adversarial_images
        check_loss_weights(classification, reconstruction, adversarial_features, adversarial_images)

        extractor = functools.partial(
            build_extractor, sizes.backbone, self.image_size, weights, last_stride
        )
        self.encoder = extractor(name="encoder")
        self.decoder = self.image_encoder = self.classifier = None
        self.feature_discriminator = self.image_discriminator = None
        maps = [x.shape[1:] for x in self.encoder.outputs[:-1]]
        if features != "f" or reconstruction or adversarial_images:
            self.decoder = build_decoder(
                maps, self.image_size, self.decoder_widths, residual=self.residual
            )
        if features != "f":
            self.image_encoder = extractor(name="image_encoder")
        if adversarial_features:
            self.feature_discriminator = build_feature_discriminators(
                maps[-1:], "tsai", self.discriminator_width
            )
        if adversarial_images:
            self.image_discriminator = build_resnet_discriminator(
                self.image_size, self.discriminator_width
            )

        # Networks for the test, of the same parts.
        image = keras.Input((*self.image_size, 3), name="image")
        u, recovered = self._joint_and_recovered(image, training=False)
        self.neck = build_neck(u.shape[-1]) if sizes.neck else None
        embedding = u if self.neck is None else self.neck(u)
        self._test_by(image, embedding, recovered)
        if classification:
            feature = keras.Input(u.shape[1:], name="u")
            logits = classifier(self.people, sizes.neck, "logits")(feature)
            self.classifier = keras.Model(feature, logits, name="classifier")
        self.built = True

    def default_optimizers(self):
        """The paper's: `paper_sgd`, and SGD at 1e-4 for D_F and D_I."""
        optimizers = {part: paper_sgd() for part in self.phases()[0].updates}
        for phase in self.phases()[1:]:
            optimizers[phase.updates[0]] = keras.optimizers.SGD(1e-4)
        return optimizers

    def phases(self):
        parts = ["encoder"]
        if self.classification or self.reconstruction or self.adversarial_images:
            parts.append("decoder")
        if self.classification:
            parts += ["image_encoder", "neck", "classifier"]
        parts = [part for part in parts if getattr(self, part) is not None]
        terms = {
            "id": self.classification,
            "triplet": self.classification,
            "reconstruction": self.reconstruction,
            "adversarial_features": self.adversarial_features,
            "adversarial_images": self.adversarial_images,
        }
        terms = tuple(term for term, weight in terms.items() if weight)
        measures = {
            "id": self.classification,
            "feature_discriminator_accuracy": self.adversarial_features,
        }
        measures = tuple(name for name, weight in measures.items() if weight)
        steps = [Phase(tuple(parts), self._recover_and_identify, terms, measures)]
        if self.feature_discriminator is not None:
            step = self._judge_features
            steps.append(Phase(("feature_discriminator",), step, ("feature_discriminator",)))
        if self.image_discriminator is not None:
            own = ("image_discriminator",)
            steps.append(Phase(own, self._judge_images, own, ("image_discriminator_accuracy",)))
        return steps

    def _recover_and_identify(self, batch):
        """E, G, F and C minimise Eq. 6."""
        *maps, f = self.encoder(batch["image"], training=self.learning)
        recovered = self._recovered(maps, batch["image"], training=self.learning)
        terms, handed = {}, {}
        if self.classification:
            u = self._joint(f, recovered, training=self.learning)
            embedding = u if self.neck is None else self.neck(u, training=self.learning)
            logits = self.classifier(embedding, training=self.learning)
            terms, handed = self.identity_terms(batch, u, logits)
        if self.reconstruction:
            found = hr_and_lr(losses.absolute_error, recovered, batch["target"])
            terms["reconstruction"] = self.reconstruction * found
        if self.feature_discriminator is not None:
            hr, lr = ops.split(self.feature_discriminator(maps[-1], training=self.learning), 2)
            found = losses.discriminator_loss(real_logits=lr, fake_logits=hr)
            terms["adversarial_features"] = self.adversarial_features * found
            # D_F's own step comes after this one: it has not learnt from this batch.
            handed["feature_discriminator_accuracy"] = losses.critic_accuracy(hr, lr)
        if self.image_discriminator is not None:
            fake = self.image_discriminator(recovered, training=self.learning)
            found = hr_and_lr(losses.generator_loss, fake)
            terms["adversarial_images"] = self.adversarial_images * found
        if recovered is not None:
            handed["recovered"] = recovered
        return terms, {"f": maps[-1], **handed}

    def _judge_features(self, batch):
        """D_F tells features of HR images from those of LR images (Eq. 1)."""
        hr, lr = ops.split(self.feature_discriminator(batch["f"], training=self.learning), 2)
        return {"feature_discriminator": losses.discriminator_loss(hr, lr)}

    def _judge_images(self, batch):
        """D_I tells HR images from recovered ones; both kinds face the HR images (Eq. 3)."""
        real = self.image_discriminator(ops.split(batch["image"], 2)[0], training=self.learning)
        fake = self.image_discriminator(batch["recovered"], training=self.learning)
        found = hr_and_lr(lambda x: losses.discriminator_loss(real, x), fake)
        right = losses.critic_accuracy(real, fake)
        return {"image_discriminator": found}, {"image_discriminator_accuracy": right}

    def _joint(self, f, recovered, training):
        """The feature that C takes, u = GAP([f, g]), which is [GAP(f), GAP(g)]."""
        if self.features == "f":
            return f
        g = self.image_encoder(recovered, training=training)[-1]
        return g if self.features == "g" else ops.concatenate([f, g], axis=-1)

    def _recovered(self, maps, images, training):
        if self.decoder is None:
            return None
        return self.decoder([*maps, images] if self.residual else maps, training=training)

    def _joint_and_recovered(self, images, training):
        *maps, f = self.encoder(images, training=training)
        recovered = self._recovered(maps, images, training)
        return self._joint(f, recovered, training), recovered

    @property
    def triplet(self):
        """Weight of the triplet term, a part of L_cls (Eq. 5)."""
        return self.classification

    def embedding(self, images, level=None, training=False):
        u = self._joint_and_recovered(images, training)[0]
        return u if self.neck is None else self.neck(u, training=training)

    def graph(self, images, level=None):
        u, recovered = self._joint_and_recovered(images, training=False)
        found = {"embedding": u if self.neck is None else self.neck(u, training=False)}
        if recovered is not None:
            found["recovered"] = ops.clip(recovered, 0.0, 1.0) if self.residual else recovered
        return found

    def get_config(self):
        return {
            **super().get_config(),
            "features": self.features,
            "classification": self.classification,
            "reconstruction": self.reconstruction,
            "adversarial_features": self.adversarial_features,
            "adversarial_images": self.adversarial_images,
            "residual": self.residual,
        }


def paper_sgd():
    """CAD-Net's optimizer: SGD at 1e-3 with momentum 0.9 and weight decay 5e-4.

    In PyTorch the decay is added to the gradient and so passes the momentum, which makes it
    1 / (1 - 0.9) times as large in the long run; Keras takes it off the weight directly: 5e-3.

    Returns:
        A `keras.optimizers.SGD`.
    """
    return keras.optimizers.SGD(1e-3, momentum=0.9, weight_decay=5e-3)
