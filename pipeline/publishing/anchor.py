"""Where any of many short texts stand in a long one: all of them in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

HEAD = 3
"""Letters of an anchor by which its places are found."""

PIECE = 1 << 17
"""Letters that are looked at at once: what fits a processor's cache."""

Owner = TypeVar("Owner")


class AnchorIndex(Generic[Owner]):
    """Texts of at least three letters, each with what it belongs to.

    Their first three letters are looked for by a hash of 16 bits, in NumPy, so that the time hardly depends on how many
    there are.
    """

    def __init__(self, anchors: Iterable[tuple[str, Owner]]) -> None:
        self._by_head: dict[str, list[tuple[str, Owner]]] = {}
        self._is_head = np.zeros(1 << 16, dtype=bool)
        for anchor, owner in anchors:
            self._by_head.setdefault(anchor[:HEAD], []).append((anchor, owner))
        for head in self._by_head:
            self._is_head[_hash_heads(np.frombuffer(head.encode("latin-1"), dtype=np.uint8))] = True

    def find(self, text: str) -> Iterator[tuple[int, Owner]]:
        """Return every place where an anchor begins, in order, with what that belongs to."""
        letters = np.frombuffer(text.encode("latin-1", "replace"), dtype=np.uint8)  # one byte a letter, whatever it is
        for start in range(0, max(0, len(letters) - HEAD + 1), PIECE):
            piece = letters[start : start + PIECE + HEAD - 1]
            for place in np.flatnonzero(self._is_head[_hash_heads(piece)]).tolist():
                yield from self._name_anchors(text, start + place)

    def _name_anchors(self, text: str, place: int) -> Iterator[tuple[int, Owner]]:
        candidates: Sequence[tuple[str, Owner]] = self._by_head.get(text[place : place + HEAD], ())
        for anchor, owner in candidates:
            if text.startswith(anchor, place):
                yield place, owner


def _hash_heads(letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Return a number for each three consecutive letters."""
    wide = letters.astype(np.uint16)
    heads: npt.NDArray[np.uint16] = wide[:-2] ^ (wide[1:-1] << np.uint16(4)) ^ (wide[2:] << np.uint16(8))
    return heads
