"""Super Neurons beside every baseline, at equal numbers of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import SPLITS, Split

from . import baseline
from .classifier import SuperNeurons
from .interval import clustered_interval
from .scan import Scan, ScanSpec, Scheduler, scan_run
from .selection import Selection, select_super_neurons
from .stump_table import StumpTable, join_tables, tabulate_layer
from .supervision import Supervision

Answers = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMethod:
    """How often one method is right.

    ``per_class`` is its label budget, None for all of the probe split; ``n_labels`` how many labels it saw, 0 for none.
    ``accuracy`` is a fraction of ``n_samples``, ``low`` and ``high`` the ends of its 95 % interval, clustered by image.
    ``depth`` is how many layers run, None where all do.
    """

    method: str
    per_class: int | None
    n_labels: int
    depth: int | None
    n_samples: int
    accuracy: float
    low: float
    high: float


def compare_methods(
    run: Run,
    supervision: Supervision,
    *,
    spec: ScanSpec,
    n_neurons: int = 16,
    budgets: Sequence[int | None] = baseline.BUDGETS,
    split: Split = "validation",
    seed: int = 0,
    scheduler: Scheduler = "threads",
) -> list[ComparedMethod]:
    """Return how every method does on a split of `run`, having learned from each of the label `budgets`.

    Super Neurons are the `n_neurons` best stumps of each contrast, whatever their q-value, so that no label beyond the
    budget counts. Beside them: the best single neuron and as many random ones, the model's own answer as it is and
    calibrated, the logit lens and logistic regression on the residual, both at the depth that turns out best, sparse
    attention vectors, and what has not seen the language model. Methods whose arrays the run does not hold are left
    out.

    Notes
    -----
    Whoever asks for the test split opens it: see `search.evaluation.open_test_split`.
    """
    rows = supervision.rows(split)
    images = run.read_samples("image_id")
    found = []

    def note(method: str, answers: Answers, *, budget: int | None, n_labels: int, depth: int | None = None) -> None:
        accuracy, low, high = clustered_interval(answers == supervision.labels[rows], images[rows])
        found.append(
            ComparedMethod(
                method=method,
                per_class=budget,
                n_labels=n_labels,
                depth=depth,
                n_samples=len(rows),
                accuracy=accuracy,
                low=low,
                high=high,
            )
        )

    for method, answers in baseline.predict_baselines(run, supervision, rows).items():
        n_labels = 0 if method == "base" else len(supervision.rows("probe"))
        note(NAMES[method], answers, budget=None, n_labels=n_labels)
    for budget in budgets:
        training = baseline.plan_budget(supervision, images, per_class=budget, seed=seed)
        few = limit_probe(supervision, training)
        for method, answers, depth in _predict_all(run, few, rows, training):
            n_labels = 0 if "no labels" in method else len(training)
            note(method, answers, budget=budget, n_labels=n_labels, depth=depth)
        scan = scan_run(run, few, spec=spec, scheduler=scheduler)
        for method, chosen in _choose_neurons(scan, n_neurons, seed=seed, scheduler=scheduler):
            answers = chosen.predict(run, rows, supervision=supervision, scheduler=scheduler)
            note(method, answers, budget=budget, n_labels=len(training), depth=chosen.depth)
    return found


NAMES = {"majority": "majority class", "question_only": "question only", "base": "the model itself"}


def limit_probe(supervision: Supervision, training_rows: npt.NDArray[np.intp]) -> Supervision:
    """Return the same samples with `training_rows` alone in the probe split; the others of it are in none."""
    split = supervision.split.copy()
    split[split == SPLITS.index("probe")] = -1
    split[training_rows] = SPLITS.index("probe")
    return replace(supervision, split=split)


def _predict_all(
    run: Run,
    supervision: Supervision,
    rows: npt.NDArray[np.intp],
    training_rows: npt.NDArray[np.intp],
) -> Iterator[tuple[str, Answers, int | None]]:
    """Return method, answers and depth of every baseline that learns, of those whose arrays are there.

    Depths are the best in hindsight: no opponent shall be weaker than it could be.
    """
    plain: list[tuple[str, str, Callable[..., Answers]]] = [
        ("option_logit", "the model, calibrated", baseline.predict_calibrated),
        ("option_logit", "the model, batch-calibrated (no labels)", baseline.predict_batch_calibrated),
        ("heads", "sparse attention vectors", baseline.predict_sav),
        ("image_feature", "image features and words", baseline.predict_image_probe),
    ]
    for array, method, predict in plain:
        if run.has_array(array):
            yield method, predict(run, supervision, rows, training_rows=training_rows), None
    by_layer: list[tuple[str, str, Callable[..., Answers]]] = [
        ("lens_logit", "logit lens, calibrated, at its best depth", baseline.predict_lens_calibrated),
        ("residual", "logistic regression on the best layer", baseline.predict_layer_probes),
    ]
    for array, method, predict in by_layer:
        if run.has_array(array):
            answers = predict(run, supervision, rows, training_rows=training_rows)
            best = int(np.argmax((answers == supervision.labels[rows][:, None]).mean(axis=0)))
            yield method, answers[:, best], best + 1


def _choose_neurons(
    scan: Scan, n_neurons: int, *, seed: int, scheduler: Scheduler
) -> Iterator[tuple[str, SuperNeurons]]:
    """Return the best stumps together, the best alone, and random ones."""
    chosen = select_super_neurons(scan, Selection(select="top_k", n_neurons=n_neurons, max_q=None), scheduler=scheduler)
    yield f"{n_neurons} Super Neurons", chosen
    yield "the best single neuron", chosen.take(1)
    random = np.random.default_rng(seed)
    tables = [_draw(scan, contrast, n_neurons, random) for contrast in range(len(chosen.contrasts))]
    weights = tuple(np.ones(len(table)) for table in tables)
    yield (
        f"{n_neurons} random neurons",
        SuperNeurons(contrasts=tuple(tables), weights=weights, fallback=chosen.fallback),
    )


def _draw(scan: Scan, contrast: int, count: int, random: np.random.Generator) -> StumpTable:
    """Return the stumps of `count` neurons of one contrast, any as likely as another."""
    tables = []
    for cell, layer in scan.layers():
        missing = np.full(layer["score"].shape[1], np.nan)
        tables.append(tabulate_layer(cell, layer, contrast=contrast, q_values=missing))
    whole = join_tables(tables)
    return whole.take(np.sort(random.permutation(len(whole))[:count]))
