"""Choose guidance settings on training stimuli only.

Fits the decoder on nine tenths of the training images, decodes the rest, reconstructs some of them under every
combination of the given values and prints the scores of each against the run without guidance.  The test set is not
read.

    python scripts/choose_guidance.py NSD_DIR WORK_DIR --guidance-scale 3 10 30 --guidance-strength 0.2 0.5
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.core import decoding, evaluation, nsd, reconstruct
from napari_neuraldiffuser.core.evaluation.metric import main_figures
from napari_neuraldiffuser.core.job.scores import score as score_images
from napari_neuraldiffuser.core.networks import embeddings, models
from napari_neuraldiffuser.core.params import DecodingParams, EvaluationParams, preset

GRID = ("guidance_scale", "guidance_strength", "cfg_scale", "strength", "n_steps", "align")


def main() -> None:
    args = parse()
    models_in = models.load(args.models)
    held_out, fit_on = split_training(args)
    targets = extract(args, models_in, fit_on, held_out)
    seen = nsd.Subject(args.nsd_dir, args.subject).stimuli[held_out.stimulus_ids]
    decoder = decoding.RidgeDecoder().fit(fit_on, targets, progress=ConsoleProgress())
    baselines: dict = {}
    for k, values in enumerate(itertools.product(*(getattr(args, name) for name in GRID))):
        row = dict(zip(GRID, values, strict=True))
        scores = both_arms(row, decoder.predict(held_out, align=row["align"]), models_in, seen, baselines, args.repeats)
        print_row(row, evaluation.summarise(scores), header=k == 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nsd_dir", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--subject", default="subj01")
    parser.add_argument("--models", default="demo")
    parser.add_argument("--n-stimuli", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    diffusion, guidance = preset("demo")
    defaults = {**diffusion.to_dict(), **guidance.to_dict(), "align": DecodingParams().align}
    for name in GRID:
        kind = type(defaults[name])
        parser.add_argument("--" + name.replace("_", "-"), type=kind, nargs="+", default=[defaults[name]])
    return parser.parse_args()


def split_training(args):
    """Held-out tenth (the first `n_stimuli` of it) and the rest of the training rows."""
    train, _ = nsd.Subject(args.nsd_dir, args.subject).betas().split()
    order = np.random.default_rng(0).permutation(train.stimulus_ids)
    tenth = len(order) // 10
    return train.subset(order[: min(tenth, args.n_stimuli)]), train.subset(np.sort(order[tenth:]))


def extract(args, models_in, fit_on, held_out):
    stimuli = nsd.Subject(args.nsd_dir, args.subject).stimuli
    path = args.work_dir / "choose_targets.h5"
    return embeddings.extract(models_in, stimuli, fit_on.stimulus_ids, path, progress=ConsoleProgress())


def both_arms(row, decoded, models_in, seen, baselines, repeats):
    """Scores of both arms; the arm without guidance is computed once per diffusion setting."""
    diffusion, guidance = preset("demo")
    diffusion = diffusion.but(**{k: row[k] for k in ("cfg_scale", "strength", "n_steps")}, repeats=repeats)
    guidance = guidance.but(**{k: row[k] for k in ("guidance_scale", "guidance_strength")})
    key = (diffusion, row["align"])
    if key not in baselines:
        baselines[key] = score(decoded, models_in, diffusion, guidance.but(guidance_scale=0.0), seen)
    return {"unguided": baselines[key], "guided": score(decoded, models_in, diffusion, guidance, seen)}


def score(decoded, models_in, diffusion, guidance, seen):
    """Scores by the protocol that the test set is scored by."""
    images = reconstruct(decoded, models_in, diffusion, guidance).images
    return score_images(images, seen, models_in, EvaluationParams(), ConsoleProgress())


def print_row(row, summary, header) -> None:
    cells, columns = [str(v) for v in row.values()], main_figures(list(summary["paired"]))
    if header:
        print("\t".join([*GRID, *(f"{c} (difference, SE, worse)" for c in columns)]), flush=True)
    for c in columns:
        d = summary["paired"][c]
        means = [summary["arms"][arm][c]["mean"] for arm in ("unguided", "guided")]
        cells.append(f"{means[0]:.3f}>{means[1]:.3f} ({d['mean']:+.3f}, {d['se']:.3f}, {d['worse']:.0%})")
    print("\t".join(cells), flush=True)
    print(json.dumps({**row, "paired": summary["paired"]}), file=sys.stderr)


if __name__ == "__main__":
    main()
