"""Searches a folder of gallery images for people: a ranked list as a picture and as JSON.

    xreid search --gallery FOLDER query.jpg --rates 4
    xreid search --gallery GALLERY query.jpg --rates 4 --cameras 2 3 --between 3600 7200

Images are taken as large as they are stored, and upright where their EXIF orientation says how. A
query of low resolution is enlarged by the network's own rule. What its rate is, --rates says (4: a
quarter of the height that the gallery has). It is estimated from its height with --full-height, and
from its pixels with --estimate-rates. Without these it is unknown, and a super-resolution system
recovers it. Queries stand before these options.

Each gallery image is embedded once. Embeddings are kept by the content of the image and of the
weights file, so that a later search embeds only what is new or changed. An image that cannot be
read is named, and left out. GALLERY is one of `xreid gallery`, which knows cameras and times.
"""

import dataclasses
import importlib.util
import re
from pathlib import Path

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid import app, files, hub
from keras_xreid.app import folder as folders
from keras_xreid.app import later
from keras_xreid.app.export import weights_sha256
from keras_xreid.app.gallery import is_gallery
from keras_xreid.app.index import (
    cache_folder,
    cameras_of,
    check_finite,
    embed_by_camera,
    embed_once,
    image_of,
    own_images,
)
from keras_xreid.app.settings import changed
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.resolution import check_rates
from keras_xreid.report.pixels import GREY, add_image, add_text, new_figure

keras = later("keras")

LOW = 1.25  # the smallest rate estimated: nearer to 1, people's own heights differ as much
DRAWN, QUERIES_A_PICTURE = 20, 20
AT_A_TIME = 8192  # images of the gallery that queries are compared with
PICTURE = re.compile(r"ranked(-\d+)?\.png")  # what a search draws


@dataclasses.dataclass
class Options:
    gallery: str
    """The images to search: a folder, a folder with a folder for each person, or a CSV with the
    columns path and, if known, person; or a gallery of `xreid gallery`."""
    query: tyro.conf.Positional[tuple[str, ...]]
    """Images to search for."""
    weights: str | None = None
    """Published name, .weights.h5 file or run folder; the best published weights if not given."""
    rates: tuple[float, ...] = ()
    """Down-sampling rates of the queries: one for all, or one for each."""
    full_height: int | None = None
    """Estimate the rates from the queries' heights: of rate 1 are images of this height, and all
    that are above 4/5 of it (an estimate below 1.25 counts as 1)."""
    estimate_rates: bool = False
    """Estimate the rates from the queries' pixels, for images that were enlarged before they were
    stored."""
    cameras: tuple[str, ...] = ()
    """Search these cameras only; of a gallery of `xreid gallery`."""
    between: tuple[float, float] | None = None
    """Search these seconds only, both included; of a gallery of `xreid gallery`."""
    top: int = 10
    """Length of the lists; the picture shows 20 at most."""
    adapted: str | None = None
    """Statistics of your cameras, a file of `xreid adapt`. Cameras are told by the CSV, by names
    such as 0001_c3.jpg, or by folders; the rates of the queries must be told."""
    camera: str | None = None
    """With --adapted: the camera of the queries, whatever their names say."""
    out: str = "runs/search"
    """Folder for ranked.json and ranked.png."""
    overwrite: bool = False
    """Replace the search that is in --out."""
    cache: str = "~/.cache/keras_xreid"
    """Folder that keeps the gallery's embeddings; it may be deleted at any time."""


def main(options):
    o, folder = options, Path(options.out)
    check(o)
    kept = is_gallery(o.gallery)
    gallery = None if kept else own_images(o.gallery)
    if not kept and (o.cameras or o.between):
        raise xr.InputError(
            f"--cameras and --between need a gallery that knows them, and {o.gallery} is none: "
            "make one with xreid gallery add"
        )
    if kept and changed(o, "cache"):
        raise xr.InputError(f"{o.gallery} holds its embeddings itself: leave out --cache")
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
    check_folder(folder, o)
    adapted = None
    if o.adapted:
        adapted = xr.CameraStatistics.load(o.adapted)
        adapted.check(model)
        cameras = set() if kept else set(cameras_of(gallery, place=o.gallery))
        for camera in cameras | set(cameras_of(queries, o.camera)):
            adapted.hash_of(camera)  # one that nothing is known of is named now
    with folders.locked(folder):
        find(o, folder, model, sha256, gallery, queries, images, rates, adapted)


def find(o, folder, model, sha256, gallery, queries, images, rates, adapted=None):
    """Ranks the gallery for each query; writes the lists and their pictures, and prints them."""
    prepared = xr.prepare_images(images, model.image_size)

    def embedded():
        options = {"cameras": cameras_of(queries, o.camera), "adapted": adapted} if adapted else {}
        features = np.asarray(model.embed(prepared, rates, **options))
        check_finite(features, o.query)
        return features

    if gallery is None:
        lists, count, unreadable = of_gallery(o, model, embedded, rates, adapted)
    else:
        lists, count, unreadable = of_images(o, model, sha256, gallery, embedded, rates, adapted)
    found = {
        "weights": o.weights or hub.best(),
        "weights_sha256": sha256,
        "system": type(model).__name__,
        "image_size": list(model.image_size),
        "backend": keras.backend.backend(),
        "keras_xreid": xr.__version__,
        "gallery": o.gallery,
        "gallery_images": count,
        "unreadable": [{"path": k, "reason": v} for k, v in unreadable.items()],
        "adapted": None if adapted is None else adapted.about(),
        "rates_from": rates_from(o),
        "queries": [
            {
                "query": query.path,
                "sha256": file_sha256(query.path),
                "rate": None if rates is None else rates[i],
                "ranked": [{"rank": rank, **one} for rank, one in enumerate(ranked, start=1)],
            }
            for i, (query, ranked) in enumerate(zip(queries, lists, strict=True))
        ],
    }
    write(folder, model, found, prepared)


def of_gallery(o, model, embedded, rates, adapted):
    """The lists of a gallery on disk, how many images it has, and none that cannot be read."""
    gallery = xr.Gallery.open(o.gallery, model)
    check_statistics(gallery, adapted)
    keys, distances = gallery.search(embedded(), rates, o.top, o.cameras or None, o.between)
    lists = []
    for some, apart in zip(keys, distances, strict=True):
        rows = zip(some, apart, gallery.columns(some)["sha256"], strict=True)
        lists.append([{"path": k, "distance": d, "sha256": sha256} for k, d, sha256 in rows])
    return lists, len(gallery), {}


def check_statistics(gallery, adapted=None):
    """Refuses a gallery that was embedded with other statistics of its cameras."""
    for camera, entry in gallery.about["cameras"].items():
        wanted = adapted.hash_of(camera) if adapted else None
        if entry["statistics"] != wanted:
            raise xr.InputError(
                f"{gallery.path} was embedded with other statistics of camera {camera}: give the "
                "--adapted that it was made with, or none if it was made without"
            )


def of_images(o, model, sha256, gallery, embedded, rates, adapted):
    """The lists of a folder of images, which are embedded first where they are new."""
    if adapted is None:
        found = embed_once(model, gallery, cache_folder(o.cache, sha256, model))
    else:
        cameras = cameras_of(gallery, place=o.gallery)
        found = embed_by_camera(model, gallery, cameras, adapted, o.cache, sha256)
    gallery, hashes, gallery_features, unreadable = found
    features = embedded()
    if features.shape[1:] != gallery_features.shape[1:]:
        raise xr.InputError(
            f"kept embeddings of the gallery are not of these weights: remove {o.cache}/embeddings"
        )
    # A block's copies are small; those of a whole gallery would be as large as it.
    blocks = range(0, len(gallery), AT_A_TIME)
    distances = np.concatenate(
        [np.asarray(model.distances(features, gallery_features[i : i + AT_A_TIME], rates))
         for i in blocks], axis=1,
    )  # fmt: skip
    order = np.argsort(distances, axis=1, kind="stable")[:, : o.top]
    lists = [
        [
            {
                "path": gallery[j].path,
                **({} if gallery[j].person is None else {"person": gallery[j].person}),
                "distance": distances[i, j],
                "sha256": hashes[j],
            }
            for j in order[i]
        ]
        for i in range(len(features))
    ]
    return lists, len(gallery), unreadable


def write(folder, model, found, prepared):
    """Writes the lists and their pictures, and prints them."""
    files.write_json_atomic(folder / "ranked.json", found)
    for path in folder.glob("ranked*.png"):
        if PICTURE.fullmatch(path.name):  # of an earlier search
            path.unlink()
    pictures = draw(folder, model, found["queries"], prepared)
    for query in found["queries"]:
        told = query["query"] + ("" if query["rate"] is None else f", rate {query['rate']:.3g}")
        print(files.harmless(told, name=True))
        for one in query["ranked"]:
            who = f"  {one['person']}" if "person" in one else ""
            told = f"{one['rank']:>4}  {one['distance']:#.4g}  {one['path']}{who}"
            print(files.harmless(told, name=True))
    print(f"Look at {' '.join(map(str, pictures))}; {folder / 'ranked.json'}")


def check(o):
    """Refuses what can be refused before anything is read."""
    if not o.query:
        raise xr.InputError("no query: give one or more images to search for")
    if o.top < 1:
        raise xr.InputError(f"--top is {o.top}: give 1 or more")
    if o.adapted and not rates_from(o):
        raise xr.InputError(
            "--adapted goes by the queries' rates: give --rates, --full-height or --estimate-rates"
        )
    if o.camera and not o.adapted:
        raise xr.InputError("--camera is of no use without --adapted: leave it out")
    if sum((bool(o.rates), o.full_height is not None, o.estimate_rates)) > 1:
        raise xr.InputError("--rates, --full-height and --estimate-rates: give one of them")
    if o.rates:
        check_rates(o.rates)
        if len(o.rates) not in (1, len(o.query)):
            raise xr.InputError(
                f"--rates has {len(o.rates)} numbers for {len(o.query)} queries: give one for all, "
                "or one for each"
            )
    if importlib.util.find_spec("matplotlib") is None:
        raise xr.InputError('the picture needs matplotlib: pip install -e ".[recipes]"')


def rates_from(o):
    """The option that says the queries' rates, or None."""
    if o.estimate_rates:
        return "--estimate-rates"
    return "--rates" if o.rates else "--full-height" if o.full_height else None


def rates_of(o, images):
    """The queries' rates: as given, estimated, or None."""
    if o.full_height is not None:
        rates = xr.rates_from_sizes(images, o.full_height)
        return np.where(rates < LOW, np.float32(1), rates)
    if o.estimate_rates:
        return xr.estimate_rate(images)
    if not o.rates:
        return None
    return np.broadcast_to(np.asarray(o.rates, "float32"), (len(images),))


def check_folder(folder, o):
    """Refuses a folder with other things; an earlier search stays until this one is written."""
    gallery = Path(o.gallery)
    if gallery.is_dir() and folder.resolve().is_relative_to(gallery.resolve()):
        raise xr.InputError(
            f"{folder} lies in the gallery, whose images are searched: give another --out"
        )
    folders.refuse_locked(folder)
    if folders.is_empty(folder):
        return
    if not (folder / "ranked.json").exists():
        raise xr.InputError(f"{folder} holds other files: give another --out")
    if not o.overwrite:
        raise xr.InputError(
            f"{folder} holds a search already: --overwrite replaces it, or give another --out"
        )


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


def seen(path, sha256, image_size):
    """An image as the network sees it; grey where it lies here no more, or is another one now."""
    try:
        return xr.prepare_images([image_of(path, sha256)], image_size)[0]
    except xr.InputError:
        return np.full((*image_size, 3), 128, "uint8")


def draw_page(path, found, queries, recovered, image_size):
    cell_w, gap, mark_h, text_h, split = 96, 14, 24, 18, 26
    cell_h = round(cell_w * image_size[0] / image_size[1])
    beside = 1 + any(image is not None for image in recovered)
    longest = max(1, min(DRAWN, max(len(query["ranked"]) for query in found)))
    row_h = mark_h + cell_h + 2 * text_h + gap
    width = gap + (beside + longest) * (cell_w + gap) + split
    small = {"color": GREY, "fontsize": 6}
    with new_figure(path, width, gap + len(found) * row_h) as figure:

        def cell(x, y, image, title, *lines):
            middle = x + cell_w / 2
            add_text(figure, middle, y + mark_h / 2, title)
            add_image(figure, image, x, y + mark_h, cell_w, cell_h)
            for i, line in enumerate(lines):
                below = y + mark_h + cell_h + (i + 0.6) * text_h
                add_text(figure, middle, below, line, **small)

        for row, query in enumerate(found):
            y, rate = gap + row * row_h, query["rate"]
            told = "rate unknown" if rate is None else f"rate {rate:.3g}"
            cell(gap, y, queries[row], "query", told, short(query["query"]))
            if recovered[row] is not None:
                cell(gap + cell_w + gap, y, recovered[row], "recovered")
            ranked = query["ranked"][:DRAWN]
            for one in ranked:
                image = seen(one["path"], one["sha256"], image_size)
                x = gap + split + (beside + one["rank"] - 1) * (cell_w + gap)
                who = short(one.get("person") or one["path"])
                cell(x, y, image, str(one["rank"]), f"{one['distance']:.3g}", who)


def short(path, length=24):
    """A file's name, perhaps its end, without what a terminal would obey."""
    name = files.harmless(Path(path).name, name=True)
    return name if len(name) <= length else "…" + name[1 - length :]


def cli():
    app.command(main, Options, __doc__)
