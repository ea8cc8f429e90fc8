"""No secret of the environment reaches a file, whether a run ends well or badly."""

import secrets
import shutil

import pytest

from tests.support.session.find_text import files_with
from tests.support.session.whole_job import OPTIONS, command, new_secrets


def told(hidden, said, out):
    """Where a secret is to be seen: files of the output, the terminal."""
    where = [file for secret in hidden.values() for file in files_with(out, secret)]
    return where + [secret for secret in hidden.values() if secret in said]


def test_a_run_tells_no_secret(whole_job):
    assert (whole_job.out / "sub-01.html").is_file() and len(set(whole_job.hidden.values())) == 3
    assert told(whole_job.hidden, whole_job.said, whole_job.out) == []


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--debug"], ["--nprocs", "2"]], ids=["debug", "two processes"])
def test_a_run_that_fails_tells_no_secret(nsd_dir, model_dir, tmp_path, more):
    out, hidden = tmp_path / "out", new_secrets()
    nsd_dir = shutil.copytree(nsd_dir, tmp_path / "nsd")
    # found to be cut off when it is read, in the middle of the work
    stimuli = nsd_dir / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    stimuli.write_bytes(stimuli.read_bytes()[: stimuli.stat().st_size // 2])
    done = command(hidden, "run", nsd_dir, out, "participant", "--models", model_dir, *OPTIONS, *more)
    assert done.returncode != 0
    assert done.stdout.strip()
    assert list(out.rglob("*")), "the run must have begun"
    assert told(hidden, done.stdout, out) == []


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
