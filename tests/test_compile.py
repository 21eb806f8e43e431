"""Compiled train steps: one program for all phases, made once, with the same results."""

import functools
import os

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import intact, pairs

from keras_xreid.backbones.blocks import NormalizeImage
from keras_xreid.training import autodiff, fast_torch
from keras_xreid.training.phases import Phase, PhasedModel

pytestmark = pytest.mark.backend

BACKEND = os.environ["KERAS_BACKEND"]


@pytest.fixture(autouse=True)
def xla():
    """Lets TensorFlow compile, also after a recipe that ran in this process did without."""
    if BACKEND == "tensorflow":
        from tensorflow.python.framework import config

        config.disable_op_determinism()


class Steps(keras.utils.PyDataset):
    """A few batches."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def network(name):
    """A model inside a model, as a backbone is, with what our networks are made of."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(NormalizeImage((0.5,) * 3, (0.5,) * 3)(image))
    x = layers.LeakyReLU(0.2)(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x))
    inner = keras.Model(image, [x, layers.Add()([x, x])])
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inner(image)[1])
    return keras.Model(image, [x, layers.Dense(1)(x)], name=name)


class Two(PhasedModel):
    """Two parts, updated in turn; the second phase calls both, and what was prepared."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b = network("a"), network("b")
        self.built = True

    def prepare(self, batch):
        x = ops.cast(batch["x"], "float32")
        return {"x": x, "seen": self.a(x, training=True)[0]}

    def phases(self):
        return [Phase(("a",), self.first, ("one",)), Phase(("b",), self.second, ("two",))]

    def first(self, batch):
        logits = [self.a(x, training=True)[1] for x in (batch["x"], 0.5 * batch["x"])]
        return {"one": ops.mean(ops.square(ops.cast(logits[0] - logits[1] - 1.0, "float32")))}

    def second(self, batch):
        x, seen = self.b(batch["x"], training=True)[0], self.a(batch["x"], training=True)[0]
        difference = ops.cast(x, "float32") - ops.cast(seen + batch["seen"], "float32")
        return {"two": ops.mean(ops.square(difference))}


def fit(model, batches):
    return model.fit(Steps(batches), epochs=2, verbose=0).history


def arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(4, 8, 8, 3)).astype("float32")} for _ in range(n)]


def two(jit_compile):
    keras.utils.set_random_seed(0)
    model = Two()
    model.compile(
        {"a": keras.optimizers.Adam(1e-3), "b": keras.optimizers.Adam(1e-3)},
        jit_compile=jit_compile,
    )
    return model


@pytest.fixture
def traced(monkeypatch):
    """PyTorch's compiler traces as ever, and leaves the making of machine code out."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    before = fast_torch.enabled()
    fast_torch.enable()  # Keras's own path into a model is what the compiler cannot follow
    yield torch._dynamo.utils.counters
    if not before:
        fast_torch.disable()


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="counts PyTorch's graph breaks")
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_no_graph_breaks_and_one_graph(precision, traced):
    keras.config.set_dtype_policy(precision)
    try:
        fit(two(True), arrays(3))
    finally:
        keras.config.set_dtype_policy("float32")
    assert sum(traced["graph_break"].values()) == 0, dict(traced["graph_break"])
    assert traced["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="counts PyTorch's graph breaks")
def test_no_graph_breaks_in_intact(traced):
    model = intact(generator_widths=(4, 4))  # tracing is what takes long
    model.compile(jit_compile=True)
    batch = pairs()
    fit(model, [batch, batch])
    assert sum(traced["graph_break"].values()) == 0, dict(traced["graph_break"])
    assert traced["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="JAX always compiles")
def test_compiled_steps_give_the_same(request):
    if BACKEND == "torch":
        request.getfixturevalue("traced")
    batches = arrays(3)
    model = two(True)
    assert model.jit_compile
    compiled, plain = fit(model, batches), fit(two(False), batches)
    for term, values in plain.items():
        np.testing.assert_allclose(compiled[term], values, rtol=1e-4)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch runs a step as it is written")
def test_a_step_is_traced_no_more_after_the_first_ones(monkeypatch):
    model, count = two(None), []
    monkeypatch.setattr(
        model, "first", lambda batch, first=model.first: count.append(1) or first(batch)
    )
    batches = arrays(4)
    fit(model, batches[:1])
    traced = len(count)
    fit(model, batches)
    fit(model, batches)
    assert len(count) == traced  # Python ran no more: the program was kept


def test_default_is_what_is_fastest():
    expected = {"torch": False, "jax": True}
    if BACKEND in expected:
        assert autodiff.default_jit_compile() is expected[BACKEND]
    else:
        tf = pytest.importorskip("tensorflow")
        on_gpu = bool(tf.config.list_physical_devices("GPU"))
        assert autodiff.default_jit_compile() is on_gpu
        assert two(None).jit_compile is on_gpu
        assert two(True).jit_compile is True  # and it is overridable
