"""One check for every layer and backbone: configuration, saving, batch sizes, mixed precision."""

import keras
import numpy as np


def as_list(outputs):
    """Return a layer's output, or list of outputs, as a list of numpy arrays."""
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in outputs]


def run_layer_test(make, input_shape, tmp_path, output_shapes=None, integers=None):
    """Check that a layer or model survives its life in a network.

    Args:
        make: function without arguments that returns a new layer or model; called several times.
        input_shape: shape of one example without the batch, or a list of such shapes.
        tmp_path: folder for the saved file.
        integers: None, or the (low, high) of integers that the last of several inputs holds.
        output_shapes: expected shape without the batch, or a list of such; not checked if None.
    """
    rng = np.random.default_rng(0)
    several = isinstance(input_shape, list)
    shapes = input_shape if several else [input_shape]

    def inputs(batch):
        arrays = [rng.random((batch, *shape), dtype="float32") for shape in shapes]
        if integers:
            arrays[-1] = rng.integers(*integers, arrays[-1].shape, "int32", endpoint=True)
        return arrays if several else arrays[0]

    layer = make()
    x = inputs(3)
    y = as_list(layer(x))
    assert all(np.isfinite(a).all() for a in y)
    if output_shapes is not None:
        expected = output_shapes if isinstance(output_shapes, list) else [output_shapes]
        assert [a.shape[1:] for a in y] == [tuple(shape) for shape in expected]

    # One example at a time gives what the batch gave: nothing leaks between examples.
    first = [a[:1] for a in x] if several else x[:1]
    for one, batch in zip(as_list(layer(first)), y, strict=True):
        assert one.shape == (1, *batch.shape[1:])
        np.testing.assert_allclose(one, batch[:1], rtol=1e-4, atol=1e-4)

    # The configuration rebuilds the same layer, and the weights make it compute the same.
    twin = type(layer).from_config(layer.get_config())
    twin(x)
    twin.set_weights(layer.get_weights())
    for a, b in zip(as_list(twin(x)), y, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

    # A saved file opens without custom objects, inside a model too.
    tensors = [keras.Input(shape) for shape in shapes]
    if integers:
        tensors[-1] = keras.Input(shapes[-1], dtype="int32")
    model = keras.Model(tensors, layer(tensors if several else tensors[0]))
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    for a, b in zip(as_list(loaded(x)), y, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = make()
        outputs = half(x)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        assert all(keras.backend.standardize_dtype(a.dtype) == "bfloat16" for a in outputs)
        assert all(np.isfinite(a).all() for a in as_list(outputs))
        assert all(v.dtype == "float32" for v in half.trainable_variables)
    finally:
        keras.config.set_dtype_policy(policy)
