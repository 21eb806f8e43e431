"""Where weights are: published by name, in a run folder, on the Hugging Face hub or at an address.

A model that is published elsewhere is three files: `model.weights.h5`; `entry.json`, all that is
known of it, with its SHA-256; and `README.md`, its card. Nothing is read before its SHA-256 is
checked.
"""

import functools
import hashlib
import json
import os
import re
import tempfile
import textwrap
from pathlib import Path

from keras_xreid import files
from keras_xreid.errors import InputError

WEIGHTS, ENTRY, CARD = "model.weights.h5", "entry.json", "README.md"
HUGGING_FACE = "hf://"
# The repository's folder, where this is one, and what of it an installed package has.
REPOSITORY = Path(__file__).parents[1]
PUBLISHED = (Path(__file__).parent / "published",)
if (REPOSITORY / "pyproject.toml").is_file():
    PUBLISHED = (REPOSITORY / "weights", *PUBLISHED)


@functools.cache
def published():
    """Lists the published weights that can be loaded.

    Returns:
        A dictionary from name to what is known of it: "system", "backbone", "preset", "data",
        "protocol", "manifest_sha256", "seed", "backend", "command", "file" or "url", "sha256",
        "bytes", "per_rate", "licence".

    Example:

    >>> list(published())
    """
    for folder in PUBLISHED:
        index = folder / "index.json"
        if index.is_file():
            try:
                known = json.loads(index.read_text(encoding="utf-8"))
                return {k: e for k, e in known.items() if e.get("url") or _file_of(e)}
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise InputError(f"{index} is damaged ({_short(error)}): get it again") from error
    return {}


def best():
    """The name of the published weights that are best on real people."""
    marked = [name for name, entry in published().items() if entry.get("best")]
    if not marked:
        raise InputError("no published weights are here: give a file or a run folder")
    return marked[0]


def find(weights=None):
    """The checked weights file behind whatever names one.

    Args:
        weights: the name of published weights; a file, or the folder of a run; "hf://user/name";
            "https://host/file.weights.h5#sha256=HEX"; or None, the best published weights.

    Returns:
        Its path. What comes from the network is downloaded once, into a cache.

    Raises:
        InputError: nothing is there, or a file is not the one that was published.
    """
    if weights is None:
        weights = best()
    if is_address(weights):
        return fetch(str(weights))
    try:
        name, path = str(weights), Path(weights)
        if entry := named(weights):
            path = _file_of(entry) or download(entry["url"], entry["sha256"])
        elif path.is_dir():
            path = path / WEIGHTS
        elif not path.is_file() and not name.endswith(".h5"):
            known = published()
            names = f"published are {', '.join(known)}" if known else "none are published"
            raise InputError(
                f"no weights at {name}: give a .weights.h5 file, a finished run folder, or a name "
                f"({names})"
            )
        if path.is_file():
            _check_if_published(path)
            return path
    except (OSError, TypeError) as error:  # a name that is too long, or no name
        raise InputError(f"no weights at {str(weights)[:200]!r} ({_short(error)})") from error
    raise InputError(f"no weights at {path}: give a .weights.h5 file or a finished run folder")


def named(weights):
    """What is known of published weights, where this is their name.

    Args:
        weights: as `find` takes it, or any other word.

    Returns:
        The entry of `published`; None of anything else, such as a file or folder here of that name.
    """
    name = str(weights)
    return None if os.path.isfile(name) or os.path.isdir(name) else published().get(name)


def entry_of(weights):
    """What is known of weights: by their published name, or by the SHA-256 of their file.

    Args:
        weights: as `find` takes it.

    Returns:
        The entry of `published`; None where they are not published, or nothing is there.
    """
    if entry := named(weights):
        return entry
    try:
        return of_sha256(sha256_of(find(weights)))
    except InputError:
        return None


def of_sha256(sha256):
    """What is known of published weights by the SHA-256 of their file or their run's; or None."""
    same = (e for e in published().values() if sha256 in (e["sha256"], e.get("run_sha256")))
    return next(same, None)


def _file_of(entry):
    places = [folder / entry["file"] for folder in PUBLISHED if entry.get("file")]
    return next((place for place in places if place.is_file()), None)


def _check_if_published(path):
    """Refuses a file that lies where a published one belongs, and is another."""
    path = path.resolve()
    if path.parent not in [folder.resolve() for folder in PUBLISHED]:
        return
    for name, entry in published().items():
        if entry.get("file") == path.name and sha256_of(path) != entry["sha256"]:
            raise InputError(
                f"{path} is not the published {name}: its SHA-256 is {sha256_of(path)[:16]}..., "
                f"expected {entry['sha256'][:16]}...; fetch it again"
            )


def is_address(name):
    """Whether a name of weights is an address, `hf://user/name` or `https://...`."""
    return str(name).startswith((HUGGING_FACE, "https://", "http://"))


def fetch(address):
    """The file behind an address, downloaded once and checked.

    Args:
        address: "hf://user/name", perhaps with a revision, "hf://user/name@main"; or
            "https://host/file.weights.h5#sha256=HEX", whose SHA-256 has to be there.

    Returns:
        The path of a weights file.

    Raises:
        InputError: nothing is reached, no SHA-256 is told, or the file has another.

    Example:

    >>> model = xr.load("hf://somebody/intact")
    """
    if address.startswith(HUGGING_FACE):
        return _from_hugging_face(address)
    url, _, told = address.partition("#")
    sha256 = told.removeprefix("sha256=").lower()
    if not told.startswith("sha256=") or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(
            f"{url} comes without its hash, by which the file is checked: give {url}#sha256=HEX"
        )
    return download(url, sha256)


def download(url, sha256):
    """A file by its URL, from Keras's cache or the network.

    Args:
        url: of a `.weights.h5` file.
        sha256: its SHA-256, as 64 hexadecimal digits.
    """
    import keras

    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / "keras_xreid" / f"{sha256[:16]}.weights.h5"
    if path.is_file() and sha256_of(path) == sha256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, and renamed when it is whole: others may download it meanwhile.
        with tempfile.TemporaryDirectory(dir=path.parent) as own:
            found = keras.utils.get_file(
                path.name, url, cache_dir=own, cache_subdir="", file_hash=sha256
            )
            os.replace(found, path)
    except Exception as error:  # Keras raises a plain Exception where nothing is reached
        raise InputError(f"cannot download {url} ({_short(error)})") from error
    return path


def _from_hugging_face(address):
    repository, _, revision = address.removeprefix(HUGGING_FACE).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"{address} names no repository: give hf://user/name")
    hub = _hugging_face()
    try:
        entry, weights = (
            Path(hub.hf_hub_download(repository, name, revision=revision or None))
            for name in (ENTRY, WEIGHTS)
        )
        expected = str(json.loads(entry.read_text(encoding="utf-8"))["sha256"])
    except Exception as error:  # no network, no such repository, no such file
        raise InputError(f"cannot download {address} ({_short(error)})") from error
    if sha256_of(weights) != expected:
        raise InputError(
            f"{address} holds other weights than its entry.json says: their SHA-256 is "
            f"{sha256_of(weights)[:16]}..., expected {expected[:16]}..."
        )
    return weights


def push(place, weights, entry, card):
    """Writes a published model to a folder or to the Hugging Face hub.

    Args:
        place: a folder, or "hf://user/name". On the hub the repository is made if it is not there;
            `huggingface_hub.login()` or HF_TOKEN says who you are.
        weights: bytes of the weights file.
        entry: dict of all that is known of it; its "sha256" belongs to these bytes.
        card: Markdown text.

    Raises:
        InputError: a folder that holds something else than these weights, or a hub that refuses.
    """
    if hashlib.sha256(weights).hexdigest() != entry["sha256"]:
        raise InputError("the weights are not those of the entry: their SHA-256 differs")
    if not str(place).startswith(HUGGING_FACE):
        folder = Path(place)
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        same = ENTRY in found and files.read_json(folder / ENTRY).get("sha256") == entry["sha256"]
        if (found and not same) or found - {WEIGHTS, ENTRY, CARD}:
            raise InputError(f"{folder} holds other files than these weights': give a new folder")
        _write(folder, weights, entry, card)
        return
    repository = str(place).removeprefix(HUGGING_FACE)
    hub = _hugging_face()
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), weights, entry, _front_matter(entry) + card)
        try:
            service = hub.HfApi()
            service.create_repo(repository, exist_ok=True)
            service.upload_folder(repo_id=repository, folder_path=folder)
        except Exception as error:  # nobody is logged in, no network, no right
            raise InputError(f"cannot publish to {place} ({_short(error)})") from error


def _write(folder, weights, entry, card):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes_atomic(folder / WEIGHTS, weights)
        files.write_text_atomic(folder / CARD, card)
        files.write_json_atomic(folder / ENTRY, {**entry, "file": WEIGHTS})
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def _front_matter(entry):
    """What the hub reads of a card."""
    licence = "apache-2.0" if entry["licence"] == "Apache-2.0" else "other"
    tags = ["keras", "person-re-identification", "cross-resolution", entry["system"]]
    return (
        f"---\nlicense: {licence}\nlibrary_name: keras\ntags: [{', '.join(tags)}]\n"
        "pipeline_tag: image-feature-extraction\n---\n\n"
    )


def _hugging_face():
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise InputError(
            'hf:// needs huggingface_hub, which is not installed: pip install -e ".[hub]"'
        ) from None
    return huggingface_hub


def sha256_of(path):
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _short(error):
    """One line of an error that may have many."""
    return textwrap.shorten(str(error), 240, placeholder=" ...") or type(error).__name__
