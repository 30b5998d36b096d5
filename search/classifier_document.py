"""What the file of a portable classifier says, checked."""

from __future__ import annotations

from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from storage.schema import Site

MOST_WEIGHT = 2**20
"""Of one vote: far above any log-odds, and the whole numbers that votes are added up in hold a million of it."""

MOST_PLACES = 2**31
"""Tokens, layers and units of any model are fewer."""


class NeuronEntry(BaseModel):
    """One Super Neuron: where it is, how it votes, and what it reached on the probe split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    option: int = Field(ge=0)
    site: Site
    token: int = Field(ge=0, lt=MOST_PLACES)
    layer: int = Field(ge=0, lt=MOST_PLACES)
    unit: int = Field(ge=0, lt=MOST_PLACES)
    score: float = Field(ge=-1, le=1)
    threshold: float = Field(allow_inf_nan=False)
    polarity: Literal[-1, 1]
    sensitivity: float = Field(ge=0, le=1)
    specificity: float = Field(ge=0, le=1)
    auroc: float = Field(ge=0, le=1)
    q_value: float | None
    weight: float = Field(ge=0, le=MOST_WEIGHT)


class ExitEntry(BaseModel):
    """Super Neurons of the first layers, and the margin from which their vote is final."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: float = Field(ge=0, le=1)
    neurons: list[NeuronEntry] = Field(min_length=1)


class ClassifierDocument(BaseModel):
    """The file as a whole. Version 1 has neither ``prompt`` nor ``exits``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["superneurons-classifier"]
    format_version: Literal[1, 2]
    options: list[str] = Field(min_length=2)
    fallback: int
    neurons: list[NeuronEntry]
    identity: dict[str, Any]
    provenance: dict[str, Any]
    prompt: str | None = None
    exits: list[ExitEntry] = []

    @field_validator("prompt")
    @classmethod
    def _validate_prompt(cls, prompt: str | None) -> str | None:
        """Check that the question fits into the prompt and nothing else does: it is filled in as it stands."""
        if prompt is not None:
            fields = {tuple(part) for _, *part in Formatter().parse(prompt) if part[0] is not None}
            if fields != {("question", "", None)}:
                raise ValueError("expected {question} in it and no other braces")
        return prompt

    @model_validator(mode="after")
    def _validate_version(self) -> ClassifierDocument:
        if self.format_version == 1 and (newer := self.model_fields_set & {"prompt", "exits"}):
            raise ValueError(f"expected version 2, as there are {' and '.join(sorted(newer))}")
        return self
