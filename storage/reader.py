"""Reading an array of a run by samples: blocks in order, padding left out, every fault named by its block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from .backend import Backend
from .block import Block
from .errors import BlockDamagedError
from .shard import Region, ShardDamageError, ShardIndices, ShardLayout, read_shard
from .threads import thread_pool

Piece = tuple[Block, tuple[int, ...], Region, Region]
"""A block, the place of one of its shards, what to read of it, and where that goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayReader:
    """An array whose first dimension is ``sample``.

    Samples of ``committed`` blocks are read and checked; all others are fill values without a look at the store,
    whatever an unfinished writer may have left there.
    """

    backend: Backend
    run: str
    layout: ShardLayout
    trailing: tuple[int, ...]
    blocks: Sequence[Block]
    committed: frozenset[int]
    indices: ShardIndices = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples, then the other dimensions."""
        return (self.blocks[-1].stop if self.blocks else 0, *self.trailing)

    def read(self, region: Region, *, busy: bool = False) -> npt.NDArray[Any]:
        """Return the values of `region`: a slice of step 1 and known bounds for each dimension, samples first.

        `busy` says that others keep the processors busy meanwhile: what need not wait is then read by this thread.

        Raises
        ------
        BlockDamagedError
            If an object of a committed block is gone or is not what was written.
        """
        shape = [part.stop - part.start for part in region]
        if self.committed.issuperset(block.index for block in self.blocks):
            values = np.empty(shape, dtype=self.layout.dtype)
        else:
            values = np.full(shape, self.layout.fill, dtype=self.layout.dtype)
        pieces = list(self._plan_pieces(region)) if values.size else []
        n_threads = self.backend.n_busy_reading_threads if busy else self.backend.n_reading_threads
        n_groups = min(len(pieces), n_threads)
        mine, *others = [pieces[first::n_groups] for first in range(n_groups)] or [[]]
        threads = thread_pool("read", n_threads)
        elsewhere = [threads.submit(self._read_pieces, values, group) for group in others]
        try:
            self._read_pieces(values, mine)
            for reading in elsewhere:
                reading.result()
        except BaseException:
            for group in others:
                group.clear()  # nobody waits for the rest
            raise
        finally:
            wait(elsewhere)
        return values

    def _read_pieces(self, values: npt.NDArray[Any], pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._read_piece(values, *piece)

    def _read_piece(
        self, values: npt.NDArray[Any], block: Block, place: tuple[int, ...], source: Region, target: Region
    ) -> None:
        try:
            self._read_shard(place, source, values[target])
        except ShardDamageError as error:
            raise BlockDamagedError(
                f"run {self.run}, block {block.index}, array {self.layout.path.rpartition('/')[2]}: {error}; "
                "name all damage with `superneurons validate --full`, mend it with `superneurons repair`"
            ) from error

    def _read_shard(self, place: tuple[int, ...], source: Region, out: npt.NDArray[Any]) -> None:
        known = self.layout.key(place) in self.indices
        try:
            read_shard(self.backend, self.layout, place, source, out, self.indices)
        except ShardDamageError:
            if not known:
                raise
            self.indices.pop(self.layout.key(place), None)  # a repaired shard has another one
            read_shard(self.backend, self.layout, place, source, out, self.indices)

    def _plan_pieces(self, region: Region) -> Iterator[Piece]:
        """Return for each shard that `region` meets its block, its place, what to read of it, and where that goes."""
        samples, *others = region
        cuts = [list(cut_extent(part, size)) for part, size in zip(others, self.layout.shard[1:], strict=True)]
        for block in self.blocks:
            first, last = max(samples.start, block.start), min(samples.stop, block.stop)
            if first >= last or block.index not in self.committed:
                continue
            rows = slice(first - block.start, last - block.start)
            target = slice(first - samples.start, last - samples.start)
            for pieces in product(*cuts):
                yield (
                    block,
                    (block.index, *(place for place, _, _ in pieces)),
                    (rows, *(source for _, source, _ in pieces)),
                    (target, *(goes for _, _, goes in pieces)),
                )


def cut_extent(part: slice, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Return for each shard of `size` that `part` meets its place, what of it is wanted, and where that goes."""
    for place in range(part.start // size, -(-part.stop // size)):
        first, last = max(part.start, place * size), min(part.stop, (place + 1) * size)
        yield place, slice(first - place * size, last - place * size), slice(first - part.start, last - part.start)
