"""Where the training recipes lie: beside the package in the repository, inside it in a wheel."""

import functools
import importlib.util
import sys
from pathlib import Path

from keras_xreid.errors import InputError

# Recipes that are another command's name.
DOORS = ("evaluate", "ablations")


def folder():
    """The folder of the recipes."""
    package = Path(__file__).parents[1]
    beside = package.parent / "recipes"
    return beside if (beside / "baseline.py").is_file() else package / "recipes"


def names():
    """Names of all training recipes."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem not in DOORS)


@functools.cache
def load(name):
    """A training recipe, as a module.

    Raises:
        InputError: no training recipe has this name.
    """
    if name not in names():
        raise InputError(f"no recipe {name!r} that trains: known are {', '.join(names())}")
    spec = importlib.util.spec_from_file_location(f"recipes.{name}", folder() / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the parser looks up what its options mean
    spec.loader.exec_module(module)
    return module


def options(name):
    """The dataclass of a recipe's own options."""
    return load(name).Options
