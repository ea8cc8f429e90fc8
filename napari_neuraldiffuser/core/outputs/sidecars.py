"""The JSON beside every data file: what it is, what it was made from, with which parameters, and by what.

No time stamps and no paths of this machine: the same run gives the same bytes, and a file with that content is not
touched.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import json_object, write_json
from napari_neuraldiffuser.core.base.names import KINDS, Derivatives, plain, sidecar
from napari_neuraldiffuser.core.base.recipe import OWN_SPACE
from napari_neuraldiffuser.core.outputs.anatomy import looks_stripped
from napari_neuraldiffuser.core.outputs.columns import ONE, columns, first_line, row_of
from napari_neuraldiffuser.core.outputs.description import generated_by, model_name, write_about, write_description
from napari_neuraldiffuser.core.outputs.raw import Raw, RunOf, raw_sources

Content = dict[str, Any]
TARGET_TEXT = {
    "z": "Image latent (4, height, width) that the diffusion starts from.",
    "c": "Text embedding (tokens, width) that conditions the diffusion.",
    "g": "Features of one layer of the guide network (tokens, width).",
}


@dataclass(frozen=True)
class Facts:
    """What sidecars say of one subject's run, in plain values.

    Attributes
    ----------
    settings : dict
        `Settings.to_dict()`.
    model, model_digest : str
        Name without a path, and SHA-256 of the model's files.
    raw : dict of str to tuple of str
        BIDS URIs of the raw files, as `raw.raw_sources` gives them.
    links : dict of str to str
        BIDS `DatasetLinks` of those URIs.
    notes : tuple of str
        What was left out while betas were read, and what has no value.
    """

    settings: dict[str, dict[str, Any]]
    model: str
    model_digest: str
    raw: Raw = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: RunOf, model_digest: str, notes: Iterable[str] = ()) -> "Facts":
        """Facts of a `Job`; reads no data, only looks which raw files there are."""
        raw, links = raw_sources(job)
        settings = job.settings.to_dict()
        settings["betas"]["roi"] = without_folders(settings["betas"]["roi"])
        settings["evaluation"]["metric_weights"] = Path(settings["evaluation"]["metric_weights"]).name
        return cls(settings, model_name(job.models), model_digest, raw, links, tuple(notes))

    def sources(self, *whats: str) -> list[str]:
        """Raw files of some kinds, in the order given, each once."""
        return list(dict.fromkeys(uri for what in whats for uri in self.raw.get(what, ())))


def notes_of(places: Derivatives) -> list[str]:
    """The notes of a finished subject, as its sidecars have them."""
    return list((json_object(sidecar(places.embeddings)) or {}).get("Notes", ()))


def without_folders(roi: str) -> str:
    """An ROI expression with the names of mask files in place of their paths."""
    from napari_neuraldiffuser.core.nsd.selection import with_masks

    return with_masks(roi, lambda path: re.split(r"[/\\]", path)[-1])


def write_sidecars(places: Derivatives, facts: Facts) -> list[Path]:
    """Write the sidecar of every data file there is of one subject, and the dataset's links to raw data.

    Parameters
    ----------
    places : Derivatives
        Of a subject whose files are written.
    facts : Facts

    Returns
    -------
    list of Path
        All sidecars, rewritten or as they were.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    found = {sidecar(files[0]): (files, content) for files, content in _contents(places, facts)}
    stale = {path: about for path, about in found.items() if not _says(path, *about)}
    # what made them takes torch to find out, which a run that changed nothing does without
    made_by = generated_by() if stale else []
    for path, (_, content) in stale.items():
        content = {"GeneratedBy": made_by, **content}
        if json_object(path) == content:
            path.touch()  # the same bytes, as new as the data
        else:
            write_json(path, content)
    if stale or not _linked(places.out_dir, facts.links):
        write_description(places.out_dir, facts.links)
    write_about(places.out_dir)
    if not places.failed.is_file():
        # a table of failed stimuli goes when none fails any more; its sidecar with it
        sidecar(places.failed).unlink(missing_ok=True)
    return list(found)


def _says(path: Path, files: list[Path], content: Content) -> bool:
    """Whether a sidecar has that content and was written for these data.

    Then what generated them stays what it says, whatever runs now.
    """
    known = json_object(path) or {}
    same = {name: value for name, value in known.items() if name != "GeneratedBy"} == content
    return same and "GeneratedBy" in known and all(f.stat().st_mtime_ns <= path.stat().st_mtime_ns for f in files)


def _linked(out_dir: Path, links: Mapping[str, str]) -> bool:
    """Whether the dataset's description is there and has these links."""
    found = (json_object(Path(out_dir) / KINDS["description"].path) or {}).get("DatasetLinks")
    return isinstance(found, dict) and all(found.get(name) == link for name, link in links.items())


def _contents(places: Derivatives, facts: Facts) -> Iterator[tuple[list[Path], Content]]:
    """Files of one stem, and what their sidecar says."""
    single = {
        places.embeddings: _embeddings,
        places.scores: _scores,
        places.contribution_table: _table,
        places.worth: _worth,
        places.projected: _projected,
        places.region_scores: _region_scores,
        places.failed: _failed,
        places.anatomy: _anatomy,
    }
    for path, describe in single.items():
        if path.is_file():
            yield [path], describe(places, facts)
    for kind in ("map", "surface map"):
        for path, said in places.find(kind, space=places.space):
            yield [path], _map(said["target"], places, facts)
    for kind in ("accuracy map", "surface accuracy map"):
        for path, said in places.find(kind, space=places.space):
            yield [path], _accuracy_map(said["target"], places, facts)
    for path, said in places.find("surface regions"):
        yield [path], _regions(path, said["seg"], places, facts)
    for path, said in places.find("regions"):
        tables = [table for table, _ in places.find("labels", **said)]
        yield [path, *tables], _regions(path, said["seg"], places, facts)


def _made(facts: Facts, sources: list[str], *stages: str) -> Content:
    """What all sidecars say: sources, model, parameters of the stages that made the file."""
    content: Content = {"Sources": sources}
    if "features" in stages or "diffusion" in stages:
        content |= {"Model": facts.model, "ModelDigest": facts.model_digest}
    if stages:
        content["Parameters"] = {stage: facts.settings[stage] for stage in stages}
    if "betas" in stages:
        content["ROI"] = facts.settings["betas"]["roi"]
        if facts.notes:
            content["Notes"] = list(facts.notes)
    return content


def _embeddings(places: Derivatives, facts: Facts) -> Content:
    layers = ", ".join(facts.settings["features"]["layers"])
    datasets = {
        "z": TARGET_TEXT["z"],
        "c": TARGET_TEXT["c"],
        "g/<layer>": f"{TARGET_TEXT['g']} Layers: {layers}.",
        "stimulus_id": "0-based id of the stimulus of each row: NSD's 73k id (from 73000 NSD-synthetic, from "
        "74000 NSD-imagery), or the index of own scans' label.",
    }
    if places.space == OWN_SPACE:
        datasets["stimulus_label"] = "Label of the stimulus of each row, as the trials table of own scans has it."
    return {
        "Description": "Embeddings decoded from the betas of the test stimuli, one row per stimulus.",
        "Datasets": datasets,
        "Space": places.space,
        **_spread(places),
        **_made(facts, facts.sources("betas", "stimuli"), "betas", "features", "decoding"),
    }


def _scores(places: Derivatives, facts: Facts) -> Content:
    definitions: dict[str, str] = {}
    with suppress(LookupError, TypeError, ValueError):
        definitions = dict((json_object(places.summary) or {})["protocol"]["metrics"])
    return {
        "Description": "Scores of every reconstruction against the seen image.",
        **columns(first_line(places.scores), definitions),
        **_made(facts, [places.uri(places.recon), *facts.sources("stimuli")], "evaluation"),
    }


def _table(places: Derivatives, facts: Facts) -> Content:
    regions = [places.uri(path) for path, _ in places.find("regions")]
    return {
        "Description": "Share of each region's voxels in the prediction of each target.",
        **columns(first_line(places.contribution_table)),
        "Space": places.space,
        **_made(facts, [*facts.sources("betas", "stimuli"), *regions], *MAP_STAGES),
    }


def _worth(places: Derivatives, facts: Facts) -> Content:
    from napari_neuraldiffuser.core.decoding.worth.columns import COLUMNS

    return {
        "Description": "What decoded values are worth: held-out accuracy of every target, beside chance and ceilings.",
        **_defined(COLUMNS),
        "Space": places.space,
        **_spread(places),
        **_made(facts, [places.uri(places.embeddings), *facts.sources("betas", "stimuli")], *MAP_STAGES),
    }


def _spread(places: Derivatives) -> Content:
    """What was done about the spread of each decoded target, as the embeddings' file says."""
    from napari_neuraldiffuser.core.networks.embeddings import spread_of

    lines = spread_of(places.embeddings)
    return {"Spread": lines} if lines else {}


def _projected(places: Derivatives, facts: Facts) -> Content:
    return {
        "Description": "True targets of the test stimuli, projected on the span of the training targets: the best that "
        "a linear decoder of these training stimuli could give. To be reconstructed from like decoded embeddings.",
        **_made(facts, facts.sources("betas", "stimuli"), *MAP_STAGES),
    }


def _region_scores(places: Derivatives, facts: Facts) -> Content:
    from napari_neuraldiffuser.core.decoding.worth.columns import REGION_COLUMNS

    regions = [places.uri(path) for path, _ in places.find("regions")]
    return {
        "Description": "How well ridge fitted to the voxels of each region alone decodes each target.",
        **_defined(REGION_COLUMNS),
        "Space": places.space,
        **_made(facts, [*facts.sources("betas", "stimuli"), *regions], *MAP_STAGES),
    }


def _defined(columns: Mapping[str, tuple[str, str]]) -> Content:
    """Description and unit of a table's columns."""
    return {name: {"Description": text, **({"Units": unit} if unit else {})} for name, (text, unit) in columns.items()}


MAP_TEXT = {
    "": "Share of every {element} in the prediction of one target; 0 outside those that were used.",
    "roi-only": "R² of one target decoded from the region alone that a {element} lies in, of several the largest in "
    "size; 0 outside regions.",
    "lost-without": "R² of one target that is lost without the region that a {element} lies in, of several the largest "
    "in size; 0 outside regions.",
}
"""What the values of a map are, by the kind of the table of regions."""
MAP_STAGES = ("betas", "features", "decoding", "contribution")


def _map(target: str, places: Derivatives, facts: Facts) -> Content:
    about = row_of(places.contribution_table, target=target)
    element = "vertex" if places.on_surface else "voxel"
    kind = {"Kind": about["kind"], "Total": float(about["total"])} if {"kind", "total"} <= set(about) else {}
    return {
        "Description": MAP_TEXT.get(about.get("kind", ""), MAP_TEXT[""]).format(element=element),
        "Target": target,
        "TargetDescription": TARGET_TEXT[target[0]],
        "Units": ONE,
        **kind,
        "Space": places.space,
        "SpatialReference": _reference(places),
        **_made(facts, facts.sources("betas", "stimuli"), *MAP_STAGES),
    }


def _accuracy_map(target: str, places: Derivatives, facts: Facts) -> Content:
    element = "vertex" if places.on_surface else "voxel"
    return {
        "Description": f"R² on the test stimuli of ridge fitted to a region alone, of the best region that a {element} "
        "lies in; 0 outside all regions.",
        "Target": target,
        "TargetDescription": TARGET_TEXT[target[0]],
        "Units": ONE,
        "Space": places.space,
        "SpatialReference": _reference(places),
        **_made(facts, [places.uri(places.region_scores), *facts.sources("betas", "stimuli")], *MAP_STAGES),
    }


def _reference(places: Derivatives) -> str:
    """What BIDS calls the spatial reference: a standard surface, the anatomy, or nothing better than the data."""
    if places.on_surface:
        return f"{places.space} (FreeSurfer)"
    return places.uri(places.anatomy) if places.anatomy.is_file() else "orig"


def _failed(places: Derivatives, facts: Facts) -> Content:
    return {
        "Description": "Stimuli without a reconstruction.",
        **columns(first_line(places.failed)),
        **_made(facts, [places.uri(places.embeddings)], "diffusion", "guidance"),
    }


def _anatomy(places: Derivatives, facts: Facts) -> Content:
    return {
        "Description": "Anatomy in the space of the betas.",
        "Space": places.space,
        "SpatialReference": "orig",
        "SkullStripped": looks_stripped(places.anatomy),
        **_made(facts, facts.sources("anatomy")),
    }


def _regions(path: Path, short: str, places: Derivatives, facts: Facts) -> Content:
    """Has the family's own name, which a file name cannot hold."""
    names = {plain(what): what for what in (w.removeprefix("rois/") for w in facts.raw)}
    family = str((json_object(sidecar(path)) or {}).get("Family", names.get(short, short)))
    return {
        "Description": "Regions of one family as labels; "
        + ("the file has their names." if places.on_surface else "the table of the same name has their names."),
        "Family": family,
        "Space": places.space,
        "SpatialReference": _reference(places),
        **_made(facts, facts.sources(f"rois/{family}")),
    }
