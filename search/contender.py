"""Contenders: every method that is compared with Super Neurons, and the controls, each with a budget of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import QUESTION, SPLITS

from . import baseline
from .baseline.basis import BASIS
from .baseline.control import BLANK, QUESTION_ONLY
from .classifier import SuperNeurons
from .scan import Scan, ScanSpec, scan_run
from .selection import Selection, make_classifier, select_super_neurons
from .stump import contrast_classes
from .stump_table import StumpTable, join_tables, tabulate_layer
from .supervision import Supervision
from .task_graph import Scheduler

Answers = npt.NDArray[np.int16]
"""The option that a method names for each sample, (row,)."""

Budget = int | None
"""Labels of each class that a method may see; None: all of the probe split."""

Group = Literal["no_activations", "model", "reader", "super_neurons", "control"]
GROUPS: tuple[Group, ...] = ("no_activations", "model", "reader", "super_neurons", "control")
"""Kinds of methods, in the order of a table: what needs no activations, the model's own answer, what else reads
activations, Super Neurons, and what Super Neurons find where there is less to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A baseline that learns: the array that it needs, and what it answers, (row,) or ``by_layer`` (row, layer).

    One that ``reads_words`` needs the questions' texts, too.
    """

    method: str
    group: Group
    array: str
    predict: Callable[..., Answers]
    by_layer: bool = False
    sees_labels: bool = True
    reads_words: bool = False

    def can_learn(self, run: Run) -> bool:
        """Return whether `run` holds what it reads."""
        return run.has_array(self.array) and not (self.reads_words and QUESTION in run.withheld)


TRAINED = (
    Trained(
        method="image features and words",
        group="no_activations",
        array="image_feature",
        predict=baseline.predict_image_probe,
        reads_words=True,
    ),
    Trained(
        method="batch calibration",
        group="model",
        array="option_logit",
        predict=baseline.predict_batch_calibrated,
        sees_labels=False,
    ),
    Trained(method="the model, calibrated", group="model", array="option_logit", predict=baseline.predict_calibrated),
    Trained(
        method="logit lens, calibrated",
        group="model",
        array="lens_logit",
        predict=baseline.predict_lens_calibrated,
        by_layer=True,
    ),
    Trained(method="sparse attention vectors", group="reader", array="heads", predict=baseline.predict_sav),
    Trained(
        method="logistic regression",
        group="reader",
        array="residual",
        predict=baseline.predict_layer_probes,
        by_layer=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all methods of a comparison share.

    ``rows`` (row,) are the samples that they answer for, ``images`` (sample,) those of all samples, and ``controls``
    runs of the same samples without their pictures, by name.
    """

    run: Run
    supervision: Supervision
    spec: ScanSpec
    rows: npt.NDArray[np.intp]
    images: npt.NDArray[np.object_]
    n_neurons: int
    controls: Mapping[str, Run]
    seed: int
    scheduler: Scheduler

    def limit(self, budget: Budget, supervision: Supervision | None = None) -> Supervision:
        """Return the labels that a method may see: those of `supervision`, or else the run's own, within a budget."""
        whole = supervision or self.supervision
        return limit_probe(whole, baseline.plan_budget(whole, self.images, per_class=budget, seed=self.seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a method answers for the rows, having seen ``n_labels``.

    ``depth`` is how many layers run, None where all do. ``truth`` (row,) is what is right, where that is not the run's
    own labels, and ``clusters`` (row,) what samples share, where that is not their image.
    """

    method: str
    group: Group
    answers: Answers
    n_labels: int
    depth: int | None = None
    truth: Answers | None = None
    clusters: npt.NDArray[np.object_] | None = None


def limit_probe(supervision: Supervision, training_rows: npt.NDArray[np.intp]) -> Supervision:
    """Return the same samples with `training_rows` alone in the probe split; the others of it are in none."""
    split = supervision.split.copy()
    split[split == SPLITS.index("probe")] = -1
    split[training_rows] = SPLITS.index("probe")
    return replace(supervision, split=split)


def answer_untrained(setting: Setting) -> Iterator[Answered]:
    """Return what is the same at every budget: the most frequent answers, and the model's own, with and without."""
    run, supervision, rows = setting.run, setting.supervision, setting.rows
    n_probe = len(supervision.rows("probe"))
    told: list[tuple[str, Group, Answers, int]] = [
        ("majority class", "no_activations", baseline.predict_majority(supervision, rows), n_probe),
        (QUESTION_ONLY, "no_activations", baseline.predict_question_only(run, supervision, rows), n_probe),
    ]
    if run.has_array("option_logit"):
        told.append(("the model itself", "model", baseline.predict_base(run, supervision, rows), 0))
        controls = {name: one for name, one in setting.controls.items() if one.has_array("option_logit")}
        for name, control in controls.items():
            told.append((f"the model, {name}", "model", baseline.predict_base(control, supervision, rows), 0))
        if run.has_array("base_answer"):
            told.append(("the model, greedy", "model", run.read_samples("base_answer")[rows], 0))
        if BLANK in controls:
            answers = baseline.predict_contextual(run, supervision, rows, content_free=controls[BLANK])
            told.append(("contextual calibration", "model", answers, 0))
    for method, group, answers, n_labels in told:
        yield Answered(method=method, group=group, answers=answers, n_labels=n_labels)


def answer_trained(setting: Setting, budget: Budget) -> Iterator[Answered]:
    """Return every baseline that learns, of those whose arrays are there.

    Depths are the best in hindsight: no opponent shall be weaker than it could be.
    """
    few = setting.limit(budget)
    training, labels = few.rows("probe"), few.labels[setting.rows]
    for one in TRAINED:
        if one.can_learn(setting.run):
            answers, depth = one.predict(setting.run, few, setting.rows, training_rows=training), None
            if one.by_layer:
                best = int(np.argmax((answers == labels[:, None]).mean(axis=0)))
                answers, depth = answers[:, best], best + 1
            n_labels = len(training) if one.sees_labels else 0
            yield Answered(method=one.method, group=one.group, answers=answers, n_labels=n_labels, depth=depth)


def answer_neurons(setting: Setting, budget: Budget) -> Iterator[Answered]:
    """Return the best stumps together, the best alone, random ones, and the best of the residual."""
    few, count = setting.limit(budget), setting.n_neurons
    scan = _scan(setting, setting.run, few)
    best = _choose_best(setting, scan)
    yield _answer(setting, f"{count} Super Neurons", best, few)
    yield _answer(setting, "the best single neuron", best.take(1), few)
    random = _draw_neurons(scan, count, seed=setting.seed)
    yield _answer(setting, f"{count} random neurons", random, few)
    residual = [cell for cell in scan.cells if cell.folder == BASIS]
    if residual:
        yield _control(setting, "residual alone", _choose_best(setting, replace(scan, cells=residual)), few)


def answer_rotated(setting: Setting, budget: Budget) -> Iterator[Answered]:
    """Return Super Neurons of the residual in another basis, to be held against those of its own."""
    if BASIS in setting.run.sites and BASIS in (setting.spec.sites or setting.run.sites):
        few, rotated = setting.limit(budget), baseline.RotatedRun(setting.run, seed=setting.seed)
        yield _control(setting, "residual rotated", _choose_best(setting, _scan(setting, rotated, few)), few, rotated)


def answer_without_picture(setting: Setting, budget: Budget) -> Iterator[Answered]:
    """Return Super Neurons of the control runs: what can be found without the picture."""
    few = setting.limit(budget)
    for name, control in setting.controls.items():
        yield _control(setting, name, _choose_best(setting, _scan(setting, control, few)), few, control)


def answer_random_labels(setting: Setting, budget: Budget) -> Iterator[Answered]:
    """Return Super Neurons of labels that are drawn at random, one an image or one a question, as far as they are told.

    What is told of questions is memory: an accuracy on the labels less this one is its selectivity. Images of the rows
    are none of those that were learned, so that theirs are told by chance alone, or else something leaks. Left out
    where an option has no label, as with one question.

    References
    ----------
    Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks", EMNLP 2019.
    """
    for name, keys in (("image", setting.images), ("question", setting.run.read_samples("question"))):
        drawn = baseline.randomize_labels(setting.supervision, keys, seed=setting.seed)
        few = setting.limit(budget, drawn)
        if len(np.unique(few.labels[few.rows("probe")])) == few.n_classes:
            neurons = _choose_best(setting, _scan(setting, setting.run, few))
            told = _control(setting, f"random by {name}", neurons, few)
            yield replace(told, truth=drawn.labels[setting.rows], clusters=keys[setting.rows])


def _scan(setting: Setting, run: Run, supervision: Supervision) -> Scan:
    sites = None if setting.spec.sites is None else tuple(site for site in setting.spec.sites if site in run.sites)
    return scan_run(run, supervision, spec=replace(setting.spec, sites=sites), scheduler=setting.scheduler)


def _choose_best(setting: Setting, scan: Scan) -> SuperNeurons:
    selection = Selection(select="top_k", n_neurons=setting.n_neurons, max_q=None)
    return select_super_neurons(scan, selection, scheduler=setting.scheduler)


def _answer(
    setting: Setting, method: str, neurons: SuperNeurons, supervision: Supervision, run: Run | None = None
) -> Answered:
    """Return what `neurons` say of `run`, or else the setting's, having seen the probe labels of `supervision`."""
    answers = neurons.predict(run or setting.run, setting.rows, supervision=supervision, scheduler=setting.scheduler)
    return Answered(
        method=method,
        group="super_neurons",
        answers=answers,
        n_labels=len(supervision.rows("probe")),
        depth=neurons.depth,
    )


def _control(
    setting: Setting, name: str, neurons: SuperNeurons, supervision: Supervision, run: Run | None = None
) -> Answered:
    return replace(_answer(setting, f"SNs, {name}", neurons, supervision, run), group="control")


def _draw_neurons(scan: Scan, count: int, *, seed: int) -> SuperNeurons:
    """Return the stumps of `count` neurons of each contrast, any as likely as another."""
    random = np.random.default_rng(seed)
    tables = []
    for contrast in range(len(contrast_classes(scan.supervision.n_classes))):
        whole = _tabulate_all(scan, contrast)
        tables.append(whole.take(np.sort(random.permutation(len(whole))[:count])))
    return make_classifier(scan, tables, vote=Selection().vote)


def _tabulate_all(scan: Scan, contrast: int) -> StumpTable:
    """Return the stumps of all neurons of one contrast."""
    tables = []
    for cell, layer in scan.layers():
        missing = np.full(layer["score"].shape[1], np.nan)
        tables.append(tabulate_layer(cell, layer, contrast=contrast, q_values=missing))
    return join_tables(tables)
