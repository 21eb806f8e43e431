"""Operations counted from layers: by hand on every backend, and against PyTorch's own counter."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_xreid as xr
from keras_xreid.evaluation.flops import embedding_cost, forward_flops
from keras_xreid.layers.discriminator import build_image_discriminator
from keras_xreid.layers.generator import build_generator
from keras_xreid.layers.head import build_reid_network

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="needs PyTorch, or is the same on every backend"
)


def every_layer(size=(12, 8)):
    """Each kind of layer that is counted, one of them called twice, one model inside another."""
    image = keras.Input((*size, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.Conv2D(4, 3, groups=2)(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    inner_image = keras.Input(x.shape[1:])
    inner = keras.Model(inner_image, layers.Conv2D(5, 1)(layers.ReLU()(inner_image)))
    x = layers.GlobalAveragePooling2D()(inner(inner(x)[..., :1] * x))
    shared = layers.Dense(5)
    return keras.Model(image, shared(shared(x)))


def test_by_hand():
    # Maps: 12x8 -> 6x4 -> 6x4 -> 4x2 (valid) -> 8x4.
    convolution = 3 * 3 * 3 * 8 * (6 * 4)
    depthwise = 3 * 3 * 8 * 2 * (6 * 4)
    grouped = 3 * 3 * (16 // 2) * 4 * (4 * 2)
    transposed = 3 * 3 * 4 * 6 * (4 * 2)  # every input pixel is spread
    inner = 6 * 5 * (8 * 4)
    dense = 5 * 5
    multiply_adds = convolution + depthwise + grouped + transposed + 2 * inner + 2 * dense
    assert forward_flops(every_layer()) == 2 * multiply_adds


def test_dense_on_a_map_and_channels_first():
    image = keras.Input((6, 4, 3))
    assert forward_flops(keras.Model(image, layers.Dense(5)(image))) == 2 * 3 * 5 * (6 * 4)
    image = keras.Input((3, 6, 4))
    layer = layers.Conv2D(5, 3, padding="same", data_format="channels_first")
    assert forward_flops(keras.Model(image, layer(image))) == 2 * 9 * 3 * 5 * (6 * 4)


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: layers.SeparableConv2D(5, 3)(x),
        lambda x: layers.EinsumDense("abcd,de->abce", (6, 4, 5))(x),
        lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    ],
)
def test_what_costs_much_and_is_not_counted_is_refused(layer):
    image = keras.Input((6, 4, 3))
    with pytest.raises(xr.InputError, match="are not counted"):
        forward_flops(keras.Model(image, layer(image)))


@on_torch
def test_published_size():
    """Within 1 % of what the paper prints for OSNet, 978.9 M multiply-adds."""
    osnet = forward_flops(build_reid_network(751, "osnet_x1_0", (256, 128))) / 2e6
    assert osnet == pytest.approx(978.9, rel=0.01)


@on_torch
@pytest.mark.parametrize(
    "model",
    [
        every_layer,
        lambda: build_reid_network(7, "resnet_tiny", (64, 32)),
        lambda: build_reid_network(7, "osnet_x0_25", (64, 32)),
        lambda: build_generator((32, 16), (4, 6, 8, 8)),
        lambda: build_image_discriminator((32, 16), 4),
    ],
    ids=["every_layer", "resnet_tiny", "osnet", "generator", "discriminator"],
)
def test_as_pytorch_counts(model):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = model()
    images = np.zeros((2, *model.inputs[0].shape[1:]), "float32")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images, training=False)
    assert 2 * forward_flops(model) == counter.get_total_flops()


def test_what_cannot_be_counted_is_refused():
    class Hidden(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    image = keras.Input((4, 4, 3))
    with pytest.raises(xr.InputError, match="Hidden"):
        forward_flops(keras.Model(image, Hidden()(image)))
    image = keras.Input((None, 4, 3))
    with pytest.raises(xr.InputError, match="fixed size"):
        forward_flops(keras.Model(image, layers.Conv2D(2, 3)(image)))
    with pytest.raises(xr.InputError, match="functional"):
        forward_flops(xr.PhasedModel(name="phased"))
    with pytest.raises(xr.InputError, match=r"rate_2 \(Baseline\)"):  # a system inside another
        embedding_cost(xr.OnePerRate(5, "tiny", rates=(2,)))
