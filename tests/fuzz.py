"""300 bad or odd inputs to functions and to all verbs, the same each time: `python tests/fuzz.py`.

Each must give a result, or an InputError or ValueError of one line; anything else is a fault. A
verb that refuses leaves with status 2, one line, and every file as it was. What is wrong for
certain has to be refused.
"""

import collections
import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
from made_runs import made_queries, made_run
from PIL import Image

import keras_xreid as xr
from keras_xreid.app import cli
from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.data.datasets import hide_labels, hold_out_people
from keras_xreid.data.protocols import apply_protocol, build, verify
from keras_xreid.data.resolution import resize
from keras_xreid.weights import ATTRIBUTE

COUNT = 25  # of each kind
NUMBERS = (None, -1, 0, 0.5, 10**30, 2**31, 1e300, float("nan"), float("inf"), True, np.int64(3),
           np.float32(2.5), "x", "", "2", b"2", [], [1, 2], {}, np.zeros(2), object())  # fmt: skip
CELLS = ("", " ", "-1", "-1.0", "0", "0000", "9" * 400, "9" * 5000, "1e400", "nan", "\u0661",
         "\u00b2", "a,b", '"', '"a\nb"', "\x1b[31m", "\0", "../x", "/", ".", "a/1.jpg", "a/2.jpg",
         "train", "query", "gallery", "2147483648", "-5", "0x10", "\ufeff", "é" * 3000)  # fmt: skip
GOOD_TREES = {
    "market1501": [f"{place}/{person}_c{camera}s1_000151_00.jpg" for place, person, camera in (
        ("bounding_box_train", "0002", 1), ("bounding_box_train", "0003", 2), ("query", "0005", 1),
        ("bounding_box_test", "0005", 2), ("bounding_box_test", "0000", 2))],
    "dukemtmc": [f"{place}/0005_c{camera}_f0046182.jpg" for place, camera in (
        ("bounding_box_train", 1), ("query", 1), ("bounding_box_test", 2))],
    "viper": [f"cam_{side}/{person:03d}_45.bmp" for side in "ab" for person in range(4)],
    "caviar": [f"{person:04d}{i:03d}.jpg" for person in (1, 2, 3, 4) for i in (1, 11)],
    "mlr": ["train/0001_c1_0.jpg", "query/0007_c0_0.jpg", "gallery/0007_c1_0.jpg"],
}  # fmt: skip


def picked(rng, values):
    return values[rng.integers(len(values))]


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def people(folder):
    """Records of three people by two cameras."""
    records = []
    for person in range(1, 4):
        for camera in (1, 2):
            path = folder / f"p{person}_{camera}.png"
            if not path.exists():
                draw(path, 10 * person + camera)
            records.append(xr.Record(str(path), person, camera))
    return records


def flipped(rng, content):
    """Content with a few bytes changed, cut out, doubled or cut off."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(content)))
        kind = rng.integers(4)
        if kind == 0:
            content[at] = int(rng.integers(256))
        elif kind == 1:
            del content[at : at + int(rng.integers(1, 9))]
        elif kind == 2:
            content[at:at] = content[at : at + 8]
        else:
            del content[max(1, at) :]
    return bytes(content)


# --- kinds: each gives a call -------------------------------------------------------------------


def csv_list(rng, folder):
    for i in range(1, 5):
        draw(folder / "a" / f"{i}.jpg", i)
    rows = [["path", "person", "camera", "split", "rate"]]
    for i, (who, role) in enumerate(
        (("a", "train"), ("b", "train"), ("c", "query"), ("c", "gallery"))
    ):
        rows.append([f"a/{i + 1}.jpg", who, str(i % 2 + 1), role, ""])
    kind = rng.integers(5)
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        if kind < 3:
            row[rng.integers(len(row))] = picked(rng, CELLS)
        elif kind == 3:
            row.append(picked(rng, CELLS))
        else:
            rows.append(list(row))
    text = "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
    (folder / "list.csv").write_bytes(flipped(rng, text) if rng.random() < 0.2 else text)
    protocol = picked(rng, (None, None, "paper", "each-rate", "rain-code"))
    return lambda: xr.datasets.load("csv", folder, protocol=protocol, limit=picked(rng, (None, 1)))


def tree(rng, folder):
    names = ("0001_c1s1_000151_00.jpg", "0000_c1s1_000151_00.jpg", "-1_c2s1_000151_00.jpg",
             "0001_c2s1_000151_00 (1).jpg", "0001_c2s1_000151_00.jpg.jpg", "0001_c2_f0046182.jpg",
             f"{'9' * 200}_c1s1_1_1.jpg", f"0001_c{'9' * 200}s1_1_1.jpg", "0002_c0_00000_3x.jpg",
             "0002_c1_00000_0x.jpg", "000_45.bmp", "001_45.bmp", "0001001.jpg", "0001011.jpg",
             "0002001.png", "0002011.png", "x\ny.jpg", "\x1b[2J.jpg", "Thumbs.db")  # fmt: skip
    places = ("bounding_box_train", "bounding_box_test", "query", "gallery", "train", "cam_a",
              "cam_b", "query/lr", "gallery/hr", "train/hr", ".")  # fmt: skip
    name = picked(rng, ("market1501", "dukemtmc", "viper", "caviar", "mlr", "cuhk03"))
    if rng.random() < 0.7:
        for good in GOOD_TREES.get(name, ()):
            draw(folder / good)
    for _ in range(rng.integers(1, 9)):
        path = folder / picked(rng, places) / picked(rng, names)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            continue
        if rng.random() < 0.97:
            draw(path.with_name("x.png"))
            path.with_name("x.png").rename(path)
        elif not path.exists():
            path.mkdir()
    protocol = picked(rng, (None, "paper", "paper-all-queries", "multi-shot"))
    return lambda: xr.datasets.load(name, folder, protocol=protocol)


def built(rng, folder):
    data = xr.DataSet(
        "own", people(folder), people(folder)[::2], people(folder)[1::2], root=str(folder)
    )
    out = folder / "mlr"
    build(apply_protocol(data, "paper-all-queries"), out, verbose=False)
    table = out / "manifest.jsonl"
    lines = table.read_text().splitlines()
    row = json.loads(lines[0])
    values = (None, -1, 0, 0.5, 10**30, float("nan"), True, "x", "", [], {}, [[1]], "../../x", "/x",
              "9" * 64, "query", "a\nb", "\ud800")  # fmt: skip
    for _ in range(rng.integers(1, 3)):
        name = picked(rng, sorted(row))
        if rng.random() < 0.2:
            row.pop(name)
        else:
            row[name] = picked(rng, values)
    lines[rng.integers(len(lines))] = json.dumps(row)
    text = "\n".join(lines).encode()
    table.write_bytes(flipped(rng, text) if rng.random() < 0.3 else text)

    def call():
        found = xr.datasets.load("mlr", out)
        xr.manifest_rows(found, ())
        [record.read() for record in found.query + found.gallery]
        verify(out, verbose=False)

    return call


def image(rng, folder):
    path = folder / f"x.{picked(rng, ('jpg', 'png', 'bmp', 'tif', 'ppm', 'webp'))}"
    kind = rng.integers(4)
    if kind == 0:
        values = picked(rng, (1.0, 255.0, 1e9, np.nan, -1.0)) * rng.random((9, 5))
        Image.fromarray(values.astype("float32")).save(path, "TIFF")
    elif kind == 1:
        mode = picked(rng, ("1", "L", "P", "CMYK", "LAB", "I", "I;16", "F", "YCbCr", "LA", "HSV"))
        Image.new(mode, (5, 9), 1 if mode in ("1", "I", "F", "I;16") else None).save(
            path, "TIFF"
        ) if mode != "HSV" else draw(path)
    elif kind == 2:
        Image.new("RGB", (8, 16)).save(
            path, picked(rng, ("EPS", "GIF", "PDF", "TGA", "ICO", "SGI"))
        )
    else:
        draw(path)
        path.write_bytes(flipped(rng, path.read_bytes()))
    return lambda: xr.Record(str(path), 1, 1).read()


def weights_file(rng, folder):
    path = folder / "a.weights.h5"
    path.write_bytes(saved())
    kind = rng.integers(4)
    if kind == 0:
        path.write_bytes(flipped(rng, saved()))
    else:
        with h5py.File(path, "a") as file:
            about = json.loads(file.attrs[ATTRIBUTE])
            place = about if kind == 1 else about["config"]
            place[picked(rng, sorted(place))] = picked(
                rng, (None, -1, 0, 10**7, 10**30, "x", [], {}, [1], "imagenet", "INTACT", True, 0.5)
            )
            file.attrs[ATTRIBUTE] = json.dumps(about) if rng.random() < 0.9 else "[" * 9999
            if kind == 3:
                names = [name for name in file if name != "vars"]
                del file[picked(rng, names)]
    return lambda: xr.load(path)


def saved(kept=[]):  # noqa: B006
    """A small weights file, made once."""
    if not kept:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.weights.h5"
            xr.save(xr.Baseline(5, backbone="osnet_x0_25", image_size=(32, 32)), path)
            kept.append(path.read_bytes())
    return kept[0]


def address(rng, folder):
    host = "https://127.0.0.1:9/a"
    names = ("", " ", "nothing", "\0", "x" * 5000, "a\nb", "\ud800", "hf://", "hf://a", "hf://a/b/c",
             "hf:///", "https://", host, f"{host}#sha256=", f"{host}#sha256={'../' * 21}x",
             "http://127.0.0.1:9/a#md5=1", f"{host}#sha256={'0' * 64}", "file:///etc/passwd", "/",
             "..", "/dev/null", "/etc/passwd", str(folder), 7, b"x", [], object(), 1.5,
             "x.weights.h5", "~")  # fmt: skip
    name = picked(rng, names)
    return lambda: xr.load(name)


def pictures(rng, folder):
    good = np.zeros((16, 8, 3), np.uint8)
    images = (good, good[:0], good[..., :1], good[..., 0], good.astype("float32"), good.tolist(),
              None, "x.jpg", xr.Record("absent.png", 1, 1), good[:1, :1], 7)  # fmt: skip
    one, rate = picked(rng, images), picked(rng, NUMBERS)
    size = picked(rng, ((16, 8), (0, 8), (-1, 8), (10**9, 10**9), (16,), 16, None, "ab", (1.5, 2),
                        (np.int64(16), 8), (16, 8, 3)))  # fmt: skip
    kernel = picked(rng, ("area", "area", "max-pool", "x", None, 7, []))
    call = rng.integers(4)
    if call == 0:
        return lambda: xr.degrade(one, picked(rng, (rate, 2)), kernel)
    if call == 1:
        return lambda: resize(one, size)
    if call == 2:
        return lambda: xr.prepare_images([one] * 2, size, picked(rng, (1, rate)), kernel)
    return lambda: xr.rates_from_sizes([one], picked(rng, (128, rate)))


def ranking(rng, folder):
    people = (1, 2, "a", "-1", -1, 0, "0", None, np.int64(1), np.float32(1), 10**30)
    query = [xr.Record("q", picked(rng, people), picked(rng, (1, 2, "1", None))) for _ in range(2)]
    gallery = [xr.Record("g", picked(rng, people), picked(rng, (1, 2, 3))) for _ in range(5)]
    shape = picked(rng, ((2, 5), (2, 5), (2, 5), (5, 2), (0, 0), (2,), (7, 7), ()))
    values = rng.random(shape) * picked(rng, (1.0, 1.0, np.nan, np.inf, -1.0, 1e300))
    values = picked(rng, (values, values, values.astype("float16"), values.tolist(), None, "x"))
    option = picked(rng, (*NUMBERS, 1, 1, None, None))
    call = rng.integers(5)
    if call == 0:
        return lambda: xr.evaluate_ranking(values, query, gallery, option)
    if call == 1:
        return lambda: xr.evaluate_ranking(values, query, gallery, 1, option)
    if call == 2:
        rates = picked(rng, (None, [2, 4], [2], [None, 2], ["a", "b"], [option] * 2))
        return lambda: xr.evaluate_rates(values, query, gallery, rates)
    if call == 3:
        odd = {picked(rng, ("k1", "k2", "weight")): option}
        return lambda: xr.rerank(rng.random((7, 7)), picked(rng, (2, 2, option)), **odd)[:]
    metric = picked(rng, ("cosine", "euclidean", "x", None))
    return lambda: xr.feature_distances(values, rng.random((5, 5)), metric)[0:2]


def batches(rng, folder):
    records = people(folder)
    odd = picked(rng, (-1, "-1", "a", None, 0, 10**30, np.int64(1)))
    place = rng.integers(len(records) + 3)
    if place < len(records):
        change = {"person": odd} if rng.random() < 0.5 else {"camera": odd}
        records[place] = xr.Record(**{**vars(records[place]), **change})
    kept = picked(rng, (records, records, records[:1], records[:2], []))
    option = picked(
        rng, ("rates", "batch_size", "people_per_batch", "images_per_person", "seed", "workers",
              "kernel", "steps", "image_size", "rates"),
    )  # fmt: skip
    value = picked(rng, (*NUMBERS, (2, 3), "1..4", "4..1", ["1..4"], (0.5,), (1e9,), ("a", 2)))
    if option == "workers" and value in (10**30, 2**31, 1e300):
        value = -1  # so many processes are nobody's test
    kind = picked(rng, (xr.PairBatches, xr.ImageBatches))
    share = picked(rng, (None, 0.5, value))

    def call():
        hidden = kept if share is None else hide_labels(kept, share)
        kind(hidden, **{"image_size": (16, 8), option: value})[0]

    return call


def others(rng, folder):
    """Files of PyTorch and of CUHK03, arguments of `load`, held-out people and records."""
    call, odd = rng.integers(5), picked(rng, NUMBERS)
    if call == 0:
        path = folder / "a.pth"
        content = pickled(rng)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", content)
            archive.writestr("m/data/0", b"\0" * 16)
        path.write_bytes(picked(rng, (content, path.read_bytes(), flipped(rng, path.read_bytes()))))
        return lambda: read_state_dict(path)
    if call == 1:
        path = folder / "cuhk-03.mat"
        with h5py.File(path, "w") as file:
            for name in ("detected", "labeled", "testsets"):
                if rng.random() < 0.9:
                    file[name] = picked(rng, (np.zeros((1, 1)), np.zeros(3), 5.0, np.zeros((2, 0))))
        if rng.random() < 0.5:
            path.write_bytes(flipped(rng, path.read_bytes()))
        key = picked(rng, ("detected/1_001_1_01", "x", "detected/a_b", "", "labeled/9_9_9_9"))
        record = xr.Record(str(path), 1, 1, key=key)
        return picked(rng, (record.read, lambda: xr.datasets.load("cuhk03", folder)))
    if call == 2:
        option = picked(rng, ("split", "fold", "limit", "protocol", "split_id", "seed", "rates",
                              "kernel", "image_size", "data_dir", "need"))  # fmt: skip
        odd = picked(rng, (odd, odd, "paper", ("query",), ["gallery"]))
        return lambda: xr.datasets.load("synthetic", **{"protocol": "paper", option: odd})
    if call == 3:
        data = xr.DataSet("own", people(folder), [], [])
        return lambda: hold_out_people(data, odd)
    field = picked(rng, ("path", "person", "camera", "rate", "kernel", "key"))
    made = {"path": str(folder / "x.png"), "person": 1, "camera": 1, field: odd}
    draw(folder / "x.png")

    def read():
        record = xr.Record(**made)
        record.read()
        data = xr.DataSet("own", [], [record], [record], root=str(folder))
        xr.write_manifest(folder / "m", xr.manifest_rows(data, rates=(2,)))

    return read


def pickled(rng):
    """The pickle of a state dict, by hand, with odd shapes, strides and counts."""
    shape, count = picked(rng, ((4,), (-1,), (10**12,), (2, 2))), picked(rng, (4, -4, 10**9, 0))
    sizes = "(" + "".join(f"I{n}\n" for n in shape) + "t"
    name = picked(rng, ("FloatStorage", "XStorage"))
    stored = f"(S'storage'\nctorch\n{name}\nS'0'\nS'cpu'\nI{count}\ntQ"
    tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({stored}I0\n{sizes}{sizes}I00\n(dtR"
    text = f"(dS'{picked(rng, ('w', 'module.w', ''))}'\n{tensor}s.".encode()
    return picked(rng, (text, text, flipped(rng, text), b"cos\nsystem\n(S'true'\ntR.",
                        b"\x80\x02Nr\xff\xff\xff\x7f."))  # fmt: skip


# --- verbs --------------------------------------------------------------------------------------

WRONG = ("-1", "x", "nan", "", "1e400")  # for every number below
FOLDER = ("nowhere", "/dev/null", "\x1b[2J", "x" * 5000)
OUT = ("other", "other/file.txt", "/dev/null/x", "/proc/x")
WEIGHTS, LISTS = ("nowhere", "broken.weights.h5"), ("nowhere", "broken.csv", "twice.csv")
DATA = {
    "--data": ("nobody", ""), "--data-dir": FOLDER, "--split": ("x", ""), "--fold": ("7", *WRONG),
    "--protocol": ("x", ""), "--split-id": ("x", "99", "0.5"), "--nothing": ("1",),
}  # fmt: skip
# What is wrong whatever else is given: of a verb's first word (""), and of its options.
BAD = {
    "train": {
        **DATA, "--out": OUT, "--preset": ("large",), "--backbone": ("nobody",), "--seed": WRONG,
        "--weights": WEIGHTS, "--limit": ("0", *WRONG), "--rates": ("0", *WRONG), "--epochs": WRONG,
        "--train-rates": ("0", "4..1", *WRONG), "--batch-size": ("0", "0.5", *WRONG),
        "--learning-rate": ("0", "inf", *WRONG), "--workers": WRONG, "--kernel": ("x",),
        "--labeled-fraction": ("2", *WRONG), "--devices": ("0", "0.5", "1000", *WRONG),
    },
    "evaluate": {
        **DATA, "--weights": WEIGHTS, "--out": OUT, "--rates": ("0", *WRONG),
        "--limit": ("0", *WRONG),
    },
    "search": {
        "--gallery": LISTS, "--weights": WEIGHTS, "--rates": ("0", "2 3", *WRONG), "--out": OUT,
        "--top": ("0", *WRONG), "--full-height": ("0", *WRONG), "--nothing": ("1",),
    },
    "embed": {
        "--images": LISTS, "--weights": WEIGHTS, "--out": ("x.txt", "other", "there.npz"),
        "--rates": ("0", *WRONG),
    },
    "export": {
        "": WEIGHTS, "--adapted": ("nowhere", "broken.csv"), "--camera": ("1",), "--nothing": ("1",)
    },
    "export --int8": {
        "": WEIGHTS, **{name: DATA[name] for name in ("--data", "--data-dir", "--split")},
        "--calibrate": ("0", "0.5", *WRONG), "--seed": WRONG, "--adapted": ("list.csv",),
    },
    "compare": {
        "": ("nowhere", "other", "begun"), "--out": OUT[1:], "--seeds": WRONG[1:],
        "--run": ("nobody", ""),
    },
    "tables": {
        "": ("nobody", ""), "--from": FOLDER, "--out": OUT[1:], "--seeds": WRONG[1:],
        "--preset": ("large",), "--splits": ("0", *WRONG),
    },
    "build": {
        "": ("nobody",), "--protocol": ("x", "each-rate", ""), "--kernel": ("x",),
        "--fold": ("7", "1", *WRONG), "--seed": WRONG, "--rates": ("0", *WRONG),
    },
    "pan": {
        "--hr": ("nowhere", "broken.csv"), "--lr": ("nowhere", "broken.csv"),
        "--epochs": ("0", *WRONG), "--hidden": ("0", *WRONG), "--learning-rate": ("0", *WRONG),
        "--seed": WRONG, "--out": ("x.txt", "other", "there.npz"),
    },
    "publish": {"": ("begun", "other", "nowhere"), "--out": OUT[2:], "--nothing": ("1",)},
    "convert": {"": (*WEIGHTS, "list.csv"), "--name": ("nobody",)},
    "weights": {"": ("nobody", "\x1b[2J", "x" * 5000)},
    "adapt": {
        "": ("nowhere", "broken.csv"), "--weights": WEIGHTS, "--rates": ("0", *WRONG),
        "--most": ("0", *WRONG), "--least": WRONG, "--seed": WRONG, "--nothing": ("1",),
        "--out": ("x.txt", "other", "there.npz"),
    },
    "gallery add": {
        "": ("other", "there.npz"), "--weights": WEIGHTS, "--rates": ("0", *WRONG),
        "--adapted": ("nowhere", "broken.csv"), "--nothing": ("1",),
    },
    "gallery verify": {"": ("nowhere", "other", "there.npz"), "--nothing": ("1",)},
    "demo": {
        "--gallery": LISTS, "--weights": WEIGHTS, "--port": ("99999999", *WRONG),
        "--max-mb": ("0", *WRONG), "--nothing": ("1",),
    },
}  # fmt: skip
# A publishable run, a .pth and a gallery are not made; and the demo would not end.
NEEDS_MORE = {"publish", "convert", "gallery verify", "demo"}


def there(folder):
    """A list of people, a gallery, weights, finished and begun runs, and what is broken of each."""
    for i in range(1, 9):
        draw(folder / "a" / f"{i}.jpg", i)
    roles = ("train",) * 4 + ("query", "gallery") * 2
    rows = [f"a/{i + 1}.jpg,{'abcd'[i // 2]},{i % 2 + 1},{role}" for i, role in enumerate(roles)]
    (folder / "list.csv").write_text("\n".join(["path,person,camera,split", *rows]))
    (folder / "broken.csv").write_bytes(b"path\n\xff\xfe\0")
    (folder / "twice.csv").write_text("path,person\na/1.jpg,a\na/1.jpg,b\n")
    (folder / "good.weights.h5").write_bytes(saved())
    (folder / "broken.weights.h5").write_bytes(saved()[:2000])
    (folder / "there.npz").write_bytes(b"somebody's")
    paths = np.array(["a/1.jpg", "a/2.jpg"])
    for name, rates in (("hr", np.ones(2)), ("lr", np.full(2, 4.0))):
        np.savez(folder / f"{name}.npz", features=np.eye(2), paths=paths, rates=rates)
    (folder / "other").mkdir()
    (folder / "other" / "file.txt").write_text("somebody's")
    made_run(folder / "runs" / "run")
    made_run(folder / "begun")
    (folder / "begun" / "report.md").unlink()


def good(verb):
    """A command that would do, in a folder where `there` was."""
    data = ["--data", "csv", "--data-dir", "list.csv"]
    return {
        "train": ["baseline", *data, "--out", "new", "--steps", "1"],
        "evaluate": ["--weights", "good.weights.h5", *data],
        "search": ["a/1.jpg", "--gallery", "a", "--weights", "good.weights.h5", "--out", "new",
                   "--cache", "cache"],
        "embed": ["--images", "a", "--weights", "good.weights.h5", "--out", "new.npz"],
        "export": ["good.weights.h5", "new.onnx"],
        "export --int8": ["good.weights.h5", "new.onnx", *data, "--split", "test"],
        "compare": ["runs/run", "--out", "new"],
        "tables": ["main", "--from", "runs", "--out", "new"],
        "build": ["csv", "list.csv", "new", "--protocol", "rain-code"],
        "pan": ["--hr", "hr.npz", "--lr", "lr.npz", "--out", "new.weights.h5"],
        "publish": ["runs/run", "name", "--out", "new"],
        "convert": ["good.weights.h5", "new.weights.h5"],
        "weights": [],
        "adapt": ["a", "--camera", "1", "--weights", "good.weights.h5", "--out", "new.npz",
                  "--rates", "1", "--least", "2"],
        "gallery add": ["new", "a", "--weights", "good.weights.h5"],
        "gallery verify": ["nowhere"],
        "demo": ["--gallery", "a", "--weights", "good.weights.h5"],
    }[verb]  # fmt: skip


def verbs(rng, folder):
    """Each verb in turn, with something that is wrong for certain."""
    there(folder)
    turn = rng.bit_generator.seed_seq.entropy[1]  # the seed's second number
    verb = list(BAD)[turn % len(BAD)]
    words, option = good(verb), picked(rng, sorted(BAD[verb]))
    value = picked(rng, BAD[verb][option])
    if option:
        words += [option, *value.split(" ")]
    else:
        words[:1] = [value]
    return lambda: refused([*verb.split(), *words], folder)


def runs(rng, folder):
    """A run folder of which one file is damaged, for each verb that reads one."""
    there(folder)
    run = folder / "runs" / "run"
    made_queries(run, np.ones((4, 5)))
    path = run / picked(rng, ("options.json", "metrics.json", "history.csv", "queries.csv"))
    kind = rng.integers(3)
    if kind == 0 and path.suffix == ".json":
        found = json.loads(path.read_text())
        found[picked(rng, sorted(found))] = picked(rng, NUMBERS[:-2])
        path.write_text(json.dumps(found, default=float))
    elif kind == 1:
        path.unlink()
    else:
        path.write_bytes(flipped(rng, path.read_bytes()))
    words = picked(rng, (
        ["compare", "runs/run", "--out", "new"], ["compare", "runs/run", "begun", "--out", "new"],
        ["tables", "main", "--from", "runs", "--out", "new", "--data", "synthetic"],
        ["publish", "runs/run", "name", "--out", "new"],
        ["evaluate", "--weights", "runs/run", "--data", "csv", "--data-dir", "list.csv"],
        ["train", *good("train")[:5], "--out", "runs/run", "--resume"],
    ))  # fmt: skip
    return lambda: command(words, folder)


def command(words, folder):
    """Runs a verb in a folder, in this process.

    Raises:
        ValueError: it refused, in one line, and left every file as it was.
        AssertionError: it did anything else, but succeed.
    """
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    errors, here, argv = io.StringIO(), Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["xreid", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            cli.main()
        return
    except SystemExit as left:
        status = left.code or 0
    finally:
        sys.argv = argv
        os.chdir(here)
        keras.config.set_dtype_policy("float32")
    said = errors.getvalue().strip()
    lost = [p.name for p, content in before.items() if not p.is_file() or p.read_bytes() != content]
    assert not lost, f"lost {lost}: {words}"
    assert status in (0, 2), f"status {status}: {words}: {said}"
    if status:
        raise ValueError(said)


def refused(words, folder):
    """Runs a verb that has to refuse."""
    command(words, folder)
    raise AssertionError(f"silent: {words}")


KINDS = (csv_list, tree, built, image, weights_file, address, pictures, ranking, batches, others,
         verbs, runs)  # fmt: skip


def cases():
    """Yields (name, seed of its random numbers, kind) of all 300, kinds in turn."""
    for i in range(COUNT):
        for number, kind in enumerate(KINDS):
            yield f"{kind.__name__}-{i}", (number, i), kind


def outcome(seed, kind, folder):
    """What an input led to: "result", "refused", or else a text that says what went wrong."""
    call = kind(np.random.default_rng(seed), folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except ValueError as error:  # InputError is one
        return f"two lines: {error}" if "\n" in str(error) else "refused"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    return "result"


def main():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    counts, of_kind, wanted = collections.Counter(), collections.Counter(), sys.argv[1:]
    for name, seed, kind in cases():
        if wanted and kind.__name__ not in wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = outcome(seed, kind, Path(folder))
        counts[found if found in ("result", "refused") else "fault"] += 1
        of_kind[kind.__name__, found if found in ("result", "refused") else "fault"] += 1
        if found not in ("result", "refused"):
            print(f"{name}: {found}", flush=True)
    for (kind, what), count in sorted(of_kind.items()):
        print(f"{kind}: {count} {what}")
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return int(bool(counts["fault"]))


if __name__ == "__main__":
    sys.exit(main())
