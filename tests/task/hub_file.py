"""Small files of exactly the fields and types that the datasets of the hub have, and those of InstaOrder and CLEVR."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

TEXT = Value("string")
COLOURS = ((200, 30, 30), (30, 160, 60), (40, 60, 200), (220, 200, 40))


def draw(number: int) -> Pillow.Image:
    """Return a picture unlike those of other numbers."""
    rng = np.random.default_rng(number)
    return Pillow.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))


def save(folder: Path, name: str, split: str, columns: dict[str, list[object]], features: Features) -> Path:
    """Write a parquet file as the hub has them."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(str(place / f"{split}-00000-of-00001.parquet"))
    return folder


def write_pope(folder: Path) -> Path:
    """Three parts of four questions about two pictures, the same pictures in each."""
    names = ["id", "question_id", "question", "answer", "image_source", "category"]
    features = Features(dict.fromkeys(names, TEXT) | {"image": Image()})
    for category in ("random", "popular", "adversarial"):
        rows = [
            {
                "id": str(row),
                "question_id": str(row + 1),
                "question": f"Is there {thing} in the image?",
                "answer": answer,
                "image_source": f"COCO_val2014_{row // 2:012d}",
                "image": draw(row // 2),
                "category": category,
            }
            for row, (thing, answer) in enumerate(
                [("a cat", "yes"), ("an owl", "no"), ("a cup", "yes"), ("a bus", "no")]
            )
        ]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        save(folder, "Full", category, columns, features)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: Full\n  data_files:\n"
        + "".join(f"  - split: {c}\n    path: Full/{c}-*\n" for c in ("random", "popular", "adversarial"))
        + "---\n"
    )
    return folder


def write_vizwiz(folder: Path) -> Path:
    """Two answerable photos, one that is not."""
    features = Features(
        {"question_id": TEXT, "image": Image(), "question": TEXT, "answers": List(TEXT), "category": TEXT}
    )
    answers = [["soup"] * 6 + ["unanswerable"] * 4, ["unanswerable"] * 8 + ["tin"] * 2, ["blue"] * 10]
    columns: dict[str, list[object]] = {
        "question_id": [f"VizWiz_val_{row:08d}.jpg" for row in range(3)],
        "image": [draw(row) for row in range(3)],
        "question": ["What is this?", "What does it say?", "What colour is it?"],
        "answers": list(answers),
        "category": ["other", "unanswerable", "other"],
    }
    return save(folder, "data", "val", columns, features)


def write_a_okvqa(folder: Path) -> Path:
    """Two questions of four choices."""
    features = Features(
        {
            "image": Image(),
            "question_id": TEXT,
            "question": TEXT,
            "choices": List(TEXT),
            "correct_choice_idx": Value("int8"),
            "direct_answers": TEXT,
            "difficult_direct_answer": Value("bool"),
            "rationales": List(TEXT),
        }
    )
    columns: dict[str, list[object]] = {
        "image": [draw(0), draw(1)],
        "question_id": ["22MexNkBPpdZGX6sxbxVBH", "2BAndPkFqhTCpaHjGVuRLt"],
        "question": ["What is it for?", "Who uses it?"],
        "choices": [["rain", "sun", "snow", "wind"], ["cook", "pilot", "nurse", "judge"]],
        "correct_choice_idx": [0, 2],
        "direct_answers": ["['rain', 'rain']", "['nurse']"],
        "difficult_direct_answer": [False, True],
        "rationales": [["It rains."], ["She wears white."]],
    }
    return save(folder, "data", "validation", columns, features)


def write_scienceqa(folder: Path) -> Path:
    """Two, three and five choices, and one question without a picture."""
    names = ["question", "hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"]
    features = Features(dict.fromkeys(names, TEXT) | {"image": Image(), "choices": List(TEXT), "answer": Value("int8")})
    choices = [["yes", "no"], ["Rome", "Oslo", "Cairo"], ["one", "two"], ["a", "b", "c", "d", "e"]]
    columns: dict[str, list[object]] = {name: [f"a {name}"] * 4 for name in names}
    columns |= {
        "question": ["Is it a mammal?", "Which is farthest north?", "How many?", "Which letter?"],
        "hint": ["", "Use the map.", "", "Look."],
        "image": [draw(0), draw(1), None, draw(2)],
        "choices": list(choices),
        "answer": [1, 1, 0, 4],
    }
    return save(folder, "data", "test", columns, features)


def write_naturalbench(folder: Path) -> Path:
    """Two groups of yes/no questions and one of two choices, a record a group."""
    texts = ["Question_0", "Question_1", *(f"Image_{i}_Question_{q}" for i in (0, 1) for q in (0, 1))]
    features = Features(
        {"Index": Value("int64"), "Image_0": Image(), "Image_1": Image(), "Question_Type": TEXT, "Source": TEXT}
        | dict.fromkeys(texts, TEXT)
    )
    pairs = [("Yes", "No"), ("Yes", "No"), ("A", "B")]
    columns: dict[str, list[object]] = {
        "Index": [0, 1, 2],
        "Image_0": [draw(2 * row) for row in range(3)],
        "Image_1": [draw(2 * row + 1) for row in range(3)],
        "Question_0": ["Is it day?", "Is it red?", "Where is it? Option: A: left; B: right;"],
        "Question_1": ["Is it night?", "Is it blue?", "Who is it? Option: A: she; B: he;"],
        "Image_0_Question_0": [first for first, _ in pairs],
        "Image_1_Question_0": [second for _, second in pairs],
        "Image_0_Question_1": [second for _, second in pairs],
        "Image_1_Question_1": [first for first, _ in pairs],
        "Question_Type": ["yes_no", "yes_no", "multiple_choice"],
        "Source": ["docci"] * 3,
    }
    return save(folder, "data", "train", columns, features)


def write_naturalbench_flat(folder: Path, *, index: str = "Index") -> Path:
    """The same as `write_naturalbench`, a record a question; `index` is what its number is called."""
    features = Features(
        {index: Value("int64"), "Image": Image(), "Question": TEXT, "Answer": TEXT, "Question_Type": TEXT}
    )
    asked = [("Is it day?", "Is it night?"), ("Is it red?", "Is it blue?")]
    rows = [
        {
            index: 4 * group + 2 * question + image,
            "Image": draw(2 * group + image),
            "Question": asked[group][question],
            "Answer": "Yes" if question == image else "No",
            "Question_Type": "yes_no",
        }
        for group in (0, 1)
        for question in (0, 1)
        for image in (0, 1)
    ]
    return save(folder, "data", "train", {name: [row[name] for row in rows] for name in rows[0]}, features)


def write_blink(folder: Path, subtask: str) -> Path:
    """One question of two pictures and two choices, one of four pictures and four choices."""
    texts = ["idx", "question", "sub_task", "answer", "prompt", "explanation"]
    features = Features(
        dict.fromkeys(texts, TEXT) | {f"image_{n}": Image() for n in range(1, 5)} | {"choices": List(TEXT)}
    )
    columns: dict[str, list[object]] = {
        "idx": [f"val_{subtask}_1", f"val_{subtask}_2"],
        "question": ["Which is alike?", "Which is real?"],
        "sub_task": [subtask] * 2,
        "image_1": [draw(0), draw(2)],
        "image_2": [draw(1), draw(3)],
        "image_3": [None, draw(4)],
        "image_4": [None, draw(5)],
        "choices": [["the first", "the second"], ["one", "two", "three", "four"]],
        "answer": ["(B)", "(D)"],
        "prompt": ["Which is alike?\n(A) the first\n(B) the second", "Which is real?"],
        "explanation": ["", ""],
    }
    return save(folder, subtask, "val", columns, features)


def write_clevr(folder: Path) -> Path:
    """The original files: two yes/no questions and one that asks for a number."""
    (folder / "images" / "val").mkdir(parents=True)
    (folder / "questions").mkdir()
    for number in (0, 1):
        draw(number).save(folder / "images" / "val" / f"CLEVR_val_{number:06d}.png")
    asked = [(0, "Are there more cubes than balls?", "no"), (0, "How many balls?", "3"), (1, "Is there a cube?", "yes")]
    questions = [
        {
            "split": "val",
            "image_index": number,
            "image_filename": f"CLEVR_val_{number:06d}.png",
            "question": question,
            "answer": answer,
            "program": [{"function": "scene", "inputs": [], "value_inputs": []}],
            "question_family_index": 1,
            "question_index": index,
        }
        for index, (number, question, answer) in enumerate(asked)
    ]
    content = {"info": {"split": "val", "license": "CC BY 4.0"}, "questions": questions}
    (folder / "questions" / "CLEVR_val_questions.json").write_text(json.dumps(content))
    return folder


def write_instaorder(folder: Path) -> Path:
    """Three things in a picture; ties and things that cover each other are among their orders."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    draw(0).save(folder / "val2017" / "000000000139.jpg")
    boxes = {11: [1.0, 1.0, 8.0, 8.0], 12: [6.0, 6.0, 10.0, 10.0], 13: [20.0, 2.0, 9.0, 9.0]}
    coco = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 32, "height": 24}],
        "annotations": [{"id": key, "image_id": 139, "bbox": box, "category_id": 1} for key, box in boxes.items()],
    }
    orders = {
        "image_id": 139,
        "instance_ids": [11, 12, 13],
        "occlusion": [{"order": "0<1"}, {"order": "1<2 & 2<1"}],
        "depth": [
            {"order": "0<1", "overlap": False, "count": 2},
            {"order": "2<0", "overlap": True, "count": 3},
            {"order": "1=2", "overlap": False, "count": 2},
        ],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(coco))
    (folder / "annotations" / "InstaOrder_val2017.json").write_text(json.dumps({"annotations": [orders]}))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "pope": write_pope,
    "pope.random": write_pope,
    "pope.popular": write_pope,
    "pope.adversarial": write_pope,
    "instaorder.occlusion": write_instaorder,
    "instaorder.depth": write_instaorder,
    "vizwiz.answerable": write_vizwiz,
    "clevr.yes-no": write_clevr,
    "a-okvqa": write_a_okvqa,
    "scienceqa": write_scienceqa,
    "naturalbench.yes-no": write_naturalbench,
    "naturalbench.choice": write_naturalbench,
}
"""What writes the files of each task; BLINK's by `write_blink`."""
