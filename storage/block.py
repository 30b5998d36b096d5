"""Blocks: the consecutive samples that one worker computes and writes as whole shards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Samples ``start`` to ``stop`` (exclusive) of a run; ``index`` counts blocks from 0."""

    index: int
    start: int
    stop: int

    @property
    def n_samples(self) -> int:
        """How many real samples the block holds; the last block of a run may be short."""
        return self.stop - self.start


def plan_blocks(n_samples: int, *, block: int) -> list[Block]:
    """Return the blocks of a run of `n_samples` samples, `block` samples each, the last one perhaps short."""
    if block < 1:
        raise ValueError(f"block: expected at least 1 sample, found {block}")
    return [
        Block(index=index, start=start, stop=min(start + block, n_samples))
        for index, start in enumerate(range(0, n_samples, block))
    ]
