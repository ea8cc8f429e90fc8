"""Opens the parts of a model folder, whole or not at all; alone imports diffusers and transformers."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from napari_neuraldiffuser.core.base.files import json_object
from napari_neuraldiffuser.core.networks.architecture import AGAIN, REMEDY
from napari_neuraldiffuser.core.networks.folder import Part, check_folder, fit_problems, no_object
from napari_neuraldiffuser.core.networks.parts import NoiseSchedule
from napari_neuraldiffuser.core.networks.source import ModelError
from napari_neuraldiffuser.core.networks.weight_files import not_itself

STRANGERS = {
    # part -> names in its files that are not read, by rule: buffers of old files, and the other half of a whole CLIP
    "text_encoder": r"(.*\.)?position_ids|vision_model\..*|(visual|text)_projection\..*|logit_scale",
    "image_encoder": r"(.*\.)?position_ids|text_model\..*|text_projection\..*|logit_scale",
}
NOTHING = r"(?!)"
OF_ONE_MODEL = "Use tokenizer and text encoder of one model."
SHOWN = 3
"""Names that a message shows of each kind of fault."""


def open_parts(models: str | Path, guide: str | Path | None = None) -> dict[str, Any]:
    """Open every part of a model folder.

    Parameters
    ----------
    models, guide : as in `models.load`

    Raises
    ------
    ModelError
        If a part is missing, incomplete or does not fit.
    """
    parts = check_folder(models, guide)
    opened = {name: open_part(part) for name, part in parts.items()}
    for _, problem in _misfits(opened, parts):
        raise ModelError(problem)
    return opened


def check_weights(models: str | Path, guide: str | Path | None = None) -> None:
    """Raise ModelError where `open_parts` would, in a moment: no weight is read."""
    for _, problem in weight_problems(check_folder(models, guide)):
        raise ModelError(problem)


def weight_problems(parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    """Part and sentence for every part that cannot be opened or does not fit; no weight is read."""
    opened = {}
    for name, part in parts.items():
        try:
            opened[name] = open_part(part, weights=False)
        except ModelError as error:
            yield name, str(error)
    yield from _misfits(opened, parts)


def open_part(part: Part, weights: bool = True) -> Any:
    """Open one part by the class of its kind; every weight comes from its files, or it is refused.

    Parameters
    ----------
    part : Part
    weights : bool
        Whether numbers are read; else the network is built without any, on torch's meta device.
    """
    kind = _class_of(part.name)
    try:
        opened = kind.from_pretrained(str(part.folder), local_files_only=True, **_options(part, weights))
    except (ImportError, MemoryError):
        raise
    # of a foreign file the libraries raise whatever they met, up to a bare Exception
    except Exception as error:
        raise ModelError(_unreadable(part, error)) from error
    if part.weights is None:
        return opened
    network, told = opened
    _check_told(part, told)
    # a table of shards can promise what no shard holds
    if unread := sorted(name for name, weight in network.named_parameters() if weights and weight.is_meta):
        _check_told(part, {**told, "missing_keys": unread})
    if weights:
        _own_memory(network)
        _check_finite(part, network)
    if statistics := _pixel_statistics(part.preprocessing):
        network.pixel_statistics = statistics
    return network


def _misfits(opened: Mapping[str, Any], parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    """Part and sentence for all that does not fit, told by configurations with every default filled in."""
    yield from fit_problems({name: _config(opened[name]) for name in opened if name != "tokenizer"}, parts)
    if {"tokenizer", "text_encoder"} <= opened.keys():
        # numbers of words need not be without gaps
        words = max(opened["tokenizer"].get_vocab().values(), default=-1) + 1
        known = opened["text_encoder"].config.vocab_size
        where = f"Model part tokenizer in {parts['tokenizer'].folder}"
        if words > known:
            yield (
                "tokenizer",
                f"{where} must have no more words than the text encoder, {known}, got {words}. {OF_ONE_MODEL}",
            )
        if opened["tokenizer"].pad_token_id is None:
            yield "tokenizer", f"{where} must have a padding token, got none. {OF_ONE_MODEL}"


def _pixel_statistics(folders: Sequence[Path]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that an image encoder was trained with, from the first preprocessor configuration."""
    path = next((path for folder in folders if (path := folder / "preprocessor_config.json").is_file()), None)
    if path is None:
        return None
    if (values := json_object(path)) is None:
        what, remedy = not_itself(path) or no_object(path)
        raise ModelError(f"{path} must have image_mean and image_std, got {what}. {remedy}")
    mean, deviation = (_three(values.get(name)) for name in ("image_mean", "image_std"))
    if not mean or not deviation or min(deviation) <= 0:
        got = " and ".join(repr(values.get(name)) for name in ("image_mean", "image_std"))
        raise ModelError(
            f"{path} must have image_mean and image_std of three numbers, the latter above 0, got {got}. {AGAIN}"
        )
    return mean, deviation


def _three(values: Any) -> tuple[float, ...]:
    """One number for each colour; empty where it is something else."""
    numbers = isinstance(values, list) and all(isinstance(one, (int, float)) and math.isfinite(one) for one in values)
    return tuple(map(float, values)) if numbers and len(values) == 3 else ()


def _check_finite(part: Part, network: torch.nn.Module) -> None:
    """Raise ModelError if a weight is NaN or infinite: every image would be black, with no error."""
    bounds = ((name, weight.aminmax()) for name, weight in network.named_parameters() if weight.numel())
    broken = sorted(name for name, (low, high) in bounds if not (low.isfinite() and high.isfinite()))
    if broken:
        raise ModelError(
            f"Model part {part.name} must have finite weights in {part.folder.parent / part.read}, got NaN or infinity "
            f"in {_counted(broken, 'of them')}. {AGAIN}"
        )


def _class_of(part: str) -> Any:
    import diffusers
    import transformers

    # the libraries announce missing optional packages and draw a bar per part
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    return {
        "vae": diffusers.AutoencoderKL,
        "vae_tiny": diffusers.AutoencoderTiny,
        "unet": diffusers.UNet2DConditionModel,
        "scheduler": diffusers.DDIMScheduler,
        "text_encoder": transformers.CLIPTextModel,
        "tokenizer": transformers.AutoTokenizer,
        "image_encoder": transformers.CLIPVisionModelWithProjection,
    }[part]


def prior_schedule(n_timesteps: int) -> Any:
    """Schedule of a diffusion prior: cosine, of networks that predict what is clean; DDIM steps."""
    import diffusers

    return diffusers.DDIMScheduler(
        n_timesteps, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False
    )


def scheduler_of(library: str, scheduler: NoiseSchedule) -> Any:
    """A scheduler class of diffusers, made from the configuration of a model's own scheduler.

    Networks are asked for noise, whatever they predict themselves, and nothing is clipped.
    """
    import diffusers

    ours = {"prediction_type": "epsilon", "clip_sample": False, "thresholding": False}
    if library == "DPMSolverMultistepScheduler":
        ours |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
    return getattr(diffusers, library).from_config(scheduler.config, **ours)


def _options(part: Part, weights: bool) -> dict[str, Any]:
    """How a network's files are read: exactly those that were found, with an account of what did not fit."""
    if part.weights is None:
        return {}
    return {
        "variant": part.weights.variant,
        "use_safetensors": part.weights.safe,
        "output_loading_info": True,
        # wrong shapes come into the account, in one sentence with the rest
        "ignore_mismatched_sizes": True,
        "device_map": None if weights else "meta",
    }


def _check_told(part: Part, told: Mapping[str, Any]) -> None:
    """Raise ModelError unless the library's account says that every weight was in the files, and nothing else."""
    ignored = re.compile(STRANGERS.get(part.name, NOTHING))
    missing = sorted(told["missing_keys"])
    strange = sorted(name for name in told["unexpected_keys"] if not ignored.fullmatch(name))
    shapes = sorted((name, tuple(got), tuple(want)) for name, got, want in told["mismatched_keys"])
    others = [f"{name} {got} for {want}" for name, got, want in shapes]
    faults = {"missing": missing, "unknown": strange, "of another shape": others}
    if any(faults.values()):
        lacks_projection = missing == ["visual_projection.weight"]
        remedy = REMEDY["image_encoder"] if lacks_projection else "Download weights and configuration again, together."
        got = ", ".join(_counted(names, what) for what, names in faults.items() if names)
        raise ModelError(
            f"Model part {part.name} must have the weights that its config.json describes, and no others, got in "
            f"{part.folder.parent / part.read} {got}. {remedy}"
        )


def _unreadable(part: Part, error: Exception) -> str:
    """Sentence for a part that the libraries could not open."""
    if part.weights and not part.weights.safe:
        return (
            f"Model part {part.name} must have tensors and nothing else in {part.folder.parent / part.read}, got a "
            "pickle that is damaged or would run code. Get its weights as safetensors."
        )
    first = (str(error).strip() or "nothing").splitlines()[0]
    return f"Model part {part.name} must be readable in {part.folder}, got: {first} Download it again."


def _counted(names: Sequence[str], what: str) -> str:
    """`5 missing (a, b, c, ...)`."""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"


def _own_memory(module: torch.nn.Module) -> None:
    """Copy weights out of the mapped file: its odd alignment changes the order of sums, and so the last bits."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def _config(opened: Any) -> Mapping[str, Any]:
    config = opened.config
    return config.to_dict() if hasattr(config, "to_dict") else config
