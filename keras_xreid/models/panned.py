"""Vector panning: the embedding of an LR image is moved to where that of its HR image lies.

Vector panning, arXiv 2510.00936. The re-identification network and the gallery stay as they are; a
small network moves the embeddings of queries, told their rate:

    m = x + MLP([x, log2 rate]),    loss = mean (m - y)^2,

x is the embedding of an image that was shrunk and upscaled, y that of the image itself. It learns
from embeddings alone, so that it serves any network: see `Panning` and `xreid pan`.

Ours: x and y are scaled to length sqrt(d), so that a number of them is about 1 in any network; m
gets the length of x back. The MLP has one hidden layer, and its last layer starts at 0: at first
nothing is moved. Images of rate 1, and of an unknown rate, are not moved.
"""

import time

import keras
import numpy as np
from keras import layers, ops

from keras_xreid.data.resolution import check_rates
from keras_xreid.errors import InputError, check_number
from keras_xreid.layers.head import build_reid_network
from keras_xreid.models.adaptive import check_batch_rates, nearest_level
from keras_xreid.models.arrays import as_numpy, one_for_each
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.baseline import PRESETS as OF_BASELINE
from keras_xreid.models.distances import features_to_compare
from keras_xreid.models.forward import predict, predict_first
from keras_xreid.models.presets import check_each_rate, preset_or
from keras_xreid.progress import Progress
from keras_xreid.training.phases import Phase, PhasedModel

FEATURES = ("feature", "target", "rate")  # of a batch
NETWORK = ("backbone", "image_size", "neck", "flip")
PRESETS = {
    name: {k: preset[k] for k in NETWORK if k in preset} for name, preset in OF_BASELINE.items()
}


@keras.saving.register_keras_serializable("keras_xreid")
class Panning(PhasedModel):
    """Moves embeddings of LR images to where those of their HR images lie; needs no images.

    Args:
        dimension: int, d, numbers of an embedding.
        hidden: int, units of the hidden layer.
        **kwargs: of `keras.Model`.

    Example:

    >>> panning = Panning(dimension=512)
    >>> panning.compile({"mlp": keras.optimizers.Adam(2e-4)})
    >>> panning.fit(FeatureBatches(of_lr, of_hr, rates), epochs=120)
    >>> moved = panning.move(query_features, rates=4)      # the gallery stays as it is

    Reference:
        Vector panning, arXiv 2510.00936.
    """

    critics = ()  # see `keras_xreid.save`

    def __init__(self, dimension, hidden=512, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # of embeddings: they get their length back in float32
        check_number("dimension of the embeddings", dimension, most=100_000)
        check_number("hidden units", hidden, most=100_000)
        self.dimension, self.hidden = int(dimension), int(hidden)
        feature = keras.Input((self.dimension,), name="feature")
        rate = keras.Input((), name="rate")
        told = ops.log2(rate)[:, None]
        x = layers.Dense(self.hidden, activation="relu", name="hidden")(
            layers.Concatenate()([feature, told])
        )
        step = layers.Dense(self.dimension, kernel_initializer="zeros", name="step")(x)
        self.mlp = keras.Model([feature, rate], layers.Add()([feature, step]), name="mlp")
        self.built = True

    def phases(self):
        return [Phase(("mlp",), self._terms, ("mse",))]

    def check_batch(self, batch):
        """Raises an `InputError` where a batch is no pairs of embeddings with their rates."""
        names = tuple(batch) if isinstance(batch, dict) else (type(batch).__name__,)
        if not set(FEATURES) <= set(names):
            raise InputError(
                f"Panning trains on {', '.join(FEATURES)}, and the batch has {', '.join(names)}: "
                "give keras_xreid.FeatureBatches"
            )
        shape = tuple(batch["feature"].shape)
        if shape[1:] != (self.dimension,) or tuple(batch["target"].shape) != shape:
            raise InputError(
                f"embeddings of shapes {shape} and {tuple(batch['target'].shape)} were given to a "
                f"Panning of dimension {self.dimension}"
            )
        check_batch_rates(batch["rate"], len(batch["feature"]))

    def _terms(self, batch):
        x, _ = _scaled(batch["feature"])
        y, _ = _scaled(batch["target"])
        moved = self.mlp([x, ops.cast(batch["rate"], "float32")], training=self.learning)
        return {"mse": ops.mean(ops.square(ops.cast(moved, "float32") - y))}

    def call(self, features, rate, training=False):
        """Moves embeddings, as tensors.

        Args:
            features: (n, d).
            rate: (n,), the down-sampling rate of each; of 1 it stays as it is.
            training: bool.

        Returns:
            (n, d) float32.
        """
        features, rate = ops.cast(features, "float32"), ops.cast(rate, "float32")
        x, length = _scaled(features)
        moved = ops.cast(self.mlp([x, rate], training=training), "float32") * length
        return ops.where(rate[:, None] > 1, moved, features)

    def move(self, features, rates, batch_size=1024):
        """Moves embeddings of queries.

        Args:
            features: (n, d) array.
            rates: number or (n,) array, the down-sampling rate of each; of 1 it stays as it is.
            batch_size: int, embeddings a forward pass; does not change the result.

        Returns:
            (n, d) float32 array.

        Raises:
            InputError: embeddings of another dimension, or a rate below 1.
        """
        features = as_numpy(features).astype("float32")
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise InputError(
                f"embeddings of shape {features.shape} were given to a Panning of dimension "
                f"{self.dimension}: take the network that it was trained for"
            )
        check_number("batch size", batch_size)
        rates = one_for_each(rates, len(features)).astype("float32")
        check_rates(np.unique(rates) if len(rates) else [1])
        low = rates > 1
        if low.any():
            x, length = _scaled(features[low], np)
            features[low] = predict(self.mlp, [x, rates[low]], batch_size)[0] * length
        return features

    def get_config(self):
        return {**super().get_config(), "dimension": self.dimension, "hidden": self.hidden}


@keras.saving.register_keras_serializable("keras_xreid")
class Panned(ReIDModel):
    """A network that never saw LR images, and a `Panning` of its queries' embeddings.

    Args:
        people: int, number of training people.
        preset: "paper", "tiny" or "strong", as of `Baseline`.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone.
        image_size: (height, width).
        hidden: int, units of the panning's hidden layer.
        rates: rates of the levels of an exported graph; `embed` takes any rate.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        neck: bool, whether the network has a BNNeck.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.

    Example:

    >>> model = Panned(people=401, preset="tiny")
    >>> model.network.set_weights(baseline.network.get_weights())
    >>> model.panning.compile({"mlp": keras.optimizers.Adam(2e-4)})
    >>> model.panning.fit(model.features_of(pairs, views=4), epochs=120)
    >>> features = model.embed(images, rates=4)

    Reference:
        Vector panning, arXiv 2510.00936.
    """

    PRESETS = PRESETS

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, hidden=512,
        rates=(1, 2, 3, 4), last_stride=1, neck=None, flip=None, **kwargs,
    ):  # fmt: skip
        given = preset_or(
            PRESETS, preset, backbone=backbone, image_size=image_size, neck=neck, flip=flip
        )
        backbone = given.backbone
        super().__init__(people, backbone, given.image_size, last_stride, given.flip, **kwargs)
        check_each_rate(rates)
        self.preset, self.neck = preset, given.neck
        self.rates = sorted((float(rate) for rate in rates), reverse=True)  # as `Adaptive` has them
        self.network = build_reid_network(
            self.people, backbone, self.image_size, None, last_stride, self.neck
        )
        self.network.trainable = False
        self.panning = Panning(self.network.outputs[0].shape[-1], hidden, name="panning")
        self.query_levels = len(self.rates)
        self.built = True

    def phases(self):
        raise InputError("Panned trains on embeddings: compile and fit model.panning")

    def check_data(self, data):
        self.phases()

    def from_images_and_labels(self, images, labels):
        self.phases()

    def features_of(self, pairs, views=1, seed=0):
        """Embeds what `Panning` learns from: each image at HR and at a drawn rate.

        Args:
            pairs: a `PairBatches`.
            views: int, epochs of it: how often each image is seen, each time at another rate.
            seed: int, of the order in which the panning sees them.

        Returns:
            A `FeatureBatches`; its `seconds` say how long that took.
        """
        check_number("views", views)
        parts, began = [], time.perf_counter()
        progress = Progress(f"Embedding {views * len(pairs)} batches of pairs", views * len(pairs))
        for number in range(views * len(pairs)):
            batch = pairs.batch(*divmod(number, len(pairs)))
            both = [predict_first(self.network, batch[k], 64) for k in ("lr", "hr")]
            parts.append((*both, batch["rate"]))
            progress.add()
        feature, target, rate = map(np.concatenate, zip(*parts, strict=True))
        batches = FeatureBatches(feature, target, rate, seed=seed)
        batches.seconds = time.perf_counter() - began
        return batches

    def embedding(self, images, level=None, training=False):
        features = self.network(images, training=False)[0]
        if level is None:
            return features
        # PyTorch's exporter to ONNX knows no `take` of one dimension.
        own = ops.equal(level[:, None], np.arange(1, len(self.rates) + 1, dtype="int32"))
        # On TensorFlow a tensor would become an input of the graph, and a product pass for sparse.
        rate = ops.matmul(ops.cast(own, "float32"), np.float32(self.rates)[:, None])[:, 0]
        return self.panning(features, rate, training=training)

    def levels_of(self, rates):
        """As `Adaptive.levels_of`, of an exported graph."""
        return ops.convert_to_numpy(nearest_level(np.asarray(rates, "float32"), self.rates))

    def graph(self, images, level=None):
        return {"embedding": self.embedding(images, level)}

    def _embed(self, images, rates, batch_size):
        features = predict_first(self.network, images, batch_size)
        return features if rates is None else self.panning.move(features, rates)

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "hidden": self.panning.hidden,
            "rates": list(self.rates),
            "neck": self.neck,
        }


class FeatureBatches(keras.utils.PyDataset):
    """Batches of embeddings for `Panning`, each a pure function of (seed, epoch, index).

    Args:
        feature: (n, d) embeddings of LR images.
        target: (n, d) embeddings of the same images at HR.
        rate: (n,) down-sampling rates, or one for all.
        batch_size: int, embeddings a batch; what is left of an epoch is left out, unless it is all.
        seed: int, of the order.

    Attributes:
        epoch: number of the epoch that comes next or is under way. It goes up when an epoch has
            been drawn to its end; set it to resume.

    Returns:
        `batches[index]` is a dict: "feature" and "target" (n, d) float32, "rate" (n,) float32.

    Raises:
        InputError: embeddings that do not fit together or are not finite, or a rate below 1.

    Example:

    >>> batches = FeatureBatches(model.embed(low, rates=4), model.embed(high, rates=1), rate=4)
    """

    images_each = 0  # of an item of a batch: embeddings are no images

    def __init__(self, feature, target, rate, batch_size=256, seed=0):
        super().__init__()
        self.feature, self.target = features_to_compare(feature, target)
        if len(self.feature) != len(self.target) or not len(self.feature):
            raise InputError(
                f"{len(self.feature)} embeddings of LR images and {len(self.target)} of HR images: "
                "give one of each image"
            )
        if not (np.isfinite(self.feature).all() and np.isfinite(self.target).all()):
            raise InputError("the embeddings are not all finite (NaN): the network is damaged")
        self.rate = one_for_each(rate, len(self.feature)).astype("float32")
        check_rates(np.unique(self.rate))
        check_number("batch size", batch_size, most=1_000_000)
        check_number("seed", seed, least=0)
        self.batch_size, self.seed, self.epoch = min(batch_size, len(self.feature)), seed, 0
        self._drawn = None  # the batches of the epoch that is under way

    def __len__(self):
        return len(self.feature) // self.batch_size

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        if self._drawn is not None:
            self._drawn.add(index)
        return self.batch(self.epoch, index)

    def on_epoch_begin(self):
        self._drawn = set()

    def on_epoch_end(self):
        # `fit` also calls this before its first epoch. What it draws before an epoch, to see what
        # batches are like, does not count; and it may draw an epoch's batches in any order.
        if self._drawn is not None and len(self._drawn) == len(self):
            self.epoch += 1
        self._drawn = None

    def batch(self, epoch, index):
        """Makes one batch, without regard to the epoch that is under way.

        Args:
            epoch: number of the epoch, from 0.
            index: number of the batch in it, from 0.

        Returns:
            The batch, a dict of NumPy arrays.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.feature))
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        return {name: getattr(self, name)[rows] for name in FEATURES}


def _scaled(features, ops=ops):
    """Features of length sqrt(d), and what gives them their length back."""
    features = features if ops is np else ops.cast(features, "float32")
    mean = ops.mean(ops.square(features), axis=-1, keepdims=True)
    length = ops.sqrt(mean + 1e-24)
    return features / length, length
