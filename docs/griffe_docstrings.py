"""Griffe extension: this package's docstrings, as the API pages want them.

Lines that begin with `>>>` become a block of code. What a function returns becomes a paragraph: as
a section its text up to a colon would be taken for a type.
"""

import re
import textwrap

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n *\S.*)*", re.MULTILINE)
RETURNS = re.compile(r"^Returns:\n((?:(?: +\S.*)?(?:\n|$))+)", re.MULTILINE)


def fenced(text):
    """Puts each example, up to the next empty line, between fences."""

    def block(match):
        indent = match[1]
        return f"{indent}```pycon\n{match[0]}\n{indent}```"

    return EXAMPLE.sub(block, text)


def returned(text):
    """Makes the section "Returns" a paragraph."""
    return RETURNS.sub(lambda m: f"**Returns:**\n\n{textwrap.dedent(m[1]).strip()}\n\n", text)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = fenced(returned(obj.docstring.value))
