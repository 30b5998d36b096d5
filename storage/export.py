"""Some columns of a run as one file that other programs open: Parquet or AnnData."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .block import Block
from .errors import ExchangeError
from .neuron import Neuron, read_neurons, validate_neurons
from .run import Run
from .schema import FORMAT_VERSION, SPLITS
from .url import is_remote

if TYPE_CHECKING:
    import pandas

PIECE_SAMPLES = 1024
"""Samples that are held in memory at a time, at least; always whole blocks of the run."""

SAMPLE_COLUMNS = ("sample_id", "image_id", "split_key", "split", "label", "option", "valid", "question")
"""Columns of an exported table that come before the neurons'."""


def export_columns(
    run: Run,
    path: str | Path,
    *,
    neurons: Sequence[Neuron],
    replace: bool = False,
    on_samples: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Return `path` after a table of a complete `run`, one row a sample and one column a neuron, is written there.

    ``.parquet``: the columns of `SAMPLE_COLUMNS`, then one of float32 for each neuron under its `Neuron.name`; the
    schema's metadata tell the run, its identity as JSON, and the format version. ``.h5ad``: an AnnData whose X holds
    (sample, neuron) float32, obs the sample columns by sample_id, var site, layer, unit and token by name, and uns the
    metadata. Rows that are not ``valid`` are NaN. `on_samples` hears how many samples of how many are written.

    Raises
    ------
    ExchangeError
        If a neuron is not of the run, the suffix is neither, the file exists (unless `replace`) or cannot be written,
        or AnnData is not installed.
    RunIncompleteError
        If a block of the run is not committed.

    Notes
    -----
    The file appears under its name when it is whole and on the disk. Memory holds the samples' own columns and the
    neurons' values for `PIECE_SAMPLES` samples or one block. Of two processes that write one file at once without
    `replace`, the later one fails.
    """
    target = _parse_target(path)
    write = FORMATS[target.suffix]
    validate_neurons(run, neurons)
    run.validate_complete()
    with _stage(target, replace=replace) as staged:
        write(run, staged, neurons, _read_pieces(run, neurons, on_samples))
    return target


Pieces = Iterator[tuple[Block, npt.NDArray[np.float32]]]
"""Consecutive samples, and their activations: shape (sample, neuron)."""


def _parse_target(path: str | Path) -> Path:
    target = Path(path)
    if is_remote(path) or target.suffix not in FORMATS:
        raise ExchangeError(
            f"{path}: expected a local file that ends in {' or '.join(FORMATS)}, found another; choose another name"
        )
    return target


@contextmanager
def _stage(target: Path, *, replace: bool) -> Iterator[Path]:
    """Give a file beside `target` to write to, and put it in place, durable, when the ``with`` block ends well."""
    taken = ExchangeError(f"{target}: expected no file yet, found one; choose another name, or replace it (--force)")
    if target.is_dir():
        raise ExchangeError(f"{target}: expected a file or nothing, found a folder; choose another name")
    if target.exists() and not replace:
        raise taken
    staged = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{target.suffix}")
    try:
        yield staged
        _flush(staged)
        if replace:
            staged.replace(target)
        else:
            os.link(staged, target)  # fails where the target exists, unlike a rename
            staged.unlink()
        _flush(target.parent)
    except FileExistsError as error:
        raise taken from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise ExchangeError(
            f"{target}: expected a file that can be written, found: {reason}; choose another"
        ) from error
    finally:
        staged.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_pieces(run: Run, neurons: Sequence[Neuron], on_samples: Callable[[int, int], None]) -> Pieces:
    """Read the neurons for some samples at a time, whole blocks each, so that every inner chunk is read once."""
    n_blocks = -(-PIECE_SAMPLES // run.block)
    for first in range(0, len(run.blocks), n_blocks):
        held = run.blocks[first : first + n_blocks]
        piece = Block(index=first // n_blocks, start=held[0].start, stop=held[-1].stop)
        yield piece, read_neurons(run, neurons, samples=slice(piece.start, piece.stop))
        on_samples(piece.stop, run.n_samples)


def _read_sample_columns(run: Run) -> dict[str, npt.NDArray[Any]]:
    """Return the `SAMPLE_COLUMNS`, shape (sample,): texts as objects, None where a split or option is not known."""
    columns = {name: run.read_samples(name) for name in SAMPLE_COLUMNS if name != "option"}
    columns["option"] = _name_codes(columns["label"], run.read_options())
    columns["split"] = _name_codes(columns["split"], SPLITS)
    return {name: columns[name] for name in SAMPLE_COLUMNS}


def _name_codes(codes: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[Any]:
    return np.array([*names, None], dtype=object)[np.where((codes >= 0) & (codes < len(names)), codes, len(names))]


def _metadata(run: Run) -> dict[str, str]:
    return {
        "run": run.name,
        "identity": json.dumps(run.identity, sort_keys=True),
        "format_version": str(FORMAT_VERSION),
    }


def _write_parquet(run: Run, path: Path, neurons: Sequence[Neuron], pieces: Pieces) -> None:
    """Write one row group a piece."""
    import pyarrow
    from pyarrow import parquet

    types = {"label": pyarrow.int16(), "valid": pyarrow.bool_()}
    columns = {
        name: pyarrow.array(values, type=types.get(name, pyarrow.string()))
        for name, values in _read_sample_columns(run).items()
    }
    fields = [pyarrow.field(name, column.type) for name, column in columns.items()]
    fields += [pyarrow.field(neuron.name, pyarrow.float32()) for neuron in neurons]
    metadata = {f"superneurons.{name}": text for name, text in _metadata(run).items()}
    schema = pyarrow.schema(fields, metadata=metadata)
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=list(columns)) as writer:
        for piece, values in pieces:
            held = [column.slice(piece.start, piece.n_samples) for column in columns.values()]
            held += [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
            writer.write_batch(pyarrow.record_batch(held, schema=schema))


def _write_anndata(run: Run, path: Path, neurons: Sequence[Neuron], pieces: Pieces) -> None:
    """Write an AnnData without X by its own library, then X piece by piece as its format says.

    References
    ----------
    AnnData's on-disk format, "Dense arrays": encoding-type ``array``, version 0.2.0.
    """
    try:
        import anndata
        import h5py
        import pandas
    except ImportError as error:
        raise ExchangeError(
            f"{path.suffix}: expected anndata, found no such package; pip install 'superneurons[anndata]'"
        ) from error
    var = pandas.DataFrame(
        {key: [getattr(neuron, key) for neuron in neurons] for key in ("site", "layer", "unit", "token")},
        index=[neuron.name for neuron in neurons],
    )
    anndata.AnnData(obs=_observations(run), var=var, uns=_metadata(run)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        whole = file.create_dataset("X", (run.n_samples, len(neurons)), "f4", track_times=False)
        whole.attrs["encoding-type"], whole.attrs["encoding-version"] = "array", "0.2.0"
        for piece, values in pieces:
            whole[piece.start : piece.stop] = values


def _observations(run: Run) -> pandas.DataFrame:
    """Return the sample columns by ``sample_id``; splits and options as categories in their own order."""
    import pandas

    columns: dict[str, Any] = dict(_read_sample_columns(run))
    index = pandas.Index(columns.pop("sample_id"), name="sample_id")
    for name, categories in (("split", list(SPLITS)), ("option", run.read_options())):
        columns[name] = pandas.Categorical(columns[name], categories=categories)
    return pandas.DataFrame(columns, index=index)


FORMATS: dict[str, Callable[[Run, Path, Sequence[Neuron], Pieces], None]] = {
    ".parquet": _write_parquet,
    ".h5ad": _write_anndata,
}
"""How a table is written, by the file's suffix."""
