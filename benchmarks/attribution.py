"""Contribution maps, table of regions and permutations of a subject of full size: seconds and memory of every stage.

    python benchmarks/attribution.py FOLDER [--methods additive roi-only] [--permutations 1000] [--json FILE] [--keep]

FOLDER gets the targets of 1,000 training and 1,000 test stimuli (305,920 numbers each, 1.4 GB, deleted in the end
unless --keep), from which a ridge decoder of 15,724 voxels is fitted and mapped over 30 regions in three families;
they stay on disk and are streamed.  Peak memory is of the whole process so far.  Set OMP_NUM_THREADS=1 for processor
time.
"""

import argparse
import json
from pathlib import Path

import h5py
import numpy as np

from benchmarks.ridge import FULL, Size, Stages, betas, parted, targets
from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.base.registry import ATTRIBUTION_METHODS
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, dataset_name
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams

FAMILIES = {"prf-visualrois": 7, "floc": 17, "streams": 6}
"""Families of regions and how many each has."""


def main() -> None:
    args = parse()
    size = Size(args.n, args.m, FULL.p, FULL.shapes)
    args.folder.mkdir(parents=True, exist_ok=True)
    path, stage = args.folder / "targets.h5", Stages()
    train, test = placed(betas(size, 7)[1], size)
    if not path.is_file():
        stage("simulate and write targets", lambda: write(size, path))
    with TargetFile(path) as file:
        decoder = stage("decompose and fit", lambda: RidgeDecoder(DecodingParams()).fit(train, file))
        for method in args.methods:
            params = ContributionParams(method=method, roi_permutations=args.permutations, random_sets=args.random_sets)
            maps = stage(
                f"{method}, {args.permutations:,} permutations",
                lambda params=params: attribution.map(decoder, test, regions(test), file, params),
            )
            print(maps.table.groupby("target").agg({"share": "max", "p": ["min", "max"]}).to_string())
    if not args.keep:
        path.unlink()
    if args.json:
        args.json.write_text(json.dumps({"size": str(size), "stages": stage.rows}, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=["additive"], choices=list(ATTRIBUTION_METHODS))
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--random-sets", type=int, default=0)
    parser.add_argument("-n", type=int, default=1000, help="training stimuli")
    parser.add_argument("-m", type=int, default=1000, help="test stimuli")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def write(size: Size, path: Path) -> None:
    """Targets of all stimuli in a file as `extract` writes it, block by block."""
    seen = betas(size, 7)[0]
    with h5py.File(path, "w") as file:
        file["stimulus_id"] = np.arange(len(seen))
        for k, (name, shape) in enumerate(size.shapes.items()):
            dtype = np.float32 if name == "z" else np.float16
            out = file.create_dataset(dataset_name(name), (len(seen), *shape), dtype)
            for start, values in targets(seen, shape, k):
                out[start : start + len(values)] = values.astype(dtype).reshape(-1, *shape)


def placed(x: np.ndarray, size: Size) -> tuple[Betas, Betas]:
    """Training and test betas in a row of voxels."""
    where = np.stack([np.arange(size.p), *np.zeros((2, size.p), int)], 1)
    parts = parted(x, size)
    for part in parts:
        part.voxels, part.affine, part.shape, part.space = where, np.eye(4), (size.p, 1, 1), "func1pt8mm"
    return parts


def regions(betas: Betas) -> list[Rois]:
    """Families whose regions have a fortieth to a tenth of the voxels, at other places in each."""
    p, families = betas.data.shape[1], []
    for k, (name, count) in enumerate(FAMILIES.items()):
        rng = np.random.default_rng(k)
        labels = np.zeros((p, 1, 1), int)
        ends = np.cumsum(rng.uniform(0.025, 0.1, count) / max(1.0, 0.0625 * count / 0.9) * p).astype(int)
        for label, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True), 1):
            labels[start:stop] = label
        families.append(
            Rois(name, np.roll(labels, k * p // 3, 0), {i: f"{name}-{i}" for i in range(1, count + 1)}, np.eye(4))
        )
    return families


if __name__ == "__main__":
    main()
