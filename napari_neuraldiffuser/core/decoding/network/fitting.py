"""From betas and targets to a trained network: what training on one subject and on several have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.files import array_digest, fingerprint
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.decoder import DecodingError, TargetFit
from napari_neuraldiffuser.core.decoding.geometry import checked_training
from napari_neuraldiffuser.core.decoding.network.basis import Basis, fit_basis, unique_rows
from napari_neuraldiffuser.core.decoding.network.data import Data, SubjectRows, subject_rows
from napari_neuraldiffuser.core.decoding.network.model import Network, Shape
from napari_neuraldiffuser.core.decoding.network.train import History, Trained, train
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import DecodingParams

FEWEST_STIMULI = 10

Subjects = Sequence[tuple[Responses, Targets]]


def check_stimuli(betas: Responses) -> np.ndarray:
    """Checked betas (n, p); DecodingError with too few stimuli to hold some out and learn from folds of the others."""
    return checked_training(betas, FEWEST_STIMULI, "Read more sessions, or decode by ridge.")


def new_network(
    subjects: Subjects, names: Sequence[str], params: DecodingParams, progress: Progress | None
) -> tuple[Network, Basis]:
    """A network that says what the principal components of these subjects' targets say."""
    import torch

    pool = [(targets, unique_rows(targets, betas.stimulus_ids)) for betas, targets in subjects]
    basis = fit_basis(pool, names, params.network_bottleneck, params.network_width, params.seed, progress)
    sizes = {name: (len(one.components), one.shape) for name, one in basis.targets.items()}
    torch.manual_seed(params.seed)
    shape = Shape(
        params.network_width, params.network_blocks, params.network_dropout, params.network_prior != "none", sizes
    )
    network = Network(shape)
    network.start(basis)
    return network, basis


def encode_subjects(
    subjects: Subjects, basis: Basis, params: DecodingParams, progress: Progress | None, first_stage: bool
) -> list[SubjectRows]:
    """Ridge encoders of all subjects, and what their training rows are when left out."""
    out = []
    for k, (betas, targets) in enumerate(subjects):
        out.append(subject_rows(betas, targets, basis, params, k, first_stage))
        if progress:
            progress(k + 1, len(subjects), "voxel encoders, ridge")
    return out


def fit_network(
    network: Network,
    basis: Basis,
    rows: Sequence[SubjectRows],
    params: DecodingParams,
    progress: Progress | None,
    frozen: bool = False,
) -> tuple[Trained, Data, History]:
    """Train a network on the rows of one or several subjects; the backbone and heads too, unless `frozen`."""
    network.requires_grad_(not frozen)
    for name in network.heads:
        network.head(name).columns.requires_grad_(params.network_basis == "trained" and not frozen)
    whole = [name for name in network.heads if params.network_basis == "trained" or (name == "z" and network.upsampler)]
    data = Data(rows, list(network.heads), whole, network.about.width, params)
    x = rows[0].x
    model = Trained(network, 0 if x is None else x.shape[1])
    made_from = fingerprint([array_digest(one.latents, one.stimulus_ids) for one in rows])
    history = train(model, data, basis.targets, params, progress, made_from)
    return model, data, history


def chosen(present: tuple[str, ...], names: Sequence[str] | None) -> tuple[str, ...]:
    """Targets to learn, in the project's order; DecodingError if one is not there."""
    unknown = sorted(set(names or ()) - set(present))
    if unknown:
        raise DecodingError(f"targets to fit must be among {present}, got {unknown}.")
    return tuple(name for name in present if names is None or name in names)


def fits_of(basis: Basis, history: History, names: Sequence[str]) -> dict[str, TargetFit]:
    """What training found for every target."""
    tried = tuple(float(k) for k in range(len(history.passes)))
    return {
        name: TargetFit(
            float(history.best),
            tried,
            tuple(one.get(name, float("nan")) for one in history.passes),
            basis.targets[name].shape,
            basis.targets[name].mean,
            "epoch",
        )
        for name in names
    }


def made_from(targets: Targets) -> dict[str, Any]:
    """What targets say of themselves, as plain values."""
    return {key: value for key, value in dict(getattr(targets, "attrs", {})).items() if isinstance(value, str)}
