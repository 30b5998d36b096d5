"""Datasets of scalar activations: sharded Zarr stores with commit records.

Knows arrays, files and metadata; nothing of models, Ray or statistics.
"""

from .block import Block
from .dataset import Dataset, ensure_dataset, open_dataset
from .errors import DatasetError
from .run import Run
from .template import RunPlan
from .writer import write_block

__all__ = ["Block", "Dataset", "DatasetError", "Run", "RunPlan", "ensure_dataset", "open_dataset", "write_block"]
