"""Everything that a run writes has a declared name, and whatever is not as declared is complained of."""

import json
import shutil
from pathlib import Path

import pytest

from napari_neuraldiffuser.core.base import names
from napari_neuraldiffuser.core.base.names import SHOWN, Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.outputs import validate as bids
from napari_neuraldiffuser.core.outputs.group import write as group
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from tests.support.output_tree import change, job_of, vouch_all, write_raw, write_small_crossval, write_subject

EMBEDDINGS = "sub-01/sub-01_desc-ridge_embeddings.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    out, raw = folder / "out", write_raw(folder / "nsd")
    for subject in ("subj01", "subj02"):
        places = write_subject(out, subject, failed=(99,))
        facts = Facts.of(job_of(out, raw, subject=subject), "ab" * 32)
        write_sidecars(places, facts)
        write_small_crossval(places, facts)
    group.write_group(vouch_all(out))
    return out


@pytest.fixture
def tree(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "out")


def checked(tree):
    """What is said of a folder whose subjects were left as they are now."""
    return bids.check(vouch_all(tree))


def test_a_finished_folder_is_as_declared(tree):
    assert bids.check(tree) == []


def test_what_changed_since_the_run_ended_is_told(tree):
    (tree / "sub-01.html").write_text("another page")
    (tree / "sub-02/sub-02_complete.json").unlink()
    assert bids.check(tree) == [
        "sub-01: has another sub-01.html than its run left.",
        "sub-02: has no sub-02_complete.json, which a run writes at its end.",
    ]


def test_every_pattern_is_of_a_file_that_is_there(tree):
    used = {names.kind_of(p.relative_to(tree).as_posix()) for p in tree.rglob("*") if p.is_file()}
    surface = Derivatives(Path(), "subj01", "fsaverage")
    files = [*surface.maps("z"), *surface.accuracy_maps("z"), *surface.surface_regions("prf-visualrois")]
    on_surface = {names.kind_of(path.as_posix()) for one in files for path in (one, names.sidecar(one))}
    assert None not in on_surface and not used & on_surface
    assert used | on_surface == set(names.PATTERNS)


def test_files_of_a_surface_have_the_names_of_bids():
    surface = Derivatives(Path(), "subj01", "fsaverage")
    assert [path.as_posix() for path in surface.maps("g02")] == [
        f"sub-01/sub-01_hemi-{hemi}_space-fsaverage_target-g02_contribution.shape.gii" for hemi in "LR"
    ]
    assert names.sidecar(surface.maps("z")[0]).name == "sub-01_hemi-L_space-fsaverage_target-z_contribution.json"


@pytest.mark.parametrize("space", ["func1pt8mm", "func1mm", "native"])
@pytest.mark.parametrize("subject", ["subj01", "sub-7a"])
def test_every_name_of_derivatives_is_declared(subject, space):
    places = Derivatives(Path(), subject, space)
    paths = [getattr(places, name) for name in vars(Derivatives) if isinstance(vars(Derivatives)[name], property)]
    paths = [path for path in paths if isinstance(path, Path) and path.suffix]
    assert len(paths) == 12
    paths += [places.image(stim, rep, arm) for stim in (0, 72999) for rep in (1, 12) for arm in ARMS]
    paths += [places.shown(7, what) for what in SHOWN] + [places.slices("g02"), places.contribution("z")]
    paths += [places.view("z", view) for view in names.VIEWS]
    paths += [places.regions("floc-faces"), places.regions("my atlas_2")]
    assert [path for path in paths if names.kind_of(path.as_posix()) is None] == []


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".tmp-abc-sub-01.html",
        "sub-01/sub-02_contribution.tsv",
        "sub-01/recon/sub-02_stim-00013_rep-1_desc-guided_recon.png",
        "sub-01/recon/sub-01_stim-13_rep-1_desc-guided_recon.png",
        "sub-01/recon/sub-01_stim-00013_rep-0_desc-guided_recon.png",
        "sub-01/recon/sub-01_stim-00013_rep-1_desc-seen_recon.png",
        "sub-01/sub-01_space-func1pt8mm_target-z_contribution.nii",
        "sub-01/anat/sub-01_space-func1pt8mm_seg-floc-faces_dseg.nii.gz",
        "sub-01/sub-01_desc-ridge_embeddings.h5.partial",
        "sub-01/recon/losses.json",
        "work.txt",
    ],
)
def test_unknown_files_are_complained_of(tree, name):
    (tree / name).write_text("{}")
    assert [said for said in checked(tree) if said.startswith(f"{name}: no file that a run writes")]


def test_work_and_raw_data_are_no_results(tree):
    for name in ("work/sub-01/x.pklz", "nsd/nsddata/x.csv"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text("x")
    assert checked(tree) == []


@pytest.mark.parametrize(
    ("gone", "complaint"),
    [
        (EMBEDDINGS, "sub-01_desc-ridge_embeddings.h5: its sidecar"),
        ("sub-01/recon/sub-01_recon.json", "_desc-guided_recon.png: its sidecar sub-01/recon/sub-01_recon.json"),
        ("sub-01/anat/sub-01_space-func1pt8mm_T1w.json", "_T1w.nii.gz: its sidecar"),
        ("group_contribution.json", "group_contribution.tsv: its sidecar"),
        ("sub-01/sub-01_desc-failed_stimuli.tsv", "failed_stimuli.json: there are no data of this sidecar"),
        ("sub-02/sub-02_desc-summary_scores.json", "its source bids::sub-02/sub-02_desc-summary_scores.json is not"),
        ("dataset_description.json", "dataset_description.json: must be there"),
    ],
)
def test_what_is_missing_is_complained_of(tree, gone, complaint):
    (tree / gone).unlink()
    assert [said for said in checked(tree) if complaint in said]


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("GeneratedBy", [], "GeneratedBy must be"),
        ("GeneratedBy", [{"Version": "1"}], "GeneratedBy must be"),
        ("GeneratedBy", {"Name": "x"}, "GeneratedBy must be"),
        ("GeneratedBy", [{"Name": " "}], "GeneratedBy must be"),
        ("Sources", None, "Sources must be a list"),
        ("Sources", "bids::sub-01", "Sources must be a list"),
        ("Sources", [1], "Sources must be a list"),
        ("Sources", ["/home/me/nsd/x.hdf5"], "a source must be bids:"),
        ("Sources", ["sub-01/x.h5"], "a source must be bids:"),
        ("Sources", ["bids:nsd:/home/me/x"], "a source must be bids:"),
        ("Sources", ["bids:nsd:../../me/x"], "a source must be bids:"),
        ("Sources", ["bids:coco:x.json"], "DatasetLinks must say what 'coco' is"),
        ("Sources", ["bids::sub-01/sub-01_gone.h5"], "is not there"),
    ],
)
def test_a_sidecar_that_does_not_say_where_data_come_from(tree, key, value, complaint):
    change(tree / EMBEDDINGS, key, to=value)
    (said,) = checked(tree)
    assert said.startswith(f"{EMBEDDINGS}: ") and complaint in said


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_sidecar_that_is_no_json_object(tree, text):
    (tree / EMBEDDINGS).write_bytes(text.encode(errors="surrogateescape"))
    assert checked(tree) == [f"{EMBEDDINGS}: must be a JSON object."]


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("Name", "", "Name must be text"),
        ("Name", None, "Name must be text"),
        ("BIDSVersion", "1.10", "BIDSVersion must be a version"),
        ("BIDSVersion", 1.1, "BIDSVersion must be text"),
        ("DatasetType", "raw", "DatasetType must be derivative"),
        ("GeneratedBy", None, "GeneratedBy must be"),
        ("GeneratedBy", ["napari-neuraldiffuser"], "GeneratedBy must be"),
        ("DatasetLinks", {"nsd": "/home/me/nsd"}, "DatasetLinks must be"),
        ("DatasetLinks", {"nsd": "file:///home/me/nsd"}, "DatasetLinks must be"),
        ("DatasetLinks", {"nsd": "C:\\nsd"}, "DatasetLinks must be"),
        ("DatasetLinks", ["nsd"], "DatasetLinks must be"),
    ],
)
def test_the_description_of_the_dataset(tree, key, value, complaint):
    change(tree / "dataset_description.json", key, to=value)
    assert complaint in checked(tree)[0]


def test_an_empty_folder_lacks_its_description(tmp_path):
    assert bids.check(tmp_path) == ["dataset_description.json: must be there and be a JSON object."]


def test_what_the_command_writes_is_as_declared(whole_job):
    """A whole run of a small simulated subject with small random models."""
    out = whole_job.out
    assert bids.check(out) == []
    told = [p for p in out.rglob("*.json") if "work" not in p.parts and str(out.parents[1]) in p.read_text()]
    assert told == []
    said = json.loads((out / EMBEDDINGS).read_text())
    assert said["Model"] == "models" and len(said["ModelDigest"]) == 64
