"""Options that all training recipes share, in groups, and how a command line is read.

A recipe declares a dataclass of its own options. `options_class` puts the shared groups beside it.
Nothing here imports Keras: `--help` answers at once.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import re
import sys
from typing import Annotated, Literal, get_args, get_origin

import docstring_parser
import tyro

from keras_xreid.backbones import NAMES as BACKBONES
from keras_xreid.data.camera import check_strength
from keras_xreid.data.datasets import NAMES
from keras_xreid.data.protocols import PROTOCOLS
from keras_xreid.data.resolution import DEGRADATIONS, KERNELS, RANDOM
from keras_xreid.errors import InputError

Protocol = Literal[tuple(PROTOCOLS)]

# What --preset strong changes in every recipe. A recipe's own PRESETS come on top.
STRONG = {
    "weights": "imagenet", "train_rates": ("1..4",), "kernel": RANDOM, "erase": True, "l2": 5e-4,
    "neck": True, "label_smoothing": 0.1, "flip": True, "unit_triplet": True,
}  # fmt: skip
# Of systems that take pairs: 16 people, and 64 images.
STRONG_PAIRS = {"batch_size": 32, "images_per_person": 2}


@dataclasses.dataclass
class Data:
    data: Literal[NAMES] = "synthetic"
    """Data set: synthetic is embedded; mlr is folders of HR and LR images; csv is your own list."""
    data_dir: str | None = None
    """Folder of the data set; synthetic needs none."""
    split: Literal["test", "dev"] = "test"
    """dev holds out 50 of the training people, for every choice of settings."""
    fold: int = 0
    """Which people dev holds out: 0, 1 or 2. No person is in two folds (of 150 people or more)."""
    protocol: Protocol | None = None
    """each-rate, if not given: every query at every rate, against the full HR gallery. The others
    fix each query's rate, see `xreid build --help`. LR queries are not shrunk: caviar has
    paper then, a csv with rates multi-shot, mlr what it was built by, or multi-shot."""
    split_id: int = 0
    """Which of a data set's splits. A protocol other than each-rate draws anew for each."""
    train_rates: tuple[float | str, ...] = (2, 3, 4)
    """Down-sampling rates to train on. 1..4 draws any rate of that range; single images then
    stay at rate 1 with probability 1/3. Scores are still means over 2, 3 and 4."""
    kernel: Literal[(*KERNELS, RANDOM)] = "area"
    """How training images are shrunk; random takes one of the others for each image. Queries are
    shrunk by area."""
    degradation: Literal[DEGRADATIONS] = "plain"
    """plain: LR training images are only shrunk; camera: blur, noise and JPEG besides, at the small
    size, and a kernel drawn for each. Queries are only shrunk; `xreid evaluate --degradation
    camera` scores on degraded ones."""
    strength: float = 0.5
    """How much a camera adds, from 0 (plain shrinking) to 1."""
    rates: tuple[float, ...] = (1, 2, 3, 4, 8)
    """Down-sampling rates that each-rate scores."""
    query_rates: tuple[float, ...] = (2, 3, 4)
    """Rates of a protocol's queries, where it draws them. They do not follow --train-rates."""
    train_people: int | None = None
    """Train on so many of the training people, the same on every machine, 100 of them among 200: to
    see how a score depends on their number."""
    train_cameras: tuple[str, ...] = ()
    """Train on images of these cameras only; all, if not given."""
    test_cameras: tuple[str, ...] = ()
    """Score queries and gallery images of these cameras only; all, if not given."""
    everyone: bool = False
    """Train on the people who are searched for, too: weights for other places. Scores mean nothing
    then; `xreid publish --like` prints those of the same run without it."""
    limit: int | None = None
    """Take this many people only: a first look. Marked in metrics.json."""


@dataclasses.dataclass
class Model:
    preset: Literal["tiny", "strong", "paper"] = "tiny"
    """tiny: small, for a CPU; strong: EfficientNet-Lite0 from ImageNet with the field's tricks, for
    scores that count; paper: the paper's sizes and schedule."""
    backbone: Literal[BACKBONES] | None = None
    """The preset's if not given."""
    image_size: tuple[int, int] | None = None
    """Height and width that images are brought to, in pixels; the preset's if not given. The
    built-in people are drawn at this size, so that their scores at two sizes cannot be compared."""
    weights: str | None = None
    """Where the backbone starts: imagenet, random, or trained weights of any system (a published
    name, or the folder of a run), of which the backbone alone is taken. If not given: imagenet for
    the strong preset and for the paper preset's ResNet-50, else random."""
    neck: bool = False
    """Batch normalization between feature and embedding, and a classifier without bias (BNNeck)."""
    flip: bool = False
    """Embed the mean of an image and its mirror image; scores are given with and without."""


@dataclasses.dataclass
class Training:
    epochs: int | None = None
    """Epochs; the preset's schedule if not given."""
    batch_size: int | None = None
    """Images a step, or pairs where a system takes pairs; the preset's if not given."""
    images_per_person: int = 4
    """Images, or pairs, of each person in a step; 1 takes them in random order."""
    learning_rate: float | None = None
    """Highest learning rate of Adam's schedule; 1e-3 if not given. The paper preset of rain, cadnet
    and adaptive has the paper's, and takes none."""
    l2: float = 0.0
    """So many times a weight is added to its gradient, as PyTorch's Adam(weight_decay=) does."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all people."""
    unit_triplet: bool = False
    """Compare unit vectors in triplets; else features of any length."""
    erase: bool = False
    """Put its mean colour in a random rectangle of every second training image."""
    jitter: bool = False
    """Change brightness and saturation by up to 20 %, and contrast by up to 15 %."""
    seed: int = 0
    """One seed repeats a run exactly on one backend."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 takes less memory, and is faster where GPU or CPU compute with bfloat16.
    Scores are computed in float32 either way."""
    compiled: bool | None = None
    """Compile the train step (torch.compile, XLA); the fastest on this device if not given."""
    devices: int = 1
    """Devices that share each batch, on JAX; on PyTorch start a process for each with torchrun."""
    workers: int = 0
    """Processes that prepare batches; 0 prepares them in the training process."""
    steps: int | None = None
    """Train steps an epoch (and one epoch, unless --epochs is given). Marked in metrics.json."""


@dataclasses.dataclass
class Output:
    out: str | None = None
    """Run folder; runs/SYSTEM-DATA if not given."""
    resume: bool = False
    """Go on from the last finished epoch in --out."""
    overwrite: bool = False
    """Throw away the run that is in --out."""


@dataclasses.dataclass
class Nothing:
    """Options of a recipe that has none of its own."""


GROUPS = {"model": Model, "training": Training, "data": Data, "output": Output}


@functools.cache
def options_class(own):
    """A recipe's own options and the shared ones, in one flat dataclass."""
    return dataclasses.make_dataclass("Options", (), bases=(own, *GROUPS.values()))


def defaults(own, preset="tiny"):
    """A recipe's options as its preset has them."""
    shared = STRONG if preset == "strong" else {}
    mine = getattr(own, "PRESETS", {}).get(preset, {})
    return options_class(own)(**{**shared, **mine, "preset": preset})


def parsed(own, arguments=None, **about):
    """Reads a recipe's command line; what it leaves open is as its preset has it."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    after = [value for word, value in itertools.pairwise(words) if word == "--preset"]
    joined = [word.removeprefix("--preset=") for word in words if word.startswith("--preset=")]
    preset = (after + joined or ["tiny"])[-1]
    if preset not in ("tiny", "strong", "paper"):
        preset = "tiny"  # the parser refuses it, and says what there is
    base = dataclasses.asdict(defaults(own, preset))
    groups = {"system": own, **GROUPS}
    # The parser shows a group for each nested dataclass.
    nested = dataclasses.make_dataclass(
        "Groups",
        [(n, Annotated[explained(kind), tyro.conf.OmitArgPrefixes]) for n, kind in groups.items()],
    )
    default = nested(
        **{
            name: explained(kind)(**{f.name: base[f.name] for f in dataclasses.fields(kind)})
            for name, kind in groups.items()
        }
    )
    read = _read(nested, args=words, default=default, **about)
    flat = {k: v for name in groups for k, v in vars(getattr(read, name)).items()}
    return options_class(own)(**flat)


def one_line(kind, **about):
    """Reads the command line of a dataclass `kind`; what is wrong with it is said in one line.

    Raises:
        InputError: instead of the parser's box and exit.
    """
    return kind(**vars(_read(explained(kind), **about)))


@functools.cache
def explained(kind):
    """A dataclass of options with its docstrings as help, in whole paragraphs.

    The parser reads them itself, and would break a line where the source does.
    """
    docs = docstring_parser.parse_from_object(kind).params
    help_of = {doc.arg_name: " ".join((doc.description or "").split()) for doc in docs}
    fields = []
    for field in dataclasses.fields(kind):
        told = tyro.conf.arg(help=help_of.get(field.name), metavar=_named(field))
        told = Annotated[field.type, told]
        again = {"default": field.default, "default_factory": field.default_factory}
        given = {k: v for k, v in again.items() if v is not dataclasses.MISSING}
        fields.append((field.name, told, dataclasses.field(**given)))
    return dataclasses.make_dataclass("Options", fields)


def _named(field):
    """What a word without an option is called: by its field, rather than STR."""
    if tyro.conf.Positional not in getattr(field.type, "__metadata__", ()):
        return None
    (kind, *_) = get_args(field.type)
    if get_origin(kind) is Literal:  # its choices say it
        return None
    name = field.name.upper().replace("_", "-") + " ..." * (get_origin(kind) is tuple)
    return name if field.default is dataclasses.MISSING else f"[{name}]"


def _read(kind, **about):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, **about)
    except SystemExit as left:
        if not left.code:
            raise  # --help
        raise InputError(f"{_told(said.getvalue())}; --help tells more") from None


def _told(said):
    """What the parser found wrong, without its box and with fewer of Python's words."""
    boxed = "│" in said  # else the output takes no UTF-8, and a title and a rule come first
    said = re.sub(r"\x1b\[[0-9;]*m|^[╭╰].*$|│", "", said, flags=re.MULTILINE)
    parts = re.split(r"─{9,}" if boxed else r"^ *-{9,}", said, flags=re.MULTILINE)
    found, *more = (" ".join(part.split()) for part in parts[not boxed :])
    found = found.split(" Got errors:")[0].replace(" (required)", "").rstrip(".")
    help_text = " ".join(more[:1])
    wrong = re.fullmatch(r"Error parsing (\S+): .*?(\[?'.*'\]?)", found)
    if wrong and (kind := re.search("INT|FLOAT", help_text)):
        number = "whole number" if kind[0] == "INT" else "number"
        name, given = wrong[1], wrong[2].strip("[]")
        if f"{kind[0]} {kind[0]}" in help_text:
            return f"{name} is {given}: give two {number}s"
        if "..." in help_text:
            return f"{name} is {given}: give {number}s; what is no {number} goes before {name}"
        return f"{name} is {given}: give a {number}"
    meant = re.match(r"Perhaps .*?(--[\w-]+)", help_text)
    return f"{found}; perhaps {meant[1]}" if meant else found


def strength_of(options):
    """How much a camera adds to images, by options that have `degradation` and `strength`.

    Args:
        options: of a recipe or a command.

    Returns:
        Float in [0, 1]; 0 for plain shrinking.

    Raises:
        InputError: another strength, or one that nothing would come of.
    """
    check_strength(options.strength)
    if options.degradation == "camera":
        return options.strength
    if options.strength != Data.strength:
        raise InputError("--degradation plain adds nothing: leave out --strength")
    return 0.0


def plain(options):
    """Options as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


def flag(name, value=None):
    """An option as it is typed."""
    return f"--{'no-' * (value is False)}{name.replace('_', '-')}"


def changed(options, *names):
    """Those of some options that have not their default, as they are typed."""
    default = {field.name: field.default for field in dataclasses.fields(options)}
    return [flag(name) for name in names if getattr(options, name) != default[name]]


def unused(options, where, reason, *names):
    """Refuses options that nothing would come of.

    Args:
        options: the recipe's.
        where: bool, whether they are of no use.
        reason: str, why.
        *names: the options; those that have their default are no matter.
    """
    default = defaults(type(options).__bases__[0], options.preset)
    told = [
        flag(name, getattr(options, name))
        for name in names
        if where and getattr(options, name) != getattr(default, name)
    ]
    if told:
        raise InputError(f"{reason}: leave out {' and '.join(told)}")
