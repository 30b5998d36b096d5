"""The description of a task: what its YAML file says, in the words of lmms-eval's where that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from storage.schema import Split

from ..document import Entry, parse_document, read_yaml
from ..errors import TaskError
from .prompt import validate_template

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Text = Annotated[str, Field(min_length=1)]


Count = Annotated[int, Field(ge=1)]


class Statistics(Entry):
    """What planning has to know of a task that is not here."""

    n_samples: Count
    n_images: Annotated[int, Field(ge=0)]
    n_options: Annotated[int, Field(ge=2)]
    question_tokens: Count
    image_width: Count | None = None
    image_height: Count | None = None

    @model_validator(mode="after")
    def _validate_images(self) -> Self:
        if self.n_images and not (self.image_width and self.image_height):
            raise ValueError(
                "expected image_width and image_height with n_images, found none; add them, in pixels, or say "
                "n_images: 0"
            )
        return self


class Negation(Entry):
    """How a question is turned into its opposite: the first match of ``pattern`` becomes ``replacement``."""

    pattern: Text
    replacement: str


class Corrections(Entry):
    """How a file of better labels, in POPE's own format, belongs to the records: a variant of the task.

    The file has a line of JSON for each question. A record is the one whose ``image`` field names the line's ``image``,
    the file's ending left aside, and whose ``question`` field is its ``text``; ``label`` is the answer. Records without
    a line are left out.
    """

    variant: Text
    about: Text
    image: Text
    question: Text


class TaskDescription(Entry):
    r"""A task as data.

    Attributes
    ----------
    task
        Its name.
    about
        What is asked, in one line.
    homepage, licence
        Where it is from, and on which terms.
    dataset_path, dataset_name, dataset_revision
        The dataset on the hub, its configuration, and the commit to read; without a commit, the newest is looked up
        and recorded.
    data_files, records_key
        For a dataset that is no repository but files of its publishers: the file in its folder, and the key that holds
        the records.
    image_folder
        Where in the folder the files are that records name as their pictures.
    split
        The split, or several that together are the task, or one for each split of ours.
    reader
        Which reader of `pipeline.task.reader` makes samples of it; ``records`` takes the fields below.
    adapter
        A function of `pipeline.task.adapter`, for a record that does not hold the fields below as they are.
    doc_to_visual
        The fields of a record's pictures; those that are empty are left out, and the record if all are.
    doc_to_text
        The field of the question, or a text with ``{field}`` in it.
    doc_to_target
        The field of the answer: an option, the number of one, or a letter.
    doc_to_id
        The fields that make up a sample's id; without any, the split and the number of the record.
    doc_to_choice
        The field of a multiple choice's answers, or a list of fields, one each. The options are letters then.
    doc_to_group
        The field of what must never be divided between splits; without it, the picture.
    keep
        Values that a record's fields must have for it to be taken.
    answers
        What an answer of the records stands for, by the answer; those that are not named are left out.
    options
        The answers to choose from; ``letters`` for a multiple choice; ``labels`` for those that the dataset names, or
        else those that occur.
    prompt
        The user's turn, ``{question}`` in it; the lines of a multiple choice (``A. ...``) belong to the question.
    wordings
        Other prompts, by their names.
    negations
        How a yes/no question is turned into its opposite; the first that matches counts.
    corrections
        How a file of better labels is matched, where one may be given.
    example
        A record, its pictures left out, that shows the task where the data is not here.
    statistics
        What planning takes where the data is not here.
    """

    task: Text
    about: Text
    homepage: str | None = None
    licence: str | None = None
    dataset_path: str | None = None
    dataset_name: str | None = None
    dataset_revision: str | None = None
    data_files: Text | None = None
    records_key: Text | None = None
    image_folder: Text = "."
    split: Text | Annotated[tuple[Text, ...], Field(strict=False)] | Mapping[Split, Text] | None = None
    reader: Text = "records"
    adapter: Text | None = None
    doc_to_visual: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    doc_to_text: Text | None = None
    doc_to_choice: Text | Annotated[tuple[Text, ...], Field(strict=False)] | None = None
    doc_to_target: Text | None = None
    doc_to_id: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    doc_to_group: Text | None = None
    keep: Mapping[str, Any] = {}
    answers: Mapping[str, str] | None = None
    options: Literal["letters", "labels"] | Annotated[tuple[Text, ...], Field(strict=False, min_length=2)]
    prompt: str = "{question}"
    wordings: Mapping[str, str] = {}
    negations: Annotated[tuple[Negation, ...], Field(strict=False)] = ()
    corrections: Corrections | None = None
    example: Mapping[str, Any] | None = None
    statistics: Statistics | None = None

    @field_validator("prompt")
    @classmethod
    def _validate_prompt(cls, prompt: str) -> str:
        return validate_template(prompt)

    @field_validator("wordings")
    @classmethod
    def _validate_wordings(cls, wordings: Mapping[str, str]) -> Mapping[str, str]:
        for template in wordings.values():
            validate_template(template)
        return wordings

    @model_validator(mode="after")
    def _validate_options(self) -> Self:
        if not isinstance(self.options, str) and len(set(self.options)) < len(self.options):
            raise ValueError(f"expected options that differ, found {', '.join(self.options)}; leave one out")
        return self

    @classmethod
    def inner_entries(cls) -> Mapping[str, type[Entry]]:
        """Return the entries that stand under a key."""
        return {"statistics": Statistics, "negations": Negation, "corrections": Corrections}

    def splits(self) -> dict[str, Split | None]:
        """Return the dataset's splits that are read, and what each is published as, if it is."""
        if isinstance(self.split, Mapping):
            return {published: split for split, published in self.split.items()}
        names = (self.split,) if isinstance(self.split, str) else self.split or ("train",)
        return dict.fromkeys(names)


def read_description(path: Path) -> TaskDescription:
    """Return the task that a YAML file describes; what it does not say is taken from the file that it includes.

    Raises
    ------
    TaskError
        If it cannot be read or describes none, in one line that says where.
    """
    content, lines = read_yaml(path, kind="a task", fault=TaskError)
    if not isinstance(content, dict):
        raise lines.mistake((), f"expected keys such as task and options, found {content!r:.40}; describe a task")
    included = content.pop("include", None)
    if included is not None:
        shared, _ = read_yaml(path.parent / str(included), kind="what a task includes", fault=TaskError)
        content = {**shared, **content}
    return parse_document(content, TaskDescription, lines=lines)
