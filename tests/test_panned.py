"""Vector panning: moves embeddings, and nothing else."""

import keras
import numpy as np
import pytest
import small
from keras import ops
from PIL import Image

import keras_xreid as xr


def features(n=40, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32") * 3


@pytest.mark.backend
def test_moves_as_written_down():
    """m = x + W2 relu(W1 [x, log2 r] + b1) + b2, at length sqrt(d); rate 1 stays as it is."""
    panning = small.fill(xr.Panning(6, hidden=4))
    w1, b1, w2, b2 = panning.get_weights()
    f, rates = features(5), np.array([2, 4, 1, 3.5, 8])
    length = np.sqrt((f**2).mean(1, keepdims=True))
    x = f / length
    h = np.maximum(np.concatenate([x, np.log2(rates)[:, None]], 1) @ w1 + b1, 0)
    wanted = np.where(rates[:, None] > 1, (x + h @ w2 + b2) * length, f)
    np.testing.assert_allclose(panning.move(f, rates), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(panning.move(f, rates)[2], f[2])
    tensor = panning(ops.convert_to_tensor(f), ops.convert_to_tensor(rates.astype("float32")))
    np.testing.assert_allclose(ops.convert_to_numpy(tensor), wanted, rtol=1e-4, atol=1e-5)
    batch = {"feature": f, "target": f[::-1], "rate": rates}
    y = x[::-1]
    moved = x + h @ w2 + b2
    terms = panning.phases()[0].losses(batch)
    assert float(ops.convert_to_numpy(terms["mse"])) == pytest.approx(
        ((moved - y) ** 2).mean(), rel=1e-5
    )


def test_moves_nothing_at_first():
    f = features()
    np.testing.assert_allclose(xr.Panning(6).move(f, 4), f, rtol=1e-5)
    assert xr.Panning(6).move(f[:0], 4).shape == (0, 6)


@pytest.mark.backend
def test_learns_a_shift():
    """LR embeddings that lie apart by a fixed vector are moved back; a gallery stays."""
    high, apart = features(400), np.float32([1, -2, 0, 2, 1, 0])
    low = high + apart
    panning = xr.Panning(6, hidden=16)
    panning.compile({"mlp": keras.optimizers.Adam(1e-2)})
    batches = xr.FeatureBatches(low[:300], high[:300], 4, batch_size=30)
    panning.fit(batches, epochs=40, verbose=0)

    def cosine(a, b):
        return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()

    before, after = cosine(low[300:], high[300:]), cosine(panning.move(low[300:], 4), high[300:])
    assert before < 0.91 < 0.97 < after


def test_batches_are_functions_of_seed_epoch_and_index():
    high, low = features(), features(seed=1)
    one, same = (xr.FeatureBatches(low, high, 2, batch_size=8, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.batch(2, 1)["feature"], same.batch(2, 1)["feature"])
    seen = np.concatenate([one.batch(0, i)["feature"] for i in range(len(one))])
    assert {*map(bytes, seen)} == {*map(bytes, low)}  # each once an epoch
    assert (one.batch(0, 0)["feature"] != one.batch(1, 0)["feature"]).any()
    row = np.flatnonzero((low == one.batch(0, 0)["feature"][0]).all(1))[0]
    np.testing.assert_array_equal(one.batch(0, 0)["target"][0], high[row])


@pytest.mark.backend
@pytest.mark.parametrize("batch_size", [8, 30])  # 30: a batch is an epoch
def test_each_epoch_of_fit_has_an_order_of_its_own(batch_size):
    """So that what an epoch leaves out is seen in another one; a second `fit` goes on."""
    low, trained = features(), []
    batches = xr.FeatureBatches(low[:39], features(seed=1)[:39], 2, batch_size=batch_size)
    panning = xr.Panning(6, hidden=4)
    panning.compile({"mlp": "adam"})
    batch = batches.batch
    batches.batch = lambda epoch, index: trained.append((epoch, index)) or batch(epoch, index)
    panning.fit(batches, epochs=2, verbose=0)
    panning.fit(batches, epochs=2, verbose=0)
    batches.batch = batch
    steps = [(epoch, index) for epoch in range(4) for index in range(len(batches))]
    assert batches.epoch == 4 and set(trained) == set(steps)
    seen = [row.tobytes() for step in steps for row in batches.batch(*step)["feature"]]
    assert len(set(seen)) == 39


def test_a_system_of_network_and_panning():
    """Only queries of low resolution are moved; the network is that of the baseline."""
    model = small.panned()
    people = small.couples(0)["lr"]
    plain = model.embed(people)
    np.testing.assert_array_equal(model.embed(people, 1), plain)
    wanted = model.panning.move(plain, 4)
    assert np.abs(wanted - plain).max() > 1e-3
    np.testing.assert_allclose(model.embed(people, 4), wanted, rtol=1e-5, atol=1e-6)
    assert model.network.trainable_variables == []
    flipped = model.embed(people, 4, flip=True)
    both = [model.embed(images, 4) for images in (people, people[:, :, ::-1])]
    np.testing.assert_allclose(flipped, sum(both) / 2, rtol=1e-5, atol=1e-6)
    level = ops.convert_to_tensor(np.array([1] * len(people), "int32"))  # of rate 4
    found = model(ops.convert_to_tensor(people), level=level)
    np.testing.assert_allclose(ops.convert_to_numpy(found), wanted, rtol=1e-4, atol=1e-5)


def test_features_of_pairs(tmp_path):
    """What it learns from are the embeddings of each pair, in the order of the batches."""
    model = small.panned()
    records = []
    for i in range(8):
        Image.fromarray(small.couples(i)["hr"][0]).save(tmp_path / f"{i}.png")
        records.append(xr.Record(str(tmp_path / f"{i}.png"), i // 2, 1))
    pairs = xr.PairBatches(records, small.SIZE, rates=(2, 4), batch_size=4, seed=1)
    found = model.features_of(pairs, views=2)
    assert len(found.feature) == 2 * len(pairs) * 4
    batch = pairs.batch(1, 0)
    begin = len(pairs) * 4
    np.testing.assert_allclose(
        found.feature[begin : begin + 4], model.embed(batch["lr"]), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found.target[begin : begin + 4], model.embed(batch["hr"]), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(found.rate[begin : begin + 4], batch["rate"])


def test_refused(tmp_path):
    panning = xr.Panning(6)
    with pytest.raises(xr.InputError, match="dimension 6"):
        panning.move(features(d=5), 2)
    with pytest.raises(xr.InputError, match=r"0\.5 is below 1"):
        panning.move(features(), 0.5)
    with pytest.raises(xr.InputError, match="FeatureBatches"):
        panning.compile({"mlp": "adam"})
        panning.fit(small.couples(0))
    for low, high, rate, words in (
        (features(), features(39), 2, "39 of HR"),
        (features() * np.nan, features(), 2, "finite"),
        (features(), features(), 0, "below 1"),
    ):
        with pytest.raises(xr.InputError, match=words):
            xr.FeatureBatches(low, high, rate)
    xr.save(panning, tmp_path / "panning.weights.h5")
    with pytest.raises(xr.InputError, match="holds a Panning; this takes"):
        xr.load(tmp_path / "panning.weights.h5")
    again = xr.load(tmp_path / "panning.weights.h5", kinds=("Panning",))
    np.testing.assert_array_equal(again.move(features(), 2), panning.move(features(), 2))


def test_a_precision_is_that_of_its_layers(tmp_path):
    """Whatever is set for all; what is not moved stays as it is."""
    path = tmp_path / "panning.weights.h5"
    xr.save(small.fill(xr.Panning(6, hidden=4)), path)
    panning = xr.load(path, precision="mixed_bfloat16", kinds=("Panning",))
    assert [layer.compute_dtype for layer in panning.mlp.layers if layer.weights] == [
        "bfloat16"
    ] * 2
    assert keras.config.dtype_policy().name == "float32"
    f, rates = ops.convert_to_tensor(features(5)), ops.convert_to_tensor(np.ones(5, "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(panning(f, rates)), features(5))


def write(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def pan(*words, **options):
    from keras_xreid.app import pan as verb

    return verb.main(verb.Options(*words, **options))


def test_pan_learns_and_moves(tmp_path, capsys):
    """Of any network's embeddings, matched by path; what is written moves queries."""
    high, names = features(60), np.array([f"{i}.jpg" for i in range(60)])
    apart = np.float32([3, -2, 0, 2, 1, 0])
    hr = write(tmp_path / "hr.npz", features=high, paths=names)
    order = np.random.default_rng(1).permutation(60)
    low = {"features": (high + apart)[order], "paths": names[order]}
    lr = [write(tmp_path / f"r{r}.npz", **low, rates=r) for r in (2, 4)]
    out = str(tmp_path / "panning.weights.h5")
    pan(out, hr=hr, lr=tuple(lr), epochs=60, hidden=16, learning_rate=1e-2)
    table = [line.split() for line in capsys.readouterr().out.splitlines()][-3:-1]
    assert [float(row[0]) for row in table] == [2, 4]
    assert all(float(row[1]) < 0.9 < 0.95 < float(row[2]) for row in table)
    moved = str(tmp_path / "moved.npz")
    pan(moved, move=lr[1], panning=out)
    panning = xr.load(out, kinds=("Panning",))
    with np.load(moved) as found:
        np.testing.assert_array_equal(found["features"], panning.move(low["features"], 4))
        np.testing.assert_array_equal(found["paths"], low["paths"])
    again = str(tmp_path / "again.npz")
    pan(again, move=lr[1], panning=out, rates=2.0)
    with np.load(again) as found:
        assert (found["rates"] == 2).all() and found["rates"].shape == (60,)
    with pytest.raises(xr.InputError, match="there already"):
        pan(moved, move=lr[1], panning=out)


def test_pan_refuses(tmp_path):
    good = {"features": features(5), "paths": np.array(list("abcde"))}
    hr, other = write(tmp_path / "hr.npz", **good), {**good, "paths": np.array(list("vwxyz"))}
    out = str(tmp_path / "p.weights.h5")
    (tmp_path / "text.npz").write_text("no archive")
    for options, words in (
        ({}, "--hr FILE"),
        ({"hr": hr, "lr": (hr,)}, "no rates"),
        ({"hr": hr, "lr": (write(tmp_path / "o.npz", **other, rates=2),)}, "another way"),
        ({"hr": hr, "lr": (write(tmp_path / "one.npz", **good, rates=1),)}, "rate 1"),
        ({"hr": hr, "lr": (str(tmp_path / "text.npz"),)}, "text.npz"),
        ({"hr": hr, "lr": (str(tmp_path / "none.npz"),)}, "none.npz"),
        ({"hr": write(tmp_path / "f.npz", features=good["features"]), "lr": (hr,)}, "no paths"),
        (
            {"hr": hr, "lr": (write(tmp_path / "w.npz", **{**good, "features": features(5, 4)},
                                    rates=2),)},
            "unequal width",
        ),
        ({"hr": write(tmp_path / "n.npz", **{**good, "features": features(5) * np.nan}),
          "lr": (hr,)}, "no finite numbers"),
        ({"hr": write(tmp_path / "t.npz", **{**good, "features": np.array([["a"]] * 5)}),
          "lr": (hr,)}, "no finite numbers"),
        ({"move": hr}, "--panning"),
        ({"move": hr, "panning": hr, "hr": hr, "learning_rate": 1.0},
         "leave out --hr and --learning-rate: of use without --move only"),
        ({"hr": hr, "lr": (hr,), "panning": hr, "rates": 2.0},
         "leave out --panning and --rates: of use with --move only"),
    ):  # fmt: skip
        with pytest.raises(xr.InputError, match=words):
            pan(out, **options)
    assert not (tmp_path / "p.weights.h5").exists()
