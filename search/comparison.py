"""Super Neurons beside every baseline and control, at equal numbers of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage import Run
from storage.schema import Split

from . import contender
from .baseline import BUDGETS
from .contender import Answered, Budget, Group, Setting
from .interval import clustered_interval
from .scan import ScanSpec
from .supervision import Supervision
from .task_graph import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMethod:
    """How often one method is right.

    ``per_class`` is its label budget, None for all of the probe split; ``n_labels`` how many labels it saw, 0 for none.
    ``accuracy`` is a fraction of ``n_samples``, ``low`` and ``high`` the ends of its 95 % interval, clustered by
    image, or by question where labels are drawn so. ``depth`` is how many layers run, None where all do.
    """

    method: str
    group: Group
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
    budgets: Sequence[Budget] = BUDGETS,
    controls: Mapping[str, Run] | None = None,
    split: Split = "validation",
    seed: int = 0,
    scheduler: Scheduler = "threads",
) -> list[ComparedMethod]:
    """Return how every method does on a split of `run`, having learned from each of the label `budgets`.

    Super Neurons are the `n_neurons` best stumps of each contrast, whatever their q-value, so that no label beyond the
    budget counts. Beside them: the best single neuron and as many random ones, the model's own answer as it is and
    calibrated, the logit lens and logistic regression on the residual, both at the depth that turns out best, sparse
    attention vectors, and what has not seen the language model. Then the controls, each with Super Neurons of its own:
    `controls`, runs of the same samples without their pictures, as `search.visual_gain.find_controls` names them; the
    residual alone, in its own basis and rotated; and labels drawn at random, one an image or one a question.
    Methods whose arrays the run does not hold are left out.

    Notes
    -----
    Whoever asks for the test split opens it: see `search.evaluation.open_test_split`.
    """
    setting = Setting(
        run=run,
        supervision=supervision,
        spec=spec,
        rows=supervision.rows(split),
        images=run.read_samples("image_id"),
        n_neurons=n_neurons,
        controls=controls or {},
        seed=seed,
        scheduler=scheduler,
    )
    found = [_measure(setting, None, one) for one in contender.answer_untrained(setting)]
    for budget in budgets:
        for answer in CONTENDERS:
            found += [_measure(setting, budget, one) for one in answer(setting, budget)]
    return found


CONTENDERS = (
    contender.answer_trained,
    contender.answer_neurons,
    contender.answer_rotated,
    contender.answer_without_picture,
    contender.answer_random_labels,
)
"""What each label budget is given to."""


def _measure(setting: Setting, budget: Budget, one: Answered) -> ComparedMethod:
    truth = setting.supervision.labels[setting.rows] if one.truth is None else one.truth
    clusters = setting.images[setting.rows] if one.clusters is None else one.clusters
    accuracy, low, high = clustered_interval(one.answers == truth, clusters)
    return ComparedMethod(
        method=one.method,
        group=one.group,
        per_class=budget,
        n_labels=one.n_labels,
        depth=one.depth,
        n_samples=len(setting.rows),
        accuracy=accuracy,
        low=low,
        high=high,
    )
