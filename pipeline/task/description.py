"""The description of a task: what its YAML file says, in the words of lmms-eval's where that has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from storage.schema import Split

from ..document import Entry, parse_document, read_yaml
from ..errors import TaskError
from .adapter import ADAPTERS
from .prompt import find_fields, validate_template
from .reader import MODULES, PATH_READERS
from .source import to_name
from .variant import is_reserved

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

    @model_validator(mode="after")
    def _validate_pattern(self) -> Self:
        try:
            re.compile(self.pattern)
            re.sub(f"{self.pattern}|", self.replacement, "")  # an empty text is matched, and what replaces it, expanded
        except (re.error, IndexError) as error:
            raise ValueError(
                f"expected a regular expression and what replaces its match, found: {error}; correct them"
            ) from error
        return self


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

    @field_validator("variant")
    @classmethod
    def _validate_variant(cls, variant: str) -> str:
        return _validate_variant(variant)


class TaskDescription(Entry):
    r"""A task as data.

    Attributes
    ----------
    task
        Its name: that of its file, which it is without this key, too.
    about
        What is asked, in one line.
    homepage, licence
        Where it is from, and on which terms.
    dataset_path, dataset_name, dataset_revision
        The dataset on the hub, its configuration, and the commit to read; without a commit, the newest is looked up
        and recorded. The configuration of ``scenes`` and of InstaOrder is what is asked for.
    data_files, records_key
        For a dataset that is no repository but files of its publishers: the file in its folder, and the key that holds
        the records.
    image_folder
        Where in the folder the files are that records name as their pictures; ``{split}`` in it is the split.
    split
        The split, or several that together are the task, or one for each split of ours.
    reader
        Which reader of `pipeline.task.reader` makes samples of it; ``records`` takes the fields below.
    adapter
        A function of `pipeline.task.adapter`, for a record that does not hold the fields below as they are.
    doc_to_visual
        The fields of a record's pictures; those that are empty are left out.
    skip_without_picture
        Whether records without any picture are left out, too; else they are refused.
    doc_to_text
        The field of the question (``question``), or a text with ``{field}`` in it.
    question
        The question itself, where it is the same for all records.
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
    skip_without_picture: bool = False
    doc_to_text: Text | None = None
    question: Text | None = None
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

    @field_validator("reader")
    @classmethod
    def _validate_reader(cls, reader: str) -> str:
        return _validate_known(reader, MODULES)

    @field_validator("adapter")
    @classmethod
    def _validate_adapter(cls, adapter: str | None) -> str | None:
        return adapter if adapter is None else _validate_known(adapter, ADAPTERS)

    @field_validator("image_folder")
    @classmethod
    def _validate_image_folder(cls, folder: str) -> str:
        if others := set(find_fields(folder)) - {"split"}:
            raise ValueError(f"expected no field but {{split}}, found {{{min(others)}}}; take it out")
        return folder

    @field_validator("doc_to_text")
    @classmethod
    def _validate_text(cls, text: str | None) -> str | None:
        if text is not None:
            find_fields(text)
        return text

    @field_validator("split", mode="before")
    @classmethod
    def _validate_splits(cls, split: Any) -> Any:
        if split is None:
            return None
        names = split.values() if isinstance(split, Mapping) else [split] if isinstance(split, str) else split
        names = list(names) if isinstance(names, Iterable) else []
        known = not isinstance(split, Mapping) or set(split) <= set(get_args(Split))
        if not (names and known and all(isinstance(name, str) and name for name in names)):
            raise ValueError(
                f"expected a split's name, a list of them, or one for each of {', '.join(get_args(Split))}, found "
                f"{split!r:.60}; correct it"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"expected every split of the dataset once, found {', '.join(names)}; leave one out")
        return split

    @field_validator("prompt")
    @classmethod
    def _validate_prompt(cls, prompt: str) -> str:
        return validate_template(prompt)

    @field_validator("wordings")
    @classmethod
    def _validate_wordings(cls, wordings: Mapping[str, str]) -> Mapping[str, str]:
        for name, template in wordings.items():
            _validate_variant(name)
            validate_template(template)
        return wordings

    @model_validator(mode="after")
    def _validate_options(self) -> Self:
        if not isinstance(self.options, str) and len(set(self.options)) < len(self.options):
            raise ValueError(f"expected options that differ, found {', '.join(self.options)}; leave one out")
        return self

    @model_validator(mode="after")
    def _validate_question(self) -> Self:
        if self.question is not None and self.doc_to_text is not None:
            raise ValueError("expected doc_to_text or question, found both; leave one out")
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


def _validate_known(name: str, known: Mapping[Any, Any]) -> str:
    """Return a name after a check that it is one of those that are known."""
    if name not in known:
        raise ValueError(
            f"expected one of {', '.join(sorted(filter(None, known)))}, found {name!r}; choose one of them"
        )
    return name


def _validate_variant(name: str) -> str:
    """Return the name of a variant after a check that a run may bear it, and that no other variant does."""
    if name != to_name(name) or is_reserved(name):
        found = "that of another variant" if is_reserved(name) else repr(name)
        raise ValueError(
            f"expected a name of its own for the variant {name!r}, of ASCII letters, digits and _ - ., found {found}; "
            "choose another"
        )
    return name


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
        shared, others = read_yaml(path.parent / str(included), kind="what a task includes", fault=TaskError)
        if not isinstance(shared, dict):
            raise others.mistake((), f"expected keys of a task, found {shared!r:.40}; include another file")
        content = {**shared, **content}
    name = to_name(path.stem)
    if content.setdefault("task", name) != name:
        raise lines.mistake(
            ("task",),
            f"expected {name}, as the file is called, found {content['task']!r:.60}; rename one, or leave the key out",
        )
    if content.get("reader") in PATH_READERS:
        raise lines.mistake(
            ("reader",),
            f"expected a reader of data that a description names, found {content['reader']!r}, which reads the path "
            "that the task is called by; give that path as the task",
        )
    return parse_document(content, TaskDescription, lines=lines)
