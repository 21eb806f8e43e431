"""The decoder: one block by hand, its skips, and sizes."""

import keras
import numpy as np
import pytest
from layer_checks import as_list, run_layer_test
from small import fill, not_on_jax

from keras_xreid.errors import InputError
from keras_xreid.layers.decoder import ToPixels, build_decoder

pytestmark = pytest.mark.backend

# What a ResNet makes of images of 64x32: strides 4, 4, 8, 16, 16.
MAPS = [(16, 8, 3), (16, 8, 4), (8, 4, 5), (4, 2, 6), (4, 2, 7)]


def maps_of(seed=0, n=2):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, *shape)).astype("float32") for shape in MAPS]


def convolve(x, kernel):
    """Convolution with zeros around, pixel by pixel."""
    size = kernel.shape[0] // 2
    around = np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))
    y = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            patch = around[:, i : i + 2 * size + 1, j : j + 2 * size + 1]
            y[:, i, j] = np.tensordot(patch, kernel, 3)
    return y


def test_a_block_by_hand():
    # One block from 2x1 to 4x2, then the image: written again in NumPy, without the trick that
    # the shortcut is convolved before it is enlarged.
    decoder = fill(build_decoder([(2, 1, 3)], (4, 2), widths=(5,)))
    w = {v.path: keras.ops.convert_to_numpy(v) for v in decoder.weights}

    def weight(layer, name="kernel"):
        return next(value for path, value in w.items() if path.endswith(f"{layer}/{name}"))

    def bn_relu(x, layer):
        mean, variance = weight(layer, "moving_mean"), weight(layer, "moving_variance")
        x = (x - mean) / np.sqrt(variance + 1e-5)
        return np.maximum(x * weight(layer, "gamma") + weight(layer, "beta"), 0)

    def double(x):
        return x.repeat(2, 1).repeat(2, 2)

    x = np.random.default_rng(1).normal(size=(2, 2, 1, 3)).astype("float32")
    y = convolve(double(bn_relu(x, "up1_1_bn")), weight("up1_conv1"))
    y = convolve(bn_relu(y, "up1_2_bn"), weight("up1_conv2"))
    y += convolve(double(x), weight("up1_shortcut_conv"))
    y = convolve(bn_relu(y, "end_bn"), weight("end_conv")) + weight("end_conv", "bias")
    np.testing.assert_allclose(as_list(decoder([x]))[0], (np.tanh(y) + 1) / 2, atol=1e-5)


def test_pixels(tmp_path):
    x = np.array([-100.0, -1.0, 0.0, 0.5, 100.0], "float32").reshape(1, 5, 1, 1)
    found = as_list(ToPixels()(x))[0].ravel()
    e = np.exp([-2.0, 1.0])  # tanh x = (e^2x - 1) / (e^2x + 1)
    dark, light = e / (e + 1)
    np.testing.assert_allclose(found, [0, dark, 0.5, light, 1], atol=1e-6)
    run_layer_test(ToPixels, (4, 2, 3), tmp_path, (4, 2, 3))


@not_on_jax
@pytest.mark.parametrize("skips", [True, False])
def test_decoder_in_a_network(skips, tmp_path):
    run_layer_test(
        lambda: fill(build_decoder(MAPS, (64, 32), (6, 5, 4, 4), skips)),
        MAPS, tmp_path, (64, 32, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    "skips, read", [(True, [False, True, True, False, True]), (False, [False] * 4 + [True])]
)
def test_which_maps_are_read(skips, read):
    # With skips the deepest map of each size; map 4 has the size of the last one, which is read.
    decoder = fill(build_decoder(MAPS, (64, 32), (6, 5, 4, 4), skips))
    maps = maps_of()
    before = as_list(decoder(maps))[0]
    assert before.min() >= 0 and before.max() <= 1 and before.std() > 1e-3
    for i, changes in enumerate(read):
        other = [*maps[:i], maps_of(seed=1)[i], *maps[i + 1 :]]
        assert (np.abs(as_list(decoder(other))[0] - before).max() > 1e-4) == changes, i


@pytest.mark.parametrize(
    "last, widths, filters",
    [
        ((4, 2), (6, 5, 4, 3), [6, 5, 4, 3]),
        ((2, 1), (6, 5, 4, 3), [6, 6, 5, 4, 3]),
        ((8, 4), (6, 5, 4, 3), [5, 4, 3]),
    ],
)
def test_as_many_blocks_as_the_stride_needs(last, widths, filters):
    decoder = build_decoder([(*last, 7)], (64, 32), widths)
    kernels = [v.shape for v in decoder.weights if v.path.endswith("conv2/kernel")]
    assert [kernel[-1] for kernel in kernels] == filters
    assert decoder.output_shape == (None, 64, 32, 3)


@pytest.mark.parametrize("last, size", [((6, 3), (90, 41)), ((4, 2), (64, 40)), ((4, 2), (48, 24))])
def test_a_size_that_doubling_misses_is_refused(last, size):
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]}.*{last[0]}x{last[1]}.* 32"):
        build_decoder([(*last, 7)], size)
