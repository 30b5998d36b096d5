"""Records of a dataset, on the hub or in a folder, by the fields that the task's description names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TaskError
from ...sample import ImageFile, ImageSource
from ..adapter import find_adapter
from ..dataset import DatasetPlace, RecordImage, find_revision, list_pictures, open_dataset
from ..description import LETTERS, TaskDescription
from ..prompt import find_fields
from ..raw_sample import RawSample
from ..source import TaskSource
from . import Reading

if TYPE_CHECKING:
    from datasets import Dataset

Record = Mapping[str, Any]


def read(description: TaskDescription, source: TaskSource) -> Reading:
    """Return what the records of all splits of a task ask.

    Raises
    ------
    TaskError
        If the dataset is not there.
    """
    path = source.data or description.dataset_path
    if path is None:
        raise TaskError(
            f"task {description.task}: expected the folder of its files, found none; give it (--data FOLDER); see "
            f"{description.homepage}"
        )
    is_folder = source.data is not None or description.data_files is not None or path.startswith(("/", "."))
    if is_folder and not Path(path).is_dir():
        raise TaskError(f"task {description.task}: expected a folder at {path}, found none; check the path")
    local = Path(path).is_dir()
    revision = None if local else find_revision(path, source.revision or description.dataset_revision)
    places = [
        DatasetPlace(
            path=str(Path(path).resolve()) if local else path,
            name=description.dataset_name,
            revision=revision,
            split=split,
            data_files=description.data_files,
            records_key=description.records_key,
        )
        for split in description.splits()
    ]
    reader = RecordReader(description)
    return Reading(
        f"files of {description.dataset_path or description.task}" if local else f"{path}@{revision}",
        (sample for place in places for sample in reader.read(place)),
        options=_find_label_names(description, places[0]) if description.options == "labels" else None,
    )


def _find_label_names(description: TaskDescription, place: DatasetPlace) -> tuple[str, ...] | None:
    """Return the names of a dataset's classes, where it has any."""
    feature = open_dataset(place).features.get(description.doc_to_target or "")
    names = getattr(feature, "names", None)
    return None if names is None else tuple(names)


class RecordReader:
    """Makes samples of records; a picture that several records hold is one source."""

    def __init__(self, description: TaskDescription) -> None:
        self._description = description
        self._adapt = find_adapter(description.adapter)
        self._known: dict[bytes, ImageSource] = {}

    def read(self, place: DatasetPlace) -> Iterator[RawSample]:
        """Return the samples of one split."""
        dataset = open_dataset(place)
        for row, record in enumerate(dataset):
            where = f"{place.split} record {row}"
            for number, adapted in enumerate(self.adapt(record, row, where)):
                pictures = tuple(self._find_pictures(place, row, adapted))
                told = self.make_sample(adapted, where, dataset=dataset, pictures=pictures)
                if told is not None and self._is_shown(told):
                    yield self._identify(told, adapted, place.split, f"{row}-{number}" if number else str(row))

    def adapt(self, record: Record, row: int, where: str) -> list[Record]:
        """Return what the task's adapter makes of a record.

        Raises
        ------
        TaskError
            If a field that the adapter reads is not there.
        """
        try:
            return list(self._adapt(record, row))
        except KeyError as error:
            raise self._missing(str(error.args[0]), record, where) from error

    def make_sample(
        self, record: Record, where: str, *, dataset: Dataset | None = None, pictures: tuple[ImageSource, ...] = ()
    ) -> RawSample | None:
        """Return the sample that a record is, without an id of its own; None if it is not of the task.

        Raises
        ------
        TaskError
            If a field that the description names is not there.
        """
        description = self._description
        for field, wanted in description.keep.items():
            kept = wanted if isinstance(wanted, list) else [wanted]
            if self._look_up(record, field, where) not in kept:
                return None
        choices = self._find_choices(record, where)
        answer = self._find_answer(record, where, choices, dataset)
        if answer is None:
            return None
        corrections = description.corrections
        key = None
        if corrections is not None:
            image, question = (self._look_up(record, name, where) for name in (corrections.image, corrections.question))
            key = (Path(str(image)).stem, str(question))
        group = description.doc_to_group
        return RawSample(
            where=where,
            sample_id=where,
            question=self._render(record, where),
            answer=answer,
            images=pictures,
            choices=choices,
            group=None if group is None else f"{description.task.split('.')[0]}/{self._look_up(record, group, where)}",
            correction_key=key,
        )

    def _is_shown(self, told: RawSample) -> bool:
        """Return whether a sample of the task has the pictures that it is about; False if it is to be left out."""
        fields = self._description.doc_to_visual
        if told.images or not fields:
            return True
        if self._description.skip_without_picture:
            return False
        raise TaskError(
            f"task {self._description.task}, {told.where}: expected a picture in {' or '.join(fields)}, found none; "
            "add it, or leave such records out (skip_without_picture: true, in a description)"
        )

    def _identify(self, told: RawSample, record: Record, split: str, row: str) -> RawSample:
        description = self._description
        fields = [str(self._look_up(record, field, told.where)) for field in description.doc_to_id] or [split, row]
        return replace(told, sample_id="-".join(fields), split=description.splits()[split])

    def _look_up(self, record: Record, field: str, where: str) -> Any:
        if field not in record:
            raise self._missing(field, record, where)
        return record[field]

    def _missing(self, field: str, record: Record, where: str) -> TaskError:
        return TaskError(
            f"task {self._description.task}, {where}: expected a field {field!r}, found {', '.join(record)}; check "
            "that it is the right dataset"
        )

    def _render(self, record: Record, where: str) -> str:
        """Return the question: that of all records, a field, or a text with fields in it."""
        if self._description.question is not None:
            return self._description.question
        text = self._description.doc_to_text or "question"
        fields = find_fields(text)
        if not fields:
            return str(self._look_up(record, text, where))
        return text.format(**{field: self._look_up(record, field, where) for field in fields}).strip()

    def _find_choices(self, record: Record, where: str) -> tuple[str, ...]:
        named = self._description.doc_to_choice
        if named is None:
            return ()
        cells = self._look_up(record, named, where) if isinstance(named, str) else [record.get(name) for name in named]
        if not isinstance(cells, Sequence) or isinstance(cells, str):
            raise TaskError(
                f"task {self._description.task}, {where}: expected a list of choices in {named}, found {cells!r:.40}; "
                "name the field of such a list"
            )
        return tuple(str(cell) for cell in cells if cell is not None)

    def _find_answer(
        self, record: Record, where: str, choices: Sequence[str], dataset: Dataset | None
    ) -> str | int | None:
        """Return the answer as an option or the number of one; None if the task leaves it out.

        Raises
        ------
        TaskError
            If there is none in the record.
        """
        field = self._description.doc_to_target or "answer"
        found = self._look_up(record, field, where)
        names = getattr(dataset.features.get(field), "names", None) if dataset is not None else None
        if names is not None and isinstance(found, int):
            return names[found] if 0 <= found < len(names) else found
        if self._description.answers is not None:
            return self._description.answers.get(str(found))
        if found is None:
            raise TaskError(
                f"task {self._description.task}, {where}: expected an answer in {field!r}, found none; correct it"
            )
        if not isinstance(found, str | int | float):
            raise TaskError(
                f"task {self._description.task}, {where}: expected a text or a number in {field!r}, found "
                f"{'a picture or such' if isinstance(found, Mapping) else type(found).__name__}; name another field"
            )
        if self._description.options == "labels":  # what occurs are the options, numbers too
            return str(found)
        if isinstance(found, int):
            return found
        letter = str(found).strip().strip("().").upper()
        if choices and len(letter) == 1 and letter in LETTERS:
            return letter
        return choices.index(str(found)) if str(found) in choices else str(found)

    def _find_pictures(self, place: DatasetPlace, row: int, record: Record) -> Iterator[ImageSource]:
        for field in record.get("doc_to_visual", self._description.doc_to_visual):
            cell = self._look_up(record, field, f"{place.split} record {row}")
            for number, found in enumerate(list_pictures(cell)):
                if isinstance(found, Mapping) and found.get("bytes") is not None:
                    digest = hashlib.sha256(found["bytes"]).digest()
                    yield self._known.setdefault(digest, RecordImage(place, row, field, number))
                else:
                    name = found.get("path") if isinstance(found, Mapping) else found
                    yield self._find_file(place, row, str(name))

    def _find_file(self, place: DatasetPlace, row: int, name: str) -> ImageSource:
        file = Path(place.path) / self._description.image_folder.format(split=place.split) / name
        if not file.is_file():
            raise TaskError(
                f"task {self._description.task}, {place.split} record {row}: expected a picture at {file}, found none; "
                "check the data's folder"
            )
        return ImageFile(file)
