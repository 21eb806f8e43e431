"""README and the pages: short enough, linked right, written anew when something changed, and run.

The pages themselves are built by `mkdocs build --strict`.
"""

import ast
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import keras_xreid as xr

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
TEXTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(text, language):
    """Fenced blocks of a language, without the indent of a list."""
    found = FENCE.findall(text)
    return [
        re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        for indent, of, code in found
        if of == language
    ]


def section(text, heading):
    """What stands below a heading of second level, up to the next one outside a block."""
    return re.split(r"^## ", text.split(f"\n## {heading}\n", 1)[1], flags=re.MULTILINE)[0]


def script(name):
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(line):
    return re.findall(r"\d[\d,]*\.?\d*(?: ± \d\.\d)?", line)


def test_readme_is_short():
    assert len(read(README).splitlines()) <= 150


def test_quick_start_has_two_blocks():
    """The main job, and the tests: others read them there."""
    found = FENCE.findall(section(read(README), "Quick start"))
    assert len(found) == 2
    job, tests = (code.splitlines() for _, _, code in found)
    assert job[-1] == "KERAS_BACKEND=torch python recipes/intact.py"
    assert job[:1] == tests[:1] == ["python3 -m venv .venv && . .venv/bin/activate"]
    assert [sum("pip install" in line for line in block) for block in (job, tests)] == [1, 1]
    assert [line for line in tests if "pytest" in line] == ["python -m pytest -q"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = FENCE.sub("", read(path))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target}: no such file"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", read(found), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{target}: no such heading"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_can_be_read(path):
    for code in blocks(read(path), "python"):
        ast.parse(code)
        for line in code.splitlines():
            assert len(line) <= 100, line


def test_pages_name_only_public_names():
    """`xr.NAME` in README and the pages is a name of the package."""
    for path in TEXTS:
        for name in re.findall(r"\bxr\.([A-Za-z_]+)", read(path)):
            assert name in xr.__all__, f"{path.name}: xr.{name}"


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r": ([\w/-]+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(navigation) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def test_api_pages_have_every_public_name():
    named = [n for path in TEXTS for n in re.findall(r"^::: keras_xreid\.(\w+)", read(path), re.M)]
    assert sorted(named) == sorted(xr.__all__)


def test_api_pages_are_led_to_the_names():
    hooks = script("hooks")
    for name, module in hooks.places().items():
        led = hooks.on_page_markdown(f"::: keras_xreid.{name}")
        assert re.fullmatch(rf"::: keras_xreid\.{re.escape(module)}(\.{name})?", led)


def test_zoo_is_that_of_the_index():
    """`python docs/make_zoo.py` writes it anew."""
    index = json.loads(read(ROOT / "weights" / "index.json"))
    assert read(DOCS / "zoo.md") == script("make_zoo").page(index)


def test_readme_lists_weights_that_load():
    rows = [r for r in section(read(README), "Weights").splitlines() if r.startswith("| `")]
    index = json.loads(read(ROOT / "weights" / "index.json"))
    can_be_loaded = {n for n, entry in index.items() if entry.get("file") or entry.get("url")}
    # Those of everyone have no score of their own, so no row.
    unscored = {name for name in can_be_loaded if index[name].get("scores_of")}
    assert all(f"`{name}`" in section(read(README), "Weights") for name in unscored)
    can_be_loaded -= unscored
    assert sorted(re.match(r"\| `(\w+)`", row)[1] for row in rows) == sorted(can_be_loaded)
    for row in rows:
        name, data, *scores = (cell.strip("` ") for cell in row.strip("|").split("|"))
        entry = index[name]
        expected = [f"{entry['per_rate'][rate]['rank1']:.1f}" for rate in ("1", "4", "8")]
        expected[0] += f" ± {entry['standard_error']['1']:.1f}"
        assert (data, scores) == (entry["dataset"], expected)
        assert not entry.get("file") or (ROOT / "weights" / entry["file"]).is_file()


def test_numbers_of_the_readme_stand_in_the_results():
    """Each row of its table is part of a row of that name there; each other score is there, too."""
    results = read(DOCS / "results.md").splitlines()
    for row in section(read(README), "Results").splitlines():
        if not row.startswith("| ") or row.startswith(("| system", "| ---")):
            continue
        name = row.split("|")[1].strip()
        longer = [r for r in results if r.startswith(f"| {name.split(',')[0]}")]
        assert any(set(numbers(row)) <= set(numbers(r)) for r in longer), row
    known = {number for line in results for number in numbers(line)}
    for line in section(read(README), "Systems").splitlines()[2:]:
        if line.startswith("| ["):
            assert set(numbers(" ".join(line.split("|")[4:6]))) <= known


def test_no_row_stands_outside_of_its_table():
    """An empty line ends a table: what follows is shown as text with bars."""
    for path in TEXTS:
        lines = ["", *FENCE.sub("", read(path)).splitlines(), ""]
        for before, line, rule in zip(lines, lines[1:], lines[2:], strict=False):
            if line.startswith("|") and not before.startswith("|"):
                assert re.fullmatch(r"[|:\- ]+", rule), f"{path}: {line}"


def test_verbs_are_the_same_everywhere():
    """The README's table has every verb; README and pages name no other."""
    verbs = set(script("make_cli").VERBS)
    rows = section(read(README), "Command line").splitlines()
    first = " ".join(row.split("|")[1] for row in rows if row.startswith("| `"))
    assert {word.split()[0] for word in re.findall(r"`([^`]+)`", first)} == verbs
    for path in TEXTS:
        for verb in re.findall(r"(?:`|^)xreid ([a-z]+)\b", read(path), re.MULTILINE):
            assert verb in verbs, f"{path.name}: xreid {verb}"


def test_pictures_are_small():
    for name in ("strip.png", "search.png"):
        path = DOCS / "images" / name
        with PIL.Image.open(path) as image:
            assert image.width <= 1200 and image.height <= 320
        assert path.stat().st_size <= 250e3


def run(code, monkeypatch, capsys, folder, **replaced):
    """Runs an example in a folder, with some words replaced; its names, and what it printed."""
    for old, new in replaced.pop("words", {}).items():
        assert old in code, f"the example has no {old}"
        code = code.replace(old, new)
    monkeypatch.chdir(folder)
    names = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    return names, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("path", [README, DOCS / "tutorials" / "search.md"], ids=["readme", "page"])
def test_the_search_example_runs(path, monkeypatch, capsys, tmp_path):
    """Among twelve drawn people, with weights trained on drawn people, it finds the right one."""
    heading = "Search your own images" if path == README else "From Python"
    (code,) = blocks(section(read(path), heading), "python")
    data = xr.datasets.load("synthetic", need=("query", "gallery"), limit=12)
    (tmp_path / "gallery").mkdir()
    best = {"quality": 100, "subsampling": 0}
    for i, record in enumerate(data.gallery):
        image = PIL.Image.fromarray(record.read())
        image.save(tmp_path / "gallery" / f"{record.person}-{i}.jpg", **best)
    sought = data.query[0]
    PIL.Image.fromarray(xr.degrade(sought.read(), 4)).save(tmp_path / "query.jpg", **best)
    words = {"xr.load()": 'xr.load("intact_tiny_synthetic")'}
    _, printed = run(code, monkeypatch, capsys, tmp_path, words=words)
    lines = [line for line in printed.splitlines() if ".jpg" in line]
    assert len(lines) == 5
    assert re.fullmatch(rf"0\.\d{{3}}  gallery.{sought.person}-\d+\.jpg", lines[0])


@pytest.mark.slow
def test_the_scoring_example_runs(monkeypatch, capsys, tmp_path):
    """Word for word, and its score is the one it prints."""
    (code,) = blocks(section(read(DOCS / "tutorials" / "search.md"), "Score a data set"), "python")
    names, _ = run(code, monkeypatch, capsys, tmp_path)
    printed = float(re.search(r"rank1: (\d+\.\d)", code)[1])
    card = xr.published()["intact_tiny_synthetic"]["per_rate"]["4"]["rank1"]
    assert printed == round(card, 1)
    assert abs(names["scores"]["rank1"] - card) <= 100 / 400 + 1e-3
    assert len(names["ranked"]) == 5 and names["recovered"].shape[1:] == (128, 64, 3)


@pytest.mark.slow
def test_the_new_system_trains(monkeypatch, capsys, tmp_path):
    """On eight people; it is saved, loaded, and embeds as before."""
    import keras  # here: the other tests need none

    text = section(read(DOCS / "tutorials" / "new-system.md"), "The model")
    code = "\n".join(blocks(text, "python"))
    words = {'load("synthetic")': 'load("synthetic", limit=8)'}
    names, _ = run(code, monkeypatch, capsys, tmp_path, words=words)
    model, data = names["model"], names["data"]
    images = xr.prepare_images(data.query[:4], model.image_size)
    before = model.embed(images)
    model.save(tmp_path / "twins.keras")
    again = keras.models.load_model(tmp_path / "twins.keras")
    np.testing.assert_allclose(again.embed(images), before, atol=1e-5)


@pytest.mark.slow
def test_the_training_example_runs(monkeypatch, capsys, tmp_path):
    """The one in Python, on eight people and for one epoch."""
    (code,) = blocks(section(read(DOCS / "tutorials" / "train.md"), "From Python"), "python")
    words = {'load("synthetic")': 'load("synthetic", limit=8)', "epochs=10": "epochs=1"}
    names, _ = run(code, monkeypatch, capsys, tmp_path, words=words)
    assert set(names["scores"]["per_rate"]) == {"1", "2", "3", "4", "8"}
