"""Faults: what an audit of a dataset may find."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .printable import make_printable

FaultKind = Literal[
    "missing",  # an object of a committed block is gone
    "empty",  # it is there, without a byte
    "cut",  # it has fewer bytes than its record says, or more
    "altered",  # its bytes are not those of its record
    "not finite",  # NaN or infinity in a valid row
    "extra",  # nothing accounts for this object
    "leftover",  # an unfinished writer's: harmless
    "link",  # a symbolic link, a pipe or a device, where only files may be
    "document",  # metadata that breaks the schema
    "size",  # declared sizes that do not fit together
]
HARMLESS: tuple[FaultKind, ...] = ("leftover",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with an object; ``run`` and ``block`` tell where it belongs, where that is known."""

    kind: FaultKind
    key: str
    expected: str
    found: str
    run: str | None = None
    block: int | None = None

    def __str__(self) -> str:
        where = "".join(
            f"{word} {value}, " for word, value in (("run", self.run), ("block", self.block)) if value is not None
        )
        return make_printable(f"{self.kind}: {where}{self.key}: expected {self.expected}, found {self.found}")

    @property
    def harmless(self) -> bool:
        """Whether no reader can be misled by it."""
        return self.kind in HARMLESS

    def to_dict(self) -> dict[str, Any]:
        """Return the fault ready for JSON."""
        return asdict(self)


@dataclass(slots=True)
class AuditCount:
    """What an audit looked at."""

    n_runs: int = 0
    n_blocks: int = 0
    n_objects: int = 0
    n_bytes: int = 0
