"""`for_inference` folds batch normalization away, computes the same, and says what it is not."""

import keras
import numpy as np
import pytest
import small
from keras import layers

from keras_xreid.errors import InputError
from keras_xreid.training import folding, inference

RATES = np.array([4, 1, 3, 1, 2], "float32")


def images(n=5):
    return small.pairs(n)["lr"]


def normalizations(network):
    kind = layers.BatchNormalization
    return [layer.name for layer in network._flatten_layers() if isinstance(layer, kind)]


def close(found, wanted):
    apart = np.linalg.norm(found - wanted, axis=-1)
    assert (apart <= 1e-5 * np.linalg.norm(wanted, axis=-1)).all(), apart


@pytest.mark.backend
@pytest.mark.parametrize(
    "make, options",
    [
        (small.baseline, {"neck": True, "flip": True}),
        pytest.param(small.intact, {}, marks=small.not_on_jax),
        pytest.param(small.rain, {"neck": True}, marks=small.not_on_jax),
        pytest.param(small.rain, {"backbone": "resnet_tiny"}, marks=small.not_on_jax),
        pytest.param(small.cadnet, {}, marks=small.not_on_jax),
        pytest.param(small.adaptive, {"neck": True}, marks=small.not_on_jax),
        pytest.param(small.panned, {}, marks=small.not_on_jax),
        pytest.param(small.one_per_rate, {}, marks=small.not_on_jax),
    ],
)
def test_a_folded_system_embeds_the_same(make, options):
    model = small.shared(make, **options)
    before = model.get_weights()
    expected = model.embed(images(), RATES, batch_size=2)
    found = model.for_inference().embed(images(), RATES, batch_size=2)
    close(found, expected)
    assert not np.array_equal(found, expected)  # it is computed in another way
    small.fill(model, seed=1)  # the copy's weights are its own
    model.set_weights(before)
    close(model.embed(images(), RATES, batch_size=2), expected)


def test_what_stands_behind_a_linear_layer_is_gone():
    model = small.baseline(neck=True)
    network = inference.network_of(model.network, first=True)
    assert len(normalizations(network)) == 6
    assert normalizations(folding.folded(network)) == ["neck"]  # it stands behind a pooling
    assert len(normalizations(network)) == 6


@pytest.mark.backend
def test_each_kind_of_layer_and_what_cannot_be_folded():
    """Kept are those behind a ReLU, a layer with two readers, one used twice, and another axis."""
    x = image = keras.Input((6, 6, 4))
    last = {"data_format": "channels_last"}
    x = layers.Conv2D(8, 3, groups=2, **last)(x)
    x = layers.BatchNormalization(name="gone1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False, **last)(x)
    x = layers.BatchNormalization(center=False, name="gone2")(x)
    x = layers.Conv2D(4, 1, activation="relu", **last)(x)
    x = layers.BatchNormalization(name="kept1")(x)
    twice = layers.Conv2D(4, 1, **last)
    x = layers.BatchNormalization(name="kept2")(twice(twice(x)))
    y = layers.Conv2D(4, 1, **last)(x)
    x = layers.Add()([y, layers.BatchNormalization(name="kept3")(y)])
    x = layers.BatchNormalization(axis=1, name="kept4")(layers.Conv2D(4, 1, **last)(x))
    x = layers.Dense(5)(layers.Flatten()(x))
    x = layers.BatchNormalization(scale=False, epsilon=0.1, name="gone3")(x)
    network = small.fill(keras.Model(image, x))
    folded = folding.folded(network)
    assert normalizations(folded) == ["kept1", "kept2", "kept3", "kept4"]
    values = np.random.default_rng(0).normal(size=(3, 6, 6, 4)).astype("float32")
    close(*(small.arrays(n(values, training=False))[0] for n in (folded, network)))


def test_a_folded_model_is_neither_trained_nor_adapted():
    model = small.baseline()
    records = list(images(40))
    adapted = model.adapt(records, "door", rates=(1, 2), verbose=False)
    fast = small.compiled(model.for_inference(), rate=0.1)
    for refused in (
        lambda: fast.fit(small.Repeat(small.images()), verbose=0),
        lambda: fast.adapt(records, "door"),
        lambda: fast.embed(images(), 1, cameras="door", adapted=adapted),
        lambda: adapted.by_group(fast, fast.embed, images(), np.ones(5), "door"),
        lambda: fast.set_weights(model.get_weights()),  # embed would not see them
        lambda: fast.load_weights("weights.h5"),
    ):
        with pytest.raises(InputError, match="for_inference"):
            refused()


def test_a_folded_model_is_saved_as_the_one_that_it_came_from(tmp_path):
    model = small.baseline()
    fast = model.for_inference()
    assert fast.for_inference() is fast
    fast.embed(images())
    fast.save_weights(tmp_path / "fast.weights.h5")
    other = small.fill(small.baseline(), seed=2)
    other.load_weights(tmp_path / "fast.weights.h5")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
