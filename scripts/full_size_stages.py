"""One stage of scripts/full_size.py in this process; the last line on stdout says what was made, as JSON."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"z": (4, 64, 64), "c": (77, 768), "g": (50, 768)}
QUICK_SHAPES = {"z": (4, 16, 16), "c": (8, 64), "g": (10, 64)}
RANK = 256
"""Of the expansion: so many mixtures of the bundled models' values."""
MANY, SIDE, REPEATS = 1000, 512, 5


class Folder:
    """Where the stages leave what others need."""

    def __init__(self, out: Path, quick: bool) -> None:
        self.out, self.quick = out, quick
        self.nsd, self.betas, self.run = out / "nsd", out / "betas.h5", out / "run"
        self.decoder, self.decoded, self.maps = out / "decoder.h5", out / "decoded.h5", out / "maps"

    def targets(self, which: str, size: str) -> Path:
        return self.out / f"targets-{which}-{size}.h5"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return QUICK_SHAPES if self.quick else SHAPES

    def split(self) -> tuple[Any, Any]:
        from napari_neuraldiffuser.core import nsd

        return nsd.load_betas(self.betas).split()

    def subject(self) -> Any:
        from napari_neuraldiffuser.core import nsd

        return nsd.Subject(self.nsd, "subj01")


def simulate(at: Folder) -> dict[str, Any]:
    from napari_neuraldiffuser.core.base.files import read_json
    from napari_neuraldiffuser.core.nsd import simulate as simulation
    from napari_neuraldiffuser.core.params import SimulationParams

    shutil.rmtree(at.nsd, ignore_errors=True)
    small = {"n_sessions": 1, "n_test": 8, "train_repeats": 3, "image_size": 32}
    params = SimulationParams(**(small if at.quick else {"grid": "full"}))
    truth = read_json(simulation.write_subjects(at.nsd, params)[0])
    size = sum(path.stat().st_size for path in at.nsd.rglob("*") if path.is_file())
    return {"sessions": params.n_sessions, "voxels of nsdgeneral": truth["n_voxels"]["nsdgeneral"], "GB": gb(size)}


def load(at: Folder) -> dict[str, Any]:
    from napari_neuraldiffuser.core.nsd.betas import save_betas

    betas = at.subject().betas()
    save_betas(betas, at.betas)
    return {"images": len(betas), "voxels": betas.n_voxels}


def embed(at: Folder) -> dict[str, Any]:
    from napari_neuraldiffuser.core.job import stages
    from napari_neuraldiffuser.core.networks import models
    from napari_neuraldiffuser.core.params import FeatureParams

    networks, stimuli = models.load("demo"), at.subject().stimuli
    for which, betas in zip(("train", "test"), at.split(), strict=True):
        at.targets(which, "own").unlink(missing_ok=True)
        stages.targets(networks, stimuli, betas.stimulus_ids, at.targets(which, "own"), FeatureParams())
    return {"images": sum(map(len, at.split()))}


def expand(at: Folder) -> dict[str, Any]:
    """Targets of real sizes; 128 images are in memory at once."""
    import h5py

    from napari_neuraldiffuser.core.networks.embeddings import FEATURE_DTYPE, TargetFile, dataset_name

    for which in ("train", "test"):
        with TargetFile(at.targets(which, "own")) as own, h5py.File(at.targets(which, "full"), "w") as file:
            file["stimulus_id"] = own.stimulus_ids
            file.attrs.update(own.attrs)
            for k, target in enumerate(made := list(own)):
                shape, dtype = at.shapes[target[0]], np.float32 if target == "z" else FEATURE_DTYPE
                rows = file.create_dataset(dataset_name(target), (len(own), *shape), dtype)
                mix, spread = _mixing(own[target], int(np.prod(shape)), k)
                for first in range(0, len(own), 128):
                    block = own[target][first : first + 128].reshape(-1, len(mix)).astype(np.float32)
                    rows[first : first + len(block)] = ((block @ mix) @ spread).reshape(-1, *shape)
        numbers = sum(int(np.prod(at.shapes[target[0]])) for target in made)
    return {"numbers an image": numbers}


def _mixing(own: Any, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (own columns, RANK) and (RANK, columns) that keep the spread of a value; the same for every file."""
    rng, width = np.random.default_rng([7, seed]), int(np.prod(own.shape[1:]))
    mix = rng.standard_normal((width, RANK), dtype=np.float32) / np.float32(np.sqrt(width))
    return mix, rng.standard_normal((RANK, columns), dtype=np.float32) / np.float32(np.sqrt(RANK))


def fit(at: Folder) -> dict[str, Any]:
    from napari_neuraldiffuser.core import decoding
    from napari_neuraldiffuser.core.job import stages
    from napari_neuraldiffuser.core.params import DecodingParams

    stages.fit(at.split()[0], at.targets("train", "full"), at.decoder, DecodingParams())
    worth = {target: round(float(fit.best_r2), 3) for target, fit in decoding.read_accuracy(at.decoder).items()}
    return {"file GB": gb(at.decoder.stat().st_size), "R2 of z, c, g02": [worth[t] for t in ("z", "c", "g02")]}


def decode(at: Folder) -> dict[str, Any]:
    from napari_neuraldiffuser.core.job import stages

    with stages.opened(at.decoder) as decoder:
        stages.decode(decoder, at.split()[1], at.decoded)
    return {"images": len(at.split()[1]), "file GB": gb(at.decoded.stat().st_size)}


def contribution(at: Folder) -> dict[str, Any]:
    from napari_neuraldiffuser.core.base.names import Derivatives
    from napari_neuraldiffuser.core.job import stages
    from napari_neuraldiffuser.core.params import ContributionParams

    places = Derivatives(at.maps, "subj01")
    test, truth = at.split()[1], at.targets("test", "full")
    maps = stages.contribution(at.decoder, test, at.subject(), truth, places, ContributionParams())
    return {"maps": len(maps.volumes), "rows": len(maps.table)}


def run(at: Folder) -> dict[str, Any]:
    """Two runs: the second finds every stage done."""
    from napari_neuraldiffuser import cli

    shutil.rmtree(at.run, ignore_errors=True)
    n = "2" if at.quick else "8"
    options = ["--guidance", "demo", "--n-stimuli", n]
    status = cli.main(["run", str(at.nsd), str(at.run), "participant", *options])
    if status:
        sys.exit(status)
    page = at.run / "sub-01.html"
    return {"stimuli": int(n), "page MB": round(page.stat().st_size / 1e6, 1)}


def napari(at: Folder) -> dict[str, Any]:
    """Open the output folder as a user does, and look at it."""
    if not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            sys.exit("A display must be there, got none and no xvfb-run. Run: sudo apt-get install -y xvfb xauth")
        again = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", sys.executable, *sys.argv]
        os.execvpe(again[0], again, {**os.environ, "QT_QPA_PLATFORM": "xcb"})
    from full_size_window import opened

    return opened(at.run, at.out / "napari.png")


class Drawn:
    """Pictures (repeats, SIDE, SIDE, 3), or one where there are no repeats, made when they are asked for."""

    def __init__(self, n: int, repeats: int = 0) -> None:
        self.n, self.repeats = n, repeats
        self.pool = np.random.default_rng(0).integers(0, 200, (64, SIDE, SIDE, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self[key[0]][key[1]]
        own = np.roll(self.pool[key % len(self.pool)], key, axis=0)
        if not self.repeats:
            return own
        return np.stack([own // 2 + self.pool[(key + k) % len(self.pool)] // 4 for k in range(self.repeats)])


def score(at: Folder) -> dict[str, Any]:
    """Compared at 64 px: time is that of 425 px by a factor, memory is not."""
    from napari_neuraldiffuser.core import evaluation
    from napari_neuraldiffuser.core.params import EvaluationParams

    n = 20 if at.quick else MANY
    scores = evaluation.evaluate(Drawn(n, REPEATS), Drawn(n), _encoder, EvaluationParams(size=64))
    return {"stimuli": n, "repeats": REPEATS, "px": SIDE, "metrics": len(scores.values)}


def _encoder(images: np.ndarray) -> np.ndarray:
    """As wide as CLIP's image embedding."""
    return images.reshape(len(images), -1)[:, : 512 * 1000 : 1000].astype(np.float32)


def page(at: Folder) -> dict[str, Any]:
    from full_size_page import many_stimuli

    return many_stimuli(at.out / "many", 20 if at.quick else MANY, REPEATS, SIDE)


STAGES: dict[str, Callable[[Folder], dict[str, Any]]] = {
    f.__name__: f for f in (simulate, load, embed, expand, fit, decode, contribution, run, napari, score, page)
}


def gb(size: int) -> float:
    return round(size / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    told = STAGES[args.stage](Folder(args.out.absolute(), args.quick))
    print("\n" + json.dumps(told, default=str))


if __name__ == "__main__":
    main()
