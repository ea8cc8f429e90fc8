"""Headers, events, confounds and held-out stimuli: what contradicts itself is told before a volume is read."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.bold import BoldError, find_runs, survey
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.params import BoldParams, ParamError
from tests.support.nsd.bids_files import AFFINE, SHAPE, save, write_bids


def surveyed(scanned, **params):
    return survey(find_runs(scanned.raw, "01"), BoldParams(**params))


def edit_json(scanned, **changes):
    path = scanned.file("a", "1", "space-T1w_desc-preproc_bold.json")
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def header_tr(scanned, value, unit):
    path = scanned.file("a", "1", "space-T1w_desc-preproc_bold.nii.gz")
    image = nib.load(path)
    image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header)
    image.header["pixdim"][4] = value
    image.header.set_xyzt_units("mm", unit)
    nib.save(image, path)


# repetition time


@pytest.mark.parametrize(("value", "unit"), [(1500, "msec"), (1.5, "sec"), (1.0, "unknown"), (0, "sec")])
def test_repetition_time_of_json_and_header_agree(own, value, unit):
    header_tr(own, value, unit)
    timing = surveyed(own).designs[0].timing
    assert timing.tr == 1.5 and timing.start == 0.75 and timing.frames[2] == pytest.approx(3.75)


def test_repetition_time_of_the_header_alone_and_inherited(own):
    edit_json(own, RepetitionTime=None)
    assert surveyed(own).designs[0].timing.tr == pytest.approx(1.5)
    header_tr(own, 1.0, "unknown")
    with pytest.raises(BoldError, match="must be known, got none in the JSON beside .* --tr"):
        surveyed(own)
    (own.raw / "task-look_bold.json").write_text('{"RepetitionTime": 1.5}')
    assert surveyed(own).designs[0].timing.tr == 1.5


def test_repetition_times_that_contradict_each_other(own):
    edit_json(own, RepetitionTime=2.0)
    with pytest.raises(BoldError, match="must be one, got 2 s in its JSON and 1.5 s in the header.*--tr"):
        surveyed(own)
    assert surveyed(own, tr=1.5).designs[0].timing.tr == 1.5


@pytest.mark.parametrize("value", [1500, "1.5", -1, True])
def test_repetition_times_that_are_no_seconds(own, value):
    edit_json(own, RepetitionTime=value)
    with pytest.raises(BoldError, match="RepetitionTime of ses-a run-1 must be seconds"):
        surveyed(own)


@pytest.mark.parametrize("value", [None, "2", 1500])
def test_a_given_repetition_time_stands_for_a_wrong_one(own, value):
    path = own.file("a", "1", "space-T1w_desc-preproc_bold.json")
    path.write_text(json.dumps({"RepetitionTime": value}))
    with pytest.raises(BoldError, match="must be seconds, got .* or give it with --tr"):
        surveyed(own)
    assert surveyed(own, tr=1.5).designs[0].timing.tr == 1.5


@pytest.mark.parametrize("params", [{}, {"tr": 1.5}])
def test_sparse_series_are_refused(own, params):
    edit_json(own, RepetitionTime=None, VolumeTiming=[0, 2, 8, 10])
    with pytest.raises(BoldError, match="one repetition time after another, got VolumeTiming in the JSON of"):
        surveyed(own, **params)


@pytest.mark.parametrize("text", ["[1]", "{", "null"])
@pytest.mark.parametrize("end", ["space-T1w_desc-preproc_bold.json", "desc-confounds_timeseries.json"])
def test_metadata_must_be_an_object(own, text, end):
    own.file("a", "1", end).write_text(text)
    with pytest.raises(BoldError, match=end + " must be a JSON object of metadata"):
        surveyed(own)


# grids and masks


def test_runs_on_two_grids(tmp_path):
    scanned = write_bids(tmp_path)
    path = scanned.file("b", "1", "space-T1w_desc-preproc_bold.nii.gz")
    bold = nib.load(path).get_fdata(dtype=np.float32)
    save(path, bold[:, :, :2], 1.5)
    there = "BOLD of ses-b run-1 must have the BOLD of ses-a run-1's"
    with pytest.raises(NSDError, match=rf"{there} shape \(5, 4, 3\), got \(5, 4, 2\)"):
        surveyed(scanned)
    moved = AFFINE.copy()
    moved[0, 3] = 1
    save(path, bold, 1.5, moved)
    with pytest.raises(NSDError, match=f"{there} affine"):
        surveyed(scanned)


def test_masks_on_another_grid_empty_or_disjoint(own, tmp_path):
    path = own.file("a", "1", "space-T1w_desc-brain_mask.nii.gz")
    save(path, np.ones((4, 4, 3), np.uint8))
    with pytest.raises(NSDError, match=r"mask.nii.gz must have the BOLD's shape \(5, 4, 3\), got \(4, 4, 3\)"):
        surveyed(own)
    save(path, np.zeros(SHAPE, np.uint8))
    with pytest.raises(BoldError, match="must have voxels in common, got none in 1 runs"):
        surveyed(own)


def test_a_volume_and_a_truncated_series(own):
    path = own.file("a", "1", "space-T1w_desc-preproc_bold.nii.gz")
    save(path, np.ones(SHAPE, np.float32))
    with pytest.raises(UserError, match=r"BOLD of ses-a run-1 must have four axes .*got shape \(5, 4, 3\)"):
        surveyed(own)
    save(path, np.ones((*SHAPE, 1), np.float32), 1.5)
    with pytest.raises(UserError, match="BOLD of ses-a run-1 must have two volumes at least|four axes"):
        surveyed(own)


# events


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda t: t.drop(columns="onset"), {}, "must have the columns onset, duration, got no onset but"),
        (lambda t: t.drop(columns="stim_file"), {}, "name what was seen in column stim_file or .*--stimulus-column"),
        (lambda t: t, {"stimulus_column": "picture"}, "name what was seen in column picture, got columns"),
        (lambda t: t.assign(stim_file="n/a"), {}, "name what was seen in column stim_file or stimulus"),
        (lambda t: t.assign(onset="soon"), {}, "must have numbers in column onset, got 'soon' in row 1"),
        (lambda t: t.assign(duration="-2"), {}, "durations must be 0 s or more, got less in row 1"),
        (lambda t: pd.concat([t, t.tail(1)]), {}, "start one after another, got rows 12, 13 at"),
        (lambda t: t, {"trial_types": "pictur"}, r"trial_type must have the values \['pictur'\], got \['picture'\]"),
        (lambda t: t, {"other_types": "button"}, r"trial_type must have the values \['button'\]"),
        (lambda t: t.assign(onset="500"), {}, "must have trials in its .*got none: row 1 of .* after the end"),
        (lambda t: t.replace("s03.png", "S04.png"), {}, "distinct labels, got 'S04.png' and 's04.png'"),
        (lambda t: t.replace("s03.png", "s04"), {}, "distinct labels, got 's04' and 's04.png'"),
        (lambda t: t.assign(stim_file=[f"u{k}.png" for k in range(12)]), {}, "shown more often than the others"),
        (lambda t: t, {"test_rule": "column"}, "must have column test with 1 for held-out.*--test-column"),
        (lambda t: t.assign(test="maybe"), {}, "must have 0/1 or true/false in column test, got 'maybe' in row 1 "),
        (lambda t: t.assign(test=["1"] + ["0"] * 11), {}, "held out everywhere or nowhere, got 's00.png' as both"),
        (lambda t: t.assign(test="1"), {}, "stimuli must be left for training"),
        (lambda t: t.assign(test="0"), {"test_rule": "column"}, "the test column must mark some stimuli with 1"),
    ],
)  # fmt: skip
def test_events_that_cannot_be_used(own, change, params, message):
    own.edit_events("a", "1", change)
    with pytest.raises(BoldError, match=message):
        surveyed(own, **params)


@pytest.mark.parametrize("row", ["9\t\t2\tpicture\ts03.png", "9\t2\tpicture\ts03.png\t"])
def test_rows_with_too_many_cells_are_not_shifted(own, row):
    path = own.file("a", "1", "events.tsv", derived=False)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(BoldError, match="events.tsv must be a table of rows of one length, got: Expected 4 .*saw 5"):
        surveyed(own)


@pytest.mark.parametrize("names", [("face.001", "face.002"), ("v1.5", "v1.6"), ("dog.large", "dog.small")])
def test_a_point_in_a_label_is_no_ending(own, names):
    own.edit_events("a", "1", lambda t: t.replace({"s03.png": names[0], "s04.png": names[1]}))
    assert set(names) <= set(surveyed(own).trials.stimulus)


def test_types_need_to_be_in_some_run_only(tmp_path):
    scanned = write_bids(tmp_path)
    scanned.edit_events("a", "2", lambda t: t.assign(trial_type=["button", *["face"] * 11]))
    found = surveyed(scanned, trial_types="picture,face", other_types="button")
    assert len(found.trials) == 35 and "other_button" in found.designs[1].nuisance
    with pytest.raises(BoldError, match=r"values \['buton'\], got \['button', 'face', 'picture'\] in .*2 other tables"):
        surveyed(scanned, trial_types="picture,face", other_types="buton")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"duration": ["2"] * 4 + ["40000"] * 8}, "shorter than its .* s, got 40000 s in row 5 of .*are in seconds"),
        (
            {"onset": [str(-9000.0 + 4 * k) for k in range(12)]},
            r"got none of 12 in .*events.tsv: row \d+ at .*% of its .*are in seconds",
        ),
    ],
)
def test_times_in_another_unit_are_told_with_cause_and_remedy(own, change, told):
    own.edit_events("a", "1", lambda t: t.assign(**change))
    with pytest.raises(BoldError, match=told):
        surveyed(own)


def test_commas_and_byte_order_marks(own):
    path = own.file("a", "1", "events.tsv", derived=False)
    text = path.read_text()
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert len(surveyed(own).trials) == 12
    path.write_text(text.replace("\t", ","))
    assert len(surveyed(own).trials) == 12
    path.write_text("")
    with pytest.raises(BoldError, match="events.tsv must be a table, got an empty"):
        surveyed(own)


def test_trials_that_cannot_be_used_are_named_and_the_rest_is_kept(own):
    def change(table):
        onset = table.onset.copy()
        onset[2], onset[6], onset[11] = "n/a", "900", str(float(onset[11]) + 22.5)
        return table.assign(onset=onset)

    own.edit_events("a", "1", change)
    found = surveyed(own)
    rows = found.dropped.set_index("row")
    assert sorted(rows.index) == [3, 7, 12] and rows.stimulus[3] == "s02.png"
    assert rows.reason[3] == "onset is n/a" and "after the end of the run" in rows.reason[7]
    assert "of its response is in volumes" in rows.reason[12]
    assert len(found.trials) == 9 and "3 of 12 trials have no betas" in " ".join(found.notes)
    # a stimulus that was shown is counted, whatever became of its trial
    assert set(found.trials[found.trials.test == 1].stimulus) == {"s00.png", "s01.png", "s02.png"}


def test_labels_such_as_none_and_na_are_labels(own):
    own.edit_events(
        "a", "1", lambda t: t.replace("s03.png", "None").replace("s04.png", "NA").replace("s05.png", "null")
    )
    assert {"None", "NA", "null"} <= set(surveyed(own).trials.stimulus)


def test_other_events_are_modelled_and_named_types_chosen(own):
    def change(table):
        more = pd.DataFrame(
            {"onset": ["9.0", "31"], "duration": "0.5", "trial_type": "button", "stim_file": ["n/a", "n/a"]}
        )
        return pd.concat([table, more])

    own.edit_events("a", "1", change)
    plain, modelled = surveyed(own), surveyed(own, other_types="button", trial_types="picture")
    assert "other_button" in modelled.designs[0].nuisance and "other_button" not in plain.designs[0].nuisance
    assert len(plain.trials) == len(modelled.trials) == 12
    assert "2 events name no stimulus or are no trials" in " ".join(plain.notes)


def test_a_chosen_column_names_the_stimuli(own):
    own.edit_events("a", "1", lambda t: t.assign(what=t.stim_file.str[:3]))
    assert surveyed(own, stimulus_column="what").trials.stimulus[0] == "s00"


def test_the_test_column_counts_before_repeats(own):
    own.edit_events("a", "1", lambda t: t.assign(test=(t.stim_file == "s07.png").astype(int)))
    # and goes on doing so where a stimulus has no betas at all
    own.edit_events("a", "1", lambda t: t.assign(onset=t.onset.where(t.stim_file != "s05.png", "n/a")))
    column, repeats = surveyed(own), surveyed(own, test_rule="repeats")
    assert set(column.trials[column.trials.test == 1].stimulus) == {"s07.png"} and column.test_rule == "column"
    assert set(repeats.trials[repeats.trials.test == 1].stimulus) == {"s00.png", "s01.png", "s02.png"}
    assert surveyed(own, test_rule="none").trials.test.sum() == 0


@pytest.mark.parametrize("rule", ["auto", "column"])
@pytest.mark.parametrize("other", ["n/a", "0", ""])
def test_a_test_column_may_leave_out_what_is_for_training(own, rule, other):
    """n/a is natural in BIDS for what is not held out."""
    own.edit_events("a", "1", lambda t: t.assign(test=["1" if one == "s07.png" else other for one in t.stim_file]))
    found = surveyed(own, test_rule=rule)
    assert set(found.trials[found.trials.test == 1].stimulus) == {"s07.png"} and found.test_rule == "column"


def test_durations_and_overlaps_are_told(own):
    own.edit_events("a", "1", lambda t: t.assign(duration=["n/a"] + ["2"] * 5 + ["30"] + ["2"] * 5))
    notes = " ".join(surveyed(own).notes)
    assert "1 trials of ses-a run-1 have no duration" in notes and "1 trials of ses-a run-1 begin before" in notes


# confounds


def edit_confounds(scanned, change):
    path = scanned.file("a", "1", "desc-confounds_timeseries.tsv")
    change(pd.read_csv(path, sep="\t")).to_csv(path, sep="\t", index=False, na_rep="n/a")


def with_hole(table):
    table.loc[5, "rot_x"] = np.nan
    return table


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda t: t.iloc[:-1], {}, "must have a row per volume"),
        (lambda t: t.drop(columns="rot_y"), {}, "must have columns rot_y for motion.*--confounds"),
        (lambda t: t.drop(columns=[c for c in t if "comp" in c]), {}, "must have columns a_comp_cor_00 for compcor"),
        (lambda t: t, {"confounds": ("tissue",)}, "must have columns csf, white_matter for tissue"),
        (lambda t: t, {"confound_columns": "edge_*"}, r"must have columns \['edge_\*'\]"),
        (with_hole, {}, "a number in every volume, got none in row 6 of column rot_x"),
        (lambda t: t.assign(framewise_displacement=2.0), {}, "usable for the most part.*--fd-threshold"),
    ],
)
def test_confounds_that_cannot_be_used(own, change, params, message):
    edit_confounds(own, change)
    with pytest.raises(BoldError, match=message):
        surveyed(own, **params)


def test_no_confounds_must_be_said(own):
    own.file("a", "1", "desc-confounds_timeseries.tsv").unlink()
    with pytest.raises(BoldError, match="must be a table with a row per volume, got none beside.*--confounds none"):
        surveyed(own)
    found = surveyed(own, confounds=("none",))
    assert list(found.designs[0].nuisance)[-1] == "constant" and "no confounds table" in " ".join(found.notes)


def test_volumes_with_motion_are_left_out(own):
    def change(table):
        table.loc[[7, 30], "framewise_displacement"] = 0.8
        return table.assign(non_steady_state_outlier00=[1] + [0] * (len(table) - 1))

    edit_confounds(own, change)
    assert np.flatnonzero(~surveyed(own).designs[0].keep).tolist() == [0, 7, 30]
    assert np.flatnonzero(~surveyed(own, fd_threshold=0.0).designs[0].keep).tolist() == [0]


def test_derivatives_are_unknown_in_the_first_volume_only(own):
    def change(table):
        motion = [name for name in table if name.startswith(("trans", "rot"))]
        slope = table[motion].diff().add_suffix("_derivative1")
        more = [table[motion].pow(2).add_suffix("_power2"), slope, slope.pow(2).add_suffix("_power2")]
        return pd.concat([table, *more], axis=1)

    edit_confounds(own, change)
    nuisance = surveyed(own, confounds=("motion24",)).designs[0].nuisance
    assert sum(name.startswith(("trans", "rot")) for name in nuisance) == 24
    assert nuisance.trans_x_derivative1[0] == nuisance.trans_x_derivative1[1]


def test_combined_components_are_told_by_the_metadata(own):
    edit_confounds(own, lambda t: t.assign(a_comp_cor_03=np.arange(len(t)) % 5, a_comp_cor_04=np.arange(len(t)) % 7))
    about = {f"a_comp_cor_{k:02d}": {"Mask": "combined" if k > 2 else "CSF"} for k in range(5)}
    own.file("a", "1", "desc-confounds_timeseries.json").write_text(json.dumps(about))
    assert {c for c in surveyed(own).designs[0].nuisance if "comp" in c} == {"a_comp_cor_03", "a_comp_cor_04"}


def test_flat_confounds_are_left_out_and_named(own):
    edit_confounds(own, lambda t: t.assign(rot_z=0.0))
    found = surveyed(own)
    assert "rot_z" not in found.designs[0].nuisance and "without variation left out: rot_z" in " ".join(found.notes)


def test_choices_that_exclude_each_other():
    for confounds in (("none", "motion"), ("motion", "motion24")):
        with pytest.raises(ParamError, match="^confounds must|BoldParams.confounds must"):
            BoldParams(confounds=confounds)


def test_a_session_with_one_trial(tmp_path):
    scanned = write_bids(tmp_path)
    scanned.edit_events("b", "1", lambda t: t.head(1))
    with pytest.raises(BoldError, match="two usable trials at least, got fewer in b"):
        surveyed(scanned)
