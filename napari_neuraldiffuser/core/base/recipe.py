"""What a run computes and from what, as plain values for front ends and provenance.  Standard library only."""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.core.base.registry import SURFACES, TEST_SETS
from napari_neuraldiffuser.core.params import GuidanceParams, ParamError, Params, Settings, settings_from_dict

ALGORITHM_VERSION = 7
"""Counted up when a change of the code changes results, so that old files are not taken for new ones."""
OWN_SPACE = "native"
"""Name of the volume space of own scans."""
GLMSINGLE_SUFFIXES = (".npy", ".hdf5", ".h5", ".mat")
"""Endings of GLMsingle's outputs."""
BETAS_SUFFIXES = (".nii", ".nii.gz", *GLMSINGLE_SUFFIXES)
"""Endings of files of own betas."""
DESIGN_NAMES = ("DESIGNINFO.npy", "DESIGNINFO.mat")
"""What GLMsingle writes beside its betas: which condition each trial was of."""
ARMS = ("unguided", "guided")
"""Both arms start from the same noise; they differ in the pull toward g alone."""


def guidance_of(arm: str, guidance: GuidanceParams) -> GuidanceParams:
    """The guidance parameters of an arm."""
    return guidance if arm == "guided" else guidance.but(guidance_scale=0.0)


def design_beside(betas: str | Path) -> Path | None:
    """The design in the folder of GLMsingle's betas; None for other betas, and where there is none."""
    if Path(betas).suffix.lower() not in GLMSINGLE_SUFFIXES:
        return None
    return next((path for name in DESIGN_NAMES if (path := Path(betas).parent / name).is_file()), None)


def challenge_subjects(folder: str | Path) -> list[str]:
    """The subjects of a folder of the Algonauts challenge; none of any other folder."""
    return sorted(path.parents[1].name for path in Path(folder).glob("subj*/training_split/training_fmri"))


def is_challenge(folder: str | Path) -> bool:
    """Whether a folder holds subjects of the Algonauts challenge, or is one of them."""
    return (Path(folder) / "training_split/training_fmri").is_dir() or bool(challenge_subjects(folder))


@dataclass(frozen=True)
class Source:
    """Where betas, regions and stimuli come from: an NSD folder, or own scans where `betas` is set.

    A folder of the Algonauts challenge counts as an NSD folder whose captions are a file.

    Attributes
    ----------
    nsd_dir, subject : str
        Folder of nsddata, nsddata_betas and nsddata_stimuli; `subj01` ...
    betas, mask, trials : str
        Own scans: 4-D NIfTI (x, y, z, trial) or an output of GLMsingle, mask on its grid, and the table of trials,
        which GLMsingle's design may stand for (docs/nsd.md).
    images, captions : str
        Own scans: folder of one image per stimulus label, and a JSON of label to captions (Algonauts: of NSD's id).
    anatomy : str
        Own scans: NIfTI in the betas' space, or nothing.
    rois : tuple of str
        Own scans: label volumes on the betas' grid, each one a family.
    test_set : str
        NSD folder: "core", or the further session that is decoded, "synthetic" or "imagery"; the latter's `trials` are
        a table of which row of its betas is of which picture of `images` (docs/nsd.md).
    """

    nsd_dir: str = ""
    subject: str = "subj01"
    betas: str = ""
    mask: str = ""
    trials: str = ""
    images: str = ""
    captions: str = ""
    anatomy: str = ""
    rois: tuple[str, ...] = ()
    test_set: str = TEST_SETS[0]

    def __post_init__(self) -> None:
        if self.test_set not in TEST_SETS:
            raise ParamError(f"test_set must be one of {list(TEST_SETS)}, got {self.test_set!r}.")

    @property
    def own(self) -> bool:
        """Whether these are own scans."""
        return bool(self.betas)

    @property
    def further(self) -> bool:
        """Whether the test set is a further session's and not the core experiment's."""
        return self.test_set != TEST_SETS[0]

    @property
    def challenge(self) -> bool:
        """Whether the folder is one of the Algonauts challenge."""
        return not self.own and bool(self.nsd_dir) and is_challenge(self.nsd_dir)

    @property
    def space(self) -> str:
        """The one space that the betas can have; nothing where it can be chosen."""
        return OWN_SPACE if self.own else SURFACES[0] if self.challenge else ""

    @property
    def stimuli(self) -> list[str]:
        """The part that decides images and captions: another region or anatomy has the same stimuli."""
        if self.further:
            return [self.nsd_dir, self.subject, self.test_set, self.trials, self.images, self.captions]
        if not self.own:
            return [self.nsd_dir, self.subject, self.captions]
        return [self.images, self.captions, self.trials or self.betas]

    @property
    def given(self) -> bool:
        """Whether anything was chosen."""
        return bool(self.nsd_dir or self.betas)

    def absolute(self) -> "Source":
        """A copy whose paths are absolute; every field but `subject` and `test_set` is a path, or several."""
        paths = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("subject", "test_set")}
        rois = tuple(map(located, paths.pop("rois")))
        return replace(self, **{name: located(path) for name, path in paths.items()}, rois=rois)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "rois": list(self.rois)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Source":
        """The object that `to_dict` described."""
        _check_names(cls, values)
        return cls(**{**values, "rois": tuple(values.get("rois", ()))})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the images of a run.

    Attributes
    ----------
    source : Source
    settings : Settings
    models, guide, device : str
        As in `models.load`; no guide where empty.
    stimulus_ids : tuple of int
        0-based 73k ids (own scans: index of the label); they are reconstructed in this order.
    arms : tuple of str
        Which arms are computed, in this order.
    """

    source: Source = Source()
    settings: Settings = field(default_factory=Settings)
    models: str = "demo"
    guide: str = ""
    device: str = "cpu"
    stimulus_ids: tuple[int, ...] = ()
    arms: tuple[str, ...] = ("guided", "unguided")

    def but(self, **changes: Any) -> "Recipe":
        """A copy with `changes`."""
        return replace(self, **changes)

    def with_stage(self, stage: str, params: Params) -> "Recipe":
        """A copy whose settings have other params for one stage, such as "guidance"."""
        changed: dict[str, Any] = {stage: params}
        return replace(self, settings=replace(self.settings, **changed))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {"source": self.source.to_dict(), "settings": self.settings.to_dict()}
        return plain | {"stimulus_ids": list(self.stimulus_ids), "arms": list(self.arms)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The object that `to_dict` described; ParamError for names or values that cannot be."""
        _check_names(cls, values)
        made = {**values}
        made["source"] = Source.from_dict(values.get("source", {}))
        made["settings"] = settings_from_dict(values.get("settings", {}))
        made["stimulus_ids"] = tuple(int(s) for s in values.get("stimulus_ids", ()))
        made["arms"] = tuple(values.get("arms", cls().arms))
        unknown = sorted(set(made["arms"]) - set(ARMS))
        if unknown:
            raise ParamError(f"arms must be among {list(ARMS)}, got {unknown}.")
        return cls(**made)


def decoding_part(recipe: Recipe) -> tuple[object, ...]:
    """What decides the decoded embeddings: another value means that they have to be decoded again."""
    stages = recipe.settings
    networks = recipe.models, recipe.guide, recipe.device
    return recipe.source, stages.betas, stages.features, stages.decoding, *networks


def differences(former: Recipe, recipe: Recipe) -> str:
    """Which choices that decide the decoder differ, in words."""
    was, now = former.settings, recipe.settings
    named = {
        "the data": (former.source, recipe.source),
        "the ROI": (was.betas.roi, now.betas.roi),
        "the sessions": (was.betas.sessions, now.betas.sessions),
        "the preparation of the betas": (was.betas.but(roi="", sessions=""), now.betas.but(roi="", sessions="")),
        "the models": ((former.models, former.guide), (recipe.models, recipe.guide)),
        "the device": (former.device, recipe.device),
        "the features": (was.features, now.features),
        "the decoder's parameters": (was.decoding, now.decoding),
    }
    differing = [name for name, (before, after) in named.items() if before != after]
    return " and ".join(filter(None, [", ".join(differing[:-1]), *differing[-1:]]))


def _check_names(cls: type, values: dict[str, Any]) -> None:
    if not isinstance(values, dict):
        raise ParamError(f"{cls.__name__.lower()} must be a dict of its fields, got {values!r}.")
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ParamError(f"{cls.__name__.lower()} must have fields among {sorted(known)}, got {unknown}.")
    for f in fields(cls):
        if isinstance(f.default, str) and not isinstance(values.get(f.name, ""), str):
            raise ParamError(f"{f.name} must be text, got {values[f.name]!r}.")
