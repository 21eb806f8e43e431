"""The exceptions that do not mean a fault of the program: above all, the input is at fault."""

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


class LostProcess(RuntimeError):
    """Another process that trains together with this one has ended."""


def check_number(what, value, least=1, most=None, whole=True):
    """Refuses what is no number, or not within limits.

    Args:
        what: its name, for the message.
        value: the number, of any type.
        least: the smallest that is right, or None.
        most: the largest, or None.
        whole: whether it has to be a whole one.

    Raises:
        InputError: it is something else.
    """
    try:
        low = value if least is None else least
        right = low <= value <= (value if most is None else most)  # of NaN this is False
        if whole:
            operator.index(value)
    except (TypeError, ValueError):
        right = False
    if not right:
        limits = [] if least is None else [f"{least} or more"]
        limits.append("a whole number" if whole else "a number")
        end = "" if most is None else f" up to {most:,}"
        raise InputError(f"{what} is {str(value)[:80]}: give {', '.join(limits)}{end}")
