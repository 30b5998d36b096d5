"""Blocks: the consecutive samples that one worker computes and writes as whole shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from .errors import DatasetError
from .limit import MAX_BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Samples ``start`` to ``stop`` (exclusive) of a run; ``index`` counts blocks from 0.

    The rows of its shards begin at ``index`` times the run's block size: blocks that are not full, the last ones of
    what was planned at once, leave rows without a sample behind them.
    """

    index: int
    start: int
    stop: int

    @property
    def n_samples(self) -> int:
        """How many real samples the block holds; the last block of a part may be short."""
        return self.stop - self.start


def plan_blocks(parts: Sequence[int], *, block: int) -> list[Block]:
    """Return the blocks of a run that was planned with ``parts[0]`` samples and then grew by each of the others.

    A block holds `block` samples, the last one of each part perhaps fewer.

    Raises
    ------
    DatasetError
        If they are more than a run can have.
    """
    if block < 1:
        raise ValueError(f"block: expected at least 1 sample, found {block}")
    n_blocks = sum(-(-n_samples // block) for n_samples in parts)
    if n_blocks > MAX_BLOCKS:
        raise DatasetError(
            f"{sum(parts)} samples: expected at most {MAX_BLOCKS} blocks, found {n_blocks} of {block} samples; plan "
            "larger blocks, or do not trust the run that has them"
        )
    ends = list(accumulate(parts))
    spans = [
        (start, min(start + block, end))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
        for start in range(begin, end, block)
    ]
    return [Block(index=index, start=start, stop=stop) for index, (start, stop) in enumerate(spans)]
