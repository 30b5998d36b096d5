"""The description of a task: what its YAML file says, in the words of lmms-eval's where that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..document import Entry, parse_document, read_yaml
from ..errors import TaskError
from .prompt import validate_template

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Text = Annotated[str, Field(min_length=1)]


class Statistic(Entry):
    """What planning has to know of a task that is not here; counts as they were published."""

    n_samples: Annotated[int, Field(ge=1)]
    n_images: Annotated[int, Field(ge=0)]
    question_tokens: Annotated[int, Field(ge=1)]
    image_width: Annotated[int, Field(ge=1)]
    image_height: Annotated[int, Field(ge=1)]


class Negation(Entry):
    """How a question is turned into its opposite: the first match of ``pattern`` becomes ``replacement``."""

    pattern: Text
    replacement: str


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
    split
        The split, or several that together are the task.
    reader
        Which reader of `pipeline.task.reader` makes samples of it, with ``reader_settings``; ``records`` takes the
        fields below.
    doc_to_visual, doc_to_text, doc_to_target, doc_to_id
        Fields of a record: those of its pictures, that of the question (or a text with ``{field}`` in it), that of the
        answer (an option, the number of one, or a letter), and those that make up its id.
    doc_to_choice
        The field of a multiple choice's answers, or a list of fields, one each. The options are letters then.
    doc_to_group
        The field of what must never be divided between splits; without it, the picture.
    keep
        Values that a record's fields must have for it to be taken.
    answers
        What an answer of the records stands for, by the answer; those that are not named are left out.
    options
        The answers to choose from; for a multiple choice, ``letters``.
    prompt
        The user's turn, ``{question}`` in it; the lines of a multiple choice (``A. ...``) belong to the question.
    wordings
        Other prompts, by their names.
    negations
        How a yes/no question is turned into its opposite; the first that matches counts.
    statistics
        What planning takes where the samples are not here.
    """

    task: Text
    about: Text
    homepage: str | None = None
    licence: str | None = None
    dataset_path: str | None = None
    dataset_name: str | None = None
    dataset_revision: str | None = None
    split: Text | Annotated[tuple[Text, ...], Field(strict=False)] | None = None
    reader: Text = "records"
    reader_settings: Mapping[str, Any] = {}
    doc_to_visual: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    doc_to_text: Text | None = None
    doc_to_choice: Text | Annotated[tuple[Text, ...], Field(strict=False)] | None = None
    doc_to_target: Text | None = None
    doc_to_id: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    doc_to_group: Text | None = None
    keep: Mapping[str, Any] = {}
    answers: Mapping[str, str] | None = None
    options: Literal["letters"] | Annotated[tuple[Text, ...], Field(strict=False, min_length=2)]
    prompt: str = "{question}"
    wordings: Mapping[str, str] = {}
    negations: Annotated[tuple[Negation, ...], Field(strict=False)] = ()
    statistics: Statistic | None = None

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
    def _validate_options(self) -> TaskDescription:
        if self.options != "letters" and len(set(self.options)) < len(self.options):
            raise ValueError(f"expected options that differ, found {', '.join(self.options)}; leave one out")
        return self

    @classmethod
    def inner_entries(cls) -> Mapping[str, type[Entry]]:
        """Return the entries that stand under a key."""
        return {"statistics": Statistic, "negations": Negation}

    def option_texts(self, n_letters: int) -> tuple[str, ...]:
        """Return the options, `n_letters` of them where they are letters."""
        return tuple(LETTERS[:n_letters]) if self.options == "letters" else tuple(self.options)


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
