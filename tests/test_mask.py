"""Layers that depend on the resolution level."""

import keras
import numpy as np
import pytest
import small
from layer_checks import as_list, run_layer_test

import keras_xreid as xr
from keras_xreid.layers.mask import ResolutionMask, VaryingLength, kept_by_level

pytestmark = pytest.mark.backend


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: ResolutionMask(3, stddev=2.0, seed=1), (4, 2, 5)),
        (lambda: VaryingLength([1, 2, 4]), (7,)),
    ],
)
def test_life_of_a_layer(make, shape, tmp_path):
    run_layer_test(make, [shape, ()], tmp_path, output_shapes=shape, integers=(1, 3))


def test_each_image_gets_the_mask_of_its_own_level():
    layer = ResolutionMask(3)
    x = np.random.default_rng(0).normal(size=(4, 2, 3, 2)).astype("float32")
    level = np.array([3, 1, 2, 1], "int32")
    layer([x, level])
    logits = np.array([[0.0, 1.0], [-1.0, 2.0], [3.0, -2.0]], "float32")
    layer.logits.assign(logits)
    mask = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(layer.values, mask, rtol=1e-6)
    for i, k in enumerate(level):
        (found,) = as_list(layer([x, level]))
        np.testing.assert_allclose(found[i], x[i] * mask[k - 1], rtol=1e-5)


def test_a_mask_not_yet_introduced_is_exactly_1():
    layer = ResolutionMask(2)
    x = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype("float32")
    level = np.array([1, 2], "int32")
    layer([x, level])
    layer.introduced.assign(0.0)
    np.testing.assert_array_equal(as_list(layer([x, level]))[0], x)
    assert (layer.values == 1).all()


def test_masks_start_at_a_gaussian():
    layer = ResolutionMask(4, stddev=0.5)
    layer.build([(None, 2, 2, 1000), (None,)])
    logits = keras.ops.convert_to_numpy(layer.logits)
    assert abs(logits.mean()) < 0.05 and logits.std() == pytest.approx(0.5, rel=0.05)


def test_a_vector_keeps_what_its_level_has():
    v = np.arange(1.0, 7.0, dtype="float32")[None].repeat(3, 0)
    (z,) = as_list(VaryingLength([1, 2, 3])([v, np.array([2, 3, 1], "int32")]))
    np.testing.assert_array_equal(z, [[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6], [1, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(kept_by_level([1, 2]), [[1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("sizes", [[], [2, 0]])
def test_sizes_that_are_refused(sizes):
    with pytest.raises(xr.InputError, match="sub-vectors"):
        VaryingLength(sizes)


def test_levels_that_there_are_not():
    """Of tensors the nearest level is taken, on every backend; arrays are refused by systems."""
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 6)).astype("float32")
    out, nearest = np.array([0, 4, 9], "int32"), np.array([1, 3, 3], "int32")
    for layer, of in ((ResolutionMask(3), x), (VaryingLength([1, 2, 3]), x[:, 0, 0])):
        (found,), (wanted,) = (as_list(layer([of, level])) for level in (out, nearest))
        np.testing.assert_array_equal(found, wanted)
    model = small.adaptive()
    images = small.couples()["lr"][:2]
    for level in ([0, 4], [1, 5]):
        with pytest.raises(xr.InputError, match=r"levels . to . .* give 1 .* to 4"):
            model(images, np.array(level, "int32"))
        with pytest.raises(xr.InputError, match="that has 4"):
            model(images, level=np.array(level, "int32"))
    assert model(images, np.array([1, 4], "int32")).shape == (2, 14)
