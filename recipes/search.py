"""Searches a folder of gallery images for people: a ranked list as a picture and as JSON.

    python recipes/search.py --weights runs/intact-synthetic --gallery FOLDER query.jpg --rates 4

Images are taken as large as they are stored, and upright where their EXIF orientation says how. A
query of low resolution is enlarged by the network's own rule. What its rate is, --rates says (4: a
quarter of the height that the gallery has), or it is estimated from its height with --full-height;
without either it is unknown, and a super-resolution system recovers it. Queries stand before these
options.

Each gallery image is embedded once. Embeddings are kept by the content of the image and of the
weights file, so that a later search embeds only what is new or changed. An image that cannot be
read is named, and left out.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import zipfile
import zlib
from pathlib import Path

import common  # first: it chooses the backend
import tyro
from export import weights_sha256

# isort: split
import keras
import numpy as np
import PIL

import keras_xreid as xr
from keras_xreid import files
from keras_xreid.data.datasets import IMAGE_SUFFIXES
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.resolution import check_rates
from keras_xreid.report import figures

AT_A_TIME = 256  # gallery images; what is done of them is kept
LOW = 1.25  # the smallest rate estimated: nearer to 1, people's own heights differ as much
DRAWN, QUERIES_A_PICTURE = 20, 20


@dataclasses.dataclass
class SearchOptions:
    weights: str
    """The name of published weights, a .weights.h5 file, or the folder of a finished run."""
    gallery: str
    """Folder of the images to search, and of folders of them."""
    query: tyro.conf.Positional[tuple[str, ...]]
    """Images to search for."""
    rates: tuple[float, ...] = ()
    """Down-sampling rates of the queries: one for all, or one for each."""
    full_height: int | None = None
    """Estimate the rates from the queries' heights: of rate 1 are images of this height, and all
    that are above 4/5 of it (an estimate below 1.25 counts as 1)."""
    top: int = 10
    """Length of the lists; the picture shows 20 at most."""
    out: str = "runs/search"
    """Folder for ranked.json and ranked.png."""
    overwrite: bool = False
    """Replace the search that is in --out."""
    cache: str = "~/.cache/keras_xreid"
    """Folder that keeps the gallery's embeddings; it may be deleted at any time."""


def main(options):
    o, folder = options, Path(options.out)
    check(o)
    gallery = gallery_images(o.gallery)
    queries = [xr.Record(path, None, 0) for path in o.query]
    images = [query.read() for query in queries]  # a broken one is named now
    rates = rates_of(o, images)
    model = xr.load(o.weights)
    if getattr(model, "gallery_at_query_rate", False):
        raise xr.InputError(
            f"{type(model).__name__} embeds the gallery anew at each query's rate: "
            "search with another system"
        )
    sha256 = weights_sha256(o.weights)
    open_folder(folder, o)
    gallery, hashes, gallery_features, unreadable = embed_once(
        model, gallery, cache_folder(o.cache, sha256, model)
    )
    prepared = xr.prepare_images(images, model.image_size)
    features = model.embed(prepared, rates)
    distances = np.asarray(model.distances(features, gallery_features, query_rates=rates))
    order = np.argsort(distances, axis=1, kind="stable")[:, : o.top]
    found = {
        "weights": o.weights,
        "weights_sha256": sha256,
        "system": type(model).__name__,
        "image_size": list(model.image_size),
        "backend": keras.backend.backend(),
        "keras_xreid": xr.__version__,
        "gallery": o.gallery,
        "gallery_images": len(gallery),
        "unreadable": [{"path": k, "reason": v} for k, v in unreadable.items()],
        "rates_from": "--rates" if o.rates else "--full-height" if o.full_height else None,
        "queries": [
            {
                "query": query.path,
                "sha256": file_sha256(query.path),
                "rate": None if rates is None else rates[i],
                "ranked": [
                    {
                        "rank": rank,
                        "path": gallery[j].path,
                        "distance": distances[i, j],
                        "sha256": hashes[j],
                    }
                    for rank, j in enumerate(order[i], start=1)
                ],
            }
            for i, query in enumerate(queries)
        ],
    }
    try:
        files.write_json_atomic(folder / "ranked.json", found)
        for path in folder.glob("ranked*.png"):  # of an earlier search
            path.unlink()
        pictures = draw(folder, model, found["queries"], prepared)
    except OSError as error:
        raise xr.InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    for query in found["queries"]:
        print(query["query"] + ("" if rates is None else f", rate {query['rate']:.3g}"))
        for one in query["ranked"]:
            print(f"{one['rank']:>4}  {one['distance']:.4g}  {one['path']}")
    print(f"Look at {' '.join(map(str, pictures))}; {folder / 'ranked.json'}")


def check(o):
    """Refuses what can be refused before anything is read."""
    if not o.query:
        raise xr.InputError("no query: give one or more images to search for")
    if o.top < 1:
        raise xr.InputError(f"--top is {o.top}: give 1 or more")
    if o.rates and o.full_height is not None:
        raise xr.InputError("--rates and --full-height exclude each other: give one")
    if o.rates:
        check_rates(o.rates)
        if len(o.rates) not in (1, len(o.query)):
            raise xr.InputError(
                f"--rates has {len(o.rates)} numbers for {len(o.query)} queries: give one for all, "
                "or one for each"
            )
    if importlib.util.find_spec("matplotlib") is None:
        raise xr.InputError('the picture needs matplotlib: pip install "keras-xreid[recipes]"')


def gallery_images(gallery):
    """The images in a folder and its folders, by path."""
    folder = Path(gallery)
    if not folder.is_dir():
        raise xr.InputError(f"no gallery at {folder}: give a folder of images")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not paths:
        raise xr.InputError(
            f"no images in {folder}, nor in its folders: they end in "
            + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    return [xr.Record(str(path), None, 0) for path in paths]


def rates_of(o, images):
    """The queries' rates: as given, estimated, or None."""
    if o.full_height is not None:
        rates = xr.rates_from_sizes(images, o.full_height)
        return np.where(rates < LOW, np.float32(1), rates)
    if not o.rates:
        return None
    return np.broadcast_to(np.asarray(o.rates, "float32"), (len(images),))


def open_folder(folder, o):
    """Makes the folder; an earlier search in it stays until this one is written."""
    if folder.resolve().is_relative_to(Path(o.gallery).resolve()):
        raise xr.InputError(
            f"{folder} lies in the gallery, whose images are searched: give another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            return
        if not (folder / "ranked.json").exists():
            raise xr.InputError(f"{folder} holds other files: give another --out")
        if not o.overwrite:
            raise xr.InputError(
                f"{folder} holds a search already: --overwrite replaces it, or give another --out"
            )
    except OSError as error:
        raise xr.InputError(f"cannot write to {folder}: {error.strerror}") from error


def cache_folder(cache, weights_sha256, model):
    """Where embeddings lie that depend on the same as ours, the image aside."""
    height, width = model.image_size
    depends_on = (
        f"weights {weights_sha256} size {height}x{width} keras_xreid {xr.__version__} "
        f"Pillow {PIL.__version__} backend {keras.backend.backend()}"
    )
    key = hashlib.sha256(depends_on.encode()).hexdigest()
    return Path(cache).expanduser() / "embeddings" / key[:32]


def embed_once(model, records, folder):
    """Embeds gallery images, or finds them embedded.

    Args:
        model: the model.
        records: list of `Record`.
        folder: where embeddings are kept, by the SHA-256 of their image.

    Returns:
        The records that could be read; the SHA-256 of each one's file; an (n, d) float32 array;
        and a dictionary from the paths of all others to what is wrong with them.

    Raises:
        InputError: none can be read, or one changed meanwhile.
    """
    hashes, unreadable = {}, {}
    for record in records:
        with noting(unreadable, record.path):
            hashes[record.path] = file_sha256(record.path)
    known = read_kept(folder, set(hashes.values()))
    new = {}  # equal images are embedded once
    for path, sha256 in hashes.items():
        if sha256 not in known:
            new.setdefault(sha256, path)
    print(f"Gallery: {len(records):,} images, {len(new):,} to embed")
    progress = keras.utils.Progbar(len(new), unit_name="image")
    kept, todo = True, list(new.items())
    for start in range(0, len(todo), AT_A_TIME):
        part, images = todo[start : start + AT_A_TIME], {}
        for sha256, path in part:
            with noting(unreadable, path):
                record = xr.Record(path, None, 0)
                images[sha256] = xr.prepare_images([record], model.image_size)[0]
        if images:
            features = model.embed(np.stack(list(images.values())), rates=1)
            for sha256 in images:
                if file_sha256(new[sha256]) != sha256:
                    raise xr.InputError(f"{new[sha256]} changed while it was read: start again")
            known.update(zip(images, features, strict=True))
            kept = kept and keep(folder, list(images), features)
        progress.update(start + len(part))
    for path, sha256 in hashes.items():  # a copy of what could not be read cannot be read either
        if sha256 not in known:
            unreadable.setdefault(path, unreadable[new[sha256]].replace(new[sha256], path))
    for reason in unreadable.values():
        print(f"Left out: {reason}")
    readable = [record for record in records if record.path not in unreadable]
    if not readable:
        raise xr.InputError(f"no gallery image can be read, such as this one: {reason}")
    hashes = [hashes[record.path] for record in readable]
    return readable, hashes, np.stack([known[sha256] for sha256 in hashes]), unreadable


@contextlib.contextmanager
def noting(unreadable, path):
    """Notes what is wrong with an image, and goes on."""
    try:
        yield
    except xr.InputError as error:
        unreadable[path] = str(error)


def read_kept(folder, wanted):
    """Reads kept embeddings: {SHA-256 of an image: embedding}; a broken file holds none."""
    known = {}
    broken = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
    for path in sorted(folder.glob("*.npz")):
        with contextlib.suppress(*broken), np.load(path) as kept:
            pairs = list(zip(kept["images"].tolist(), kept["features"], strict=True))
            known.update((sha256, feature) for sha256, feature in pairs if sha256 in wanted)
    return known


def keep(folder, hashes, features):
    """Keeps embeddings in a file of their own; says so, once, where that cannot be done."""
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
    content = io.BytesIO()
    np.savez(content, images=np.array(hashes), features=features)
    try:
        files.write_bytes_atomic(folder / f"{name}.npz", content.getvalue())
    except OSError as error:
        print(f"\nEmbeddings cannot be kept in {folder} ({error.strerror}): going on without")
        return False
    return True


def draw(folder, model, found, prepared):
    """Draws the lists, 20 queries a picture, as the network saw the images.

    Nobody knows who is on them: no frame, no tick. Beside a query that is not known to be of high
    resolution stands what a super-resolution system recovers from it.
    """
    pages = range(0, len(found), QUERIES_A_PICTURE)
    paths = []
    for number, start in enumerate(pages, start=1):
        name = "ranked.png" if len(pages) == 1 else f"ranked-{number}.png"
        rows = slice(start, start + QUERIES_A_PICTURE)
        low = [hasattr(model, "recover") and query["rate"] != 1 for query in found[rows]]
        recovered = model.recover(prepared[rows]) if any(low) else None
        draw_page(
            folder / name, found[rows], prepared[rows],
            [recovered[i] if shown else None for i, shown in enumerate(low)], model.image_size,
        )  # fmt: skip
        paths.append(folder / name)
    return paths


def draw_page(path, found, queries, recovered, image_size):
    cell_w, gap, mark_h, text_h, split = 96, 14, 24, 18, 26
    cell_h = round(cell_w * image_size[0] / image_size[1])
    beside = 1 + any(image is not None for image in recovered)
    longest = min(DRAWN, max(len(query["ranked"]) for query in found))
    row_h = mark_h + cell_h + 2 * text_h + gap
    width = gap + (beside + longest) * (cell_w + gap) + split
    small = {"color": figures.GREY, "fontsize": 6}
    with figures._figure(path, width, gap + len(found) * row_h) as figure:

        def cell(x, y, image, title, *lines):
            middle = x + cell_w / 2
            figures._text(figure, middle, y + mark_h / 2, title)
            figures._image(figure, image, x, y + mark_h, cell_w, cell_h)
            for i, line in enumerate(lines):
                below = y + mark_h + cell_h + (i + 0.6) * text_h
                figures._text(figure, middle, below, line, **small)

        for row, query in enumerate(found):
            y, rate = gap + row * row_h, query["rate"]
            told = "rate unknown" if rate is None else f"rate {rate:.3g}"
            cell(gap, y, queries[row], "query", told, short(query["query"]))
            if recovered[row] is not None:
                cell(gap + cell_w + gap, y, recovered[row], "recovered")
            ranked = query["ranked"][:DRAWN]
            records = [xr.Record(one["path"], None, 0) for one in ranked]
            for one, image in zip(ranked, xr.prepare_images(records, image_size), strict=True):
                x = gap + split + (beside + one["rank"] - 1) * (cell_w + gap)
                cell(x, y, image, str(one["rank"]), f"{one['distance']:.3g}", short(one["path"]))


def short(path, length=24):
    """A file's name, perhaps its end, and nothing that matplotlib would take for a formula."""
    name = Path(path).name.replace("$", r"\$")
    return name if len(name) <= length else "…" + name[1 - length :]


if __name__ == "__main__":
    common.start(main, SearchOptions, __doc__)
