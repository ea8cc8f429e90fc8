"""Results from the nodes' folders to the output folder."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.names import ACCURACY, COMPUTED, FROM_SCANS, Derivatives, remove_stale
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.outputs import complete
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from napari_neuraldiffuser.core.params import settings_from_dict
from nipype.interfaces.base import Directory, InputMultiObject, SimpleInterface, TraitedSpec, isdefined, traits

from nipype_interfaces.interfaces.base import VersionedSpec, given, unstamped
from nipype_interfaces.no_environment import NoEnvironment


class DerivativesSinkInputSpec(VersionedSpec):
    out_dir = Directory(mandatory=True, desc="Output folder of all subjects.")
    label = traits.Str(mandatory=True, desc="sub-01")
    files = InputMultiObject(traits.Any, mandatory=True, desc="Files below a folder sub-01, or sub-01.html; or None.")
    absent = traits.List(traits.Str, desc="Names below the subject's folder that go where no file has them.")
    source = traits.Dict(desc="As in SubjectReport; with settings, every data file gets a BIDS sidecar.")
    settings = traits.Dict(requires=["source", "models", "model_digest"], desc="Settings.to_dict().")
    models = traits.Str(desc="As in GuidedReconstruct.")
    model_digest = traits.Str(desc="Of CheckModels.")
    notes = traits.List(traits.Str, desc="Of SubjectReport.")


class DerivativesSinkOutputSpec(TraitedSpec):
    out_files = traits.List(traits.Str, desc="The files in the output folder.")


class DerivativesSink(NoEnvironment, SimpleInterface):
    """Copy files to the output folder under their BIDS names, each at once (temporary name, then renamed).

    With `settings`, sidecars and `dataset_description.json` are written, too, and images, maps, anatomy and regions
    go that an earlier run left and this one has not.

    It runs every time, so that a file that was deleted there comes back; one that is there already is not touched.
    The mark of a complete subject is taken away first and written last, once there are scores.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import DerivativesSink
    >>> DerivativesSink(label="sub-01").inputs.label
    'sub-01'
    """

    input_spec, output_spec = DerivativesSinkInputSpec, DerivativesSinkOutputSpec
    _always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        out_dir, label = Path(self.inputs.out_dir), self.inputs.label
        places = Derivatives(out_dir, label)
        complete.reopen(places)
        written = [place_file(Path(file), out_dir, label) for file in flat(self.inputs.files)]
        names = {path.name for path in written}
        for name in self.inputs.absent if isdefined(self.inputs.absent) else ():
            if name not in names:
                (out_dir / label / name).unlink(missing_ok=True)
        if isdefined(self.inputs.settings):
            written += self._write_sidecars(names)
        if places.summary.is_file():
            written.append(complete.vouch(places))
        self._results["out_files"] = [str(path) for path in written]
        return runtime

    def _write_sidecars(self, names: set[str]) -> list[Path]:
        inputs, source = self.inputs, unstamped(self.inputs.source)
        settings = settings_from_dict(dict(inputs.settings))
        job = Job(Path(), Path(inputs.out_dir), settings=settings, models=inputs.models, source=source)
        remove_stale(job.places, names, (*COMPUTED, *ACCURACY, *FROM_SCANS))
        return write_sidecars(job.places, Facts.of(job, inputs.model_digest, given(inputs.notes, ())))


def flat(values: Iterable[Any]) -> Iterable[str]:
    """Files of nested lists; None and undefined ones are left out."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flat(value)
        elif isdefined(value) and value is not None:
            yield str(value)


def place_file(path: Path, out_dir: Path, label: str) -> Path:
    """Copy one file to its place below `out_dir`, unless it is there with that size and time."""
    place = out_dir / relative_place(path, label)
    about = path.stat()
    if place.is_file():
        there = place.stat()
        if (there.st_size, there.st_mtime_ns) == (about.st_size, about.st_mtime_ns):
            return place
    with atomic_path(place) as temporary:
        shutil.copy2(path, temporary)
    return place


def relative_place(path: Path, label: str) -> Path:
    """`sub-01/recon/x.png` of .../report/sub-01/recon/x.png; the page lies beside the subject's folder."""
    if path.suffix == ".html":
        return Path(path.name)
    at = [k for k, part in enumerate(path.parts[:-1]) if part == label]
    if not at:
        raise UserError(f"files to place must lie below a folder {label}, got {path}. Name them as the interfaces do.")
    return Path(*path.parts[at[-1] :])
