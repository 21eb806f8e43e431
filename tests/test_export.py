"""A graph outside Keras computes what the model does, and says what it takes."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import small

import keras_xreid as xr
from keras_xreid.data.manifest import file_sha256
from keras_xreid.export import build_graph
from keras_xreid.training import fast_torch

NEEDED = {"torch": ("onnx", "onnxruntime"), "tensorflow": ("onnx", "tf2onnx", "onnxruntime")}
BACKEND = keras.backend.backend()
missing = [m for m in ("tyro", *NEEDED.get(BACKEND, ())) if importlib.util.find_spec(m) is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}"),
    pytest.mark.skipif(BACKEND not in NEEDED, reason=f"there is no export from {BACKEND}"),
]
if not missing and BACKEND in NEEDED:
    import onnx
    import onnxruntime

    from keras_xreid.app import export, int8

HEIGHT, WIDTH = small.SIZE


def baseline(seed=0):
    return small.fill(
        xr.Baseline(small.PEOPLE, "tiny", small.Levels(), image_size=small.SIZE), seed
    )


def images(n=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, HEIGHT, WIDTH, 3)).astype("uint8")


def exported(model, path):
    export.write_onnx(build_graph(model), path, {"system": type(model).__name__})
    return export.open_onnx(path)


def on_every_backend(*values):
    return pytest.param(*values, marks=pytest.mark.backend)


@pytest.mark.parametrize(
    "make, outputs",
    [
        (baseline, ["embedding"]),
        (
            lambda: small.intact(backbone=small.Levels()),
            ["embedding", "recovered", "embedding_high"],
        ),
        (small.rain, ["embedding", "recovered"]),
        (small.cadnet, ["embedding", "recovered"]),
        # Of a name, both encoders' weights have the same paths.
        pytest.param(
            lambda: small.cadnet(backbone="resnet_tiny"),
            ["embedding", "recovered"],
            marks=pytest.mark.slow,
        ),
        on_every_backend(small.adaptive, ["embedding"]),
        on_every_backend(lambda: small.panned(rates=(1, 2, 4, 8)), ["embedding"]),
        # Behind a neck, and averaged with the mirror image, as the strong preset has it.
        on_every_backend(
            lambda: small.rain(neck=True, flip=True),
            ["embedding", "recovered"],
        ),
        on_every_backend(
            lambda: small.cadnet(neck=True, flip=True, residual=True),
            ["embedding", "recovered"],
        ),
        on_every_backend(
            lambda: small.intact(neck=True, flip=True),
            ["embedding", "recovered", "embedding_high"],
        ),
    ],
)
def test_onnxruntime_computes_what_keras_does(make, outputs, tmp_path):
    model = make()
    session = exported(model, tmp_path / "graph.onnx")
    assert [output.name for output in session.get_outputs()] == outputs
    for value in (*session.get_inputs()[:1], *session.get_outputs()):
        assert value.shape[0] == "n" and all(isinstance(side, int) for side in value.shape[1:])
    assert session.get_inputs()[0].name == "image"
    assert session.get_inputs()[0].type == "tensor(uint8)"
    given = {"image": images()}
    told = {}
    if model.query_levels:
        given["level"] = np.array([1, 2, 3, 4, 4, 1], "int32")
        told["rates"] = np.array(model.rates)[given["level"] - 1]
    found = dict(zip(outputs, session.run(outputs, given), strict=True))
    expected = {"embedding": model.embed(given["image"], **told)}
    if "recovered" in outputs:
        expected["recovered"] = model.recover(given["image"])
    if "embedding_high" in outputs:
        expected["embedding_high"] = model.embed(given["image"], rates=1)
        assert np.abs(expected["embedding_high"] - expected["embedding"]).max() > 1e-2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert np.std(value, axis=0).max() > 1e-3, f"{name} does not depend on the image"
        np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)
    # Any number of images, and none is mixed with another.
    alone = session.run(outputs, {k: v[2:3] for k, v in given.items()})
    for name, value in zip(outputs, alone, strict=True):
        np.testing.assert_allclose(value, found[name][2:3], atol=1e-5)
    # Other rates are those of the nearest level.
    apart = export.differences(model, session, given["image"], told.get("rates", np.ones(6)) * 1.1)
    assert apart.keys() == expected.keys()
    for name, (difference, largest) in apart.items():
        assert difference < 1e-4 and largest == np.abs(expected[name]).max()


@pytest.mark.backend
@pytest.mark.parametrize("parts", [{}, {"masks": False}, {"varying_length": False}])
def test_a_level_that_there_is_not_is_taken_as_the_nearest(parts, tmp_path):
    model = small.adaptive(**parts)
    session = exported(model, tmp_path / "graph.onnx")
    levels, nearest = np.array([[-3, 0, 5, 99, 2, 1], [1, 1, 4, 4, 2, 1]], "int32")
    found, expected = (
        session.run(None, {"image": images(), "level": level})[0] for level in (levels, nearest)
    )
    np.testing.assert_array_equal(found, expected)
    rates = np.array([4, 4, 1, 1, 3, 4])
    np.testing.assert_allclose(expected, model.embed(images(), rates), atol=1e-4)
    assert export.differences(model, session, images(), rates)["embedding"][0] < 1e-4


@pytest.mark.backend
def test_where_no_level_matters_none_is_taken(tmp_path, monkeypatch):
    model = small.adaptive(masks=False, varying_length=False)
    session = exported(model, tmp_path / "graph.onnx")
    assert [value.name for value in session.get_inputs()] == ["image"]
    apart = export.differences(model, session, images(), np.array([4, 4, 1, 1, 3, 2]))
    assert apart["embedding"][0] < 1e-4
    monkeypatch.setattr(export, "weights_sha256", lambda weights: "0" * 64)
    about = export.describe(model, "runs/adaptive")
    assert "level" not in about and about["distance"] == "squared Euclidean"


def test_the_difference_is_the_largest_one():
    model = baseline()
    given = images(5)

    class Session:
        """Right but for one number of one image: of the third, which is in the last batch."""

        def get_outputs(self):
            return [onnx.helper.make_tensor_value_info("embedding", 1, ["n", 1])]

        def run(self, names, given, options):
            found = model.embed(given["image"])
            if len(found) == 2:
                found[0, 1] -= 0.25
            return [found]

    found = export.differences(model, Session(), given, np.ones(5))
    largest = np.abs(model.embed(given)).max()
    assert found == {"embedding": (pytest.approx(0.25, abs=1e-4), pytest.approx(largest))}


@pytest.mark.parametrize(
    "apart, accepted",
    [((9e-5, 0.5), True), ((2e-4, 0.5), False), ((2e-4, 3.0), True), ((np.nan, 1.0), False)],
)
def test_what_is_accepted(apart, accepted, saved, tmp_path, monkeypatch):
    out = tmp_path / "model.onnx"
    monkeypatch.setattr(export.xr, "load", lambda weights, precision: baseline())
    monkeypatch.setattr(export, "drawn_images", lambda size: (images(), np.ones(6)))
    monkeypatch.setattr(export, "write_onnx", lambda graph, path, about: path.write_text("graph"))
    monkeypatch.setattr(export, "open_onnx", lambda path: None)
    monkeypatch.setattr(export, "differences", lambda *arguments: {"embedding": apart})
    if accepted:
        export.main(export.Options(str(saved), str(out)))
        assert out.read_text() == "graph"
    else:
        with pytest.raises(xr.InputError, match="is not written"):
            export.main(export.Options(str(saved), str(out)))
    assert [path.name for path in tmp_path.iterdir()] == (["model.onnx"] if accepted else [])


@pytest.mark.backend
def test_batch_normalization_becomes_part_of_the_convolution(tmp_path):
    exported(baseline(), tmp_path / "graph.onnx")
    proto, options = onnx.load(tmp_path / "graph.onnx"), onnxruntime.SessionOptions()
    assert not {node.op_type for node in proto.graph.node} & {"BatchNormalization", "Sqrt"}
    options.optimized_model_filepath = str(tmp_path / "fast.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(
        str(tmp_path / "graph.onnx"), options, providers=["CPUExecutionProvider"]
    )
    graph = onnx.load(tmp_path / "fast.onnx").graph
    a_channel = {
        x.name for x in graph.initializer
        if x.data_type == onnx.TensorProto.FLOAT and np.prod(x.dims) > 3
    }  # fmt: skip
    assert len(a_channel) >= 5
    apart = [n.name for n in graph.node if n.op_type in ("Mul", "Add", "Sub", "Div")
             and a_channel & set(n.input)]  # fmt: skip
    assert len(apart) < 5  # of 15, if none were folded; onnxruntime may leave some
    # Nor do zeros around a map take a pass of their own.
    assert "Pad" not in {node.op_type for node in graph.node}


def test_what_is_replaced_while_exporting_is_put_back():
    def call():
        return keras.layers.BatchNormalization.call.__qualname__

    before = fast_torch.enabled(), call()
    with pytest.raises(KeyError), export.folded(build_graph(baseline())):
        assert not fast_torch.enabled() and call() != before[1]
        raise KeyError
    assert (fast_torch.enabled(), call()) == before


@pytest.mark.backend
def test_images_that_were_normalised_before_are_not_taken(tmp_path):
    session = exported(baseline(), tmp_path / "graph.onnx")
    with pytest.raises(Exception, match="uint8"):
        session.run(None, {"image": images().astype("float32") / 255})


def test_only_float32_and_only_one_network():
    model = baseline()
    half = xr.Baseline.from_config({**model.get_config(), "dtype": "mixed_bfloat16"})
    with pytest.raises(xr.InputError, match="bfloat16"):
        build_graph(small.fill(half))
    several = xr.OnePerRate(small.PEOPLE, "tiny", small.Levels(), small.SIZE, rates=(2,))
    with pytest.raises(xr.InputError, match="OnePerRate"):
        build_graph(several)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A baseline's run folder."""
    folder = tmp_path_factory.mktemp("run")
    model = xr.Baseline(small.PEOPLE, "tiny", image_size=small.SIZE)
    xr.save(small.fill(model), folder / "model.weights.h5")
    return folder


@pytest.mark.backend
def test_the_command_writes_a_graph_with_its_metadata(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "IMAGES", 8)
    out = tmp_path / "model.onnx"
    options = export.Options(str(saved), str(out), licence="CC-BY-4.0", benchmark=True)
    export.main(options)
    printed = capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert "Largest difference from Keras" in printed and "onnxruntime" in printed
    about = export.open_onnx(out).get_modelmeta().custom_metadata_map
    assert about["system"] == "Baseline" and about["backbone"] == "resnet_tiny"
    assert about["weights_sha256"] == file_sha256(saved / "model.weights.h5")
    assert about["licence"] == "CC-BY-4.0"
    assert json.loads(about["image_size"]) == {"height": HEIGHT, "width": WIDTH}
    assert "uint8" in about["image"] and "RGB" in about["image"]
    assert f"resize(({WIDTH}, {HEIGHT})" in about["resize"] and "BILINEAR" in about["resize"]
    assert about["distance"] == "1 - cosine"
    assert json.loads(about["outputs"]) == {"embedding": "(n, d) float32"}
    for name in about:
        if name != "outputs":
            assert about[name] in printed
    with pytest.raises(xr.InputError, match=r"is there already.*--overwrite"):
        export.main(options)


def test_metadata_of_levels_say_how_to_compare(monkeypatch):
    monkeypatch.setattr(export, "weights_sha256", lambda weights: "0" * 64)
    about = export.describe(small.adaptive(), "runs/adaptive")
    assert about["level"].startswith("int32, (n,), 1 to 4 ")
    assert json.loads(about["rate_of_level"]) == {"1": 4, "2": 3, "3": 2, "4": 1}
    kind, kept = about["distance"].split(": ", 1)
    assert kind.startswith("squared Euclidean")
    assert json.loads(kept) == {"1": 2, "2": 5, "3": 9, "4": 14}
    assert about["licence"] == "not stated"


def test_the_resizing_rule_in_the_metadata_is_ours():
    from PIL import Image

    for size in ((17, 9), (200, 90)):
        stored = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")
        rule = Image.fromarray(stored).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        ours = xr.prepare_images([stored], small.SIZE)[0]
        np.testing.assert_array_equal(np.asarray(rule), ours)


def test_a_wrong_graph_gets_no_name(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "drawn_images", lambda size: (images(), np.ones(6)))
    monkeypatch.setattr(export.xr, "load", lambda weights, precision: baseline())
    other = build_graph(baseline(seed=1))
    monkeypatch.setattr("keras_xreid.export.build_graph", lambda model: other)
    monkeypatch.setattr(export, "describe", lambda *arguments: {})
    with pytest.raises(xr.InputError, match=r"differ by more than 0.0001: .*is not written"):
        export.main(export.Options(str(saved), str(tmp_path / "model.onnx")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "out, words",
    [("model.h5", "ending in .onnx"), ("nowhere/model.onnx", "existing folder")],
)
def test_where_it_cannot_write(saved, tmp_path, out, words):
    with pytest.raises(xr.InputError, match=words):
        export.main(export.Options(str(saved), str(tmp_path / out)))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_export_says_what_can(monkeypatch, tmp_path):
    with pytest.raises(xr.InputError, match="mystery"):
        export.main(export.Options("mystery", str(tmp_path / "model.onnx")))
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(xr.InputError, match=r'onnx, .*pip install -e "\.\[onnx\]"'):
        export.check(tmp_path / "model.onnx", False)
    monkeypatch.setattr(export.keras.backend, "backend", lambda: "jax")
    with pytest.raises(xr.InputError, match=r"no export from jax.*torch or tensorflow"):
        export.check(tmp_path / "model.onnx", False)


# --- in 8 bits --------------------------------------------------------------------------------


def smooth(n, seed=0):
    return np.concatenate([small.pairs(8, seed + i)["hr"] for i in range(-(-n // 8))])[:n]


def quantised(model, path, images, rates):
    """The graph in float32 and the one in 8 bits, as models; calibrated on these images."""
    before = export.Graph(model, exported(model, path))
    int8.quantise(path, export.inputs(model, images, rates), {"precision": "int8"})
    return before, export.Graph(model, export.open_onnx(path))


@pytest.mark.parametrize("make", [baseline, small.intact, small.adaptive])
def test_in_8_bits_embeddings_are_nearly_the_same(make, tmp_path):
    model, rates = make(), np.resize([1, 2, 3, 4], 40)
    before, after = quantised(model, tmp_path / "graph.onnx", smooth(40), rates)
    proto = onnx.load(tmp_path / "graph.onnx")
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("DequantizeLinear") > kinds.count("Conv") > 0
    stored = {value.name: value for value in proto.graph.initializer}
    scales = [stored[node.input[1]] for node in proto.graph.node if len(node.input) > 1
              and node.op_type == "DequantizeLinear" and node.input[1] in stored]  # fmt: skip
    assert any(len(scale.dims) == 1 and scale.dims[0] > 1 for scale in scales), "not per channel"
    about = after.session.get_modelmeta().custom_metadata_map
    assert about["precision"] == "int8" and about["system"] == type(model).__name__
    assert "outputs" in about
    images, rates = smooth(12, seed=9), np.resize([1, 2, 3, 4], 12)
    found, expected = after.embed(images, rates), before.embed(images, rates)
    assert found.shape == expected.shape and not np.array_equal(found, expected)
    assert int8.cosines(found, expected).min() > 0.98
    # Toys see all images nearly alike. What 8 bits change is less than what tells images apart.
    off, apart = (
        np.linalg.norm(x - expected, axis=1).mean() for x in (found, np.roll(expected, 4, 0))
    )
    assert off < apart / 2
    # 7 of 8 bits: without VNNI a processor adds two products of 8 bits in 16, and they overflow.
    weights = [onnx.numpy_helper.to_array(x) for x in stored.values() if x.data_type == 3]
    most = [int(abs(values.astype(int)).max()) for values in weights if values.ndim > 1]
    assert most and max(most) == 64


@pytest.mark.parametrize("make", [baseline, small.intact, small.adaptive])
def test_a_graph_stands_for_its_model(make, tmp_path):
    model = make()
    graph = export.Graph(model, exported(model, tmp_path / "graph.onnx"))
    rates = np.array([1, 2, 4, 1, 3, 2])
    np.testing.assert_allclose(
        graph.embed(images(), rates, 4), model.embed(images(), rates), atol=1e-4
    )
    for told in (None, 1, 4):
        found, expected = graph.embed(images(), told), model.embed(images(), told)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_calibration_is_the_same_each_time(tmp_path):
    model, found = baseline(), []
    for seed in (0, 0, 1):
        _, after = quantised(model, tmp_path / "graph.onnx", smooth(8, seed), np.ones(8))
        found.append(after.embed(images()))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_all_images_are_calibrated_on(monkeypatch, tmp_path):
    model, found = baseline(), []
    for at_a_time in (3, 8):  # the smallest and the largest values of all are looked for
        monkeypatch.setattr(int8, "AT_A_TIME", at_a_time)
        _, after = quantised(model, tmp_path / "graph.onnx", smooth(8), np.ones(8))
        found.append(after.embed(images()))
    np.testing.assert_array_equal(*found)


def test_cosines():
    a = np.array([[3.0, 4.0], [1.0, 0.0]], "float32")
    b = np.array([[4.0, 3.0], [0.0, 2.0]], "float32")
    np.testing.assert_allclose(int8.cosines(a, b), [0.96, 0.0], atol=1e-6)


def test_some_images_are_drawn_by_the_seed():
    records = [np.full((*small.SIZE, 3), i, "uint8") for i in range(20)]
    found, rates = int8.some(records, 7, small.SIZE, seed=3)
    again, _ = int8.some(records, 7, small.SIZE, seed=3)
    other, _ = int8.some(records, 7, small.SIZE, seed=4)
    np.testing.assert_array_equal(rates, [1, 2, 3, 4, 8, 1, 2])
    assert len(np.unique(found[:, 0, 0, 0])) == 7
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, other)
    assert len(int8.some(records, 99, small.SIZE, seed=3)[0]) == 20


def toy_data(folder):
    """Gray people: 0 is black, 1 is darker than 2."""
    from PIL import Image

    def record(person, camera):
        path = folder / f"{person}_c{camera}.png"
        Image.fromarray(np.full((*small.SIZE, 3), 100 * person, "uint8")).save(path)
        return xr.Record(str(path), person, camera)

    folder.mkdir()
    return xr.DataSet(
        name="toy", train=[record(i, c) for i in (0, 1) for c in (3, 4)],
        query=[record(i, 1) for i in (0, 1)], gallery=[record(i, 2) for i in (0, 1, 2)],
    )  # fmt: skip


def test_rank1_of_both_graphs_is_printed(tmp_path):
    """Of two queries the graph in 8 bits finds one: it sees person 1 as person 0 at rate 8."""

    class Sees:
        image_size = small.SIZE

        def __init__(self, worst):
            self.worst = worst

        def embed(self, images, rates=None, batch_size=64):
            seen = images[:, 0, 0, 0] // 100
            seen[np.broadcast_to(rates, len(images)) > self.worst] = 0
            return np.eye(3, dtype="float32")[seen]

        def distances(self, query, gallery, query_rates=None):
            return 1 - query @ gallery.T

    told = int8.compare(Sees(9), Sees(4), toy_data(tmp_path / "toy"), seed=0)
    assert "2 queries: smallest 1.0000, mean 1.0000" in told  # at rates 1 and 2
    assert "Rank-1 of 2 queries, toy, split test" in told
    found = [line.split() for line in told.splitlines()[-5:]]
    assert found == [*([rate, "100.0", "100.0"] for rate in "1234"), ["8", "100.0", "50.0"]]


@pytest.mark.slow
def test_the_command_writes_8_bits(saved, tmp_path, capsys, monkeypatch):
    data = toy_data(tmp_path / "toy")
    monkeypatch.setattr(int8.xr.datasets, "load", lambda *arguments, **options: data)
    out = tmp_path / "model.onnx"
    options = {"int8": True, "split": "test", "calibrate": 2, "benchmark": True}
    export.main(export.Options(str(saved), str(out), **options))
    printed = capsys.readouterr().out
    for words in ("MB in float32", "MB in int8", "smallest", "onnxruntime int8", "rate"):
        assert words in printed
    about = export.open_onnx(out).get_modelmeta().custom_metadata_map
    assert about["precision"] == "int8, calibrated on 2 training images of toy, seed 0"
    assert about["system"] == "Baseline"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "toy"]


@pytest.mark.parametrize(
    "given, words",
    [
        ({"calibrate": 0}, "--calibrate is 0: give 1 or more"),
        ({"seed": -1}, "--seed is -1"),
        ({"int8": True, "adapted": "cameras.npz", "camera": "1"}, "exclude each other"),
        ({"data": "market1501", "split": "test"}, "--data, --split: of use with --int8 only"),
        ({"int8": True, "data": "market1501"}, "--data-dir"),
        ({"int8": True, "split": "test", "data": "csv", "data_dir": "nowhere"}, "nowhere"),
    ],
)
def test_what_8_bits_refuse(given, words, saved, tmp_path):
    with pytest.raises(xr.InputError, match=words):
        export.main(export.Options(str(saved), str(tmp_path / "model.onnx"), **given))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "told, split, words",
    [
        ({"dataset": "market1501", "split": "test"}, "test", "better give --data market1501"),
        ({"dataset": "synthetic", "split": "test"}, "dev", "the people of --split dev too"),
        ({"dataset": "synthetic", "split": "dev"}, "dev", ""),
        ({}, "dev", ""),
    ],
)
def test_what_weights_were_trained_on_is_noted(told, split, words, monkeypatch, capsys):
    monkeypatch.setattr(int8.xr.datasets, "load", lambda *arguments, **options: None)
    monkeypatch.setattr(int8.provenance, "trained_on", lambda weights: told)
    int8.load_data(export.Options("a", "b", split=split), small.SIZE)
    printed = capsys.readouterr().out
    assert words in printed and bool(words) == bool(printed)
