"""CAD-Net: its losses by hand, its phases, and where its gradients go."""

import numpy as np
import pytest
from small import (
    arrays,
    batch_hard,
    cadnet,
    compiled,
    couples,
    entropy,
    fill,
    independent,
    moved,
    not_on_jax,
    on_device,
    reached,
    shared,
    snapshot,
    softplus,
    step,
)

PARTS = (
    "encoder", "decoder", "image_encoder", "classifier", "feature_discriminator",
    "image_discriminator",
)  # fmt: skip
E, G, F, C, D_F, D_I = PARTS
TERMS = ("id", "triplet", "reconstruction", "adversarial_features", "adversarial_images")


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.backend
@not_on_jax
def test_every_term_by_hand():
    weights = {
        "classification": 2.0, "reconstruction": 3.0, "adversarial_features": 0.5,
        "adversarial_images": 0.25,
    }  # fmt: skip
    model = compiled(shared(cadnet, margin=0.3, **weights), rate=0)
    batch = independent(4)
    hr, lr, target = (batch[name] / np.float32(255) for name in ("hr", "lr", "target"))
    person, hr_person = batch["person"], batch["hr_person"]

    *maps, f = arrays(model.encoder(np.concatenate([hr, lr]), training=True))
    recovered = arrays(model.decoder(maps, training=True))[0]
    g = arrays(model.image_encoder(recovered, training=True))[-1]
    u = np.concatenate([f, g], axis=1)
    (logits,) = arrays(model.classifier(u, training=True))
    (features,) = arrays(model.feature_discriminator([maps[4]], training=True))
    (real,) = arrays(model.image_discriminator(hr, training=True))
    (fake,) = arrays(model.image_discriminator(recovered, training=True))
    expected = {
        "feature_discriminator": softplus(-features[:4]) + softplus(features[4:]),
        # As Eq. 3 is printed: the real images twice, the recovered ones of HR and of LR once.
        "image_discriminator": 2 * softplus(-real) + softplus(fake[:4]) + softplus(fake[4:]),
        # Shown is what every system shows, the mean over images; the term is a weighted sum.
        "id": (entropy(logits[:4], hr_person) + entropy(logits[4:], person)) / 2,
        "triplet": 2 * (batch_hard(u[:4], hr_person, 0.3) + batch_hard(u[4:], person, 0.3)),
        "reconstruction": 3
        * (np.abs(recovered[:4] - hr).mean() + np.abs(recovered[4:] - target).mean()),
        "adversarial_features": 0.5 * (softplus(features[:4]) + softplus(-features[4:])),
        "adversarial_images": 0.25 * (softplus(-fake[:4]) + softplus(-fake[4:])),
        "feature_discriminator_accuracy": ((features[:4] > 0).mean() + (features[4:] <= 0).mean())
        / 2,
        "image_discriminator_accuracy": ((real > 0).mean() + (fake <= 0).mean()) / 2,
    }
    terms, _ = model._recover_and_identify(model.prepare(on_device(batch)))
    assert float(arrays(terms["id"])[0]) == pytest.approx(4 * expected["id"], rel=1e-3)
    assert step(model, batch) == pytest.approx(expected, rel=1e-3)


def test_triplets_never_mix_hr_and_lr():
    # Everybody is there once in HR and once in LR: a positive there is only across the two.
    model, batch = compiled(shared(cadnet), rate=0), couples()
    logs = step(model, {**batch, "person": np.array([0, 1, 2, 3], "int32")})
    assert logs["triplet"] == 0.0
    logs = step(model, {**batch, "person": np.array([0, 0, 1, 1], "int32")})
    assert logs["triplet"] > 0.1


@pytest.mark.backend
@not_on_jax
def test_an_unlabelled_image_has_no_part_in_the_classification():
    model = cadnet()
    for part in (E, G, F):  # their normalization takes the moving statistics then
        getattr(model, part).trainable = False
    compiled(model, rate=0)
    batch = {**couples(), "person": np.array([0, 0, 1, -1], "int32")}
    other = {**batch, "hr": batch["hr"].copy(), "lr": batch["lr"].copy()}
    other["hr"][3], other["lr"][3] = 255 - batch["hr"][3], 255 - batch["lr"][3]
    before, after = step(model, batch), step(model, other)
    for term in ("id", "triplet"):
        assert after[term] == pytest.approx(before[term], rel=1e-6), term
    for term in (*TERMS[2:], D_F, D_I):
        assert abs(after[term] - before[term]) > 1e-5, term


# --- phases ----------------------------------------------------------------------------------


@pytest.mark.backend
@not_on_jax
def test_what_each_term_reaches():
    model = cadnet()
    # L_cls has a gradient in every kernel of G: "re-ID oriented" recovery.
    assert reached(model, "id") == {E: (5, 5), G: (13, 13), F: (5, 5), C: (1, 1)}
    # The alignment of features trains the encoder and nothing else.
    assert reached(model, "adversarial_features") == {E: (5, 5)}
    assert reached(model, "adversarial_images") == {E: (5, 5), G: (13, 13)}


@pytest.mark.backend
@not_on_jax
def test_the_encoder_learns_from_the_classification_through_the_decoder():
    # Here C takes nothing but g, and there is no other way to E.
    assert reached(cadnet(features="g"), "triplet") == {E: (5, 5), G: (13, 13), F: (5, 5)}


def test_without_l_cls_f_stays_as_it_began():
    model = compiled(cadnet(features="g", classification=0))
    assert model.classifier is None
    before = snapshot(model.image_encoder)
    logs = step(model, couples())
    assert set(logs) == {*TERMS[2:], D_F, D_I, f"{D_F}_accuracy", f"{D_I}_accuracy"}
    assert moved(before, model.image_encoder) == set()


# --- use -------------------------------------------------------------------------------------


def test_embedding_and_recovery():
    model, images = shared(cadnet), couples()["hr"]
    *maps, f = arrays(model.encoder(images / np.float32(255)))
    (recovered,) = arrays(model.decoder(maps))
    g = arrays(model.image_encoder(recovered))[4].mean(axis=(1, 2))
    features = model.embed(images, rates=1, batch_size=3)
    np.testing.assert_allclose(features, np.concatenate([f, g], axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.recover(images), recovered, atol=1e-5)
    np.testing.assert_allclose(model.distances([[3.0, 0.0]], [[0.0, 4.0]]), [[5.0]], rtol=1e-6)
    assert features.shape[1] == 2 * model.encoder.output_shape[-1][1]
    # HR images take the way through G too.
    fill(model.decoder, seed=1)
    after = model.embed(images, rates=1)
    np.testing.assert_allclose(after[:, :9], features[:, :9], rtol=1e-4, atol=1e-5)
    assert np.abs(after[:, 9:] - features[:, 9:]).max() > 1e-3


def test_f_and_g_alone_are_half_as_wide():
    images = couples()["lr"]
    for features in ("f", "g"):
        assert shared(cadnet, features=features).call(images / np.float32(255)).shape == (4, 9)


def test_encoders_share_no_weights():
    model = shared(cadnet)
    own = {id(v) for v in model.encoder.weights}
    assert own and not own & {id(v) for v in model.image_encoder.weights}
