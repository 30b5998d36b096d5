"""The search for Super Neurons in stored activations.

Knows datasets and numbers; nothing of models or Ray.
"""

from .classifier import SuperNeurons
from .errors import SearchError
from .evaluation import SearchReport, search_run
from .stump import fit_stumps
from .supervision import Supervision, read_supervision

__all__ = [
    "SearchError",
    "SearchReport",
    "SuperNeurons",
    "Supervision",
    "fit_stumps",
    "read_supervision",
    "search_run",
]
