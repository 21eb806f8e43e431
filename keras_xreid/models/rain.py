"""RAIN: one feature extractor for all resolutions, aligned by adversaries, held by a decoder.

Chen, Li, Du, Wang: Learning Resolution-Invariant Deep Representations for Person
Re-Identification, AAAI 2019. In the paper's letters: F is `extractor`, G is `decoder`, C is
`classifier`, D_j of all levels j together are `discriminator`; f1 to f5 are F's feature maps and
v = GAP(f5) is the embedding.

One train step: F, G and C together (Eq. 7), then the D_j on the same features (Eq. 1), which are
not computed a second time. D's term reaches F only. An image without a label (-1) takes part in
the reconstruction and in the alignment only, which is the paper's semi-supervised training.

The paper gives neither optimizer nor margin nor the layout of D and G. `settings="paper"` borrows
them from CAD-Net (D as Tsai et al., G of Miyato's up-blocks, margin 2, SGD); every weight is 1, F
minimises both terms of Eq. 1 and shows D swapped labels, G has no skips. `settings="authors-code"`
follows the published code: weights 10 (C), 10 or, with several levels, 20 (triplet) and 0.01
(D), triplets on unit vectors, only LR features are to pass for HR ones, D of stride-1
convolutions with Adam, G with skips. Its reconstruction has weight 1 on pixels in [-1, 1], which
is 2 on ours in [0, 1].

Where both are silent, ours: norms are means over elements; adversarial terms are non-saturating;
triplets are batch-hard, within the HR and within the LR images; HR and LR images pass F, G and D
as one batch, so that both are normalised as they will be in the test and D sees all of their
difference; last stride 1; Euclidean distances. `preset="strong"` has a BNNeck between v and C,
triplets of margin 0.3 over HR and LR images together, label smoothing, and ranks by cosine.
"""

import keras
from keras import ops

from keras_xreid import losses
from keras_xreid.backbones import build_extractor
from keras_xreid.errors import InputError
from keras_xreid.layers.decoder import build_decoder
from keras_xreid.layers.discriminator import build_feature_discriminators
from keras_xreid.layers.head import build_neck, classifier
from keras_xreid.models.cadnet import paper_sgd
from keras_xreid.models.dual import DualModel, hr_and_lr
from keras_xreid.models.presets import STRONG, check_loss_weights, preset_or
from keras_xreid.training.phases import Phase

SETTINGS = ("paper", "authors-code")

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
    },
}


@keras.saving.register_keras_serializable("keras_xreid")
class RAIN(DualModel):
    """RAIN, with every variant of its Tables 1 and 3.

    A term of weight 0 is off, and so is the part that it alone needs.

    Args:
        people: int, number of training people.
        preset: "paper" (ResNet-50 at 256x128), "tiny" (a 3.5 M ResNet at 128x64) or "strong"
            (EfficientNet-Lite0 at 128x64, with the field's tricks); what is given besides replaces
            the preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone, of F.
        image_size: (height, width), multiples of 16; of 32 where the backbone's stride is 32.
        levels: which feature maps are aligned, 5 the last: (4, 5) multi-level, (5,) single-level.
        settings: "paper" or "authors-code": the weights below, and the layouts.
        classification: float, weight of L_cls (Eq. 3); None for that of the settings, as below.
        triplet: float, weight of L_tri (Eq. 6).
        reconstruction: float, weight of L_rec (Eq. 2).
        adversarial: float, weight of L_adv (Eq. 1), summed over the levels.
        margin: float, of the triplet loss, in units of the features' distance; 2 in "paper".
        label_smoothing: float in [0, 1).
        neck: bool, a BNNeck between v and C: the embedding lies behind it, triplets before it.
            Distances are cosine then.
        unit_triplet: bool, whether triplets compare unit vectors, as the authors' code does.
        joint: bool, whether identity and triplet terms are over HR and LR images at once.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        weights: None, "imagenet" or a model to copy from, where F starts.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        decoder_widths: channels of the decoder's up-blocks.
        discriminator_width: int, channels of D's first convolution, or of its last but one in
            the layout of the authors' code.

    Raises:
        InputError: an unknown level or settings, a negative weight, or no loss left.

    Example:

    >>> model = RAIN(people=401, preset="tiny")
    >>> model.compile()
    >>> model.fit(PairBatches(data.train, people_per_batch=4), epochs=10)
    >>> features, recovered = model.embed(images), model.recover(images)

    Reference:
        Chen et al., AAAI 2019, Eq. 1 to 8.
    """

    critics = ("discriminator",)
    keeps_statistics = ("decoder",)  # no embedding passes it
    without_decoder = "a RAIN without the reconstruction loss has no decoder"

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, levels=(4, 5),
        settings="paper", classification=None, triplet=None, reconstruction=None, adversarial=None,
        margin=None, weights=None, last_stride=1, decoder_widths=None, discriminator_width=None,
        label_smoothing=None, neck=None, joint=None, flip=None, unit_triplet=None, **kwargs,
    ):  # fmt: skip
        sizes = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, margin=margin, neck=neck,
            label_smoothing=label_smoothing, joint=joint, flip=flip, unit_triplet=unit_triplet,
            decoder_widths=decoder_widths, discriminator_width=discriminator_width,
        )  # fmt: skip
        super().__init__(people, preset, sizes, last_stride, **kwargs)
        if settings not in SETTINGS:
            raise InputError(f"settings {settings!r}: give one of {', '.join(SETTINGS)}")
        code = settings == "authors-code"
        self.settings, self.unit_triplet = settings, self.unit_triplet or code
        self.levels = (levels,) if isinstance(levels, int) else tuple(sorted(set(levels)))
        defaults = (1.0, 1.0, 1.0, 1.0)
        if code:
            defaults = (10.0, 20.0 if len(self.levels) > 1 else 10.0, 2.0, 0.01)
        self.classification, self.triplet, self.reconstruction, self.adversarial = given = tuple(
            default if weight is None else weight
            for weight, default in zip(
                (classification, triplet, reconstruction, adversarial), defaults, strict=True
            )
        )
        check_loss_weights(*given)

        self.extractor = build_extractor(sizes.backbone, self.image_size, weights, last_stride)
        *maps, v = self.extractor.outputs
        known = range(6 - len(maps), 6)
        if not self.levels or not set(self.levels) <= set(known):
            raise InputError(f"levels {self.levels}: give some of {known[0]} to 5")
        self.classifier = self.decoder = self.discriminator = None
        self.neck = build_neck(v.shape[-1]) if sizes.neck else None
        if self.classification:
            feature = keras.Input(v.shape[1:], name="v")
            logits = classifier(self.people, sizes.neck, "logits")(feature)
            self.classifier = keras.Model(feature, logits, name="classifier")
        if self.adversarial:
            self.discriminator = build_feature_discriminators(
                [x.shape[1:] for x in self._aligned(maps)],
                "rain-code" if code else "tsai",
                self.discriminator_width,
            )
        # Networks for the test, of the same parts.
        image = keras.Input((*self.image_size, 3))
        embedding, recovered = self.embedding(image), None
        if self.reconstruction:
            self.decoder = build_decoder(
                [x.shape[1:] for x in maps], self.image_size, self.decoder_widths, skips=code
            )
            recovered = self.decoder(self.extractor(image)[:-1])
        self._test_by(image, embedding, recovered)
        self.built = True

    def default_optimizers(self):
        """The settings': CAD-Net's; Adam at 1e-4 for D in the authors' code's."""
        optimizers = {part: paper_sgd() for part in self.phases()[0].updates}
        if self.discriminator is not None:
            code = self.settings == "authors-code"
            kind = keras.optimizers.Adam if code else keras.optimizers.SGD
            optimizers["discriminator"] = kind(1e-4)
        return optimizers

    def phases(self):
        parts = ("extractor", "decoder", "neck", "classifier")
        parts = [part for part in parts if getattr(self, part) is not None]
        terms = {
            "id": self.classification,
            "triplet": self.triplet,
            "reconstruction": self.reconstruction,
            "adversarial": self.adversarial,
        }
        terms = tuple(term for term, weight in terms.items() if weight)
        measures = ["id"] if self.classification else []
        if self.discriminator is not None:
            measures += [f"discriminator_accuracy_{level}" for level in self.levels]
        steps = [Phase(tuple(parts), self._extract, terms, tuple(measures))]
        if self.discriminator is not None:
            steps.append(Phase(("discriminator",), self._judge, ("discriminator",)))
        return steps

    def _extract(self, batch):
        """F, G and C minimise Eq. 7."""
        *maps, v = self.extractor(batch["image"], training=self.learning)
        embedding = v if self.neck is None else self.neck(v, training=self.learning)
        logits = self.classifier(embedding, training=self.learning) if self.classification else None
        terms, handed = self.identity_terms(batch, v, logits)
        if self.reconstruction:
            recovered = self.decoder(maps, training=self.learning)
            found = hr_and_lr(losses.absolute_error, recovered, batch["target"])
            terms["reconstruction"] = self.reconstruction * found
        if self.adversarial:
            judged = self._logits(self._aligned(maps))
            found = [self._confusion(hr, lr) for hr, lr in judged]
            terms["adversarial"] = self.adversarial * sum(found)
            # D's own step comes after this one: it has not learnt from this batch.
            for level, both in zip(self.levels, judged, strict=True):
                handed[f"discriminator_accuracy_{level}"] = losses.critic_accuracy(*both)
        return terms, {"maps": self._aligned(maps), **handed}

    def _judge(self, batch):
        """D tells features of HR images from those of LR images, at each level (Eq. 1)."""
        found = [losses.discriminator_loss(hr, lr) for hr, lr in self._logits(batch["maps"])]
        return {"discriminator": sum(found)}

    def _confusion(self, hr, lr):
        if self.settings == "authors-code":
            return losses.generator_loss(lr)
        return losses.discriminator_loss(real_logits=lr, fake_logits=hr)

    def _aligned(self, maps):
        """The maps of the aligned levels; the last map is level 5, however many there are."""
        return [maps[level - 6] for level in self.levels]

    def _logits(self, maps):
        """For each level, D's logits of the HR and of the LR images."""
        logits = self.discriminator(maps, training=self.learning)
        return [ops.split(x, 2) for x in (logits if len(maps) > 1 else [logits])]

    def embedding(self, images, level=None, training=False):
        v = self.extractor(images, training=training)[-1]
        return v if self.neck is None else self.neck(v, training=training)

    def graph(self, images, level=None):
        *maps, v = self.extractor(images, training=False)
        found = {"embedding": v if self.neck is None else self.neck(v, training=False)}
        if self.decoder is not None:
            found["recovered"] = self.decoder(maps, training=False)
        return found

    def get_config(self):
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "settings": self.settings,
            "classification": self.classification,
            "triplet": self.triplet,
            "reconstruction": self.reconstruction,
            "adversarial": self.adversarial,
        }
