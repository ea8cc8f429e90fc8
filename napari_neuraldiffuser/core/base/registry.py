"""What can be chosen: layers, targets and spaces; a registry each of decoders, guidance rules, attributions, metrics.

To add to a registry, write the entry in a file of its own and name it here.  Params take a registry as the `choices` of
a field; napari controls, Nipype traits and command-line options follow.  Standard library only.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError

LAYERS = ("g02", "g04", "g06", "g08", "g10", "g12")
"""Guidance layers: the second MLP linear of vision transformer blocks 0..5 (the authors' Linear-2 ... Linear-12)."""

TARGETS = ("z", "c", *LAYERS)
ALIGN_FORMS = ("none", "group", "shrunk", "column")
"""How the spread of a decoded target is changed: not; by one factor; halfway; by a factor for each column."""

SURFACES = ("fsaverage",)
SPACES = ("func1pt8mm", "func1mm", *SURFACES)
"""NSD's spaces: volumes, and the surface that all subjects share."""

TEST_SETS = ("core", "synthetic", "imagery")
"""What is decoded of an NSD subject: the test images of the core experiment (shared 1000), or a further session's."""

HEMISPHERES = {"lh": "L", "rh": "R"}
"""The hemispheres of a surface, in the order of positions: how FreeSurfer's files begin, and BIDS's entity `hemi`."""


class Registry(Mapping[str, Any]):
    """Name -> entry, in the order of registration.

    Parameters
    ----------
    what : str
        What an entry is, for messages.
    entries : mapping of str to object
        An entry is the object itself, or the text "package.module:name" of one that is imported when it is asked for,
        so that its name can be offered without what it imports.
    """

    def __init__(self, what: str, entries: Mapping[str, Any]) -> None:
        self.what = what
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """The entry of that name; UserError with the known ones if there is none."""
        if name not in self._entries:
            raise UserError(f"{self.what} must be one of {list(self)}, got {name!r}.")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = getattr(importlib.import_module(module), attribute)
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def register(self, name: str, entry: Any) -> None:
        """Add an entry; UserError if the name is taken."""
        if name in self._entries:
            raise UserError(f"{self.what} must have a name of its own, got {name!r} again. Choose another name.")
        self._entries[name] = entry

    def remove(self, name: str) -> None:
        """Take an entry out, such as that of a plugin that ends."""
        del self._entries[name]


CORE = "napari_neuraldiffuser.core"

DECODERS = Registry(
    "decoder",
    {
        "ridge": f"{CORE}.decoding.ridge:RidgeDecoder",
        "contrastive": f"{CORE}.decoding.contrastive.decoder:LinearContrastiveDecoder",
        "network": f"{CORE}.decoding.network.decoder:NetworkDecoder",
    },
)
"""Classes with the methods of `decoding.Decoder`."""

JOINT = ("network",)
"""Decoders that learn all their targets together, and are not linear."""

ESTIMATORS = Registry(
    "estimator",
    {
        "lss": f"{CORE}.bold.linear:LSS",
        "lsa": f"{CORE}.bold.linear:LSA",
        "glmsingle": f"{CORE}.bold.single:GLMSINGLE",
    },
)
"""`bold.linear.Estimator` records: from BOLD to single-trial betas."""

GUIDANCE_RULES = Registry(
    "guidance rule",
    {
        "noise": f"{CORE}.diffusion.rules:NOISE",
        "dps": f"{CORE}.diffusion.rules:DPS",
        "lgd": f"{CORE}.diffusion.rules:DPS",
        "freedom": f"{CORE}.diffusion.rules:FREEDOM",
        "mpgd": f"{CORE}.diffusion.rules:MPGD",
        "ugd": f"{CORE}.diffusion.rules:UGD",
        "tfg": f"{CORE}.diffusion.rules:TFG",
    },
)
"""`diffusion.rules.Rule` records: where the gradient enters a step."""

SOLVERS = Registry(
    "solver",
    {
        "ddim": f"{CORE}.diffusion.solvers:DDIM",
        "euler": f"{CORE}.diffusion.solvers:EULER",
        "dpm++": f"{CORE}.diffusion.solvers:DPM",
        "lcm": f"{CORE}.diffusion.solvers:LCM",
    },
)
"""`diffusion.solvers.Kind` records: timesteps, noise levels, and the step from one to the next."""

ATTRIBUTION_METHODS = Registry(
    "attribution method",
    {
        "auto": f"{CORE}.attribution.automatic:automatic",
        "additive": f"{CORE}.attribution.additive:additive",
        "integrated-gradients": f"{CORE}.attribution.integrated:integrated_gradients",
        "haufe": f"{CORE}.attribution.haufe:haufe",
        "roi-only": f"{CORE}.attribution.subsets:roi_only",
        "leave-out": f"{CORE}.attribution.subsets:leave_out",
        "unique": f"{CORE}.attribution.subsets:unique",
    },
)
"""Functions with the arguments of `attribution.map` that return its `ContributionMaps`."""

LINEAR_ATTRIBUTION = ("additive", "haufe")
REFITTED_ATTRIBUTION = ("roi-only", "leave-out", "unique")
"""Attribution methods for linear decoders alone, and those that fit a ridge decoder anew."""

METRICS = Registry(
    "metric",
    {
        "pixcorr": f"{CORE}.evaluation.standard:PIXCORR",
        "ssim": f"{CORE}.evaluation.standard:SSIM",
        "edges": f"{CORE}.evaluation.standard:EDGES",
        "twoway_edges": f"{CORE}.evaluation.standard:TWOWAY_EDGES",
        "repeat_pixcorr": f"{CORE}.evaluation.standard:REPEAT_PIXCORR",
        "repeat_ssim": f"{CORE}.evaluation.standard:REPEAT_SSIM",
        "repeat_edges": f"{CORE}.evaluation.standard:REPEAT_EDGES",
        "twoway_features": f"{CORE}.evaluation.standard:TWOWAY_FEATURES",
        "repeat_features": f"{CORE}.evaluation.standard:REPEAT_FEATURES",
        "repeat_identification": f"{CORE}.evaluation.standard:REPEAT_IDENTIFICATION",
        "nway_edges": f"{CORE}.evaluation.standard:NWAY_EDGES",
        "rank_edges": f"{CORE}.evaluation.standard:RANK_EDGES",
        "nway_features": f"{CORE}.evaluation.standard:NWAY_FEATURES",
        "rank_features": f"{CORE}.evaluation.standard:RANK_FEATURES",
        "alexnet2": f"{CORE}.evaluation.standard:ALEXNET2",
        "alexnet5": f"{CORE}.evaluation.standard:ALEXNET5",
        "inception": f"{CORE}.evaluation.standard:INCEPTION",
        "clip": f"{CORE}.evaluation.standard:CLIP",
        "efficientnet": f"{CORE}.evaluation.standard:EFFICIENTNET",
        "swav": f"{CORE}.evaluation.standard:SWAV",
        "clip_nway": f"{CORE}.evaluation.standard:CLIP_NWAY",
        "clip_rank": f"{CORE}.evaluation.standard:CLIP_RANK",
    },
)
"""`evaluation.Metric` records, in the order of tables and pages."""

NETWORK_METRICS = ("alexnet2", "alexnet5", "inception", "clip", "efficientnet", "swav", "clip_nway", "clip_rank")
"""Metrics of networks whose weights the user gives."""
