"""A Markdown page with its images as one HTML file that can be sent to somebody."""

import base64
import html
import re
import urllib.parse
from pathlib import Path

from keras_xreid.errors import InputError
from keras_xreid.files import write_text_atomic

STYLE = Path(__file__).with_name("page.css")


def write_page(path, text, folder=None):
    """Writes Markdown as one HTML page, with the images inside.

    Wide tables scroll on a narrow screen. The page loads nothing from anywhere.

    Args:
        path: the `.html` file to write.
        text: Markdown.
        folder: where its PNGs are found; the page's own folder if not given.

    Returns:
        `path`.

    Raises:
        InputError: markdown-it-py is not installed; an image is not there, or outside the folder.

    Example:

    >>> write_page("run/report.html", Path("run/report.md").read_text())
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise InputError(
            'HTML pages need markdown-it-py, which is not installed: pip install -e ".[recipes]"'
        ) from error
    folder = Path(folder or Path(path).parent)
    title = re.search(r"^#+ (.+)$", text, re.MULTILINE)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<div class="wide"><table>')
    body = body.replace("</table>", "</table></div>")

    def inside(match):
        name = urllib.parse.unquote(html.unescape(match[1]))
        image = folder / name
        # What a run says of itself may come from a stranger: names lead nowhere else.
        try:
            here = image.resolve().is_relative_to(folder.resolve()) and image.suffix == ".png"
            content = base64.b64encode(image.read_bytes()).decode() if here else None
        except (OSError, ValueError) as error:  # a name may hold a byte of 0
            raise InputError(f"{path} shows {image}, which cannot be read") from error
        if content is None:
            raise InputError(f"{path} shows {name}, which is no PNG in {folder}: not taken")
        return f'<img src="data:image/png;base64,{content}"'

    body = re.sub(r'<img src="([^"]*)"', inside, body)
    name = html.escape(title[1] if title else Path(path).stem)
    write_text_atomic(
        path,
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
    )
    return path
