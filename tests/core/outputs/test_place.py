"""Results never go among the scans or into the data set of another program."""

import json
import os
from pathlib import Path

import pytest

from napari_neuraldiffuser.core.base.files import OutputError
from napari_neuraldiffuser.core.bold import stage
from napari_neuraldiffuser.core.job.check import check_job
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.outputs.description import check_place, write_description
from nipype_interfaces.running import front


@pytest.mark.parametrize(
    "text",
    [
        '{"Name": "raw", "BIDSVersion": "1.10.0"}',
        '{"GeneratedBy": [{"Name": "fMRIPrep"}]}',
        '{"GeneratedBy": "napari-neuraldiffuser"}',
        "{",
    ],
)
def test_the_data_set_of_another_program_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset_description.json"
    path.write_text(text)
    starts = [
        lambda: check_job(Job(tmp_path / "nsd", tmp_path)),
        lambda: stage.make_betas([], tmp_path, "01"),
        lambda: front.run_group(tmp_path, [], front.How(tmp_path / "work")),
    ]
    for start in starts:
        with pytest.raises(OutputError, match="another program.* Give a folder of its own"):
            start()
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


def test_our_own_is_taken_also_after_another_version(tmp_path: Path) -> None:
    check_place(tmp_path / "new")
    path = write_description(tmp_path)
    about = json.loads(path.read_text())
    about["GeneratedBy"][0]["Version"] = "0.0.1"
    path.write_text(json.dumps(about))
    check_place(tmp_path)


@pytest.mark.parametrize("part", ["", "nsddata", "nsddata_betas/ppdata/results", "nsddata_stimuli", "link"])
def test_results_do_not_go_among_the_scans(tmp_path: Path, part: str) -> None:
    for name in ("nsddata", "nsddata_betas", "nsddata_stimuli"):
        (tmp_path / "nsd" / name).mkdir(parents=True)
    os.symlink(tmp_path / "nsd/nsddata", tmp_path / "nsd/link")
    with pytest.raises(OutputError, match="must not be a folder of the scans"):
        check_job(Job(tmp_path / "nsd", tmp_path / "nsd" / part))
    check_place(tmp_path / "nsd" / "results", tmp_path / "nsd")
    check_place(tmp_path / "out", tmp_path / "nsd")
