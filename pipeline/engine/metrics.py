"""Ray's own metrics of an extraction, for Prometheus."""

from __future__ import annotations

from .job import BlockJob, BlockReport


class Metrics:
    """What Ray's own metrics tell of an extraction, for Prometheus: totals by run, and the rate of the last block."""

    def __init__(self) -> None:
        from ray.util import metrics

        tags = ("run",)
        self._samples = metrics.Counter("superneurons_samples", "Samples committed.", tag_keys=tags)
        self._bytes = metrics.Counter("superneurons_written_bytes", "Bytes written.", tag_keys=tags)
        self._quarantined = metrics.Counter("superneurons_quarantined", "Samples that cannot be read.", tag_keys=tags)
        self._rate = metrics.Gauge("superneurons_samples_per_second", "Of a worker, in its last block.", tag_keys=tags)

    def count(self, job: BlockJob, report: BlockReport) -> None:
        """Add what a report tells."""
        tags = {"run": job.run}
        for counter, amount in (
            (self._samples, report.n_samples),
            (self._bytes, report.n_bytes),
            (self._quarantined, len(report.quarantined)),
        ):
            if amount:
                counter.inc(amount, tags)
        self._rate.set(report.n_samples / max(report.compute_s, 1e-9), tags)
