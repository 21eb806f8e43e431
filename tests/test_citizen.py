"""A good Keras citizen: what a Keras user tries first works, or ends in one line that helps."""

import keras
import numpy as np
import pytest
import small

import keras_xreid as xr
from keras_xreid.export import build_graph
from keras_xreid.models.arrays import as_float, as_numpy
from keras_xreid.training.phases import Phase, PhasedModel

BACKEND = keras.backend.backend()
STRONG = {"neck": True, "flip": True}


def baseline(**kwargs):
    options = {"image_size": small.SIZE, **kwargs}
    return small.fill(xr.Baseline(small.PEOPLE, "tiny", small.Levels(), **options))


def one_per_rate(**kwargs):
    options = {"image_size": small.SIZE, "rates": (2, 4), **kwargs}
    return small.fill(xr.OnePerRate(small.PEOPLE, "tiny", small.Levels(), **options))


def octuplet():
    return small.baseline(triplet=0.0, verification=0.0, octuplet=1.0)


# On other backends with neck and flip, which is the longer way. JAX compiles each network anew: it
# has one that recovers and one with levels.
SYSTEMS = [
    pytest.param(make, kwargs, id=f"{make.__name__}{name}", marks=marks)
    for make in (baseline, small.intact, small.rain, small.cadnet, small.adaptive, one_per_rate)
    for here in [[small.not_on_jax] * (make in (small.rain, small.cadnet, one_per_rate))]
    for name, kwargs, marks in (("", {}, here), ("-strong", STRONG, [*here, pytest.mark.backend]))
]


def on_every_backend(*makes):
    """Systems whose test stands for the others': these run the same lines of the same engine."""
    return [pytest.param(make, marks=pytest.mark.backend) for make in makes]


def images(n=3, seed=0):
    return small.pairs(n, seed)["lr"]


def batch_for(model, seed=0):
    """A batch as its system trains on."""
    found = small.levels(seed)
    if isinstance(model, xr.Baseline):
        return {"image": found["lr"], "person": found["person"]}
    return found


def ready(make=baseline, **kwargs):
    """A compiled system that learns with SGD."""
    return small.compiled(small.shared(make, **kwargs), rate=0.01)


def state(model):
    """All that could move: weights, averages, seeds, and what the optimizers keep."""
    held = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in held]


def same(before, after):
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# --- one place scales ---------------------------------------------------------------------------


@pytest.mark.parametrize("make, kwargs", SYSTEMS)
def test_every_door_gives_equal_features(make, kwargs, tmp_path):
    model = make(**kwargs)
    stored = images()
    floats = stored.astype("float32") / np.float32(255)
    expected = model.embed(stored)
    assert np.std(expected, axis=0).max() > 1e-3
    apart = model.distances(expected, expected)
    assert (apart.argmin(axis=1) == np.arange(len(stored))).all()  # each is nearest to itself
    model.save(tmp_path / "model.keras")
    doors = {
        "predict": model.predict,
        "batch": model.predict_on_batch,
        "call": model,
        "tensor": lambda x: model(keras.ops.convert_to_tensor(x)),
        "embed": model.embed,
        "reloaded": keras.models.load_model(tmp_path / "model.keras").predict,
    }
    for name, door in doors.items():
        for given in (stored, floats):
            (found,) = small.arrays(door(given))
            np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=name)
    if make is not one_per_rate:  # which is no one graph
        graph = build_graph(model)
        given = {"image": stored}
        if model.query_levels:
            given["level"] = np.full(len(stored), model.query_levels, "int32")
        found = small.arrays(graph(given if len(given) > 1 else stored))
        found = dict(zip(graph.output_names, found, strict=True))
        np.testing.assert_allclose(found["embedding"], expected, atol=2e-5)


@pytest.mark.parametrize("make", [*on_every_backend(baseline), small.intact, small.adaptive])
def test_a_train_step_scales_alike(make):
    logs = []
    for scale in (False, True):
        model = ready(make)
        batch = batch_for(model)
        if scale:
            batch = {k: as_float(v) if v.dtype == np.uint8 else v for k, v in batch.items()}
        logs.append(small.step(model, batch))
    for name, value in logs[0].items():
        assert logs[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_in_bfloat16_floats_and_uint8_are_equal():
    config = {**baseline().get_config(), "dtype": "mixed_bfloat16"}
    model = small.fill(xr.Baseline.from_config(config))
    stored = images()
    found = small.arrays([model(x) for x in (stored, stored.astype("float32") / 255)])
    np.testing.assert_array_equal(*found)


@pytest.mark.backend
def test_in_bfloat16_embeddings_are_float32():
    """Mirror images are averaged in it: `predict` gives what `embed` does."""
    config = {**baseline(flip=True).get_config(), "dtype": "mixed_bfloat16"}
    model, stored = small.fill(xr.Baseline.from_config(config)), images()
    assert model.network.compute_dtype == "bfloat16"
    expected, found = model.embed(stored), model.predict(stored, verbose=0)
    assert expected.dtype == found.dtype == "float32"
    np.testing.assert_array_equal(found, expected)


def test_a_range_that_nobody_knows_is_refused_in_batches():
    class Images(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return self.images

    model, batches = baseline(), Images()
    batches.images = images()
    np.testing.assert_allclose(model.predict(batches), model.embed(images()), atol=2e-5)
    batches.images = images().astype("float32")
    with pytest.raises(xr.InputError, match="0, 1"):
        model.predict(batches)


@pytest.mark.parametrize("door", ["predict", "predict_on_batch", "__call__", "embed"])
def test_a_range_that_nobody_knows_is_refused(door):
    model = baseline()
    stored = images()
    for given, words in (
        (stored.astype("float32"), "0, 1"),
        (stored.astype("int64"), "int64"),
        (stored.astype("float32") / 127.5 - 1, "0, 1"),
        (stored[:, :32], "64, 32"),
    ):
        with pytest.raises(xr.InputError, match=words):
            getattr(model, door)(given)
    # Rounding is not.
    getattr(model, door)(stored.astype("float32") / 255 * np.float32(1.0001))


@pytest.mark.parametrize("wrong, words", [({"image": 1}, "dict"), ("text", "str")])
def test_what_are_no_images(wrong, words):
    with pytest.raises(xr.InputError, match=words):
        baseline().call(wrong)
    with pytest.raises(xr.InputError, match="int32"):
        baseline()(keras.ops.ones((1, *small.SIZE, 3), "int32"))


@pytest.mark.parametrize(
    "kind", ["Adaptive", "Baseline", "CADNet", "INTACT", "OnePerRate", "Panned", "RAIN"]
)
@pytest.mark.parametrize("preset", ["large", None, ["tiny"]])
def test_an_unknown_preset_names_those_that_there_are(kind, preset):
    with pytest.raises(xr.InputError, match=r"unknown preset .*: known are paper, tiny, strong"):
        getattr(xr, kind)(3, preset=preset)


# --- the model and the data agree ---------------------------------------------------------------


class Told(small.Repeat):
    """Batches that say of themselves what ours do."""

    def __init__(self, batch, **told):
        super().__init__(batch)
        vars(self).update(told)


def fitting(**told):
    return {"people": small.PEOPLE, "image_size": small.SIZE, "rates": (2, 3, 4), **told}


@pytest.mark.parametrize(
    "told, words",
    [
        ({"people": 6}, "people 5, .* have 6"),
        ({"people": 4}, "people 5, .* have 4"),
        ({"image_size": (128, 64)}, r"size \(64, 32\), .* have \(128, 64\)"),
        ({"rates": (2, 8)}, r"rates \(2.0, 3.0, 4.0\), .* have \(2.0, 8.0\)"),
        ({"rates": "1..3"}, r"rates \(2.0, 3.0, 4.0\), .* have \(2.0, 3.0\)"),
        ({"rates": np.array([2.5])}, r"have \(2.5,\)"),
    ],
)
def test_numbers_are_compared_before_the_first_step(told, words):
    model = ready(small.adaptive)
    before = state(model)
    with pytest.raises(xr.InputError, match=words):
        model.fit(Told(small.levels(), **fitting(**told)), verbose=0)
    with pytest.raises(xr.InputError, match=words):
        model.fit(
            Told(small.levels(), **fitting()),
            validation_data=Told(small.levels(), **fitting(**told)), verbose=0,
        )  # fmt: skip
    assert same(before, state(model))


def test_ranges_and_lists_of_rates_that_agree():
    model = ready(small.adaptive)
    for rates in ("1..4", (4, 3, 2), np.array([1, 2, 3, 4])):
        model.check_data(Told(small.levels(), **fitting(rates=rates)))


@pytest.mark.backend
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda b: {**b, "person": b["person"] + 4}, "labels 4 to 5 .* of 5 people"),
        (lambda b: {**b, "person": b["person"] - 2}, "labels -2"),
        (lambda b: {**b, "person": b["person"] * 1.0}, "person is float64"),
        (lambda b: {**b, "person": np.eye(5)[b["person"]]}, r"\(4, 5\)"),
        (lambda b: {**b, "person": b["person"][:3]}, "4 image images for 3"),
        (lambda b: {**b, "image": b["image"].astype("float32")}, "0, 1"),
        (lambda b: {**b, "image": b["image"][:, ::2]}, "64, 32"),
        (lambda b: {"hr": b["image"], "person": b["person"]}, "ImageBatches"),
    ],
)
def test_a_batch_that_does_not_fit(change, words):
    model = ready()
    wrong = change(batch_for(model))
    for door in (
        lambda: model.fit(small.Repeat(wrong), verbose=0),
        lambda: model.fit(wrong, verbose=0),
        lambda: model.train_on_batch(wrong),
        lambda: model.evaluate(wrong, verbose=0),
        lambda: model.test_on_batch(wrong),
    ):
        with pytest.raises(xr.InputError, match=words):
            door()


def test_single_images_for_a_system_of_pairs():
    with pytest.raises(xr.InputError, match=r"INTACT trains on hr, lr, person.*PairBatches"):
        ready(small.intact).fit(small.Repeat(batch_for(baseline())), verbose=0)


# --- what is not finite -------------------------------------------------------------------------


class Saved(keras.callbacks.Callback):
    """Notes what a checkpoint would have been written of."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)


class Explodes(PhasedModel):
    """One weight w: the term is its mean with x, the slope of another may be infinite."""

    def __init__(self, steep=False):
        super().__init__()
        self.steep = steep
        self.part = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="part")
        self.part.build((None, 1))
        self.built = True

    def phases(self):
        def losses(batch):
            y = self.part(batch["x"])
            grown = keras.ops.sqrt(y) if self.steep else y + batch["x"]
            return {"fine": 0.0 * keras.ops.sum(y), "root": keras.ops.mean(grown)}

        return [Phase(("part",), losses, ("fine", "root"))]


def numbers(*values):
    return small.Repeat(
        *({"x": np.full((2, 1), v, "float32"), "person": np.zeros(2, "int32")} for v in values)
    )


@pytest.mark.backend
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_training_stops_at_the_first_step_that_is_not_finite(bad):
    model, saved = Explodes(), Saved()
    model.compile("sgd")
    model.fit(numbers(1, 2), verbose=0, callbacks=[saved])
    with pytest.raises(xr.InputError, match=r"epoch 1, step 2: \w+ is (nan|inf)"):
        model.fit(numbers(1, bad, 3), verbose=0, epochs=2, callbacks=[saved])
    assert saved.epochs == [0]  # of the first training alone


@pytest.mark.backend
def test_weights_that_a_finite_loss_made_infinite_are_not_saved():
    # sqrt(0) is 0, and its slope is infinite: the term says nothing, in the only step there is.
    model, saved = Explodes(steep=True), Saved()
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(xr.InputError, match=r"epoch 1, its end: .*kernel is not finite"):
        model.fit(numbers(1), verbose=0, callbacks=[saved])
    assert saved.epochs == []


@pytest.mark.backend
def test_no_checkpoint_is_written_of_it(tmp_path):
    path = tmp_path / "model.weights.h5"
    model, batches = Explodes(), numbers(1, 2)
    model.compile("sgd")
    model.fit(batches, verbose=0, callbacks=[xr.Checkpoint(path, batches)])
    kept = path.read_bytes()
    batches.batches = numbers(1, np.nan).batches
    with pytest.raises(xr.InputError, match="epoch 2, step 2"):
        model.fit(batches, epochs=2, verbose=0, callbacks=[xr.Checkpoint(path, batches)])
    assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.backend
def test_a_label_that_is_no_class_is_no_loss_of_zero():
    # In the second batch, which nobody looks at before.
    model = ready()
    good = batch_for(model)
    wrong = {**good, "person": good["person"] + 4}
    with pytest.raises(xr.InputError, match="step 2: id is nan"):
        model.fit(small.Repeat(good, wrong), verbose=0)


@pytest.mark.backend
@small.not_on_jax
def test_the_loss_is_the_sum_of_the_weighted_terms():
    model = ready(small.intact)
    parts = model.train_on_batch(small.levels(), return_dict=True)
    loss, _ = parts.pop("loss"), parts.pop("discriminator_accuracy")
    parts["id"] *= model.lambda_c  # shown without its weight
    assert loss == pytest.approx(sum(parts.values()), rel=1e-5)


@pytest.mark.backend
def test_callbacks_that_watch_the_loss():
    model = ready()
    batches = small.Repeat(batch_for(model))
    model.compile({"network": keras.optimizers.SGD(0.0)}, run_eagerly=True)  # nothing improves
    history = model.fit(
        batches, epochs=9, verbose=0, validation_data=batches,
        callbacks=[
            keras.callbacks.EarlyStopping("val_loss", patience=2),
            keras.callbacks.TerminateOnNaN(),
        ],
    ).history  # fmt: skip
    assert len(history["loss"]) == 3


# --- test_step, fit(x, y), compile("adam") ------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        *on_every_backend(baseline),
        pytest.param(small.intact, marks=[pytest.mark.backend, small.not_on_jax]),
        small.rain, small.cadnet, small.adaptive,
    ],
)  # fmt: skip
def test_evaluate_measures_every_term_and_moves_nothing(make):
    model = ready(make)
    batch = batch_for(model)
    before = state(model)
    found = model.evaluate(small.Repeat(batch), verbose=0, return_dict=True)
    assert found == pytest.approx(model.test_on_batch(batch, return_dict=True), rel=1e-5)
    assert same(before, state(model))
    history = model.fit(
        small.Repeat(batch), validation_data=small.Repeat(batch), verbose=0, epochs=1
    ).history
    assert {f"val_{name}" for name in found} == {n for n in history if n.startswith("val_")}
    assert {name for name in history if not name.startswith("val_")} == set(found)
    assert found["loss"] != pytest.approx(history["val_loss"][0], abs=1e-7)  # it learnt meanwhile
    trained = model.train_on_batch(batch, return_dict=True)
    assert set(trained) == set(found) and not same(before, state(model))


def test_evaluate_measures_in_inference_mode():
    model = ready()
    batch = batch_for(model)
    found = model.evaluate(batch, verbose=0, return_dict=True)
    (logits,) = small.arrays(model.network(as_float(batch["image"]), training=False)[1])
    expected = small.entropy(logits, batch["person"])
    assert found["id"] == found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.backend
def test_images_and_labels_apart():
    model = baseline()
    model.compile("adam", run_eagerly=True)
    assert list(model.optimizers) == ["network"]
    batch = batch_for(model)
    x, y = batch["image"], batch["person"]
    history = model.fit(x, y, batch_size=2, validation_split=0.5, verbose=0).history
    assert set(history) == {"id", "loss", "val_id", "val_loss"}
    whole = model.evaluate(batch, verbose=0)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(whole)
    assert model.test_on_batch(x, y) == pytest.approx(whole)
    model.train_on_batch(x, y)
    with pytest.raises(xr.InputError, match="labels 0 to 9"):
        model.fit(x, y * 9, verbose=0)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m, b: m.fit(b["lr"], b["person"], verbose=0), r"fit\(batches\).*PairBatches"),
        (lambda m, b: m.fit(small.Repeat(b), class_weight={0: 2.0}), "class_weight"),
        (lambda m, b: m.train_on_batch(b, sample_weight=np.ones(4)), "sample_weight"),
        (lambda m, b: m.compile("adam"), r'trains 3 parts.*compile\(\{"discriminator": keras.opt'),
        (lambda m, b: m.compile({"generator": "adam"}), "no optimizer for association, discrim"),
        (lambda m, b: m.compile({"generater": "adam"}), r"INTACT has no part generater: call comp"),
        (lambda m, b: m.compile("adam", "mse"), "takes no loss: .* are the system's own"),
        (lambda m, b: m.compile(metrics=["accuracy"]), "takes no metrics"),
    ],
)
def test_one_line_shows_the_right_call(call, words):
    model = ready(small.intact)
    with pytest.raises(xr.InputError, match=words) as raised:
        call(model, small.levels())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("call", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_first_of_all_a_model_is_compiled(call):
    batch = small.levels()
    with pytest.raises(xr.InputError, match=r"call model\.compile\(\) first"):
        getattr(small.intact(), call)(small.Repeat(batch) if call in ("fit", "evaluate") else batch)


def test_several_networks_are_trained_one_by_one():
    with pytest.raises(xr.InputError, match=r"each of model\.networks"):
        one_per_rate().compile("adam")


# --- empty batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("make, kwargs", SYSTEMS)
def test_an_empty_batch_keeps_its_other_dimensions(make, kwargs):
    model = small.shared(make, **kwargs)
    none, some = images(2)[:0], images(2)
    gallery = model.embed(some)
    for rates in (None, 4, np.zeros(0, int)):
        found = model.embed(none, rates)
        assert found.shape == (0, gallery.shape[1]) and found.dtype == np.float32
    assert model.predict(none).shape == model.embed([]).shape == found.shape
    assert model.predict_on_batch(none).shape == found.shape
    np.testing.assert_array_equal(np.concatenate([found, gallery]), gallery)
    assert model.distances(found, gallery, 4).shape == (0, 2)
    assert model.distances(gallery, found, 4).shape == (2, 0)
    if hasattr(model, "recover"):
        assert model.recover(none).shape == (0, *small.SIZE, 3)


# --- export, precision, tensors -----------------------------------------------------------------


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow writes this format")
def test_a_format_that_the_backend_does_not_write(tmp_path):
    with pytest.raises(xr.InputError, match=r"no openvino was written .*xreid export"):
        baseline().export(tmp_path / "model", format="openvino", verbose=False)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own format")
@pytest.mark.parametrize(
    "make", [pytest.param(small.intact, marks=pytest.mark.slow), small.adaptive]
)
def test_exported_it_gives_the_features_of_uint8(make, tmp_path):
    import torch

    model = make()
    path = str(tmp_path / "model.pt2")
    model.export(path, format="torch", verbose=False)
    given = [torch.from_numpy(images(2))]
    if model.query_levels:
        given.append(torch.full((2,), model.query_levels, dtype=torch.int32))
    found = torch.export.load(path).module()(given if len(given) > 1 else given[0])
    found = found[0] if isinstance(found, (list, tuple)) else found
    np.testing.assert_allclose(found.detach(), model.embed(images(2)), atol=1e-4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own format")
def test_a_saved_model_gives_the_features_of_uint8(tmp_path):
    import tensorflow as tf

    model = baseline(flip=True)
    model.export(str(tmp_path / "saved"), verbose=False)
    found = tf.saved_model.load(str(tmp_path / "saved")).serve(images(2))
    found = found[0] if isinstance(found, (list, tuple)) else found
    np.testing.assert_allclose(found, model.embed(images(2)), atol=1e-4)


def test_several_networks_are_no_graph(tmp_path):
    with pytest.raises(xr.InputError, match="cannot be exported"):
        one_per_rate().export(tmp_path / "model")


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "bfloat16"])
def test_a_precision_that_does_not_train(policy):
    model = xr.Baseline.from_config({**baseline().get_config(), "dtype": policy})
    with pytest.raises(xr.InputError, match=f"{policy}.*mixed_bfloat16"):
        model.compile("adam")
    # Nor where one part alone has it.
    model = baseline()
    model.network.layers[-1].dtype_policy = policy
    with pytest.raises(xr.InputError, match=policy):
        model.compile("adam")


def tensors():
    """The same numbers as every installed library holds them."""
    values = np.array([[0.5, 1.0], [0.25, 0.0]], "float32")
    found = {"list": values.tolist(), "rows": list(values), "float16": values.astype("float16")}
    torch = pytest.importorskip("torch")
    found["torch"] = torch.tensor(values, requires_grad=True)
    found["torch bfloat16"] = torch.tensor(values, dtype=torch.bfloat16, requires_grad=True)
    found["torch rows"] = [torch.tensor(row, requires_grad=True) for row in values]
    if BACKEND == "tensorflow":
        tf = pytest.importorskip("tensorflow")
        found["tf"] = tf.constant(values, tf.bfloat16)
        found["tf variable"] = tf.Variable(values)
    if BACKEND == "jax":
        jax = pytest.importorskip("jax")
        found["jax"] = jax.numpy.asarray(values, "bfloat16")
    found["keras"] = keras.ops.convert_to_tensor(values, "bfloat16")
    found["variable"] = keras.Variable(values)
    return values, found


@pytest.mark.backend
def test_numbers_of_every_library_become_arrays():
    values, found = tensors()
    for name, value in found.items():
        array = as_numpy(value)
        assert type(array) is np.ndarray and array.dtype.kind == "f", name
        np.testing.assert_array_equal(array, values, err_msg=name)
    for wrong in ("text", [[1], [1, 2]], [object()], None, np.array([1j])):
        with pytest.raises(xr.InputError):
            as_numpy(wrong)


@pytest.mark.backend
@pytest.mark.parametrize("make", [baseline, small.intact, small.adaptive])
def test_tensors_are_taken_where_arrays_are(make):
    model = make()
    stored, rates = images(), np.array([1, 2, 4])
    expected = model.embed(stored, rates)
    tensor = keras.ops.convert_to_tensor
    np.testing.assert_array_equal(model.embed(tensor(stored), tensor(rates)), expected)
    np.testing.assert_array_equal(model.embed(list(stored), list(tensor(rates))), expected)
    if BACKEND == "torch":
        floats = tensor(stored.astype("float32") / 255).requires_grad_()
        np.testing.assert_array_equal(model.embed(floats, rates), expected)
        np.testing.assert_allclose(model.predict(floats.bfloat16()), model.embed(floats), atol=0.05)
    distances = model.distances(expected, expected, rates)
    features = tensor(expected)
    found = model.distances(features, features, tensor(rates))
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, distances)
    if hasattr(model, "recover"):
        np.testing.assert_array_equal(model.recover(tensor(stored)), model.recover(stored))


@pytest.mark.parametrize("make", [baseline, small.rain, small.adaptive])
def test_features_that_do_not_fit_each_other(make):
    model = make()
    features = model.embed(images())
    for query, gallery in ((features[0], features), (features[:, 1:], features)):
        with pytest.raises(xr.InputError, match="cannot be compared"):
            model.distances(query, gallery)
    with pytest.raises(xr.InputError, match="2 rates were given for 3 images"):
        model.embed(images(), [1, 2])
    with pytest.raises(xr.InputError, match="2 rates"):
        small.adaptive().distances(*[small.adaptive().embed(images())] * 2, [1, 2])


@pytest.mark.parametrize("make", [small.intact, small.adaptive, small.distilled, octuplet])
def test_pairs_of_two_people_are_refused(make):
    """Such systems compare an image with itself; RAIN and CAD-Net do not."""
    batch = small.independent()
    with pytest.raises(xr.InputError, match=r"other people's HR images: .* without independent"):
        make().check_batch(batch)
    small.rain().check_batch(batch)
    small.cadnet().check_batch(batch)


def test_a_margin_of_0_is_one():
    assert small.rain(margin=0.0).margin == 0.0
    assert small.cadnet().margin == 2.0
    assert xr.RAIN(3, "strong", backbone=small.Levels(), image_size=small.SIZE).margin == 0.3
    with pytest.raises(xr.InputError, match="margin is -1: give 0 or more"):
        small.rain(margin=-1)


def test_nobody_is_labelled():
    model = xr.RAIN(
        0, "tiny", backbone=small.Levels(), image_size=small.SIZE, decoder_widths=(6, 5, 4, 4),
        discriminator_width=2, classification=0.0, triplet=0.0,
    )  # fmt: skip
    batch = {**small.couples(), "person": np.full(4, -1, "int32")}
    model.check_batch(batch)
    with pytest.raises(xr.InputError, match="labels 0 to 0 were given to a model of 0 people"):
        model.check_batch({**batch, "person": np.zeros(4, "int32")})


@pytest.mark.parametrize("rates", [0.25, np.nan, [1, 2, 3, -4]])
def test_rates_that_are_none(rates):
    """0.25 is a scale: rates are 1 or more."""
    with pytest.raises(xr.InputError, match=r"rate .* is below 1"):
        small.shared(small.baseline).embed(small.couples()["hr"], rates)


def test_a_precision_for_one_model_alone():
    with pytest.raises(xr.InputError, match="dtype mixed_bfloat16 with float32 set for all"):
        small.baseline(dtype="mixed_bfloat16")
    assert small.baseline(dtype="float32").compute_dtype == "float32"


def test_compiled_twice_each_value_is_there_once():
    model, batch, found = baseline(), small.images(), []
    for _ in range(2):
        model.compile("adam", run_eagerly=True)
        found.append(model.evaluate(batch, verbose=0))
    assert len(found[0]) == len(found[1]) == len(model.metrics)
    assert found[0] == pytest.approx(found[1])


def one_rate_twice(make):
    return lambda: make(rates=(2, 4, 2))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: small.intact(lambda_g=-1), "lambda_g is -1: give 0 or more"),
        (lambda: small.intact(supervision="nonsense"), "supervision .* give one of mse, mse"),
        (lambda: small.intact(supervision="mse", association="nonsense"), "give one of r-to-d"),
        (lambda: small.baseline(label_smoothing=2), "label_smoothing is 2: .* below 1"),
        (lambda: small.distilled(label_smoothing=1.0), "label_smoothing is 1.0: .* below 1"),
        (lambda: small.rain(label_smoothing=-0.1), "label_smoothing is -0.1: give 0 or more"),
        (lambda: small.adaptive(label_smoothing=np.nan), "label_smoothing is nan: give 0 or more"),
        (lambda: small.baseline(triplet=-1), "triplet is -1: give 0 or more"),
        (lambda: small.baseline(margin=-1), "margin is -1: give 0 or more"),
        (lambda: small.baseline(octuplet="much"), "octuplet is much: give 0 or more"),
        (lambda: small.adaptive(mask_speed=0), "speed 0: give more than 0"),
        (one_rate_twice(small.adaptive), r"rates \(2, 4, 2\): give each"),
        (one_rate_twice(small.one_per_rate), r"rates \(2, 4, 2\): give each"),
        (one_rate_twice(small.panned), r"rates \(2, 4, 2\): give each"),
        (lambda: small.rain(levels=7), r"levels \(7,\): give some of"),
    ],
)
def test_settings_that_make_no_sense(make, words):
    with pytest.raises(xr.InputError, match=words):
        make()


def test_one_level_needs_no_tuple():
    assert small.rain(levels=5).levels == (5,)


@pytest.mark.parametrize("size", [0, -1, 2.5, None])
def test_a_batch_size_that_is_none(size):
    model = small.shared(small.intact)
    for door in (model.embed, model.recover):
        with pytest.raises(xr.InputError, match=f"batch size is {size}: give 1 or more"):
            door(images(), batch_size=size)
    with pytest.raises(xr.InputError, match=f"batch size is {size}"):
        xr.Panning(2).move(np.ones((1, 2)), 2, batch_size=size)


@pytest.mark.parametrize(
    "rate, words",
    [
        (np.zeros(4), r"rate 0.* is below 1"),
        (np.full(4, np.nan), "rate nan is below 1"),
        (np.full(3, 2), r"shape \(3,\) for 4 images"),
        (np.full((4, 1), 2), r"shape \(4, 1\) for 4 images"),
    ],
)
def test_rates_of_a_batch(rate, words):
    batch = {**small.couples(), "rate": rate}
    with pytest.raises(xr.InputError, match=words):
        small.shared(small.adaptive).check_batch(batch)
    pairs = {**small.panned_pairs(), "rate": rate}
    with pytest.raises(xr.InputError, match=words):
        xr.Panning(9, hidden=2).check_batch(pairs)


@pytest.mark.parametrize(
    "make, words", [(one_per_rate, "each of model.networks"), (small.panned, "fit model.panning")]
)
def test_what_is_trained_in_parts_says_so_in_fit(make, words):
    stored = images()
    for given in ((stored,), (stored, np.zeros(3, int)), ({"image": stored},)):
        with pytest.raises(xr.InputError, match=words):
            make().fit(*given)
