"""Resolution-adaptive representations: losses by hand, levels, distances, and the rival."""

import keras
import numpy as np
import pytest
from small import (
    adaptive,
    arrays,
    compiled,
    couples,
    entropy,
    fill,
    levels,
    not_on_jax,
    one_per_rate,
    reached,
    shared,
    softplus,
    step,
)

import keras_xreid as xr

# --- losses ----------------------------------------------------------------------------------


@pytest.mark.backend
@not_on_jax
def test_every_term_by_hand():
    model = compiled(shared(adaptive, classification=2.0, verification=3.0), rate=0)
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
@not_on_jax
def test_every_mask_is_trained_end_to_end():
    model = compiled(shared(adaptive), rate=1.0)
    before = [mask.values.copy() for mask in model.masks]
    step(model, levels())
    for mask, old in zip(model.masks, before, strict=True):
        assert (mask.values != old).any(axis=1).all()  # of each level there was an image


# --- variants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, lengths, masks",
    [({}, [2, 14, 9, 5], 4), ({"masks": False}, [2, 14, 9, 5], 0),
     ({"varying_length": False}, [14] * 4, 4)],
)  # fmt: skip
def test_lengths_and_masks(options, lengths, masks):
    model = shared(adaptive, **options)
    assert len(model.masks) == masks
    z = model.embed(levels()["lr"], levels()["rate"])
    np.testing.assert_array_equal((z != 0).sum(axis=1), lengths)


@pytest.mark.backend
@not_on_jax
def test_the_losses_reach_every_part():
    kernels = {"network": (6, 6), "classifier": (1, 1)}
    assert reached(adaptive(), "id") == kernels
    assert reached(adaptive(), "verification") == {"network": (6, 6), "verifier": (2, 2)}


# --- levels and distances --------------------------------------------------------------------


def test_the_nearest_level_and_of_two_the_lower_resolution():
    model = adaptive(rates=(1, 2, 4, 8))
    rates = [1, 1.4, 1.5, 2, 3, 2.9, 4, 6, 7, 8, 20]
    assert model.levels_of(rates).tolist() == [4, 4, 3, 3, 2, 3, 2, 1, 1, 1, 1]


@pytest.mark.backend
def test_images_of_one_batch_get_their_own_level():
    model = shared(adaptive)
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
    model = shared(adaptive, varying_length=varying_length)
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


def test_equal_parts_from_the_lowest_resolution_on():
    model = adaptive(rates=(1, 2, 4), sizes=None, dim=8)
    assert model.sizes == [3, 3, 2] and model.rates == [4, 2, 1]


def test_masks_stand_behind_the_last_four_maps():
    model = shared(adaptive, backbone="osnet_x0_25")
    assert [mask.values.shape for mask in model.masks] == [(4, c) for c in (64, 96, 128, 128)]


def test_masks_that_are_not_introduced_stay_so_in_a_file(tmp_path):
    model = shared(adaptive, backbone="resnet_tiny")
    model.masks[0].introduced.assign(0.0)
    xr.save(model, tmp_path / "model.weights.h5")
    again = xr.load(tmp_path / "model.weights.h5")
    assert [float(arrays(mask.introduced)[0]) for mask in again.masks] == [0, 1, 1, 1]


# --- the rival -------------------------------------------------------------------------------


@pytest.mark.backend
@not_on_jax
def test_a_network_for_each_rate():
    model = shared(one_per_rate)
    strong = one_per_rate(preset="strong").networks[0]  # whose Baseline has triplets by itself
    assert strong.phases()[0].terms == ("id", "verification")
    for seed, network in enumerate(model.networks):
        fill(network, seed)
    images = couples()["lr"]
    found = model.embed(images, rates=[4, 2, 3, 8])
    of_4, of_2 = (network.embed(images) for network in model.networks)
    np.testing.assert_allclose(found, [of_4[0], of_2[1], of_4[2], of_4[3]], rtol=1e-4, atol=1e-5)
    assert np.abs(of_4 - of_2).max() > 1e-2
