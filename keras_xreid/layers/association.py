"""INTACT's association between the re-identification and the discriminator's features."""

import keras
from keras import layers

from keras_xreid import losses


def _three_layers(inputs, outputs, hidden, name, scaled=True, gamma=1.0):
    """Three dense layers, each followed by batch normalization, ReLU on the hidden ones."""
    x = features = keras.Input((inputs,), name="features")
    for units in (hidden, hidden):
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(layers.Dense(units)(x))
        x = layers.Activation("relu")(x)
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=scaled, scale=scaled,
        gamma_initializer=keras.initializers.Constant(gamma),
    )(layers.Dense(outputs)(x))  # fmt: skip
    return keras.Model(features, x, name=name)


@keras.saving.register_keras_serializable("keras_xreid")
class Association(keras.Model):
    """The association network phi and its bridge sigma (INTACT, Figure 5).

    phi is an encoder of three dense layers to a latent space fe and a decoder of three; sigma has
    the shape of the encoder. The paper gives the latent size, 200; ours: hidden layers of 512
    with ReLU.

    `direction` chooses the design of Table 4. "r-to-d": phi maps fc to fd, sigma maps fd to the
    latent. "d-to-r": the inverse. "common": two encoders, one of fc and one of fd, meet in the
    latent space; two encoders that are free to agree would agree on a constant, so ours: their
    last batch normalization has neither scale nor shift, each latent unit keeps variance 1 over
    the batch, and only the order of the images can be agreed on. There is no bridge then.

    Args:
        identity_features: int, size of fc.
        image_features: int, size of fd.
        direction: "r-to-d", "d-to-r" or "common".
        bridge: bool, whether there is a sigma (Table 5).
        latent: int, size of fe.
        hidden: int, size of the hidden layers.
        first_scale: float, deviation of what phi returns at first, the gamma of its last batch
            normalization. fd's deviation is near 0.1: from 1, Adam at 1e-3 takes some 900 steps
            to reach it, and until then the distance tells phi's scale and little else (ours).

    Example:

    >>> phi = Association(512, 1024)
    >>> distance, bridge = phi.distances(fc, fd)

    Reference:
        Cheng et al., CVPR 2020, Eq. 5 to 8, Tables 4 and 5, Figure 5.
    """

    def __init__(
        self, identity_features, image_features, direction="r-to-d", bridge=True, latent=200,
        hidden=512, first_scale=1.0, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        if direction not in ("r-to-d", "d-to-r", "common"):
            raise ValueError(f"association {direction!r} is not one of r-to-d, d-to-r, common")
        self.identity_features, self.image_features = identity_features, image_features
        self.direction, self.latent, self.hidden = direction, latent, hidden
        self.first_scale = first_scale
        self.bridge = bridge and direction != "common"
        common = direction == "common"
        source, target = identity_features, image_features
        if direction == "d-to-r":
            source, target = target, source
        self.encoder = _three_layers(source, latent, hidden, "encoder", scaled=not common)
        if common:
            self.other_encoder = _three_layers(target, latent, hidden, "other_encoder", False)
        else:
            self.decoder = _three_layers(latent, target, hidden, "decoder", gamma=first_scale)
        if self.bridge:
            self.sigma = _three_layers(target, latent, hidden, "sigma")
        self.built = True

    def distances(self, fc, fd, training=True):
        """How far two features are from the learned association.

        Args:
            fc: (n, identity_features), the re-identification network's embedding.
            fd: (n, image_features), the discriminator's dense layer.
            training: bool; True normalises by the batch, as phi was trained.

        Returns:
            A list of scalars: the mean squared distance of Eq. 5 and 8, and, with a bridge, that
            of Eq. 6.
        """
        source, target = (fd, fc) if self.direction == "d-to-r" else (fc, fd)
        latent = self.encoder(source, training=training)
        if self.direction == "common":
            return [losses.squared_error(latent, self.other_encoder(target, training=training))]
        found = [losses.squared_error(self.decoder(latent, training=training), target)]
        if self.bridge:
            found.append(losses.squared_error(self.sigma(target, training=training), latent))
        return found

    def call(self, inputs, training=False):
        return self.distances(*inputs, training=training)[0]

    def get_config(self):
        return {
            **super().get_config(),
            "identity_features": self.identity_features,
            "image_features": self.image_features,
            "direction": self.direction,
            "bridge": self.bridge,
            "latent": self.latent,
            "hidden": self.hidden,
            "first_scale": self.first_scale,
        }
