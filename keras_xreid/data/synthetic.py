"""The embedded data set: people drawn with Pillow, so that every recipe runs without a download.

Everything is drawn at four times the wanted size and reduced, from a description of each person that
follows from the seed alone. People come in groups of four. A group shares what survives a low
resolution: build, skin, hair, the kinds and the mean colours of its clothes, its bag. Its members
differ in fine patterns only, and the two colours of a pattern are balanced around the group's mean
colour, so that shrinking an image takes exactly that difference away.

The file is its own worker: `python synthetic.py FOLDER ...` draws a share of the images. It therefore
imports nothing but NumPy and Pillow at the top, and needs no guard in the program that called it.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

VERSION = "1"  # part of the cache's name: raise it whenever a single pixel changes
PEOPLE = 100  # in the training part, and as many others in the test part
GROUP = 4  # people who differ in fine detail only
CAMERAS = 4
SHOTS = 4  # images of a person in one camera
OVERSAMPLING = 4

SKIN = (
    (244, 212, 188), (236, 194, 164), (224, 172, 136), (198, 142, 104), (166, 112, 80),
    (126, 82, 58), (96, 64, 48),
)  # fmt: skip
HAIR = (
    (34, 28, 30), (52, 38, 32), (82, 54, 36), (120, 74, 44), (152, 78, 42), (204, 164, 104),
    (168, 164, 160),
)  # fmt: skip
TOPS = (
    (178, 62, 58), (196, 112, 62), (198, 164, 76), (104, 146, 84), (58, 122, 106), (72, 134, 170),
    (70, 92, 158), (112, 86, 152), (184, 96, 132), (126, 122, 118), (172, 164, 152), (92, 100, 112),
    (148, 104, 76), (126, 56, 82),
)  # fmt: skip
BOTTOMS = (
    (62, 76, 112), (92, 112, 148), (84, 84, 90), (130, 112, 88), (164, 146, 116), (92, 78, 66),
    (98, 106, 82), (118, 74, 72), (132, 134, 140),
)  # fmt: skip
SHOES = ((222, 220, 214), (70, 66, 66), (120, 82, 56), (150, 62, 60), (70, 96, 140))
BAGS = ((86, 70, 58), (64, 84, 110), (142, 74, 62), (92, 106, 74), (74, 72, 80), (176, 140, 84))

# What each camera sees: the scene, the direction people walk in (degrees, 0 is towards the camera)
# and its spread, how far it looks down, framing, lens, light, colour, blur and noise.
VIEWS = (
    dict(scene="street", turn=0, spread=32, pitch=0.10, scale=0.885, tilt=-0.8, shear=0.01,
         widen=0.02, light=(-0.8, -0.5), gain=(1.05, 1.01, 0.94), gamma=0.93, blur=0.30, noise=2.5),
    dict(scene="wall", turn=180, spread=32, pitch=0.14, scale=0.86, tilt=1.6, shear=-0.03,
         widen=0.09, light=(0.8, -0.6), gain=(0.93, 0.99, 1.07), gamma=1.08, blur=0.36, noise=4.0),
    dict(scene="park", turn=42, spread=22, pitch=0.08, scale=0.91, tilt=0.4, shear=0.03,
         widen=-0.02, light=(0.6, -0.9), gain=(1.01, 1.04, 0.93), gamma=0.98, blur=0.28, noise=3.0),
    dict(scene="corridor", turn=-140, spread=24, pitch=0.17, scale=0.84, tilt=-2.0, shear=0.02,
         widen=0.13, light=(-0.2, -1.0), gain=(1.04, 0.98, 0.96), gamma=1.02, blur=0.42, noise=4.5),
)  # fmt: skip


def load_synthetic(image_size=(128, 64), people=PEOPLE, seed=0, cache_dir=None, verbose=True):
    """Draw the embedded people on first use, keep them on disk, and read them from there.

    The training and the test part hold `people` different people each, with four images in each of
    four cameras. The first image of each test person and camera is a query, the others are the
    gallery. The same arguments give the same images on every machine.

    Args:
        image_size: (height, width) of the stored images, in pixels: (128, 64) or (256, 128).
        people: People in each of the two parts, at least 2.
        seed: 0 or more; another seed draws other people.
        cache_dir: Folder to keep the images under; None: `keras_xreid` in the Keras home directory.
        verbose: Show a progress bar while drawing.

    Returns:
        A `DataSet` named "synthetic": `16 * people` training images, `4 * people` queries and
        `12 * people` gallery images. Training people are 1 to `people`, test people follow.

    Raises:
        InputError: A size, a number of people or a seed out of range, or a folder that cannot be
            written.

    Example:

    >>> data = load_synthetic(people=4, verbose=False)
    >>> len(data.train), len(data.query), len(data.gallery), data.train[0].read().shape
    (64, 16, 48, (128, 64, 3))
    """
    from keras_xreid.data.datasets import DataSet, Record
    from keras_xreid.errors import InputError

    height, width = (int(n) for n in image_size)
    if height < 32 or width < 16:
        raise InputError(f"image size {height}x{width} is too small to draw people: 32x16 or more")
    if people < 2:
        raise InputError(f"{people} people cannot be told apart: ask for 2 or more")
    if seed < 0:
        raise InputError(f"seed {seed} is negative: give 0 or more")
    parent = Path(cache_dir) if cache_dir is not None else _keras_home() / "keras_xreid"
    folder = parent / f"synthetic-{VERSION}-{height}x{width}-{people}-{seed}"
    if not folder.is_dir():
        try:
            _draw_all(folder, (height, width), people, seed, verbose)
        except OSError as error:
            raise InputError(
                f"cannot write the drawn images under {parent} ({error.strerror or error}): "
                "make it writable or give another cache folder"
            ) from error

    parts = {"train": [], "query": [], "gallery": []}
    for part, person, camera, shot in _shots(people):
        path = folder / _file_name(part, person, camera, shot)
        parts[part].append(Record(str(path), person, camera, size=(height, width)))
    return DataSet("synthetic", **parts)


def draw_person(person, camera, shot, image_size=(128, 64), seed=0):
    """Draw one image.

    Args:
        person: Number of the person, from 1.
        camera: 1 to 4.
        shot: Number of the image within the camera, from 0: pose, place and noise change with it.
        image_size: (height, width) in pixels.
        seed: 0 or more; another seed draws other people.

    Returns:
        A `PIL.Image.Image` in RGB of that size.

    Example:

    >>> draw_person(1, 2, 0, (256, 128)).save("person.png")
    """
    height, width = image_size
    view = VIEWS[camera - 1]
    rng = np.random.default_rng((seed, 2, person, camera, shot))
    figure = _Figure(rng, view, height, width)
    _draw_figure(figure, describe_person(person, seed), rng)
    return _photograph(figure, view, rng, _panorama(view["scene"], height, width, seed))


def describe_person(person, seed=0):
    """Say what a person looks like: what the group shares, and the fine details of this one.

    Args:
        person: Number of the person, from 1; people 1-4, 5-8, ... are the groups.
        seed: 0 or more.

    Returns:
        A dictionary of plain values; its entry "fine" holds what differs within the group.
    """
    group, member = divmod(person - 1, GROUP)
    rng = np.random.default_rng((seed, 1, group))

    def pick(choices):
        return choices[rng.integers(len(choices))]

    def own(choices):  # another value for each member of the group
        return choices[rng.permutation(len(choices))[member]]

    look = {
        "skin": pick(SKIN),
        "hair": pick(HAIR),
        "hair_style": pick(("short", "short", "crop", "bob", "long", "ponytail", "bun", "afro")),
        "hat": pick((None, None, None, None, "cap", "beanie")),
        "beard": bool(rng.random() < 0.25),
        "top": pick(("shirt", "shirt", "sweater", "sweater", "hoodie", "coat", "dress")),
        "top_colour": pick(TOPS),
        "bottom": pick(("trousers", "trousers", "trousers", "shorts", "skirt")),
        "bottom_colour": pick(BOTTOMS),
        "shoes": pick(SHOES),
        "bag": pick((None, None, "backpack", "shoulder bag", "handbag")),
        "bag_colour": pick(BAGS),
        "girth": rng.uniform(0.9, 1.12),
        "height": rng.uniform(0.95, 1.02),
        "print": bool(rng.random() < 0.35),  # a print on plain cloth, or a pattern all over it
        "tint": pick(((1, 1, 1), (1, 1, 0.75), (0.8, 1, 1), (1, 0.9, 0.8))),
    }
    if look["hair_style"] in ("bob", "long", "ponytail", "bun"):
        look["beard"] = False
    if look["hat"] and look["hair_style"] in ("afro", "bun"):
        look["hair_style"] = "short"
    if look["top"] == "dress":
        look["bottom"] = "leggings"
    look["fine"] = {
        "torso": own(PATTERNS),
        "print": own(tuple(PRINTS)),
        "sleeves": own(PATTERNS),
        "legs": own(PATTERNS),
        "bag": own(PATTERNS),
        "shoes": own(("plain", "hoops", "stripes", "toe")),
    }
    return look


# ---------------------------------------------------------------- patterns
# (kind, period in units of a hundredth of the body height): 3.4 units are 4 pixels of 128.
PATTERNS = (
    ("hoops", 3.6), ("hoops", 6.4), ("stripes", 3.6), ("stripes", 6.4), ("checks", 4.4),
    ("checks", 7.4), ("diagonal", 4.2), ("chevrons", 4.8), ("dots", 4.6), ("grid", 5.2),
)  # fmt: skip

COVERED = {"hoops": 0.5, "stripes": 0.5, "checks": 0.5, "diagonal": 0.5, "chevrons": 0.5,
           "dots": 0.42, "grid": 0.51}  # fmt: skip


def _pattern(kind, period, u0, u1, v0, v1):
    """Polygons (n, k, 2) of a pattern on cloth: u runs around the body, v down it."""
    u = np.arange(math.floor(u0 / period) - 1, math.ceil(u1 / period) + 1) * period
    v = np.arange(v0, v1, period)
    across = np.linspace(u0, u1, 13)
    if kind == "hoops":
        return np.stack([_band(across, start, start + period / 2) for start in v])
    if kind == "stripes":
        down = np.linspace(v0, v1, 9)
        return np.stack([_band(down, s, s + period / 2)[:, ::-1] for s in u + period / 4])
    if kind == "diagonal":
        down = np.linspace(v0, v1, 13)
        starts = np.arange(u0 - (v1 - v0), u1, period)
        slope = np.concatenate([down, down[::-1]]) - v0
        bands = np.stack([_band(down, s, s + period / 2)[:, ::-1] for s in starts])
        bands[:, :, 0] += slope
        return bands
    if kind == "chevrons":
        steps = np.arange(math.floor(u0 / period), math.ceil(u1 / period) + 1) * period
        knots = np.sort(np.concatenate([steps, steps + period / 2]))
        rise = np.where(np.arange(len(knots)) % 2, period * 0.6, 0.0)
        bands = np.stack([_band(knots, s, s + period / 2) for s in np.r_[v0 - period, v]])
        bands[:, :, 1] += np.concatenate([rise, rise[::-1]])
        return bands
    if kind == "checks":
        half = period / 2
        centres = [(a + o, b + o) for a in u for b in np.r_[v0 - period, v] for o in (0, half)]
        square = half / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        return np.array(centres)[:, None] + square + half / 2
    if kind == "dots":
        centres = [(a + (i % 2) * period / 2, b + period / 4)
                   for a in u for i, b in enumerate(np.arange(v0, v1, period * 0.72))]  # fmt: skip
        return np.array(centres)[:, None] + 0.31 * period * _circle(10)
    if kind == "grid":
        down = np.linspace(v0, v1, 13)
        rows = [_band(across, s, s + 0.3 * period) for s in v]
        columns = [_band(down, s, s + 0.3 * period)[:, ::-1] for s in u]
        return np.stack(rows + columns)
    raise ValueError(kind)


def _band(along, low, high):
    """The outline of a strip between `low` and `high`."""
    there = np.stack([along, np.full_like(along, low)], 1)
    back = np.stack([along[::-1], np.full_like(along, high)], 1)
    return np.concatenate([there, back])


def _circle(n):
    angle = np.arange(n) * (2 * math.pi / n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _star(points, inner):
    angle = np.arange(2 * points) * (math.pi / points) - math.pi / 2
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]


def _box(u0, v0, u1, v1):
    return np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], float)


# Prints: (polygon, 1 for the ink or 0 for the cloth) in a square from -1 to 1, about equal in area.
PRINTS = {
    "ring": [(_circle(20) * 0.95, 1), (_circle(20) * 0.5, 0)],
    "cross": [(_box(-0.3, -0.95, 0.3, 0.95), 1), (_box(-0.95, -0.3, 0.95, 0.3), 1)],
    "saltire": [(np.array([(-1, -0.7), (-0.7, -1), (1, 0.7), (0.7, 1)]), 1),
                (np.array([(1, -0.7), (0.7, -1), (-1, 0.7), (-0.7, 1)]), 1)],
    "star": [(_star(5, 0.45) * 1.12, 1)],
    "triangle": [(np.array([(0, -1), (1, 0.9), (-1, 0.9)]), 1)],
    "arrow": [(np.array([(-1, -0.8), (0, 0.1), (1, -0.8), (1, 0), (0, 0.9), (-1, 0)]), 1)],
    "rows": [(_box(-0.9, v, 0.9, v + 0.38), 1) for v in (-0.95, -0.2, 0.55)],
    "columns": [(_box(u, -0.9, u + 0.38, 0.9), 1) for u in (-0.95, -0.2, 0.55)],
    "frame": [(_box(-0.9, -0.9, 0.9, 0.9), 1), (_box(-0.5, -0.5, 0.5, 0.5), 0)],
    "blocks": [(_box(u, v, u + 0.85, v + 0.85), 1) for u, v in ((-0.9, -0.9), (0.05, 0.05))],
    "text": [(_box(u, v, u + w, v + 0.42), 1) for u, v, w in
             ((-0.95, -0.8, 0.5), (-0.3, -0.8, 0.35), (0.2, -0.8, 0.75), (-0.95, -0.15, 0.9),
              (0.15, -0.15, 0.35), (-0.6, 0.5, 0.35), (-0.1, 0.5, 0.9))],
}  # fmt: skip


def _two_tones(colour, covered, tint, contrast=130):
    """Ink and ground whose mean, weighted by the covered share, is the given colour."""
    colour, step = np.array(colour, float), contrast * np.array(tint, float)
    # As far apart as the range of values allows, still balanced.
    room = min(
        1, ((250 - colour) / ((1 - covered) * step)).min(), ((colour - 8) / (covered * step)).min()
    )
    return colour + room * (1 - covered) * step, colour - room * covered * step


# ---------------------------------------------------------------- drawing
class _Tube:
    """A limb, a torso or a skirt: a bent axis with a radius along it, and cloth around it.

    Positions are in hundredths of the body height. `place` maps cloth coordinates, u around the
    tube (0 faces the person's front) and v down its axis, to the picture plane.
    """

    def __init__(self, axis, radii, turn=0.0, bow=0.0, smooth=2):
        nodes = np.concatenate([np.asarray(axis, float), np.asarray(radii, float)[:, None]], 1)
        for _ in range(smooth):  # cut the corners: elbows and knees are round
            low, high = 0.75 * nodes[:-1] + 0.25 * nodes[1:], 0.25 * nodes[:-1] + 0.75 * nodes[1:]
            inner = np.stack([low, high], 1).reshape(-1, 3)
            nodes = np.concatenate([nodes[:1], inner, nodes[-1:]])
        self.axis, self.radius = nodes[:, :2], np.maximum(nodes[:, 2], 0.05)
        steps = np.diff(self.axis, axis=0)
        lengths = np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-6)
        self.v = np.concatenate([[0], np.cumsum(lengths)])
        along = np.gradient(self.axis, self.v, axis=0)
        along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
        self.across = np.stack([along[:, 1], -along[:, 0]], 1)
        self.turn, self.bow, self.girth = turn, bow, float(self.radius.max())

    def outline(self, cap=0.6):
        """The silhouette, with a rounded end below."""
        right = self.axis + self.across * self.radius[:, None]
        left = self.axis - self.across * self.radius[:, None]
        angle = np.linspace(0, math.pi, 9)[1:-1, None]
        forward = np.array([-self.across[-1, 1], self.across[-1, 0]])
        end = self.axis[-1] + self.radius[-1] * (
            np.cos(angle) * self.across[-1] + cap * np.sin(angle) * forward
        )
        return np.concatenate([right, end, left[::-1]])

    def place(self, cloth):
        u, v = cloth[..., 0], cloth[..., 1]
        angle = np.clip(u / self.girth + self.turn, -math.pi / 2, math.pi / 2)
        radius = np.interp(v, self.v, self.radius)
        side = radius * np.sin(angle)
        out = np.empty(cloth.shape)
        for i in range(2):
            out[..., i] = np.interp(v, self.v, self.axis[:, i])
            out[..., i] += side * np.interp(v, self.v, self.across[:, i])
        out[..., 1] += self.bow * radius * (np.cos(angle) - 0.5) + (v - np.clip(v, 0, self.v[-1]))
        return out


class _Figure:
    """A person on an empty canvas: parts are painted one over the other, shaded, and cut out."""

    def __init__(self, rng, view, height, width):
        self.height, self.width = height, width
        size = (OVERSAMPLING * width, OVERSAMPLING * height)
        self.rgb, self.alpha = Image.new("RGB", size), Image.new("L", size)
        self.view = view
        self.unit = view["scale"] * rng.uniform(0.96, 1.03) * size[1] / 100
        tilt = math.radians(view["tilt"] + rng.uniform(-1.2, 1.2))
        self.tilt = np.array([(math.cos(tilt), math.sin(tilt)), (-math.sin(tilt), math.cos(tilt))])
        foot = (
            size[0] * (0.5 + rng.uniform(-0.05, 0.05)),
            size[1] * (0.945 + rng.uniform(-0.015, 0.015)),
        )
        self.foot = np.array(foot)

    def project(self, points):
        """Body units (x to the right, y down from the crown, soles at 100) to canvas pixels."""
        x, y = points[..., 0], points[..., 1] - 100
        x = x * (1 - self.view["widen"] * (y + 50) / 100) + self.view["shear"] * y
        return np.stack([x, y], -1) @ self.tilt * self.unit + self.foot

    def paint(self, outlines, colour, marks=(), depth=1.0, folds=(), shine=1.0, shadow=70):
        """Paint a part.

        Args:
            outlines: Its silhouette: one polygon (k, 2) or a list of them, in body units.
            colour: Its RGB colour.
            marks: (polygon in body units, RGB) pairs painted on it.
            depth: How far the shading reaches in from the edge, in body units.
            folds: Short lines (2, 2) in body units where the cloth creases.
            shine: Brightness.
            shadow: How dark its shadow on what lies behind it is, 0 to 255.
        """
        if isinstance(outlines, np.ndarray):
            outlines = [outlines]
        polygons = [self.project(np.asarray(outline, float)) for outline in outlines]
        points = np.concatenate(polygons)
        reach = max(2, round(depth * self.unit))
        corner = np.floor(points.min(0)).astype(int) - 2 * reach
        size = tuple(int(n) for n in np.ceil(points.max(0)).astype(int) + 2 * reach - corner)
        corner = (int(corner[0]), int(corner[1]))
        mask = Image.new("L", size)
        draw = ImageDraw.Draw(mask)
        for polygon in polygons:
            draw.polygon((polygon - corner).ravel().tolist(), fill=255)
        cloth = Image.new("RGB", size, _rgb(np.array(colour) * shine))
        draw = ImageDraw.Draw(cloth)
        for polygon, ink in marks:
            draw.polygon((self.project(polygon) - corner).ravel().tolist(), fill=_rgb(ink))

        # Rounded: the blurred silhouette, seen from the light, is bright where the part faces it.
        light = mask.copy()
        if len(folds):
            draw = ImageDraw.Draw(light)
            for fold in folds:
                line = (self.project(fold) - corner).ravel().tolist()
                draw.line(line, fill=60, width=max(1, round(0.9 * self.unit)))
        light = light.filter(ImageFilter.BoxBlur(reach * 0.75)).filter(
            ImageFilter.BoxBlur(reach * 0.4)
        )
        towards = self.view["light"]
        light = ImageChops.offset(
            light, round(0.7 * reach * towards[0]), round(0.7 * reach * towards[1])
        )
        light = light.point(_SHADING)
        cloth = ImageChops.multiply(cloth, Image.merge("RGB", (light, light, light)))

        if shadow:
            around = mask.filter(ImageFilter.BoxBlur(reach)).point(
                [shadow * n // 255 for n in range(256)]
            )
            drop = (corner[0] - round(towards[0] * reach * 0.6), corner[1] + reach // 2)
            self.rgb.paste((12, 10, 16), drop, around)
        self.rgb.paste(cloth, corner, mask)
        self.alpha.paste(255, corner, mask)


_SHADING = [min(255, round(255 * (0.50 + 0.54 * (n / 255) ** 0.9))) for n in range(256)]


def _rgb(colour):
    return tuple(int(min(255, max(0, round(float(c))))) for c in colour)


def _ellipse(x, y, rx, ry, n=28):
    return np.array([x, y]) + _circle(n) * (rx, ry)


def _pose(rng):
    """Joints in three dimensions: x to the person's left, y down, z forward; left side first."""
    walking = rng.random() < 0.7
    stride = math.radians(rng.uniform(13, 25) if walking else rng.uniform(0, 3))
    first = 1 if rng.random() < 0.5 else -1
    legs, arms = [], []
    for side in (1, -1):
        swing = stride * side * first
        bend = math.radians(rng.uniform(2, 7)) + (0.9 * stride if swing < 0 else 0)
        hip = np.array([side * 4.4, 50, 0])
        out = 0.035 if not walking else 0.0
        knee = hip + 23 * np.array([out * side, math.cos(swing), math.sin(swing)])
        ankle = knee + 21.5 * np.array([out * side, math.cos(swing - bend), math.sin(swing - bend)])
        lift = max(0.0, bend - 0.15)
        toe = ankle + 5.6 * np.array([0.12 * side, math.sin(lift) * 0.9, math.cos(lift)])
        legs.append(np.stack([hip, knee, ankle, toe]))
        kind = rng.choice(["hang", "hang", "hang", "bent", "pocket"])
        back = -0.75 * swing + rng.uniform(-0.05, 0.08)
        flex = {"hang": rng.uniform(0.1, 0.35), "bent": rng.uniform(1.3, 1.8), "pocket": 0.5}[kind]
        outwards = {"hang": 0.12, "bent": 0.16, "pocket": 0.32}[kind]
        inwards = {"hang": 0.05, "bent": -0.25, "pocket": -0.38}[kind]
        shoulder = np.array([side * 10.2, 20.5, 0])
        elbow = shoulder + 14.5 * np.array([side * outwards, math.cos(back), math.sin(back)])
        wrist = elbow + 13 * np.array(
            [side * inwards, math.cos(back + flex), math.sin(back + flex)]
        )
        arms.append(np.stack([shoulder, elbow, wrist]))
    return legs, arms


def _draw_figure(figure, look, rng):
    """Paint a person, far parts first."""
    view, fine, girth = figure.view, look["fine"], look["girth"]
    turn = math.radians(view["turn"] + rng.uniform(-1, 1) * view["spread"])
    cos, sin = math.cos(turn), math.sin(turn)
    legs, arms = _pose(rng)
    ground = 96.5 - max(leg[2, 1] for leg in legs)  # the standing foot is on the ground

    def seen(joints):
        """Turn joints to the camera: ((n, 2) in the picture plane, (n,) towards the viewer)."""
        x, y, z = np.moveaxis(np.atleast_2d(joints), -1, 0)
        near = z * cos - x * sin
        flat = np.stack([girth * (x * cos + z * sin), y + ground + view["pitch"] * near], -1)
        flat[..., 1] = 100 - (100 - flat[..., 1]) * look["height"]
        return flat, near

    def width(side, depth):  # half the width of an elliptic trunk seen from this angle
        return girth * math.hypot(side * cos, depth * sin)

    top, skin = look["top_colour"], look["skin"]
    ink, cloth = _two_tones(top, COVERED[fine["torso"][0]], look["tint"])
    long_sleeves = look["top"] in ("sweater", "hoodie", "coat")
    facing = cos > 0
    wave = rng.uniform(-1, 1, (8, 2))

    def marks(tube, pattern, v0, v1, colour, tint=look["tint"], u=None):
        kind, period = pattern
        light, dark = _two_tones(colour, COVERED[kind], tint)
        u = math.pi * tube.girth if u is None else u
        shift = -tube.turn * tube.girth  # patterns run all around: draw what faces the viewer
        reach = min(u, tube.girth * math.pi / 2 + period)
        low = math.floor((shift - reach) / period) * period
        ground_cloth = _band(np.linspace(shift - reach, shift + reach, 9), v0, v1)
        polygons = _pattern(kind, period, low, shift + reach, v0, v1)
        polygons[..., 1] = np.clip(polygons[..., 1], v0, v1)
        placed = tube.place(polygons)
        return [(tube.place(ground_cloth), dark), *((polygon, light) for polygon in placed)]

    def creases(tube, places):
        lines = []
        for (v, slant), (a, b) in zip(places, wave, strict=False):
            r = tube.girth
            lines.append(tube.place(np.array([
                (r * (0.9 + 0.3 * a) - tube.turn * r, v),
                (-r * 0.2 * b - tube.turn * r, v + slant)])))  # fmt: skip
        return lines

    # -- parts, painted below in the order that the view asks for
    def paint_leg(leg):
        flat, near = seen(leg)
        _, knee, ankle, toe = flat
        shoe = _Tube(np.stack([ankle + (-0.18 * (toe - ankle)[0], 1.6), 0.5 * (ankle + toe) + (0, 1.5),
                               toe + (0, 1.7)]), (2.3, 2.35, 1.9))  # fmt: skip
        light, dark = _two_tones(look["shoes"], 0.5, (1, 1, 1), 110)
        bare = look["bottom"] in ("shorts", "skirt")
        colour = skin if bare else look["bottom_colour"]
        calf = 2.5 if bare else 3.1
        tube = _Tube(
            flat[:3], np.array((5.4, 4.0 if not bare else 3.4, calf)) * girth**0.5, bow=0.1
        )
        length = tube.v[-1]
        shoe_ground = ankle + (0, 3.2)
        if near[3] < near[2]:  # seen from behind, the heel is in front
            figure.paint(shoe.outline(1.0), dark, shadow=0)
        stripes = []
        if fine["shoes"] != "plain":
            box = {"hoops": _box(-9, 0.4, 9, 1.7), "stripes": _box(-0.9, -3, 0.9, 9),
                   "toe": _box(-9, 2.6, 9, 9)}[fine["shoes"]]  # fmt: skip
            stripes = [(box + ankle, light)]
        figure.paint(shoe.outline(1.0), dark, stripes, depth=0.9)
        sole = _box(-9, 0, 9, 3) + (shoe_ground[0], max(ankle[1], toe[1]) + 2.6)
        del sole
        if bare:
            figure.paint(tube.outline(), skin, depth=1.6)
            if look["bottom"] == "shorts":
                short = _Tube(np.stack([flat[0], 0.5 * (flat[0] + knee), knee + 0.06 * (ankle - knee)]),
                              np.array((5.7, 5.4, 4.9)) * girth**0.5, bow=0.12)  # fmt: skip
                zone = marks(
                    short, fine["legs"], short.v[-1] * 0.35, short.v[-1] + 3, colour_of_legs
                )
                figure.paint(short.outline(0.25), look["bottom_colour"], zone, depth=2.2)
            sock = _Tube(np.stack([ankle + 0.25 * (knee - ankle), ankle]), (2.7, 2.6))
            zone = marks(sock, fine["legs"], 0, sock.v[-1] + 1, (150, 150, 150))
            figure.paint(sock.outline(0.3), (150, 150, 150), zone, depth=1.0)
        else:
            zone = marks(tube, fine["legs"], length * 0.50, length * 0.90, colour_of_legs)
            figure.paint(tube.outline(0.35), colour, zone, depth=2.0,
                         folds=creases(tube, ((length * 0.46, 2.5), (length * 0.95, -1.5), (length * 0.2, 3))))  # fmt: skip

    colour_of_legs = look["bottom_colour"]

    def paint_arm(arm, bag):
        flat, _ = seen(arm)
        shoulder, elbow, wrist = flat
        hand = wrist + (wrist - elbow) * 0.13
        figure.paint(_ellipse(*hand, 1.9, 2.3), skin, depth=0.8, shadow=40)
        radii = np.array((4.1, 3.4, 2.7)) if long_sleeves else np.array((3.3, 2.6, 2.0))
        tube = _Tube(flat, radii * girth**0.5, bow=0.1)
        if long_sleeves:
            length = tube.v[-1]
            zone = marks(tube, fine["sleeves"], length * 0.3, length * 0.82, top)
            figure.paint(tube.outline(0.35), top, zone, depth=1.7,
                         folds=creases(tube, ((length * 0.5, 1.5), (length * 0.9, 1.0))))  # fmt: skip
        else:
            figure.paint(tube.outline(), skin, depth=1.4)
            sleeve = _Tube(
                np.stack([shoulder, 0.5 * (shoulder + elbow), elbow]),
                np.array((4.4, 4.3, 3.9)) * girth**0.5,
                bow=0.15,
            )
            zone = marks(sleeve, fine["sleeves"], sleeve.v[-1] * 0.25, sleeve.v[-1] + 2, top)
            figure.paint(sleeve.outline(0.3), top, zone, depth=1.7)
        if bag:
            colour = look["bag_colour"]
            x, y = hand
            handle = [
                _Tube(
                    [(x - 2.6, y + 7), (x - 2.2, y), (x + 2.2, y), (x + 2.6, y + 7)], (0.5,) * 4
                ).outline()
            ]
            figure.paint(handle, np.array(colour) * 0.6, depth=0.4, shadow=0)
            body = _Tube([(x, y + 6), (x, y + 8), (x, y + 17)], (4.0, 5.0, 5.6))
            figure.paint(
                body.outline(0.25), colour, marks(body, fine["bag"], 2.5, 9, colour), depth=1.5
            )

    trunk_end = {"coat": 66, "dress": 68}.get(look["top"], 53)
    levels = np.array([(15.2, 3.4, 3.2), (17.0, 7.6, 4.6), (19.2, 10.6, 6.0), (25, 11.0, 7.2),
                       (33, 10.2, 7.0), (41, 9.4, 6.4), (47, 9.9, 7.0), (53, 10.4, 7.4)])  # fmt: skip
    if trunk_end > 53:
        levels = np.concatenate(
            [levels, [(trunk_end, 12.0 if look["top"] == "dress" else 11.2, 8.8)]]
        )
    axis = np.stack([np.zeros(len(levels)), levels[:, 0], np.zeros(len(levels))], 1)
    trunk = _Tube(seen(axis)[0], [width(a, b) for _, a, b in levels], turn=0.0, bow=view["pitch"])
    side = math.atan2(sin, cos)  # where the person's front is, around the trunk

    def around(angle):
        """The u of a direction (0 front, pi back) on the trunk, or None when it faces away."""
        seen_angle = (angle + side + math.pi) % (2 * math.pi) - math.pi
        return seen_angle * trunk.girth if abs(seen_angle) < 1.25 else None

    def paint_trunk():
        zone = []
        if look["print"]:
            middle = around(0.0) if facing else around(math.pi)
            for polygon, is_ink in PRINTS[fine["print"]]:
                dense = np.concatenate(
                    [
                        np.linspace(a, b, 5)[:-1]
                        for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True)
                    ]
                )
                light, dark = _two_tones(top, 0.45, look["tint"])
                zone.append(
                    (trunk.place(dense * 6.6 + (middle or 0, 17)), light if is_ink else top)
                )
        else:
            zone = marks(trunk, fine["torso"], 5.0, trunk.v[-1] + 3, top)
        end = trunk.v[-1]
        folds = creases(trunk, ((end * 0.62, 3), (end * 0.72, -3), (end * 0.28, 3), (end * 0.9, 4)))
        figure.paint(trunk.outline(0.18), top, zone, depth=3.2, folds=folds)
        if look["top"] == "coat" and facing:
            seam = around(0.0)
            if seam is not None:
                line = trunk.place(_band(np.linspace(3, end, 9), seam - 0.45, seam + 0.45)[:, ::-1])
                figure.paint(line, np.array(top) * 0.45, depth=0.4, shadow=30)
        if look["bag"] in ("backpack", "shoulder bag") and (
            facing or look["bag"] == "shoulder bag"
        ):
            straps = []
            if look["bag"] == "backpack":
                for angle in (-0.62, 0.62):
                    u = around(angle)
                    if u is not None:
                        straps.append(_band(np.linspace(1.5, 20, 8), u - 1.2, u + 1.2)[:, ::-1])
            else:
                down = np.linspace(1.0, 33, 9)
                slope = np.interp(down, (1, 33), (-0.55, 0.9)) * trunk.girth * (1 if facing else -1)
                strip = _band(down, -1.1, 1.1)[:, ::-1]
                strip[:, 0] += np.concatenate([slope, slope[::-1]])
                straps.append(strip)
            if straps:
                figure.paint(
                    [trunk.place(s) for s in straps], np.array(look["bag_colour"]) * 0.8, depth=0.6
                )

    def paint_skirt():
        if look["bottom"] == "skirt":
            axis = seen([(0, 49, 0), (0, 56, 0), (0, 66, 0)])[0]
            skirt = _Tube(axis, [width(9.2, 7), width(10.8, 8.4), width(12.4, 10)], bow=0.12)
            zone = marks(skirt, fine["legs"], 5, skirt.v[-1] + 3, colour_of_legs)
            figure.paint(skirt.outline(0.18), look["bottom_colour"], zone, depth=2.6)

    def paint_backpack():
        centre, _ = seen((0, 19, -8.5))
        x, y = centre[0]
        half = math.hypot(7.6 * cos, 4.6 * sin)
        body = _Tube(
            [(x, y), (x, y + 2), (x, y + 12), (x, y + 23)],
            (half * 0.55, half * 0.9, half, half),
            bow=view["pitch"],
        )
        colour = look["bag_colour"]
        zone = marks(body, fine["bag"], 11, 21, colour)
        figure.paint(body.outline(0.35), colour, zone, depth=1.9)

    def paint_shoulder_bag():
        spot, _ = seen((10.5, 51, 2.0))
        x, y = spot[0]
        half = max(3.0, math.hypot(3.6 * cos, 7 * sin))
        body = _Tube([(x, y - 5), (x, y - 3), (x, y + 6)], (half * 0.8, half, half))
        colour = look["bag_colour"]
        figure.paint(body.outline(0.3), colour, marks(body, fine["bag"], 4, 9.5, colour), depth=1.4)

    order = np.argsort([seen(arm)[1][0] for arm in arms])
    bag_arm = 0 if look["bag"] == "handbag" else None
    far = [i for i in order if seen(arms[i])[1][0] < -3]
    neck = seen([(0, 11, 0.5), (0, 14, 0.3), (0, 17.2, 0.2)])[0]
    head = seen([(0, 7.2, 0.8)])[0][0]
    if facing:
        _paint_back_hair(figure, look, head, cos, sin)
        if look["bag"] == "backpack":
            paint_backpack()
    for i in far:
        paint_arm(arms[i], i == bag_arm)
    if look["bag"] == "shoulder bag" and seen((10.5, 51, 2.0))[1][0] < 0:
        paint_shoulder_bag()
    for leg in sorted(legs, key=lambda leg: seen(leg)[1][1]):
        paint_leg(leg)
    paint_skirt()
    paint_trunk()
    if look["bag"] == "shoulder bag" and seen((10.5, 51, 2.0))[1][0] >= 0:
        paint_shoulder_bag()
    for i in order:
        if i not in far:
            paint_arm(arms[i], i == bag_arm)
    if not facing and look["bag"] == "backpack":
        paint_backpack()
    if look["top"] == "hoodie" and facing:
        figure.paint(
            _ellipse(*(neck[2] + (0, -0.6)), 5.6 * girth, 2.6), np.array(top) * 0.85, depth=1.2
        )
    figure.paint(
        _Tube(neck, (2.5, 2.5, 2.9)).outline(0.6 if facing else 0.2),
        np.array(skin) * 0.9,
        depth=1.2,
    )
    _paint_head(figure, look, head, side, cos, sin)
    if look["top"] == "hoodie" and not facing:
        figure.paint(
            _ellipse(*(neck[2] + (0, 1.4)), 6.0 * girth, 4.0), np.array(top) * 0.92, depth=1.6
        )
    if not facing:
        _paint_back_hair(figure, look, head, cos, sin)


def _paint_back_hair(figure, look, head, cos, sin):
    """Hair that falls behind the neck."""
    x, y = head
    back = x - 2.0 * sin
    colour = look["hair"]
    if look["hair_style"] == "long":
        tube = _Tube(
            [(back, y - 4), (back, y + 2), (back, y + 10), (back - 0.6 * sin, y + 19)],
            (4.2, 5.7, 6.0, 4.4),
        )
        figure.paint(tube.outline(0.5), colour, depth=1.6)
    elif look["hair_style"] == "bob":
        tube = _Tube([(back, y - 4), (back, y + 2), (back, y + 8)], (4.4, 6.0, 5.8))
        figure.paint(tube.outline(0.35), colour, depth=1.6)
    elif look["hair_style"] == "ponytail":
        knot = x - 6.0 * sin
        tube = _Tube(
            [(knot, y - 2.5), (knot - 2.4 * sin, y + 2), (knot - 2.6 * sin, y + 13)],
            (1.8, 2.6, 0.9),
        )
        figure.paint(tube.outline(0.9), colour, depth=0.9)


def _paint_head(figure, look, head, side, cos, sin):
    """The skull with its face, hair and hat, turned by `side` (0: towards the viewer)."""
    x, y = head
    skin, hair = np.array(look["skin"]), np.array(look["hair"])
    rx, ry = 5.0, 6.7
    angle = np.linspace(0, 2 * math.pi, 33)[:-1]
    egg = np.stack([x + rx * np.cos(angle) * (1 - 0.14 * np.maximum(np.sin(angle), 0)),
                    y + ry * np.sin(angle)], 1)  # fmt: skip
    for ear in (1, -1):
        figure.paint(
            _ellipse(x + ear * 5.0 * cos + 0.3 * sin, y + 1.0, 1.1, 1.7),
            skin * 0.94,
            depth=0.6,
            shadow=20,
        )

    def spot(direction, height, rx_spot, ry_spot):
        """A feature of the face at a direction (radians from the nose), or nothing when it is away."""
        a = direction + side
        a = (a + math.pi) % (2 * math.pi) - math.pi
        if abs(a) > 1.35:
            return None
        return _ellipse(
            x + rx * 0.92 * math.sin(a),
            y + height,
            rx_spot * (0.35 + 0.65 * math.cos(a)),
            ry_spot,
            14,
        )

    features = []
    for eye in (-0.42, 0.42):
        for shape, colour in ((spot(eye, 0.2, 1.0, 0.62), (236, 232, 226)), (spot(eye, 0.25, 0.62, 0.7), (44, 32, 28)),
                              (spot(eye, -1.25, 1.25, 0.32), hair * 0.75)):  # fmt: skip
            features.append((shape, colour))
        features.append((spot(eye * 1.5, 2.3, 1.1, 0.8), skin * (1.0, 0.9, 0.88)))
    features.append((spot(0.05, 1.7, 0.55, 1.3), skin * 0.86))
    features.append((spot(0.0, 3.9, 1.35, 0.5), skin * (0.80, 0.58, 0.56)))
    sweep = np.linspace(-math.pi / 2, math.pi / 2, 25)
    directions = np.abs((sweep - side + math.pi) % (2 * math.pi) - math.pi)  # 0 is the nose
    if look["beard"]:
        low = np.interp(directions, (0, 0.3, 0.9, 1.4, 1.5), (2.7, 2.9, 2.2, 0.5, 9))
        line = np.stack([x + rx * np.sin(sweep), y + low], 1)
        below = np.stack([x + (rx + 1) * np.sin(sweep[::-1]), np.full(25, y + 9.0)], 1)
        features.insert(0, (np.concatenate([line, below]), hair * 0.5 + skin * 0.3))
    figure.paint(egg, skin, [f for f in features if f[0] is not None], depth=1.9)

    style = look["hair_style"]
    puff = {"afro": 2.6, "crop": 0.15, "short": 0.6}.get(style, 0.7)
    fringe = {"bob": -1.7, "afro": -3.4, "crop": -3.9}.get(style, -3.1)
    temple = {"crop": -1.5, "short": -0.4}.get(style, 2.5)
    nape = {"crop": 2.5, "bob": 6.5, "long": 6.5, "afro": 5.0}.get(style, 5.0)
    hairline = np.interp(
        directions,
        (0, 0.75, 1.05, 1.5, 2.0, 3.15),
        (fringe, fringe + 0.5, temple, temple + 1.2, nape - 0.8, nape),
    )
    arc = np.linspace(-math.pi / 2 - 0.25, math.pi / 2 + 0.25, 25)
    crown = np.stack([x + (rx + puff) * np.sin(arc), y - 0.2 - (ry + puff) * np.cos(arc)], 1)
    edge = np.stack([x + (rx + 0.75 * puff) * np.sin(sweep[::-1]), y + hairline[::-1]], 1)
    cap = np.concatenate([crown, edge])
    if look["hat"] is None:
        shine = [
            (
                np.stack([x - 1.8 + 2.6 * np.cos(angle), y - 4.7 - puff + 0.7 * np.sin(angle)], 1),
                hair * 1.18 + 14,
            )
        ]
        figure.paint(cap, hair, shine, depth=1.5, shadow=60)
        if style == "bun":
            figure.paint(
                _ellipse(x - 4.2 * sin, y - 6.6 + (0 if cos > 0 else 1.5), 2.7, 2.5),
                hair,
                depth=1.1,
            )
        return
    figure.paint(cap, hair, depth=1.2, shadow=40)
    cloth = np.array(look["bag_colour"]) * 1.1
    brow = np.full(25, -2.4)
    hat = np.concatenate(
        [
            crown * (1, 1) + (0, -0.4),
            np.stack([x + (rx + 0.8) * np.sin(sweep[::-1]), y + brow + 0.5 * np.cos(sweep)], 1),
        ]
    )
    figure.paint(hat, cloth, depth=1.6)
    if look["hat"] == "beanie":
        figure.paint(
            _Tube(
                [(x - rx - 0.5, y - 3.0), (x, y - 2.4), (x + rx + 0.5, y - 3.0)], (1.3, 1.4, 1.3)
            ).outline(0.4),
            cloth * 0.8,
            depth=0.7,
        )
    elif cos > -0.3:
        figure.paint(
            _ellipse(x + 4.6 * sin, y - 2.3 + 0.5 * cos, 4.2 * abs(cos) + 2.6 * abs(sin), 1.1),
            cloth * 0.75,
            depth=0.5,
            shadow=90,
        )


# ---------------------------------------------------------------- scenes
_panoramas = {}


def _panorama(scene, height, width, seed):
    """A camera's surroundings, six images wide, drawn once in a process."""
    key = scene, height, width, seed
    if key not in _panoramas:
        rng = np.random.default_rng((seed, 3, sorted(_SCENES).index(scene)))
        tall, wide = 2 * height, 12 * width
        image = Image.new("RGB", (wide, tall), (128, 128, 128))
        _SCENES[scene](ImageDraw.Draw(image, "RGBA"), image, rng, tall, wide)
        image = image.filter(ImageFilter.GaussianBlur(tall * 0.006))
        grain = _clouds(rng, tall, wide, tall // 40) + 0.6 * _clouds(rng, tall, wide, tall // 8)
        pixels = np.asarray(image, float) * (1 + 0.10 * grain)[..., None]
        image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        _panoramas[key] = image.reduce(2)
    return _panoramas[key]


def _clouds(rng, tall, wide, cell):
    """Smooth noise between about -1 and 1, in lumps of `cell` pixels."""
    coarse = rng.integers(0, 256, (tall // cell + 2, wide // cell + 2), dtype=np.uint8)
    return (
        np.asarray(Image.fromarray(coarse).resize((wide, tall), Image.Resampling.BICUBIC), float)
        / 128
        - 1
    )


def _gradient(draw, top, bottom, y0, y1, wide):
    for y in range(y0, y1):
        share = (y - y0) / max(1, y1 - y0)
        draw.line(
            (0, y, wide, y), fill=_rgb(np.array(top) * (1 - share) + np.array(bottom) * share)
        )


def _floor(draw, y0, tall, wide, line, columns):
    """Joints of slabs in perspective."""
    for i in range(7):
        y = y0 + (tall - y0) * (i / 6) ** 1.7
        draw.line((0, y, wide, y), fill=line, width=max(1, tall // 200))
    for i in range(columns + 1):
        x = wide * i / columns
        draw.line(
            (x, y0, x + (tall - y0) * ((i % 7) - 3) * 0.12, tall),
            fill=line,
            width=max(1, tall // 200),
        )


def _street(draw, image, rng, tall, wide):
    floor = int(0.70 * tall)
    x = 0
    while x < wide:
        span = int(tall * rng.uniform(0.55, 0.95))
        wall = np.array(
            ((196, 180, 156), (168, 118, 98), (150, 158, 168), (206, 196, 182), (142, 134, 120))[
                rng.integers(5)
            ]
        )
        draw.rectangle((x, 0, x + span, floor), fill=_rgb(wall))
        draw.rectangle((x + span - tall * 0.02, 0, x + span, floor), fill=_rgb(wall * 0.8))
        count = max(1, int(span / (0.24 * tall)))
        for i in range(count):
            left = x + (i + 0.22) * span / count
            right = left + 0.55 * span / count
            for low, high in ((0.03, 0.2), (0.26, 0.40)):
                draw.rectangle(
                    (left - 4, low * tall - 4, right + 4, high * tall + 4), fill=_rgb(wall * 1.12)
                )
                draw.rectangle((left, low * tall, right, high * tall), fill=(70, 84, 98))
                draw.polygon(
                    (left, high * tall, left, low * tall, right, low * tall), fill=(110, 128, 142)
                )
        shop = np.array(
            ((120, 60, 56), (56, 88, 84), (70, 72, 96), (150, 120, 70))[rng.integers(4)]
        )
        draw.rectangle(
            (x + 0.04 * tall, 0.455 * tall, x + span - 0.05 * tall, 0.52 * tall), fill=_rgb(shop)
        )
        draw.rectangle(
            (x + 0.06 * tall, 0.52 * tall, x + span - 0.07 * tall, floor - 0.03 * tall),
            fill=(58, 64, 70),
        )
        for _ in range(5):
            glow = x + rng.uniform(0.1, 0.8) * span
            draw.rectangle(
                (glow, 0.55 * tall, glow + 0.05 * tall, 0.66 * tall),
                fill=(*_rgb(rng.uniform(120, 220, 3)), 150),
            )
        x += span
    _gradient(draw, (150, 146, 140), (178, 174, 166), floor, tall, wide)
    draw.rectangle((0, floor, wide, floor + 0.015 * tall), fill=(112, 108, 104))
    _floor(draw, floor + int(0.015 * tall), tall, wide, (138, 134, 128), 44)
    for _ in range(4):
        x = rng.uniform(0, wide)
        draw.rectangle((x, 0, x + 0.022 * tall, 0.80 * tall), fill=(58, 62, 64))
        draw.ellipse(
            (x - 0.02 * tall, 0.785 * tall, x + 0.042 * tall, 0.815 * tall), fill=(52, 54, 56)
        )
    for _ in range(3):
        x = rng.uniform(0, wide)
        paint = _rgb(rng.uniform(60, 190, 3))
        draw.rounded_rectangle((x, 0.60 * tall, x + 0.55 * tall, 0.72 * tall), 12, fill=paint)
        draw.polygon(
            (
                x + 0.1 * tall,
                0.60 * tall,
                x + 0.17 * tall,
                0.535 * tall,
                x + 0.38 * tall,
                0.535 * tall,
                x + 0.46 * tall,
                0.60 * tall,
            ),
            fill=(64, 74, 84),
        )
        for wheel in (0.11, 0.43):
            draw.ellipse(
                (
                    x + (wheel - 0.045) * tall,
                    0.675 * tall,
                    x + (wheel + 0.045) * tall,
                    0.765 * tall,
                ),
                fill=(36, 36, 38),
            )


def _wall(draw, image, rng, tall, wide):
    floor = int(0.76 * tall)
    draw.rectangle((0, 0, wide, floor), fill=(188, 176, 164))
    rise, run = tall / 30, tall / 13
    for row in range(int(floor / rise) + 1):
        for column in range(int(wide / run) + 2):
            x, y = (column - (row % 2) * 0.5) * run, row * rise
            tone = np.array((158, 92, 74)) * rng.uniform(0.82, 1.14) + rng.uniform(-6, 6, 3)
            draw.rectangle((x + 2, y + 2, x + run - 2, y + rise - 2), fill=_rgb(tone))
    draw.rectangle((0, floor - 0.05 * tall, wide, floor), fill=(120, 112, 106))
    for _ in range(6):
        x, y, w, h = (
            rng.uniform(0, wide),
            rng.uniform(0.08, 0.3) * tall,
            rng.uniform(0.14, 0.24) * tall,
            rng.uniform(0.2, 0.32) * tall,
        )
        draw.rectangle((x, y, x + w, y + h), fill=_rgb(rng.uniform(150, 230, 3)))
        for i in range(4):
            draw.rectangle(
                (
                    x + 0.1 * w,
                    y + (0.12 + 0.2 * i) * h,
                    x + rng.uniform(0.4, 0.9) * w,
                    y + (0.22 + 0.2 * i) * h,
                ),
                fill=_rgb(rng.uniform(60, 190, 3)),
            )
    for _ in range(4):
        x = rng.uniform(0, wide)
        draw.rectangle((x, 0, x + 0.03 * tall, floor), fill=(92, 98, 100))
        draw.rectangle((x, 0, x + 0.008 * tall, floor), fill=(130, 136, 138))
    _gradient(draw, (92, 92, 96), (124, 124, 126), floor, tall, wide)
    draw.polygon(
        (0, 0.90 * tall, wide, 0.90 * tall, wide, 0.915 * tall, 0, 0.915 * tall),
        fill=(176, 174, 160),
    )
    for _ in range(160):
        x, y = rng.uniform(0, wide), rng.uniform(floor, tall)
        draw.ellipse((x, y, x + 5, y + 2), fill=_rgb((rng.uniform(70, 150),) * 3))


def _park(draw, image, rng, tall, wide):
    floor = int(0.52 * tall)
    _gradient(draw, (186, 208, 224), (214, 224, 214), 0, floor, wide)
    for layer, (low, tone) in enumerate(
        ((0.16, (122, 148, 112)), (0.30, (88, 122, 78)), (0.42, (66, 100, 58)))
    ):
        for _ in range(90 + 60 * layer):
            x, y, r = (
                rng.uniform(0, wide),
                rng.uniform(low - 0.12, low + 0.10) * tall,
                rng.uniform(0.03, 0.08) * tall,
            )
            draw.ellipse(
                (x - r, y - r, x + r, y + r), fill=_rgb(np.array(tone) * rng.uniform(0.82, 1.18))
            )
        if layer < 2:
            draw.rectangle((0, (low + 0.08) * tall, wide, floor), fill=_rgb(np.array(tone) * 0.85))
    draw.rectangle((0, 0.47 * tall, wide, floor), fill=(60, 90, 54))
    _gradient(draw, (112, 150, 78), (134, 166, 88), floor, tall, wide)
    for _ in range(2600):
        x, y = rng.uniform(0, wide), floor + (tall - floor) * rng.random() ** 0.7
        h = 3 + 12 * (y - floor) / tall
        draw.line(
            (x, y, x + rng.uniform(-3, 3), y - h),
            fill=_rgb(np.array((118, 152, 78)) * rng.uniform(0.78, 1.2)),
            width=1,
        )
    draw.polygon(
        (0, 0.80 * tall, wide, 0.76 * tall, wide, 0.90 * tall, 0, 0.97 * tall), fill=(198, 182, 150)
    )
    for _ in range(5):
        x, w = rng.uniform(0, wide), rng.uniform(0.03, 0.055) * tall
        draw.polygon(
            (x, 0, x + w, 0, x + 1.25 * w, 0.64 * tall, x - 0.25 * w, 0.64 * tall),
            fill=(92, 74, 58),
        )
        draw.polygon(
            (x, 0, x + 0.3 * w, 0, x + 0.2 * w, 0.64 * tall, x - 0.25 * w, 0.64 * tall),
            fill=(118, 98, 78),
        )
    for _ in range(3):
        x = rng.uniform(0, wide)
        for y in (0.56, 0.60, 0.65):
            draw.rectangle((x, y * tall, x + 0.36 * tall, (y + 0.025) * tall), fill=(138, 96, 62))
        for leg in (0.03, 0.31):
            draw.rectangle(
                (x + leg * tall, 0.56 * tall, x + (leg + 0.02) * tall, 0.74 * tall),
                fill=(70, 66, 62),
            )
    for _ in range(140):
        x, y = rng.uniform(0, wide), rng.uniform(0.6, 0.76) * tall
        draw.ellipse(
            (x, y, x + 5, y + 4),
            fill=((238, 232, 214), (226, 196, 90), (214, 128, 130))[rng.integers(3)],
        )


def _corridor(draw, image, rng, tall, wide):
    floor = int(0.66 * tall)
    _gradient(draw, (226, 222, 208), (204, 200, 188), 0, floor, wide)
    draw.rectangle((0, 0.40 * tall, wide, floor), fill=(150, 168, 166))
    draw.rectangle((0, 0.39 * tall, wide, 0.405 * tall), fill=(112, 104, 92))
    _gradient(draw, (150, 144, 132), (202, 196, 184), floor, tall, wide)
    x = 0.1 * tall
    while x < wide:
        kind = rng.integers(3)
        if kind == 0:
            draw.rectangle((x - 8, 0.07 * tall, x + 0.30 * tall + 8, floor), fill=(116, 104, 90))
            draw.rectangle((x, 0.09 * tall, x + 0.30 * tall, floor), fill=(164, 128, 92))
            draw.rectangle(
                (x + 0.06 * tall, 0.15 * tall, x + 0.24 * tall, 0.34 * tall), fill=(150, 178, 184)
            )
            draw.ellipse(
                (x + 0.26 * tall, 0.40 * tall, x + 0.285 * tall, 0.425 * tall), fill=(214, 204, 170)
            )
            draw.rectangle((x, floor, x + 0.30 * tall, 0.84 * tall), fill=(150, 124, 98, 70))
        elif kind == 1:
            draw.rectangle((x, 0.12 * tall, x + 0.36 * tall, 0.34 * tall), fill=(172, 132, 90))
            for _ in range(9):
                u, v = x + rng.uniform(0.02, 0.29) * tall, rng.uniform(0.14, 0.28) * tall
                draw.rectangle(
                    (u, v, u + 0.05 * tall, v + 0.05 * tall), fill=_rgb(rng.uniform(170, 250, 3))
                )
        else:
            draw.rectangle((x, 0.46 * tall, x + 0.12 * tall, 0.70 * tall), fill=(92, 106, 116))
            draw.rectangle((x, 0.46 * tall, x + 0.12 * tall, 0.49 * tall), fill=(128, 142, 150))
        x += rng.uniform(0.42, 0.75) * tall
    draw.rectangle((0, floor - 0.02 * tall, wide, floor), fill=(104, 98, 92))
    _floor(draw, floor, tall, wide, (150, 144, 134), 30)
    for i in range(7):
        x = (i + 0.4) * wide / 7
        draw.polygon(
            (x, floor, x + 0.16 * tall, floor, x + 0.24 * tall, tall, x - 0.08 * tall, tall),
            fill=(236, 232, 222, 60),
        )


_SCENES = {"street": _street, "wall": _wall, "park": _park, "corridor": _corridor}


def _photograph(figure, view, rng, panorama):
    """Put the figure into its scene with a shadow, and see it through the camera."""
    height, width = figure.height, figure.width
    left = int(rng.integers(panorama.width - width + 1))
    scene = panorama.crop((left, 0, left + width, height))
    alpha = figure.alpha.reduce(OVERSAMPLING)
    # The shadow: the silhouette laid down on the ground away from the light, soft with distance.
    foot = figure.foot / OVERSAMPLING
    lean, flat = -1.5 * view["light"][0], 0.16 + 0.5 * view["pitch"]
    lying = alpha.transform(
        alpha.size,
        Image.Transform.AFFINE,
        (1, -lean, lean * foot[1], 0, 1 / flat, foot[1] * (1 - 1 / flat)),
        Image.Resampling.BILINEAR,
    )
    contact = Image.new("L", alpha.size)
    x, y = foot
    box = (x - 0.2 * width, y - 0.018 * height, x + 0.2 * width, y + 0.014 * height)
    ImageDraw.Draw(contact).ellipse(box, fill=255)
    shadow = ImageChops.lighter(
        lying.filter(ImageFilter.GaussianBlur(height / 90)).point(
            [n * 4 // 10 for n in range(256)]
        ),
        contact.filter(ImageFilter.GaussianBlur(height / 70)).point(
            [n * 6 // 10 for n in range(256)]
        ),
    )
    scene = Image.composite(Image.new("RGB", scene.size, (22, 20, 28)), scene, shadow)

    # The canvas was black outside the figure, so its reduction is already weighted by alpha.
    cut_out = Image.composite(figure.rgb, Image.new("RGB", figure.rgb.size), figure.alpha)
    share = np.asarray(alpha, float)[..., None] / 255
    pixels = np.asarray(cut_out.reduce(OVERSAMPLING), float) + (1 - share) * np.asarray(
        scene, float
    )
    across = np.linspace(-1, 1, width)[None, :, None] * 0.06 * view["light"][0]
    pixels *= (1 - across) * np.array(view["gain"]) * rng.uniform(0.92, 1.08)
    gamma = view["gamma"] * rng.uniform(0.95, 1.05)
    table = [round(255 * (n / 255) ** gamma) for n in range(256)] * 3
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).point(table)
    blur = view["blur"] * rng.uniform(0.7, 1.3) * height / 128
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), float)
    pixels += view["noise"] * rng.standard_normal(pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


# ---------------------------------------------------------------- files
def _keras_home():
    import keras

    home = getattr(keras.config, "keras_home", None)
    if home is not None:
        return Path(home())
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _shots(people):
    """(part, person, camera, shot) of every image, in the order of the file names."""
    for person in range(1, 2 * people + 1):
        for camera in range(1, CAMERAS + 1):
            for shot in range(SHOTS):
                part = "train" if person <= people else "gallery" if shot else "query"
                yield part, person, camera, shot


def _file_name(part, person, camera, shot):
    return f"{part}/{person:04d}_c{camera}_{shot:03d}.png"


def _draw_all(folder, image_size, people, seed, verbose):
    """Draw every image into a temporary neighbour of `folder`, renamed when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for part in ("train", "query", "gallery"):
            (building / part).mkdir()
        count = max(1, min(os.cpu_count() or 1, 8, people))
        commands = [
            [sys.executable, __file__, building, *image_size, people, seed, worker, count]
            for worker in range(count)
        ]
        progress = None
        if verbose:
            import keras

            print(f"Drawing {2 * people} people, once, into {folder}")
            progress = keras.utils.Progbar(2 * people, unit_name="person")
        workers = [
            subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
            for command in commands
        ]
        lock = threading.Lock()

        def follow(worker):
            for _ in worker.stdout:
                with lock:
                    if progress is not None:
                        progress.add(1)

        readers = [threading.Thread(target=follow, args=(worker,)) for worker in workers]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        if any(worker.wait() for worker in workers):
            raise OSError("a drawing process failed; its message is above")
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir():  # unless another process was first with the same images
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _draw_share(folder, height, width, people, seed, worker, workers):
    """Draw every `workers`-th person, saying so in a line for each."""
    last = None
    for part, person, camera, shot in _shots(people):
        if person % workers != worker:
            continue
        image = draw_person(person, camera, shot, (height, width), seed)
        image.save(Path(folder) / _file_name(part, person, camera, shot), compress_level=6)
        if person != last:
            print(person, flush=True)
            last = person


if __name__ == "__main__":
    _draw_share(sys.argv[1], *(int(word) for word in sys.argv[2:]))
