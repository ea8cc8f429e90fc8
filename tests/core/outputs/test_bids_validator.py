"""The BIDS validator itself on finished folders: a whole run's, and one with everything there can be."""

import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core.base.names import KINDS, unknown_to_bids
from napari_neuraldiffuser.core.outputs.anatomy import looks_stripped
from napari_neuraldiffuser.core.outputs.description import write_about
from napari_neuraldiffuser.core.outputs.group.write import write_group
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from tests.support.output_tree import job_of, vouch_all, write_raw, write_subject

VALIDATOR = shutil.which("bids-validator-deno") or shutil.which("bids-validator")
MAY_BE = {"TOO_FEW_AUTHORS"}
"""Whose data they are is not ours to say."""
needs_validator = pytest.mark.skipif(VALIDATOR is None, reason="no BIDS validator: pip install bids-validator-deno")


def issues(folder):
    """Codes of what the validator finds, warnings too, with one place each."""
    done = subprocess.run([VALIDATOR, "--format", "json", folder], stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)["issues"]["issues"]
    return {issue["code"]: issue.get("location") for issue in found if issue["code"] not in MAY_BE}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    out, raw = folder / "out", write_raw(folder / "nsd")
    for k, subject in enumerate(("subj01", "subj02")):
        places = write_subject(out, subject, seed=k, failed=(99,))
        write_sidecars(places, Facts.of(job_of(out, raw, subject=subject), "ab" * 32))
    write_group(vouch_all(out))
    (out / "work/sub-01").mkdir(parents=True)
    (out / "work/sub-01/sub-01_desc-ridge_decoder.h5").touch()
    return out


@pytest.mark.slow
@needs_validator
def test_a_finished_folder_passes(two):
    assert issues(two) == {}


@pytest.mark.slow
@needs_validator
def test_what_the_command_writes_passes(whole_job):
    assert issues(whole_job.out) == {}


@pytest.mark.slow
@needs_validator
@pytest.mark.parametrize(
    ("name", "code"),
    [
        (".bidsignore", "NOT_INCLUDED"),
        ("README.md", "README_FILE_MISSING"),
        ("sub-02/anat/sub-02_space-func1pt8mm_T1w.json", "SIDECAR_KEY_REQUIRED"),
        ("sub-02/anat/sub-02_space-func1pt8mm_T1w.nii.gz", "SIDECAR_WITHOUT_DATAFILE"),
    ],
)
def test_the_validator_misses_what_is_missing(two, tmp_path, name, code):
    out = shutil.copytree(two, tmp_path / "out")
    (out / name).unlink()
    assert code in issues(out)


def test_what_is_ours_is_named_and_no_more(two):
    assert unknown_to_bids() == (two / ".bidsignore").read_text().splitlines()
    assert "sub-*/recon" in unknown_to_bids() and "group.html" in unknown_to_bids()
    assert not [line for line in unknown_to_bids() if "anat" in line or "dataset_description" in line]


def test_what_somebody_wrote_there_stays(tmp_path):
    (tmp_path / "README").write_text("mine")
    (tmp_path / ".bidsignore").write_text("mine/\nsub-*.html")
    write_about(tmp_path)
    write_about(tmp_path)
    assert not (tmp_path / KINDS["readme"].path).exists() and (tmp_path / "README").read_text() == "mine"
    lines = (tmp_path / ".bidsignore").read_text().splitlines()
    assert lines[:2] == ["mine/", "sub-*.html"] and sorted(lines[1:]) == unknown_to_bids()


def ball(radius, voxel, noise=0.0, centre=40):
    """A ball of tissue in a volume (80, 80, 80), in air with or without noise."""
    rng, grid = np.random.default_rng(0), np.indices((80, 80, 80)) - centre
    data = 500.0 * (np.sqrt((grid**2).sum(0)) * voxel < radius) + noise * np.abs(rng.normal(size=(80, 80, 80)))
    return nib.Nifti1Image(data.astype(np.float32), np.diag([voxel, voxel, voxel, 1.0]))


@pytest.mark.parametrize(
    ("image", "stripped"),
    [
        (ball(70, 2.0), True),  # 1.4 litres, zeros around
        (ball(70, 2.0, noise=3.0), False),  # noise in the air
        (ball(95, 2.5), False),  # 3.6 litres: a head whose air is zero
        (ball(70, 2.0, centre=30), False),  # reaches the border
    ],
)
def test_whether_a_t1_is_a_brain_alone(tmp_path, image, stripped):
    nib.save(image, tmp_path / "T1w.nii.gz")
    assert looks_stripped(tmp_path / "T1w.nii.gz") is stripped
