"""Weights from an address and from the Hugging Face hub, against a stand-in; publishing there."""

import hashlib
import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest

import keras_xreid as xr
from keras_xreid import hub

ENTRY = {"system": "baseline", "licence": "Apache-2.0", "dataset": "synthetic", "split": "test"}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder as `push` writes it, of an untrained network."""
    folder = tmp_path_factory.mktemp("published")
    xr.save(xr.Baseline(5, backbone="osnet_x0_25", image_size=(64, 32)), folder / "x.weights.h5")
    content = (folder / "x.weights.h5").read_bytes()
    (folder / "x.weights.h5").unlink()
    entry = {**ENTRY, "sha256": hashlib.sha256(content).hexdigest()}
    hub.push(folder, content, entry, "# A card\n")
    return folder


class Hub(http.server.BaseHTTPRequestHandler):
    """What a model repository of the hub answers to who asks for a file."""

    def do_HEAD(self):
        name = self.path.rsplit("/", 1)[1]
        content = self.server.files.get(name)
        self.send_response(404 if content is None else 200)
        if content is not None:
            self.send_header("ETag", hashlib.sha256(content).hexdigest())
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def do_GET(self):
        content = self.do_HEAD()
        if content is not None:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(published, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files = {path.name: path.read_bytes() for path in published.iterdir()}
        server.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def test_what_a_folder_holds(published):
    assert {path.name for path in published.iterdir()} == {hub.WEIGHTS, hub.ENTRY, hub.CARD}
    assert json.loads((published / hub.ENTRY).read_text())["file"] == hub.WEIGHTS
    assert xr.load(published).people == 5


def test_a_folder_that_holds_something_else_is_left_alone(published, tmp_path):
    entry = json.loads((published / hub.ENTRY).read_text())
    content = (published / hub.WEIGHTS).read_bytes()
    for name in ("letter.txt", hub.CARD, hub.WEIGHTS):
        own = tmp_path / f"{name}-alone"
        own.mkdir()
        (own / name).write_text("dear")
        with pytest.raises(xr.InputError, match="holds other files than these weights': give a"):
            hub.push(own, content, entry, "card")
        assert [path.read_text() for path in own.iterdir()] == ["dear"]
    other = {**entry, "sha256": hashlib.sha256(content + b"x").hexdigest()}
    with pytest.raises(xr.InputError, match="holds other files"):
        hub.push(published, content + b"x", other, "card")
    assert (published / hub.WEIGHTS).read_bytes() == content
    hub.push(published, content, entry, "# A card\n")  # the same again
    with pytest.raises(xr.InputError, match="SHA-256 differs"):
        hub.push(tmp_path / "new", content + b"x", entry, "card")
    assert not (tmp_path / "new").exists()


def test_an_address_needs_its_hash(server, published):
    sha256 = json.loads((published / hub.ENTRY).read_text())["sha256"]
    address = f"{server.url}/{hub.WEIGHTS}"
    found = hub.find(f"{address}#sha256={sha256}")
    assert found.read_bytes() == (published / hub.WEIGHTS).read_bytes()
    with pytest.raises(xr.InputError, match="comes without its hash"):
        hub.find(address)
    with pytest.raises(xr.InputError, match="cannot download"):
        hub.find(f"{address}#sha256={'0' * 64}")
    cache = found.parent
    assert [path.name for path in cache.iterdir()] == [found.name]  # nothing wrong is kept


needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None,
    reason='hf:// needs pip install -e ".[hub]"',
)


@pytest.fixture
def hugging_face(server, tmp_path, monkeypatch):
    """huggingface_hub, which asks the stand-in and keeps what it finds in a folder of its own."""
    import huggingface_hub

    plain = huggingface_hub.hf_hub_download
    asked = {"endpoint": server.url, "cache_dir": tmp_path / "cache", "token": False}
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *given, **told: plain(*given, **told, **asked)
    )
    return server


@needs_hub
def test_from_hugging_face(hugging_face, published):
    found = hub.find("hf://somebody/model")
    assert found.read_bytes() == (published / hub.WEIGHTS).read_bytes()
    assert hub.find("hf://somebody/model@main") == found


@needs_hub
def test_other_weights_than_the_entry_says_are_refused(hugging_face):
    hugging_face.files[hub.WEIGHTS] += b"x"
    with pytest.raises(xr.InputError, match="holds other weights than its entry"):
        hub.find("hf://somebody/model")
    del hugging_face.files[hub.ENTRY]
    with pytest.raises(xr.InputError, match="cannot download hf://somebody/else"):
        hub.find("hf://somebody/else")
    with pytest.raises(xr.InputError, match="give hf://user/name"):
        hub.find("hf://somebody")


@needs_hub
def test_to_hugging_face(published, monkeypatch):
    import huggingface_hub

    calls, uploaded = [], {}

    class Api:
        def create_repo(self, name, exist_ok):
            calls.append((name, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            calls.append(repo_id)
            uploaded.update({p.name: p.read_bytes() for p in Path(folder_path).iterdir()})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    entry = json.loads((published / hub.ENTRY).read_text())
    hub.push("hf://me/mine", (published / hub.WEIGHTS).read_bytes(), entry, "# A card\n")
    assert calls == [("me/mine", True), "me/mine"]
    card = uploaded[hub.CARD].decode()
    assert card.startswith("---\nlicense: apache-2.0\n") and card.endswith("# A card\n")
    assert uploaded[hub.WEIGHTS] == (published / hub.WEIGHTS).read_bytes()

    def refuse(self, name, exist_ok):
        raise OSError("401: log in")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(xr.InputError, match="cannot publish to hf://me/mine"):
        hub.push("hf://me/mine", (published / hub.WEIGHTS).read_bytes(), entry, "# A card\n")


def test_the_best_weights_are_marked():
    entries = xr.published()
    assert hub.best() in entries and entries[hub.best()]["dataset"] != "synthetic"
    assert sum(bool(entry.get("best")) for entry in entries.values()) == 1
    assert hub.find().name == f"{hub.best()}.weights.h5"
