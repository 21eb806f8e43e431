"""Griffe extension: lines of a docstring that begin with `>>>` become a block of code."""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n *\S.*)*", re.MULTILINE)


def fenced(text):
    """Puts each example, up to the next empty line, between fences."""

    def block(match):
        indent = match[1]
        return f"{indent}```pycon\n{match[0]}\n{indent}```"

    return EXAMPLE.sub(block, text)


class Examples(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
