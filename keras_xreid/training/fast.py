"""Functions of Keras that faster ones stand for, in the versions of Keras that were tested."""

import importlib
import logging
import os

import keras

TESTED = ("3.15", "3.16")  # 3.16 as a nightly of 2026-10-27


def of_backend(name):
    """A module of Keras's backend, "nn" or "core". Keras 3.16 has them in a package `ops`."""
    backend = f"keras.src.backend.{keras.backend.backend()}"
    try:
        return importlib.import_module(f"{backend}.ops.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"{backend}.{name}")


class FastPath:
    """Faster functions in the place of Keras's, on one backend.

    Importing the package switches it on; the environment variable `KERAS_XREID_FAST_TORCH=0` (or
    `..._TENSORFLOW`, `..._JAX`) or `disable()` switches it off.

    Args:
        backend: name of the backend, as Keras has it.
        replacements: function without arguments that returns triples (owner, name, function) of
            what stands for what. It is called on this backend only, so it may import it.
        otherwise: end of the sentence on a Keras that was not tested.

    Example:

    >>> fast_torch.disable()    # plain Keras, to compare
    >>> fast_torch.enable()
    True
    """

    def __init__(self, backend, replacements, otherwise):
        self.backend, self.otherwise = backend, otherwise
        self._replacements, self._replaced = replacements, []
        if os.environ.get(f"KERAS_XREID_FAST_{backend.upper()}", "1") != "0":
            self.enable()

    def enabled(self):
        """Returns whether the fast path is on."""
        return bool(self._replaced)

    def enable(self):
        """Replaces the slow functions, on this backend and of a tested Keras.

        Returns:
            Whether the fast path is on.
        """
        if self.enabled() or keras.backend.backend() != self.backend:
            return self.enabled()
        if ".".join(keras.__version__.split(".")[:2]) not in TESTED:
            logging.getLogger("keras_xreid").warning(
                "Keras %s is not among those that the fast path on %s was tested with (%s): %s",
                keras.__version__, self.backend, ", ".join(TESTED), self.otherwise,
            )  # fmt: skip
            return False
        for owner, name, function in self._replacements():
            self._replaced.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, function)
        return True

    def disable(self):
        """Puts Keras's own functions back."""
        while self._replaced:
            owner, name, original = self._replaced.pop()
            if original is None:  # it was inherited
                delattr(owner, name)
            else:
                setattr(owner, name, original)
