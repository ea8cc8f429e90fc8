"""Objects of the procedural scenes: signed distance functions, antialiased by their own distance.

Local coordinates: ``u`` to the right and ``v`` downward, the object spanning about [-1, 1]. Every kind is a list of
layers ``(distance, rgb)``, painted in order; a distance is negative inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

Point = tuple[float, float]
Layers = list[tuple[np.ndarray, np.ndarray]]

COLOURS = {
    "red": (0.88, 0.13, 0.13),
    "orange": (0.98, 0.52, 0.07),
    "yellow": (0.97, 0.88, 0.16),
    "green": (0.13, 0.68, 0.20),
    "cyan": (0.15, 0.82, 0.84),
    "blue": (0.13, 0.27, 0.88),
    "purple": (0.60, 0.20, 0.78),
    "white": (0.95, 0.95, 0.95),
}
INK = np.array((0.10, 0.08, 0.10), np.float32)
PALE = np.array((0.98, 0.96, 0.86), np.float32)
WOOD = np.array((0.42, 0.27, 0.14), np.float32)


def _disc(u: np.ndarray, v: np.ndarray, centre: Point, radius: float) -> np.ndarray:
    """Distance to a disc."""
    return np.hypot(u - centre[0], v - centre[1]) - radius


def _rect(u: np.ndarray, v: np.ndarray, centre: Point, half: Point) -> np.ndarray:
    """Distance to an axis-aligned rectangle; exact outside, a bound inside."""
    du, dv = np.abs(u - centre[0]) - half[0], np.abs(v - centre[1]) - half[1]
    return np.hypot(np.maximum(du, 0), np.maximum(dv, 0)) + np.minimum(np.maximum(du, dv), 0)


def _segment(u: np.ndarray, v: np.ndarray, ends: tuple[float, float, float, float], width: float) -> np.ndarray:
    """Distance to a line segment ``(u0, v0, u1, v1)`` with round ends and half-width ``width``."""
    u0, v0, u1, v1 = ends
    along_u, along_v = u1 - u0, v1 - v0
    t = np.clip(((u - u0) * along_u + (v - v0) * along_v) / (along_u**2 + along_v**2), 0, 1)
    return np.hypot(u - u0 - t * along_u, v - v0 - t * along_v) - width


def _convex(u: np.ndarray, v: np.ndarray, corners: list[Point]) -> np.ndarray:
    """Bound on the distance to a convex polygon (corners clockwise): its largest half-plane distance."""
    sides = []
    for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = np.hypot(u1 - u0, v1 - v0)
        sides.append(((u - u0) * (v1 - v0) - (v - v0) * (u1 - u0)) / length)
    return reduce(np.maximum, sides)


def _ball(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    return [(_disc(u, v, (0, 0), 0.95), rgb)]


def _box(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    top = [(-0.9, -0.45), (-0.45, -0.9), (0.9, -0.9), (0.45, -0.45)]
    side = [(0.45, -0.45), (0.9, -0.9), (0.9, 0.45), (0.45, 0.9)]
    return [
        (_rect(u, v, (-0.225, 0.225), (0.675, 0.675)), rgb),
        (_convex(u, v, top), rgb * 0.75 + 0.25),
        (_convex(u, v, side), rgb * 0.6),
    ]


def _cone(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    slope = _convex(u, v, [(-0.8, 0.65), (0, -1.0), (0.8, 0.65)])
    base = (np.hypot(u / 0.8, (v - 0.65) / 0.3) - 1) * 0.3
    shade = np.clip(1.0 - 0.45 * np.abs(u / (0.9 * (v + 1.3) / 1.95 + 0.05)), 0.5, 1)
    return [(np.minimum(slope, base), rgb * shade[..., None])]


def _star(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    """Five points by folding the plane into one half point, then one line."""
    angle = (np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    radius = np.hypot(u, v)
    a, b = np.abs(radius * np.sin(angle)), radius * np.cos(angle)
    tip, notch = (0.0, 1.0), (0.42 * np.sin(np.pi / 5), 0.42 * np.cos(np.pi / 5))
    du, dv = notch[0] - tip[0], notch[1] - tip[1]
    distance = ((b - tip[1]) * du - (a - tip[0]) * dv) / np.hypot(du, dv)
    return [(distance, rgb)]


def _face(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    curve = 0.28 if variant % 2 == 0 else -0.22
    mouth = np.maximum(np.abs(v - 0.45 + curve * ((u / 0.45) ** 2 - 0.5)) - 0.09, np.abs(u) - 0.47)
    return [
        (_disc(u, v, (0, 0), 0.95), rgb),
        (np.minimum(_disc(u, v, (-0.36, -0.25), 0.23), _disc(u, v, (0.36, -0.25), 0.23)), PALE),
        (np.minimum(_disc(u, v, (-0.34, -0.22), 0.13), _disc(u, v, (0.38, -0.22), 0.13)), INK),
        (mouth, INK),
    ]


def _house(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    door = -0.3 if variant % 2 == 0 else 0.3
    return [
        (_rect(u, v, (0, 0.4), (0.72, 0.55)), rgb),
        (_convex(u, v, [(-0.98, -0.1), (0, -0.98), (0.98, -0.1)]), rgb * 0.45),
        (_rect(u, v, (door, 0.58), (0.18, 0.37)), WOOD),
        (_rect(u, v, (-door, 0.35), (0.2, 0.2)), PALE),
    ]


def _figure(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    lift = -0.35 if variant % 2 == 0 else 0.3
    arms = np.minimum(_segment(u, v, (0.2, -0.15, 0.62, lift), 0.12), _segment(u, v, (-0.2, -0.15, -0.62, 0.3), 0.12))
    legs = np.minimum(_segment(u, v, (0.14, 0.3, 0.28, 0.85), 0.13), _segment(u, v, (-0.14, 0.3, -0.28, 0.85), 0.13))
    return [
        (np.minimum(arms, _rect(u, v, (0, 0.07), (0.22, 0.28)) - 0.06), rgb),
        (legs, rgb * 0.45),
        (_disc(u, v, (0, -0.65), 0.3), np.array((0.93, 0.72, 0.55), np.float32)),
    ]


_GLYPHS = (  # strokes of letter-like marks, in a cell of [-1, 1]
    ((-1, 1, 0, -1), (0, -1, 1, 1), (-0.5, 0.2, 0.5, 0.2)),
    ((-1, -1, 1, -1), (0, -1, 0, 1)),
    ((-1, -1, -1, 1), (-1, 1, 1, 1)),
    ((-1, -1, 1, 1), (-1, 1, 1, -1)),
    ((-1, -1, -1, 1), (1, -1, 1, 1), (-1, 0, 1, 0)),
)


def _sign(u: np.ndarray, v: np.ndarray, rgb: np.ndarray, variant: int) -> Layers:
    strokes = []
    for cell in range(2):
        for u0, v0, u1, v1 in _GLYPHS[(variant + 2 * cell) % len(_GLYPHS)]:
            shift = -0.42 + 0.84 * cell
            ends = (shift + 0.24 * u0, -0.3 + 0.28 * v0, shift + 0.24 * u1, -0.3 + 0.28 * v1)
            strokes.append(_segment(u, v, ends, 0.08))
    return [
        (_rect(u, v, (0, 0.6), (0.09, 0.4)), WOOD),
        (_rect(u, v, (0, -0.3), (0.95, 0.6)), INK),
        (_rect(u, v, (0, -0.3), (0.87, 0.52)), rgb),
        (reduce(np.minimum, strokes), INK),
    ]


SHAPES = {
    "face": _face, "house": _house, "figure": _figure, "sign": _sign, "ball": _ball, "box": _box, "cone": _cone,
    "star": _star,
}  # fmt: skip


def _shade(kind: str, u: np.ndarray, v: np.ndarray, side: float) -> np.ndarray:
    """Brightness of an object lit from ``side`` (-1 left, +1 right): a sphere's for balls, else a ramp."""
    if kind != "ball":
        return np.clip(1.0 + 0.28 * side * u - 0.08 * v, 0.6, 1.3)
    height = np.sqrt(np.clip(1.0 - u * u - v * v, 0, 1))
    lambert = 0.55 * side * u - 0.5 * v + 0.67 * height
    return 0.5 + 0.65 * np.clip(lambert, 0, 1)


OBJECT_KINDS = tuple(SHAPES)
COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class SceneObject:
    """One object; ``x``, ``y`` (centre, from the top left) and ``size`` (half extent) in image sides."""

    kind: str
    colour: str
    x: float
    y: float
    size: float
    variant: int = 0

    def __post_init__(self) -> None:
        check("kind", self.kind, OBJECT_KINDS)
        check("colour", self.colour, COLOUR_NAMES)
        if not self.size > 0:
            raise ValueError(f"size must be above 0, got {self.size}. It is half the extent, e.g. 0.2.")


def check(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError for a value that is not allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def paint(canvas: np.ndarray, item: SceneObject, side: float) -> None:
    """Paint one object and its soft shadow into ``canvas``, in place.

    Parameters
    ----------
    canvas : ndarray of shape (size, size, 3), float32
        RGB in [0, 1].
    item : SceneObject
        Its ``x``, ``y`` (centre) and ``size`` (half extent) are fractions of the image side.
    side : float
        Where the light comes from, -1 left to +1 right.
    """
    size = canvas.shape[0]
    reach = item.size * 1.35
    left, right = (int(np.clip(np.round((item.x + s * reach) * size), 0, size)) for s in (-1, 1))
    top, bottom = (int(np.clip(np.round((item.y + s * reach) * size), 0, size)) for s in (-1, 1))
    if left >= right or top >= bottom:
        return
    u = (((np.arange(left, right, dtype=np.float32) + 0.5) / size - item.x) / item.size)[None, :]
    v = (((np.arange(top, bottom, dtype=np.float32) + 0.5) / size - item.y) / item.size)[:, None]
    u, v = np.broadcast_arrays(u, v)
    crop, pixel = canvas[top:bottom, left:right], 1.0 / (size * item.size)
    shadow = np.clip((1.0 - np.hypot((u + 0.3 * side) / 0.95, (v - 0.97) / 0.24)) * 2.0, 0, 1)
    crop *= 1.0 - 0.45 * shadow[..., None]
    shade = _shade(item.kind, u, v, side)[..., None]
    rgb = np.array(COLOURS[item.colour], np.float32)
    for distance, layer in SHAPES[item.kind](u, v, rgb, item.variant):
        alpha = np.clip(0.5 - distance / pixel, 0, 1)[..., None]
        crop += alpha * (np.clip(layer * shade, 0, 1) - crop)
