"""Files of torch tensors, read as data: nothing but tensors, numbers, texts, lists and dictionaries is let in."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ArrayFileError

if TYPE_CHECKING:
    import torch


class WidenedTensor:
    """A tensor of a type that NumPy does not have, bfloat16 say; slices of it are float32 arrays."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.shape = tuple(tensor.shape)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float32]:
        widened: npt.NDArray[np.float32] = self._tensor[rows].float().numpy()
        return widened


def read_tensors(path: Path) -> Any:
    """Return the tensor, or the dictionary by name, that a file of ``torch.save`` holds, as arrays.

    Tensors stay on disk until they are sliced, unless the file is of torch's old format.

    Raises
    ------
    ArrayFileError
        If it cannot be read, or holds anything but a dense tensor, or a dictionary of such tensors and of lists.
    """
    import torch

    remedy = "save a tensor, or a dictionary of tensors and lists, with torch.save"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of strange pickles; what matters it refuses anyway
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ArrayFileError(
            f"{path}: expected tensors alone, found other objects or a damaged file; {remedy}"
        ) from error
    except Exception as error:  # a damaged file makes torch raise nearly anything
        reason = f"{' '.join(str(error).split()):.200}" or type(error).__name__
        raise ArrayFileError(f"{path}: expected a file that can be read, found: {reason}; {remedy}") from error
    if isinstance(held, torch.Tensor):
        return _parse_tensor(path, "the tensor", held)
    if not isinstance(held, dict):
        raise ArrayFileError(f"{path}: expected a tensor or a dictionary, found {type(held).__name__}; {remedy}")
    return {str(name): _parse_member(path, str(name), member) for name, member in held.items()}


def _parse_member(path: Path, name: str, member: Any) -> Any:
    import torch

    if isinstance(member, torch.Tensor):
        return _parse_tensor(path, name, member)
    if isinstance(member, list | tuple):
        return list(member)
    raise ArrayFileError(f"{path}, {name}: expected a tensor or a list, found {type(member).__name__}; convert it")


def _parse_tensor(path: Path, name: str, tensor: torch.Tensor) -> Any:
    """Return the tensor as an array on the same memory, or widened where NumPy lacks its type."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise ArrayFileError(f"{path}, {name}: expected a dense tensor of numbers, found another kind; convert it")
    plain = tensor.detach()
    if plain.is_floating_point() and plain.dtype not in {torch.float16, torch.float32, torch.float64}:
        return WidenedTensor(plain)
    return plain.numpy()
