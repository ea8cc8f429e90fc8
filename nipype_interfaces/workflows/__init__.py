"""Workflows of the interfaces, to run as they are or to embed behind a preprocessing workflow.

Every one has an `inputnode` and an `outputnode`; parameters of the method are static, given as `Settings`.
"""

from nipype_interfaces.workflows.betas import init_betas_wf
from nipype_interfaces.workflows.nodes import MULTIPROC, flatten, set_inputs, split_chunks
from nipype_interfaces.workflows.stages import (
    init_contribution_wf,
    init_evaluate_wf,
    init_fit_decoders_wf,
    init_load_wf,
    init_reconstruct_wf,
    init_report_wf,
)
from nipype_interfaces.workflows.subject import init_neuraldiffuser_wf, init_subject_wf

__all__ = [
    "MULTIPROC", "flatten", "init_betas_wf", "init_contribution_wf", "init_evaluate_wf", "init_fit_decoders_wf",
    "init_load_wf", "init_neuraldiffuser_wf", "init_reconstruct_wf", "init_report_wf", "init_subject_wf", "set_inputs",
    "split_chunks",
]  # fmt: skip
