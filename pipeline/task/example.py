"""A task by the record that its description gives as an example, where its data is not here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import SampleError, TaskError
from .raw_sample import RawSample, collect_samples, find_options
from .reader.records import RecordReader

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..sample import Sample
    from .description import TaskDescription


@dataclass(frozen=True, slots=True)
class ExampleImage:
    """A picture that stands for those of the data, and cannot be looked at."""

    name: str

    def open(self) -> Image:
        """Raise an error: there is none.

        Raises
        ------
        SampleError
            Always.
        """
        raise SampleError(f"{self.name}: expected a task's data, found an example of it; give the data (--data FOLDER)")


def make_example(description: TaskDescription) -> tuple[Sample, ...]:
    """Return the example as samples, about two pictures of two groups, so that one can take the other's place.

    Raises
    ------
    TaskError
        If the description has none, or it does not have the fields that the description names.
    """
    if description.example is None:
        raise TaskError(f"task {description.task}: expected its data or an example, found neither; give it (--data)")
    reader = RecordReader(description)
    record = reader.adapt(description.example, 0, "example")[0]
    raw = reader.make_sample(record, "example")
    if raw is None:
        raise TaskError(f"task {description.task}: expected an example that belongs to it, found another; correct it")
    fields = [name for name in record.get("doc_to_visual", description.doc_to_visual) if record.get(name) is not None]
    raws = [_copy(raw, fields, number) for number in range(2)]
    return collect_samples(description, raws, options=find_options(description, raws))


def _copy(raw: RawSample, fields: list[str], number: int) -> RawSample:
    return replace(
        raw,
        sample_id=f"example-{number}",
        group=None if raw.group is None else f"{raw.group}-{number}",
        split="test",
        images=tuple(ExampleImage(f"example {number}, {field}") for field in fields),
    )
