"""Every interface: documented inputs, hashed version, citations, doctests; and the ones that only read."""

import doctest
import importlib
import os
import pkgutil
import shutil
from pathlib import Path

import pytest
from nipype.interfaces.base import Undefined, traits

import nipype_interfaces
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.nsd import Subject
from nipype_interfaces import interfaces
from nipype_interfaces.interfaces import DerivativesSink, LoadNSDBetas, NSDIndex, PrepareBetas, base
from nipype_interfaces.workflows.nodes import stimuli_alone
from tests.support.nsd.glmsingle_files import make as make_glmsingle
from tests.support.nsd.glmsingle_files import write as write_glmsingle
from tests.support.nsd.own_files import export

EVERY = [getattr(interfaces, name) for name in interfaces.__all__]
NAMED = {
    "NSDIndex", "LoadNSDBetas", "PrepareBetas", "ExtractFeatures", "FitDecoder", "Decode", "GuidedReconstruct",
    "ContributionMap", "EvaluateReconstruction", "SubjectReport", "GroupReport",
}  # fmt: skip
COMPUTING = [cls for cls in EVERY if cls.__name__ not in ("CheckModels",)]


def test_the_interfaces_of_the_design_are_there():
    assert NAMED <= set(interfaces.__all__)


@pytest.mark.parametrize("cls", EVERY)
def test_inputs_and_outputs_say_what_they_are(cls):
    for spec in (cls.input_spec(), cls.output_spec()):
        for name in spec.copyable_trait_names():
            assert len(spec.trait(name).desc or "") > 3, name
    assert cls.__doc__.count(">>>") >= 2


@pytest.mark.parametrize("cls", COMPUTING)
def test_the_version_is_hashed_and_threads_and_gpu_are_not(cls):
    node = cls()
    assert node.inputs.algorithm_version == base.VERSION
    before = node.inputs.get_hashval()[1]
    for name, value in {"num_threads": 3, "use_gpu": True}.items():
        if name in node.inputs.copyable_trait_names():
            setattr(node.inputs, name, value)
    assert node.inputs.get_hashval()[1] == before
    node.inputs.algorithm_version = "another"
    assert node.inputs.get_hashval()[1] != before


@pytest.mark.parametrize("name", ["ExtractFeatures", "GuidedReconstruct", "EvaluateReconstruction", "SubjectReport"])
def test_weights_are_hashed(name):
    node = getattr(interfaces, name)()
    before = node.inputs.get_hashval()[1]
    node.inputs.model_digest = "f" * 64
    assert node.inputs.get_hashval()[1] != before


def test_the_paper_and_the_dataset_are_cited():
    assert "NeuralDiffuser" in base.PAPER_BIBTEX and "7T" in base.DATASET_BIBTEX
    for text in (base.PAPER_BIBTEX, base.DATASET_BIBTEX):
        assert text.startswith("@article{") and text.count("{") == text.count("}")
    assert interfaces.GuidedReconstruct()._references == [base.PAPER]
    assert LoadNSDBetas()._references == [base.PAPER, base.DATASET]


def modules():
    found = pkgutil.walk_packages(nipype_interfaces.__path__, "nipype_interfaces.")
    return [module.name for module in found]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_work(name):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=options).failed == 0


def test_examples_are_run_at_all():
    total = sum(doctest.testmod(importlib.import_module(name)).attempted for name in modules())
    assert total > 3 * len(NAMED)


def test_a_missing_file_is_named_at_once():
    node = interfaces.FitDecoder()
    with pytest.raises(traits.TraitError, match="nowhere.h5"):
        node.inputs.betas = "/nowhere.h5"


def test_index_lists_the_stimuli_of_the_betas_that_are_read(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nsd_dir = recipe.source.nsd_dir
    train, test = Subject(nsd_dir, "subj01").betas().split()
    found = NSDIndex(nsd_dir=nsd_dir).run().outputs
    assert found.train_ids == train.stimulus_ids.tolist()
    assert found.test_ids == test.stimulus_ids.tolist()
    assert NSDIndex(nsd_dir=nsd_dir, n_stimuli=3).run().outputs.test_ids == found.test_ids[:3]
    assert found.source == NSDIndex(nsd_dir=nsd_dir).run().outputs.source
    assert base.unstamped(found.source) == recipe.source
    other = NSDIndex(nsd_dir=nsd_dir, roi="V1 & " + _mask(tmp_path, nsd_dir)).run().outputs
    assert found.source != other.source and stimuli_alone(found.source) == stimuli_alone(other.source)
    moved = nsd_copy(recipe, tmp_path)
    before = NSDIndex(nsd_dir=moved).run().outputs.source
    (moved / "nsddata_stimuli/captions.json").touch()
    assert stimuli_alone(NSDIndex(nsd_dir=moved).run().outputs.source) != stimuli_alone(before)


def nsd_copy(recipe, folder):
    """The tree, with links in place of files that are not touched."""
    moved = folder / "nsd"
    shutil.copytree(recipe.source.nsd_dir, moved, copy_function=os.symlink)
    captions = moved / "nsddata_stimuli/captions.json"
    captions.unlink()
    shutil.copy(Path(recipe.source.nsd_dir) / "nsddata_stimuli/captions.json", captions)
    os.utime(captions, (0, 0))
    return moved


def _mask(folder, nsd_dir):
    import nibabel

    path = folder / "drawn.nii.gz"
    rois = Subject(nsd_dir, "subj01").rois("nsdgeneral")
    nibabel.save(nibabel.Nifti1Image((rois.labels > 0).astype("uint8"), rois.affine), path)
    return str(path)


def test_betas_are_those_of_the_core(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = LoadNSDBetas(nsd_dir=recipe.source.nsd_dir, roi="V1", zscore=False).run().outputs
    params = recipe.settings.betas.but(roi="V1", zscore=False)
    wanted = Subject(recipe.source.nsd_dir, "subj01", params).betas()
    got = nsd.load_betas(found.betas)
    assert (got.data == wanted.data).all() and found.n_voxels == wanted.n_voxels > 0


def test_own_betas_are_prepared_as_the_source_says(recipe, tmp_path, monkeypatch):
    source = export(Subject(recipe.source.nsd_dir, "subj01"), tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    files = {name: getattr(source, name) for name in ("betas", "mask", "trials", "images", "captions", "anatomy")}
    found = PrepareBetas(**files, rois=list(source.rois), subject="subj07").run().outputs
    assert nsd.open_source(nsd_source(found.source)).source == source
    assert (nsd.load_betas(found.betas).data == nsd.open_source(source).betas().data).all()
    assert found.train_ids and found.test_ids and not set(found.train_ids) & set(found.test_ids)


def test_glmsingles_outputs_are_prepared_and_their_voxels_chosen(tmp_path, monkeypatch):
    outputs = make_glmsingle(tmp_path / "glm")
    monkeypatch.chdir(tmp_path)
    files = {"betas": str(write_glmsingle(outputs, "hdf5")), "mask": str(outputs.mask_file)}
    found = PrepareBetas(**files, subject="subj07").run().outputs
    assert len(found.test_ids) == 2 and len(found.train_ids) == 7
    assert found.n_voxels == outputs.mask.sum() - 1
    assert any("shown most often" in note for note in found.notes)
    fewer = PrepareBetas(**files, subject="subj07", max_voxels=6).run().outputs
    assert fewer.n_voxels == 6 and any("6 of" in note for note in fewer.notes)


def nsd_source(values):
    from napari_neuraldiffuser.core.base.recipe import Source

    return Source.from_dict(dict(values))


def test_the_test_set_is_an_input_beside_the_folder(tmp_path):
    from traits.api import TraitError

    from nipype_interfaces.interfaces.base import source_of

    assert source_of(NSDIndex(nsd_dir=str(tmp_path)).inputs).test_set == "core"
    assert source_of(NSDIndex(nsd_dir=str(tmp_path), test_set="synthetic").inputs).test_set == "synthetic"
    with pytest.raises(TraitError, match="test_set"):
        NSDIndex(test_set="shared")


def test_a_source_is_an_nsd_folder_or_own_scans(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="source"):
        NSDIndex().run()
    with pytest.raises(ValueError, match="own scans must have"):
        NSDIndex(source={"betas": "/nowhere.nii", "mask": "", "trials": ""}).run()


def test_the_sink_places_files_at_once_and_touches_none_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = tmp_path / "work" / "report"
    files = [node / "sub-01.html", node / "sub-01" / "recon" / "a.png", node / "sub-01" / "t.tsv"]
    for k, path in enumerate(files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content {k}")
    out = tmp_path / "out"
    stale = out / "sub-01" / "old.tsv"
    stale.parent.mkdir(parents=True)
    stale.write_text("of a former run")

    def sink():
        nested = [str(files[0]), None, Undefined, [str(files[1]), [str(files[2])]]]
        return DerivativesSink(out_dir=out, label="sub-01", files=nested, absent=["old.tsv"]).run().outputs

    written = [Path(p) for p in sink().out_files]
    assert [str(p.relative_to(out)) for p in written] == ["sub-01.html", "sub-01/recon/a.png", "sub-01/t.tsv"]
    assert [p.read_text() for p in written] == ["content 0", "content 1", "content 2"]
    assert not stale.exists()
    inodes = [p.stat().st_ino for p in written]
    written[1].write_text("somebody wrote here")
    sink()
    assert written[1].read_text() == "content 1"
    assert [p.stat().st_ino for p in (written[0], written[2])] == [inodes[0], inodes[2]]
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["a.png", "sub-01.html", "t.tsv"]


def test_the_sink_refuses_files_of_nobody(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_text("")
    with pytest.raises(UserError, match="sub-01"):
        DerivativesSink(out_dir=tmp_path / "out", label="sub-01", files=[str(tmp_path / "x.png")]).run()


def test_models_are_told_by_their_weights(recipe, tmp_path, monkeypatch):
    from napari_neuraldiffuser.core.networks.models import load

    monkeypatch.chdir(tmp_path)
    models = tmp_path / "models"
    shutil.copytree(recipe.models, models)
    digest = interfaces.CheckModels(models=str(models)).run().outputs.model_digest
    assert digest == load(models).digest
    config = models / "scheduler" / "scheduler_config.json"
    read_json(config)
    config.write_text(config.read_text() + " ")
    os.utime(config, (1, 1))
    assert interfaces.CheckModels(models=str(models)).run().outputs.model_digest != digest


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_models_that_lack_something_are_refused(recipe, tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(recipe.models, tmp_path / "models")
    for path in (folder / part).glob("*.safetensors"):
        path.write_text("")
    with pytest.raises(UserError, match=f"Model part {part} .* an empty file"):
        interfaces.CheckModels(models=str(folder)).run()
