"""MkDocs hooks: where a public name of the package lives, and numbers that do not break.

API pages write `::: keras_xreid.INTACT`. The package imports its names when they are used, which a
reader of source text cannot see; so the name is looked up in the table of `__init__.py`.
"""

import ast
import re
from pathlib import Path

INIT = Path(__file__).parents[1] / "keras_xreid" / "__init__.py"


def places():
    """{public name: module in the package}, from the table in `keras_xreid/__init__.py`."""
    for node in ast.parse(INIT.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_PLACES":
            return ast.literal_eval(node.value)
    raise ValueError(f"{INIT} has no table _PLACES")


def on_page_markdown(markdown, **_):
    known = places()

    def found(match):
        name = match[1]
        module = known[name]
        # A public name may be a module, as `datasets` is.
        own = module.split(".")[-1] == name
        return f"::: keras_xreid.{module}" if own else f"::: keras_xreid.{module}.{name}"

    markdown = re.sub(r"^::: keras_xreid\.(\w+)$", found, markdown, flags=re.MULTILINE)
    return "\n".join(map(unbroken, markdown.split("\n")))


def unbroken(line):
    """A row of a table, with 61.2 ± 2.4, + 60,000, 3.5 M, 25.7 * and r = 1 on one line each."""
    if not line.startswith("| "):
        return line
    line = re.sub(r"(?<=\d) (?=±|M |MB |min |\*)|(?<=[±+]) (?=\d)", "\u00a0", line)
    return re.sub(r"\br = (?=\d)", "r\u00a0=\u00a0", line)
