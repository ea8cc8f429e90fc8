"""Kinds of decoders against ridge on simulated subjects: held-out correlation, R² and two-way identification.

    python benchmarks/decoders.py [--kinds K ...] [--seeds S ...] [--sessions 1 all] [--json FILE] [--quick]

Every seed has subjects of its own (`neuraldiffuser simulate`), whose pictures are encoded by the bundled demo models.
Each kind is fitted with its default parameters (`--set NAME=VALUE` changes one) to the training images of the sessions
named, and decodes the test images, which nothing was chosen with.  Controls: ridge whose columns are scaled to fit a
fifth of the training images that were held out, and every kind with its training stimuli dealt out anew ("shuffled").
Nothing is aligned.  Standard errors are over resampled test images within a subject, and over subjects.
"""

import argparse
import ast
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from common.decoded import SCORES, compared, resampled, scores

from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.base.registry import DECODERS
from napari_neuraldiffuser.core.networks import embeddings, models
from napari_neuraldiffuser.core.nsd.simulate import write_subjects
from napari_neuraldiffuser.core.params import LAYERS, BetasParams, DecodingParams, FeatureParams, SimulationParams

SAMPLES = 200
SHUFFLED, SCALED = ", shuffled", "ridge, columns scaled"
Decoded = dict[str, np.ndarray]
Split = tuple[nsd.Betas, nsd.Betas]


def subjects(folder: Path, params: SimulationParams) -> Sequence[str]:
    """Write the subjects of one seed, and the targets of all their pictures."""
    write_subjects(folder, params)
    names = [f"subj{k:02}" for k in range(1, params.n_subjects + 1)]
    loaded = models.load("demo")
    for name in names:
        subject = nsd.open_source(Source(nsd_dir=str(folder), subject=name))
        ids = np.unique(subject.betas().stimulus_ids)
        embeddings.extract(loaded, subject.stimuli, ids, folder / f"{name}.h5", FeatureParams()).close()
    return names


def read(folder: Path, name: str, sessions: str) -> Split:
    """Training and test betas of some sessions; the test images are those of all sessions, in every case."""
    source = Source(nsd_dir=str(folder), subject=name)
    train, _ = nsd.open_source(source, BetasParams(sessions=sessions)).betas().split()
    _, test = nsd.open_source(source).betas().split()
    return train, test


def flat(values: Decoded | embeddings.Embeddings) -> Decoded:
    return {name: np.asarray(values[name]).reshape(len(values[name]), -1) for name in values}


def decoded_by(kind: str, params: DecodingParams, train: nsd.Betas, test: nsd.Betas, targets) -> Decoded:
    """What a decoder of a kind decodes, as (m, T) by target."""
    decoder = decoding.new(params.but(decoder=kind)).fit(train, targets)
    return flat(decoder.predict(test, align="none"))


def scaled_ridge(params: DecodingParams, train: nsd.Betas, targets, plain: Decoded) -> Decoded:
    """Ridge with every column scaled by its regression on a fifth of the training images, left out of another fit."""
    ids = np.unique(train.stimulus_ids)
    held = np.random.default_rng(params.seed).choice(ids, len(ids) // 5, replace=False)
    left = np.isin(train.stimulus_ids, held)
    inside, outside = rows(train, ~left), rows(train, left)
    decoded = decoded_by("ridge", params, inside, outside, targets)
    out = {}
    for name, values in plain.items():
        true = true_values(targets, name, outside.stimulus_ids)
        mean = true_values(targets, name, inside.stimulus_ids).mean(0)
        a, b = decoded[name] - mean, true - mean
        slope = (a * b).sum(0) / np.maximum((a**2).sum(0), 1e-12)
        whole = true_values(targets, name, train.stimulus_ids).mean(0)
        out[name] = (values - whole) * slope + whole
    return out


def rows(betas: nsd.Betas, which: np.ndarray) -> nsd.Betas:
    """Some rows of betas."""
    per_row = {
        f.name: value[which]
        for f in fields(betas)
        if isinstance(value := getattr(betas, f.name), np.ndarray) and len(value) == len(which) and f.name != "voxels"
    }
    return replace(betas, **per_row)


def true_values(targets, name: str, ids: np.ndarray) -> np.ndarray:
    """True values (m, T) float32 of one target."""
    values = targets[name][...][embeddings.rows_of(targets.stimulus_ids, ids)]
    return values.reshape(len(ids), -1).astype(np.float32)


def measure(split: Split, targets, kinds: Sequence[str], params: DecodingParams, samples: int, deal: bool) -> dict:
    """Every score of every kind and control for one subject, by target; `deal`: with stimuli dealt out anew, too."""
    train, test = split
    shuffled = replace(train, stimulus_ids=np.random.default_rng(1).permutation(train.stimulus_ids))
    decoded, seconds = {}, {}
    for kind in kinds:
        start = time.process_time()
        decoded[kind] = decoded_by(kind, params, train, test, targets)
        seconds[kind] = time.process_time() - start
        if deal:
            decoded[kind + SHUFFLED] = decoded_by(kind, params, shuffled, test, targets)
    decoded[SCALED] = scaled_ridge(params, train, targets, decoded["ridge"])
    weights = resampled(len(test.stimulus_ids), samples, 0)
    found = {}
    for name in decoded["ridge"]:
        mean = true_values(targets, name, train.stimulus_ids).mean(0)
        true = true_values(targets, name, test.stimulus_ids) - mean
        found[name] = {kind: scores(true, values[name] - mean, weights) for kind, values in decoded.items()}
    found["g"] = _mean_of([found[name] for name in found if name.startswith("g")])
    out = {
        name: {s: compared({k: v[s] for k, v in by_kind.items()}, by_kind["ridge"][s]) for s in SCORES}
        for name, by_kind in found.items()
    }
    return {"n_train": len(np.unique(train.stimulus_ids)), "seconds": seconds, "targets": out}


def _mean_of(layers: list[dict]) -> dict:
    """Scores of every kind, mean over layers."""
    return {kind: {s: np.mean([one[kind][s] for one in layers], axis=0) for s in SCORES} for kind in layers[0]}


def over_subjects(found: list[dict], name: str, score: str, kind: str) -> dict[str, float]:
    """Mean over subjects of a score and of its gain over ridge, with standard errors over subjects."""
    values, gains = (np.array([one["targets"][name][score][kind][k] for one in found]) for k in ("value", "gain"))
    size = np.sqrt(len(found))
    within = np.sqrt(np.mean([one["targets"][name][score][kind]["gain_se"] ** 2 for one in found]) / len(found))
    spread = [float(v.std(ddof=1) / size) if len(found) > 1 else float("nan") for v in (values, gains)]
    return {
        "value": float(values.mean()),
        "se": spread[0],
        "gain": float(gains.mean()),
        "gain_se": spread[1],
        "gain_se_stimuli": float(within),
    }


def table(found: dict[str, list[dict]]) -> list[dict]:
    """A row for each number of sessions, target, score and kind."""
    out = []
    for sessions, subjects_found in found.items():
        first = subjects_found[0]["targets"]
        for name, by_score in first.items():
            for score in SCORES:
                for kind in by_score[score]:
                    row = {"sessions": sessions, "target": name, "score": score, "kind": kind}
                    out.append(row | over_subjects(subjects_found, name, score, kind))
    return out


def as_rows(found: dict[str, list[dict]]) -> list[dict]:
    """What `scripts/run_benchmarks.py` prints: the gain of each kind over ridge, spread over subjects."""
    out = []
    for line in table(found):
        if line["kind"] == "ridge":
            continue
        gains = [s["targets"][line["target"]][line["score"]][line["kind"]]["gain"] for s in found[line["sessions"]]]
        q25, median, q75 = np.percentile(gains, [25, 50, 75])
        out.append(
            {
                "benchmark": "decoders",
                "case": f"{line['target']} {line['score']}, sessions {line['sessions']}, {line['kind']}",
                "baseline": "gain over ridge",
                "ratio": {"median": float(median), "q25": float(q25), "q75": float(q75), "n": len(gains)},
                "ours": {"median": line["value"]} | line,
                "unit": "",
            }
        )
    return out


def print_table(found: dict[str, list[dict]]) -> None:
    """The table for people: value (SE over subjects), gain over ridge (SE over subjects; over stimuli).

    g is the mean over layers; the JSON file has every layer.
    """
    for line in table(found):
        if line["target"] in LAYERS:
            continue
        print(
            f"{line['sessions']:>5} {line['target']:>4} {line['score']:>6} {line['kind']:<24}"
            f"{line['value']:+.4f} ({line['se']:.4f})   gain {line['gain']:+.4f} "
            f"({line['gain_se']:.4f}; stimuli {line['gain_se_stimuli']:.4f})"
        )
    for sessions, one in found.items():
        for kind in one[0]["seconds"]:
            spent = [s["seconds"][kind] for s in one]
            print(f"sessions {sessions}: {kind} fit and predict {np.mean(spent):.1f} CPU s")


def run(args: argparse.Namespace, folder: Path) -> dict[str, list[dict]]:
    """Everything that was asked for, by sessions."""
    found: dict[str, list[dict]] = {sessions: [] for sessions in args.sessions}
    params, samples = DecodingParams(**dict(map(_assigned, args.set))), 20 if args.quick else SAMPLES
    size = {"n_sessions": 1, "n_test": 20} if args.quick else dict(map(_assigned, args.simulate))
    for seed in args.seeds:
        place = folder / f"seed{seed}"
        names = subjects(place, SimulationParams(seed=seed, n_subjects=args.subjects, **size))
        for name in names:
            with embeddings.TargetFile(place / f"{name}.h5") as targets:
                for sessions in args.sessions:
                    split = read(place, name, sessions)
                    deal = args.shuffled is None or sessions in args.shuffled
                    found[sessions].append(measure(split, targets, args.kinds, params, samples, deal))
                    print(f"seed {seed} {name}, sessions {sessions}: done", file=sys.stderr, flush=True)
    return found


def _assigned(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="one small subject, one session, under a minute")
    parser.add_argument("--kinds", nargs="+", default=list(DECODERS), choices=list(DECODERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[101, 102], help="of the simulated subjects")
    parser.add_argument("--subjects", type=int, default=3, help="subjects of each seed")
    parser.add_argument("--sessions", nargs="+", default=["1", "all"], help="sessions that are trained on, 1 or 1-2")
    parser.add_argument(
        "--shuffled", nargs="*", help="those of them with the shuffled control, which costs as much again"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the decoders")
    parser.add_argument("--simulate", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the simulation")
    parser.add_argument("--folder", type=Path, help="keeps the subjects here, and takes those that are there")
    args = parser.parse_args()
    args.kinds = list(dict.fromkeys(["ridge", *args.kinds]))
    if args.quick:
        args.seeds, args.subjects, args.sessions = args.seeds[:1], 1, ["1"]
    with tempfile.TemporaryDirectory() as temporary:
        found = run(args, args.folder or Path(temporary))
    print_table(found)
    if args.json:
        part = args.json.with_name(args.json.name + ".tmp")
        part.write_text(json.dumps(as_rows(found), indent=2) + "\n", encoding="utf-8")
        os.replace(part, args.json)


if __name__ == "__main__":
    main()
