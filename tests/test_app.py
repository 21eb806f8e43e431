"""The command line: quick help, one clear line for bad input, images of one's own, thin recipes."""

import ast
import csv
import dataclasses
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_xreid as xr

pytest.importorskip("tyro", reason='the command line needs pip install -e ".[recipes]"')

from keras_xreid import app
from keras_xreid.app import cli, embed, index, recipes, settings
from keras_xreid.app.gallery import times_of

ROOT = Path(__file__).parents[1]

# --- help and bad input ------------------------------------------------------------------------

ALL_HELP = """
import contextlib, io, sys
from keras_xreid.app import cli, recipes

asked = [[]] + [[verb] for verb in cli.VERBS] + [["train", name] for name in recipes.names()]
for words in asked:
    sys.argv = ["xreid", *words, "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        cli.main()
    assert len(said.getvalue()) > 100, words
    assert "keras" not in sys.modules, words
print(len(asked))
"""


def test_help_needs_no_keras():
    done = subprocess.run([sys.executable, "-c", ALL_HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 1 + len(cli.VERBS) + len(recipes.names())


def test_the_first_page_fits_a_screen():
    lines = cli.usage().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    assert all(any(line.split()[:1] == [verb] for line in lines) for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "unknown verb 'fly'"),
        (["train", "nobody"], "no recipe 'nobody'"),
        (["train", "intact", "--preset", "huge"], "'huge'"),
        (["train", "rain", "--no-such-thing"], "--no-such-thing"),
        (["train", "intact", "--epochs", "three"], "--epochs is 'three': give a whole number"),
        (["train", "rain", "--ephocs", "3"], "perhaps --epochs"),
        (["export", "x"], "The .onnx file to write; --help"),
        (["evaluate"], "--weights"),
        (["search", "--gallery", "x"], "no query"),
        (["weights", "nobody"], "no published weights nobody"),
        (["embed", "--images", "nowhere", "--out", "x.npz"], "no images at nowhere"),
        (["embed", "--images", "nowhere", "--out", "x.txt"], "ending in .npz"),
        (["embed", "--images", "nowhere", "--out", "x.NPZ"], "ending in .npz"),
    ],
)
def test_bad_input_is_one_line(words, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["xreid", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(lines) == 1, lines
    assert lines[0].startswith("xreid") and said in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_parsers_box_is_no_part_of_the_line(encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(xr.InputError) as error:
        settings.one_line(embed.Options, args=["--images", "x", "--out", "x", "--ratse", "x"])
    line = "Unrecognized options: --ratse, x; perhaps --rates; --help tells more"
    assert str(error.value) == line


def test_published_weights_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["xreid", "weights"])
    cli.main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in xr.published())
    name = next(iter(xr.published()))
    monkeypatch.setattr(sys, "argv", ["xreid", "weights", name])
    cli.main()
    assert json.loads(capsys.readouterr().out) == xr.published()[name]


# --- recipes -----------------------------------------------------------------------------------


def lines_of_code(path):
    """Lines that are neither blank nor of a docstring; comments count."""
    text = path.read_text(encoding="utf-8")
    told = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            told |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(n not in told and bool(x.strip()) for n, x in lines)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_read_in_two_minutes(name):
    path = recipes.folder() / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    assert lines_of_code(path) <= 60
    assert ".fit(" in text and ".compile(" in text
    assert not any(f"import {other}\n" in text for other in recipes.names())


def test_options_are_named_once():
    """No recipe has an option that a shared group has, so that every name means one thing."""
    shared = [f.name for kind in settings.GROUPS.values() for f in dataclasses.fields(kind)]
    assert len(shared) == len(set(shared))
    for name in recipes.names():
        own = [field.name for field in dataclasses.fields(recipes.options(name))]
        assert not set(own) & set(shared), name


@pytest.mark.parametrize("name", recipes.names())
@pytest.mark.parametrize("preset", ["tiny", "strong", "paper"])
def test_a_preset_names_options_that_there_are(name, preset):
    default = settings.defaults(recipes.options(name), preset)
    assert settings.parsed(recipes.options(name), ["--preset", preset]) == default
    kind = getattr(xr, {"one_per_rate": "OnePerRate", "cadnet": "CADNet"}.get(name, "x"), None)
    found = [kind] if kind else [getattr(xr, n, None) for n in (name.upper(), name.title())]
    assert any(preset in model.PRESETS for model in found if model)


def test_options_that_are_of_no_use_are_named():
    own = recipes.options("rain")
    options = dataclasses.replace(settings.defaults(own), margin=1.0, flip=True)
    app.unused(options, False, "never", "margin")
    app.unused(options, True, "for levels", "levels")  # it has its default
    with pytest.raises(xr.InputError, match="because: leave out --margin and --flip"):
        app.unused(options, True, "because", "margin", "flip", "levels")
    with pytest.raises(xr.InputError, match="leave out --no-flip"):
        strong = dataclasses.replace(settings.defaults(own, "strong"), flip=False)
        app.unused(strong, True, "because", "flip")


# --- images of one's own -----------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """A folder for each of two people, three images in all."""
    rng = np.random.default_rng(0)
    for name in ("anna/1.png", "anna/2.png", "ben/1.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 32, 3), "uint8")).save(path)
    return tmp_path / "photos"


def test_a_folder_for_each_person_names_them(photos):
    found = index.own_images(photos)
    assert [(Path(r.path).name, r.person) for r in found] == [
        ("1.png", "anna"), ("2.png", "anna"), ("1.jpg", "ben"),
    ]  # fmt: skip
    assert [r.person for r in index.own_images(photos / "anna")] == [None, None]
    shutil.copy(photos / "ben" / "1.jpg", photos / "other.jpg")  # no longer a folder a person
    assert {r.person for r in index.own_images(photos)} == {None}


def test_images_of_kinds_that_are_not_read_are_counted(photos, capsys):
    for name in ("a.gif", "b.HEIC", ".c.gif", "notes.txt"):
        (photos / "anna" / name).write_bytes(b"")
    assert len(index.own_images(photos)) == 3
    assert "Left out: 2 images of a kind that is not read (.gif, .heic)" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_not_left_out(photos, monkeypatch):
    def scandir(path, scan=os.scandir):
        if str(path).endswith("anna"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(xr.InputError, match=r"cannot read .*anna \(Permission denied\)"):
        index.own_images(photos)


def test_links_are_followed_once_and_hidden_folders_never(photos, tmp_path):
    for name in ("elsewhere", "photos/.thumbnails", "photos/anna/.old"):
        (tmp_path / name).mkdir()
        shutil.copy(photos / "ben" / "1.jpg", tmp_path / name / "3.jpg")
    (photos / "carl").symlink_to(tmp_path / "elsewhere")
    (photos / "dora").symlink_to("anna")  # the same images
    (photos / "ben" / "loop").symlink_to(photos)
    found = [(r.person, Path(r.path).name) for r in index.own_images(photos)]
    assert found == [("anna", "1.png"), ("anna", "2.png"), ("ben", "1.jpg"), ("carl", "3.jpg")]


def test_a_csv_of_images(photos, tmp_path):
    def listed(*rows):
        with open(tmp_path / "list.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
        return index.own_images(tmp_path / "list.csv")

    found = listed(("path", "person"), ("photos/ben/1.jpg", "b"), ("photos/anna/1.png", ""))
    assert [(Path(r.path).exists(), r.person) for r in found] == [(True, "b"), (True, None)]
    assert listed(("path",), ("photos/ben/1.jpg",))[0].person is None
    (found,) = listed(("path", " person", " time"), ("photos/ben/1.jpg", " b", " 12.5"))
    assert found.person == "b" and times_of(tmp_path / "list.csv") == {found.path: 12.5}
    for row in (("1", ""), ("1",)):
        with pytest.raises(xr.InputError, match="line 3: path is empty"):
            listed(("camera", "path"), ("1", "photos/ben/1.jpg"), row)
    with pytest.raises(xr.InputError, match="file: give a column path"):
        listed(("file",), ("photos/ben/1.jpg",))
    with pytest.raises(xr.InputError, match=r"nobody\.jpg, which is not there"):
        listed(("path",), ("photos/nobody.jpg",))
    with pytest.raises(xr.InputError, match=r"cannot read .*missing\.csv"):
        index.own_images(tmp_path / "missing.csv")


def test_images_become_features(photos, tmp_path, monkeypatch, capsys):
    model = xr.Baseline(3, backbone="osnet_x0_25", image_size=(64, 32))
    xr.save(model, tmp_path / "x.weights.h5")
    model = xr.load(tmp_path / "x.weights.h5")
    given = {"weights": str(tmp_path / "x.weights.h5"), "cache": str(tmp_path / "cache")}
    out = tmp_path / "new" / "features.npz"
    embed.main(embed.Options(str(photos), str(out), **given))
    with np.load(out) as found:
        expected = model.embed(xr.prepare_images(index.own_images(photos), (64, 32)), rates=1)
        np.testing.assert_allclose(found["features"], expected, atol=1e-6)
        assert list(found["people"]) == ["anna", "anna", "ben"]
        assert [Path(path).name for path in found["paths"]] == ["1.png", "2.png", "1.jpg"]
    with pytest.raises(xr.InputError, match="is there already"):
        embed.main(embed.Options(str(photos), str(out), **given))
    capsys.readouterr()
    embed.main(embed.Options(str(photos), str(out), overwrite=True, **given))
    assert "3 images, 0 to embed" in capsys.readouterr().out
    embed.main(embed.Options(str(photos), str(out), rates=4, overwrite=True, **given))
    assert "3 images, 3 to embed" in capsys.readouterr().out  # at another rate they are others
    shrunk = {"rates": 4, "shrink": True, "overwrite": True}
    (photos / "anna" / "2.png").write_bytes(b"no image")
    with pytest.raises(xr.InputError, match="not kept: leave out --cache"):
        embed.main(embed.Options(str(photos), str(out), **shrunk, **given))
    del given["cache"]
    embed.main(embed.Options(str(photos), str(out), **shrunk, **given))
    assert "Left out: " in capsys.readouterr().out
    with np.load(out) as found:
        assert [Path(path).name for path in found["paths"]] == ["1.png", "1.jpg"]
        kept = [record for record in index.own_images(photos) if Path(record.path).name[0] == "1"]
        expected = model.embed(xr.prepare_images(kept, (64, 32), 4), rates=4)
        np.testing.assert_allclose(found["features"], expected, atol=1e-6)
    broken = np.float32([[0], [np.nan]])
    monkeypatch.setattr(xr.Baseline, "embed", lambda *_: broken)
    with pytest.raises(xr.InputError, match=r"turn .*ben.1\.jpg into numbers that are not finite"):
        embed.main(embed.Options(str(photos), str(out), **shrunk, **given))


# --- the wheel ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs(tmp_path):
    """Recipes, the best weights and one of each system, and no more than 60 MB of them."""
    if not (ROOT / "pyproject.toml").is_file() or importlib.util.find_spec("pip") is None:
        pytest.skip("needs the repository and pip")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    done = subprocess.run(list(map(str, build)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        sizes = {item.filename: item.file_size for item in file.infolist()}
    names = set(sizes)
    for name in (*recipes.names(), *recipes.DOORS):
        assert f"keras_xreid/recipes/{name}.py" in names
    assert {"keras_xreid/report/papers.csv", "keras_xreid/report/page.css"} <= names
    assert {f"keras_xreid/app/page/{n}" for n in ("drop.html", "drop.js", "page.css")} <= names
    there = [n for n, e in xr.published().items() if f"keras_xreid/published/{e['file']}" in names]
    kept = {xr.published()[name]["system"] for name in there}
    assert kept == {"baseline", "intact", "rain", "cadnet", "adaptive"}
    assert any(xr.published()[name].get("best") for name in there)
    assert sum(xr.published()[name]["bytes"] for name in there) <= 60e6
