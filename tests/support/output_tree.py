"""A small output folder with everything that a run writes, made in milliseconds: for tests of what reads one."""

import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from skimage import io

from napari_neuraldiffuser.core.base.files import make_folder, write_json
from napari_neuraldiffuser.core.base.names import VIEWS, Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.decoding.crossval import cross_validate
from napari_neuraldiffuser.core.decoding.worth import COLUMNS, REGION_COLUMNS
from napari_neuraldiffuser.core.job.images import write_failed
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.outputs import complete
from napari_neuraldiffuser.core.outputs.anatomy import volume_bytes, write_regions, write_shown
from napari_neuraldiffuser.core.outputs.crossval import write_crossval
from napari_neuraldiffuser.core.outputs.description import write_description
from napari_neuraldiffuser.core.outputs.sidecars import Facts
from napari_neuraldiffuser.core.params import CrossvalParams
from tests.support.stand_ins import linear_data, make_betas, make_targets

METRICS = ("pixcorr", "ssim")
STIMULI = (13, 34, 70000)
TARGETS = ("z", "g02")
REGIONS = (("V1", 12), ("FFA", 7), ("outside visual", 30))
PROTOCOL = {
    "n_test_images": len(STIMULI),
    "repeats": 2,
    "metrics": {"pixcorr": "Pearson correlation.", "ssim": "Structural similarity <of> windows."},
    "undefined": {"guided": {}, "unguided": {}},
}


class Regions:
    """A family as `nsd` gives it."""

    def __init__(self, name: str) -> None:
        self.name, self.affine = name, np.eye(4)
        self.labels = np.zeros((3, 3, 3), int)
        self.labels[0] = 1
        self.names = {1: "V1"}


def write_subject(out: Path, subject: str = "subj01", seed: int = 0, failed: tuple[int, ...] = ()) -> Derivatives:
    """Everything of one subject but the sidecars."""
    places, rng = Derivatives(out, subject), np.random.default_rng(seed)
    make_folder(places.folder)
    write_description(out)
    places.page.write_text(f"<title>{places.label}</title>")
    with h5py.File(places.embeddings, "w") as file:
        file["z"] = np.zeros((len(STIMULI), 4))
    scores = _scores(rng)
    scores.to_csv(places.scores, sep="\t", index=False)
    write_json(places.summary, summary_of(scores))
    _contribution(places, rng)
    _worth(places, rng)
    _images(places, rng)
    write_regions(Regions("prf-visualrois"), places.regions("prf-visualrois"))
    places.anatomy.write_bytes(volume_bytes(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4))))
    write_failed(places, list(failed))
    return places


def write_small_crossval(places: Derivatives, facts: Facts) -> None:
    """A cross-validation of a few stimuli of random responses."""
    x, y, _, _ = linear_data(12, 9)
    params = CrossvalParams(folds=3, permutations=10)
    found = cross_validate(make_betas(x), make_targets(y), params=params)
    write_crossval(found, params, places, facts, n_voxels=9, command="neuraldiffuser crossval")


def _scores(rng: np.random.Generator) -> pd.DataFrame:
    index = [(s, r, a) for s in STIMULI for r in (1, 2) for a in ARMS]
    table = pd.DataFrame(index, columns=["stim", "rep", "arm"])
    return table.assign(**{m: rng.uniform(0.1, 0.9, len(table)) for m in METRICS})


def summary_of(scores: pd.DataFrame) -> dict:
    """As `evaluation.summarise` has it."""
    means = scores.groupby(["arm", "stim"])[list(METRICS)].mean()
    arms = {arm: {m: _about(means.loc[arm][m]) for m in METRICS} for arm in ARMS}
    difference = means.loc["guided"] - means.loc["unguided"]
    paired = {m: _about(difference[m]) | {"worse": float((difference[m] < 0).mean())} for m in METRICS}
    return {"protocol": PROTOCOL, "arms": arms, "paired": paired}


def _about(values: pd.Series) -> dict:
    return {"mean": float(values.mean()), "se": float(values.sem()), "n": len(values)}


def _contribution(places: Derivatives, rng: np.random.Generator) -> None:
    rows = [(roi, target, rng.normal(0.1, 0.02), 0.01, n, "visual") for target in TARGETS for roi, n in REGIONS]
    table = pd.DataFrame(rows, columns=["roi", "target", "share", "se", "n_voxels", "family"])
    table["total"], table["kind"] = table.groupby("target").share.transform("sum"), "product-measure"
    table.to_csv(places.contribution_table, sep="\t", index=False)
    for target in TARGETS:
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), places.contribution(target))
        make_folder(places.slices(target).parent)
        for path in (places.slices(target), *(places.view(target, view) for view in VIEWS)):
            io.imsave(path, np.zeros((4, 4, 3), np.uint8), check_contrast=False)
    picture, drawing = places.profile
    io.imsave(picture, np.zeros((4, 4, 3), np.uint8), check_contrast=False)
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>\n')


def _worth(places: Derivatives, rng: np.random.Generator) -> None:
    rows = [dict.fromkeys(COLUMNS, rng.uniform(0.1, 0.9)) | {"target": target} for target in TARGETS]
    pd.DataFrame(rows).to_csv(places.worth, sep="\t", index=False)
    sets = [("all voxels", "mask"), ("V1", "visual")]
    alone = [
        dict.fromkeys(REGION_COLUMNS, rng.uniform(0.1, 0.9)) | {"target": target, "roi": roi, "family": family}
        for target in TARGETS
        for roi, family in sets
    ]
    pd.DataFrame(alone).to_csv(places.region_scores, sep="\t", index=False)
    for target in TARGETS:
        for path in places.accuracy_maps(target):
            nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), path)
    with h5py.File(places.projected, "w") as file:
        file["z"] = np.zeros((len(STIMULI), 4))


def _images(places: Derivatives, rng: np.random.Generator) -> None:
    seen = np.random.default_rng(9).integers(0, 255, (len(STIMULI), 8, 8, 3)).astype(np.uint8)
    write_shown(places, STIMULI, seen, 255 - seen)
    for arm in ARMS:
        for stimulus in STIMULI:
            for repeat in (1, 2):
                image = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
                io.imsave(places.image(stimulus, repeat, arm), image, check_contrast=False)
    sidecar = {
        "GeneratedBy": [{"Name": "napari-neuraldiffuser", "Version": "0", "KernelBackend": "cpu"}],
        "Sources": [places.uri(places.embeddings)],
        "Model": "demo",
        "ModelDigest": "ab" * 32,
        "DiffusionParams": {"n_steps": 24, "seed": 0},
        "Arms": {"guided": {"GuidanceParams": {"guidance_scale": 5.0}}},
    }
    write_json(places.recon_sidecar, sidecar)


def change(path: Path, *keys: str, to: object) -> None:
    """Set one value of a JSON file."""
    whole = content = json.loads(path.read_text())
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = to
    path.write_text(json.dumps(whole))


def vouch_all(out: Path) -> Path:
    """Mark every subject as complete, as if its run had left its files so; returns `out`."""
    for folder in out.glob("sub-*/"):
        complete.vouch(Derivatives(out, folder.name))
    return out


def write_raw(folder: Path, subject: str = "subj01") -> Path:
    """Empty files where NSD has them."""
    betas = f"nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    volumes = f"nsddata/ppdata/{subject}/func1pt8mm"
    names = [
        *(f"{betas}/betas_session{k:02d}.hdf5" for k in (1, 2, 3)),
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
        "nsddata_stimuli/captions.json",
        f"{volumes}/T1_to_func1pt8mm.nii.gz",
        *(f"{volumes}/roi/{hemisphere}prf-visualrois.nii.gz" for hemisphere in ("", "lh.", "rh.")),
        f"{volumes}/roi/floc-faces.nii.gz",
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def job_of(out: Path, raw: Path, **more) -> Job:
    """A job whose results `write_subject` wrote."""
    return Job(nsd_dir=raw, out_dir=out, **more)
