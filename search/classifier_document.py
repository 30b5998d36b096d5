"""What the file of a portable classifier says, checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.schema import Site


class NeuronEntry(BaseModel):
    """One Super Neuron: where it is, how it votes, and what it reached on the probe split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    option: int = Field(ge=0)
    site: Site
    token: int = Field(ge=0)
    layer: int = Field(ge=0)
    unit: int = Field(ge=0)
    score: float = Field(allow_inf_nan=False)
    threshold: float = Field(allow_inf_nan=False)
    polarity: Literal[-1, 1]
    sensitivity: float = Field(ge=0, le=1)
    specificity: float = Field(ge=0, le=1)
    auroc: float = Field(ge=0, le=1)
    q_value: float | None
    weight: float = Field(ge=0, allow_inf_nan=False)


class ClassifierDocument(BaseModel):
    """The file as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["superneurons-classifier"]
    format_version: Literal[1]
    options: list[str] = Field(min_length=2)
    fallback: int
    neurons: list[NeuronEntry]
    identity: dict[str, Any]
    provenance: dict[str, Any]
