"""Finding runs by the entities of file names, and each thing that is missing or ambiguous in one sentence."""

import shutil

import pytest

from napari_neuraldiffuser.core.bold import BoldError, find_runs, participants
from napari_neuraldiffuser.core.bold.bids import entities
from tests.support.nsd.bids_files import save, write_bids


def copies(scanned, session, run, change):
    """Copies every derived file of a run under the name that `change` gives."""
    for path in scanned.file(session, run, "").parent.glob("sub-01*"):
        if (name := change(path.name)) != path.name:
            shutil.copy(path, path.with_name(name))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sub-01_ses-a_run-02_space-T1w_res-2_bold.nii.gz",
         {"sub": "01", "ses": "a", "run": "02", "space": "T1w", "res": "2"}),
        ("task-look_events.tsv", {"task": "look"}),
        ("sub-x1_bold.nii", {"sub": "x1"}),
    ],
)  # fmt: skip
def test_entities(name, found):
    assert entities(name) == found


def test_the_folder_of_one_participant_names_that_above(scanned):
    for folder in (scanned.raw, scanned.fmriprep):
        with pytest.raises(BoldError, match=f"one of them. Give the folder above it, {folder}, .*participant-label 01"):
            find_runs(folder / "sub-01", "01")


def test_runs_in_order_with_their_files(scanned):
    for folder in (scanned.raw, scanned.fmriprep):
        runs = find_runs(folder, "01")
        assert [(run.session, run.run) for run in runs] == [("a", "1"), ("a", "2"), ("b", "1")]
        assert all(run.task == "look" and run.confounds and run.mask.endswith("desc-brain_mask.nii.gz") for run in runs)
        assert runs[2].events == str(scanned.file("b", "1", "events.tsv", derived=False))
    assert participants(scanned.raw) == ["01"]


def test_numbers_are_in_numeric_order(tmp_path):
    scanned = write_bids(tmp_path, [("", "2"), ("", "10"), ("", "1")], n_trials=3)
    assert [run.run for run in find_runs(scanned.raw, "sub-01")] == ["1", "2", "10"]


def test_one_run_without_run_and_session(tmp_path):
    scanned = write_bids(tmp_path, [("", "")], n_trials=3)
    (run,) = find_runs(scanned.raw, "01")
    assert (run.session, run.run) == ("1", "1")


def test_events_beside_the_derivatives_come_first(own):
    raw = own.file("a", "1", "events.tsv", derived=False)
    beside = shutil.copy(raw, own.file("a", "1", "events.tsv"))
    assert find_runs(own.fmriprep, "01")[0].events == str(beside)


@pytest.mark.parametrize(
    "name", ["task-look_events.tsv", "sub-01/sub-01_task-look_events.tsv", "sub-01/ses-a/sub-01_ses-a_events.tsv"]
)
def test_events_are_inherited(own, name):
    own.file("a", "1", "events.tsv", derived=False).rename(own.raw / name)
    (own.raw / "task-other_events.tsv").write_text("onset\tduration\n")
    assert find_runs(own.raw, "01")[0].events == str(own.raw / name)


def test_events_in_a_folder_of_their_own(own, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(own.fmriprep, elsewhere)
    with pytest.raises(BoldError, match="events of sub-01_ses-a.*must be a table.*--events-dir"):
        find_runs(elsewhere, "01")
    assert find_runs(elsewhere, "01", events_dir=own.raw)[0].events.startswith(str(own.raw))
    with pytest.raises(BoldError, match="events folder must be an existing folder"):
        find_runs(elsewhere, "01", events_dir=tmp_path / "no")


def test_older_names_of_confounds(own):
    own.file("a", "1", "desc-confounds_timeseries.tsv").rename(own.file("a", "1", "desc-confounds_regressors.tsv"))
    assert find_runs(own.raw, "01")[0].confounds.endswith("regressors.tsv")


@pytest.mark.parametrize("other", ["MNI152NLin6Asym", "T1w_res-2"])
def test_several_spaces_are_asked_about(own, other):
    copies(own, "a", "1", lambda name: name.replace("space-T1w", f"space-{other}"))
    with pytest.raises(BoldError, match="BOLD must be of one space, got .*T1w.*--space"):
        find_runs(own.raw, "01")
    assert "_space-T1w_desc" in find_runs(own.raw, "01", space="T1w")[0].bold
    chosen = other.replace("_res-", ":res-")
    run = find_runs(own.raw, "01", space=chosen)[0]
    assert f"space-{other}_" in run.bold and f"space-{other}_" in run.mask
    with pytest.raises(BoldError, match="space must be one of .*got 'fsnative'"):
        find_runs(own.raw, "01", space="fsnative")


def test_rest_is_no_task_and_two_tasks_are_asked_about(own):
    copies(own, "a", "1", lambda name: name.replace("task-look", "task-rest"))
    assert len(find_runs(own.raw, "01")) == 1
    events = own.file("a", "1", "events.tsv", derived=False)
    shutil.copy(events, events.with_name(events.name.replace("look", "rest")))
    with pytest.raises(BoldError, match="one task, got look, rest.*--task"):
        find_runs(own.raw, "01")
    assert find_runs(own.raw, "01", task="rest")[0].task == "rest"
    with pytest.raises(BoldError, match="task must be one of .*got 'walk'"):
        find_runs(own.raw, "01", task="walk")


def test_two_files_of_one_run(own):
    copies(own, "a", "1", lambda name: name.replace("run-1", "dir-AP_run-1"))
    with pytest.raises(BoldError, match="runs must have labels of their own, got .*dir-AP"):
        find_runs(own.raw, "01")


def test_two_sets_of_derivatives(own):
    shutil.copytree(own.fmriprep, own.fmriprep.with_name("xcpd"))
    with pytest.raises(BoldError, match="one set of preprocessed BOLD, got fmriprep, xcpd"):
        find_runs(own.raw, "01")


def test_nothing_or_surfaces_only(tmp_path):
    with pytest.raises(BoldError, match="got none in .*docs/own-scans.md"):
        participants(tmp_path)
    (tmp_path / "sub-01" / "func").mkdir(parents=True)
    (tmp_path / "sub-01/func/sub-01_task-x_hemi-L_space-fsaverage_bold.func.gii").touch()
    with pytest.raises(BoldError, match="got only surfaces such as sub-01_task-x_hemi-L"):
        participants(tmp_path)
    with pytest.raises(BoldError, match="must be an existing folder, got .*nowhere"):
        participants(tmp_path / "nowhere")


def test_unknown_participant_and_missing_mask(own, tmp_path):
    with pytest.raises(BoldError, match=r"participant must be one of \['01'\].*got '2'"):
        find_runs(own.raw, "sub-2")
    mask = own.file("a", "1", "space-T1w_desc-brain_mask.nii.gz")
    mask.unlink()
    with pytest.raises(BoldError, match="mask of sub-01.*must be beside it, got no .*--mask"):
        find_runs(own.raw, "01")
    save(tmp_path / "m.nii", own.mask.astype("uint8"))
    assert find_runs(own.raw, "01", mask=str(tmp_path / "m.nii"))[0].mask == str(tmp_path / "m.nii")


def table_of(own, tmp_path, **columns):
    run = find_runs(own.raw, "01")[0]
    values = {"bold": run.bold, "events": run.events, "confounds": run.confounds, "mask": run.mask} | columns
    values = {name: value for name, value in values.items() if value}
    path = tmp_path / "runs.tsv"
    path.write_text("\t".join(values) + "\n" + "\t".join(values.values()) + "\n")
    return path


def test_a_table_of_runs_names_any_files(own, tmp_path):
    shutil.copy(find_runs(own.raw, "01")[0].bold, tmp_path / "scan1.nii.gz")
    table = table_of(own, tmp_path, bold="scan1.nii.gz", confounds="n/a", session="x")
    (run,) = find_runs(table, "07")
    assert run.bold == str(tmp_path / "scan1.nii.gz") and run.confounds == "" and (run.session, run.run) == ("x", "1")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"bold": "no.nii"}, "must name existing files, got bold .*no.nii in row 1"),
        ({"mask": ""}, "must give mask in every row, got none in row 1"),
        ({"events": ""}, "must have the columns bold, events, got no events"),
        ({"sesion": "x"}, r"must have columns among .*got \['sesion'\]"),
    ],
)
def test_tables_of_runs_that_are_wrong(own, tmp_path, columns, message):
    with pytest.raises(BoldError, match=message):
        find_runs(table_of(own, tmp_path, **columns), "01")


def test_a_table_of_runs_names_each_once(own, tmp_path):
    table = table_of(own, tmp_path, session="1", run="1")
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    with pytest.raises(BoldError, match="name each session and run once, got ses-1 run-1 twice"):
        find_runs(table, "01")
