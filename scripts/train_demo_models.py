"""Train the demo models that ship with the package, on a machine with or without a GPU.

    python scripts/train_demo_models.py --stage all --work-dir WORK

Stages: ``data`` (draw the scenes), ``encoders`` and ``vae`` (independent of each other: run them as two processes to
use two cores), ``decoder`` (the VAE's decoder alone, its latents fixed), ``tiny`` (a small decoder that imitates it),
``unet``, ``classifier`` (a judge of samples, not shipped), ``export``, ``evaluate`` (prints the figures and writes them
into the model folder's README). Seeded and resumable: the same command again goes on from the last checkpoint, and a
longer ``--minutes`` or ``--steps`` trains on. ``--from FOLDER`` starts from the weights of an exported folder, whose
stages can then be left out; optimiser states are not in it. Progress goes to stderr.

On a GPU, steps hold 16 times as many samples. Ten minutes (prepared for an H100, not run on a GPU yet)::

    run="python scripts/train_demo_models.py --work-dir WORK --out OUT --device cuda --scenes 120000 --stage"
    $run data; $run encoders --minutes 1; $run vae --minutes 2.5; $run decoder --minutes 0.7; $run tiny --minutes 0.7
    $run unet --minutes 4; $run classifier --minutes 0.3; $run export; $run evaluate
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import torch  # noqa: E402
from demo_training import classifier, data, decoders, encoders, export, start, unet, vae  # noqa: E402
from demo_training.trainer import Budget  # noqa: E402

MODEL_FOLDER = ROOT / "napari_neuraldiffuser" / "demo_models"
LEARNED = {
    "encoders": encoders.train,
    "vae": vae.train,
    "decoder": decoders.train_decoder,
    "tiny": decoders.train_tiny,
    "unet": unet.train,
    "classifier": classifier.train,
}
DEFAULT_STEPS = {"encoders": 600, "vae": 6000, "decoder": 4000, "tiny": 6000, "unet": 20000, "classifier": 1500}
ORDER = ("data", *LEARNED, "export", "evaluate")


def parse(arguments=None):
    """The command line as a namespace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=(*ORDER, "all"), default="all")
    parser.add_argument("--work-dir", type=Path, required=True, help="holds what stages make, 40 kB a scene")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="model folder to write (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=60000, help="training scenes (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="steps of each learning stage (default: chosen per stage)")
    parser.add_argument("--minutes", type=float, help="end each learning stage after this time, resumed runs included")
    parser.add_argument(
        "--from", dest="start", type=Path, help="model folder whose weights stages without a checkpoint start from"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    return parser.parse_args(arguments)


def budget_of(options, stage):
    """A time budget alone lifts the default number of steps."""
    if options.minutes and not options.steps:
        return Budget(minutes=options.minutes)
    return Budget(options.steps or DEFAULT_STEPS[stage], options.minutes or 1e9)


def run_stage(stage, options):
    """Run one stage; the UNet's checkpoints are exported as they come, so that the folder is usable early."""
    if stage == "data":
        data.prepare(options.work_dir, options.scenes)
    elif stage in LEARNED:
        on_save = (lambda _: export.export(options.work_dir, options.out)) if stage == "unet" else None
        LEARNED[stage](options.work_dir, budget_of(options, stage), options.device, on_save)
    elif stage == "export":
        export.export(options.work_dir, options.out)
    else:
        evaluate(options)


def evaluate(options):
    """Print the figures as a table and write them into the README of the model folder."""
    from demo_training import evaluate as judge

    rows = judge.measure(options.out, options.work_dir)
    for name, value, note in rows:
        print(f"{name:55s} {value:>22s}   {note}")
    judge.write_readme(options.out, rows)


def main(arguments=None):
    """Entry point; returns the exit status."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    if options.start:
        start.start_from(options.start, options.work_dir)
    for stage in ORDER if options.stage == "all" else (options.stage,):
        print(f"stage {stage}", file=sys.stderr, flush=True)
        run_stage(stage, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
