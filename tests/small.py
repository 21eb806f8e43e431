"""Small models and batches with the same numbers on every backend."""

import functools

import keras
import numpy as np
import pytest

import keras_xreid as xr

SIZE = (64, 32)
PEOPLE = 5

# Of what a whole network computes: `test_parity.py`, and the step that every system takes in
# `test_systems.py`, are enough there.
not_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles each network anew, which takes minutes"
)

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="other systems show it, or another test"
)


def fill(model, seed=0):
    """Sets every weight from NumPy, by its name and shape: backends draw different numbers.

    With other scales of the kernels an activation can lie within rounding of ReLU's kink, fall on
    either side of it, and set gradients of two backends 5e-3 apart instead of 1e-5.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.path.split("/")[-1]
        if name == "introduced":  # a switch: every mask is there
            continue
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.7, 1.3, shape)
        elif name in ("kernel", "pointwise_kernel", "depthwise_kernel") and len(shape) > 1:
            value = rng.normal(0, (1.0 / np.prod(shape[:-1])) ** 0.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        variable.assign(value.astype("float32"))
    return model


def intact(**kwargs):
    """INTACT as a toy: every part there, few channels."""
    options = {
        "preset": "tiny", "image_size": SIZE, "generator_widths": (4, 6, 8, 8),
        "discriminator_width": 4, "batch_normalization": True,
    }  # fmt: skip
    options = {**options, **kwargs}
    return fill(xr.INTACT(PEOPLE, backbone=options.pop("backbone", None) or Levels(), **options))


@keras.saving.register_keras_serializable("tests")
class Levels(keras.Model):
    """Stands in for a KerasCV backbone: five maps, of strides 4, 4, 8, 16 and 16."""

    def __init__(self, width=4, **kwargs):
        x = image = keras.Input((None, None, 3))
        levels = {}
        for i, strides in enumerate((4, 1, 2, 2, 1), start=1):
            x = keras.layers.Conv2D(
                width + i, 3, strides, "same", data_format="channels_last", use_bias=False
            )(x)
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
            x = levels[f"P{i}"] = keras.layers.ReLU()(x)
        super().__init__(image, x, **kwargs)
        self.width, self.pyramid_outputs = width, levels

    def get_config(self):
        return {"width": self.width}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def rain(**kwargs):
    """RAIN as a toy."""
    return _dual(xr.RAIN, kwargs)


def cadnet(**kwargs):
    """CAD-Net as a toy."""
    return _dual(xr.CADNet, kwargs)


def adaptive(**kwargs):
    """Resolution-adaptive representations as a toy: sub-vectors of 2, 3, 4 and 5."""
    options = {"preset": "tiny", "image_size": SIZE, "sizes": [2, 3, 4, 5], **kwargs}
    return fill(xr.Adaptive(PEOPLE, backbone=options.pop("backbone", None) or Levels(), **options))


def baseline(**kwargs):
    """The baseline as a toy, with all its terms."""
    options = {
        "preset": "tiny", "image_size": SIZE, "triplet": 1.0, "verification": 1.0, **kwargs,
    }  # fmt: skip
    return fill(xr.Baseline(PEOPLE, backbone=options.pop("backbone", None) or Levels(), **options))


def distilled(**kwargs):
    """Feature distillation as a toy, with all its terms; the teacher is another network."""
    options = {"preset": "tiny", "image_size": SIZE, "triplet": 1.0, **kwargs}
    backbone = options.pop("backbone", None) or Levels()
    return fill(xr.Distilled(PEOPLE, backbone=backbone, **options))


def one_per_rate(**kwargs):
    """A toy network for each of two rates."""
    options = {"preset": "tiny", "image_size": SIZE, "rates": (2, 4), **kwargs}
    backbone = options.pop("backbone", None) or Levels()
    return fill(xr.OnePerRate(PEOPLE, backbone=backbone, **options))


def panned(**kwargs):
    """Vector panning as a toy."""
    options = {"preset": "tiny", "image_size": SIZE, "hidden": 6, **kwargs}
    return fill(xr.Panned(PEOPLE, backbone=options.pop("backbone", None) or Levels(), **options))


def panned_pairs(seed=0):
    """Pairs of images, and pairs of embeddings as `Panned` learns from."""
    rng = np.random.default_rng(seed)
    features = {name: rng.normal(size=(4, 9)).astype("float32") for name in ("feature", "target")}
    return {**couples(seed), **features, "rate": np.array([4, 1, 2, 3], "float32")}


def shared(make, **options):
    """A toy that is built once a session, with the weights that it began with.

    For tests that change nothing of it but weights and optimizers.

    Args:
        make: one of the functions above.
        **options: its arguments, hashable ones.
    """
    model, weights = _built(make, tuple(sorted(options.items())))
    model.set_weights(weights)
    return model


@functools.cache
def _built(make, options):
    model = make(**dict(options))
    return model, model.get_weights()


def images(seed=0):
    """Two images of each of two people, as `ImageBatches` makes it."""
    batch = couples(seed)
    return {"image": batch["hr"], "person": batch["person"]}


def levels(seed=0):
    """Two images of each of two people, their LR images at four different rates."""
    return {**couples(seed), "rate": np.array([4, 1, 2, 3], "int32")}


def _dual(system, kwargs):
    options = {
        "preset": "tiny", "image_size": SIZE, "decoder_widths": (6, 5, 4, 4),
        "discriminator_width": 2,
    }  # fmt: skip
    options = {**options, **kwargs}
    model = fill(system(PEOPLE, backbone=options.pop("backbone", None) or Levels(), **options))
    # Of a map of 4x2 a 4x4 kernel sees padding, mostly: larger numbers keep its signal up.
    judge = getattr(model, "feature_discriminator", None) or getattr(model, "discriminator", None)
    for variable in judge.trainable_variables if judge else ():
        if len(variable.shape) == 4:
            variable.assign(8.0 * variable)
    return model


def independent(n=4, seed=0):
    """A batch whose HR images were drawn on their own: two people on either side."""
    low, high = pairs(n, seed), pairs(n, seed + 1)
    return {
        "hr": high["hr"],
        "hr_person": (3 - np.arange(n) // 2).astype("int32"),
        "lr": low["lr"],
        "target": low["hr"],
        "person": (np.arange(n) // 2).astype("int32"),
        "rate": low["rate"],
    }


def pairs(n=8, seed=0):
    """A batch as `PairBatches` makes it: smooth images, and coarser versions of them."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (n, SIZE[0] // 8, SIZE[1] // 8, 3))
    smooth = np.repeat(np.repeat(coarse, 8, 1), 8, 2)
    hr = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype("uint8")
    return {
        "hr": hr,
        "lr": smooth.astype("uint8"),
        "person": (np.arange(n) % PEOPLE).astype("int32"),
        "rate": np.full(n, 4, "int32"),
    }


def couples(seed=0):
    """Two images of each of two people, as `PairBatches` makes it of P people."""
    return {**pairs(4, seed), "person": np.array([0, 0, 1, 1], "int32")}


class Repeat(keras.utils.PyDataset):
    """The same few batches every epoch."""

    def __init__(self, *batches):
        super().__init__()
        self.batches, self.batch_size, self.epoch = batches, len(batches[0]["person"]), 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def step(model, batch):
    """One train step through `fit`, as a user takes it; the logs, but for "loss", their sum."""
    history = model.fit(Repeat(batch), epochs=1, verbose=0, shuffle=False).history
    return {name: values[0] for name, values in history.items() if name != "loss"}


def compiled(model, rate=None):
    """Compiles a model, perhaps with SGD at one rate for all; 0 leaves its weights as they are.

    Steps are run as they are written: to trace one takes longer than to run it. Batches of one
    size are quick on JAX, which compiles every operation for every shape.
    """
    optimizer = None
    if rate is not None:
        parts = {part for phase in model.phases() for part in phase.updates}
        optimizer = {part: keras.optimizers.SGD(float(rate)) for part in parts}
    model.compile(optimizer, run_eagerly=True)
    return model


def reached(model, *terms):
    """Which kernels a gradient of these terms of the first phase reaches, in which parts.

    Returns:
        Dict from part to (number of kernels reached, number of kernels), of the parts reached.
    """
    phases = model.phases()
    parts = [getattr(model, part) for phase in phases for part in phase.updates]
    kernels = {
        part.name: [v for v in part.trainable_variables if v.path.endswith("kernel")]
        for part in parts
    }

    def losses(batch):
        found = phases[0].losses(batch)
        found = found[0] if isinstance(found, tuple) else found
        return {term: found[term] for term in terms}

    model.phases = lambda: [phases[0]._replace(losses=losses, terms=terms, measures=())]
    compiled(model, rate=1.0)
    before = {part: arrays(own) for part, own in kernels.items()}
    step(model, couples())
    model.phases = lambda: phases
    found = {}
    for part, own in kernels.items():
        changed = [
            not np.array_equal(*both) for both in zip(before[part], arrays(own), strict=True)
        ]
        if any(changed):
            found[part] = (sum(changed), len(own))
    return found


def moved_by(model, phase, parts):
    """What one phase's update moves, after the phases before it, in which parts.

    Returns:
        Dict from part to the paths of the variables moved.
    """
    batch = model.prepare({k: keras.ops.convert_to_tensor(v) for k, v in couples().items()})
    phases = model.phases()
    for before in phases[: phases.index(phase)]:
        model.phase_gradients(before, batch)
    kept = {name: snapshot(getattr(model, name)) for name in parts}
    _, gradients = model.phase_gradients(phase, batch)
    gradients = iter(gradients)
    for name in phase.updates:
        variables = getattr(model, name).trainable_variables
        model.optimizers[name].apply([next(gradients) for _ in variables], variables)
    return {name: moved(kept[name], getattr(model, name)) for name in parts}


def on_device(batch):
    """A batch as a train step sees it."""
    return {name: keras.ops.convert_to_tensor(value) for name, value in batch.items()}


def arrays(tensors):
    """A tensor or a list of them as a list of NumPy arrays."""
    tensors = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    return [np.array(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))) for x in tensors]


def softplus(x):
    """Mean of log(1 + e^x)."""
    return np.logaddexp(0.0, x).mean()


def entropy(logits, labels):
    """Mean cross-entropy of integer labels."""
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return -np.mean([row[label] for row, label in zip(log_p, labels, strict=True)])


def batch_hard(features, labels, margin):
    """Batch-hard triplet loss, image by image."""
    found = []
    for i, label in enumerate(labels):
        apart = [np.linalg.norm(features[i] - x) for x in features]
        same = [d for j, d in enumerate(apart) if labels[j] == label and j != i]
        other = [d for j, d in enumerate(apart) if labels[j] != label]
        if same and other:
            found.append(max(0.0, margin + max(same) - min(other)))
    return np.mean(found) if found else 0.0


def snapshot(part):
    """The values of a part's weights, moving averages included."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in part.weights]


def moved(before, part):
    """Which of a part's weights differ from before, by path."""
    return {
        v.path
        for v, old in zip(part.weights, before, strict=True)
        if not np.array_equal(old, keras.ops.convert_to_numpy(v))
    }
