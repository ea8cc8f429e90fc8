"""Crash files of Nipype told in a few lines, whatever engine wrote them."""

import os
import re
from types import SimpleNamespace

import pytest

from nipype_interfaces.engines.labels import NodeLabel
from nipype_interfaces.running import crash
from nipype_interfaces.running.crash import Failure, last_error
from nipype_interfaces.running.run import run
from tests.support.workflows.small_workflows import fails, map_node, node, ok, workflow


def failing(tmp_path, what):
    """The failure of a node that fails as `what` says."""
    outcome = run(workflow(tmp_path, node(ok, "first", x=what), node(fails, "fit"), chain=True))
    (failure,) = outcome.failures
    return failure, outcome


def test_a_library_error_is_told_with_node_error_inputs_and_file(tmp_path, capsys):
    failure, outcome = failing(tmp_path, "library")
    assert str(failure.label) == "sub-01 fit"
    assert failure.error == "ValueError: first line second line"
    assert not failure.user_error
    assert failure.inputs["x"] == "library"
    text = outcome.report()
    assert text.startswith("1 node failed (2 nodes: 1 run, 0 cached, 1 failed; ")
    assert "sub-01 fit\n  error   ValueError: first line second line\n" in text
    assert "inputs  x=library\n" in text
    assert f"report  {failure.file}\n" in text
    assert text.endswith("the same command continues: finished nodes are kept.")
    crash_text = failure.file.read_text()
    assert "Node: wf.sub_01_wf.fit" in crash_text and "Traceback" in crash_text


def test_the_error_that_is_shown_is_the_last_of_a_chain(tmp_path):
    assert failing(tmp_path, "chained")[0].error == "RuntimeError: cannot go on"


def test_an_error_of_ours_says_by_itself_what_to_do(tmp_path):
    failure, outcome = failing(tmp_path, "user")
    assert failure.user_error
    assert outcome.user_errors() == ["x must be 1, got user. Give 1."]
    assert outcome.report() == ""


@pytest.mark.parametrize("plugin", ["Linear", pytest.param("MultiProc", marks=pytest.mark.slow)])
def test_items_of_a_mapnode_are_told_with_their_stimuli(tmp_path, plugin):
    wf = workflow(tmp_path, map_node(fails, "recon", ["x", "stimulus_ids"]))
    recon = wf.get_node("sub_01_wf.recon")
    recon.inputs.trait_set(x=[1, "library", "library", "disk", 1], stimulus_ids=[[1], [3, 4], [5], [6, 7], [8]])
    outcome = run(wf, plugin, {"n_procs": 2} if plugin == "MultiProc" else None)
    assert [(f.label.item, f.error, f.stimuli) for f in sorted(outcome.failures, key=lambda f: f.label.item)] == [
        (1, "ValueError: first line second line", [3, 4]),
        (2, "ValueError: first line second line", [5]),
        (3, "OSError: [Errno 28] No space left on device", [6, 7]),
    ]
    text = outcome.report()
    assert "sub-01 recon, parts 2, 3 (stimuli 3, 4, 5)\n" in text
    assert "sub-01 recon, part 4 (stimuli 6, 7)\n" in text
    assert f"hint    the disk of {tmp_path} is full (" in text


HEADER = "Node: wf.fit\nWorking directory: {folder}\n\nNode inputs:\n\n"
INPUTS = "function_str = def f(x):\n\n    return x\n\nx = 1\ny = [1, 2]\n\n"
BEGIN = "Traceback (most recent call last):\n  File x\n"


def crash_file(tmp_path, rest):
    folder = tmp_path / "wf" / "sub_01_wf" / "fit"
    folder.mkdir(parents=True)
    path = tmp_path / "crash-1.txt"
    path.write_text(HEADER.format(folder=folder) + INPUTS + rest)
    return path


def test_a_message_without_a_traceback_is_told_whole(tmp_path):
    message = "worker of node wf.fit was killed by signal 9: most often out of memory;\nnode asked for mem_gb=0.2"
    (failure,) = crash.read_crash(crash_file(tmp_path, message), tmp_path / "wf")
    assert failure.error == message.replace("\n", " ")
    assert failure.inputs == {"x": 1, "y": [1, 2], "function_str": "def f(x):"}
    assert failure.hint.startswith("the process was killed, most often because memory ran out")


@pytest.mark.parametrize("inputs", [b"", b"not gzip", None])
def test_inputs_that_cannot_be_read_do_not_spoil_the_report(tmp_path, inputs):
    path = crash_file(tmp_path, f"{BEGIN}KeyError: 'a'\n")
    if inputs is not None:
        (tmp_path / "wf" / "sub_01_wf" / "fit" / "_inputs.pklz").write_bytes(inputs)
    (failure,) = crash.read_crash(path, tmp_path / "wf")
    assert (failure.error, failure.inputs["x"]) == ("KeyError: 'a'", 1)


@pytest.mark.parametrize("text", ["", "nonsense", "Node: a\n", "Working directory: \n\nNode inputs:\n"])
def test_a_damaged_crash_file_is_still_a_failure(tmp_path, text):
    (tmp_path / "crash-1.txt").write_text(text)
    (failure,) = crash.read_crash(tmp_path / "crash-1.txt", tmp_path)
    assert "report" in crash.report([failure])


def test_a_failure_without_a_crash_file_is_told_with_what_the_engine_said(tmp_path):
    error = RuntimeError(f"{BEGIN}OSError: [Errno 28] No space left on device")
    (failure,) = crash.collect(tmp_path / "crash", tmp_path / "wf", [str(tmp_path / "wf" / "fit")], error)
    assert str(failure.label) == "fit"
    assert re.match(r"the disk of .* is full \([\d,]+ bytes free", failure.hint)
    assert "no crash report could be written" in crash.report([failure])


def test_the_fuller_disk_is_named(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out"
    for folder in (work / "crash", out):
        folder.mkdir(parents=True)
    free = {str(work): 7, str(out): 5}
    monkeypatch.setattr(crash.shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(str(path), 1000)))

    def hint(message, **inputs):
        return Failure(NodeLabel("", "n", None, "n"), message, "OSError", inputs, work / "crash" / "c.txt").hint

    full = "[Errno 28] No space left on device"
    assert hint(full).startswith(f"the disk of {work} is full (7 bytes free")
    assert hint(full, out_dir=str(out)).startswith(f"the disk of {out} is full (5 bytes free")
    assert hint(f"{full}: '{work}/x.h5'", out_dir=str(out)).startswith(f"the disk of {work} is full (7 bytes free")


def test_the_newest_crash_file_of_a_node_counts(tmp_path):
    folder = tmp_path / "wf" / "fit"
    for k, name in enumerate(["Old", "New", "Other"]):
        path = tmp_path / f"crash-{k}.txt"
        where = folder if name != "Other" else tmp_path / "wf" / "other"
        path.write_text(f"Working directory: {where}\n{BEGIN}{name}Error: {name}\n")
        os.utime(path, (k, k))
    (failure,) = crash.collect(tmp_path, tmp_path / "wf", [str(folder)], None)
    assert failure.error == "NewError: New"
    # those of earlier runs do not: the node fails in another way now, and nothing could be written of it
    (failure,) = crash.collect(tmp_path, tmp_path / "wf", [str(folder)], OSError("full"), crash.files(tmp_path))
    assert failure.message == "full" and failure.file is None


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "the GPU's memory is full"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8. GiB", "memory is full"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "CUDA does not work there"),
        ("AssertionError: Torch not compiled with CUDA enabled", "CUDA does not work there"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/x'", "a file is missing"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "a file or folder must not be read"),
        ("OSError: [Errno 28] No space left on device", "the disk of "),
        ("OSError: [Errno 122] Disk quota exceeded", "the disk of "),
        ("OSError: Unable to synchronously write data (file write failed: errno = 28, error message", "the disk of "),
        (
            "ImportError: libtorch_cpu.so: cannot open shared object file: No such file or directory",
            "a library is miss",
        ),
        ("ImportError: libmkl.so: failed to map segment from shared object", "a library does not fit into the memory"),
        ("ModuleNotFoundError: No module named 'h5py'", "a library is missing"),
        ("concurrent.futures.process.BrokenProcessPool: A process was terminated abruptly", "the process was killed"),
        ("job 12 ended with state TIMEOUT", "the batch system's time limit"),
        ("job 12 ended with state OUT_OF_MEMORY", "memory is full"),
        ("ZeroDivisionError: division by zero", "nothing that a usual remedy is known for"),
    ],
)
def test_hints_by_kind(error, hint):
    assert Failure(NodeLabel("sub-01", "fit", None, "fit"), error).hint.startswith(hint)


def test_a_killed_worker_is_explained_but_no_bad_input(tmp_path):
    message = "the worker of node _recon1 (process 7) was killed by signal 9 (SIGKILL). Most often memory ran out."
    path = crash_file(tmp_path, f"nipype_interfaces.engines.multiproc.WorkerDied: {message}\n")
    (failure,) = crash.read_crash(path, tmp_path / "wf")
    assert (failure.message, failure.explained, failure.user_error) == (message, True, False)
    text = crash.report([failure])
    assert f"  error   {message}\n".split(" Most")[0] in text and "hint" not in text


def test_last_error_of_tracebacks():
    assert last_error(f"{BEGIN}    code\na.b.CError: m: n\n") == ("a.b.CError", "m: n")
    assert last_error(f"{BEGIN}KeyboardInterrupt\n") == ("KeyboardInterrupt", "")
    tail = "\n\nDuring the creation of this crashfile triggered by the above exception,\nanother one occurred:\n\nX."
    assert last_error(f"{BEGIN}ValueError: a{tail}") == ("ValueError", "a")
    assert last_error("") == ("", "")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("napari_neuraldiffuser.core.base.errors.UserError", True),
        ("napari_neuraldiffuser.core.params.ParamError", True),
        ("nipype_interfaces.engines.choice.EngineError", True),
        ("ValueError", False),
        ("napari_neuraldiffuser.core.params.Settings", False),
        ("napari_neuraldiffuser.core.gone.GoneError", False),
        ("napari_neuraldiffuser.core.params.GoneError", False),
        ("os.error", False),
        ("", False),
    ],
)
def test_which_errors_a_user_can_mend(kind, expected):
    assert crash.is_user_error(kind) is expected


def test_many_failures_are_short():
    failures = [Failure(NodeLabel("sub-01", f"n{k}", None, f"n{k}"), "ValueError: x" * 40) for k in range(40)]
    text = crash.report(failures)
    assert text.startswith("40 nodes failed.")
    assert text.count("  inputs  ") == crash.SHOWN
    assert len(text.splitlines()) < 150


def test_no_environment_reaches_a_crash_file_or_the_report(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cret-in-the-environment")
    failure, outcome = failing(tmp_path, "library")
    assert "s3cret" not in failure.file.read_text() + outcome.report()
    assert all(b"s3cret" not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".pklz")


def test_one_cause_of_several_nodes_is_told_once():
    """SLURM refuses the jobs of all nodes alike, in messages that name the node."""
    kind, wrong = "nipype_interfaces.slurm.commands.SlurmJobError", "no job could be submitted: invalid partition."
    labels = [NodeLabel("sub-01", name, None, name) for name in ("load", "fit", "draw")]
    failures = [Failure(label, f"{label}: {wrong}", kind) for label in labels]
    text = crash.report([*failures, Failure(NodeLabel("sub-01", "map", None, "map"), "map: another reason.", kind)])
    assert text.count("invalid partition") == 1 and "another reason" in text
    assert text.count("the same as sub-01 load") == 2
