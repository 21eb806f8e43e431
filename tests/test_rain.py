"""RAIN: its losses by hand, its phases, and where its gradients go."""

import keras
import numpy as np
import pytest
from small import (
    PEOPLE,
    SIZE,
    Levels,
    arrays,
    batch_hard,
    cadnet,
    compiled,
    couples,
    entropy,
    independent,
    moved,
    moved_by,
    not_on_jax,
    on_device,
    rain,
    reached,
    snapshot,
    softplus,
    step,
)

import keras_xreid as xr

PARTS = ("extractor", "classifier", "decoder", "discriminator")


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.backend
@pytest.mark.parametrize("settings", ["paper", "authors-code"])
def test_every_term_by_hand(settings):
    code = settings == "authors-code"
    model = compiled(rain(settings=settings, margin=0.3), rate=0)
    # Twins, of which the HR image is the target of the LR image; or drawn independently.
    batch = independent(4)
    if not code:
        batch = {name: batch[name] for name in ("hr", "lr", "person")}
    hr, lr, target = (
        batch[name] / np.float32(255) for name in ("hr", "lr", "target" if code else "hr")
    )
    person = batch["person"]
    hr_person = batch["hr_person"] if code else person

    *maps, v = arrays(model.extractor(np.concatenate([hr, lr]), training=True))
    np.testing.assert_allclose(v, maps[4].mean(axis=(1, 2)), rtol=1e-4)
    (logits,) = arrays(model.classifier(v, training=True))
    recovered = arrays(model.decoder(maps, training=True))[0]
    judged = arrays(model.discriminator([maps[3], maps[4]], training=True))
    u = v / np.linalg.norm(v, axis=1, keepdims=True) if code else v
    # D wants HR above 0 and LR below; F the opposite, or, in the authors' code, LR above 0.
    d = sum(softplus(-x[:4]) + softplus(x[4:]) for x in judged)
    f = sum(softplus(-x[4:]) + (0 if code else softplus(x[:4])) for x in judged)
    weights = (10, 20, 2, 0.01) if code else (1, 1, 1, 1)
    expected = {
        "discriminator": d,
        # Shown is what every system shows, the mean over images; the term is a weighted sum.
        "id": (entropy(logits[:4], hr_person) + entropy(logits[4:], person)) / 2,
        "triplet": weights[1]
        * (batch_hard(u[:4], hr_person, 0.3) + batch_hard(u[4:], person, 0.3)),
        "reconstruction": weights[2]
        * (np.abs(recovered[:4] - hr).mean() + np.abs(recovered[4:] - target).mean()),
        "adversarial": weights[3] * f,
        **{
            f"discriminator_accuracy_{level}": ((x[:4] > 0).mean() + (x[4:] <= 0).mean()) / 2
            for level, x in zip((4, 5), judged, strict=True)
        },
    }
    terms, _ = model._extract(model.prepare(on_device(batch)))
    assert float(arrays(terms["id"])[0]) == pytest.approx(2 * weights[0] * expected["id"], rel=1e-3)
    assert step(model, batch) == pytest.approx(expected, rel=1e-3)


def test_triplets_never_mix_hr_and_lr():
    # Everybody is there once in HR and once in LR: a positive there is only across the two.
    model = compiled(rain(), rate=0)
    batch = couples()
    logs = step(model, {**batch, "person": np.array([0, 1, 2, 3], "int32")})
    assert logs["triplet"] == 0.0 and logs["id"] > 0.1
    logs = step(model, {**batch, "person": np.array([0, 0, 1, 1], "int32")})
    assert logs["triplet"] > 0.1
    # Nobody has a label.
    logs = step(model, {**batch, "person": np.array([-1, -1, -1, -1], "int32")})
    assert logs["triplet"] == logs["id"] == 0.0 and logs["reconstruction"] > 0.01


@pytest.mark.backend
def test_an_unlabelled_image_feeds_reconstruction_and_alignment_only():
    model = rain()
    model.extractor.trainable = False  # its normalization takes the moving statistics then
    compiled(model, rate=0)
    batch = {**couples(), "person": np.array([0, 0, 1, -1], "int32")}
    other = {**batch, "hr": batch["hr"].copy(), "lr": batch["lr"].copy()}
    other["hr"][3], other["lr"][3] = 255 - batch["hr"][3], 255 - batch["lr"][3]
    before, after = step(model, batch), step(model, other)
    assert after["id"] == pytest.approx(before["id"], rel=1e-6)
    assert after["triplet"] == pytest.approx(before["triplet"], rel=1e-6)
    assert abs(after["reconstruction"] - before["reconstruction"]) > 1e-3
    assert abs(after["adversarial"] - before["adversarial"]) > 1e-5
    # With a label it would have had a say.
    for images in (batch, other):
        images["person"] = np.array([0, 0, 1, 0], "int32")
    before, after = step(model, batch), step(model, other)
    assert abs(after["id"] - before["id"]) > 1e-4
    assert abs(after["triplet"] - before["triplet"]) > 1e-4


# --- phases ----------------------------------------------------------------------------------


@pytest.mark.backend
def test_a_phase_moves_its_own_parts_and_nothing_else():
    model = rain(settings="authors-code")  # this D has batch normalization
    phases = model.phases()
    assert [set(phase.updates) for phase in phases] == [set(PARTS[:3]), {"discriminator"}]
    compiled(model)
    for phase in phases:
        for name, changed in moved_by(model, phase, PARTS).items():
            assert bool(changed) == (name in phase.updates), (name, changed)
            for kind in ("kernel", "gamma", "moving_mean", "moving_variance"):
                if changed and name != "classifier":
                    assert any(path.endswith(kind) for path in changed), f"no {kind} of {name}"


@pytest.mark.backend
def test_alignment_reaches_the_extractor_and_nothing_else():
    model = rain()
    assert reached(model, "adversarial") == {"extractor": (5, 5)}
    assert reached(model, "id", "triplet") == {"extractor": (5, 5), "classifier": (1, 1)}
    # Level 4 alone does not reach the stage after it.
    assert reached(rain(levels=(4,)), "adversarial") == {"extractor": (4, 5)}


@pytest.mark.parametrize(
    "options, parts, terms",
    [
        ({"classification": 0}, PARTS[:1] + PARTS[2:], "triplet reconstruction adversarial"),
        ({"triplet": 0, "adversarial": 0}, PARTS[:3], "id reconstruction"),
        ({"reconstruction": 0}, PARTS[:2] + PARTS[3:], "id triplet adversarial"),
        (
            {"levels": (5,), "settings": "authors-code"},
            PARTS,
            "id triplet reconstruction adversarial",
        ),
    ],
)
def test_every_variant_trains(options, parts, terms):
    model = rain(**options)
    assert {name for name in PARTS if getattr(model, name) is not None} == set(parts)
    assert hasattr(model, "recover") == ("decoder" in parts)
    logs = step(compiled(model), couples())
    expected = set(terms.split()) | ({"discriminator"} & set(parts))
    logs = {name: value for name, value in logs.items() if "accuracy" not in name}
    assert set(logs) == expected and all(np.isfinite(list(logs.values())))


def test_default_optimizers():
    model = rain(settings="authors-code")
    assert model.triplet == 20 and rain(settings="authors-code", levels=(5,)).triplet == 10
    model.compile()
    assert isinstance(model.optimizers["discriminator"], keras.optimizers.Adam)
    assert float(model.optimizers["discriminator"].learning_rate) == pytest.approx(1e-4)
    for part in ("extractor", "decoder", "classifier"):
        sgd = model.optimizers[part]
        assert isinstance(sgd, keras.optimizers.SGD) and sgd.momentum == 0.9
        assert float(sgd.learning_rate) == pytest.approx(1e-3)
    model = rain()
    model.compile()
    assert isinstance(model.optimizers["discriminator"], keras.optimizers.SGD)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"settings": "other"}, "'other'.*paper, authors-code"),
        ({"levels": (4, 6)}, r"levels \(4, 6\).* 1 to 5"),
        ({"levels": ()}, r"levels \(\).* 1 to 5"),
        ({"triplet": -1.0}, "1, -1, 1, 1"),
        ({"classification": 0, "triplet": 0, "reconstruction": 0, "adversarial": 0}, "0, 0, 0, 0"),
        ({"image_size": (72, 40)}, "72x40"),
    ],
)
def test_what_is_refused(options, line):
    with pytest.raises(xr.InputError, match=line):
        rain(**options)


# --- use -------------------------------------------------------------------------------------


def test_embedding_recovery_and_distances():
    model = rain()
    images = couples()["lr"]
    *maps, _ = arrays(model.extractor(images / np.float32(255)))
    features = model.embed(images, rates=4, batch_size=3)
    np.testing.assert_allclose(features, maps[4].mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    # No image has a way of its own.
    np.testing.assert_allclose(model.embed(images, rates=1), features, rtol=1e-4, atol=1e-6)
    recovered = model.recover(images, batch_size=3)
    assert recovered.shape == images.shape and recovered.dtype == np.float32
    np.testing.assert_allclose(recovered, arrays(model.decoder(maps))[0], atol=1e-5)
    a, b = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 4.0], [1.0, 1.0]])
    np.testing.assert_allclose(
        model.distances(a, b), [[5, 5**0.5], [10**0.5, 0]], rtol=1e-6, atol=1e-6
    )
    with pytest.raises(xr.InputError, match="prepare_images"):
        model.recover(np.zeros((2, 128, 64, 3), "uint8"))


def test_a_weights_file_says_what_it_is(tmp_path):
    model = rain(backbone="resnet_tiny", levels=(5,), settings="authors-code", adversarial=0.5)
    xr.save(model, tmp_path / "model.weights.h5")
    again = xr.load(tmp_path / "model.weights.h5")
    assert type(again) is xr.RAIN
    assert again.get_config() == {**model.get_config(), "name": again.name}
    images = couples()["lr"]
    np.testing.assert_array_equal(again.embed(images), model.embed(images))
    np.testing.assert_array_equal(again.recover(images), model.recover(images))


@pytest.mark.backend
def test_saved_whole(tmp_path):
    backbone = Levels()
    before = snapshot(backbone)
    model = compiled(rain(backbone=backbone))
    step(model, couples())
    model.save(tmp_path / "rain.keras")
    again = keras.models.load_model(tmp_path / "rain.keras")
    assert again.image_size == SIZE and again.people == PEOPLE
    images = couples()["lr"]
    np.testing.assert_array_equal(again.embed(images), model.embed(images))
    assert step(again, couples(seed=1)) == pytest.approx(step(model, couples(seed=1)), rel=1e-5)
    assert moved(before, backbone) == set()  # the given backbone was copied


@not_on_jax
@pytest.mark.backend
def test_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(rain())
        logs = step(model, couples())
    finally:
        keras.config.set_dtype_policy("float32")
    features, recovered = model.embed(couples()["lr"]), model.recover(couples()["lr"])
    assert all(np.isfinite(list(logs.values())))
    assert features.dtype == recovered.dtype == np.float32
    assert {str(v.dtype) for v in model.weights} == {"float32"}


@pytest.mark.parametrize(
    "options, width, blocks",
    [
        ({"backbone": "resnet50", "last_stride": 2}, 2048, 5),
        ({"backbone": "osnet_x0_25"}, 128, 4),
    ],
)
def test_named_backbones(options, width, blocks):
    model = rain(**options)
    assert model.extractor.output_shape[-1] == (None, width)
    doubled = [x.name for x in model.decoder.layers if x.name.endswith("shortcut_double")]
    assert len(doubled) == blocks


@pytest.mark.slow
@pytest.mark.parametrize("system, width", [(rain, 16), (cadnet, 32)])
def test_kerascv_backbone(system, width):
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed")
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 8, 16], stackwise_blocks=[1, 1, 1], stackwise_strides=[1, 2, 2],
        block_type="basic_block", include_rescaling=True,
    )  # fmt: skip
    model = system(backbone=backbone)
    assert model.embed(couples()["lr"]).shape == (4, width)
