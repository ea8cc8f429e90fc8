"""A scene as a description and in words: paraphrases that put the same fact at the same token.

The decoder's text target is the mean embedding over an image's captions. Paraphrases therefore swap words, never
slots: the mean stays close to a real caption's embedding.
"""

from dataclasses import asdict, dataclass
from typing import Any

from napari_neuraldiffuser.core.nsd.simulation.scenes.backgrounds import BACKGROUNDS
from napari_neuraldiffuser.core.nsd.simulation.scenes.shapes import SceneObject, check

BACKGROUND_KINDS = tuple(BACKGROUNDS)
BRIGHTNESS = {"bright": 1.0, "soft": 0.78, "dim": 0.56}
HORIZONTAL = ("left", "center", "right")
VERTICAL = ("top", "middle", "bottom")
_SYNONYMS = {  # first the canonical word, then what the second and third caption say
    "large": ("large", "big", "huge"),
    "medium": ("medium", "average", "medium"),
    "small": ("small", "little", "tiny"),
    "face": ("face", "head", "face"),
    "house": ("house", "home", "cottage"),
    "figure": ("figure", "person", "human"),
    "sign": ("sign", "board", "sign"),
    "ball": ("ball", "sphere", "ball"),
    "box": ("box", "crate", "cube"),
    "cone": ("cone", "cone", "cone"),
    "star": ("star", "star", "star"),
    "meadow": ("meadow", "field", "grassland"),
    "sea": ("sea", "ocean", "water"),
    "desert": ("desert", "dunes", "sand"),
    "night": ("night", "midnight", "night"),
    "bricks": ("bricks", "brickwork", "bricks"),
    "checker": ("checker", "tiles", "checkerboard"),
    "forest": ("forest", "woods", "trees"),
    "snow": ("snow", "winter", "snow"),
    "bright": ("bright", "strong", "bright"),
    "soft": ("soft", "mild", "soft"),
    "dim": ("dim", "weak", "dark"),
    "a": ("a", "one", "a"),
    "at": ("at", "near", "at"),
    "before": ("before", "against", "before"),
    "in": ("in", "under", "under"),
    "light": ("light", "lighting", "light"),
    "with": ("with", "beside", "plus"),
    "and": ("and", "also", "and"),
    "alone": ("alone", "only", "alone"),
}
_COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")


@dataclass(frozen=True)
class Lighting:
    """Where the light comes from and how much of it there is."""

    direction: str = "left"
    brightness: str = "bright"

    def __post_init__(self) -> None:
        check("direction", self.direction, ("left", "right"))
        check("brightness", self.brightness, tuple(BRIGHTNESS))

    @property
    def side(self) -> float:
        """-1.0 for light from the left, 1.0 from the right."""
        return -1.0 if self.direction == "left" else 1.0


@dataclass(frozen=True)
class Scene:
    """A background, its light and one to three objects, the main one first."""

    background: str
    lighting: Lighting
    objects: tuple[SceneObject, ...]
    texture_seed: int = 0
    horizon: float = 0.45

    def __post_init__(self) -> None:
        check("background", self.background, BACKGROUND_KINDS)
        if not self.objects:
            raise ValueError("objects must be one or more SceneObject, got none. Add the main object.")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON."""
        return {**asdict(self), "objects": [asdict(item) for item in self.objects]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Scene":
        """Inverse of `to_dict`."""
        objects = tuple(SceneObject(**item) for item in data["objects"])
        return cls(**{**data, "lighting": Lighting(**data["lighting"]), "objects": objects})


def size_word(item: SceneObject) -> str:
    """'small', 'medium' or 'large' for a main object."""
    return "small" if item.size < 0.23 else "medium" if item.size < 0.27 else "large"


def place_words(item: SceneObject) -> tuple[str, str]:
    """('top' | 'middle' | 'bottom', 'left' | 'center' | 'right') of an object's centre."""
    column = 0 if item.x < 0.42 else 1 if item.x <= 0.58 else 2
    row = 0 if item.y < 0.42 else 1 if item.y <= 0.6 else 2
    return VERTICAL[row], HORIZONTAL[column]


def _facts(scene: Scene) -> list[str]:
    """The caption in canonical words: 13, and 5 more per further object."""
    main, *others = scene.objects
    words = ["a", size_word(main), main.colour, main.kind, "at", *place_words(main), "before", scene.background]
    words += ["in", scene.lighting.brightness, scene.lighting.direction, "light"]
    if not others:
        return [*words, "alone"]
    for joint, item in zip(["with"] + ["and"] * len(others), others, strict=False):
        words += [joint, item.colour, item.kind, *place_words(item)]
    return words


def captions(scene: Scene, n: int = 3) -> list[str]:
    """Describe a scene in ``n`` ways.

    Parameters
    ----------
    scene : Scene
    n : int
        How many captions, 1 or more. The first uses the canonical words.

    Returns
    -------
    list of str
        Lower-case words separated by spaces, at most 23 for three objects; the k-th words of all captions of a
        scene say the same thing. Only words of `scene_vocabulary`.

    Raises
    ------
    ValueError
        If ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more captions, got {n}.")
    words = _facts(scene)
    return [" ".join(_word(word, index, slot) for slot, word in enumerate(words)) for index in range(n)]


def _word(word: str, index: int, slot: int) -> str:
    """Synonym for one slot; beyond three captions the slots shift, so that further ones differ too."""
    options = _SYNONYMS.get(word, (word,))
    return options[(index + (index // 3) * slot) % len(options)]


def scene_vocabulary() -> tuple[str, ...]:
    """Every word a caption can contain, sorted."""
    words = {option for options in _SYNONYMS.values() for option in options}
    return tuple(sorted(words | set(_COLOURS) | set(HORIZONTAL) | set(VERTICAL)))
