"""Datasets of scalar activations: sharded Zarr stores with commit records.

Knows arrays, files and metadata; nothing of models, Ray or statistics.
"""

from .array_import import from_arrays
from .dataset import Dataset, ensure_dataset, open_dataset, validate_target
from .errors import DatasetError
from .fetch import fetch_dataset
from .run import Run
from .template import RunPlan
from .writer import write_block

__all__ = [
    "Dataset",
    "DatasetError",
    "Run",
    "RunPlan",
    "ensure_dataset",
    "fetch_dataset",
    "from_arrays",
    "open_dataset",
    "validate_target",
    "write_block",
]
