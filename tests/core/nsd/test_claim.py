"""Simulated data never takes the place of somebody's own."""

from pathlib import Path

import pytest

from napari_neuraldiffuser.core.nsd import NSDError, simulate
from napari_neuraldiffuser.core.nsd.simulation.bold.files import write_bold_subjects
from napari_neuraldiffuser.core.nsd.simulation.claim import claim


@pytest.mark.parametrize(
    "name",
    [
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5",
    ],
)
def test_nsd_that_was_not_simulated_is_left_alone(tmp_path: Path, name: str) -> None:
    _refused(tmp_path, name, simulate.write_subjects)


@pytest.mark.parametrize(
    "name", ["README", "dataset_description.json", "sub-01/ses-01/func/sub-01_events.tsv", "derivatives/mine/x.nii"]
)
def test_a_bids_folder_that_was_not_simulated_is_left_alone(tmp_path: Path, name: str) -> None:
    _refused(tmp_path, name, write_bold_subjects)


def _refused(folder: Path, name: str, write) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("measured")
    with pytest.raises(NSDError, match=r"not simulated\. Give an empty folder"):
        write(folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]
    assert (folder / name).read_text() == "measured"


def test_an_interrupted_simulation_and_files_of_others_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "nsddata").mkdir()  # empty: nothing can be lost
    for _ in range(2):
        claim(tmp_path, simulate.MARKER, ("nsddata*",))
        (tmp_path / "nsddata" / "half.mat").write_text("written until it stopped")
