"""The baseline with triplet and verification terms, and what its recipe adds."""

import csv
import dataclasses
import json

import h5py
import keras
import numpy as np
import pytest
from PIL import Image
from small import PEOPLE, SIZE, couples, fill, pairs

import keras_xreid as xr
from keras_xreid import losses, models
from keras_xreid.models.baseline import pairs_within


@pytest.fixture(autouse=True)
def one_convolution(monkeypatch):
    """A network of one convolution: what is tested here lies behind it."""

    def build(people, backbone, image_size, weights=None, last_stride=1, neck=False):
        image = keras.Input((*image_size, 3))
        x = keras.layers.Conv2D(8, 8, 8, data_format="channels_last", name="convolution")(image)
        x = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
        logits = keras.layers.Dense(people, name="classifier")(x)
        return keras.Model(image, [x, logits])

    monkeypatch.setattr(models.baseline, "build_reid_network", build)


def baseline(**options):
    return fill(xr.Baseline(PEOPLE, preset="tiny", image_size=SIZE, **options))


def batch(labels):
    labels = np.asarray(labels, "int32")
    return {"image": pairs(len(labels))["hr"], "person": labels}


# --- pairs for the verification term ---------------------------------------------------------


def slow_pairs(labels):
    """Walks on from each image: to the next of its person, and from half way to another one."""
    n, found = len(labels), []
    for kind, start in ((1, 1), (0, n // 2)):
        for i in range(n):
            second = None
            for step_ in range(n):
                j = (i + start + step_) % n
                equal = labels[j] == labels[i] and j != i
                fits = equal if kind else labels[j] != labels[i]
                if labels[i] >= 0 and labels[j] >= 0 and fits:
                    second = j
                    break
            found.append((i, second, -1 if second is None else kind))
    return found


@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 1], [3, 1, 3, 3, 1], [0, 0, 0], [-1, 2, -1, 2, 0], [4, 5], [-1, -1]]
)
def test_pairs_within_a_batch(labels):
    first, second, same = (keras.ops.convert_to_numpy(x).tolist() for x in pairs_within(labels))
    pairs_found = zip(first, second, same, strict=True)
    for found, expected in zip(pairs_found, slow_pairs(labels), strict=True):
        assert found == expected or (found[2] == expected[2] == -1 and found[0] == expected[0])
    assert all(0 <= j < len(labels) for j in second)


def test_pairs_of_people_in_rows_take_every_image_equally_often():
    first, second, same = map(keras.ops.convert_to_numpy, pairs_within(np.arange(32) // 4))
    assert sorted(second[:32]) == sorted(second[32:]) == list(range(32))
    assert (same == [1] * 32 + [0] * 32).all()
    assert (first[:32] // 4 == second[:32] // 4).all()
    assert (first[32:] // 4 != second[32:] // 4).all()


# --- terms -----------------------------------------------------------------------------------


@pytest.mark.backend
def test_values_of_the_terms():
    model = baseline(triplet=2.0, verification=3.0, margin=5.0)
    data = batch([0, 0, 1, 1, 2, 2])
    prepared = model.prepare({k: keras.ops.convert_to_tensor(v) for k, v in data.items()})
    (phase,) = model.phases()
    terms = {k: float(v) for k, v in phase.losses(prepared).items()}
    features, logits = model.network(prepared["image"], training=True)
    assert terms["id"] == pytest.approx(
        float(losses.cross_entropy(data["person"], logits)), rel=1e-4
    )
    triplet = float(losses.triplet(features, data["person"], 5.0))
    assert triplet > 0
    assert terms["triplet"] == pytest.approx(2 * triplet, rel=1e-4)
    v = keras.ops.convert_to_numpy(features)
    told = []
    for i, j, same in slow_pairs(data["person"]):
        logit = float(model.verifier(v[i : i + 1] - v[j : j + 1])[0, 0])
        told.append(np.log1p(np.exp(-logit if same else logit)))
    assert terms["verification"] == pytest.approx(3 * np.mean(told), rel=1e-4)


@pytest.mark.backend
def test_the_terms_teach_the_embedding():
    """Each alone reaches the backbone, and not the classifier, which it does not pass."""
    model = baseline(triplet=1.0, verification=1.0, margin=50.0)
    (phase,) = model.phases()
    model.compile({part: keras.optimizers.SGD(0.0) for part in phase.updates})
    data = batch([0, 0, 1, 1])
    prepared = model.prepare({k: keras.ops.convert_to_tensor(v) for k, v in data.items()})
    names = [v.path for v in model.network.trainable_variables]
    for term in ("triplet", "verification"):
        alone = phase._replace(
            losses=lambda b, term=term: {term: phase.losses(b)[term]}, terms=(term,)
        )
        _, found = model.phase_gradients(alone, prepared)
        found = [np.abs(keras.ops.convert_to_numpy(g)).max() for g in found]
        assert np.isfinite(found).all()
        in_network, in_verifier = found[: len(names)], found[len(names) :]
        reached = {name for name, largest in zip(names, in_network, strict=True) if largest > 0}
        assert names[0] in reached and not any("classifier" in name for name in reached)
        assert (max(in_verifier) > 0) == (term == "verification")


@pytest.mark.backend
def test_octuplet_takes_pairs():
    """Every term sees both images of a pair; the octuplet compares what triplets do."""
    model = baseline(octuplet=2.0, unit_triplet=True)
    data = couples()
    model.check_batch(data)
    with pytest.raises(xr.InputError, match=r"hr, lr, person.*give keras_xreid\.PairBatches"):
        model.check_batch(batch([0, 0, 1, 1]))
    prepared = model.prepare({k: keras.ops.convert_to_tensor(v) for k, v in data.items()})
    (phase,) = model.phases()
    assert phase.terms == ("id", "octuplet")
    terms = {k: float(v) for k, v in phase.losses(prepared).items()}
    both = np.concatenate([data["hr"], data["lr"]]) / np.float32(255)
    features, logits = model.network(both, training=True)
    twice = np.tile(data["person"], 2)
    assert terms["id"] == pytest.approx(float(losses.cross_entropy(twice, logits)), rel=1e-4)
    features = keras.ops.convert_to_numpy(features)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = losses.octuplet_loss(features[:4], features[4:], data["person"])
    assert float(expected) > 0 and terms["octuplet"] == pytest.approx(2 * float(expected), rel=1e-4)


# --- saving ----------------------------------------------------------------------------------


def test_files_of_earlier_versions_still_load(tmp_path):
    path = tmp_path / "model.weights.h5"
    model = baseline()
    xr.save(model, path)
    with h5py.File(path, "a") as file:
        described = json.loads(file.attrs["keras_xreid"])
        for name in ("triplet", "verification", "margin"):
            del described["config"][name]
        file.attrs["keras_xreid"] = json.dumps(described)
    loaded = xr.load(path)
    assert loaded.triplet == loaded.verification == 0
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- the recipe ------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path):
    """A csv data set of 6 people to train on, 4 images each, and 2 to find."""
    rng = np.random.default_rng(0)
    rows = [("path", "person", "camera", "split")]
    for person in range(8):
        for shot in range(4):
            name = f"{person}_{shot}.png"
            Image.fromarray(rng.integers(0, 255, (16, 8, 3), "uint8")).save(tmp_path / name)
            split = "train" if person < 6 else ("query", "gallery")[shot % 2]
            rows.append((name, f"p{person}", shot % 2 + 1, split))
    with open(tmp_path / "people.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def recipe(people, monkeypatch, **options):
    """Runs the baseline's recipe on those people, up to where it scores."""
    for module in ("tyro", "matplotlib"):
        pytest.importorskip(module)
    from keras_xreid.app import recipes, run, settings

    monkeypatch.setattr(run.Run, "finish", lambda run, model, **told: None)
    monkeypatch.setattr(run.autodiff, "repeatable", lambda *arguments: None)
    found = recipes.load("baseline")
    default = settings.defaults(found.Options)
    found.main(dataclasses.replace(default, data="csv", data_dir=str(people), **options))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"triplet": -1.0}, ["--triplet", "-1"]),
        ({"verification": float("nan")}, ["--verification", "nan"]),
        ({"triplet": float("inf")}, ["--triplet", "inf"]),
        ({"triplet": 1.0, "batch_size": 30}, ["--batch-size", "30", "multiple of 4"]),
        ({"verification": 1.0, "batch_size": 4}, ["--batch-size", "4", "8 or more"]),
        ({"octuplet": -1.0, "train_on": "hr+lr"}, ["--octuplet", "-1"]),
        ({"octuplet": 1.0}, ["--octuplet", "--train-on hr+lr"]),
        ({"labeled_fraction": 1.5}, ["--labeled-fraction", "1.5"]),
        ({"labeled_fraction": 0.0}, ["--labeled-fraction", "nobody keeps a label"]),
    ],
)
def test_bad_options_of_the_recipe(people, monkeypatch, options, words):
    with pytest.raises(xr.InputError) as caught:
        recipe(people, monkeypatch, **options)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_recipe_with_few_labels_takes_as_many_steps(people, monkeypatch, capsys):
    from keras_xreid.app import run

    fitted = []
    monkeypatch.setattr(run.Run, "callbacks", lambda run, stage, batches: stage)
    monkeypatch.setattr(
        xr.Baseline, "fit", lambda model, *given, **told: fitted.append((model, *given, told))
    )
    rates = []
    for fraction, images, epochs in ((1.0, 24, 2), (0.5, 12, 6)):
        options = {"triplet": 1.0, "verification": 0.5, "labeled_fraction": fraction}
        recipe(people, monkeypatch, epochs=2, batch_size=8, **options)
        model, batches, told = fitted.pop()
        found_epochs = told["epochs"]
        assert (told["callbacks"], found_epochs) == ("reid", epochs)
        assert len(batches.records) == images
        assert found_epochs * len(batches) == 6
        people_of_batch = batches[0]["person"].reshape(2, 4)
        assert (people_of_batch == people_of_batch[:, :1]).all()
        assert set(model.optimizers) == {"network", "verifier"}
        assert (model.people, model.triplet, model.verification) == (6, 1.0, 0.5)
        schedule = model.optimizers["verifier"].get_config()["learning_rate"]
        schedule = keras.optimizers.schedules.deserialize(schedule)
        rates.append([float(schedule(step_)) for step_ in range(7)])
    assert rates[0] == rates[1]
    assert np.argmax(rates[0]) == 3  # one epoch over all images
    assert "12 of 24 images keep their label" in capsys.readouterr().out


def test_recipe_with_pairs_shows_as_many_images(people, monkeypatch):
    """With the octuplet term a step has as many images, and the schedule is that of the control."""
    from keras_xreid.app import run

    fitted = []
    monkeypatch.setattr(run.Run, "callbacks", lambda run, stage, batches: stage)
    monkeypatch.setattr(
        xr.Baseline, "fit", lambda model, *given, **told: fitted.append((model, *given, told))
    )
    rates = []
    for options, epochs in (({"triplet": 1.0}, 4), ({"octuplet": 0.5}, 2)):
        recipe(people, monkeypatch, train_on="hr+lr", epochs=epochs, batch_size=8, **options)
        model, batches, told = fitted.pop()
        assert told["epochs"] == epochs and epochs * len(batches) == 12
        assert batches.batch_size * batches.images_each == 8
        schedule = model.optimizers["network"].get_config()["learning_rate"]
        schedule = keras.optimizers.schedules.deserialize(schedule)
        rates.append([float(schedule(step_)) for step_ in range(13)])
    assert set(batches[0]) == {"hr", "lr", "person", "rate"} and model.octuplet == 0.5
    assert batches[0]["person"].reshape(2, 2).std(1).max() == 0  # two pairs of a person
    assert rates[0] == rates[1]


def test_recipe_refuses_too_few_people_before_it_opens_a_folder(people, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(xr.InputError, match="8 people a batch, but there are 6"):
        recipe(people, monkeypatch, triplet=1.0, batch_size=32, out=str(out))
    assert not out.exists()
