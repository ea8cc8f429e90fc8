"""Procedurally drawn, captioned scenes: what the demo models are trained on and the simulated subject sees.

A `Scene` is a small immutable description. `render` turns it into pixels at any resolution, `captions` into
words, `contents` into numbers. Numpy only.
"""

from collections.abc import Sequence

import numpy as np

from napari_neuraldiffuser.core.nsd.simulation.scenes.backgrounds import BACKGROUNDS
from napari_neuraldiffuser.core.nsd.simulation.scenes.captions import (
    BACKGROUND_KINDS,
    BRIGHTNESS,
    Lighting,
    Scene,
    captions,
    place_words,
    scene_vocabulary,
    size_word,
)
from napari_neuraldiffuser.core.nsd.simulation.scenes.shapes import COLOUR_NAMES, OBJECT_KINDS, SceneObject, paint

__all__ = [
    "BACKGROUND_KINDS", "COLOUR_NAMES", "OBJECT_KINDS", "Lighting", "Scene", "SceneObject", "captions", "contents",
    "draw_scene", "place_words", "render", "scene_vocabulary", "size_word",
]  # fmt: skip

_LOCALISER = {"face": "face", "house": "house", "figure": "body", "sign": "word"}


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw one scene at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.

    Returns
    -------
    Scene
        One to three objects, non-overlapping where that was possible; the first is the largest.
    """
    background = _pick(rng, BACKGROUND_KINDS)
    lighting = Lighting(_pick(rng, ("left", "right")), _pick(rng, tuple(BRIGHTNESS)))
    main = _draw_object(rng, size=rng.uniform(0.19, 0.31), box=(0.28, 0.72, 0.38, 0.68))
    objects = [main]
    for _ in range(rng.integers(0, 3)):
        objects.append(_draw_beside(rng, objects))
    seed, horizon = int(rng.integers(2**31)), round(float(rng.uniform(0.34, 0.54)), 4)
    return Scene(background, lighting, tuple(objects), seed, horizon)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _draw_object(rng: np.random.Generator, size: float, box: tuple[float, float, float, float]) -> SceneObject:
    x, y = rng.uniform(box[0], box[1]), rng.uniform(box[2], box[3])
    kind, colour = _pick(rng, OBJECT_KINDS), _pick(rng, COLOUR_NAMES)
    x, y, size = (round(float(value), 4) for value in (x, y, size))
    return SceneObject(kind, colour, x, y, size, int(rng.integers(4)))


def _draw_beside(rng: np.random.Generator, others: Sequence[SceneObject]) -> SceneObject:
    """A small object clear of the others: the best of 20 tries."""
    clearance = -np.inf
    for _ in range(20):
        item = _draw_object(rng, rng.uniform(0.10, 0.135), (0.12, 0.88, 0.14, 0.86))
        gap = min(np.hypot(item.x - o.x, item.y - o.y) - item.size - 0.9 * o.size for o in others)
        if gap > clearance:
            best, clearance = item, gap
        if gap > 0:
            break
    return best


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """Draw a scene as an image.

    Parameters
    ----------
    scene : Scene
    size : int
        Side in pixels, 8 or more. The same scene at another size shows the same picture.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
        sRGB values as displayed.

    Raises
    ------
    ValueError
        If ``size`` is below 8.
    """
    if size < 8:
        raise ValueError(f"size must be 8 or more pixels, got {size}. Ask for 64 and shrink the result.")
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = centres[None, :], centres[:, None]
    rng = np.random.default_rng(scene.texture_seed)
    image = np.ascontiguousarray(BACKGROUNDS[scene.background](x, y, rng, scene.horizon), dtype=np.float32)
    side = scene.lighting.side
    for item in reversed(scene.objects):  # the main object is in front
        paint(image, item, side)
    ramp = BRIGHTNESS[scene.lighting.brightness] * (1.0 + 0.22 * side * (2 * x - 1))
    return (np.clip(image * ramp[..., None], 0, 1) * 255 + 0.5).astype(np.uint8)


def contents(scene: Scene) -> dict[str, float]:
    """What a scene contains, as numbers: what the simulated high-level regions respond to.

    Parameters
    ----------
    scene : Scene

    Returns
    -------
    dict of str to float
        ``face``, ``house``, ``body``, ``word``: summed extent (fraction of the image side) of such objects; ``kind:K``:
        the same for every object kind; ``background:B``: one-hot; ``colour:C``: summed area (fraction of the image) of
        the objects of a colour; ``main_x``, ``main_y``, ``main_size``, ``n_objects``, ``brightness``, ``light_side``.
    """
    values = dict.fromkeys(_LOCALISER.values(), 0.0)
    values |= {f"kind:{kind}": 0.0 for kind in OBJECT_KINDS}
    values |= {f"background:{kind}": float(kind == scene.background) for kind in BACKGROUND_KINDS}
    values |= {f"colour:{name}": 0.0 for name in COLOUR_NAMES}
    for item in scene.objects:
        values[f"kind:{item.kind}"] += 2 * item.size
        values[f"colour:{item.colour}"] += 4 * item.size**2
        if item.kind in _LOCALISER:
            values[_LOCALISER[item.kind]] += 2 * item.size
    main = scene.objects[0]
    values |= {"main_x": main.x, "main_y": main.y, "main_size": 2 * main.size}
    values |= {"n_objects": float(len(scene.objects)), "brightness": BRIGHTNESS[scene.lighting.brightness]}
    return values | {"light_side": scene.lighting.side}
