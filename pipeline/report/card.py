"""The cards of a report: which figures stand together, of which models and tasks, in which section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .content import (
    Example,
    GridFigures,
    MatchFigures,
    NeuronFigures,
    ReportContent,
    RunFigures,
    SpeedFigures,
    VariantFigures,
)
from .curve import draw_emergence, draw_matches, draw_speed, draw_variants
from .heatmap import draw_grid, draw_overview, draw_places
from .histogram import draw_neuron
from .plot import Plot, tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure with what is told beside it: ``facts`` as pairs, and examples of what a neuron decides."""

    plot: Plot
    title: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is shown or hidden together; ``models`` and ``tasks`` are what a reader may choose it by."""

    title: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    panels: tuple[Panel, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page: cards, with ``notes`` on what is not there."""

    key: str
    title: str
    about: str
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()
    is_wide: bool = False


def make_sections(content: ReportContent) -> tuple[Section, ...]:
    """Return the sections of a report that consist of cards, in their order."""
    return (
        Section(
            key="emergence",
            title="How early the answer can be read",
            about="Exit at depth d: only Super Neurons of the first d layers vote, found anew at each depth.",
            cards=tuple(_cards_of_emergence(content.runs)),
            notes=_collect_missing(content.runs, "depth"),
        ),
        Section(
            key="places",
            title="Where they are",
            about="Layer by layer and site by site; a site is the residual, the MLP's neurons or the attention heads.",
            cards=tuple(_cards_of_places(content.runs)),
            notes=_collect_missing(content.runs, "depth"),
        ),
        Section(
            key="transfer",
            title="What they carry over to other tasks",
            about="Super Neurons found on one task (row) and asked about another (column); and which share of them two "
            "tasks have in common, where nothing is asked.",
            cards=tuple(_cards_of_grids([grid for grid in content.grids if grid.model])),
            notes=_note(content.notes, "transfer"),
        ),
        Section(
            key="robustness",
            title="Other words and worse pictures",
            about="Super Neurons of a task, asked about variants of it.",
            cards=tuple(map(_card_of_variants, content.variants)),
            notes=_note(content.notes, "robustness"),
        ),
        Section(
            key="models",
            title="What another model has, too",
            about="Neurons of two models that were shown the same samples.",
            cards=(
                *_cards_of_matches(content.matches),
                *_cards_of_grids([grid for grid in content.grids if not grid.model]),
            ),
            notes=_note(content.notes, "models"),
        ),
        Section(
            key="neurons",
            title="The best neurons",
            about="Of each run the best that are above chance. Examples are of the validation split, half of them "
            "where the neuron fires, as far as there are, and those furthest from the threshold; the test split is not "
            "looked at.",
            cards=tuple(_cards_of_neurons(content.runs)),
            notes=_collect_missing(content.runs, "neurons"),
            is_wide=True,
        ),
        Section(
            key="speed",
            title="Early exits",
            about="How much of a model runs, and what the answers are worth.",
            cards=tuple(map(_card_of_speed, content.speeds)),
            notes=_note(content.notes, "speed"),
        ),
    )


def card_of_overview(content: ReportContent) -> Card | None:
    """Return all runs at a glance; None if the accuracy of none is known."""
    if all(run.depth is None for run in content.runs):
        return None
    return Card(
        title="Super Neurons at a glance",
        models=content.models,
        tasks=content.tasks,
        panels=(Panel(plot=draw_overview(content.runs)),),
    )


def _cards_of_emergence(runs: Sequence[RunFigures]) -> Iterator[Card]:
    for run in runs:
        if run.depth is not None:
            yield _card_of_run(run, Panel(plot=draw_emergence(run.depth)))


def _cards_of_places(runs: Sequence[RunFigures]) -> Iterator[Card]:
    for run in runs:
        if run.depth is not None or run.choice is not None:
            yield _card_of_run(run, Panel(plot=draw_places(run.depth, run.choice)))


def _cards_of_neurons(runs: Sequence[RunFigures]) -> Iterator[Card]:
    for run in runs:
        if run.choice is not None and run.choice.neurons:
            panels = tuple(map(_panel_of_neuron, run.choice.neurons))
            missing = run.choice.missing_pictures
            yield _card_of_run(run, *panels, note=f"No pictures: {missing}." if missing else "")


def _card_of_run(run: RunFigures, *panels: Panel, note: str = "") -> Card:
    return Card(title=f"{run.model} / {run.task}", models=(run.model,), tasks=(run.task,), panels=panels, note=note)


def _panel_of_neuron(neuron: NeuronFigures) -> Panel:
    metric = neuron.metric.replace("_", " ")
    facts = [
        ("names", neuron.option),
        (f"{metric}, probe (n = {neuron.n_probe:,})", f"{tell(neuron.score)} %"),
        ("AUROC by its sign, probe", f"{neuron.auroc if neuron.polarity > 0 else 1 - neuron.auroc:.3f}"),
        ("q-value", "\u2013" if neuron.q_value is None else f"{neuron.q_value:.2g}"),
        ("fires", f"{'above' if neuron.polarity > 0 else 'below'} {neuron.threshold:.4g}"),
    ]
    if neuron.validation_score is not None:
        facts.insert(2, (f"{metric}, validation (n = {neuron.n_validation:,})", f"{tell(neuron.validation_score)} %"))
    return Panel(plot=draw_neuron(neuron), title=neuron.name, facts=tuple(facts), examples=neuron.examples)


def _cards_of_grids(grids: Sequence[GridFigures]) -> Iterator[Card]:
    for grid in grids:
        models = (grid.model,) if grid.model else tuple(dict.fromkeys((*grid.rows, *grid.columns)))
        tasks = tuple(dict.fromkeys(name.partition("@")[0] for name in (*grid.rows, *grid.columns)))
        title = f"{grid.model}: {grid.title}" if grid.model else grid.title
        yield Card(
            title=title,
            models=models,
            tasks=tasks if grid.model else (grid.title.partition(":")[0],),
            panels=(Panel(plot=draw_grid(grid)),),
        )


def _card_of_variants(variants: VariantFigures) -> Card:
    return Card(
        title=f"{variants.model} / {variants.task}: {variants.title}",
        models=(variants.model,),
        tasks=(variants.task,),
        panels=(Panel(plot=draw_variants(variants)),),
    )


def _cards_of_matches(matches: Sequence[MatchFigures]) -> Iterator[Card]:
    def pair(match: MatchFigures) -> tuple[str, str]:
        return match.source, match.target

    for (source, target), group in groupby(sorted(matches, key=pair), key=pair):
        own = list(group)
        yield Card(
            title=f"Neurons of {source} in {target}",
            models=(source, target),
            tasks=tuple(match.task for match in own),
            panels=(Panel(plot=draw_matches(own)),),
        )


def _card_of_speed(speed: SpeedFigures) -> Card:
    return Card(
        title=f"{speed.model} / {speed.task}: {'measured' if speed.is_measured else 'computed, not measured'}",
        models=(speed.model,),
        tasks=(speed.task,),
        panels=(Panel(plot=draw_speed(speed)),),
    )


def _collect_missing(runs: Sequence[RunFigures], part: str) -> tuple[str, ...]:
    """Return why a part is missing, the runs of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for run in runs:
        if part in run.missing:
            by_reason.setdefault(run.missing[part], []).append(run.name)
    return tuple(f"{', '.join(names)}: {reason}." for reason, names in by_reason.items())


def _note(notes: Mapping[str, str], key: str) -> tuple[str, ...]:
    return (notes[key],) if key in notes else ()
