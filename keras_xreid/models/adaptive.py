"""Resolution-adaptive representations: a metric that depends on the resolution of the query.

Wu, Liu, Wang, Zhang, Boussaid, Bennamoun: Learning Resolution-Adaptive Representations for
Cross-Resolution Person Re-Identification. Level k = 1 is the lowest of m resolutions, m the
highest. `network` turns an image and its level into z, the vector v = [v_1, ..., v_m] of which
an image at level k keeps v_1 to v_k; masks M_k^l scale the channels behind each residual stage l.
`classifier` is W, `verifier` is f.

One train step: cross-entropy on z plus 0.5 of the verification loss (Eq. 4) on differences of z.
The masks are introduced and frozen stage by stage by `training.freezing.Progressive`.

Where paper and text leave it open, ours: equal sub-vectors; M starts at a Gaussian of mean 0 and
deviation 1; W has no bias; f has one hidden layer of 256; Eq. 4 with the y_n that its first term
lacks in print. A batch holds pairs, HR images at level m and LR images at their own levels, which
pass the network at once; the verification compares an LR image with another HR image of its
person and with one of another person, half and half. Not yet introduced masks are 1. Training
images are cropped as `PairBatches` does, and not padded by 10 pixels first; the paper does not say
where the backbone starts, the recipe's paper preset takes ImageNet. Keras's Adam corrects its
moments by one count of steps for all variables, PyTorch's, which the paper used, by one for each:
the step t of a mask that came late is (1 - 0.9^t) / sqrt(1 - 0.999^t) times the schedule's where
its gradient is steady, 3.2 times at t = 1, 6.6 near 12, 3.2 again at 100 and 2.0 at 300.

`preset="strong"` is ours further: a BNNeck on v; masks that start from one narrow drawing for all
levels and move faster; verification of prefix with prefix, as is searched (z_j is cut to the length
of z_i); and cosine on the prefix, for a short vector of a query carries alone what the parts of an
HR image share, so that their norms differ.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_xreid import losses
from keras_xreid.backbones import build_stages
from keras_xreid.data.resolution import check_rates
from keras_xreid.errors import InputError
from keras_xreid.layers.head import build_neck, classifier
from keras_xreid.layers.mask import ResolutionMask, VaryingLength, kept_by_level
from keras_xreid.models.arrays import as_numpy, high_and_low, one_for_each
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.baseline import pairs_within
from keras_xreid.models.distances import features_to_compare
from keras_xreid.models.forward import predict_first
from keras_xreid.models.presets import (
    STRONG,
    check_each_rate,
    check_loss_weights,
    check_settings,
    preset_or,
)
from keras_xreid.training.phases import Phase
from keras_xreid.training.processes import whole

MASKS = {"mask_stddev": 1.0, "mask_speed": 1.0}
PRESETS = {
    "paper": {"backbone": "resnet50", "image_size": (256, 128), "dim": 2048, **MASKS},
    "tiny": {"backbone": "resnet_tiny", "image_size": (128, 64), "dim": 512, **MASKS},
    "strong": {
        **STRONG,
        "dim": 512,
        "mask_stddev": 0.1,
        "mask_shared": True,
        "mask_speed": 10.0,
        "prefixes": True,
    },
}
MASKED_STAGES = 4


@keras.saving.register_keras_serializable("keras_xreid")
class Adaptive(ReIDModel):
    """Resolution-adaptive representations, with every variant of their Tables II to V.

    Args:
        people: int, number of training people.
        preset: "paper" (ResNet-50 at 256x128, d = 2048), "tiny" (a 3.5 M ResNet at 128x64,
            d = 512) or "strong" (EfficientNet-Lite0 at 128x64, d = 512, with the field's tricks);
            what is given besides replaces the preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone; masks stand behind
            its last four feature maps.
        image_size: (height, width).
        rates: down-sampling rates of the m levels, in any order; the smallest is level m.
        dim: int, d, dimensions of v.
        sizes: list of m ints that add up to d, from the lowest resolution on; equal parts if not
            given.
        masks: whether there are masks (Table II).
        varying_length: whether z is as long as the level allows; z = v otherwise (Table II).
        classification: float, weight of the cross-entropy; 0 for none (Table IV).
        verification: float, lambda, weight of the verification loss; 0 for none (Table IV).
        mask_stddev: float, of the Gaussian at which masks start, before the sigmoid.
        mask_shared: bool, whether all levels start from one drawing.
        mask_speed: float, how many times faster masks learn, see `ResolutionMask`.
        prefixes: bool, whether pairs are verified, and galleries ranked by cosine, on the parts
            that both images have; else pairs are padded and galleries ranked by Eq. 2.
        label_smoothing: float in [0, 1).
        neck: bool, a BNNeck on v, before it is cut.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        weights: None, "imagenet" or a model to copy from, where the backbone starts.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.

    Raises:
        InputError: rates below 1 or twice the same, sizes that do not fit, a negative weight, or
            no loss left.

    Example:

    >>> model = Adaptive(people=401, preset="tiny")
    >>> model.compile()
    >>> batches = PairBatches(data.train, rates=(1, 2, 3, 4), people_per_batch=8)
    >>> progressive = Progressive(model.masks[::-1], epochs=[3, 3, 3, 3])
    >>> model.fit(batches, epochs=12, callbacks=[progressive])
    >>> query, gallery = model.embed(low, rates=4), model.embed(high, rates=1)
    >>> distances = model.distances(query, gallery, query_rates=4)

    Reference:
        Wu et al., Learning Resolution-Adaptive Representations, Section III.
    """

    PRESETS = PRESETS
    batch_names = ("hr", "lr", "person", "rate")

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, rates=(1, 2, 3, 4), dim=None,
        sizes=None, masks=True, varying_length=True, classification=1.0, verification=0.5,
        mask_stddev=None, weights=None, last_stride=1, mask_shared=None, mask_speed=None,
        prefixes=None, label_smoothing=None, neck=None, flip=None, **kwargs,
    ):  # fmt: skip
        given = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, mask_stddev=mask_stddev,
            mask_shared=mask_shared, mask_speed=mask_speed, prefixes=prefixes,
            label_smoothing=label_smoothing, neck=neck, flip=flip,
        )  # fmt: skip
        backbone = given.backbone
        super().__init__(people, backbone, given.image_size, last_stride, given.flip, **kwargs)
        check_each_rate(rates)
        check_loss_weights(classification, verification)
        check_settings(given.label_smoothing)
        self.preset, self.rates = preset, sorted(rates, reverse=True)
        m = len(self.rates)
        if sizes is None:
            dim = dim or PRESETS[preset]["dim"]
            sizes = [len(part) for part in np.array_split(np.arange(dim), m)]
        if len(sizes) != m or min(sizes) < 1 or dim not in (None, sum(sizes)):
            raise InputError(
                f"sub-vectors of sizes {list(sizes)} for {m} levels and {dim or sum(sizes)} "
                "dimensions: give one size, 1 or more, for each level, and sizes that add up"
            )
        self.sizes, self.varying_length = [int(size) for size in sizes], varying_length
        self.classification, self.verification = classification, verification
        self.mask_stddev, self.mask_speed = given.mask_stddev, given.mask_speed
        self.mask_shared, self.prefixes, self.neck = given.mask_shared, given.prefixes, given.neck
        self.label_smoothing = float(given.label_smoothing)

        image = keras.Input((*self.image_size, 3), name="image")
        level = keras.Input((), dtype="int32", name="level")
        stages, x = build_stages(backbone, self.image_size, weights, last_stride), image
        for number, stage in enumerate(stages, start=MASKED_STAGES - len(stages) + 1):
            x = stage(x)
            if masks and number > 0:
                x = ResolutionMask(
                    m, self.mask_stddev, shared=self.mask_shared, speed=self.mask_speed,
                    name=f"mask{number}",
                )([x, level])  # fmt: skip
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(x)
        z = layers.Dense(sum(self.sizes), name="v")(x)
        if self.neck:
            z = build_neck(sum(self.sizes))(z)
        if varying_length:
            z = VaryingLength(self.sizes, name="z")([z, level])
        self.network = keras.Model([image, level], z, name="network")
        self.classifier = self.verifier = None
        feature = keras.Input(z.shape[1:], name="feature")
        if classification:
            # W has no bias, with a neck or without.
            of_paper = layers.Dense(self.people, use_bias=False, name="logits")
            layer = classifier(self.people, True, "logits") if self.neck else of_paper
            logits = layer(feature)
            self.classifier = keras.Model(feature, logits, name="classifier")
        if verification:
            x = layers.Activation("relu")(layers.Dense(256)(feature))
            self.verifier = keras.Model(feature, layers.Dense(1)(x), name="verifier")
        self.built = True

    @property
    def masks(self):
        """The `ResolutionMask` layers, that of the deepest stage last; empty without masks."""
        return [layer for layer in self.network.layers if isinstance(layer, ResolutionMask)]

    @property
    def metric(self):
        """What `distances` measures, in words."""
        return super().metric if self.prefixes else "squared Euclidean"

    def default_optimizers(self):
        """The paper's: Adam at 3.5e-4."""
        return {part: keras.optimizers.Adam(3.5e-4) for part in self.phases()[0].updates}

    def phases(self):
        parts, terms = ["network"], []
        if self.classification:
            parts.append("classifier")
            terms.append("id")
        if self.verification:
            parts.append("verifier")
            terms.append("verification")
        measures = ("id",) if self.classification else ()
        return [Phase(tuple(parts), self._terms, tuple(terms), measures)]

    def check_batch(self, batch):
        super().check_batch(batch)
        check_batch_rates(batch["rate"], len(batch["person"]))

    def prepare(self, batch):
        level = nearest_level(batch["rate"], self.rates)
        highest = ops.full_like(level, len(self.rates))
        return {**high_and_low(batch), "level": ops.concatenate([highest, level])}

    def _terms(self, batch):
        z = self.network([batch["image"], batch["level"]], training=self.learning)
        z, person, level = whole([z, batch["person"], batch["level"]])
        terms, handed = {}, {}
        if self.classification:
            logits = self.classifier(z, training=self.learning)
            handed["id"] = losses.cross_entropy(person, logits, self.label_smoothing)
            terms["id"] = self.classification * handed["id"]
        if self.verification:
            gallery, query = ops.split(z, 2)
            first, second, same = pairs_within(ops.split(person, 2)[1])
            query, gallery = ops.take(query, first, axis=0), ops.take(gallery, second, axis=0)
            if self.prefixes and self.varying_length:
                cut = self.network.get_layer("z")
                gallery = cut([gallery, ops.take(ops.split(level, 2)[1], first)])
            difference = query - gallery
            logits = self.verifier(difference, training=self.learning)
            terms["verification"] = self.verification * losses.verification(logits, same)
        return terms, handed

    def embedding(self, images, level=None, training=False):
        if level is None:
            level = ops.cast(ops.zeros_like(images[:, 0, 0, 0]), "int32") + len(self.rates)
        return self.network([images, level], training=training)

    @property
    def query_levels(self):
        """How many levels embeddings depend on: m with masks or a varying length, else none."""
        return len(self.rates) if self.masks or self.varying_length else 0

    @property
    def normalizes_by_level(self):
        return self.query_levels > 0

    def graph(self, images, level=None):
        return {"embedding": self.embedding(images, level)}

    def levels_of(self, rates):
        """The levels of images: that of the nearest trained rate, the lower resolution of two.

        Args:
            rates: (n,) array of down-sampling rates.

        Returns:
            (n,) int32 array, 1 (lowest resolution) to m.
        """
        return ops.convert_to_numpy(nearest_level(np.asarray(rates, "float32"), self.rates))

    def _embed(self, images, rates, batch_size):
        rates = np.full(len(images), self.rates[-1]) if rates is None else rates
        return predict_first(self.network, [images, self.levels_of(rates)], batch_size)

    def distances(self, query_features, gallery_features, query_rates=None):
        """Squared Euclidean distances on what a query of its level has (Eq. 2).

        With `prefixes`, 1 - cosine on the same parts.

        The level is that of the nearest trained rate. To compare by another level, embed the
        query and ask for its distances with that level's rate: the images stay as they are.

        Args:
            query_features: (q, d) array from `embed`.
            gallery_features: (g, d) array from `embed` with `rates=1`; one serves all levels.
            query_rates: int or (q,) array, the rates that the queries were embedded with; the
                highest level if not given.

        Returns:
            (q, g) float32 array.
        """
        query, gallery = features_to_compare(query_features, gallery_features)
        rates = self.rates[-1] if query_rates is None else query_rates
        level = self.levels_of(one_for_each(rates, len(query))) - 1
        kept = kept_by_level(self.sizes)
        if not self.varying_length:
            kept[:] = 1
        # |z|^2 - 2 z g + |g|^2 over the first k parts. A query is 0 behind them, which cuts the
        # gallery's vector in the product, so that it serves all levels at once; the square of what
        # is left of the gallery's is one row of (m, g) for each level.
        query = query * kept[level]
        of_query = np.sum(np.square(query), axis=1)[:, None]
        of_gallery = kept @ np.square(gallery).T
        squared = query @ gallery.T
        if self.prefixes:
            squared /= np.sqrt(np.maximum(of_query, 1e-24))
            squared /= np.sqrt(np.maximum(of_gallery, 1e-24))[level]
            return np.maximum(np.subtract(1.0, squared, out=squared), 0.0, out=squared)
        squared *= -2.0
        squared += of_query
        squared += of_gallery[level]
        return np.maximum(squared, 0.0, out=squared)

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "rates": list(self.rates),
            "sizes": list(self.sizes),
            "masks": bool(self.masks),
            "varying_length": self.varying_length,
            "classification": self.classification,
            "verification": self.verification,
            "mask_stddev": self.mask_stddev,
            "mask_shared": self.mask_shared,
            "mask_speed": self.mask_speed,
            "prefixes": self.prefixes,
            "label_smoothing": self.label_smoothing,
            "neck": self.neck,
        }


def check_batch_rates(rates, count):
    """Refuses what are not the rates of a batch, one of 1 or more for each image.

    Raises:
        InputError: another number of them, or another rate.
    """
    rates = as_numpy(rates)
    if rates.shape != (count,):
        raise InputError(f"rate is of shape {rates.shape} for {count} images: give one for each")
    check_rates(np.unique(rates) if count else [1])


def nearest_level(rates, trained):
    """The level whose rate is nearest, and of two equally near ones the lower resolution.

    Args:
        rates: (n,) numbers or tensor.
        trained: list of m rates, from the lowest resolution on.

    Returns:
        (n,) int32 tensor, 1 to m.
    """
    rates = ops.cast(rates, "float32")
    apart = ops.abs(rates[:, None] - ops.convert_to_tensor(trained, "float32"))
    # The first of equals on every backend, whatever its argmin does.
    apart += 1e-5 * ops.arange(len(trained), dtype="float32")
    return ops.cast(ops.argmin(apart, axis=1), "int32") + 1
