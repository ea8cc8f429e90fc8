"""What is installed, which kernel backend runs and why, and whether a model folder is complete."""

import json
import os
import platform
from importlib import util
from pathlib import Path
from typing import Any

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks.chosen import chosen
from napari_neuraldiffuser.core.networks.digest import OPTIONAL_PARTS, PARTS
from napari_neuraldiffuser.core.networks.folder import ModelFolder, Part, fit_problems
from napari_neuraldiffuser.core.networks.kernels.backend import backend_info
from napari_neuraldiffuser.core.networks.source import ModelError
from napari_neuraldiffuser.core.networks.words import vocabulary_size
from napari_neuraldiffuser.core.outputs.description import installed

REQUIRED = (
    *("torch", "numpy", "scipy", "pandas", "h5py", "nibabel", "nilearn", "scikit-image"),
    *("diffusers", "transformers"),
)
OPTIONAL = {"napari": "napari", "qtpy": "napari", "pyqt6": "napari", "nipype": "nipype", "himalaya": "dev"}


def doctor(models: str | Path | None = None, guide: str | Path | None = None) -> dict[str, Any]:
    """Describe this installation; nothing missing makes it fail.

    Parameters
    ----------
    models : path, optional
        A model folder or hub id to check; None or "demo" for the bundled demo models.
    guide : path, optional
        Its guide network, where the folder has no image_encoder.

    Returns
    -------
    dict
        neuraldiffuser, python, platform : versions
        packages : {name: version or None}
        computing : {device: what `precision` auto, `batch_size` 0 and the batch itself are on it}
        kernels : `core.networks.kernels.ops.backend_info()`, or {"backend": None, "reason": sentence}
        models : as `check_models` describes them
        cpu_count : int
        problems : list of sentences, empty when everything that the command line needs is there
    """
    packages = {name: installed(name) for name in (*REQUIRED, *OPTIONAL)}
    report: dict[str, Any] = {
        "neuraldiffuser": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": packages,
        "kernels": _kernels(),
        "computing": _computing(),
        "models": check_models(models or "demo", guide),
    }
    report["problems"] = _problems(report)
    return report


def check_models(models: str | Path, guide: str | Path | None = None) -> dict[str, Any]:
    """What the parts of a model folder lack; names and shapes of all weights are compared, and no weight is read.

    Returns
    -------
    dict
        folder : str
        complete : bool
        parts : {name: file of the weights, or of the configuration, that is read}, for what is there
        problems : list of sentences
        megabytes : float, size of all files
        words : int, that captions can hold, or None where they can hold any
        settings : str, what runs use that name no preset, and why
    """
    try:
        place = ModelFolder.of(models, guide)
    except ModelError as error:
        nothing: dict[str, Any] = {
            "parts": {},
            "problems": [str(error)],
            "megabytes": 0.0,
            "words": None,
            "settings": "",
        }
        return {"folder": str(models), "complete": False, **nothing}
    found, problems = _examine(place)
    size = sum(f.stat().st_size for f in place.folder.rglob("*") if f.is_file())
    return {
        "folder": str(place.folder),
        "complete": not problems,
        "parts": {name: part.read for name, part in found.items() if name not in problems},
        # a folder that lacks several parts is one problem
        "problems": list(dict.fromkeys(problems.values())),
        "megabytes": round(size / 1e6, 2),
        "words": vocabulary_size(found["tokenizer"].folder) if "tokenizer" in found else None,
        "settings": chosen(models, guide).said,
    }


def _examine(place: ModelFolder) -> tuple[dict[str, Part], dict[str, str]]:
    """Parts that were found, and a sentence for every part that cannot be used."""
    found: dict[str, Part] = {}
    problems: dict[str, str] = {}
    for name in (*PARTS, *(name for name in OPTIONAL_PARTS if place.place(name).is_dir())):
        try:
            found[name] = place.part(name)
        except ModelError as error:
            problems[name] = str(error)
    problems = dict(fit_problems({name: part.config for name, part in found.items()}, found)) | problems
    try:
        from napari_neuraldiffuser.core.networks.opening import weight_problems

        problems = dict(weight_problems(found)) | problems
    except (ImportError, OSError, RuntimeError) as error:
        # a broken torch or diffusers: files and configurations still tell
        problems["weights"] = (
            f"Weights must be compared with their configurations, and torch or diffusers fail: {error}."
        )
    return found, {name: problems[name] for name in (*PARTS, *OPTIONAL_PARTS, "weights") if name in problems}


def as_text(report: dict[str, Any]) -> str:
    """The report of `doctor` for people."""
    kernels, models = report["kernels"], report["models"]
    state = "complete" if models["complete"] else "incomplete"
    lines = [
        f"neuraldiffuser {report['neuraldiffuser']}, Python {report['python']}, {report['platform']}",
        f"kernels: {kernels['backend'] or 'none'}: {kernels['reason']}",
        *_built(kernels),
        f"GPU: {', '.join(d['name'] for d in kernels.get('cuda_devices', [])) or 'none that torch can use'}",
        *(f"computing on {device}: {how}" for device, how in report["computing"].items()),
        f"models: {models['folder']}, {models['megabytes']} MB, {state}",
        *(f"  {name}: {file}" for name, file in models["parts"].items()),
        *(
            [f"  captions: {models['words']} words are known, others are read as one unknown word"]
            * bool(models["words"])
        ),
        *([f"  {models['settings']}"] if models["settings"] else []),
        *(f"  {name} {version or 'not installed'}" for name, version in report["packages"].items()),
        *(f"problem: {problem}" for problem in report["problems"]),
    ]
    return "\n".join(lines)


def as_json(report: dict[str, Any]) -> str:
    """The report of `doctor` for machines."""
    return json.dumps(report, indent=2)


def _built(kernels: dict[str, Any]) -> list[str]:
    """The compiled file and what is in it."""
    if not kernels.get("extension"):
        return []
    architectures = ", ".join(kernels["built_architectures"]) or "none"
    cuda = f" (CUDA {kernels['built_cuda']})" if kernels["built_cuda"] else ""
    sanitize = f", sanitizers {kernels['sanitize']}" if kernels["sanitize"] else ""
    return [
        f"  file {kernels['extension']}, compiled against torch {kernels['built_torch']}{sanitize}",
        f"  CPU instruction set {kernels['isa']}, GPU architectures {architectures}{cuda}",
    ]


def _kernels() -> dict[str, Any]:
    if util.find_spec("torch") is None:
        return {"backend": None, "reason": "torch is not installed, so nothing can be computed."}
    try:
        return backend_info()
    except UserError as error:
        return {"backend": None, "reason": str(error)}
    except (ImportError, OSError, RuntimeError) as error:
        # a broken torch or driver is exactly what a doctor is asked about
        return {"backend": None, "reason": f"torch cannot be used: {error}"}


def _computing() -> dict[str, str]:
    """What is chosen by device, as a sentence for each."""
    if util.find_spec("torch") is None:
        return {}
    try:
        from napari_neuraldiffuser.core.networks.room import choices

        return choices()
    except (ImportError, OSError, RuntimeError) as error:
        return {"cpu": f"unknown, as torch cannot be used: {error}"}


def _problems(report: dict[str, Any]) -> list[str]:
    problems = []
    absent = [name for name in REQUIRED if report["packages"][name] is None]
    if absent:
        problems.append(f"Packages must be installed, missing: {', '.join(absent)}. Run: make install")
    if report["kernels"]["backend"] is None:
        problems.append(report["kernels"]["reason"])
    return problems + report["models"]["problems"]
