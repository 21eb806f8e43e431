"""A Markdown page with its pictures as one HTML file that can be sent to somebody."""

import base64
import html
import re
import urllib.parse
from pathlib import Path

from keras_xreid.errors import InputError
from keras_xreid.files import write_text_atomic

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1.25rem 4rem; color: #1d1d1f;
  background: #fff; font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; border-bottom: 1px solid #ddd;
  padding-bottom: .25rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
th { border-bottom: 2px solid #bbb; white-space: nowrap; }
td:first-child { min-width: 9rem; }
td { overflow-wrap: anywhere; }
td[style*="right"] { white-space: nowrap; }
tr:hover td { background: #f6f8fa; }
img { max-width: 100%; height: auto; display: block; margin: 1.4rem 0 .3rem; }
img + em, p > em:only-child { color: #555; font-size: .9rem; }
code { font: .88em ui-monospace, Menlo, Consolas, monospace; background: #f4f4f5;
  padding: .1em .3em; border-radius: 3px; }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem; font-size: 15px; }
  th, td { padding: .25rem .45rem; } }
"""


def write_page(path, text, folder=None):
    """Writes Markdown as one HTML page, with the pictures inside.

    Wide tables scroll on a narrow screen. The page loads nothing from anywhere.

    Args:
        path: the `.html` file to write.
        text: Markdown.
        folder: where its PNGs are found; the page's own folder if not given.

    Returns:
        `path`.

    Raises:
        InputError: markdown-it-py is not installed, or a picture is not there.

    Example:

    >>> write_page("run/report.html", Path("run/report.md").read_text())
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise InputError(
            "HTML pages need markdown-it-py, which is not installed: "
            'pip install "keras-xreid[recipes]"'
        ) from error
    folder = Path(folder or Path(path).parent)
    title = re.search(r"^#+ (.+)$", text, re.MULTILINE)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<div class="wide"><table>')
    body = body.replace("</table>", "</table></div>")

    def inside(match):
        picture = folder / urllib.parse.unquote(html.unescape(match[1]))
        try:
            content = base64.b64encode(picture.read_bytes()).decode()
        except OSError as error:
            raise InputError(f"{path} shows {picture}, which cannot be read") from error
        return f'src="data:image/png;base64,{content}"'

    body = re.sub(r'src="([^":]+\.png)"', inside, body)
    name = html.escape(title[1] if title else Path(path).stem)
    write_text_atomic(
        path,
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
    )
    return path
