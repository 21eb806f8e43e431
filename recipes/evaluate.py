"""Scores saved weights: another name of `xreid evaluate`."""

from keras_xreid.app.cli import run

if __name__ == "__main__":
    run("evaluate")
