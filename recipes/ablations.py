"""The tables of the papers: another name of `xreid tables`."""

from keras_xreid.app.cli import run

if __name__ == "__main__":
    run("tables")
