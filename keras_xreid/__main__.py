"""`python -m keras_xreid` is the command `xreid`."""

from keras_xreid.app.cli import main

if __name__ == "__main__":
    main()
