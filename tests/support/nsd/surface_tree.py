"""An NSD tree's files on fsaverage, written byte by byte from FreeSurfer's description of MGH, with few vertices."""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.nsd.tree import VERSION, N

VERTICES, NATIVE = 642, 701
"""Of a hemisphere of fsaverage3, and of the subject's own left one; the right has one more."""
AREAS = {1: "V1v", 2: "V1d", 3: "V2v"}
TYPES = {"int32": 1, "float32": 3, "int16": 4}


def write_mgh(path: Path, values: np.ndarray) -> None:
    """Values (vertices,) or (vertices, n) as MGH, compressed where the name ends with z: first vertex fastest."""
    values = values[:, None] if values.ndim == 1 else values
    n, frames = values.shape
    header = struct.pack(">7ih", 1, n, 1, 1, frames, TYPES[str(values.dtype)], 0, 1)
    header += struct.pack(">15f", 1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0)
    data = header.ljust(284, b"\0") + values.T.astype(values.dtype.newbyteorder(">")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".mgz" else data)


def write_table(path: Path, names: dict[int, str]) -> None:
    """A label table, separated by spaces, as NSD has it."""
    path.write_text("".join(f"{k} {name}\t\n" for k, name in {0: "Unknown", **names}.items()))


@dataclass
class Surface:
    """What lies on both hemispheres: raw[session] is a pair (vertices, 750) float32."""

    root: Path
    subject: str
    raw: dict[int, tuple[np.ndarray, np.ndarray]]
    general: tuple[np.ndarray, np.ndarray]
    native: tuple[np.ndarray, np.ndarray]
    nearest: tuple[np.ndarray, np.ndarray]

    @property
    def betas(self) -> Path:
        return self.root / f"nsddata_betas/ppdata/{self.subject}/fsaverage/{VERSION}"

    @property
    def atlas(self) -> Path:
        return self.root / "nsddata/freesurfer/fsaverage/label"

    @property
    def labels(self) -> Path:
        return self.root / f"nsddata/freesurfer/{self.subject}/label"

    @property
    def transforms(self) -> Path:
        return self.root / f"nsddata/ppdata/{self.subject}/transforms"

    def session(self, side: str, session: int) -> Path:
        return self.betas / f"{side}.betas_session{session:02d}.mgh"


def write_labels(surface: Surface) -> None:
    """nsdgeneral and streams on fsaverage, prf-visualrois on the subject's own surface, and a map that is no family."""
    for k, side in enumerate(("lh", "rh")):
        write_mgh(surface.atlas / f"{side}.nsdgeneral.mgz", surface.general[k].astype(np.float32))
        streams = np.arange(len(surface.general[k])) % 9 - 1
        write_mgh(surface.atlas / f"{side}.streams.mgz", streams.astype(np.float32))
        write_mgh(surface.labels / f"{side}.prf-visualrois.mgz", surface.native[k])
        write_mgh(surface.labels / f"{side}.thickness.mgz", np.linspace(1, 4, len(surface.native[k]), dtype="float32"))
        write_mgh(surface.transforms / f"{side}.white-to-fsaverage.mgz", surface.nearest[k])
    write_table(surface.atlas / "streams.mgz.ctab", {k: f"stream{k}" for k in range(1, 8)})
    write_table(surface.labels / "prf-visualrois.mgz.ctab", AREAS)


def make_surface(root: Path, subject: str = "subj02", sessions=(1, 2), seed: int = 5) -> Surface:
    """Random betas of a subject whose design and folder are there already."""
    rng = np.random.default_rng(seed)
    pair = range(2)
    raw = {s: tuple((2 * rng.standard_normal((VERTICES, N)) + 0.3).astype(np.float32) for _ in pair) for s in sessions}
    general = tuple((rng.random(VERTICES) < 0.1).astype(int) for _ in pair)
    native = tuple(rng.integers(-1, 4, NATIVE + k).astype(np.int32) for k in pair)
    nearest = tuple((rng.integers(0, NATIVE + k, VERTICES) + 1).astype(np.float32) for k in pair)
    surface = Surface(root, subject, raw, general, native, nearest)
    for session, both in raw.items():
        for side, values in zip(("lh", "rh"), both, strict=True):
            write_mgh(surface.session(side, session), values)
    write_labels(surface)
    return surface


def on_fsaverage(root: Path, subject: str, volume, n_vertices: int) -> Surface:
    """The betas of a subject's volume on fsaverage: vertices, in an order of their own, each have one voxel's.

    Parameters
    ----------
    volume : Betas
        Single trials of all voxels, in percent, of session 1.
    """
    rng = np.random.default_rng(3)
    regions = volume.rois.labels[tuple(volume.voxels.T)]
    raw, general, native = [], [], []
    for _ in ("lh", "rh"):
        places = rng.permutation(n_vertices)[: volume.n_voxels]
        values = np.zeros((n_vertices, N), np.float32)
        values[places] = volume.data.T
        labels = np.full(n_vertices, -1, np.int32)
        labels[places] = regions
        inside = np.zeros(n_vertices, int)
        inside[places] = 1
        raw.append(values)
        general.append(inside)
        native.append(labels[::-1].copy())
    nearest = tuple(np.arange(n_vertices, 0, -1).astype(np.float32) for _ in range(2))
    surface = Surface(root, subject, {1: tuple(raw)}, tuple(general), tuple(native), nearest)
    for side, values in zip(("lh", "rh"), raw, strict=True):
        write_mgh(surface.session(side, 1), values)
    write_labels(surface)
    write_table(surface.labels / "prf-visualrois.mgz.ctab", volume.rois.names)
    return surface
