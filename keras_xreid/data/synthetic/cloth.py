"""Cloth on drawn people: patterns, prints and trims, and the tubes that it is wrapped around."""

import math

import numpy as np

# fmt: off
# Of bags, hats, and the cars that stand in the street.
BAGS = ((86, 70, 58), (64, 84, 110), (142, 74, 62), (92, 106, 74), (74, 72, 80), (176, 140, 84))

# Patterns: kind and period in hundredths of the body height (1 is 1.1 pixels of 128), and the
# share of the cloth that each kind covers with ink.
PATTERNS = (("hoops", 5.6), ("hoops", 9.6), ("stripes", 5.6), ("stripes", 9.6), ("checks", 7.0),
            ("checks", 11.6), ("diagonal", 7.2), ("chevrons", 8.0), ("dots", 7.4), ("grid", 8.4))
COVERED = {"hoops": 0.5, "stripes": 0.5, "checks": 0.5, "diagonal": 0.5, "chevrons": 0.5,
           "dots": 0.39, "grid": 0.51}
TRIMS = ("ring", "two rings", "three rings", "wide ring", "seam")
# fmt: on


def pattern_on(kind, period, u0, u1, v0, v1):
    """Polygons (n, k, 2) of a pattern on cloth: u runs around the body, v down it."""
    u = np.arange(math.floor(u0 / period) - 1, math.ceil(u1 / period) + 1) * period
    v = np.arange(v0, v1, period)
    above = np.r_[v0 - period, v]
    down = np.linspace(v0, v1, 11)
    if kind == "hoops":
        across = np.linspace(u0, u1, 11)
        return np.stack([strip(across, s, s + period / 2) for s in v])
    if kind == "stripes":
        return np.stack([strip(down, s, s + period / 2)[:, ::-1] for s in u + period / 4])
    if kind == "diagonal":
        starts = np.arange(math.floor((u0 - v1 + v0) / period), math.ceil(u1 / period)) * period
        bands = np.stack([strip(down, s, s + period / 2)[:, ::-1] for s in starts])
        bands[:, :, 0] += np.r_[down, down[::-1]] - v0
        return bands
    if kind == "chevrons":
        knots = np.arange(u[0], u[-1] + period, period / 2)
        bands = np.stack([strip(knots, s, s + period / 2) for s in above])
        rise = np.where(np.arange(len(knots)) % 2, period * 0.6, 0.0)
        bands[:, :, 1] += np.r_[rise, rise[::-1]]
        return bands
    if kind == "checks":
        corners = [(a + s, b + s) for a in u for b in above for s in (0, period / 2)]
        return np.array(corners)[:, None] + period / 2 * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    if kind == "dots":
        rows = list(enumerate(np.arange(v0, v1, period * 0.72)))
        centres = [(a + (i % 2) * period / 2, b + period / 4) for a in u for i, b in rows]
        return np.array(centres)[:, None] + 0.31 * period * circle(10)
    assert kind == "grid"
    across = np.linspace(u0, u1, 11)
    rows = [strip(across, s, s + 0.3 * period) for s in v]
    return np.stack(rows + [strip(down, s, s + 0.3 * period)[:, ::-1] for s in u])


def strip(along, low, high):
    """The outline of a strip between `low` and `high`."""
    there = np.stack([along, np.full(len(along), low)], 1)
    back = np.stack([along[::-1], np.full(len(along), high)], 1)
    return np.concatenate([there, back])


def circle(n):
    angle = np.arange(n) * (2 * math.pi / n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def ellipse(x, y, rx, ry, n=24):
    return np.array([x, y]) + circle(n) * (rx, ry)


def star(points, inner):
    angle = np.arange(2 * points) * (math.pi / points) - math.pi / 2
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]


def box(u0, v0, u1, v1):
    return np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], float)


def dense(polygon, n=5):
    """The same polygon with more corners, to be bent around a body."""
    share = np.linspace(0, 1, n, endpoint=False)[None, :, None]
    ahead = np.roll(polygon, -1, 0)
    return (polygon[:, None] * (1 - share) + ahead[:, None] * share).reshape(-1, 2)


# Prints in a square from -1 to 1, about equal in area: (polygon, is it ink or bare cloth).
# fmt: off
PRINTS = {
    "ring": [(circle(20) * 0.95, True), (circle(20) * 0.5, False)],
    "cross": [(box(-0.3, -0.95, 0.3, 0.95), True), (box(-0.95, -0.3, 0.95, 0.3), True)],
    "saltire": [(np.array([(-1, -0.6), (-0.6, -1), (1, 0.6), (0.6, 1)]), True),
                (np.array([(1, -0.6), (0.6, -1), (-1, 0.6), (-0.6, 1)]), True)],
    "star": [(star(5, 0.45) * 1.12, True)],
    "triangle": [(np.array([(0, -1), (1, 0.9), (-1, 0.9)]), True)],
    "arrow": [(np.array([(-1, -0.8), (0, 0.1), (1, -0.8), (1, 0), (0, 0.9), (-1, 0)]), True)],
    "rows": [(box(-0.9, v, 0.9, v + 0.38), True) for v in (-0.95, -0.2, 0.55)],
    "columns": [(box(u, -0.9, u + 0.38, 0.9), True) for u in (-0.95, -0.2, 0.55)],
    "frame": [(box(-0.9, -0.9, 0.9, 0.9), True), (box(-0.5, -0.5, 0.5, 0.5), False)],
    "blocks": [(box(u, v, u + 0.85, v + 0.85), True) for u, v in ((-0.9, -0.9), (0.05, 0.05))],
    "text": [(box(u, v, u + w, v + 0.42), True) for u, v, w in
             ((-0.95, -0.8, 0.5), (-0.3, -0.8, 0.35), (0.2, -0.8, 0.75), (-0.95, -0.15, 0.9),
              (0.15, -0.15, 0.35), (-0.6, 0.5, 0.35), (-0.1, 0.5, 0.9))],
}
# fmt: on


def two_tones(colour, covered, tint=(1, 1, 1), contrast=80):
    """Ink and ground whose mean, weighted by the share that the ink covers, is the colour."""
    colour, step = np.array(colour, float), contrast * np.array(tint, float)
    # As far apart as the range of values allows, and still balanced.
    room = np.r_[1, (250 - colour) / ((1 - covered) * step), (colour - 8) / (covered * step)].min()
    return colour + room * (1 - covered) * step, colour - room * covered * step


class Tube:
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
        ink, ground = two_tones(colour, COVERED[kind], tint)
        reach = self.girth * math.pi / 2
        polygons = pattern_on(kind, period, -reach, reach, v0, v1)
        polygons[..., 1] = np.clip(polygons[..., 1], v0, v1)
        cloth = strip(np.linspace(-reach, reach, 9), v0, v1)
        return [(self.place(cloth), ground), (self.place(polygons), ink)]

    def trimmed(self, trim, ink, v0, v1):
        """The marks of a trim: narrow rings between v0 and v1, or a seam along the tube."""
        reach = self.girth * math.pi / 2
        if trim == "seam":
            strips = [strip(np.linspace(1, self.length + 3, 12), -0.95, 0.95)[:, ::-1]]
        else:
            count, wide = {"ring": (1, 2.2), "two rings": (2, 2.1), "three rings": (3, 1.8),
                           "wide ring": (1, 5.0)}[trim]  # fmt: skip
            starts = v1 - wide - np.arange(count) * min(4.0, (v1 - v0 - wide) / max(1, count - 1))
            around = np.linspace(-reach, reach, 9)
            strips = [strip(around, s, s + wide) for s in starts]
        return [(self.place(np.stack(strips)), ink)]
