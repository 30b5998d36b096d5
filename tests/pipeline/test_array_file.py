"""Files of arrays: what is read is what was saved, nothing in a file is run, and every fault is one line."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.errors import ArrayFileError
from pipeline.exchange.array_file import parse_site, read_array_file, read_label_file
from storage.array_import import from_arrays

VALUES = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 0, 1])


class Bomb:
    """An object that makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_npy_stays_on_disk_and_takes_labels_from_a_second_file() -> None:
    np.save("values.npy", VALUES)
    np.save("labels.npy", LABELS)
    held = read_array_file("values.npy", site="mlp", labels="labels.npy")
    assert isinstance(held.activations["mlp"], np.memmap)
    np.testing.assert_array_equal(held.activations["mlp"], VALUES)
    np.testing.assert_array_equal(held.labels, LABELS)
    assert held.options is None and held.valid is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.txt", "0\n1\n0\n", {"labels": [0, 1, 0]}),
        ("labels.txt", "yes\r\n no \r\nyes", {"labels": ["yes", "no", "yes"]}),
        ("labels.txt", "10\nten\n", {"labels": ["10", "ten"]}),
        ("labels.csv", "\ufefflabel\n1\n-1\n", {"labels": [1, -1]}),
        (
            "labels.csv",
            'image_id,label,question,valid\na,yes,"one, or\ntwo?",TRUE\nb,no,three?,0\n',
            {
                "labels": ["yes", "no"],
                "image_ids": ["a", "b"],
                "questions": ["one, or\ntwo?", "three?"],
                "valid": [True, False],
            },
        ),
    ],
)
def test_labels_in_text(folder: Path, name: str, text: str, expected: dict[str, Any]) -> None:
    (folder / name).write_bytes(text.encode())
    assert read_label_file(name) == expected


def members() -> dict[str, Any]:
    return {
        "labels": np.array(["yes", "no"] * 3),
        "options": np.array(["no", "yes"]),
        "splits": np.array(["probe"] * 6),
        "sample_ids": np.arange(6),
        "image_ids": np.array(list("aabbcc")),
        "split_keys": np.array(list("aabbcc")),
        "questions": np.array(["é?"] * 6),
        "option_logit": np.zeros((6, 2)),
        "valid": np.ones(6, dtype=bool),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save: Callable[..., None]) -> None:
    save("arrays.npz", activations=VALUES, residual=VALUES[..., :1], heads=-VALUES, **members())
    held = read_array_file("arrays.npz", site="mlp")
    assert list(held.activations) == ["residual", "heads", "mlp"]
    for site, values in {"residual": VALUES[..., :1], "heads": -VALUES, "mlp": VALUES}.items():
        np.testing.assert_array_equal(held.activations[site], values)  # type: ignore[index]
    for name, expected in members().items():
        np.testing.assert_array_equal(getattr(held, name), expected)
    assert held.arguments().keys() == {"activations", *members()}


def test_pt_with_one_tensor(folder: Path) -> None:
    torch.save(torch.from_numpy(VALUES), "values.pt")
    (folder / "labels.txt").write_text("a\nb\n" * 3)
    held = read_array_file("values.pt", labels="labels.txt")
    np.testing.assert_array_equal(held.activations["residual"], VALUES)
    assert held.labels == ["a", "b"] * 3


@pytest.mark.parametrize("zipped", [True, False])
def test_pt_with_a_dictionary(folder: Path, zipped: bool) -> None:
    narrow = torch.from_numpy(VALUES).bfloat16()
    weights = torch.nn.Parameter(torch.from_numpy(VALUES).double())
    saved = OrderedDict(mlp=narrow, heads=weights, labels=torch.tensor(LABELS), options=("no", "yes"))
    torch.save(saved, "values.pt", _use_new_zipfile_serialization=zipped)
    held = read_array_file("values.pt")
    widened = held.activations["mlp"]
    assert widened.shape == VALUES.shape and widened[2:4].dtype == np.float32
    np.testing.assert_array_equal(widened[2:4], narrow[2:4].float().numpy())
    np.testing.assert_array_equal(held.activations["heads"], VALUES.astype(np.float64))
    assert held.options == ["no", "yes"]
    run = from_arrays(folder / "store", "mine/task", **held.arguments(), dtype="float32")
    np.testing.assert_array_equal(run.read_columns("mlp", layer=1, units=slice(0, 3)), narrow[:, 1].float().numpy())


def save_npy(name: str = "values.npy", values: npt.NDArray[Any] = VALUES, **options: Any) -> None:
    np.save(name, values, **options)


def save_pickled(name: str) -> None:
    Path(name).write_bytes(pickle.dumps({"activations": Bomb()}))


def save_objects(save: Callable[..., None], name: str) -> None:
    save(name, np.array([Bomb()], dtype=object))


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("values.csv", lambda: None, "expected a file that ends in .npy, .npz, .pt, .parquet, found another"),
        ("values.npy", lambda: None, "values.npy: expected a file, found none there"),
        ("values.npy", save_npy, "expected labels, found none; add them, or pass them in a file with --labels"),
        (
            "values.npy",
            lambda: save_objects(np.save, "values.npy"),
            "expected a file that can be read, found: Array can't",
        ),
        ("values.npy", lambda: Path("values.npy").write_bytes(b""), "expected a file that can be read, found: "),
        ("values.npy", lambda: save_pickled("values.npy"), "values.npy: expected a file that can be read, found: "),
        (
            "values.npz",
            lambda: save_objects(np.savez, "values.npz"),
            "found: Object arrays cannot be loaded when allow_p",
        ),
        (
            "values.npz",
            lambda: Path("values.npz").write_bytes(b"PK\x03\x04damaged"),
            "expected a file that can be read, f",
        ),
        (
            "values.npz",
            lambda: save_npy("x.npy") or Path("x.npy").rename("values.npz"),
            "expected the format that the suffix tells, found the other of NumPy's; rename it",
        ),
        (
            "values.npz",
            lambda: np.savez("values.npz", labels=LABELS),
            "expected activations or some of residual, mlp, hea",
        ),
        (
            "values.npz",
            lambda: np.savez("values.npz", residual=VALUES, answers=LABELS),
            r"expected some of residual, .* found \['answers'\]; rename or drop them",
        ),
        (
            "values.npz",
            lambda: np.savez("values.npz", residual=VALUES, activations=VALUES, labels=LABELS),
            "expected one array for residual, found activations too",
        ),
        (
            "values.pt",
            lambda: torch.save(Bomb(), "values.pt"),
            "expected tensors alone, found other objects or a damaged",
        ),
        ("values.pt", lambda: save_pickled("values.pt"), "values.pt: expected tensors alone, found other objects"),
        ("values.pt", lambda: Path("values.pt").write_bytes(b""), "expected a file that can be read, found: "),
        ("values.pt", lambda: Path("values.pt").write_bytes(b"noise"), "values.pt: expected "),
        ("values.pt", lambda: torch.save([1], "values.pt"), "expected a tensor or a dictionary, found list"),
        ("values.pt", lambda: torch.save({"mlp": 1}, "values.pt"), "mlp: expected a tensor or a list, found int"),
        (
            "values.pt",
            lambda: torch.save(torch.zeros(3, 3).to_sparse(), "values.pt"),
            "the tensor: expected a dense tensor of numbers, found another kind",
        ),
    ],
)
def test_a_fault_is_one_line_and_nothing_is_run(
    folder: Path, name: str, make: Callable[[], Any], expected: str
) -> None:
    make()
    with pytest.raises(ArrayFileError, match=expected) as refused:
        read_array_file(name)
    assert str(refused.value).startswith(name)
    assert "\n" not in str(refused.value)
    assert not (folder / "unpickled").exists()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.json", b"[]", "labels.json: expected a file that ends in .npy, .txt, .csv, found another"),
        ("nowhere.txt", None, "nowhere.txt: expected a file, found none there"),
        ("labels.txt", b"\xff\xfe", "labels.txt: expected a file that can be read, found: 'utf-8' codec"),
        ("labels.csv", b"answer\nyes\n", r"names the column label, and besides it only split, .* found \['answer'\]"),
        ("labels.csv", b"label,labe\nyes,no\n", r"found \['label', 'labe'\]; add, rename or drop columns"),
        ("labels.csv", b"", r"expected a first line .* found \[\]"),
        ("labels.csv", b"label,image_id\nyes\n", "labels.csv, row 0: expected 2 values, found more or fewer"),
        ("labels.csv", b"label,image_id\nyes,a\nno,b,c\n", "labels.csv, row 1: expected 2 values, found more or fewer"),
        ("labels.csv", b'label\n"yes"no\n', "labels.csv: expected a file that can be read, found: "),
        ("labels.csv", b"label,valid\nyes,maybe\n", "column valid: expected true, false, 1 or 0, found 'maybe'"),
    ],
)
def test_a_fault_of_the_labels_is_one_line(folder: Path, name: str, text: bytes | None, expected: str) -> None:
    save_npy()
    if text is not None:
        (folder / name).write_bytes(text)
    with pytest.raises(ArrayFileError, match=expected) as refused:
        read_array_file("values.npy", labels=name)
    assert "\n" not in str(refused.value)


def test_labels_in_both_files_are_refused(folder: Path) -> None:
    np.savez("values.npz", residual=VALUES, labels=LABELS)
    (folder / "labels.txt").write_text("0\n" * 6)
    with pytest.raises(
        ArrayFileError, match="labels.txt: expected what values.npz does not hold, found labels in both"
    ):
        read_array_file("values.npz", labels="labels.txt")


def test_an_unknown_site_is_named() -> None:
    assert parse_site("heads") == "heads"
    with pytest.raises(ArrayFileError, match="site 'brain': expected one of residual, mlp, heads"):
        parse_site("brain")
