"""Scripts that compute a run again: from its provenance to the text of a Python script and of a Nipype script.

Every value is written with `repr`, so that a path or label is a literal whatever characters it has.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.base.registry import SURFACES
from napari_neuraldiffuser.core.params import Params

STAGES = ("betas", "features", "decoding", "diffusion", "guidance")
"""The stages that decide the images."""
TEMPLATES = Path(__file__).parent / "templates"


def python_script(provenance: dict[str, Any]) -> str:
    """The run in plain Python: run in an empty folder, it writes the run's images to `./images`.

    Parameters
    ----------
    provenance : dict
        What a run's `provenance.json` holds.
    """
    recipe, loaded = Recipe.from_dict(provenance["recipe"]), provenance["decoder"]["path"]
    return _template("plain").format(
        about=_about(provenance),
        params_imports=", ".join(sorted(_classes(recipe, loaded))),
        recipe_imports="guidance_of" if _by_kind(recipe) else "Source, guidance_of",
        settings=_settings(recipe, loaded),
        open_source=_open_source(recipe),
        models=_arguments(recipe.models, recipe.guide or None, recipe.device),
        decoder=LOADED.format(path=loaded) if loaded else FITTED,
        **_common(provenance, recipe),
    )


def nipype_script(provenance: dict[str, Any]) -> str:
    """The run as a Nipype workflow, in the folder where the script is run."""
    recipe, loaded = Recipe.from_dict(provenance["recipe"]), provenance["decoder"]["path"]
    return _template("workflow").format(
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
        "arms": list(recipe.arms),
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
    named = _arguments(recipe.source.nsd_dir, recipe.source.subject)
    if _by_kind(recipe):
        return f"nsd.{'SurfaceSubject' if recipe.settings.betas.space in SURFACES else 'Subject'}({named}, betas)"
    return f"nsd.open_source(\n    {recipe.source!r},\n    betas,\n)"


def _by_kind(recipe: Recipe) -> bool:
    """Whether folder and subject say all of the source; the others need more files."""
    return not recipe.source.own and not recipe.source.challenge and not recipe.source.further


def _nipype_source(recipe: Recipe) -> str:
    if not _by_kind(recipe):
        return f"dict(source={recipe.source.to_dict()!r})"
    return f"dict(nsd_dir={recipe.source.nsd_dir!r}, subject={recipe.source.subject!r})"


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.py.txt").read_text(encoding="utf-8")


FITTED = """\
targets = embeddings.extract(networks, subject.stimuli, np.unique(train.stimulus_ids), "targets.h5", features)
decoder = decoders.new(decoding).fit(train, targets)"""
LOADED = "decoder = decoders.load({path!r})"
NIPYPE_FITTED = """\
    targets = set_inputs(pe.Node(ExtractFeatures(**networks), name="targets"), features)
    fit = set_inputs(pe.Node(FitDecoder(), name="fit"), decoding)
    workflow.connect(
        [
            (index, targets, [("train_ids", "stimulus_ids"), ("source", "source")]),
            (load, fit, [("betas", "betas")]),
            (targets, fit, [("targets", "targets")]),
            (fit, decode, [("decoder", "decoder")]),
        ]
    )"""
NIPYPE_LOADED = "    decode.inputs.decoder = {path!r}"
