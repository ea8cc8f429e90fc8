"""How commands end where nobody reads what they print, and where the machine lacks something."""

import os
import shutil
import subprocess
import sys

import pytest

from napari_neuraldiffuser import cli
from tests.support import ROOT
from tests.support.output_tree import vouch_all, write_subject


@pytest.fixture(scope="module")
def group_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("group") / "out"
    write_subject(out)
    return vouch_all(out)


def unread(*arguments, streams=("stdout",), unbuffered=""):
    """Run a command with streams into a pipe that has no reader; its status, and what it said on the others."""
    reader, writer = os.pipe()
    os.close(reader)
    kept = {name: writer if name in streams else subprocess.PIPE for name in ("stdout", "stderr")}
    command = [sys.executable, "-m", "napari_neuraldiffuser.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, **kept, text=True, env=environment)
    os.close(writer)
    return done.returncode, done.stdout or "", done.stderr or ""


COMMANDS = {
    "--help": lambda out, nsd: ["--help"],
    "help of run": lambda out, nsd: ["run", "--help"],
    "--version": lambda out, nsd: ["--version"],
    "doctor": lambda out, nsd: ["doctor"],
    "doctor as JSON": lambda out, nsd: ["doctor", "--json"],
    "evaluate": lambda out, nsd: ["evaluate", out.parent / "made", out.parent / "seen", "--json"],
    "group": lambda out, nsd: ["run", out, out, "group"],
    "dry run": lambda out, nsd: ["run", nsd, out / "dry", "participant", "--dry-run"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_nobody_reads_is_no_error_of_ours(group_dir, nsd_dir, name, tmp_path):
    out = shutil.copytree(group_dir, tmp_path / "out")
    for folder in ("made", "seen"):
        (tmp_path / folder).mkdir()
        for path in (out / "sub-01/recon").glob("*_desc-seen_recon.png"):
            shutil.copy(path, tmp_path / folder / f"{path.name.split('_')[1]}.png")
    status, _, said = unread(*COMMANDS[name](out, nsd_dir))
    # argparse says nothing of help that it could not print
    assert status == cli.READER_GONE or ("help" in name and status == 0)
    assert "Traceback" not in said and "BrokenPipe" not in said and "Exception ignored" not in said
    assert name != "group" or (out / "group.html").is_file()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams", [("stdout", "stderr"), ("stderr",)])
def test_progress_that_nobody_reads_does_not_stop_the_work(group_dir, tmp_path, streams, unbuffered):
    out = shutil.copytree(group_dir, tmp_path / "out")
    status, printed, _ = unread("run", out, out, "group", streams=streams, unbuffered=unbuffered)
    assert (out / "group.html").is_file() and (out / "group_contribution.json").is_file()
    if "stdout" in streams:
        assert status == cli.READER_GONE
    else:
        assert status == 0 and len(printed.splitlines()) == 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 8 GiB"), "memory is full"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "does not fit into the memory"),
        (OSError("libcudart.so.12: cannot open shared object file: No such file or directory"), "a library is missing"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "CUDA does not work"),
        (OSError(28, "No space left on device", "/x.h5"), "the disk of /x.h5 is full ("),
        (OSError("Unable to write (errno = 28, error message = 'No space left on device')"), " is full ("),
    ],
)
def test_what_the_machine_lacks_is_a_sentence(monkeypatch, capsys, error, said):
    def fails(*args):
        raise error

    monkeypatch.setattr("napari_neuraldiffuser.doctor.doctor", fails)
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown and shown.count("\n") == 1
    with pytest.raises(type(error)):
        cli.main(["doctor", "--debug"])


@pytest.mark.parametrize(
    "error", [KeyError("a"), ValueError("killed"), TimeoutError("x"), FileNotFoundError(2, "no", "x")]
)
def test_a_bug_shows_itself(monkeypatch, error):
    def fails(*args):
        raise error

    monkeypatch.setattr("napari_neuraldiffuser.doctor.doctor", fails)
    with pytest.raises(type(error)):
        cli.main(["doctor"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_standard_output_is_named_as_that(unbuffered):
    command = [sys.executable, "-m", "napari_neuraldiffuser.cli", "doctor", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert done.returncode == 1
    assert "standard output goes to a full disk" in done.stderr and done.stderr.count("\n") == 1
