"""From a scanner's preprocessed BOLD, events and confounds to single-trial betas, a mask and a table of trials."""

from napari_neuraldiffuser.core.bold.bids import find_runs, participants
from napari_neuraldiffuser.core.bold.runs import BoldError, Run
from napari_neuraldiffuser.core.bold.stage import Written, make_betas
from napari_neuraldiffuser.core.bold.survey import Survey, survey

__all__ = ["BoldError", "Run", "Survey", "Written", "find_runs", "make_betas", "participants", "survey"]
