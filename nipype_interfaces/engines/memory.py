"""Memory that a node will need, from the shapes of its files: what a batch system is asked for.

Peak bytes are counted from the arrays that the core holds at once (float32 betas, float64 Gram matrices), and then
given `SAFETY` for what NumPy and BLAS keep besides, and `BASE_GB` for Python with the libraries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from napari_neuraldiffuser.core.networks.digest import model_source
from napari_neuraldiffuser.core.params import BetasParams, DecodingParams
from nipype.utils.ram_estimator import RamEstimator

from nipype_interfaces.spec import params_of

GB = 1024**3
SAFETY = 1.25
BASE_GB = 0.75
"""Of a process that has imported Nipype, SciPy, h5py and torch."""
BLOCK = 64 * 2**20
"""Targets are read in blocks of so many bytes."""
FLOAT, DOUBLE = 4, 8
WEIGHTS = (".safetensors", ".bin")
SD_WEIGHTS = 4.9e9
"""Bytes of Stable Diffusion 1.4 in float32 with CLIP ViT-B/32."""
NETWORKS = 2.5
"""Peak of a guided step on a CPU, one image at a time, in units of the weights (performance.md: 9.5 to 13.6 GB)."""
FULL_IMAGES = 1.5 * 1000 * 5 * 2 * 512 * 512 * 3
"""Bytes of the images of `_images` for a whole subject."""


@dataclass(frozen=True)
class Study:
    """The sizes that decide memory.

    Attributes
    ----------
    train, test : int
        Stimuli, one row of betas each.
    voxels : int
    columns : tuple of int
        Values of one stimulus for every target: z, c, and each layer of g.
    trials : int
        Rows of a session.
    z : int
        Those of `columns` that are z's, which alone is read whole; 0 where z is not among the targets.
    """

    train: int
    test: int
    voxels: int
    columns: tuple[int, ...] = ()
    trials: int = 750
    z: int = 0

    @property
    def betas(self) -> int:
        """Bytes of all betas."""
        return FLOAT * (self.train + self.test) * self.voxels


FULL = Study(9000, 1000, 16_000, (16_384, 77 * 768, *(257 * 1024,) * 6), z=16_384)
"""The largest subject of NSD, nsdgeneral, with Stable Diffusion 1.4 and CLIP ViT-L/14."""


def with_safety(peak: float) -> float:
    """GB to ask for where arrays take `peak` bytes."""
    return BASE_GB + SAFETY * peak / GB


def load_bytes(study: Study) -> float:
    """Reading betas: the result, and one session as stored, as float32, and compared with its first row."""
    return study.betas + study.trials * study.voxels * (2 * FLOAT + 4)


def fit_bytes(study: Study, scored: int = DecodingParams().cv_targets) -> float:
    """Fitting a decoder: betas while they are split and centred, or the Gram matrix, or one block of targets."""
    n, p, gram = study.train, study.voxels, DOUBLE * study.train**2
    # whole and split; train and test, a mean-free copy in float64, and that in float32
    centring = max(2 * study.betas, study.betas + (DOUBLE + FLOAT) * n * p)
    # the matrix, its copy for LAPACK, the eigenvectors and the workspace of divide and conquer
    solving = study.betas + FLOAT * n * p + (5 * gram if n <= p else 5 * DOUBLE * p**2 + 2 * DOUBLE * n * p)
    # eigenvectors in both types; scored columns with their rotation and residuals; z, its centred copy and residuals
    targets = max(4 * FLOAT * n * min(scored, max(study.columns, default=0)), 3 * FLOAT * n * study.z)
    scoring = study.betas + FLOAT * n * p + 1.5 * gram + targets + _block(study)
    return max(centring, solving, scoring)


def decode_bytes(study: Study) -> float:
    """Decoding test stimuli: the decoder, the betas, and every target of all stimuli, the largest one twice.

    z comes first, and is aligned in float64: then there are five times its bytes, and nothing else yet.
    """
    targets = max(_sum_and_largest(study.columns, 1, 1), 5 * study.z)
    return _decoder(study) + 2 * study.betas + FLOAT * study.test * targets + _block(study)


def contribution_bytes(study: Study) -> float:
    """Maps: the decoder, the betas, six arrays of the largest target, and three of test stimuli by voxels."""
    largest = FLOAT * study.test * _sum_and_largest(study.columns, 0, 6)
    return _decoder(study) + 2 * study.betas + largest + 3 * FLOAT * study.test * study.voxels + _block(study)


def _decoder(study: Study) -> float:
    """Betas and eigenvectors in float64 and float32, as they are kept and used."""
    rank = min(study.train, study.voxels)
    return FLOAT * study.train * study.voxels + (DOUBLE + FLOAT) * study.train * rank


def _block(study: Study) -> float:
    """A block of the largest training target, and its centred copy."""
    return 2 * min(BLOCK, FLOAT * study.train * max(study.columns, default=0))


def _sum_and_largest(columns: Sequence[int], every: int, largest: int) -> int:
    return every * sum(columns) + largest * max(columns, default=0)


def betas_study(path: str | Path) -> Study:
    """Sizes of a file of prepared betas; no data are read."""
    with h5py.File(path, "r") as file:
        rows, voxels = file["data"].shape
        test = int(np.count_nonzero(file["shared"][...]))
    return Study(rows - test, test, voxels)


def target_columns(path: str | Path, names: Sequence[str] = ()) -> dict[str, int]:
    """Values of one stimulus by target (of `names`, where given) of a file of targets or of a decoder."""
    with h5py.File(path, "r") as file:
        layers = {f"g/{name}": name for name in file.get("g", ())}
        datasets = {**{name: name for name in ("z", "c") if name in file}, **layers}
        wanted = {place: name for place, name in datasets.items() if not names or name in names}
        return {name: int(np.prod(file[place].shape[1:])) for place, name in wanted.items()}


def _study(inputs: Any, targets: str, names: Sequence[str] = ()) -> Study:
    columns = target_columns(targets, names)
    return replace(betas_study(inputs.betas), columns=tuple(columns.values()), z=columns.get("z", 0))


def _load(inputs: Any) -> float:
    from napari_neuraldiffuser.core.nsd import open_source
    from napari_neuraldiffuser.core.nsd.describe import trials_used

    from nipype_interfaces.interfaces.base import source_of

    params = params_of(inputs, BetasParams)
    subject = open_source(_own(inputs) if hasattr(inputs, "trials") else source_of(inputs), params)
    trials = trials_used(subject, params)
    rows = trials["stimulus_id"].nunique() if params.average_repeats else len(trials)
    per_session = int(trials.groupby("session").size().max())
    return load_bytes(Study(rows, 0, len(subject.voxels(params.roi)), trials=per_session))


def _own(inputs: Any) -> Any:
    """The Source of own scans, as far as it decides the size of the betas."""
    from napari_neuraldiffuser.core.base.recipe import Source

    return Source(subject=inputs.subject, betas=inputs.betas, mask=inputs.mask, trials=inputs.trials)


def _fit(inputs: Any) -> float:
    names = inputs.fit_targets if isinstance(inputs.fit_targets, list) else ()
    return fit_bytes(_study(inputs, inputs.targets, names), inputs.cv_targets)


def _decode(inputs: Any) -> float:
    return decode_bytes(_study(inputs, inputs.decoder))


def _contribution(inputs: Any) -> float:
    return contribution_bytes(_study(inputs, inputs.decoder))


def weights_bytes(models: str, guide: str = "") -> float:
    """Bytes of the weight files of model folders; those of Stable Diffusion 1.4 for a hub id."""
    folders = [Path(model_source(models)), *([Path(guide)] if guide else [])]
    if not all(folder.is_dir() for folder in folders):
        return SD_WEIGHTS
    return sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.suffix in WEIGHTS)


def _networks(inputs: Any) -> float:
    return NETWORKS * weights_bytes(inputs.models, inputs.guide)


def _images(inputs: Any) -> float:
    """Networks, and all images with one more copy of each arm in its turn."""
    from PIL import Image

    with Image.open(inputs.images[0]) as first:
        width, height = first.size
    return _networks(inputs) + 1.5 * len(inputs.images) * width * height * 3


ESTIMATES: dict[str, tuple[Callable[[Any], float], float]] = {
    # interface -> estimate from its inputs, and that for FULL, where they are not known yet
    "LoadNSDBetas": (_load, load_bytes(FULL)),
    "PrepareBetas": (_load, load_bytes(FULL)),
    "FitDecoder": (_fit, fit_bytes(FULL)),
    "Decode": (_decode, decode_bytes(FULL)),
    "ContributionMap": (_contribution, contribution_bytes(FULL)),
    # on a CPU; WorkflowParams.gpu_mem_gb is for those on a GPU
    "ExtractFeatures": (_networks, NETWORKS * SD_WEIGHTS),
    "GuidedReconstruct": (_networks, NETWORKS * SD_WEIGHTS),
    "EvaluateReconstruction": (_images, NETWORKS * SD_WEIGHTS + FULL_IMAGES),
    "SubjectReport": (_images, NETWORKS * SD_WEIGHTS + FULL_IMAGES),
}
OTHERS = ("JoinDecoders",)
OTHERS_GB = 4.0
"""Of our other nodes that compute."""
NIPYPES_GB = 0.2
"""What Nipype says of a node whose memory nobody gave."""


class FromShapes(RamEstimator):
    """Nipype's hook for an estimate once the inputs are known: `node.ram_estimator = FromShapes("FitDecoder")`."""

    def __init__(self, interface: str) -> None:
        super().__init__()
        self.interface = interface

    def __call__(self, inputs: Any) -> tuple[float, str]:
        """GB, and how it was found."""
        estimate, full = ESTIMATES[self.interface]
        try:
            gb = with_safety(estimate(inputs))
        except Exception as error:  # files that are not there yet, or that the node itself will say more about
            return with_safety(full), f"for a whole NSD subject, as the files could not be read: {error}"
        return gb, f"{gb:.2f} GB from the shapes of the node's files"


def given_gb(node: Any) -> float | None:
    """GB that somebody gave a node; None if nobody did."""
    return None if node.mem_gb == NIPYPES_GB else node.mem_gb


def default_gb(node: Any) -> float:
    """GB of a node whose inputs are not known yet: what it was given, else what a whole NSD subject needs."""
    given, name = given_gb(node), type(node.interface).__name__
    if given is not None:
        return given
    if name in ESTIMATES:
        return with_safety(ESTIMATES[name][1])
    return OTHERS_GB if name in OTHERS else node.mem_gb


def estimate_nodes(nodes: Iterable[Any]) -> None:
    """Let nodes whose memory nobody gave estimate it from their files once these are there."""
    for node in nodes:
        name = type(node.interface).__name__
        if name in ESTIMATES and given_gb(node) is None:
            node.ram_estimator = FromShapes(name)
