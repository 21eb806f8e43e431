"""The one exception that means: the input is at fault, not the program."""


class InputError(ValueError):
    """Something given from outside cannot be used; the message says what was found and what to do.

    Recipes print the message on one line and leave with exit status 2, without a traceback.

    Example:

    >>> raise InputError("rate 0.5 is below 1: give rates of 1 (high resolution) or more")
    """

    def __init__(self, message=""):
        # A file's name may hold a new line or what steers a terminal.
        text = str(message)
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
