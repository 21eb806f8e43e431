import keras
import numpy as np
import pytest
from layer_checks import as_list, run_layer_test
from small import fill, not_on_jax

import keras_xreid as xr
from keras_xreid.backbones import NAMES, build_backbone
from keras_xreid.backbones.blocks import NormalizeImage
from keras_xreid.backbones.build import IMAGENET_MEAN, IMAGENET_STD
from keras_xreid.errors import InputError

SIZE = (64, 32)
# Strides and channels of the five taps, and the parameters trained.
RESNET, LITE, OSNET = (4, 4, 8, 16, 16), (2, 4, 8, 16, 16), (4, 8, 16, 16, 16)
BACKBONES = {
    "resnet_tiny": (RESNET, (64, 64, 96, 160, 256), 3_496_768),
    "resnet50": (RESNET, (64, 256, 512, 1024, 2048), 23_508_032),
    "efficientnet_lite0": (LITE, (16, 24, 40, 112, 1280), 3_371_008),
    "efficientnet_lite2": (LITE, (16, 24, 48, 120, 1280), 4_811_072),
    "osnet_x1_0": (OSNET, (64, 256, 384, 512, 512), 1_905_828),
    "osnet_x0_75": (OSNET, (48, 192, 288, 384, 384), 1_087_610),
    "osnet_x0_5": (OSNET, (32, 128, 192, 256, 256), 497_426),
    "osnet_x0_25": (OSNET, (16, 64, 96, 128, 128), 134_792),
}


def images(n=2, size=SIZE):
    return np.random.default_rng(0).random((n, *size, 3), dtype="float32")


def taps_of(backbone):
    assert isinstance(backbone.output, list)
    return [f.shape[1:] for f in backbone.output]


def test_every_named_backbone_is_tested():
    assert set(NAMES) == set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_taps_and_parameters(name):
    strides, channels, parameters = BACKBONES[name]
    backbone = build_backbone(name, SIZE)
    assert taps_of(backbone) == [
        (64 // s, 32 // s, c) for s, c in zip(strides, channels, strict=True)
    ]
    assert sum(int(np.prod(v.shape)) for v in backbone.trainable_variables) == parameters
    assert {layer.momentum for layer in backbone.layers if hasattr(layer, "momentum")} == {0.9}


@not_on_jax
@pytest.mark.backend
@pytest.mark.parametrize("name", ["resnet_tiny", "efficientnet_lite0", "osnet_x0_25"])
def test_life_of_a_backbone(name, tmp_path):
    run_layer_test(lambda: build_backbone(name, SIZE), (*SIZE, 3), tmp_path)


@pytest.mark.slow
def test_resnet50_saves_and_loads(tmp_path):
    backbone = build_backbone("resnet50", (32, 32))
    backbone.save(tmp_path / "resnet50.keras")
    loaded = keras.saving.load_model(tmp_path / "resnet50.keras")
    x = images(size=(32, 32))
    for a, b in zip(as_list(loaded(x)), as_list(backbone(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@not_on_jax
@pytest.mark.backend
def test_resnet50_computes_what_keras_applications_does(monkeypatch):
    # Published weights, as far as we are concerned: any, with biases.
    build = keras.applications.ResNet50
    theirs = build(include_top=False, weights=None, input_shape=(*SIZE, 3))
    fill(theirs)
    expected = theirs(keras.applications.resnet50.preprocess_input(images() * 255))
    expected = keras.ops.convert_to_numpy(expected)

    def published(weights, **kwargs):
        model = build(weights=None, **kwargs)
        model.set_weights(theirs.get_weights())
        return model

    monkeypatch.setattr(keras.applications, "ResNet50", published)
    backbone = build_backbone("resnet50", SIZE, weights="imagenet", last_stride=2)
    ours = as_list(backbone(images()))[-1]
    assert ours.shape == expected.shape == (2, 2, 1, 2048)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert not any(getattr(layer, "use_bias", False) for layer in backbone.layers)


@pytest.mark.backend
def test_last_stride_2_halves_the_last_map_only():
    assert [s[:2] for s in taps_of(build_backbone("resnet_tiny", SIZE, last_stride=2))] == [
        (16, 8),
        (16, 8),
        (8, 4),
        (4, 2),
        (2, 1),
    ]


@pytest.mark.backend
def test_a_strided_convolution_pads_both_sides():
    # A kernel that copies its centre picks every second pixel from the first on, as PyTorch's
    # does; Keras's "same" padding would pick from the second on.
    backbone = build_backbone("resnet_tiny", SIZE)
    layer = backbone.get_layer("conv1_conv")
    kernel = np.zeros((7, 7, 3, 64), "float32")
    kernel[3, 3, 1] = 1
    layer.set_weights([kernel])
    x = images()
    copied = as_list(keras.Model(backbone.inputs[0], layer.output)(x))[0]
    green = (x[..., 1] - IMAGENET_MEAN[1]) / IMAGENET_STD[1]
    np.testing.assert_allclose(copied[..., 5], green[:, ::2, ::2], rtol=1e-5, atol=1e-5)


@pytest.mark.backend
def test_images_are_normalised_by_imagenet():
    x = images()
    layer = build_backbone("osnet_x0_25", SIZE).get_layer("normalize")
    np.testing.assert_allclose(
        as_list(layer(x))[0], (x - IMAGENET_MEAN) / IMAGENET_STD, rtol=1e-5, atol=1e-5
    )
    blue_first = as_list(NormalizeImage((0, 0, 0.5), (1, 1, 0.1), to_bgr=True)(x))[0]
    np.testing.assert_allclose(blue_first[..., 0], (x[..., 2] - 0.5) * 10, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(blue_first[..., 2], x[..., 0], rtol=1e-5)


@pytest.mark.backend
def test_normalise_layer(tmp_path):
    make = lambda: NormalizeImage((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), to_bgr=True)  # noqa: E731
    run_layer_test(make, (8, 4, 3), tmp_path, (8, 4, 3))


@not_on_jax
@pytest.mark.backend
@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50", "osnet_x0_25"])
def test_the_global_data_format_does_not_matter(name):
    expected = taps_of(build_backbone(name, SIZE))
    keras.config.set_image_data_format("channels_first")
    try:
        assert taps_of(build_backbone(name, SIZE)) == expected
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    "name", ["resnet_tiny", pytest.param("osnet_x0_25", marks=pytest.mark.slow)]
)
def test_a_backbone_starts_from_that_of_another_system(name):
    """At another size, and whatever the part that holds it is called."""
    options = {"preset": "tiny", "backbone": name, "image_size": SIZE}
    x = images()
    lender = fill(xr.Baseline(3, **options))
    expected = lender.embed(x)
    if name == "osnet_x0_25":  # which has a dense layer before its embedding
        last = as_list(lender.network.get_layer(name)(x))[-1]
        expected = last.mean((1, 2))
    adaptive = xr.Adaptive(5, masks=False, weights=lender, **options).network
    rival = xr.OnePerRate(5, rates=(2,), weights=lender, **options).networks[0].network
    for found in (
        xr.RAIN(5, weights=lender, **options).embed(x),
        xr.CADNet(5, features="f", weights=lender, **options).embed(x),
        xr.CADNet(5, features="g", weights=lender, **options).image_encoder(x)[-1],
        keras.Model(adaptive.inputs, adaptive.get_layer("pool").output)([x, np.ones(2, "int32")]),
        as_list(rival.get_layer(name)(x))[-1].mean((1, 2)),
    ):
        np.testing.assert_allclose(as_list(found)[0], expected, rtol=1e-4, atol=1e-5)
    larger = build_backbone(name, (128, 64), weights=xr.RAIN(5, weights=lender, **options))
    for ours, theirs in zip(larger.weights, lender.weights, strict=False):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours, theirs)))
    with pytest.raises(InputError, match=f"a Baseline on {name} has no weights for resnet50"):
        build_backbone("resnet50", SIZE, weights=lender)


def test_bad_requests_are_refused_in_one_line():
    for arguments, message in (
        (("vgg", SIZE), "unknown backbone 'vgg': known are resnet50, resnet_tiny, eff"),
        (("resnet_tiny", (64, 16)), "at least 32"),
        (
            ("resnet_tiny", SIZE, "imagenet"),
            "resnet50, efficientnet_lite0, efficientnet_lite2 have some",
        ),
        (("resnet50", SIZE, "coco"), "'coco' for resnet50"),
        (("resnet50", SIZE, None, 3), "last stride 3"),
        (("osnet_x0_25", SIZE, None, 2), "last stride 2 for osnet_x0_25"),
        ((keras.Sequential([keras.Input((64, 32, 3))]), SIZE), "no pyramid levels"),
    ):
        with pytest.raises(InputError, match=message) as error:
            build_backbone(*arguments)
        assert "\n" not in str(error.value)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch):
    def offline(**options):
        raise Exception("URL fetch failure on https://...\nmore")

    monkeypatch.setattr(keras.applications, "ResNet50", offline)
    with pytest.raises(InputError, match=r"cannot be fetched \(URL fetch failure .*\): go online"):
        build_backbone("resnet50", SIZE, weights="imagenet")


def test_a_pyramid_of_kerashub_is_accepted():
    image = keras.Input((None, None, 3))
    level = keras.layers.Conv2D(4, 1, strides=4, data_format="channels_last")(image)
    deeper = keras.layers.Conv2D(8, 1, strides=2, data_format="channels_last")(level)
    hub = keras.Model(image, deeper)
    hub.pyramid_outputs = {"P2": level, "P3": deeper}
    assert taps_of(build_backbone(hub, SIZE)) == [(16, 8, 4), (8, 4, 8)]


@not_on_jax
@pytest.mark.backend
@pytest.mark.slow
def test_kerascv_backbone_is_accepted(tmp_path):
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed")
    cv = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 16, 32],
        stackwise_blocks=[1, 1, 1],
        stackwise_strides=[1, 2, 2],
        block_type="basic_block",
        include_rescaling=True,
    )
    backbone = build_backbone(cv, SIZE)
    assert taps_of(backbone) == [(16, 8, 64), (8, 4, 16), (4, 2, 32)]
    # KerasCV's own network takes images in [0, 255].
    x = images()
    np.testing.assert_allclose(
        as_list(backbone(x))[-1], as_list(cv(x * 255))[0], rtol=1e-4, atol=1e-4
    )
    assert len(backbone.trainable_variables) == len(cv.trainable_variables)
    backbone.save(tmp_path / "cv.keras")
    loaded = keras.saving.load_model(tmp_path / "cv.keras")
    np.testing.assert_allclose(
        as_list(loaded(x))[-1], as_list(backbone(x))[-1], rtol=1e-4, atol=1e-4
    )
