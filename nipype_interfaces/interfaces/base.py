"""What all interfaces have in common: hashed version, citations, threads, progress, and no environment on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION, Source
from napari_neuraldiffuser.core.base.registry import TEST_SETS
from napari_neuraldiffuser.core.nsd import BrainSource, open_source
from napari_neuraldiffuser.core.params import BetasParams
from nipype.external.due import BibTeX
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, SimpleInterface, isdefined, traits

from nipype_interfaces.no_environment import NoEnvironment
from nipype_interfaces.node_progress import NodeProgress
from nipype_interfaces.spec import params_of

VERSION = f"{__version__}-{ALGORITHM_VERSION}"
"""Hashed into every node."""
PAPER_BIBTEX = (
    "@article{Li2025NeuralDiffuser, title={NeuralDiffuser: Neuroscience-Inspired Diffusion Guidance for fMRI Visual "
    "Reconstruction}, author={Li, Haoyu and Wu, Hao and Chen, Badong}, journal={IEEE Transactions on Image "
    "Processing}, volume={34}, pages={552--565}, year={2025}}"
)
DATASET_BIBTEX = (
    "@article{Allen2022NSD, title={A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
    "intelligence}, author={Allen, Emily J. and St-Yves, Ghislain and Wu, Yihan and others}, journal={Nature "
    "Neuroscience}, volume={25}, pages={116--126}, year={2022}}"
)
OWN = tuple(f.name for f in fields(Source) if f.name not in ("nsd_dir", "test_set"))
"""Inputs that make a source of own scans."""
STAMPS = ("stamp", "stimuli_stamp")
"""What NSDIndex adds to a source: digests of names, sizes and times of all files, and of images and captions alone."""
PAPER = {"entry": BibTeX(PAPER_BIBTEX), "tags": ["method"]}
DATASET = {"entry": BibTeX(DATASET_BIBTEX), "tags": ["dataset"]}


class VersionedSpec(BaseInterfaceInputSpec):
    """nipype's cache sees inputs, not code: a hashed version makes it see both."""

    algorithm_version = traits.Str(VERSION, usedefault=True, desc="Reruns cached nodes when it changes.")
    # no default: Nipype takes a defined value for the processors that the node asks for
    num_threads = traits.Int(nohash=True, desc="Threads of the node; all that the process may use where left out.")


class SourceSpec(VersionedSpec):
    nsd_dir = Directory(exists=True, xor=["source"], mandatory=True, desc="Folder of nsddata and nsddata_betas.")
    subject = traits.Str("subj01", usedefault=True, desc="Subject, subj01 to subj08.")
    test_set = traits.Enum(
        *TEST_SETS, usedefault=True, desc="What is decoded: test images of the core, or NSD-synthetic's. With nsd_dir."
    )
    source = traits.Dict(
        xor=["nsd_dir"],
        mandatory=True,
        desc="An NSD folder or own scans: fields of core.base.recipe.Source. That of NSDIndex changes when files do.",
    )


class ModelFolderSpec(BaseInterfaceInputSpec):
    models = traits.Str("demo", usedefault=True, desc="'demo', a model folder, or a hub id.")
    guide = traits.Str("", usedefault=True, desc="CLIP vision model, where the model folder has no image_encoder.")


class PretrainedSpec(BaseInterfaceInputSpec):
    network_digest = traits.Str(
        "", usedefault=True, desc="SHA-256 of the pretrained network: the node reruns when it changes."
    )


class ModelsSpec(VersionedSpec, ModelFolderSpec):
    model_digest = traits.Str(
        "", usedefault=True, desc="SHA-256 of the weights, from CheckModels: a node reruns when it changes."
    )
    device = traits.Str("cpu", usedefault=True, desc="torch device: cpu, cuda, cuda:0.")
    use_gpu = traits.Bool(
        False, usedefault=True, nohash=True, desc="Takes a GPU slot of the engine; must be set on the node itself."
    )


class CoreInterface(NoEnvironment, SimpleInterface):
    """Runs `core`, with its threads and progress, in the node's folder."""

    _references = [PAPER]
    light = False
    """Whether it computes nothing: then torch is not imported for it."""

    def _run_interface(self, runtime: Any) -> Any:
        folder = Path(runtime.cwd)
        with limited_threads(0 if self.light else given(self.inputs.num_threads, 0)):
            self._results.update(self.core(folder, NodeProgress(folder)))
        return runtime

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """The call of the core: outputs by name, files written to `folder`."""
        raise NotImplementedError


@contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Threads of BLAS, OpenMP and torch; 0 leaves them.  A sum rounds differently with another number."""
    if n < 1:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n):
            yield
    finally:
        torch.set_num_threads(before)


def source_of(inputs: BaseInterfaceInputSpec) -> Source:
    """The Source that a node's inputs describe."""
    if hasattr(inputs, "trials"):
        return Source.from_dict({name: value for name in OWN if isdefined(value := getattr(inputs, name))})
    if isdefined(inputs.source):
        return unstamped(inputs.source)
    return Source(nsd_dir=str(inputs.nsd_dir), subject=inputs.subject, test_set=inputs.test_set)


def unstamped(source: dict[str, Any]) -> Source:
    """The Source that a `source` input describes, which may have stamps of NSDIndex."""
    return Source.from_dict({name: value for name, value in dict(source).items() if name not in STAMPS})


def subject_of(inputs: BaseInterfaceInputSpec, params: BetasParams | None = None) -> BrainSource:
    """The subject of an NSD folder, or own scans."""
    if params is None and hasattr(inputs, "space"):
        params = params_of(inputs, BetasParams)
    return open_source(source_of(inputs), params)


def label_of(inputs: BaseInterfaceInputSpec) -> str:
    """`sub-01` of a node's source."""
    return Derivatives(Path(), source_of(inputs).subject).label


@contextmanager
def on_device(device: str) -> Iterator[str]:
    """A leased device, which "cuda" means inside the block."""
    from nipype_interfaces import gpu_lease

    with gpu_lease.leased(device) as own:
        if not own.startswith("cuda"):
            yield own
            return
        import torch

        with torch.cuda.device(own):
            yield own


@contextmanager
def opened_models(inputs: BaseInterfaceInputSpec) -> Iterator[Any]:
    """The networks of a node, on a GPU of its own where it asks for one."""
    from napari_neuraldiffuser.core.networks import models
    from napari_neuraldiffuser.core.networks.machine import free_memory

    from nipype_interfaces import gpu_lease

    with gpu_lease.leased(inputs.device) as device:
        loaded = models.load(inputs.models, inputs.guide or None, device)
        try:
            yield loaded
        finally:
            if device.startswith("cuda"):
                # who leases the device next needs its memory, and the node still names the networks
                loaded.to("cpu")
                free_memory()


def given(value: Any, otherwise: Any) -> Any:
    """An input's value, or `otherwise` where it was left out."""
    return value if isdefined(value) else otherwise
