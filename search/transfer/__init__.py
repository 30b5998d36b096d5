"""What Super Neurons carry over to other tasks, prompts, pictures, layers and models.

A study is a labelled xarray Dataset, kept in the store below ``_transfer``; see `search.transfer.study`.
"""

from .basis import study_basis
from .depth import study_depth
from .model_match import match_models
from .picture import draw_studies
from .run_transfer import TransferSpec, transfer_runs
from .set_overlap import compare_sets
from .study import open_study
from .survey import Survey

__all__ = [
    "Survey",
    "TransferSpec",
    "compare_sets",
    "draw_studies",
    "match_models",
    "open_study",
    "study_basis",
    "study_depth",
    "transfer_runs",
]
