"""The recorder of a forward pass: what is read at each site, and what is put in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import SITES, Site

from ..errors import PipelineError, UnsupportedModelError
from .decoder import Decoder
from .hook import hook_site

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Activations that a forward pass is to go on with instead of its own: an ablation.

    ``values`` holds one number a unit, or one for all. They are put at the tokens that are read (the last of each
    prompt, and the answer's), or with ``everywhere`` at every token.
    """

    site: Site
    layer: int
    units: tuple[int, ...]
    values: tuple[float, ...] = (0.0,)
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class ReadTokens:
    """Where a pass is read: token t of the answer, at one row and column of each prompt."""

    token: int
    rows: torch.Tensor
    columns: torch.Tensor


class Recorder:
    """Keeps the activations of a batch's prompts at the tokens that are read, and nothing of the others.

    Slices are copied into one buffer on the device (prompt, token, layer, unit), the residual stream first and then
    the other sites side by side; it is as wide as the widest batch so far and is used again. With `compiled`, its hooks
    are kept out of what ``torch.compile`` makes of the model.
    """

    def __init__(self, decoder: Decoder, *, compiled: bool = False) -> None:
        import torch

        self._decoder = decoder
        self._leave_alone: Any = torch.compiler.disable if compiled else _as_it_is
        widths: dict[Site, int] = {"residual": decoder.n_residual, **decoder.shape.units}
        self._spans: dict[Site, slice] = {}
        start = 0
        for site in SITES:
            if site in widths:
                self._spans[site] = slice(start, start + widths[site])
                start += widths[site]
        self._width = start
        self._buffer = torch.empty(0)
        self._n_prompts = 0
        self._read: ReadTokens | None = None

    @property
    def residual(self) -> torch.Tensor:
        """The residual stream as recorded so far, shape (prompt, token, layer, unit), on the device."""
        return self._site("residual")

    def begin_batch(self, n_prompts: int, *, dtype: torch.dtype, device: torch.device) -> None:
        """Make room for the prompts of a batch."""
        import torch

        self._n_prompts = n_prompts
        if len(self._buffer) < n_prompts:
            self._buffer = torch.empty(0)  # the old one goes before the new one comes
            shape = self._decoder.shape
            wanted = (n_prompts, shape.n_tokens, shape.n_layers, self._width)
            self._buffer = torch.empty(wanted, dtype=dtype, device=device)

    def read(self, token: int, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Say where the next pass is read; tokens beyond those that are kept are not."""
        self._read = ReadTokens(token, rows, columns)

    def fetch(self) -> dict[Site, npt.NDArray[np.float32]]:
        """Return the batch's activations by site, shape (prompt, token, layer, unit), after one copy to the CPU."""
        sites = [site for site in SITES if site in self._decoder.shape.units]
        start, stop = self._spans[sites[0]].start, self._spans[sites[-1]].stop
        if "residual" not in sites:
            start = self._spans["residual"].stop
        copied = self._buffer[: self._n_prompts, ..., start:stop].cpu().float().numpy()
        return {site: copied[..., self._spans[site].start - start : self._spans[site].stop - start] for site in sites}

    @contextmanager
    def attach(self, replacements: Sequence[Replacement] = (), *, record: bool = True) -> Iterator[None]:
        """Replace, and `record`, in every forward pass made inside the ``with`` block."""
        validate_replacements(self._decoder, replacements)
        handles = [  # first, so that what they put in place is recorded
            hook_site(self._decoder, r.site, r.layer, self._leave_alone(_replacer(r, self))) for r in replacements
        ]
        handles += [
            hook_site(self._decoder, site, layer, self._leave_alone(self._keeper(site, layer)))
            for site in (self._spans if record else ())
            for layer in range(len(self._decoder.blocks))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _site(self, site: Site) -> torch.Tensor:
        return self._buffer[: self._n_prompts, ..., self._spans[site]]

    def _keeper(self, site: Site, layer: int) -> Any:
        def keep(activation: torch.Tensor) -> None:
            if activation.dim() != 3:
                raise UnsupportedModelError(
                    f"layer {layer}: expected {site} of shape (row, token, unit), found {tuple(activation.shape)}; "
                    "this decoder is not supported"
                )
            read = self._read
            if read is not None and read.token < self._decoder.shape.n_tokens:
                kept = activation[read.rows.to(activation.device), read.columns.to(activation.device)]
                self._site(site)[:, read.token, layer] = kept

        return keep


def _as_it_is(see: Any) -> Any:
    return see


def validate_replacements(decoder: Decoder, replacements: Sequence[Replacement]) -> None:
    """Check that every replacement names units that the decoder has.

    Raises
    ------
    PipelineError
        Naming the first that does not.
    """
    shape = decoder.shape
    for replacement in replacements:
        n_units = shape.units.get(replacement.site, 0)
        where = f"replacement at {replacement.site}, layer {replacement.layer}"
        if not 0 <= replacement.layer < shape.n_layers:
            raise PipelineError(f"{where}: expected a layer from 0 to {shape.n_layers - 1}; choose one of them")
        if not all(0 <= unit < n_units for unit in replacement.units):
            raise PipelineError(
                f"{where}: expected units from 0 to {n_units - 1}, found {max(replacement.units, default=None)}; "
                "choose among those of a recorded site"
            )
        if len(replacement.values) not in (1, len(replacement.units)):
            raise PipelineError(
                f"{where}: expected one value, or one for each of {len(replacement.units)} units, found "
                f"{len(replacement.values)}; give as many"
            )


def _replacer(replacement: Replacement, recorder: Recorder) -> Any:
    def replace(activation: torch.Tensor) -> torch.Tensor:
        import torch

        device = activation.device
        units = torch.tensor(replacement.units, device=device)
        values = torch.tensor(replacement.values, dtype=activation.dtype, device=device)
        changed = activation.clone()
        read = recorder._read
        if replacement.everywhere:
            changed[..., units] = values
        elif read is not None:
            changed[read.rows.to(device)[:, None], read.columns.to(device)[:, None], units] = values
        return changed

    return replace
