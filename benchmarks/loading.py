"""Reading the voxels of a mask from one session of betas, against reading the array whole and masking it.

    python benchmarks/loading.py [--json FILE] [--quick] [--rounds N] [--layouts NAME ...]

A session of NSD's size (subject 1: 81 x 104 x 83 voxels, 750 trials of int16, 1.05 GB) of noise is written to a
temporary folder in one layout after another: HDF5 as NSD has it (one voxel's session is one chunk), contiguous HDF5,
.nii, .nii.gz.  Each reading is a process of its own, ours and the whole in turn; times are its processor seconds
without the imports, the file being in the page cache, and memory is the peak of the process over what it had before it
read.  The mask has 15,724 voxels in one connected part, as nsdgeneral.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE, TRIALS, VOXELS = (81, 104, 83), 750, 15_724
QUICK_SHAPE, QUICK_VOXELS = (31, 40, 33), 1_500
GOALS = {"hdf5-chunked": 15.0, "hdf5-contiguous": 1.5}
MEMORY_GOAL = 0.2
LAYOUTS = ("hdf5-chunked", "hdf5-contiguous", "nii", "nii.gz")
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])


def mask(shape: tuple[int, ...], n: int) -> np.ndarray:
    """The `n` voxels that are nearest to a point at the back of the head, (n, 3)."""
    grid = np.indices(shape).reshape(3, -1).T
    far = ((grid - np.array(shape) * (0.5, 0.25, 0.4)) ** 2).sum(axis=1)
    return grid[np.sort(np.argsort(far, kind="stable")[:n])]


def write(path: Path, layout: str, shape: tuple[int, ...]) -> None:
    """Write one session of noise; a chunk of NSD's layout is a voxel's 750 trials."""
    import h5py
    import nibabel as nib

    rng = np.random.default_rng(0)
    if layout.startswith("hdf5"):
        x, y, z = shape
        with h5py.File(path, "w") as file:
            chunks = (TRIALS, 1, 1, 1) if layout == "hdf5-chunked" else None
            data = file.create_dataset("betas", (TRIALS, z, y, x), "<i2", chunks=chunks)
            for k in range(z):
                slab = rng.integers(-3000, 3000, (TRIALS, y, x), dtype=np.int16)
                if not chunks:
                    data[:, k] = slab
                    continue
                for j in range(y):
                    for i in range(x):
                        data.id.write_direct_chunk((0, k, j, i), np.ascontiguousarray(slab[:, j, i]).tobytes())
        return
    series = np.empty((*shape, TRIALS), dtype=np.int16, order="F")
    for k in range(TRIALS):
        series[..., k] = rng.integers(-3000, 3000, shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(series, AFFINE), path)


def ours(path: Path, voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from napari_neuraldiffuser.core.nsd.reading.sessions import read_session

    return read_session(path, voxels, TRIALS, (shape, None if path.suffix == ".hdf5" else AFFINE))


def whole(path: Path, voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array as stored, then the mask, then float32: what most readers do, without their copies to float64.

    nibabel maps an uncompressed NIfTI, so that this is the quickest of its ways."""
    x, y, z = voxels.T
    if path.suffix == ".hdf5":
        import h5py

        with h5py.File(path) as file:
            return file["betas"][...][:, z, y, x].astype(np.float32) / 300
    import nibabel as nib

    return np.asanyarray(nib.load(path).dataobj)[x, y, z].T.astype(np.float32) / 300


def child(how: str, path: Path, shape: tuple[int, ...], n: int) -> None:
    """Read once and print processor seconds, peak memory and a digest of what was read."""
    voxels = mask(shape, n)
    read = {"ours": ours, "whole": whole}[how]
    import h5py
    import nibabel

    import napari_neuraldiffuser.core.nsd.reading.sessions

    del h5py, nibabel, napari_neuraldiffuser
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    values = read(path, voxels, shape)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"cpu": spent, "peak": peak / 1024, "sum": float(values.sum(dtype=np.float64))}))


def measured(how: str, path: Path, args: argparse.Namespace) -> dict:
    """In a process of its own; a child starts with its parent's peak, so that this one must stay small."""
    command = [sys.executable, __file__, "--child", how, "--file", str(path), *(["--quick"] if args.quick else [])]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told) if told else {}


def row(layout: str, path: Path, args: argparse.Namespace) -> dict:
    """Ours and the whole in turn, on one file."""
    rounds = [(measured("whole", path, args), measured("ours", path, args)) for _ in range(args.rounds)]
    for theirs, mine in rounds:
        if abs(theirs["sum"] - mine["sum"]) > 1e-6 * abs(theirs["sum"]) + 1e-3:
            raise SystemExit(f"{layout} must give the same values, got sums {theirs['sum']} and {mine['sum']}.")
    ratio = np.array([theirs["cpu"] / mine["cpu"] for theirs, mine in rounds])
    memory = np.array([mine["peak"] / theirs["peak"] for theirs, mine in rounds])
    q25, median, q75 = np.percentile(ratio, [25, 50, 75])
    found = {
        "benchmark": "loading",
        "case": layout,
        "baseline": "array whole",
        "ratio": {"median": float(median), "q25": float(q25), "q75": float(q75), "n": len(ratio)},
        "ours": {
            "median": float(np.median([mine["cpu"] for _, mine in rounds])),
            "whole_cpu_s": float(np.median([theirs["cpu"] for theirs, _ in rounds])),
            "peak_mib": float(np.median([mine["peak"] for _, mine in rounds])),
            "whole_peak_mib": float(np.median([theirs["peak"] for theirs, _ in rounds])),
            "memory_share": float(np.median(memory)),
            "goal": GOALS.get(layout, 1.0),
        },
        "unit": "s",
    }
    print(
        f"{layout}: {median:.1f}x (goal {GOALS.get(layout, 1.0)}), {found['ours']['median']:.2f} CPU s against "
        f"{found['ours']['whole_cpu_s']:.2f}; peak {found['ours']['peak_mib']:.0f} MiB against "
        f"{found['ours']['whole_peak_mib']:.0f} ({np.median(memory):.2f} of it, goal {MEMORY_GOAL})",
        file=sys.stderr,
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="a session of 61 MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--child", choices=("ours", "whole", *LAYOUTS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape, n = (QUICK_SHAPE, QUICK_VOXELS) if args.quick else (SHAPE, VOXELS)
    if args.child in LAYOUTS:
        return write(args.file, args.child, shape)
    if args.child:
        return child(args.child, args.file, shape, n)
    rows = []
    for layout in args.layouts:
        with tempfile.TemporaryDirectory() as folder:
            suffix = layout if layout.startswith("nii") else "hdf5"
            path = Path(folder) / f"betas_session01.{suffix}"
            measured(layout, path, args)
            rows.append(row(layout, path, args))
    if args.json:
        temporary = args.json.with_name(args.json.name + ".tmp")
        temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, args.json)
    return None


if __name__ == "__main__":
    main()
