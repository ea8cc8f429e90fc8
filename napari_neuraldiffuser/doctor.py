"""What is installed, which kernel backend runs and why, and whether a model folder is complete."""

import json
import os
import platform
from importlib import util
from pathlib import Path
from typing import Any

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks.digest import model_source
from napari_neuraldiffuser.core.networks.kernels.backend import backend_info
from napari_neuraldiffuser.core.outputs.description import installed

REQUIRED = (
    *("torch", "numpy", "scipy", "pandas", "h5py", "nibabel", "nilearn", "scikit-image"),
    *("diffusers", "transformers"),
)
OPTIONAL = {"napari": "napari", "qtpy": "napari", "pyqt6": "napari", "nipype": "nipype", "himalaya": "dev"}
MODEL_PARTS = {
    "vae": ("config.json", "diffusion_pytorch_model"),
    "unet": ("config.json", "diffusion_pytorch_model"),
    "text_encoder": ("config.json", "model"),
    "image_encoder": ("config.json", "model"),
    "scheduler": ("scheduler_config.json", None),
    "tokenizer": ("tokenizer_config.json", None),
}
"""Part -> its configuration file and the stem of its weights, in the diffusers directory layout."""


def doctor(models: str | Path | None = None) -> dict[str, Any]:
    """Describe this installation; nothing missing makes it fail.

    Parameters
    ----------
    models : path, optional
        A model folder to check; None or "demo" for the bundled demo models.

    Returns
    -------
    dict
        neuraldiffuser, python, platform : versions
        packages : {name: version or None}
        kernels : `core.networks.kernels.ops.backend_info()`, or {"backend": None, "reason": sentence}
        models : {"folder", "complete", "missing": [file, ...], "megabytes"}
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
        "models": check_model_folder(model_source(models or "demo")),
    }
    report["problems"] = _problems(report)
    return report


def check_model_folder(folder: str | Path) -> dict[str, Any]:
    """Which files of a model folder are missing; the weights are not opened.

    Returns
    -------
    dict
        folder : str
        complete : bool
        missing : list of paths below the folder
        megabytes : float, size of all files
    """
    folder = Path(folder)
    missing = [name for part, needs in MODEL_PARTS.items() for name in _missing(folder / part, *needs)]
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
    return {"folder": str(folder), "complete": not missing, "missing": missing, "megabytes": round(size / 1e6, 2)}


def as_text(report: dict[str, Any]) -> str:
    """The report of `doctor` for people."""
    kernels, models = report["kernels"], report["models"]
    state = "complete" if models["complete"] else "incomplete"
    lines = [
        f"neuraldiffuser {report['neuraldiffuser']}, Python {report['python']}, {report['platform']}",
        f"kernels: {kernels['backend'] or 'none'}: {kernels['reason']}",
        *_built(kernels),
        f"GPU: {', '.join(d['name'] for d in kernels.get('cuda_devices', [])) or 'none that torch can use'}",
        f"models: {models['folder']}, {models['megabytes']} MB, {state}",
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


def _missing(part: Path, config: str, weights: str | None) -> list[str]:
    missing = [] if (part / config).is_file() else [f"{part.name}/{config}"]
    # a star, because large models are split into shards beside an index
    if weights and not any(any(part.glob(f"{weights}*{suffix}")) for suffix in (".safetensors", ".bin")):
        missing.append(f"{part.name}/{weights}.safetensors")
    return missing


def _problems(report: dict[str, Any]) -> list[str]:
    problems = []
    absent = [name for name in REQUIRED if report["packages"][name] is None]
    if absent:
        problems.append(f"Packages must be installed, missing: {', '.join(absent)}. Run: make install")
    if report["kernels"]["backend"] is None:
        problems.append(report["kernels"]["reason"])
    models = report["models"]
    if not models["complete"]:
        missing = ", ".join(models["missing"])
        problems.append(f"{models['folder']} must hold every model part, missing: {missing}.")
    return problems
