"""Nothing is lost, nothing is silent: run folders, locks, full disks, hostile and damaged files."""

import contextlib
import csv
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import keras_xreid as xr
from keras_xreid import files
from keras_xreid.training import checkpoint

pytest.importorskip("tyro", reason='the command line needs pip install -e ".[recipes]"')
pytest.importorskip("markdown_it", reason='pages need pip install -e ".[recipes]"')

from made_runs import made_run

from keras_xreid import app
from keras_xreid.app import cli, evaluate, index, provenance, recipes, search, settings
from keras_xreid.app import folder as folders
from keras_xreid.app import run as run_module
from keras_xreid.report.page import write_page

POSIX = pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")


@pytest.fixture
def people(tmp_path):
    """Three people to train on and two to find, as a list of one's own."""
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["path,person,camera,split"]
    for person in range(5):
        for camera in (1, 2):
            name = f"{person}_{camera}.bmp"  # all are of one size
            Image.fromarray(rng.integers(0, 255, (16, 8, 3), "uint8")).save(folder / name)
            split = "train" if person < 3 else ("query" if camera == 1 else "gallery")
            lines.append(f"{name},p{person},{camera},{split}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(people, tmp_path):
    """Prepares a run of the baseline in one folder; nothing is trained."""

    def prepare(**options):
        given = {"data": "csv", "data_dir": str(people), "out": str(tmp_path / "run"), **options}
        default = settings.defaults(recipes.options("baseline"))
        return run_module.Run("baseline", dataclasses.replace(default, **given), xr.Baseline)

    return prepare


@pytest.fixture
def line(monkeypatch, capsys):
    """Runs a command and returns its exit status and the one line that it leaves with."""

    def leave(*words):
        monkeypatch.setattr(sys, "argv", ["xreid", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return left.value.code, lines[0]

    return leave


# --- what a run wrote, and nothing else --------------------------------------------------------


def finish(folder):
    """A finished run in a folder, as `made_run` writes it, with weights and a figure."""
    if folder.exists():
        shutil.rmtree(folder)
    made_run(folder)
    (folder / "model.weights.h5").write_bytes(b"weights")
    (folder / "figures").mkdir()
    (folder / "figures" / "rank1.png").write_bytes(b"figure")
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["notes.txt", "figures/mine.png", "best.weights.h5", "old/metrics.json", ".old-run/my"]
)
def test_what_no_run_wrote_is_refused_and_named(run, tmp_path, name):
    folder = tmp_path / "run"
    before = finish(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(xr.InputError, match=r"holds .*, which no run wrote") as error:
        run(overwrite=True)
    assert name in str(error.value)
    assert (folder / name).read_text() == "mine" and all(p.exists() for p in before)


def test_an_options_file_of_another_program_is_left_alone(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "options.json").write_text('{"compilerOptions": {}}')
    with pytest.raises(xr.InputError, match="no run wrote"):
        run(overwrite=True)
    assert (folder / "options.json").exists()


@POSIX
def test_figures_behind_a_link_are_not_touched(run, tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    finish(folder)
    (folder / "figures").rename(elsewhere)
    (folder / "figures").symlink_to(elsewhere)
    with pytest.raises(xr.InputError, match="holds figures, which no run wrote"):
        run(overwrite=True)
    assert (elsewhere / "rank1.png").exists()


def test_the_old_run_stays_until_the_new_one_has_begun(run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    before = finish(folder)
    new = run(overwrite=True)
    assert all(path.read_bytes() == content for path, content in before.items())

    def full(path, value):
        assert not (folder / "metrics.json").exists()
        raise files.DiskError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(files.DiskError):
        patch.setattr(run_module.files, "write_json_atomic", full)
        new.callbacks("reid", None)
    assert {p: p.read_bytes() for p in before} == before
    new.callbacks("reid", None)
    new._release()
    assert {p.name for p in folder.iterdir()} == {"options.json"}


def test_a_run_that_was_moved_aside_comes_back(run, tmp_path):
    folder = tmp_path / "run"
    before = finish(folder)
    with contextlib.suppress(KeyboardInterrupt), folders.replaced(folder):
        assert not (folder / "metrics.json").exists()
        raise KeyboardInterrupt
    assert {p: p.read_bytes() for p in before} == before
    # Killed there, nothing moves it back but the next start.
    folders._move(folder, folder / folders.ASIDE)
    with pytest.raises(xr.InputError, match="is finished"):
        run(resume=True)
    assert {p: p.read_bytes() for p in before} == before
    assert not (folder / folders.ASIDE).exists()


@pytest.mark.parametrize("back", [False, True])
def test_a_run_comes_back_wherever_its_move_is_killed(tmp_path, monkeypatch, back):
    folder, replace = tmp_path / "run", os.replace
    for last in range(6):
        before = finish(folder)
        if back:
            folders._move(folder, folder / folders.ASIDE)
        moved = []

        def killed(source, target, last=last, moved=moved):
            if len(moved) == last:
                raise KeyboardInterrupt
            moved.append(replace(source, target))

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(folders.os, "replace", killed)
            pair = (folder, folder / folders.ASIDE)
            folders._move(*(reversed(pair) if back else pair))
        folders.mend(folder)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_wrong_weights_cost_no_finished_run(people, tmp_path, line):
    before = finish(tmp_path / "run")
    code, said = line("train", "baseline", "--data", "csv", "--data-dir", people, "--out",
                      tmp_path / "run", "--overwrite", "--weights", "nowhere")  # fmt: skip
    assert code == 2 and "nowhere" in said
    assert {p: p.read_bytes() for p in before} == before


def test_pictures_beside_a_search_are_not_its_own(tmp_path):
    for name in ("ranked.json", "ranked.png", "ranked-2.png", "ranked-mine.png"):
        (tmp_path / name).write_text("x")
    own = [path.name for path in tmp_path.iterdir() if search.PICTURE.fullmatch(path.name)]
    assert sorted(own) == ["ranked-2.png", "ranked.png"]


def test_publishing_replaces_no_file_that_is_there(tmp_path, line):
    made_run(tmp_path / "run", data={"train": {"people": 3}}, images_seen={"reid": 1}, split_id=0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.md").write_text("mine")
    code, said = line("publish", tmp_path / "run", "notes", "--out", out)
    assert code == 2 and "notes.md is there" in said
    assert (out / "notes.md").read_text() == "mine"


# --- one process at a time ---------------------------------------------------------------------

HOLDER = """
import sys, time
from keras_xreid.app import folder
folder.lock(sys.argv[1])
print("locked", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder):
    """Another process that has locked a folder."""
    words = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@POSIX
def test_a_folder_in_use_is_refused_and_taken_over_from_the_dead(run, people, tmp_path, line):
    folder = tmp_path / "run"
    finish(folder)
    with holder(folder) as process:
        words = f"in use by process {process.pid} since"
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(xr.InputError, match=words):
                run(**options)
        with pytest.raises(xr.InputError, match=words), evaluate.open_folder(folder):
            pass
        code, said = line("publish", folder, "name", "--out", folder)
        assert code == 2 and ("says nothing of" in said or words in said)
        process.kill()  # and not yet waited for: a zombie writes nothing any more
        deadline = time.monotonic() + 10
        while folders.began(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        release = folders.lock(folder)
        assert json.loads((folder / ".lock").read_text())["process"] == os.getpid()
        folders.lock(folder)  # its own process may lock it again
        release()
    assert not (folder / ".lock").exists()


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path):
    for changed in ({"began": "long ago"}, {"process": 2**22 + 5}, {"process": "x"}):
        owner = {"process": os.getppid(), "began": folders.began(os.getppid()), "since": "now",
                 "host": folders.socket.gethostname()}  # fmt: skip
        (tmp_path / ".lock").write_text(json.dumps(owner))
        with pytest.raises(xr.InputError, match="in use"):
            folders.refuse_locked(tmp_path)
        (tmp_path / ".lock").write_text(json.dumps({**owner, **changed}))
        folders.lock(tmp_path)()
        assert not list(tmp_path.iterdir())
    (tmp_path / ".lock").write_text("")  # a disk that was full
    folders.lock(tmp_path)()
    for number in (os.getppid(), os.getpid()):  # containers often have equal numbers
        there = {**owner, "process": number, "host": "elsewhere"}
        (tmp_path / ".lock").write_text(json.dumps(there))
        with pytest.raises(xr.InputError, match=r"on elsewhere: .* remove .*\.lock if it is dead"):
            folders.lock(tmp_path)


@POSIX
@pytest.mark.slow
def test_of_processes_that_begin_together_one_is_first(tmp_path):
    dead = {"process": 2**22 + 5, "began": "1", "since": "then",
            "host": folders.socket.gethostname()}  # fmt: skip
    (tmp_path / ".lock").write_text(json.dumps(dead))
    script = (
        "import sys, time\nfrom keras_xreid.app import folder\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "folder.lock(sys.argv[1])\nprint('first', flush=True)\ntime.sleep(3)"
    )
    start = [sys.executable, "-c", script, str(tmp_path), str(time.time() + 3)]
    begun = [subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
             for _ in range(3)]  # fmt: skip
    said = [process.communicate() for process in begun]
    assert sum(out == "first\n" for out, _ in said) == 1, said
    assert sum("in use by process" in error for _, error in said) == 2, said


@pytest.fixture
def writers(people, tmp_path):
    """Commands that write a folder, and the folder that each of them locks."""
    made_run(tmp_path / "runs" / "one")
    out, beside = tmp_path / "out", tmp_path / ".out-unfinished"
    return {
        "compare": (["compare", tmp_path / "runs" / "one", "--out", out], out),
        "tables": (["tables", "main", "--from", tmp_path / "runs", "--out", out], out),
        "build": (["build", "csv", people, out, "--protocol", "rain-code"], beside),
    }


@POSIX
@pytest.mark.parametrize("verb", ["compare", "tables", "build"])
def test_whatever_writes_a_folder_locks_it(writers, tmp_path, line, monkeypatch, verb):
    words, locked = writers[verb]
    with holder(locked) as process:
        code, said = line(*words)
        assert code == 2 and f"{locked} is in use by process {process.pid} since" in said
    assert [path.name for path in locked.iterdir()] == [".lock"]  # of one that was killed
    (locked / "images" / "train").mkdir(parents=True)
    (locked / "images" / "train" / "left.bmp").write_text("by it")
    monkeypatch.setattr(sys, "argv", ["xreid", *map(str, words)])
    cli.main()
    out = tmp_path / "out"
    assert out.is_dir() and not (out / ".lock").exists()
    if verb == "build":
        assert not locked.exists() and (out / "manifest.jsonl").exists()
        assert not list(out.rglob("left.bmp"))


def test_a_folder_that_was_made_in_vain_goes_with_its_lock(tmp_path):
    with pytest.raises(KeyboardInterrupt), folders.locked(tmp_path / "new"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").mkdir()
    with folders.locked(tmp_path / "old"):
        pass
    assert (tmp_path / "old").exists()


# --- full disks --------------------------------------------------------------------------------


class Batches:
    """What a checkpoint asks of batches."""

    epoch, batch_size = 0, 4

    def __len__(self):
        return 1


class Trained:
    """What a checkpoint asks of a model."""

    def __init__(self):
        self.variables = [np.zeros((1000, 100))]
        self.optimizer = self

    def save_weights(self, path, overwrite):
        import h5py

        with h5py.File(path, "w") as file:
            file["kernel"] = self.variables[0]

    def load_weights(self, path):
        pass


def trained(folder, epochs=1, **more):
    """A checkpoint after some epochs."""
    made = checkpoint.Checkpoint(folder / "checkpoint-a.weights.h5", Batches(), **more)
    made.set_model(Trained())
    for epoch in range(epochs):
        made.on_epoch_begin(epoch)
        made.on_epoch_end(epoch, {"loss": 1.0})
    return made


@pytest.mark.parametrize("name, value", [("seed", 1), ("people", 3), ("batch_size", 5)])
def test_other_batches_do_not_go_on(tmp_path, name, value):
    made = trained(tmp_path)
    vars(made.batches).update(seed=np.int64(0), people=2)
    made._save(1)
    assert made.restore(made.model) == 1
    before = getattr(made.batches, name)
    setattr(made.batches, name, value)
    with pytest.raises(xr.InputError, match=f"{name} of its batches was {before}, and is {value}"):
        made.restore(made.model)


def test_a_full_disk_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    made = trained(tmp_path)
    before = made.path.read_bytes()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1e6))
    made.on_epoch_begin(1)
    with pytest.raises(xr.InputError, match=r"No space .* it needs 1\.2 MB, 1\.0 MB are free"):
        made.on_epoch_end(1, {"loss": 1.0})
    assert made.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [made.path.name]


def test_a_disk_that_fails_meanwhile_is_said_by_name(tmp_path, monkeypatch):
    made = trained(tmp_path)
    before = made.path.read_bytes()

    def fails(path, overwrite):  # as h5py says it
        Path(path).write_bytes(b"half")
        raise RuntimeError(f"Can't close (errno = {errno.EDQUOT}, error message = 'quota')")

    monkeypatch.setattr(made.model, "save_weights", fails)
    with pytest.raises(xr.InputError, match=os.strerror(errno.EDQUOT)):
        made.on_epoch_end(1, {"loss": 1.0})
    assert made.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [made.path.name]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, where this system lets one be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.name == "nt" or shutil.which("mount") is None:
        pytest.skip("needs mount")
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=False)


@pytest.mark.parametrize("told", [True, False])
def test_a_small_disk(small_disk, monkeypatch, told):
    if not told:  # a quota, of which the disk says nothing
        monkeypatch.setattr(files, "_free", lambda path: 1e9)
    with pytest.raises(xr.InputError, match=r"checkpoint-a.* No space left .* needs 1\.2 MB"):
        trained(small_disk)
    assert not list(small_disk.iterdir())
    with pytest.raises(files.DiskError, match=r"x\.json: No space left .* needs 3\.0 MB"):
        files.write_json_atomic(small_disk / "x.json", "x" * 3_000_000)
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("told", [True, False])
def test_weights_on_a_small_disk(small_disk, monkeypatch, told):
    if not told:
        monkeypatch.setattr(files, "_free", lambda path: 1e9)
    model = xr.Baseline(3, backbone="osnet_x0_5", image_size=(32, 32))
    with pytest.raises(files.DiskError, match=r"a\.weights\.h5: No space left .* needs \d\.\d MB"):
        xr.save(model, small_disk / "a.weights.h5")
    assert not list(small_disk.iterdir())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = xr.Baseline(3, backbone="osnet_x0_25", image_size=(32, 32))
    weights = model.get_weights()
    weights[-1] = weights[-1] * np.float32(np.nan)
    model.set_weights(weights)
    with pytest.raises(xr.InputError, match=r"bias is not finite \(NaN\): .* is not written"):
        xr.save(model, tmp_path / "a.weights.h5")
    assert not list(tmp_path.iterdir())


def test_what_to_do_on_a_full_disk(monkeypatch, capsys):
    def full(options):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sys, "argv", ["recipe.py"])
    with pytest.raises(SystemExit) as left:
        app.main(full, settings.Nothing, "")
    said = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(said) == 1
    assert "No space left" in said[0] and "--resume" in said[0]


# --- what belongs together ---------------------------------------------------------------------


def test_the_history_is_repaired_from_the_checkpoint(tmp_path):
    history = tmp_path / "history.csv"
    made = trained(tmp_path, epochs=2, history=history)
    whole = history.read_text()
    checkpoint.write_history(history, made.rows[:1])  # killed before the second row
    again = checkpoint.Checkpoint(made.path, Batches(), history=history)
    assert again.restore(Trained()) == 2
    assert history.read_text() == whole
    assert [row["epoch"] for row in csv.DictReader(history.open(newline=""))] == ["1", "2"]


@pytest.mark.parametrize("resume", [True, False])
def test_a_finished_run_keeps_no_checkpoint(run, tmp_path, resume):
    folder = tmp_path / "run"
    before = finish(folder)
    for name in ("checkpoint-reid.weights.h5", "unfinished-model.weights.h5", "manifest.jsonl.part",
                 ".metrics.json.123.tmp", "figures/.cmc.png.7.tmp"):  # fmt: skip
        (folder / name).write_bytes(b"left")
    with pytest.raises(xr.InputError, match="finished" if resume else "holds a run already"):
        run(resume=resume)
    assert {path for path in folder.rglob("*") if path.is_file()} == set(before)


# --- what a run depends on ---------------------------------------------------------------------


def begun(run):
    first = run()
    first.callbacks("reid", None)
    first._release()


def test_a_run_goes_on_with_what_it_began_with(run, people, capsys):
    begun(run)
    run(resume=True)
    noted = run(resume=True).folder / "options.json"
    told = json.loads(noted.read_text())
    inputs = told["inputs"]
    assert inputs["people"] == ["p0", "p1", "p2"] and inputs["train"]["images"] == 6
    capsys.readouterr()
    for found, said in (
        ({**inputs, "keras_xreid": "0.0.1"}, "begun with keras_xreid 0.0.1"),
        (None, "not checked"),  # a run of an earlier version
    ):
        noted.write_text(json.dumps({**told, "inputs": found}))
        run(resume=True)
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("p1", "p9"), r"gone: p1; new: p9"),
        (lambda text: text.replace("1_2.bmp,p1", "1_2.bmp,p0").replace("0_2.bmp,p0", "0_2.bmp,p1"),
         "its train images, or what is told of them"),
        (lambda text: text.replace("4_1.bmp,p4,1,query", "4_1.bmp,p4,3,query"), "its query images"),
    ],
)  # fmt: skip
def test_a_list_that_was_changed_is_refused(run, people, change, words):
    begun(run)
    path = people / "people.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(xr.InputError, match=f"cannot go on: .*{words}"):
        run(resume=True)


def test_an_image_of_the_same_size_that_was_changed_is_refused(run, people):
    begun(run)
    (people / "1_1.bmp").write_bytes((people / "2_1.bmp").read_bytes())
    with pytest.raises(xr.InputError, match="cannot go on: its train images"):
        run(resume=True)


def test_weights_that_a_run_began_from_are_compared(run, tmp_path, monkeypatch):
    weights = tmp_path / "x.weights.h5"
    weights.write_bytes(b"first")
    default = run().options
    options = dataclasses.replace(default, weights=str(weights))
    data = run().data
    first = provenance.inputs_of(data, options)
    weights.write_bytes(b"other")
    with pytest.raises(xr.InputError, match="weights that it began from are others"):
        provenance.refuse_other_inputs("run", first, provenance.inputs_of(data, options))


# --- one line, whatever happens ----------------------------------------------------------------


def test_a_fault_of_the_program_is_one_line(monkeypatch, capsys, tmp_path, line):
    monkeypatch.setenv("XREID_DEBUG", "0")
    monkeypatch.setattr("keras_xreid.app.weights.xr", SimpleNamespace(published=lambda: 1 / 0))
    code, said = line("weights")
    assert code == 1 and "ZeroDivisionError: division by zero" in said and "--debug" in said
    monkeypatch.setattr(sys, "argv", ["xreid", "weights", "--debug"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
    assert sys.argv == ["xreid weights"]


def test_a_file_that_the_system_refuses_is_named(monkeypatch, line, tmp_path):
    monkeypatch.setattr("keras_xreid.app.weights.main", lambda options: tmp_path.read_bytes())
    code, said = line("weights")
    assert code == 2 and said == f"xreid weights: {tmp_path}: Is a directory"


def test_a_missing_tyro_is_one_line(monkeypatch, line):
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.delitem(sys.modules, "keras_xreid.app.search")
    monkeypatch.delattr("keras_xreid.app.search")
    code, said = line("search")
    assert code == 2 and 'pip install -e ".[recipes]"' in said


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"data": 1', b"\xff\xfe", "[" * 100_000])
def test_damaged_options_are_one_line(run, people, tmp_path, line, text):
    folder = tmp_path / "run"
    folder.mkdir()
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "options.json").write_bytes(content)
    with pytest.raises(xr.InputError, match=r"options\.json cannot be read"):
        run(resume=True)
    with pytest.raises(xr.InputError, match=r"options\.json cannot be read"):
        provenance.trained_on(folder)
    with pytest.raises(xr.InputError, match=r"options\.json that no run wrote"):
        run(overwrite=True)
    assert (folder / "options.json").read_bytes() == content


def test_what_an_old_terminal_cannot_show_is_spelled(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with app.guard():
            print("80.0 ± 2.2")
    assert (tmp_path / "out").read_text() == "80.0 \\xb1 2.2\n"


def test_names_command_no_terminal(monkeypatch, capsys, tmp_path, line):
    hostile = "a\x1b]0;title\x07\x1b[2J\rb\udcff\u202egnp.exe"
    safe = r"a\x1b]0;title\x07\x1b[2J" + r"\rb\udcff\u202egnp.exe"
    assert files.harmless(hostile) == safe and files.harmless("né 人\t\r\n") == "né 人\t\r\n"
    assert files.harmless("a\nb\rc\td", name=True) == r"a\nb\rc\td"
    bar = "\r\x1b[1m1/2\x1b[0m\x08"
    assert files.harmless(bar, bar=True) == bar
    code, said = line("embed", "--images", tmp_path / hostile, "--out", tmp_path / "x.npz")
    assert code == 2 and safe.split("\\r")[0] in said and "\x1b" not in said
    monkeypatch.setattr("keras_xreid.app.weights.main", lambda options: print(hostile))
    monkeypatch.setattr(sys, "argv", ["xreid", "weights"])
    cli.main()
    assert capsys.readouterr().out == safe.replace(r"\r", "\r") + "\n"
    files.write_text_atomic(tmp_path / "notes.md", hostile)
    assert (tmp_path / "notes.md").read_text("utf-8") == safe


# --- pages and metrics -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "figures/../../secret.png", "link.png", "/etc/passwd", "https://x.y/z.png",
     "//x.y/z.png", "secret.svg", "data:image/png;base64,AAAA"],
)  # fmt: skip
def test_a_page_takes_no_image_from_elsewhere(tmp_path, name):
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    (folder / "secret.svg").write_text("<svg/>")
    if name == "link.png":
        (folder / name).symlink_to(tmp_path / "secret.png")
    text = f"# Run\n\n| a | b |\n| - | - |\n| ![x]({name}) | 1 |\n"
    with contextlib.suppress(xr.InputError):
        page = write_page(folder / "report.html", text).read_text()
        assert "<img" not in page  # markdown-it refuses some itself
        return
    with pytest.raises(xr.InputError, match=r"is no PNG in .*not taken|cannot be read"):
        write_page(folder / "report.html", text)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"per_rate": [1, 2]}, {"per_rate": {"1": 5}}, {"per_rate": {"1": {"rank1": "x"}}},
        {"per_rate": {"one": {"rank1": 1.0}}}, {"per_rate": {"1": {"mAP": 1.0}}},
        {"per_rate": {"1": {"rank1": None}}}, {"mean_lr": 3}, {"mean_lr": {"rank1": [1]}},
        {"options": []}, {"options": {"train_rates": 3}}, {"options": {"preset": 1}},
        {"system": 5}, {"seed": "x"}, {"seconds": "long"}, {"enlarged": [1]},
        {"enlarged": {"per_rate": 3}}, {"standard_error": 2}, {"queries": "many"},
        {"images_seen": ["reid"]}, {"to_embed": "much"}, {"data": 3}, {"split_id": 1.5},
        {"short_run": "no"}, {"dataset": {}}, {"flip": 1}, {"summary": 1}, {"fold": "x"},
    ],
)  # fmt: skip
def test_metrics_of_wrong_types_are_one_line(tmp_path, line, changes):
    made_run(tmp_path / "a", "intact")
    metrics = made_run(tmp_path / "b")
    (tmp_path / "b" / "metrics.json").write_text(json.dumps({**metrics, **changes}))
    code, said = line("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert code == 2 and "metrics.json" in said
    code, said = line("publish", tmp_path / "b", "name", "--out", tmp_path / "out")
    assert code == 2 and "metrics.json" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes", [{"per_rate": 3}, {"queries": None}, {"mean_lr": {}}, {"seconds": "x"}]
)
def test_tables_of_damaged_runs_are_one_line(tmp_path, line, changes):
    made_run(tmp_path / "runs" / "control-hr", "baseline", **changes)
    code, said = line("tables", "main", "--from", tmp_path / "runs", "--out", tmp_path / "out")
    assert code == 2 and "metrics.json" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["system", "per_rate", "options", "data", "images_seen", "split"])
def test_what_a_card_needs_is_asked_for(tmp_path, line, name):
    metrics = made_run(
        tmp_path / "run", data={"train": {"people": 3}}, images_seen={"reid": 1}, split_id=0,
        mixed={"rank1": 1.0},
    )  # fmt: skip
    del metrics[name]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    code, said = line("publish", tmp_path / "run", "name", "--out", tmp_path / "out")
    assert code == 2 and f"says nothing of {name}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [("history.csv", "stage,seconds\nx,y\n"), ("manifest.jsonl", "{"), ("manifest.jsonl", "[]\n"),
     ("queries.csv", "query\n1\n")],
)  # fmt: skip
def test_damaged_files_of_a_run_are_one_line(tmp_path, line, name, text):
    good = "query,person,camera,rate,variant,rank1,AP,INP\nq,1,1,2,plain,100,100,100\n"
    for system in ("baseline", "intact"):
        made_run(tmp_path / system, system)
        (tmp_path / system / "queries.csv").write_text(good)
    (tmp_path / "intact" / name).write_text(text)
    code, said = line("compare", tmp_path / "baseline", tmp_path / "intact", "--out",
                      tmp_path / "out")  # fmt: skip
    assert code == 2 and name in said


@pytest.mark.parametrize("text", ["{", "[]", b"\xff"])
def test_a_damaged_index_is_one_line(tmp_path, line, text):
    made_run(tmp_path / "run", data={"train": {"people": 3}}, images_seen={"reid": 1}, split_id=0)
    index = tmp_path / "out" / "index.json"
    index.parent.mkdir()
    index.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, said = line("publish", tmp_path / "run", "name", "--out", tmp_path / "out")
    assert code == 2 and "index.json cannot be read" in said


# --- kept embeddings ---------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path):
    """Images that were there for a while, and where their hashes are kept."""
    paths = []
    for i in range(3):
        path = tmp_path / f"{i}.bmp"
        Image.new("RGB", (8, 16), (i, 0, 0)).save(path)
        paths.append(str(path))
    return paths, tmp_path / "kept"


def test_an_image_is_hashed_once(gallery, monkeypatch):
    paths, kept = gallery
    hashed = []
    sha256 = index.file_sha256
    monkeypatch.setattr(index, "file_sha256", lambda path: hashed.append(path) or sha256(path))
    first = index.hashes_of(paths, kept, {})
    assert hashed == paths and not kept.exists()  # they were written just now
    monkeypatch.setattr(index, "SETTLED", -1)
    for expected in (paths, []):
        hashed.clear()
        assert index.hashes_of(paths, kept, {}) == first and hashed == expected
    # The same size and the same time of its content: the time of the change tells.
    stat = os.stat(paths[0])
    Path(paths[0]).write_bytes(Path(paths[1]).read_bytes())
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = index.hashes_of(paths, kept, {})
    assert hashed == paths[:1] and found[paths[0]] == first[paths[1]]
    for damaged in ("{", "[]", json.dumps(dict.fromkeys(paths, 3))):
        (kept / "hashes.json").write_text(damaged)
        assert index.hashes_of(paths, kept, {}) == found


class Model:
    image_size = (16, 8)

    def __init__(self, value=1.0):
        self.value, self.asked = value, 0

    def embed(self, images, rates=None):
        self.asked += len(images)
        return np.full((len(images), 4), self.value, "float32")


def test_numbers_that_are_not_finite_are_refused(gallery, capsys):
    paths, kept = gallery
    records = [xr.Record(path, None, 0) for path in paths]
    with pytest.raises(xr.InputError, match=r"0\.bmp into numbers that are not finite \(NaN\)"):
        index.embed_once(Model(np.nan), records, kept)
    assert not kept.exists()
    index.embed_once(Model(), records, kept)
    (file,) = kept.glob("*.npz")
    with np.load(file) as found:
        images = found["images"]
    np.savez(file, images=images, features=np.full((3, 4), np.inf, "float32"))
    model = Model()
    *_, features, _ = index.embed_once(model, records, kept)
    assert model.asked == 3 and np.isfinite(features).all()
    assert "is damaged: its images are embedded anew" in capsys.readouterr().out


def test_a_list_to_search_that_names_an_image_twice(tmp_path):
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,person\na.png,anna\na.png,ben\n")
    with pytest.raises(xr.InputError, match=r"list\.csv lists .*a\.png more than once"):
        index.own_images(tmp_path / "list.csv")


def test_kept_embeddings_of_another_width(gallery):
    paths, kept = gallery
    records = [xr.Record(path, None, 0) for path in paths]
    index.embed_once(Model(), records[:1], kept)
    (file,) = kept.glob("*.npz")
    with np.load(file) as found:
        np.savez(file, images=found["images"], features=np.ones((1, 5), "float32"))
    with pytest.raises(xr.InputError, match=f"not of these weights: remove {kept}"):
        index.embed_once(Model(), records, kept)


def test_kept_embeddings_are_in_memory_once(tmp_path):
    names = [f"{i:064x}" for i in range(32 * 256)]
    wanted = np.arange(8192, dtype="float32")[:, None] + np.arange(256, dtype="float32")
    for start in range(0, len(names), 256):
        index.keep(tmp_path, names[start : start + 256], wanted[start : start + 256])
    row_of = {name: row for row, name in enumerate(reversed(names))}
    tracemalloc.start()
    found, known = index.read_kept(tmp_path, row_of)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, wanted[::-1])
    assert known.all() and most < 1.3 * wanted.nbytes
