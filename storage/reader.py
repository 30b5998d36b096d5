"""Reading an array of a run by samples: blocks in order, padding left out, every fault named by its block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.core.sync import sync

from .block import Block
from .errors import BlockDamagedError
from .shard import Region, ShardDamageError, ShardLayout, read_shard

SHARDS_AT_ONCE = 16
"""How many shards one read asks for at the same time: enough to hide the way to a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayReader:
    """An array whose first dimension is ``sample``.

    Samples of ``committed`` blocks are read and checked; all others are ``fill`` without a look at the store, whatever
    an unfinished writer may have left there.
    """

    store: Store
    run: str
    layout: ShardLayout
    trailing: tuple[int, ...]
    fill: Any
    blocks: Sequence[Block]
    committed: frozenset[int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples, then the other dimensions."""
        return (self.blocks[-1].stop if self.blocks else 0, *self.trailing)

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Return the values of `region`: a slice of step 1 and known bounds for each dimension, samples first.

        Raises
        ------
        BlockDamagedError
            If an object of a committed block is gone or is not what was written.
        """
        values = np.full([part.stop - part.start for part in region], self.fill, dtype=self.layout.dtype)
        if values.size:
            sync(self._read(region, values))
        return values

    async def _read(self, region: Region, values: npt.NDArray[Any]) -> None:
        gate = asyncio.Semaphore(SHARDS_AT_ONCE)

        async def read(block: Block, place: tuple[int, ...], source: Region, target: Region) -> None:
            async with gate:
                try:
                    await read_shard(self.store, self.layout, place, source, values[target])
                except ShardDamageError as error:
                    raise BlockDamagedError(
                        f"run {self.run}, block {block.index}, array {self.layout.path.rpartition('/')[2]}: {error}; "
                        "name all damage with `superneurons validate --full`, mend it with `superneurons repair`"
                    ) from error

        await asyncio.gather(*(read(*piece) for piece in self._plan_pieces(region)))

    def _plan_pieces(self, region: Region) -> Iterator[tuple[Block, tuple[int, ...], Region, Region]]:
        """Return for each shard that `region` meets its block, its place, what to read of it, and where that goes."""
        samples, *others = region
        cuts = [list(_cut(part, size)) for part, size in zip(others, self.layout.shard[1:], strict=True)]
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


def _cut(part: slice, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Return for each shard of `size` that `part` meets its place, what of it is wanted, and where that goes."""
    for place in range(part.start // size, -(-part.stop // size)):
        first, last = max(part.start, place * size), min(part.stop, (place + 1) * size)
        yield place, slice(first - place * size, last - place * size), slice(first - part.start, last - part.start)
