"""Replicas: processes that hold a model each, and answer several clients at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray import serve

from search.classifier_file import PortableClassifier

from ..errors import EngineError
from ..model import WeightsDtype
from .batch import Outcome, answer_inquiries
from .inquiry import Inquiry
from .limit import Limits
from .refusal import RequestRefusedError

if TYPE_CHECKING:
    from ..early_exit.classifier import EarlyExitClassifier
    from ..early_exit.prediction import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """What a replica answers with, and how; it travels to the machine where the replica runs.

    Attributes
    ----------
    classifier
        As read of a file.
    model, weights_dtype, adaptive
        See `pipeline.early_exit.classifier.EarlyExitClassifier.load`.
    threads, n_gpus
        CPU threads and GPUs of one replica.
    max_batch
        Requests that are computed together, at most.
    batch_wait_s
        Seconds that the first request of a batch waits for others.
    limits
        Of what clients send.
    """

    classifier: PortableClassifier
    model: str | None = None
    weights_dtype: WeightsDtype | None = None
    adaptive: bool = True
    threads: int = 1
    n_gpus: float = 0
    max_batch: int = 32
    batch_wait_s: float = 0.01
    limits: Limits = field(default_factory=Limits)

    def validate(self) -> None:
        """Check that the classifier can be run, and that its model is here.

        Raises
        ------
        ClassifierError
            If it cannot, or the model is another.
        ModelNotFoundError
            If there is none.
        EngineError
            If it is for more than one GPU, and a part of another.
        """
        from ..early_exit.classifier import validate_runnable
        from ..early_exit.identity import find_classifier_model, find_prompt

        if self.n_gpus > 1 and self.n_gpus % 1:
            raise EngineError(
                f"GPUs per replica: expected a fraction of one or a whole number, found {self.n_gpus:g}; choose another"
            )
        validate_runnable(self.classifier)
        find_prompt(self.classifier)
        find_classifier_model(self.classifier, model=self.model)

    def load(self) -> EarlyExitClassifier:
        """Return the classifier with its model, in this thread's process and for this thread's use."""
        import torch

        from ..early_exit.classifier import EarlyExitClassifier

        torch.set_num_threads(self.threads)  # of the calling thread
        return EarlyExitClassifier.load(
            self.classifier,
            model=self.model,
            weights_dtype=self.weights_dtype,
            n_gpus=self.n_gpus,
            adaptive=self.adaptive,
            batch_size=self.max_batch,
        )


class Replica:
    """Answers inquiries: those that come while others are computed are one batch.

    Parameters
    ----------
    settings
        What is answered with, and how.

    Notes
    -----
    Methods run in one event loop, which only waits: a thread of its own computes, one batch at a time.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        self.settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._classifier = self._thread.submit(settings.load).result()
        self._ask: Any = serve.batch(
            self._answer, max_batch_size=settings.max_batch, batch_wait_timeout_s=settings.batch_wait_s
        )
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._n_requests = self._n_batches = self._largest_batch = 0

    async def ask(self, inquiry: Inquiry) -> list[Prediction]:
        """Return the answers to one client.

        Raises
        ------
        RequestRefusedError
            If there are none.
        """
        # Serve closes a batch after its wait even if the one before is still computed. Under load that would make many
        # small batches of what waits; so it waits here.
        await self._is_idle.wait()
        outcome: Outcome = await self._ask(inquiry)
        if isinstance(outcome, RequestRefusedError):
            raise outcome
        return outcome

    def describe(self) -> dict[str, Any]:
        """Return which classifier this is, ready for JSON."""
        portable = self.settings.classifier
        return {
            "run": portable.provenance.get("run"),
            "options": list(portable.options),
            "depth": portable.cascade.last.depth,
        }

    def describe_health(self) -> dict[str, Any]:
        """Return what this replica holds and what it has done, ready for JSON."""
        done = {"requests": self._n_requests, "batches": self._n_batches, "largest_batch": self._largest_batch}
        model = self.settings.classifier.identity.get("model_id")
        return {"status": "ok", "model": model, "classifier": self.describe(), "since_start": done}

    async def _answer(self, inquiries: Sequence[Inquiry]) -> list[Outcome]:
        """Return the outcomes of a batch, in order."""
        self._is_idle.clear()
        self._n_requests += len(inquiries)
        self._n_batches += 1
        self._largest_batch = max(self._largest_batch, len(inquiries))
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, answer_inquiries, self._classifier, inquiries)
        finally:
            self._is_idle.set()
