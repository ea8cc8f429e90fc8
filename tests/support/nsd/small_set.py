"""A small set of own scans as labs have them: two categories, two trials of each stimulus, no test column."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

SHAPE = (6, 5, 4)
CAPTIONS = {"cat": "a white ball at the bottom", "dog": "a red box at the top"}


@dataclass(frozen=True)
class SmallSet:
    """Files of the set."""

    folder: Path
    labels: list[str]

    @property
    def betas(self) -> Path:
        return self.folder / "betas.nii"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def trials(self) -> Path:
        return self.folder / "trials.tsv"

    def options(self) -> list[str]:
        """Of the command line, as subject 07, BETAS first."""
        files = {"mask": "mask.nii", "trials": "trials.tsv", "images": "images", "captions": "captions.json"}
        more = [part for name, file in files.items() for part in (f"--{name}", str(self.folder / file))]
        return [str(self.betas), *more, "--participant-label", "07"]

    def source(self) -> dict[str, str]:
        """Fields of a Source."""
        files = {"mask": "mask.nii", "trials": "trials.tsv", "images": "images", "captions": "captions.json"}
        return {"subject": "07", "betas": str(self.betas)} | {k: str(self.folder / v) for k, v in files.items()}


def write_small_set(folder: Path, n: int = 24, repeats: int = 2, noise: float = 0.5, seed: int = 0) -> SmallSet:
    """Betas are random projections of the pictures' pixels, and noise."""
    rng = np.random.default_rng(seed)
    labels = [f"{'cat' if k < n // 2 else 'dog'}_{k:03d}" for k in range(n)]
    made = SmallSet(folder, labels)
    made.images.mkdir()
    coarse = rng.integers(0, 255, (n, 4, 4, 3)).astype(np.uint8)
    for label, picture in zip(labels, coarse, strict=True):
        Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR).save(made.images / f"{label}.png")
    flat = coarse.reshape(n, -1) / 255.0 - 0.5
    signal = flat @ rng.standard_normal((flat.shape[1], int(np.prod(SHAPE))))
    rows = np.tile(np.arange(n), repeats)
    betas = signal[rows] + noise * signal.std() * rng.standard_normal((len(rows), signal.shape[1]))
    affine = np.diag([2.0, 2, 2, 1])
    nib.save(nib.Nifti1Image(betas.T.reshape(*SHAPE, -1).astype(np.float32), affine), made.betas)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine), folder / "mask.nii")
    lines = [f"{t}\t{labels[row]}\t{1 + t // n}" for t, row in enumerate(rows)]
    made.trials.write_text("\n".join(["trial\tstimulus\tsession", *lines]) + "\n")
    captions = {label: [CAPTIONS[label[:3]]] for label in labels}
    (folder / "captions.json").write_text(json.dumps(captions))
    return made
