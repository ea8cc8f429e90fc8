"""The first stage of the network decoder: other subjects' betas and target embeddings to one pretrained network."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import make_folder
from napari_neuraldiffuser.core.base.lock import held
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.decoding.network import processes
from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.networks.embeddings import TargetFile
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.nsd.describe import stimuli_used
from napari_neuraldiffuser.core.outputs.description import check_place
from napari_neuraldiffuser.core.params import Settings


@dataclass(frozen=True)
class Pretraining:
    """What a network is pretrained on, and where it goes.

    Attributes
    ----------
    sources : tuple of Source
        The subjects: NSD's or own scans, each with the stimuli that it saw.
    folder : Path
        Gets network.safetensors and network.json.
    settings : Settings
        Its betas, features and decoding parameters count.
    models : str
        `"demo"`, a model folder or a hub id; `guide` and `device` as in `models.load`.
    work_dir : Path or None
        Target embeddings; `FOLDER/work` where None.
    """

    sources: tuple[Source, ...]
    folder: Path
    settings: Settings = field(default_factory=Settings)
    models: str = "demo"
    guide: str | None = None
    device: str = "cpu"
    work_dir: Path | None = None

    def targets(self, source: Source) -> Path:
        """Target embeddings of one subject's training stimuli, where a run with the same work folder has them."""
        label = Derivatives(self.folder, source.subject).label
        work = Path(self.work_dir or Path(self.folder) / "work") / label
        return work / f"{label}_desc-traintargets_embeddings.h5"


def check_pretraining(job: Pretraining) -> None:
    """Look at all that pretraining needs, without betas and without torch.

    Raises
    ------
    UserError
        If no subject is named or one twice, or a folder, scan, region, image or caption is missing.
    """
    names = [source.subject for source in job.sources]
    if not names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        remedy = f"Leave out the second {twice[0]}." if twice else "Name some that are not to be decoded."
        raise UserError(f"subjects must be one or more, each once, got {', '.join(names) or 'none'}. {remedy}")
    check_folder(job.models, job.guide)
    for source in job.sources:
        check_place(job.folder, None if source.own else Path(source.nsd_dir))
        subject = nsd.open_source(source, job.settings.betas)
        train, _ = stimuli_used(subject, job.settings.betas)
        subject.voxels(job.settings.betas.roi)
        subject.stimuli.check(train)


def pretrain_network(job: Pretraining, progress: Progress = lambda done, total, what: None) -> Path:
    """Read every subject's training betas, extract their targets and train one network on all of them.

    Test stimuli are in nobody's training part.  A killed call goes on where it stopped when it is made again.

    Raises
    ------
    UserError
        On bad input, or while another process writes to the folder; the message names the remedy.
    """
    from napari_neuraldiffuser.core.decoding.network.pretrain import pretrain

    check_pretraining(job)
    folder, device, pairs = make_folder(job.folder), job.settings.decoding.decoder_device, []
    # under accelerate launch the first process writes, and the others read
    main = processes.is_main(device)
    with ExitStack() as stack:
        if main:
            stack.enter_context(held(folder / ".pretrain.lock", f"the network in {folder}", "give another folder"))
            models = model_folder.load(job.models, job.guide, job.device)
        for k, source in enumerate(job.sources):
            progress(k, len(job.sources), f"reading betas of {source.subject}")
            subject = nsd.open_source(source, job.settings.betas)
            train, _ = subject.betas().split()
            path, ids = job.targets(source), train.stimulus_ids
            if main:
                stages.targets(models, subject.stimuli, ids, path, job.settings.features, progress)
            processes.wait(device)
            pairs.append((train, stack.enter_context(TargetFile(path))))
        return pretrain(pairs, folder, job.settings.decoding, progress)
