"""Writes cli.md, the page of the command line, from `python -m keras_xreid VERB --help`.

    python docs/make_cli.py

It writes nothing and ends with status 1 where a verb does not answer.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from keras_xreid.app import cli, recipes

PAGE = Path(__file__).parent / "cli.md"
# Each verb, what it is for, and the words after it that have a help text of their own.
VERBS = {
    verb: (f"{what[0].upper()}{what[1:]}.", recipes.names() if verb == "train" else ())
    for verb, what in cli.VERBS.items()
}
HEAD = """# Command line

<!-- Written by docs/make_cli.py. Do not edit. -->

`xreid` and `python -m keras_xreid` are the same.
`KERAS_BACKEND` chooses `torch`, `tensorflow` or `jax`.
Without it, the first installed one is taken.
The exit status is 0 only when the job finished. It is 2, with one line, for bad input.
"""


def help_of(*words):
    """What a command prints for --help, in plain text of 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "keras_xreid", *words, "--help"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)}: status {ended.returncode}\n{ended.stderr}")
    text = re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout).replace(str(Path.home()), "~")
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def main():
    parts = [HEAD, f"```text\n{help_of()}\n```\n"]
    for verb, (summary, after) in VERBS.items():
        parts.append(f"## {verb}\n\n{summary}\n\n```text\n{help_of(verb)}\n```\n")
        for word in after:
            text = help_of(verb, word)
            parts.append(f"### {verb} {word}\n\n```text\n{text}\n```\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
