"""NSD-synthetic's and NSD-imagery's files in a hand-written tree, independent of the package's simulator."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
from PIL import Image

from tests.support.nsd.tree import SHAPE, VERSION, hdf5

SIDE, TALL, WIDE = 8, 8, 16
"""Of the core's images, and of NSD-synthetic's: the centre square needs no resampling."""


def bricks(path: Path, shape: tuple[int, ...], rows: dict[int, np.ndarray]) -> None:
    """A file of images of which only some are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, *shape[1:]))
        for row, image in rows.items():
            data[row] = image


class Synthetic:
    """subj02's session of NSD-synthetic: `order` is 1-based as in NSD, `raw` int16 (X, Y, Z, 744)."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(11)
        counts = np.repeat([2, 4, 8, 10], [236, 32, 8, 8])
        self.root, self.order = root, rng.permutation(np.repeat(np.arange(1, 285), counts))
        self.raw = rng.integers(-2000, 4000, (*SHAPE, 744)).astype(np.int16)
        self.pictures = rng.integers(0, 256, (284, TALL, WIDE, 3)).astype(np.uint8)
        self.pictures[4, :, 4:12] = 115  # a word outside the square
        self.betas = root / f"nsddata_betas/ppdata/subj02/func1pt8mm/nsdsynthetic{VERSION}/betas_nsdsynthetic.hdf5"
        self.design = root / "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"
        self.shared = root / "nsddata_stimuli/stimuli/nsdsynthetic/nsdsynthetic_stimuli.hdf5"
        self.coloured = self.shared.with_name("nsdsynthetic_colorstimuli_subj02.hdf5")

    def write(self) -> "Synthetic":
        hdf5(self.betas, self.raw, chunks=(744, 1, 1, 1))
        self.design.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(self.design, {"masterordering": self.order[None].astype(float)})
        for path, part in ((self.shared, self.pictures[:220]), (self.coloured, self.pictures[220:])):
            bricks(path, part.shape, dict(enumerate(part)))
        core = self.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
        bricks(core, (73000, SIDE, SIDE, 3), {17: np.full((SIDE, SIDE, 3), 9, np.uint8)})
        return self


class Imagery:
    """subj02's session of NSD-imagery with three pictures and a table of some rows."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(12)
        self.raw = rng.integers(-2000, 2000, (*SHAPE, 720)).astype(np.int16)
        self.rows = {5: "lamp", 3: "cross", 47: "lamp", 200: "beach", 719: "cross"}
        self.betas = root / f"nsddata_betas/ppdata/subj02/func1pt8mm/nsdimagery{VERSION}/betas_nsdimagery.hdf5"
        self.images, self.table = root / "targets", root / "rows.tsv"

    def write(self) -> "Imagery":
        hdf5(self.betas, self.raw)
        self.images.mkdir()
        for k, name in enumerate(("lamp", "cross", "beach")):
            Image.new("RGB", (12, 10), (k, 20, 30)).save(self.images / f"{name}.png")
        self.write_rows(self.rows.items())
        return self

    def write_rows(self, rows) -> None:
        self.table.write_text("trial\tstimulus\n" + "".join(f"{row}\t{name}\n" for row, name in rows))
