"""What decides how a run is extracted, besides its model and its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.dtype import StoredDtype
from storage.schema import SITES, Site
from storage.spelling import parse_choice, suggest_name
from storage.template import Compression

from .errors import PipelineError
from .inference.extractor import Reading
from .model import WeightsDtype

STORED_DTYPES: Mapping[str, StoredDtype] = {"float32": "f4", "float16": "f2"}
"""Dtypes of stored activations, by name, as NumPy spells them."""

AUTO = "auto"
"""Leaves the stored dtype to what a pilot batch shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSettings:
    """What decides what is in a store, besides the model and the task; all but ``compression`` is a run's identity.

    ``n_tokens``, ``lens``, ``share_images`` and ``compiled`` are those of `pipeline.inference.extractor.Reading`.
    ``dtype`` is that of the stored activations (float32, float16, or auto: what a pilot batch shows), ``weights_dtype``
    that of the model's weights. ``block`` counts samples (None leaves it to the run's size), ``batch_size`` rows of
    prompts a forward pass. With ``greedy`` the model's generated answer is stored as well. A run keeps the
    ``compression`` that it was planned with.
    """

    sites: tuple[Site, ...] = ("residual", "mlp", "heads")
    n_tokens: int = 1
    lens: bool = True
    share_images: bool = True
    compiled: bool = False
    dtype: str = AUTO
    weights_dtype: WeightsDtype = "float32"
    block: int | None = None
    batch_size: int = 64
    greedy: bool = True
    compression: Compression = "lz4"

    @property
    def reading(self) -> Reading:
        """What is read of the model."""
        return Reading(
            sites=self.sites,
            n_tokens=self.n_tokens,
            lens=self.lens,
            share_images=self.share_images,
            compiled=self.compiled,
        )


def parse_sites(text: str) -> tuple[Site, ...]:
    """Return the sites that `text` names, separated by commas, in the order of the store.

    Raises
    ------
    PipelineError
        If one is unknown, or none is named.
    """
    named = {name.strip() for name in text.split(",") if name.strip()}
    if not named or not named <= set(SITES):
        strange = sorted(named - set(SITES))
        remedy = suggest_name(strange[0], SITES, otherwise="choose again") if strange else "name one"
        raise PipelineError(f"sites {text!r}: expected some of {', '.join(SITES)}, found {sorted(named)}; {remedy}")
    return tuple(site for site in SITES if site in named)


def parse_dtype(text: str) -> str:
    """Return `text` as the dtype that activations are stored in.

    Raises
    ------
    PipelineError
        If it is none.
    """
    return parse_choice(text, (AUTO, *STORED_DTYPES), kind="dtype", fault=PipelineError)
