"""The one exception that means: the input is at fault, not the program."""

import operator


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


def check_number(what, value, least=1, most=2**63 - 1, whole=True):
    """Refuses what is no number, or not within limits.

    Args:
        what: its name, for the message.
        value: the number, of any type.
        least: the smallest that is right.
        most: the largest.
        whole: whether it has to be a whole one.

    Raises:
        InputError: it is something else.
    """
    try:
        right = least <= value <= most  # of NaN this is False
        if whole:
            operator.index(value)
    except (TypeError, ValueError):
        right = False
    if not right:
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{what} is {str(value)[:80]}: give {least} or more, {kind} to {most:,}")
