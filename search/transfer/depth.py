"""Depth: how many layers are enough for Super Neurons, beside what else reads each layer, and what needs no picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage import Run

from ..baseline import (
    measure_visual_gain,
    predict_baselines,
    predict_calibrated,
    predict_layer_probes,
    predict_lens,
    predict_lens_calibrated,
)
from ..baseline.control import CONTROL_VARIANTS, QUESTION_ONLY
from ..classifier import SuperNeurons, tally_classifiers
from ..errors import SearchError
from ..evaluation import open_test_split
from ..interval import clustered_interval, compare_paired
from ..scan import count_layers
from ..searched_run import SearchedRun
from ..task_graph import Scheduler
from .study import Figure, StudyPlan, Values, identify_runs, make_study

if TYPE_CHECKING:
    import xarray

ENOUGH_PERCENT = 1
"""Points of accuracy, in percent, that a depth may lack of the best one and still be enough."""

BY_DEPTH: Mapping[str, str] = {
    "accuracy": "Super Neurons of the layers below the depth",
    "lens": "the logit lens at the last of these layers",
    "lens_calibrated": "that lens, calibrated on the probe split",
    "probe": "a logistic regression on the residual of the last of these layers, fitted on the probe split",
}
"""Accuracies of the test split at each depth, with intervals: whose they are."""

WHOLE: Mapping[str, str] = {
    "base": "the model's own answer by option evidence",
    "calibrated": "that answer, calibrated on the probe split",
}
"""Accuracies of the test split that have no depth, with intervals: whose they are."""

_ENOUGH = f"within {ENOUGH_PERCENT} point of the best depth's"

FIGURES: Mapping[str, Figure] = {
    "validation_accuracy": Figure(
        description="accuracy of the same Super Neurons on the validation split, which may have chosen their number",
        dims=("depth",),
    ),
    "n_super_neurons": Figure(description="stumps that vote, over all contrasts", dims=("depth",), dtype="i8", fill=0),
    "control_accuracy": Figure(
        description="test accuracy of Super Neurons chosen anew in the control run; NaN if there is none",
        dims=("control", "depth"),
    ),
    "visual_gain": Figure(
        description="accuracy less the best of question_only and the controls; NaN unless all are known",
        dims=("depth",),
    ),
    "visual_gain_low": Figure(
        description="lower end of its 95 % interval, of the same samples clustered by image, to that best one",
        dims=("depth",),
    ),
    "visual_gain_high": Figure(description="upper end", dims=("depth",)),
    "majority": Figure(description="test accuracy of the most frequent answer"),
    "question_only": Figure(description="test accuracy of the most frequent answer to each question's text"),
    "n": Figure(description="samples of the test split", dtype="i8", fill=0),
    "n_images": Figure(description="pictures of the test split", dtype="i8", fill=0),
    "n_at": Figure(
        description="where Super Neurons of all layers are, each counted once over contrasts and tokens",
        dims=("site", "layer"),
        dtype="i8",
        fill=0,
    ),
    "enough_depth": Figure(
        description=f"least depth whose validation accuracy is {_ENOUGH}; the test split plays no part",
        dtype="i8",
        fill=0,
    ),
    "enough_accuracy": Figure(description="test accuracy at enough_depth"),
    "enough_depth_test": Figure(
        description=f"least depth whose test accuracy is {_ENOUGH}: optimistic, as the test split itself chooses it",
        dtype="i8",
        fill=0,
    ),
}
"""What else the study tells."""

Right = npt.NDArray[np.bool_]
"""Whether the answer to each sample is right, (row,), or (depth, row) at every depth."""

Places = npt.NDArray[np.intp]
"""Where the stumps of one table stand in another, (stump,)."""


def study_depth(
    searched: SearchedRun,
    *,
    controls: Mapping[str, SearchedRun | str] = {},
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> xarray.Dataset:
    """Return what Super Neurons of the layers below each depth know, beside the other readers of these layers.

    They are chosen anew at each depth, as the run's own selection says; its `max_depth` plays no part. The test split
    is read once for all depths, after all that is chosen is chosen.

    Parameters
    ----------
    searched
        The run that is studied.
    controls
        The same search of the same samples without their pictures, or the reason why there is none, by the names in
        `search.baseline.control.CONTROL_VARIANTS`. One that is not given is not known.
    scheduler
        Any of Dask's.
    save
        Whether the study is kept in the store, and read from there if it is there already.

    Returns
    -------
    xarray.Dataset
        Dimensions ``run`` (one), ``depth`` (1 to the number of layers), ``control``, ``site`` and ``layer``. Accuracies
        are fractions of the test split unless they say otherwise, ``low`` and ``high`` the ends of their 95 %
        intervals, samples clustered by image. NaN where the run does not hold what an array is made of.

    Raises
    ------
    SearchError
        If a control is no such search of the same samples, or a value is not finite.
    ReadOnlyError
        If `save` is set and the dataset can only be read.
    """
    known = _parse_controls(searched, controls)
    plan = _plan_study(searched, known)
    return make_study(
        plan, lambda _: _measure(searched, known, scheduler, study=plan.path), home=searched.run, save=save
    )


def _parse_controls(searched: SearchedRun, controls: Mapping[str, SearchedRun | str]) -> dict[str, SearchedRun | str]:
    """Return every control by its name, after a look at whether it is one."""
    where = f"run {searched.run.name}, controls"
    if strange := controls.keys() - CONTROL_VARIANTS.keys():
        raise SearchError(f"{where}: expected some of {list(CONTROL_VARIANTS)}, found {sorted(strange)}; name them so")
    known = {name: controls.get(name, "no such control was given") for name in CONTROL_VARIANTS}
    samples = searched.run.read_samples("sample_id")
    for name, control in known.items():
        if isinstance(control, str):
            continue
        found = control.run.read_samples("sample_id")
        alike = {
            "samples": np.array_equal(found, samples),
            "layers": count_layers(control.run) == count_layers(searched.run),
            "fit of stumps": control.scan.spec == searched.scan.spec,
            "selection": control.selection == searched.selection,
        }
        for part, same in alike.items():
            if not same:
                raise SearchError(
                    f"{where}, {name}: expected the same {part}, found others in run {control.run.name}; search both "
                    "runs alike"
                )
    return known


def _plan_study(searched: SearchedRun, controls: Mapping[str, SearchedRun | str]) -> StudyPlan:
    run = searched.run
    identity = {
        "runs": identify_runs([searched]),
        "controls": {name: None if isinstance(one, str) else identify_runs([one]) for name, one in controls.items()},
        "enough_percent": ENOUGH_PERCENT,
    }
    return StudyPlan(
        kind="depth",
        owner=run.name.rpartition("/")[0],
        cell_dims=("run",),
        coordinates={
            "run": np.array([run.name]),
            "depth": np.arange(1, count_layers(run) + 1),
            "control": np.array(list(controls)),
            "site": np.array(run.sites),
            "layer": run.read_coordinate("layer"),
        },
        figures=_plan_figures(),
        identity=identity,
    )


def _plan_figures() -> dict[str, Figure]:
    figures = dict(FIGURES)
    for dims, told in ((("depth",), BY_DEPTH), ((), WHOLE)):
        for name, meaning in told.items():
            low, high = _name_ends(name)
            figures[name] = Figure(description=f"test accuracy of {meaning}", dims=dims)
            figures[low] = Figure(description="lower end of its 95 % interval, clustered by image", dims=dims)
            figures[high] = Figure(description="upper end of its 95 % interval, clustered by image", dims=dims)
    return figures


def _name_ends(name: str) -> tuple[str, str]:
    """Return the names of the ends of an accuracy's interval."""
    return ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")


def _measure(
    searched: SearchedRun, controls: Mapping[str, SearchedRun | str], scheduler: Scheduler, *, study: str
) -> Values:
    """Return all figures of the `study`."""
    run, supervision = searched.run, searched.supervision
    neurons = searched.select_depths(scheduler=scheduler)
    validation, test = supervision.rows("validation"), supervision.rows("test")
    open_test_split(searched.scan, searched.selection, study=study)
    right = _answer_depths(searched, neurons, np.concatenate([validation, test]), scheduler)
    right_validation, right_test = right[:, : len(validation)], right[:, len(validation) :]
    images = run.read_samples("image_id")[test]
    values = _interval_all({"accuracy": right_test} | _answer_peers(searched, test), images)
    alone = predict_baselines(run, supervision, test)
    labels, accuracy = supervision.labels[test], right_test.mean(axis=1)
    values |= {name: float((alone[name] == labels).mean()) for name in ("majority", "question_only")}
    values |= _measure_gain(right_test, alone["question_only"] == labels, images, controls, scheduler, study=study)
    enough = _find_enough(right_validation)
    return values | {
        "validation_accuracy": right_validation.mean(axis=1),
        "n_super_neurons": [len(of_depth) for of_depth in neurons],
        "n": len(test),
        "n_images": len(np.unique(images)),
        "n_at": _count_places(run, neurons[-1]),
        "enough_depth": enough,
        "enough_accuracy": accuracy[enough - 1],
        "enough_depth_test": _find_enough(right_test),
    }


def _answer_depths(
    searched: SearchedRun, neurons: Sequence[SuperNeurons], rows: npt.NDArray[np.intp], scheduler: Scheduler
) -> Right:
    """Return whether the Super Neurons of each depth are right about `rows`, (depth, row); chunks are read once."""
    own, labels = searched.supervision.own_options(rows), searched.supervision.labels[rows]
    tallies = tally_classifiers(searched.run, neurons, rows, scheduler=scheduler)
    answers = [of_depth.decide_tallies(votes, own) for of_depth, votes in zip(neurons, tallies, strict=True)]
    return np.asarray(np.stack(answers) == labels)


def _answer_peers(searched: SearchedRun, rows: npt.NDArray[np.intp]) -> dict[str, Right]:
    """Return whether the others are right, by name: (row,), or (depth, row) where they read layers.

    Those that need an array that the run does not hold are left out.
    """
    run, supervision = searched.run, searched.supervision
    training, answers = supervision.rows("probe"), dict[str, npt.NDArray[np.int16]]()
    if run.has_array("option_logit"):
        answers["base"] = predict_baselines(run, supervision, rows)["base"]
        answers["calibrated"] = predict_calibrated(run, supervision, rows, training_rows=training)
    if run.has_array("lens_logit"):
        answers["lens"] = predict_lens(run, supervision, rows).T
        answers["lens_calibrated"] = predict_lens_calibrated(run, supervision, rows, training_rows=training).T
    if run.has_array("residual"):
        answers["probe"] = predict_layer_probes(run, supervision, rows, training_rows=training).T
    return {name: answer == supervision.labels[rows] for name, answer in answers.items()}


def _interval_all(right: Mapping[str, Right], images: npt.NDArray[np.object_]) -> dict[str, Any]:
    """Return accuracies and the ends of their intervals by name, scalars or (depth,)."""
    values = {}
    for name, answers in right.items():
        found = np.array([clustered_interval(one, images) for one in np.atleast_2d(answers)])
        for part, figure in zip((name, *_name_ends(name)), found.T, strict=True):
            values[part] = figure.reshape(answers.shape[:-1])
    return values


def _measure_gain(
    right: Right,
    question_only: Right,
    images: npt.NDArray[np.object_],
    controls: Mapping[str, SearchedRun | str],
    scheduler: Scheduler,
    *,
    study: str,
) -> dict[str, Any]:
    """Return what Super Neurons of the controls know at each depth, and what those that are `right` are above that.

    `right` is (depth, row), `question_only` (row,). The interval is of the same samples, right here and in the best
    control; NaN where a control has other valid ones.
    """
    told = {
        name: control if isinstance(control, str) else _answer_control(control, scheduler, study=study)
        for name, control in controls.items()
    }
    gains = []
    for depth, of_depth in enumerate(right):
        known = {QUESTION_ONLY: question_only}
        known |= {name: one[depth] for name, one in told.items() if not isinstance(one, str)}
        alone: dict[str, float | str] = {name: one for name, one in told.items() if isinstance(one, str)}
        alone |= {name: float(one.mean()) for name, one in known.items()}
        gain = measure_visual_gain(float(of_depth.mean()), alone)
        ends = [np.nan, np.nan]
        if gain.control and len(known[gain.control]) == len(of_depth):
            paired = compare_paired(of_depth, known[gain.control], images)
            ends = [paired.low, paired.high]
        gains.append([gain.gain, *ends])
    unknown = np.full(len(right), np.nan)
    return {
        "control_accuracy": np.array([unknown if isinstance(one, str) else one.mean(axis=1) for one in told.values()]),
        **dict(zip(("visual_gain", "visual_gain_low", "visual_gain_high"), np.array(gains).T, strict=True)),
    }


def _answer_control(control: SearchedRun, scheduler: Scheduler, *, study: str) -> Right:
    """Return whether a control's own Super Neurons of each depth are right about its test split, (depth, row)."""
    neurons = control.select_depths(scheduler=scheduler)
    open_test_split(control.scan, control.selection, study=study)
    return _answer_depths(control, neurons, control.supervision.rows("test"), scheduler)


def _find_enough(right: Right) -> int:
    """Return the least depth that is right about nearly as many samples as the best, of (depth, row)."""
    n_right, n_samples = right.sum(axis=1), right.shape[1]
    return int(np.argmax(100 * (n_right.max() - n_right) <= ENOUGH_PERCENT * n_samples)) + 1


def _count_places(run: Run, neurons: SuperNeurons) -> npt.NDArray[np.int64]:
    """Return how many of `neurons` each site has in each layer, (site, layer)."""
    named = {(site, layer, unit) for table in neurons.contrasts for site, _, layer, unit in table.addresses()}
    counts = np.zeros((len(run.sites), count_layers(run)), dtype=np.int64)
    for site, layer, _ in named:
        counts[run.sites.index(site), layer] += 1
    return counts
