"""INTACT: its losses by hand, its phases, and where its gradients go."""

import keras
import numpy as np
import pytest
from layer_checks import run_layer_test
from small import compiled, intact, moved, not_on_jax, on_device, pairs, shared, snapshot, step

from keras_xreid.layers.association import Association
from keras_xreid.layers.discriminator import build_image_discriminator
from keras_xreid.layers.generator import PixelShuffle, build_generator


def number(x):
    return float(keras.ops.convert_to_numpy(x))


# --- parts -----------------------------------------------------------------------------------


@pytest.mark.backend
def test_pixel_shuffle(tmp_path):
    # Four channels of one pixel become its 2x2 block, row by row.
    x = np.arange(8, dtype="float32").reshape(1, 1, 2, 4)
    y = keras.ops.convert_to_numpy(PixelShuffle()(x))
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])
    run_layer_test(lambda: PixelShuffle(2), (4, 6, 8), tmp_path, (8, 12, 2))


@pytest.mark.backend
@pytest.mark.parametrize("normalised", [True, False])
def test_generator_starts_as_the_identity(normalised):
    generator = build_generator((32, 16), (4, 4, 6, 6), normalised)
    x = np.random.default_rng(0).uniform(size=(2, 32, 16, 3)).astype("float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(generator(x)), x, atol=1e-6)


def test_generator_has_the_papers_graph():
    generator = build_generator((256, 128), (4, 4, 4, 4))
    kinds = [type(layer).__name__ for layer in generator.layers]
    assert kinds.count("MaxPooling2D") == kinds.count("PixelShuffle") == 4
    # 16 residual blocks and 4 skips and the global residual end in an addition.
    assert kinds.count("Add") == 16 + 4 + 1
    smallest = min(layer.output.shape[1:3] for layer in generator.layers[1:])
    assert smallest == (16, 8)
    with pytest.raises(ValueError, match="100x50"):
        build_generator((100, 50))


@pytest.mark.backend
@pytest.mark.parametrize("size", [(256, 128), (128, 64), (90, 41)])
def test_discriminator_takes_any_size(size):
    discriminator = build_image_discriminator(size, width=4)
    fd, logit = discriminator(np.zeros((2, *size, 3), "float32"))
    assert tuple(fd.shape) == (2, 1024) and tuple(logit.shape) == (2, 1)


@pytest.mark.backend
@pytest.mark.parametrize("direction, source, target", [("r-to-d", 6, 10), ("d-to-r", 10, 6)])
def test_association_maps_one_feature_to_the_other(direction, source, target):
    phi = Association(6, 10, direction, latent=5, hidden=7)
    assert phi.encoder.input_shape == (None, source)
    assert phi.encoder.output_shape == (None, 5)
    assert phi.decoder.output_shape == phi.sigma.input_shape == (None, target)
    dense = [layer for layer in phi.encoder.layers if isinstance(layer, keras.layers.Dense)]
    normal = [
        layer for layer in phi.encoder.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(dense) == len(normal) == 3
    rng = np.random.default_rng(0)
    fc, fd = (rng.normal(size=(4, n)).astype("float32") for n in (6, 10))
    distance, bridge = (number(d) for d in phi.distances(fc, fd, training=False))
    a, b = (fd, fc) if direction == "d-to-r" else (fc, fd)
    to_numpy = keras.ops.convert_to_numpy
    latent = to_numpy(phi.encoder(a))
    assert distance == pytest.approx(np.mean((to_numpy(phi.decoder(latent)) - b) ** 2), rel=1e-4)
    assert bridge == pytest.approx(np.mean((to_numpy(phi.sigma(b)) - latent) ** 2), rel=1e-4)


@pytest.mark.backend
def test_common_space_cannot_collapse():
    phi = Association(6, 10, "common", latent=5, hidden=7)
    assert not phi.bridge
    # Even an encoder whose last layer ignores its input does not agree on a constant: what
    # batch normalization hands out has variance 1, or is rounding noise about 0.
    rng = np.random.default_rng(0)
    fc = rng.normal(size=(64, 6)).astype("float32")
    latent = keras.ops.convert_to_numpy(phi.encoder(fc, training=True))
    np.testing.assert_allclose(latent.var(axis=0), 1.0, atol=0.02)
    last = phi.encoder.layers[-1]
    assert not last.trainable_variables


@pytest.mark.backend
def test_association_lives_through_saving(tmp_path):
    phi = Association(6, 10, latent=5, hidden=7)
    fc, fd = np.ones((4, 6), "float32"), np.ones((4, 10), "float32")
    phi.save(tmp_path / "phi.keras")
    again = keras.models.load_model(tmp_path / "phi.keras")
    for a, b in zip(phi.distances(fc, fd, False), again.distances(fc, fd, False), strict=True):
        assert number(a) == pytest.approx(number(b), rel=1e-6)


# --- phases ----------------------------------------------------------------------------------


# On the other backends `test_recipes.py` has a whole run, which is traced there.
@pytest.mark.slow
def test_the_whole_step_leaves_the_reid_network_alone():
    model = intact()
    model.compile()  # as a user has it: traced, where a backend traces
    before = snapshot(model.reid)
    logs = step(model, pairs())
    assert moved(before, model.reid) == set()
    assert set(logs) == {
        "discriminator", "phi", "bridge", "mse", "id", "gan", "association",
        "discriminator_accuracy",
    }  # fmt: skip
    assert all(np.isfinite(list(logs.values())))


def gradients_of_association(model, cut=()):
    """Gradient of Eq. 8 alone with respect to G, with fc' or fd' cut off."""
    phase = model.phases()[-1]
    design = model.association.distances
    stop = keras.ops.stop_gradient

    def distances(fc, fd, training=True):
        return design(stop(fc) if "fc" in cut else fc, stop(fd) if "fd" in cut else fd, training)

    def losses_of(batch):
        terms, _ = phase.losses(batch)
        return {"association": terms["association"]}

    object.__setattr__(model.association, "distances", distances)
    alone = phase._replace(losses=losses_of, terms=("association",))
    try:
        batch = {k: keras.ops.convert_to_tensor(v) for k, v in pairs().items()}
        _, gradients = model.phase_gradients(alone, model.prepare(batch))
    finally:
        object.__delattr__(model.association, "distances")
    return np.concatenate([keras.ops.convert_to_numpy(g).ravel() for g in gradients])


@pytest.mark.backend
@not_on_jax
def test_eq_8_reaches_the_generator_both_ways():
    model = compiled(shared(intact))
    full = gradients_of_association(model)
    through_fd = gradients_of_association(model, cut=("fc",))
    through_fc = gradients_of_association(model, cut=("fd",))
    assert np.abs(gradients_of_association(model, cut=("fc", "fd"))).max() == 0
    assert np.linalg.norm(through_fc) > 1e-3 * np.linalg.norm(full)
    assert np.linalg.norm(through_fd) > 1e-3 * np.linalg.norm(full)
    # The chain rule: the gradient is the sum of its two ways.
    error = np.linalg.norm(through_fc + through_fd - full)
    assert error < 1e-3 * np.linalg.norm(full)


def test_terms_are_weighted_as_written():
    model = compiled(shared(intact))  # weights of 0.1, 0.3 and 1, and pixels up to 16
    heavy = intact(lambda_g=0.2, lambda_c=0.9, association_weight=5.0, pixel_scale=32.0)
    compiled(heavy)
    a, b = step(model, pairs()), step(heavy, pairs())
    ratios = {"gan": 2, "association": 5, "mse": 4, "discriminator": 1}
    # Shown of L_id is the cross-entropy of an image, whatever its weight.
    for term, ratio in {**ratios, "id": 1}.items():
        assert b[term] == pytest.approx(ratio * a[term], rel=1e-4), term
    a, b = ((m._step_3(m.prepare(on_device(pairs())))[0]) for m in (model, heavy))
    assert number(b["id"]) == pytest.approx(3 * number(a["id"]), rel=1e-4)


# --- use -------------------------------------------------------------------------------------


def test_rate_1_bypasses_the_generator():
    model, images = shared(intact), pairs()["lr"]
    plain, recovered = model.embed(images, rates=1), model.embed(images, rates=4)
    assert np.abs(plain - recovered).max() > 1e-3
    mixed = model.embed(images, rates=np.array([1, 4] * 4))
    np.testing.assert_allclose(mixed[::2], plain[::2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed[1::2], recovered[1::2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.embed(images), recovered, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.embed(images / np.float32(255), rates=4, batch_size=3),
        recovered,
        rtol=1e-4,
        atol=1e-5,
    )
    found = model.recover(images)
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(model.embed(found, rates=1), recovered, rtol=1e-3, atol=1e-4)


def test_distances_by_hand():
    model = shared(intact)
    a, b = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 5.0], [2.0, 0.0]])
    half = 1 - 0.5**0.5
    np.testing.assert_allclose(model.distances(a, b), [[1, 0], [half, half]], atol=1e-6)
