"""The folder that a command writes: one process at a time, and nothing lost that lay there."""

import atexit
import contextlib
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from keras_xreid.errors import InputError
from keras_xreid.files import read_json

LOCK, ASIDE = ".lock", ".old-run"
# What a run writes; nothing else of its folder is ever moved or removed.
RUN_FILES = (
    "options.json", "metrics.json", "history.csv", "manifest.jsonl", "queries.csv",
    "report.md", "report.html", "model.weights.h5", "reid.weights.h5",
    *(f"figures/{name}.png" for name in ("recovered", "ranked", "ranked_by_rate", "masks", "rank1",
                                         "cmc", "tsne", "losses")),
)  # fmt: skip
CHECKPOINT = re.compile(r"checkpoint-[^/]+\.weights\.h5")
# Names that files have until they are whole; a process that was killed leaves them.
UNFINISHED = re.compile(r"(?:half-)?unfinished-(.+)|\.(.+)\.\d+\.tmp|(.+)\.part")


# --- one process at a time ---------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder):
    """Makes a folder, if missing, and keeps other processes from writing there meanwhile."""
    release = lock(folder)
    try:
        yield
    finally:
        release()


def lock(folder):
    """Makes a folder, if missing, and locks it; a lock whose process is dead is taken over.

    The lock is a file that names the process. The process may lock the folder again. A folder that
    was made, and nothing written into, goes with the lock.

    Returns:
        The function that takes the lock away; it is called at the latest when the process ends.

    Raises:
        InputError: another process writes there, or nobody can.
    """
    path = Path(folder) / LOCK
    mine = {"process": os.getpid(), "began": began(os.getpid()), "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S")}  # fmt: skip
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            refuse_locked(folder)
            with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
                json.dump(mine, file)
                break
            _remove_dead(path)
        else:
            raise InputError(f"{folder}: another process begins there as well; give another --out")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error

    def release():
        atexit.unregister(release)
        if _owner(path) == mine:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                made and path.parent.rmdir()

    atexit.register(release)
    return release


def refuse_locked(folder):
    """Refuses a folder that another living process writes."""
    path = Path(folder) / LOCK
    owner = _owner(path)
    if not _lives(owner):
        return
    line = f"{folder} is in use by process {owner['process']} since {owner['since']}"
    if owner["host"] != socket.gethostname():
        raise InputError(f"{line} on {owner['host']}: wait for it, or remove {path} if it is dead")
    raise InputError(f"{line}: wait for it, stop it, or give another --out")


def _owner(path):
    """What a lock says; {} where there is none, or it was cut short."""
    for _ in range(2):
        with contextlib.suppress(InputError):
            owner = read_json(path)
            if {"process", "began", "host", "since"} <= set(owner):
                return owner
        if not path.exists():
            break
        time.sleep(0.1)  # it may be being written
    return {}


def _lives(owner):
    if not owner:
        return False
    # Whether a process lives is known on its own machine alone; another has the same numbers.
    if owner["host"] != socket.gethostname():
        return True
    return owner["process"] != os.getpid() and began(owner["process"]) == owner["began"]


def began(process):
    """When a process began, so that another one with its number is not taken for it.

    Returns:
        Text; "" where the system does not tell, and None if there is no such process.
    """
    try:
        # After the name, which may hold spaces: the state, and 19 fields on the time it began.
        fields = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2]
        state, *fields = fields.split()
        return None if state == "Z" else fields[18]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        command = ["ps", "-o", "lstart=", "-p", str(process)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return found.strip() or None
    except OSError:
        return ""


def _remove_dead(path):
    """Takes away a dead lock, and puts it back if another process was faster and it lives."""
    apart = path.with_name(f"{LOCK}-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, apart)
        if _lives(_owner(apart)):
            os.replace(apart, path)
        else:
            apart.unlink()


# --- what a run wrote --------------------------------------------------------------------------


def is_empty(folder):
    """Whether nothing lies in a folder but a lock, or there is no folder yet."""
    folder = Path(folder)
    try:
        return not folder.is_dir() or all(p.name.startswith(LOCK) for p in folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error


def whole_name(path):
    """The name that a file has when it is whole, relative to its folder."""
    match = UNFINISHED.fullmatch(path.name)
    return path.with_name(next(filter(None, match.groups()))) if match else path


def written(folder):
    """What lies in a run folder: the files that a run wrote there, and all others.

    Returns:
        Two lists of paths, relative to the folder.
    """
    ours, others = [], []
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*names, *links):
            path = inside / name
            if inside == Path() and name.startswith(LOCK):
                continue
            whole = whole_name(path).as_posix()
            known = whole in RUN_FILES or CHECKPOINT.fullmatch(whole)
            (ours if known and name in names else others).append(path)
    return sorted(ours), sorted(others)


def holds_run(folder):
    """Whether `options.json` is that of a run, and not another program's."""
    path = Path(folder) / "options.json"
    with contextlib.suppress(InputError):
        return {"data", "seed", "backend"} <= set(read_json(path))
    return False


def refuse_others(folder):
    """Refuses to overwrite a folder that holds what no run wrote; names one of it."""
    _, others = written(folder)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(
            f"{folder} holds {others[0]}{more}, which no run wrote: --overwrite would lose it; "
            "move it away, or give another --out"
        )
    if not holds_run(folder):
        raise InputError(f"{folder} holds an options.json that no run wrote: give another --out")


@contextlib.contextmanager
def replaced(folder):
    """Moves the run in a folder aside while a new one begins; it comes back if that fails."""
    folder = Path(folder)
    _move(folder, folder / ASIDE)
    try:
        yield
    except BaseException:
        mend(folder, begun=False)
        raise
    _remove(folder / ASIDE)


def mend(folder, begun=None):
    """Brings a run back that was moved aside by a process that was killed before its own began."""
    folder = Path(folder)
    if not (folder / ASIDE).is_dir():
        return
    if (folder / "options.json").exists() if begun is None else begun:
        _remove(folder / ASIDE)
    else:
        _move(folder / ASIDE, folder)
        _remove(folder / ASIDE)


def clear(folder, checkpoints=False):
    """Removes what killed processes left half-written; checkpoints, too, of a finished run."""
    for path in written(folder)[0]:
        if whole_name(path) != path or (checkpoints and CHECKPOINT.fullmatch(path.name)):
            (Path(folder) / path).unlink(missing_ok=True)


def _move(source, target):
    """Moves a run's files from one folder to another, and leaves no empty folder of figures.

    `options.json` says which of two runs is the one in the folder, wherever this is killed: it is
    the first to leave, and the last to come back.
    """
    back = source.name == ASIDE
    for path in sorted(written(source)[0], key=lambda p: (p.name == "options.json") == back):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / path, target / path)
    with contextlib.suppress(OSError):
        (source / "figures").rmdir()


def _remove(folder):
    for path in written(folder)[0]:
        (folder / path).unlink()
    for path in (folder / "figures", folder):
        with contextlib.suppress(OSError):
            path.rmdir()
