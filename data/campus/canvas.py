"""The pinhole camera and the two images it paints: the picture, and the number of the part seen at each pixel.

Points are in metres in the building's own frame: x along the front, y away from the street, z up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

SIDE = 128
DRAWN = 2 * SIDE  # drawn at twice the size, then averaged
Colour = tuple[int, int, int]
Point = tuple[float, float, float]
Rect = tuple[float, float, float, float]  # x0, y0, x1, y1
PARTS = (
    "background",
    "surface",
    "road",
    "neighbour",
    "wall",
    "gable",
    "roof",
    "equipment",
    "wing",
    "windows",
    "awning",
    "entrance",
    "street_object",
)
LABEL = {name: number for number, name in enumerate(PARTS)}
FIRST_TREE = 32


@dataclass(slots=True)
class Canvas:
    """The camera, the sun, and the two images that are painted."""

    eye: Point
    right: Point
    up: Point
    forward: Point
    focal: float
    centre: tuple[float, float]
    sun: Point
    picture: Image.Image
    labels: Image.Image
    pen: ImageDraw.ImageDraw = field(init=False)
    label_pen: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.pen = ImageDraw.Draw(self.picture)
        self.label_pen = ImageDraw.Draw(self.labels)

    def project(self, point: Point) -> tuple[float, float, float]:
        """Pixel x, y (of the drawn size) and depth in metres."""
        dx, dy, dz = point[0] - self.eye[0], point[1] - self.eye[1], point[2] - self.eye[2]
        f, r, u = self.forward, self.right, self.up
        depth = f[0] * dx + f[1] * dy + f[2] * dz
        scale = self.focal / max(depth, 0.1)
        x = self.centre[0] + scale * (r[0] * dx + r[1] * dy + r[2] * dz)
        y = self.centre[1] - scale * (u[0] * dx + u[1] * dy + u[2] * dz)
        return x, y, depth

    def face(self, points: Sequence[Point], colour: Colour, label: int | None) -> None:
        """Paint a polygon; label None leaves the label image as it is (texture on a face already painted)."""
        projected = [self.project(point) for point in points]
        if min(p[2] for p in projected) < 0.5:
            return
        self.flat([(x, y) for x, y, _ in projected], colour, label)

    def flat(self, pixels: Sequence[tuple[float, float]], colour: Colour, label: int | None) -> None:
        self.pen.polygon(pixels, fill=colour)
        if label is not None:
            self.label_pen.polygon([(x / 2, y / 2) for x, y in pixels], fill=label)

    def line(self, points: Sequence[Point], colour: Colour, metres: float) -> None:
        projected = [self.project(point) for point in points]
        near = min(p[2] for p in projected)
        if near >= 0.5:
            width = max(1, round(self.focal / near * metres))
            self.pen.line([(x, y) for x, y, _ in projected], fill=colour, width=width)

    def disc(self, centre: Point, metres: float, colour: Colour, label: int | None) -> None:
        """A ball of the given radius: always a circle in the image."""
        x, y, depth = self.project(centre)
        if depth < 0.5:
            return
        r = self.focal / depth * metres
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        if label is not None:
            self.label_pen.ellipse(((x - r) / 2, (y - r) / 2, (x + r) / 2, (y + r) / 2), fill=label)

    def lit(self, colour: Colour, normal: Point) -> Colour:
        towards = max(0.0, normal[0] * self.sun[0] + normal[1] * self.sun[1] + normal[2] * self.sun[2])
        return scale(colour, 0.5 + 0.6 * towards)

    def ring(self, centre: Point, radius: float, colour: Colour, label: int | None, sides: int = 16) -> None:
        """A horizontal circle on the ground or a roof."""
        x, y, z = centre
        steps = [math.tau * k / sides for k in range(sides)]
        self.face([(x + radius * math.cos(a), y + radius * math.sin(a), z) for a in steps], colour, label)

    def rectangle(self, rect: Rect, z: float, colour: Colour, label: int | None) -> None:
        """A horizontal rectangle that is seen from above only."""
        if self.eye[2] <= z:
            return
        x0, y0, x1, y1 = rect
        self.face([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour, label)


def camera(eye: Point, target: Point, upward: Point, focal: float, centre: tuple[float, float], sun: Point) -> Canvas:
    forward = unit((target[0] - eye[0], target[1] - eye[1], target[2] - eye[2]))
    right = unit(cross(forward, upward))
    up = cross(right, forward)
    picture = Image.new("RGB", (DRAWN, DRAWN))
    return Canvas(eye, right, up, forward, focal, centre, sun, picture, Image.new("L", (SIDE, SIDE)))


def scale(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return min(255, int(r * factor)), min(255, int(g * factor)), min(255, int(b * factor))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return (
        int(a[0] + (b[0] - a[0]) * share),
        int(a[1] + (b[1] - a[1]) * share),
        int(a[2] + (b[2] - a[2]) * share),
    )


def unit(vector: Point) -> Point:
    length = math.sqrt(sum(v * v for v in vector))
    return vector[0] / length, vector[1] / length, vector[2] / length


def cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def centroid(points: Sequence[Point]) -> Point:
    n = len(points)
    return sum(p[0] for p in points) / n, sum(p[1] for p in points) / n, sum(p[2] for p in points) / n


def turned_to(canvas: Canvas, points: Sequence[Point]) -> bool:
    a, b, c = points[:3]
    normal = cross((b[0] - a[0], b[1] - a[1], b[2] - a[2]), (c[0] - a[0], c[1] - a[1], c[2] - a[2]))
    eye = canvas.eye
    return normal[0] * (eye[0] - a[0]) + normal[1] * (eye[1] - a[1]) + normal[2] * (eye[2] - a[2]) > 0


def draw_walls(
    canvas: Canvas,
    rect: Rect,
    z0: float,
    z1: float,
    colour: Colour,
    label: int,
    ornament: Callable[[Point, Point, Point], None] | None = None,
) -> None:
    """Paint the walls that face the camera; `ornament` gets each wall's lower corners and its normal."""
    x0, y0, x1, y1 = rect
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    normals: tuple[Point, ...] = ((0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0))
    for k, normal in enumerate(normals):
        (ax, ay), (bx, by) = corners[k], corners[(k + 1) % 4]
        if normal[0] * (canvas.eye[0] - ax) + normal[1] * (canvas.eye[1] - ay) <= 0:
            continue
        lit = canvas.lit(colour, normal)
        canvas.face([(ax, ay, z0), (bx, by, z0), (bx, by, z1), (ax, ay, z1)], lit, label)
        if ornament:
            ornament((ax, ay, z0), (bx, by, z0), normal)


def draw_facing(canvas: Canvas, points: list[Point], colour: Colour, label: int | None) -> None:
    """Paint a face if it is turned towards the camera. Points anticlockwise seen from outside."""
    a, b, c = points[:3]
    normal = unit(cross((b[0] - a[0], b[1] - a[1], b[2] - a[2]), (c[0] - a[0], c[1] - a[1], c[2] - a[2])))
    eye = canvas.eye
    if normal[0] * (eye[0] - a[0]) + normal[1] * (eye[1] - a[1]) + normal[2] * (eye[2] - a[2]) > 0:
        canvas.face(points, canvas.lit(colour, normal), label)
