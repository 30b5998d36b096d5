"""What can be asked: ``superneurons models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .completion import builtin_models, offer
from .option import AsJson
from .output import print_json

if TYPE_CHECKING:
    from ..family import Family

HEADER_SIZE_BYTES = 8
"""Of the number that a .safetensors file begins with: how long the JSON is that follows."""


def models(
    show: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show a model: a built-in one, a local checkpoint folder or a hub id; no weights are read.",
            autocompletion=offer(builtin_models),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in models and the families that are known, or show one model: its layers, sites and size."""
    if show is not None:
        figures = describe_model(show)
        print_json(figures) if as_json else _print_model(figures)
        return
    listed = {"models": list_models(), "families": list_families()}
    if as_json:
        print_json(listed)
        return
    from ..console import open_console
    from ..table import table_of_families, table_of_models

    console = open_console()
    console.print(table_of_models(listed["models"]))
    console.print(table_of_families(listed["families"]))


def list_models() -> list[dict[str, Any]]:
    """Return the models that are part of the package, as their files tell."""
    from ..model import BUILTIN_MODELS

    return [_describe_folder(name, folder) for name, folder in BUILTIN_MODELS.items()]


def _describe_folder(name: str, folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    return {
        "model": name,
        "model_type": config["model_type"],
        "n_parameters": sum(map(_count_parameters, folder.glob("*.safetensors"))),
        "n_layers": text["num_hidden_layers"],
        "n_residual": text["hidden_size"],
        "n_mlp": text["intermediate_size"],
    }


def _count_parameters(weights: Path) -> int:
    """Count the numbers of a .safetensors file by its header."""
    from math import prod

    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(HEADER_SIZE_BYTES), "little")))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def list_families() -> list[dict[str, Any]]:
    """Return the families of models that are known, those of installed packages and the text-only one included."""
    from ..family import known_families

    return [_describe_family(family) for family in known_families()]


def _describe_family(family: Family) -> dict[str, Any]:
    return {
        "family": type(family).__name__.removesuffix("Family"),
        "model_types": list(family.model_types),
        "reads_images": family.reads_images,
        "about": (type(family).__doc__ or "").strip().splitlines()[0].rstrip("."),
    }


def describe_model(model_id: str) -> dict[str, Any]:
    """Return what is known of a model without its weights.

    Raises
    ------
    PipelineError
        If it is nowhere, or no family knows it.
    """
    from ..planning.architecture import find_architecture

    found = find_architecture(model_id)
    size = found.size
    return {
        "model": found.source.name,
        "model_id": found.source.model_id,
        "origin": "hub" if "/" in found.source.model_id else found.source.origin,
        "model_type": str(found.config.model_type),
        "family": _describe_family(found.family)["family"],
        "reads_images": found.family.reads_images,
        "n_parameters": size.n_parameters,
        "n_layers": size.n_layers,
        "n_residual": size.n_residual,
        "n_mlp": size.n_neurons,
        "n_heads": size.n_attention,
        "n_neurons": size.n_layers * (size.n_residual + size.n_neurons + size.n_attention),
    }


def _print_model(figures: dict[str, Any]) -> None:
    from ..planning.estimate import shorten

    reads = "pictures and text" if figures["reads_images"] else "text"
    typer.echo(f"{figures['model']}: {figures['model_type']}, of the family {figures['family']}, reads {reads}")
    typer.echo(f"origin:      {figures['origin']}, {figures['model_id']}")
    typer.echo(f"parameters:  {shorten(figures['n_parameters'])}")
    typer.echo(f"layers:      {figures['n_layers']}")
    typer.echo(
        f"units:       residual {figures['n_residual']:,}, mlp {figures['n_mlp']:,}, heads {figures['n_heads']:,}"
    )
    typer.echo(f"neurons:     {figures['n_neurons']:,} for each token that is recorded")
