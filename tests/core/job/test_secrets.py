"""No secret of the environment reaches a file, whether a run ends well or badly."""

import os
import secrets
import shutil
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.find_text import files_with

pytestmark = pytest.mark.slow

NAMES = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOME_SERVICE_PASSWORD")
OPTIONS = "--guidance demo --n-stimuli 3 --repeats 2 --n-steps 4 --batch-size 2".split()


@pytest.fixture(scope="module")
def hidden():
    """One random secret for each name."""
    return {name: secrets.token_hex(16) for name in NAMES}


def run(hidden, *command):
    environment = {**os.environ, **hidden, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "napari_neuraldiffuser.cli", *map(str, command)]
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=500)


def told(hidden, done, out):
    """Where a secret is to be seen: files of the output, the terminal."""
    where = [file for secret in hidden.values() for file in files_with(out, secret)]
    return where + [secret for secret in hidden.values() if secret in done.stdout + done.stderr]


def test_a_run_tells_no_secret(hidden, nsd_dir, model_dir, tmp_path):
    out = tmp_path / "out"
    done = run(hidden, "run", nsd_dir, out, "participant", "--models", model_dir, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert (out / "sub-01.html").is_file()
    assert told(hidden, done, out) == []
    done = run(hidden, "run", nsd_dir, out, "group")
    assert done.returncode == 0, done.stderr
    assert told(hidden, done, out) == []


@pytest.mark.parametrize("more", [["--debug"], ["--nprocs", "2"]], ids=["debug", "two processes"])
def test_a_run_that_fails_tells_no_secret(hidden, nsd_dir, model_dir, tmp_path, more):
    out = tmp_path / "out"
    nsd_dir = shutil.copytree(nsd_dir, tmp_path / "nsd")
    # found to be cut off when it is read, in the middle of the work
    stimuli = nsd_dir / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    stimuli.write_bytes(stimuli.read_bytes()[: stimuli.stat().st_size // 2])
    done = run(hidden, "run", nsd_dir, out, "participant", "--models", model_dir, *OPTIONS, *more)
    assert done.returncode != 0
    assert done.stderr.strip()
    assert list(out.rglob("*")), "the run must have begun"
    assert told(hidden, done, out) == []


def test_the_search_sees_through_compression(tmp_path):
    import gzip
    import pickle

    import h5py

    secret = secrets.token_hex(16)
    (tmp_path / "plain.json").write_text(f'{{"x": "{secret}"}}')
    (tmp_path / "result.pklz").write_bytes(gzip.compress(pickle.dumps({"environ": {"A": secret}})))
    with h5py.File(tmp_path / "values.h5", "w") as file:
        file.create_dataset("x", data=[secret.encode()] * 50, compression="gzip")
    with h5py.File(tmp_path / "attributes.h5", "w") as file:
        file.create_group("g").attrs["token"] = secret
    (tmp_path / secret).mkdir()
    (tmp_path / "other.json").write_text(secret[:-1])
    found = {"plain.json", "result.pklz", "values.h5", "attributes.h5", secret}
    assert set(files_with(tmp_path, secret)) == found
