"""Where the simulated regions lie and what they respond to.

Centres are *approximate* MNI millimetres, |x| for both hemispheres, set by hand near the group positions that are
published for retinotopic areas (Wang et al. 2015, doi:10.1093/cercor/bhu277) and category regions (Julian et al. 2012,
doi:10.1016/j.neuroimage.2012.02.055; Rosenke et al. 2021, doi:10.1093/cercor/bhaa246), not copied from their tables.
They place plausible blobs, they are not an atlas.  Volumes of the early areas are about twice those of NSD's subj01, so
that a 4 mm grid still has enough voxels to tile the visual field.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """One region of one family in both hemispheres.

    `label` in the family's volume; `centre` MNI mm (|x|, y, z); `volume` mm^3 per hemisphere; `low_level` share of
    the signal's variance that comes from the image's local contrast, luminance and colour (the rest is what the
    scene contains); `field` the part of the visual field, `size` the receptive field size relative to V1; `prefers`
    the content that drives the region.
    """

    family: str
    label: int
    name: str
    centre: tuple[float, float, float]
    volume: float
    low_level: float
    field: str = "both"
    size: float = 4.0
    prefers: tuple[str, ...] = ()


_PRF, _FACES, _PLACES, _BODIES, _WORDS = ("prf-visualrois", "floc-faces", "floc-places", "floc-bodies", "floc-words")

REGIONS = (
    Region(_PRF, 1, "V1v", (7, -78, 0), 4000, 1.0, "upper", 1.0),
    Region(_PRF, 2, "V1d", (9, -94, 4), 4000, 1.0, "lower", 1.0),
    Region(_PRF, 3, "V2v", (11, -76, -9), 3600, 1.0, "upper", 1.4),
    Region(_PRF, 4, "V2d", (14, -97, 13), 3600, 1.0, "lower", 1.4),
    Region(_PRF, 5, "V3v", (20, -77, -11), 3200, 1.0, "upper", 1.9),
    Region(_PRF, 6, "V3d", (21, -95, 16), 3200, 1.0, "lower", 1.9),
    Region(_PRF, 7, "hV4", (29, -78, -14), 2600, 0.45, "both", 3.0, ("colour:", "main_colour:")),
    Region(_FACES, 1, "OFA", (41, -79, -9), 1600, 0.1, prefers=("face", "kind:face")),
    Region(_FACES, 2, "FFA-1", (39, -63, -16), 1800, 0.1, prefers=("face", "main_kind:")),
    Region(_FACES, 3, "FFA-2", (41, -50, -18), 1600, 0.05, prefers=("face", "main_kind:")),
    Region(_PLACES, 1, "OPA", (34, -82, 21), 2000, 0.15, prefers=("house", "background:", "main_x", "main_y")),
    Region(_PLACES, 2, "PPA", (27, -46, -9), 2400, 0.05, prefers=("house", "background:")),
    Region(_PLACES, 3, "RSC", (18, -57, 14), 2000, 0.05, prefers=("background:", "brightness", "light_side")),
    Region(_BODIES, 1, "EBA", (47, -72, 4), 2800, 0.1, prefers=("body", "main_size", "main_x", "main_y")),
    Region(_BODIES, 2, "FBA-1", (44, -57, -12), 1600, 0.05, prefers=("body", "main_kind:")),
    Region(_BODIES, 3, "FBA-2", (42, -43, -20), 1400, 0.05, prefers=("body", "main_kind:")),
    Region(_WORDS, 1, "OWFA", (44, -80, -4), 1400, 0.1, prefers=("word", "kind:sign")),
    Region(_WORDS, 2, "VWFA-1", (46, -61, -11), 1600, 0.05, prefers=("word", "main_colour:")),
    Region(_WORDS, 3, "VWFA-2", (46, -51, -14), 1400, 0.05, prefers=("word", "main_colour:")),
)

REST = Region("nsdgeneral", 1, "nsdgeneral", (0, 0, 0), 0, 0.1, "both", 4.0)
"""nsdgeneral voxels outside every region above: weak, mixed, mostly content."""

FAMILIES = (_PRF, _FACES, _WORDS, _PLACES, _BODIES)

LABEL_TABLES = {
    _PRF: ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    _FACES: ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    _WORDS: ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    _PLACES: ("OPA", "PPA", "RSC"),
    _BODIES: ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "nsdgeneral": ("nsdgeneral",),
}
"""Names as in NSD's tables, labels from 1; like NSD's subjects, a simulated one lacks some of them."""

NSDGENERAL_MM3 = 128_000.0
POSTERIOR_Y = -38.0
"""nsdgeneral is grown from the regions through grey matter behind this MNI plane, up to this volume."""
