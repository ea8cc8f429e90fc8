"""NSD folders and this project's output folders as layers: anatomy, regions, contributions, pictures."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.base.registry import SPACES, TARGETS
from napari_neuraldiffuser.widgets.files import layers
from napari_neuraldiffuser.widgets.files.arrival import Found, arrive
from napari_neuraldiffuser.widgets.files.hemispheres import surface_layers
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, about, nsd_source
from napari_neuraldiffuser.widgets.files.outputs import SubjectOutputs, find_outputs, region_names, subject_folders
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

OWN_KINDS = ("map", "surface map", "regions", "image", "shown")
"""Any of these says that a sub-XX folder is ours; other tools write dataset_description.json and sub-XX too."""

FIRST_FAMILIES = (layers.SHOWN_FAMILY, "nsdgeneral")
"""Of an NSD folder that is opened: each layer costs napari a fifth of a second and more, in which nothing answers."""
FAMILIES = (*FIRST_FAMILIES, "floc-faces", "floc-bodies", "floc-places", "floc-words")
"""That the Data page shows, one layer after the other; a folder can hold a dozen more."""


class FolderError(UserError):
    """A folder has nothing that can be shown; the message says what must be in it."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """napari's reader hook for folders: quick, and None for any folder that is not NSD's or ours."""
    if not isinstance(path, (str, Path)):
        if len(path) != 1:
            return None
        path = path[0]
    try:
        if nsd_subjects(path):
            return read_nsd
        return read_output if is_output(path) else None
    except OSError:
        return None  # a folder that may not be looked into


def nsd_subjects(path: str | Path) -> list[Source]:
    """The subjects of an NSD folder, its nsddata or ppdata, or the one whose folder this is or lies below."""
    path = Path(path).absolute()
    if not path.is_dir():
        return []
    one = nsd_source(path)
    if one is not None:
        return [one]
    for ppdata in (path / "nsddata/ppdata", path / "ppdata", path):
        if ppdata.name == "ppdata" and ppdata.parent.name == "nsddata" and ppdata.is_dir():
            subjects = sorted(p.name for p in ppdata.glob("subj*") if p.is_dir())
            return [Source(str(ppdata.parents[1]), name) for name in subjects]
    return []


def is_output(path: str | Path) -> bool:
    """Whether a folder is OUT_DIR or OUT_DIR/sub-XX of a run."""
    return any(KINDS[kind].find(folder) for folder in subject_folders(path) for kind in OWN_KINDS)


def read_nsd(path: str | Path | list[str]) -> list[Any]:
    """Anatomy and regions of the first subject of an NSD folder, as `arrive` gives them.

    Raises
    ------
    FolderError
        If there is neither an anatomy nor a region.
    """
    return arrive(partial(find_nsd, Path(path[0] if isinstance(path, list) else path)))


def find_nsd(folder: Path) -> Found:
    """What `read_nsd` shows."""
    sources = nsd_subjects(folder)
    if not sources:
        raise FolderError(
            f"folder must hold nsddata/ppdata/subjXX, got {folder}. Choose the folder that holds nsddata."
        )
    found, notes = nsd_layers(sources[0], _space(folder, sources[0]), FIRST_FAMILIES)
    return Found(found, [*_others(sources[0].subject, [source.subject for source in sources[1:]]), *notes])


def _space(path: Path, source: Source) -> str:
    """The volume space: that of the chosen folder, else the first that the subject has."""
    named = [part for part in path.parts if part in SPACES]
    folder = Path(source.nsd_dir) / "nsddata/ppdata" / source.subject
    return next((space for space in (*named, *SPACES) if (folder / space).is_dir()), SPACES[0])


def nsd_layers(source: Source, space: str, families: tuple[str, ...] = FAMILIES) -> tuple[list[LayerData], list[str]]:
    """Anatomy and these families of one NSD subject (all where it has none of them), and notes on what is left out.

    Needs no betas on disk.
    """
    from napari_neuraldiffuser.core.nsd.layout import Layout
    from napari_neuraldiffuser.core.nsd.rois import available, read_rois

    layout = Layout(Path(source.nsd_dir), source.subject, space)
    found: list[LayerData] = []
    notes: list[str] = []
    if layout.anatomy.is_file():
        found.append(layers.anatomy_layer(layout.anatomy, about("anatomy", source, space=space)))
    there = available(layout)
    shown = [name for name in there if name in families] or there
    if others := [name for name in there if name not in {*shown, *FAMILIES}]:
        notes.append(f"{', '.join(others)} can be added: open the volumes in {layout.roi_folder}.")
    for name in shown:
        told = about("roi", source, family=name, space=space)
        try:
            found.append(layers.roi_layer(read_rois(layout, name), name == layers.SHOWN_FAMILY, told))
        except UserError as error:
            notes.append(f"ROI {name} is not shown: {error}")
    if not found:
        raise FolderError(
            f"{layout.volumes} must hold {layout.anatomy.name} or volumes in roi, got none that can be shown. "
            + " ".join(notes or ["Download NSD's anatomical files of this subject."])
        )
    return found, notes


def read_output(path: str | Path | list[str]) -> list[Any]:
    """What an output folder has of its first subject, as `arrive` gives it; pictures go to their dock."""
    return arrive(partial(find_output, Path(path[0] if isinstance(path, list) else path)))


def find_output(folder: Path) -> Found:
    """What `read_output` shows."""
    subjects = find_outputs(folder)
    first, *others = subjects
    return Found(output_layers(subjects[first]), _others(first, others), subjects[first].pictures)


def output_layers(outputs: SubjectOutputs) -> list[LayerData]:
    """Layers of one subject's results, bottom first."""
    output = outputs.folder.absolute().parent
    found: list[LayerData] = []
    if outputs.anatomy:
        found.append(layers.anatomy_layer(outputs.anatomy, about("anatomy", output=output)))
    shown = {k: v for k, v in outputs.regions.items() if k == layers.SHOWN_FAMILY} or outputs.regions
    for family, volume in shown.items():
        told = about("roi", output=output, family=family)
        found.append(layers.regions_layer(volume, region_names(volume), told, visible=family == layers.SHOWN_FAMILY))
    found += surface_layers(outputs.surfaces, output)
    for target in _in_order(outputs.accuracies)[-1:]:  # beneath the contribution, to be shown instead of it
        found.append(layers.accuracy_layer(outputs.accuracies[target], target, output))
    for target in _in_order(outputs.maps)[-1:]:  # the Contribution panel has the others
        found.append(layers.contribution_layer(outputs.maps[target], target, output))
    return found


def _in_order(targets: Iterable[str]) -> list[str]:
    return sorted(targets, key=lambda t: TARGETS.index(t) if t in TARGETS else len(TARGETS))


def _others(shown: str, others: list[str]) -> list[str]:
    where = f"The folder also holds {', '.join(others)}: open the folder of that subject."
    return [f"{shown} is shown. {where}"] if others else []


Read = tuple[list[LayerData], list[str]]
"""Layers, bottom first, and notes on what is not among them."""


def read_source(source: Source, space: str, progress: Progress) -> Read:
    """Anatomy and regions of a source in one volume space."""
    progress(0, 0, "reading anatomy and regions")
    found, notes = own_layers(source, progress) if source.own else nsd_layers(source, space)
    if not any(keywords["metadata"][KEY]["kind"] == "anatomy" for _, keywords, _ in found):
        notes.append("There is no anatomy in the betas' space: regions are shown alone.")
    return found, notes


def own_layers(source: Source, progress: Progress) -> Read:
    """Anatomy, mask and label volumes of own scans."""
    from napari_neuraldiffuser.core.nsd import OwnScans

    scans = OwnScans(source)
    found, notes = [], []
    if source.anatomy:
        found.append(layers.anatomy_layer(Path(source.anatomy), about("anatomy", source)))
    names = scans.roi_names()
    for k, name in enumerate(names):
        progress(k, len(names), "reading regions")
        try:
            found.append(layers.roi_layer(scans.rois(name), False, about("roi", source, family=name)))
        except UserError as error:
            notes.append(f"ROI {name} is not shown: {error}")
    return found, notes


def missing_layers(viewer: "napari.Viewer", layers: list[LayerData]) -> list[LayerData]:
    """Those of `layers` that the viewer does not show yet."""
    there = [identity(layer.metadata) for layer in viewer.layers]
    return [layer for layer in layers if identity(layer[1]["metadata"]) not in there]


def identity(metadata: dict[str, Any]) -> tuple[Any, ...] | None:
    """What makes two layers of sources the same; None for other layers."""
    told = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not told or not told.get("source"):
        return None
    return told["kind"], told.get("family"), told["source"], told.get("space")
