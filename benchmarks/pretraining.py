"""What other subjects teach the network decoder: against ridge on a subject that it was not pretrained on.

    python benchmarks/pretraining.py [--seeds S ...] [--sessions 1 all] [--set NAME=VALUE ...] [--folder DIR] [--quick]

Every seed has four simulated subjects, whose pictures the bundled demo models encode.  The network is pretrained
on all sessions of the first three, then fitted to some sessions of the fourth, with its backbone frozen and tuned, and
decodes the fourth's test images.  Controls: the network without pretraining, and pretrained on betas whose images were
dealt out anew.  Nothing is aligned.  Standard errors are over resampled test images, and over seeds.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from common.decoded import SCORES, compared, resampled, scores
from decoders import Split, _assigned, _mean_of, decoded_by, print_table, read, subjects, true_values

from napari_neuraldiffuser.core.decoding.network.pretrain import pretrain
from napari_neuraldiffuser.core.networks.embeddings import TargetFile
from napari_neuraldiffuser.core.params import DecodingParams, SimulationParams

SAMPLES = 200
ALONE, SHUFFLED = "network, alone", "network, shuffled"


def pretrained(pool: list[tuple[Split, TargetFile]], folder: Path, params: DecodingParams) -> dict[str, Path]:
    """Folders of a network pretrained on the training betas of several subjects, and on shuffled ones."""
    true = [(split[0], targets) for split, targets in pool]
    rng = np.random.default_rng(1)
    dealt = [(replace(betas, stimulus_ids=rng.permutation(betas.stimulus_ids)), t) for betas, t in true]
    found = {}
    for name, subjects_ in (("true", true), ("shuffled", dealt)):
        found[name] = folder / name
        if not (found[name] / "network.json").is_file():
            pretrain(subjects_, found[name], params)
    return found


def arms(folders: Mapping[str, Path], params: DecodingParams) -> dict[str, DecodingParams]:
    """Params of every way to decode; ridge is the baseline."""
    out = {"ridge": params.but(decoder="ridge"), ALONE: params}
    for name, folder in folders.items():
        for backbone in ("frozen", "tuned") if name == "true" else ("tuned",):
            what = f"network, {backbone}" if name == "true" else SHUFFLED
            out[what] = params.but(network_pretrained=str(folder), network_backbone=backbone)
    return out


def measure(split: Split, targets: TargetFile, ways: Mapping[str, DecodingParams], samples: int = SAMPLES) -> dict:
    """Every score of every way for one subject, by target, with the gain over ridge."""
    train, test = split
    decoded, seconds = {}, {}
    for what, params in ways.items():
        start = time.process_time()
        decoded[what] = decoded_by(params.decoder, params, train, test, targets)
        seconds[what] = time.process_time() - start
    weights, found = resampled(len(test.stimulus_ids), samples, 0), {}
    for name in decoded["ridge"]:
        mean = true_values(targets, name, train.stimulus_ids).mean(0)
        true = true_values(targets, name, test.stimulus_ids) - mean
        found[name] = {what: scores(true, values[name] - mean, weights) for what, values in decoded.items()}
    found["g"] = _mean_of([found[name] for name in found if name.startswith("g")])
    out = {
        name: {s: compared({k: v[s] for k, v in by_way.items()}, by_way["ridge"][s]) for s in SCORES}
        for name, by_way in found.items()
    }
    return {"n_train": len(np.unique(train.stimulus_ids)), "seconds": seconds, "targets": out}


def run(args: argparse.Namespace, folder: Path) -> dict[str, list[dict]]:
    """Everything that was asked for, by sessions."""
    found: dict[str, list[dict]] = {sessions: [] for sessions in args.sessions}
    params = DecodingParams(decoder="network", **dict(map(_assigned, args.set)))
    size = {"n_sessions": 1, "n_test": 20} if args.quick else {"n_sessions": 4, "n_test": 100}
    for seed in args.seeds:
        place = folder / f"seed{seed}"
        *others, new = subjects(place, SimulationParams(seed=seed, n_subjects=args.subjects, **size))
        with ExitStack() as stack:
            opened = {name: stack.enter_context(TargetFile(place / f"{name}.h5")) for name in (*others, new)}
            pool = [(read(place, name, "all"), opened[name]) for name in others]
            ways = arms(pretrained(pool, place / "pretrained", params), params)
            for sessions in args.sessions:
                found[sessions].append(measure(read(place, new, sessions), opened[new], ways))
                print(f"seed {seed}, sessions {sessions}: done", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--quick", action="store_true", help="two small subjects, one session")
    parser.add_argument("--seeds", nargs="+", type=int, default=[101, 102, 103], help="of the simulated subjects")
    parser.add_argument("--subjects", type=int, default=4, help="subjects of each seed, the last of which is new")
    parser.add_argument("--sessions", nargs="+", default=["1", "all"], help="sessions of the new subject, 1 or 1-2")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the decoders")
    parser.add_argument("--folder", type=Path, help="keeps subjects and networks here, and takes those that are there")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.subjects, args.sessions = args.seeds[:1], 2, ["1"]
        args.set = ["network_epochs=3", "network_width=64", "network_bottleneck=64", *args.set]
    with tempfile.TemporaryDirectory() as temporary:
        found = run(args, args.folder or Path(temporary))
    print_table(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
