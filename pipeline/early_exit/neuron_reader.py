"""Reading the neurons that vote, and nothing else, at the last position of each prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from search.stump_table import StumpTable
from storage.schema import Site

from ..inference.decoder import Decoder
from ..inference.hook import See, hook_site
from .course import Course

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

Place = tuple[Site, int]
"""A site of a layer."""

Units = npt.NDArray[np.int64]
"""Units of a site, ascending, each once: int64 (unit,)."""


def find_units(tables: Iterable[StumpTable]) -> dict[Place, Units]:
    """Return the units that stumps of `tables` have at each place, the first layer first."""
    found: dict[Place, set[int]] = defaultdict(set)
    for table in tables:
        for site, _, layer, unit in table.addresses():
            found[site, layer].add(unit)
    ordered = sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    return {place: np.array(sorted(units), dtype=np.int64) for place, units in ordered}


class Kept(NamedTuple):
    """What was read at a place of the prompts that were open then: (prompt, unit), all units or the wanted ones."""

    prompts: torch.Tensor
    activations: torch.Tensor
    is_whole: bool


class NeuronReader:
    """Keeps the activations of chosen neurons of a batch's prompts.

    Parameters
    ----------
    decoder
        Whose sites are read.
    units
        What is read at each place, the first layer first.
    """

    def __init__(self, decoder: Decoder, units: Mapping[Place, Units]) -> None:
        import torch

        self._decoder = decoder
        self.units = units
        self._indices = {place: torch.from_numpy(wanted) for place, wanted in units.items()}
        self._kept: dict[Place, Kept] = {}
        self._columns: dict[tuple[tuple[tuple[Place, int, bool], ...], torch.device], torch.Tensor] = {}
        self._course: Course | None = None

    def attach(self, places: Iterable[Place]) -> list[RemovableHandle]:
        """Read at `places` in every pass made inside a ``with`` block of `follow`, until the handles are removed."""
        return [hook_site(self._decoder, site, layer, self._keeper((site, layer))) for site, layer in places]

    @contextmanager
    def follow(self, course: Course) -> Iterator[None]:
        """Read what is computed of `course` inside the ``with`` block, and forget it afterwards."""
        self._course = course
        try:
            yield
        finally:
            self._course = None
            self._kept.clear()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Read nothing inside the ``with`` block, where modules are given last positions alone."""
        course, self._course = self._course, None
        try:
            yield
        finally:
            self._course = course

    def keep(self, course: Course, place: Place, activations: torch.Tensor) -> None:
        """Keep what the wanted units of a place are for the open prompts of `course`, (prompt, unit)."""
        self._kept[place] = Kept(course.prompts, activations, is_whole=False)

    def fetch(self, course: Course, places: Sequence[Place]) -> npt.NDArray[np.float32]:
        """Return what was read of the open prompts at `places`, in that order, side by side: float32 (prompt, unit).

        There is one copy to the CPU.
        """
        import torch

        kept = [self._kept[place] for place in places]
        device = kept[-1].activations.device
        parts = [self._take_open(part, course).to(device) for part in kept]
        together = torch.cat(parts, dim=1)
        if any(part.is_whole for part in kept):
            widths = [
                (place, part.shape[1], one.is_whole) for place, part, one in zip(places, parts, kept, strict=True)
            ]
            together = together.index_select(1, self._find_columns(tuple(widths), device))
        return together.cpu().float().numpy()

    def _take_open(self, kept: Kept, course: Course) -> torch.Tensor:
        if kept.activations.shape[0] == course.n_open:
            return kept.activations
        import torch

        rows = torch.searchsorted(kept.prompts, course.prompts)  # those that are open now were open then
        return kept.activations.index_select(0, rows.to(kept.activations.device))

    def _find_columns(self, widths: tuple[tuple[Place, int, bool], ...], device: torch.device) -> torch.Tensor:
        """Return where the wanted units are among what was read of places, side by side, int64 (unit,).

        A place has so many columns, which are all of its units or the wanted ones.
        """
        import torch

        if (widths, device) not in self._columns:
            parts, begin = [], 0
            for place, width, is_whole in widths:
                parts.append(begin + (self._indices[place] if is_whole else torch.arange(width)))
                begin += width
            self._columns[widths, device] = torch.cat(parts).to(device)
        return self._columns[widths, device]

    def _keeper(self, place: Place) -> See:
        def keep(activation: torch.Tensor) -> None:
            course = self._course
            if course is not None:
                self._kept[place] = Kept(course.prompts, course.copy_last(activation), is_whole=True)

        return keep
