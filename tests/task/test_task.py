from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import easy_vqa
import pytest

from pipeline.errors import SampleError, TaskNotFoundError
from pipeline.sample import ImageFile, hash_pixels
from pipeline.task import load_task

FORMS = ("easy-vqa.yes-no", "easy-vqa.shape", "easy-vqa.color")


@pytest.fixture(scope="module")
def tasks() -> dict[str, list]:  # type: ignore[type-arg]
    return {name: list(load_task(name).samples) for name in FORMS}


def test_the_three_forms_hold_every_test_question_once(tasks: dict[str, list]) -> None:  # type: ignore[type-arg]
    questions, answers, _ = easy_vqa.get_test_questions()
    asked = Counter(zip(questions, answers, strict=True))
    samples = [sample for form in tasks.values() for sample in form]
    assert Counter((s.question, s.options[s.label]) for s in samples) == asked
    assert len({s.sample_id for s in samples}) == len(samples) == 9673
    assert {name: len(form) for name, form in tasks.items()} == {
        "easy-vqa.yes-no": 7136,
        "easy-vqa.shape": 1257,
        "easy-vqa.color": 1280,
    }


def test_no_image_has_questions_in_two_splits_of_any_task(tasks: dict[str, list]) -> None:  # type: ignore[type-arg]
    splits = defaultdict(set)
    for form in tasks.values():
        for sample in form:
            splits[sample.image_id].add(sample.split)
            assert hash_pixels(sample.images[0].open()) == sample.image_id
    assert {len(found) for found in splits.values()} == {1}
    assert len(splits) > 900


def test_the_model_never_saw_a_test_picture(tasks: dict[str, list]) -> None:  # type: ignore[type-arg]
    seen = {hash_pixels(ImageFile(Path(path)).open()) for path in easy_vqa.get_train_image_paths().values()}
    assert seen.isdisjoint(sample.image_id for form in tasks.values() for sample in form)


def test_questions_of_a_picture_are_neighbours(tasks: dict[str, list]) -> None:  # type: ignore[type-arg]
    for form in tasks.values():
        files = [sample.images[0].path for sample in form]
        changes = sum(here != there for here, there in pairwise(files))
        assert changes == len(set(files)) - 1


def test_the_fingerprint_changes_with_any_label() -> None:
    task = load_task("easy-vqa.shape")
    n_samples = len(task.samples)
    assert task.fingerprint(0, n_samples) == load_task("easy-vqa.shape").fingerprint(0, n_samples)
    assert task.head(100).fingerprint(0, 100) == task.fingerprint(0, 100)
    assert task.fingerprint(0, 100) != task.fingerprint(0, n_samples)
    assert len(task.head(100).samples) == 100
    assert task.head(None) is task


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(TaskNotFoundError, match=r"did you mean 'easy-vqa.color'\?"):
        load_task("easy-vqa.colour")


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(SampleError, match=r"broken\.png: expected a picture"):
        ImageFile(tmp_path / "broken.png").open()
