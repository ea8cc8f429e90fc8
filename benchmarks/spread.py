"""What matching the spread of decoded targets does to guided pictures: every form against z alone, paired by stimulus.

    python benchmarks/spread.py NSD_DIR ... [--n-stimuli 60] [--repeats 2] [--rows ROW ...]

Each folder is one simulated subject (`neuraldiffuser simulate NSD_DIR --seed N`).  Its test stimuli are decoded by one
ridge decoder, aligned in the way of each row, and reconstructed by the demo preset with guidance.  A row has the mean
score, the mean difference from the first row with its standard error over the stimuli of all subjects, and the
difference of each subject.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.core import decoding, evaluation, nsd, reconstruct
from napari_neuraldiffuser.core.networks import embeddings, models
from napari_neuraldiffuser.core.params import LAYERS, TARGETS, DecodingParams, EvaluationParams, preset

FIRST = "z per column"
ROWS = {
    # row -> aligned targets, form
    FIRST: (("z",), "column"),
    "none": ((), "none"),
    "z chosen": (("z",), "auto"),
    "z, g chosen": (("z", *LAYERS), "auto"),
    "all chosen": (TARGETS, "auto"),
    "all group": (TARGETS, "group"),
    "all shrunk": (TARGETS, "shrunk"),
    "all column": (TARGETS, "column"),
}
METRICS = ("pixcorr", "ssim", "edges", "twoway_edges", "twoway_features")
Scores = dict[str, np.ndarray]


def main() -> None:
    args = parse()
    networks = models.load("demo")
    subjects = [one_subject(folder, networks, args) for folder in args.nsd_dir]
    for metric in subjects[0][FIRST]:
        print(metric)
        for row in args.rows:
            print_row(row, [one[row][metric] for one in subjects], [one[FIRST][metric] for one in subjects])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nsd_dir", type=Path, nargs="+")
    parser.add_argument("--n-stimuli", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    args = parser.parse_args()
    args.rows = [FIRST, *(row for row in args.rows if row != FIRST)]
    return args


def print_row(row: str, own: list[np.ndarray], first: list[np.ndarray]) -> None:
    d = np.concatenate(own) - np.concatenate(first)
    se = d.std(ddof=1) / np.sqrt(len(d))
    of_each = " ".join(f"{(a - b).mean():+.4f}" for a, b in zip(own, first, strict=True))
    ratio = f"{d.mean() / se:+.1f} SE" if se else ""
    print(f"  {row:13s} {np.concatenate(own).mean():.4f}  {d.mean():+.4f} ({se:.4f}) {ratio:9s} {of_each}", flush=True)


def one_subject(folder: Path, networks: models.Models, args: argparse.Namespace) -> dict[str, Scores]:
    """Scores of every test stimulus, mean over repeats, by row and metric."""
    subject, progress = nsd.Subject(folder, "subj01"), ConsoleProgress()
    train, test = subject.betas().split()
    test = test.subset(test.stimulus_ids[: args.n_stimuli])
    with embeddings.extract(
        networks, subject.stimuli, train.stimulus_ids, folder / "spread.h5", progress=progress
    ) as rows:
        decoder = decoding.RidgeDecoder().fit(train, rows)
        for name, fit in decoder.accuracy.items():
            print_choice(f"{folder.name} {name}", name, fit)
        decoded = {row: as_in(decoder, *ROWS[row]).predict(test) for row in args.rows}
    seen = subject.stimuli[test.stimulus_ids]
    return {row: guided_scores(values, networks, seen, args.repeats) for row, values in decoded.items()}


def print_choice(where: str, name: str, fit: decoding.TargetFit) -> None:
    stats = fit.alignment
    distance = " ".join(f"{value:.4f}" for value in stats.distance)
    print(f"{where}: R2 {fit.best_r2:.3f} identified {stats.identified:.3f} distance {distance} {stats.said(name)}")


def as_in(decoder: decoding.RidgeDecoder, targets: tuple[str, ...], form: str) -> decoding.RidgeDecoder:
    """The decoder with other targets aligned, and in another form."""
    changes = {"align_targets": targets} if targets else {"align": "none"}
    other = decoding.RidgeDecoder(DecodingParams(**changes))
    fits = {
        name: fit if form == "auto" else replace(fit, alignment=replace(fit.alignment, form=form))
        for name, fit in decoder.accuracy.items()
    }
    vars(other).update({**vars(decoder), "params": other.params, "accuracy": fits})
    return other


def guided_scores(decoded: embeddings.Embeddings, networks: models.Models, seen: np.ndarray, repeats: int) -> Scores:
    """Scores of pictures guided by the demo preset, (n,) each."""
    diffusion, guidance = preset("demo")
    images = reconstruct(decoded, networks, diffusion.but(repeats=repeats), guidance).images
    encoder = {"demo": networks.image_features}
    scores = evaluation.evaluate(images, seen, encoder, EvaluationParams(metrics=METRICS))
    return {metric: scores.per_stimulus(metric) for metric in scores.values}


if __name__ == "__main__":
    main()
