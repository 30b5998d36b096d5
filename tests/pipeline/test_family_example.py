"""The example of docs/families.md: its family works, and is found as it says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import family as families
from pipeline.errors import UnsupportedModelError
from pipeline.family import ENTRY_POINTS, Family, find_family
from pipeline.inference.encoding import Encoder
from storage.schema import SITES

from .question import QUESTION, load, make_samples

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def read_example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(found)


@pytest.fixture
def example() -> type[Family]:
    """Return the page's own class."""
    names: dict[str, Any] = {}
    exec(compile(read_example("python"), str(PAGE), "exec"), names)
    own: type[Family] = names["MyFamily"]
    return own


def test_the_example_sees_pictures_both_ways(example: type[Family], tmp_path: Path) -> None:
    """As Gemma 3 does, of whose prompts it makes the same blocks."""
    loaded = load("gemma3", tmp_path)
    samples = make_samples(tmp_path, with_pictures=True)
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template=QUESTION.template)
    prompts = [prompt for group in encoder.encode(samples, range(len(samples))).groups for prompt in group]
    n_pictures = []
    for prompt in prompts:
        blocks = example().attention_blocks(loaded.processor, prompt.token_ids)
        assert blocks is not None and prompt.blocks is not None
        assert torch.equal(blocks, prompt.blocks)
        n_pictures.append(int(blocks.max()) + 1)
    assert n_pictures == [len(sample.images) for sample in samples]


def test_the_example_tells_the_first_picture_from_the_last(example: type[Family], tmp_path: Path) -> None:
    """Where no text comes before the one or behind the other."""
    processor = load("gemma3", tmp_path).processor
    piece = processor.tokenizer.image_token_id
    blocks = example().attention_blocks(processor, torch.tensor([piece, piece, piece + 1, piece]))
    assert blocks is not None
    assert blocks.tolist() == [0, 0, -1, 1]


def test_the_example_extracts(example: type[Family], tmp_path: Path) -> None:
    loaded = load("gemma3", tmp_path)
    samples = make_samples(tmp_path, with_pictures=True)
    with pytest.raises(UnsupportedModelError, match=r"expected a module self_attn\.out_proj"):
        replace(loaded, family=example()).extract(samples)
    own = type("Own", (example,), {"output_projection": Family.output_projection})
    ours, theirs = (replace(loaded, family=family).extract(samples).values for family in (own(), loaded.family))
    for name in (*SITES, "option_logit", "image_feature"):
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_example_is_found_by_its_entry_point(example: type[Family], monkeypatch: pytest.MonkeyPatch) -> None:
    (points,) = tomllib.loads(read_example("toml"))["project"]["entry-points"].items()
    group, named = points
    entries = [EntryPoint(name=name, value=value, group=group) for name, value in named.items()]
    monkeypatch.setattr(EntryPoint, "load", lambda entry: {"my_package.family:MyFamily": example}[entry.value])
    monkeypatch.setattr(families, "entry_points", lambda group: entries if group == ENTRY_POINTS == points[0] else [])
    families._installed.cache_clear()
    try:
        assert isinstance(find_family("my_vlm"), example)
    finally:
        families._installed.cache_clear()
