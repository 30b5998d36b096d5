"""The tasks of the hub, from files of their real schema to prompts and labels."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SampleError, TaskError
from pipeline.inference.prompt import render_prompt
from pipeline.model import find_model, load_family, load_processor
from pipeline.task import Task, describe_task, find_source, load_example, load_task, task_names
from tests.task.hub_file import WRITERS, draw, write_blink, write_naturalbench_flat, write_pope

BLINK = [name for name in task_names() if name.startswith("blink.")]
HUB = [*WRITERS, *BLINK]


def write(name: str, folder: Path) -> Path:
    """Write the files of a task."""
    subtask = describe_task(name).dataset_name
    return write_blink(folder, str(subtask)) if name in BLINK else WRITERS[name](folder)


def load(name: str, folder: Path, **keys: str) -> Task:
    """Return a task whose data is in a folder."""
    return load_task(find_source({"task": name, "data": str(folder)} | keys))


def ask(task: Task, number: int) -> tuple[str, str]:
    """Return the prompt of a sample, the chat template aside, and its answer."""
    sample = task.samples[number]
    return task.prompt.format(question=sample.text), sample.options[sample.label]


def test_every_task_that_is_not_built_in_is_tested() -> None:
    built_in = {name for name in task_names() if name.startswith(("easy-vqa.", "scenes."))}
    assert set(HUB) == set(task_names()) - built_in and len(BLINK) == 14


@pytest.mark.parametrize("name", HUB)
def test_files_of_the_real_schema_become_samples(name: str, tmp_path: Path) -> None:
    task = load(name, write(name, tmp_path / "data"))
    processor, family = (part(find_model("tiny-llava")) for part in (load_processor, load_family))
    assert len({sample.sample_id for sample in task.samples}) == len(task.samples) > 0
    for sample in task.samples:
        assert sample.options == task.options[: len(sample.options)] and 0 <= sample.label < len(sample.options)
        pictures = [source.open() for source in sample.images]
        assert pictures and all(picture.mode == "RGB" and picture.size == (32, 24) for picture in pictures)
        prompt = render_prompt(family, processor, task.prompt, sample)
        assert sample.question in prompt and prompt.count("<image>") == len(sample.images)
    again = pickle.loads(pickle.dumps(task.samples[-1].images))
    assert again == task.samples[-1].images and again[0].open() == task.samples[-1].images[0].open()


@pytest.mark.parametrize("name", HUB)
def test_an_example_stands_for_a_task_whose_data_is_not_here(name: str, tmp_path: Path) -> None:
    example, loaded = load_example(name), load(name, write(name, tmp_path / "data"))
    assert list(example.variants) == list(loaded.variants)
    assert example.prompt == loaded.prompt and set(example.options) <= set(loaded.options)
    n_wordings = len(set(example.variants) & set(describe_task(name).wordings))
    assert n_wordings >= (2 if example.samples[0].choices or example.options == ("A", "B") else 4)
    with pytest.raises(SampleError, match="found an example of it"):
        example.samples[0].images[0].open()
    for variant in example.variants:
        if variant != "repope":
            assert load_example(f"{name}@{variant}").name == f"{name}@{variant}"


def test_pope_is_one_task_or_three_and_a_picture_is_one_whichever_row_it_is_in(tmp_path: Path) -> None:
    folder = write_pope(tmp_path)
    whole, part = load("pope", folder), load("pope.adversarial", folder)
    assert len(whole.samples) == 12 and [sample.sample_id for sample in part.samples] == [
        f"adversarial-{number}" for number in (1, 2, 3, 4)
    ]
    assert ask(part, 0) == ("Is there a cat in the image?\nAnswer the question using a single word or phrase.", "yes")
    assert ask(part, 1)[1] == "no"
    assert len({sample.images for sample in whole.samples}) == len({sample.image_id for sample in whole.samples}) == 2
    digest = hashlib.sha256(b"RGB 32 24 " + np.asarray(draw(0)).tobytes()).hexdigest()[:32]
    assert whole.samples[0].image_id == whole.samples[0].split_key == digest
    assert ask(load("pope.random@negated", folder), 1) == (
        "Is there no owl in the image?\nAnswer the question using a single word or phrase.",
        "yes",
    )


def test_pope_takes_the_labels_of_repope_from_a_file_or_a_folder(tmp_path: Path) -> None:
    folder = write_pope(tmp_path / "data")
    lines = [
        {
            "question_id": 1,
            "image": "COCO_val2014_000000000000.jpg",
            "text": "Is there a cat in the image?",
            "label": "no",
        },
        {
            "question_id": 4,
            "image": "COCO_val2014_000000000001.jpg",
            "text": "Is there a bus in the image?",
            "label": "no",
        },
    ]
    (tmp_path / "coco_repope_random.json").write_text(
        "".join(json.dumps(line | {"label": "no"}) + "\n" for line in lines)
    )
    for labels in (tmp_path / "coco_repope_random.json", tmp_path):
        task = load("pope.random@repope", folder, labels=str(labels))
        assert task.name == "pope.random@repope"
        assert [(sample.sample_id, sample.label) for sample in task.samples] == [("random-1", 0), ("random-4", 0)]
    assert load("pope.random", folder, labels=str(tmp_path)).samples[0].label == 1
    with pytest.raises(TaskError, match=r"expected a file of corrected labels, found none; give it \(--labels\)"):
        load("pope.random@repope", folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"image": "x.jpg"}\n', "labels.json, line 1: expected .* found"),
        ("\nnothing\n", "labels.json, line 2: expected .* found nothing"),
        ("", "expected lines of corrected labels, found none"),
        ('{"image": "x.jpg", "text": "Is it?", "label": "yes"}\n', "of its questions, found those of others"),
        (
            '{"image": "COCO_val2014_000000000000.jpg", "text": "Is there a cat in the image?", "label": "maybe"}',
            "random-1: expected a corrected label of no, yes, found 'maybe'",
        ),
    ],
)
def test_a_wrong_file_of_labels_is_one_line(text: str, expected: str, tmp_path: Path) -> None:
    folder = write_pope(tmp_path / "data")
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(TaskError, match=expected) as raised:
        load("pope.random@repope", folder, labels=str(tmp_path / "labels.json"))
    assert "\n" not in str(raised.value)


def test_instaorder_asks_about_marked_pairs_whose_order_is_clear(tmp_path: Path) -> None:
    folder = write("instaorder.depth", tmp_path)
    depth, occlusion = load("instaorder.depth", folder), load("instaorder.occlusion", folder)
    assert [sample.sample_id for sample in depth.samples] == ["instaorder-depth-139-0-1", "instaorder-depth-139-2-0"]
    assert [sample.sample_id for sample in occlusion.samples] == ["instaorder-occlusion-139-0-1"]
    left = {"0": 1, "1": 6, "2": 20}
    for sample in (*depth.samples, *occlusion.samples):
        front, behind = sample.sample_id.split("-")[-2:]
        (marked,) = sample.images
        first = sample.options[sample.label] in ("red", "yes")
        red, blue = (front, behind) if first else (behind, front)
        pixels = np.asarray(marked.open())
        assert tuple(pixels[1 if red != "1" else 6, left[red]]) == (255, 0, 0) or blue == "1"
        assert (pixels == (0, 0, 255)).all(-1).any() and (pixels == (255, 0, 0)).all(-1).any()
    assert depth.samples[0].image_id == occlusion.samples[0].image_id  # that of the picture without marks
    assert depth.samples[0].images != depth.samples[1].images


def test_vizwiz_is_answerable_by_the_majority(tmp_path: Path) -> None:
    task = load("vizwiz.answerable", write("vizwiz.answerable", tmp_path))
    assert [task.options[sample.label] for sample in task.samples] == ["answerable", "unanswerable", "answerable"]
    assert "respond with 'Unanswerable'.\nAnswer the question using a single word" in ask(task, 0)[0]


def test_clevr_keeps_yes_and_no(tmp_path: Path) -> None:
    task = load("clevr.yes-no", write("clevr.yes-no", tmp_path))
    assert [ask(task, number) for number in range(len(task.samples))] == [
        ("Are there more cubes than balls? Please answer yes or no.", "no"),
        ("Is there a cube? Please answer yes or no.", "yes"),
    ]


def test_a_okvqa_and_scienceqa_answer_by_letters(tmp_path: Path) -> None:
    okvqa = load("a-okvqa", write("a-okvqa", tmp_path / "okvqa"))
    directly = "\nAnswer with the option's letter from the given choices directly."
    assert ask(okvqa, 1) == ("Who uses it?\nA. cook\nB. pilot\nC. nurse\nD. judge" + directly, "C")
    science = load("scienceqa", write("scienceqa", tmp_path / "science"))
    assert [len(sample.options) for sample in science.samples] == [2, 3, 5] and len(science.options) == 5
    assert ask(science, 0) == ("Is it a mammal?\nA. yes\nB. no" + directly, "B")
    assert ask(science, 1) == ("Use the map.\nWhich is farthest north?\nA. Rome\nB. Oslo\nC. Cairo" + directly, "B")
    shuffled = load("scienceqa@letters", tmp_path / "science")
    assert len(shuffled.samples) == 2 + 6 + 120


def test_naturalbench_never_divides_a_group_in_either_form(tmp_path: Path) -> None:
    task = load("naturalbench.yes-no", write("naturalbench.yes-no", tmp_path / "groups"))
    flat = load("naturalbench.yes-no", write_naturalbench_flat(tmp_path / "flat"))
    for found in (task, flat):
        told = {sample.sample_id: ask(found, place)[1] for place, sample in enumerate(found.samples)}
        assert [told[f"0-{place}"] for place in ("q0-i0", "q0-i1", "q1-i0", "q1-i1")] == ["yes", "no", "no", "yes"]
        for group in ("0", "1"):
            assert len({s.split_key for s in found.samples if s.sample_id.startswith(f"{group}-")}) == 1
    assert task.fingerprint(0, 8) == flat.fingerprint(0, 8)
    choice = load("naturalbench.choice", tmp_path / "groups")
    assert [sample.sample_id for sample in choice.samples if sample.label == 0] == ["2-q0-i0", "2-q1-i1"]


def test_blink_shows_up_to_four_pictures(tmp_path: Path) -> None:
    task = load("blink.art-style", write_blink(tmp_path, "Art_Style"))
    assert [len(sample.images) for sample in task.samples] == [2, 4]
    assert [sample.options[sample.label] for sample in task.samples] == ["B", "D"]
    assert ask(task, 0)[0].startswith("Which is alike?\nA. the first\nB. the second\n")


def lose_picture(folder: Path) -> None:
    """Take a picture away."""
    (folder / "images" / "val" / "CLEVR_val_000001.png").unlink()


def lose_questions(folder: Path) -> None:
    """Take the questions away."""
    (folder / "questions" / "CLEVR_val_questions.json").unlink()


def cut_questions(folder: Path) -> None:
    """Leave half of the file of questions."""
    file = folder / "questions" / "CLEVR_val_questions.json"
    file.write_text(file.read_text()[:200])


def ask_for_numbers(folder: Path) -> None:
    """Leave no question that is answered yes or no."""
    file = folder / "questions" / "CLEVR_val_questions.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"questions": [entry | {"answer": "3"} for entry in content["questions"]]}))


def rename_field(folder: Path) -> None:
    """Call the answers otherwise."""
    file = folder / "questions" / "CLEVR_val_questions.json"
    file.write_text(file.read_text().replace('"answer"', '"reply"'))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lose_picture, "val record 2: expected a picture at .*CLEVR_val_000001.png, found none"),
        (lose_questions, "expected the records of split 'val', found: "),
        (cut_questions, "expected the records of split 'val', found: "),
        (ask_for_numbers, "task clevr.yes-no: expected some samples, found none"),
        (rename_field, "val record 0: expected a field 'answer', found split, image_index"),
    ],
)
def test_wrong_files_are_one_line(spoil: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    folder = write("clevr.yes-no", tmp_path / "data")
    spoil(folder)
    with pytest.raises(TaskError, match=expected) as raised:
        load("clevr.yes-no", folder)
    assert "\n" not in str(raised.value)


def test_data_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for name, expected in {
        "clevr.yes-no": "expected the folder of its files, found none; give it",
        "instaorder.depth": "expected the folder of COCO 2017 with InstaOrder's files, found none",
    }.items():
        with pytest.raises(TaskError, match=expected):
            load_task(name)
    with pytest.raises(TaskError, match=r"expected a folder at .*nowhere, found none; check the path"):
        load("pope", tmp_path / "nowhere")
    with pytest.raises(TaskError, match="2017.json: expected annotations, found: No such"):
        load("instaorder.depth", tmp_path)
    with pytest.raises(TaskError, match="expected the records of split 'random', found: "):
        load("pope.random", tmp_path)
    with pytest.raises(TaskError, match="expected no labels, as it has no corrections, found"):
        load("a-okvqa", write("a-okvqa", tmp_path), labels="labels.json")


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("InstaOrder", '"annotations": [', '"annotations": null, "more": [', "'NoneType' object is not iterable"),
        ("InstaOrder", '"annotations"', '"notes"', "no 'annotations'"),
        ("InstaOrder", '"0<1"', "5", "expected string"),
        ("InstaOrder", '"0<1"', '"0<7"', "list index out of range"),
        ("instances", "[1.0, 1.0, 8.0, 8.0]", "[1.0, 1.0]", "not enough values"),
        ("instances", "[1.0, 1.0, 8.0, 8.0]", '["a", 1, 1, 1]', "could not convert"),
    ],
)
def test_wrong_annotations_are_one_line(name: str, old: str, new: str, expected: str, tmp_path: Path) -> None:
    file = write("instaorder.depth", tmp_path / "data") / "annotations" / f"{name}_val2017.json"
    file.write_text(file.read_text().replace(old, new))
    told = f"{name}_val2017.json: expected annotations, found: {expected}"
    with pytest.raises(TaskError, match=told) as raised:
        load("instaorder.depth", tmp_path / "data")
    assert "\n" not in str(raised.value)


def test_an_adapter_names_the_field_that_it_misses(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="train record 0: expected a field 'Index', found Number, Image, Question"):
        load("naturalbench.yes-no", write_naturalbench_flat(tmp_path, index="Number"))


def test_the_first_samples_have_the_options_of_all(tmp_path: Path) -> None:
    folder = write("scienceqa", tmp_path)
    task = load_task(find_source({"task": "scienceqa", "data": str(folder)}), limit=1)
    assert len(task.samples) == 1 and len(task.samples[0].options) == 2 and len(task.options) == 5
