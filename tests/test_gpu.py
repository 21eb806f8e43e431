"""The GPU plan without a GPU: what fits, what is written when, and what is refused."""

import importlib
import importlib.util
import itertools
import json
import sys
import time
from pathlib import Path

import keras
import pytest

pytest.importorskip("tyro")
if keras.backend.backend() != "torch":
    pytest.skip("runs on torch", allow_module_level=True)
FILE = Path(__file__).parent / "benchmarks" / "gpu.py"
SPEC = importlib.util.spec_from_file_location("gpu", FILE)
gpu = importlib.util.module_from_spec(SPEC)
sys.modules["gpu"] = gpu  # where its data classes look for themselves
SPEC.loader.exec_module(gpu)
from keras_xreid.app import recipes, settings  # noqa: E402

CARD = "NVIDIA H200"


def test_images_that_fit_by_hand():
    fit = [gpu.images_that_fit(seconds, 50, 1000, [1, 2, 3]) for seconds in (1000, 300, 200, 10)]
    # The most; (300 - 3 x 50) x 1000 / 6; two rows, for of three each had 8,333; the fewest.
    assert fit == [120_000, 25_000, pytest.approx(100_000 / 3), 12_800]


def test_utilisation_by_hand():
    assert gpu.utilisation(1000, 2e9, gpu.PEAKS[CARD], gpu.BFLOAT16) == pytest.approx(2 / 989)
    assert gpu.utilisation(1000, 2e9, gpu.PEAKS[CARD], "float32") is None
    assert gpu.utilisation(1000, 2e9, gpu.PEAKS.get("NVIDIA H100 PCIe"), gpu.BFLOAT16) is None


class Machine:
    """A clock, and recipes that take 20 s to start and score, and then train 1,000 images/s."""

    def __init__(self, folder, seconds, broken=()):
        self.folder, self.now, self.broken, self.seen = folder, seconds, broken, []

    def left(self):
        return self.now

    def call(self, command, seconds):
        words = dict(itertools.pairwise(command))
        run, system = Path(words["--out"]), command[4]
        settings.parsed(recipes.options(system), command[5:])  # it takes these options
        summary = self.folder / "summary.md"
        rows = summary.read_text().count("| control") if summary.exists() else 0
        self.seen.append((run.name, int(words["--steps"]), int(words["--epochs"]), rows))
        assert seconds == self.now
        images = 64 * int(words["--steps"]) * int(words["--epochs"])
        took = 20 + images / 1000 * gpu.ROWS.get(run.name, ("", "", 1))[2]
        self.now -= min(took, seconds)
        if took > seconds:
            return None
        if run.name in self.broken:
            return 1
        run.mkdir(parents=True)
        stage = system if system != "baseline" else "reid"
        scores = {"rank1": 50.0, "mAP": 40.0}
        metrics = {
            "images_seen": {stage: images}, "images_per_second": {stage: 1000},
            "per_rate": dict.fromkeys(("1", "4"), scores), "mean_lr": scores,
        }  # fmt: skip
        (run / "metrics.json").write_text(json.dumps(metrics))
        for name in ("queries.csv", "model.weights.h5", "report.md"):
            (run / name).write_text("")
        return 0


def train(tmp_path, monkeypatch, seconds, card=CARD, broken=(), **options):
    machine = Machine(tmp_path, seconds, broken)
    monkeypatch.setattr(gpu, "call", machine.call)
    monkeypatch.setattr(gpu, "read_metrics", lambda path: json.loads(path.read_text()))
    gpu.train(gpu.Options("train", rates=(1, 4), **options), card, tmp_path, machine.left)
    return machine.seen, (tmp_path / "summary.md").read_text()


def test_rows_share_the_time(tmp_path, monkeypatch):
    seen, summary = train(tmp_path, monkeypatch, 400)
    # First steps: 20 + 2.56 s, of which 21.28 are no training; (0.9 x 377.44 - 6 x 21.28) / 10 s
    # are 21,202 images, and 83 steps of 64 in each of 4 epochs.
    assert seen[0] == ("first-steps", 20, 2, 0)
    assert [call[:3] for call in seen[1:]] == [(name, 83, 4) for name in gpu.ROWS]
    # The summary is there after every row.
    assert [rows for *_, rows in seen[1:]] == [0, 1, 2, 2, 2, 2]
    assert "| rain | 21,248 | 62 | 1000.0 | 50.0 | 50.0 | 50.0 | 40.0 |" in summary
    assert summary.startswith(f"GPU: {CARD}") and "not run" not in summary
    names = {f"{row}.{end}" for row in gpu.ROWS for end in ("metrics.json", "weights.h5")}
    assert names < {path.name for path in tmp_path.iterdir()}


def test_what_did_not_fit_is_not_run(tmp_path, monkeypatch):
    seen, summary = train(tmp_path, monkeypatch, 130)
    assert [name for name, *_ in seen] == ["first-steps", "control-hr", "control-hr-lr"]
    for name in ("rain", "cadnet", "intact", "adaptive"):
        assert f"- not run: {name} (takes about " in summary
    assert summary.count("| control") == 2


def test_a_rehearsal_says_so(tmp_path, monkeypatch):
    seen, summary = train(tmp_path, monkeypatch, 90, None, ("control-hr-lr",), steps=2)
    # Nothing is measured first; what fails or is cut off is one row.
    assert [call[:3] for call in seen] == [(name, 2, 1) for name in list(gpu.ROWS)[:5]]
    assert summary.startswith("REHEARSAL on a CPU, 2 steps a row")
    assert "| rain (rehearsal) | 128 | 20 |" in summary
    assert "- not run: control-hr-lr (exit status 1)" in summary
    assert "- not run: intact (cut off)" in summary
    assert "- not run: adaptive (takes about 0 s, and 0 s are left)" in summary


def test_without_the_first_row_there_is_no_other(tmp_path, monkeypatch):
    seen, summary = train(tmp_path, monkeypatch, 900, None, ("control-hr",), steps=2)
    assert len(seen) == 1 and summary.count("control-hr, which it begins from, is not there") == 5


def test_speed_goes_on_after_a_failure_and_stops_in_time(tmp_path, monkeypatch):
    tried = []

    def measure(job, rounds):
        tried.append(gpu.in_words(job))
        if len(tried) == 2:
            raise RuntimeError("out of memory\nat length")
        if len(tried) == 3:
            time.sleep(30)  # until the alarm, after 2
        speeds = [
            {"case": job["case"], "task": "train", "contender": contender, "round": number,
             "images_per_second": speed * (1 + number), "peak_bytes": None}
            for contender, speed in (("handwritten", 100), ("torch", 50))
            for number in range(rounds)
        ]  # fmt: skip
        return gpu.summarise(speeds), 2e9

    monkeypatch.setattr(gpu, "measure", measure)
    options = gpu.Options("speed", steps=3, compiled=False, device_peak_tflops=4)
    gpu.speed(options, None, tmp_path, lambda: 2)
    first, failed, cut, last = map(gpu.in_words, gpu.settings(options, None))
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("REHEARSAL on a CPU, 3 steps a row")
    # 200 images/s x 2e9 operations of 4e12 a second.
    assert f"| {first} (rehearsal) | handwritten | 200.0 (100.0-300.0) | 1.00 | 10.0% |" in summary
    assert f"| {first} (rehearsal) | torch | 100.0 (50.0-150.0) | 0.50 | 5.0% |" in summary
    results = json.loads((tmp_path / "speed.json").read_text())
    assert results["rehearsal"] and [row["mfu"] for row in results["rows"]] == [0.1, 0.05]
    why = {failed: "RuntimeError: out of memory", cut: "cut off", last: ""}
    assert results["not_run"] == why and tried == [first, failed, cut]


def test_every_setting_is_measured_once():
    settings = gpu.settings(gpu.Options("speed"), CARD)
    assert len({gpu.in_words(job) for job in settings}) == len(settings) == 32
    assert gpu.in_words(settings[0]) == "ResNet-50, 256x128, batch 64, bfloat16, eager"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give train or speed"),
        (["--part", "trian"], "give train or speed"),
        (["--part", "speed", "--minutes", "0"], "more than 0"),
        (["--part", "train", "--steps", "0"], "1 or more"),
        (["--part", "speed", "--data-dir", "X"], "for --part train"),
        (["--part", "speed", "--out", "FULL"], "another --out"),
    ],
)
def test_bad_options(monkeypatch, capsys, tmp_path, words, said):
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit) as left:
        gpu.app.command(gpu.main, gpu.Options, "")
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
