"""The command `xreid`: one verb a job. A verb's module is imported when it is called."""

import importlib
import sys

import keras_xreid
from keras_xreid import app

# What each verb does, in one line; its module is keras_xreid.app.VERB.
VERBS = {
    "train": "train a system; `xreid train` lists them",
    "evaluate": "score published or own weights on a data set",
    "search": "search a gallery of your own images",
    "gallery": "keep a gallery on disk: add, remove, info, verify, compact",
    "demo": "search a gallery in the browser, on this machine alone",
    "embed": "turn images into feature vectors: one file, or Parquet parts",
    "pan": "move embeddings of low-resolution queries to their high-resolution place",
    "adapt": "fit a network to your own cameras, from images without labels",
    "export": "write a system as one ONNX graph",
    "compare": "put runs side by side, with paired intervals",
    "tables": "run and print the tables of the papers",
    "build": "write a multiple-low-resolution data set with its manifest, or check one",
    "publish": "turn a finished run into published weights with a card",
    "convert": "convert torchreid's OSNet weights",
    "weights": "list the published weights",
}


def usage():
    """What `xreid --help` prints."""
    lines = [f"  {verb:<10}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            f"keras_xreid {keras_xreid.__version__}: find a person seen at low resolution.",
            "",
            "usage: xreid VERB [options]        xreid VERB --help",
            "",
            *lines,
            "",
            "First steps:  xreid train intact                        (built-in people, 10 minutes)",
            "              xreid search --gallery FOLDER query.jpg   (your own images)",
            "",
            "KERAS_BACKEND=torch, tensorflow or jax chooses the backend; --debug shows tracebacks.",
        ]
    )


def run(verb, arguments=None):
    """Runs a verb; `arguments` are those of the command line if None."""
    if arguments is None:
        arguments = sys.argv[1:]
    sys.argv = [f"xreid {verb}", *arguments]
    importlib.import_module(f"keras_xreid.app.{verb}").cli()


def main():
    """Runs the command line."""
    with app.guard():
        _main()


def _main():
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(usage())
    elif verb in ("-V", "--version"):
        print(keras_xreid.__version__)
    elif verb not in VERBS:
        sys.argv[0] = "xreid"
        app.leave(f"unknown verb {verb!r}: give one of {', '.join(VERBS)}")
    else:
        run(verb, arguments)
