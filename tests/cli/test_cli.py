import io
import json
from contextlib import ExitStack
from dataclasses import fields

import pytest

from napari_neuraldiffuser import cli, cli_run
from napari_neuraldiffuser.cli_options import STAGES, settings_from
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, ParamError, Settings, SimulationParams
from tests.support.toys import TOYS, registered

RUN = ["run", "NSD", "OUT", "participant"]


def settings(*more):
    args = cli.build_parser().parse_args([*RUN, *more])
    return settings_from(args, Settings())


def test_without_options_every_parameter_has_its_default():
    assert settings() == Settings()


def test_an_option_reaches_its_field():
    got = settings("--guidance-scale", "5", "--n-steps", "10", "--no-x0-blend", "--roi", "V1", "--alphas", "1", "10")
    assert got.guidance == GuidanceParams(guidance_scale=5.0, x0_blend=False)
    assert got.diffusion == DiffusionParams(n_steps=10)
    assert got.betas.roi == "V1"
    assert got.decoding.alphas == (1.0, 10.0)


@pytest.mark.parametrize(
    "more",
    [
        ["--network-epochs", "3"],
        ["--decoder", "contrastive", "--penalty", "target"],
        ["--ridge-rank", "4", "--decoder", "network"],
    ],
)
def test_an_option_that_another_makes_meaningless_is_refused(more):
    with pytest.raises(UserError, match=r"--[a-z-]+ must stand beside --decoder \w+, got \w+\. Leave it out"):
        settings(*more)
    assert settings("--decoder", "network", "--network-epochs", "3").decoding.network_epochs == 3


def test_fewer_layers_get_equal_weights_unless_given():
    assert settings("--layers", "g02", "g08").guidance.layer_weights == (1.0, 1.0)
    assert settings("--layers", "g02", "--layer-weights", "2").guidance.layer_weights == (2.0,)
    with pytest.raises(ParamError, match="one weight per layer"):
        settings("--layer-weights", "1")


def test_a_layer_that_does_not_exist_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        settings("--layers", "g03")
    assert stop.value.code == 2
    assert "g02" in capsys.readouterr().err


def test_every_listed_option_is_a_field_and_no_two_stages_share_one():
    names = [name for cls, listed in STAGES.values() for name in listed]
    assert len(names) == len(set(names))
    for cls, listed in STAGES.values():
        assert set(listed) <= {f.name for f in fields(cls)}


def test_what_is_registered_is_a_choice_and_reaches_the_settings(capsys):
    options = "--decoder mean --rule no-pull --method even --metrics ssim brightness".split()
    with pytest.raises(SystemExit):
        settings(*options)
    assert "invalid choice: 'mean' (choose from" in capsys.readouterr().err
    with ExitStack() as stack:
        for toy in TOYS.values():
            stack.enter_context(registered(*toy))
        found = settings(*options)
        assert (found.decoding.decoder, found.guidance.rule, found.contribution.method) == ("mean", "no-pull", "even")
        assert found.evaluation.metrics == ("ssim", "brightness")
        assert cli.build_parser().parse_args(["evaluate", "A", "B", "--metrics", "brightness"]).metrics == [
            "brightness"
        ]


@pytest.mark.parametrize("command", [[], ["demo"], ["simulate"], ["run"], ["evaluate"], ["doctor"]])
def test_help_is_printed(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: neuraldiffuser" in capsys.readouterr().out


def test_doctor_finds_the_demo_models_complete(capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "MB, complete" in said
    assert "problem" not in said


def test_doctor_as_json(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "torch" in json.dumps(report)


def test_progress_in_a_log_has_counts_and_ends():
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    for done in range(0, 5):
        progress(done, 4, "images, guided step 1/2")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("images, guided step 1/2: 0/4")
    assert "4/4" in lines[-1]
    assert "\r" not in stream.getvalue()


def test_sessions_are_an_option():
    assert settings("--sessions", "1-4,7").betas.sessions == "1-4,7"


def test_own_files_beside_an_nsd_folder_are_refused(tmp_path, capsys):
    assert cli.main(["run", str(tmp_path), str(tmp_path / "out"), "participant", "--mask", "m.nii"]) == 2
    assert "--mask must stand beside a file of own betas" in capsys.readouterr().err


def test_own_scans_reach_the_source():
    own = "--mask m.nii --trials t.tsv --images i --captions c.json --anatomy a.nii --roi-volumes x.nii y.nii".split()
    args = cli.build_parser().parse_args(["run", "B.NII.GZ", "OUT", "participant", *own])
    source = cli_run.own_scans(args, ["subj03"])
    want = Source("", "subj03", "B.NII.GZ", "m.nii", "t.tsv", "i", "c.json", "a.nii", ("x.nii", "y.nii"))
    assert source == want and source.own


def test_a_further_test_set_reaches_the_source(tmp_path, capsys):
    def source(*options):
        args = cli.build_parser().parse_args(["run", "NSD", "OUT", "participant", *options])
        return cli_run.own_scans(args, ["subj03"])

    assert source() is None
    assert source("--test-set", "synthetic") == Source("NSD", "subj03", test_set="synthetic")
    beside = source("--test-set", "imagery", "--trials", "t.tsv", "--images", "i")
    assert beside == Source("NSD", "subj03", trials="t.tsv", images="i", test_set="imagery")
    run = ["run", str(tmp_path), str(tmp_path / "out"), "participant", "--test-set", "synthetic"]
    assert cli.main([*run, "--trials", "t.tsv"]) == 2
    assert "--trials must not stand beside --test-set synthetic" in capsys.readouterr().err
    assert cli.main(["simulate", str(tmp_path), "--bold", "--synthetic"]) == 2


def test_every_parameter_of_the_simulator_is_an_option():
    options = (
        "--subjects 2 --seed 3 --grid full --n-sessions 40 --n-test 1000 --train-repeats 3 --image-size 64 --noise 2 "
        "--synthetic"
    )
    args = cli.build_parser().parse_args(["simulate", "NSD", *options.split()])
    params = SimulationParams(2, 3, "full", 40, 1000, 3, 64, 2.0, True)
    assert cli.given(args, SimulationParams, cli.SIMULATION_OPTIONS) == params.to_dict()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--n-stimuli", "0"], "--n-stimuli must be at least 1"),
        (["--layers", "g02", "--layer-weights", "1", "2"], "one weight per layer"),
    ],
)
def test_what_is_wrong_with_a_demo_is_told_before_it_simulates(options, said, tmp_path, capsys):
    assert cli.main(["demo", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))
