"""Resolution-adaptive representations: losses by hand, levels, distances, and the rival."""

import keras
import numpy as np
import pytest
from small import (
    PEOPLE,
    SIZE,
    adaptive,
    arrays,
    compiled,
    couples,
    entropy,
    fill,
    levels,
    not_on_jax,
    reached,
    snapshot,
    softplus,
    step,
)

import keras_xreid as xr

PARTS = ("network", "classifier", "verifier")


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.backend
def test_every_term_by_hand():
    model = compiled(adaptive(classification=2.0, verification=3.0), rate=0)
    batch = levels()
    images = np.concatenate([batch["hr"], batch["lr"]]) / np.float32(255)
    level = np.array([4, 4, 4, 4, 1, 4, 3, 2], "int32")  # of rates 1, 1, 1, 1, 4, 1, 2, 3
    (z,) = arrays(model.network([images, level], training=True))
    ends = np.cumsum([2, 3, 4, 5])
    for row, k in zip(z, level, strict=True):
        assert (row[ends[k - 1] :] == 0).all() and (row[: ends[k - 1]] != 0).all()
    (logits,) = arrays(model.classifier(z, training=True))
    # Each LR image with the other HR image of its person, and with one of the other person.
    gallery, query = z[:4], z[4:]
    same = query - gallery[[1, 0, 3, 2]]
    other = query - gallery[[2, 3, 0, 1]]
    (positive,) = arrays(model.verifier(same))
    (negative,) = arrays(model.verifier(other))
    persons = np.concatenate([batch["person"]] * 2)
    expected = {
        "id": 2 * entropy(logits, persons),
        "verification": 3 * (softplus(-positive) + softplus(negative)) / 2,
    }
    on_device = {name: keras.ops.convert_to_tensor(value) for name, value in batch.items()}
    terms, _ = model.phases()[0].losses(model.prepare(on_device))
    found = {name: float(keras.ops.convert_to_numpy(term)) for name, term in terms.items()}
    assert found == pytest.approx(expected, rel=1e-3)
    expected["id"] /= 2  # shown as the mean over images, whatever its weight
    assert step(model, batch) == pytest.approx(expected, rel=1e-3)


@pytest.mark.backend
def test_what_is_padded_gets_no_gradient():
    # All images at level 1: of the last layer only the first sub-vector's columns move.
    model = adaptive(rates=(1, 2, 3, 4))
    model.prepare = lambda batch, prepare=model.prepare: {
        **prepare(batch),
        "level": keras.ops.ones((8,), "int32"),
    }
    compiled(model, rate=1.0)
    kernel = model.network.get_layer("v").kernel
    before = np.array(keras.ops.convert_to_numpy(kernel))
    step(model, levels())
    changed = (keras.ops.convert_to_numpy(kernel) != before).any(axis=0)
    assert changed[:2].all() and not changed[2:].any()


@pytest.mark.backend
def test_every_mask_is_trained_end_to_end():
    model = compiled(adaptive(), rate=1.0)
    before = [mask.values.copy() for mask in model.masks]
    step(model, levels())
    for mask, old in zip(model.masks, before, strict=True):
        assert (mask.values != old).any(axis=1).all()  # of each level there was an image


# --- variants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, parts, terms, masks",
    [
        ({}, PARTS, {"id", "verification"}, 4),
        ({"masks": False}, PARTS, {"id", "verification"}, 0),
        ({"varying_length": False}, PARTS, {"id", "verification"}, 4),
        ({"masks": False, "varying_length": False}, PARTS, {"id", "verification"}, 0),
        ({"classification": 0}, ("network", "verifier"), {"verification"}, 4),
        ({"verification": 0}, ("network", "classifier"), {"id"}, 4),
    ],
)
def test_every_variant_trains(options, parts, terms, masks):
    model = compiled(adaptive(**options))
    assert model.phases()[0].updates == parts and len(model.masks) == masks
    logs = step(model, levels())
    assert set(logs) == terms and all(np.isfinite(list(logs.values())))
    z = model.embed(levels()["lr"], levels()["rate"])
    lengths = [14] * 4 if options.get("varying_length") is False else [2, 14, 9, 5]
    np.testing.assert_array_equal((z != 0).sum(axis=1), lengths)


def test_default_optimizer():
    model = adaptive()
    model.compile()
    assert set(model.optimizers) == set(PARTS)
    for adam in model.optimizers.values():
        assert isinstance(adam, keras.optimizers.Adam)
        assert float(adam.learning_rate) == pytest.approx(3.5e-4)


@pytest.mark.backend
def test_the_losses_reach_every_part():
    kernels = {"network": (6, 6), "classifier": (1, 1)}
    assert reached(adaptive(), "id") == kernels
    assert reached(adaptive(), "verification") == {"network": (6, 6), "verifier": (2, 2)}


@pytest.mark.parametrize(
    "options, line",
    [
        ({"rates": (1, 2, 2, 4)}, "each level's rate once"),
        ({"rates": (1, 2, 3, 0.5)}, "0.5 is below 1"),
        ({"rates": (1, 2, 3)}, r"sizes \[2, 3, 4, 5\] for 3 levels"),
        ({"sizes": [2, 3, 4, 0]}, "1 or more"),
        ({"dim": 15}, "15 dimensions"),
        ({"classification": 0, "verification": 0}, "not all 0"),
    ],
)
def test_what_is_refused(options, line):
    with pytest.raises(xr.InputError, match=line):
        adaptive(**options)


# --- levels and distances --------------------------------------------------------------------


def test_the_nearest_level_and_of_two_the_lower_resolution():
    model = adaptive(rates=(1, 2, 4, 8))
    rates = [1, 1.4, 1.5, 2, 3, 2.9, 4, 6, 7, 8, 20]
    assert model.levels_of(rates).tolist() == [4, 4, 3, 3, 2, 3, 2, 1, 1, 1, 1]


@pytest.mark.backend
def test_images_of_one_batch_get_their_own_level():
    model = adaptive()
    images = np.repeat(levels()["lr"][:1], 4, 0)
    together = model.embed(images, rates=[4, 3, 2, 1], batch_size=4)
    alone = [model.embed(images[:1], rates=rate)[0] for rate in (4, 3, 2, 1)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert np.abs(together[0, :2] - together[3, :2]).max() > 1e-3  # by the masks
    np.testing.assert_array_equal(model.embed(images[:1]), model.embed(images[:1], rates=1))
    called = arrays(model.call(images[:1] / np.float32(255)))[0]
    np.testing.assert_allclose(called, together[3:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("varying_length", [True, False])
def test_distances_are_those_of_a_loop(varying_length):
    model = adaptive(varying_length=varying_length)
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(6, 14)).astype("float32")
    rates = np.array([4, 3, 2, 1, 8, 2.5])
    query = rng.normal(size=(6, 14)).astype("float32")
    ends = np.cumsum([2, 3, 4, 5])
    found = model.distances(query, gallery, query_rates=rates)
    for i, k in enumerate([1, 2, 3, 4, 1, 2]):
        end = ends[k - 1] if varying_length else 14
        for j in range(6):
            expected = np.sum((query[i, :end] - gallery[j, :end]) ** 2)
            assert found[i, j] == pytest.approx(expected, rel=1e-4)
    assert found.dtype == np.float32
    # One rate for all, and none: the highest level.
    np.testing.assert_allclose(
        model.distances(query, gallery, 3)[1], found[1], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(model.distances(query, gallery)[3], found[3], rtol=1e-5, atol=1e-5)


# --- use -------------------------------------------------------------------------------------


def test_a_weights_file_says_what_it_is(tmp_path):
    model = adaptive(
        backbone="resnet_tiny", rates=(1, 2, 4), sizes=None, dim=8, varying_length=False
    )
    assert model.sizes == [3, 3, 2] and model.rates == [4, 2, 1]
    model.masks[0].introduced.assign(0.0)
    xr.save(model, tmp_path / "model.weights.h5")
    again = xr.load(tmp_path / "model.weights.h5")
    assert type(again) is xr.Adaptive
    assert again.get_config() == {**model.get_config(), "name": again.name}
    images, rates = levels()["lr"], levels()["rate"]
    np.testing.assert_array_equal(again.embed(images, rates), model.embed(images, rates))


@pytest.mark.backend
def test_saved_whole(tmp_path):
    model = compiled(adaptive())
    step(model, levels())
    model.save(tmp_path / "adaptive.keras")
    again = keras.models.load_model(tmp_path / "adaptive.keras")
    assert again.image_size == SIZE and again.people == PEOPLE
    images, rates = levels()["lr"], levels()["rate"]
    np.testing.assert_array_equal(again.embed(images, rates), model.embed(images, rates))
    assert step(again, levels(seed=1)) == pytest.approx(step(model, levels(seed=1)), rel=1e-5)


@not_on_jax
@pytest.mark.backend
def test_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(adaptive())
        logs = step(model, levels())
    finally:
        keras.config.set_dtype_policy("float32")
    features = model.embed(levels()["lr"], levels()["rate"])
    assert all(np.isfinite(list(logs.values()))) and features.dtype == np.float32
    np.testing.assert_array_equal((features != 0).sum(axis=1), [2, 14, 9, 5])
    assert {str(v.dtype) for v in model.weights} == {"float32"}


@pytest.mark.parametrize(
    "options, channels",
    [
        ({"backbone": "resnet50", "last_stride": 2}, [256, 512, 1024, 2048]),
        ({"backbone": "osnet_x0_25"}, [64, 96, 128, 128]),
    ],
)
def test_named_backbones(options, channels):
    model = xr.Adaptive(PEOPLE, "tiny", image_size=SIZE, **options)
    assert [mask.values.shape for mask in model.masks] == [(4, c) for c in channels]


@pytest.mark.backend
@pytest.mark.slow
def test_kerascv_backbone():
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed")
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 8, 16], stackwise_blocks=[1, 1, 1], stackwise_strides=[1, 2, 2],
        block_type="basic_block", include_rescaling=True,
    )  # fmt: skip
    before = snapshot(backbone)
    model = compiled(adaptive(backbone=backbone), rate=1.0)
    step(model, levels())
    assert model.embed(couples()["lr"], 4).shape == (4, 14)
    for a, b in zip(before, snapshot(backbone), strict=True):
        np.testing.assert_array_equal(a, b)  # the given backbone was copied


# --- the rival -------------------------------------------------------------------------------


@pytest.mark.backend
def test_a_network_for_each_rate(tmp_path):
    model = xr.OnePerRate(PEOPLE, "tiny", "resnet_tiny", SIZE, rates=(2, 4))
    for seed, network in enumerate(model.networks):
        fill(network, seed)
    images = couples()["lr"]
    found = model.embed(images, rates=[4, 2, 3, 8])
    of_4, of_2 = (network.embed(images) for network in model.networks)
    np.testing.assert_allclose(found, [of_4[0], of_2[1], of_4[2], of_4[3]], rtol=1e-4, atol=1e-5)
    assert np.abs(of_4 - of_2).max() > 1e-2
    xr.save(model, tmp_path / "model.weights.h5")
    again = xr.load(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.embed(images, 4), model.embed(images, 4))
