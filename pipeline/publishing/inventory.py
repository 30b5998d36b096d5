"""Tables of a publication's runs, models and tasks, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from ..task import describe_task, task_names
from .markdown import code, escape, link, table
from .publication import HUB_WEB, Publication, PublishedRun
from .summary import count

MAX_OPEN_RUNS = 40
"""Runs in one table; those of a larger publication are folded by model."""

MAX_SHOWN = 12
"""Options, or prompts, of a task that a cell names; of more, the first and how many there are."""


def list_runs(publication: Publication) -> str:
    """Return the table of runs; of many runs, one for each model that opens on a click."""
    runs = sorted(publication.runs, key=lambda run: run.name)
    if len(runs) <= MAX_OPEN_RUNS:
        return _tabulate(runs)
    parts = []
    for model, own in groupby(runs, key=lambda run: run.model):
        inner = list(own)
        summary = f"<summary><code>{_as_html(model)}</code>: {count(len(inner), 'run')}</summary>"
        parts.append(f"<details>\n{summary}\n\n{_tabulate(inner)}\n\n</details>")
    return "\n\n".join(parts)


def _as_html(text: str) -> str:
    return "".join(f"&#{ord(sign)};" if not sign.isalnum() else sign for sign in text)


def _tabulate(runs: Iterable[PublishedRun]) -> str:
    rows = [
        (
            code(run.name),
            f"{run.n_samples:,}",
            " / ".join(f"{n:,}" for n in run.splits.values()),
            str(run.n_blocks),
            ", ".join(f"{escape(site)} {run.units[site]:,}" for site in run.sites),
            str(run.n_layers),
            escape(run.dtype),
        )
        for run in runs
    ]
    header = ("run", "samples", "probe / validation / test", "blocks", "sites and units", "layers", "type")
    return table(header, rows, numbers=(1, 2, 3, 5))


def list_models(publication: Publication) -> str:
    """Return the table of models: what pins their weights, and how they were run."""
    found = {(run.model, run.model_id, run.revision, run.weights_dtype): run for run in publication.runs}
    rows = [
        (
            code(run.model),
            _name_model(run.model_id),
            code(_shorten(run.revision)) if run.revision else "",
            escape(run.weights_dtype or ""),
            code(run.source) if run.source else "",
        )
        for _, run in sorted(found.items(), key=lambda entry: str(entry[0]))
    ]
    header = ("model", "checkpoint", "revision", "weights", "imported from")
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]  # type: ignore[assignment,misc]
    return table(header, rows)


def _name_model(model_id: str | None) -> str:
    if model_id is None:
        return "not recorded"
    owner, slash, _ = model_id.partition("/")
    return link(f"{HUB_WEB}{model_id}", model_id) if owner and slash else code(model_id)


def _shorten(revision: str) -> str:
    """Return a revision as people tell it from others: the first digits of a digest or commit."""
    kind, colon, digest = revision.rpartition(":")
    return f"{kind}{colon}{digest[:12]}" if len(digest) >= 40 else revision


def list_tasks(publication: Publication) -> str:
    """Return the table of tasks: what is asked and how, where it is from and on which terms, where that is known."""
    by_task: dict[str, list[PublishedRun]] = {}
    for run in publication.runs:
        by_task.setdefault(run.task, []).append(run)
    rows = [_describe_task(task, runs) for task, runs in sorted(by_task.items())]
    return table(("task", "asks", "options", "prompts", "from", "licence"), rows)


def _describe_task(task: str, runs: list[PublishedRun]) -> tuple[str, ...]:
    about, source, licence = "not recorded", "not recorded", "not recorded"
    if task in task_names():
        description = describe_task(task)
        about = escape(description.about)
        source = link(description.homepage) if description.homepage else "drawn by `superneurons`"
        licence = escape(description.licence or "Apache-2.0")
    revisions = sorted({run.dataset_revision for run in runs if run.dataset_revision})
    options = dict.fromkeys(option for run in runs for option in run.options)
    prompts = dict.fromkeys(run.prompt_template for run in runs if run.prompt_template is not None)
    return (
        code(task),
        about,
        _list_shown(options),
        _list_shown(prompts),
        ", ".join([source, *(code(_shorten(revision)) for revision in revisions)]),
        licence,
    )


def _list_shown(texts: Iterable[str]) -> str:
    every = list(texts)
    more = f" and {len(every) - MAX_SHOWN} more" if len(every) > MAX_SHOWN else ""
    return ", ".join(code(text) for text in every[:MAX_SHOWN]) + more
