"""Sidecars say what was made from what, the same bytes every time, and nothing of this machine."""

import json
import os
from dataclasses import replace

import pandas as pd
import pytest

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.job.images import write_failed
from napari_neuraldiffuser.core.outputs import sidecars
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.outputs.description import model_name, write_description
from napari_neuraldiffuser.core.outputs.raw import NSD_HOME, dataset_link
from napari_neuraldiffuser.core.outputs.sidecars import Facts, without_folders, write_sidecars
from napari_neuraldiffuser.core.params import BetasParams, ContributionParams, Settings
from tests.support.output_tree import TARGETS, job_of, vouch_all, write_raw, write_subject

JUDGED = {
    "sub-01_desc-decoding_scores.json",
    "sub-01_desc-projected_targets.json",
    "sub-01_desc-regions_scores.json",
    *(f"sub-01_space-func1pt8mm_target-{t}_accuracy.json" for t in TARGETS),
}
"""Sidecars of what tells what decoded targets are worth."""
BETAS = "bids:nsd:nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session{:02d}.hdf5"


@pytest.fixture
def tree(tmp_path):
    """Output folder, places and facts of one subject."""
    raw = write_raw(tmp_path / "private" / "data" / "nsd")
    out = tmp_path / "out"
    places = write_subject(out, failed=(99,))
    return out, places, Facts.of(job_of(out, raw), "ab" * 32, ["one session is missing"])


def read(path):
    return json.loads(path.read_text())


def stamps(out):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*.json")}


def test_every_data_file_gets_one(tree):
    out, places, facts = tree
    assert any("is missing" in said for said in bids.check(out))
    written = write_sidecars(places, facts)
    assert bids.check(vouch_all(out)) == []
    names = {p.relative_to(out).as_posix().removeprefix("sub-01/") for p in written}
    assert names == {
        "sub-01_desc-ridge_embeddings.json",
        "sub-01_desc-recon_scores.json",
        "sub-01_desc-failed_stimuli.json",
        "sub-01_contribution.json",
        *(f"sub-01_space-func1pt8mm_target-{t}_contribution.json" for t in TARGETS),
        *JUDGED,
        "anat/sub-01_space-func1pt8mm_T1w.json",
        "anat/sub-01_space-func1pt8mm_seg-prfvisualrois_dseg.json",
    }


def test_what_they_say(tree):
    _, places, facts = tree
    write_sidecars(places, facts)
    said = read(places.embeddings.with_suffix(".json"))
    assert said["GeneratedBy"][0]["Name"] == "napari-neuraldiffuser"
    assert {"Version", "Versions", "KernelBackend"} <= set(said["GeneratedBy"][0])
    assert said["Sources"][:3] == [BETAS.format(k) for k in (1, 2, 3)]
    assert "bids:nsd:nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5" in said["Sources"]
    assert (said["Model"], said["ModelDigest"]) == ("demo", "ab" * 32)
    assert said["Parameters"]["betas"] == BetasParams().to_dict()
    assert set(said["Parameters"]) == {"betas", "features", "decoding"}
    assert (said["ROI"], said["Space"]) == ("nsdgeneral", "func1pt8mm")
    assert said["Notes"] == ["one session is missing"]

    volume = read(places.contribution("g02").parent / "sub-01_space-func1pt8mm_target-g02_contribution.json")
    table = pd.read_csv(places.contribution_table, sep="\t")
    assert volume["Total"] == pytest.approx(table[table.target == "g02"].total.iloc[0])
    assert (volume["Target"], volume["Kind"]) == ("g02", "product-measure")
    assert volume["SpatialReference"] == "bids::sub-01/anat/sub-01_space-func1pt8mm_T1w.nii.gz"

    regions = read(places.regions("prf-visualrois").parent / "sub-01_space-func1pt8mm_seg-prfvisualrois_dseg.json")
    assert regions["Family"] == "prf-visualrois"
    roi = "bids:nsd:nsddata/ppdata/subj01/func1pt8mm/roi/"
    assert regions["Sources"] == [f"{roi}{side}prf-visualrois.nii.gz" for side in ("lh.", "", "rh.")]


@pytest.mark.parametrize("which", ["scores", "contribution_table", "failed"])
def test_every_column_is_described(tree, which):
    _, places, facts = tree
    write_sidecars(places, facts)
    path = getattr(places, which)
    said = read(path.with_suffix(".json"))
    for column in pd.read_csv(path, sep="\t"):
        assert said[column]["Description"].endswith(".")
    if which == "scores":
        assert said["pixcorr"] == {"Description": "Pearson correlation.", "Units": "1"}


def test_a_second_time_touches_nothing_and_needs_no_kernels(tree, monkeypatch):
    out, places, facts = tree
    write_sidecars(places, facts)
    before = stamps(out)

    def never():
        raise AssertionError("imports torch")

    monkeypatch.setattr(sidecars, "generated_by", never)
    write_sidecars(places, facts)
    write_description(out)
    assert stamps(out) == before


def test_what_generated_old_data_stays(tree, monkeypatch):
    _, places, facts = tree
    write_sidecars(places, facts)
    embeddings, table = (p.with_suffix(".json") for p in (places.embeddings, places.contribution_table))
    monkeypatch.setattr(sidecars, "generated_by", lambda: [{"Name": "napari-neuraldiffuser", "Version": "next"}])
    newer = table.stat().st_mtime_ns + 10**9
    os.utime(places.contribution_table, ns=(newer, newer))
    write_sidecars(places, facts)
    assert read(embeddings)["GeneratedBy"][0]["Version"] != "next"
    assert read(table)["GeneratedBy"] == [{"Name": "napari-neuraldiffuser", "Version": "next"}]


def test_a_changed_parameter_is_told_by_its_own_files_only(tree):
    out, places, facts = tree
    write_sidecars(places, facts)
    before = stamps(out)
    settings = Settings(contribution=ContributionParams(bootstrap=7)).to_dict()
    write_sidecars(places, replace(facts, settings=settings))
    changed = {p.name for p, content in stamps(out).items() if before[p] != content}
    assert changed == {
        "sub-01_contribution.json",
        *(f"sub-01_space-func1pt8mm_target-{t}_contribution.json" for t in TARGETS),
        *JUDGED,
    }


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', ""])
def test_a_damaged_sidecar_is_made_again(tree, text):
    out, places, facts = tree
    write_sidecars(places, facts)
    before = {p: content for p, (_, content) in stamps(out).items()}
    for path in (places.embeddings.with_suffix(".json"), out / "dataset_description.json"):
        path.write_text(text)
    write_sidecars(places, facts)
    assert {p: content for p, (_, content) in stamps(out).items()} == before


def test_a_family_keeps_its_name_without_its_sidecar(tree):
    _, places, facts = tree
    path = places.regions("prf-visualrois").parent / "sub-01_space-func1pt8mm_seg-prfvisualrois_dseg.json"
    path.unlink()
    write_sidecars(places, facts)
    assert read(path)["Family"] == "prf-visualrois"


def test_the_sidecar_of_failed_stimuli_goes_with_them(tree):
    out, places, facts = tree
    write_sidecars(places, facts)
    write_failed(places, [])
    write_sidecars(places, facts)
    assert not places.failed.with_suffix(".json").exists()
    assert bids.check(vouch_all(out)) == []


def test_no_path_of_this_machine_is_written(tmp_path):
    private = tmp_path / "private" / "deep"
    mask = private / "my mask.nii.gz"
    raw, out = write_raw(private / "nsd"), tmp_path / "out"
    (private / "sd14").mkdir()
    settings = Settings(betas=BetasParams(roi=f'V1 + "{mask}" & {private}/b.nii'))
    places = write_subject(out)
    job = job_of(out, raw, settings=settings, models=str(private / "sd14"))
    write_sidecars(places, Facts.of(job, "ab" * 32))
    assert read(places.embeddings.with_suffix(".json"))["ROI"] == "V1 + my mask.nii.gz & b.nii"
    assert read(places.embeddings.with_suffix(".json"))["Model"] == "sd14"
    assert bids.check(vouch_all(out)) == []
    told = [p.name for p in out.rglob("*.json") if "private" in p.read_text() or str(tmp_path) in p.read_text()]
    assert told == []


def test_sources_are_the_sessions_that_were_read(tmp_path):
    raw, out = write_raw(tmp_path / "nsd"), tmp_path / "out"
    facts = Facts.of(job_of(out, raw, settings=Settings(betas=BetasParams(sessions="1,3"))), "")
    sessions = [uri for uri in facts.raw["betas"] if "session" in uri]
    assert sessions == [BETAS.format(1), BETAS.format(3)]


def test_raw_data_that_went_are_named_by_their_folder(tmp_path):
    facts = Facts.of(job_of(tmp_path / "out", tmp_path / "gone"), "")
    assert facts.raw["betas"] == ()
    places = write_subject(tmp_path / "out")
    write_sidecars(places, facts)
    assert read(places.embeddings.with_suffix(".json"))["Sources"] == []


def test_own_scans(tmp_path):
    scans = tmp_path / "private" / "scans"
    source = Source(
        subject="subj07",
        betas=str(scans / "betas.nii.gz"),
        mask=str(scans / "masks/brain.nii.gz"),
        trials="/elsewhere/trials.tsv",
        images=str(scans / "images"),
        rois=(str(scans / "sub-07_seg-visual_dseg.nii.gz"),),
    )
    out = tmp_path / "out"
    facts = Facts.of(job_of(out, tmp_path, source=source), "")
    assert facts.raw["betas"] == ("bids:scans:betas.nii.gz", "bids:scans:masks/brain.nii.gz", "bids:scans:trials.tsv")
    assert facts.raw["stimuli"] == ("bids:scans:images",)
    assert facts.raw["rois/visual"] == ("bids:scans:sub-07_seg-visual_dseg.nii.gz",)
    assert facts.raw["rois/mask"] == ("bids:scans:masks/brain.nii.gz",)
    assert facts.links == {"scans": "file:scans"}


@pytest.mark.parametrize(
    ("folder", "link"),
    [("out/nsd", "nsd"), ("nsd", "../nsd"), ("a/nsd", NSD_HOME), ("../nsd", NSD_HOME), ("..", NSD_HOME)],
)
def test_a_dataset_nearby_is_linked_by_its_place_and_no_other(tmp_path, folder, link):
    assert dataset_link(tmp_path / folder, tmp_path / "out", NSD_HOME) == link


def test_links_of_several_datasets_add_up(tmp_path):
    write_description(tmp_path, {"nsd": "nsd"})
    write_description(tmp_path, {"scans": "../scans"})
    write_description(tmp_path)
    assert read(tmp_path / "dataset_description.json")["DatasetLinks"] == {"nsd": "nsd", "scans": "../scans"}


@pytest.mark.parametrize(
    ("roi", "without"),
    [
        ("nsdgeneral", "nsdgeneral"),
        ("floc-faces/FFA-1 + V1", "floc-faces/FFA-1 + V1"),
        ("/home/me/a.nii.gz", "a.nii.gz"),
        ('"/home/me/a - b.nii" & V1', '"a - b.nii" & V1'),
        ("V1 - /home/my files/b.nii.gz", "V1 - b.nii.gz"),
        ("C:\\me\\a.nii", "a.nii"),
        ('"early - late" & /home/me/a.nii', '"early - late" & a.nii'),
    ],
)
def test_masks_are_named_without_their_folders(roi, without):
    assert without_folders(roi) == without


def test_models_are_named_without_their_folders(tmp_path):
    assert model_name(str(tmp_path / "sd14")) == "sd14"
    assert model_name("./sd14") == "sd14"
    assert model_name("demo") == "demo"
    assert model_name("CompVis/stable-diffusion-v1-4") == "CompVis/stable-diffusion-v1-4"
