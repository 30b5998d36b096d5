"""Collecting one run: its figures by depth, its best neurons, its early exits."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search import SearchError
from search.baseline.control import CONTROL_VARIANTS
from search.scan import ScanSpec, find_scan
from search.searched_run import SearchedRun, choose_neurons
from search.selection import QValues, find_q_values
from search.stump import default_metric
from search.supervision import read_supervision
from search.transfer.run_name import parse_run_name
from search.transfer.survey import Survey
from search.visual_gain import find_controls
from storage import Dataset, Run
from storage.ledger import read_entries
from storage.schema import SPLITS

from ..errors import PipelineError
from .album import Album
from .collection_spec import CollectionSpec
from .content import GAIN, DepthFigures, NeuronChoice, RunFigures, SpeedFigures
from .depth import read_depth
from .kept_study import KeptStudy, choose_studies, read_study
from .neuron import choose_best, shorten
from .speed import N_QUESTIONS, compute_speed, is_local, measure_speed

if TYPE_CHECKING:
    from search.scan import Scan

    from ..sample import Sample


class RunCollector:
    """Collects runs one after the other.

    Parameters
    ----------
    dataset
        What holds the runs.
    spec
        What is collected, and how.
    album
        Takes the pictures of examples.
    kept
        The studies that the store keeps.

    Attributes
    ----------
    speeds
        Early exits of the runs that were collected.
    faults
        What could not be measured, by the model.
    """

    def __init__(self, dataset: Dataset, spec: CollectionSpec, album: Album, kept: Sequence[KeptStudy]) -> None:
        self._dataset = dataset
        self._spec = spec
        self._album = album
        self._kept = kept
        self._measured: set[str] = set()
        self.speeds: list[SpeedFigures] = []
        self.faults: dict[str, str] = {}

    def collect(self, run: Run) -> RunFigures:
        """Return what is known of a complete run."""
        name = parse_run_name(run.name)
        missing: dict[str, str] = {}
        depth: DepthFigures | None = None
        choice: NeuronChoice | None = None
        if not name.variant:
            depth, choice, missing = self._collect_findings(run)
        if depth is not None and not depth.has_gain:
            missing[GAIN] = self._explain_gain(run)
        split, valid = run.read_samples("split"), run.read_samples("valid")
        return RunFigures(
            name=run.name,
            model=name.model,
            task=name.task,
            variant=name.variant,
            n_samples=run.n_samples,
            n_blocks=len(run.blocks),
            n_committed=len(run.blocks),
            sites=tuple(run.sites),
            n_layers=run.site_shape(run.sites[0])[1],
            options=tuple(map(shorten, run.read_options())),
            n_split={part: int((valid & (split == code)).sum()) for code, part in enumerate(SPLITS)},
            n_openings=len(read_entries(run)),
            identity=run.identity,
            circumstances=run.circumstances,
            depth=depth,
            choice=choice,
            missing=missing,
        )

    def _collect_findings(self, run: Run) -> tuple[DepthFigures | None, NeuronChoice | None, dict[str, str]]:
        """Return the figures by depth and the best neurons, and why they are missing."""
        if not self._spec.compute:
            return self._read_findings(run)
        how: dict[str, Any] = {"scheduler": self._spec.scheduler, "save": run.is_writable}
        try:
            with self._spec.watch(run.name, "searched"):
                searched = choose_neurons(run, **how)
            survey = Survey(self._dataset, runs=[run.name], known=[searched], watch=self._spec.watch, **how)
            (study,) = survey.study_depths()
        except SearchError as error:
            return None, None, dict.fromkeys(("depth", "neurons"), str(error))
        depth = read_depth(study)
        if depth is not None:
            self._add_speed(run, depth, searched)
        choice, reason = self._choose(searched.scan, searched.q_values)
        return depth, choice, {"neurons": reason} if reason else {}

    def _read_findings(self, run: Run) -> tuple[DepthFigures | None, NeuronChoice | None, dict[str, str]]:
        """Return the same from what the store keeps, and nothing that would have to be computed."""
        missing: dict[str, str] = {}
        url, depth, choice = self._dataset.url, None, None
        own = [kept for kept in self._kept if kept.kind == "depth" and run.name in kept.runs]
        for kept in choose_studies(own, runs={run.name: run}):
            found = read_study(self._dataset, kept, read_depth)
            if isinstance(found, str):
                missing["depth"] = found
            else:
                depth = found
        if depth is not None:
            self._add_speed(run, depth, None)
        elif "depth" not in missing:
            missing["depth"] = f"the store keeps no study by depth; superneurons transfer {url} --by layer makes it"
        supervision = read_supervision(run)
        scan = find_scan(run, supervision, spec=ScanSpec(metric=default_metric(supervision.n_classes)))
        if scan is None:
            missing["neurons"] = f"the store keeps no scores; superneurons search {url} --run {run.name} makes them"
        else:
            choice, reason = self._choose(scan, None)
            missing |= {"neurons": reason} if reason else {}
        return depth, choice, missing

    def _explain_gain(self, run: Run) -> str:
        """Return why the visual gain of a run is not known, and what makes it known."""
        url, name = self._dataset.url, parse_run_name(run.name)
        controls = find_controls(self._dataset, run)
        reasons = [f"{control}: {found}" for control, found in controls.items() if isinstance(found, str)]
        if not reasons and self._spec.compute:
            return f"its control runs could not be searched; superneurons search {url} --run {run.name} tells why"
        if not reasons:
            return (
                f"the study by depth was made without its control runs; superneurons transfer {url} --by layer has them"
            )
        model = shlex.quote(str(run.identity.get("model_id", name.model)))
        tasks = " ".join(f"--task {name.task}@{variant}" for variant in CONTROL_VARIANTS.values())
        return (
            f"{'; '.join(reasons)}; superneurons extract --model {model} {tasks} --store {url} makes them, with the "
            "other options that the run was made with, such as --limit"
        )

    def _choose(self, scan: Scan, q_values: QValues | None) -> tuple[NeuronChoice | None, str]:
        choice = choose_best(scan, q_values=find_q_values(scan) if q_values is None else q_values, album=self._album)
        return choice, "" if choice.neurons else "no neuron is above chance (q <= 0.05)"

    def _add_speed(self, run: Run, depth: DepthFigures, searched: SearchedRun | None) -> None:
        """Keep what is known of a run's early exits; of each model that is here one run is measured, if asked for."""
        speed = compute_speed(run, depth)
        if self._spec.measure_speed and searched is not None and speed.model not in self._measured:
            measured = self._measure(searched, speed)
            if not isinstance(measured, str):
                self._measured.add(speed.model)
                self.faults.pop(f"speed of {speed.model}", None)
                speed = measured
            else:
                self.faults[f"speed of {speed.model}"] = f"Speed of {speed.model}: not measured, as {measured}."
        self.speeds.append(speed)

    def _measure(self, searched: SearchedRun, speed: SpeedFigures) -> SpeedFigures | str:
        """Return the measured speed, or the reason why there is none."""
        if not is_local(searched.run):
            return "the model is not here"
        samples = self._choose_samples(searched)
        if isinstance(samples, str):
            return samples
        try:
            with self._spec.watch(f"{searched.run.name} early exits", "timed"):
                return measure_speed(searched, speed, samples)
        except (PipelineError, SearchError) as error:
            return str(error)

    def _choose_samples(self, searched: SearchedRun) -> list[Sample] | str:
        """Return validation samples about different pictures, each with all options of the task."""
        found = self._album.find_samples(searched.run)
        if isinstance(found, str):
            return found
        n_options = len(searched.run.read_options())
        ids = searched.run.read_samples("sample_id")[searched.supervision.rows("validation")].tolist()
        known = [found[name] for name in ids if name in found and len(found[name].options) == n_options]
        by_picture = {sample.images: sample for sample in reversed(known) if sample.images}
        chosen = list(by_picture.values())[:N_QUESTIONS]
        return chosen or "its task has no pictures here"
