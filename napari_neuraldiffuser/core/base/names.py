"""The names of everything that a run writes, declared once: written, found again, cleared and checked from one table.

The stock BIDS patterns know none of our suffixes (embeddings, recon, contribution).  Names follow the BIDS derivatives
rules: entities `key-value` joined by `_`, the suffix last, every file of a subject prefixed with its `sub-<label>`, a
JSON sidecar of the same stem, one for a whole folder of images (the inheritance principle).  Standard library only.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import Place
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SURFACES
from napari_neuraldiffuser.core.params import SPACES, DecodingParams

SHOWN = ("seen", "start")
"""Images beside the reconstructions that are none themselves."""
VALUE = "[0-9A-Za-z]+"
ENTITIES = {
    "sub": f"sub-{VALUE}",
    "hemi": "|".join(HEMISPHERES.values()),
    "stim": r"\d{5,}",
    "rep": r"[1-9]\d*",
    "arm": "|".join(ARMS),
    "shown": "|".join(SHOWN),
    "form": "png|svg",
}
"""What the value of an entity looks like where that is not any run of letters and digits."""
NONE, OWN, FOLDER = "none", "own", "folder"
NUMBERS, LABELS = "StimulusNumber", "StimulusLabels"
NSD_NUMBERS = "0-based id of NSD's 73k images"
OWN_NUMBERS = "place of the label in the sorted list of labels, from 0"
"""What the number of a stimulus in file names is."""
SCORE_INDEX = ("stim", "stimulus", "rep", "arm")
"""Columns of the table of scores that say of which image a row is; the others are scores."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes
    ----------
    what : str
        For complaints, front ends and documentation.
    path : str
        Path below OUT_DIR: `{sub}` is the subject's `sub-<label>`, `{<entity>}` the value of an entity.
    sidecar : str
        Where the sidecar is: "none" needs one, "own" is the same stem with .json, "folder" is `<sub>_<suffix>.json`
        beside it.
    is_sidecar : bool
        Whether files of this kind are sidecars and must say what made them.
    standard : bool
        Whether BIDS has a name for files of this kind: a validator is told to ignore the others.
    """

    what: str
    path: str
    sidecar: str = NONE
    is_sidecar: bool = False
    standard: bool = False

    @property
    def regex(self) -> re.Pattern[str]:
        """The path as a regular expression with a group per entity."""
        return _regex(self.path)

    def name(self, **entities: object) -> str:
        """Name of a file, without its folders."""
        return PurePosixPath(self.path).name.format(**entities)

    def entities(self, name: str) -> dict[str, str] | None:
        """What the name of a file says; None where it is of another kind."""
        match = _regex(PurePosixPath(self.path).name).fullmatch(name)
        return match and match.groupdict()

    def find(self, folder: str | Path, **known: str) -> list[tuple[Path, dict[str, str]]]:
        """Files of this kind that a subject has, in the order of their names, and what these say.

        Parameters
        ----------
        folder : path
            OUT_DIR/sub-XX.
        known : str
            Values that entities must have.
        """
        inside, folder = self.path.removeprefix("{sub}/"), Path(folder)
        paths = sorted(folder.glob(re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], "*"), inside)))
        matches = ((path, _regex(inside).fullmatch(path.relative_to(folder).as_posix())) for path in paths)
        return [(path, match.groupdict()) for path, match in matches if match]


@cache
def _regex(path: str) -> re.Pattern[str]:
    """A path of the table as a regular expression; the second mention of an entity must repeat the first."""
    seen: set[str] = set()

    def part(piece: str) -> str:
        name = piece[1:-1]
        if not piece.startswith("{"):
            return re.escape(piece)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{ENTITIES.get(name, VALUE)})"

    return re.compile("".join(map(part, re.split(r"(\{\w+\})", path))))


SUBJECT, ANATOMY = "{sub}/{sub}_", "{sub}/anat/{sub}_space-{space}_"
HEMISPHERE = "{sub}/anat/{sub}_hemi-{hemi}_space-{space}_"
KINDS = {
    "description": Kind("dataset description", "dataset_description.json", standard=True),
    "readme": Kind("what the folder is", "README.md", standard=True),
    "ignored": Kind("names that BIDS lacks", ".bidsignore", standard=True),
    "page": Kind("page", "{sub}.html"),
    "complete": Kind("mark of a complete subject", SUBJECT + "complete.json"),
    "embeddings": Kind("decoded embeddings", SUBJECT + "desc-{decoder}_embeddings.h5", OWN),
    "scores": Kind("scores of every image", SUBJECT + "desc-recon_scores.tsv", OWN),
    "summary": Kind("summary of the scores", SUBJECT + "desc-summary_scores.json"),
    "worth": Kind("what decoded values are worth", SUBJECT + "desc-decoding_scores.tsv", OWN),
    "projected": Kind("true targets that are projected", SUBJECT + "desc-projected_targets.h5", OWN),
    "region scores": Kind("accuracy of regions", SUBJECT + "desc-regions_scores.tsv", OWN),
    "failed": Kind("failed stimuli", SUBJECT + "desc-failed_stimuli.tsv", OWN),
    "shares": Kind("shares of regions", SUBJECT + "contribution.tsv", OWN),
    "map": Kind("contribution maps", SUBJECT + "space-{space}_target-{target}_contribution.nii.gz", OWN),
    "image": Kind("reconstructions", "{sub}/recon/{sub}_stim-{stim}_rep-{rep}_desc-{arm}_recon.png", FOLDER),
    "shown": Kind("seen images and starting points", "{sub}/recon/{sub}_stim-{stim}_desc-{shown}_recon.png", FOLDER),
    "images": Kind("sidecar of the images", "{sub}/recon/{sub}_recon.json", is_sidecar=True),
    "surface map": Kind(
        "contribution maps on the surface",
        SUBJECT + "hemi-{hemi}_space-{space}_target-{target}_contribution.shape.gii",
        OWN,
    ),
    "accuracy map": Kind("accuracy maps", SUBJECT + "space-{space}_target-{target}_accuracy.nii.gz", OWN),
    "surface accuracy map": Kind(
        "accuracy maps on the surface", SUBJECT + "hemi-{hemi}_space-{space}_target-{target}_accuracy.shape.gii", OWN
    ),
    "slices": Kind("pictures of contribution maps", "{sub}/figures/{sub}_target-{target}_contribution.png"),
    "views": Kind("views of contribution maps", "{sub}/figures/{sub}_target-{target}_desc-{view}_contribution.png"),
    "profile": Kind("layer profile", "{sub}/figures/{sub}_desc-profile_contribution.{form}"),
    "anatomy": Kind("anatomy", ANATOMY + "T1w.nii.gz", OWN, standard=True),
    "regions": Kind("regions", ANATOMY + "seg-{seg}_dseg.nii.gz", OWN, standard=True),
    "labels": Kind("names of regions", ANATOMY + "seg-{seg}_dseg.tsv", OWN, standard=True),
    "crossval page": Kind("page of a cross-validation", "crossval/{sub}.html"),
    "crossval scores": Kind("scores of a cross-validation", "crossval/{sub}_desc-crossval_scores.tsv", OWN),
    "crossval embeddings": Kind("cross-validated embeddings", "crossval/{sub}_desc-crossval_embeddings.h5", OWN),
    "surface regions": Kind("regions on the surface", HEMISPHERE + "seg-{seg}_dseg.label.gii", OWN, standard=True),
    "group page": Kind("group's page", "group.html"),
    "group scores": Kind("group's scores", "group_desc-recon_scores.tsv", OWN),
    "group summary": Kind("group's summary", "group_desc-summary_scores.json"),
    "group shares": Kind("group's shares of regions", "group_contribution.tsv", OWN),
}
"""Every kind of file that a run writes, but the sidecars of single files."""
ACCURACY = ("accuracy map", "surface accuracy map", "region scores")
"""Kinds that tell what regions decode."""
COMPUTED = ("embeddings", "map", "surface map", "slices", "views", "image", "shown")
VIEWS = ("glass", "fsaverage")
"""Pictures of a map beside its slices: seen through the brain, and brought to fsaverage."""
FROM_SCANS = ("anatomy", "regions", "labels", "surface regions")
"""Kinds of which a run writes other files with other parameters or scans; those of an earlier one must go."""


def stem(name: str) -> str:
    """A file's name without its suffix, which may be .nii.gz, .shape.gii or .label.gii."""
    return re.sub(r"\.(shape|label)$", "", name.removesuffix(".gz").rsplit(".", 1)[0])


def sidecar(path: Path) -> Path:
    """`x.json` for `x.nii.gz`, `x.tsv` or `x.h5`."""
    return path.with_name(stem(path.name) + ".json")


_SIDECARS = {
    path: Kind(f"sidecar of {kind.what}", path, is_sidecar=True, standard=kind.standard)
    for kind in KINDS.values()
    if kind.sidecar == OWN
    for path in [stem(kind.path) + ".json"]
}
PATTERNS = (*KINDS.values(), *_SIDECARS.values())
"""Every kind of file that a run writes."""
NO_RESULTS = ("work", "nsd")
"""Folders of OUT_DIR that are no results: caches of the engine, and the demo's simulated raw data."""


def unknown_to_bids() -> list[str]:
    """What a BIDS validator is to ignore, as `.bidsignore` says it: patterns of files and folders below OUT_DIR."""
    paths = (PurePosixPath(kind.path) for kind in PATTERNS if not kind.standard)
    # of a folder within the subject's its name is enough, and the validator wants it without a slash
    inside = {str(path if len(path.parts) < 3 else path.parent) for path in paths}
    patterns = (re.sub(r"\{\w+\}", "*", path.replace("{sub}", "sub-*")) for path in inside)
    return sorted({*patterns, *NO_RESULTS})


def kind_of(path: str | PurePosixPath) -> Kind | None:
    """The declared kind of a path below OUT_DIR, or None."""
    return next((kind for kind in PATTERNS if kind.regex.fullmatch(str(path))), None)


def sidecar_of(path: str, kind: Kind) -> str | None:
    """Where the sidecar of a path below OUT_DIR must be; None where it needs none."""
    place = PurePosixPath(path)
    if kind.sidecar == NONE:
        return None
    if kind.sidecar == OWN:
        return str(place.with_name(stem(place.name) + ".json"))
    return str(place.with_name(KINDS["images"].name(**(kind.entities(place.name) or {}))))


def entity(name: str, key: str) -> str | None:
    """Value of an entity in any name of BIDS's: `entity("sub-01_stim-00013_recon.png", "stim")` is "00013"."""
    found = re.search(rf"(?:^|_){key}-({VALUE})", name)
    return found and found[1]


def without_entities(name: str, *keys: str) -> str:
    """A name's stem less some entities and our images' suffix: `cat` of `cat_rep-2_recon`."""
    return re.sub(rf"(?:^|_)(?:{'|'.join(keys)})-{VALUE}(?=_|$)", "", name).removesuffix("_recon").removeprefix("_")


def numbering(stimulus_ids: Iterable[int], labels: Collection[str] = ()) -> dict[str, object]:
    """What a sidecar says of the numbers in file names: NSD's own, or places of labels, which it then lists."""
    if not labels:
        return {NUMBERS: NSD_NUMBERS}
    return {NUMBERS: OWN_NUMBERS, LABELS: labels_by_number(stimulus_ids, labels)}


def labels_by_number(stimulus_ids: Iterable[int], labels: Iterable[str]) -> dict[str, str]:
    """Own scans' labels by the number of the stimulus in file names."""
    return {stimulus_entity(s): label for s, label in zip(stimulus_ids, labels, strict=True)}


def stimulus_entity(stimulus_id: int) -> str:
    """The value of a file name's `stim`."""
    return f"{int(stimulus_id):05d}"


def plain(text: str) -> str:
    """A name as the value of an entity: its letters and digits."""
    return re.sub("[^0-9A-Za-z]", "", text)


def bids_label(subject: str) -> str:
    """`sub-01` for `subj01`, `sub-01` or `01`."""
    value = subject.removeprefix("sub-").removeprefix("subj")
    if not value.isalnum():
        raise UserError(f"participant label must look like subj01, got {subject!r}.")
    return f"sub-{value}"


def nsd_name(subject: str) -> str:
    """NSD's `subj01` for `sub-01`, `subj01` or `01`."""
    return "subj" + bids_label(subject).removeprefix("sub-")


@dataclass(frozen=True)
class Derivatives:
    """Places of one subject's output.

    Attributes
    ----------
    out_dir : Path
        Folder of all subjects.
    subject : str
        NSD's name, `subj01`; files say `sub-01`.
    space : str
        Space of the betas.
    decoder : str
        Kind of decoder that decoded the embeddings.
    """

    out_dir: Path
    subject: str
    space: str = SPACES[0]
    decoder: str = DecodingParams().decoder

    page = Place("page")
    complete = Place("complete")
    """Written last, and gone while a run rewrites the subject."""
    scores = Place("scores")
    summary = Place("summary")
    contribution_table = Place("shares")
    failed = Place("failed")
    worth = Place("worth")
    projected = Place("projected")
    """True targets, projected on the span of the training targets."""
    region_scores = Place("region scores")
    recon_sidecar = Place("images")
    anatomy = Place("anatomy")
    """T1 in the space of the betas."""

    def place(self, kind: str, **entities: object) -> Path:
        """Path of the file of a kind of `KINDS`."""
        path = KINDS[kind].path.format(sub=self.label, space=self.space, **entities)
        return Path(self.out_dir) / path

    @property
    def label(self) -> str:
        """`sub-01` for `subj01`."""
        return bids_label(self.subject)

    @property
    def folder(self) -> Path:
        return Path(self.out_dir) / self.label

    @property
    def embeddings(self) -> Path:
        return self.place("embeddings", decoder=self.decoder)

    @property
    def recon(self) -> Path:
        """Folder of the images."""
        return self.recon_sidecar.parent

    def image(self, stimulus_id: int, repeat: int, arm: str) -> Path:
        """One reconstruction; repeats count from 1."""
        return self.place("image", stim=stimulus_entity(stimulus_id), rep=repeat, arm=arm)

    def shown(self, stimulus_id: int, what: str) -> Path:
        """The seen image (`seen`) or the decoded starting point (`start`) of one stimulus."""
        return self.place("shown", stim=stimulus_entity(stimulus_id), shown=what)

    @property
    def on_surface(self) -> bool:
        """Whether maps and regions are files of a surface, one for each hemisphere."""
        return self.space in SURFACES

    def regions(self, family: str) -> Path:
        """Label volume of one ROI family; its label table and sidecar differ in the suffix."""
        return self.place("regions", seg=plain(family))

    def surface_regions(self, family: str) -> list[Path]:
        """The same on both hemispheres of a surface."""
        return [self.place("surface regions", hemi=hemi, seg=plain(family)) for hemi in HEMISPHERES.values()]

    def contribution(self, target: str) -> Path:
        return self.place("map", target=target)

    def maps(self, target: str) -> list[Path]:
        """The files of a target's map: one volume, or both hemispheres of a surface."""
        if not self.on_surface:
            return [self.contribution(target)]
        return [self.place("surface map", hemi=hemi, target=target) for hemi in HEMISPHERES.values()]

    def accuracy_maps(self, target: str) -> list[Path]:
        """The files of the map of what the best region of each voxel decodes: as `maps`."""
        if not self.on_surface:
            return [self.place("accuracy map", target=target)]
        return [self.place("surface accuracy map", hemi=hemi, target=target) for hemi in HEMISPHERES.values()]

    def slices(self, target: str) -> Path:
        """Picture of brain slices with one target's contribution."""
        return self.place("slices", target=target)

    def view(self, target: str, view: str) -> Path:
        """Another picture of that map: one of `VIEWS`."""
        return self.place("views", target=target, view=view)

    @property
    def profile(self) -> tuple[Path, Path]:
        """Figure of all targets over regions, as PNG and SVG."""
        return self.place("profile", form="png"), self.place("profile", form="svg")

    def find(self, kind: str, **known: str) -> list[tuple[Path, dict[str, str]]]:
        """The subject's files of one kind, and what their names say."""
        return KINDS[kind].find(self.folder, **{"sub": self.label, **known})

    def uri(self, path: Path) -> str:
        """BIDS URI of a file of this output, such as `bids::sub-01/sub-01_desc-ridge_embeddings.h5`."""
        return f"bids::{Path(path).relative_to(self.out_dir).as_posix()}"


def names_of(places: Derivatives, targets: Iterable[str], stimulus_ids: Iterable[int], repeats: int) -> set[str]:
    """Names of embeddings, maps, their pictures, and images of a run with these targets, stimuli and repeats."""
    names = {places.embeddings.name}
    for target in targets:
        pictures = [places.slices(target), *(places.view(target, view) for view in VIEWS)]
        names |= {path.name for path in (*places.maps(target), *pictures)}
    for stimulus in map(int, stimulus_ids):
        names |= {places.shown(stimulus, what).name for what in SHOWN}
        names |= {places.image(stimulus, k, arm).name for k in range(1, repeats + 1) for arm in ARMS}
    return names


def remove_stale(places: Derivatives, kept: Collection[str], kinds: Iterable[str] = COMPUTED) -> list[Path]:
    """Remove files of a subject, with their sidecars, that are not among the names `kept`.

    They are of an earlier run and would pass for results of the last one, whose parameters their sidecars would have.

    Parameters
    ----------
    places : Derivatives
    kept : collection of str
        Names of files.
    kinds : iterable of str
        Keys of `KINDS`: of which kinds files go.

    Returns
    -------
    list of Path
        What was removed.
    """
    stale = [path for kind in kinds for path, _ in places.find(kind) if path.name not in kept]
    for path in stale:
        path.unlink(missing_ok=True)
        if path.suffix != ".png":
            sidecar(path).unlink(missing_ok=True)
    return stale
