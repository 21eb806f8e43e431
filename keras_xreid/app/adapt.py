"""Fits a network to your own cameras, from images without labels: statistics in one small file.

    xreid adapt FOLDER --weights NAME --out cameras.npz

FOLDER has a folder for each camera, or images with names such as 0001_c3.jpg; or give a CSV with
the columns path and camera. Images are of high resolution: lower rates are made of them. About 256
images of a camera are enough, whoever is on them. The file goes with these weights only. Hand it to
xreid search, evaluate and export as --adapted.

It is for cameras that the network was not trained on. On those that it was, nothing is gained.
"""

import dataclasses
import warnings
from pathlib import Path

import tyro

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app.index import cameras_of, own_images


@dataclasses.dataclass
class Options:
    source: tyro.conf.Positional[str]
    """Folder with a folder for each camera, folder of images whose names tell it, or a CSV."""
    out: str
    """The .npz file to write."""
    weights: str | None = None
    """Published name, .weights.h5 file or run folder; the best published weights if not given."""
    camera: str | None = None
    """The camera of all images, whatever names, folders and a CSV say."""
    rates: tuple[float, ...] = (1, 2, 3, 4, 8)
    """Down-sampling rates to measure at; others are interpolated."""
    most: int = 256
    """Look at so many images of a camera, drawn by --seed where it has more."""
    least: int = 32
    """A camera with fewer images keeps the published statistics."""
    seed: int = 0
    """Draws which images."""
    overwrite: bool = False
    """Replace the file, if it is there."""


def main(options):
    out = Path(options.out)
    if out.suffix != ".npz" or out.is_dir():
        raise xr.InputError(f"cannot write {out}: give a file ending in .npz")
    if out.exists() and not options.overwrite:
        raise xr.InputError(f"{out} is there already: give another name, or --overwrite")
    records = own_images(options.source)
    cameras = cameras_of(records, options.camera, options.source)
    model = xr.load(options.weights, precision="float32")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        found = model.adapt(
            records,
            cameras,
            options.rates,
            most=options.most,
            least=options.least,
            seed=options.seed,
        )
    for warning in told:
        if issubclass(warning.category, UserWarning):
            print(files.harmless(str(warning.message), name=True))
    if not found.values:
        raise xr.InputError("no camera has enough images: nothing is written")
    found.save(out)
    print(f"{len(found.values)} cameras, {out.stat().st_size / 1e6:.1f} MB: {out}")


def cli():
    app.command(main, Options, __doc__)
