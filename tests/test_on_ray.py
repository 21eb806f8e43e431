"""Parquet parts that workers of Ray make: the same ones, each once, whoever is killed."""

import functools
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import keras_xreid as xr
from keras_xreid.app import bulk, embed, on_ray

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
ROOT = Path(__file__).parents[1]
WEIGHTS = "baseline_hrlr_tiny_synthetic"
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None,
                              reason="Ray is not installed")  # fmt: skip


def drawn(folder, n=11):
    """Images of noise, the eighth of which is broken."""
    folder.mkdir()
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 32, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (folder / "07.png").write_bytes(b"no image")
    for path in folder.iterdir():  # parts say nothing of the time of a file that was just written
        os.utime(path, (1e9, 1e9))
    return folder


def paths(out):
    """What all parts hold, in order, with what is rejected."""
    found = [pq.read_table(path)["path"].to_pylist() for path in sorted(out.glob("*.parquet"))]
    return [path[-6:-4] for part in found for path in part]


def test_parts_are_asked_of_the_engine(tmp_path, monkeypatch):
    """Those that are not there, each with its images; the folder is checked here, as always."""
    model, asked = xr.load(WEIGHTS), []
    images = drawn(tmp_path / "images")
    source = bulk.Images(embed.own_images(str(images)), {})

    def engine(source, work, rate, about):
        asked.append([(path.name, len(rows)) for path, rows in work])
        for path, rows in work:
            bulk.make_part(source, path, rows, model, rate, about)
            yield len(rows)

    out = tmp_path / "parts"
    bulk.embed_in_parts(source, out, model, 1.0, (1, 2), 4)
    assert bulk.embed_in_parts(source, out, model, 1.0, (0, 1), 4, engine=engine) == (7, 1)
    assert asked == [[("part-000000.parquet", 4), ("part-000002.parquet", 3)]]
    assert paths(out) == [f"{i:02d}" for i in range(11) if i != 7]
    bulk.embed_in_parts(source, out, model, 1.0, (0, 1), 4, engine=engine)
    assert len(asked) == 1  # there was nothing to ask for


def test_a_worker_that_makes_something_else_is_refused(tmp_path):
    """It sees another disk, or loads other weights; nothing is written."""
    model, worker = xr.load(WEIGHTS), on_ray._Worker()
    about, path = xr.gallery.about_model(model), tmp_path / "part-000000.parquet"
    told = bulk.Images([], {}), 1.0, about, WEIGHTS, os.getcwd()
    with pytest.raises(xr.InputError, match="does not see"):
        worker.make(told, path, [])
    (tmp_path / "plan.json").write_text("{}")
    other = *told[:2], {**about, "weights_sha256": "0" * 64}, *told[3:]
    with pytest.raises(xr.InputError, match="another model"):
        worker.make(other, path, [])
    assert not path.exists() and worker.make(told, path, []) == 0 and path.exists()


def test_engines_that_are_refused(tmp_path, monkeypatch):
    images, out = str(drawn(tmp_path / "images")), str(tmp_path / "parts")
    with pytest.raises(xr.InputError, match="give a folder as --out"):
        embed.main(embed.Options(images, f"{out}.npz", engine="ray"))
    with pytest.raises(xr.InputError, match="--workers is 0"):
        embed.main(embed.Options(images, out, engine="ray", workers=0))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(xr.InputError, match=r'pip install -e "\.\[ray\]"'):
        embed.main(embed.Options(images, out, engine="ray"))
    assert not Path(out).exists()


def test_workers_hold_no_cpu(monkeypatch):
    """Ray has those wait that find none, and the pool waits for them: without end."""
    asked = []

    def remote(**options):
        asked.append(options)
        return lambda kind: SimpleNamespace(remote=kind)

    class Pool:
        def __init__(self, workers):
            self.workers = workers

        def map_unordered(self, call, work):
            return (len(rows) for _, rows in work)

    nothing, errors = lambda *_, **__: None, {"RayError": OSError, "RayTaskError": KeyError}
    ray = SimpleNamespace(
        init=nothing, put=nothing, shutdown=nothing, cluster_resources=lambda: {"CPU": 2.0},
        remote=remote, exceptions=SimpleNamespace(**errors), util=SimpleNamespace(ActorPool=Pool),
    )  # fmt: skip
    monkeypatch.setattr(on_ray, "imported", lambda: ray)
    work = [("part", ["row"] * i) for i in range(4)]
    assert list(on_ray.made(bulk.Images([], {}), work, 1.0, {}, WEIGHTS, 4)) == [0, 1, 2, 3]
    assert len(asked) == 1 and asked[0]["num_cpus"] == asked[0]["num_gpus"] == 0


@with_ray
@pytest.mark.slow
def test_equal_to_parts_made_here(tmp_path):
    """Though a worker is killed: it begins its part anew, and no image is there twice."""

    class Deadly(bulk.Images):
        """Its first reader is killed in the middle of a part."""

        def read(self, row, size):
            if row.path.endswith("05.png") and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(row, size)

    model, records = xr.load(WEIGHTS), embed.own_images(str(drawn(tmp_path / "images")))
    engine = functools.partial(on_ray.made, weights=WEIGHTS, workers=2)
    here, there = tmp_path / "here", tmp_path / "there"
    wanted = bulk.embed_in_parts(bulk.Images(records, {}), here, model, 2.0, (0, 1), 4)
    source = Deadly(records, {})
    assert bulk.embed_in_parts(source, there, model, 2.0, (0, 1), 4, engine=engine) == wanted
    assert (tmp_path / "killed").exists()
    names = [path.name for path in sorted(here.iterdir())]
    assert names == [path.name for path in sorted(there.iterdir())]
    for name in names:
        if not name.endswith(".parquet"):
            assert (here / name).read_bytes() == (there / name).read_bytes()
            continue
        ours, theirs = pq.read_table(there / name), pq.read_table(here / name)
        assert ours.drop_columns("embedding").equals(theirs.drop_columns("embedding"))
        features = [np.stack(one["embedding"].to_numpy()) for one in (ours, theirs)]
        np.testing.assert_allclose(*features, rtol=1e-5, atol=1e-6)


@with_ray
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
def test_killed_and_gone_on(tmp_path):
    """The same command makes the parts that are not there, and no image twice."""
    images, out = drawn(tmp_path / "images", n=60), tmp_path / "parts"
    code = (
        "import sys; from keras_xreid.app import bulk, cli; "
        "bulk.embed_in_parts.__defaults__ = ((0, 1), 2); cli.main()"
    )
    command = [sys.executable, "-c", code, "embed", "--images", images, "--out", out, "--weights",
               WEIGHTS, "--engine", "ray", "--workers", "1"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not list(out.glob("*.parquet")):
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    kept = {path: path.read_bytes() for path in out.glob("*.parquet")}
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert all(path.read_bytes() == content for path, content in kept.items())
    left = int(re.search(r"(\d+) images to embed", again.stdout)[1])
    assert 0 < left <= 60 - 2 * len(kept)  # its worker may have ended the part that it was at
    assert paths(out) == [f"{i:02d}" for i in range(60) if i != 7]
