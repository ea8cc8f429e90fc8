"""`neuraldiffuser pretrain`: from other subjects' scans to the network that a new subject's decoder starts from."""

import argparse
from dataclasses import fields
from pathlib import Path

from napari_neuraldiffuser.cli_options import STAGES, add_params, given
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.cli_run import Commands, command
from napari_neuraldiffuser.core.base.names import nsd_name
from napari_neuraldiffuser.core.params import BetasParams, DecodingParams, FeatureParams, Settings
from napari_neuraldiffuser.core.params.network import NetworkParams

FEATURES = ("feature_normalisation", "antialias", "z_resize", "z_target", "z_seed")
BETAS = tuple(name for name in STAGES["betas"][1] if not name.startswith("held_out"))
NOT_HERE = ("network_pretrained", "network_backbone", "network_encoder", "network_folder")
"""Parameters of the second stage, and the folder, which is the argument."""
NETWORK = ("alphas", "seed", *(f.name for f in fields(NetworkParams) if f.name not in NOT_HERE))


def add_pretrain(commands: Commands) -> None:
    """Add the command `pretrain`."""
    about = "train a network decoder on other subjects of an NSD folder, for run --decoder network"
    parser = command(commands, "pretrain", pretrain, about)
    parser.add_argument("nsd_dir", type=Path, help="NSD folder")
    parser.add_argument("folder", type=Path, help="gets the network; give it to run as --network-pretrained")
    parser.add_argument("--participant-label", nargs="+", required=True, help="the subjects that it is trained on")
    parser.add_argument("--models", default="demo", help="model folder, hub id or demo (default: %(default)s)")
    parser.add_argument("--guide", help="CLIP vision model, where the model folder has no image_encoder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="target embeddings; a run's may be shared (default: FOLDER/work)")
    for cls, names in ((BetasParams, BETAS), (FeatureParams, FEATURES), (DecodingParams, NETWORK)):
        add_params(parser, cls, names)


def pretrain(args: argparse.Namespace) -> int:
    """Train the network, and say where it is."""
    from napari_neuraldiffuser.core.base.recipe import Source
    from napari_neuraldiffuser.core.job.pretraining import Pretraining, pretrain_network

    kind = "cuda" if args.device.startswith("cuda") else "cpu"
    settings = Settings(
        betas=BetasParams(**given(args, BetasParams, BETAS)),
        features=FeatureParams(**given(args, FeatureParams, FEATURES)),
        decoding=DecodingParams(decoder="network", decoder_device=kind, **given(args, DecodingParams, NETWORK)),
    )
    sources = tuple(Source(nsd_dir=str(args.nsd_dir), subject=nsd_name(label)) for label in args.participant_label)
    job = Pretraining(sources, args.folder, settings, args.models, args.guide, args.device, args.work_dir)
    progress = ConsoleProgress()
    folder = pretrain_network(job, progress)
    progress.close()
    print(folder)
    return 0
