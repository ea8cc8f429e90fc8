"""What the tests of the workflows share."""

import hashlib
from pathlib import Path

import nipype_interfaces  # noqa: F401  before nipype, which would ask a server for its newest version
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, Settings, WorkflowParams
from nipype_interfaces.workflows import init_neuraldiffuser_wf
from nipype_interfaces.workflows.nodes import Plan

IDS = [13, 7, 70000]
DIFFUSION = DiffusionParams(n_steps=4, repeats=2, batch_size=2)
GUIDANCE = GuidanceParams(guidance_scale=1.0, guidance_strength=0.5, normalise="rms")
# a sum rounds differently with another number of threads
CUT = WorkflowParams(chunk_size=2, num_threads=1)
PLAN = Plan(Settings(diffusion=DIFFUSION, guidance=GUIDANCE), CUT)


def prepared(wf, base: Path, **execution: str):
    """`wf` with its working folder, quick polling and text crash files below `base`."""
    wf.base_dir = str(base)
    wf.config["execution"] = {
        "poll_sleep_duration": "0.1",
        "crashdump_dir": str(base / "crash"),
        "crashfile_format": "txt",
        **execution,
    }
    return wf


def run_job(job, base: Path, plugin="Linear", cut=CUT, **plugin_args):
    """Run a job's workflow; the executed nodes by name."""
    wf = prepared(init_neuraldiffuser_wf([job], cut), base)
    graph = wf.run(plugin=plugin, plugin_args=plugin_args)
    return {node.name: node for node in graph.nodes()}


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, by name; the work folder is none of the results."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "work" not in p.relative_to(folder).parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def times(base: Path, name: str) -> dict[str, int]:
    """When the results of nodes whose folder is `name` were written, by folder."""
    found = base.rglob(f"result_{name}*.pklz")
    return {str(p.parent.relative_to(base)): p.stat().st_mtime_ns for p in found}
