"""Actors and the jobs that wait for them: who gets which, and what becomes of those whose actor died."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import EngineError
from ..model import ModelSource
from .failure import MODEL_FAULTS, Failures, describe
from .inquest import Inquest
from .job import BlockJob, BlockReport, OnReport
from .metrics import Metrics

JOBS_IN_FLIGHT = 2
"""Blocks that one actor has at a time: one is computed while the other is committed."""

MAX_DEATHS = 1
"""How often a block may lose its worker with nothing beside it, before its samples are suspected."""

MAX_REFUSALS = 2
"""How many actors may be unable to use a model before it is given up, if no other can: a machine may be at fault."""


@dataclass(slots=True, eq=False)
class Actor:
    """One actor of a crew, the model that it is for, and the jobs that it has.

    It is ``starting`` until it has said that it runs, and again from its death on; ``unable`` if the last that it did
    was to say that it cannot use its model; ``leaving`` once its machine was taken away; else ``ready``. Of one that is
    unable or leaving only the jobs that it has are waited for.
    """

    handle: Any
    model: ModelSource
    jobs: list[BlockJob]
    state: Literal["starting", "ready", "unable", "leaving"] = "starting"


class Crew:
    """The actors of one call and the jobs that wait for them.

    Every actor serves one model, so that it loads one; when that has no jobs left, another takes its place for the
    model with the most left to do. An actor gets a job only when it has said that it runs: one that Ray has no room for
    holds no job up. One that cannot start fails none, and is done without; one that cannot use its model fails none
    either, as long as others may.
    Of pilots, which others follow, actors stay as long as no other may need their room, and can be released for the
    next crew.
    Jobs of an actor that died go to whoever is free, alone the second time; a job that dies alone again is the matter
    of an inquest, unless the machine was taken away.
    """

    def __init__(
        self,
        start_actor: Callable[[], Any],
        jobs: Sequence[BlockJob],
        on_report: OnReport,
        *,
        n_actors: int,
        released: Sequence[Actor] = (),
    ) -> None:
        self._start_actor = start_actor
        self._on_report = on_report
        self._n_actors = n_actors
        self._waiting: dict[ModelSource, deque[BlockJob]] = {}
        for job in jobs:
            self._waiting.setdefault(job.model, deque()).append(job)
        self._are_pilots = all(job.purpose == "pilot" for job in jobs)
        self._actors = list(released)
        self._starting: dict[Any, Actor] = {}
        self._computing: dict[Any, tuple[BlockJob, Actor]] = {}
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._refusals: Counter[ModelSource] = Counter()
        self._inquests: dict[tuple[str, int], tuple[Inquest, Iterator[BlockJob]]] = {}
        self._metrics = Metrics()
        self.failures = Failures()
        self.reason = "none that started in time"
        for actor in released:
            self._await_start(actor)  # it may have died since

    @property
    def n_waiting(self) -> int:
        """How many jobs nobody has."""
        return sum(map(len, self._waiting.values()))

    def work(self, start_timeout_s: float) -> None:
        """Compute until no job is left, or none can be; failures are gathered, what cannot be had is left waiting."""
        import ray

        self._hire()
        while self._computing or (self.n_waiting and self._starting):
            watched = [*self._computing, *(self._starting if self.n_waiting else ())]
            done, _ = ray.wait(watched, num_returns=1, timeout=None if self._computing else start_timeout_s)
            if not done:
                return
            if done[0] in self._starting:
                self._welcome(done[0])
            else:
                self._collect(done[0])
            self._hire()
            for actor in self._actors:
                self._give_jobs(actor)

    def dismiss(self) -> None:
        """End every actor."""
        for actor in list(self._actors):
            self._dismiss(actor)

    def release(self) -> list[Actor]:
        """Return the actors, for another crew: they are this one's no more."""
        released, self._actors = self._actors, []
        return released

    def _hire(self) -> None:
        """Start actors for the models that need them most, as many as there may be."""
        idle = [actor for actor in self._actors if not actor.jobs and not self._waiting.get(actor.model)]
        may_stay = self._are_pilots and not (self.n_waiting and self._starting)
        while idle and not may_stay:
            self._dismiss(idle.pop())
        while idle or len(self._actors) < self._n_actors:
            serving = Counter(actor.model for actor in self._actors)
            needs = {model: len(jobs) / (1 + serving[model]) for model, jobs in self._waiting.items()}
            wanted = [
                model
                for model, jobs in self._waiting.items()
                if len(jobs) > serving[model] and self._refusals[model] < MAX_REFUSALS
            ]
            if not wanted:
                return
            if len(self._actors) >= self._n_actors:
                self._dismiss(idle.pop())
            actor = Actor(handle=self._start_actor(), model=max(wanted, key=lambda model: needs[model]), jobs=[])
            self._actors.append(actor)
            self._await_start(actor)

    def _await_start(self, actor: Actor) -> None:
        actor.state = "starting"
        # tried again for as long as the actor restarts: a call that meets it in between would fail
        self._starting[actor.handle.__ray_ready__.options(max_task_retries=-1).remote()] = actor

    def _await_no_start(self, actor: Actor) -> None:
        self._starting = {ready: other for ready, other in self._starting.items() if other is not actor}

    def _dismiss(self, actor: Actor) -> None:
        import ray

        self._await_no_start(actor)
        self._actors.remove(actor)
        ray.kill(actor.handle)

    def _give_jobs(self, actor: Actor) -> None:
        waiting = self._waiting.get(actor.model, ())
        while actor.state == "ready" and waiting and len(actor.jobs) < JOBS_IN_FLIGHT:
            is_alone = any(self._deaths[job.key] for job in (*actor.jobs, waiting[0]))
            n_idle = sum(other.model == actor.model and not other.jobs for other in self._actors)
            if actor.jobs and (is_alone or len(waiting) <= n_idle):  # the last jobs are for those who have none
                return
            job = waiting.popleft()
            actor.jobs.append(job)
            self._computing[actor.handle.run.remote(job)] = (job, actor)

    def _welcome(self, started: Any) -> None:
        """Let an actor that has started work, or do without one that could not, and without another in its place."""
        import ray

        actor = self._starting.pop(started)
        try:
            ray.get(started)
        except ray.exceptions.RayError as error:
            self.reason = describe(error)
            self._n_actors -= 1
            self._dismiss(actor)
        else:
            actor.state = "ready"

    def _collect(self, finished: Any) -> None:
        """Pass a report on, keep a failure, or see to the job of an actor that died or cannot use its model."""
        import ray

        job, actor = self._computing.pop(finished)
        was_alone = len(actor.jobs) == 1
        actor.jobs.remove(job)
        try:
            report = ray.get(finished)
        except MODEL_FAULTS as error:
            self._put_back(job)
            self._doubt(actor, error)
        except ray.exceptions.RayTaskError as error:
            self._trust(actor)
            self.failures.append((job, error))
        except ray.exceptions.RayError as error:  # whatever else Ray says, the actor is not there any more
            if getattr(error, "preempted", False):
                self._put_back(job)  # its machine was taken away: that says nothing of the block
                self._await_no_start(actor)
                actor.state = "leaving"  # Ray would say of all its later deaths, too, that a machine was taken away
            else:
                self._bury(job, error, was_alone=was_alone)
                if actor.state in ("ready", "unable"):
                    self._await_start(actor)  # it starts anew, perhaps elsewhere
        else:
            self._trust(actor)
            self._hear(job, report)
        if actor.state == "leaving" and not actor.jobs:
            self._dismiss(actor)

    def _hear(self, job: BlockJob, report: BlockReport) -> None:
        if job.purpose == "probe":
            self._ask_on(job)
        else:
            if job.purpose in ("commit", "retry"):
                self._metrics.count(job, report)
            self._on_report(report)

    def _trust(self, actor: Actor) -> None:
        """Let an actor have jobs again that could not use its model and now could, unless it has died since."""
        if actor.state == "unable":
            actor.state = "ready"

    def _doubt(self, actor: Actor, fault: Exception) -> None:
        """Dismiss an actor that cannot use its model; give the model up if several could not and no other may."""
        actor.state = "unable"
        if actor.jobs:
            return
        model = actor.model
        self._refusals[model] += 1
        self._dismiss(actor)
        is_served = any(other.model == model and other.state == "ready" for other in self._actors)
        if self._refusals[model] >= MAX_REFUSALS and not is_served:
            self.failures += [(job, fault) for job in self._waiting.pop(model, ())]

    def _put_back(self, job: BlockJob) -> None:
        self._waiting.setdefault(job.model, deque()).appendleft(job)

    def _bury(self, job: BlockJob, error: Exception, *, was_alone: bool) -> None:
        """Decide what becomes of the job of an actor that died."""
        if job.key in self._inquests and job.purpose == "probe":
            self._inquests[job.key][0].died()
            self._ask_on(job)
            return
        self._deaths[job.key] += 1 if was_alone or not self._deaths[job.key] else 0
        if self._deaths[job.key] <= MAX_DEATHS:
            self._put_back(job)
        elif job.key in self._inquests:
            self.failures.append((job, error))
        else:
            inquest = Inquest(job)
            self._inquests[job.key] = (inquest, inquest.probes())
            self._ask_on(job)

    def _ask_on(self, job: BlockJob) -> None:
        """Put the next probe of the job's inquest in line, or its verdict."""
        inquest, probes = self._inquests[job.key]
        probe = next(probes, None)
        if inquest.hopeless:
            self.failures.append((job, EngineError(inquest.hopeless)))
        elif probe is not None:
            self._put_back(probe)
        else:
            self._deaths[job.key] = 0  # its worker may be lost by chance, once, as any
            self._put_back(inquest.verdict())
