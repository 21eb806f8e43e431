"""`embed` runs one function that was traced once: it computes what the layers do, and no more."""

from concurrent.futures import ThreadPoolExecutor

import h5py
import keras
import numpy as np
import pytest
import small
from keras import ops

from keras_xreid.models import forward
from keras_xreid.training import inference

traces = pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch traces nothing")
SYSTEMS = {
    "baseline": (small.baseline, {"neck": True, "flip": True}),
    "distilled": (small.distilled, {}),
    "intact": (small.intact, {}),
    "rain": (small.rain, {"neck": True}),
    "cadnet": (small.cadnet, {}),
    "adaptive": (small.adaptive, {}),
    "panned": (small.panned, {}),
}
RATES = np.array([4, 1, 3, 1, 2], "float32")


def made(name):
    make, options = SYSTEMS[name]
    return small.shared(make, **options)


def images(n=5, seed=0):
    return small.pairs(n, seed)["lr"]


def by_layers(model, pixels, rates=RATES):
    """Embeddings by the layers themselves, all images at once and as floats."""
    x = ops.convert_to_tensor(pixels.astype("float32") / 255.0)

    def embedded(x):
        if hasattr(model, "generator"):
            recovered = ops.clip(model.generator(x, training=False), 0.0, 1.0)
            x = ops.where(ops.convert_to_tensor(rates > 1)[:, None, None, None], recovered, x)
            return model.reid(x, training=False)[0]
        if hasattr(model, "panning"):
            return model.panning(model.network(x, training=False)[0], ops.convert_to_tensor(rates))
        level = ops.convert_to_tensor(5 - rates.astype("int32"))  # of rates 4 to 1
        return model.embedding(x, level if model.query_levels else None)

    found = embedded(x)
    if model.flip:
        found = (found + embedded(ops.flip(x, axis=2))) / 2
    return small.arrays(found)[0]


def same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.backend
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("baseline", "panned") else small.not_on_jax)
        for name in SYSTEMS
    ],
)
def test_a_system_embeds_as_its_layers_do(name):
    """By batches that leave a rest, from uint8 and floats; and again with other weights."""
    model, pixels = made(name), images()
    before = by_layers(model, pixels)
    same(model.embed(pixels, RATES, batch_size=2), before)
    same(model.embed(pixels / np.float32(255), RATES, batch_size=5), before)
    small.fill(model, seed=1)  # moving statistics are among them
    after = by_layers(model, pixels)
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    same(model.embed(pixels, RATES, batch_size=2), after)


@pytest.mark.backend
def test_new_variables_are_seen():
    """Weights that came after the function was traced are no part of it."""
    model, pixels = small.adaptive(), images()
    before = model.embed(pixels, RATES)
    dense = model.network.get_layer("v")
    dense.enable_lora(2)
    for variable in (dense.lora_kernel_a, dense.lora_kernel_b):
        variable.assign(np.full(variable.shape, 0.5, "float32"))
        after = model.embed(pixels, RATES)
        same(after, by_layers(model, pixels))
    dense.lora_kernel_b.assign(np.zeros(dense.lora_kernel_b.shape))
    same(model.embed(pixels, RATES), before)
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()


@pytest.mark.backend
def test_threads_share_a_model_from_its_first_image_on():
    model = small.baseline()
    given = [images(seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pixels: model.embed(pixels, batch_size=4), given))
    for pixels, one in zip(given, found, strict=True):
        same(one, by_layers(model, pixels))


@pytest.mark.backend
def test_bfloat16_gives_float32_of_the_same_numbers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small.baseline()
    finally:
        keras.config.set_dtype_policy(before)
    found, wanted = model.embed(images()), by_layers(model, images())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.03 * np.abs(wanted).max())


def counted(monkeypatch):
    """Counts how often Python computes an embedding."""
    calls, plain = [], forward.as_float
    monkeypatch.setattr(forward, "as_float", lambda x: (calls.append(x.shape), plain(x))[1])
    return calls


@pytest.mark.backend
@traces
def test_it_is_traced_once(monkeypatch):
    model, calls = small.baseline(), counted(monkeypatch)
    for count in (8, 4, 7, 5, 6):
        assert len(model.embed(images(count), batch_size=4)) == count
    assert len(calls) == 1, calls


@pytest.mark.backend
def test_a_few_images_are_not_filled_up_to_a_batch(monkeypatch):
    model, calls = small.baseline(), counted(monkeypatch)
    for count in (1, 3):
        assert len(model.embed(images(count), batch_size=64)) == count
    assert {shape[0] for shape in calls} <= {None, 1, 3, 4}


@pytest.mark.backend
def test_run_eagerly_runs_python_for_each_batch(monkeypatch):
    model, calls = small.baseline(), counted(monkeypatch)
    model.network.run_eagerly = True
    same(model.embed(images(4), batch_size=2), by_layers(model, images(4)))
    assert len(calls) == 2
    model.embed(images(4), batch_size=2)
    assert len(calls) == 4


def test_no_logits_are_computed():
    model = small.baseline(neck=True)
    names = [layer.name for layer in inference.network_of(model.network, first=True).layers]
    assert names[-1] == "neck" and "classifier" not in names


def test_a_file_holds_each_weight_once(tmp_path):
    """Networks that were made for the test alone are no part of it."""
    model, stored = small.intact(), []
    model.embed(images(), RATES)
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda _, x: stored.append(x) if isinstance(x, h5py.Dataset) else None)
    assert len(stored) == len(model.weights)


def test_a_network_put_in_place_of_another_is_seen():
    model = small.intact()
    model.embed(images(), RATES)
    model.reid = small.fill(small.intact(), seed=1).reid
    np.testing.assert_allclose(model.embed(images(), RATES), by_layers(model, images()), atol=1e-5)
