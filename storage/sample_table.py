"""The arrays of one value a sample, as somebody hands them over: checked, and made what a run stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ExchangeError
from .schema import SPLITS
from .split import assign_split

MAX_OPTIONS = int(np.iinfo(np.int16).max)
"""Labels are stored as int16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSamples:
    """What somebody tells of each sample, not checked yet; `storage.from_arrays` says what each may be."""

    labels: Any
    options: Sequence[Any] | None = None
    splits: Any = None
    sample_ids: Any = None
    image_ids: Any = None
    split_keys: Any = None
    questions: Any = None
    option_logit: Any = None
    valid: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """What a run stores of each sample.

    ``arrays`` maps the name of each stored array to its values: shape (sample,), ``option_logit`` (sample, option)
    float32 where it is known. Texts are object arrays.
    """

    options: tuple[str, ...]
    arrays: dict[str, npt.NDArray[Any]]

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Which samples are real: bool (sample,)."""
        return self.arrays["valid"]


def parse_samples(where: str, raw: RawSamples, *, n_samples: int) -> SampleTable:
    """Return the checked table of `raw`; `where` begins every message.

    Raises
    ------
    ExchangeError
        If a column has not `n_samples` values, a label or split of a valid sample names nothing, ids repeat, samples
        that must stay together lie in two splits, or evidence is not finite.
    """
    valid = _parse_valid(where, raw.valid, n_samples)
    named = _parse_column(where, "labels", raw.labels, n_samples)
    options = _parse_options(where, raw.options, named[valid])
    labels = _parse_codes(where, "labels", named, options, valid)
    sample_ids = _parse_texts(where, "sample_ids", raw.sample_ids, n_samples, default=range(n_samples))
    _validate_unique(where, sample_ids)
    image_ids = _parse_texts(where, "image_ids", raw.image_ids, n_samples, default=sample_ids)
    split_keys = _parse_texts(where, "split_keys", raw.split_keys, n_samples, default=image_ids)
    arrays: dict[str, npt.NDArray[Any]] = {
        "label": labels.astype(np.int16),
        "split": _parse_splits(where, raw.splits, split_keys, valid).astype(np.int8),
        "valid": valid,
        "n_tokens": np.zeros(n_samples, dtype=np.int32),  # not known
        "n_options": np.full(n_samples, len(options), dtype=np.int16),
        "sample_id": sample_ids,
        "image_id": image_ids,
        "split_key": split_keys,
        "question": _parse_texts(where, "questions", raw.questions, n_samples, default=[""] * n_samples),
    }
    if raw.option_logit is not None:
        arrays["option_logit"] = _parse_evidence(where, raw.option_logit, valid, len(options))
    return SampleTable(options=options, arrays=arrays)


def _parse_column(where: str, name: str, values: Any, n_samples: int) -> npt.NDArray[Any]:
    """Return `values` as an array of shape (sample,); what is not an array becomes one of objects."""
    try:
        column = np.asarray(values) if hasattr(values, "__array__") else np.array(list(values), dtype=object)
        if column.dtype.kind == "S":
            column = np.char.decode(column, "utf-8")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExchangeError(
            f"{where}, {name}: expected an array or a list, found {type(values).__name__}: {_one_line(error)}; pass "
            "one value a sample"
        ) from error
    if column.shape != (n_samples,):
        raise ExchangeError(
            f"{where}, {name}: expected shape ({n_samples},), found {column.shape}; pass one value for each of the "
            f"{n_samples} samples of the activations"
        )
    return column


def _parse_valid(where: str, valid: Any, n_samples: int) -> npt.NDArray[np.bool_]:
    column = _parse_column(where, "valid", np.ones(n_samples, dtype=bool) if valid is None else valid, n_samples)
    if not all(isinstance(value, bool | np.bool_) for value in column):
        raise ExchangeError(f"{where}, valid: expected true or false, found {column.dtype} values; pass booleans")
    if not column.any():
        raise ExchangeError(f"{where}, valid: expected at least one valid sample, found none; check the mask")
    return column.astype(bool)


def _parse_texts(where: str, name: str, values: Any, n_samples: int, *, default: Any) -> npt.NDArray[Any]:
    """Return texts as an object array (sample,); whole numbers are written out."""
    column = _parse_column(where, name, default if values is None else values, n_samples)
    return np.array([_parse_text(f"{where}, {name}, sample {row}", value) for row, value in enumerate(column)], object)


def _parse_text(where: str, value: Any) -> str:
    if not isinstance(value, str) and not _is_whole(value):
        raise ExchangeError(f"{where}: expected a text or a whole number, found {value!r:.40}; pass texts")
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise ExchangeError(f"{where}: expected a text in Unicode, found {value!r:.40}; mend the text") from error
    return str(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer | np.bool_)


def _parse_options(where: str, options: Sequence[Any] | None, labels: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the texts of the options: those given, else those that the `labels` of valid samples name."""
    if options is not None:
        if isinstance(options, str) or not np.iterable(options):
            raise ExchangeError(f"{where}, options: expected a list of texts, found {options!r:.40}; pass a list")
        texts = tuple(_parse_text(f"{where}, options", option) for option in options)
    elif all(isinstance(label, str) for label in labels):
        texts = tuple(sorted({_parse_text(f"{where}, labels", label) for label in labels}))
    elif all(_is_whole(label) for label in labels):
        largest = max(int(label) for label in labels)
        texts = tuple(str(index) for index in range(min(largest, MAX_OPTIONS) + 1))
    else:
        others = [label for label in labels if not _is_whole(label)]
        strange = [label for label in others if not isinstance(label, str)] or others
        raise ExchangeError(
            f"{where}, labels: expected all whole numbers or all texts, found {strange[0]!r:.40}; pass indices of the "
            "options, or their texts"
        )
    if not 2 <= len(set(texts)) == len(texts) <= MAX_OPTIONS:
        raise ExchangeError(
            f"{where}, options: expected 2 to {MAX_OPTIONS} different options, found {len(texts)} texts, "
            f"{len(set(texts))} of them different; pass the options, each once"
        )
    return texts


def _parse_codes(
    where: str, name: str, column: npt.NDArray[Any], texts: tuple[str, ...], valid: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the index in `texts` that each value is or names; -1 in rows that are not valid and name none."""
    places = {text: place for place, text in enumerate(texts)}
    codes = np.full(len(column), -1, dtype=np.int64)
    for row, value in enumerate(column):
        if isinstance(value, str) and value in places:
            codes[row] = places[value]
        elif _is_whole(value) and 0 <= value < len(texts):
            codes[row] = int(value)
        elif valid[row]:
            known = ", ".join(map(repr, texts[:6])) + (", ..." if len(texts) > 6 else "")
            raise ExchangeError(
                f"{where}, {name}: expected one of {known} or an index from 0 to {len(texts) - 1}, found {value!r:.40} "
                f"for sample {row}; mend it, or mark the sample as not valid"
            )
    return codes


def _validate_unique(where: str, sample_ids: npt.NDArray[Any]) -> None:
    seen: dict[str, int] = {}
    for row, sample_id in enumerate(sample_ids):
        if sample_id in seen:
            raise ExchangeError(
                f"{where}, sample_ids: expected each id once, found {sample_id!r:.40} for samples {seen[sample_id]} "
                f"and {row}; pass ids that tell the samples apart"
            )
        seen[sample_id] = row


def _parse_splits(
    where: str, splits: Any, split_keys: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return the split codes given, after a check that no split key is divided; else those that the keys hash to."""
    if splits is None:
        assigned = {key: SPLITS.index(assign_split(key)) for key in set(split_keys)}
        return np.array([assigned[key] for key in split_keys], dtype=np.int64)
    codes = _parse_codes(where, "splits", _parse_column(where, "splits", splits, len(valid)), SPLITS, valid)
    first: dict[str, int] = {}
    for row in np.flatnonzero(valid):
        if first.setdefault(split_keys[row], codes[row]) != codes[row]:
            raise ExchangeError(
                f"{where}, splits: expected all samples of {split_keys[row]!r:.40} in one split, found them in "
                f"{SPLITS[first[split_keys[row]]]} and {SPLITS[codes[row]]}; divide by image, or pass other split_keys "
                "if that is meant"
            )
    return codes


def _parse_evidence(
    where: str, option_logit: Any, valid: npt.NDArray[np.bool_], n_options: int
) -> npt.NDArray[np.float32]:
    try:
        evidence = np.asarray(option_logit).astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExchangeError(
            f"{where}, option_logit: expected numbers, found: {_one_line(error)}; pass a float array"
        ) from error
    if evidence.shape != (len(valid), n_options):
        raise ExchangeError(
            f"{where}, option_logit: expected shape {(len(valid), n_options)}, found {evidence.shape}; pass one "
            "log-probability for each sample and option"
        )
    if not np.isfinite(evidence[valid]).all():
        raise ExchangeError(
            f"{where}, option_logit: expected finite values in valid rows, found infinity or NaN; mend them, or leave "
            "option_logit out"
        )
    return evidence


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
