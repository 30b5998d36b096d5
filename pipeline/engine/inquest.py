"""Which samples of a block kill its worker: found by computing parts of the block, each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .job import BlockJob

MAX_CULPRITS = 16
"""Of one block: more is no matter of samples."""

KILLED = "it killed its worker"


class Inquest:
    """Asks of a block that killed its worker which samples do so, by halving.

    Whoever holds it runs each of `probes` with nothing beside it, and says with `died` when it killed its worker. The
    first holds no sample at all: a worker that dies of it dies of its model or machine. Both need two deaths to be
    believed, since machines are taken away, too.
    """

    def __init__(self, job: BlockJob) -> None:
        self._job = job
        self._parts = [*_halve(range(len(job.samples))), range(0)]
        self._asked = range(0)
        self._suspected: range | None = None
        self.culprits: list[str] = []
        self.hopeless = ""

    def probes(self) -> Iterator[BlockJob]:
        """Return probes, each decided by what became of the one before, until all is known."""
        while self._parts and not self.hopeless:
            self._asked = self._parts.pop()
            samples = self._job.samples[self._asked.start : self._asked.stop]
            yield replace(self._job, samples=samples, purpose="probe")

    def died(self) -> None:
        """Say that the worker of the last probe died."""
        part = self._asked
        if len(part) <= 1 and part != self._suspected:
            self._suspected = part
            self._parts.append(part)
        elif not part:
            self.hopeless = "its worker dies before it has seen a sample"
        elif len(part) == 1:
            self.culprits.append(self._job.samples[part.start].sample_id)
            if len(self.culprits) > MAX_CULPRITS:
                self.hopeless = f"its workers die of more than {MAX_CULPRITS} samples"
        else:
            self._parts += _halve(part)

    def verdict(self) -> BlockJob:
        """Return the block without the samples that were found."""
        return replace(self._job, excluded={**self._job.excluded, **dict.fromkeys(self.culprits, KILLED)})


def _halve(part: range) -> list[range]:
    middle = part.start + len(part) // 2
    return [half for half in (range(middle, part.stop), range(part.start, middle)) if half]
