"""What lies beside a run's results so that it can be shown without the NSD tree."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.evaluation.folders import evaluate_folders
from napari_neuraldiffuser.core.nsd import NSDError, Rois
from napari_neuraldiffuser.core.outputs.anatomy import write_anatomy, write_shown

AFFINE = np.diag([-1.8, 1.8, 1.8, 1])


class Scans:
    """A subject's part that `write_anatomy` uses."""

    def __init__(self, anatomy=True):
        self.labels = np.random.default_rng(0).integers(-1, 3, (5, 6, 7))
        self.t1 = nib.Nifti1Image(np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32), AFFINE)
        self.with_anatomy = anatomy

    def anatomy(self):
        return self.t1 if self.with_anatomy else None

    def roi_names(self):
        return ["prf-visualrois", "HCP_MMP1", "broken"]

    def rois(self, name):
        if name == "broken":
            raise NSDError("ROI broken must have the betas' shape, got another. Use the file of the same space.")
        return Rois(name, self.labels, {1: "V1v", 2: "area 2"}, AFFINE)


@pytest.fixture
def places(tmp_path):
    return Derivatives(tmp_path, "subj01")


def stamps(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_regions_and_anatomy_of_an_earlier_run_go(places):
    """Else the next sidecars would say that they are of this run."""
    write_anatomy(Scans(), places)
    fewer = Scans(anatomy=False)
    fewer.roi_names = lambda: ["HCP_MMP1"]
    theirs = places.anatomy.with_name("notes.txt")
    theirs.touch()
    write_anatomy(fewer, places)
    stem = "sub-01_space-func1pt8mm_seg-HCPMMP1_dseg"
    left = {path.name for path in theirs.parent.iterdir()}
    assert left == {"notes.txt", *(stem + end for end in (".nii.gz", ".tsv", ".json"))}


def test_anatomy_and_regions_by_their_names(places):
    scans = Scans()
    notes = write_anatomy(scans, places)
    folder = places.folder / "anat"
    stem = "sub-01_space-func1pt8mm"
    families = {"prfvisualrois": "prf-visualrois", "HCPMMP1": "HCP_MMP1"}
    expected = {f"{stem}_T1w.nii.gz"}
    expected |= {f"{stem}_seg-{short}_dseg{end}" for short in families for end in (".nii.gz", ".tsv", ".json")}
    assert {path.name for path in folder.iterdir()} == expected
    assert notes == [
        "ROI broken is not among the written regions: ROI broken must have the betas' shape, got another. "
        "Use the file of the same space."
    ]
    anatomy = nib.load(places.anatomy)
    np.testing.assert_array_equal(anatomy.get_fdata(), scans.t1.get_fdata())
    np.testing.assert_allclose(anatomy.affine, scans.t1.affine, rtol=1e-7)
    for short, family in families.items():
        regions = nib.load(places.regions(family))
        np.testing.assert_array_equal(np.asanyarray(regions.dataobj), np.maximum(scans.labels, 0))
        assert regions.header.get_intent()[0] == "label"
        assert (folder / f"{stem}_seg-{short}_dseg.tsv").read_text() == (
            "index\tname\n0\tbackground\n1\tV1v\n2\tarea 2\n"
        )
        assert json.loads((folder / f"{stem}_seg-{short}_dseg.json").read_text())["Family"] == family


def test_own_scans_without_anatomy(places):
    write_anatomy(Scans(anatomy=False), places)
    assert not places.anatomy.exists()
    assert places.regions("prf-visualrois").is_file()


def test_written_again_only_where_something_changed(places):
    scans = Scans()
    seen = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
    write_anatomy(scans, places)
    write_shown(places, [3, 14], seen, seen[::-1])
    before = stamps(places.folder)
    write_anatomy(scans, places)
    write_shown(places, [3, 14], seen, seen[::-1])
    assert stamps(places.folder) == before

    seen[1] = 0
    scans.labels[0, 0, 0] = 2
    scans.labels[0, 0, 1] = 0
    write_anatomy(scans, places)
    write_shown(places, [3, 14], seen, seen[::-1])
    after = stamps(places.folder)
    changed = {path.name for path in before if before[path] != after[path]}
    assert {"sub-01_stim-00014_desc-seen_recon.png", "sub-01_space-func1pt8mm_seg-prfvisualrois_dseg.nii.gz"} <= changed
    assert "sub-01_stim-00003_desc-seen_recon.png" not in changed
    assert not [path for path in after if path.name.startswith(".tmp")]


def test_pictures_are_exact(places):
    seen = np.random.default_rng(0).integers(0, 255, (1, 9, 7, 3)).astype(np.uint8)
    write_shown(places, [13], seen, 255 - seen)
    assert places.shown(13, "seen").name == "sub-01_stim-00013_desc-seen_recon.png"
    np.testing.assert_array_equal(np.asarray(Image.open(places.shown(13, "seen"))), seen[0])
    np.testing.assert_array_equal(np.asarray(Image.open(places.shown(13, "start"))), 255 - seen[0])


def test_they_are_not_scored_as_reconstructions(places, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    write_shown(places, [1, 2, 3], images, images)
    (tmp_path / "seen").mkdir()
    for stimulus, image in zip((1, 2, 3), images, strict=True):
        Image.fromarray(image).save(tmp_path / f"seen/stim-{stimulus:05d}.png")
        for repeat in (1, 2):
            Image.fromarray(image).save(places.image(stimulus, repeat, "guided"))
    assert list(evaluate_folders(places.recon, tmp_path / "seen").arms) == ["guided"]
