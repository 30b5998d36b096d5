"""Variants: the same samples asked or shown otherwise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import factorial

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TaskError, TaskNotFoundError
from pipeline.sample import Sample
from pipeline.task import Task, is_here, load_task, task_names
from pipeline.task.variant.control import Negated, Swapped
from pipeline.task.variant.letters import AllOrders, draw_order, reorder
from pipeline.task.variant.shift import SHIFTS, STRENGTHS, Shift

N = 80
WORLD = [name for name in task_names() if is_here(name)]
YES_NO = [name for name in WORLD if load_task(name, limit=1).options == ("no", "yes")]


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {name: load_task(name, limit=N) for name in WORLD}


def pixels(sample: Sample) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(sample.images[0].open()).astype(int)


def test_every_task_has_its_wordings_shifts_and_controls(tasks: dict[str, Task]) -> None:
    for name, task in tasks.items():
        wordings = [variant for variant, made in task.variants.items() if type(made).__name__ == "Wording"]
        assert len(wordings) >= (4 if name in YES_NO else 2), name
        assert {"blank", "swapped", "question-only"} <= set(task.variants)
        assert {f"{kind}-{strength}" for kind in SHIFTS for strength in (1, 2, 3)} <= set(task.variants)
        assert ("negated" in task.variants) == (name in YES_NO)
        assert ("letters" in task.variants) == (name == "scenes.choice")


def test_a_variant_keeps_samples_and_splits(tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        for variant in set(task.variants) - {"letters"}:
            varied = task.vary(variant)
            assert varied.name == f"{task.name}@{variant}"
            kept = [(sample.sample_id, sample.image_id, sample.split) for sample in task.samples]
            assert [(sample.sample_id, sample.image_id, sample.split) for sample in varied.samples] == kept


def test_a_wording_changes_the_prompt_alone(tasks: dict[str, Task]) -> None:
    task = tasks["scenes.existence"]
    assert task.vary("brief").prompt == "{question} answer yes or no."
    assert task.vary("brief").samples == task.samples
    assert load_task("scenes.existence@brief", limit=N).prompt == "{question} answer yes or no."


def test_unknown_variants_are_named_with_the_nearest(tasks: dict[str, Task]) -> None:
    with pytest.raises(TaskNotFoundError, match=r"did you mean 'blur-1'"):
        tasks["easy-vqa.shape"].vary("blur1")


def test_blank_pictures_have_the_size_and_nothing_else(tasks: dict[str, Task]) -> None:
    for sample in tasks["easy-vqa.shape"].vary("blank").samples[:3]:
        assert pixels(sample).shape == (64, 64, 3)
        assert pixels(sample).min() == pixels(sample).max() == 128


def test_question_only_shows_nothing(tasks: dict[str, Task]) -> None:
    assert all(sample.images == () for sample in tasks["scenes.depth"].vary("question-only").samples)


@pytest.mark.parametrize("name", ["scenes.existence", "easy-vqa.yes-no"])
def test_swapped_pictures_are_others_of_the_same_split_and_stay_when_samples_are_added(name: str) -> None:
    task, more = load_task(name, limit=N), load_task(name, limit=3 * N)
    splits = {sample.images: sample.split for sample in task.samples}
    ids = {sample.images: sample.image_id for sample in task.samples}
    for sample, other in zip(task.samples, task.vary("swapped").samples, strict=True):
        assert other.images != sample.images
        assert splits[other.images] == sample.split
        assert ids[other.images] != sample.image_id
    assert more.vary("swapped").samples[:N] == task.vary("swapped").samples


@given(groups=st.lists(st.integers(0, 3), min_size=2, max_size=12), n_more=st.integers(0, 4))
def test_swapped_pictures_are_of_other_groups(groups: list[int], n_more: int) -> None:
    """In NaturalBench's groups the other picture has the opposite answer: it would not be an unseen one."""
    more = Task(name="groups", revision="1", options=("no", "yes"), samples=tuple(map(make_member, range(99), groups)))
    task = more.head(len(groups) - min(n_more, len(groups) - 2))
    if len({sample.split_key for sample in task.samples}) == 1:
        with pytest.raises(TaskError, match="expected two pictures in split test to swap, of different groups"):
            Swapped().apply(task)
        return
    swapped = Swapped().apply(task).samples
    keys = {sample.images: sample.split_key for sample in task.samples}
    assert all(keys[one.images] != sample.split_key for sample, one in zip(task.samples, swapped, strict=True))
    assert Swapped().apply(more).samples[: len(swapped)] == swapped


def make_member(number: int, group: int) -> Sample:
    """Return a sample with a picture of its own, one of a group."""
    return Sample(
        sample_id=str(number),
        image_id=str(number),
        question="?",
        options=("no", "yes"),
        label=0,
        images=(Photo((number + 1, 1)),),
        split_key=str(group),
        published_split="test",
    )


def test_one_picture_cannot_be_swapped() -> None:
    with pytest.raises(TaskError, match="expected two pictures in split"):
        load_task("scenes.existence", limit=2).vary("swapped")


@pytest.mark.parametrize("name", YES_NO)
def test_negated_questions_have_the_other_answer_and_twice_is_once(name: str) -> None:
    task = load_task(name, limit=None if name.startswith("easy") else N)
    negated = task.vary("negated")
    for sample, other in zip(task.samples, negated.samples, strict=True):
        assert other.question != sample.question
        assert other.label == 1 - sample.label
    if name.startswith("easy"):
        assert {sample.question for sample in negated.samples} <= {sample.question for sample in task.samples}
        assert negated.variants["negated"].apply(negated).samples == task.samples


def test_a_question_without_an_opposite_is_named(tasks: dict[str, Task]) -> None:
    task = tasks["scenes.existence"]
    with pytest.raises(TaskError, match="sample scenes-000000-0: expected a question that a negation"):
        Negated((("^has ", "has not "),)).apply(task)
    with pytest.raises(TaskError, match="expected two options to negate, found 3"):
        task.variants["negated"].apply(tasks["scenes.compare"])


def test_all_orders_hold_every_order_once(tasks: dict[str, Task]) -> None:
    task = tasks["scenes.choice"]
    letters = task.vary("letters")
    assert len(letters.samples) == N * factorial(4)
    assert len({sample.sample_id for sample in letters.samples}) == len(letters.samples)
    assert Counter(sample.label for sample in letters.samples) == dict.fromkeys(range(4), N * factorial(3))
    for sample, orders in zip(task.samples, zip(*[iter(letters.samples)] * 24, strict=True), strict=True):
        assert len({order.choices for order in orders}) == 24
        assert {order.choices[order.label] for order in orders} == {sample.choices[sample.label]}
        assert sample.choices in {order.choices for order in orders}


def test_too_many_choices_are_not_put_into_all_orders() -> None:
    sample = replace(make_member(0, 0), choices=tuple("abcdefg"), options=tuple("ABCDEFG"))
    task = Task(name="many", revision="1", options=sample.options, samples=(sample,))
    with pytest.raises(TaskError, match="sample 0: expected at most 6 choices to put into all orders, found 7"):
        AllOrders().apply(task)


CHOICES = st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=6, unique=True)


@given(choices=CHOICES, key=st.text(max_size=12), position=st.integers(0, 5))
def test_an_order_is_stable_and_the_right_choice_stays_right(choices: list[str], key: str, position: int) -> None:
    sample = Sample(
        sample_id=key,
        image_id="",
        question="?",
        options=tuple("ABCDEF"[: len(choices)]),
        label=position % len(choices),
        images=(),
        split_key="",
        choices=tuple(choices),
    )
    order = draw_order(key, len(choices))
    assert order == draw_order(key, len(choices))
    shuffled = reorder(sample, order)
    assert sorted(shuffled.choices) == sorted(choices)
    assert shuffled.choices[shuffled.label] == choices[sample.label]
    assert replace(shuffled, choices=sample.choices, label=sample.label) == sample


def test_orders_are_spread_evenly() -> None:
    orders = Counter(tuple(draw_order(str(number), 3)) for number in range(3000))
    assert len(orders) == 6
    assert min(orders.values()) > 400


@dataclass(frozen=True)
class Photo:
    """A picture with edges, colours and shades."""

    size: tuple[int, int] = (96, 64)

    def open(self) -> PIL.Image.Image:
        width, height = self.size
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        shown = np.stack([across * 2 % 256, down * 3 % 256, (across // 8 + down // 8) % 2 * 200], axis=-1)
        return PIL.Image.fromarray(shown.astype(np.uint8))


@pytest.mark.parametrize("kind", SHIFTS)
def test_shifts_grow_with_their_strength_and_repeat_exactly(kind: str) -> None:
    sample = Sample(
        sample_id="a", image_id="picture", question="?", options=("no", "yes"), label=0, images=(Photo(),), split_key=""
    )
    task = Task(name="photo", revision="1", options=("no", "yes"), samples=(sample,))
    before = pixels(sample)
    errors = []
    for strength in STRENGTHS:
        shifted = Shift(kind, strength).apply(task).samples[0]  # type: ignore[arg-type]
        after = pixels(shifted)
        assert after.shape == before.shape
        assert (after == pixels(Shift(kind, strength).apply(task).samples[0])).all()  # type: ignore[arg-type]
        errors.append(np.abs(after - before).mean())
    assert 0 < errors[0] < errors[1] < errors[2]


def test_shifts_do_what_they_say() -> None:
    before = np.asarray(Photo().open()).astype(int)
    grey = np.asarray(SHIFTS["greyscale"](Photo().open(), 3, 0)).astype(int)
    assert (grey == grey[:, :, :1]).all()
    noise = np.asarray(SHIFTS["noise"](Photo().open(), 1, 5)).astype(int) - before
    inside = (before > 80) & (before < 175)
    assert noise[inside].std() == pytest.approx(0.08 * 255, rel=0.1)
    flat = np.asarray(SHIFTS["contrast"](Photo().open(), 2, 0)).astype(int)
    assert flat.std() < before.std() / 2
    for seed in (0, 1 << 20, (1 << 32) - 1):
        covered = np.asarray(SHIFTS["occluded"](Photo().open(), 3, seed)).astype(int)
        assert ((covered == 128).all(axis=2)).sum() >= 32 * 32
        assert (np.abs(covered - before).max(axis=2) > 0).sum() <= 32 * 32
    blurred = np.asarray(SHIFTS["blur"](Photo((960, 640)).open(), 3, 0)).astype(int)
    assert np.abs(np.diff(blurred[:, :, 2], axis=1)).max() < 40
