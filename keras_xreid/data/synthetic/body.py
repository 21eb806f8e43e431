"""The body of a drawn person: its pose, its clothes, its bag and its head."""

import math

import numpy as np

from keras_xreid.data.synthetic.canvas import shade
from keras_xreid.data.synthetic.cloth import PRINTS, Tube, box, circle, dense, ellipse, strip


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

    def garment(self, tube, part, v0, v1, ends, depth, folds=None):
        """Paint a leg or a sleeve of cloth, with its trim between v0 and v1."""
        colour = self.look["bottom_colour" if part == "legs" else "top_colour"]
        marks = tube.trimmed(self.fine[part], self.fine[f"{part}_ink"], v0, v1)
        self.canvas.paint(tube.outline(*ends), colour, marks, depth, folds)

    # -- legs
    def leg(self, joints):
        look, fine, paint = self.look, self.fine, self.canvas.paint
        (hip, knee, ankle, toe), _ = self.seen(joints)
        thick = look["girth"] ** 0.5
        middle, heel = (ankle + toe) / 2, 0.18 * (ankle - toe)[0]
        below = np.array(((heel, 1.4), (0, 1.5), (0, 1.8)))
        shoe = Tube(np.stack([ankle, middle, toe]) + below, (2.4, 2.4, 2.0))
        sole = max(ankle[1], toe[1]) + 3.0
        marks = [(box(-1.1, -3, 1.1, 9) + middle, fine["shoes_ink"]),
                 (box(-9, sole - ankle[1], 9, 9) + ankle, (226, 224, 218))]  # fmt: skip
        paint(shoe.outline(0.8, 1.0), look["shoes"], marks, depth=0.9)
        if look["bottom"] == "trousers":
            tube = Tube([hip, knee, ankle], np.array((5.4, 4.1, 3.3)) * thick)
            n = tube.length
            folds = self.folds(tube, (0.46 * n, 2.5), (0.95 * n, -1.5), (0.2 * n, 3))
            self.garment(tube, "legs", 0.62 * n, 0.86 * n, (0, 0.3), 2.0, folds)
            return
        tube = Tube([hip, knee, ankle], np.array((5.4, 3.4, 2.5)) * thick)
        paint(tube.outline(), look["skin"], depth=1.6)
        sock = Tube([ankle + 0.3 * (knee - ankle), ankle], (2.75, 2.6))
        self.garment(sock, "legs", 0.5, sock.length - 0.5, (0, 0.3), 1.0)
        if look["bottom"] == "shorts":
            short = Tube([hip, (hip + knee) / 2, knee], np.array((5.7, 5.5, 5.0)) * thick)
            self.garment(short, "legs", 12, short.length - 0.5, (0, 0.2), 2.2)

    def skirt(self):
        axis, _ = self.seen([(0, 49, 0), (0, 56, 0), (0, 68, 0)])
        tube = Tube(axis, [self.half(9.2, 7), self.half(10.8, 8.6), self.half(12.4, 10)], 0.14)
        n = tube.length
        folds = self.folds(tube, (n * 0.6, 8), (n * 0.5, 9))
        self.garment(tube, "legs", n - 10, n - 1, (0, 0.16), 2.6, folds)

    # -- arms and bags
    def arm(self, joints, carries):
        look, paint = self.look, self.canvas.paint
        (shoulder, elbow, wrist), _ = self.seen(joints)
        thick = look["girth"] ** 0.5
        hand = wrist + 0.13 * (wrist - elbow)
        paint(ellipse(*hand, 1.9, 2.3), look["skin"], depth=0.8, shadow=40)
        if look["top"] in ("sweater", "hoodie", "coat"):
            sleeve = Tube([shoulder, elbow, wrist], np.array((4.1, 3.6, 2.9)) * thick)
            n = sleeve.length
            folds = self.folds(sleeve, (0.5 * n, 1.5), (0.94 * n, 1.0))
            self.garment(sleeve, "sleeves", 0.5 * n, 0.88 * n, (0.9, 0.35), 1.7, folds)
        else:
            bare = Tube([shoulder, elbow, wrist], np.array((3.3, 2.6, 2.0)) * thick)
            paint(bare.outline(0.9), look["skin"], depth=1.4)
            sleeve = Tube([shoulder, (shoulder + elbow) / 2, 0.1 * shoulder + 0.9 * elbow],
                           np.array((4.2, 4.3, 4.0)) * thick, bow=0.15)  # fmt: skip
            self.garment(sleeve, "sleeves", 3, sleeve.length + 0.3, (0.9, 0.25), 1.7)
        if carries:
            x, y = hand
            grip = [(x - 2.6, y + 7), (x - 2.2, y), (x + 2.2, y), (x + 2.6, y + 7)]
            grip = Tube(grip, (0.5,) * 4).outline()
            paint(grip, shade(look["bag_colour"], 0.6), depth=0.4, shadow=0)
            self.bag(Tube([(x, y + 6), (x, y + 8), (x, y + 17)], (4.0, 5.0, 5.6)), 3.0, 10.5)

    def bag(self, tube, v0, v1):
        colour = self.look["bag_colour"]
        marks = tube.patterned(self.fine["bag"], colour, v0, v1)
        self.canvas.paint(tube.outline(0.2, 0.25), colour, marks, depth=1.6)

    def shoulder_bag(self, spot):
        ((x, y),), _ = self.seen([spot])
        half = max(3.2, math.hypot(3.8 * self.cos, 7 * self.sin))
        self.bag(Tube([(x, y - 5), (x, y - 3), (x, y + 6)], (half * 0.8, half, half)), 3.4, 10)

    def backpack(self):
        ((x, y),), _ = self.seen([(0, 19, -8.5)])
        half = math.hypot(7.6 * self.cos, 4.6 * self.sin)
        radii = half * np.array((0.55, 0.9, 1, 1))
        axis = [(x, y), (x, y + 2), (x, y + 12), (x, y + 23)]
        self.bag(Tube(axis, radii, bow=self.pitch), 10, 21)

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
        tube = Tube(axis, [self.half(a, b) for _, a, b in levels], self.pitch)
        n, colour = tube.length, look["top_colour"]
        if look["print"]:
            toward = self.side if self.facing else self.side - math.copysign(math.pi, self.side)
            middle = np.array((np.clip(toward, -0.7, 0.7) * tube.girth, 17.5))
            marks = [
                (tube.place(dense(shape) * 6.6 + middle), fine["print_ink"] if inked else colour)
                for shape, inked in PRINTS[fine["print"]]
            ]
        else:
            marks = tube.patterned(fine["pattern"], colour, 6.5, n + 3, look["tint"])
        marks += tube.trimmed("ring", fine["hem_ink"], 0, n - 0.4)
        if look["top"] in ("coat", "hoodie") and self.facing and abs(self.side) < 1.2:
            u = self.side * tube.girth
            zip_line = strip(np.linspace(2, n, 9), u - 0.35, u + 0.35)[:, ::-1]
            marks.append((tube.place(zip_line), shade(colour, 0.45)))
        folds = self.folds(tube, (0.62 * n, 3), (0.72 * n, -3), (0.28 * n, 3), (0.9 * n, 4))
        paint(tube.outline(0, 0.18), colour, marks, 3.2, folds)

        straps = []
        if look["bag"] == "backpack" and self.facing:
            for angle in (self.side - 0.62, self.side + 0.62):
                if abs(angle) < 1.3:
                    u = angle * tube.girth
                    straps.append(strip(np.linspace(1.5, 20, 8), u - 1.2, u + 1.2)[:, ::-1])
        elif look["bag"] == "shoulder bag":
            down = np.linspace(1, 33, 9)
            across = np.interp(down, (1, 33), (-0.55, 0.9)) * tube.girth
            strap = strip(down, -1.1, 1.1)[:, ::-1]
            strap[:, 0] += np.r_[across, across[::-1]] * (1 if self.facing else -1)
            straps.append(strap)
        if straps:
            paint([tube.place(s) for s in straps], shade(look["bag_colour"], 0.8), depth=0.6)

    # -- head
    def long_hair(self):
        """Hair that falls behind the neck."""
        (x, y), style = self.seen([(0, 7.2, 0.8)])[0][0], self.look["hair_style"]
        back = x - 2 * self.sin
        top = y + 0.5 if self.look["hat"] else y - 4
        if style == "long":
            tube = Tube([(back, top), (back, y + 2), (back, y + 10), (back, y + 19)],
                         (4.2, 5.7, 6.0, 4.4))  # fmt: skip
        elif style == "bob":
            tube = Tube([(back, top), (back, y + 2), (back, y + 8)], (4.4, 6.0, 5.8))
        elif style == "ponytail":
            knot, fall = x - 6.0 * self.sin, x - 8.5 * self.sin
            tube = Tube([(knot, y - 2.5), (fall, y + 2), (fall, y + 13)], (1.8, 2.6, 0.9))
        else:
            return
        self.canvas.paint(tube.outline(0, 0.5), self.look["hair"], depth=1.5)

    def neck_and_head(self):
        look, paint, cos, sin = self.look, self.canvas.paint, self.cos, self.sin
        neck, _ = self.seen([(0, 11, 0.5), (0, 14, 0.3), (0, 17.2, 0.2)])
        colour, hood = look["top_colour"], look["top"] == "hoodie"
        if hood and self.facing:
            collar = ellipse(*(neck[2] - (0, 0.6)), 5.8 * look["girth"], 2.8)
            paint(collar, shade(colour, 0.85), depth=1.2)
        tube = Tube(neck, (2.5, 2.5, 2.9))
        paint(tube.outline(0, 0.6 if self.facing else 0.2), shade(look["skin"], 0.9), depth=1.2)
        ((x, y),), _ = self.seen([(0, 7.2, 0.8)])
        skin, hair = np.array(look["skin"]), np.array(look["hair"])
        wide, tall = 5.0, 6.7
        egg = circle(32)
        egg[:, 0] *= 1 - 0.14 * np.maximum(egg[:, 1], 0)  # a chin
        for ear in (1, -1):
            spot = ellipse(x + ear * 5 * cos + 0.3 * sin, y + 1, 1.1, 1.7)
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
        gloss = ellipse(x - 1.8, y - 4.7 - puff, 2.6, 0.7)
        paint(np.r_[crown, edge], hair, [(gloss, hair * 1.18 + 14)], depth=1.5, shadow=60)
        if style == "bun":
            bun = ellipse(x - 4.2 * sin, y - (6.6 if self.facing else 5.1), 2.7, 2.5)
            paint(bun, hair, depth=1.1)
        if look["hat"]:
            self.hat(x, y, wide, crown)
        if hood and not self.facing:
            spot = ellipse(*(neck[2] + (0, 1.4)), 6.2 * look["girth"], 4.2)
            paint(spot, shade(colour, 0.92), depth=1.6)

    def face(self, x, y, wide, skin, hair):
        """Marks of eyes, brows, cheeks, nose and mouth, as far as they face the viewer."""
        marks = []

        def spot(direction, height, rx, ry, colour):
            angle = (direction + self.side + math.pi) % (2 * math.pi) - math.pi
            if abs(angle) < 1.35:
                rx = rx * (0.35 + 0.65 * math.cos(angle))
                at = x + wide * 0.92 * math.sin(angle), y + height
                marks.append((ellipse(*at, rx, ry, 14), colour))

        for eye in (-0.42, 0.42):
            spot(eye * 1.5, 2.3, 1.2, 0.9, skin * (1.0, 0.9, 0.88))
            spot(eye, 0.2, 1.0, 0.62, (236, 232, 226))
            spot(eye, 0.25, 0.62, 0.7, (44, 32, 28))
            spot(eye, -1.25, 1.25, 0.32, hair * 0.75)
        spot(0.05, 1.7, 0.55, 1.3, skin * 0.86)
        spot(0, 3.9, 1.35, 0.5, skin * (0.80, 0.58, 0.56))
        return marks

    def hat(self, x, y, wide, crown):
        cloth, paint = shade(self.look["bag_colour"], 1.1), self.canvas.paint
        rim = np.linspace(1, -1, 25)
        lower = np.stack([x + (wide + 0.8) * rim, y - 2.4 + 0.5 * (1 - rim**2)], 1)
        paint(np.r_[crown - (0, 0.4), lower], cloth, depth=1.6)
        if self.look["hat"] == "beanie":
            band = [(x - wide - 0.5, y - 3.0), (x, y - 2.4), (x + wide + 0.5, y - 3.0)]
            band = Tube(band, (1.3, 1.4, 1.3)).outline(0, 0.4)
            paint(band, cloth * 0.8, depth=0.7)
        elif self.cos > -0.3:
            half = 4.2 * abs(self.cos) + 2.6 * abs(self.sin)
            brim = ellipse(x + 4.6 * self.sin, y - 2.3 + 0.5 * self.cos, half, 1.1)
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
