"""The photograph of a drawn person: painted parts, shading, a shadow, a lens and its noise."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

OVERSAMPLING = 4


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
        fill(mask, [polygon - corner for polygon in polygons], 255)
        cloth = Image.new("RGB", size, rgb(colour))
        for shapes, ink in marks:
            fill(cloth, self.project(shapes) - corner, rgb(ink))

        # Rounded: the blurred silhouette, shifted, is bright where the part faces the light.
        soft = mask.reduce(2)
        if folds is not None:
            draw = ImageDraw.Draw(soft)
            for fold in (self.project(folds) - corner) / 2:
                draw.line(fold.ravel().tolist(), fill=60, width=max(1, round(0.45 * self.unit)))
        soft = soft.filter(ImageFilter.BoxBlur(reach * 0.38)).filter(ImageFilter.BoxBlur(reach / 5))
        x, y = self.view["light"]
        light = ImageChops.offset(soft, round(0.35 * reach * x), round(0.35 * reach * y))
        light = light.point(_LIGHT).resize(size, Image.Resampling.BILINEAR)
        cloth = ImageChops.multiply(cloth, Image.merge("RGB", (light, light, light)))

        corner = int(corner[0]), int(corner[1])
        if shadow:
            thrown = soft.point(lambda n: shadow * n // 255).resize(size, Image.Resampling.BILINEAR)
            dropped = corner[0] - round(x * reach * 0.6), corner[1] + reach // 2
            self.rgb.paste((12, 10, 16), dropped, thrown)
        self.rgb.paste(cloth, corner, mask)
        self.alpha.paste(255, corner, mask)


_LIGHT = [min(255, round(255 * (0.50 + 0.54 * (n / 255) ** 0.9))) for n in range(256)]


def fill(image, polygons, colour):
    draw = ImageDraw.Draw(image)
    for polygon in polygons if isinstance(polygons, list) or polygons.ndim == 3 else [polygons]:
        draw.polygon(polygon.ravel().tolist(), fill=colour)


def rgb(colour):
    return tuple(int(min(255, max(0, round(float(c))))) for c in colour)


def shade(colour, factor):
    return np.array(colour) * factor


def to_image(pixels):
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
    lying = lying.filter(soft).point(lambda n: 100 * n // 255)
    contact = contact.filter(soft).filter(soft).point(lambda n: 150 * n // 255)
    scene.paste((22, 20, 28), (0, 0), ImageChops.lighter(lying, contact))

    # The canvas is made black outside the person: its reduction is then weighted by alpha.
    cut_out = Image.composite(canvas.rgb, Image.new("RGB", canvas.rgb.size), canvas.alpha)
    behind = np.asarray(scene, float) * (1 - np.asarray(alpha, float)[..., None] / 255)
    pixels = np.asarray(cut_out.reduce(OVERSAMPLING), float) + behind
    sideways = 0.06 * view["light"][0] * np.linspace(-1, 1, width)[:, None]
    pixels *= (1 - sideways) * np.array(view["gain"]) * rng.uniform(0.92, 1.08)
    gamma = view["gamma"] * rng.uniform(0.95, 1.05)
    pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** gamma
    blur = view["blur"] * rng.uniform(0.5, 1.75) * height / 128
    pixels = np.asarray(to_image(pixels).filter(ImageFilter.GaussianBlur(blur)), float)
    return to_image(pixels + view["noise"] * rng.standard_normal(pixels.shape))
