"""A run that was searched: the stumps of all its neurons, and the Super Neurons that were chosen among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage import Run
from storage.schema import Site

from .baseline.answer import score_base
from .classifier import SuperNeurons
from .scan import Scan, ScanSpec, count_layers, scan_run
from .selection import QValues, Selection, find_q_values, select_at_depths, select_super_neurons
from .stump import Metric, Rule, default_metric
from .supervision import Supervision, read_supervision
from .task_graph import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedRun:
    """A run with its stumps and those that were chosen. Make one with `choose_neurons`.

    ``floors`` (contrast,) are the model's own scores on the probe split, None where the run holds no evidence;
    ``q_values`` is None where chance was not looked at.
    """

    scan: Scan
    selection: Selection
    q_values: QValues | None
    floors: Sequence[float] | None
    super_neurons: SuperNeurons

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.scan.run

    @property
    def supervision(self) -> Supervision:
        """The labels and splits that were searched."""
        return self.scan.supervision

    def select(self, selection: Selection, *, scheduler: Scheduler = "threads") -> SuperNeurons:
        """Return what another `selection` chooses of the same stumps, by the same correction of p-values."""
        return select_super_neurons(
            self.scan, selection, q_values=self.q_values, floors=self.floors, scheduler=scheduler
        )

    def select_depths(self, *, scheduler: Scheduler = "threads") -> list[SuperNeurons]:
        """Return what the run's own selection chooses of the layers below each depth, from 1 to all of them."""
        depths = range(1, count_layers(self.run) + 1)
        return select_at_depths(
            self.scan, self.selection, depths, q_values=self.q_values, floors=self.floors, scheduler=scheduler
        )


def choose_neurons(
    run: Run,
    *,
    metric: Metric | None = None,
    rule: Rule = "optimal",
    selection: Selection | None = None,
    sites: tuple[Site, ...] | None = None,
    supervision: Supervision | None = None,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> SearchedRun:
    """Return the stumps and Super Neurons of a complete `run`, without a look at its test split.

    Stumps are fitted on the probe split, their number is chosen on the validation split. `supervision` replaces the
    run's own labels, for controls. `save` keeps the scores of all neurons in the store; see `search.scan.scan_run`.

    Raises
    ------
    RunIncompleteError
        If a block of the run is not committed.
    SearchError
        If a split is empty or a value is not finite.
    """
    run.validate_complete()
    labelled = read_supervision(run) if supervision is None else supervision
    spec = ScanSpec(metric=metric or default_metric(labelled.n_classes), rule=rule, sites=sites)
    scan = scan_run(run, labelled, spec=spec, scheduler=scheduler, save=save)
    chosen = selection or Selection()
    floors = score_base(run, labelled, metric=spec.metric) if run.has_array("option_logit") else None
    q_values = find_q_values(scan, correction=chosen.correction) if chosen.max_q is not None else None
    neurons = select_super_neurons(scan, chosen, q_values=q_values, floors=floors, scheduler=scheduler)
    return SearchedRun(scan=scan, selection=chosen, q_values=q_values, floors=floors, super_neurons=neurons)
