"""Discriminators: their layouts, and that levels do not mix."""

import numpy as np
import pytest
from keras import layers
from layer_checks import as_list, run_layer_test
from small import fill, not_on_jax

from keras_xreid.errors import InputError
from keras_xreid.layers.discriminator import (
    build_feature_discriminators,
    build_resnet_discriminator,
)

pytestmark = pytest.mark.backend


def of_kind(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_tsais_layout():
    model = build_feature_discriminators([(16, 8, 20)])
    convolutions = of_kind(model, layers.Conv2D)
    assert [tuple(c.kernel.shape) for c in convolutions] == [
        (4, 4, 20, 64), (4, 4, 64, 128), (4, 4, 128, 256), (4, 4, 256, 512), (4, 4, 512, 1),
    ]  # fmt: skip
    assert {c.strides for c in convolutions} == {(2, 2)}
    slopes = [layer.negative_slope for layer in of_kind(model, layers.LeakyReLU)]
    assert slopes == pytest.approx([0.2] * 4)
    assert not of_kind(model, layers.BatchNormalization)
    assert model.output_shape == (None, 1, 1, 1)


def test_layout_of_rains_code():
    model = build_feature_discriminators([(16, 8, 20)], "rain-code")
    convolutions = of_kind(model, layers.Conv2D)
    assert [tuple(c.kernel.shape) for c in convolutions] == [
        (3, 3, 20, 1024), (3, 3, 1024, 512), (3, 3, 512, 256), (3, 3, 256, 128), (3, 3, 128, 64),
        (3, 3, 64, 32),
    ]  # fmt: skip
    assert {c.strides for c in convolutions} == {(1, 1)}
    assert len(of_kind(model, layers.BatchNormalization)) == 6
    slopes = [layer.negative_slope for layer in of_kind(model, layers.LeakyReLU)]
    assert slopes == pytest.approx([0.2] * 6)
    (dense,) = of_kind(model, layers.Dense)
    assert tuple(dense.kernel.shape) == (16 * 8 * 32, 1)


def test_an_unknown_layout_is_refused():
    with pytest.raises(InputError, match=r"'other'.*tsai, rain-code"):
        build_feature_discriminators([(4, 2, 3)], "other")


def test_image_discriminator_is_resnet_18():
    # 11,689,512 parameters as published, less the classifier of 1,000, and one logit instead.
    model = build_resnet_discriminator((256, 128))
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == 11_689_512 - 513_000 + 513
    assert len(of_kind(model, layers.Conv2D)) == 17 + 3
    sizes = {tuple(layer.output.shape[1:3]) for layer in of_kind(model, layers.Add)}
    assert sizes == {(64, 32), (32, 16), (16, 8), (8, 4)}


def test_levels_do_not_mix():
    shapes = [(16, 8, 6), (16, 8, 7)]
    rng = np.random.default_rng(0)
    a, b = ([rng.normal(size=(2, *shape)).astype("float32") for shape in shapes] for _ in range(2))
    for layout in ("tsai", "rain-code"):
        model = fill(build_feature_discriminators(shapes, layout, width=2))
        first, second = as_list(model(a))
        other, same = as_list(model([b[0], a[1]]))
        np.testing.assert_allclose(same, second, rtol=1e-5, atol=1e-6)
        assert np.abs(other - first).max() > 1e-4


@not_on_jax
@pytest.mark.parametrize("layout", ["tsai", "rain-code"])
def test_feature_discriminators_in_a_network(layout, tmp_path):
    shapes = [(8, 4, 6), (4, 2, 7)]
    expected = [(1, 1, 1), (1, 1, 1)] if layout == "tsai" else [(1,), (1,)]
    run_layer_test(
        lambda: fill(build_feature_discriminators(shapes, layout, width=2)),
        shapes, tmp_path, expected,
    )  # fmt: skip


@not_on_jax
def test_image_discriminator_in_a_network(tmp_path):
    run_layer_test(
        lambda: fill(build_resnet_discriminator((64, 32), width=2)), (64, 32, 3), tmp_path, (1,)
    )
