"""How the embedded people are drawn: cloth and bodies, a camera's surroundings, the photograph.

Who is drawn, and where it is kept, stands in `synthetic.py`: raise its VERSION whenever a pixel
changes here. Its drawing processes load this file without the package around it, so that it
imports nothing but NumPy and Pillow.
"""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

OVERSAMPLING = 4

# fmt: off
# Of bags, and of the cars that stand in the street.
BAGS = ((86, 70, 58), (64, 84, 110), (142, 74, 62), (92, 106, 74), (74, 72, 80), (176, 140, 84))

# Patterns: kind and period in hundredths of the body height (1 is 1.1 pixels of 128), and the
# share of the cloth that each kind covers with ink.
PATTERNS = (("hoops", 5.6), ("hoops", 9.6), ("stripes", 5.6), ("stripes", 9.6), ("checks", 7.0),
            ("checks", 11.6), ("diagonal", 7.2), ("chevrons", 8.0), ("dots", 7.4), ("grid", 8.4))
COVERED = {"hoops": 0.5, "stripes": 0.5, "checks": 0.5, "diagonal": 0.5, "chevrons": 0.5,
           "dots": 0.39, "grid": 0.51}
TRIMS = ("ring", "two rings", "three rings", "wide ring", "seam")
# fmt: on


# ---------------------------------------------------------------- patterns and prints
def _pattern(kind, period, u0, u1, v0, v1):
    """Polygons (n, k, 2) of a pattern on cloth: u runs around the body, v down it."""
    u = np.arange(math.floor(u0 / period) - 1, math.ceil(u1 / period) + 1) * period
    v = np.arange(v0, v1, period)
    above = np.r_[v0 - period, v]
    down = np.linspace(v0, v1, 11)
    if kind == "hoops":
        across = np.linspace(u0, u1, 11)
        return np.stack([_strip(across, s, s + period / 2) for s in v])
    if kind == "stripes":
        return np.stack([_strip(down, s, s + period / 2)[:, ::-1] for s in u + period / 4])
    if kind == "diagonal":
        starts = np.arange(math.floor((u0 - v1 + v0) / period), math.ceil(u1 / period)) * period
        bands = np.stack([_strip(down, s, s + period / 2)[:, ::-1] for s in starts])
        bands[:, :, 0] += np.r_[down, down[::-1]] - v0
        return bands
    if kind == "chevrons":
        knots = np.arange(u[0], u[-1] + period, period / 2)
        bands = np.stack([_strip(knots, s, s + period / 2) for s in above])
        rise = np.where(np.arange(len(knots)) % 2, period * 0.6, 0.0)
        bands[:, :, 1] += np.r_[rise, rise[::-1]]
        return bands
    if kind == "checks":
        corners = [(a + s, b + s) for a in u for b in above for s in (0, period / 2)]
        return np.array(corners)[:, None] + period / 2 * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    if kind == "dots":
        rows = list(enumerate(np.arange(v0, v1, period * 0.72)))
        centres = [(a + (i % 2) * period / 2, b + period / 4) for a in u for i, b in rows]
        return np.array(centres)[:, None] + 0.31 * period * _circle(10)
    assert kind == "grid"
    across = np.linspace(u0, u1, 11)
    rows = [_strip(across, s, s + 0.3 * period) for s in v]
    return np.stack(rows + [_strip(down, s, s + 0.3 * period)[:, ::-1] for s in u])


def _strip(along, low, high):
    """The outline of a strip between `low` and `high`."""
    there = np.stack([along, np.full(len(along), low)], 1)
    back = np.stack([along[::-1], np.full(len(along), high)], 1)
    return np.concatenate([there, back])


def _circle(n):
    angle = np.arange(n) * (2 * math.pi / n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _ellipse(x, y, rx, ry, n=24):
    return np.array([x, y]) + _circle(n) * (rx, ry)


def _star(points, inner):
    angle = np.arange(2 * points) * (math.pi / points) - math.pi / 2
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]


def _box(u0, v0, u1, v1):
    return np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], float)


def _dense(polygon, n=5):
    """The same polygon with more corners, to be bent around a body."""
    share = np.linspace(0, 1, n, endpoint=False)[None, :, None]
    ahead = np.roll(polygon, -1, 0)
    return (polygon[:, None] * (1 - share) + ahead[:, None] * share).reshape(-1, 2)


# Prints in a square from -1 to 1, about equal in area: (polygon, is it ink or bare cloth).
# fmt: off
PRINTS = {
    "ring": [(_circle(20) * 0.95, True), (_circle(20) * 0.5, False)],
    "cross": [(_box(-0.3, -0.95, 0.3, 0.95), True), (_box(-0.95, -0.3, 0.95, 0.3), True)],
    "saltire": [(np.array([(-1, -0.6), (-0.6, -1), (1, 0.6), (0.6, 1)]), True),
                (np.array([(1, -0.6), (0.6, -1), (-1, 0.6), (-0.6, 1)]), True)],
    "star": [(_star(5, 0.45) * 1.12, True)],
    "triangle": [(np.array([(0, -1), (1, 0.9), (-1, 0.9)]), True)],
    "arrow": [(np.array([(-1, -0.8), (0, 0.1), (1, -0.8), (1, 0), (0, 0.9), (-1, 0)]), True)],
    "rows": [(_box(-0.9, v, 0.9, v + 0.38), True) for v in (-0.95, -0.2, 0.55)],
    "columns": [(_box(u, -0.9, u + 0.38, 0.9), True) for u in (-0.95, -0.2, 0.55)],
    "frame": [(_box(-0.9, -0.9, 0.9, 0.9), True), (_box(-0.5, -0.5, 0.5, 0.5), False)],
    "blocks": [(_box(u, v, u + 0.85, v + 0.85), True) for u, v in ((-0.9, -0.9), (0.05, 0.05))],
    "text": [(_box(u, v, u + w, v + 0.42), True) for u, v, w in
             ((-0.95, -0.8, 0.5), (-0.3, -0.8, 0.35), (0.2, -0.8, 0.75), (-0.95, -0.15, 0.9),
              (0.15, -0.15, 0.35), (-0.6, 0.5, 0.35), (-0.1, 0.5, 0.9))],
}
# fmt: on


def _two_tones(colour, covered, tint=(1, 1, 1), contrast=80):
    """Ink and ground whose mean, weighted by the share that the ink covers, is the colour."""
    colour, step = np.array(colour, float), contrast * np.array(tint, float)
    # As far apart as the range of values allows, and still balanced.
    room = np.r_[1, (250 - colour) / ((1 - covered) * step), (colour - 8) / (covered * step)].min()
    return colour + room * (1 - covered) * step, colour - room * covered * step


# ---------------------------------------------------------------- bodies
class _Tube:
    """A limb, a trunk or a skirt: a bent axis with a radius along it, and cloth around it.

    Lengths are hundredths of the body height.

    Args:
        axis: (n, 2) corners of the axis, which is rounded.
        radii: (n,) radius at each.
        bow: How much a ring around the tube sags, seen from above.
    """

    def __init__(self, axis, radii, bow=0.1):
        nodes = np.column_stack([np.asarray(axis, float), np.asarray(radii, float)])
        for _ in range(2):  # cut the corners: elbows and knees are round
            inner = np.stack([0.75 * nodes[:-1] + 0.25 * nodes[1:],
                              0.25 * nodes[:-1] + 0.75 * nodes[1:]], 1)  # fmt: skip
            nodes = np.concatenate([nodes[:1], inner.reshape(-1, 3), nodes[-1:]])
        self.axis, self.radius = nodes[:, :2], np.maximum(nodes[:, 2], 0.05)
        step = np.diff(self.axis, axis=0)
        self.v = np.r_[0, np.cumsum(np.maximum(np.hypot(*step.T), 1e-6))]
        along = np.gradient(self.axis, self.v, axis=0)
        along /= np.maximum(np.hypot(*along.T), 1e-6)[:, None]
        self.along, self.across = along, np.stack([along[:, 1], -along[:, 0]], 1)
        self.length, self.girth, self.bow = self.v[-1], self.radius.max(), bow

    def outline(self, start=0.0, end=0.5):
        """The silhouette; `start` and `end` say how round its ends are."""
        side = self.across * self.radius[:, None]
        angle = np.linspace(0, math.pi, 9)[1:-1, None]
        cos, sin = np.cos(angle), np.sin(angle)
        last = self.axis[-1] + cos * side[-1] + end * sin * self.radius[-1] * self.along[-1]
        first = self.axis[0] - cos * side[0] - start * sin * self.radius[0] * self.along[0]
        return np.concatenate([self.axis + side, last, (self.axis - side)[::-1], first])

    def place(self, cloth):
        """Map cloth (..., 2), u around the tube (0 faces the viewer), v down it, to the plane."""
        u, v = cloth[..., 0], np.clip(cloth[..., 1], 0, None)
        angle = np.clip(u / self.girth, -math.pi / 2, math.pi / 2)
        radius = np.interp(v, self.v, self.radius)
        side, beyond = radius * np.sin(angle), np.maximum(v - self.length, 0)
        x = np.interp(v, self.v, self.axis[:, 0]) + side * np.interp(v, self.v, self.across[:, 0])
        y = np.interp(v, self.v, self.axis[:, 1]) + side * np.interp(v, self.v, self.across[:, 1])
        return np.stack([x, y + self.bow * radius * (np.cos(angle) - 0.5) + beyond], -1)

    def patterned(self, pattern, colour, v0, v1, tint=(1, 1, 1)):
        """The marks of a pattern between v0 and v1, its mean colour as given."""
        kind, period = pattern
        ink, ground = _two_tones(colour, COVERED[kind], tint)
        reach = self.girth * math.pi / 2
        polygons = _pattern(kind, period, -reach, reach, v0, v1)
        polygons[..., 1] = np.clip(polygons[..., 1], v0, v1)
        cloth = _strip(np.linspace(-reach, reach, 9), v0, v1)
        return [(self.place(cloth), ground), (self.place(polygons), ink)]

    def trimmed(self, trim, ink, v0, v1):
        """The marks of a trim: narrow rings between v0 and v1, or a seam along the tube."""
        reach = self.girth * math.pi / 2
        if trim == "seam":
            strips = [_strip(np.linspace(1, self.length + 3, 12), -0.95, 0.95)[:, ::-1]]
        else:
            count, wide = {"ring": (1, 2.2), "two rings": (2, 2.1), "three rings": (3, 1.8),
                           "wide ring": (1, 5.0)}[trim]  # fmt: skip
            starts = v1 - wide - np.arange(count) * min(4.0, (v1 - v0 - wide) / max(1, count - 1))
            around = np.linspace(-reach, reach, 9)
            strips = [_strip(around, s, s + wide) for s in starts]
        return [(self.place(np.stack(strips)), ink)]


class Canvas:
    """A person cut out: parts are painted one over the other, shaded, on nothing.

    Points are in body units: x to the right, y down from the crown, the soles at 100.
    """

    def __init__(self, rng, view, height, width):
        self.view, self.height, self.width = view, height, width
        size = OVERSAMPLING * width, OVERSAMPLING * height
        self.rgb, self.alpha = Image.new("RGB", size), Image.new("L", size)
        self.unit = view["scale"] * rng.uniform(0.96, 1.03) * size[1] / 100
        tilt = math.radians(view["tilt"] + rng.uniform(-1.2, 1.2))
        self.turned = np.array(
            ((math.cos(tilt), math.sin(tilt)), (-math.sin(tilt), math.cos(tilt)))
        )
        self.foot = np.array(size) * (0.5 + rng.uniform(-0.05, 0.05), rng.uniform(0.93, 0.96))

    def project(self, points):
        """Body units to pixels of the canvas."""
        x, y = points[..., 0], points[..., 1] - 100
        x = x * (1 - self.view["widen"] * (y + 50) / 100) + self.view["shear"] * y
        return np.stack([x, y], -1) @ self.turned * self.unit + self.foot

    def paint(self, outlines, colour, marks=(), depth=1.0, folds=None, shadow=70):
        """Paint a part over those before it.

        Args:
            outlines: Its silhouette, a polygon (k, 2), or a list of several.
            colour: Its RGB colour.
            marks: (polygon (k, 2) or polygons (n, k, 2), RGB) pairs painted on it.
            depth: How far the shading reaches in from the edge.
            folds: (n, 2, 2) lines where the cloth creases.
            shadow: Strength, 0 to 255, of the shadow that it throws on the parts behind.
        """
        outlines = outlines if isinstance(outlines, list) else [outlines]
        polygons = [self.project(outline) for outline in outlines]
        points = np.concatenate(polygons)
        reach = max(2, round(depth * self.unit))
        corner = np.floor(points.min(0)).astype(int) - reach
        # Even, as the light is worked out at half the size.
        size = tuple(int(n) // 2 * 2 for n in np.ceil(points.max(0)) + reach + 1 - corner)
        mask = Image.new("L", size)
        _fill(mask, [polygon - corner for polygon in polygons], 255)
        cloth = Image.new("RGB", size, _rgb(colour))
        for shapes, ink in marks:
            _fill(cloth, self.project(shapes) - corner, _rgb(ink))

        # Rounded: the blurred silhouette, shifted, is bright where the part faces the light.
        soft = mask.reduce(2)
        if folds is not None:
            draw = ImageDraw.Draw(soft)
            for fold in (self.project(folds) - corner) / 2:
                draw.line(fold.ravel().tolist(), fill=60, width=max(1, round(0.45 * self.unit)))
        soft = soft.filter(ImageFilter.BoxBlur(reach * 0.38)).filter(ImageFilter.BoxBlur(reach / 5))
        x, y = self.view["light"]
        light = ImageChops.offset(soft, round(0.35 * reach * x), round(0.35 * reach * y))
        light = light.point(_SHADING).resize(size, Image.Resampling.BILINEAR)
        cloth = ImageChops.multiply(cloth, Image.merge("RGB", (light, light, light)))

        corner = int(corner[0]), int(corner[1])
        if shadow:
            thrown = soft.point(_SHARES[shadow]).resize(size, Image.Resampling.BILINEAR)
            dropped = corner[0] - round(x * reach * 0.6), corner[1] + reach // 2
            self.rgb.paste((12, 10, 16), dropped, thrown)
        self.rgb.paste(cloth, corner, mask)
        self.alpha.paste(255, corner, mask)


_SHADING = [min(255, round(255 * (0.50 + 0.54 * (n / 255) ** 0.9))) for n in range(256)]
_SHARES = [[share * n // 255 for n in range(256)] for share in range(256)]


def _fill(image, polygons, colour):
    draw = ImageDraw.Draw(image)
    for polygon in polygons if isinstance(polygons, list) or polygons.ndim == 3 else [polygons]:
        draw.polygon(polygon.ravel().tolist(), fill=colour)


def _rgb(colour):
    return tuple(int(min(255, max(0, round(float(c))))) for c in colour)


def _shade(colour, factor):
    return np.array(colour) * factor


class Body:
    """A described person in one pose, seen from one side."""

    def __init__(self, canvas, look, rng):
        self.canvas, self.look, self.fine = canvas, look, look["fine"]
        self.pitch = canvas.view["pitch"]
        turn = math.radians(canvas.view["turn"] + rng.uniform(-1, 1) * canvas.view["spread"])
        self.cos, self.sin = math.cos(turn), math.sin(turn)
        self.side = math.atan2(self.sin, self.cos)  # where the nose points; 0 is the viewer
        self.facing = self.cos > 0
        self.legs, self.arms = _pose(rng)
        self.ground = 96.3 - max(leg[2, 1] for leg in self.legs)  # one foot stands
        self.wave = rng.uniform(-1, 1, (6, 2))

    def seen(self, joints):
        """Joints (n, 3) in the picture plane: (n, 2) positions and (n,) nearness."""
        x, y, z = np.asarray(joints, float).T
        near = z * self.cos - x * self.sin
        down = y + self.ground + self.pitch * near
        flat = np.stack([self.look["girth"] * (x * self.cos + z * self.sin),
                         100 - (100 - down) * self.look["height"]], -1)  # fmt: skip
        return flat, near

    def half(self, wide, deep):
        """Half the width that an elliptic section shows."""
        return self.look["girth"] * math.hypot(wide * self.cos, deep * self.sin)

    def folds(self, tube, *places):
        """Creases across a tube at (v, slant)."""
        v, slant = np.array(places, float).T
        right = tube.girth * (0.9 + 0.3 * self.wave[: len(v), 0])
        left = -0.2 * tube.girth * self.wave[: len(v), 1]
        ends = np.stack([np.stack([right, v], -1), np.stack([left, v + slant], -1)], 1)
        return tube.place(ends)

    def paint(self):
        """Paint everything, far parts first."""
        look = self.look
        bag, bag_spot = look["bag"], (10.5, 51.0, 2.0)
        hand_bag = 0 if bag == "handbag" else None
        bag_is_near = self.seen([bag_spot])[1][0] >= 0
        nearness = [self.seen(arm)[1][0] for arm in self.arms]
        far = [i for i in np.argsort(nearness) if nearness[i] < -3]
        if self.facing:
            self.long_hair()
            if bag == "backpack":
                self.backpack()
        for i in far:
            self.arm(self.arms[i], i == hand_bag)
        if bag == "shoulder bag" and not bag_is_near:
            self.shoulder_bag(bag_spot)
        for leg in sorted(self.legs, key=lambda leg: self.seen(leg)[1][1]):
            self.leg(leg)
        if look["bottom"] == "skirt":
            self.skirt()
        self.trunk()
        if bag == "shoulder bag" and bag_is_near:
            self.shoulder_bag(bag_spot)
        for i in np.argsort(nearness):
            if i not in far:
                self.arm(self.arms[i], i == hand_bag)
        if bag == "backpack" and not self.facing:
            self.backpack()
        self.neck_and_head()
        if not self.facing:
            self.long_hair()

    # -- legs
    def leg(self, joints):
        look, fine, paint = self.look, self.fine, self.canvas.paint
        (hip, knee, ankle, toe), _ = self.seen(joints)
        thick = look["girth"] ** 0.5
        middle, heel = (ankle + toe) / 2, 0.18 * (ankle - toe)[0]
        below = np.array(((heel, 1.4), (0, 1.5), (0, 1.8)))
        shoe = _Tube(np.stack([ankle, middle, toe]) + below, (2.4, 2.4, 2.0))
        sole = max(ankle[1], toe[1]) + 3.0
        marks = [(_box(-1.1, -3, 1.1, 9) + middle, fine["shoes_ink"]),
                 (_box(-9, sole - ankle[1], 9, 9) + ankle, (226, 224, 218))]  # fmt: skip
        paint(shoe.outline(0.8, 1.0), look["shoes"], marks, depth=0.9)
        if look["bottom"] == "trousers":
            tube = _Tube([hip, knee, ankle], np.array((5.4, 4.1, 3.3)) * thick)
            n = tube.length
            marks = tube.trimmed(fine["legs"], fine["legs_ink"], 0.62 * n, 0.86 * n)
            folds = self.folds(tube, (0.46 * n, 2.5), (0.95 * n, -1.5), (0.2 * n, 3))
            paint(tube.outline(0, 0.3), look["bottom_colour"], marks, 2.0, folds)
            return
        tube = _Tube([hip, knee, ankle], np.array((5.4, 3.4, 2.5)) * thick)
        paint(tube.outline(), look["skin"], depth=1.6)
        sock = _Tube([ankle + 0.3 * (knee - ankle), ankle], (2.75, 2.6))
        marks = sock.trimmed(fine["legs"], fine["legs_ink"], 0.5, sock.length - 0.5)
        paint(sock.outline(0, 0.3), look["bottom_colour"], marks, depth=1.0)
        if look["bottom"] == "shorts":
            short = _Tube([hip, (hip + knee) / 2, knee], np.array((5.7, 5.5, 5.0)) * thick)
            marks = short.trimmed(fine["legs"], fine["legs_ink"], 12, short.length - 0.5)
            paint(short.outline(0, 0.2), look["bottom_colour"], marks, depth=2.2)

    def skirt(self):
        axis, _ = self.seen([(0, 49, 0), (0, 56, 0), (0, 68, 0)])
        tube = _Tube(axis, [self.half(9.2, 7), self.half(10.8, 8.6), self.half(12.4, 10)], 0.14)
        n = tube.length
        marks = tube.trimmed(self.fine["legs"], self.fine["legs_ink"], n - 10, n - 1)
        folds = self.folds(tube, (n * 0.6, 8), (n * 0.5, 9))
        self.canvas.paint(tube.outline(0, 0.16), self.look["bottom_colour"], marks, 2.6, folds)

    # -- arms and bags
    def arm(self, joints, carries):
        look, fine, paint = self.look, self.fine, self.canvas.paint
        (shoulder, elbow, wrist), _ = self.seen(joints)
        thick = look["girth"] ** 0.5
        hand = wrist + 0.13 * (wrist - elbow)
        paint(_ellipse(*hand, 1.9, 2.3), look["skin"], depth=0.8, shadow=40)
        if look["top"] in ("sweater", "hoodie", "coat"):
            sleeve = _Tube([shoulder, elbow, wrist], np.array((4.1, 3.6, 2.9)) * thick)
            n = sleeve.length
            marks = sleeve.trimmed(fine["sleeves"], fine["sleeves_ink"], 0.5 * n, 0.88 * n)
            folds = self.folds(sleeve, (0.5 * n, 1.5), (0.94 * n, 1.0))
            paint(sleeve.outline(0.9, 0.35), look["top_colour"], marks, 1.7, folds)
        else:
            bare = _Tube([shoulder, elbow, wrist], np.array((3.3, 2.6, 2.0)) * thick)
            paint(bare.outline(0.9), look["skin"], depth=1.4)
            sleeve = _Tube([shoulder, (shoulder + elbow) / 2, 0.1 * shoulder + 0.9 * elbow],
                           np.array((4.2, 4.3, 4.0)) * thick, bow=0.15)  # fmt: skip
            n = sleeve.length
            marks = sleeve.trimmed(fine["sleeves"], fine["sleeves_ink"], 3, n + 0.3)
            paint(sleeve.outline(0.9, 0.25), look["top_colour"], marks, depth=1.7)
        if carries:
            x, y = hand
            grip = [(x - 2.6, y + 7), (x - 2.2, y), (x + 2.2, y), (x + 2.6, y + 7)]
            grip = _Tube(grip, (0.5,) * 4).outline()
            paint(grip, _shade(look["bag_colour"], 0.6), depth=0.4, shadow=0)
            self.bag(_Tube([(x, y + 6), (x, y + 8), (x, y + 17)], (4.0, 5.0, 5.6)), 3.0, 10.5)

    def bag(self, tube, v0, v1):
        colour = self.look["bag_colour"]
        marks = tube.patterned(self.fine["bag"], colour, v0, v1)
        self.canvas.paint(tube.outline(0.2, 0.25), colour, marks, depth=1.6)

    def shoulder_bag(self, spot):
        ((x, y),), _ = self.seen([spot])
        half = max(3.2, math.hypot(3.8 * self.cos, 7 * self.sin))
        self.bag(_Tube([(x, y - 5), (x, y - 3), (x, y + 6)], (half * 0.8, half, half)), 3.4, 10)

    def backpack(self):
        ((x, y),), _ = self.seen([(0, 19, -8.5)])
        half = math.hypot(7.6 * self.cos, 4.6 * self.sin)
        radii = half * np.array((0.55, 0.9, 1, 1))
        axis = [(x, y), (x, y + 2), (x, y + 12), (x, y + 23)]
        self.bag(_Tube(axis, radii, bow=self.pitch), 10, 21)

    # -- trunk
    def trunk(self):
        look, fine, paint = self.look, self.fine, self.canvas.paint
        # Height, half the width and half the depth from the neck to the hem.
        levels = [(15.2, 3.4, 3.2), (17, 7.4, 4.6), (19.2, 10.2, 6), (25, 10.8, 7.2),
                  (33, 10.2, 7), (41, 9.4, 6.4), (47, 9.9, 7), (53, 10.4, 7.4)]  # fmt: skip
        if look["top"] == "coat":
            levels.append((66, 11.2, 8.8))
        elif look["top"] == "dress":
            levels.append((68, 12.4, 9.4))
        axis, _ = self.seen([(0, y, 0) for y, _, _ in levels])
        tube = _Tube(axis, [self.half(a, b) for _, a, b in levels], self.pitch)
        n, colour = tube.length, look["top_colour"]
        if look["print"]:
            toward = self.side if self.facing else self.side - math.copysign(math.pi, self.side)
            middle = np.array((np.clip(toward, -0.7, 0.7) * tube.girth, 17.5))
            marks = [
                (tube.place(_dense(shape) * 6.6 + middle), fine["print_ink"] if inked else colour)
                for shape, inked in PRINTS[fine["print"]]
            ]
        else:
            marks = tube.patterned(fine["pattern"], colour, 6.5, n + 3, look["tint"])
        marks += tube.trimmed("ring", fine["hem_ink"], 0, n - 0.4)
        if look["top"] in ("coat", "hoodie") and self.facing and abs(self.side) < 1.2:
            u = self.side * tube.girth
            zip_line = _strip(np.linspace(2, n, 9), u - 0.35, u + 0.35)[:, ::-1]
            marks.append((tube.place(zip_line), _shade(colour, 0.45)))
        folds = self.folds(tube, (0.62 * n, 3), (0.72 * n, -3), (0.28 * n, 3), (0.9 * n, 4))
        paint(tube.outline(0, 0.18), colour, marks, 3.2, folds)

        straps = []
        if look["bag"] == "backpack" and self.facing:
            for angle in (self.side - 0.62, self.side + 0.62):
                if abs(angle) < 1.3:
                    u = angle * tube.girth
                    straps.append(_strip(np.linspace(1.5, 20, 8), u - 1.2, u + 1.2)[:, ::-1])
        elif look["bag"] == "shoulder bag":
            down = np.linspace(1, 33, 9)
            across = np.interp(down, (1, 33), (-0.55, 0.9)) * tube.girth
            strap = _strip(down, -1.1, 1.1)[:, ::-1]
            strap[:, 0] += np.r_[across, across[::-1]] * (1 if self.facing else -1)
            straps.append(strap)
        if straps:
            paint([tube.place(s) for s in straps], _shade(look["bag_colour"], 0.8), depth=0.6)

    # -- head
    def long_hair(self):
        """Hair that falls behind the neck."""
        (x, y), style = self.seen([(0, 7.2, 0.8)])[0][0], self.look["hair_style"]
        back = x - 2 * self.sin
        top = y + 0.5 if self.look["hat"] else y - 4
        if style == "long":
            tube = _Tube([(back, top), (back, y + 2), (back, y + 10), (back, y + 19)],
                         (4.2, 5.7, 6.0, 4.4))  # fmt: skip
        elif style == "bob":
            tube = _Tube([(back, top), (back, y + 2), (back, y + 8)], (4.4, 6.0, 5.8))
        elif style == "ponytail":
            knot, fall = x - 6.0 * self.sin, x - 8.5 * self.sin
            tube = _Tube([(knot, y - 2.5), (fall, y + 2), (fall, y + 13)], (1.8, 2.6, 0.9))
        else:
            return
        self.canvas.paint(tube.outline(0, 0.5), self.look["hair"], depth=1.5)

    def neck_and_head(self):
        look, paint, cos, sin = self.look, self.canvas.paint, self.cos, self.sin
        neck, _ = self.seen([(0, 11, 0.5), (0, 14, 0.3), (0, 17.2, 0.2)])
        colour, hood = look["top_colour"], look["top"] == "hoodie"
        if hood and self.facing:
            collar = _ellipse(*(neck[2] - (0, 0.6)), 5.8 * look["girth"], 2.8)
            paint(collar, _shade(colour, 0.85), depth=1.2)
        tube = _Tube(neck, (2.5, 2.5, 2.9))
        paint(tube.outline(0, 0.6 if self.facing else 0.2), _shade(look["skin"], 0.9), depth=1.2)
        ((x, y),), _ = self.seen([(0, 7.2, 0.8)])
        skin, hair = np.array(look["skin"]), np.array(look["hair"])
        wide, tall = 5.0, 6.7
        egg = _circle(32)
        egg[:, 0] *= 1 - 0.14 * np.maximum(egg[:, 1], 0)  # a chin
        for ear in (1, -1):
            spot = _ellipse(x + ear * 5 * cos + 0.3 * sin, y + 1, 1.1, 1.7)
            paint(spot, skin * 0.94, depth=0.6, shadow=20)
        sweep = np.linspace(-math.pi / 2, math.pi / 2, 25)  # across the visible half of the head
        around = np.abs((sweep - self.side + math.pi) % (2 * math.pi) - math.pi)  # from the nose
        across, back = x + np.sin(sweep) * wide, x + np.sin(sweep[::-1]) * wide
        face = self.face(x, y, wide, skin, hair)
        if look["beard"]:
            low = y + np.interp(around, (0, 0.3, 0.9, 1.4, 1.5), (2.7, 2.9, 2.2, 0.5, 9))
            jaw = np.r_[np.stack([across, low], 1), np.stack([back, np.full(25, y + 9)], 1)]
            face.insert(0, (jaw, hair * 0.5 + skin * 0.3))
        paint(egg * (wide, tall) + (x, y), skin, face, depth=1.9)

        style = look["hair_style"]
        puff = {"afro": 2.6, "crop": 0.15, "short": 0.6}.get(style, 0.7)
        fringe = {"bob": -1.7, "afro": -3.4, "crop": -3.9}.get(style, -3.1)
        temple = {"crop": -1.5, "short": -0.4}.get(style, 2.5)
        nape = {"crop": 2.5, "bob": 6.5, "long": 6.5}.get(style, 5.0)
        heights = fringe, fringe + 0.5, temple, temple + 1.2, nape - 0.8, nape
        line = np.interp(around, (0, 0.75, 1.05, 1.5, 2.0, 3.15), heights)
        arc = np.linspace(-math.pi / 2 - 0.25, math.pi / 2 + 0.25, 25)
        crown = np.stack([x + (wide + puff) * np.sin(arc),
                          y - 0.2 - (tall + puff) * np.cos(arc)], 1)  # fmt: skip
        edge = np.stack([x + (back - x) * (1 + 0.15 * puff), y + line[::-1]], 1)
        gloss = _ellipse(x - 1.8, y - 4.7 - puff, 2.6, 0.7)
        paint(np.r_[crown, edge], hair, [(gloss, hair * 1.18 + 14)], depth=1.5, shadow=60)
        if style == "bun":
            bun = _ellipse(x - 4.2 * sin, y - (6.6 if self.facing else 5.1), 2.7, 2.5)
            paint(bun, hair, depth=1.1)
        if look["hat"]:
            self.hat(x, y, wide, crown)
        if hood and not self.facing:
            spot = _ellipse(*(neck[2] + (0, 1.4)), 6.2 * look["girth"], 4.2)
            paint(spot, _shade(colour, 0.92), depth=1.6)

    def face(self, x, y, wide, skin, hair):
        """Marks of eyes, brows, cheeks, nose and mouth, as far as they face the viewer."""
        marks = []

        def spot(direction, height, rx, ry, colour):
            angle = (direction + self.side + math.pi) % (2 * math.pi) - math.pi
            if abs(angle) < 1.35:
                rx = rx * (0.35 + 0.65 * math.cos(angle))
                at = x + wide * 0.92 * math.sin(angle), y + height
                marks.append((_ellipse(*at, rx, ry, 14), colour))

        for eye in (-0.42, 0.42):
            spot(eye * 1.5, 2.3, 1.2, 0.9, skin * (1.0, 0.9, 0.88))
            spot(eye, 0.2, 1.0, 0.62, (236, 232, 226))
            spot(eye, 0.25, 0.62, 0.7, (44, 32, 28))
            spot(eye, -1.25, 1.25, 0.32, hair * 0.75)
        spot(0.05, 1.7, 0.55, 1.3, skin * 0.86)
        spot(0, 3.9, 1.35, 0.5, skin * (0.80, 0.58, 0.56))
        return marks

    def hat(self, x, y, wide, crown):
        cloth, paint = _shade(self.look["bag_colour"], 1.1), self.canvas.paint
        rim = np.linspace(1, -1, 25)
        lower = np.stack([x + (wide + 0.8) * rim, y - 2.4 + 0.5 * (1 - rim**2)], 1)
        paint(np.r_[crown - (0, 0.4), lower], cloth, depth=1.6)
        if self.look["hat"] == "beanie":
            band = [(x - wide - 0.5, y - 3.0), (x, y - 2.4), (x + wide + 0.5, y - 3.0)]
            band = _Tube(band, (1.3, 1.4, 1.3)).outline(0, 0.4)
            paint(band, cloth * 0.8, depth=0.7)
        elif self.cos > -0.3:
            half = 4.2 * abs(self.cos) + 2.6 * abs(self.sin)
            brim = _ellipse(x + 4.6 * self.sin, y - 2.3 + 0.5 * self.cos, half, 1.1)
            paint(brim, cloth * 0.75, depth=0.5, shadow=90)


def _pose(rng):
    """Joints of both legs and both arms: x to the person's left, y down, z forward."""
    walks = rng.random() < 0.7
    stride = math.radians(rng.uniform(13, 25) if walks else rng.uniform(0, 3))
    first = 1 if rng.random() < 0.5 else -1
    legs, arms = [], []

    def reach(out, angle):
        return np.array((out, math.cos(angle), math.sin(angle)))

    for side in (1, -1):
        swing = stride * side * first
        bend = math.radians(rng.uniform(2, 7)) + (0.9 * stride if swing < 0 else 0)
        out = 0 if walks else 0.035 * side
        hip = np.array((side * 4.4, 50, 0))
        knee = hip + 23 * reach(out, swing)
        ankle = knee + 21.5 * reach(out, swing - bend)
        lift = max(0.0, bend - 0.15)
        toe = ankle + 5.6 * np.array((0.12 * side, 0.9 * math.sin(lift), math.cos(lift)))
        legs.append(np.stack([hip, knee, ankle, toe]))
        kind = ("hang", "hang", "hang", "bent", "pocket")[rng.integers(5)]
        outward = {"hang": 0.12, "bent": 0.16, "pocket": 0.32}[kind]
        inward = {"hang": 0.05, "bent": -0.25, "pocket": -0.38}[kind]
        flex = {"hang": rng.uniform(0.1, 0.35), "bent": rng.uniform(1.3, 1.8), "pocket": 0.5}[kind]
        back = rng.uniform(-0.05, 0.08) - 0.75 * swing
        shoulder = np.array((side * 9.6, 20.8, 0))
        elbow = shoulder + 14.5 * reach(side * outward, back)
        wrist = elbow + 13 * reach(side * inward, back + flex)
        arms.append(np.stack([shoulder, elbow, wrist]))
    return legs, arms


# ---------------------------------------------------------------- scenes
class _Scene:
    """A long picture of a camera's surroundings; lengths are shares of its height."""

    def __init__(self, height, width):
        self.tall, self.wide = 2 * height, 12 * width
        self.end = self.wide / self.tall
        self.image = Image.new("RGB", (self.wide, self.tall))
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def box(self, x0, y0, x1, y1, colour, alpha=255):
        corners = [n * self.tall for n in (x0, y0, x1, y1)]
        self.draw.rectangle(corners, fill=(*_rgb(colour), alpha))

    def disc(self, x, y, rx, ry, colour):
        corners = [n * self.tall for n in (x - rx, y - ry, x + rx, y + ry)]
        self.draw.ellipse(corners, fill=_rgb(colour))

    def shape(self, points, colour, alpha=255):
        self.draw.polygon([n * self.tall for n in points], fill=(*_rgb(colour), alpha))

    def fade(self, y0, y1, top, bottom):
        """From one colour above to another below."""
        for y in range(int(y0 * self.tall), int(y1 * self.tall) + 1):
            share = (y / self.tall - y0) / (y1 - y0)
            colour = _shade(top, 1 - share) + _shade(bottom, share)
            self.draw.line((0, y, self.wide, y), fill=_rgb(colour))

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
    for _ in range(4):
        x = rng.uniform(0, scene.end)
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
    for _ in range(4):
        x = rng.uniform(0, scene.end)
        scene.box(x, 0, x + 0.03, 0.76, (92, 98, 100))
        scene.box(x, 0, x + 0.008, 0.76, (130, 136, 138))
    scene.fade(0.76, 1, (92, 92, 96), (124, 124, 126))
    scene.box(0, 0.90, scene.end, 0.915, (176, 174, 160))
    for _ in range(160):
        x, y, tone = rng.uniform((0, 0.77, 70), (scene.end, 1, 150))
        scene.disc(x, y, 0.01, 0.004, (tone, tone, tone))


def _park(scene, rng):
    scene.fade(0, 0.52, (186, 208, 224), (214, 224, 214))
    for low, tone, count in ((0.16, (122, 148, 112), 90), (0.30, (88, 122, 78), 150),
                             (0.42, (66, 100, 58), 210)):  # fmt: skip
        scene.box(0, low + 0.06, scene.end, 0.52, _shade(tone, 0.85))
        for _ in range(count):
            x, y, r, bright = rng.uniform((0, low - 0.12, 0.03, 0.82),
                                          (scene.end, low + 0.10, 0.08, 1.18))  # fmt: skip
            scene.disc(x, y, r, r, _shade(tone, bright))
    scene.fade(0.52, 1, (112, 150, 78), (134, 166, 88))
    for _ in range(2600):
        x, y = rng.uniform(0, scene.end), 0.52 + 0.48 * rng.random() ** 0.7
        lean, h = rng.uniform(-0.01, 0.01), 0.012 + 0.047 * (y - 0.52)
        blade = (x, y, x + lean, y - h, x + 0.004, y)
        scene.shape(blade, _shade((118, 152, 78), rng.uniform(0.78, 1.2)))
    path = (0, 0.80, scene.end, 0.76, scene.end, 0.90, 0, 0.97)
    scene.shape(path, (198, 182, 150))
    for _ in range(140):
        x, y = rng.uniform((0, 0.6), (scene.end, 0.76))
        petal = ((238, 232, 214), (226, 196, 90), (214, 128, 130))[rng.integers(3)]
        scene.disc(x, y, 0.01, 0.008, petal)
    for _ in range(3):
        x = rng.uniform(0, scene.end)
        for leg in (0.03, 0.31):
            scene.box(x + leg, 0.56, x + leg + 0.02, 0.74, (70, 66, 62))
        for y in (0.56, 0.60, 0.65):
            scene.box(x, y, x + 0.36, y + 0.025, (138, 96, 62))
    for _ in range(5):
        x, w = rng.uniform((0, 0.03), (scene.end, 0.055))
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
    for _ in range(7):  # lamps, and their light on the ground
        x = rng.uniform(0, scene.end)
        scene.box(x, 0, x + 0.018, 0.76, (30, 32, 38))
        scene.disc(x, 0.06, 0.05, 0.05, (255, 226, 160))
        scene.shape((x - 0.05, 0.72, x + 0.06, 0.72, x + 0.2, 1, x - 0.2, 1), (240, 200, 120), 70)


def _snow(scene, rng):
    scene.fade(0, 0.5, (206, 214, 226), (226, 230, 236))
    for _ in range(26):
        x, w, y = rng.uniform((0, 0.015, 0.0), (scene.end, 0.04, 0.2))
        scene.box(x, y, x + w, 0.60, _shade((86, 80, 84), rng.uniform(0.8, 1.3)))
    for _ in range(60):
        x, y, r = rng.uniform((0, 0.44, 0.04), (scene.end, 0.60, 0.13))
        scene.disc(x, y, r, 0.5 * r, rng.uniform(212, 244) * np.ones(3))
    scene.fade(0.56, 1, (226, 232, 240), (248, 250, 252))
    for _ in range(120):
        x, y = rng.uniform((0, 0.62), (scene.end, 1))
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
_panoramas = {}


def panorama(name, height, width, seed):
    """A camera's surroundings, six images wide, drawn once in a process."""
    key = name, height, width, seed
    if key not in _panoramas:
        rng = np.random.default_rng((seed, 3, list(_SCENES).index(name)))
        scene = _Scene(height, width)
        _SCENES[name](scene, rng)
        image = scene.image.filter(ImageFilter.GaussianBlur(height * 0.012))
        pixels = np.asarray(image, float)
        for lump, strength in ((height // 32, 0.05), (height // 4, 0.04)):
            pixels = pixels * (1 + strength * _clouds(rng, image.size, lump))
        _panoramas[key] = _image(pixels).reduce(2)
    return _panoramas[key]


def _clouds(rng, size, lump):
    """Smooth noise (h, w, 1) between about -1 and 1, in lumps of so many pixels."""
    width, height = size
    coarse = rng.integers(0, 256, (height // lump + 2, width // lump + 2), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, float)[..., None] / 128 - 1


def _image(pixels):
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def photograph(canvas, rng, panorama):
    """Put the person into the scene with a shadow, and take the picture."""
    view, height, width = canvas.view, canvas.height, canvas.width
    left = int(rng.integers(panorama.width - width + 1))
    scene = panorama.crop((left, 0, left + width, height))
    alpha = canvas.alpha.reduce(OVERSAMPLING)
    # The shadow: the silhouette laid on the ground, away from the light, and dark at the feet.
    x, y = canvas.foot / OVERSAMPLING
    lean, flat = -1.5 * view["light"][0], 0.16 + 0.5 * view["pitch"]
    to_silhouette = (1, -lean, lean * y, 0, 1 / flat, y - y / flat)
    bilinear = Image.Resampling.BILINEAR
    lying = alpha.transform(alpha.size, Image.Transform.AFFINE, to_silhouette, bilinear)
    contact = Image.new("L", alpha.size)
    spot = (x - 0.2 * width, y - 0.018 * height, x + 0.2 * width, y + 0.014 * height)
    ImageDraw.Draw(contact).ellipse(spot, fill=255)
    soft = ImageFilter.BoxBlur(height / 70)
    shadow = ImageChops.lighter(lying.filter(soft).point(_SHARES[100]),
                                contact.filter(soft).filter(soft).point(_SHARES[150]))  # fmt: skip
    scene.paste((22, 20, 28), (0, 0), shadow)

    # The canvas is made black outside the person: its reduction is then weighted by alpha.
    cut_out = Image.composite(canvas.rgb, Image.new("RGB", canvas.rgb.size), canvas.alpha)
    behind = np.asarray(scene, float) * (1 - np.asarray(alpha, float)[..., None] / 255)
    pixels = np.asarray(cut_out.reduce(OVERSAMPLING), float) + behind
    sideways = 0.06 * view["light"][0] * np.linspace(-1, 1, width)[:, None]
    pixels *= (1 - sideways) * np.array(view["gain"]) * rng.uniform(0.92, 1.08)
    gamma = view["gamma"] * rng.uniform(0.95, 1.05)
    pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** gamma
    blur = view["blur"] * rng.uniform(0.5, 1.75) * height / 128
    pixels = np.asarray(_image(pixels).filter(ImageFilter.GaussianBlur(blur)), float)
    return _image(pixels + view["noise"] * rng.standard_normal(pixels.shape))
