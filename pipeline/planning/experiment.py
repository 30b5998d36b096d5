"""Experiments: models x tasks x variants, as their files describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from storage.dataset import RUN_NAME
from storage.schema import SITES, Site
from storage.template import Compression

from ..document import Entry, Place
from ..limit import MAX_BLOCK, MAX_TOKENS
from ..model import WeightsDtype
from ..task import Task, TaskSource
from ..task.description import Statistics
from ..task.prompt import validate_template

PLAIN = "plain"
"""The task as it is; its runs bear its name alone."""

Count = Annotated[int, Field(ge=1)]


def _validate_run_part(part: str, whole: str) -> str:
    if part.count("/") or not RUN_NAME.fullmatch(whole):
        raise ValueError(
            f"expected a name of ASCII letters, digits and _ - . @ that does not begin with _, found {part!r:.60}; "
            "choose another"
        )
    return part


class Settings(Entry):
    """What `pipeline.settings.ExtractionSettings` decides, ``tokens`` being its ``n_tokens``."""

    sites: Annotated[tuple[Site, ...], Field(strict=False, min_length=1)] = SITES
    tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 1
    lens: bool = True
    share_images: bool = True
    compiled: bool = False
    dtype: Literal["auto", "float32", "float16"] = "auto"
    weights_dtype: WeightsDtype = "float32"
    block: Annotated[int, Field(ge=1, le=MAX_BLOCK)] | None = None
    batch_size: Count = 64
    greedy: bool = True
    compression: Compression = "lz4"

    @field_validator("sites", mode="before")
    @classmethod
    def _split_sites(cls, found: Any) -> Any:
        """Return names that are separated by commas as a list."""
        return [name.strip() for name in found.split(",") if name.strip()] if isinstance(found, str) else found

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, by their names in `ExtractionSettings`."""
        found = {name: getattr(self, name) for name in Settings.model_fields if name in self.model_fields_set}
        if "tokens" in found:
            found["n_tokens"] = found.pop("tokens")
        if "sites" in found:
            found["sites"] = tuple(site for site in SITES if site in found["sites"])
        return found


class Placed(Entry):
    """An entry of a list, which knows where it stands in its experiment; one that stands in none has no place."""

    _place: Place | None = PrivateAttr(default=None)

    @property
    def place(self) -> Place | None:
        """Where it stands, as ``("models", 0)``."""
        return self._place

    def put(self, place: Place) -> None:
        """Say where it stands."""
        self._place = place


class ModelEntry(Placed, Settings):
    """A model with settings of its own; ``name`` is what its runs are called by, if not by its id."""

    model: Annotated[str, Field(min_length=1)]
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_name_alone(cls, found: Any) -> Any:
        return {"model": found} if isinstance(found, str) else found

    @field_validator("name")
    @classmethod
    def _validate_name(cls, name: str | None) -> str | None:
        return name if name is None else _validate_run_part(name, f"{name}/task")


class TaskEntry(Placed, TaskSource):
    """A task, cut to its first ``limit`` samples; ``statistics`` stand for one that is not here."""

    limit: Count | None = None
    statistics: Statistics | None = None

    @model_validator(mode="after")
    def _validate_name(self) -> Self:
        _validate_run_part(self.name, f"model/{self.name}")
        return self


class VariantEntry(Entry):
    """A variant of the tasks by its name, or with a template a prompt of one's own."""

    name: Annotated[str, Field(min_length=1)]
    template: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_name_alone(cls, found: Any) -> Any:
        return {"name": found} if isinstance(found, str) else found

    @field_validator("name")
    @classmethod
    def _validate_name(cls, name: str) -> str:
        return _validate_run_part(name, f"model/task@{name}")

    @field_validator("template")
    @classmethod
    def _validate_template(cls, template: str | None) -> str | None:
        return template if template is None else validate_template(template)

    @model_validator(mode="after")
    def _validate_plain(self) -> Self:
        if self.name == PLAIN and self.template is not None:
            raise ValueError(
                f"expected no template with {PLAIN}, the task's own prompt, found one; choose another name"
            )
        return self

    def apply(self, task: Task) -> Task:
        """Return the variant of `task`.

        Raises
        ------
        TaskNotFoundError
            If it has none of this name, and there is no template.
        """
        if self.name == PLAIN:
            return task
        if self.template is None:
            return task.vary(self.name)
        return replace(task, name=self.rename(task.name), prompt=self.template)

    def rename(self, task: str) -> str:
        """Return what the variant of a task of that name is called."""
        return task if self.name == PLAIN else f"{task}@{self.name}"


class Cluster(Entry):
    """The workers: as the options of ``superneurons extract`` of the same names."""

    address: str | None = None
    workers: Count = 1
    threads: Count = 1
    gpus_per_worker: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0


class Experiment(Settings):
    """A store, and every model on every task in every variant; settings are for all models that have no other."""

    store: Annotated[str, Field(min_length=1)] | None = None
    models: Annotated[tuple[ModelEntry, ...], Field(strict=False, min_length=1)]
    tasks: Annotated[tuple[TaskEntry, ...], Field(strict=False, min_length=1)]
    variants: Annotated[tuple[VariantEntry, ...], Field(strict=False, min_length=1)] = (VariantEntry(name=PLAIN),)
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _tell_places(self) -> Self:
        for key, entries in (("models", self.models), ("tasks", self.tasks)):
            for number, entry in enumerate(entries):
                entry.put((key, number))
        return self

    @classmethod
    def inner_entries(cls) -> Mapping[str, type[Entry]]:
        """Return the entries of the lists."""
        return {
            "models": ModelEntry,
            "tasks": TaskEntry,
            "statistics": Statistics,
            "variants": VariantEntry,
            "cluster": Cluster,
        }

    @field_validator("store")
    @classmethod
    def _validate_store(cls, store: str | None) -> str | None:
        if store is not None and not store.isprintable():
            raise ValueError(f"expected a path or a URL, found {store!r:.60}; take out what cannot be printed")
        return store
