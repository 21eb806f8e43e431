"""The page on which a gallery is searched: what it answers, what it refuses, and in a browser."""

import asyncio
import base64
import json
import re
import shutil
import socket
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import small
from PIL import Image

import keras_xreid as xr
from keras_xreid.app import demo

NAMES = [f"{i}<i>.png" for i in range(6)]  # a name is text, and no part of the page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images, of two cameras, and when they were taken."""
    folder = tmp_path_factory.mktemp("demo")
    rows = ["path,camera,time"]
    for i, name in enumerate(NAMES):
        pixels = np.random.default_rng(i).integers(0, 255, (*small.SIZE, 3), "uint8")
        Image.fromarray(pixels).save(folder / name)
        rows.append(f"{name},{i % 2 + 1},{10 * i}")
    (folder / "people.csv").write_text("\n".join(rows))
    return folder


def options(folder, tmp_path, **others):
    return demo.Options(str(folder / "people.csv"), cache=str(tmp_path / "cache"), **others)


@pytest.fixture(scope="module")
def desk(folder, tmp_path_factory):
    """Of a folder of images and a super-resolution system."""
    model, cache = small.shared(small.intact), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(demo, "weights_sha256", lambda *_: "0" * 64)
        with demo.opened(options(folder, cache), model) as gallery:
            yield demo.Desk(model, gallery, max_mb=0.1)


def content(folder, i=3):
    return (folder / NAMES[i]).read_bytes()


def sent(data):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def keys(found):
    return [one["key"].rpartition("/")[2] for one in found["ranked"]]


def wrong(page):
    """The one line of a page on which something is wrong."""
    (line,) = re.findall(r'^<p class="wrong" role="alert">([^<\n]+)</p>$', page)
    return line


def test_what_a_search_finds(desk, folder):
    found = desk.find(content(folder), "1", top=4)
    assert len(found["ranked"]) == 4 and found["images"] == 6 and found["size"] == small.SIZE
    first = found["ranked"][0]
    assert first["key"] == str(folder / NAMES[3]) and first["distance"] < 1e-5
    assert (first["camera"], first["time"]) == ("2", 30.0)
    assert found["recovered"] is None  # of high resolution
    np.testing.assert_array_equal(found["upscaled"], np.asarray(Image.open(folder / NAMES[3])))
    for rate, told in (("4", 4.0), ("unknown", None)):
        found = desk.find(content(folder), rate)
        assert found["rate"] == told and not found["estimated"]
        wanted = desk.model.recover(found["upscaled"][None])[0]
        np.testing.assert_allclose(found["recovered"], wanted, atol=1e-6)
        feature = desk.model.embed(found["upscaled"][None], told)
        assert [desk.gallery.search(feature, told, 10).keys[0][0]] == [found["ranked"][0]["key"]]
    found = desk.find(content(folder), "estimate")
    pixels = np.asarray(Image.open(folder / NAMES[3]))
    assert found["estimated"] and found["rate"] == xr.estimate_rate([pixels])[0]


def test_filters(desk, folder):
    assert desk.cameras == ["1", "2"] and desk.time == [0.0, 50.0]
    assert set(keys(desk.find(content(folder), "1", ["1"]))) == {NAMES[0], NAMES[2], NAMES[4]}
    assert set(keys(desk.find(content(folder), "1", [], 30, None))) == set(NAMES[3:])
    assert keys(desk.find(content(folder), "1", ["2"], 20, 40)) == [NAMES[3]]
    page = desk.answer(sent(content(folder)), "1", ["2"], "41", " 42 ", 10)
    assert "No image of these cameras and times" in page and "<li>" not in page
    for cameras, first in ((["2"], ""), ([], "20")):
        page = desk.answer(sent(content(folder)), "1", cameras, first, "", 10)
        assert "The nearest of these cameras and times" in page and "6 images" not in page


def test_the_page_shows_it(desk, folder):
    page = desk.answer(sent(content(folder)), "4", [], "", "", 3)
    assert page.count("<li>") == 3 and page.count("data:image/jpeg;base64,") == 5
    assert all(words in page for words in ("upscaled", "recovered", "rate 4", "of 6 images"))
    assert "<i>" not in page and "3&lt;i&gt;.png" in page
    assert re.search(r"<b>1</b> [\d.e-]+<br>camera \d, \d+&nbsp;s<br>", page)
    assert "6 images" in desk.answer(None, "4", [], "", "", 3)  # there is no image yet
    late = {"key": "none.png", "distance": 0.5, "camera": "", "time": 1764422400.5,
            "sha256": "0" * 64}  # fmt: skip
    assert "1764422400.5&nbsp;s" in demo.cell(1, late)
    (folder / NAMES[3]).rename(folder / "away")
    try:
        grey = demo.figure(np.full((128, 64, 3), 128, "uint8"), "", "").split('"')[1]
        image = sent((folder / "away").read_bytes())
        for _ in range(2):
            page = desk.answer(image, "4", [], "", "", 3)
            assert page.count("<li>") == 3 and page.count(grey) == 1
            shutil.copy(folder / NAMES[2], folder / NAMES[3])  # another image has its name now
    finally:
        (folder / "away").replace(folder / NAMES[3])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image": sent(b"no image")}, "no image that can be read"),
        ({"image": sent(b"")}, "empty"),
        ({"image": "data:image/png;base64,####"}, "sent no image"),
        ({"image": {"path": "/etc/passwd"}}, "sent no image"),
        ({"image": "x" * 200_000}, "0.1 MB: images of up to 0.1 MB"),
        ({"rate": "0.5"}, "rate is '0.5'"),
        ({"cameras": ["9"]}, "no camera 9 in the gallery: it has 1, 2"),  # and not where it lies
        ({"first": "noon"}, "'noon' is no time"),
        ({"first": [1]}, "'[1]' is no time"),
        ({"first": "9", "last": "1"}, "no second lies from 9 to 1"),
        ({"top": 1000}, "length of the list"),
    ],
)
def test_bad_input_is_one_line(desk, folder, change, words):
    asked = {"image": sent(content(folder)), "rate": "1", "cameras": [], "first": "", "last": "",
             "top": 3}  # fmt: skip
    assert words in wrong(desk.answer(**{**asked, **change}).replace("&#x27;", "'"))


def test_a_broken_image_and_a_fault_are_one_line(desk, folder, monkeypatch, capsys):
    page = desk.answer(sent(content(folder)[:900]), "1", [], "", "", 3)
    assert "this file is broken" in wrong(page) and "give another" in page
    monkeypatch.setattr(desk, "find", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in wrong(desk.answer(sent(b"x"), "1", [], "", "", 3))
    assert "Traceback" not in capsys.readouterr().err


def test_other_galleries(folder, tmp_path, desk, monkeypatch):
    """One on disk; of another model, or with statistics of its cameras, it is refused."""
    model, place = desk.model, tmp_path / "gallery"
    feature = model.embed(np.zeros((1, *model.image_size, 3), "uint8"), 1)
    with xr.Gallery.create(place, model) as gallery:
        gallery.add(feature, ["a.png"])
    with demo.opened(demo.Options(str(place)), model) as gallery:
        kept = demo.Desk(model, gallery)
        assert (kept.cameras, kept.time) == ([], None)
        assert "a.png" in kept.answer(sent(content(folder)), "1", [], "", "", 3)  # grey
        with xr.Gallery.open(place, write=True) as other:
            other.add(feature, ["later.png"])
        assert keys(kept.find(content(folder), "1")) == ["a.png", "later.png"]
        with xr.Gallery.open(place, write=True) as other:
            other.add(feature, ["b.png"], camera="1", statistics={"1": "adapted"})
        for _ in range(2):
            with pytest.raises(xr.InputError, match="other statistics of camera 1"):
                kept.find(content(folder), "1")
    with (
        pytest.raises(xr.InputError, match="another model"),
        demo.opened(demo.Options(str(place)), small.shared(small.baseline)),
    ):
        pass
    with (
        pytest.raises(xr.InputError, match="other statistics of camera 1"),
        demo.opened(demo.Options(str(place)), model),
    ):
        pass
    with (
        pytest.raises(xr.InputError, match="holds its embeddings itself: leave out --cache"),
        demo.opened(demo.Options(str(place), cache=str(tmp_path)), model),
    ):
        pass
    monkeypatch.setattr(demo, "embed_once", lambda *_: pytest.fail("embedded"))
    with (
        pytest.raises(xr.InputError, match="OnePerRate embeds the gallery anew"),
        demo.opened(options(folder, tmp_path), small.shared(small.one_per_rate)),
    ):
        pass
    with (
        pytest.raises(xr.InputError, match="no images at"),
        demo.opened(demo.Options(str(tmp_path / "none")), model),
    ):
        pass


def test_without_gradio(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(xr.InputError, match=r'pip install -e "\.\[demo\]"'):
        demo.main(options(folder, tmp_path))
    for name, value in (("max_mb", 0), ("max_mb", "x"), ("port", 0), ("port", 70000)):
        with pytest.raises(xr.InputError, match=f"--{name.replace('_', '-')} is {value}"):
            demo.main(options(folder, tmp_path, **{name: value}))


def test_the_door():
    """What is too large, or would be written to a disk, is refused before it is read."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"in"})

    def answer(method="POST", path="/gradio_api/queue/join", length=b"100"):
        said = []

        async def send(message):
            said.append(message)

        headers = [] if length is None else [(b"content-length", length)]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        asyncio.run(demo.Door(app, max_mb=10)(scope, None, send))
        head, body = said
        assert dict(head["headers"])[b"content-security-policy"].startswith(b"default-src 'self'")
        assert body["body"] == b"in" or body["body"].count(b"\n") == 1
        return head["status"]

    assert answer() == answer(length=b"13400000") == answer("GET", "/", None) == 200
    assert answer(length=b"66700000") == answer(length=b"13500000") == 413
    assert answer(length=None) == answer(length=b"-1") == 411
    assert answer(path="/gradio_api/upload") == answer(path="/gradio_api/upload/") == 403


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def page(desk, tmp_path, monkeypatch):
    """The server's address, and the folder in which Gradio would keep uploads."""
    pytest.importorskip("gradio", reason='needs pip install -e ".[demo]"')
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    port = free_port()
    blocks = demo.served(desk, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}", tmp_path / "kept"
    blocks.close(verbose=False)


def asked(address, data=None, **headers):
    """Status and text of a request."""
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(address, data and json.dumps(data).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_server(page, desk, folder):
    """It answers a search, keeps no file, and is reached at 127.0.0.1 alone."""
    address, kept = page
    status, text = asked(f"{address}/")
    assert status == 200 and "googleapis" not in text and '"run_history":false' in text
    assert asked(f"{address}/", Host="evil.example")[0] == 400
    status, text = asked(
        f"{address}/gradio_api/call/search", {"data": [sent(content(folder)), "1", [], "", "", 3]}
    )
    status, text = asked(f"{address}/gradio_api/call/search/{json.loads(text)['event_id']}")
    assert status == 200 and "3&lt;i&gt;.png" in text and text.count("<li>") == 3
    assert asked(f"{address}/gradio_api/upload", {})[0] == 403
    assert not [path for path in kept.rglob("*") if path.is_file()]
    port = int(address.rpartition(":")[2])
    with pytest.raises(xr.InputError, match=f"cannot listen at 127.0.0.1, port {port}"):
        demo.served(desk, "127.0.0.1", port)
    for *_, (here, *_) in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET):
        if not here.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((here, port), timeout=5)


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 f"--user-data-dir={tmp_path / 'browser'}"):  # fmt: skip
        options.add_argument(flag)
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


# How far right anything reaches.
WIDTH = """
const all = [...document.querySelectorAll("#image *, #found *, label, input, textarea")];
const rights = all.map((one) => one.getBoundingClientRect().right);
return Math.max(document.documentElement.scrollWidth, ...rights);
"""
# Drops an image beside the frame.
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt(0));
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
const event = new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer});
document.querySelector("#found").dispatchEvent(event);
"""


@pytest.mark.slow
def test_in_a_browser(page, browser, folder, tmp_path):
    """On a telephone's screen: searches, by keys too, a filter, a broken file, and one of 50 MB."""
    from selenium.webdriver import Keys

    address, kept = page
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(address)

    def seen(selector, count=1):
        """The elements of a selector, when there are so many."""
        for _ in range(300):
            found = browser.find_elements("css selector", selector)
            if len(found) == count:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{len(found)} of {selector}, not {count}")

    def choose(name, data):
        (tmp_path / name).write_bytes(data)
        seen("#image input")[0].send_keys(str(tmp_path / name))

    seen("#image input")
    seen("input[type=radio][value='1']")[0].click()  # the rate
    choose("query.png", content(folder))
    assert "3<i>.png" in seen("#found li", 6)[0].text
    images = seen("#found img", 7)
    assert all(one.get_property("naturalWidth") for one in images)
    seen("input[type=radio][value='4']")[0].send_keys(" ")
    seen("#found img", 8)  # and a recovered one
    assert browser.execute_script(WIDTH) <= 390  # nothing to scroll sideways, and nothing cut
    length = seen("input[type=range]")[0]
    length.send_keys(Keys.HOME)
    seen("#found li", 1)
    length.send_keys(Keys.END)
    first = seen("[placeholder='0']")[0]
    first.send_keys("30\n")
    seen("#found li", 3)
    first.send_keys(Keys.CONTROL + "a")
    first.send_keys(Keys.DELETE + "\n")
    seen("#found li", 6)
    choose("broken.png", content(folder)[:900])
    assert "this file is broken" in seen("#found .wrong")[0].text
    choose("large.png", b"0" * 50_000_000)
    assert seen("#image .wrong")[0].text == (
        "large.png has 50.0 MB: images of up to 0.1 MB are taken"
    )
    seen("#found .wrong", 0)
    browser.execute_script(DROP, base64.b64encode(content(folder)).decode())
    seen("#found li", 6)
    assert not browser.get_log("browser")
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert all(name.startswith((address, "data:")) for name in browser.execute_script(loaded))
    assert not [path for path in kept.rglob("*") if path.is_file()]
