"""Scans and models -> guidance strength and schedule for these models, chosen on training stimuli."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.params import TuneParams
from nipype.interfaces.base import File, TraitedSpec, traits

from nipype_interfaces.interfaces import base
from nipype_interfaces.spec import params_of, params_spec


class TuneGuidanceInputSpec(base.SourceSpec, base.ModelsSpec, params_spec(TuneParams)):
    settings = traits.Dict(desc="Settings.to_dict(): of betas, features, decoding and evaluation; else defaults.")
    starts = traits.List(traits.Str, ["scale-free"], usedefault=True, desc="Presets that the search begins from.")


class TuneGuidanceOutputSpec(TraitedSpec):
    record = File(exists=True, desc="neuraldiffuser.json of the choice: copy it into the model folder.")
    table = File(exists=True, desc="JSON of every setting that was tried.")
    page = File(exists=True, desc="HTML page.")
    diffusion = traits.Dict(desc="Changes of the defaults of DiffusionParams.")
    guidance = traits.Dict(desc="Changes of the defaults of GuidanceParams.")
    note = traits.Str(desc="What was chosen, in a sentence.")


class TuneGuidance(base.CoreInterface):
    """Guidance strength and schedule, chosen on held-out training stimuli; a killed node goes on where it was.

    The test stimuli are not read, and the model folder is not written.

    Raises
    ------
    UserError
        If there are too few training stimuli.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import TuneGuidance
    >>> TuneGuidance(models="demo", n_stimuli=12).inputs.starts
    ['scale-free']
    """

    input_spec, output_spec = TuneGuidanceInputSpec, TuneGuidanceOutputSpec
    _can_resume = True

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.job.tune import TuneJob, tune
        from napari_neuraldiffuser.core.networks.digest import CHOSEN
        from napari_neuraldiffuser.core.params import settings_from_dict

        inputs = self.inputs
        settings = settings_from_dict(dict(base.given(inputs.settings, {})))
        with base.opened_models(inputs) as models:
            job = TuneJob(
                [base.source_of(inputs)],
                folder,
                inputs.models,
                inputs.guide or None,
                inputs.device,
                settings,
                inputs.starts,
                params_of(inputs, TuneParams),
                record=folder / CHOSEN,
                command="nipype_interfaces.interfaces.TuneGuidance",
            )
            found = tune(job, progress, models)
        files = {"record": str(found.record), "table": str(found.table), "page": str(found.page)}
        return {
            **files,
            "diffusion": found.chosen["diffusion"],
            "guidance": found.chosen["guidance"],
            "note": found.note,
        }
