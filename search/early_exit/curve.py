"""Accuracy against depth on the test split: exits at one depth for all, adaptive ones, and the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..baseline import predict_base, predict_calibrated
from ..classifier import tally_classifiers
from ..evaluation import open_test_split
from ..interval import PairedComparison, clustered_interval, compare_paired
from ..scan import count_layers
from ..searched_run import SearchedRun
from ..task_graph import Scheduler
from .cascade import Cascade, CascadeAnswers
from .margin import Rehearsal, choose_exits, rehearse_exits

STUDY = "early_exit"
"""What the ledger says the test split was opened for."""

MAX_LOSSES = (0.0, 0.01, 0.02, 0.05)
"""Fractions of the samples of an exit that it may lose on the validation split."""

Method = Literal["fixed depth", "adaptive depth", "the model itself", "the model, calibrated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCount:
    """How many samples leave at a depth, and the margin that they reach there; None: whatever it is."""

    depth: int
    n_samples: int
    margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitFigure:
    """How often a way to answer is right on the test split, and how many layers it runs.

    Attributes
    ----------
    method
        ``fixed depth``: Super Neurons chosen of the layers below a depth, which run for every sample; ``adaptive
        depth``: a cascade; the model's own answer by option evidence, and the same calibrated on the probe split.
    max_loss
        Of an adaptive depth: what an exit may lose on the validation split, as a fraction of its samples.
    accuracy, low, high
        As fractions of the test split, with the ends of the 95 % interval, samples clustered by image.
    mean_depth
        Layers that run for a sample, on average.
    layer_share
        The same as a fraction of the layers there are.
    exits
        How many samples leave at each depth.
    above_last
        Of an adaptive depth: its accuracy less that of the run's own classifier on the same samples.
    """

    method: Method
    max_loss: float | None = None
    accuracy: float
    low: float
    high: float
    mean_depth: float
    layer_share: float
    exits: tuple[ExitCount, ...]
    above_last: PairedComparison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCurve:
    """Accuracies of a run's test split against the layers that run. Make one with `measure_exits`.

    ``n_openings`` counts how often the test split was opened, this time included; None where the store cannot be
    written.
    """

    run: str
    n_layers: int
    n_test: int
    n_images: int
    n_openings: int | None
    figures: tuple[ExitFigure, ...]

    def select(self, method: Method) -> list[ExitFigure]:
        """Return the figures of one method."""
        return [figure for figure in self.figures if figure.method == method]

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain values, ready for JSON."""
        figures = [asdict(figure) | {"exits": [asdict(part) for part in figure.exits]} for figure in self.figures]
        return asdict(self) | {"figures": figures}


def measure_exits(
    searched: SearchedRun,
    *,
    max_losses: Sequence[float] = MAX_LOSSES,
    rehearsal: Rehearsal | None = None,
    scheduler: Scheduler = "threads",
) -> ExitCurve:
    """Return how accurate exits at each depth, adaptive ones and the whole model are on the test split.

    It is opened once, after all that is chosen is chosen, and the ledger tells so. The model's own answers are left out
    where the run holds no option evidence.

    Parameters
    ----------
    searched
        The run; its own selection chooses the neurons of each depth.
    max_losses
        For each a cascade is calibrated, see `search.early_exit.calibrate_exits`.
    rehearsal
        Of the run, if it is known already; see `rehearse_exits`.
    scheduler
        Any of Dask's.

    Raises
    ------
    SearchError
        If a split is empty, one of `max_losses` is no fraction, or a value is not finite.
    """
    run, supervision = searched.run, searched.supervision
    rehearsal = rehearsal or rehearse_exits(searched, scheduler=scheduler)
    cascades = [choose_exits(rehearsal, max_loss=max_loss) for max_loss in max_losses]
    rows = supervision.rows("test")
    n_openings = open_test_split(searched.scan, searched.selection, study=STUDY)
    images = run.read_samples("image_id")[rows]
    judge = Judge(labels=supervision.labels[rows], images=images, n_layers=count_layers(run))
    own = supervision.own_options(rows)
    *votes, late = tally_classifiers(run, [*rehearsal.by_depth, rehearsal.last], rows, scheduler=scheduler)
    fixed = [one.decide_tallies(of_one, own) for one, of_one in zip(rehearsal.by_depth, votes, strict=True)]
    last = rehearsal.last.decide_tallies(late, own)
    by_depth = {stage.depth: votes[place] for stage, place in zip(rehearsal.stages, rehearsal.places, strict=True)}
    by_depth[rehearsal.last.depth] = late
    figures = [judge.measure_fixed("fixed depth", answers, depth=depth) for depth, answers in enumerate(fixed, 1)]
    for cascade, max_loss in zip(cascades, max_losses, strict=True):
        found = cascade.decide([by_depth[depth] for depth in cascade.depths], own)
        figures.append(judge.measure_cascade(cascade, found, last, max_loss=max_loss))
    figures += _measure_model(searched, rows, judge)
    return ExitCurve(
        run=run.name,
        n_layers=judge.n_layers,
        n_test=len(rows),
        n_images=len(np.unique(images)),
        n_openings=n_openings,
        figures=tuple(figures),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What answers are held against: ``labels`` and ``images`` of the test split, (row,)."""

    labels: npt.NDArray[np.int16]
    images: npt.NDArray[np.object_]
    n_layers: int

    def measure(
        self, method: Method, answers: npt.NDArray[np.int16], exits: Sequence[ExitCount], **rest: Any
    ) -> ExitFigure:
        """Return how good `answers` (row,) are, of samples that leave as `exits` tell."""
        accuracy, low, high = clustered_interval(answers == self.labels, self.images)
        mean_depth = sum(part.depth * part.n_samples for part in exits) / len(answers)
        return ExitFigure(
            method=method,
            accuracy=accuracy,
            low=low,
            high=high,
            mean_depth=mean_depth,
            layer_share=mean_depth / self.n_layers,
            exits=tuple(exits),
            **rest,
        )

    def measure_fixed(self, method: Method, answers: npt.NDArray[np.int16], *, depth: int) -> ExitFigure:
        """Return the same where all leave at one depth."""
        return self.measure(method, answers, [ExitCount(depth=depth, n_samples=len(answers))])

    def measure_cascade(
        self, cascade: Cascade, found: CascadeAnswers, last: npt.NDArray[np.int16], *, max_loss: float
    ) -> ExitFigure:
        """Return the same of what a cascade `found`, beside the answers of its `last` stage alone, (row,)."""
        margins = [*(early.margin for early in cascade.exits), None]
        exits = [
            ExitCount(depth=depth, n_samples=int((found.depths == depth).sum()), margin=margin)
            for depth, margin in zip(cascade.depths, margins, strict=True)
        ]
        above = compare_paired(found.answers == self.labels, last == self.labels, self.images)
        return self.measure("adaptive depth", found.answers, exits, max_loss=max_loss, above_last=above)


def _measure_model(searched: SearchedRun, rows: npt.NDArray[np.intp], judge: Judge) -> Iterator[ExitFigure]:
    """Return how good the model's own answers are, which take all layers."""
    run, supervision = searched.run, searched.supervision
    if run.has_array("option_logit"):
        base = predict_base(run, supervision, rows)
        yield judge.measure_fixed("the model itself", base, depth=judge.n_layers)
        calibrated = predict_calibrated(run, supervision, rows, training_rows=supervision.rows("probe"))
        yield judge.measure_fixed("the model, calibrated", calibrated, depth=judge.n_layers)
