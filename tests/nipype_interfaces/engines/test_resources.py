"""What nodes ask batch systems for, and the plugin files that say the rest; no batch system is needed."""

import os
import shlex
from pathlib import Path

import pytest
import yaml
from nipype.pipeline import engine as pe

import nipype_interfaces  # noqa: F401  before nipype: turns its telemetry off
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.params import WorkflowParams
from nipype_interfaces.engines import choice as engines
from nipype_interfaces.engines import memory, resources
from nipype_interfaces.engines.resources import ResourceError, batch_args, for_batch
from nipype_interfaces.interfaces import FitDecoder, GuidedReconstruct
from nipype_interfaces.running import control, front
from nipype_interfaces.slurm.engine import WatchedSLURMPlugin
from nipype_interfaces.workflows import init_neuraldiffuser_wf
from tests.support import ROOT
from tests.support.workflows.small_workflows import map_node, node, ok

PLUGINS = ROOT / "plugins"


def gpu_node(mem_gb=24.0, n_procs=4):
    made = pe.Node(GuidedReconstruct(), name="recon", mem_gb=mem_gb, n_procs=n_procs)
    made.inputs.use_gpu = True
    return made


@pytest.mark.parametrize(
    ("scheduler", "gpu", "without"),
    [
        ("slurm", "--mem=24576M --cpus-per-task=4 --gres=gpu:1", "--mem=24576M --cpus-per-task=4"),
        ("sge", "-pe smp 4 -l h_vmem=6144M -l gpu=1", "-pe smp 4 -l h_vmem=6144M"),
        ("pbs", "-l select=1:ncpus=4:mem=24576mb:ngpus=1", "-l select=1:ncpus=4:mem=24576mb"),
    ],
)
def test_needs_are_asked_for_in_the_words_of_each_batch_system(scheduler, gpu, without):
    made = gpu_node()
    assert batch_args(made, scheduler) == gpu
    made.inputs.use_gpu = False
    assert batch_args(made, scheduler) == without


def test_small_needs_are_rounded_up_and_one_processor_needs_no_environment():
    made = gpu_node(mem_gb=0.0001, n_procs=1)
    made.inputs.use_gpu = False
    assert batch_args(made, "slurm") == "--mem=1M --cpus-per-task=1"
    assert batch_args(made, "sge") == "-l h_vmem=1M"
    assert batch_args(made, "slurm", mem_gb=1.5) == "--mem=1536M --cpus-per-task=1"
    # a share is rounded up too: three of them are enough for the whole
    assert batch_args(gpu_node(mem_gb=1.0, n_procs=3), "sge") == "-pe smp 3 -l h_vmem=342M -l gpu=1"


@pytest.mark.parametrize("scheduler", ["SLURM", "lsf", ""])
def test_another_batch_system_is_refused(scheduler):
    with pytest.raises(ResourceError, match="scheduler must be one of slurm, sge, pbs, got"):
        for_batch(pe.Workflow("wf"), scheduler)
    with pytest.raises(ResourceError, match="scheduler must be"):
        batch_args(gpu_node(), scheduler)


@pytest.mark.parametrize(("scheduler", "option"), [(name, known[0]) for name, known in resources.SCHEDULERS.items()])
def test_options_that_a_node_has_are_kept_and_come_last(scheduler, option):
    plain, own, quick = node(ok, "plain"), node(ok, "own"), node(ok, "quick")
    own.plugin_args = {option: "-q long", "max_tries": 3}
    quick.run_without_submitting = True
    wf = pe.Workflow("wf")
    wf.add_nodes([plain, own, quick])
    assert for_batch(wf, scheduler, extra="-A money") is wf
    asked = batch_args(plain, scheduler)
    assert plain.plugin_args[option] == f" {asked} -A money"
    assert own.plugin_args[option] == f" {asked} -A money -q long" and own.plugin_args["max_tries"] == 3
    assert not quick.plugin_args


def test_a_node_that_says_everything_itself_is_left_alone():
    own = node(ok, "own")
    own.plugin_args = {"sbatch_args": "--mem=1G", "overwrite": True}
    wf = pe.Workflow("wf")
    wf.add_nodes([own])
    for_batch(wf)
    assert own.plugin_args["sbatch_args"] == "--mem=1G"
    assert WatchedSLURMPlugin(plugin_args={"sbatch_args": "--mem=9G"})._arguments(own) == ["--mem=1G"]


def items_of(wf, map_node):
    """The nodes that an engine submits for a MapNode; a run gives the workflow's configuration to it."""
    map_node.config = wf.config
    map_node.config.setdefault("execution", {}).update(create_report="false", hash_method="content")
    return map_node.get_subnodes()


def test_items_of_a_map_node_ask_for_the_same(tmp_path):
    many = map_node(ok, "many", ["x"], x=[1, 2, 3])
    many.n_procs = 2
    wf = pe.Workflow("wf", base_dir=str(tmp_path))
    wf.add_nodes([many])
    for_batch(wf)
    items = items_of(wf, many)
    expected = ["--mem=205M", "--cpus-per-task=2"]
    assert len(items) == 3 and all(WatchedSLURMPlugin()._arguments(item) == expected for item in items)


def test_the_memory_is_that_of_the_files_once_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setitem(memory.ESTIMATES, "FitDecoder", (lambda inputs: 2 * memory.GB, 9 * memory.GB))
    fit = pe.MapNode(FitDecoder(), ["fit_targets"], name="fit", base_dir=str(tmp_path))
    wf = pe.Workflow("wf", base_dir=str(tmp_path))
    wf.add_nodes([fit])
    for_batch(wf, extra="--qos=low")
    before, after = (memory.with_safety(gb * memory.GB) for gb in (9, 2))
    assert shlex.split(fit.plugin_args["sbatch_args"])[0] == f"--mem={round(before * 1024)}M"
    fit.inputs.fit_targets = [["z"], ["c"]]
    for item in items_of(wf, fit):
        found = WatchedSLURMPlugin(plugin_args={"sbatch_args": "--time=1"})._arguments(item)
        assert found == [f"--mem={round(after * 1024)}M", "--cpus-per-task=1", "--qos=low", "--time=1"]


def subject(device="cuda", **cut):
    return init_neuraldiffuser_wf([Job(Path("/nsd"), Path("/out"), device=device)], WorkflowParams(**cut))


def test_every_job_of_a_subject_asks_and_gpu_nodes_for_a_gpu(tmp_path):
    wf = subject(num_threads=3, gpu_mem_gb=20.0)
    front._prepare(wf, front.How(tmp_path, "SLURM", {}))
    nodes = {name: wf.get_node(name) for name in wf.list_node_names()}
    asked = {name: one.plugin_args.get("sbatch_args", "") for name, one in nodes.items()}
    gpu = {name.rpartition(".")[2] for name, text in asked.items() if "--gres=gpu:1" in text}
    assert gpu == {"targets", "test_targets", "recon", "evaluate", "report"}
    assert all("--mem=20480M" in text for text in asked.values() if "--gres" in text)
    ends = ("inputnode", "outputnode")
    jobs = {name for name, one in nodes.items() if not one.run_without_submitting and not name.endswith(ends)}
    assert len(jobs) == 10 and all("--cpus-per-task=3" in asked[name] for name in jobs)
    on_cpu = subject("cpu")
    front._prepare(on_cpu, front.How(tmp_path, "SLURM", {}))
    assert not any("--gres" in str(on_cpu.get_node(name).plugin_args) for name in on_cpu.list_node_names())


@pytest.mark.parametrize(("name", "option", "gpu"), [("SGE", "qsub_args", "-l gpu=1"), ("PBS", "qsub_args", "ngpus=1")])
def test_other_batch_systems_are_told_by_the_command_line_too(name, option, gpu, tmp_path):
    wf = subject()
    front._prepare(wf, front.How(tmp_path, name, {}))
    assert gpu in wf.get_node("sub_01_wf.reconstruct_wf.recon").plugin_args[option]
    assert gpu not in wf.get_node("sub_01_wf.decode").plugin_args[option]


@pytest.mark.parametrize("name", ["Linear", "MultiProc"])
def test_engines_of_this_machine_are_told_nothing(name, tmp_path):
    wf = subject()
    front._prepare(wf, front.How(tmp_path, name, {}))
    assert not any(wf.get_node(name).plugin_args for name in wf.list_node_names())


# -- the plugin files


FILES = {
    # file -> class, what it must have been given
    "slurm.yml": ("WatchedSLURMPlugin", {"max_jobs": 50, "_sbatch_args": "--time=12:00:00 --requeue", "_max_tries": 5}),
    "sge.yml": ("SGEPlugin", {"max_jobs": 50, "_qsub_args": "-l h_rt=12:00:00", "_retry_timeout": 10}),
    "pbs.yml": ("PBSPlugin", {"max_jobs": 50, "_qsub_args": "-l walltime=12:00:00", "_retry_timeout": 10}),
    "multiproc.yml": ("WatchedMultiProcPlugin", {"processors": 4, "memory_gb": 32, "n_gpu_procs": 1}),
}


def test_every_plugin_file_is_tested():
    assert {path.name for path in PLUGINS.iterdir()} == set(FILES)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Batch systems' programs that do nothing; Nipype's SGE engine calls qstat when it is made."""
    for name in ("sbatch", "qsub", "qstat"):
        (tmp_path / name).write_text("#!/bin/sh\necho '<job_info/>'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("name", FILES)
def test_a_plugin_file_makes_its_engine(name, programs):
    cls, given = FILES[name]
    plugin, plugin_args = engines.choose(PLUGINS / name, None)
    made = engines.engine(plugin, plugin_args)
    assert type(made).__name__ == cls and {key: getattr(made, key) for key in given} == given
    control.stop(made)
    assert plugin_args == yaml.safe_load((PLUGINS / name).read_text())["plugin_args"]


def test_the_plugin_file_of_slurm_gives_only_what_the_engine_knows():
    known = WatchedSLURMPlugin.__doc__ + " sbatch_args template max_jobs max_tries retry_timeout"
    given = yaml.safe_load((PLUGINS / "slurm.yml").read_text())["plugin_args"]
    assert all(f"{name}" in known for name in given)
    made = WatchedSLURMPlugin(plugin_args=given)
    assert (made._poll_s, made._patience_s, made._retry_timeout) == (15, 1800, 10)


@pytest.mark.parametrize("name", ["sge.yml", "pbs.yml"])
def test_the_job_scripts_of_other_batch_systems_keep_nipypes_first_lines(name, programs):
    plugin, plugin_args = engines.read_plugin_file(PLUGINS / name)
    without = {key: value for key, value in plugin_args.items() if key != "template"}
    ours, nipypes = (engines.engine(plugin, args)._template.split() for args in (plugin_args, without))
    assert ours == nipypes
