"""What every benchmark shares: rounds of timing, rows of ratios, tables, JSON, and the machine it ran on.

A figure is always a cost (seconds, bytes), so that a ratio is the peer's cost divided by ours: more than 1 means that
ours is better.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Measure = Callable[[int], float]
"""Takes the number of the round, returns what was measured; it prepares and cleans up by itself, outside its timing."""

SUBJECT = "superneurons"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: medians of ours and of the peer, and the ratio with its range over the rounds.

    ``reach`` is the ratio that the project asks of itself; None where the row is there for the reader alone.
    """

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    ratio_min: float
    ratio_max: float
    reach: float | None

    @property
    def is_reached(self) -> bool | None:
        """Whether the ratio is what was asked for; None where nothing was."""
        return None if self.reach is None else self.ratio >= self.reach


def compare(
    name: str, ours: Sequence[float], peer: Sequence[float], *, unit: str, reach: float | None = None, scale: float = 1
) -> Row:
    """Return the row of two lists of figures, one figure a round each.

    The ratio is taken within each round, where both met the same machine; `scale` turns figures into `unit`.
    """
    ratios = [theirs / mine for mine, theirs in zip(ours, peer, strict=True)]
    return Row(
        name=name,
        ours=statistics.median(ours) * scale,
        peer=statistics.median(peer) * scale,
        unit=unit,
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        reach=reach,
    )


def compare_all(
    name: str,
    figures: Mapping[str, Sequence[float]],
    *,
    unit: str,
    reach: Mapping[str, float] | None = None,
    scale: float = 1,
) -> list[Row]:
    """Return one row for every contestant of `figures` but ours; `reach` maps some of them to the ratio to reach."""
    return [
        compare(
            f"{name}, vs {peer}", figures[SUBJECT], figures[peer], unit=unit, reach=(reach or {}).get(peer), scale=scale
        )
        for peer in figures
        if peer != SUBJECT
    ]


def hold_to_limit(name: str, figures: Sequence[float], *, limit: float, unit: str) -> Row:
    """Return the row of figures that have no peer but a limit to stay under; the limit stands in the peer's place."""
    return compare(f"{name}, vs the limit", figures, [limit] * len(figures), unit=unit, reach=1.0)


def measure_rounds(contestants: Mapping[str, Measure], *, repeats: int) -> dict[str, list[float]]:
    """Return the figures of every contestant, one a round; every second round runs them in reverse order."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.freeze()  # what is there already, all imported libraries, need not be walked through before each timing
    for number in range(repeats):
        order = list(contestants) if number % 2 == 0 else list(contestants)[::-1]
        for name in order:
            figures[name].append(contestants[name](number))
    gc.unfreeze()
    return figures


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds that `call` takes; garbage is collected before, never meanwhile."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    finally:
        gc.enable()


def list_files(folder: Path) -> list[Path]:
    """Return every file below `folder`."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def drop_page_cache(folder: Path) -> None:
    """Write the files below `folder` through to the disk and ask the kernel to forget their pages.

    Needs no privilege. Pages that a process maps at that moment stay, so close what maps them first. The cache of a
    disk, or of a virtual machine's host, is out of reach.
    """
    for path in list_files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def fill_page_cache(folder: Path) -> None:
    """Read every file below `folder` once."""
    for path in list_files(folder):
        with path.open("rb") as file:
            while file.read(1 << 22):
                pass


def sync_files(folder: Path) -> None:
    """Write the files below `folder` through to the disk, their folders included."""
    for path in [*list_files(folder), *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and all rows there")
    parser.add_argument("--repeats", type=int, help="rounds of every measurement")
    n_cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--threads", type=int, default=n_cores, help="threads of every contestant (default: %(default)s)"
    )
    return parser


def describe_machine(packages: Iterable[str], *, folder: Path, **settings: Any) -> dict[str, Any]:
    """Return what a figure depends on: processor, memory, file system of `folder`, versions, and the given settings."""
    return {
        "processor": _read_field(Path("/proc/cpuinfo"), "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _read_field(Path("/proc/meminfo"), "MemTotal"),
        "file_system": _find_file_system(folder),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {package: _find_version(package) for package in packages},
        **settings,
    }


def _read_field(path: Path, name: str) -> str:
    """Return the value of the first line ``name: value`` of a file of the kernel, or "unknown"."""
    if not path.exists():
        return "unknown"
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "unknown")


def _find_file_system(folder: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    around = [(len(point), kind) for point, kind in found if folder.resolve().is_relative_to(point)]
    return max(around)[1] if around else "unknown"


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def format_machine(machine: Mapping[str, Any]) -> str:
    """Return the machine as a few lines of text."""
    lines = []
    for key, value in machine.items():
        text = ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, dict) else value
        lines.append(f"{key.replace('_', ' ')}: {text}")
    return "\n".join(lines)


def format_rows(rows: Sequence[Row]) -> str:
    """Return the table of `rows`."""
    cells = [
        (
            row.name,
            f"{row.ours:.4g} {row.unit}",
            f"{row.peer:.4g} {row.unit}",
            f"{row.ratio:.2f} ({row.ratio_min:.2f}-{row.ratio_max:.2f})",
            "" if row.reach is None else f"{row.reach:g}: {'yes' if row.is_reached else 'NO'}",
        )
        for row in rows
    ]
    return format_table(("what", "ours", "peer", "ratio (min-max)", "to reach"), cells)


def format_table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [head, rule, *cells]
    padded = [
        [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def write_json(path: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write ``{"machine": {...}, "rows": [...]}``."""
    document = {"machine": dict(machine), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n")
