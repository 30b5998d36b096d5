"""Tasks of one's own: lines, folders of classes, descriptions, and datasets that are tasks by what is asked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Features, Image, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags
from PIL import Image as Pillow

from pipeline.errors import TaskError, TaskNotFoundError
from pipeline.sample import ImageFile
from pipeline.task import find_source, load_task
from storage.split import assign_split
from tests.task.hub_file import draw

LINES: list[dict[str, object]] = [
    {"image": "a.png", "question": "What is it?", "label": "cat"},
    {"image": "b.png", "question": "What is it?", "label": "dog"},
    {"image": "a.png", "question": "Who?", "label": "dog", "id": "mine", "image_id": "a"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures."""
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        draw(number).save(tmp_path / name)
    return tmp_path


def write_lines(folder: Path, lines: list[dict[str, object]], name: str = "pets.jsonl") -> str:
    """Write a file of lines."""
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / name)


def test_json_lines_are_a_task_by_the_name_of_their_file(folder: Path) -> None:
    task = load_task(write_lines(folder, LINES))
    assert (task.name, task.options, task.revision) == ("pets", ("cat", "dog"), "lines of pets.jsonl")
    told = [(sample.sample_id, sample.question, sample.label) for sample in task.samples]
    assert told == [("pets-000001", "What is it?", 0), ("mine", "Who?", 1), ("pets-000002", "What is it?", 1)]
    assert task.samples[1].split_key == "a" != task.samples[0].split_key == task.samples[0].image_id
    assert task.samples[0].images[0].open().size == (32, 24)
    assert load_task(f"{folder}/pets.jsonl@blur-2").name == "pets@blur-2"
    assert load_task(f"{folder}/pets.jsonl@please", limit=1).prompt == "Please answer: {question}"


def test_the_pictures_of_lines_may_be_in_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = write_lines(tmp_path_factory.mktemp("other"), [*LINES, {**LINES[0], "image": ["b.png", "c.png"]}])
    task = load_task(find_source({"task": file, "data": str(folder)}))
    assert [len(sample.images) for sample in task.samples] == [1, 1, 1, 2]
    with pytest.raises(TaskError, match=r"pets.jsonl, line 1: expected a picture at .*a.png, found none"):
        load_task(file)


def test_a_table_is_a_task(folder: Path) -> None:
    (folder / "pets.csv").write_text(
        'id,image,label,options\none,a.png,yes,yes|no\ntwo,b.png,no,yes|no\n"three, 3",c.png,no,yes|no\n'
    )
    task = load_task(find_source({"task": str(folder / "pets.csv"), "question": "Is it {big}?"}))
    assert task.options == ("yes", "no")
    assert [(sample.sample_id, sample.label) for sample in task.samples] == [("one", 0), ("two", 1), ("three, 3", 1)]
    assert task.prompt.format(question=task.samples[0].text) == "Is it {big}?"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
@settings(max_examples=50, deadline=None)
def test_a_question_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, question: str) -> None:
    """Whatever JSON or CSV can hold, the ends of a line that only some programs know among it."""
    folder = tmp_path_factory.mktemp("written")
    draw(0).save(folder / "a.png")
    lines = [{**LINES[0], "image": "a.png", "question": question, "label": label, "id": None} for label in "xy"]
    plain = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "pets.jsonl").write_text(plain, encoding="utf-8", newline="")
    with (folder / "pets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    for name in ("pets.jsonl", "pets.csv"):
        assert [sample.question for sample in load_task(str(folder / name)).samples] == [question] * 2


def test_lines_with_options_of_their_own_are_asked_by_letters(folder: Path) -> None:
    lines = [
        {**LINES[0], "options": ["cat", "owl", "bat"]},
        {**LINES[1], "options": ["cow", "dog"]},
    ]
    task = load_task(write_lines(folder, lines))
    assert task.options == ("A", "B", "C") and [sample.label for sample in task.samples] == [0, 1]
    assert task.samples[1].text == "What is it?\nA. cow\nB. dog" and task.samples[1].options == ("A", "B")
    assert "letters" in task.variants


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"image": "a.png", "question": "Q", "label": "x"\n', "line 1: expected JSON, found: Expecting ',' delimiter"),
        ('["a.png"]\n', 'line 1: expected {"image": ..., "question": ..., "label": ...}, found'),
        ('\n{"image": "a.png", "label": "x"}\n', "line 2: expected a question, found None; add it, or give --question"),
        ('{"image": "a.png", "question": "Q"}', "line 1: expected a label, found none; add it"),
        ('{"image": "a.png", "question": "Q", "label": ""}', "line 1: expected a label, found none; add it"),
        ('{"image": "a.png", "question": "Q", "label": ["x"]}', "line 1: expected a label, found ['x']; write a text"),
        ('{"image": "z.png", "question": "Q", "label": "x"}', "z.png, found none; check the path"),
        (
            '{"image": "a.png", "question": "Q", "label": "x", "labels": "y"}',
            "found 'labels'; rename it, or leave it out",
        ),
        (
            '{"image": "a.png", "question": "Q", "label": "x", "options": ["y", "z"]}',
            "line 1: expected a label of y, z, found 'x'",
        ),
        (
            '{"image": "a.png", "question": "Q", "label": "x", "options": ["x"]}',
            "line 1: expected options, two or more",
        ),
        ('{"image": "a.png", "question": "Q", "label": "x"}', "expected two different labels or more, found x alone"),
        ("", "pets.jsonl: expected a sample a line, found none"),
        ('{"image": "a.png", "question": "Q", "label": null}', "line 1: expected a label, found none; add it"),
        (
            '{"image": "a.png", "question": "Q", "label": "x", "id": 1}\n'
            '{"image": "b.png", "question": "Q", "label": "y", "id": 1}',
            "pets.jsonl, line 2: expected an id of its own, found '1', which is that of ",
        ),
    ],
)
def test_a_mistake_in_lines_is_told_with_its_place(text: str, expected: str, folder: Path) -> None:
    (folder / "pets.jsonl").write_text(text)
    with pytest.raises(TaskError) as raised:
        load_task(str(folder / "pets.jsonl"))
    assert expected in str(raised.value) and "\n" not in str(raised.value) and "pets" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"image,question,label\na.png,Q\n", "pets.csv, line 2: expected 3 columns, found another number"),
        (b'image,question,label\n"a.png,Q,x\n', "pets.csv, line 2: expected CSV, found: "),
        (b"image,question,label\n", "pets.csv: expected a sample a line, found none"),
        (b"image;question;label\na.png;Q;x\n", "line 2: expected the keys image, .*, found 'image;question;label'"),
        (b"image,label,question,label\na.png,x,Q,y\n", "line 1: expected every column once, found 'label' twice"),
        (b"\xff\xfe\x00", "pets.csv: expected a task's lines, found: bytes that are not UTF-8"),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_place(content: bytes, expected: str, folder: Path) -> None:
    (folder / "pets.csv").write_bytes(content)
    with pytest.raises(TaskError, match=expected):
        load_task(str(folder / "pets.csv"))


def test_a_folder_for_each_class_is_a_task(tmp_path: Path) -> None:
    for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/more/3.PNG")):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        draw(number).save(tmp_path / "pets" / name)
    task = load_task(find_source({"task": str(tmp_path / "pets"), "question": "What is it?"}))
    assert (task.name, task.options) == ("pets", ("cat", "dog"))
    told = [(sample.sample_id, sample.label) for sample in task.samples]
    assert told == [("cat/1.png", 0), ("cat/2.png", 0), ("dog/1.png", 1), ("dog/more/3.PNG", 1)]
    with pytest.raises(TaskError, match=r"expected a question about its pictures, found none; give it \(--question\)"):
        load_task(str(tmp_path / "pets"))
    (tmp_path / "pets" / "owl").mkdir()
    with pytest.raises(TaskError, match="owl: expected pictures, found none"):
        load_task(find_source({"task": str(tmp_path / "pets"), "question": "What is it?"}))
    with pytest.raises(TaskError, match="expected a folder of pictures for each class, found 1"):
        load_task(find_source({"task": str(tmp_path), "question": "What is it?"}))


def test_an_image_classification_set_is_a_task_by_what_is_asked(tmp_path: Path) -> None:
    features = Features({"picture": Image(), "disease": ClassLabel(names=["rust", "spot", "healthy"])})
    columns = {"picture": [draw(0), draw(1), draw(2)], "disease": [2, 0, 2]}
    (tmp_path / "beans" / "data").mkdir(parents=True)
    file = tmp_path / "beans" / "data" / "validation-00000-of-00001.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(file))
    keys = {"dataset": str(tmp_path / "beans"), "question": "Which {disease}?", "split": "validation"}
    task = load_task(find_source(keys | {"image_field": "picture", "label_field": "disease"}))
    assert (task.name, task.options) == ("beans", ("rust", "spot", "healthy"))
    assert [(sample.sample_id, sample.label) for sample in task.samples] == [
        ("validation-0", 2),
        ("validation-1", 0),
        ("validation-2", 2),
    ]
    assert task.samples[0].question == "Which {disease}?"
    with pytest.raises(TaskError, match="expected a field 'image', found picture, disease"):
        load_task(find_source(keys))
    with pytest.raises(TaskError, match="expected a question for a dataset, found none"):
        find_source({"dataset": "beans"})


def write_classes(
    folder: Path, labels: list[object], feature: object, *, pictures: list[object] | None = None
) -> dict[str, str]:
    """Write an image classification set and return the keys that make it a task."""
    (folder / "data").mkdir(parents=True)
    columns = {"image": pictures or [draw(number) for number, _ in enumerate(labels)], "label": labels}
    file = folder / "data" / "test-00000-of-00001.parquet"
    datasets.Dataset.from_dict(columns, features=Features({"image": Image(), "label": feature})).to_parquet(str(file))
    return {"dataset": str(folder), "question": "What is it?"}


@pytest.mark.parametrize("first", [0, 1, 5])
def test_classes_that_are_numbers_without_names_are_what_they_say(first: int, tmp_path: Path) -> None:
    numbers = [first + number for number in (11, 2, 0, 10, 1, 2)]
    task = load_task(find_source(write_classes(tmp_path / "set", list(numbers), Value("int64"))))
    assert task.options == tuple(str(number) for number in sorted(set(numbers)))
    assert [task.options[sample.label] for sample in task.samples] == [str(number) for number in numbers]


@pytest.mark.parametrize(
    ("labels", "feature"),
    [
        (["cat", None, "dog"], Value("string")),
        ([0, None, 1], ClassLabel(names=["cat", "dog"])),
        ([3, None], Value("int8")),
    ],
)
def test_a_record_without_a_class_is_told(labels: list[object], feature: object, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="test record 1: expected an answer in 'label', found none; correct it"):
        load_task(find_source(write_classes(tmp_path / "set", labels, feature)))


def test_a_record_without_a_picture_is_told(tmp_path: Path) -> None:
    keys = write_classes(tmp_path / "set", ["cat", "dog"], Value("string"), pictures=[draw(0), None])
    with pytest.raises(TaskError, match="test record 1: expected a picture in image, found none; add it, or leave"):
        load_task(find_source(keys))
    with pytest.raises(TaskError, match="expected a text or a number in 'image', found a picture or such"):
        load_task(find_source(keys | {"label_field": "image"}))


def test_records_that_are_not_of_the_task_need_no_picture(tmp_path: Path) -> None:
    draw(0).save(tmp_path / "0.png")
    lines: list[dict[str, object]] = [
        {"picture": "0.png" if time != "dusk" else None, "what": "day", "time": time} for time in ("d", "dusk", "n")
    ]
    write_lines(tmp_path, lines, "train.jsonl")
    text = DESCRIPTION.replace("PLACE", str(tmp_path)).replace("{probe: train, test: validation}", "train")
    (tmp_path / "night.yaml").write_text(text)
    assert [sample.sample_id for sample in load_task(str(tmp_path / "night.yaml")).samples] == ["train-0", "train-2"]


@pytest.mark.parametrize("question", ["Species?", "这是什么", "label", "What {x} is it?", "{label}"])
def test_a_question_about_every_picture_is_what_was_written(question: str, tmp_path: Path) -> None:
    keys = write_classes(tmp_path / "set", ["cat", "dog"], Value("string"))
    task = load_task(find_source(keys | {"question": question}))
    assert [sample.question for sample in task.samples] == [question] * 2


def test_a_picture_is_turned_upright_as_datasets_turns_it(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number, name in enumerate(("a.jpg", "b.jpg")):
        draw(number).save(tmp_path / "pets" / name, exif=exif)
    lines = write_lines(tmp_path / "pets", [{**LINES[0], "image": "a.jpg"}, {**LINES[1], "image": "b.jpg"}])
    peer = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "pets"), split="train", cache_dir=str(tmp_path))
    for sample, told in zip(load_task(lines).samples, peer, strict=True):
        assert sample.images[0].open().size == told["image"].size == (24, 32)
        assert sample.images[0].open().tobytes() == told["image"].convert("RGB").tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow says so
def test_a_torn_exif_spoils_no_picture(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for n_bytes in range(6, len(exif.tobytes())):
        draw(0).save(tmp_path / "a.png", exif=exif.tobytes()[:n_bytes])
        assert sorted(ImageFile(tmp_path / "a.png").open().size) == [24, 32]


DESCRIPTION = """\
task: night
about: day or night
dataset_path: PLACE
split: {probe: train, test: validation}
doc_to_visual: [picture]
doc_to_text: "Is it {what}?"
doc_to_target: time
answers: {d: day, n: night}
options: [day, night]
"""


def test_a_description_of_ones_own_may_publish_splits(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    draw(0).save(tmp_path / "data" / "0.png")
    for split in ("train", "validation"):
        lines = [{"picture": "0.png", "what": "day or night", "time": time} for time in ("d", "n", "dusk")]
        write_lines(tmp_path / "data", lines, f"{split}.jsonl")
    (tmp_path / "night.yaml").write_text(DESCRIPTION.replace("PLACE", str(tmp_path / "data")))
    task = load_task(str(tmp_path / "night.yaml"))
    assert (task.name, len(task.samples)) == ("night", 4)
    assert [sample.split for sample in task.samples] == ["probe", "probe", "test", "test"]
    assert [sample.label for sample in task.samples] == [0, 1, 0, 1]
    assert task.samples[0].question == "Is it day or night?"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("options: [day, night]", "options: [day, day]", "night.yaml, line 1: expected options that differ"),
        ("options: [day, night]", "", "night.yaml, line 1: options: expected a value, found none; add it"),
        ("about: day or night", "topic: day", "line 2: topic: expected one of the keys task, about"),
        ("answers: {d: day, n: night}", "answers: {d: day, n: dark}", "expected an answer of day, night, found 'dark'"),
        ("doc_to_target: time", "doc_to_target: hour", "train record 0: expected a field 'hour', found picture, what"),
        ('"Is it {what}?"', '"Is it {who}?"', "train record 0: expected a field 'who', found picture, what"),
        ("about: day or night", "about: [1", "night.yaml, line 3: expected YAML, found"),
        ("options: [day, night]", "prompt: no place\noptions: [day, night]", "expected a text with {question} in it"),
        ("task: night", "task: day", "line 1: task: expected night, as the file is called, found 'day'; rename one"),
        ("task: night", "task: a@b", "line 1: task: expected night, as the file is called, found 'a@b'"),
        ("task: night", "reader: recods", "reader: expected one of classes, easy-vqa, instaorder, lines, records,"),
        ("task: night", "reader: lines", "line 1: reader: expected a reader of data that a description names, found"),
        (
            "task: night",
            "reader: scenes",
            "task night: expected dataset_name to be one of existence, occlusion,",
        ),
        ("task: night", "reader: instaorder", "expected a question, and dataset_name to be occlusion or depth, found"),
        ("task: night", "adapter: vizwizz", "line 1: adapter: expected one of naturalbench, vizwiz, found 'vizwizz'"),
        ("task: night", "include: list.yaml", "list.yaml, line 1: expected keys of a task, found ['a']; include"),
        ("task: night", 'image_folder: "{x}"', "line 1: image_folder: expected no field but {split}, found {x}"),
        ("task: night", "question: What?", "expected doc_to_text or question, found both; leave one out"),
        ("task: night", 'wordings: {blank: "{question}"}', "expected a name of its own for the variant 'blank'"),
        ("task: night", 'wordings: {blur-2: "{question}"}', "found that of another variant; choose another"),
        ("task: night", 'wordings: {a/b: "{question}"}', "for the variant 'a/b', of ASCII letters, digits and _ - ."),
        ("task: night", "doc_to_choice: what", "train record 0: expected a list of choices in what, found 'day'"),
        ("task: night", "dataset_path: /nowhere", "dataset_path: expected once, found a second time after line 1"),
        ('"Is it {what}?"', '"Is it {what?"', "line 6: doc_to_text: expected a text with fields in braces as {name}"),
        ('"Is it {what}?"', '"Is it {}?"', "found 'Is it {}?'; close every brace, name a field alone in it"),
        ('"Is it {what}?"', '"Is it {what.x}?"', "doc_to_text: expected a text with fields in braces"),
        ('"Is it {what}?"', '"Is it {what:d}?"', "doc_to_text: expected a text with fields in braces"),
        ('"Is it {what}?"', "Daytime?", "train record 0: expected a field 'Daytime?', found picture, what"),
        ("test: validation", "test: train", "line 4: split: expected every split of the dataset once, found train, t"),
        (
            "{probe: train, test: validation}",
            "[]",
            "split: expected a split's name, a list of them, or one",
        ),
        ("test: validation", "testt: validation", "or one for each of probe, validation, test, found {'probe': 'tra"),
        ("task: night", 'negations: [{pattern: "(", replacement: a}]', "negations[0]: expected a regular expression"),
        ("task: night", "negations: [{pattern: \"Is\", replacement: '\\2'}]", "found: invalid group reference 2"),
    ],
)
def test_a_mistake_in_a_description_is_one_line(old: str, new: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    draw(0).save(tmp_path / "data" / "0.png")
    for split in ("train", "validation"):
        lines: list[dict[str, object]] = [{"picture": "0.png", "what": "day", "time": time} for time in ("d", "n")]
        write_lines(tmp_path / "data", lines, f"{split}.jsonl")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "night.yaml").write_text(DESCRIPTION.replace("PLACE", str(tmp_path / "data")).replace(old, new))
    with pytest.raises(TaskError) as raised:
        load_task(str(tmp_path / "night.yaml"))
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_a_description_is_called_as_its_file_and_may_ask_about_the_world(tmp_path: Path) -> None:
    text = "about: which is closer\nreader: scenes\ndataset_name: depth\noptions: [first, second]\n"
    (tmp_path / "my world.yaml").write_text(text)
    task, built_in = load_task(str(tmp_path / "my world.yaml"), limit=4), load_task("scenes.depth", limit=4)
    assert (task.name, task.samples) == ("my-world", built_in.samples)


def test_a_folder_in_the_way_does_not_hide_a_built_in_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scenes.depth").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_task("scenes.depth", limit=2).options == ("first", "second")


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "pets.json").write_text("[]")
    with pytest.raises(TaskNotFoundError, match=r"expected a file whose name ends in .yaml, .yml, .jsonl, .csv, found"):
        load_task(str(tmp_path / "pets.json"))
    draw(0).save(tmp_path / "a.png")
    (tmp_path / "PETS.CSV").write_text("image,question,label\na.png,Q,x\na.png,R,y\n")
    assert load_task(str(tmp_path / "PETS.CSV")).name == "PETS"


def test_a_path_where_nothing_is_is_one_line(tmp_path: Path) -> None:
    for name in ("pets.jsonl", "pets.csv", "night.yaml", "folder/pets"):
        with pytest.raises(TaskNotFoundError, match="expected a file or folder there, found none; check the path"):
            load_task(str(tmp_path / name))


PICTURES = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(first=PICTURES, added=PICTURES)
@settings(max_examples=25, deadline=None)
def test_splits_are_by_picture_and_stay_when_samples_are_added(
    first: list[int], added: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("split")
    for number in range(6):
        draw(number).save(folder / f"{number}.png")
    lines: list[dict[str, object]] = [
        {"image": f"{picture}.png", "question": f"Question {place}?", "label": "no" if place else "yes"}
        for place, picture in enumerate([*first, *added])
    ]
    options = {"options": ["no", "yes"]}
    few = load_task(write_lines(folder, [line | options for line in lines[: len(first)]])).samples
    many = load_task(write_lines(folder, [line | options for line in lines])).samples
    splits = {sample.sample_id: sample.split for sample in many}
    assert all(splits[sample.sample_id] == sample.split for sample in few)
    by_picture: dict[str, set[str]] = {}
    for sample in many:
        by_picture.setdefault(sample.image_id, set()).add(sample.split)
        assert sample.split == assign_split(sample.image_id)
    assert len(by_picture) == len({*first, *added}) and all(len(found) == 1 for found in by_picture.values())
    seen = [sample.image_id for sample in many]
    assert [seen[place] for place in range(len(seen)) if place == 0 or seen[place] != seen[place - 1]] == list(
        dict.fromkeys(seen)
    )


def test_lines_without_options_beside_others_with_their_own_are_refused(folder: Path) -> None:
    lines = [{**LINES[0], "options": ["cat", "owl"]}, {**LINES[1], "options": ["cow", "dog"]}, LINES[0]]
    with pytest.raises(TaskError, match="line 3: expected options, two or more that differ, found None"):
        load_task(write_lines(folder, lines))
