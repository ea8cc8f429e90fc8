"""A small output folder as a run writes it, on grids of any orientation."""

import nibabel as nib
import numpy as np

AFFINE = nib.affines.from_matvec(np.diag([4.0, 4.0, 4.0]), [-20, -30, -10])
SHAPE = (6, 7, 8)
PEAK = (2, 3, 4)
LOWEST = (4, 5, 6)
REGIONS = {"prf-visualrois": {1: "V1v", 2: "V2v"}, "floc-faces": {1: "FFA-1"}}
PLACES = {"V1v": (slice(1, 4), slice(2, 5), slice(3, 6)), "V2v": (slice(4, 6), slice(4, 7), slice(5, 8))}
PLACES["FFA-1"] = PLACES["V1v"]
HEADER = "roi\ttarget\tshare\tse\tn_voxels\tfamily\n"


def write_map(path, scale, affine=AFFINE):
    """Noise, one peak and one voxel that takes away."""
    data = np.random.default_rng(scale).normal(0, 0.01, SHAPE).astype(np.float32)
    data[PEAK], data[LOWEST] = scale, -scale / 2
    nib.save(nib.Nifti1Image(data, affine), path)
    return data


def write_regions(folder, affine=AFFINE):
    """Label volumes with their tables and sidecars."""
    (folder / "anat").mkdir()
    for family, names in REGIONS.items():
        labels = np.zeros(SHAPE, np.uint8)
        for label, roi in names.items():
            labels[PLACES[roi]] = label
        stem = folder / "anat" / f"{folder.name}_space-func1pt8mm_seg-{family.replace('-', '')}_dseg"
        nib.save(nib.Nifti1Image(labels, affine), f"{stem}.nii.gz")
        rows = "".join(f"{k}\t{name}\n" for k, name in names.items())
        stem.with_name(f"{stem.name}.tsv").write_text(f"index\tname\n0\tbackground\n{rows}")
        stem.with_name(f"{stem.name}.json").write_text(f'{{"Family": "{family}"}}')


def write_output(folder, affine=AFFINE):
    """Two subjects, targets c and g02, and z; only the first has a table and regions."""
    for label, targets in (("sub-01", ("c", "g02")), ("sub-02", ("z",))):
        (folder / label).mkdir(parents=True)
        for scale, target in enumerate(targets, 1):
            name = f"{label}_space-func1pt8mm_target-{target}_contribution.nii.gz"
            write_map(folder / label / name, scale, affine)
    write_regions(folder / "sub-01", affine)
    table = HEADER
    for target, shares in {"c": (0.3, -0.1, 0.05), "g02": (0.1, 0.2, -0.02)}.items():
        table += f"V1v\t{target}\t{shares[0]}\t0.01\t27\tprf-visualrois\n"
        table += f"V2v\t{target}\t{shares[1]}\t0.01\t18\tprf-visualrois\n"
        table += f"outside prf-visualrois\t{target}\t0.5\t0.02\t291\tprf-visualrois\n"
        table += f"FFA-1\t{target}\t{shares[2]}\tn/a\t27\tfloc-faces\n"
    (folder / "sub-01" / "sub-01_contribution.tsv").write_text(table)
    return folder
