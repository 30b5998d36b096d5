"""Which samples kill a worker: found for any of them, and never said of one that does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.inquest import KILLED, MAX_CULPRITS, Inquest
from pipeline.engine.job import BlockJob
from pipeline.inference.extractor import Question
from pipeline.model import find_model
from pipeline.sample import Sample
from pipeline.settings import ExtractionSettings
from storage.block import Block


def make_job(n_samples: int) -> BlockJob:
    samples = [
        Sample(sample_id=str(n), image_id="", question="", options=("a", "b"), label=0, images=(), split_key=str(n))
        for n in range(n_samples)
    ]
    return BlockJob(
        store="",
        run="model/task",
        model=find_model("tiny-llava"),
        block=Block(index=0, start=0, stop=n_samples),
        samples=tuple(samples),
        question=Question(template="{question}", options=("a", "b"), greedy=False),
        settings=ExtractionSettings(),
    )


def hold(inquest: Inquest, kills: Any) -> int:
    """Hold an inquest over workers that die of the samples that `kills`; return how many probes it took."""
    n_probes = 0
    for probe in inquest.probes():
        assert probe.purpose == "probe"
        n_probes += 1
        if kills([int(sample.sample_id) for sample in probe.samples]):
            inquest.died()
    return n_probes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.sets(st.integers(0, 199), max_size=5))
def test_the_samples_that_kill_are_found_and_no_others(n_samples: int, killers: set[int]) -> None:
    killers = {killer for killer in killers if killer < n_samples}
    inquest = Inquest(make_job(n_samples))
    n_probes = hold(inquest, lambda samples: bool(killers & set(samples)))
    verdict = inquest.verdict()
    assert verdict.excluded == {str(killer): KILLED for killer in killers}
    assert (verdict.purpose, len(verdict.samples)) == ("commit", n_samples)
    assert not inquest.hopeless
    assert n_probes <= 3 + (1 + 2 * len(killers)) * n_samples.bit_length()


@pytest.mark.parametrize(
    ("kills", "reason"),
    [
        (lambda samples: True, "its worker dies before it has seen a sample"),
        (bool, f"its workers die of more than {MAX_CULPRITS} samples"),
    ],
)
def test_a_worker_that_dies_of_everything_is_no_matter_of_samples(kills: Any, reason: str) -> None:
    inquest = Inquest(make_job(64))
    hold(inquest, kills)
    assert inquest.hopeless == reason


def test_a_death_by_chance_accuses_nobody() -> None:
    inquest = Inquest(make_job(16))
    deaths = iter([False, True])  # of the first half, and then never again
    hold(inquest, lambda samples: next(deaths, False))
    assert inquest.verdict().excluded == {}
    inquest = Inquest(make_job(16))
    deaths = iter([True])  # before any sample, once
    hold(inquest, lambda samples: next(deaths, False))
    assert not inquest.hopeless
    inquest = Inquest(make_job(2))
    deaths = iter([False, True])  # of the first sample by itself
    hold(inquest, lambda samples: next(deaths, False))
    assert inquest.verdict().excluded == {}
