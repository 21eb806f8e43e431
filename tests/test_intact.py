"""INTACT: its losses by hand, its phases, and where its gradients go."""

import keras
import numpy as np
import pytest
from layer_checks import run_layer_test
from small import PEOPLE, SIZE, compiled, intact, moved, on_device, pairs, snapshot, step

import keras_xreid as xr
from keras_xreid import losses
from keras_xreid.layers.association import Association
from keras_xreid.layers.discriminator import build_image_discriminator
from keras_xreid.layers.generator import PixelShuffle, build_generator

pytestmark = pytest.mark.backend

PARTS = ("reid", "generator", "discriminator", "association")


def number(x):
    return float(keras.ops.convert_to_numpy(x))


# --- losses ----------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], "float32"))
    assert number(losses.cross_entropy([0, 1], logits)) == pytest.approx(
        -(np.log(0.5) + np.log(0.2)) / 2, rel=1e-5
    )
    # Smoothing by 0.3 over three people: the target is 0.8 for the right one, 0.1 for others.
    smooth = -(0.8 * np.log(0.5) + 0.2 * np.log(0.25)) / 2
    smooth -= (0.1 * np.log(0.1) + 0.8 * np.log(0.2) + 0.1 * np.log(0.7)) / 2
    assert number(losses.cross_entropy([0, 1], logits, 0.3)) == pytest.approx(smooth, rel=1e-5)


def test_adversarial_losses_by_hand():
    real, fake = np.array([[2.0], [-1.0]]), np.array([[0.0], [3.0]])
    d = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2
    d += (np.log(2) + np.log1p(np.exp(3))) / 2
    assert number(losses.discriminator_loss(real, fake)) == pytest.approx(d, rel=1e-5)
    g = (np.log(2) + np.log1p(np.exp(-3))) / 2
    assert number(losses.generator_loss(fake)) == pytest.approx(g, rel=1e-5)


# --- parts -----------------------------------------------------------------------------------


def test_pixel_shuffle(tmp_path):
    # Four channels of one pixel become its 2x2 block, row by row.
    x = np.arange(8, dtype="float32").reshape(1, 1, 2, 4)
    y = keras.ops.convert_to_numpy(PixelShuffle()(x))
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])
    run_layer_test(lambda: PixelShuffle(2), (4, 6, 8), tmp_path, (8, 12, 2))


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


@pytest.mark.parametrize("size", [(256, 128), (128, 64), (90, 41)])
def test_discriminator_takes_any_size(size):
    discriminator = build_image_discriminator(size, width=4)
    fd, logit = discriminator(np.zeros((2, *size, 3), "float32"))
    assert tuple(fd.shape) == (2, 1024) and tuple(logit.shape) == (2, 1)


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


def test_association_lives_through_saving(tmp_path):
    phi = Association(6, 10, latent=5, hidden=7)
    fc, fd = np.ones((4, 6), "float32"), np.ones((4, 10), "float32")
    phi.save(tmp_path / "phi.keras")
    again = keras.models.load_model(tmp_path / "phi.keras")
    for a, b in zip(phi.distances(fc, fd, False), again.distances(fc, fd, False), strict=True):
        assert number(a) == pytest.approx(number(b), rel=1e-6)


# --- phases ----------------------------------------------------------------------------------


def only(model, index):
    phases = model.phases()
    model.phases = lambda: [phases[index]]
    return model


@pytest.mark.parametrize(
    "index, part", [(0, "discriminator"), (1, "association"), (2, "generator")]
)
def test_a_phase_moves_its_own_part_and_nothing_else(index, part):
    model = only(intact(), index)
    compiled(model)
    before = {name: snapshot(getattr(model, name)) for name in PARTS}
    step(model, pairs())
    for name in PARTS:
        changed = moved(before[name], getattr(model, name))
        assert bool(changed) == (name == part), (name, changed)
    own = moved(before[part], getattr(model, part))
    for kind in ("kernel", "gamma", "moving_mean", "moving_variance"):
        assert any(path.endswith(kind) for path in own), f"no {kind} of {part} moved"


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


def test_eq_8_reaches_the_generator_both_ways():
    model = intact()
    compiled(model)
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
    model = intact(lambda_g=0.1, lambda_c=0.3, association_weight=1.0, pixel_scale=16.0)
    compiled(model)
    heavy = intact(lambda_g=0.2, lambda_c=0.9, association_weight=5.0, pixel_scale=32.0)
    compiled(heavy)
    a, b = step(model, pairs()), step(heavy, pairs())
    ratios = {"gan": 2, "association": 5, "mse": 4, "discriminator": 1}
    # Shown of L_id is the cross-entropy of an image, whatever its weight.
    for term, ratio in {**ratios, "id": 1}.items():
        assert b[term] == pytest.approx(ratio * a[term], rel=1e-4), term
    a, b = ((m._step_3(m.prepare(on_device(pairs())))[0]) for m in (model, heavy))
    assert number(b["id"]) == pytest.approx(3 * number(a["id"]), rel=1e-4)


@pytest.mark.parametrize(
    "options, parts, terms",
    [
        (
            {},
            {"discriminator", "association"},
            {"mse", "id", "gan", "discriminator", "association", "phi", "bridge"},
        ),
        ({"supervision": "mse"}, set(), {"mse"}),
        ({"supervision": "mse+id"}, set(), {"mse", "id"}),
        (
            {"supervision": "mse+id+gan"},
            {"discriminator"},
            {"mse", "id", "gan", "discriminator"},
        ),
        (
            {"bridge": False},
            {"discriminator", "association"},
            {"mse", "id", "gan", "discriminator", "association", "phi"},
        ),
        (
            {"association": "common"},
            {"discriminator", "association"},
            {"mse", "id", "gan", "discriminator", "association", "phi"},
        ),
        (
            {"association": "d-to-r"},
            {"discriminator", "association"},
            {"mse", "id", "gan", "discriminator", "association", "phi", "bridge"},
        ),
    ],
)
def test_every_variant_trains(options, parts, terms):
    model = intact(**options)
    assert {p for p in ("discriminator", "association") if getattr(model, p) is not None} == parts
    compiled(model)
    logs = step(model, pairs())
    if "discriminator" in parts:
        assert 0 <= logs.pop("discriminator_accuracy") <= 1
    assert set(logs) == terms and all(np.isfinite(list(logs.values())))


# --- use -------------------------------------------------------------------------------------


def test_rate_1_bypasses_the_generator():
    model = intact(backbone="resnet_tiny")
    images = pairs()["lr"]
    plain, recovered = model.embed(images, rates=1), model.embed(images, rates=4)
    assert plain.shape == (8, 256) and plain.dtype == np.float32
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


def test_wrong_images_are_refused():
    model = intact()
    with pytest.raises(xr.InputError, match="prepare_images"):
        model.embed(np.zeros((2, 128, 64, 3), "uint8"))
    with pytest.raises(xr.InputError, match="3 rates were given for 2"):
        model.embed(np.zeros((2, *SIZE, 3), "uint8"), rates=[1, 2, 3])


def test_distances_by_hand():
    model = intact()
    a, b = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 5.0], [2.0, 0.0]])
    half = 1 - 0.5**0.5
    np.testing.assert_allclose(model.distances(a, b), [[1, 0], [half, half]], atol=1e-6)


def test_a_weights_file_says_what_it_is(tmp_path):
    path = tmp_path / "model.weights.h5"
    model = intact(backbone="resnet_tiny", supervision="mse+id+gan")
    compiled(model)
    step(model, pairs())
    xr.save(model, path)
    again = xr.load(path)
    assert type(again) is xr.INTACT and again.supervision == "mse+id+gan"
    assert again.people == PEOPLE and again.image_size == SIZE
    np.testing.assert_array_equal(again.embed(pairs()["lr"], 4), model.embed(pairs()["lr"], 4))
    assert [p.name for p in tmp_path.iterdir()] == ["model.weights.h5"]
    with pytest.raises(xr.InputError, match="no weights at"):
        xr.load(tmp_path / "nothing.weights.h5")
    (tmp_path / "other.weights.h5").write_bytes(b"not HDF5")
    with pytest.raises(xr.InputError, match="no weights file"):
        xr.load(tmp_path / "other.weights.h5")


def test_saved_whole(tmp_path):
    model = intact()
    compiled(model)
    step(model, pairs())
    model.save(tmp_path / "intact.keras")
    again = keras.models.load_model(tmp_path / "intact.keras")
    a, b = step(model, pairs(seed=1)), step(again, pairs(seed=1))
    assert a == pytest.approx(b, rel=1e-5)


def test_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = intact()
        # JAX has compiled nothing in this precision: one program is made sooner than every part.
        model.compile(run_eagerly=keras.backend.backend() != "jax")
        logs = step(model, pairs())
        features = model.embed(pairs()["lr"], rates=4)
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(list(logs.values()))) and features.dtype == np.float32
    # Saved and built again, the parts keep their precision, whatever is in force now.
    again = xr.INTACT.from_config(model.get_config())
    policies = {layer.dtype_policy.name for layer in again.generator.layers}
    assert policies == {"mixed_bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


@keras.saving.register_keras_serializable("tests")
class Pyramid(keras.Model):
    """Stands in for a KerasCV backbone: a functional model with named pyramid levels."""

    def __init__(self, width=4, **kwargs):
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(width, 3, strides=4, padding="same")(image)
        y = keras.layers.Conv2D(2 * width, 3, strides=2, padding="same")(x)
        super().__init__(image, y, **kwargs)
        self.width = width
        self.pyramid_outputs = {"P2": x, "P3": y}

    def get_config(self):
        return {"width": self.width}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_given_backbone_is_copied(tmp_path):
    backbone = Pyramid()
    before = snapshot(backbone)
    model = xr.INTACT(
        PEOPLE, preset="tiny", image_size=SIZE, backbone=backbone, generator_widths=(4, 4, 4, 4),
        discriminator_width=4,
    )  # fmt: skip
    baseline = xr.Baseline(PEOPLE, preset="tiny", image_size=SIZE, backbone=backbone)
    assert len(backbone.trainable_variables) == 4  # INTACT froze its own copy
    baseline.compile({"network": keras.optimizers.Adam(1e-2)})
    step(baseline, {"image": pairs()["hr"], "person": pairs()["person"]})
    assert moved(before, backbone) == set()
    model.save(tmp_path / "intact.keras")
    again = keras.models.load_model(tmp_path / "intact.keras")
    np.testing.assert_array_equal(again.embed(pairs()["lr"], 4), model.embed(pairs()["lr"], 4))
