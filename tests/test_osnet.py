"""OSNet against torchreid's own network, and the reader of PyTorch files.

The recordings are made with PyTorch and torchreid's osnet.py:

    python tests/test_osnet.py deep-person-reid/torchreid/models/osnet.py
"""

import contextlib
import json
import os
import pickle
import sys
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import keras
import numpy as np
import pytest
from small import not_on_jax

import keras_xreid as xr
from keras_xreid.backbones import build_backbone, osnet
from keras_xreid.backbones.osnet import WIDTHS, load_torchreid_weights
from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError
from keras_xreid.layers.head import build_reid_network

pytest.importorskip("tyro", reason="the conversion recipe needs the [recipes] extra")
RECORDED = Path(__file__).parent / "recorded"
SIZE = (64, 32)


import conversion as recipe  # noqa: E402

from keras_xreid.app import convert  # noqa: E402


def images():
    return np.random.RandomState(1).random_sample((2, *SIZE, 3)).astype("float32")


def shortened(outputs):
    """Keep eight channels of each map, which depend on all channels of the maps before."""
    return [y[..., :8] for y in outputs[:5]] + [outputs[5]]


@pytest.fixture
def recorded(monkeypatch):
    """Make `load_torchreid_weights` read random weights under the names torchreid gave."""

    def read(name):
        recording = np.load(RECORDED / f"{name}.npz")
        shapes = {k: tuple(v) for k, v in json.loads(recording["shapes"].item()).items()}
        arrays = recipe.random_weights(shapes)
        monkeypatch.setattr(osnet, "read_state_dict", lambda path: arrays)
        return arrays, [recording[f"output{i}"] for i in range(6)]

    return read


@pytest.mark.backend
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "osnet_x0_25" else [not_on_jax]) for n in WIDTHS]
)
def test_same_maps_and_embedding_as_torchreid(name, recorded):
    _, expected = recorded(name)
    network = build_reid_network(10, name, SIZE)
    assert load_torchreid_weights(network, "recorded.pth") == []
    outputs = shortened(recipe.run_keras(network, name, images()))
    for ours, theirs in zip(outputs, expected, strict=True):
        assert np.abs(theirs).max() > 0.5
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_classifier_of_another_number_of_people_is_left(recorded):
    recorded("osnet_x0_25")
    network = build_reid_network(7, "osnet_x0_25", SIZE)
    before = network.get_layer("classifier").get_weights()
    left = load_torchreid_weights(network, "recorded.pth")
    assert left == ["classifier.weight", "classifier.bias"]
    after = network.get_layer("classifier").get_weights()
    np.testing.assert_array_equal(after[0], before[0])


def test_backbone_alone_leaves_the_head(recorded):
    recorded("osnet_x0_25")
    left = load_torchreid_weights(build_backbone("osnet_x0_25", SIZE), "recorded.pth")
    assert {name.split(".")[0] for name in left} == {"fc", "classifier"}


def test_other_files_are_refused_and_change_nothing(recorded):
    arrays, _ = recorded("osnet_x0_25")
    backbone = build_backbone("osnet_x0_25", SIZE)
    before = backbone.get_weights()

    with pytest.raises(InputError, match="width"):
        load_torchreid_weights(build_backbone("osnet_x0_5", SIZE), "recorded.pth")
    with pytest.raises(InputError, match="no weights for"):
        load_torchreid_weights(build_backbone("resnet_tiny", SIZE), "recorded.pth")
    arrays["conv2.0.IN.weight"] = np.zeros(64)
    with pytest.raises(InputError, match=r"conv2\.0\.IN\.weight"):
        load_torchreid_weights(backbone, "recorded.pth")
    del arrays["conv2.0.IN.weight"], arrays["conv5.bn.bias"]
    with pytest.raises(InputError, match="conv5_bn/beta"):
        load_torchreid_weights(backbone, "recorded.pth")

    for a, b in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


# The reader of PyTorch files. The two checkpoints were written by PyTorch itself.


def checkpoint_contents():
    base = np.arange(12, dtype="float32").reshape(3, 4)
    return {
        "conv.weight": base,
        "conv.transposed": base.T,
        "conv.part": base[1:, 1:3],
        "conv.half": np.array([0.5, -2], "float16"),
        "bn.num_batches_tracked": np.array(7, "int64"),
        "empty": np.zeros((0, 3), "float32"),
    }


@pytest.mark.parametrize("name", ["checkpoint.pth.tar", "checkpoint_legacy.pth.tar"])
def test_reads_checkpoints_written_by_pytorch(name):
    arrays = read_state_dict(RECORDED / name)
    expected = checkpoint_contents()
    assert list(arrays) == list(expected)
    for key, array in expected.items():
        assert arrays[key].dtype == array.dtype
        np.testing.assert_array_equal(arrays[key], array)
        assert arrays[key].flags.owndata


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def write_zip(path, pickled, **files):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        for name, data in files.items():
            archive.writestr(f"model/data/{name}", data)


def test_a_pickle_that_runs_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"state_dict": OrderedDict(weight=Attack())}, protocol=2)
    write_zip("zip.pth", content)
    Path("legacy.pth").write_bytes(content)
    for name in ("zip.pth", "legacy.pth"):
        with pytest.raises(InputError, match=r"(posix|nt)\.system"):
            read_state_dict(name)
    assert not Path("attacked").exists()


def tensors_pickle(**tensors):
    """Write the pickle of a state dict by hand: PyTorch refuses to write some of these.

    Each tensor has an offset, a shape, strides and the count of its numbers.
    """

    def numbers(values):
        return "(" + "".join(f"I{value}\n" for value in values) + "t"

    items = "(d"
    for key, (name, (offset, shape, strides, count)) in enumerate(tensors.items()):
        storage = f"(S'storage'\nctorch\nFloatStorage\nS'{key}'\nS'cpu'\nI{count}\ntQ"
        arguments = f"({storage}I{offset}\n{numbers(shape)}{numbers(strides)}I00\n(dt"
        items += f"S'{name}'\nctorch._utils\n_rebuild_tensor_v2\n{arguments}Rs"
    return f"{items}.".encode()


def write_pth(path, arrays):
    """Write float32 arrays as PyTorch does, without PyTorch."""
    tensors = {
        name: (0, array.shape, [step // 4 for step in array.strides], array.size)
        for name, array in arrays.items()
    }
    numbers = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    write_zip(path, tensors_pickle(**tensors), **numbers)


def test_a_tensor_outside_its_numbers_is_refused(tmp_path):
    numbers = np.arange(4, dtype="<f4").tobytes()

    def read(offset, shape, strides, count=4):
        content = tensors_pickle(weight=(offset, shape, strides, count))
        write_zip(tmp_path / "tensor.pth", content, **{"0": numbers})
        return read_state_dict(tmp_path / "tensor.pth")["weight"].tolist()

    assert read(1, (3,), (1,)) == [1, 2, 3]
    for wrong in (
        (2, (3,), (1,)),  # beyond the end
        (0, (2,), (9,)),
        (0, (2,), (-1,)),  # before the start
        (-1, (2,), (1,)),
        (0, (10**12,), (0,)),  # larger in memory than in the file
        (0, (4,), (1,), 400),  # numbers missing
    ):
        with pytest.raises(InputError, match=r"tensor\.pth"):
            read(*wrong)


def test_a_file_is_believed_about_its_size_within_limits(tmp_path):
    """Many tensors that share few numbers, numbers that were packed, and a table without end."""
    path, numbers = tmp_path / "large.pth", np.zeros(10**6, "<f4").tobytes()
    shared = tensors_pickle(**{f"w{i}": (0, (10**6,), (1,), 10**6) for i in range(3)})
    shared = shared.replace(b"S'1'", b"S'0'").replace(b"S'2'", b"S'0'")
    write_zip(path, shared, **{"0": numbers})
    tracemalloc.start()
    with pytest.raises(InputError, match=r"its tensors would take 12,000,000 bytes"):
        read_state_dict(path)
    write_zip(path, tensors_pickle(w=(0, (10**6,), (1,), 10**6)), **{"0": numbers})
    assert read_state_dict(path)["w"].shape == (10**6,)  # so large it may be
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", tensors_pickle(w=(0, (10**6,), (1,), 10**6)))
        archive.writestr("model/data/0", numbers)
    with pytest.raises(InputError, match=r"it claims 4,000,\d\d\d bytes of numbers"):
        read_state_dict(path)
    table = b"\x80\x02Nr" + (2**31 - 1).to_bytes(4, "little") + b"."
    for write in (lambda: write_zip(path, table), lambda: path.write_bytes(table)):
        write()
        with pytest.raises(InputError, match="its table of names is too large"):
            read_state_dict(path)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_damaged_and_other_files_are_refused(tmp_path):
    whole = (RECORDED / "checkpoint.pth.tar").read_bytes()
    legacy = (RECORDED / "checkpoint_legacy.pth.tar").read_bytes()
    for content in (b"", b"not a pickle", whole[:-200], legacy[:-20], pickle.dumps(3)):
        (tmp_path / "file.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"file\.pth") as error:
            read_state_dict(tmp_path / "file.pth")
        assert "\n" not in str(error.value)
    write_zip(tmp_path / "file.pth", pickle.dumps({"epoch": 3}, protocol=2))
    with pytest.raises(InputError, match="'epoch' is not a tensor"):
        read_state_dict(tmp_path / "file.pth")
    with pytest.raises(InputError, match="no weights file"):
        read_state_dict(tmp_path / "absent.pth")


# The recipe.


@pytest.fixture
def published(tmp_path):
    """A file as torchreid publishes them, of random weights, and what its network computes."""
    recording = np.load(RECORDED / "osnet_x0_25.npz")
    shapes = {k: tuple(v) for k, v in json.loads(recording["shapes"].item()).items()}
    arrays = recipe.random_weights(shapes)
    arrays = {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
    write_pth(tmp_path / "osnet.pth", arrays)
    return tmp_path / "osnet.pth", recording["output5"]


@pytest.mark.slow
def test_what_is_converted_opens_by_load(published, tmp_path, capsys):
    file, embedding = published
    out = tmp_path / "osnet.weights.h5"
    convert.main(convert.Options(str(file), str(out), "osnet_x0_25"))
    assert "osnet_x0_25, 10 people, largest difference 0.0e+00" in capsys.readouterr().out
    model = xr.load(out)
    assert (type(model), model.backbone) == (xr.Baseline, "osnet_x0_25")
    assert model.embed(np.zeros((2, 256, 128, 3), "uint8")).shape == (2, 512)
    # Another size has the same weights; torchreid's network was recorded at this one.
    small = xr.Baseline(10, backbone="osnet_x0_25", image_size=SIZE)
    small.set_weights(model.get_weights())
    np.testing.assert_allclose(small.embed(images()), embedding, atol=1e-4)

    with pytest.raises(InputError, match="cannot write"):
        convert.main(convert.Options(str(file), str(out), "osnet_x0_25"))
    with pytest.raises(InputError, match="width"):
        convert.main(convert.Options(str(file), str(tmp_path / "x.weights.h5"), "osnet_x0_5"))
    assert not (tmp_path / "x.weights.h5").exists()


def test_the_largest_difference_is_found_whatever_the_loader_does(published):
    file, _ = published
    network = xr.Baseline(10, backbone="osnet_x0_25", image_size=SIZE).network
    load_torchreid_weights(network, file)
    arrays = read_state_dict(file)
    assert convert.largest_difference(arrays, network) == 0
    for name, turned in (
        ("conv2_0_conv2b_1_conv2", (1, 0, 2, 3)),  # depthwise: height and width
        ("conv3_0_conv1_conv", (0, 1, 3, 2)),
        ("fc", (1, 0)),
    ):
        layer = next(x for x in network._flatten_layers() if x.name == name)
        kernel, *rest = layer.get_weights()
        other = kernel.transpose(turned).reshape(kernel.shape)
        layer.set_weights([other, *rest])
        assert convert.largest_difference(arrays, network) == np.abs(other - kernel).max() > 0.1
        layer.set_weights([kernel, *rest])
    assert convert.largest_difference({**arrays, "conv6.weight": arrays["fc.0.bias"]}, network) > 1


@pytest.mark.slow
def test_resnet50_is_compared_without_a_network_connection(monkeypatch, capsys):
    build = keras.applications.ResNet50

    def offline(include_top, weights, **options):
        if weights:
            raise Exception("URL fetch failure")
        return build(include_top, weights, **options)

    monkeypatch.setattr(keras.applications, "ResNet50", offline)
    recipe.main(recipe.Options("resnet50"))
    printed = capsys.readouterr().out
    assert "cannot be fetched: URL fetch failure" in printed
    assert "resnet50, random weights, last map" in printed and "largest difference" in printed


@pytest.mark.parametrize(
    ("ours", "theirs", "accepted"),
    [(1.00009, 1, True), (1.0002, 1, False), (3.0002, 3, True), (np.nan, 1, False)],
)
def test_what_counts_as_the_same(ours, theirs, accepted):
    check = contextlib.nullcontext() if accepted else pytest.raises(InputError, match="differ by")
    with check:
        recipe.tell("maps", [np.array([ours])], [np.array([theirs])])


def test_what_the_recipe_is_asked_for(tmp_path):
    for options, words in ((recipe.Options(str(tmp_path / "osnet.py")), r"no file .*osnet\.py"),):
        with pytest.raises(InputError, match=words):
            recipe.main(options)


def record(source):
    """Write the recordings with torchreid's own networks, and checkpoints with PyTorch."""
    import torch

    RECORDED.mkdir(exist_ok=True)
    for name in WIDTHS:
        shapes = recipe.shapes_of(recipe.torchreid_network(source, name))
        outputs = recipe.run_torchreid(source, name, recipe.random_weights(shapes), images())
        arrays = {f"output{i}": y for i, y in enumerate(shortened(outputs))}
        np.savez_compressed(RECORDED / f"{name}.npz", shapes=json.dumps(shapes), **arrays)

    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    views = {"conv.weight": base, "conv.transposed": base.T, "conv.part": base[1:, 1:3]}
    state = OrderedDict(
        (f"module.{key}", views.get(key, torch.as_tensor(array)))
        for key, array in checkpoint_contents().items()
    )
    state._metadata = OrderedDict([("", {"version": 1})])  # as of a module
    content = {
        "state_dict": state,
        "epoch": 3,
        "rank1": np.float64(0.5),  # torchreid's own checkpoints have such a number
        "scheduler": {"milestones": Counter([20, 40])},
    }
    torch.save(content, RECORDED / "checkpoint.pth.tar")
    torch.save(
        content, RECORDED / "checkpoint_legacy.pth.tar", _use_new_zipfile_serialization=False
    )


if __name__ == "__main__":
    record(Path(sys.argv[1]))
