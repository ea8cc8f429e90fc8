"""Workflows of the interfaces, to run as they are or to embed behind a preprocessing workflow.

Every one has an `inputnode`, whose fields `describe` tells about, and an `outputnode`; parameters of the method are
static and the same in all of them, given as a `Plan`.
"""

from nipype_interfaces.workflows.betas import init_betas_wf
from nipype_interfaces.workflows.nodes import (
    MULTIPROC,
    Plan,
    across,
    describe,
    flatten,
    into,
    set_inputs,
    split_chunks,
)
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
    "MULTIPROC", "Plan", "across", "describe", "flatten", "init_betas_wf", "init_contribution_wf", "init_evaluate_wf",
    "init_fit_decoders_wf", "init_load_wf", "init_neuraldiffuser_wf", "init_reconstruct_wf", "init_report_wf",
    "init_subject_wf", "into", "set_inputs", "split_chunks",
]  # fmt: skip
