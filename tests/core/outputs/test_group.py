"""Means over subjects against the same sums done here, and subjects that do not fit together."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jinja2 import Environment, FileSystemLoader
from skimage import io

from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.outputs.group import inputs as group_inputs
from napari_neuraldiffuser.core.outputs.group.inputs import differing, failed_notes, mixed, read_subjects, read_table
from napari_neuraldiffuser.core.outputs.group.means import difference_over_stimuli, over_stimuli, paired
from napari_neuraldiffuser.core.outputs.group.page import GroupData, page_values, wall
from napari_neuraldiffuser.core.outputs.group.write import (
    GroupError,
    group_shares,
    scores_table,
    summarise,
    write_group,
)
from napari_neuraldiffuser.core.outputs.report import page as report_page
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from napari_neuraldiffuser.core.params import DecodingParams, Settings
from tests.support.output_tree import (
    METRICS,
    REGIONS,
    STIMULI,
    TARGETS,
    change,
    job_of,
    vouch_all,
    write_raw,
    write_subject,
)

LABELS = ["sub-01", "sub-02", "sub-05"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    out, raw = folder / "out", write_raw(folder / "nsd")
    for k, label in enumerate(LABELS):
        places = write_subject(out, f"subj{label[4:]}", seed=k)
        write_sidecars(places, Facts.of(job_of(out, raw, subject=places.subject), "ab" * 32))
    return vouch_all(out)


@pytest.fixture
def out(whole, tmp_path):
    """A copy to change."""
    return shutil.copytree(whole, tmp_path / "out")


@pytest.fixture(scope="module")
def finished(whole, tmp_path_factory):
    """The group's files."""
    out = shutil.copytree(whole, tmp_path_factory.mktemp("finished") / "out")
    return out, write_group(out)


def summary(out, label):
    return out / label / f"{label}_desc-summary_scores.json"


def sidecar(out, label):
    return out / label / "recon" / f"{label}_recon.json"


def subjects(out, labels=None):
    """The subjects as their files are now: what a test changed is what the run left."""
    return read_subjects(vouch_all(out), labels)[0]


def values(data_of):
    return page_values(GroupData(data_of, summarise(data_of), group_shares(data_of), differing(data_of), [], {}))


def test_the_table_has_every_subject_arm_and_metric(finished):
    out, result = finished
    table = pd.read_csv(result.table, sep="\t")
    assert list(table) == ["participant_id", "arm", "metric", "mean", "se", "n"]
    assert len(table) == len(LABELS) * len(ARMS) * len(METRICS)
    for label in LABELS:
        scores = pd.read_csv(out / label / f"{label}_desc-recon_scores.tsv", sep="\t")
        for (arm, metric), row in table[table.participant_id == label].set_index(["arm", "metric"]).iterrows():
            per_stimulus = scores[scores.arm == arm].groupby("stim")[metric].mean()
            assert row["mean"] == pytest.approx(per_stimulus.mean())
            assert row["se"] == pytest.approx(per_stimulus.std() / np.sqrt(len(STIMULI)))
            assert row["n"] == len(STIMULI)


def test_the_summary_is_over_subjects(finished):
    out, result = finished
    said = json.loads(result.summary.read_text())
    scores = {label: pd.read_csv(out / label / f"{label}_desc-recon_scores.tsv", sep="\t") for label in LABELS}
    means = pd.DataFrame({label: t.groupby("arm")[list(METRICS)].mean().stack() for label, t in scores.items()})
    for metric in METRICS:
        for arm in ARMS:
            of_subjects = means.loc[arm, metric]
            assert said["arms"][arm][metric]["mean"] == pytest.approx(of_subjects.mean())
            assert said["arms"][arm][metric]["se"] == pytest.approx(of_subjects.std(ddof=1) / np.sqrt(3))
            assert said["arms"][arm][metric]["n"] == 3
        difference = means.loc["guided", metric] - means.loc["unguided", metric]
        paired = said["paired"][metric]
        assert paired["mean"] == pytest.approx(difference.mean())
        assert paired["se"] == pytest.approx(difference.std(ddof=1) / np.sqrt(3))
        assert (paired["n"], paired["n_worse"]) == (3, int((difference < 0).sum()))
    assert said["subjects"] == LABELS and said["averaged"]


def test_shares_are_over_subjects(finished):
    out, result = finished
    table = pd.read_csv(result.contribution, sep="\t").set_index(["roi", "target"])
    own = [pd.read_csv(out / label / f"{label}_contribution.tsv", sep="\t") for label in LABELS]
    assert len(table) == len(REGIONS) * len(TARGETS)
    for roi, _ in REGIONS:
        for target in TARGETS:
            shares = [t[(t.roi == roi) & (t.target == target)].share.iloc[0] for t in own]
            row = table.loc[roi, target]
            assert row.share == pytest.approx(np.mean(shares))
            assert row.se == pytest.approx(np.std(shares, ddof=1) / np.sqrt(3))
            assert row.n_subjects == 3


def test_the_page_stands_alone_and_links_to_the_subjects(finished):
    out, result = finished
    page = result.page.read_text()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page) and "@import" not in page
    for label in LABELS:
        assert f'href="{label}.html"' in page
    assert page.count("data:image/png;base64,") == 1 + len(STIMULI) * (1 + len(LABELS))
    assert "Read this first" not in page and "are the same in all 3" in page
    # a protocol's text is text
    assert "windows" in page and "<of>" not in page
    assert bids.check(out) == []


def test_again_gives_the_same_bytes(finished):
    out, result = finished
    before = {p.name: p.read_bytes() for p in out.glob("group*")}
    assert set(before) == {
        "group.html",
        "group_contribution.json",
        "group_contribution.tsv",
        "group_desc-recon_scores.json",
        "group_desc-recon_scores.tsv",
        "group_desc-summary_scores.json",
    }
    write_group(out)
    assert {p.name: p.read_bytes() for p in out.glob("group*")} == before


def test_one_subject_has_no_error_over_subjects(out):
    result = write_group(out, ["05"])
    said = json.loads(result.summary.read_text())
    assert said["subjects"] == ["sub-05"]
    assert said["arms"]["guided"]["pixcorr"]["se"] is None
    assert said["paired"]["pixcorr"]["se"] is None and said["paired"]["pixcorr"]["n"] == 1
    assert pd.read_csv(result.contribution, sep="\t").se.isna().all()
    page = result.page.read_text()
    assert "One subject has no standard error over subjects" in page
    assert "nan" not in page.split("<script>")[0].lower().replace("nano", "")


@pytest.mark.parametrize("labels", [["01", "02"], ["subj02", "sub-01"], ["sub-01", "01", "subj02"]])
def test_subjects_can_be_chosen_in_any_spelling(out, labels):
    assert sorted(s.label for s in subjects(out, labels)) == ["sub-01", "sub-02"]


@pytest.mark.parametrize("labels", [None, [], ["01"]])
def test_nothing_to_put_together(tmp_path, labels):
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(GroupError, match="participant") as failed:
        write_group(tmp_path, labels)
    assert str(tmp_path) in str(failed.value)
    assert not list(tmp_path.glob("group*"))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(GroupError, match="gone"):
        write_group(tmp_path / "gone")


@pytest.mark.parametrize("label", ["../01", "sub-0_1", ""])
def test_a_label_that_cannot_be(out, label):
    with pytest.raises(ValueError, match="participant label"):
        write_group(out, [label])


def spoil(out, how):
    """Leave a subject as a run leaves it that did not come to its end, or as a careless copy does."""
    mark, table = out / "sub-02/sub-02_complete.json", out / "sub-02/sub-02_desc-recon_scores.tsv"
    if how in ("rewritten", "older version"):
        mark.unlink()
    if how == "rewritten":
        summary(out, "sub-02").write_bytes(summary(out, "sub-05").read_bytes())
    elif how == "mixed":
        table.write_bytes((out / "sub-05/sub-05_desc-recon_scores.tsv").read_bytes())
    elif how == "same size":
        table.write_bytes(table.read_bytes().replace(b"0.1", b"0.2"))
    elif how == "partly copied":
        summary(out, "sub-02").unlink()
    elif how == "damaged mark":
        mark.write_text('{"Files": [')
    elif how == "another mark":
        mark.write_text('{"Files": {"sub-02.html": 3}}')


SPOILT = {
    "rewritten": "sub-02: has no sub-02_complete.json",
    "older version": "sub-02: has no sub-02_complete.json",
    "mixed": "sub-02: has another sub-02/sub-02_desc-recon_scores.tsv than its run left",
    "same size": "sub-02: has another sub-02/sub-02_desc-recon_scores.tsv than its run left",
    "partly copied": "sub-02: lacks sub-02/sub-02_desc-summary_scores.json",
    "damaged mark": "sub-02: has a sub-02_complete.json that cannot be read",
    "another mark": "sub-02: has a sub-02_complete.json that cannot be read",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_subject_that_is_not_complete_is_named_and_left_out(out, how):
    spoil(out, how)
    result = write_group(out, ["01", "02", "05", "07"])
    assert set(pd.read_csv(result.table, sep="\t").participant_id) == {"sub-01", "sub-05"}
    said, unknown = result.left_out
    assert said.startswith(SPOILT[how]) and "Run its command again: finished stages are kept" in said
    assert unknown.startswith("sub-07: there is no such folder")
    page = result.page.read_text()
    assert all(re.sub("[&<>'\"]", "", note[:40]) in page for note in result.left_out)
    with pytest.raises(GroupError, match=re.escape(SPOILT[how])):
        write_group(out, ["02"])


def test_pictures_may_go_to_save_space(out):
    shutil.rmtree(out / "sub-02/figures")
    next((out / "sub-02/recon").glob("*_desc-guided_recon.png")).unlink()
    assert write_group(out).left_out == []
    assert [line for line in bids.check(out) if line.startswith("sub-02: lacks sub-02/figures")]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"arms": {}}', '{"protocol": {}, "arms": {}}', '{"protocol": {}, "arms": {"guided": 3}}'],
)
def test_a_damaged_summary_is_noted(out, text):
    summary(out, "sub-02").write_text(text)
    found, notes = read_subjects(vouch_all(out), None)
    assert [s.label for s in found] == ["sub-01", "sub-05"]
    assert ["cannot be read" in note for note in notes] == [True]


def test_damaged_tables_and_sidecars_cost_their_part_only(out):
    for name in ("contribution.tsv", "desc-recon_scores.tsv"):
        (out / "sub-02" / f"sub-02_{name}").write_bytes(b'\xff\x00\tx\n"')
    for path in (sidecar(out, "sub-02"), out / "sub-02" / "sub-02_contribution.json"):
        path.write_text('{"Arms": [], "GeneratedBy": {}, "Parameters": 3}')
    found = subjects(out)
    assert group_shares(found).n_subjects.unique() == [2]
    assert summarise(found)["arms"]["guided"]["pixcorr"]["n"] == 3
    assert wall(found) == {}
    assert values(found)["n"] == 3


def test_failed_stimuli_are_noted(out):
    (out / "sub-02" / "sub-02_desc-failed_stimuli.tsv").write_text("stim\treason\n3\tx\n4\tx\n")
    assert failed_notes(subjects(out)) == ["sub-02: 2 stimuli failed and are in none of its means."]


def test_harm_by_guidance_stands_at_the_top_of_the_page(out):
    told = "Guidance makes these images worse: so it is."
    for label in LABELS:
        change(summary(out, label), "paired", "pixcorr", "mean", to=-0.3)
    change(summary(out, "sub-05"), "warnings", to=[told])
    result = write_group(vouch_all(out))
    over_all, of_one = result.notes
    assert "guided minus unguided, PixCorr -0.300" in over_all and of_one == f"sub-05: {told}"
    assert json.loads(result.summary.read_text())["warnings"] == result.notes
    top = result.page.read_text().split("</section>")[0]
    assert "Read this first" in top and all(note in top for note in ("PixCorr -0.300", of_one))


@pytest.mark.parametrize("undefined", [None, float("nan"), "0.5"])
def test_an_undefined_score_is_not_counted(out, undefined):
    change(summary(out, "sub-02"), "arms", "guided", "pixcorr", "mean", to=undefined)
    change(summary(out, "sub-02"), "paired", "pixcorr", "mean", to=undefined)
    said = summarise(subjects(out))
    others = [s.value("guided", "pixcorr") for s in subjects(out, ["01", "05"])]
    assert said["arms"]["guided"]["pixcorr"]["mean"] == pytest.approx(np.mean(others))
    assert said["arms"]["guided"]["pixcorr"]["n"] == said["paired"]["pixcorr"]["n"] == 2
    assert said["arms"]["unguided"]["pixcorr"]["n"] == 3


def test_one_arm_alone(out):
    for label in LABELS:
        content = json.loads(summary(out, label).read_text())
        del content["arms"]["unguided"]
        summary(out, label).write_text(json.dumps(content | {"paired": {}}))
    said = summarise(subjects(out))
    assert list(said["arms"]) == ["guided"] and said["paired"] == {}
    assert values(subjects(out))["plot"].startswith("data:image/png")


def test_other_test_sets_are_not_averaged(out):
    change(summary(out, "sub-02"), "protocol", "test_set", to="NSD-synthetic")
    result = write_group(vouch_all(out))
    assert any("different protocols (test_set)" in note for note in result.notes)


def test_other_protocols_are_not_averaged(out):
    change(summary(out, "sub-02"), "protocol", "metrics", "pixcorr", to="at another size")
    result = write_group(vouch_all(out))
    assert any("different protocols (metrics)" in note and "--participant-label" in note for note in result.notes)
    said = json.loads(result.summary.read_text())
    assert said["averaged"] is False and said["arms"] == said["paired"] == {}
    assert len(pd.read_csv(result.table, sep="\t")) == len(LABELS) * len(ARMS) * len(METRICS)
    # shares have nothing to do with how images are scored
    assert len(pd.read_csv(result.contribution, sep="\t")) == len(REGIONS) * len(TARGETS)
    assert "No means of scores over subjects" in result.page.read_text()
    assert bids.check(out) == []


def test_other_models_are_not_averaged_at_all(out):
    change(sidecar(out, "sub-05"), "ModelDigest", to="cd" * 32)
    result = write_group(vouch_all(out))
    assert sum("different models" in note and "sub-05" in note for note in result.notes) == 1
    assert json.loads(result.summary.read_text())["arms"] == {}
    assert list(pd.read_csv(result.contribution, sep="\t")) == list(group_shares([]))
    assert len(pd.read_csv(result.contribution, sep="\t")) == 0
    assert bids.check(out) == []


def test_other_kinds_of_shares_are_not_averaged(out):
    path = out / "sub-05" / "sub-05_contribution.tsv"
    path.write_text(path.read_text().replace("product-measure", "prediction-share"))
    no_scores, no_shares = mixed(subjects(out))
    assert no_scores == []
    assert len(no_shares) == 1 and "prediction-share in sub-05" in no_shares[0]


def test_subjects_may_have_other_numbers_of_stimuli(out):
    change(summary(out, "sub-02"), "protocol", "n_test_images", to=1000)
    change(summary(out, "sub-02"), "protocol", "undefined", to={"guided": {"ssim": 1}})
    assert mixed(subjects(out)) == ([], [])
    assert differing(subjects(out)) == {"evaluation.test images": [3, 1000, 3]}


def test_parameters_that_differ_are_told_loudly(out):
    change(sidecar(out, "sub-05"), "DiffusionParams", "n_steps", to=50)
    settings = Settings(decoding=DecodingParams(alphas=(3.0,))).to_dict()
    change(out / "sub-02" / "sub-02_desc-ridge_embeddings.json", "Parameters", "decoding", to=settings["decoding"])
    found = subjects(out)
    assert differing(found)["diffusion.n_steps"] == [24, 24, 50]
    assert differing(found)["decoding.alphas"][1] == [3.0]
    shown = values(found)
    odd = {row["name"]: [cell["odd"] for cell in row["values"]] for row in shown["differing"]}
    assert odd == {"diffusion.n_steps": [False, False, True], "decoding.alphas": [False, True, False]}
    assert "n_steps" not in shown["same"]["diffusion"] and shown["same"]["diffusion"]["seed"] == 0
    page = write_group(out).page.read_text()
    assert "Read this first" in page and "diffusion.n_steps, decoding.alphas</b> differ " in page


def test_a_parameter_that_one_file_does_not_tell_differs(out):
    change(sidecar(out, "sub-01"), "DiffusionParams", to={"n_steps": 24})
    assert differing(subjects(out)) == {"diffusion.seed": [group_inputs.NOT_SAID, 0, 0]}


def test_a_region_without_voxels_does_not_pull_the_mean(out):
    path = out / "sub-02" / "sub-02_contribution.tsv"
    table = pd.read_csv(path, sep="\t")
    table.loc[table.roi == "FFA", ["share", "n_voxels"]] = 0
    table.to_csv(path, sep="\t", index=False)
    shares = group_shares(subjects(out)).set_index(["roi", "target"])
    others = [s.contribution.set_index(["roi", "target"]).share["FFA", "z"] for s in subjects(out, ["01", "05"])]
    assert shares.share["FFA", "z"] == pytest.approx(np.mean(others))
    assert shares.n_subjects["FFA", "z"] == 2 and shares.n_subjects["V1", "z"] == 3


def test_a_region_that_has_not_every_target_is_in_the_table_and_not_on_the_page(out):
    for label in LABELS:
        path = out / label / f"{label}_contribution.tsv"
        table = pd.read_csv(path, sep="\t")
        table[(table.roi != "FFA") | (table.target != "z")].to_csv(path, sep="\t", index=False)
    found = subjects(out)
    assert set(group_shares(found).roi) == {"V1", "FFA", "outside visual"}
    assert [row["roi"] for row in values(found)["heats"]["visual"]["rows"]] == ["V1", "outside visual"]


def test_the_wall_shows_what_all_have_seen(out):
    table = out / "sub-05" / "sub-05_desc-recon_scores.tsv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("13\t")]
    table.write_text("\n".join(lines) + "\n")
    shown = wall(subjects(out))
    assert [int(head.split(",")[0]) in (34, 70000) for head in shown["heads"]] == [True, True]
    assert [row["label"] for row in shown["rows"]] == ["seen", *LABELS]
    means = [
        pd.read_csv(out / s / f"{s}_desc-recon_scores.tsv", sep="\t").query("arm == 'guided'").groupby("stim").pixcorr
        for s in LABELS
    ]
    best = sum(m.mean() for m in means).drop(13).idxmax()
    assert shown["heads"][0] == f"{best}, best"
    assert shown["rows"][1]["cells"][0]["text"] == f"{means[0].mean()[best]:.2f}"


def test_a_picture_that_is_damaged_or_gone_leaves_its_place_empty(out):
    (out / "sub-02/recon/sub-02_stim-00034_rep-1_desc-guided_recon.png").unlink()
    (out / "sub-01/recon/sub-01_stim-00034_rep-1_desc-guided_recon.png").write_bytes(b"\x89PNG\r\n")
    shown = wall(subjects(out))
    column = [head.startswith("34,") for head in shown["heads"]].index(True)
    assert [bool(row["cells"][column]["src"]) for row in shown["rows"]] == [True, False, False, True]


def test_the_same_id_of_another_image_is_not_put_beside_it(out):
    other = np.full((8, 8, 3), 7, np.uint8)
    io.imsave(out / "sub-02/recon/sub-02_stim-00034_desc-seen_recon.png", other, check_contrast=False)
    assert wall(subjects(out)) == {}


def test_eight_subjects_fit(tmp_path):
    for k in range(1, 9):
        write_subject(tmp_path, f"subj{k:02d}", seed=k)
    result = write_group(vouch_all(tmp_path))
    assert result.notes == []
    assert len(scores_table(subjects(tmp_path))) == 8 * len(ARMS) * len(METRICS)


def test_regions_named_like_missing_values_keep_their_names(tmp_path):
    (tmp_path / "x.tsv").write_text("roi\tshare\nNA\t0.5\nnull\tn/a\nV1\t\n")
    table = read_table(tmp_path / "x.tsv", ["roi"])
    assert table["roi"].tolist() == ["NA", "null", "V1"]
    assert table["share"].isna().tolist() == [False, True, True] and table["share"].dtype == float


@pytest.mark.parametrize("without", [["sub-02"], LABELS])
def test_shares_of_a_target_that_does_not_vary(out, without):
    """It counts in no subject that has none; where no subject has one, the group has none, and its page says n/a."""
    kept = []
    for label in LABELS:
        path = out / label / f"{label}_contribution.tsv"
        table = pd.read_csv(path, sep="\t")
        if label in without:
            table.loc[table.target == TARGETS[0], ["share", "se"]] = np.nan
            table.to_csv(path, sep="\t", index=False, na_rep="n/a")
        kept.append(table[(table.target == TARGETS[0]) & (table.n_voxels > 0)].set_index("roi").share)
    result = write_group(vouch_all(out))
    said = pd.read_csv(out / "group_contribution.tsv", sep="\t")
    own = said[said.target == TARGETS[0]].set_index("roi")
    expected = pd.concat(kept, axis=1).mean(axis=1)
    np.testing.assert_allclose(own.share[expected.index], expected)
    assert own.share.isna().all() == (without == LABELS)
    assert (own.n_subjects <= len(LABELS) - len(without)).all()
    text = re.sub('base64,[^"]*', "", result.page.read_text())
    assert not re.search(r"\bnan\b", text) and (">n/a<br>" in text) == (without == LABELS)


def test_pictures_without_diffusion_stand_beside_the_arms(out):
    """A subject that was scored without them is no reason against means of the others, nor of their arms."""
    starts = {label: 0.5 + 0.1 * k for k, label in enumerate(LABELS[:2])}
    for label, mean in starts.items():
        path = summary(out, label)
        told = json.loads(path.read_text())
        told["protocol"] = told["protocol"] | {"controls": {"start": "Decoded start: of z alone."}}
        own = {"label": "decoded start", "scores": {"pixcorr": {"mean": mean, "se": 0.01, "n": 8}}}
        told["controls"] = {"start": own | {"paired": {"pixcorr": {"mean": -0.2, "se": 0.01, "n": 8}}}}
        path.write_text(json.dumps(told))
    result = write_group(vouch_all(out))
    said = json.loads(result.summary.read_text())
    assert said["averaged"] and list(said["controls"]) == ["start"]
    assert said["controls"]["start"]["scores"]["pixcorr"] == pytest.approx({"mean": 0.55, "se": 0.05, "n": 2})
    table = pd.read_csv(result.table, sep="\t")
    assert dict(table[table.arm == "start"][["participant_id", "mean"]].values) == pytest.approx(starts)
    text = result.page.read_text()
    assert "<th>decoded start</th>" in text and "0.550 ± 0.050" in text and "of z alone" in text
    assert "<small>guided − start</small> <span" in text and "closer to the seen" not in text, "two subjects are few"
    assert bids.check(out) == []


def test_levels_stand_beside_scores_and_make_no_subjects_differ(out):
    """Each subject has a chance level and a ceiling of its own: that is no other way to score."""
    labels = sorted(path.name for path in out.glob("sub-*") if path.is_dir())
    for k, label in enumerate(labels):
        path = out / label / f"{label}_desc-summary_scores.json"
        told = json.loads(path.read_text())
        told["protocol"]["ceiling"] = {"levels": {"pixcorr": 0.9 + 0.02 * k}, "made_from": label}
        for arm, level in (("unguided", 0.1), ("guided", 0.2)):
            told["arms"][arm]["pixcorr"]["chance"] = level + 0.1 * k
        path.write_text(json.dumps(told))
    vouch_all(out)
    result = write_group(out)
    n = (len(labels) - 1) / 2
    text = result.page.read_text()
    assert "unguided → guided" in text and f"ceiling {0.9 + 0.02 * n:.3f}" in text
    assert f"chance {0.1 + 0.1 * n:.3f} → {0.2 + 0.1 * n:.3f}" in text
    assert "<th>chance, unguided</th><th>chance, guided</th>" in text
    assert mixed(subjects(out)) == ([], [])


def tables_of(values):
    """A scores table of each row of guided minus unguided differences: {stimulus: difference}, two repeats."""
    tables = []
    for row in values:
        rows = [
            (s, rep, arm, (d if arm == "guided" else 0.0) + rep)
            for s, d in row.items()
            for rep in (1, 2)
            for arm in ARMS
        ]
        tables.append(pd.DataFrame(rows, columns=["stim", "rep", "arm", "pixcorr"]))
    return tables


def se_of(rows):
    return difference_over_stimuli(tables_of(rows), "pixcorr")


def test_the_error_over_stimuli_draws_a_shared_stimulus_once_for_all():
    rng = np.random.default_rng(8)
    shared = rng.normal(size=(1, 40)) + 0.3 * rng.normal(size=(3, 40))
    same = [dict(enumerate(row)) for row in shared]
    mean_over_subjects = shared.mean(0)
    assert se_of(same)["se_stimuli"] == pytest.approx(mean_over_subjects.std(ddof=1) / np.sqrt(40))
    # with images of their own, subjects are independent samples
    apart = [{(k, i): v for i, v in row.items()} for k, row in enumerate(same)]
    independent = np.sqrt(sum(row.var(ddof=0) / 40 for row in shared)) / 3 * np.sqrt(120 / 119)
    assert se_of(apart)["se_stimuli"] == pytest.approx(independent)
    assert se_of(same)["se_stimuli"] > 1.4 * se_of(apart)["se_stimuli"]
    assert se_of(same[:1]) == {"se_stimuli": pytest.approx(shared[0].std(ddof=1) / np.sqrt(40)), "n_stimuli": 40}


def test_the_error_over_stimuli_of_partly_shared_stimuli_is_what_repeated_draws_have():
    """Against the spread of the estimate over simulated experiments: 60 images in both subjects, 30 in one alone."""
    rng = np.random.default_rng(9)
    estimates, errors = [], []
    for _ in range(400):
        hard = rng.normal(size=120)
        rows = [{i: hard[i] + 0.5 * rng.normal() for i in range(*span)} for span in ((0, 90), (30, 120))]
        estimates.append(np.mean([np.mean(list(row.values())) for row in rows]))
        errors.append(over_stimuli([pd.Series(row) for row in rows])["se_stimuli"])
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.1)


def test_a_stimulus_without_a_value_and_a_subject_without_any_count_nowhere():
    rows = [{0: 0.1, 1: 0.3, 2: np.nan}, {0: np.nan}, {}]
    assert se_of(rows) == {"se_stimuli": pytest.approx(0.1), "n_stimuli": 2}
    assert se_of([{0: 0.1}]) == {"se_stimuli": None, "n_stimuli": 1}
    assert difference_over_stimuli([None], "pixcorr") == {"se_stimuli": None, "n_stimuli": 0}


def test_own_scans_share_a_stimulus_by_its_label_and_never_by_its_number():
    numbers = [{0: 0.1, 1: 0.3, 2: 0.8}, {0: 0.2, 1: 0.1, 2: 0.4}]
    tables = tables_of(numbers)
    labelled = [t.assign(stimulus=[f"s{k}-{i}" for i in t.stim]) for k, t in enumerate(tables)]
    assert difference_over_stimuli(labelled, "pixcorr")["n_stimuli"] == 6
    assert difference_over_stimuli(tables, "pixcorr")["n_stimuli"] == 3


def test_the_page_says_in_how_many_subjects_a_difference_is_clear():
    def of(mean, se, n):
        return {"paired": {"ssim": {"mean": mean, "se": se, "n": n}}}

    found = paired(
        [of(0.1, 0.01, 40), of(-0.1, 0.01, 40), of(0.1, 0.2, 40), of(0.1, 0.01, 4), of(None, None, 0)], "ssim"
    )
    assert (found["n"], found["n_worse"], found["n_better_clear"], found["n_worse_clear"]) == (4, 1, 1, 1)


def test_of_a_rank_lower_is_better():
    found = paired([{"paired": {"rank_edges": {"mean": -2.0, "se": 0.1, "n": 40}}}], "rank_edges")
    assert (found["n_worse"], found["n_better_clear"], found["n_worse_clear"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("mean", "lower", "colour"), [(-1, True, "up"), (1, True, "down"), (-1, False, "down"), (1, False, "up")]
)
def test_what_is_for_the_better_is_green(mean, lower, colour):
    templates = Environment(loader=FileSystemLoader(Path(report_page.__file__).parent / "templates"))
    macros = templates.get_template("macros.html").module
    assert f'class="{colour}"' in macros.difference(Difference(mean, 0.1, 40), lower)
    assert 'class=""' in macros.difference(Difference(mean, 5.0, 40), lower)


def test_both_errors_are_on_the_page_and_in_the_summary(finished):
    out, result = finished
    said = json.loads(result.summary.read_text())["paired"]["pixcorr"]
    row = {r["metric"]: r for r in values(read_subjects(out, None)[0])["summary_rows"]}["pixcorr"]
    assert (row["here"].se, row["here"].n) == (said["se_stimuli"], said["n_stimuli"])
    assert said["n_stimuli"] == len(STIMULI) and said["se_stimuli"] != pytest.approx(said["se"])
    assert "over stimuli: " in result.page.read_text() and "clear by itself" in result.page.read_text()
