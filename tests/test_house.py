"""The rooms of the package stand on one another: no import leads up, and none in a circle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "keras_xreid"
# From the ground up. `keras_xreid/__init__.py` is a lazy table of names, which anybody may use.
FLOORS = ("errors", "_backend", "files", "progress", "losses", "data", "backbones", "layers",
          "training", "adaptation", "models", "hub", "weights", "gallery", "export", "evaluation",
          "report",
          "app", "__main__")  # fmt: skip


def modules():
    paths = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imported(path, known):
    """Modules of the package that a file names, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "later":
            found.add(node.args[0].value)
    return {name for name in found if name in known}


KNOWN = modules()
IMPORTS = {name: imported(path, KNOWN) - {name, "keras_xreid"} for name, path in KNOWN.items()}


def room(module):
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in KNOWN if name != "keras_xreid"])
def test_no_import_leads_up(module):
    own = FLOORS.index(room(module))
    above = [name for name in IMPORTS[module] if FLOORS.index(room(name)) > own]
    assert not above


def test_no_import_leads_in_a_circle():
    left = dict(IMPORTS)
    while left:
        free = [name for name, needs in left.items() if not needs & set(left)]
        assert free, sorted(left)
        for name in free:
            del left[name]


def test_backends_are_named_in_the_engine_alone():
    named = {"_backend.py", "app/export.py", "app/cli.py"}
    for name, path in KNOWN.items():
        place = path.relative_to(PACKAGE).as_posix()
        if place in named or place.startswith("training/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            tops = {found.split(".")[0] for found in names}
            assert not tops & {"torch", "tensorflow", "jax"}, name
