"""The first stage: one network for several subjects, whose backbone and heads a new subject takes over."""

from collections.abc import Sequence
from pathlib import Path

from napari_neuraldiffuser.core.base.files import make_folder
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.network import fitting, processes
from napari_neuraldiffuser.core.decoding.network.files import CHECKPOINT
from napari_neuraldiffuser.core.decoding.network.folder import MADE_FROM, Pretrained
from napari_neuraldiffuser.core.decoding.targets import target_names
from napari_neuraldiffuser.core.params import DecodingParams


def pretrain(
    subjects: fitting.Subjects,
    folder: str | Path,
    params: DecodingParams | None = None,
    progress: Progress | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Train a network on several subjects and write it to a folder that `network_pretrained` names.

    A killed call goes on from its last pass when it is made again with the same arguments, and gives the same weights.
    Under `accelerate launch` it trains on several GPUs, each with its share of every batch.

    Parameters
    ----------
    subjects : sequence of (Betas, Targets)
        Training betas (n, p) of every subject, and targets of at least their stimuli; several may share one file.
    folder : path
        Gets network.safetensors, network.json and the TensorBoard log; while it trains, the checkpoint.
    params : DecodingParams, optional
        Their `network_` fields and `alphas` and `seed`.
    progress : callable, optional
        Called as progress(done, total, what).
    names : sequence of str, optional
        Targets that are learned, all that the first subject has where None.

    Raises
    ------
    DecodingError
        If there is no subject, targets differ in shape or in what they were made from, a value is not finite, or a
        subject has too few stimuli.
    """
    params = (params or DecodingParams()).but(network_folder=str(make_folder(folder)), decoder="network")
    names = _check(subjects, names)
    network, basis = fitting.new_network(subjects, names, params, progress)
    rows = fitting.encode_subjects(subjects, basis, params, progress, first_stage=True)
    _, _, history = fitting.fit_network(network, basis, rows, params, progress)
    about = {
        "subjects": [{"stimuli": len(set(map(int, b.stimulus_ids))), "voxels": b.data.shape[1]} for b, _ in subjects],
        "targets": fitting.made_from(subjects[0][1]),
        "params": params.but(network_folder="").to_dict(),
        "held_out_r2": history.passes[history.best],
        "passes": history.best,
    }
    # the end of training has ended the group of processes: the others do not wait
    if processes.is_main(params.decoder_device):
        Pretrained(network, basis, about).save(folder)
        (Path(folder) / CHECKPOINT).unlink(missing_ok=True)
    return Path(folder)


def _check(subjects: fitting.Subjects, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the targets to learn."""
    if not subjects:
        raise DecodingError("subjects must be at least one to pretrain on, got none. Name other subjects' data.")
    first = subjects[0][1]
    present = target_names(first)
    names = fitting.chosen(present, names)
    for betas, targets in subjects:
        fitting.check_stimuli(betas)
        for key in MADE_FROM:
            if targets.attrs.get(key) != first.attrs.get(key):
                raise DecodingError(
                    f"targets of all subjects must have the same {key}, got {first.attrs.get(key)} and "
                    f"{targets.attrs.get(key)}. Extract them with the same models and settings."
                )
        for name in names:
            if name not in set(targets) or targets[name].shape[1:] != first[name].shape[1:]:
                raise DecodingError(f"targets of all subjects must have {name} of one shape. Extract them alike.")
    return names
