"""The engine's calls from BOLD: subjects of a folder, and betas that are the command line's."""

import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.bold import find_runs, make_betas
from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.params import BoldParams
from tests.support.nsd.bids_files import write_bids
from tests.support.study_cases import Log

PARAMS = BoldParams(estimator="lss")


@pytest.fixture
def scanned(tmp_path):
    return write_bids(tmp_path / "bids")


def call(made, name, log=None, **args):
    return made.call(name, args, (log or Log()).events)


def test_subjects_of_either_folder(scanned, tmp_path):
    made, out = Study(tmp_path / "cache"), str(scanned.raw / "derivatives/neuraldiffuser")
    for folder in (scanned.raw, scanned.fmriprep):
        assert call(made, "bold_subjects", folder=str(folder)) == {"subjects": ["01"], "out_dir": out}
    with pytest.raises(UserError, match="must hold preprocessed BOLD"):
        call(made, "bold_subjects", folder=str(tmp_path))


def test_betas_are_the_plain_ones_and_can_be_opened(scanned, tmp_path):
    (scanned.raw / "stimuli").mkdir()
    (scanned.raw / "stimuli/captions.json").write_text("{}")
    log = Log()
    asked = {"folder": str(scanned.fmriprep), "subject": "01", "params": PARAMS.to_dict()}
    found = call(Study(tmp_path / "cache"), "betas", log, **asked)
    plain = make_betas(find_runs(scanned.raw, "01"), tmp_path / "out", "01", PARAMS)
    source = Source.from_dict(found["source"])
    for name in ("betas", "mask", "trials"):
        with open(getattr(source, name), "rb") as stream:
            assert stream.read() == getattr(plain, name).read_bytes()
    assert source.images == str(scanned.raw / "stimuli") and source.captions.endswith("captions.json")
    assert source.betas.startswith(str(scanned.raw / "derivatives/neuraldiffuser"))
    assert len(nsd.open_source(source).betas()) == 9
    assert log.of("told")[-1]["what"] == "trials written"
    # what was written beside the derivatives is no second set of BOLD
    assert call(Study(tmp_path / "cache"), "bold_subjects", folder=str(scanned.raw))["subjects"] == ["01"]


def test_a_stopped_call_goes_on_where_it_was(scanned, tmp_path):
    asked = {"folder": str(scanned.raw), "subject": "01", "params": PARAMS.to_dict(), "out_dir": str(tmp_path / "out")}
    log = Log(stop=lambda name, payload: "ses-a run-2" in payload.get("what", ""))
    with pytest.raises(Cancelled):
        call(Study(tmp_path / "cache"), "betas", log, **asked)
    again = Log()
    call(Study(tmp_path / "cache"), "betas", again, **asked)
    said = {message["what"] for message in again.of("told")}
    assert not any("ses-a run-1" in what for what in said) and any("ses-b run-1" in what for what in said)
