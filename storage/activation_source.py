"""Activations as somebody hands them over: any array, read a few samples at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .block import Block
from .dtype import measure_float16_loss
from .errors import ExchangeError
from .schema import SITES, Site

PIECE_VALUES = 2**22
"""How many values are looked at a time: few enough that the copies of a look take little memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSource:
    """One site's activations: ``array`` has the shape (sample, ...) and gives rows for a slice.

    ``trailing`` is (token, layer, unit), with 1 for an axis that the array leaves out.
    """

    site: Site
    array: Any
    trailing: tuple[int, int, int]

    @property
    def n_samples(self) -> int:
        """How many samples the array holds."""
        return int(self.array.shape[0])

    def read(self, block: Block) -> npt.NDArray[Any]:
        """Return the block's rows in the array's own dtype: shape (sample, token, layer, unit)."""
        rows = np.asarray(self.array[block.start : block.stop])
        return rows.reshape((block.n_samples, *self.trailing))


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSurvey:
    """What one pass over all values tells: the largest magnitude of each site in valid rows, and a digest.

    ``float16_loss`` is what the first samples would lose to rounding. ``sha256`` depends on the values alone, as
    float32: not on the block size, nor on rows that are not valid.
    """

    max_abs: Mapping[Site, float]
    float16_loss: float
    sha256: str


def parse_activations(where: str, activations: Mapping[Site, Any]) -> tuple[ActivationSource, ...]:
    """Return a source for each site of `activations`, in the order of the store; `where` begins every message.

    Raises
    ------
    ExchangeError
        If a site is unknown, an array is empty, has not 2 to 4 axes or holds no numbers, or two disagree about
        samples, tokens or layers.
    """
    if not isinstance(activations, Mapping) or not activations or not set(activations) <= set(SITES):
        keys = sorted(map(str, activations)) if isinstance(activations, Mapping) else type(activations).__name__
        raise ExchangeError(
            f"{where}, activations: expected arrays by site, some of {', '.join(SITES)}, found {keys}; pass "
            "{'residual': array}"
        )
    sources = tuple(_parse_array(where, site, activations[site]) for site in SITES if site in activations)
    first, *others = sources
    for other in others:
        expected, found = ((source.n_samples, *source.trailing[:2]) for source in (first, other))
        if found != expected:
            raise ExchangeError(
                f"{where}, {other.site}: expected {expected} samples, tokens and layers as in {first.site}, found "
                f"{found}; pass arrays of the same samples, tokens and layers"
            )
    return sources


def _parse_array(where: str, site: Site, array: Any) -> ActivationSource:
    try:
        held = array if hasattr(array, "shape") else np.asarray(array)
        shape = tuple(int(size) for size in held.shape)
        kind = np.asarray(held[:1]).dtype.kind
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ExchangeError(
            f"{where}, {site}: expected an array of numbers, found {type(array).__name__}: "
            f"{' '.join(str(error).split()):.200}; pass a float array on the CPU"
        ) from error
    if not 2 <= len(shape) <= 4 or 0 in shape:
        raise ExchangeError(
            f"{where}, {site}: expected shape (sample, unit), (sample, layer, unit) or (sample, token, layer, unit), "
            f"found {shape}; add or drop axes"
        )
    if kind not in "fiub":
        raise ExchangeError(f"{where}, {site}: expected numbers, found dtype {np.asarray(held[:1]).dtype}; cast them")
    n_tokens, n_layers, n_units = (*(1,) * (4 - len(shape)), *shape[1:])
    return ActivationSource(site=site, array=held, trailing=(n_tokens, n_layers, n_units))


def survey_activations(
    where: str,
    sources: Sequence[ActivationSource],
    valid: npt.NDArray[np.bool_],
    *,
    blocks: Sequence[Block],
    on_block: Callable[[Block], None],
) -> ActivationSurvey:
    """Return what one pass over `sources` tells; `on_block` hears of each block.

    Raises
    ------
    ExchangeError
        If a value of a `valid` row is not finite.
    """
    digests = {source.site: hashlib.sha256(f"{source.site} {source.trailing} ".encode()) for source in sources}
    max_abs: dict[Site, float] = dict.fromkeys(digests, 0.0)
    losses = [0.0]
    for block in blocks:
        for source in sources:
            for piece in _plan_pieces(block, source):
                rows, real = source.read(piece), valid[piece.start : piece.stop]
                _validate_finite(where, source, piece, rows, real)
                max_abs[source.site] = max(max_abs[source.site], _largest(rows if real.all() else rows[real]))
                if piece.start == 0 and real.any():
                    losses.append(measure_float16_loss(rows[real]))
                with np.errstate(over="ignore", invalid="ignore"):
                    stored = rows.astype("<f4", order="C")
                stored[~real] = 0
                digests[source.site].update(stored.data)
        on_block(block)
    whole = hashlib.sha256(b"".join(digest.digest() for digest in digests.values()))
    return ActivationSurvey(max_abs=max_abs, float16_loss=max(losses), sha256=whole.hexdigest())


def _plan_pieces(block: Block, source: ActivationSource) -> list[Block]:
    """Return the samples of `block` in pieces of about `PIECE_VALUES`."""
    size = max(1, PIECE_VALUES // math.prod(source.trailing))
    starts = range(block.start, block.stop, size)
    return [Block(index=index, start=start, stop=min(start + size, block.stop)) for index, start in enumerate(starts)]


def _largest(rows: npt.NDArray[Any]) -> float:
    """Return the largest magnitude; not by abs(), as the least integer has no positive."""
    return max(float(rows.max()), -float(rows.min())) if rows.size else 0.0


def _validate_finite(
    where: str, source: ActivationSource, block: Block, rows: npt.NDArray[Any], real: npt.NDArray[np.bool_]
) -> None:
    broken = ~np.isfinite(rows) & real[:, None, None, None]
    if broken.any():
        row, token, layer, unit = np.argwhere(broken)[0]
        raise ExchangeError(
            f"{where}, {source.site}: expected finite values in valid rows, found {rows[row, token, layer, unit]} for "
            f"sample {block.start + row}, token {token}, layer {layer}, unit {unit}; mend it, or mark the sample as "
            "not valid"
        )
