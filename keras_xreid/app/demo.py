"""A page in the browser on which a gallery is searched: drop an image, see the ranked list.

    xreid demo --gallery GALLERY
    xreid demo --gallery FOLDER --weights NAME --port 8000

GALLERY is one of `xreid gallery`, which knows cameras and times, or what `xreid search` takes: a
folder of images or a CSV. The page shows the image upscaled, what a super-resolution system
recovers of it, and the nearest images of the gallery with distance, camera, time and name.

Only this machine reaches the page, at 127.0.0.1. An image that is dropped stays in memory, and
nothing is sent anywhere.
"""

import base64
import binascii
import contextlib
import dataclasses
import html
import importlib.util
import io
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.app.export import weights_sha256
from keras_xreid.app.gallery import is_gallery, times_of
from keras_xreid.app.index import cache_folder, embed_once, image_of, own_images
from keras_xreid.app.search import check_statistics
from keras_xreid.app.settings import changed
from keras_xreid.data.images import SUFFIXES, decode_image
from keras_xreid.errors import check_number
from keras_xreid.files import harmless
from keras_xreid.gallery import about_model

HERE = ("127.0.0.1", "localhost")
ESTIMATE, UNKNOWN = "estimate", "unknown"
RATES = (ESTIMATE, UNKNOWN, "1", "2", "3", "4", "6", "8")
MOST = 50  # images of a list
HEIGHT = 256  # pixels of an image on the page, at most
WAITING = 16  # searches; a further one is refused
PARTS = Path(__file__).parent / "page"  # what the page is made of


@dataclasses.dataclass
class Options:
    gallery: str
    """A gallery of `xreid gallery`; or images: a folder, a folder with a folder for each person,
    or a CSV with the column path and, if known, camera and time."""
    weights: str | None = None
    """Published name, .weights.h5 file or run folder; the best published weights if not given."""
    host: str = HERE[0]
    """Address to listen at. With 0.0.0.0 everybody who reaches this machine sees the gallery:
    there is no password."""
    port: int = 7860
    """Port to listen at."""
    max_mb: float = 10
    """Megabytes that an image has at most."""
    cache: str = "~/.cache/keras_xreid"
    """Folder that keeps the embeddings of a folder; it may be deleted at any time."""


def main(o):
    check_number("--max-mb", o.max_mb, least=0.01, most=500, whole=False)
    check_number("--port", o.port, least=1, most=65535)
    if importlib.util.find_spec("gradio") is None:
        raise xr.InputError('the demo needs gradio: pip install -e ".[demo]"')
    # Asked to end, it leaves no gallery behind that was made for this while.
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit())
    model = xr.load(o.weights)
    with opened(o, model) as gallery:
        page = served(Desk(model, gallery, o.max_mb), o.host, o.port)
        try:
            print(
                f"{len(gallery):,} images at http://{o.host}:{o.port} (Ctrl-C ends it)", flush=True
            )
            if o.host not in HERE:
                print("Everybody who reaches this machine sees the gallery: there is no password.")
            threading.Event().wait()
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def opened(o, model):
    """The gallery; one of a folder of images is made for as long as it is searched."""
    if is_gallery(o.gallery):
        if changed(o, "cache"):
            raise xr.InputError(f"{o.gallery} holds its embeddings itself: leave out --cache")
        gallery = xr.Gallery.open(o.gallery, model)
        check_statistics(gallery)
        yield gallery
        return
    records, times = own_images(o.gallery), times_of(o.gallery)
    about = about_model(model)  # now: of some systems there is no gallery
    folder = cache_folder(o.cache, weights_sha256(o.weights), model)
    records, hashes, features, _ = embed_once(model, records, folder)
    with (
        tempfile.TemporaryDirectory() as place,
        xr.Gallery.create(Path(place) / "gallery", about) as gallery,
    ):
        gallery.add(
            features,
            keys=[record.path for record in records],
            camera=[record.camera or "" for record in records],
            time=[times.get(record.path) for record in records],
            sha256=hashes,
        )
        yield gallery


class Desk:
    """Answers the page: searches a gallery for one image at a time.

    Args:
        model: a `ReIDModel`.
        gallery: a `Gallery` of its embeddings.
        max_mb: megabytes that an image has at most.
    """

    def __init__(self, model, gallery, max_mb=10):
        self.model, self.gallery, self.max_mb = model, gallery, max_mb
        about = gallery.about
        # 2 before 10.
        self.cameras = sorted(filter(None, about["cameras"]), key=lambda name: (len(name), name))
        self.time = about["time"]

    def answer(self, image, rate, cameras, first, last, top):
        """What the page shows, as HTML; whatever goes wrong is one line."""
        try:
            if not image:  # a choice was made before an image is there
                return f"<p>{self.about()}</p>"
            content = self.content(image)
            return shown(self.find(content, rate, cameras, seconds(first), seconds(last), top))
        except xr.InputError as error:
            return line(error)
        except Exception as error:
            print(app.fault(error), file=sys.stderr)
            if os.environ.get("XREID_DEBUG", "0") not in ("", "0"):
                raise
            return line(app.fault(error))

    def about(self):
        return (
            f"Give an image of a person: the nearest of {len(self.gallery):,} images appear here, "
            f"as {type(self.model).__name__} finds them. What you give stays in memory."
        )

    def content(self, image):
        """The bytes of an image that the browser sends as a data URL."""
        if not isinstance(image, str):
            raise xr.InputError("the browser sent no image: drop another")
        self.check_size(len(image) * 3 // 4)
        try:
            return base64.b64decode(image.partition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            raise xr.InputError("the browser sent no image: drop another") from None

    def check_size(self, count):
        if count > self.max_mb * 1e6 + 100:  # of a data URL the head counts, too
            raise xr.InputError(
                f"this file has {count / 1e6:.1f} MB: images of up to {self.max_mb:g} MB are taken"
            )

    def find(self, content, rate, cameras=None, first=None, last=None, top=10):
        """Searches for an image.

        Args:
            content: bytes of the file.
            rate: its down-sampling rate, as text; "estimate" or "unknown".
            cameras: names of the cameras to search; none: all.
            first: second, the first to search; None: open.
            last: second, the last to search; None: open.
            top: int, length of the list.

        Returns:
            A dict: "size" (height, width), "rate" (None: unknown), "estimated", "upscaled" and
            "recovered" ((h, w, 3) arrays, the latter None if there is none), "images" (how many
            the gallery has), "all" (whether all of them were searched), and "ranked", dicts of
            "key", "distance", "camera", "time" and "sha256".
        """
        pixels = decode_image(content, "this file", "give another")
        estimated = rate == ESTIMATE
        if estimated:
            rates = xr.estimate_rate([pixels])
        elif rate == UNKNOWN:
            rates = None
        elif rate in RATES:
            rates = np.array([rate], "float32")
        else:
            raise xr.InputError(f"rate is {str(rate)[:80]!r}: give one of {', '.join(RATES)}")
        check_number("length of the list", top, most=MOST)
        if first is not None and last is not None and first > last:
            raise xr.InputError(f"no second lies from {first:.12g} to {last:.12g}: swap them")
        upscaled = xr.prepare_images([pixels], self.model.image_size)
        low = hasattr(self.model, "recover") and (rates is None or rates[0] > 1)
        between = None if first is None and last is None else (first, last)
        features = np.asarray(self.model.embed(upscaled, rates))
        self.gallery.refresh()
        check_statistics(self.gallery)  # of rows that were added since
        found = self.gallery.search(features, rates, int(top), cameras or None, between)
        columns = self.gallery.columns(found.keys[0])
        columns["distance"] = found.distances[0]
        names = ("key", "distance", "camera", "time", "sha256")
        ranked = zip(*(columns[name] for name in names), strict=True)
        return {
            "size": pixels.shape[:2], "rate": None if rates is None else float(rates[0]),
            "estimated": estimated, "upscaled": upscaled[0],
            "recovered": np.asarray(self.model.recover(upscaled))[0] if low else None,
            "images": len(self.gallery), "all": not cameras and between is None,
            "ranked": [dict(zip(names, row, strict=True)) for row in ranked],
        }  # fmt: skip


def seconds(text):
    """A time that was typed in; None where nothing was."""
    try:
        return float(text) if str(text or "").strip() else None
    except (TypeError, ValueError):
        raise xr.InputError(f"{str(text)[:80]!r} is no time: give seconds, such as 12.5") from None


# --- what the page shows -----------------------------------------------------------------------


def line(error):
    text = " ".join(harmless(str(error), name=True).split())
    return f'<p class="wrong" role="alert">{html.escape(text)}</p>'


def shown(found):
    """HTML of what a search found."""
    height, width = found["size"]
    rate = "unknown" if found["rate"] is None else f"{found['rate']:.3g}"
    told = f"{width} x {height} pixels, rate {rate}" + ", estimated" * found["estimated"]
    queries = [figure(found["upscaled"], "upscaled", "The query, upscaled")]
    if found["recovered"] is not None:
        queries.append(figure(found["recovered"], "recovered", "The query, recovered"))
    cells = [cell(rank, one) for rank, one in enumerate(found["ranked"], start=1)]
    of = f"{found['images']:,} images" if found["all"] else "these cameras and times"
    heading = f"The nearest of {of}" if cells else "No image of these cameras and times"
    meant = " Beside its rank each has its distance: the smaller, the more alike." * bool(cells)
    return (
        f'<div class="asked">{"".join(queries)}<p>{told}</p></div>'
        f'<p class="of"><b>{heading}.</b>{meant}</p><ol class="ranked">{"".join(cells)}</ol>'
    )


def cell(rank, one):
    """An image of the list, and what is known of it."""
    key = harmless(one["key"], name=True)
    seen = [f"camera {html.escape(harmless(one['camera'], name=True))}"] * bool(one["camera"])
    if one["time"] is not None:
        seen.append(f"{one['time']:.12g}&nbsp;s")
    name = f'<span class="key" title="{html.escape(key)}">{html.escape(Path(key).name)}</span>'
    told = f"<b>{rank}</b> {one['distance']:.3g}"
    lines = "<br>".join(filter(None, [told, ", ".join(seen), name]))
    return f"<li>{figure(stored(one['key'], one['sha256']), lines, f'Rank {rank}')}</li>"


def figure(pixels, caption, alt):
    """An image as part of the page itself: no file is written."""
    if pixels.dtype != "uint8":
        pixels = np.round(np.clip(pixels, 0, 1) * 255).astype("uint8")
    image = Image.fromarray(pixels)
    image.thumbnail((HEIGHT, HEIGHT), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92, subsampling=0)
    url = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return f'<figure><img src="{url}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def stored(key, sha256):
    """An image of the gallery; grey where it lies here no more, or is another one now."""
    try:
        return image_of(key, sha256)
    except xr.InputError:
        return np.full((128, 64, 3), 128, "uint8")


# --- the server --------------------------------------------------------------------------------


class Door:
    """Lets in what the page sends, and tells the browser to load nothing from elsewhere.

    Gradio's own uploads would be written to a disk, and are refused; the page sends its image as
    text.

    Args:
        app: the application behind it.
        max_mb: megabytes of an image.
    """

    RULES = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"

    def __init__(self, app, max_mb):
        # As text an image is a third larger; the rest of a request is small.
        self.app, self.most, self.mb = app, max_mb * 1e6 * 4 / 3 + 100_000, max_mb

    async def __call__(self, scope, receive, send):
        async def sent(message):
            if message["type"] == "http.response.start":
                rules = (b"content-security-policy", self.RULES)
                message = {**message, "headers": [*message.get("headers", []), rules]}
            await send(message)

        refused = self.refused(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.app(scope, receive, sent)
            return
        status, text = refused
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await sent({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode() + b"\n"})

    def refused(self, scope):
        """(status, line) of what does not come in, or None."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if scope["path"].rstrip("/").endswith("/upload"):
            return 403, "nothing is uploaded to the disk: send the image to /search as a data URL"
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "the request does not say its length"
        if int(length) > self.most:
            return 413, f"{int(length):,} bytes: images of up to {self.mb:g} MB are taken"
        return None


def served(desk, host, port):
    """Starts the server, and returns Gradio's page, to be closed."""
    # Read when they are imported.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    inside = [Middleware(Door, max_mb=desk.max_mb)]
    if host in HERE:  # no page of another name reaches it through the user's browser
        inside.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(HERE)))
    blocks = page_of(desk)
    # Fonts of the system, and greys that can be read.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
        body_text_color_subdued="*neutral_500", input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )  # fmt: skip
    try:
        blocks.queue(max_size=WAITING).launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
            inbrowser=False, footer_links=[], run_history=False, enable_monitoring=False,
            ssr_mode=False, pwa=False, mcp_server=False, max_file_size=1,
            state_session_capacity=WAITING,
            theme=theme, css=(PARTS / "page.css").read_text("utf-8"),
            app_kwargs={"middleware": inside},
        )  # fmt: skip
    except OSError as error:
        raise xr.InputError(
            f"cannot listen at {host}, port {port} ({error}): give another --port or --host"
        ) from error
    return blocks


def page_of(desk):
    """Gradio's page."""
    import gradio as gr

    with gr.Blocks(title="keras_xreid", analytics_enabled=False) as blocks, gr.Row():
        with gr.Column(scale=1, min_width=260):
            image = gr.HTML(
                html_template=(PARTS / "drop.html").read_text("utf-8"),
                js_on_load=(PARTS / "drop.js").read_text("utf-8"),
                accept=",".join(sorted(SUFFIXES)), max_mb=desk.max_mb, elem_id="image",
            )  # fmt: skip
            rate = gr.Radio(
                list(RATES), value=ESTIMATE, label="Down-sampling rate",
                info="4: a quarter as tall as in the gallery",
            )  # fmt: skip
            cameras = gr.Dropdown(
                desk.cameras, multiselect=True, label="Cameras (none: all)",
                visible=bool(desk.cameras),
            )  # fmt: skip
            ends = desk.time or (0, 0)
            with gr.Row(visible=desk.time is not None):
                first, last = (
                    gr.Textbox(label=label, placeholder=f"{end:.12g}", min_width=100)
                    for label, end in zip(("From second", "To second"), ends, strict=True)
                )
            top = gr.Slider(1, MOST, 10, step=1, label="Length of the list")
        with gr.Column(scale=3, min_width=300):
            found = gr.HTML(f"<p>{desk.about()}</p>", elem_id="found")
        asked = [image, rate, cameras, first, last, top]
        # Without Gradio's own checks: the desk's say in one line what is wrong.
        gr.on(
            [image.change, rate.input, cameras.input, first.submit, first.blur, last.submit,
             last.blur, top.change],
            desk.answer, asked, found, api_name="search", trigger_mode="always_last",
            show_progress="minimal", preprocess=False,
        )  # fmt: skip
    return blocks


def cli():
    app.command(main, Options, __doc__)
