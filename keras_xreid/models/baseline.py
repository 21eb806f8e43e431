"""The baseline: one re-identification network, trained on HR images or on HR and LR images."""

import keras

from keras_xreid import losses
from keras_xreid.layers.head import build_reid_network
from keras_xreid.models.base import ReIDModel, predict, scaled
from keras_xreid.training.phases import Phase

PRESETS = {
    "paper": {"backbone": "osnet_x1_0", "image_size": (256, 128)},
    "tiny": {"backbone": "resnet_tiny", "image_size": (128, 64)},
}


@keras.saving.register_keras_serializable("keras_xreid")
class Baseline(ReIDModel):
    """A re-identification network trained with cross-entropy (INTACT Eq. 3).

    Which images it sees is up to the batches: rate 1 only gives the HR baseline and INTACT's
    first stage, rates 1 to 4 the baseline on HR and LR.

    Args:
        people: int, number of training people.
        preset: "paper" (OSNet x1.0 at 256x128) or "tiny" (a 3.5 M ResNet at 128x64); what is
            given besides replaces the preset's.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone.
        image_size: (height, width).
        label_smoothing: float in [0, 1).
        last_stride: 1 or 2, stride of the last stage of a ResNet.
        weights: None or "imagenet", where the backbone starts.

    Example:

    >>> model = Baseline(people=401, preset="tiny")
    >>> model.compile({"network": keras.optimizers.Adam(1e-3)})
    >>> model.fit(ImageBatches(data.train, image_size=(128, 64)), epochs=10, shuffle=False)
    >>> features = model.embed(images)
    """

    def __init__(
        self, people, preset="paper", backbone=None, image_size=None, label_smoothing=0.0,
        last_stride=1, weights=None, **kwargs,
    ):  # fmt: skip
        sizes = PRESETS[preset]
        backbone = backbone or sizes["backbone"]
        super().__init__(people, backbone, image_size or sizes["image_size"], last_stride, **kwargs)
        self.preset, self.label_smoothing = preset, label_smoothing
        self.network = build_reid_network(
            self.people, backbone, self.image_size, weights, last_stride
        )
        self.built = True

    def phases(self):
        return [Phase(("network",), self._identity, ("id",))]

    def prepare(self, batch):
        return {"image": scaled(batch["image"]), "person": batch["person"]}

    def _identity(self, batch):
        _, logits = self.network(batch["image"], training=True)
        return {"id": losses.cross_entropy(batch["person"], logits, self.label_smoothing)}

    def call(self, images, training=False):
        return self.network(images, training=training)[0]

    def _embed(self, images, rates, batch_size):
        return predict(self.network, images, batch_size)[0]

    def get_config(self):
        # Neither `weights` nor `last_stride`'s default matter to a model whose weights follow.
        return {
            **super().get_config(),
            "preset": self.preset,
            "label_smoothing": self.label_smoothing,
        }
