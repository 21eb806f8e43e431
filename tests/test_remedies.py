"""What kept a system's own idea from working, as it was found, and what was done about it."""

import keras
import numpy as np
import pytest
from small import (
    PEOPLE,
    SIZE,
    Levels,
    adaptive,
    arrays,
    batch_hard,
    cadnet,
    compiled,
    couples,
    entropy,
    fill,
    intact,
    levels,
    not_on_jax,
    on_device,
    pairs,
    rain,
    reached,
    snapshot,
    step,
)

import keras_xreid as xr
from keras_xreid import losses
from keras_xreid.layers.association import Association
from keras_xreid.layers.mask import ResolutionMask
from keras_xreid.training.norms import TermNorms

pytestmark = pytest.mark.backend


def number(x):
    return float(keras.ops.convert_to_numpy(x))


# --- INTACT ----------------------------------------------------------------------------------


def association_term(model, scale=1.0, shift=0.0):
    """The association term of step 3, where C gives other embeddings fc."""
    batch, reid = model.prepare(on_device(pairs())), model.reid

    def other(images, training=False):
        fc, *rest = reid(images, training=training)
        return [scale * fc + shift, *rest]

    object.__setattr__(model, "reid", other)
    try:
        return number(model._step_3(batch)[0]["association"])
    finally:
        object.__setattr__(model, "reid", reid)


def test_the_critic_sees_a_shift_and_a_scale():
    """By the batch's statistics fc, fc + 10 and 3.7 fc are one and the same for the critic."""
    blind = compiled(intact(critic_statistics="batch"), rate=0)
    plain = association_term(blind)
    assert association_term(blind, shift=10.0) == pytest.approx(plain, rel=1e-3)
    assert association_term(blind, scale=3.7) == pytest.approx(plain, rel=1e-2)
    sees = compiled(intact(critic_statistics="moving"), rate=0)
    plain = association_term(sees)
    assert abs(association_term(sees, shift=10.0) - plain) > 0.1 * plain
    assert abs(association_term(sees, scale=3.7) - plain) > 0.01 * plain


def test_while_d_is_fixed_it_normalises_as_a_judge_does():
    """With moving statistics, phi learns from the fd that step 3 will compare with."""
    model = compiled(intact(critic_statistics="moving"), rate=0)
    batch = model.prepare(on_device(pairs()))
    fd, _ = model.discriminator(batch["hr"], training=False)
    (expected, _) = model.association.distances(batch["fc"], fd)
    assert number(model._step_2(batch)["phi"]) == pytest.approx(number(expected), rel=1e-4)


def test_phi_starts_at_the_scale_of_fd():
    """fd's deviation is near 0.1. From 1, phi's loss was its own variance for 900 steps."""
    rng = np.random.default_rng(0)
    fc = rng.normal(size=(64, 32)).astype("float32")
    fd = rng.normal(0, 0.11, (64, 48)).astype("float32")
    small = Association(32, 48, first_scale=0.1)
    found, _ = small.distances(fc, fd)
    assert number(found) < 3 * np.mean(fd**2)
    wide, _ = Association(32, 48).distances(fc, fd)
    assert number(wide) > 50 * np.mean(fd**2)
    assert Association.from_config(small.get_config()).first_scale == 0.1


def test_the_match_term_is_the_distance_of_two_embeddings():
    """1 - cosine between fc of the recovered image and of its HR twin; it trains G alone."""
    model = compiled(intact(match=2.0, supervision="mse"), rate=0)
    batch = model.prepare(on_device(pairs()))
    terms, _ = model._step_3(batch)
    recovered = model.generator(batch["lr"], training=True)
    (a, *_), (b, *_) = arrays(model.reid(recovered)), arrays(model.reid(batch["hr"]))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert number(terms["match"]) == pytest.approx(2 * (1 - cosine.mean()), rel=1e-3, abs=1e-5)
    assert set(reached(model, "match")) == {"generator"}


def test_the_identity_term_may_be_smoothed():
    """At certainty plain cross-entropy has no gradient; a smoothed one still has."""
    logits = np.array([[30.0, 0.0, 0.0]], "float32")
    assert number(losses.cross_entropy([0], logits)) < 1e-6
    assert number(losses.cross_entropy([0], logits, 0.1)) > 1.5
    assert intact(label_smoothing=0.1).label_smoothing == 0.1


# --- CAD-Net ---------------------------------------------------------------------------------


@not_on_jax
def test_the_decoder_begins_with_its_input():
    """A recovered image is at first no worse than the query: no map is as fine as the image."""
    images = pairs()["lr"]
    model = xr.CADNet(
        PEOPLE, preset="tiny", backbone=Levels(), image_size=SIZE, decoder_widths=(6, 5, 4, 4),
        discriminator_width=2, residual=True,
    )  # fmt: skip
    np.testing.assert_allclose(model.recover(images), images / np.float32(255), atol=1e-6)
    fill(model)
    found = model.recover(images)
    assert np.abs(found - images / np.float32(255)).max() > 1e-3
    assert found.min() >= 0 and found.max() <= 1
    logs = step(compiled(model), couples())
    assert np.isfinite(list(logs.values())).all()


# --- RAIN ------------------------------------------------------------------------------------


def test_joint_terms_are_over_both_kinds_of_images():
    model = compiled(rain(joint=True, margin=0.3, label_smoothing=0.0), rate=0)
    batch = {name: couples()[name] for name in ("hr", "lr", "person")}
    images = np.concatenate([batch["hr"], batch["lr"]]) / np.float32(255)
    person = np.concatenate([batch["person"]] * 2)
    *_, v = arrays(model.extractor(images, training=True))
    (logits,) = arrays(model.classifier(v, training=True))
    terms, handed = model._extract(model.prepare(on_device(batch)))
    assert number(terms["id"]) == pytest.approx(entropy(logits, person), rel=1e-3)
    assert number(handed["id"]) == pytest.approx(entropy(logits, person), rel=1e-3)
    assert number(terms["triplet"]) == pytest.approx(batch_hard(v, person, 0.3), rel=1e-3)


@not_on_jax
@pytest.mark.parametrize("make", [rain, cadnet])
def test_a_neck_is_trained_and_searched_behind(make):
    model = compiled(make(neck=True, joint=True, label_smoothing=0.1))
    before = snapshot(model.neck)
    step(model, couples())
    assert all(not np.array_equal(*x) for x in zip(before, snapshot(model.neck), strict=True))
    images = couples()["hr"]
    embedding = model.embed(images)
    (called,) = arrays(model(images.astype("float32") / 255))
    np.testing.assert_allclose(embedding, called, rtol=1e-3, atol=1e-4)
    # By cosine: a feature and its double are at distance 0.
    assert np.abs(model.distances(embedding, 2 * embedding).diagonal()).max() < 1e-5
    assert model.classifier.layers[-1].use_bias is False
    again = type(model).from_config(model.get_config())
    assert again.neck is not None and again.joint and again.label_smoothing == 0.1


def test_accuracy_of_a_critic_by_hand():
    real, fake = np.array([[2.0], [-1.0]]), np.array([[0.5], [-3.0], [-1.0], [-2.0]])
    assert number(losses.critic_accuracy(real, fake)) == pytest.approx((0.5 + 0.75) / 2)
    assert number(losses.critic_accuracy(real, real)) == 0.5


# --- resolution-adaptive ---------------------------------------------------------------------


def masks(**options):
    layer = ResolutionMask(levels=4, seed=0, **options)
    layer.build([(None, 8, 4, 512), (None,)])
    return layer


def test_masks_may_start_alike():
    """Drawn apart with deviation 1 they are random gates, other ones for each level."""
    deviation, apart = masks().spread
    assert abs(deviation - 1) < 0.1 and abs(apart - 2**0.5) < 0.1
    shared = masks(stddev=0.1, shared=True, speed=10.0)
    deviation, apart = shared.spread
    assert abs(deviation - 0.1) < 0.02 and apart == 0
    np.testing.assert_allclose(shared.values, np.tile(shared.values[:1], (4, 1)))


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_masks_move_as_fast_as_told(speed):
    """One step of Adam at 0.01 moves each logit by 0.01, times the speed."""
    layer = masks(stddev=0.1, shared=True, speed=speed)
    before = speed * snapshot(layer)[0]
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.apply([keras.ops.ones(layer.logits.shape)], [layer.logits])
    np.testing.assert_allclose(speed * snapshot(layer)[0], before - 0.01 * speed, atol=1e-4)
    x = np.ones((1, 2, 1, 512), "float32")
    (found,) = arrays(layer([x, np.array([2])]))
    np.testing.assert_allclose(found[0, 0, 0], layer.values[1], atol=1e-5)


def test_masks_tell_how_far_they_have_come(capsys):
    model = compiled(adaptive(mask_shared=True, mask_speed=5.0))
    progressive = xr.Progressive(model.masks[::-1], epochs=[1, 1, 1, 1])

    class Once(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return levels()

    history = model.fit(Once(), epochs=2, verbose=0, callbacks=[progressive]).history
    assert len(history["mask_deviation"]) == len(history["mask_difference"]) == 2
    assert history["mask_difference"][1] == pytest.approx(model.masks[-2].spread[1])
    assert capsys.readouterr().out.count("difference between levels") == 2


def test_prefixes_are_compared_by_cosine_on_the_parts_of_the_query():
    model = adaptive(prefixes=True)
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 14)).astype("float32") for n in (4, 3))
    found = model.distances(query, gallery, query_rates=np.array([4, 3, 2, 1]))
    for i, kept in enumerate((2, 5, 9, 14)):
        for j in range(3):
            a, b = query[i, :kept], gallery[j, :kept]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert found[i, j] == pytest.approx(1 - cosine, abs=1e-5)


def test_verification_sees_what_is_searched():
    """Of a gallery image only the query's parts count: the others are not there to be ranked."""
    batch = {**levels(), "rate": np.full(4, 4, "int32")}  # of 14 dimensions 2 are kept

    def term(model, by):
        # What differs lies in dimensions that no query of this level has.
        dense = model.network.get_layer("v")
        bias = arrays(dense.bias)[0]
        bias[2:] += by
        dense.bias.assign(bias)
        return number(model._terms(model.prepare(on_device(batch)))[0]["verification"])

    padded, prefix = adaptive(prefixes=False), adaptive(prefixes=True)
    before = term(padded, 0.0)
    assert abs(term(padded, 5.0) - before) > 1e-3
    before = term(prefix, 0.0)
    assert term(prefix, 5.0) == pytest.approx(before, rel=1e-5)


# --- the engine ------------------------------------------------------------------------------


def test_gradient_norms_are_of_each_term_alone():
    model = compiled(rain(), rate=0)
    before = snapshot(model)
    norms = model.gradient_norms(couples())
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)  # nothing changes by it
    phase = model.phases()[0]
    assert set(norms) == set(phase.terms)
    # The gradient of the sum is the sum of gradients: norms bound it from above.
    batch = model.prepare(on_device(couples()))
    _, gradients = model.phase_gradients(phase, batch)
    whole = np.sqrt(sum((g**2).sum() for g in arrays(gradients)))
    assert whole < sum(norms.values()) * 1.001
    heavy = compiled(rain(reconstruction=3.0), rate=0).gradient_norms(couples())
    assert heavy["reconstruction"] == pytest.approx(3 * norms["reconstruction"], rel=1e-3)
    assert heavy["id"] == pytest.approx(norms["id"], rel=1e-3)


def test_norms_stand_in_the_history(tmp_path):
    from small import Repeat

    model, batches = compiled(rain(), rate=0), Repeat(couples())
    batches.batch = lambda epoch, index: couples()
    checkpoint = xr.Checkpoint(
        tmp_path / "c.weights.h5", batches, history=tmp_path / "history.csv"
    )  # fmt: skip
    model.fit(batches, epochs=1, verbose=0, callbacks=[TermNorms(batches), checkpoint])
    header = (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    assert {"norm_id", "norm_triplet", "norm_adversarial", "discriminator_accuracy_4"} <= {*header}
