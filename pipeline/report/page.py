"""The page: what was collected, rendered into one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PipelineError
from .card import Card, Section, card_of_overview, make_sections
from .content import GAIN, Line, ReportContent, RunFigures

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "template"
"""Folder of the page's template, style and script."""

MAX_PROVENANCE = 600
"""Letters of one entry of a run's provenance that are shown."""

SHOWN_LEVELS = ("majority", "question only", "the model itself", "the model, calibrated")
"""Accuracies beside that of Super Neurons in the table."""

MARKS = ("majority", "question", "base", "calibrated")
"""What the same are called among the marks on the small axis of a row."""

PLOT_PIXELS = 196
"""Width of the accuracies' axis in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRow:
    """A row of the table of accuracies; ``places`` are those of the marks on its small axis, in pixels."""

    run: RunFigures
    levels: tuple[Line, ...]
    all_layers: Line
    depth1: Line
    visual_gain: float | None
    n_super_neurons: int
    places: Mapping[str, float]


def render_page(content: ReportContent) -> str:
    """Return the whole page as HTML: figures, style, plotly.js and the script are in it."""
    environment = _open_environment()
    overview, sections = card_of_overview(content), make_sections(content)
    cards = [*([overview] if overview else []), *(card for section in sections for card in section.cards)]
    plots = {f"plot-{number}": panel.plot for number, panel in enumerate(_list_panels(cards))}
    keys = {id(panel): key for key, panel in zip(plots, _list_panels(cards), strict=True)}
    figures = {
        "plots": {key: plot.to_dict() for key, plot in plots.items()},
        "pictures": dict(content.pictures),
    }
    rows = [_make_row(run) for run in content.runs if run.depth is not None]
    library, script = _read_library(), _read_part("page.js")
    page: str = environment.get_template("page.html").render(
        content=content,
        overview=overview,
        sections=sections,
        rows=rows,
        missing=_find_unknown(content, sections),
        plot_key=lambda panel: keys[id(panel)],
        figures=_to_json(figures),
        style=_read_part("page.css"),
        library=library,
        script=script,
        policy=_plan_policy(library, script),
        levels=SHOWN_LEVELS,
        has_gain=any(row.visual_gain is not None for row in rows),
        missing_gain=_tell_missing_gain(content.runs),
        tell_provenance=_tell_provenance,
    )
    return page


def _list_panels(cards: list[Card]) -> list[Any]:
    return [panel for card in cards for panel in card.panels]


def _open_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from .plot import tell, tell_interval

    environment = Environment(
        loader=PackageLoader("pipeline.report", TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = tell
    environment.filters["signed"] = lambda value: tell(value, sign="+")
    environment.globals["tell_interval"] = tell_interval
    return environment


def _read_part(name: str) -> Any:
    """Return a file of the page's own, which is trusted."""
    from markupsafe import Markup

    return Markup((Path(__file__).parent / TEMPLATE / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def _read_library() -> Any:
    """Return plotly.js as a script can hold it."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return Markup(source.replace("</script", "<\\/script"))  # noqa: S704 - plotly's own file


def _to_json(figures: Mapping[str, Any]) -> Any:
    """Return figures as JSON in which nothing can end the script that holds it."""
    from markupsafe import Markup

    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - no sign of markup is left


def _plan_policy(*scripts: str) -> str:
    """Return the content security policy: no request may leave, and no script may run but `scripts`."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _make_row(run: RunFigures) -> AccuracyRow:
    if run.depth is None:
        raise ValueError(f"run {run.name}: expected figures by depth, found none")
    line, levels = run.depth.lines[0], tuple(run.depth.level(name) for name in SHOWN_LEVELS)
    ends = {"low": line.low[-1], "high": line.high[-1], "super": line.values[-1]}
    marks = {name: level.values[0] for name, level in zip(MARKS, levels, strict=True)}
    return AccuracyRow(
        run=run,
        levels=levels,
        all_layers=_take(line, -1),
        depth1=_take(line, 0),
        visual_gain=run.depth.visual_gain.values[-1],
        n_super_neurons=run.depth.n_super_neurons[-1],
        places={
            name: round(2 + PLOT_PIXELS * value, 1) for name, value in {**ends, **marks}.items() if value is not None
        },
    )


def _take(line: Line, place: int) -> Line:
    return Line(name=line.name, values=(line.values[place],), low=(line.low[place],), high=(line.high[place],))


def _tell_missing_gain(runs: Sequence[RunFigures]) -> str:
    """Return a sentence on the runs whose visual gain is not known, and why; empty if there is none."""
    unknown = [run for run in runs if GAIN in run.missing]
    if not unknown:
        return ""
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    reason = unknown[0].missing[GAIN]
    return (
        "Visual gain, what an accuracy is above the best that does without the picture, is not known of "
        f"{unknown[0].name}{more}. {reason[:1].upper()}{reason[1:]}."
    )


def _find_unknown(content: ReportContent, sections: tuple[Section, ...]) -> dict[str, str]:
    """Return the notes that belong to no section, such as studies that cannot be read."""
    return {key: text for key, text in content.notes.items() if key not in {section.key for section in sections}}


def _tell_provenance(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the entries of a run's provenance as texts."""
    found = []
    for key, value in told.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        found.append((str(key), text if len(text) <= MAX_PROVENANCE else f"{text[:MAX_PROVENANCE]}…"))
    return found


def validate_target(path: Path) -> None:
    """Check that a page can be written to `path`.

    Raises
    ------
    PipelineError
        If it is a folder, or in none.
    """
    if path.is_dir():
        raise PipelineError(f"{path}: expected a file for the report, found a folder; add the file's name")
    if not path.absolute().parent.is_dir():
        raise PipelineError(f"{path}: expected a folder to write into, found none; make it first")
    if not os.access(path.absolute().parent, os.W_OK):
        raise PipelineError(f"{path}: expected a folder that can be written, found one that cannot; choose another")


def write_page(content: ReportContent, path: Path) -> int:
    """Write the page to `path`, replacing what is there in one step, and return its size in bytes.

    Raises
    ------
    PipelineError
        If it cannot be written there.
    """
    validate_target(path)
    page = render_page(content).encode()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(page)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PipelineError(f"{path}: expected to write the report, found: {error.strerror}; choose another") from error
    return len(page)
