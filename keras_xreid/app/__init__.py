"""The application: what recipes and the command `xreid` are made of.

`app.main` reads a command line and runs a recipe; `app.Run` is its run folder. Keras is imported
when a recipe's `main` runs, and not before: `--help` answers at once.
"""

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path

from keras_xreid import _backend
from keras_xreid.errors import InputError, LostProcess


class later:  # it is called like a function
    """A module that is imported when something of it is used: `keras = later("keras")`."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)


def leave(message, status=2):
    """Prints one line and ends; exit status 2 says that the input is at fault.

    Of several processes that train together, the first that ends says why.
    """
    from keras_xreid.files import harmless

    if not _tells():
        sys.exit(status)
    if not getattr(sys.stdout, "line_ended", True):  # a progress bar was cut short
        print(flush=True)
    line = harmless(" ".join(str(message).split()))
    # Past what keeps all processes but the first one quiet.
    stream = sys.__stderr__ if _backend.place()[0] else sys.stderr
    print(f"{Path(sys.argv[0]).name}: {line}", file=stream, flush=True)
    sys.exit(status)


def _tells():
    training = sys.modules.get("keras_xreid.training.processes")
    return training.tells() if training else _backend.place()[0] == 0


class _Harmless:
    """Standard output or error, on which no file's name commands the terminal."""

    def __init__(self, stream):
        self._stream, self.line_ended = stream, True

    def write(self, text):
        from keras_xreid.files import harmless

        code = getattr(self._stream, "encoding", None) or "utf-8"  # "±" is in few others
        text = harmless(text, bar=True).encode(code, "backslashreplace").decode(code)
        self.line_ended = text.endswith("\n") if text else self.line_ended
        return self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


@contextlib.contextmanager
def guard(again=lambda: ""):
    """Ends a command in one line, whatever goes wrong in it; everything it prints is harmless.

    With --debug, or XREID_DEBUG=1, an error of the program shows its traceback.

    Args:
        again: returns what to do after a full disk or Ctrl-C, "go on with --resume".
    """
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        os.environ["XREID_DEBUG"] = "1"  # processes of its own inherit it
    out, err = sys.stdout, sys.stderr
    if _backend.place()[0]:  # of several processes the first one talks
        out = err = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    output = contextlib.redirect_stdout(_Harmless(out))
    errors = contextlib.redirect_stderr(_Harmless(err))
    with output, errors:
        try:
            yield
        except BrokenPipeError:  # `xreid ... | head` has read enough
            with contextlib.suppress(OSError):  # where it is no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:
            print(f"\nStopped; {again() or 'run the same command again'}.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            _leave_with(error, again())


def _leave_with(error, again):
    """The one line of an exception."""
    from keras_xreid import files

    full = files.disk_reason(error)
    if isinstance(error, InputError) or full:
        line = str(error) if isinstance(error, InputError) else f"cannot write: {full}"
        leave(f"{line}; then {again or 'run the same command again'}" if full else line)
    if isinstance(error, ModuleNotFoundError) and error.name == "tyro":
        leave('this needs tyro, which is not installed: pip install -e ".[recipes]"')
    if isinstance(error, OSError) and error.filename is not None:
        leave(f"{error.filename}: {error.strerror or error}")
    if os.environ.get("XREID_DEBUG", "0") not in ("", "0"):
        raise error
    if isinstance(error, LostProcess):
        try:  # in our words: Keras adds its own to what passes through a layer
            reason = "another process of this training has ended, or it was stopped"
            leave(f"{reason}; {again or 'run the same command again'}", status=1)
        finally:
            if _backend.place()[1] > 1:  # what is left of the connections may wait for ever
                sys.stdout.flush()
                os._exit(1)
    leave(fault(error), status=1)


def fault(error):
    """The line of an error that no input explains."""
    return (
        f"a fault of keras_xreid ({type(error).__name__}: {str(error)[:300]}): please report it in "
        "the project's issues, with what the same command prints with --debug"
    )


def run_command(function, read):
    """Runs `function(read())`; bad input ends in one line and exit status 2."""
    options = None

    def again():
        return "go on from the last finished epoch with --resume" * hasattr(options, "resume")

    with guard(again):
        options = read()
        _backend.check()
        function(options)


def main(function, own, description):
    """Runs a training recipe from its command line.

    Args:
        function: the recipe's `main(options)`.
        own: dataclass of the recipe's own options; the shared ones are added.
        description: what `--help` says first.
    """

    def train(options):
        from keras_xreid.training import processes

        if _backend.place()[1] > 1:
            signal.signal(signal.SIGTERM, _stopped)
        processes.start()
        function(options)

    run_command(train, lambda: _settings().parsed(own, description=description))


def _stopped(*_):
    """What a launcher does to those that are left when a process has ended."""
    raise LostProcess("a launcher stopped this process")


def command(function, kind, description):
    """Runs any other command from its command line; `kind` is the dataclass of its options."""
    if (processes := _backend.place()[1]) > 1:
        leave(
            f"WORLD_SIZE is {processes}, and only training takes several processes: start this "
            "without torchrun, or unset WORLD_SIZE"
        )
    run_command(function, lambda: _settings().one_line(kind, description=description))


def _settings():
    from keras_xreid.app import settings

    return settings


def __getattr__(name):
    if name in ("Run", "adam"):
        from keras_xreid.app import run

        return getattr(run, name)
    if name in ("STRONG_PAIRS", "unused"):
        return getattr(_settings(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
