"""The engine: what a phase updates, what it leaves alone, and how it is saved."""

import os
import platform
import signal

import h5py
import keras
import numpy as np
import pytest
import small
from PIL import Image
from small import Repeat, moved, snapshot, step

import keras_xreid as xr
from keras_xreid.training.phases import Phase, PhasedModel, _PartOptimizers

pytestmark = pytest.mark.backend


@keras.saving.register_keras_serializable("tests")
class Chase(PhasedModel):
    """Two scalars: phase 1 draws a to 1, phase 2 draws b to where a is now; c is frozen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for part in "abc":
            layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name=part)
            layer.build((None, 1))
            setattr(self, part, layer)
        self.c.trainable = False
        self.built = True

    def phases(self):
        def first(batch):
            return {"to_one": keras.ops.mean((self.a(batch["x"]) - 1.0) ** 2)}

        def second(batch):
            gap = self.b(batch["x"]) - self.a(batch["x"]) - self.c(batch["x"])
            return {"to_a": keras.ops.mean(gap**2)}

        return [Phase(("a",), first, ("to_one",)), Phase(("b",), second, ("to_a",))]

    def call(self, x):
        return self.a(x)


ONE = {"x": np.ones((4, 1), "float32"), "person": np.zeros(4, "int32")}


def sgd():
    return {"a": keras.optimizers.SGD(0.25), "b": keras.optimizers.SGD(0.5)}


def values(model):
    return [float(keras.ops.convert_to_numpy(getattr(model, p).kernel)[0, 0]) for p in "abc"]


def test_a_step_by_hand():
    # a: 0 - 0.25 * 2 (0 - 1) = 0.5. b sees the new a: 0 - 0.5 * 2 (0 - 0.5) = 0.5.
    # Then a: 0.5 + 0.25 = 0.75, and b: 0.5 + (0.75 - 0.5) = 0.75.
    model = Chase()
    model.compile(sgd())
    logs = step(model, ONE)
    assert values(model) == [0.5, 0.5, 0.0]
    assert logs == {"to_one": 1.0, "to_a": 0.25}
    step(model, ONE)
    assert values(model) == [0.75, 0.75, 0.0]


@pytest.mark.skipif(platform.system() != "Linux", reason="looks into the pool")
def test_a_killed_worker_is_told_in_the_middle_of_training(tmp_path):
    class Ones(xr.ImageBatches):
        def _named(self, pixels, entries):
            return ONE

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for worker in list(batches._ahead._pool._processes):
                os.kill(worker, signal.SIGKILL)

    records = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 16)).save(path)
        records.append(xr.Record(str(path), number // 2, 1))
    batches = Ones(records, (16, 8), batch_size=4, workers=1)
    model = Chase()
    model.compile(sgd())
    with pytest.raises(xr.InputError, match="a process that prepares batches was killed"):
        model.fit(batches, epochs=50, verbose=0, callbacks=[Kill()])


def test_a_part_without_an_optimizer_stays_as_it_is():
    model = Chase()
    model.c.trainable = True
    model.compile(sgd())
    step(model, ONE)
    assert values(model) == [0.5, 0.5, 0.0]


def test_what_compile_refuses():
    with pytest.raises(ValueError, match=r"no optimizer for b: .* a"):
        Chase().compile({"a": "sgd"})
    shared = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="share"):
        Chase().compile({"a": shared, "b": shared})


def test_a_phase_hands_on_what_it_computed():
    # Phase 1 draws a from 0 to 0.5, and hands on what a gave before, times 2, plus 1; phase 2
    # draws b towards that: 0 - 0.5 * 2 (0 - 1) = 1. A gradient into a would be an error there.
    class Handing(Chase):
        def phases(self):
            first, _ = super().phases()

            def hand_on(batch):
                seen = 2.0 * self.a(batch["x"]) + 1.0
                return first.losses(batch), {"seen": seen}

            def take(batch):
                return {"to_seen": keras.ops.mean((self.b(batch["x"]) - batch["seen"]) ** 2)}

            return [first._replace(losses=hand_on), Phase(("a", "b"), take, ("to_seen",))]

    model = Handing()
    model.compile(sgd())
    logs = step(model, ONE)
    assert values(model) == [0.5, 1.0, 0.0]
    assert logs == {"to_one": 1.0, "to_seen": 1.0}


def test_norms_of_a_phase_that_reads_what_was_handed_on():
    class Handing(Chase):
        def phases(self):
            first, _ = super().phases()

            def hand_on(batch):
                return first.losses(batch), {"seen": 2.0 * self.a(batch["x"]) + 1.0}

            def take(batch):  # b is 0, seen is 1: gradients of -2 and -3
                apart = keras.ops.mean((self.b(batch["x"]) - batch["seen"]) ** 2)
                return {"near": apart, "far": 1.5 * apart}

            return [first._replace(losses=hand_on), Phase(("b",), take, ("near", "far"))]

    model = Handing()
    model.compile(sgd())
    assert model.gradient_norms(ONE) == pytest.approx({"near": 2.0, "far": 3.0})
    assert values(model) == [0.0, 0.0, 0.0]


def test_a_frozen_part_is_still_frozen_when_loaded(tmp_path):
    model = Chase()
    model.a.trainable = False
    model.compile({part: keras.optimizers.Adam(0.1) for part in "ab"}, jit_compile=False)
    for _ in range(3):
        step(model, ONE)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert not again.a.trainable_variables and again.b.trainable_variables
    for part in "ab":
        states = zip(
            model.optimizers[part].variables, again.optimizers[part].variables, strict=True
        )
        assert all(np.array_equal(*map(keras.ops.convert_to_numpy, both)) for both in states)
    assert int(again.optimizers["b"].iterations) == 3
    step(model, ONE)
    step(again, ONE)
    assert values(again) == values(model)


def test_terms_are_announced():
    class Liar(Chase):
        def phases(self):
            first, second = super().phases()
            return [first._replace(terms=("other",)), second]

    model = Liar()
    model.compile(sgd())
    with pytest.raises(ValueError, match="announced the terms"):
        step(model, ONE)


def test_saved_whole_with_every_optimizer(tmp_path):
    def adams():
        return {"a": keras.optimizers.Adam(0.1), "b": keras.optimizers.Adam(0.2)}

    model = Chase()
    model.compile(adams(), jit_compile=False)
    for _ in range(3):
        step(model, ONE)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert float(again.optimizers["b"].learning_rate) == pytest.approx(0.2)
    assert again._compile_arguments["jit_compile"] is False
    assert int(again.optimizers["a"].iterations) == 3
    for _ in range(2):
        step(model, ONE)
        step(again, ONE)
    assert values(again) == values(model)


@pytest.mark.parametrize("earlier", [False, True])
def test_each_optimizer_is_stored_once_and_twice_is_read_too(tmp_path, monkeypatch, earlier):
    if earlier:  # as Keras does it: what each part's optimizer holds, and all of it once more
        monkeypatch.delattr(_PartOptimizers, "save_own_variables")
    models = [Chase(), Chase()]
    for model in models:
        model.compile({name: keras.optimizers.Adam(0.1) for name in "ab"}, jit_compile=False)
    for _ in range(3):
        step(models[0], ONE)
    models[0].save_weights(tmp_path / "a.weights.h5")
    stored = []
    with h5py.File(tmp_path / "a.weights.h5") as file:
        file.visititems(lambda name, x: stored.append(name) if hasattr(x, "shape") else None)
    optimizers = [*models[0].optimizers.values()]
    own = 2  # the count of all steps, and a learning rate that nothing reads
    states = sum(len(optimizer.variables) for optimizer in optimizers)
    assert len([name for name in stored if "optimizer" in name]) == own + states * (1 + earlier)
    models[1].load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(*(model.optimizer.variables for model in models), strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)))


def test_states_belong_to_their_part_in_whatever_order_optimizers_are_given(tmp_path):
    models = [Chase(), Chase()]
    for model, order in zip(models, ("ab", "ba"), strict=True):
        model.compile({part: keras.optimizers.Adam(0.1) for part in order}, jit_compile=False)
    step(models[0], ONE)
    models[0].save_weights(tmp_path / "a.weights.h5")
    models[1].load_weights(tmp_path / "a.weights.h5")
    moments = [
        [keras.ops.convert_to_numpy(model.optimizers[part]._momentums[0]) for part in "ab"]
        for model in models
    ]
    assert moments[0][0] != moments[0][1]
    assert moments[0] == moments[1]


def test_the_order_of_stored_optimizers_stays():
    """Earlier checkpoints and .keras files have it; as the recipes gave them."""
    made = (small.intact(), small.cadnet(), small.rain(), small.adaptive())
    for model in made:
        model.compile()
    assert [list(model.optimizers) for model in made] == [
        ["generator", "discriminator", "association"],
        ["encoder", "decoder", "image_encoder", "classifier", "feature_discriminator",
         "image_discriminator"],
        ["extractor", "decoder", "classifier", "discriminator"],
        ["network", "classifier", "verifier"],
    ]  # fmt: skip


@keras.saving.register_keras_serializable("tests")
class Toy(PhasedModel):
    """A GAN of a few weights, with batch normalization, and dropout where asked for."""

    def __init__(self, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(dropout, seed=1),
                keras.layers.Dense(3),
            ]
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, activation="tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(1),
            ]
        )
        self.built = True

    def phases(self):
        def judge(batch):
            fake = self.discriminator(self.generator(batch["x"], training=True), training=True)
            real = self.discriminator(batch["x"], training=True)
            softplus = keras.ops.softplus
            return {"d": keras.ops.mean(softplus(-real)) + keras.ops.mean(softplus(fake))}

        def deceive(batch):
            fake = self.discriminator(self.generator(batch["x"], training=True), training=True)
            return {"g": keras.ops.mean(keras.ops.softplus(-fake))}

        return [Phase(("discriminator",), judge, ("d",)), Phase(("generator",), deceive, ("g",))]

    def call(self, x):
        return self.generator(x)


def toy(only=None, dropout=0.0):
    from small import fill

    model = fill(Toy(dropout))
    both = model.phases()
    if only is not None:
        model.phases = lambda: [both[only]]
    model.compile(
        {"generator": keras.optimizers.Adam(0.01), "discriminator": keras.optimizers.Adam(0.02)}
    )
    return model


def points(seed=0):
    x = np.random.default_rng(seed).normal(size=(16, 3)).astype("float32")
    return {"x": x, "person": np.zeros(16, "int32")}


@pytest.mark.parametrize("phase, part, other", [(0, 1, 0), (1, 0, 1)])
def test_a_phase_moves_all_of_its_part_and_nothing_else(phase, part, other):
    model = toy(only=phase)
    parts = model.generator, model.discriminator
    before = [snapshot(p) for p in parts]
    step(model, points())
    # Both parts run in training mode in both phases, so both compute batch statistics.
    assert moved(before[other], parts[other]) == set()
    unmoved = {v.path for v in parts[part].weights} - moved(before[part], parts[part])
    # The generator's first bias is followed by a normalization that takes it out again, but its
    # gradient is only zero up to rounding; everything else moves for certain.
    assert all(path.endswith("bias") for path in unmoved)
    assert any("moving_mean" in path for path in moved(before[part], parts[part]))


def test_dropout_goes_on_after_loading(tmp_path):
    path = tmp_path / "toy.weights.h5"
    model = toy(dropout=0.5)
    step(model, points())
    model.save_weights(path)
    again = toy(dropout=0.5)
    again.load_weights(path)
    for seed in (1, 2):
        assert step(model, points(seed)) == step(again, points(seed))
    for a, b in zip(snapshot(model), snapshot(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_keeps_float32_weights():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = toy()
        before = snapshot(model.generator)
        logs = step(model, points())
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(list(logs.values())))
    assert {str(v.dtype) for v in model.weights} == {"float32"}
    assert moved(before, model.generator)


def test_a_gradient_that_is_not_there_is_zero():
    model = Chase()
    model.compile(sgd())
    lonely = Phase(("b",), model.phases()[0].losses, ("to_one",))
    _, gradients = model.phase_gradients(lonely, {"x": keras.ops.ones((4, 1))})
    assert float(keras.ops.convert_to_numpy(gradients[0])[0, 0]) == 0.0


def test_many_batches_through_fit():
    model = toy()
    history = model.fit(Repeat(points(1), points(2)), epochs=3, verbose=0, shuffle=False).history
    assert len(history["d"]) == 3
    assert int(model.optimizers["generator"].iterations) == 6


def test_evaluation_sees_the_same_batches_each_time(tmp_path):
    class Means(xr.ImageBatches):
        def _named(self, pixels, entries):
            seen = pixels.mean((0, 2, 3, 4)).astype("float32") / 255
            return {"x": seen[:, None], "person": entries["person"]}

    def batches():
        return Means(records, (16, 8), rates=(1, 2, 4), batch_size=4)

    records = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (32, 16, 3), "uint8")
        Image.fromarray(pixels).save(path)
        records.append(xr.Record(str(path), number // 2, 1))
    model = Chase()
    model.compile({part: keras.optimizers.SGD(0.0) for part in "ab"})
    model.a.kernel.assign([[0.5]])
    train, held_out = batches(), batches()
    told = model.fit(train, epochs=3, validation_data=held_out, verbose=0).history
    assert len(set(told["loss"])) == 3 and len(set(told["val_loss"])) == 1
    found = {model.evaluate(data, verbose=0, return_dict=True)["loss"] for data in 2 * [held_out]}
    assert found == set(told["val_loss"])
    model.evaluate(train, verbose=0)
    assert (train.epoch, held_out.epoch) == (3, 0)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    def fit(optimizer):
        model, batches = Chase(), Repeat(ONE)
        model.compile({part: optimizer(0.1) for part in "ab"})
        model.fit(batches, verbose=0, callbacks=[xr.Checkpoint(tmp_path / "a.weights.h5", batches)])

    fit(keras.optimizers.SGD)
    with pytest.raises(xr.InputError, match=r"no checkpoint of this model .*optimizer"):
        fit(keras.optimizers.Adam)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others always do so")
def test_a_number_below_1e_38_is_zero_in_training_alone():
    small, seen = keras.ops.convert_to_tensor(np.float32(1e-39)), []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(small * 1.0))

    model = Chase()
    model.compile(sgd())
    model.fit(Repeat(ONE), verbose=0, callbacks=[Seen()])
    assert seen == [0.0] and float(small * 1.0) > 0


@pytest.mark.skipif(
    keras.backend.backend() != "torch" or platform.libc_ver()[0] != "glibc",
    reason="only PyTorch on glibc is told",
)
def test_memory_is_kept_in_training_alone(monkeypatch):
    """Pages fetched anew for what has just been freed, by the system's count: none in training,
    and afterwards none for blocks that glibc would have learned to keep."""
    import resource  # not there on Windows

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)

    def pages(megabytes=160):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            keras.ops.ones((megabytes, 1 << 18), "float32")
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pages()
            seen.append(pages())

    seen, model = [], Chase()
    model.compile(sgd())
    model.fit(Repeat(ONE), verbose=0, callbacks=[Seen()])
    assert seen[0] < 50 < pages()
    pages(8)
    assert pages(8) < 50


def test_a_phase_without_anything_to_train_is_no_error():
    model = Chase()
    model.compile(sgd())
    model.b.trainable = False
    step(model, ONE)
    assert values(model) == [0.5, 0.0, 0.0]


def test_what_is_freed_between_fits_is_looked_up_anew(monkeypatch):
    model, count, look_up = Chase(), [], Chase._look_up
    monkeypatch.setattr(Chase, "_look_up", lambda self: count.append(1) or look_up(self))
    model.compile(sgd())
    model.b.trainable = False
    model.fit(Repeat(ONE, ONE), epochs=2, verbose=0)
    assert len(count) == 1  # and not in each of four steps
    first = values(model)
    assert first[0] > 0 and first[1] == 0
    model.b.trainable = True
    model.make_train_function(force=True)
    model.fit(Repeat(ONE, ONE), epochs=2, verbose=0)
    assert values(model)[1] > 0


def test_weights_of_the_model_itself_are_saved(tmp_path):
    class Scaled(Chase):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

    model = Scaled()
    model.scale.assign(3.0)
    model.save_weights(tmp_path / "scaled.weights.h5")
    again = Scaled()
    again.load_weights(tmp_path / "scaled.weights.h5")
    assert float(keras.ops.convert_to_numpy(again.scale)) == 3.0
