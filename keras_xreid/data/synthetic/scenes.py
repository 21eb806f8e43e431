"""What stands around drawn people: the places of the cameras, styles "a" and "b"."""

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from keras_xreid.data.synthetic.canvas import rgb, shade, to_image
from keras_xreid.data.synthetic.cloth import BAGS


class _Scene:
    """A long picture of a camera's surroundings; lengths are shares of its height."""

    def __init__(self, height, width):
        self.tall, self.wide = 2 * height, 12 * width
        self.end = self.wide / self.tall
        self.image = Image.new("RGB", (self.wide, self.tall))
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def box(self, x0, y0, x1, y1, colour, alpha=255):
        corners = [n * self.tall for n in (x0, y0, x1, y1)]
        self.draw.rectangle(corners, fill=(*rgb(colour), alpha))

    def disc(self, x, y, rx, ry, colour):
        corners = [n * self.tall for n in (x - rx, y - ry, x + rx, y + ry)]
        self.draw.ellipse(corners, fill=rgb(colour))

    def shape(self, points, colour, alpha=255):
        self.draw.polygon([n * self.tall for n in points], fill=(*rgb(colour), alpha))

    def fade(self, y0, y1, top, bottom):
        """From one colour above to another below."""
        for y in range(int(y0 * self.tall), int(y1 * self.tall) + 1):
            share = (y / self.tall - y0) / (y1 - y0)
            colour = shade(top, 1 - share) + shade(bottom, share)
            self.draw.line((0, y, self.wide, y), fill=rgb(colour))

    def slabs(self, y0, colour, columns):
        """Joints of a floor in perspective."""
        for i in range(7):
            y = y0 + (1 - y0) * (i / 6) ** 1.7
            self.box(0, y, self.end, y + 0.004, colour)
        for i in range(columns):
            x, slope = self.end * i / columns, (i % 7 - 3) * 0.12 * (1 - y0)
            self.shape((x, y0, x + 0.004, y0, x + slope + 0.007, 1, x + slope, 1), colour)


def _street(scene, rng):
    walls = ((196, 180, 156), (168, 118, 98), (150, 158, 168), (206, 196, 182), (142, 134, 120))
    shops = ((120, 60, 56), (56, 88, 84), (70, 72, 96), (150, 120, 70))
    x = 0.0
    while x < scene.end:
        span = rng.uniform(0.55, 0.95)
        wall, shop = np.array(walls[rng.integers(5)]), shops[rng.integers(4)]
        scene.box(x, 0, x + span, 0.71, wall)
        scene.box(x + span - 0.02, 0, x + span, 0.71, wall * 0.8)
        count = int(span / 0.24)
        for i in range(count):
            left = x + (i + 0.22) * span / count
            right = left + 0.55 * span / count
            for low, high in ((0.03, 0.20), (0.26, 0.40)):
                scene.box(left - 0.015, low - 0.015, right + 0.015, high + 0.015, wall * 1.12)
                scene.box(left, low, right, high, (70, 84, 98))
                scene.shape((left, high, left, low, right, low), (110, 128, 142))
        scene.box(x + 0.06, 0.52, x + span - 0.07, 0.68, (58, 64, 70))
        for _ in range(5):
            glow = x + rng.uniform(0.1, 0.8) * span
            scene.box(glow, 0.56, glow + 0.05, 0.66, rng.uniform(120, 220, 3), 150)
        scene.box(x + 0.04, 0.455, x + span - 0.05, 0.525, shop)
        x += span
    scene.fade(0.70, 1, (150, 146, 140), (178, 174, 166))
    scene.box(0, 0.70, scene.end, 0.715, (112, 108, 104))
    scene.slabs(0.715, (140, 136, 130), 44)
    for _ in range(3):
        x, paint = rng.uniform(0, scene.end), BAGS[rng.integers(len(BAGS))]
        scene.box(x, 0.60, x + 0.55, 0.71, paint)
        roof = (x + 0.08, 0.60, x + 0.17, 0.535, x + 0.38, 0.535, x + 0.47, 0.60)
        scene.shape(roof, (64, 74, 84))
        for wheel in (0.11, 0.43):
            scene.disc(x + wheel, 0.715, 0.045, 0.045, (36, 36, 38))
    for x in rng.uniform(0, scene.end, 4):
        scene.disc(x + 0.01, 0.80, 0.03, 0.015, (52, 54, 56))
        scene.box(x, 0, x + 0.022, 0.80, (58, 62, 64))


def _wall(scene, rng):
    scene.box(0, 0, scene.end, 0.77, (188, 176, 164))
    rise, run = 1 / 30, 1 / 13
    for row in range(23):
        for column in range(int(scene.end / run) + 2):
            x, y = (column - (row % 2) * 0.5) * run, row * rise
            tone = np.array((158, 92, 74)) * rng.uniform(0.82, 1.14) + rng.uniform(-6, 6, 3)
            scene.box(x + 0.008, y + 0.008, x + run, y + rise, tone)
    scene.box(0, 0.71, scene.end, 0.765, (120, 112, 106))
    for _ in range(6):
        x, y, w, h = rng.uniform((0, 0.08, 0.14, 0.2), (scene.end, 0.3, 0.24, 0.32))
        scene.box(x, y, x + w, y + h, rng.uniform(150, 230, 3))
        for i in range(4):
            top = y + (0.12 + 0.2 * i) * h
            right = x + rng.uniform(0.4, 0.9) * w
            scene.box(x + 0.1 * w, top, right, top + 0.1 * h, rng.uniform(60, 190, 3))
    for x in rng.uniform(0, scene.end, 4):
        scene.box(x, 0, x + 0.03, 0.76, (92, 98, 100))
        scene.box(x, 0, x + 0.008, 0.76, (130, 136, 138))
    scene.fade(0.76, 1, (92, 92, 96), (124, 124, 126))
    scene.box(0, 0.90, scene.end, 0.915, (176, 174, 160))
    for x, y, tone in rng.uniform((0, 0.77, 70), (scene.end, 1, 150), (160, 3)):
        scene.disc(x, y, 0.01, 0.004, (tone, tone, tone))


def _park(scene, rng):
    scene.fade(0, 0.52, (186, 208, 224), (214, 224, 214))
    for low, tone, count in ((0.16, (122, 148, 112), 90), (0.30, (88, 122, 78), 150),
                             (0.42, (66, 100, 58), 210)):  # fmt: skip
        scene.box(0, low + 0.06, scene.end, 0.52, shade(tone, 0.85))
        least, most = (0, low - 0.12, 0.03, 0.82), (scene.end, low + 0.10, 0.08, 1.18)
        for x, y, r, bright in rng.uniform(least, most, (count, 4)):
            scene.disc(x, y, r, r, shade(tone, bright))
    scene.fade(0.52, 1, (112, 150, 78), (134, 166, 88))
    for _ in range(2600):
        x, y = rng.uniform(0, scene.end), 0.52 + 0.48 * rng.random() ** 0.7
        lean, h = rng.uniform(-0.01, 0.01), 0.012 + 0.047 * (y - 0.52)
        blade = (x, y, x + lean, y - h, x + 0.004, y)
        scene.shape(blade, shade((118, 152, 78), rng.uniform(0.78, 1.2)))
    path = (0, 0.80, scene.end, 0.76, scene.end, 0.90, 0, 0.97)
    scene.shape(path, (198, 182, 150))
    for _ in range(140):
        x, y = rng.uniform((0, 0.6), (scene.end, 0.76))
        petal = ((238, 232, 214), (226, 196, 90), (214, 128, 130))[rng.integers(3)]
        scene.disc(x, y, 0.01, 0.008, petal)
    for x in rng.uniform(0, scene.end, 3):
        for leg in (0.03, 0.31):
            scene.box(x + leg, 0.56, x + leg + 0.02, 0.74, (70, 66, 62))
        for y in (0.56, 0.60, 0.65):
            scene.box(x, y, x + 0.36, y + 0.025, (138, 96, 62))
    for x, w in rng.uniform((0, 0.03), (scene.end, 0.055), (5, 2)):
        trunk = (x, 0, x + w, 0, x + 1.25 * w, 0.64, x - 0.25 * w, 0.64)
        scene.shape(trunk, (92, 74, 58))
        scene.shape((x, 0, x + 0.3 * w, 0, x + 0.2 * w, 0.64, x - 0.25 * w, 0.64), (118, 98, 78))


def _corridor(scene, rng):
    scene.fade(0, 0.66, (228, 224, 212), (206, 202, 190))
    scene.box(0, 0.40, scene.end, 0.66, (150, 168, 166))
    scene.box(0, 0.39, scene.end, 0.405, (112, 104, 92))
    scene.fade(0.66, 1, (146, 140, 128), (196, 190, 178))
    scene.slabs(0.66, (166, 160, 148), 30)
    x = 0.1
    while x < scene.end:
        kind = rng.integers(3)
        if kind == 0:  # a door and its reflection
            scene.box(x - 0.03, 0.07, x + 0.33, 0.66, (116, 104, 90))
            scene.box(x, 0.09, x + 0.30, 0.66, (164, 128, 92))
            scene.box(x + 0.06, 0.15, x + 0.24, 0.34, (150, 178, 184))
            scene.disc(x + 0.27, 0.41, 0.013, 0.013, (214, 204, 170))
            scene.box(x, 0.66, x + 0.30, 0.84, (150, 124, 98), 70)
        elif kind == 1:  # a notice board
            scene.box(x, 0.12, x + 0.36, 0.34, (172, 132, 90))
            for _ in range(9):
                u, v = rng.uniform((x + 0.02, 0.14), (x + 0.29, 0.28))
                scene.box(u, v, u + 0.05, v + 0.05, rng.uniform(170, 250, 3))
        else:  # a bin
            scene.box(x, 0.46, x + 0.12, 0.70, (92, 106, 116))
            scene.box(x, 0.46, x + 0.12, 0.49, (128, 142, 150))
        x += rng.uniform(0.42, 0.75)
    scene.box(0, 0.64, scene.end, 0.66, (104, 98, 92))
    for i in range(7):  # light from the ceiling on the polished floor
        x = (i + 0.4) * scene.end / 7
        gleam = (x, 0.66, x + 0.16, 0.66, x + 0.24, 1, x - 0.08, 1)
        scene.shape(gleam, (236, 232, 222), 60)


# Places of style "b".
def _platform(scene, rng):
    scene.fade(0, 0.60, (120, 140, 160), (170, 184, 196))
    for i in range(int(scene.end / 0.09) + 1):  # tiles, some with a sign
        for j in range(6):
            tone = np.array((176, 188, 196)) * rng.uniform(0.92, 1.06)
            scene.box(0.09 * i, 0.10 + 0.08 * j, 0.09 * i + 0.084, 0.174 + 0.08 * j, tone)
    for _ in range(9):
        x = rng.uniform(0, scene.end)
        scene.box(x, 0.14, x + 0.30, 0.30, rng.uniform(30, 220, 3))
        scene.box(x + 0.03, 0.19, x + 0.24, 0.22, (240, 240, 236))
    scene.fade(0.60, 1, (96, 100, 106), (132, 136, 140))
    scene.box(0, 0.66, scene.end, 0.69, (230, 196, 60))
    scene.slabs(0.69, (84, 88, 94), 36)


def _night(scene, rng):
    scene.fade(0, 0.70, (18, 22, 44), (58, 52, 66))
    for _ in range(60):
        x, y = rng.uniform((0, 0.05), (scene.end, 0.60))
        scene.box(x, y, x + 0.05, y + 0.07, (226, 190, 112), int(rng.integers(90, 255)))
    scene.fade(0.70, 1, (60, 56, 62), (92, 84, 80))
    for x in rng.uniform(0, scene.end, 7):  # lamps, and their light on the ground
        scene.box(x, 0, x + 0.018, 0.76, (30, 32, 38))
        scene.disc(x, 0.06, 0.05, 0.05, (255, 226, 160))
        scene.shape((x - 0.05, 0.72, x + 0.06, 0.72, x + 0.2, 1, x - 0.2, 1), (240, 200, 120), 70)


def _snow(scene, rng):
    scene.fade(0, 0.5, (206, 214, 226), (226, 230, 236))
    for _ in range(26):
        x, w, y = rng.uniform((0, 0.015, 0.0), (scene.end, 0.04, 0.2))
        scene.box(x, y, x + w, 0.60, shade((86, 80, 84), rng.uniform(0.8, 1.3)))
    for _ in range(60):
        x, y, r = rng.uniform((0, 0.44, 0.04), (scene.end, 0.60, 0.13))
        scene.disc(x, y, r, 0.5 * r, rng.uniform(212, 244) * np.ones(3))
    scene.fade(0.56, 1, (226, 232, 240), (248, 250, 252))
    for x, y in rng.uniform((0, 0.62), (scene.end, 1), (120, 2)):
        scene.disc(x, y, 0.02, 0.006, (196, 206, 222))


def _hall(scene, rng):
    scene.fade(0, 0.64, (150, 96, 60), (112, 70, 46))
    x = 0.0
    while x < scene.end:  # shelves with goods
        span = rng.uniform(0.35, 0.6)
        scene.box(x, 0.06, x + span, 0.64, (70, 46, 34))
        for y in (0.10, 0.24, 0.38, 0.52):
            at = x + 0.02
            while at < x + span - 0.05:
                wide, tall = rng.uniform((0.02, 0.05), (0.06, 0.11))
                scene.box(at, y + 0.115 - tall, at + wide, y + 0.115, rng.uniform(40, 240, 3))
                at += wide + 0.008
        x += span + rng.uniform(0.02, 0.25)
    scene.fade(0.64, 1, (150, 120, 96), (196, 164, 132))
    scene.slabs(0.66, (128, 98, 76), 60)


_SCENES = {"street": _street, "wall": _wall, "park": _park, "corridor": _corridor,
           "platform": _platform, "night": _night, "snow": _snow, "hall": _hall}  # fmt: skip


@functools.cache
def panorama(name, height, width, seed):
    """A camera's surroundings, six images wide, drawn once in a process."""
    rng = np.random.default_rng((seed, 3, list(_SCENES).index(name)))
    scene = _Scene(height, width)
    _SCENES[name](scene, rng)
    image = scene.image.filter(ImageFilter.GaussianBlur(height * 0.012))
    pixels = np.asarray(image, float)
    for lump, strength in ((height // 32, 0.05), (height // 4, 0.04)):
        pixels = pixels * (1 + strength * _clouds(rng, image.size, lump))
    return to_image(pixels).reduce(2)


def _clouds(rng, size, lump):
    """Smooth noise (h, w, 1) between about -1 and 1, in lumps of so many pixels."""
    width, height = size
    coarse = rng.integers(0, 256, (height // lump + 2, width // lump + 2), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, float)[..., None] / 128 - 1
