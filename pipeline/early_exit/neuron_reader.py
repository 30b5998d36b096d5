"""Reading the neurons that vote, and nothing else, at the last position of each prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from search.stump_table import StumpTable
from storage.schema import Site

from ..inference.decoder import Decoder
from ..inference.hook import See, hook_site
from .course import Course

if TYPE_CHECKING:
    import torch

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


class NeuronReader:
    """Keeps the activations of chosen neurons of a batch's prompts.

    Parameters
    ----------
    decoder
        Whose sites are read.
    units
        What is read at each place.
    """

    def __init__(self, decoder: Decoder, units: Mapping[Place, Units]) -> None:
        import torch

        self._decoder = decoder
        self.units = units
        self._indices = {place: torch.from_numpy(wanted) for place, wanted in units.items()}
        self._kept: dict[Place, torch.Tensor] = {}
        self._is_paused = False

    @contextmanager
    def attach(self, course: Course, places: Iterable[Place]) -> Iterator[None]:
        """Read at `places` in every pass of `course` made inside the ``with`` block."""
        handles = [hook_site(self._decoder, site, layer, self._keeper(course, (site, layer))) for site, layer in places]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._kept.clear()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Read nothing inside the ``with`` block, where modules are given last positions alone."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def keep(self, course: Course, place: Place, activations: torch.Tensor) -> None:
        """Keep the activations (prompt, unit) of the open prompts' wanted units at a place."""
        if len(course.prompts) == course.n_prompts:
            self._kept[place] = activations
            return
        whole = self._kept.get(place)
        if whole is None:
            whole = activations.new_full((course.n_prompts, activations.shape[1]), float("nan"))
        self._kept[place] = whole.index_copy(0, course.prompts.to(whole.device), activations)

    def fetch(self, course: Course, layers: Iterable[int]) -> dict[Place, npt.NDArray[np.float32]]:
        """Return what was read at places of `layers` of the open prompts, (prompt, unit), after one copy to the CPU."""
        import torch

        wanted = set(layers)
        places = [place for place in self._kept if place[1] in wanted]
        if not places:
            return {}
        device = self._kept[places[-1]].device
        together = torch.cat([self._kept[place].to(device) for place in places], dim=1)
        if len(course.prompts) < course.n_prompts:
            together = together[course.prompts.to(device)]
        copied = together.cpu().float().numpy()
        edges = np.cumsum([0, *(len(self.units[place]) for place in places)])
        return {place: copied[:, edges[n] : edges[n + 1]] for n, place in enumerate(places)}

    def _keeper(self, course: Course, place: Place) -> See:
        def keep(activation: torch.Tensor) -> None:
            if self._is_paused:
                return
            device = activation.device
            last = activation[course.rows.to(device), course.columns.to(device)]
            self.keep(course, place, last.index_select(1, self._indices[place].to(device)))

        return keep
