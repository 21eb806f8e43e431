"""The application: what recipes and the command `xreid` are made of.

`app.main` reads a command line and runs a recipe; `app.Run` is its run folder. Keras is imported
when a recipe's `main` runs, and not before: `--help` answers at once.
"""

import importlib
import sys
from pathlib import Path

from keras_xreid import _backend
from keras_xreid.errors import InputError


class later:  # it is called like a function
    """A module that is imported when something of it is used: `keras = later("keras")`."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)


def leave(message):
    """Prints one line and ends with exit status 2."""
    print(f"{Path(sys.argv[0]).name}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


def run_command(function, read):
    """Runs `function(read())`; bad input ends in one line and exit status 2."""
    options = None
    try:
        options = read()
        _backend.check()
        function(options)
    except InputError as error:
        leave(error)
    except KeyboardInterrupt:
        again = "run the same command again"
        if hasattr(options, "resume"):
            again = "go on from the last finished epoch with --resume"
        print(f"\nStopped; {again}.", file=sys.stderr)
        sys.exit(130)


def main(function, own, description):
    """Runs a training recipe from its command line.

    Args:
        function: the recipe's `main(options)`.
        own: dataclass of the recipe's own options; the shared ones are added.
        description: what `--help` says first.
    """
    run_command(function, lambda: _settings().parsed(own, description=description))


def command(function, kind, description):
    """Runs any other command from its command line; `kind` is the dataclass of its options."""
    run_command(function, lambda: _settings().one_line(kind, description=description))


def _settings():
    try:
        from keras_xreid.app import settings
    except ModuleNotFoundError as error:
        if error.name != "tyro":
            raise
        leave('this needs tyro, which is not installed: pip install "keras-xreid[recipes]"')
    return settings


def __getattr__(name):
    if name in ("Run", "adam"):
        from keras_xreid.app import run

        return getattr(run, name)
    if name in ("STRONG_PAIRS", "unused"):
        return getattr(_settings(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
