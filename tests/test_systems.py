"""What every system must do, whatever its paper says: one row of `SYSTEMS` tests a new one."""

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Callable

import h5py
import keras
import numpy as np
import pytest
from small import (
    PEOPLE,
    SIZE,
    Levels,
    adaptive,
    arrays,
    baseline,
    cadnet,
    compiled,
    couples,
    distilled,
    images,
    intact,
    levels,
    moved,
    not_on_jax,
    on_device,
    on_torch,
    one_per_rate,
    panned,
    panned_pairs,
    rain,
    shared,
    snapshot,
    step,
)

import keras_xreid as xr
from keras_xreid.evaluation.distances import model_distances

RATES = np.array([4, 1, 2, 3])
# Where the weights come from is not kept; of Adaptive's d its sizes are.
NOT_KEPT = {"weights", "dim"}


@dataclasses.dataclass(frozen=True)
class System:
    """A row: what these tests know of a system.

    Args:
        kind: the class.
        make: function of `small.py`, from options to a toy that has every part.
        batch: function from a seed to a batch.
        phases: the parts that each phase of the toy updates, in the paper's order.
        optimizers: dict from a part to its default optimizer, see `described`; None where
            `compile` asks for them.
        variants: (options, the parts that are trained, the terms that are shown) of each.
        refused: (options, words of the message) of what only this system refuses.
    """

    kind: type
    make: Callable
    batch: Callable
    phases: tuple
    optimizers: dict | None = None
    variants: tuple = ()
    refused: tuple = ()


def adam(rate):
    return ("Adam", rate, None, None)


SGD, CRITIC = ("SGD", 1e-3, 0.9, 5e-3), ("SGD", 1e-4, 0.0, None)

SYSTEMS = (
    System(
        xr.Baseline, baseline, images, phases=(("network", "verifier"),),
        variants=(
            ({}, "network verifier", "id triplet verification"),
            ({"triplet": 0, "verification": 0}, "network", "id"),
            ({"triplet": 0.5, "verification": 0, "margin": 0.7}, "network", "id triplet"),
        ),
    ),
    System(
        xr.INTACT, intact, couples, phases=(("discriminator",), ("association",), ("generator",)),
        optimizers={
            "discriminator": adam(1e-4), "association": adam(1e-3), "generator": adam(1e-4),
        },
        variants=(
            (
                {}, "discriminator association generator",
                "discriminator phi bridge mse id gan association",
            ),
            ({"supervision": "mse"}, "generator", "mse"),
            ({"supervision": "mse+id"}, "generator", "mse id"),
            (
                {"bridge": False}, "discriminator association generator",
                "discriminator phi mse id gan association",
            ),
            (
                {"association": "common"}, "discriminator association generator",
                "discriminator phi mse id gan association",
            ),
            (
                {"association": "d-to-r"}, "discriminator association generator",
                "discriminator phi bridge mse id gan association",
            ),
            (
                {"supervision": "mse+id+gan"}, "discriminator generator",
                "discriminator mse id gan",
            ),
        ),
        refused=(
            ({"supervision": "mse+gan"}, r"'mse\+gan'.*full"),
            ({"critic_statistics": "none"}, "'none'.*moving or batch"),
            ({"image_size": (72, 40)}, "72x40"),
        ),
    ),
    System(
        xr.RAIN, rain, couples,
        phases=(("extractor", "decoder", "classifier"), ("discriminator",)),
        optimizers={
            "extractor": SGD, "decoder": SGD, "classifier": SGD, "discriminator": CRITIC,
        },
        variants=(
            (
                {"classification": 0}, "extractor decoder discriminator",
                "triplet reconstruction adversarial discriminator",
            ),
            (
                {"triplet": 0, "adversarial": 0}, "extractor decoder classifier",
                "id reconstruction",
            ),
            (
                {"reconstruction": 0}, "extractor classifier discriminator",
                "id triplet adversarial discriminator",
            ),
            (
                {"levels": (5,), "settings": "authors-code", "adversarial": 0.5},
                "extractor decoder classifier discriminator",
                "id triplet reconstruction adversarial discriminator",
            ),
        ),
        refused=(
            ({"settings": "other"}, "'other'.*paper, authors-code"),
            ({"levels": (4, 6)}, r"levels \(4, 6\).* 1 to 5"),
            ({"levels": ()}, r"levels \(\).* 1 to 5"),
            ({"triplet": -1.0}, "1, -1, 1, 1"),
            (
                {"classification": 0, "triplet": 0, "reconstruction": 0, "adversarial": 0},
                "0, 0, 0, 0",
            ),
            ({"image_size": (72, 40)}, "72x40"),
        ),
    ),
    System(
        xr.CADNet, cadnet, couples,
        phases=(
            ("encoder", "decoder", "image_encoder", "classifier"), ("feature_discriminator",),
            ("image_discriminator",),
        ),
        optimizers={
            "encoder": SGD, "decoder": SGD, "image_encoder": SGD, "classifier": SGD,
            "feature_discriminator": CRITIC, "image_discriminator": CRITIC,
        },
        variants=(
            (
                {"reconstruction": 0},
                "encoder decoder image_encoder classifier feature_discriminator "
                "image_discriminator",
                "id triplet adversarial_features adversarial_images feature_discriminator "
                "image_discriminator",
            ),
            (
                {"adversarial_features": 0},
                "encoder decoder image_encoder classifier image_discriminator",
                "id triplet reconstruction adversarial_images image_discriminator",
            ),
            (
                {"features": "f", "reconstruction": 0, "adversarial_images": 0},
                "encoder classifier feature_discriminator",
                "id triplet adversarial_features feature_discriminator",
            ),
            (
                {"features": "f", "adversarial_images": 0.5},
                "encoder decoder classifier feature_discriminator image_discriminator",
                "id triplet reconstruction adversarial_features adversarial_images "
                "feature_discriminator image_discriminator",
            ),
        ),
        refused=(
            ({"features": "gf"}, "'gf'.*fg, f, g"),
            ({"reconstruction": -0.5}, "1, -0.5, 1, 1"),
            (
                {
                    "classification": 0, "reconstruction": 0, "adversarial_features": 0,
                    "adversarial_images": 0,
                },
                "0, 0, 0, 0",
            ),
            ({"image_size": (72, 40)}, "72x40"),
        ),
    ),
    System(
        xr.Adaptive, adaptive, levels, phases=(("network", "classifier", "verifier"),),
        optimizers={
            "network": adam(3.5e-4), "classifier": adam(3.5e-4), "verifier": adam(3.5e-4),
        },
        variants=(
            ({"masks": False}, "network classifier verifier", "id verification"),
            ({"varying_length": False}, "network classifier verifier", "id verification"),
            (
                {"masks": False, "varying_length": False}, "network classifier verifier",
                "id verification",
            ),
            ({"classification": 0}, "network verifier", "verification"),
            ({"verification": 0}, "network classifier", "id"),
            (
                {"rates": (4, 2, 1), "sizes": (3, 3, 2)}, "network classifier verifier",
                "id verification",
            ),
        ),
        refused=(
            ({"rates": (1, 2, 2, 4)}, "each level's rate once"),
            ({"rates": (1, 2, 3, 0.5)}, "0.5 is below 1"),
            ({"rates": (1, 2, 3)}, r"sizes \[2, 3, 4, 5\] for 3 levels"),
            ({"sizes": [2, 3, 4, 0]}, "1 or more"),
            ({"dim": 15}, "15 dimensions"),
            ({"classification": 0, "verification": 0}, "not all 0"),
        ),
    ),
    System(
        xr.Distilled, distilled, couples, phases=(("network",),),
        variants=(
            ({}, "network", "id triplet taps relation"),
            ({"tap_weight": 0}, "network", "id triplet relation"),
            ({"tap_weight": 0, "relation_weight": 0}, "network", "id triplet"),
            (
                {"relation_weight": 0, "triplet": 0, "neck": True, "label_smoothing": 0.1},
                "network", "id taps",
            ),
        ),
        refused=(
            ({"tap_weight": -1}, "tap weight -1.*0"), ({"relation_weight": -1}, "relation weight"),
        ),
    ),
    System(
        xr.OnePerRate, one_per_rate, images, phases=(("network", "verifier"),),
        variants=(
            ({"verification": 0}, "network", "id"),
            ({"neck": True, "label_smoothing": 0.1}, "network verifier", "id verification"),
        ),
        refused=(({"rates": (2, 0.5)}, "0.5 is below 1"),),
    ),
    System(
        xr.Panned, panned, panned_pairs, phases=(("mlp",),),
        variants=(({}, "mlp", "mse"),),
        refused=(({"rates": (2, 0.5)}, "0.5 is below 1"), ({"hidden": 0}, "hidden.*1 or more")),
    ),
)  # fmt: skip


def rows(cases=lambda system: [((), [])], leave=not_on_jax, but=None):
    """The systems as parameters.

    Args:
        cases: function from a system to its cases: values of further parameters, the first of
            which names the case, and marks.
        leave: the mark of the systems that are left out somewhere.
        but: the classes that are not; None leaves out none.
    """
    found = []
    for system in SYSTEMS:
        left_out = [leave] if but and system.kind not in but else []
        for values, marks in cases(system):
            name = "-".join([system.kind.__name__, *map(name_of, values[:1])])
            found.append(pytest.param(system, *values, id=name, marks=left_out + marks))
    return found


def name_of(value):
    if isinstance(value, dict):
        return ",".join(f"{key}={x}" for key, x in value.items()) or "default"
    return str(value)


every_system = pytest.mark.parametrize("system", rows())
# What is the same code for all is run for two of them on JAX, which compiles each network anew,
# or on both other backends.
two_on_jax = pytest.mark.parametrize("system", rows(but=(xr.Baseline, xr.INTACT)))
two_elsewhere = pytest.mark.parametrize(
    "system", rows(leave=on_torch, but=(xr.Baseline, xr.INTACT))
)


def trained(model):
    """The models that are trained: the system itself, or its networks, each on its own."""
    return [model.panning] if isinstance(model, xr.Panned) else networks(model)


def networks(model):
    """The models that embed."""
    return getattr(model, "networks", [model])


def ready(system, model):
    """Compiles with the system's own optimizers, or with Adam where it has none; eagerly."""
    if system.optimizers is not None:
        return compiled(model)
    parts = {part for phase in model.phases() for part in phase.updates}
    model.compile({part: keras.optimizers.Adam(1e-3) for part in parts}, run_eagerly=True)
    return model


def one_step(system, model, seed=0):
    """A step of every model that is trained; the logs of each."""
    batch = system.batch(seed)
    if isinstance(model, xr.Panned):  # embeddings as wide as this backbone's
        wide = (len(batch["rate"]), model.panning.dimension)
        batch |= {name: np.resize(batch[name], wide) for name in ("feature", "target")}
    return [step(ready(system, network), batch) for network in trained(model)]


def people_of(system, n=4):
    """Images of a batch, as `embed` takes them."""
    batch = system.batch(0)
    return batch["lr" if "lr" in batch else "image"][:n]


def plain(model):
    """A model's configuration as a weights file keeps it."""
    return json.loads(json.dumps(model.get_config()))


def assert_same(system, model, again):
    """Both are the same model: configuration, weights, embeddings and recovered images."""
    assert type(again) is system.kind
    assert plain(again) == {**plain(model), "name": again.name}
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)), err_msg=a.path)
    people = people_of(system)
    np.testing.assert_array_equal(again.embed(people, RATES), model.embed(people, RATES))
    assert hasattr(again, "recover") == hasattr(model, "recover")
    if hasattr(model, "recover"):
        np.testing.assert_array_equal(again.recover(people), model.recover(people))


def inside(model):
    """Every layer of a model and of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from inside(layer)


def maps_of(model):
    """Shapes of what the layers of a model return."""
    found = set()
    for layer in inside(model):
        with contextlib.suppress(AttributeError, ValueError):  # a layer used twice has no output
            found.add(tuple(getattr(layer.output, "shape", ())))
    return found


# --- configuration ---------------------------------------------------------------------------


@every_system
def test_every_option_is_in_the_config(system):
    """What the constructor takes comes back from `get_config`, and not as its default."""
    config = plain(shared(system.make))
    taken = set(inspect.signature(system.kind.__init__).parameters) - {"self", "kwargs"}
    assert taken - NOT_KEPT <= set(config)

    def another(value):
        if isinstance(value, bool):
            return not value
        if isinstance(value, float):
            return value / 2 + 0.25
        return value + 1 if isinstance(value, int) else value

    config.update({name: another(config[name]) for name in taken & set(config)})
    assert plain(system.kind.from_config(config)) == config


# --- distances -------------------------------------------------------------------------------


def with_and_without_neck(system):
    taken = inspect.signature(system.kind.__init__).parameters
    more = {"prefixes": True} if "prefixes" in taken else {}
    return [(({},), []), (({"neck": True, **more},), [])]


@pytest.mark.parametrize("system, options", rows(with_and_without_neck))
def test_scores_are_by_the_distances_of_the_system(system, options):
    """What an evaluation ranks by is what `distances` measures, for queries of every rate."""
    model = shared(system.make, **options)
    people = people_of(system)
    query, gallery = model.embed(people, RATES), model.embed(people, 1)
    ranked_by = model_distances(model, query, gallery, RATES)[slice(0, len(people))]
    measured = model.distances(query, gallery, query_rates=RATES)
    np.testing.assert_allclose(ranked_by, measured, rtol=1e-5, atol=1e-5)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.backend
@two_on_jax
def test_saved_whole(system, tmp_path):
    """With its optimizers, so that the next step is the same; a given backbone is copied."""
    backbone = Levels()
    before, free = snapshot(backbone), len(backbone.trainable_variables)
    model = system.make(backbone=backbone)
    one_step(system, model)
    assert moved(before, backbone) == set() and len(backbone.trainable_variables) == free
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.name == model.name
    assert_same(system, model, again)
    assert again.compiled == model.compiled
    if model.compiled:
        for part, optimizer in model.optimizers.items():
            kept = zip(optimizer.variables, again.optimizers[part].variables, strict=True)
            assert all(np.array_equal(*arrays(both)) for both in kept), part
        batch = system.batch(1)
        assert step(again, batch) == pytest.approx(step(model, batch), rel=1e-5)
        # Rounding may fall on either side of a ReLU's kink: threads add in any order.
        for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.backend
@two_elsewhere
def test_a_weights_file_says_what_it_is(system, tmp_path):
    model = named(system, "resnet_tiny", last_stride=2)
    for network in trained(model):
        ready(system, network)  # the file leaves optimizers out
    xr.save(model, tmp_path / "model.weights.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["model.weights.h5"]
    with h5py.File(tmp_path / "model.weights.h5") as file:
        names = []
        file.visit(names.append)
        assert not [name for name in names if "optimizer" in name]
    assert all(network.optimizers for network in trained(model))  # and training may go on
    again = xr.load(tmp_path / "model.weights.h5")
    assert (again.people, again.image_size) == (PEOPLE, SIZE)
    assert_same(system, model, again)
    # A backbone that was given is no name, and nothing is written of it.
    with pytest.raises(xr.InputError, match="save it whole"):
        xr.save(shared(system.make), tmp_path / "given.weights.h5")
    assert len(list(tmp_path.iterdir())) == 1


# --- precision -------------------------------------------------------------------------------


@pytest.mark.backend
@pytest.mark.parametrize("system", rows(but=(xr.Baseline,)))
def test_bfloat16(system):
    people = people_of(system)
    full = shared(system.make).embed(people, 4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = system.make()
        found = model.embed(people, 4)
        logs = []
        for network in trained(model):
            ready(system, network)
            if keras.backend.backend() == "jax":
                # It has compiled nothing in this precision: one program is made sooner.
                network.run_eagerly = False
            logs.append(step(network, system.batch(0)))
    finally:
        keras.config.set_dtype_policy("float32")
    # The same weights: the embeddings are those of float32, rounded on their way.
    apart = np.abs(found - full).max() / np.abs(full).max()
    assert found.dtype == np.float32 and 0 < apart < 0.1
    assert np.isfinite([x for each in logs for x in each.values()]).all()
    assert {str(v.dtype) for v in model.weights} == {"float32"}
    after = model.embed(people, 4)
    assert np.isfinite(after).all() and after.dtype == np.float32
    if hasattr(model, "recover"):
        assert model.recover(people).dtype == np.float32
    # Built again, the parts keep their precision, whatever is in force now.
    again = system.kind.from_config(model.get_config())
    for each in (model, again):
        assert {layer.dtype_policy.name for layer in inside(each)} == {"mixed_bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


# --- use -------------------------------------------------------------------------------------


@every_system
def test_any_batch_size(system):
    model, people = shared(system.make), people_of(system)
    whole = model.embed(people, RATES)
    assert (
        whole.shape[0] == 4 and whole.dtype == np.float32 and np.abs(np.diff(whole, axis=0)).any()
    )
    for n, batch_size in ((1, 64), (3, 2), (4, 1)):
        found = model.embed(people[:n], RATES[:n], batch_size=batch_size)
        np.testing.assert_allclose(found, whole[:n], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.embed(people / np.float32(255), RATES), whole, rtol=1e-4, atol=1e-5
    )
    assert model.embed(people[:0]).shape[0] == 0
    for network in trained(model):
        ready(system, network)
        for n in (2, 3):
            logs = step(network, {name: value[:n] for name, value in system.batch(0).items()})
            assert np.isfinite(list(logs.values())).all(), n


# --- training --------------------------------------------------------------------------------


def default_and_last(system):
    """The toy as it is, and its last variant: options and parts that are trained."""
    every = " ".join(part for phase in system.phases for part in phase)
    return [(({}, every), []), (system.variants[-1][:2], [])]


@pytest.mark.backend
@pytest.mark.parametrize("system, options, parts", rows(default_and_last))
def test_a_phase_moves_its_own_parts_and_nothing_else(system, options, parts):
    expected = [tuple(x for x in phase if x in parts.split()) for phase in system.phases]
    for model in trained(shared(system.make, **options)):
        compiled(model, rate=1.0)
        phases = model.phases()
        assert [tuple(phase.updates) for phase in phases] == [x for x in expected if x]
        # Every weight that is not frozen is trained, by one phase.
        owned = [
            id(v)
            for phase in phases
            for part in phase.updates
            for v in getattr(model, part).trainable_variables
        ]
        assert sorted(owned) == sorted(id(v) for v in model.trainable_variables)
        batch = model.prepare(on_device(system.batch(0)))
        for phase in phases:
            before = snapshot(model)
            _, gradients = model.phase_gradients(phase, batch)
            gradients = iter(gradients)
            for part in phase.updates:
                variables = getattr(model, part).trainable_variables
                model.optimizers[part].apply([next(gradients) for _ in variables], variables)
            changed = {
                id(v)
                for v, old in zip(model.weights, before, strict=True)
                if not np.array_equal(old, keras.ops.convert_to_numpy(v))
            }
            for part in phase.updates:
                for v in getattr(model, part).weights:
                    kind = v.path.split("/")[-1]
                    if kind in ("kernel", "gamma", "beta", "moving_mean", "moving_variance"):
                        assert id(v) in changed, f"{v.path} of {part} stayed as it was"
            own = {id(v) for part in phase.updates for v in getattr(model, part).weights}
            others = [v.path for v in model.weights if id(v) in changed - own]
            assert not others, f"{phase.updates} moved {others}"


def described(optimizer):
    """Name, learning rate, momentum and weight decay."""
    rate = pytest.approx(float(optimizer.learning_rate))
    momentum = getattr(optimizer, "momentum", None)
    return type(optimizer).__name__, rate, momentum, optimizer.weight_decay


@every_system
def test_default_optimizers(system):
    for model in trained(shared(system.make)):
        if system.optimizers is None:
            with pytest.raises(xr.InputError, match="compile"):
                model.compile()
            continue
        model.compile()
        assert {part: described(x) for part, x in model.optimizers.items()} == system.optimizers


def variants_of(system):
    """On all backends those of INTACT's association, which are other networks; else on one."""
    return [
        (variant, [pytest.mark.backend] if "association" in variant[0] else [])
        for variant in system.variants
    ]


@pytest.mark.parametrize("system, options, parts, terms", rows(variants_of))
def test_every_variant_trains(system, options, parts, terms):
    model = shared(system.make, **options)
    config = plain(model)
    assert {name: config[name] for name in options} == json.loads(json.dumps(options))
    every = {part for phase in system.phases for part in phase}
    for network in trained(model):
        there = {part for part in every if getattr(network, part) is not None}
        assert there == set(parts.split())
        ready(system, network)
        before = {part: snapshot(getattr(network, part)) for part in there}
        logs = step(network, system.batch(0))
        assert np.isfinite(list(logs.values())).all()
        right = [value for name, value in logs.items() if "accuracy" in name]
        assert all(0 <= value <= 1 for value in right)
        assert {name for name in logs if "accuracy" not in name} == set(terms.split())
        for part in there:
            assert moved(before[part], getattr(network, part)), part
    assert np.isfinite(model.embed(people_of(system), RATES)).all()


def presets_of(system):
    """The real presets but for backbone and size; of their widths only strong's are small."""
    return [
        ((preset,), [] if preset == "strong" else [pytest.mark.slow])
        for preset in system.kind.PRESETS
    ]


@pytest.mark.parametrize("system, preset", rows(presets_of))
def test_every_preset_trains(system, preset):
    model = system.kind(PEOPLE, preset=preset, backbone=Levels(), image_size=SIZE)
    said, own = system.kind.PRESETS[preset], plain(model)
    for network in trained(model):  # what a system leaves to its networks is None
        config = {**plain(network), **{k: x for k, x in own.items() if x is not None}}
        for name in set(said) & set(own) - {"backbone", "image_size"}:
            assert config[name] == json.loads(json.dumps(said[name])), name
    for logs in one_step(system, model):
        assert np.isfinite(list(logs.values())).all()
    assert np.isfinite(model.embed(people_of(system), RATES)).all()


# --- backbones -------------------------------------------------------------------------------


def named(system, backbone, **options):
    """A toy on a backbone given by name, in a variant that is not the default."""
    return shared(system.make, backbone=backbone, **{**system.variants[-1][0], **options})


@every_system
@pytest.mark.parametrize(
    "backbone, options, last",
    [
        ("resnet_tiny", {"last_stride": 2}, (2, 1, 256)),
        pytest.param("osnet_x0_25", {}, (4, 2, 128), marks=pytest.mark.slow),
    ],
    ids=["resnet_tiny", "osnet_x0_25"],
)
def test_named_backbones(system, backbone, options, last):
    model = named(system, backbone, **options)
    config = plain(model)
    assert (config["backbone"], config["last_stride"]) == (backbone, options.get("last_stride", 1))
    for network in networks(model):
        assert (None, *last) in maps_of(network)
    assert np.isfinite(model.embed(people_of(system), RATES)).all()


@pytest.mark.slow
@pytest.mark.backend
@two_elsewhere
def test_kerascv_backbone(system):
    keras_cv = pytest.importorskip("keras_cv", reason="keras-cv is not installed")
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 8, 16], stackwise_blocks=[1, 1, 1], stackwise_strides=[1, 2, 2],
        block_type="basic_block", include_rescaling=True,
    )  # fmt: skip
    before = snapshot(backbone)
    model = system.make(backbone=backbone)
    for network in networks(model):
        assert {(None, 4, 2, 16), (None, None, None, 16)} & maps_of(network)
    one_step(system, model)
    assert np.isfinite(model.embed(people_of(system), RATES)).all()
    assert moved(before, backbone) == set()  # the given backbone was copied


# --- what is refused -------------------------------------------------------------------------


@every_system
@pytest.mark.parametrize(
    "options, words",
    [
        ({"people": 0}, "0"),
        ({"preset": "nothing"}, "nothing"),
        ({"backbone": "nothing"}, "'nothing'.*resnet50"),
        ({"backbone": "resnet_tiny", "image_size": (64, 16)}, r"\(64, 16\)"),
        ({"backbone": "resnet_tiny", "last_stride": 3}, "last stride 3"),
    ],
    ids=["people", "preset", "backbone", "image_size", "last_stride"],
)
def test_what_every_system_refuses(system, options, words):
    given = {"people": PEOPLE, "preset": "tiny", "image_size": SIZE, "backbone": Levels()}
    with pytest.raises((ValueError, KeyError), match=words):
        system.kind(**{**given, **options})


@pytest.mark.parametrize("system, options, words", rows(lambda s: [(x, []) for x in s.refused]))
def test_what_one_system_refuses(system, options, words):
    with pytest.raises(ValueError, match=words):
        system.make(**options)


@every_system
def test_images_that_are_refused(system):
    model = shared(system.make)
    takers = [model.embed] + ([model.recover] if hasattr(model, "recover") else [])
    for take in takers:
        with pytest.raises(xr.InputError, match="prepare_images"):
            take(np.zeros((2, 128, 64, 3), "uint8"))
        with pytest.raises(xr.InputError, match=r"\[0, 1\]"):
            take(np.full((2, *SIZE, 3), 200.0, "float32"))
    with pytest.raises(xr.InputError, match="3 rates were given for 2"):
        model.embed(np.zeros((2, *SIZE, 3), "uint8"), rates=[1, 2, 3])
