"""Moves embeddings of LR images to where those of their HR images lie; of any network.

    xreid pan --hr hr.npz --lr r2.npz r3.npz r4.npz --out panning.weights.h5     (learn)
    xreid pan --move queries.npz --panning panning.weights.h5 --out moved.npz    (use)

The .npz files are those of `xreid embed`, or your own: `features` (n, d), `paths` (n,), which say
what shows the same image, and `rates`, one or (n,). `xreid embed --shrink` makes LR ones. The
gallery stays as it is. Cosines are compared, before and after.
"""

import dataclasses
import io
from pathlib import Path

import numpy as np

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app.settings import changed
from keras_xreid.errors import check_number

keras = app.later("keras")

LEARNING = ("hr", "lr", "epochs", "hidden", "learning_rate", "seed")


@dataclasses.dataclass
class Options:
    out: str
    """The file to write: NAME.weights.h5 to learn, NAME.npz to use."""
    hr: str | None = None
    """Embeddings of HR images to learn from."""
    lr: tuple[str, ...] = ()
    """Embeddings of the same images, shrunk; a file for each rate, or one for all."""
    move: str | None = None
    """Embeddings of queries to move."""
    panning: str | None = None
    """What was learnt, NAME.weights.h5."""
    rates: float | None = None
    """Down-sampling rate of all queries of --move, whatever their file says."""
    epochs: int = 120
    """Epochs over all LR embeddings."""
    hidden: int = 512
    """Units of the hidden layer."""
    learning_rate: float = 2e-4
    """Of Adam."""
    seed: int = 0
    """One seed repeats the training exactly on one backend."""
    overwrite: bool = False
    """Replace the file, if it is there."""


def main(o):
    learns, out = o.move is None, Path(o.out)
    if learns and not (o.hr and o.lr):
        raise xr.InputError("give --hr FILE and --lr FILES to learn, or --move FILE to use")
    if not learns and not o.panning:
        raise xr.InputError("--move needs --panning NAME.weights.h5, which --hr and --lr make")
    useless = changed(o, *(("panning", "rates") if learns else LEARNING))
    if useless:
        when = "with" if learns else "without"
        raise xr.InputError(f"leave out {' and '.join(useless)}: of use {when} --move only")
    ending = ".weights.h5" if learns else ".npz"
    if not out.name.endswith(ending) or out.is_dir():
        raise xr.InputError(f"cannot write {out}: give a file ending in {ending}")
    if out.exists() and not o.overwrite:
        raise xr.InputError(f"{out} is there already: give another name, or --overwrite")
    check_number("--epochs", o.epochs)
    check_number("--hidden", o.hidden)
    check_number("--seed", o.seed, least=0, most=2**32 - 1)
    if not 0 < o.learning_rate < np.inf:
        raise xr.InputError(f"--learning-rate is {o.learning_rate:g}: give more than 0")
    (learn if learns else use)(o, out)


def learn(o, out):
    """Learns from embeddings, and prints how close LR and HR are before and after."""
    hr, lr = read(o.hr), [read(path) for path in o.lr]
    place = {path: row for row, path in enumerate(hr["paths"])}
    parts = []
    for path, part in zip(o.lr, lr, strict=True):
        models = {str(file["model"]) for file in (part, hr) if "model" in file}
        if len(models) > 1:
            raise xr.InputError(f"{path} and {o.hr} are of two models: embed both with one")
        if "rates" not in part:
            raise xr.InputError(f"{path} has no rates: add the down-sampling rate of each row")
        rows = [(row, place[name]) for row, name in enumerate(part["paths"]) if name in place]
        if not rows:
            raise xr.InputError(f"no path of {path} is in {o.hr}: they name images in another way")
        own, twins = map(list, zip(*rows, strict=True))
        low = part["rates"][own] > 1
        if part["features"].shape[1] != hr["features"].shape[1]:
            raise xr.InputError(f"{path} and {o.hr} are of unequal width: embed with one network")
        parts.append((part["features"][own][low], hr["features"][twins][low],
                      part["rates"][own][low]))  # fmt: skip
    feature, target, rate = map(np.concatenate, zip(*parts, strict=True))
    if not len(feature):
        raise xr.InputError("all of --lr is of rate 1: give embeddings of shrunk images")
    keras.utils.set_random_seed(o.seed)
    panning = xr.Panning(feature.shape[1], o.hidden)
    batches = xr.FeatureBatches(feature, target, rate, seed=o.seed)
    panning.compile({"mlp": keras.optimizers.Adam(o.learning_rate)})
    panning.fit(batches, epochs=o.epochs, verbose=2)
    xr.save(panning, out)
    moved = panning.move(feature, rate)
    print("rate  cosine to HR  moved")
    for one in np.unique(rate):
        rows = rate == one
        before, after = (cosine(x[rows], target[rows]) for x in (feature, moved))
        print(f"{one:4g}  {before:12.3f}  {after:5.3f}")
    print(f"{len(feature)} embeddings of {feature.shape[1]} numbers: {out}")


def use(o, out):
    """Moves embeddings of queries."""
    panning, queries = xr.load(o.panning, kinds=("Panning",)), read(o.move)
    rates = queries.get("rates") if o.rates is None else o.rates
    if rates is None:
        raise xr.InputError(f"{o.move} has no rates: give --rates")
    queries["features"] = panning.move(queries["features"], rates)
    queries["rates"] = np.broadcast_to(np.float32(rates), len(queries["features"]))
    content = io.BytesIO()
    np.savez(content, **queries)
    files.write_bytes_atomic(out, content.getvalue())
    print(f"{len(queries['features'])} embeddings: {out}")


def cosine(a, b):
    """Mean cosine between rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(lengths, 1e-12)))


def read(path):
    """The arrays of a file of embeddings; rates, where it has them, are one for each."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise xr.InputError(f"cannot read {path} as embeddings (.npz): {error}") from error
    except Exception as error:  # a damaged archive raises this and that
        raise xr.InputError(f"{path} is damaged: {error}") from error
    for name, axes in (("features", 2), ("paths", 1)):
        if name not in found or found[name].ndim != axes:
            raise xr.InputError(
                f"{path} has no {name} of {axes} axes: xreid embed writes such files"
            )
    count = len(found["features"])
    if found["features"].dtype.kind not in "iuf" or not np.isfinite(found["features"]).all():
        raise xr.InputError(f"{path} has features that are no finite numbers: embed again")
    if len(found["paths"]) != count:
        raise xr.InputError(f"{path} has {count} features and {len(found['paths'])} paths")
    if "rates" in found:
        if found["rates"].shape not in ((), (count,)) or found["rates"].dtype.kind not in "iuf":
            raise xr.InputError(f"{path} has rates of shape {found['rates'].shape}: give {count}")
        found["rates"] = np.broadcast_to(found["rates"], (count,)).astype("float32")
    return found


def cli():
    app.command(main, Options, __doc__)
