"""Surveys: the studies that the runs of a dataset allow, each run searched once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby, permutations
from typing import TYPE_CHECKING, Any, Literal

from storage import Dataset
from storage.errors import RunIncompleteError
from storage.spelling import list_names, parse_choice, suggest_name

from ..baseline.basis import BASIS
from ..errors import SearchError
from ..searched_run import SearchedRun, choose_neurons
from ..task_graph import Scheduler
from ..visual_gain import find_controls
from .basis import study_basis
from .correlation import have_common_samples
from .depth import study_depth
from .model_match import match_models
from .run_name import RunName, parse_run_name
from .run_transfer import IsPair, TransferSpec, all_pairs, transfer_runs
from .set_overlap import compare_sets

if TYPE_CHECKING:
    import xarray

By = Literal["task", "prompt", "shift", "layer", "model"]
BYS: tuple[By, ...] = ("task", "prompt", "shift", "layer", "model")
"""What Super Neurons may carry over to."""

MATCHED_NEURONS = 64
"""Super Neurons of a run, the best, for which another model is searched."""

Watch = Callable[[str, str], AbstractContextManager[None]]


def watch_nothing(_what: str, _done: str) -> AbstractContextManager[None]:
    """Return a context that shows nothing."""
    return nullcontext()


ALL_MODELS = "_models"
"""Owner of studies that compare models; no model's name begins so."""


def parse_by(text: str) -> By:
    """Return `text` as what is studied.

    Raises
    ------
    SearchError
        If it is none of `BYS`.
    """
    return parse_choice(text, BYS, kind="by", fault=SearchError)


class Survey:
    """Studies of the complete runs of a dataset.

    Runs that are not complete, or cannot be searched, are left out: ``left_out`` says why, by their names.

    Parameters
    ----------
    dataset
        The dataset; studies and searches are kept in it where `save` is set.
    models, tasks
        Only runs of these; without them, of all.
    runs
        Only these, by their names; without them, all.
    options
        How each run is searched: those of `search.searched_run.choose_neurons`.
    known
        Runs that were searched already, in the same way.
    scheduler
        What Dask calls one.
    save
        Whether to keep what is found in the store.
    watch
        Makes, of a name and what will have been done, a context that each search and each study is made in.

    Raises
    ------
    SearchError
        If a model or a task has no run, or no run is left.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        models: Sequence[str] = (),
        tasks: Sequence[str] = (),
        runs: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        known: Sequence[SearchedRun] = (),
        scheduler: Scheduler = "threads",
        save: bool = False,
        watch: Watch = watch_nothing,
    ) -> None:
        self.dataset = dataset
        chosen = choose_names(dataset, models=models, tasks=tasks)
        self.names = {text: name for text, name in chosen.items() if not runs or text in runs}
        self._options = {"scheduler": scheduler, "save": save, **(options or {})}
        self._how: dict[str, Any] = {"scheduler": scheduler, "save": save}
        self._watch = watch
        self._searched = {one.run.name: one for one in known}
        self.left_out: dict[str, str] = {}

    def study(self, by: By) -> list[xarray.Dataset]:
        """Return the studies of one kind; none where the dataset has not the runs for it."""
        return {
            "task": self.study_tasks,
            "prompt": self.study_prompts,
            "shift": self.study_shifts,
            "layer": self.study_layers,
            "model": self.study_models,
        }[by]()

    def study_tasks(self) -> list[xarray.Dataset]:
        """Return, of each model with two tasks or more, their transfer and the overlap of their Super Neurons."""
        studies = []
        for model, names in self._by_model(lambda name: not name.variant):
            runs = self._search_all(names)
            if len(runs) > 1:
                studies.append(self._transfer(runs, runs, kind="task", owner=model))
                studies.append(compare_sets(runs, owner=model, save=self._how["save"]))
        return studies

    def study_prompts(self) -> list[xarray.Dataset]:
        """Return, of each model, the transfer between the wordings of each task."""
        studies = []
        for model, names in self._by_model(lambda name: not name.variant or name.is_prompt):
            varied = {name.task for name in names if name.variant}
            runs = self._search_all([name for name in names if name.task in varied])
            if len(runs) > 1:
                studies.append(self._transfer(runs, runs, kind="prompt", owner=model, is_pair=of_one_task))
        return studies

    def study_shifts(self) -> list[xarray.Dataset]:
        """Return, of each model, the transfer of each task to its shifted pictures."""
        studies = []
        for model, names in self._by_model(lambda name: not name.variant or name.shift is not None):
            varied = {name.task for name in names if name.variant}
            targets = self._search_all([name for name in names if name.task in varied])
            sources = [one for one in targets if not parse_run_name(one.run.name).variant]
            if sources and len(targets) > len(sources):
                studies.append(self._transfer(sources, targets, kind="shift", owner=model, is_pair=of_one_task))
        return studies

    def study_layers(self) -> list[xarray.Dataset]:
        """Return, of each run that is no variant, where its Super Neurons emerge, and whether its basis is special."""
        studies = []
        for run in self._search_all(self._plain_names()):
            controls = self._find_controls(run)
            with self._watch(f"{run.run.name} by layer", "studied"):
                studies.append(study_depth(run, controls=controls, **self._how))
                if any(cell.folder == BASIS for cell in run.scan.cells):
                    studies.append(study_basis(run, **self._how))
        return studies

    def study_depths(self) -> list[xarray.Dataset]:
        """Return, of each run that is no variant, where its Super Neurons emerge, without a look at the basis."""
        studies = []
        for run in self._search_all(self._plain_names()):
            controls = self._find_controls(run)
            with self._watch(f"{run.run.name} by depth", "studied"):
                studies.append(study_depth(run, controls=controls, **self._how))
        return studies

    def study_models(self) -> list[xarray.Dataset]:
        """Return, of each task that several models were asked: transfer by a neuron's address, and by correlation."""
        studies = []
        by_task = sorted(self._plain_names(), key=lambda name: name.task)
        for task, group in groupby(by_task, key=lambda name: name.task):
            runs = self._search_all(list(group))
            if len(runs) > 1:
                studies.append(self._transfer(runs, runs, kind=f"model-{task}", owner=ALL_MODELS))
                with self._watch(f"{task} by model", "matched"):
                    pairs = [
                        (a, b)
                        for a, b in permutations(runs, 2)
                        if len(a.super_neurons) and have_common_samples(a.run, b.run)
                    ]
                    studies += [match_models(a, b, max_neurons=MATCHED_NEURONS, **self._how) for a, b in pairs]
        return studies

    def _transfer(
        self,
        sources: Sequence[SearchedRun],
        targets: Sequence[SearchedRun],
        *,
        kind: str,
        owner: str,
        is_pair: IsPair = all_pairs,
    ) -> xarray.Dataset:
        with self._watch(f"{owner} by {kind}", "studied"):
            spec = TransferSpec(kind=kind, owner=owner)
            return transfer_runs(sources, targets, spec=spec, is_pair=is_pair, **self._how)

    def _plain_names(self) -> list[RunName]:
        return [name for name in self.names.values() if not name.variant]

    def _by_model(self, wanted: Callable[[RunName], bool]) -> Iterator[tuple[str, list[RunName]]]:
        for model in dict.fromkeys(name.model for name in self.names.values()):
            yield model, [name for name in self.names.values() if name.model == model and wanted(name)]

    def _search_all(self, names: Sequence[RunName]) -> list[SearchedRun]:
        """Return the runs that can be searched."""
        found = [self._search(name.text) for name in names]
        return [one for one in found if one is not None]

    def _find_controls(self, run: SearchedRun) -> dict[str, SearchedRun | str]:
        """Return the searched controls of a run, or the reasons why there are none, by their names."""
        return {
            kind: control if isinstance(control, str) else self._search_control(control.name)
            for kind, control in find_controls(self.dataset, run.run).items()
        }

    def _search_control(self, name: str) -> SearchedRun | str:
        """Return a control run, or the reason why it is none."""
        return self._search(name) or self.left_out[name]

    def _search(self, name: str) -> SearchedRun | None:
        """Return a run with its Super Neurons, searched unless it was; None if that cannot be."""
        if name not in self._searched and name not in self.left_out:
            with self._watch(name, "searched"):
                try:
                    self._searched[name] = choose_neurons(self.dataset.run(name), **self._options)
                except (SearchError, RunIncompleteError) as error:
                    self.left_out[name] = str(error)
        return self._searched.get(name)


def of_one_task(source: SearchedRun, target: SearchedRun) -> bool:
    """Return whether two runs ask the same task, in whatever variant."""
    return parse_run_name(source.run.name).task == parse_run_name(target.run.name).task


def choose_names(dataset: Dataset, *, models: Sequence[str] = (), tasks: Sequence[str] = ()) -> dict[str, RunName]:
    """Return the runs of `models` on `tasks`, in all variants, by their names; without these, all.

    Raises
    ------
    RunNotFoundError
        If there is no run at all.
    SearchError
        If one of them has no run, or they have none together.
    """
    names = {name: parse_run_name(name) for name in dataset.match_runs()}
    for kind, wanted in (("model", models), ("task", tasks)):
        there = {getattr(name, kind) for name in names.values()}
        for one in wanted:
            if one not in there:
                shown = list_names(sorted(there), remedy=f"superneurons status {dataset.url} lists all")
                remedy = suggest_name(one, there, otherwise="choose among them")
                raise SearchError(f"{dataset.url}, {kind} {one!r}: expected one of {shown}; {remedy}")
    chosen = {
        text: name
        for text, name in names.items()
        if (not models or name.model in models) and (not tasks or name.task in tasks)
    }
    if not chosen:
        raise SearchError(
            f"{dataset.url}: expected at least one run of these models on these tasks, found none; choose others"
        )
    return chosen
