"""The sdist and the wheel built from it with what this machine has, made once for all tests of the package."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.support.build_help import PACKAGE, copy_sources, environment
from tests.support.session.shared import shared


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """Folder of the sdist, and of the wheel built from it."""

    def build(folder):
        source = copy_sources(folder / "source")
        (source / PACKAGE / "napari.yaml").unlink(missing_ok=True)  # the build has to make it
        env = environment(folder, NEURALDIFFUSER_STRICT="1")
        env["PATH"] = os.environ.get("PATH", os.defpath)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), "."]
        done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]

    return shared(tmp_path_factory, "dist", build) / "dist"


@pytest.fixture(scope="session")
def site(dist, tmp_path_factory):
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(next(dist.glob("*.whl"))).extractall(folder)
    return folder
