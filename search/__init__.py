"""The search for Super Neurons in stored activations.

Knows datasets and numbers; nothing of models or Ray.
"""

from .classifier import SuperNeurons
from .errors import SearchError
from .evaluation import SearchReport, search_run
from .group import GroupAccuracy, measure_groups
from .stump import fit_stumps
from .supervision import Supervision, read_supervision

__all__ = [
    "GroupAccuracy",
    "SearchError",
    "SearchReport",
    "SuperNeurons",
    "Supervision",
    "fit_stumps",
    "measure_groups",
    "read_supervision",
    "search_run",
]
