"""What README and docs/cluster.md show of workflows runs as it is written there."""

import re
import sys
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from napari_neuraldiffuser.core.nsd import Subject
from nipype_interfaces.engines.resources import batch_args
from tests.support import ROOT
from tests.support.nsd.own_files import export
from tests.support.workflows.small_workflows import ok


def shown(page: str, containing: str) -> str:
    """The one block of Python on a page that contains a text."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


@pytest.mark.slow
def test_the_workflow_of_the_readme_makes_images_scores_maps_and_a_page(nsd_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = export(Subject(nsd_dir, "subj01"), tmp_path / "scans")
    smooth = pe.Node(Function(function=ok, output_names=["out_file"]), name="smooth")
    smooth.inputs.x = source.betas
    exec(compile(shown("README.md", "lab_wf"), "README.md", "exec"), {"smooth": smooth})
    pages = list((tmp_path / "work").rglob("sub-01.html"))
    images = list((tmp_path / "work").rglob("recon_wf/**/*_rep-*_recon.png") or [])
    images = images or list((tmp_path / "work/lab_wf/reconstruct_wf").rglob("*_rep-*_recon.png"))
    assert len(pages) == 1 and len(images) == 4 * 2 * 2
    page = pages[0].read_text(encoding="utf-8")
    assert "n_steps" in page and ">20<" in page
    assert len(list((tmp_path / "work/lab_wf/contribution_wf").rglob("*_contribution.nii.gz"))) == 8


def test_the_gpu_node_of_the_docs_asks_for_a_gpu_and_runs(tmp_path, monkeypatch):
    module = types.ModuleType("lab_nodes")
    monkeypatch.setitem(sys.modules, "lab_nodes", module)
    exec(compile(shown("docs/cluster.md", "class Denoise"), "cluster.md", "exec"), vars(module))
    node = module.denoise
    assert node.is_gpu_node() and batch_args(node) == "--mem=8192M --cpus-per-task=1 --gres=gpu:1"
    data = np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "in.nii")
    node.inputs.trait_set(in_file=str(tmp_path / "in.nii"), device="cpu")
    node.base_dir = str(tmp_path)
    out = Path(node.run().outputs.out_file)
    assert np.allclose(nib.load(out).get_fdata(), data - data.mean(-1, keepdims=True), atol=1e-6)
    assert not [p for p in tmp_path.rglob("*.pklz") if b"environ" in p.read_bytes() and b"PATH=" in p.read_bytes()]
