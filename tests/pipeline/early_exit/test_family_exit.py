"""Every family exits early with the activations, and the answers, of its whole forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.early_exit import EarlyExitClassifier
from pipeline.early_exit import exit_pass as exit_pass_module
from pipeline.model import find_model
from search.early_exit import EarlyExit
from storage.schema import Site
from tests.checkpoint import TEXT_FAMILIES, VISION_FAMILIES

from ..question import QUESTION, Loaded, load, make_samples, sites_of
from .planted import Recorded, make_classifier, plant_super_neurons, vote_plainly

EVERY_FAMILY = (*VISION_FAMILIES, *TEXT_FAMILIES)
WITH_SINKS = ("gpt_oss",)
"""Families whose attention has something else to look at than tokens: their last layer is computed whole."""

WINDOWED = ("mistral", "gpt_oss")
"""Families whose first layer sees the last few tokens alone, which are the same for every question."""


@pytest.fixture(scope="module")
def record(folder: Path) -> Callable[[str], tuple[Loaded, Recorded]]:
    """Return each family's model, and the activations of its samples by the extractor."""

    @cache
    def record_once(name: str) -> tuple[Loaded, Recorded]:
        loaded = load(name, folder)
        values = loaded.extract(make_samples(folder, with_pictures=loaded.family.reads_images)).values
        return loaded, {site: values[site] for site in sites_of(name)}

    return record_once


def n_layers(loaded: Loaded) -> int:
    return int(loaded.model.config.get_text_config().num_hidden_layers)


def classify(folder: Path, loaded: Loaded, classifier: Any, **options: Any) -> tuple[EarlyExitClassifier, Any]:
    early = EarlyExitClassifier.load(classifier, model=str(folder / loaded.name), **options)
    found = early.predict(make_samples(folder, with_pictures=loaded.family.reads_images))
    assert not found.refused
    return early, [found.answers[place] for place in range(len(found.answers))]


def assert_votes(super_neurons: Any, predictions: Any, recorded: Recorded, rows: Any = slice(None)) -> None:
    """Compare shares, answers and each neuron's activation with a plain vote over what was recorded."""
    shares = vote_plainly(super_neurons, {site: values[rows] for site, values in recorded.items()})
    named = list(QUESTION.options)
    for prediction, expected in zip(predictions, shares, strict=True):
        np.testing.assert_allclose([prediction.shares[option] for option in named], expected, atol=1e-5)
        assert prediction.option == named[int(np.argmax(expected))]
    for place, (site, token, layer, unit) in enumerate(super_neurons.contrasts[0].addresses()):
        whole = recorded[site][rows, token, layer]
        found = [prediction.votes[place].activation for prediction in predictions]
        np.testing.assert_allclose(found, whole[:, unit], rtol=1e-5, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_an_exit_votes_as_the_whole_pass_does(folder: Path, record: Any, name: str) -> None:
    loaded, recorded = record(name)
    source = find_model(str(folder / name))
    for depth in (1, 2, n_layers(loaded)):
        super_neurons = plant_super_neurons(recorded, sites=sites_of(name), depth=depth, seed=depth)
        early, predictions = classify(folder, loaded, make_classifier(super_neurons, source))
        assert_votes(super_neurons, predictions, recorded)
        assert {prediction.depth for prediction in predictions} == {depth}
        assert set(early.fallbacks) == ({depth - 1} if name in WITH_SINKS else set())


@pytest.mark.parametrize("site", ["residual", "mlp", "heads"])
@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3", "gemma2"])
def test_each_site_alone_is_read_at_the_last_position(folder: Path, record: Any, name: str, site: Site) -> None:
    loaded, recorded = record(name)
    super_neurons = plant_super_neurons(recorded, sites=(site,), depth=2)
    early, predictions = classify(folder, loaded, make_classifier(super_neurons, find_model(str(folder / name))))
    assert_votes(super_neurons, predictions, recorded)
    assert not early.fallbacks


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "paligemma", "gemma3", "smolvlm", "mistral", "gpt_oss"])
def test_a_sample_goes_no_deeper_than_the_first_exit_that_is_sure(
    folder: Path, record: Any, name: str, batch_size: int
) -> None:
    loaded, recorded = record(name)
    depths = (2, 3, 4) if name in WINDOWED else (1, 2, 4)
    first, second, last = stages = [
        plant_super_neurons(recorded, sites=sites_of(name), depth=depth, seed=depth) for depth in depths
    ]
    margins = [np.abs(1 - 2 * vote_plainly(stage, recorded)[:, 1]) for stage in (first, second)]
    exits = tuple(
        EarlyExit(super_neurons=stage, margin=float(np.sort(margin)[-2]) - 1e-6)  # the two that are most sure
        for stage, margin in zip((first, second), margins, strict=True)
    )
    classifier = make_classifier(last, find_model(str(folder / name)), exits=exits)
    _, predictions = classify(folder, loaded, classifier, batch_size=batch_size)
    sure = [margin >= exit_.margin for margin, exit_ in zip(margins, exits, strict=True)]
    expected = np.where(sure[0], depths[0], np.where(sure[1], depths[1], depths[2]))
    assert [prediction.depth for prediction in predictions] == expected.tolist()
    assert len(set(expected)) > 1
    for depth, stage in zip(depths, stages, strict=True):
        rows = np.flatnonzero(expected == depth)
        if len(rows):
            assert_votes(stage, [predictions[row] for row in rows], recorded, rows)
    _, whole = classify(folder, loaded, classifier, adaptive=False)
    assert_votes(last, whole, recorded)


def test_the_exit_layer_computes_keys_and_nothing_else_for_all_positions(folder: Path, record: Any) -> None:
    _, recorded = record("llava")
    super_neurons = plant_super_neurons(recorded, sites=("residual", "mlp", "heads"), depth=2)
    classifier = make_classifier(super_neurons, find_model(str(folder / "llava")))
    early = EarlyExitClassifier.load(classifier, model=str(folder / "llava"))
    trunk = early._model.get_decoder()
    block = trunk.layers[1].block
    seen: dict[str, list[int]] = {}
    for path, module in block.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _module, inputs, path=path: seen.setdefault(path, []).append(inputs[0].shape[1])
            )
    found = early.classify(make_samples(folder, with_pictures=True)[0].images[0].path, "is there a circle")
    assert found.depth == 2
    assert len(trunk.layers) == 2
    n_tokens = seen["self_attn.k_proj"]
    assert n_tokens[0] > 10
    assert "self_attn.v_proj" not in seen, "values are averaged before they are projected"
    assert {path for path, lengths in seen.items() if max(lengths) > 1} == {"self_attn.k_proj"}


def test_only_what_votes_is_computed_of_the_mlp(folder: Path, record: Any) -> None:
    _, recorded = record("llava")
    super_neurons = plant_super_neurons(recorded, sites=("mlp",), depth=1)
    early = EarlyExitClassifier.load(
        make_classifier(super_neurons, find_model(str(folder / "llava"))), model=str(folder / "llava")
    )
    called: list[str] = []
    for path, module in early._model.get_decoder().layers[0].block.mlp.named_modules():
        module.register_forward_pre_hook(lambda *_, path=path: called.append(path))
    early.predict(make_samples(folder, with_pictures=True))
    assert called == ["act_fn"], "neither projection of all neurons, nor the way back"
    neurons = early._model.get_decoder().layers[0].last_position._neurons
    assert {weight.shape[0] for weight, _ in neurons._maps} == {len(np.unique(super_neurons.contrasts[0].unit))}


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma2", "llama"])
def test_a_block_of_another_kind_is_computed_whole_and_said_so(
    folder: Path, record: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, recorded = record(name)
    project = exit_pass_module.LastPosition._project
    monkeypatch.setattr(exit_pass_module.LastPosition, "_project", lambda *given: 0.9 * project(*given))
    super_neurons = plant_super_neurons(recorded, sites=sites_of(name), depth=2)
    early, predictions = classify(folder, loaded, make_classifier(super_neurons, find_model(str(folder / name))))
    assert early.fallbacks.keys() == {1}
    assert_votes(super_neurons, predictions, recorded)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_later_layers_and_the_head_are_not_loaded(folder: Path, record: Any, name: str) -> None:
    loaded, recorded = record(name)
    super_neurons = plant_super_neurons(recorded, sites=sites_of(name), depth=2)
    early = EarlyExitClassifier.load(
        make_classifier(super_neurons, find_model(str(folder / name))), model=str(folder / name)
    )
    decoder = early._model.get_decoder()
    kinds = getattr(early._model.config.get_text_config(), "layer_types", None)
    assert len(decoder.layers) == 2
    assert kinds is None or kinds == loaded.model.config.get_text_config().layer_types[:2]
    assert early._model.get_output_embeddings() is None
    assert early.n_layers == n_layers(loaded) > 2
    deepstack = getattr(getattr(early._model, "visual", None), "deepstack_merger_list", None)
    assert deepstack is None or len(deepstack) == 1, "what is added behind the last layer is not needed"
