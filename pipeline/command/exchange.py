"""Arrays in, tables out: ``superneurons import`` and ``superneurons export``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SelectionError
from .completion import SITES, offer_values
from .option import (
    SEVERAL,
    AsJson,
    CompressionName,
    OutFile,
    ReadableStoreUrl,
    RunName,
    StoredDtypeName,
    TargetStore,
    split_names,
)
from .output import print_json

if TYPE_CHECKING:
    from storage import Run
    from storage.neuron import Neuron


def import_arrays(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Arrays: .npy, .npz, .pt or .parquet.")],
    store: TargetStore,
    run: Annotated[str, typer.Option(metavar="MODEL/TASK", help="What to call the run.")],
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labels that FILE does not hold: .npy, .txt or .csv.")
    ] = None,
    site: Annotated[
        str,
        typer.Option(metavar="SITE", help="Site of activations that name none.", autocompletion=offer_values(SITES)),
    ] = "residual",
    dtype: StoredDtypeName = "auto",
    compression: CompressionName = "lz4",
    block: Annotated[int, typer.Option(metavar="N", min=1, help="Samples a block.")] = 1024,
    n_heads: Annotated[
        int, typer.Option("--heads", metavar="N", min=1, help="Heads side by side in the site heads.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Turn somebody's arrays into a run that is searched like any other; no code in a file is run."""
    from pathlib import Path

    from storage.array_import import from_arrays
    from storage.template import parse_compression

    from ..exchange.array_file import parse_site, read_array_file
    from ..progress import show_steps

    arrays = read_array_file(file, site=parse_site(site), labels=labels)
    with show_steps(f"{run}: check, then write", unit="steps", done="written") as on_block:
        made = from_arrays(
            store,
            run,
            **arrays.arguments(),
            dtype=dtype,
            compression=parse_compression(compression),
            block=block,
            n_heads=n_heads,
            source=Path(file).name,
            on_block=on_block,
        )
    figures = made.describe() | {"dtype": made.identity["dtype"], "options": made.read_options()}
    if as_json:
        print_json(figures)
    else:
        typer.echo(
            f"{made.name}: {made.n_samples} samples in {len(made.blocks)} blocks, {', '.join(made.sites)} as "
            f"{figures['dtype']}, {len(figures['options'])} options"
        )


def export_columns(
    store: ReadableStoreUrl,
    run: RunName,
    out: OutFile,
    site: Annotated[
        str | None,
        typer.Option(metavar="SITE", help="Site of the units.", autocompletion=offer_values(SITES)),
    ] = None,
    layer: Annotated[int | None, typer.Option(metavar="N", min=0, help="Layer of the units.")] = None,
    units: Annotated[str, typer.Option(metavar="FROM:TO", help="Units of the layer, TO left out.")] = ":",
    neuron: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE:LAYER:UNIT", help=f"One neuron instead of a layer's; {SEVERAL}."),
    ] = None,
    token: Annotated[int, typer.Option(metavar="N", min=0, help="Generated token, from 0.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write some neurons' activations and all samples' columns as one table, a .parquet or .h5ad file."""
    from storage import export, open_dataset

    from ..progress import show_steps

    chosen_run = open_dataset(store).run(run)
    neurons = _choose_neurons(
        chosen_run, split_names(neuron, option="--neuron"), site=site, layer=layer, units=units, token=token
    )
    with show_steps(f"{run}: write", unit="samples", done="written") as on_samples:
        written = export.export_columns(chosen_run, out, neurons=neurons, replace=force, on_samples=on_samples)
    if as_json:
        figures = {
            "path": str(written),
            "run": run,
            "n_samples": chosen_run.n_samples,
            "n_neurons": len(neurons),
            "size_bytes": written.stat().st_size,
        }
        print_json(figures)
    else:
        typer.echo(f"{written}: {chosen_run.n_samples} samples, {len(neurons)} neurons of {run}")


def _choose_neurons(
    run: Run, names: list[str], *, site: str | None, layer: int | None, units: str, token: int
) -> list[Neuron]:
    """Return the neurons that `names` tell, or else those of `units` of one layer."""
    from storage.neuron import plan_neurons

    from ..exchange.array_file import parse_site

    if names and site is None and layer is None and units == ":":
        return [parse_neuron(name, token=token) for name in names]
    if names or site is None or layer is None:
        raise SelectionError(
            f"run {run.name}: expected --site and --layer (with --units, if not all), or --neuron alone, found "
            f"{'both' if names else 'neither in full'}; choose one way"
        )
    return plan_neurons(run, site=parse_site(site), layer=layer, units=parse_units(units), token=token)


def parse_units(text: str) -> slice:
    """Return ``FROM:TO`` as a slice; either may be left out, and one number alone is one unit.

    Raises
    ------
    SelectionError
        If it is neither.
    """
    found = re.fullmatch(r"(?P<start>[0-9]*)(?P<colon>:?)(?P<stop>[0-9]*)", text)
    if found is None or not text:
        raise SelectionError(f"units {text!r}: expected FROM:TO, such as 0:512, or one number; choose again")
    if not found["colon"]:
        return slice(int(text), int(text) + 1)
    return slice(*(int(found[side]) if found[side] else None for side in ("start", "stop")))


def parse_neuron(text: str, *, token: int = 0) -> Neuron:
    """Return ``SITE:LAYER:UNIT`` as a neuron.

    Raises
    ------
    SelectionError
        If it is not of that form.
    ArrayFileError
        If the site is unknown.
    """
    from storage.neuron import Neuron

    from ..exchange.array_file import parse_site

    found = re.fullmatch(r"(\w+):([0-9]+):([0-9]+)", text)
    if found is None:
        raise SelectionError(f"neuron {text!r}: expected SITE:LAYER:UNIT, such as mlp:3:17; choose again")
    return Neuron(site=parse_site(found[1]), layer=int(found[2]), unit=int(found[3]), token=token)
