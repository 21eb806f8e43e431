"""Weights files: stored small, published by name, and what is said of those that are not right."""

import hashlib
import http.server
import json
import threading
import warnings

import h5py
import keras
import numpy as np
import pytest
from small import cadnet, couples, fill, intact, rain

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.app import publish
from keras_xreid.weights import ATTRIBUTE, _at_most


@pytest.fixture(scope="module")
def model():
    return fill(xr.Baseline(5, backbone="osnet_x0_25", image_size=(64, 32)))


def test_kernels_as_float16(model, tmp_path):
    xr.save(model, tmp_path / "whole.weights.h5")
    xr.save(model, tmp_path / "half.weights.h5", half=True)
    sizes = [(tmp_path / f"{name}.weights.h5").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.9 * sizes[0]  # of so small a network half is names
    kinds = set()
    with h5py.File(tmp_path / "half.weights.h5") as file:
        file.visititems(
            lambda name, item: (
                kinds.add((str(item.dtype), item.ndim > 1))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert kinds == {("float16", True), ("float32", False)}
    again = xr.load(tmp_path / "half.weights.h5")
    for ours, stored in zip(model.get_weights(), again.get_weights(), strict=True):
        assert stored.dtype == np.float32
        rounded = ours.astype("float16") if ours.ndim > 1 else ours
        np.testing.assert_array_equal(stored, rounded.astype("float32"))
    images = couples()["hr"]
    a, b = model.embed(images), again.embed(images)
    assert np.abs(a - b).max() < 0.01 * np.abs(a).max()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "half.weights.h5", "whole.weights.h5",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [intact, rain, pytest.param(cadnet, marks=pytest.mark.slow)])
def test_without_critics(make, tmp_path):
    """Everything else comes back bit by bit, and embeds the same."""
    model = make(backbone="resnet_tiny")
    whole, bare = tmp_path / "whole.weights.h5", tmp_path / "bare.weights.h5"
    xr.save(model, whole)
    xr.save(model, bare, critics=False)
    with h5py.File(whole) as full, h5py.File(bare) as file:
        assert set(full) - set(file) == set(model.critics)
        # Wherever Keras may put a part: the file holds as many numbers as are left.
        held = []
        file.visititems(lambda _, x: held.append(x.size) if isinstance(x, h5py.Dataset) else None)
    judges = [v for part in model.critics for v in getattr(model, part).weights]
    assert sum(held) == sum(np.prod(v.shape, dtype=int) for v in model.weights) - sum(
        np.prod(v.shape, dtype=int) for v in judges
    )
    again, judges = xr.load(bare), {id(v) for v in judges}
    for ours, stored in zip(model.weights, again.weights, strict=True):
        same = np.array_equal(*map(keras.ops.convert_to_numpy, (ours, stored)))
        assert same or id(ours) in judges, ours.path
        if id(ours) in judges and ours.path.endswith("kernel"):  # it begins anew, and drawn
            assert not same and np.std(keras.ops.convert_to_numpy(stored)) > 0, ours.path
    low = couples()["lr"]
    np.testing.assert_array_equal(model.embed(low, 4), again.embed(low, 4))
    with h5py.File(bare, "a") as file:
        del file[min(set(file) - {"vars"})]
    with pytest.raises(xr.InputError, match="does not hold the weights"):
        xr.load(bare)


def test_a_critic_that_keras_stores_elsewhere(tmp_path):
    """It would stay in the file, for Keras finds it among `layers` first."""
    model = fill(xr.Baseline(5, backbone="osnet_x0_25", image_size=(64, 32)))
    model.referee = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.critics = ("referee",)
    with pytest.raises(xr.InputError, match=r"referee cannot be left out .* before `layers`"):
        xr.save(model, tmp_path / "bare.weights.h5", critics=False)
    assert not list(tmp_path.iterdir())
    xr.save(model, tmp_path / "whole.weights.h5")


def test_a_kernel_too_large_for_float16(tmp_path):
    model = fill(xr.Baseline(5, backbone="osnet_x0_25", image_size=(64, 32)))
    kernel, bias = model.network.get_layer("fc").get_weights()
    kernel[3, 4], bias[0] = -7e4, 1e6  # biases stay float32
    model.network.get_layer("fc").set_weights([kernel, bias])
    with pytest.raises(xr.InputError, match=r"fc/kernel has a weight of size 7e\+04"):
        xr.save(model, tmp_path / "half.weights.h5", half=True)
    assert not list(tmp_path.iterdir())
    xr.save(model, tmp_path / "whole.weights.h5")
    assert xr.load(tmp_path / "whole.weights.h5").network.get_layer("fc").get_weights()[1][0] == 1e6


@pytest.fixture
def zoo(model, tmp_path, monkeypatch):
    """A folder of published weights: one that is there, one nobody hosts, one elsewhere."""
    folder = tmp_path / "weights"
    folder.mkdir()
    xr.save(model, folder / "tiny.weights.h5", half=True)
    content = (folder / "tiny.weights.h5").read_bytes()
    entry = {"file": "tiny.weights.h5", "sha256": hashlib.sha256(content).hexdigest(), "url": None}
    index = {
        "tiny": entry,
        "large": {**entry, "file": None, "command": "python recipes/rain.py"},
        "far": {**entry, "file": "far.weights.h5", "url": "http://127.0.0.1:9/far.weights.h5"},
    }
    (folder / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(hub, "PUBLISHED", (folder,))
    xr.published.cache_clear()
    yield folder
    xr.published.cache_clear()


@pytest.mark.slow
def test_precision(model, tmp_path):
    """The same weights, computed in float32 however they were trained, or the other way round."""
    path = tmp_path / "half.weights.h5"
    xr.save(type(model).from_config({**model.get_config(), "dtype": "mixed_bfloat16"}), path)
    assert xr.load(path).compute_dtype == "bfloat16"
    full = xr.load(path, precision="float32")
    assert full.compute_dtype == "float32" and full.network.compute_dtype == "float32"
    for a, b in zip(full.get_weights(), xr.load(path).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(xr.InputError, match="precision 'int4': give float32 or mixed_bfloat16"):
        xr.load(path, precision="int4")


def test_by_name(zoo, model):
    assert list(xr.published()) == ["tiny", "far"]  # those that can be loaded
    images = couples()["hr"]
    features = xr.load("tiny").embed(images)
    np.testing.assert_array_equal(features, xr.load(zoo / "tiny.weights.h5").embed(images))


def test_what_is_not_right(zoo, tmp_path):
    with pytest.raises(xr.InputError, match=r"no weights at nothing: .*tiny, far"):
        xr.load("nothing")
    with pytest.raises(xr.InputError, match=r"no weights at large: "):
        xr.load("large")
    with pytest.raises(xr.InputError, match=r"cannot download http://127"):
        xr.load("far")
    with pytest.raises(xr.InputError, match=r"no weights at .*renamed\.weights\.h5"):
        xr.load(zoo / "renamed.weights.h5")
    content = (zoo / "tiny.weights.h5").read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(xr.InputError, match="was cut short"):
        xr.load(tmp_path / "cut.weights.h5")
    with h5py.File(tmp_path / "other.weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    with pytest.raises(xr.InputError, match="says nothing about its model"):
        xr.load(tmp_path / "other.weights.h5")


@pytest.mark.parametrize("name", ["intact.h5", "intact.weights.h5.bak"])
def test_a_renamed_file(zoo, tmp_path, name):
    (tmp_path / name).write_bytes((zoo / "tiny.weights.h5").read_bytes())
    with pytest.raises(xr.InputError, match=rf"{name} was renamed: .*\.weights\.h5 again"):
        xr.load(tmp_path / name)


def largest_of(path, compressed):
    """Name and place of the largest stored array that is compressed, or that is not."""
    found = []

    def note(name, item):
        if isinstance(item, h5py.Dataset) and (item.compression is not None) == compressed:
            place = item.id.get_chunk_info(0).byte_offset if compressed else item.id.get_offset()
            found.append((item.size, name, place))

    with h5py.File(path) as file:
        file.visititems(note)
    return max(found)[1:]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def refusal(path):
    with pytest.raises(xr.InputError) as refused, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # which a user would read beside the line
        xr.load(path)
    message = str(refused.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    return message


@pytest.mark.slow
def test_a_flipped_byte(zoo, tmp_path):
    published, path = zoo / "tiny.weights.h5", tmp_path / "tiny.weights.h5"
    content = published.read_bytes()
    at = {
        "a compressed kernel": largest_of(published, compressed=True)[1] + 50,
        "the configuration": content.index(b'{"class"') + 1,
    }
    for where, place in at.items():
        path.write_bytes(content)
        flip(path, place)
        assert "copy it again" in refusal(path), where
    # In numbers as they are, the published file's hash shows it, by name and by path.
    flip(published, largest_of(published, compressed=False)[1])
    assert "is not the published tiny" in refusal(published)
    with pytest.raises(xr.InputError, match="is not the published tiny"):
        xr.load("tiny")
    published.rename(path)
    assert "its arrays are not those that were saved" in refusal(path)  # of one's own run, too
    described(path, arrays_sha256=None)  # as files were before
    xr.load(path)


def described(path, config=None, **changes):
    """Changes what a weights file says of its model."""
    with h5py.File(path, "a") as file:
        description = json.loads(file.attrs[ATTRIBUTE])
        description["config"].update(config or {})
        file.attrs[ATTRIBUTE] = json.dumps({**description, **changes})


@pytest.mark.parametrize("left_out", [["layers"], ["network"], "layers", [["a"]], {"a": 1}, [None]])
def test_nothing_but_critics_is_left_out(model, tmp_path, left_out):
    path = tmp_path / "a.weights.h5"
    xr.save(model, path)
    described(path, left_out=left_out)
    assert "and a Baseline can do without nothing only" in refusal(path)


@pytest.mark.parametrize(
    "config",
    [{"people": 10**12}, {"backbone": "resnet50", "people": 10**7}],
)
def test_a_model_larger_than_its_file_is_never_built(model, tmp_path, config):
    path = tmp_path / "a.weights.h5"
    xr.save(model, path)
    described(path, config)
    before = keras.layers.Layer.add_weight
    # 10^12 people would not fit in any memory: the refusal comes before a weight is made.
    message = refusal(path)
    assert "does not hold the weights of the Baseline that it describes: it has" in message
    assert keras.layers.Layer.add_weight is before


def test_threads_build_one_after_the_other():
    """Of two at once the second would keep the first one's `add_weight`, and put that back."""
    before, inside = keras.layers.Layer.add_weight, threading.Event()

    def second():
        with _at_most(1, [], []):
            inside.set()

    thread = threading.Thread(target=second)
    with _at_most(1, [], []):
        thread.start()
        assert not inside.wait(0.2)
    thread.join(60)
    assert inside.is_set() and keras.layers.Layer.add_weight is before


def test_arrays_that_are_not_in_the_file(model, tmp_path):
    """HDF5 makes zeros of what was never written, as many as a file claims."""
    path = tmp_path / "a.weights.h5"
    xr.save(model, path)
    with h5py.File(path, "a") as file:
        file.create_dataset("more", (10**6, 10**6), "float32", chunks=(1000, 1000))
    assert "claims arrays of 4,000,0" in refusal(path)


def test_opening_weights_downloads_nothing(model, tmp_path, monkeypatch):
    """The configuration's word for where training began is passed over."""

    def fail(*_, **__):
        raise AssertionError("asked the network")

    monkeypatch.setattr("keras_xreid.backbones.build.load_imagenet_weights", fail)
    monkeypatch.setattr(keras.utils, "get_file", fail)
    path = tmp_path / "a.weights.h5"
    lite = xr.Baseline(5, backbone="efficientnet_lite0", image_size=(64, 32))
    xr.save(lite, path)
    described(path, {"weights": "imagenet"})
    for ours, stored in zip(lite.get_weights(), xr.load(path).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, stored)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"backbone": {"module": "os", "class_name": "system", "config": {}}}, "no name"),
        (
            {"dtype": {"module": "x", "class_name": "y", "config": {"name": []}}},
            "dtype has no name",
        ),
    ],
)
def test_a_configuration_names_no_other_class(model, tmp_path, config, expected):
    path = tmp_path / "a.weights.h5"
    xr.save(model, path)
    described(path, config)
    assert expected in refusal(path)


def test_an_address_with_a_wrong_hash_names_no_file(zoo):
    wrong = "../" * 21 + "x"
    with pytest.raises(xr.InputError, match="comes without its hash"):
        xr.load(f"https://127.0.0.1:9/a.weights.h5#sha256={wrong}")
    for name in ("x" * 5000, 7, ["a"], "a\0b"):
        with pytest.raises(xr.InputError, match="no weights at"):
            xr.load(name)


def test_a_damaged_index(zoo):
    for content in ("{", "[]", '{"a": 1}', '{"a": {"file": 5}}'):
        (zoo / "index.json").write_text(content)
        xr.published.cache_clear()
        with pytest.raises(xr.InputError, match=r"index\.json is damaged"):
            xr.load("a")


def test_a_file_of_another_version(model, tmp_path):
    def changed(system="Baseline", **config):
        path = tmp_path / "newer.weights.h5"
        xr.save(model, path)
        with h5py.File(path, "a") as file:
            config = {**json.loads(file.attrs[ATTRIBUTE])["config"], **config}
            file.attrs[ATTRIBUTE] = json.dumps({"class": system, "config": config})
        return refusal(path)

    message = changed("Transformer")
    assert "holds a Transformer; this takes Adaptive" in message and "update keras_xreid" in message
    assert "class of your own" in message
    message = changed(attention=True)
    assert "this version cannot build" in message and "attention" in message
    assert "does not hold the weights of the Baseline" in changed(people=6)


def test_weights_that_are_missing_or_others(model, tmp_path):
    for change in ("del", "cut"):
        path = tmp_path / f"{change}.weights.h5"
        xr.save(model, path)
        name, _ = largest_of(path, compressed=False)
        with h5py.File(path, "a") as file:
            value = file[name][()]
            del file[name]
            if change == "cut":
                file[name] = value[..., :-1]
        message = refusal(path)
        assert "does not hold the weights of the Baseline" in message and "Layer 'fc'" in message


def test_what_is_not_there_is_not_listed(zoo):
    (zoo / "tiny.weights.h5").unlink()
    xr.published.cache_clear()
    assert list(xr.published()) == ["far"]
    with pytest.raises(xr.InputError, match=r"no weights at tiny: .*published are far"):
        xr.load("tiny")
    with pytest.raises(xr.InputError, match="no published weights are here"):
        xr.load()


# --- downloads ---------------------------------------------------------------------------------


class Host(http.server.BaseHTTPRequestHandler):
    """Sends the file; of the first request the second half only when it is told to."""

    def do_GET(self):
        server, half = self.server, len(self.server.content) // 2
        server.asked += 1
        first = server.asked == 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content[:half])
        self.wfile.flush()
        if first:
            server.begun.set()
            server.go_on.wait(60)
        self.wfile.write(server.content[half:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def host(zoo, tmp_path, monkeypatch):
    """A server that has the file of "tiny", which is not at hand; an empty cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.asked, server.content = 0, (zoo / "tiny.weights.h5").read_bytes()
        server.begun, server.go_on = threading.Event(), threading.Event()
        server.go_on.set()
        server.cache = tmp_path / "home" / "keras_xreid"
        (zoo / "tiny.weights.h5").unlink()
        index = json.loads((zoo / "index.json").read_text())
        index["tiny"]["url"] = f"http://127.0.0.1:{server.server_port}/tiny.weights.h5"
        (zoo / "index.json").write_text(json.dumps(index))
        xr.published.cache_clear()
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.go_on.set()
        server.shutdown()
        serving.join()


def test_a_file_is_downloaded_once(host, model):
    images = couples()["hr"]
    features = xr.load("tiny").embed(images)
    assert np.abs(features - model.embed(images)).max() < 0.01 * np.abs(features).max()
    np.testing.assert_array_equal(xr.load("tiny").embed(images), features)
    assert host.asked == 1
    (cached,) = host.cache.iterdir()
    flip(cached, 5000)
    np.testing.assert_array_equal(xr.load("tiny").embed(images), features)
    assert host.asked == 2


def test_a_wrong_file_is_not_kept(host):
    host.content = host.content[:-1] + bytes([host.content[-1] ^ 1])
    with pytest.raises(xr.InputError, match=r"cannot download .*hash") as refused:
        xr.load("tiny")
    assert "\n" not in str(refused.value)
    assert not list(host.cache.iterdir())


def test_two_downloads_at_once(host):
    """Nothing half is ever under the final name, whoever comes first."""
    host.go_on.clear()
    found = []
    first = threading.Thread(target=lambda: found.append(hub.find("tiny")))
    first.start()
    assert host.begun.wait(60)
    final = host.cache / f"{xr.published()['tiny']['sha256'][:16]}.weights.h5"
    assert not final.exists()
    assert hub.find("tiny") == final
    assert host.asked == 2 and final.read_bytes() == host.content
    host.go_on.set()
    first.join()
    assert found == [final]
    assert final.read_bytes() == host.content and list(host.cache.iterdir()) == [final]


def test_the_published_files_are_what_the_index_says():
    for name, entry in xr.published().items():
        if entry["file"]:
            path = hub.PUBLISHED[0] / entry["file"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"], name
            assert path.stat().st_size == entry["bytes"] <= publish.FILE_BYTES
            assert (hub.PUBLISHED[0] / f"{name}.md").exists()
    assert sum(e["bytes"] for e in xr.published().values() if e["file"]) <= publish.ALL_BYTES
