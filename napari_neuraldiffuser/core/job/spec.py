"""What to run for one subject, and where.  Imports nothing that computes, so that a front end starts at once."""

from dataclasses import dataclass, field
from pathlib import Path

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import Settings


@dataclass(frozen=True)
class Job:
    """What to run and where.

    Attributes
    ----------
    nsd_dir, out_dir : Path
        NSD tree, and the output folder of all subjects.
    subject : str
        `subj01` ...
    settings : Settings
    models : str
        `"demo"`, a model folder or a hub id; `guide` and `device` as in `models.load`.
    n_stimuli : int or None
        The first so many test stimuli; all where None.
    work_dir : Path or None
        Targets, the decoder and the records of finished stages; `OUT_DIR/work` where None.
    command : str
        What the user typed, for the page.
    told : sequence of str
        Sentences on the settings, for whoever starts the run.
    source : Source or None
        Where the scans come from, own scans included; then `nsd_dir` and `subject` are taken from it.
    """

    nsd_dir: Path
    out_dir: Path
    subject: str = "subj01"
    settings: Settings = field(default_factory=Settings)
    models: str = "demo"
    guide: str | None = None
    device: str = "cpu"
    n_stimuli: int | None = None
    work_dir: Path | None = None
    resume: bool = True
    command: str = ""
    told: tuple[str, ...] = ()
    source: Source | None = None

    def __post_init__(self) -> None:
        if self.source is not None:
            object.__setattr__(self, "nsd_dir", Path(self.source.nsd_dir))
            object.__setattr__(self, "subject", self.source.subject)
        if self.n_stimuli is not None and self.n_stimuli < 1:
            raise UserError(f"--n-stimuli must be at least 1, got {self.n_stimuli}.")

    @classmethod
    def of(cls, recipe: Recipe, out_dir: Path, n_stimuli: int | None = None) -> "Job":
        """The whole job of a recipe's source, settings and models."""
        return cls(
            Path(recipe.source.nsd_dir),
            out_dir,
            settings=recipe.settings,
            models=recipe.models,
            guide=recipe.guide or None,
            device=recipe.device,
            n_stimuli=n_stimuli,
            source=recipe.source,
        )

    @property
    def scans(self) -> Source:
        """`source`, or the one that `nsd_dir` and `subject` describe."""
        return self.source or Source(nsd_dir=str(self.nsd_dir), subject=self.subject)

    @property
    def places(self) -> Derivatives:
        space = self.scans.space or self.settings.betas.space
        return Derivatives(Path(self.out_dir), self.subject, space, self.settings.decoding.decoder)

    @property
    def work(self) -> Path:
        return Path(self.work_dir or Path(self.out_dir) / "work") / self.places.label
