"""A Markdown page as one HTML file."""

import base64
from html.parser import HTMLParser

import pytest
from PIL import Image

import keras_xreid as xr

pytest.importorskip("markdown_it", reason='pages need pip install -e ".[recipes]"')

from keras_xreid.report.page import write_page

TEXT = """# Runs & people

In percent. <script>alert(1)</script>

| row | rank-1 |
| :-- | --: |
| MSE+ID | 83.7 ± 2.0 |

![A picture](figures/a%20b.png)
*Drawn people.*
"""


class Elements(HTMLParser):
    """Counts elements, collects sources, and checks that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "hr", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_one_file_with_everything_in_it(tmp_path):
    (tmp_path / "figures").mkdir()
    picture = tmp_path / "figures" / "a b.png"
    Image.new("RGB", (2, 2), "red").save(picture)
    path = write_page(tmp_path / "report.html", TEXT)
    text = path.read_text(encoding="utf-8")
    page = Elements()
    page.feed(text)
    assert page.open == [] and page.seen.count("table") == 1 and "script" not in page.seen
    content = base64.b64encode(picture.read_bytes()).decode()
    assert page.sources == [f"data:image/png;base64,{content}"]
    assert "<title>Runs &amp; people</title>" in text and "83.7 ± 2.0" in text
    assert 'name="viewport"' in text
    assert {p.name for p in tmp_path.iterdir()} == {"figures", "report.html"}


def test_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(xr.InputError, match=r"a b\.png, which cannot be read"):
        write_page(tmp_path / "report.html", TEXT)
    with pytest.raises(xr.InputError, match="which cannot be read"):
        write_page(tmp_path / "report.html", "![a byte of 0](%00.png)")
    assert not (tmp_path / "report.html").exists()
