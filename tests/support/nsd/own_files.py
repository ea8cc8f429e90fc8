"""Own scans exported from an NSD subject: the same measurements as single files, for comparison with the tree."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd.reading.sessions import INT16_SCALE, read_session

FAMILY = "prf-visualrois"


def export(subject: nsd.Subject, folder: Path, *, stored: type = np.float32, name: str = "subj07") -> Source:
    """Write betas, mask, regions, trials, images, captions and anatomy, cut to the box around nsdgeneral.

    `stored` float32 holds percent signal change; int16 holds NSD's numbers with the header's slope.
    Labels are the 73k ids, so that the order of the stimuli is NSD's.
    """
    folder.mkdir(parents=True)
    rois = {family: subject.rois(family) for family in ("nsdgeneral", FAMILY)}
    box, affine = _box(rois["nsdgeneral"].labels > 0, subject.affine)
    _save(folder / "mask.nii.gz", (rois["nsdgeneral"].labels[box] > 0).astype(np.uint8), affine)
    _save(folder / f"seg-{FAMILY.replace('-', '')}_dseg.nii.gz", rois[FAMILY].labels[box].astype(np.int16), affine)
    names = "".join(f"{k}\t{region}\n" for k, region in rois[FAMILY].names.items())
    (folder / f"seg-{FAMILY.replace('-', '')}_dseg.tsv").write_text("index\tname\n0\tbackground\n" + names)
    _save(folder / "T1w.nii.gz", np.asarray(subject.anatomy().dataobj)[box], affine)
    files = subject.layout.sessions()
    _write_betas(folder / "betas.nii", subject, files, box, affine, stored)
    trials = subject.trials[subject.trials["session"].isin(files)]
    _write_trials(folder / "trials.tsv", trials)
    _write_stimuli(folder, subject, trials["stimulus_id"].unique())
    return Source(
        subject=name,
        betas=str(folder / "betas.nii"),
        mask=str(folder / "mask.nii.gz"),
        trials=str(folder / "trials.tsv"),
        images=str(folder / "images"),
        captions=str(folder / "captions.json"),
        anatomy=str(folder / "T1w.nii.gz"),
        rois=(str(folder / f"seg-{FAMILY.replace('-', '')}_dseg.nii.gz"),),
    )


def corner(subject: nsd.Subject) -> np.ndarray:
    """First voxel of the box, so that positions can be compared."""
    return np.argwhere(subject.rois("nsdgeneral").labels > 0).min(0)


def _box(mask: np.ndarray, affine: np.ndarray):
    where = np.argwhere(mask)
    low, high = where.min(0), where.max(0) + 1
    moved = affine.copy()
    moved[:3, 3] = (affine @ [*low, 1])[:3]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), moved


def _save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(values, affine), path)


def _write_betas(path, subject, files, box, affine, stored) -> None:
    inside = np.zeros(subject.shape, bool)
    inside[box] = True
    voxels = np.argwhere(inside)
    grid = (subject.shape, subject.affine)
    percent = np.concatenate([read_session(file, voxels, 750, grid) for file in files.values()])
    values = percent.T.reshape(*(s.stop - s.start for s in box), -1)
    if stored is np.float32:
        return _save(path, values, affine)
    image = nib.Nifti1Image(np.round(values * INT16_SCALE).astype(np.int16), affine)
    # with a slope in the header, nibabel writes the numbers as they are
    image.header.set_slope_inter(1 / INT16_SCALE, 0)
    return nib.save(image, path)


def _write_trials(path: Path, trials) -> None:
    table = trials.assign(stimulus=[f"{s:05d}" for s in trials["stimulus_id"]], test=trials["shared"].astype(int))
    # the rows need not be in order
    table = table[["trial", "stimulus", "session", "test"]].sample(frac=1, random_state=0)
    table.to_csv(path, sep="\t", index=False)


def _write_stimuli(folder: Path, subject: nsd.Subject, ids) -> None:
    (folder / "images").mkdir()
    for one in ids:
        Image.fromarray(subject.stimuli[int(one)]).save(folder / "images" / f"{one:05d}.png")
    captions = {f"{one:05d}": subject.stimuli.captions(int(one)) for one in ids}
    (folder / "captions.json").write_text(json.dumps(captions))
