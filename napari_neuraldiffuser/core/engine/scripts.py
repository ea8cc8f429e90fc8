"""Scripts that compute a run again: from its provenance to the text of a Python script and of a Nipype script.

Every value is written with `repr`, so that a path or label is a literal whatever characters it has.
"""

from dataclasses import fields
from typing import Any

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.params import Params

STAGES = ("betas", "features", "decoding", "diffusion", "guidance")
"""The stages that decide the images."""


def python_script(provenance: dict[str, Any]) -> str:
    """The run in plain Python: run in an empty folder, it writes the run's images to `./images`.

    Parameters
    ----------
    provenance : dict
        What a run's `provenance.json` holds.
    """
    recipe, loaded = Recipe.from_dict(provenance["recipe"]), provenance["decoder"]["path"]
    return PYTHON.format(
        about=_about(provenance),
        params_imports=", ".join(sorted(_classes(recipe, loaded))),
        source_import="\nfrom napari_neuraldiffuser.core.base.recipe import Source" if recipe.source.own else "",
        settings=_settings(recipe, loaded),
        open_source=_open_source(recipe),
        models=_arguments(recipe.models, recipe.guide or None, recipe.device),
        decoder=LOADED.format(path=loaded) if loaded else FITTED,
        **_common(provenance, recipe),
    )


def nipype_script(provenance: dict[str, Any]) -> str:
    """The run as a Nipype workflow, in the folder where the script is run."""
    recipe, loaded = Recipe.from_dict(provenance["recipe"]), provenance["decoder"]["path"]
    return NIPYPE.format(
        about=_about(provenance),
        params_imports=", ".join(sorted(_classes(recipe, loaded))),
        settings=_settings(recipe, loaded),
        source=_nipype_source(recipe),
        models=f"dict(models={recipe.models!r}, guide={recipe.guide!r}, device={recipe.device!r})",
        label=recipe.source.subject,
        nodes=NIPYPE_LOADED.format(path=loaded) if loaded else NIPYPE_FITTED,
        **_common(provenance, recipe),
    )


def _common(provenance: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    return {
        "torch_threads": int(provenance["torch_threads"]),
        "blas_threads": int(provenance["blas_threads"]),
        "stimuli": list(recipe.stimulus_ids),
        "arms": "{" + ", ".join(f"{arm!r}: {ARM_GUIDANCE[arm]}" for arm in recipe.arms) + "}",
        "expected": _expected(provenance),
    }


def _about(provenance: dict[str, Any]) -> str:
    versions = provenance["versions"]
    made = ", ".join(f"{name} {versions[name]}" for name in ("napari-neuraldiffuser", "python", "torch", "numpy"))
    stopped = "" if provenance["complete"] else "\nThe run was stopped early; this computes all of it.\n"
    return (
        f"Computes the run of {provenance['started']} again, bit for bit on the same kind of machine.\n{stopped}\n"
        f"Made with {made}; kernels: {provenance['kernel_backend']}; device: {provenance['device']}."
    )


def _expected(provenance: dict[str, Any]) -> str:
    """Digest of the pixels of every image that was finished, as a dict."""
    whole = {name for name, arm in provenance["arms"].items() if arm["complete"]}
    rows = [(row["file"].rsplit("/")[-1], row["sha256"]) for row in provenance["images"] if row["arm"] in whole]
    return "{\n" + "".join(f"    {name!r}: {digest!r},\n" for name, digest in rows) + "}"


def _stages(loaded: str | None) -> list[str]:
    """The stages that decide the images; a loaded decoder was fitted elsewhere."""
    return [stage for stage in STAGES if not (loaded and stage in ("features", "decoding"))]


def _settings(recipe: Recipe, loaded: str | None) -> str:
    return "\n".join(f"{stage} = {_call(getattr(recipe.settings, stage))}" for stage in _stages(loaded))


def _classes(recipe: Recipe, loaded: str | None) -> list[str]:
    return [type(getattr(recipe.settings, stage)).__name__ for stage in _stages(loaded)]


def _call(params: Params) -> str:
    lines = "".join(f"    {f.name}={getattr(params, f.name)!r},\n" for f in fields(params))
    return f"{type(params).__name__}(\n{lines})"


def _arguments(*values: Any) -> str:
    return ", ".join(map(repr, values))


def _open_source(recipe: Recipe) -> str:
    if not recipe.source.own:
        return f"nsd.Subject({_arguments(recipe.source.nsd_dir, recipe.source.subject)}, betas)"
    return f"nsd.open_source(\n    {recipe.source!r},\n    betas,\n)"


def _nipype_source(recipe: Recipe) -> str:
    if recipe.source.own:
        return f"dict(source={recipe.source.to_dict()!r})"
    return f"dict(nsd_dir={recipe.source.nsd_dir!r}, subject={recipe.source.subject!r})"


ARM_GUIDANCE = {"guided": "guidance", "unguided": "guidance.but(guidance_scale=0.0)"}

FITTED = """\
targets = embeddings.extract(networks, subject.stimuli, np.unique(train.stimulus_ids), "targets.h5", features)
decoder = decoders.RidgeDecoder(decoding).fit(train, targets)"""
LOADED = "decoder = decoders.RidgeDecoder.load({path!r})"

PYTHON = '''\
"""{about}
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core import decoding as decoders
from napari_neuraldiffuser.core import embeddings, models, nsd, reconstruct
from napari_neuraldiffuser.core.outputs.names import Derivatives
from napari_neuraldiffuser.core.params import {params_imports}{source_import}
from napari_neuraldiffuser.core.job.images import write_png

{settings}
stimuli = {stimuli}
arms = {arms}
# SHA-256 of the pixels of the run's images
expected = {expected}

# a sum rounds differently with another number of threads
torch.set_num_threads({torch_threads})
threadpool_limits({blas_threads}, "blas")

subject = {open_source}
train, test = subject.betas().split()
networks = models.load({models})
{decoder}
# all test stimuli at once: a product of matrices rounds differently with fewer rows
decoded = decoder.predict(test).subset(stimuli)

places = Derivatives(Path(), subject.name)
for arm, pull in arms.items():
    result = reconstruct(decoded, networks, diffusion, pull)
    for stimulus, repeats in zip(stimuli, result.images, strict=True):
        for repeat, image in enumerate(repeats, 1):
            path = Path("images") / places.image(stimulus, repeat, arm).name
            write_png(path, image)
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            known = expected.get(path.name, digest) == digest
            print(path, digest, "as in the run" if known else "NOT as in the run")
'''

NIPYPE_FITTED = """\
    targets = set_inputs(pe.Node(ExtractFeatures(**source, **networks), name="targets"), features)
    fit = set_inputs(pe.Node(FitDecoder(), name="fit"), decoding)
    workflow.connect(
        [
            (index, targets, [("train_ids", "stimulus_ids"), ("stamp", "stamp")]),
            (load, fit, [("betas", "betas")]),
            (targets, fit, [("targets", "targets")]),
            (fit, decode, [("decoder", "decoder")]),
        ]
    )"""
NIPYPE_LOADED = "    decode.inputs.decoder = {path!r}"

NIPYPE = '''\
"""{about}
"""

import hashlib
import shutil
from pathlib import Path

# before nipype, which would ask a server for its newest version
from nipype_interfaces.interfaces import Decode, ExtractFeatures, FitDecoder, GuidedReconstruct, LoadNSDBetas, NSDIndex
from nipype_interfaces.workflows import set_inputs

# isort: split
import torch
from nipype.pipeline import engine as pe
from skimage import io
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.params import {params_imports}

{settings}
source = {source}
networks = {models}
stimuli = {stimuli}
arms = {arms}
# SHA-256 of the pixels of the run's images
expected = {expected}


def build() -> pe.Workflow:
    """NSD files to the images of every arm."""
    workflow = pe.Workflow("reconstruction", base_dir=str(Path.cwd()))
    index = set_inputs(pe.Node(NSDIndex(**source), name="index"), betas)
    load = set_inputs(pe.Node(LoadNSDBetas(**source), name="betas"), betas)
    decode = pe.Node(Decode(), name="decode")
    workflow.connect([(index, load, [("stamp", "stamp")]), (load, decode, [("betas", "betas")])])
{nodes}
    for arm, pull in arms.items():
        recon = GuidedReconstruct(**networks, stimulus_ids=stimuli, label={label!r}, arms=[arm])
        recon = set_inputs(pe.Node(recon, name=arm), diffusion, pull)
        workflow.connect(decode, "embeddings", recon, "embeddings")
    return workflow


def collect(files: list[str]) -> None:
    """Copy images to ./images and compare their pixels with the run's."""
    Path("images").mkdir(exist_ok=True)
    for file in map(Path, files):
        path = Path(shutil.copy(file, "images"))
        digest = hashlib.sha256(io.imread(path).tobytes()).hexdigest()
        known = expected.get(path.name, digest) == digest
        print(path, digest, "as in the run" if known else "NOT as in the run")


if __name__ == "__main__":
    # a sum rounds differently with another number of threads
    torch.set_num_threads({torch_threads})
    threadpool_limits({blas_threads}, "blas")
    for node in build().run(plugin="Linear").nodes():
        if node.name in arms:
            collect(node.result.outputs.images)
'''
