"""What a dataset asks of the place that holds its objects, besides being a Zarr store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zarr.abc.store import Store
from zarr.core.buffer import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEntry:
    """One object as a listing shows it; ``modified_s`` counts seconds since 1970."""

    key: str
    size_bytes: int
    modified_s: float
    is_link: bool = False


class Backend(Store):
    """A Zarr store that can create without replacing, make durable, list sizes, and move."""

    @abstractmethod
    async def create(self, key: str, value: Buffer) -> bool:
        """Write an object where there is none, and return whether it was this call that made it.

        Notes
        -----
        The place itself decides between two callers at once: a hard link on a local disk, a conditional put on S3.
        """

    @abstractmethod
    async def flush(self, keys: Iterable[str]) -> None:
        """Return when the objects `keys` survive a loss of power."""

    @abstractmethod
    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:
        """Return every object whose key begins with the folder `prefix`, in no order."""

    @abstractmethod
    def move_object(self, key: str, target: str) -> None:
        """Give an object another key, replacing what is there."""
