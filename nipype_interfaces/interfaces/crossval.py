"""Prepared betas and targets -> every stimulus decoded by a decoder that has not seen it, and scores."""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.params import CrossvalParams, DecodingParams
from nipype.interfaces.base import File, TraitedSpec, traits

from nipype_interfaces.interfaces import base
from nipype_interfaces.spec import params_of, params_spec


class CrossValidateInputSpec(base.VersionedSpec, base.PretrainedSpec, params_spec(DecodingParams, CrossvalParams)):
    betas = File(exists=True, mandatory=True, desc="Prepared betas, HDF5; which stimuli are test plays no part.")
    targets = File(exists=True, mandatory=True, desc="Target embeddings of all their images, HDF5.")
    source = traits.Dict(desc="Own scans, fields of core.base.recipe.Source: where `category` is looked for.")
    label = traits.Str("sub-01", usedefault=True, desc="Subject of the file names, sub-01 or subj01.")


class CrossValidateOutputSpec(TraitedSpec):
    embeddings = File(exists=True, desc="HDF5 with the decoded z, c and g of every stimulus.")
    scores = File(exists=True, desc="TSV of R², correlation, two-way identification and its p-value per target.")
    stimulus_ids = traits.List(traits.Int, desc="Stimuli in the order of the embeddings.")


class CrossValidate(base.CoreInterface):
    """Nested cross-validation of any kind of decoder, for small sets and those without test stimuli.

    Raises
    ------
    DecodingError
        If there are too few stimuli for the folds, or a stimulus has no targets.
    NSDError
        If there are no such categories.

    Examples
    --------
    >>> from nipype_interfaces.interfaces import CrossValidate
    >>> CrossValidate(folds=5, decoder="ridge").inputs.permutations
    1000
    """

    input_spec, output_spec = CrossValidateInputSpec, CrossValidateOutputSpec

    def core(self, folder: Path, progress: Progress) -> dict[str, Any]:
        from napari_neuraldiffuser.core.decoding.crossval import cross_validate
        from napari_neuraldiffuser.core.networks.embeddings import TargetFile
        from napari_neuraldiffuser.core.nsd.categories import stimulus_categories
        from napari_neuraldiffuser.core.outputs.crossval import CrossvalFiles, write_scores

        given, params = self.inputs, params_of(self.inputs, CrossvalParams)
        categories = None
        source = base.given(given.source, None)
        if params.category and not source:
            raise UserError(f"category must have a source to be looked for in, got {params.category!r}. Give both.")
        if source:
            categories = stimulus_categories(nsd.open_source(base.unstamped(source)), params.category)
        files = CrossvalFiles.of(Derivatives(folder, given.label))
        with TargetFile(given.targets) as targets:
            decoding, betas = params_of(given, DecodingParams), nsd.load_betas(given.betas)
            found = cross_validate(betas, targets, decoding, params, categories, progress)
        write_scores(found, files.scores)
        found.decoded.save(files.embeddings)
        ids = [int(one) for one in found.decoded.stimulus_ids]
        return {"embeddings": str(files.embeddings), "scores": str(files.scores), "stimulus_ids": ids}
