"""Who counts as whom, decided once: -1 is nobody, 0 is nobody where nobody looks for it.

-1 marks junk, an image that no score counts, in every data set and as text too. 0 marks
distractors in the layouts of Market-1501 and DukeMTMC-reID, whose readers give the number 0: people
who are searched and never looked for. Elsewhere it is a person like any other, for users number
their people from 0.
"""

import logging
import re

from keras_xreid.errors import InputError

DISTRACTOR = 0


def is_junk(person):
    """Whether a person is -1: as a number, or as text, "-1.0" too, as spreadsheets write it."""
    if isinstance(person, str):
        return re.fullmatch(r"-0*1(\.0*)?", person) is not None
    return person == -1


def nobody(query):
    """Gives the test of who is no person to be found: junk, and distractors.

    Args:
        query: list of `Record`; where they show a person 0, that is no distractor.

    Returns:
        A function from a person to bool.
    """
    sought = any(record.person == DISTRACTOR for record in query)
    return lambda person: is_junk(person) or (not sought and person == DISTRACTOR)


def people_in(records):
    """Lists people in order; images without a person are passed over.

    Args:
        records: list of `Record`.

    Returns:
        Sorted list.

    Raises:
        InputError: some people are numbers and some are text, which have no order.
    """
    people = {record.person for record in records} - {None}
    try:
        return sorted(people)
    except TypeError as error:
        text = next(person for person in people if isinstance(person, str))
        number = next(person for person in people if not isinstance(person, str))
        raise InputError(
            f"person {text!r} is text and person {number!r} is a number: give all people as text, "
            "or all as numbers"
        ) from error


def note_both(name, train, test):
    """Warns of people who are trained on and to be found: their scores flatter.

    Args:
        name: of the data set.
        train: dict from a person to where one is listed: "line 3", or an image.
        test: the same of those to be found.
    """
    both = [person for person in train if person in test and person != DISTRACTOR]
    if both:
        first = both[0]
        logging.getLogger("keras_xreid").warning(
            f"{name}, {test[first]}: {first} is to be found, and trained on in {train[first]}; of "
            f"such people there are {len(both):,}, and their scores say nothing of people never "
            "seen"
        )


def note_zero(name, records, left_out=0):
    """Says in one line how a person numbered 0 was counted, if there is one.

    Args:
        name: of the data set.
        records: list of `Record`, all that are kept.
        left_out: how many images of person 0 were not.
    """
    found = [record for record in records if re.fullmatch("0+", str(record.person))]
    if not found and not left_out:
        return
    if found and found[0].person != DISTRACTOR:
        counted = "counts as a person like any other"
    else:
        counted = "is a distractor in this layout, searched and never looked for"
    others = f", {left_out:,} others to train on or to look for are left out" if left_out else ""
    logging.getLogger("keras_xreid").warning(
        f"{name}: person 0 {counted} ({len(found):,} images{others})"
    )
