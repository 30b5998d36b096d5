"""Every family against its own classes: hidden states, nnsight's traces and ``generate``, one sample at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.inference.evidence import find_evidence
from pipeline.inference.extractor import Extracted
from pipeline.inference.packing import plan_rows
from storage.schema import SITES
from tests.checkpoint import TEXT_FAMILIES, VISION_FAMILIES

from .question import (
    EXPERTS,
    Loaded,
    encode_alone,
    generate_alone,
    load,
    make_samples,
    never_generated,
)

N_TOKENS = 3
EVERY_FAMILY = (*VISION_FAMILIES, *TEXT_FAMILIES)
Loader = Callable[[str], Loaded]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def load_family(folder: Path) -> Loader:
    """Return a loader of each family's checkpoint, which never ends an answer."""

    @cache
    def load_once(name: str) -> Loaded:
        loaded = load(name, folder)
        loaded.model.generation_config.eos_token_id = never_generated(loaded)
        return loaded

    return load_once


@pytest.fixture(scope="module")
def extract(folder: Path, load_family: Loader) -> Callable[[str], Extracted]:
    """Return the extraction of each family's samples in one batch, questions about one picture in one row."""

    @cache
    def extract_once(name: str) -> Extracted:
        loaded = load_family(name)
        samples = make_samples(folder, with_pictures=loaded.family.reads_images)
        return loaded.extract(samples, n_tokens=N_TOKENS)

    return extract_once


def assert_close(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], tolerance: float = 1e-5) -> None:
    """Compare relative to the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(np.abs(theirs).max()))


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_residuals_and_answers_are_those_of_generate(
    folder: Path, load_family: Loader, extract: Callable[[str], Extracted], name: str
) -> None:
    loaded, values = load_family(name), extract(name).values
    norm = loaded.model.get_decoder().norm
    assert values["valid"].all()
    for row, sample in enumerate(make_samples(folder, with_pictures=loaded.family.reads_images)):
        inputs = encode_alone(loaded, sample)
        alone = generate_alone(loaded, inputs, n_tokens=N_TOKENS)
        assert values["n_tokens"][row] == inputs["input_ids"].shape[1]
        assert values["answer_token"][row].tolist() == alone.sequences[0, -N_TOKENS:].tolist()
        for token, states in enumerate(alone.hidden_states):
            theirs = torch.stack([state[0, -1] for state in states[1:]]).numpy()
            ours = values["residual"][row, token]
            assert_close(ours[:-1], theirs[:-1])
            with torch.inference_mode():  # the last hidden state is given after the final norm
                assert_close(norm(torch.from_numpy(ours[-1])).numpy(), theirs[-1])
    assert len(np.unique(values["residual"][:, 0, -1].round(3), axis=0)) >= 5  # of 6: two texts are the same


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_mlp_and_heads_are_what_nnsight_reads(
    folder: Path, load_family: Loader, extract: Callable[[str], Extracted], name: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nnsight

        if hasattr(object, "save"):  # it gives every object one, which classes of other packages cannot stand
            nnsight._c.unmount("save")
    loaded, values = load_family(name), extract(name).values
    decoder = loaded.model.get_decoder()
    (path,) = [path for path, module in loaded.model.named_modules() if module is decoder]
    traced = nnsight.NNsight(loaded.model)
    for row in (1, 5):
        inputs = encode_alone(loaded, make_samples(folder, with_pictures=loaded.family.reads_images)[row])
        with traced.trace(**inputs):
            blocks = traced.get(path).layers
            read = []
            for layer in range(len(decoder.layers)):
                heads = blocks[layer].self_attn.o_proj.input
                read.append((heads, None if name in EXPERTS else blocks[layer].mlp.down_proj.input))
            seen = nnsight.save(read)
        for layer, (heads, mlp) in enumerate(seen):
            assert_close(values["heads"][row, 0, layer], heads[0, -1].detach().numpy())
            if name not in EXPERTS:
                assert_close(values["mlp"][row, 0, layer], mlp[0, -1].detach().numpy())


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_batches_and_shared_pictures_change_nothing(
    folder: Path, load_family: Loader, extract: Callable[[str], Extracted], name: str
) -> None:
    loaded, shared = load_family(name), extract(name).values
    samples = make_samples(folder, with_pictures=loaded.family.reads_images)
    assert len(set(shared["n_tokens"].tolist())) > 2  # so that batches are padded
    for batch_size in (1, 4):
        plain = loaded.extract(samples, n_tokens=N_TOKENS, share_images=False, batch_size=batch_size).values
        assert plain.keys() == shared.keys()
        for key, values in plain.items():
            if values.dtype == np.float32:
                assert_close(shared[key], values)
            else:
                np.testing.assert_array_equal(shared[key], values)


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_pictures_and_prompts_are_those_of_the_class(folder: Path, load_family: Loader, name: str) -> None:
    from pipeline.inference.encoding import Encoder

    loaded = load_family(name)
    samples = make_samples(folder, with_pictures=True)
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template="{question}?")
    encoded = encoder.encode(samples, range(len(samples)))
    assert [len(group) for group in encoded.groups] == [3, 2, 1]
    for prompt in (prompt for group in encoded.groups for prompt in group):
        theirs = encode_alone(loaded, samples[prompt.sample])
        assert prompt.token_ids.tolist() == theirs["input_ids"][0].tolist()
        ours = encoded.pictures[prompt.picture].tensors
        compared = [key for key in ours if key in theirs]
        assert "pixel_values" in compared
        for key in compared:
            np.testing.assert_array_equal(np.asarray(ours[key]), np.asarray(theirs[key]))


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_questions_about_one_picture_share_a_row(folder: Path, load_family: Loader, name: str) -> None:
    from pipeline.inference.encoding import Encoder

    loaded = load_family(name)
    samples = make_samples(folder, with_pictures=True)
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template="{question}?")
    encoded = encoder.encode(samples, range(len(samples)))
    pieces = loaded.family.image_token_ids(loaded.processor)
    rows, reasons = plan_rows(encoded.groups, image_tokens=pieces, share=True)
    assert [len(row.prompts) for row in rows] == [3, 2, 1]
    assert not reasons
    assert len(rows[0]) < sum(len(prompt.token_ids) for prompt in rows[0].prompts) / 1.5
    unshared = loaded.extract(samples).unshared
    assert unshared == ({"the prompts of this family attend both ways"} if name.startswith("paligemma") else set())


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_option_evidence_and_lens_are_log_probabilities(
    folder: Path, load_family: Loader, extract: Callable[[str], Extracted], name: str
) -> None:
    loaded, values = load_family(name), extract(name).values
    samples = make_samples(folder, with_pictures=loaded.family.reads_images)
    from pipeline.inference.encoding import Encoder
    from pipeline.inference.prompt import find_option_tokens

    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template="{question}?")
    tokens = find_option_tokens(loaded.processor.tokenizer, encoder.render(samples[0]), ("yes", "no"))
    for row in (0, 5):
        with torch.inference_mode():
            logits = loaded.model(**encode_alone(loaded, samples[row])).logits[0, -1].float()
        assert_close(values["option_logit"][row], find_evidence(logits, tokens).numpy(), 1e-4)
    assert_close(values["lens_logit"][:, 0, -1], values["option_logit"])
    assert np.ptp(values["lens_logit"][:, 0], axis=1).min() > 1e-3  # layers differ
    expected = np.sqrt((values["residual"].astype(np.float64) ** 2).mean(axis=-1))
    assert_close(values["rms"], expected)


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_image_features_are_the_mean_of_the_projected_tokens(
    folder: Path, load_family: Loader, extract: Callable[[str], Extracted], name: str
) -> None:
    loaded, values = load_family(name), extract(name).values
    embedded: list[torch.Tensor] = []

    def see(_module: Any, _inputs: Any, keywords: dict[str, Any]) -> None:
        embedded.append(keywords["inputs_embeds"])

    handle = loaded.model.get_decoder().register_forward_pre_hook(see, with_kwargs=True)
    try:
        for row in (1, 5):
            inputs = encode_alone(loaded, make_samples(folder, with_pictures=True)[row])
            with torch.inference_mode():
                loaded.model(**inputs)
            pieces = torch.tensor(loaded.family.image_token_ids(loaded.processor))
            if name in ("idefics3", "smolvlm", "internvl"):  # whose tokens around a picture count as its own
                pieces = torch.tensor([loaded.model.config.image_token_id])
            in_picture = torch.isin(inputs["input_ids"][0], pieces)
            assert_close(values["image_feature"][row], embedded.pop()[0, in_picture].mean(dim=0).numpy(), 1e-4)
    finally:
        handle.remove()


@pytest.mark.parametrize("weights_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_half_precision_stays_within_its_rounding(folder: Path, name: str, weights_dtype: str) -> None:
    """Both are compared with float32, and ours may lie no further from it than the unbatched pass does, or nearly."""
    half, full = load(name, folder, weights_dtype=weights_dtype), load(name, folder)
    samples = make_samples(folder, with_pictures=half.family.reads_images)
    ours, exact = half.extract(samples).values, full.extract(samples).values
    for row in (0, 5):
        inputs = encode_alone(half, samples[row])
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(half.model.dtype)
        with torch.inference_mode():
            states = half.model(**inputs, output_hidden_states=True).hidden_states
        alone = torch.stack([state[0, -1] for state in states[1:-1]]).float().numpy()
        truth = exact["residual"][row, 0, :-1]
        error = np.abs(ours["residual"][row, 0, :-1] - truth).mean()
        assert error <= 1.5 * np.abs(alone - truth).mean()
        assert error > 0  # it was half precision


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_have_no_mlp_site(folder: Path, load_family: Loader, name: str) -> None:
    from pipeline.errors import UnsupportedModelError

    loaded = load_family(name)
    samples = make_samples(folder, with_pictures=False)
    with pytest.raises(UnsupportedModelError, match=r"found a mixture of experts.*--sites residual,heads"):
        loaded.extract(samples, sites=SITES)
