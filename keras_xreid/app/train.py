"""`xreid train SYSTEM`: the training recipes, as `python recipes/SYSTEM.py` runs them."""

import sys

from keras_xreid import app
from keras_xreid.app import recipes


def cli():
    """Runs the recipe that the command line names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: xreid train SYSTEM [options]        xreid train SYSTEM --help\n")
        for known in recipes.names():
            first = recipes.load(known).__doc__.splitlines()[0]
            print(f"  {known:<14}{first}")
        return
    try:
        recipe = recipes.load(name)
    except app.InputError as error:
        app.leave(error)
    sys.argv = [f"xreid train {name}", *arguments]
    app.main(recipe.main, recipe.Options, recipe.__doc__)
