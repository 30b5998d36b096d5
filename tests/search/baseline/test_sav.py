"""Sparse attention vectors against an implementation of their description, sample by sample."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.baseline import predict_sav
from search.errors import SearchError
from search.supervision import Supervision, read_supervision
from tests.search.planted import make_planted_run


class FakeRun:
    """A run that records heads alone: (sample, layer, unit)."""

    name, sites = "fake/run", ("heads",)

    def __init__(self, outputs: npt.NDArray[Any], n_heads: int) -> None:
        self.outputs = outputs
        self.arrays = {"heads": SimpleNamespace(attrs={"n_heads": n_heads})}
        self.n_reads = 0

    def site_shape(self, site: str) -> tuple[int, int, int]:
        return (1, *self.outputs.shape[1:])  # type: ignore[return-value]

    def read_columns(self, site: str, *, layer: int, units: slice) -> npt.NDArray[Any]:
        assert site == "heads"
        self.n_reads += 1
        return self.outputs[:, layer, units]


def cosine(one: list[float], other: list[float]) -> float:
    lengths = math.sqrt(math.fsum(x * x for x in one)) * math.sqrt(math.fsum(y * y for y in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 0.0


def answer_by_hand(
    outputs: npt.NDArray[Any], n_heads: int, labels: list[int], training: list[int], asked: list[int], best: int
) -> list[int]:
    """Three passes over single samples: class means, scores of heads, answers."""
    dim = outputs.shape[2] // n_heads

    def head_of(sample: int, layer: int, head: int) -> list[float]:
        return [float(x) for x in outputs[sample, layer, head * dim : (head + 1) * dim]]

    heads = [(layer, head) for layer in range(outputs.shape[1]) for head in range(n_heads)]
    items: dict[int, list[int]] = defaultdict(list)
    for sample in training:
        items[labels[sample]].append(sample)
    means = {
        (label, place): [math.fsum(parts) / len(own) for parts in zip(*(head_of(s, *place) for s in own), strict=True)]
        for label, own in items.items()
        for place in heads
    }

    def nearest(sample: int, place: tuple[int, int]) -> int:
        near = {label: cosine(head_of(sample, *place), means[label, place]) for label in sorted(items)}
        return max(near, key=lambda label: near[label])

    scores = {place: sum(nearest(sample, place) == labels[sample] for sample in training) for place in heads}
    chosen = sorted(heads, key=lambda place: -scores[place])[:best]  # stable: the lower layer, then the lower head
    answers = []
    for sample in asked:
        votes = [nearest(sample, place) for place in chosen]
        most = max(Counter(votes).values())
        answers.append(next(vote for vote in votes if Counter(votes)[vote] == most))
    return answers


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    n_classes=st.integers(2, 4),
    n_layers=st.integers(1, 3),
    n_heads=st.integers(1, 5),
    dim=st.integers(1, 4),
    best=st.integers(1, 8),
)
def test_predictions_equal_an_independent_implementation(
    seed: int, n_classes: int, n_layers: int, n_heads: int, dim: int, best: int
) -> None:
    random = np.random.default_rng(seed)
    outputs = random.normal(size=(60, n_layers, n_heads * dim)).astype(np.float32)
    labels = random.integers(0, n_classes, size=60).astype(np.int16)
    outputs += 0.7 * random.normal(size=(n_classes, n_layers, n_heads * dim))[labels]
    split = np.repeat([0, 2], 30).astype(np.int8)
    supervision = Supervision(labels=labels, split=split, valid=np.ones(60, bool), n_classes=n_classes)
    run = FakeRun(outputs, n_heads)
    training, asked = np.arange(random.integers(1, 30)), np.arange(30, 60)
    found = predict_sav(run, supervision, asked, training_rows=training, n_heads=best)  # type: ignore[arg-type]
    assert found.tolist() == answer_by_hand(outputs, n_heads, labels.tolist(), training.tolist(), asked.tolist(), best)
    assert run.n_reads == n_layers


def test_a_tie_goes_to_the_class_that_the_better_head_votes_for() -> None:
    """Head 0 knows the class, heads 1 and 2 say 1 and 2 whatever is shown; two heads vote, one each."""
    labels = np.array([0, 1, 2] * 4, dtype=np.int16)
    circle = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    outputs = np.concatenate([circle[labels], np.tile(circle[1], (12, 1)), np.tile(circle[2], (12, 1))], axis=1)
    supervision = Supervision(labels=labels, split=np.zeros(12, np.int8), valid=np.ones(12, bool), n_classes=3)
    run = FakeRun(outputs[:, None], 3)
    rows = np.arange(12)
    two = predict_sav(run, supervision, rows, training_rows=rows, n_heads=2)  # type: ignore[arg-type]
    assert two.tolist() == labels.tolist()


def test_answers_are_among_the_samples_own_options(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("a", "b", "c"))
    whole = read_supervision(run)
    n_options = np.where(np.arange(len(whole.labels)) % 2, 2, 3).astype(np.int16)
    few = Supervision(
        labels=np.minimum(whole.labels, n_options - 1),
        split=whole.split,
        valid=whole.valid,
        n_classes=3,
        n_options=n_options,
    )
    rows = few.rows("test")
    answers = predict_sav(run, few, rows, training_rows=few.rows("probe"))
    assert (answers < n_options[rows]).all() and set(answers.tolist()) == {0, 1, 2}


def test_a_run_without_heads_is_named() -> None:
    run = SimpleNamespace(name="fake/run", sites=("mlp",))
    supervision = Supervision(
        labels=np.zeros(2, np.int16), split=np.zeros(2, np.int8), valid=np.ones(2, bool), n_classes=2
    )
    with pytest.raises(SearchError, match="fake/run: expected the site heads, found"):
        predict_sav(run, supervision, np.arange(2), training_rows=np.arange(2))  # type: ignore[arg-type]
