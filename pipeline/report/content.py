"""What a report tells: figures of a store as plain values, without a word of HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..plain_value import to_plain

Numbers = tuple[float | None, ...]
"""Figures in order; None where there is none."""

Grid = tuple[Numbers, ...]
"""Rows of figures."""


GAIN = "visual gain"
"""What it is called, also among what is missing of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Figures along an axis, with the ends of their 95 % intervals where these are known."""

    name: str
    values: Numbers
    low: Numbers = ()
    high: Numbers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthFigures:
    """What is known of a run at each exit depth, of the test split unless it says otherwise.

    ``lines`` are accuracies at ``depths``, the first of them that of Super Neurons; ``levels`` those that have no
    depth, each of one value. ``n_super_neurons`` (depth) counts stumps that vote, ``n_at`` (site, layer) the neurons
    among them.
    """

    n: int
    n_images: int
    depths: tuple[int, ...]
    lines: tuple[Line, ...]
    levels: tuple[Line, ...]
    controls: tuple[Line, ...]
    visual_gain: Line
    n_super_neurons: tuple[int, ...]
    enough_depth: int
    enough_accuracy: float | None
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    n_at: tuple[tuple[int, ...], ...]

    @property
    def has_gain(self) -> bool:
        """Whether the visual gain is known at any depth."""
        return any(value is not None for value in self.visual_gain.values)

    def level(self, name: str) -> Line:
        """Return the accuracy of that name that has no depth."""
        return next((line for line in self.levels if line.name == name), Line(name=name, values=(None,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sample of the validation split and what a neuron says of it.

    ``distance`` is the activation's from the threshold, in standard deviations, ``picture`` the key of its thumbnail in
    `ReportContent.pictures`, empty without one.
    """

    sample_id: str
    question: str
    label: str
    answer: str
    is_right: bool
    distance: float
    picture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronFigures:
    """A stump with the distribution of its neuron on the probe and validation splits.

    ``counts_own`` and ``counts_rest`` (bin) are samples of the option that it names and of all others, between the
    neighbouring ``edges``; the outermost bins hold what lies beyond, too.
    """

    name: str
    option: str
    others: str
    metric: str
    score: float
    auroc: float
    q_value: float | None
    threshold: float
    polarity: int
    edges: tuple[float, ...]
    counts_own: tuple[int, ...]
    counts_rest: tuple[int, ...]
    n_probe: int
    n_validation: int
    validation_score: float | None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronChoice:
    """The best neurons of a run, and where good ones are.

    ``best_score`` (site, layer) is the best probe score of any stump there. ``missing_pictures`` says why examples have
    no pictures, empty if they have.
    """

    neurons: tuple[NeuronFigures, ...]
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    best_score: Grid
    metric: str
    n_neurons: int
    n_probe: int
    missing_pictures: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """A run: what it holds, and what was found in it. ``missing`` says why parts are not there, by their names."""

    name: str
    model: str
    task: str
    variant: str
    n_samples: int
    n_blocks: int
    n_committed: int
    sites: tuple[str, ...]
    n_layers: int
    options: tuple[str, ...]
    n_split: Mapping[str, int]
    n_openings: int
    identity: Mapping[str, Any]
    circumstances: Mapping[str, Any]
    depth: DepthFigures | None = None
    choice: NeuronChoice | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridFigures:
    """A figure for each two runs: sources down, targets across.

    ``marks`` (row, column) tell the cells that stand out, as ``mark_text`` says; ``below`` are lines of one figure a
    column, of what stands beside the sources. ``n`` (row, column) counts what each figure is of, ``n_part`` how many of
    these where the figure is their share. ``axes`` say what rows and columns are.
    """

    title: str
    model: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Grid
    n: tuple[tuple[int, ...], ...]
    unit: str
    split: str
    limits: tuple[float, float]
    marks: tuple[tuple[bool, ...], ...] = ()
    mark_text: str = ""
    below: tuple[Line, ...] = ()
    axes: tuple[str, str] = ("found on", "asked about")
    n_part: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFigures:
    """A task's Super Neurons asked about its variants: ``lines`` over ``places``, the plain task first."""

    title: str
    model: str
    task: str
    places: tuple[str, ...]
    n: tuple[int, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchFigures:
    """How closely the Super Neurons of one model are matched in another, on one task.

    ``correlation`` and ``correlation_random`` are means of the best absolute correlations, ``above_chance`` and
    ``above_chance_random`` shares of neurons with more than chance.
    """

    task: str
    source: str
    target: str
    n: int
    n_neurons: int
    correlation: float | None
    correlation_random: float | None
    above_chance: float | None
    above_chance_random: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitFigures:
    """One exit depth of a model: the share of layers and of the language model's operations that it runs.

    ``ratio`` (with its range) is how many times as fast as the full model's first token it answers, None unless it was
    measured.
    """

    depth: int
    layers_fraction: float
    operations_fraction: float | None
    accuracy: float | None
    low: float | None
    high: float | None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    exit_s: float | None = None
    full_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFigures:
    """Early exits of a run. ``how`` says what was measured where, or what figures are computed from."""

    model: str
    task: str
    n: int
    n_layers: int
    n_tokens: int
    exits: tuple[ExitFigures, ...]
    how: str
    is_measured: bool = False
    n_measured: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """All that a report tells of a store.

    ``left_out`` says of runs why they are, by their names; ``notes`` what else is not there, by the section.
    ``pictures`` holds thumbnails as data URIs.
    """

    store: str
    generator: str
    store_generator: str
    format_version: str
    made: str
    runs: tuple[RunFigures, ...]
    grids: tuple[GridFigures, ...] = ()
    variants: tuple[VariantFigures, ...] = ()
    matches: tuple[MatchFigures, ...] = ()
    speeds: tuple[SpeedFigures, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The models of all runs, each once."""
        return tuple(dict.fromkeys(run.model for run in self.runs))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of all runs, each once, variants left aside."""
        return tuple(dict.fromkeys(run.task for run in self.runs))

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON, which has no NaN: None; the pictures are left to the page."""
        told: dict[str, Any] = to_plain({key: value for key, value in asdict(self).items() if key != "pictures"})
        return told


def to_number(value: Any) -> float | None:
    """Return a figure, None where it is none."""
    number = float(value)
    return number if math.isfinite(number) else None


def to_numbers(values: Any) -> Numbers:
    """Return figures along one axis, None where they are none."""
    return tuple(to_number(value) for value in values)
