"""Multiple low resolution (MLR): which images are queries, at which rate, against which gallery.

The papers shrink one camera's images by a rate drawn from {2, 3, 4} and keep the others. Published
code disagrees about nearly every word of that, so a protocol has a name here, see `PROTOCOLS`, and
the images it gives are listed in a manifest. Where the papers leave a choice open, ours is:

- Every draw is the SHA-256 of (seed, split, what is drawn for whom), never a random-number stream:
  the same on every machine and in every version of NumPy, and one image's rate does not depend on
  which other images there are.
- Cameras that see the same people form a group, and one camera of each is the LR camera: one of
  Market-1501's six, one of each of CUHK03's five pairs.
- All test images, the data set's query and gallery together, are shared out anew. A query whose
  person no other camera shows in the gallery has no answer and is left out.
- A single-shot gallery holds people seen by two cameras or more: neither person 0 nor -1, nor
  DukeMTMC-reID's distractors. All their images are listed, and scores are the expectation over the
  draw of one for each person; mAP is that of all images listed.
- Training images stay as they are: all four papers shrink them at random while training.
- Sets whose images are of low resolution by themselves (CAVIAR4REID, MLR folders, lists with
  rates) are not shrunk again, except by "rain-code", as its authors do with CAVIAR4REID;
  "each-rate" refuses them.
- What is shrunk is stored as BMP: PNG's bytes depend on the version of zlib.
"""

import collections
import dataclasses
import hashlib
from pathlib import Path

from keras_xreid.data.manifest import (
    MANIFEST,
    ROLES,
    content_of,
    file_sha256,
    planned_rows,
    read_rows,
    write_manifest,
)
from keras_xreid.data.people import nobody
from keras_xreid.data.resolution import check_kernel, check_rates, rate_range
from keras_xreid.errors import InputError
from keras_xreid.files import whole_folder
from keras_xreid.progress import Progress


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the test images are shared out, shrunk and scored.

    Args:
        summary: the protocol in a line.
        low: which test images are shrunk and become queries: those of one "camera" of each group
            of cameras, of one "camera of each person", or "all" of them, the gallery then being
            the same images at high resolution. None: nothing is fixed, every query is scored at
            every rate.
        camera: the LR camera where it is not drawn.
        every_rate: a query at each rate, in place of one drawn rate.
        kernel: how images are shrunk, see `degrade`.
        gallery_shots: 1, one gallery image for each person, or None, all of them; as
            `evaluate_ranking` takes it.
        gallery_draws: number of galleries that the protocol's authors drew; None: the expectation
            over all draws, in closed form.
        one_camera_people: keep people seen by one camera only for training, in CAVIAR4REID.
        boxes: images of CUHK03: "detected", "labeled" or "both".
    """

    summary: str
    low: str | None = None
    camera: int | None = None
    every_rate: bool = False
    kernel: str = "area"
    gallery_shots: int | None = None
    gallery_draws: int | None = None
    one_camera_people: bool = False
    boxes: str = "detected"


PROTOCOLS = {
    "each-rate": Protocol("every query at every rate, against the full HR gallery"),
    "paper": Protocol(
        "one camera's images, each shrunk by a drawn rate, against one HR image a person by the "
        "others",
        low="camera", gallery_shots=1,
    ),
    "paper-camera-per-person": Protocol(
        "as paper, with an LR camera drawn for each person",
        low="camera of each person", gallery_shots=1,
    ),
    "paper-all-queries": Protocol(
        "every test image, shrunk by a drawn rate, against one HR image a person by another "
        "camera (Wu et al.)",
        low="all", gallery_shots=1,
    ),
    "rain-code": Protocol(
        "every test image, max-pooled by each rate, against one HR image a person by another "
        "camera, 100 draws (RAIN's authors)",
        low="all", every_rate=True, kernel="max-pool", gallery_shots=1, gallery_draws=100,
        one_camera_people=True, boxes="both",
    ),
    "multi-shot": Protocol(
        "one camera's images, each shrunk by a drawn rate, against all HR images by the others "
        "(later results on Market-1501)",
        low="camera",
    ),
    "multi-shot-camera-3": Protocol(
        "as multi-shot, with camera 3 as the LR camera (MDIFF's code for Market-1501)",
        low="camera", camera=3,
    ),
}  # fmt: skip


def find_protocol(name):
    """Returns a protocol by its name.

    Args:
        name: one of `PROTOCOLS`.

    Returns:
        The `Protocol`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}: known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def apply_protocol(data, protocol, *, split_id=0, seed=0, rates=(2, 3, 4), kernel=None):
    """Makes a protocol's queries and gallery out of a data set's test images.

    Nothing is shrunk here: queries get a rate and a kernel, and `Record.read` shrinks them.
    `Record.original` is the image before.

    Args:
        data: a `DataSet` with both query and gallery.
        protocol: one of `PROTOCOLS`; "each-rate" changes nothing.
        split_id: number of the split, 0 or more; redraws cameras and rates.
        seed: 0 or more; another seed redraws cameras and rates too.
        rates: rates to draw from.
        kernel: how images are shrunk, see `degrade`; the protocol's if None.

    Returns:
        A `DataSet`: queries and gallery images state their rate, the latter 1.

    Raises:
        InputError: unknown protocol or kernel, rates below 1, or no query that could be answered.

    Example:

    >>> data = apply_protocol(load("viper", "/data/VIPeR"), "paper", seed=0)
    >>> data.query[0].rate, data.query[0].read().shape  # from 128x48
    (3, (43, 16, 3))

    Reference:

    - Jiao et al., Deep Low-Resolution Person Re-Identification, AAAI 2018 (the setting).
    - Wu et al., Learning Resolution-Adaptive Representations, Section V-B ("paper-all-queries").
    """
    rule = find_protocol(protocol)
    check_rates(rates)
    if rate_range(rates):
        raise InputError(f"rates {rates!r} of a protocol's queries: give numbers, no range")
    rates = tuple(dict.fromkeys(rates))  # one given twice is drawn no more often
    check_kernel(kernel or rule.kernel)
    for what, value in (("split", split_id), ("seed", seed)):
        if value < 0:
            raise InputError(f"{what} {value} is negative: give 0 or more")
    data = dataclasses.replace(data, protocol=protocol, split_id=split_id, seed=seed)
    if rule.low is None:
        return data
    images = list(dict.fromkeys(data.query + data.gallery))
    absent = nobody(data.query)
    cameras = _cameras_of_people(images, absent)
    if rule.gallery_shots == 1:
        images = [record for record in images if len(cameras.get(record.person, ())) > 1]

    def draw(values, *words):
        """One of the values, by hash."""
        text = " ".join(str(word) for word in (seed, split_id, *words))
        number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        return values[number % len(values)]

    low_already = data.name == "mlr" or any((record.rate or 1) > 1 for record in images)
    if low_already and not rule.every_rate:
        if seed:
            raise InputError(
                f"seed {seed} of {data.name}: its images are of low resolution by themselves, and "
                f"protocol {protocol} draws nothing; give seed 0"
            )
        told = "rates " + " ".join(f"{rate:g}" for rate in rates)
        if told != "rates 2 3 4" or kernel:
            told = f"kernel {kernel}" if kernel else told
            raise InputError(
                f"{told} of {data.name}: its images are of low resolution by themselves, and "
                f"protocol {protocol} shrinks none; leave it out"
            )
        about = data.about or "queries are of low resolution as they are stored, none is shrunk"
        data = dataclasses.replace(data, about=about)
        queries, galleries = set(data.query), set(data.gallery)
        if data.split == "dev":  # which took no notice of the resolution
            queries = {record for record in images if (record.rate or 1) > 1}
            galleries = set(images) - queries
        query = [record for record in images if record in queries]
        gallery = [record for record in images if record in galleries]
    else:
        low = _low_images(images, cameras, rule, draw)
        query = []
        for record in images:
            if record in low and record.person in cameras:
                own = record.person, record.camera, Path(record.key or record.path).stem
                drawn = rates if rule.every_rate else [draw(sorted(rates), "rate", *own)]
                query += [_shrunk(record, rate, kernel or rule.kernel) for rate in drawn]
        gallery = [
            dataclasses.replace(record, rate=1)
            for record in images
            if rule.low == "all" or record not in low
        ]
    answers = _cameras_of_people(gallery, absent)
    query = [r for r in query if answers.get(r.person, set()) - {r.camera}]
    if not query:
        raise InputError(
            f"{data.name}: protocol {protocol} finds no query among {len(images)} test images of "
            f"{len(cameras)} people by {len(set().union(*cameras.values()))} cameras: people must "
            "be seen by the LR camera and by another one"
        )
    return dataclasses.replace(data, query=query, gallery=gallery)


def _cameras_of_people(records, absent):
    cameras = collections.defaultdict(set)
    for record in records:
        if not absent(record.person):
            cameras[record.person].add(record.camera)
    return cameras


def _low_images(images, cameras, rule, draw):
    """The set of images that are shrunk."""
    if rule.low == "all":
        return set(images)
    if rule.low == "camera of each person":
        chosen = {
            person: draw(sorted(mine), "camera", person)
            for person, mine in cameras.items()
            if len(mine) > 1
        }
        return {record for record in images if chosen.get(record.person) == record.camera}
    if rule.camera is not None:
        chosen = {rule.camera}
    else:
        chosen = {draw(sorted(group), "camera", min(group)) for group in _groups(cameras)}
    return {record for record in images if record.camera in chosen}


def _groups(cameras):
    """Sets of cameras that are linked by people whom they see."""
    groups = []
    for mine in cameras.values():
        linked = [group for group in groups if group & mine]
        groups = [group for group in groups if not group & mine] + [mine.union(*linked)]
    return groups


def _shrunk(record, rate, kernel):
    return dataclasses.replace(record, rate=rate, kernel=kernel if rate != 1 else None)


# --- folder ---------------------------------------------------------------------------------


def build(data, out, verbose=True, meanwhile=None):
    """Writes a protocol's images into a folder, with their manifest.

    The folder holds `{train,query,gallery}/{lr,hr}/` and `manifest.jsonl`. Images that are not
    shrunk are copied byte for byte. `load("mlr", out)` reads it back: the same images, and the
    same manifest, as the protocol gives on the fly.

    Args:
        data: a `DataSet` of a protocol other than "each-rate".
        out: a new or empty folder; it gets its name when it is whole.
        verbose: show progress.
        meanwhile: folder beside it to write into until then, which is emptied first; a new one if
            None.

    Returns:
        SHA-256 of the manifest, 64 hexadecimal digits.

    Raises:
        InputError: protocol "each-rate", a folder that holds something, or an unreadable image.

    Example:

    >>> data = load("market1501", "/data/Market-1501-v15.09.15", protocol="paper", seed=0)
    >>> sha256 = build(data, "mlr-market1501")
    """
    if find_protocol(data.protocol).low is None:
        built = ", ".join(name for name, rule in PROTOCOLS.items() if rule.low)
        raise InputError(
            f"protocol {data.protocol} shrinks every query by every rate when it is scored, so "
            f"there is nothing to build: choose one of {built}"
        )
    if data.name == "mlr":
        raise InputError("mlr: these images are an MLR set already: build from the original one")
    with whole_folder(out, meanwhile) as building:
        planned = list(planned_rows(data))
        title = f"Writing {len(planned):,} images into {out}"
        progress = Progress(title, len(planned), show=verbose)
        rows = []
        for row, record in planned:
            content = content_of(record)
            path = building / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            rows.append({**row, "sha256": hashlib.sha256(content).hexdigest()})
            progress.add()
        sha256 = write_manifest(building / MANIFEST, rows)
    return sha256


def verify(folder, verbose=True):
    """Compares a built folder with its manifest, image by image.

    Args:
        folder: the folder that `build` made.
        verbose: show progress.

    Returns:
        Dict path -> "missing", "differs" or "not in the manifest", in order of path; empty where
        every image is as it was built.

    Raises:
        InputError: no folder, or no manifest in it.

    Example:

    >>> verify("mlr-market1501")
    {'query/lr/0003_c1s6_015971_00_3x.bmp': 'differs'}
    """
    folder = Path(folder)
    rows = read_rows(folder / MANIFEST)
    progress = Progress(f"Comparing {len(rows):,} images", len(rows), show=verbose)
    listed, wrong = set(), {}
    for row in rows:
        path = folder / row["path"]
        listed.add(row["path"])
        if not path.is_file():
            wrong[row["path"]] = "missing"
        elif file_sha256(path) != row["sha256"]:
            wrong[row["path"]] = "differs"
        progress.add()
    for role in ROLES:
        for path in (folder / role).rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in listed:
                wrong[name] = "not in the manifest"
    return dict(sorted(wrong.items()))
