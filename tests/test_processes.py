"""Several processes train as one does: shares of a batch, weights in the end, and how they end."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import kills
import numpy as np
import processes_worker
import pytest
import small
from test_batches import assert_equal, records  # noqa: F401

import keras_xreid as xr
from keras_xreid import _backend, app
from keras_xreid.data.batches import ImageBatches, PairBatches
from keras_xreid.errors import InputError, LostProcess
from keras_xreid.training import processes, share

ROOT = Path(__file__).parents[1]
WORKER = ROOT / "tests" / "processes_worker.py"
on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="torchrun's processes train on PyTorch"
)
ALL = ("intact", "rain", "adaptive", "baseline", "distilled", "thinned", "by_batch")
# Rounding turns the sign of an absolute error, or picks another hardest triplet, and the toy's
# alignment multiplies that: 4e-5 after one step, 7e-4 after five. The two are compared alone.
FLIPS = ("rain",)


def launched(monkeypatch, rank, count):
    """As a launcher tells a process."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, str(value))


# --- shares of a batch ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PairBatches, ImageBatches])
@pytest.mark.parametrize("options", [{"people_per_batch": 3, "images_per_person": 4},
                                     {"batch_size": 6, "strength": 0.5},
                                     {"batch_size": 6, "workers": 1}])  # fmt: skip
def test_shares_are_the_batch(records, kind, options):  # noqa: F811
    more = {"independent": True} if kind is PairBatches else {}
    given = {"image_size": (16, 8), "rates": "1..4", "erase": True, "jitter": True, **options}
    batches = kind(records, kernel="random", **more, **given)
    whole = batches[0]
    parts = []
    for rank in range(3):
        batches.draw_share(rank, 3)
        parts.append(batches[0])
        assert_equal(batches.batch(0, 0), whole)
    assert_equal({name: np.concatenate([p[name] for p in parts]) for name in whole}, whole)
    batches.draw_share(0, 1)
    assert_equal(batches[0], whole)


def test_what_cannot_be_shared_is_refused(records, monkeypatch):  # noqa: F811
    batches = ImageBatches(records, image_size=(16, 8), batch_size=6)
    with pytest.raises(InputError, match=r"6 images or pairs a batch .* 4 processes: give"):
        batches.draw_share(0, 4)
    monkeypatch.setattr(share, "processes", 4)
    with (
        pytest.raises(InputError, match=r"6 images .* 4 processes"),
        processes.sharing({"x": np.zeros(6)}),
    ):
        pass


def test_shuffling_is_refused(monkeypatch):
    monkeypatch.setattr(share, "processes", 2)
    with pytest.raises(InputError, match="shuffle is True, and 2 processes would each draw"):
        small.compiled(small.baseline(), 0).fit(small.Repeat(small.images()), shuffle=True)


def test_a_step_takes_the_rows_of_its_process(monkeypatch):
    launched(monkeypatch, 1, 2)
    monkeypatch.setattr(share, "processes", 2)
    with processes.sharing({"x": np.arange(6)}) as own:
        assert own["x"].tolist() == [3, 4, 5] and share.rows == 3
    with processes.sharing({"x": np.arange(3)}, drawn=True) as own:
        assert own["x"].tolist() == [0, 1, 2] and share.rows == 3
    assert share.rows == 0


def test_one_process_is_given_what_it_gave():
    x = [np.ones(2), None]
    assert processes.whole(x) is x
    assert processes.averaged(x, x) is x and processes.mean(x) is x


# --- who may start -------------------------------------------------------------------------------


def test_a_launcher_is_known_by_all_that_it_tells(monkeypatch):
    assert _backend.place() == (0, 1)
    launched(monkeypatch, 1, 2)
    assert _backend.place() == (1, 2)
    monkeypatch.delenv("MASTER_ADDR")
    assert _backend.place() == (0, 1)


@pytest.mark.parametrize("backend, says", [("jax", "on jax one trains"),
                                           ("tensorflow", "on tensorflow one trains")])  # fmt: skip
def test_other_backends_train_in_one_process(monkeypatch, backend, says):
    monkeypatch.setattr(processes, "BACKEND", backend)
    launched(monkeypatch, 0, 2)
    with pytest.raises(InputError, match=f"2 processes were started, and {says}: set KERAS_B"):
        processes.start()


def test_workers_of_tensorflow_are_refused(monkeypatch):
    monkeypatch.setattr(processes, "BACKEND", "tensorflow")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {}}')
    with pytest.raises(InputError, match="TF_CONFIG names several workers"):
        processes.start()


def test_only_training_takes_several_processes(monkeypatch, capsys):
    launched(monkeypatch, 0, 2)
    with pytest.raises(SystemExit) as left:
        app.command(print, object, "")
    assert left.value.code == 2
    assert "only training takes several processes" in capsys.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
def test_bad_options_are_said_once(monkeypatch, capfd, rank):
    """Each process finds them, and the first one tells."""
    launched(monkeypatch, rank, 2)
    with pytest.raises(SystemExit) as left, app.guard():
        raise InputError("give a batch size that 2 divides")
    assert left.value.code == 2
    assert capfd.readouterr().err.count("give a batch size that 2 divides\n") == (rank == 0)


def test_a_lost_process_is_one_line(capsys):
    with pytest.raises(SystemExit) as left, app.guard(lambda: "go on with --resume"):
        raise LostProcess("in other words")
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert "another process of this training has ended" in said and said.count("\n") == 1
    assert said.endswith("; go on with --resume\n")


# --- two processes and one -----------------------------------------------------------------------


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def workers(folder, *names, count=2):
    """Runs `processes_worker.py` in processes that train together; returns what each saved."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, WORKER, folder, folder / f"{rank}.npz", *names],
            env={**os.environ, **place, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    told = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(told)
    assert not any("Gradient norms" in text for text in told[1:])  # the first one talks
    return [np.load(folder / f"{rank}.npz") for rank in range(count)]


@on_torch
@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path):
    processes_worker.drawn(tmp_path)
    first, second = workers(tmp_path, *ALL)
    processes_worker.main(tmp_path, tmp_path / "one.npz", *ALL)
    one = np.load(tmp_path / "one.npz")
    assert set(one.files) == set(first.files) == set(second.files)
    for name in one.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if name.split(":")[0] in FLIPS:
            continue
        close = {"rtol": 1e-3, "atol": 1e-6} if ": log " in name else {"rtol": 2e-5, "atol": 1e-5}
        np.testing.assert_allclose(first[name], one[name], err_msg=name, **close)
    assert min(one[f"{name}: log moved"] for name in ALL) > 1e-3


# --- a process that dies -------------------------------------------------------------------------


def torchrun(out, *more):
    """A baseline in two processes; the launcher and the file of its words."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                "--master-port", str(free_port())]  # fmt: skip
    short = ["--limit", "4", "--steps", "2", "--batch-size", "4", "--epochs", "3", "--rates", "1"]
    words = [*launcher, str(ROOT / "recipes/baseline.py"), *short, "--out", str(out), *more]
    log = out.with_suffix(".log")
    with open(log, "wb") as file:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment), log


def said(log):
    """The lines in which a run says why it ends."""
    return re.findall(r"^baseline.py: (.*)", log.read_text(), re.MULTILINE)


def children(launcher):
    """The processes that a launcher started, in order."""
    told = ["ps", "-o", "pid=", "--ppid", str(launcher.pid)]
    return sorted(map(int, subprocess.run(told, capture_output=True, text=True).stdout.split()))


@on_torch
@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_one_line_and_resume_goes_on(tmp_path):
    never, out = tmp_path / "never", tmp_path / "killed"
    process, log = torchrun(never)
    kills.ended(process, log)
    assert log.read_text().count("Finished in") == 1  # the first process alone talks

    process, log = torchrun(out)
    assert kills.waited(process, lambda: list(out.glob("checkpoint-*")), 0.05)
    os.kill(children(process)[1], signal.SIGKILL)
    assert process.wait() != 0
    assert len(said(log)) == 1 and said(log)[0].endswith("last finished epoch with --resume")
    assert not (out / "metrics.json").exists()

    process, log = torchrun(out, "--resume")
    kills.ended(process, log)
    assert "going on after epoch" in log.read_text()
    one, other = (xr.load(folder).get_weights() for folder in (never, out))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
