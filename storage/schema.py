"""Format version 1: which arrays a run holds, their dimensions, types, shards and chunks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

FORMAT = "superneurons"
FORMAT_VERSION = 1
COMMITS = "_commits"
PARTS = "_parts"
RECORDS = (COMMITS, PARTS)
"""Groups of a run whose children are records: empty groups that are created once, in ``zarr.json`` attributes."""

ASIDE = "_aside"
"""Group of the root that holds what `repair` moved out of the way."""

OWN_GROUPS = (ASIDE, "_search", "_transfer", "_ledger")
"""Groups of the root that hold no runs."""

QUESTION = "question"
WITHHELD = "withheld"
"""Attribute of a run: names of the arrays of text that hold digests in the place of their texts."""

PUBLICATION_FILES = ("README.md", "CITATION.cff", "croissant.json", "manifest-sha256.txt")
"""What a publisher puts beside the root's document: a dataset card, a citation, metadata, digests of all objects."""

PARTIAL_SUFFIX = ".partial"
"""Of files that are not in place yet; a writer that is killed leaves one behind, and `gc` removes it."""

Site = Literal["residual", "mlp", "heads"]
SITES: tuple[Site, ...] = ("residual", "mlp", "heads")
UNIT_DIMS: Mapping[Site, str] = {"residual": "residual_unit", "mlp": "mlp_unit", "heads": "head_unit"}
SITE_DESCRIPTIONS: Mapping[Site, str] = {
    "residual": "output of the block",
    "mlp": "input of the MLP's down projection",
    "heads": "input of the attention's output projection, all heads side by side",
}

STORED_AS_ACTIVATIONS = (*SITES, "image_feature")
"""Arrays that a run's own dtype and compression are for."""

Split = Literal["probe", "validation", "test"]
SPLITS: tuple[Split, ...] = ("probe", "validation", "test")
"""Splits in the order of their codes in the ``split`` array."""


def is_shard_key(key: str) -> bool:
    """Return whether `key` names a piece of an array rather than metadata."""
    return "/c/" in f"/{key}/"


def is_record_key(key: str) -> bool:
    """Return whether `key` is a commit record, or the record of a part."""
    return RECORD_KEY.search(key) is not None


RECORD_KEY = re.compile(rf"(?:^|/)(?:{COMMITS}|{PARTS})/\d{{6,}}/zarr\.json$")


MAX_CHUNK_UNITS = 512
"""Units of the inner chunk: what a column search reads at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlan:
    """One array of a run, before it exists.

    ``dims`` and ``trailing`` leave out the first dimension, ``sample``, which every array has. ``dtype`` is a NumPy
    dtype string, or "string" for variable-length text. ``chunk`` and ``shard`` are the trailing shapes of the inner
    chunk and of the shard; a shard always spans one whole block of samples.
    """

    name: str
    dtype: str
    fill: Any
    dims: tuple[str, ...] = ()
    trailing: tuple[int, ...] = ()
    chunk: tuple[int, ...] = ()
    shard: tuple[int, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteShape:
    """How wide a model is: ``units[site]`` counts the units of one layer at each recorded site.

    ``n_features`` is the width of a projected image feature.
    """

    n_layers: int
    n_tokens: int
    n_heads: int
    head_dim: int
    units: Mapping[Site, int]
    n_features: int = 0


Figure = Literal["rms", "option_logit", "lens_logit", "image_feature", "answer_token", "base_answer"]
"""Arrays that a run may hold besides its sites and samples."""

EVIDENCE: tuple[Figure, ...] = ("option_logit",)
"""What a run holds of them, if it is made of activations from elsewhere."""


def plan_arrays(
    shape: SiteShape, *, dtype: str, options: tuple[str, ...], figures: Collection[Figure] = EVIDENCE
) -> list[ArrayPlan]:
    """Return every array of a run whose samples share `options`, activations stored as `dtype` (f2 or f4)."""
    activations = [_plan_activation(site, shape, dtype) for site in SITES if site in shape.units]
    planned = _plan_figures(shape, dtype, len(options))
    return [*activations, *(array for array in planned if array.name in figures), *SAMPLE_ARRAYS]


def _plan_figures(shape: SiteShape, dtype: str, n_options: int) -> list[ArrayPlan]:
    """Return all arrays that are no site and no property of the sample."""
    layers, inner = (shape.n_tokens, shape.n_layers), min(shape.n_features, MAX_CHUNK_UNITS) or 1
    lens, padded = (*layers, n_options), -(-shape.n_features // inner) * inner

    def plan(
        name: Figure, dtype: str, fill: Any, dims: tuple[str, ...], trailing: tuple[int, ...], **text: str
    ) -> ArrayPlan:
        return ArrayPlan(
            name=name,
            dtype=dtype,
            fill=fill,
            dims=dims,
            trailing=trailing,
            chunk=trailing,
            shard=trailing,
            attributes=text,
        )

    return [
        plan(
            "rms",
            "f4",
            np.nan,
            ("token", "layer"),
            layers,
            long_name="root mean square of the residual stream over its units",
            units="1",
        ),
        plan(
            "option_logit",
            "f4",
            np.nan,
            ("option",),
            (n_options,),
            long_name="log-probability that the answer's first token begins the option, in any of its spellings",
            units="nat",
        ),
        plan(
            "lens_logit",
            "f4",
            np.nan,
            ("token", "layer", "option"),
            lens,
            long_name="logit lens: the option's log-probability if the final norm and head read this layer's residual",
            units="nat",
        ),
        ArrayPlan(
            name="image_feature",
            dtype=dtype,
            fill=np.nan,
            dims=("feature",),
            trailing=(shape.n_features,),
            chunk=(inner,),
            shard=(padded,),
            attributes={"long_name": "mean of the projected image tokens; 0 without a picture", "units": "1"},
        ),
        plan(
            "answer_token",
            "i4",
            -1,
            ("token",),
            (shape.n_tokens,),
            long_name="id of the generated token; after the answer's end, the end again",
            units="1",
        ),
        plan(
            "base_answer",
            "i2",
            -1,
            (),
            (),
            long_name="option that the model's greedy answer names; -1 none",
            units="1",
        ),
    ]


def _plan_activation(site: Site, shape: SiteShape, dtype: str) -> ArrayPlan:
    units = shape.units[site]
    inner = min(units, MAX_CHUNK_UNITS)
    padded = -(-units // inner) * inner
    attributes: dict[str, Any] = {"long_name": SITE_DESCRIPTIONS[site], "units": "1"}
    if site == "heads":
        attributes |= {"n_heads": shape.n_heads, "head_dim": shape.head_dim}
    return ArrayPlan(
        name=site,
        dtype=dtype,
        fill=np.nan,
        dims=("token", "layer", UNIT_DIMS[site]),
        trailing=(shape.n_tokens, shape.n_layers, units),
        chunk=(shape.n_tokens, 1, inner),
        shard=(shape.n_tokens, 1, padded),
        attributes=attributes,
    )


def _per_sample(name: str, dtype: str, fill: Any, long_name: str, **attributes: Any) -> ArrayPlan:
    return ArrayPlan(name=name, dtype=dtype, fill=fill, attributes={"long_name": long_name, **attributes})


SAMPLE_ARRAYS = (
    _per_sample("label", "i2", -1, "index of the right option", units="1"),
    _per_sample(
        "split", "i1", -1, "split of the sample", flag_values=[0, 1, 2], flag_meanings=" ".join(SPLITS), units="1"
    ),
    _per_sample("valid", "bool", False, "whether the row holds a sample that could be read"),
    _per_sample("n_tokens", "i4", 0, "tokens of the prompt, image tokens included", units="1"),
    _per_sample("n_options", "i2", 0, "options of the sample", units="1"),
    _per_sample("sample_id", "string", "", "id of the sample in its task"),
    _per_sample("image_id", "string", "", "hash of the image's pixels"),
    _per_sample("split_key", "string", "", "what is never divided between splits"),
    _per_sample("question", "string", "", "question as the task states it"),
)
"""The arrays of one value a sample that every run holds."""

COORDINATES = ("sample_id", "image_id", "split_key", "label", "split", "valid", "n_tokens", "n_options", "question")
"""Arrays that xarray shows as coordinates of ``sample``."""
