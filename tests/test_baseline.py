"""The baseline with triplet and verification terms, and what its recipe adds."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image
from small import PEOPLE, SIZE, fill, moved, pairs, snapshot, step

import keras_xreid as xr
from keras_xreid import losses
from keras_xreid.models.baseline import pairs_within

RECIPE = Path(__file__).parents[1] / "recipes" / "baseline.py"


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


def test_terms_are_those_asked_for():
    plain = baseline()
    assert [(p.updates, p.terms) for p in plain.phases()] == [(("network",), ("id",))]
    assert plain.verifier is None
    assert len(plain.weights) == len(plain.network.weights)
    both = baseline(triplet=1.0, verification=1.0)
    (phase,) = both.phases()
    assert phase.updates == ("network", "verifier")
    assert phase.terms == ("id", "triplet", "verification")
    assert baseline(triplet=1.0).phases()[0].terms == ("id", "triplet")


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


def test_a_step_moves_network_and_verifier():
    model = baseline(triplet=1.0, verification=1.0)
    with pytest.raises(ValueError, match="verifier"):
        model.compile({"network": "adam"})
    model.compile({"network": keras.optimizers.Adam(1e-3), "verifier": keras.optimizers.Adam(1e-3)})
    before = snapshot(model.network), snapshot(model.verifier)
    logs = step(model, batch([0, 0, 1, 1, 2, 2]))
    assert list(logs) == ["id", "triplet", "verification"]
    assert all(np.isfinite(value) for value in logs.values())
    assert len(moved(before[0], model.network)) == len(model.network.weights)
    assert len(moved(before[1], model.verifier)) == len(model.verifier.weights) == 4


def test_the_terms_teach_the_embedding():
    # Without the identity loss's classifier in the way: each term alone reaches the backbone.
    for options in ({"triplet": 1.0, "margin": 50.0}, {"verification": 1.0}):
        model = baseline(**options)
        model.compile({p: keras.optimizers.SGD(0.0) for p in model.phases()[0].updates})
        prepared = model.prepare(
            {k: keras.ops.convert_to_tensor(v) for k, v in batch([0, 0, 1, 1]).items()}
        )
        (phase,) = model.phases()
        own = phase._replace(
            losses=lambda b, phase=phase: {
                t: v for t, v in phase.losses(b).items() if t == phase.terms[-1]
            },
            terms=phase.terms[-1:],
        )
        _, found = model.phase_gradients(own, prepared)
        found = [float(keras.ops.max(keras.ops.abs(g))) for g in found]
        names = [v.path for v in model.network.trainable_variables]
        reached = dict(zip(names, found[: len(names)], strict=True))
        classifier = [n for n in names if "classifier" in n]
        assert classifier and all(reached[n] == 0 for n in classifier)
        assert reached[names[0]] > 0
        assert np.isfinite(found).all()


# --- saving ----------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path):
    model = baseline(triplet=0.5, verification=0.25, margin=0.7)
    twin = xr.Baseline.from_config(model.get_config())
    assert (twin.triplet, twin.verification, twin.margin) == (0.5, 0.25, 0.7)
    path = tmp_path / "model.weights.h5"
    xr.save(model, path)
    loaded = xr.load(path)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    images = pairs(2)["hr"]
    np.testing.assert_allclose(loaded.embed(images), model.embed(images), rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize(
    "options, words",
    [
        ({"triplet": -1.0}, ["--triplet", "-1.0"]),
        ({"verification": float("nan")}, ["--verification", "nan"]),
        ({"triplet": float("inf")}, ["--triplet", "inf"]),
        ({"triplet": 1.0, "batch_size": 30}, ["--batch-size", "30", "multiple of 4"]),
        ({"verification": 1.0, "batch_size": 4}, ["--batch-size", "4", "8 or more"]),
        ({"labeled_fraction": 1.5}, ["--labeled-fraction", "1.5"]),
        ({"labeled_fraction": 0.0}, ["--labeled-fraction", "above 0"]),
        ({"train_on": "lr"}, ["--train-on", "hr+lr"]),
    ],
)
def test_bad_options_of_the_recipe(options, words):
    pytest.importorskip("tyro")
    import baseline as recipe

    with pytest.raises(xr.InputError) as caught:
        recipe.check(recipe.BaselineOptions(**options))
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_recipe_with_few_labels_takes_as_many_steps(tmp_path):
    for module in ("tyro", "matplotlib", "skimage"):
        pytest.importorskip(module)
    rng = np.random.default_rng(0)
    rows = [("path", "person", "camera", "split")]
    for person in range(8):
        for shot in range(4):
            name = f"{person}_{shot}.png"
            Image.fromarray(rng.integers(0, 255, (128, 64, 3), "uint8")).save(tmp_path / name)
            split = "train" if person < 6 else ("query", "gallery")[shot % 2]
            rows.append((name, f"p{person}", shot % 2 + 1, split))
    with open(tmp_path / "people.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, RECIPE, "--data", "csv", "--data-dir", tmp_path, "--epochs", "2",
         "--batch-size", "8", "--rates", "1", "2", "--train-rates", "2", "--train-on", "hr+lr",
         "--triplet", "1", "--verification", "0.5", "--labeled-fraction", "0.5", "--out", out],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert "12 of 24 images keep their label" in done.stdout
    # Two epochs of three steps, or six of one.
    with open(out / "history.csv") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == list("123456")
    assert all(float(row[term]) > 0 for row in history for term in ("id", "verification"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["data"]["train"]["images"] == 12
    manifest = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    trained = [row["person"] for row in manifest if row["role"] == "train"]
    assert sorted(trained) == sorted(2 * [f"p{i}" for i in range(6)])
