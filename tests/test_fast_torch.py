"""The fast path on PyTorch against plain Keras: the same numbers, forwards and backwards."""

import contextlib
import logging
import os
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_xreid as xr
from keras_xreid.backbones import build_backbone
from keras_xreid.layers.association import Association
from keras_xreid.layers.decoder import build_decoder
from keras_xreid.layers.discriminator import (
    build_feature_discriminators,
    build_image_discriminator,
    build_resnet_discriminator,
)
from keras_xreid.layers.generator import build_generator
from keras_xreid.training import fast as fast_paths
from keras_xreid.training import fast_torch

if os.environ["KERAS_BACKEND"] != "torch":
    pytest.skip("the fast path is for PyTorch", allow_module_level=True)
torch = pytest.importorskip("torch")
from keras_xreid.training.fast_torch import ops  # noqa: E402


@contextlib.contextmanager
def plain():
    on = fast_torch.enabled()
    fast_torch.disable()
    try:
        yield
    finally:
        if on:
            fast_torch.enable()


@pytest.fixture(autouse=True)
def fast():
    before = fast_torch.enabled()
    fast_torch.enable()
    yield
    if not before:
        fast_torch.disable()


def fill(model, seed=0):
    """Random weights of a size that keeps activations alive, running variances positive."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if v.path.endswith(("moving_variance", "gamma")):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        else:
            v.assign(rng.normal(0, 1 / np.sqrt(np.prod(v.shape[:-1]) or 1), v.shape))


def run(model, arrays, training):
    """Outputs, gradients of inputs and weights, and the state afterwards, as NumPy arrays."""
    before = [v.numpy() for v in model.non_trainable_variables]
    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=training)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    rng = np.random.default_rng(1)
    loss = sum((y * torch.tensor(rng.normal(size=y.shape), dtype=y.dtype)).sum() for y in outputs)
    wanted = inputs + [v.value for v in model.trainable_variables]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    state = [v.numpy() for v in model.non_trainable_variables]
    for v, value in zip(model.non_trainable_variables, before, strict=True):
        v.assign(value)
    found = (None if a is None else a.detach().float().numpy() for a in (*outputs, *gradients))
    return [*found, *state]


def compare(model, arrays, training, tolerance=1e-5):
    """Fast, and plain, within a tolerance relative to the largest element of all arrays.

    Of all: the gradient of a bias before a batch normalization is zero but for rounding.
    """
    ours = run(model, arrays, training)
    with plain():
        theirs = run(model, arrays, training)
    scale = max(np.abs(a).max() for a in theirs if a is not None)
    assert scale > 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, scale), rtol=0)


LAYERS = {
    "conv": layers.Conv2D(5, 3),
    "conv_same_bias_relu": layers.Conv2D(5, 3, padding="same", activation="relu"),
    "conv_stride_same": layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False),
    "conv_even": layers.Conv2D(5, (2, 4), strides=(1, 2), padding="same"),
    "conv_dilated": layers.Conv2D(5, 3, dilation_rate=2, padding="same"),
    "conv_groups": layers.Conv2D(8, 3, groups=2),
    "conv_1x1": layers.Conv2D(6, 1),
    "depthwise": layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
    "depthwise_stride": layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
    "depthwise_wide": layers.DepthwiseConv2D(5, padding="same"),
    "depthwise_wide_and_low": layers.DepthwiseConv2D((3, 7), padding="same", use_bias=False),
    "depthwise_wide_stride": layers.DepthwiseConv2D(5, strides=2, padding="same"),
    "depthwise_wider_than_the_map": layers.DepthwiseConv2D((1, 19), padding="same"),
    "depthwise_even": layers.DepthwiseConv2D((4, 2), padding="same"),
    "depthwise_dilated": layers.DepthwiseConv2D((4, 5), dilation_rate=2, padding="same"),
    "separable": layers.SeparableConv2D(5, 3),
    "transposed": layers.Conv2DTranspose(5, 4, strides=2, padding="same"),
    "transposed_odd": layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "max_pool": layers.MaxPooling2D(3, 2, padding="same"),
    "average_pool": layers.AveragePooling2D(2),
    "global_pool": layers.GlobalAveragePooling2D(keepdims=True),
    "batch_norm": layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
    "batch_norm_bare": layers.BatchNormalization(center=False, scale=False),
    "batch_norm_axis_1": layers.BatchNormalization(axis=1),
    "padding": layers.ZeroPadding2D(((1, 2), (0, 1))),
    "dense": layers.Dense(3, activation="relu"),
    "enlarged": layers.UpSampling2D((2, 3)),
    "enlarged_bilinear": layers.UpSampling2D(2, interpolation="bilinear"),
    "leaky": layers.LeakyReLU(0.2),
    "relu6": layers.ReLU(0.6),
    "channels_first": layers.Conv2D(5, 3, padding="same", data_format="channels_first"),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_gives_the_same(name, training):
    layer = type(LAYERS[name]).from_config(LAYERS[name].get_config())
    model = keras.Sequential([keras.Input((9, 8, 4)), layer])
    fill(model)
    x = np.random.default_rng(2).normal(0.3, 1.0, (3, 9, 8, 4)).astype("float32")
    compare(model, [x], training)
    # Called by itself, and in memory that does not have channels last.
    with torch.no_grad():
        other = torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).permute(0, 2, 3, 1)
        ours = layer(other).numpy()
        with plain():
            theirs = layer(other).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kernel", [3, 5, (3, 7), (7, 3)])
@pytest.mark.parametrize("size", [(10, 8), (2, 12)])
def test_a_depthwise_kernel_with_a_stride_on_even_sides(kernel, size, precision):
    layer = layers.DepthwiseConv2D(kernel, strides=2, padding="same", dtype=precision)
    model = keras.Sequential([keras.Input((*size, 4)), layer])
    fill(model)
    x = np.random.default_rng(2).normal(0.3, 1.0, (3, *size, 4)).astype("float32")
    known = torch.tensor(x.transpose(0, 3, 1, 2)), layer.kernel.value.permute(2, 3, 0, 1)
    assert ops.has_slow_gradient(*known, (2, 2)) and not ops.has_slow_gradient(*known, (2, 1))
    compare(model, [x], True, 1e-5 if precision == "float32" else 0.02)


@pytest.mark.parametrize("channels", [1, 4, 15, 16])
@pytest.mark.parametrize("strides", [(2, 2), (1, 3)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_1x1_kernel_of_few_channels_with_a_stride(channels, strides, padding):
    """Against NumPy: oneDNN's gradient of the kernel ended the process, or was wrong."""
    model = keras.Sequential(
        [keras.Input((8, 8, channels)), layers.Conv2D(8, 1, strides=strides, padding=padding)]
    )
    fill(model)
    kernel, bias = (v.numpy() for v in model.weights)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 8, 8, channels)).astype("float32")
    # `run` sums the outputs times these numbers.
    seen = x[:, :: strides[0], :: strides[1]]
    factors = np.random.default_rng(1).normal(size=(*seen.shape[:3], 8)).astype("float32")
    back = np.zeros_like(x)
    back[:, :: strides[0], :: strides[1]] = factors @ kernel[0, 0].T
    expected = [
        seen @ kernel[0, 0] + bias, back, np.einsum("nhwi,nhwo->io", seen, factors)[None, None],
        factors.sum((0, 1, 2)),
    ]  # fmt: skip
    for _ in range(3):
        for ours, theirs in zip(run(model, [x], True), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_batch_norm_of_vectors_and_of_one_image():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization()])
    fill(model)
    x = np.random.default_rng(2).normal(0.5, 1.0, (5, 6)).astype("float32")
    for training in (True, False):
        compare(model, [x], training)
    compare(model, [x[:1]], True)


def test_batch_norm_is_exact_where_plain_keras_loses_digits():
    # Keras takes E[x^2] - E[x]^2, which cancels where the mean is large.
    x = np.random.default_rng(2).normal(10.0, 0.01, (50, 6)).astype("float32")
    y = layers.BatchNormalization(epsilon=1e-5)(x, training=True).detach().numpy()
    exact = x.astype("float64")
    exact = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(y, exact, atol=1e-3)


def test_moving_variance_is_keras_biased_one():
    layer = layers.BatchNormalization(momentum=0.0)
    x = np.array([[1.0], [3.0]], "float32")
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [2.0], atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), [1.0], atol=1e-5)  # unbiased: 2


NETWORKS = {
    "resnet_tiny": lambda: build_backbone("resnet_tiny", (32, 32)),
    "osnet_x0_25": lambda: build_backbone("osnet_x0_25", (32, 32)),
    "efficientnet_lite0": lambda: build_backbone("efficientnet_lite0", (32, 32)),
    "generator": lambda: build_generator((32, 16), (4, 6, 8, 8), batch_normalization=False),
    "generator_bn": lambda: build_generator((32, 16), (4, 6, 8, 8), batch_normalization=True),
    "discriminator": lambda: build_image_discriminator((32, 32), 4, 16),
    # No fewer channels: by itself, Keras trains 1x1 kernels of few channels with a stride into
    # oneDNN's issue 6035, and is killed.
    "resnet_discriminator": lambda: build_resnet_discriminator((32, 32), 16),
    "feature_discriminators": lambda: build_feature_discriminators(
        [(8, 4, 5), (4, 4, 6)], "rain-code", 4
    ),
    "decoder": lambda: build_decoder([(16, 8, 3), (8, 4, 5), (4, 2, 6)], (32, 16), (6, 5, 4)),
    "decoder_without_skips": lambda: build_decoder(
        [(16, 8, 3), (8, 4, 5), (4, 2, 6)], (32, 16), (6, 5, 4), skips=False
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_same(name, training):
    model = NETWORKS[name]()
    fill(model)
    rng = np.random.default_rng(3)
    arrays = [rng.uniform(0, 1, (4, *x.shape[1:])).astype("float32") for x in model.inputs]
    # Deep networks amplify the last digit, and a ReLU may fall on its other side.
    compare(model, arrays, training, tolerance=1e-3)


def test_association_gives_the_same():
    model = Association(6, 5, latent=4, hidden=8)
    fill(model)
    rng = np.random.default_rng(4)
    fc, fd = (torch.tensor(rng.normal(size=(6, n)), dtype=torch.float32) for n in (6, 5))
    ours = [float(v) for v in model.distances(fc, fd)]
    with plain():
        theirs = [float(v) for v in model.distances(fc, fd)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def block(x):
    """What must not be overwritten: a tensor that is also an output, and one read twice."""
    a = layers.BatchNormalization(name="a")(layers.Conv2D(4, 3, padding="same")(x))
    b = layers.ReLU()(a)  # a is read again below
    c = layers.Activation("linear")(a)  # the very same tensor, under another name
    d = layers.ReLU()(layers.Conv2D(4, 1, name="d")(b))
    e = layers.BatchNormalization(name="e")(layers.Conv2D(4, 1)(d))  # an output, and added
    f = layers.Add()([e, c, d])
    g = layers.LeakyReLU(0.1)(f)
    h = layers.Add()([g, g])
    p = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(h))  # of both signs: zeros win
    q = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(h)))
    r = layers.BatchNormalization(name="r")(layers.Conv2D(4, 1)(q))
    r = layers.Multiply()([layers.ReLU(0.5)(r), q])  # in place, and read again
    s = layers.ReLU(0.5)(layers.Conv2D(4, 1, name="s")(q))
    t = layers.ReLU(negative_slope=0.3)(layers.BatchNormalization(name="t")(q))
    u = layers.ReLU(threshold=0.4)(layers.BatchNormalization(name="u")(q))
    return [e, f, layers.Multiply()([p, q]), r, layers.Add()([s, s]), t, u, x]


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_overwritten_that_somebody_reads(training):
    x = keras.Input((8, 6, 3))
    model = keras.Model(x, block(x))
    fill(model)
    array = np.random.default_rng(5).normal(size=(3, 8, 6, 3)).astype("float32")
    compare(model, [array], training)
    with torch.no_grad():  # sums are made in place then
        ours = [y.numpy() for y in model(array)]
        with plain():
            theirs = [y.numpy() for y in model(array)]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_padding_and_relu_are_joined_to_their_neighbours():
    network = build_backbone("resnet_tiny", (32, 32))
    network(np.zeros((1, 32, 32, 3), "float32"))
    chains = [[n.operation.name for n in step.nodes] for step in network._plan.steps]
    assert ["conv1_conv_pad", "conv1_conv"] in chains
    assert ["conv1_bn", "conv1_relu"] in chains
    assert ["conv1_pool_pad", "conv1_pool"] in chains
    assert ["stage1_block1_add", "stage1_block1_out"] in chains
    network = build_backbone("efficientnet_lite0", (32, 32), weights=None)
    network(np.zeros((1, 32, 32, 3), "float32"))
    chains = [[n.operation.name for n in step.nodes] for step in network._plan.steps]
    assert ["block1_depthwise_bn", "block1_depthwise_relu"] in chains


def test_masks_cost_no_way_through_keras(monkeypatch):
    # Of several tensors Keras hands over the masks [None, None], which is none; of arrays, None.
    network = xr.Adaptive(3, "tiny", image_size=(32, 32)).network
    x = np.random.default_rng(7).uniform(0, 1, (3, 32, 32, 3)).astype("float32")
    inputs = [torch.tensor(x), torch.tensor([1, 4, 2], dtype=torch.int32)]
    called, plain_call = [], layers.Layer.__call__

    def counted(self, *args, **kwargs):
        called.append(self.name)
        return plain_call(self, *args, **kwargs)

    monkeypatch.setattr(layers.Layer, "__call__", counted)
    with torch.no_grad():
        ours = network(inputs, training=False).numpy()
        assert called == []
        with plain():
            theirs = network(inputs, training=False).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("layer", [layers.BatchNormalization(), layers.UpSampling2D(2)])
def test_integers_go_through_keras(layer):
    x = np.random.default_rng(8).integers(0, 9, (2, 4, 4, 3)).astype("int32")
    image = keras.Input((4, 4, 3), dtype="int32")
    model = keras.Model(image, layer(image))
    with torch.no_grad():
        ours = model(x).numpy()
        with plain():
            theirs = model(x).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


SEEN, ALIVE = weakref.WeakSet(), []


class Watch(layers.Layer):
    """Counts, at each call, how many of the tensors that it returned are still there."""

    def call(self, x):
        y = x * 1.0
        SEEN.add(y)
        ALIVE.append(len(SEEN))
        return y


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_tensor_is_let_go_after_its_last_use(is_plain):
    x = y = keras.Input((4,))
    for _ in range(6):
        y = Watch()(y)
    model = keras.Model(x, y)
    ALIVE.clear()
    SEEN.clear()
    with plain() if is_plain else contextlib.nullcontext(), torch.no_grad():
        model(np.ones((2, 4), "float32"))
    assert max(ALIVE) == (6 if is_plain else 2)


def test_kernels_are_saved_as_keras_has_them(tmp_path):
    model = NETWORKS["discriminator"]()
    fill(model)
    values = model.get_weights()
    model(np.zeros((1, 32, 32, 3), "float32"))
    kernel = model.layers[2].kernel
    assert not kernel.value.is_contiguous()  # it was laid out
    for a, b in zip(model.get_weights(), values, strict=True):
        np.testing.assert_array_equal(a, b)
    model.save_weights(tmp_path / "a.weights.h5")
    other = NETWORKS["discriminator"]()
    other.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(other.get_weights(), values, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(1e-2),
        lambda: keras.optimizers.Adam(1e-2, amsgrad=True),
        lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
        lambda: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-2, 10), epsilon=1e-3, global_clipnorm=0.5
        ),
    ],
    ids=["adam", "amsgrad", "adamw", "schedule"],
)
def test_adam_takes_the_same_steps(make):
    def steps():
        model = NETWORKS["discriminator"]()
        fill(model)
        optimizer = make()
        x = np.random.default_rng(6).uniform(0, 1, (4, 32, 32, 3)).astype("float32")
        for _ in range(4):
            loss = model(x, training=True)[1].square().mean()
            wanted = model.trainable_variables
            optimizer.apply(torch.autograd.grad(loss, [v.value for v in wanted]), wanted)
        return [v.numpy() for v in (*wanted, *optimizer.variables)]

    ours = steps()
    with plain():
        theirs = steps()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_adam_by_hand():
    # Keras: p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps), epsilon not corrected.
    variable = keras.Variable([1.0, -2.0])
    optimizer = keras.optimizers.Adam(0.1, beta_1=0.8, beta_2=0.9, epsilon=0.5)
    m = v = np.zeros(2)
    expected = np.array([1.0, -2.0])
    for t, g in enumerate(([0.5, 1.0], [-1.0, 2.0], [0.1, 0.0]), start=1):
        g = np.array(g)
        optimizer.apply([torch.tensor(g, dtype=torch.float32)], [variable])
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        rate = 0.1 * np.sqrt(1 - 0.9**t) / (1 - 0.8**t)
        expected = expected - rate * m / (np.sqrt(v) + 0.5)
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)


def test_mixed_bfloat16_gives_the_same():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = NETWORKS["discriminator"]()
    finally:
        keras.config.set_dtype_policy("float32")
    fill(model)
    x = np.random.default_rng(8).uniform(0, 1, (4, 32, 32, 3)).astype("float32")
    with torch.no_grad():
        ours = model(x, training=False)
        with plain():
            theirs = model(x, training=False)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == torch.bfloat16
        np.testing.assert_allclose(a.float(), b.float(), atol=0.05 * float(b.float().abs().max()))


def test_another_keras_stays_plain_and_says_so(monkeypatch, caplog):
    original = layers.BatchNormalization.call
    with plain():
        untouched = layers.BatchNormalization.call
        monkeypatch.setattr(fast_paths, "TESTED", ("3.0",))
        with caplog.at_level(logging.WARNING, logger="keras_xreid"):
            assert fast_torch.enable() is False
        assert layers.BatchNormalization.call is untouched
        assert len(caplog.records) == 1 and keras.__version__ in caplog.text
        monkeypatch.undo()
    assert untouched is not original
    assert layers.BatchNormalization.call is not untouched  # and the fixture's is back
