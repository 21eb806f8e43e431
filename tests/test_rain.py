"""RAIN: its losses by hand, its phases, and where its gradients go."""

import keras
import numpy as np
import pytest
from small import (
    arrays,
    batch_hard,
    compiled,
    couples,
    entropy,
    independent,
    not_on_jax,
    on_device,
    rain,
    reached,
    shared,
    softplus,
    step,
)

# --- losses ----------------------------------------------------------------------------------


@pytest.mark.backend
@not_on_jax
@pytest.mark.parametrize("settings", ["paper", "authors-code"])
def test_every_term_by_hand(settings):
    code = settings == "authors-code"
    model = compiled(shared(rain, settings=settings, margin=0.3), rate=0)
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
    model = compiled(shared(rain), rate=0)
    batch = couples()
    logs = step(model, {**batch, "person": np.array([0, 1, 2, 3], "int32")})
    assert logs["triplet"] == 0.0 and logs["id"] > 0.1
    logs = step(model, {**batch, "person": np.array([0, 0, 1, 1], "int32")})
    assert logs["triplet"] > 0.1
    # Nobody has a label.
    logs = step(model, {**batch, "person": np.array([-1, -1, -1, -1], "int32")})
    assert logs["triplet"] == logs["id"] == 0.0 and logs["reconstruction"] > 0.01


@pytest.mark.backend
@not_on_jax
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
@not_on_jax
def test_alignment_reaches_the_extractor_and_nothing_else():
    model = rain()
    assert reached(model, "adversarial") == {"extractor": (5, 5)}
    assert reached(model, "id", "triplet") == {"extractor": (5, 5), "classifier": (1, 1)}
    # Level 4 alone does not reach the stage after it.
    assert reached(rain(levels=(4,)), "adversarial") == {"extractor": (4, 5)}


def test_settings_of_the_authors_code():
    model = shared(rain, settings="authors-code")
    assert model.triplet == 20 and shared(rain, settings="authors-code", levels=(5,)).triplet == 10
    model.compile()
    adam = model.optimizers["discriminator"]
    assert isinstance(adam, keras.optimizers.Adam)
    assert float(adam.learning_rate) == pytest.approx(1e-4)


# --- use -------------------------------------------------------------------------------------


def test_embedding_recovery_and_distances():
    model, images = shared(rain), couples()["lr"]
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
    assert not hasattr(shared(rain, reconstruction=0), "recover")


def test_the_decoder_doubles_as_often_as_the_backbone_halves():
    for stride, blocks in ((1, 4), (2, 5)):
        model = shared(rain, backbone="resnet_tiny", last_stride=stride)
        doubled = [x.name for x in model.decoder.layers if x.name.endswith("shortcut_double")]
        assert len(doubled) == blocks
