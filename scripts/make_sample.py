"""Makes napari_neuraldiffuser/sample_result, a part of the demo's output folder, for File > Open Sample.

    python scripts/make_sample.py [DEMO_OUTPUT]

Runs the demo first where DEMO_OUTPUT (default: demo_output) has no finished run.  Maps and tables are those of the
whole run; the images are those of its first test stimuli.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from napari_neuraldiffuser.core.base.files import read_json, write_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.base.registry import TARGETS
from napari_neuraldiffuser.core.diffusion.pipeline import decode_start
from napari_neuraldiffuser.core.job.images import LATENTS, LOSSES
from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.nsd import Subject
from napari_neuraldiffuser.core.outputs.anatomy import write_anatomy, write_shown

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "napari_neuraldiffuser" / "sample_result"
SUBJECT = "subj01"
N_STIMULI = 5
MOST_BYTES = 1_200_000


def main() -> int:
    """Make the sample beside the old one, and take its place when it is complete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo_output", nargs="?", type=Path, default=ROOT / "demo_output")
    demo = parser.parse_args().demo_output
    if not Derivatives(demo, SUBJECT).page.is_file():
        subprocess.run([sys.executable, "-m", "napari_neuraldiffuser.cli", "demo", str(demo)], check=True)
    with tempfile.TemporaryDirectory(dir=SAMPLE.parent, prefix=".sample-") as folder:
        made = Path(folder) / "made"
        make(demo, made)
        size = sum(f.stat().st_size for f in made.rglob("*") if f.is_file())
        if size > MOST_BYTES:
            sys.exit(f"the sample must have at most {MOST_BYTES} bytes, got {size}: lower N_STIMULI")
        shutil.rmtree(SAMPLE, ignore_errors=True)
        made.rename(SAMPLE)
    print(f"{SAMPLE}: {size / 1e3:.0f} kB")
    return 0


def make(demo: Path, folder: Path) -> None:
    """Write the sample of a finished demo."""
    whole, part = Derivatives(demo, SUBJECT), Derivatives(folder, SUBJECT)
    part.recon.mkdir(parents=True)
    decoded = Embeddings.load(whole.embeddings)
    ids = [int(s) for s in decoded.stimulus_ids[:N_STIMULI]]
    repeats = read_json(whole.recon_sidecar)["DiffusionParams"]["repeats"]
    files = [whole.contribution_table, whole.scores, whole.summary, *(whole.contribution(t) for t in TARGETS)]
    files += [whole.image(s, r, arm) for s in ids for r in range(1, repeats + 1) for arm in ARMS]
    for file in (demo / "dataset_description.json", *files):
        shutil.copyfile(file, folder / file.relative_to(demo))
    write_json(part.recon_sidecar, sidecar(read_json(whole.recon_sidecar), ids))
    subject = Subject(demo / "nsd", SUBJECT)
    write_anatomy(subject, part)
    write_shown(part, ids, subject.stimuli[ids], decode_start(decoded.subset(ids).z, models.load("demo")))


def sidecar(whole: dict, ids: list[int]) -> dict:
    """The run's sidecar with what it tells of the stimuli that are shown."""
    arms = {}
    for arm, told in whole["Arms"].items():
        own = {what: {s: v for s, v in told.get(what, {}).items() if int(s) in ids} for what in (LOSSES, LATENTS)}
        arms[arm] = {**told, **own}
    return {**whole, "Arms": arms}


if __name__ == "__main__":
    sys.exit(main())
