"""`neuraldiffuser run`: what its options mean, how it ends, and what it says."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from napari_neuraldiffuser import cli, cli_run
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks.digest import DEMO_FOLDER
from napari_neuraldiffuser.core.params import PRESETS, BetasParams, Settings, WorkflowParams, preset
from nipype_interfaces.running import front
from tests.support.workflows.small_workflows import fails, node, ok, workflow


@pytest.fixture
def asked(monkeypatch):
    """What the command line asks the workflow to run."""
    found = {}

    def participants(jobs, cut, how):
        found.update(jobs=jobs, cut=cut, how=how)
        return 0

    def group(out_dir, labels, how):
        found.update(out_dir=out_dir, labels=labels, how=how)
        return 0

    monkeypatch.setattr(front, "run_participants", participants)
    monkeypatch.setattr(front, "run_group", group)
    return found


def test_without_options_one_subject_runs_one_node_after_another(asked):
    assert cli.main(["run", "NSD", "OUT", "participant"]) == 0
    (job,) = asked["jobs"]
    assert (job.subject, job.nsd_dir, job.out_dir) == ("subj01", Path("NSD"), Path("OUT"))
    assert (job.settings.diffusion, job.settings.guidance) == preset("demo")
    assert job.command == "neuraldiffuser run NSD OUT participant"
    assert asked["cut"] == WorkflowParams()
    assert asked["how"] == front.How(Path("OUT/work"))


def test_options_reach_the_cut_and_the_engine(asked, tmp_path):
    plugin = tmp_path / "p.yml"
    plugin.write_text("plugin: MultiProc\nplugin_args: {memory_gb: 8}\n")
    more = f"--chunk-size 7 --decoder-parts one --gpu-mem-gb 3.5 --num-threads 2 --use-plugin {plugin} --nprocs 3"
    assert cli.main(["run", "NSD", "OUT", "participant", *more.split(), "--no-resume", "--work-dir", "W"]) == 0
    assert asked["cut"] == WorkflowParams(7, "one", 3.5, 2)
    how = asked["how"]
    assert (how.plugin, how.plugin_args) == ("MultiProc", {"memory_gb": 8, "n_procs": 3})
    assert (how.work_dir, how.resume, how.dry_run) == (Path("W"), False, False)
    assert asked["jobs"][0].resume is False


def test_every_field_of_the_cut_is_an_option():
    args = cli.build_parser().parse_args(["run", "NSD", "OUT", "participant", "--chunk-size", "3"])
    assert args.chunk_size == 3
    assert set(cli_run.CUT) == set(WorkflowParams().to_dict())


def test_labels_are_subjects_however_they_are_written_and_each_runs_once(asked):
    labels = ["01", "sub-02", "subj03", "subj01"]
    assert cli.main(["run", "NSD", "OUT", "participant", "--participant-label", *labels]) == 0
    assert [job.subject for job in asked["jobs"]] == ["subj01", "subj02", "subj03"]


def test_the_group_is_every_subject_unless_told(asked):
    assert cli.main(["run", "NSD", "OUT", "group"]) == 0
    assert (asked["out_dir"], asked["labels"]) == (Path("OUT"), [])
    assert cli.main(["run", "NSD", "OUT", "group", "--participant-label", "01", "subj02"]) == 0
    assert asked["labels"] == ["sub-01", "sub-02"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_those_of_the_core(name):
    args = cli.build_parser().parse_args(["run", "NSD", "OUT", "participant", "--guidance", name])
    settings, told = cli_run._settings(args, "demo")
    assert bool(told) == (name in ("neuraldiffuser", "published")), "a strength of other models is said"
    assert (settings.diffusion, settings.guidance) == preset(name)


@pytest.mark.parametrize(
    ("models", "name"),
    [("demo", "demo"), (str(DEMO_FOLDER), "demo"), ("SD_DIR", "scale-free"), ("owner/name", "scale-free")],
)
def test_unnamed_settings_fit_the_models(asked, models, name):
    """Those recorded as chosen for the bundled models; the scale-free default where nothing was."""
    assert cli.main(["run", "NSD", "OUT", "participant", "--models", models, "--n-steps", "7"]) == 0
    (job,) = asked["jobs"]
    diffusion, guidance = preset(name)
    assert (job.settings.diffusion, job.settings.guidance) == (diffusion.but(n_steps=7), guidance)
    assert job.models == models
    assert len(job.told) == 1 and (DEMO_FOLDER.name in job.told[0] or "nothing was chosen" in job.told[0])


@pytest.mark.parametrize(("command", "name"), [("demo", "demo"), ("run", "scale-free")])
def test_help_states_the_defaults_that_hold(capsys, command, name):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    diffusion, guidance = preset(name)
    for option, value in [("n-steps", diffusion.n_steps), ("guidance-scale", guidance.guidance_scale)]:
        assert re.search(rf"--{option} \w+ (?:(?!--).)*\(default: {re.escape(str(value))}\)", text), option


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--nprocs", "0"], "--nprocs must be at least 1, got 0"),
        (["--chunk-size", "0"], "chunk_size must be at least 1"),
        (["--gpu-mem-gb", "nan"], "must be a finite number"),
        (["--use-plugin", "absent.yml"], "--use-plugin must be a YAML file"),
        (["--participant-label", "a/b"], "participant label must look like subj01"),
        (["--n-stimuli", "0"], "--n-stimuli must be at least 1"),
    ],
)
def test_bad_usage_is_one_line_before_anything_is_written(tmp_path, capsys, more, message):
    assert cli.main(["run", str(tmp_path), str(tmp_path / "out"), "participant", *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("neuraldiffuser: ") and message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["nipype", "yaml"])
def test_without_nipype_one_line_says_what_to_install(tmp_path, capsys, monkeypatch, missing):
    real = cli_run.importlib.util.find_spec
    monkeypatch.setattr(cli_run.importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    assert cli.main(["run", str(tmp_path), str(tmp_path / "out"), "participant"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith("pip install 'napari-neuraldiffuser[nipype]'") and missing in said and "\n" not in said


def test_the_other_commands_do_without_nipype():
    """In a fresh process in which nipype cannot be imported."""
    code = (
        "import sys; sys.modules['nipype'] = None\n"
        "from napari_neuraldiffuser import cli; parse = cli.build_parser().parse_args\n"
        "parse(['demo']); parse(['evaluate', 'a', 'b'])\n"
        "assert cli.main(['doctor', '--json']) == 0\n"
        "assert not any(m.startswith('nipype_interfaces') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True)


def test_the_parent_of_a_run_does_not_import_torch():
    code = (
        "import sys; import napari_neuraldiffuser.cli, nipype_interfaces.running.front, nipype_interfaces.workflows\n"
        "import nipype_interfaces.engines.choice, napari_neuraldiffuser.core.nsd.describe\n"
        "assert 'nipype' in sys.modules\n"
        "assert not {'torch', 'diffusers', 'transformers', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def job(tmp_path, label="subj01", **more):
    return Job(tmp_path / "nsd", tmp_path / "out", subject=label, **more)


def finish(job, failed=()):
    """Files of a finished subject."""
    places: Derivatives = job.places
    places.folder.mkdir(parents=True)
    for path in (places.page, places.summary):
        path.write_text("")
    if failed:
        places.failed.write_text("stim\n" + "".join(f"{s}\n" for s in failed))


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Runs a small workflow instead of the whole one; returns the exit status of the command line's own end."""

    def run(x="fine", jobs=None, **how):
        wf = workflow(tmp_path, node(fails, "fit", x=x), node(ok, "last"), chain=True)
        monkeypatch.setattr("nipype_interfaces.workflows.init_neuraldiffuser_wf", lambda jobs, cut: wf)
        monkeypatch.setattr(front, "check_job", lambda job: None)  # there are no scans
        return front.run_participants(
            jobs or [job(tmp_path)], WorkflowParams(), front.How(tmp_path / "out" / "work", **how)
        )

    return run


def test_stdout_has_the_paths_of_what_was_written(runs, tmp_path, capsys):
    finish(job(tmp_path))
    assert runs() == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/out/sub-01.html\n{tmp_path}/out/sub-01/sub-01_desc-summary_scores.json\n"
    assert "2 nodes: 2 run, 0 cached; " in said.err


def test_failed_stimuli_are_status_1_and_their_table_is_printed(runs, tmp_path, capsys):
    finish(job(tmp_path), failed=[13])
    assert runs() == 1
    assert capsys.readouterr().out.endswith("sub-01_desc-failed_stimuli.tsv\n")


def test_a_failed_node_is_status_1_and_old_results_are_not_called_written(runs, tmp_path, capsys):
    jobs = [job(tmp_path), job(tmp_path, "subj02")]
    for one in jobs:
        finish(one)
    assert runs("library", jobs) == 1
    said = capsys.readouterr()
    assert "sub-02.html" in said.out and "sub-01" not in said.out
    assert "neuraldiffuser: 1 node failed" in said.err
    assert "error   ValueError: first line second line" in said.err
    assert "Traceback" not in said.err


def test_bad_input_that_a_node_finds_is_what_the_direct_call_would_say(runs):
    from napari_neuraldiffuser.core.base.errors import UserError

    with pytest.raises(UserError, match="^x must be 1, got user. Give 1.$") as caught:
        runs("user")
    assert "ParamError" in str(caught.value.__cause__)


def test_a_dry_run_prints_nodes_and_graph_and_runs_nothing(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(front, "_chunks", lambda job, cut: ("sub-01 reconstruct/recon", 2))
    assert runs("library", dry_run=True) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["node", "interface", "mem_gb", "threads", "GPU", "parts", "state"]
    assert "sub-01 fit" in said.out and "2 nodes, 2 to run" in said.out
    assert said.out.splitlines()[-1].startswith(str(tmp_path / "out" / "work" / "graph."))
    assert not list(tmp_path.rglob("result_*.pklz"))


def test_an_interrupt_is_130_and_says_that_the_command_continues(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(front, "run_participants", interrupted)
    assert cli.main(["run", "NSD", "OUT", "participant"]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_a_node_gets_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    settings = Settings(betas=BetasParams(roi='V1 + m/a.nii.gz - "b + c.nii" & FFA'))
    made = front.absolute(
        Job(Path("nsd"), Path("out"), settings=settings, models="models", guide="openai/clip", work_dir=Path("w"))
    )
    here = str(tmp_path)
    assert made.scans == Source(nsd_dir=f"{here}/nsd", subject="subj01")
    assert (str(made.out_dir), str(made.work_dir), made.models) == (f"{here}/out", f"{here}/w", f"{here}/models")
    assert made.guide == "openai/clip"
    assert made.settings.betas.roi == f'V1 + {here}/m/a.nii.gz - "{here}/b + c.nii" & FFA'
    own = Source("", "subj03", "b.nii", "m.nii", "t.tsv", "i", "c.json", "", ("x.nii",))
    made = front.absolute(Job(Path(), tmp_path, source=own)).scans
    want = {name: f"{here}/{getattr(own, name)}" for name in ("betas", "mask", "trials", "images", "captions")}
    assert made == replace(own, **want, rois=(f"{here}/x.nii",))


def test_a_path_may_begin_with_a_tilde_that_is_nobodys_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(Path("nsd"), Path("out"), settings=Settings(betas=BetasParams(roi="~nobody-here/a.nii")))
    assert front.absolute(job).settings.betas.roi == f"{tmp_path}/~nobody-here/a.nii"


def test_names_that_are_no_folders_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = front.absolute(Job(Path("nsd"), Path("out")))
    assert (made.models, made.guide, made.work_dir) == ("demo", None, None)
    assert made.settings == Settings()


OPTIONS = "--guidance demo --n-stimuli 3 --repeats 2 --n-steps 4 --batch-size 2 --chunk-size 1".split()


def test_the_whole_command_in_a_process_of_its_own(nsd_dir, model_dir, tmp_path):
    """Relative paths, two workers, a dry run before and after, an all-cached second run without torch."""
    code = (
        "import sys; from napari_neuraldiffuser import cli; status = cli.main(sys.argv[1:]);"
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(status)"
    )
    start = [sys.executable, "-c", code, "run", os.path.relpath(nsd_dir, tmp_path), "out", "participant"]
    start += ["--models", os.path.relpath(model_dir, tmp_path), *OPTIONS]

    def call(*more):
        done = subprocess.run([*start, *more], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    table, _ = call("--dry-run")
    recon = next(line for line in table.splitlines() if "reconstruct/recon" in line)
    assert recon.split()[-2:] == ["3", "run"] or recon.split()[-3:] == ["3", "to", "run"]
    assert not (tmp_path / "out" / "sub-01.html").exists()
    out, said = call("--nprocs", "2")
    assert out == "out/sub-01.html\nout/sub-01/sub-01_desc-summary_scores.json\n"
    assert (tmp_path / "out" / "sub-01.html").is_file()
    assert "Traceback" not in said
    out, said = call()
    assert out.startswith("out/sub-01.html\n")
    assert said.strip().endswith("False"), said
    table, _ = call("--dry-run")
    assert "nodes, 0 to run" in table


def test_a_folder_named_demo_does_not_stand_for_the_bundled_models(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert front.absolute(Job(Path("nsd"), Path("out"), models="demo")).models == "demo"
    assert front.absolute(Job(Path("nsd"), Path("out"), models="./demo")).models == str(tmp_path / "demo")
