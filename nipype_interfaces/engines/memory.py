"""Estimates the memory that a node will need from the shapes of its files: a batch system is asked for it.

Peak bytes are counted from the arrays that the core holds at once (float32 betas, float64 Gram matrices), and then
given `SAFETY` for what NumPy and BLAS keep besides, and `BASE_GB` for Python with the libraries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from napari_neuraldiffuser.core.bold.runs import Run, open_run
from napari_neuraldiffuser.core.decoding.alignment import COLUMNS, ROWS
from napari_neuraldiffuser.core.decoding.fitting import MOST_LEFT_OUT, SOME_LEFT_OUT
from napari_neuraldiffuser.core.evaluation.metrics import HOG_VALUES
from napari_neuraldiffuser.core.networks.digest import model_source
from napari_neuraldiffuser.core.nsd.describe import trials_used
from napari_neuraldiffuser.core.nsd.reading.volumes import read_inside
from napari_neuraldiffuser.core.outputs.report.gallery import LARGEST
from napari_neuraldiffuser.core.params import BetasParams, BoldParams, DecodingParams, DiffusionParams
from nipype.interfaces.base import BaseInterfaceInputSpec
from nipype.pipeline import engine as pe
from nipype.utils.ram_estimator import RamEstimator

from nipype_interfaces.interfaces.base import subject_of
from nipype_interfaces.spec import params_of

GB = 1024**3
SAFETY = 1.25
BASE_GB = 0.75
"""Memory of a process that has imported Nipype, SciPy, h5py and torch."""
BLOCK = 64 * 2**20
"""Bytes of a block in which targets are read."""
FLOAT, DOUBLE = 4, 8
WEIGHTS = (".safetensors", ".bin")
SD_WEIGHTS = 4.9e9
"""Bytes of Stable Diffusion 1.4 in float32 with CLIP ViT-B/32."""
NETWORKS = 2.5
"""Peak of a guided step on a CPU, one image at a time, in units of the weights (performance.md: 9.5 to 13.6 GB)."""
AN_IMAGE = 1.0
"""What every image takes of that, in units of the weights (3.4 GB are kept for backward); half in half precision."""
AUTOMATIC = 2
"""Images that are asked for where `batch_size` is 0: the run takes as many as the memory that it gets has room for."""
METRIC_WEIGHTS = 1.8e9
"""Bytes of the weights of all scoring networks, of which CLIP ViT-L/14's image encoder has 1.2e9."""
ALEXNET_VALUES = 184_512 + 57_600
"""Features of an image in the two layers of AlexNet that are scored."""
FULL_IMAGES = 1000 * 5 * 2
"""Reconstructions of a whole subject, both arms."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a subject's data that decide memory.

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

    @property
    def largest(self) -> int:
        """Values of one stimulus for the largest target."""
        return max(self.columns, default=0)


FULL = Sizes(9000, 1000, 16_000, (16_384, 77 * 768, *(257 * 1024,) * 6), z=16_384)
"""The largest subject of NSD, nsdgeneral, with Stable Diffusion 1.4 and CLIP ViT-L/14."""

SMALL_SET = replace(FULL, train=1000, test=0)
"""The largest set that is small: more stimuli can spare test stimuli."""


def with_safety(peak: float) -> float:
    """Return the GB to ask for where arrays take `peak` bytes."""
    return BASE_GB + SAFETY * peak / GB


def load_bytes(sizes: Sizes) -> float:
    """Reading betas holds the result, and one session as stored, as float32 and compared with its first row."""
    return sizes.betas + sizes.trials * sizes.voxels * (2 * FLOAT + 4)


def fit_bytes(sizes: Sizes, scored: int = DecodingParams().cv_targets) -> float:
    """Fitting holds the betas while they are split and centred, or the Gram matrix, or one block of targets."""
    n, p, gram = sizes.train, sizes.voxels, DOUBLE * sizes.train**2
    # whole and split; train and test, a mean-free copy in float64, and that in float32
    centring = max(2 * sizes.betas, sizes.betas + (DOUBLE + FLOAT) * n * p)
    # the matrix, its copy for LAPACK, the eigenvectors and the workspace of divide and conquer
    solving = sizes.betas + FLOAT * n * p + (5 * gram if n <= p else 5 * DOUBLE * p**2 + 2 * DOUBLE * n * p)
    # scored columns with their rotation and residuals; left-out predictions with their targets, copies of those
    # in a block, and some rows and columns on which the form of the alignment is chosen
    left_out = n if n <= MOST_LEFT_OUT else SOME_LEFT_OUT
    judged = 3 * DOUBLE * min(left_out, ROWS) * min(sizes.largest, COLUMNS)
    spread = 4 * FLOAT * left_out * sizes.largest + judged
    targets = max(4 * FLOAT * n * min(scored, sizes.largest), spread)
    # a block as it is stored where its file cannot be mapped, and centred
    scoring = sizes.betas + FLOAT * n * p + 1.5 * gram + targets + 2 * _block(sizes)
    return max(centring, solving, scoring)


def decode_bytes(sizes: Sizes) -> float:
    """Decoding holds the decoder, the betas, and every target of all test stimuli, the largest one twice.

    z comes first and is aligned: five times its bytes cover that, and nothing else is there yet.
    """
    targets = max(sum(sizes.columns) + sizes.largest, 5 * sizes.z)
    return _decoder(sizes) + 2 * sizes.betas + FLOAT * sizes.test * targets + _block(sizes)


def contribution_bytes(sizes: Sizes) -> float:
    """Maps hold the decoder, the betas, six arrays of the largest target, and three of test stimuli by voxels."""
    arrays = FLOAT * sizes.test * (6 * sizes.largest + 3 * sizes.voxels)
    return _decoder(sizes) + 2 * sizes.betas + arrays + _block(sizes)


def crossval_bytes(sizes: Sizes) -> float:
    """Cross-validation fits to most rows, and keeps every target of all of them twice; scores take six of one."""
    n = sizes.train + sizes.test
    return fit_bytes(sizes) + sizes.betas + FLOAT * n * (2 * sum(sizes.columns) + 6 * sizes.largest)


def _decoder(sizes: Sizes) -> float:
    """A decoder has betas, and eigenvectors in float64 and float32, as they are kept and used."""
    rank = min(sizes.train, sizes.voxels)
    return FLOAT * sizes.train * sizes.voxels + (DOUBLE + FLOAT) * sizes.train * rank


def _block(sizes: Sizes) -> float:
    """A block of the largest training target, centred."""
    return min(BLOCK, FLOAT * sizes.train * sizes.largest)


def betas_sizes(path: str | Path) -> Sizes:
    """Read the sizes of a file of prepared betas, without its data."""
    with h5py.File(path, "r") as file:
        rows, voxels = file["data"].shape
        test = int(np.count_nonzero(file["shared"][...]))
    return Sizes(rows - test, test, voxels)


def target_columns(path: str | Path, names: Sequence[str] = ()) -> dict[str, int]:
    """Count the values of one stimulus by target (of `names`, where given) in a file of targets or of a decoder."""
    with h5py.File(path, "r") as file:
        datasets = {name: file[name] for name in ("z", "c") if name in file} | dict(file.get("g", {}))
        columns = {name: int(np.prod(d.shape[1:])) for name, d in datasets.items()}
        # a decoder that keeps no training targets has their mean
        columns = columns or {name: fit["mean"].size for name, fit in file["decoder/fits"].items()}
        return {name: size for name, size in columns.items() if not names or name in names}


def _sizes(inputs: BaseInterfaceInputSpec, targets: str, names: Sequence[str] = ()) -> Sizes:
    columns = target_columns(targets, names)
    return replace(betas_sizes(inputs.betas), columns=tuple(columns.values()), z=columns.get("z", 0))


def _load(inputs: BaseInterfaceInputSpec) -> float:
    params = params_of(inputs, BetasParams)
    subject = subject_of(inputs, params)
    trials = trials_used(subject, params)
    rows = trials["stimulus_id"].nunique() if params.average_repeats else len(trials)
    per_session = int(trials.groupby("session").size().max())
    return load_bytes(Sizes(rows, 0, len(subject.voxels(params.roi)), trials=per_session))


def _fit(inputs: BaseInterfaceInputSpec) -> float:
    names = inputs.fit_targets if isinstance(inputs.fit_targets, list) else ()
    return fit_bytes(_sizes(inputs, inputs.targets, names), inputs.cv_targets)


def bold_bytes(volumes: int, voxels: int, trials: int, params: BoldParams = BoldParams()) -> float:
    """Fitting BOLD holds its volumes twice for a moment, the betas, and some voxels in float64."""
    chunk = min(voxels, params.chunk_voxels)
    return FLOAT * voxels * (2 * volumes + trials) + DOUBLE * chunk * (2 * volumes + trials) + 2 * BLOCK


def _bold(inputs: BaseInterfaceInputSpec) -> float:
    """The node's run, or all of its session where they are fitted together; a trial in every second volume at most."""
    volumes = sum(open_run(Run.from_dict(dict(run))).shape[3] for run in inputs.runs)
    return bold_bytes(volumes, int(read_inside(inputs.mask)[0].sum()), volumes // 2, params_of(inputs, BoldParams))


def images_bytes(weights: float, diffusion: DiffusionParams, n_stimuli: int = 1000) -> float:
    """A guided step holds the weights, and something for each of the `batch_size` images that it computes at once."""
    images = min(diffusion.batch_size or AUTOMATIC, diffusion.repeats * max(n_stimuli, 1))
    an_image = AN_IMAGE * (0.5 if diffusion.precision in ("bf16", "fp16") else 1)
    return weights * (NETWORKS - AN_IMAGE + an_image * images)


def _images(inputs: BaseInterfaceInputSpec) -> float:
    diffusion = params_of(inputs, DiffusionParams)
    return images_bytes(_networks(inputs) / NETWORKS, diffusion, len(inputs.stimulus_ids))


def _networks(inputs: BaseInterfaceInputSpec) -> float:
    """Networks take a multiple of the bytes of their weight files; those of Stable Diffusion 1.4 for a hub id."""
    folders = [Path(model_source(inputs.models)), *([Path(inputs.guide)] if inputs.guide else [])]
    if not all(folder.is_dir() for folder in folders):
        return NETWORKS * SD_WEIGHTS
    files = (path for folder in folders for path in folder.rglob("*") if path.suffix in WEIGHTS)
    return NETWORKS * sum(path.stat().st_size for path in files)


def scores_bytes(images: int) -> float:
    """Scoring holds edges of one arm's images and of as many seen ones at most, with their copies as correlated.

    Pictures themselves are read one stimulus at a time.  `images` counts those of both arms.
    """
    return 2.5 * FLOAT * HOG_VALUES * images


def network_score_bytes(stimuli: int) -> float:
    """The field's networks: their weights, and features of the seen images of one network, AlexNet's being the largest.

    Those of reconstructions are held a batch at a time.
    """
    return METRIC_WEIGHTS + FLOAT * ALEXNET_VALUES * stimuli


def page_bytes(images: int) -> float:
    """A page holds its text and, for a table, the scores of every image; pictures only while they fit into it."""
    return 3 * LARGEST + 12_000 * images


def _scores(inputs: BaseInterfaceInputSpec) -> float:
    own = network_score_bytes(len(inputs.stimulus_ids)) if inputs.metric_weights else 0.0
    return _networks(inputs) + scores_bytes(len(inputs.images)) + own


def _page(inputs: BaseInterfaceInputSpec) -> float:
    return _networks(inputs) + page_bytes(len(inputs.images))


ESTIMATES: dict[str, tuple[Callable[[BaseInterfaceInputSpec], float], float]] = {
    # interface -> bytes from its inputs, and those for FULL, where the inputs are not known yet
    "LoadNSDBetas": (_load, load_bytes(FULL)),
    "PrepareBetas": (_load, load_bytes(FULL)),
    "EstimateBetas": (_bold, bold_bytes(400, 250_000, 200)),
    "FitDecoder": (_fit, fit_bytes(FULL)),
    "CrossValidate": (lambda inputs: crossval_bytes(_sizes(inputs, inputs.targets)), crossval_bytes(SMALL_SET)),
    "Decode": (lambda inputs: decode_bytes(_sizes(inputs, inputs.decoder)), decode_bytes(FULL)),
    "ContributionMap": (lambda inputs: contribution_bytes(_sizes(inputs, inputs.decoder)), contribution_bytes(FULL)),
    # these count on a CPU; WorkflowParams.gpu_mem_gb is for nodes on a GPU
    "ExtractFeatures": (_networks, NETWORKS * SD_WEIGHTS),
    "GuidedReconstruct": (_images, images_bytes(SD_WEIGHTS, DiffusionParams())),
    "EvaluateReconstruction": (_scores, NETWORKS * SD_WEIGHTS + scores_bytes(FULL_IMAGES)),
    "SubjectReport": (_page, NETWORKS * SD_WEIGHTS + page_bytes(FULL_IMAGES)),
}
OTHERS = ("JoinBetas", "JoinDecoders", "PretrainNetwork", "TuneGuidance")
OTHERS_GB = 4.0
"""Memory of each of these other nodes that compute."""
NIPYPES_GB = 0.2
"""Memory that Nipype gives a node for which nobody said any."""


class FromShapes(RamEstimator):
    """Nipype's hook for an estimate once the inputs are known: `node.ram_estimator = FromShapes("FitDecoder")`."""

    def __init__(self, interface: str) -> None:
        super().__init__()
        self.interface = interface

    def __call__(self, inputs: BaseInterfaceInputSpec) -> tuple[float, str]:
        """Return the GB, and how they were found."""
        estimate, full = ESTIMATES[self.interface]
        try:
            gb = with_safety(estimate(inputs))
        except Exception as error:  # files that are not there yet, or that the node itself will say more about
            return with_safety(full), f"for a whole NSD subject, as the files could not be read: {error}"
        return gb, f"{gb:.2f} GB from the shapes of the node's files"


def is_given(node: pe.Node) -> bool:
    """Tell whether somebody said how much memory the node takes."""
    return node.mem_gb != NIPYPES_GB


def default_gb(node: pe.Node) -> float:
    """Return the GB of a node whose inputs are not known yet: what it was given, or what a whole NSD subject needs."""
    name = type(node.interface).__name__
    if is_given(node) or name not in (*ESTIMATES, *OTHERS):
        return node.mem_gb
    return OTHERS_GB if name in OTHERS else with_safety(ESTIMATES[name][1])


def estimate_nodes(nodes: Iterable[pe.Node]) -> None:
    """Let nodes whose memory nobody gave estimate it from their files once these are there."""
    for node in nodes:
        name = type(node.interface).__name__
        if name in ESTIMATES and not is_given(node):
            node.ram_estimator = FromShapes(name)
