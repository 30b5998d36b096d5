"""Tables of early exit beside those of ratios: arithmetic, accuracies, and all subjects at depth 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import measure
from benchmarks.early_exit_arena import Timing
from benchmarks.early_exit_ours import DecoderShare
from benchmarks.early_exit_peer import FirstLayer, FullModel, VisionTower, name_truncation
from benchmarks.early_exit_subject import FIRST, Subject, name_depth
from benchmarks.early_exit_trained import CALIBRATED, OWN, PROBE, QUESTION, Trained
from benchmarks.measure import Row

UNKNOWN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a subject: floating-point operations by contestant, and times by batch size."""

    subject: Subject
    flops: Mapping[str, int]
    timings: Mapping[int, Timing]
    trained: Trained | None = None


def compare_flops(measured: Measured) -> list[Row]:
    """Return the rows of ratios of floating-point operations, for one question."""
    pairs = [(name_depth(depth), FullModel.name) for depth in measured.subject.depths]
    pairs += [(FIRST, name_truncation(1)), (DecoderShare.name, FirstLayer.name)]
    return [
        measure.compare(
            f"{measured.subject.name}: arithmetic, {ours}, vs {peer}",
            [measured.flops[ours]],
            [measured.flops[peer]],
            unit="MFLOP",
            scale=1e-6,
        )
        for ours, peer in pairs
        if ours in measured.flops
    ]


def tabulate_flops(found: Sequence[Measured]) -> str:
    """Return the table of floating-point operations, millions for one question."""
    parts = {
        "full": FullModel.name,
        "tower": VisionTower.name,
        "a layer": FirstLayer.name,
        "share": DecoderShare.name,
        "depth 1": FIRST,
    }
    cells = [
        (
            one.subject.name,
            *(_show_millions(one.flops[name]) for name in parts.values()),
            *(_show_millions(one.flops.get(name_depth(depth))) for depth in one.subject.depths[1:]),
            f"{one.flops[FullModel.name] / one.flops[FIRST]:.1f}",
        )
        for one in found
    ]
    return measure.format_table(("MFLOP a question", *parts, "quarter", "half", "all", "full / 1"), cells)


def tabulate_accuracy(measured: Measured) -> str:
    """Return the table of how often each way to answer is right, beside its time, but for exits that did not run."""
    trained, single, batch = measured.trained, *measured.timings.values()
    if trained is None:
        return ""
    cells = [
        (
            one.way,
            f"{one.layers:.2f}",
            f"{100 * one.accuracy:.1f}",
            f"{100 * one.low:.1f}-{100 * one.high:.1f}",
            _show(None if one.timed_as is None else single.find_seconds(one.timed_as), scale=1000),
            *(_show(None if one.timed_as is None else timing.find_ratio(one.timed_as)) for timing in (single, batch)),
        )
        for one in trained.accuracies.values()
        if one.timed_as is None or one.timed_as in measured.flops
    ]
    head = (
        f"{measured.subject.name}, n = {trained.n_test:,}",
        "layers",
        "accuracy, %",
        "95 %",
        "ms",
        "times as fast",
        f"batch {batch.batch_size}",
    )
    return measure.format_table(head, cells)


def tabulate_first(found: Sequence[Measured]) -> str:
    """Return the table of all subjects at depth 1: how many times as fast as the full model, and how often right."""
    ways = (FIRST, OWN, CALIBRATED, PROBE, QUESTION)
    cells = [
        (
            one.subject.name,
            *(_show(timing.find_ratio(FIRST)) for timing in one.timings.values()),
            *(UNKNOWN if one.trained is None else f"{100 * one.trained.accuracies[way].accuracy:.1f}" for way in ways),
        )
        for one in found
    ]
    batches = [f"batch {size}" for size in found[0].timings]
    return measure.format_table(
        (
            "times as fast at depth 1",
            *batches,
            "accuracy, %",
            "own",
            "calibrated",
            "image, words",
            "question",
        ),
        cells,
    )


def describe_accuracies(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the accuracies, with milliseconds a question and ratios over the full model, ready for JSON."""
    return [
        {
            "subject": one.subject.name,
            "n_test": one.trained.n_test,
            **asdict(way),
            "times": [_describe_time(timing, way.timed_as) for timing in one.timings.values()],
        }
        for one in found
        if one.trained is not None
        for way in one.trained.accuracies.values()
    ]


def _describe_time(timing: Timing, name: str | None) -> dict[str, float | None]:
    seconds = None if name is None else timing.find_seconds(name)
    return {
        "batch_size": timing.batch_size,
        "ms": None if seconds is None else 1000 * seconds,
        "ratio": None if name is None else timing.find_ratio(name),
    }


def _show(value: float | None, *, scale: float = 1) -> str:
    return UNKNOWN if value is None else f"{scale * value:,.2f}"


def _show_millions(count: int | None) -> str:
    if count is None:
        return UNKNOWN
    return f"{count / 1e6:,.0f}" if count > 1e9 else f"{count / 1e6:,.1f}"
