"""Backgrounds of the procedural scenes: textures written as formulas of the place, so any resolution works.

Every painter takes ``x`` of shape (1, size) and ``y`` of shape (size, 1), fractions of the image side at pixel
centres, a generator seeded by the scene, and the horizon's height; it returns RGB (size, size, 3) in [0, 1].
"""

import numpy as np


def _rgb(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _mix(first: np.ndarray, second: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Blend two colours (or images) by a map (size, size)."""
    return first + (second - first) * amount[..., None]


def _waves(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, frequency: float, stretch: float = 1.0
) -> np.ndarray:
    """Smooth noise of about unit height: six plane waves, summed as one matrix product.

    ``sin(a + b) = sin a cos b + cos a sin b`` makes each wave two outer products: far fewer sines.
    """
    angle = rng.uniform(0, np.pi, 6)
    omega = 2 * np.pi * frequency * rng.uniform(0.6, 1.4, 6)
    phase = rng.uniform(0, 2 * np.pi, 6)
    along_x = x[0][:, None] * (omega * np.cos(angle)) + phase
    along_y = y * (omega * np.sin(angle) * stretch)
    rows = np.concatenate([np.cos(along_y), np.sin(along_y)], 1).astype(np.float32)
    columns = np.concatenate([np.sin(along_x), np.cos(along_x)], 1).astype(np.float32)
    return rows @ columns.T / np.float32(2.0)


def _below(x: np.ndarray, y: np.ndarray, line: np.ndarray, soft: float = 0.0) -> np.ndarray:
    """Coverage (size, size) of what lies under a curve ``line`` (1, size), its edge one pixel (or ``soft``) wide."""
    width = max(soft, 1.0 / y.shape[0])
    return np.clip(0.5 + (y - line) / width, 0, 1)


def _sky(y: np.ndarray, horizon: float, zenith: np.ndarray, low: np.ndarray) -> np.ndarray:
    ramp = np.clip(y / horizon, 0, 1)
    return _mix(zenith, low, np.broadcast_to(ramp, (y.shape[0], y.shape[0])))


def meadow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    clouds = np.clip(_waves(x, y, rng, 1.8, 2.0) - 0.35, 0, 0.8)
    sky = _mix(_sky(y, horizon, _rgb(0.32, 0.60, 0.95), _rgb(0.72, 0.87, 0.98)), _rgb(1, 1, 1), clouds)
    grass = 0.5 + 0.25 * _waves(x, y, rng, 7.0, 0.5)
    ground = _mix(_rgb(0.16, 0.42, 0.10), _rgb(0.46, 0.68, 0.20), np.clip(grass, 0, 1))
    hill = horizon + 0.04 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.2) + rng.uniform()))
    return _mix(sky, ground, _below(x, y, hill))


def sea(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    sky = _sky(y, horizon, _rgb(0.45, 0.68, 0.92), _rgb(0.95, 0.90, 0.82))
    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    swell = np.sin(2 * np.pi * (5.0 * depth**0.7 + 0.25 * _waves(x, y, rng, 2.2)) + rng.uniform(0, 6))
    water = _mix(_rgb(0.05, 0.25, 0.48), _rgb(0.20, 0.56, 0.70), 0.5 + 0.4 * swell)
    water = _mix(water, _rgb(0.03, 0.20, 0.42), np.broadcast_to(0.4 * depth, swell.shape))
    return _mix(sky, water, _below(x, y, horizon + 0 * x))


def desert(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    image = _sky(y, horizon, _rgb(0.55, 0.75, 0.90), _rgb(0.99, 0.85, 0.62))
    for layer, tone in enumerate((0.74, 0.86, 1.0)):
        line = horizon + 0.17 * layer + 0.07 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.1) + rng.uniform()))
        ripple = 0.5 + 0.5 * np.sin(2 * np.pi * (9 * (y - line) + 0.6 * np.sin(7 * x)))
        sand = _mix(_rgb(0.86, 0.64, 0.34) * tone, _rgb(0.97, 0.79, 0.48) * tone, ripple)
        image = _mix(image, sand, _below(x, y, line))
    return image


def night(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    image = _sky(y, horizon + 0.3, _rgb(0.02, 0.02, 0.11), _rgb(0.15, 0.12, 0.34))
    for _ in range(16):
        star, width = rng.uniform(0, 1, 2), rng.uniform(0.008, 0.014)
        glow = np.exp(-(((x - star[0]) / width) ** 2)) * np.exp(-(((y - 0.8 * star[1]) / width) ** 2))
        image += glow[..., None].astype(np.float32)
    moon = np.hypot(x - rng.uniform(0.1, 0.9), y - rng.uniform(0.1, 0.2)) - 0.07
    image = _mix(image, _rgb(0.96, 0.94, 0.80), np.clip(0.5 - moon * y.shape[0], 0, 1))
    hill = horizon + 0.24 + 0.07 * np.sin(2 * np.pi * (x * rng.uniform(0.7, 1.5) + rng.uniform()))
    return _mix(image, _rgb(0.05, 0.08, 0.10), _below(x, y, hill))


def bricks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    rows, columns = 8, 4
    shift = rng.uniform(0, 1, 2)
    row = np.floor(y * rows + shift[0])
    across = x * columns + shift[1] + 0.5 * (row % 2)
    tone = 0.5 + 0.5 * np.sin(row * 12.99 + np.floor(across) * 78.23 + shift[0] * 40)
    brick = _mix(_rgb(0.52, 0.24, 0.17), _rgb(0.70, 0.36, 0.25), tone)
    edge_y = np.abs((y * rows + shift[0] + 0.5) % 1 - 0.5) / rows
    edge_x = np.abs((across + 0.5) % 1 - 0.5) / columns
    mortar = np.clip(0.5 + (0.011 - np.minimum(edge_x, edge_y)) * y.shape[0], 0, 1)
    return _mix(brick, _rgb(0.78, 0.74, 0.68), mortar)


def checker(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    depth = np.maximum(y - horizon, 0) + 0.16
    across = (x - 0.5) / depth * 0.8 + rng.uniform()
    along = 0.55 / depth + rng.uniform()
    squares = np.clip(0.5 + 2.5 * np.sin(np.pi * across * 1.3) * np.sin(np.pi * along * 1.3), 0, 1)
    floor = _mix(_rgb(0.16, 0.17, 0.20), _rgb(0.88, 0.86, 0.80), squares)
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * (6 * x + rng.uniform()))
    wall = _mix(_rgb(0.62, 0.70, 0.66), _rgb(0.72, 0.79, 0.74), np.broadcast_to(stripes, squares.shape))
    return _mix(wall, floor, _below(x, y, horizon + 0 * x))


def forest(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    leaves = np.clip(0.5 + 0.3 * _waves(x, y, rng, 5.0), 0, 1)
    image = _mix(_rgb(0.03, 0.16, 0.08), _rgb(0.16, 0.40, 0.16), leaves)
    for _ in range(5):
        centre, half = rng.uniform(0, 1), rng.uniform(0.02, 0.045)
        lean = centre + 0.08 * rng.uniform(-1, 1) * (y - 0.5)
        trunk = np.clip(0.5 + (half - np.abs(x - lean)) * y.shape[0], 0, 1)
        bark = _rgb(0.30, 0.19, 0.11) * np.clip(1.1 + 0.4 * (x - lean) / half, 0.7, 1.5)[..., None]
        image = image + (bark - image) * trunk[..., None]
    patches = np.clip(0.5 + 0.3 * _waves(x, y, rng, 6.0), 0, 1)
    moss = _mix(_rgb(0.20, 0.24, 0.08), _rgb(0.34, 0.36, 0.14), patches)
    return _mix(image, moss, _below(x, y, horizon + 0.25 + 0 * x, 0.04))


def snow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, horizon: float) -> np.ndarray:
    image = _sky(y, horizon, _rgb(0.62, 0.70, 0.80), _rgb(0.82, 0.86, 0.92))
    for layer, tone in enumerate((0.72, 0.87, 1.0)):
        line = horizon + 0.16 * layer + 0.05 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.4) + rng.uniform()))
        drift = np.clip(0.5 + 0.3 * _waves(x, y, rng, 3.0, 2.5), 0, 1)
        hill = _mix(_rgb(0.70, 0.80, 0.94) * tone, _rgb(0.95, 0.97, 1.0) * tone, drift)
        image = _mix(image, hill, _below(x, y, line))
    for _ in range(3):
        foot, height = rng.uniform(0, 1), rng.uniform(0.18, 0.3)
        pine = np.maximum(np.abs(x - foot) - 0.33 * (y - horizon - 0.06 + height), y - horizon - 0.06)
        image = _mix(image, _rgb(0.16, 0.30, 0.28), np.clip(0.5 - pine * y.shape[0], 0, 1))
    return image


BACKGROUNDS = {draw.__name__: draw for draw in (meadow, sea, desert, night, bricks, checker, forest, snow)}
