"""Distilled: its terms by a slow oracle, and a teacher that nothing moves."""

import dataclasses

import h5py
import keras
import numpy as np
import pytest
from small import (
    PEOPLE,
    SIZE,
    arrays,
    baseline,
    batch_hard,
    couples,
    distilled,
    entropy,
    moved,
    not_on_jax,
    on_device,
    shared,
    snapshot,
    step,
)

import keras_xreid as xr
from keras_xreid.models.distilled import relation

pytestmark = [pytest.mark.backend, not_on_jax]


def compiled(model, rate=0.1):
    model.compile({"network": keras.optimizers.SGD(rate)}, run_eagerly=True)
    return model


def apart(a, b):
    """1 - cosine of two arrays."""
    return 1.0 - np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))


def related(student, teacher, partners):
    """The relation term, image by image and position by position."""
    found = []
    for i, j in enumerate(partners):
        s, s2, t, t2 = (x.reshape(-1, x.shape[-1]) for x in
                        (student[i], student[j], teacher[i], teacher[j]))  # fmt: skip

        def table(a, b):
            return np.array([[np.dot(x, y) for y in b] for x in a])

        wanted = table(t, t2)
        crossed = apart(wanted, table(t, s2)) + apart(wanted, table(s, t2))
        found.append(crossed / 2 + apart(wanted, table(s, s2)))
    return np.mean(found)


def test_relation_by_hand():
    # One position and one channel a map: a relation is one product, a cosine its sign.
    teacher = np.array([1.0, 1.0, 1.0, 1.0]).reshape(4, 1, 1, 1)
    student = np.array([1.0, -1.0, 1.0, 1.0]).reshape(4, 1, 1, 1)
    # People 0 0 1 -1. Image 0: R(t, s') = R(s, s') = -1 and R(s, t') = 1, so 2 / 2 + 2 = 3; image 1
    # likewise; images 2 and 3 are their own partners, and right.
    found = relation(student, teacher, np.array([0, 0, 1, -1], "int32"))
    assert arrays(found)[0] == pytest.approx(6 / 4, abs=1e-6)


def test_relation_is_that_of_a_slow_oracle():
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(5, 3, 2, 4)).astype("float32") for _ in range(2))
    # The next of the person, after the last one the first; nobody knows who -1 is.
    labels, partners = np.array([0, 1, 0, -1, 0], "int32"), [2, 1, 4, 3, 0]
    found = arrays(relation(student, teacher, labels))[0]
    assert found == pytest.approx(related(student, teacher, partners), rel=1e-5)
    assert arrays(relation(teacher, teacher, labels))[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("neck", [False, True])
def test_terms(neck):
    options = {"neck": True, "label_smoothing": 0.0, "unit_triplet": True} if neck else {}
    model, batch = shared(distilled, **options), couples()
    compiled(model)
    prepared = model.prepare(on_device(batch))
    terms, _ = model.phase_gradients(model.phases()[0], prepared)
    terms = {name: arrays(value)[0] for name, value in terms.items()}

    # The student's maps are those of a step, by the batch; the teacher's by its own statistics.
    student, teacher = (x.layers[1] for x in (model.network, model.hr_teacher))
    lr, hr = batch["lr"] / np.float32(255), batch["hr"] / np.float32(255)
    s, t = arrays(student(lr, training=True)), arrays(teacher(hr, training=False))
    assert len(s) == 5
    taps = [np.mean([apart(a, b) for a, b in zip(x, y, strict=True)]) for x, y in zip(s, t)]  # noqa: B905
    assert terms["taps"] == pytest.approx(20 * np.mean(taps), rel=1e-4)
    assert terms["relation"] == pytest.approx(4 * related(s[-1], t[-1], [1, 0, 3, 2]), rel=1e-4)

    features, logits, *raw = arrays(model.network(lr, training=True))
    person = batch["person"]
    assert terms["id"] == pytest.approx(entropy(logits, person), rel=1e-4)
    if neck:
        features = raw[0] / np.linalg.norm(raw[0], axis=1, keepdims=True)
    assert terms["triplet"] == pytest.approx(batch_hard(features, person, 0.3), rel=1e-4)


def test_both_views_are_used_as_told():
    """The student never sees the HR image, and the teacher never the LR one."""
    model = compiled(shared(distilled), rate=0.0)
    batch, other = couples(), couples(1)
    logs = step(model, batch)
    for view, same in (("hr", {"id", "triplet"}), ("lr", set())):
        changed = step(model, {**batch, view: other[view]})
        assert {n for n in logs if logs[n] == pytest.approx(changed[n], rel=1e-6)} == same
    alone = compiled(shared(distilled, tap_weight=0, relation_weight=0), rate=0.0)
    assert step(alone, batch) == step(alone, {**batch, "hr": other["hr"]})


def test_the_teacher_stays_bit_by_bit():
    model = compiled(distilled())
    before, student = snapshot(model.hr_teacher), snapshot(model.network)
    assert not model.hr_teacher.trainable_variables
    for seed in range(2):
        step(model, couples(seed))
    assert moved(before, model.hr_teacher) == set()
    assert len(moved(student, model.network)) == len(model.network.weights)
    held = {id(v) for part in model.optimizers.values() for v in part._trainable_variables}
    assert not held & {id(v) for v in model.hr_teacher.variables}


@pytest.mark.parametrize("term", ["taps", "relation"])
def test_each_term_teaches_the_whole_backbone(term):
    model = compiled(shared(distilled))
    phase = model.phases()[0]
    alone = phase._replace(losses=lambda batch: {term: phase.losses(batch)[term]}, terms=(term,))
    _, gradients = model.phase_gradients(alone, model.prepare(on_device(couples())))
    sizes = {
        v.path: float(np.abs(arrays(g)[0]).max())
        for v, g in zip(model.network.trainable_variables, gradients, strict=True)
    }
    kernels = {path: size for path, size in sizes.items() if path.endswith("kernel")}
    classifier = [path for path in kernels if "classifier" in path]
    assert len(classifier) == 1 and kernels.pop(classifier[0]) == 0
    assert len(kernels) == 5 and min(kernels.values()) > 0


def test_the_student_starts_as_its_teacher():
    reid, model = baseline(verification=0), distilled()
    model.teach(reid.network)
    people = couples()["lr"]
    np.testing.assert_array_equal(model.embed(people), reid.embed(people))
    for a, b in zip(model.hr_teacher.weights, reid.network.weights, strict=True):
        np.testing.assert_array_equal(*arrays([a, b]))
    # In inference mode, on images that are at HR already, there is nothing to learn.
    compiled(model)
    batch = {**couples(), "lr": couples()["hr"]}
    found = model.evaluate(batch, batch_size=4, verbose=0, return_dict=True)
    assert found["taps"] == pytest.approx(0, abs=1e-4)
    assert found["relation"] == pytest.approx(0, abs=1e-4)


def test_published_it_is_as_small_as_its_control(tmp_path):
    model = xr.Distilled(PEOPLE, preset="tiny", backbone="resnet_tiny", image_size=SIZE)
    path = tmp_path / "student.weights.h5"
    xr.save(model, path, half=True, critics=False)
    with h5py.File(path) as file:
        assert "layers" in file and "hr_teacher" not in file
    # Two bytes a number, and what little is not compressed.
    assert path.stat().st_size < 2.1 * model.network.count_params()
    people = couples()["lr"]
    np.testing.assert_allclose(
        xr.load(path).embed(people), model.embed(people), rtol=0.02, atol=0.02
    )


def test_the_recipe(monkeypatch, tmp_path):
    """Stage 1 sees HR images; its network becomes the teacher; a pair is counted once."""
    pytest.importorskip("tyro", reason="recipes need it")
    from keras_xreid.app import recipes, run, settings

    fitted = []
    monkeypatch.setattr(run.Run, "callbacks", lambda run, stage, batches: stage)
    monkeypatch.setattr(run.Run, "finish", lambda run, model: None)
    monkeypatch.setattr(run.autodiff, "repeatable", lambda *arguments: None)
    monkeypatch.setattr(xr, "save", lambda model, path: None)
    for kind in (xr.Baseline, xr.Distilled):
        monkeypatch.setattr(kind, "fit", lambda *given, **told: fitted.append((*given, told)))
    found = recipes.load("distilled")
    default = settings.defaults(found.Options)
    options = {"limit": 4, "triplet": 0.5, "batch_size": 8, "epochs": 3, "out": str(tmp_path / "x")}
    found.main(dataclasses.replace(default, **options))
    (reid, images, first), (model, pairs, second) = fitted
    assert (first["callbacks"], second["callbacks"]) == ("reid", "distilled")
    assert list(images.rates) == [1] and list(pairs.rates) == [1, 2, 3, 4]
    assert pairs.kernel == "random" and (pairs.images_each, images.images_each) == (1, 1)
    assert len(pairs) == len(images) and second["epochs"] == 3
    for part in (model.network, model.hr_teacher):
        for a, b in zip(part.get_weights(), reid.network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (model.triplet, model.tap_weight, model.relation_weight) == (0.5, 20, 4)
