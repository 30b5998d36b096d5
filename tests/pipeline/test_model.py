"""Where a checkpoint's weights come from and go to: GGUF files, several devices, weights that are not there."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoModelForImageTextToText

from pipeline.errors import UnsupportedModelError
from pipeline.family import FAMILIES, Family, find_family
from pipeline.family.image_processor import find_processor_class
from pipeline.inference.extractor import Extractor, Reading
from pipeline.model import find_model, load_empty_model, load_family, load_model, load_processor, read_config
from storage.schema import SITES
from tests.checkpoint import write_checkpoint, write_gguf

from .question import QUESTION, load, make_samples


def test_a_gguf_file_is_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    samples = make_samples(tmp_path, with_pictures=False)
    source = find_model(str(write_gguf(tmp_path / "gguf")))
    assert (source.name, source.gguf) == ("tiny-llama-F32", "tiny-llama-F32.gguf")
    assert load_empty_model(source).config.model_type == "llama"
    model = load_model(source, weights_dtype="float32")
    extractor = Extractor(model, load_processor(source), load_family(source), reading=Reading(sites=SITES))
    ours = extractor.extract(samples, QUESTION, batch_size=4).values
    theirs = load("llama", tmp_path).extract(samples).values
    np.testing.assert_array_equal(ours["n_tokens"], theirs["n_tokens"])
    for name in (*SITES, "option_logit"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


def test_another_gguf_file_is_another_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path)
    before = find_model(str(path)).identity()
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert find_model(str(path)).identity() != before


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3"])
def test_a_model_on_two_devices_gives_the_same(tmp_path: Path, name: str) -> None:
    """The second device is the disk, whose layers come to the first for their own pass: the far end of a spread."""
    loaded = load(name, tmp_path)
    samples = make_samples(tmp_path, with_pictures=True)
    whole = loaded.extract(samples, n_tokens=2).values
    decoder = loaded.model.get_decoder()
    (path,) = [path for path, module in loaded.model.named_modules() if module is decoder]
    layers = {f"{path}.layers.{layer}": "disk" if layer >= 2 else "cpu" for layer in range(len(decoder.layers))}
    inside = {f"{path}.{child}": "cpu" for child, _ in decoder.named_children() if child != "layers"}
    outside = place_modules(loaded.model, path)
    dispatch_model(
        loaded.model, {**outside, **inside, **layers}, main_device="cpu", offload_dir=str(tmp_path / "offload")
    )
    assert next(decoder.layers[3].parameters()).device.type == "meta"
    spread = loaded.extract(samples, n_tokens=2).values
    for key in (*SITES, "option_logit", "lens_logit"):
        np.testing.assert_array_equal(spread[key], whole[key])


def place_modules(model: Any, path: str) -> dict[str, str]:
    """Return every module beside the decoder at `path`, on the CPU."""
    steps = path.split(".")
    placed = {}
    for depth in range(len(steps)):
        parent = model.get_submodule(".".join(steps[:depth]))
        children = [name for name, _ in parent.named_children() if name != steps[depth]]
        direct = [name for name, _ in parent.named_parameters(recurse=False)]
        placed |= {".".join([*steps[:depth], name]): "cpu" for name in [*children, *direct]}
    return placed


def test_a_compiled_model_gives_the_same(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    samples = make_samples(tmp_path, with_pictures=False)
    own = loaded.extract(samples).values
    compiled = loaded.extract(samples, compiled=True).values
    for key in (*SITES, "option_logit", "lens_logit"):
        np.testing.assert_allclose(compiled[key], own[key], rtol=1e-4, atol=1e-4)
    assert all(block._compiled_call_impl is not None for block in loaded.model.get_decoder().layers)


def test_weights_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint("llama", tmp_path / "llama")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.2.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"none for 1 of its parameters, such as model.layers.2.mlp.up_pr"):
        load_model(find_model(str(folder)), weights_dtype="float32")


def test_weights_without_a_place_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint("llama", tmp_path / "llama")
    weights = load_file(folder / "model.safetensors")
    load_model(find_model(str(folder)), weights_dtype="float32")
    assert not caplog.messages
    weights["model.layers.2.self_attn.o_proj.bias"] = torch.ones(48)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(find_model(str(folder)), weights_dtype="float32")
    told = "model llama: 1 weights have no place in it, such as model.layers.2.self_attn.o_proj.bias"
    assert caplog.messages == [told]


def test_the_processor_is_the_one_that_the_files_name(tmp_path: Path) -> None:
    """Pixtral has LLaVA's model type; its processor cannot be had without torchvision, and LLaVA's would be wrong."""
    folder = write_checkpoint("llava", tmp_path / "llava")
    assert find_processor_class(folder).__name__ == "LlavaProcessor"
    path = folder / "processor_config.json"
    path.write_text(path.read_text().replace("LlavaProcessor", "PixtralProcessor"))
    assert find_processor_class(folder).__name__ == "PixtralProcessor"
    path.write_text(path.read_text().replace("PixtralProcessor", "NobodysProcessor"))
    assert find_processor_class(folder).__name__ == "LlavaProcessor"


@pytest.mark.parametrize(("read", "n_kept"), [(-1, 4), (-2, 3), (-3, 2), (1, 1), ([-2, -3], 4)])
def test_the_vision_tower_ends_where_it_is_read(tmp_path: Path, read: Any, n_kept: int) -> None:
    """What comes after the layer that is projected is never computed, and changes nothing."""
    source = find_model(str(write_checkpoint("llava", tmp_path / "llava")))
    config: Any = read_config(source)
    config.vision_config.num_hidden_layers, config.vision_feature_layer = 4, read
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = AutoModelForImageTextToText.from_config(config).eval()
        pixels = torch.randn(2, 3, config.vision_config.image_size, config.vision_config.image_size)
    cut: Any = deepcopy(whole)
    load_family(source).drop_unused(cut)
    assert len(cut.base_model.vision_tower.encoder.layers) == n_kept
    with torch.inference_mode():
        ours, theirs = (model.base_model.get_image_features(pixels, return_dict=True) for model in (cut, whole))
    np.testing.assert_array_equal(torch.stack(list(ours.pooler_output)), torch.stack(list(theirs.pooler_output)))


def test_a_family_of_ones_own_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Family):
        model_types = ("fuyu",)

    class Entry:
        def load(self) -> type[Family]:
            return Own

    from pipeline import family as families

    monkeypatch.setattr(families, "entry_points", lambda group: [Entry()] if group == "superneurons.families" else [])
    families._installed.cache_clear()
    try:
        assert isinstance(find_family("fuyu"), Own)
    finally:
        families._installed.cache_clear()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_a_family_is_a_short_file(family: Family) -> None:
    import inspect

    source = Path(inspect.getfile(type(family))).read_text()
    assert len(source.splitlines()) < 80
    # heavy imports live where they are used
    assert not [line for line in source.splitlines() if line.startswith(("import torch", "from torch"))]
