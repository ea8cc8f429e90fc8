"""One whole run through the command line, participant and group, which several tests look at."""

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

OPTIONS = "--guidance demo --n-stimuli 3 --repeats 2 --n-steps 6 --batch-size 2".split()
SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOME_SERVICE_PASSWORD")


@dataclass(frozen=True)
class WholeJob:
    """`out` of the finished run, the secrets that its environment had, and what its terminal showed."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def hidden(self) -> dict[str, str]:
        return json.loads((self.folder / "secrets.json").read_text())

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()


def new_secrets() -> dict[str, str]:
    """One random secret for each name."""
    return {name: secrets.token_hex(16) for name in SECRETS}


def command(hidden, *arguments) -> subprocess.CompletedProcess:
    """The command line in a process whose environment has the secrets; stdout and stderr are one text."""
    environment = {**os.environ, **hidden, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "napari_neuraldiffuser.cli", *map(str, arguments)]
    return subprocess.run(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_whole_job(folder: Path, nsd_dir: Path, model_dir: Path) -> None:
    """Fill `folder` with what `WholeJob` shows."""
    folder.mkdir()
    hidden, out, said = new_secrets(), folder / "out", ""
    for more in (["participant", "--models", model_dir, *OPTIONS], ["group"]):
        done = command(hidden, "run", nsd_dir, out, *more)
        assert done.returncode == 0, done.stdout
        said += done.stdout
    (folder / "secrets.json").write_text(json.dumps(hidden))
    (folder / "said.txt").write_text(said)
