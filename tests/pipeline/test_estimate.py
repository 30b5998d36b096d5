"""Estimates against what happens: bytes, objects and requests of real stores, tokens and operations of real models."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pipeline.engine.serial import SerialEngine
from pipeline.errors import CapacityError, UnsupportedModelError
from pipeline.extraction import extract
from pipeline.inference.encoding import Encoder
from pipeline.inference.extractor import Extractor, Question, Reading
from pipeline.inference.packing import plan_rows
from pipeline.model import find_model, load_family, load_model, load_processor, read_config
from pipeline.planning.architecture import Architecture, find_architecture
from pipeline.planning.choice import select_runs
from pipeline.planning.estimate import Rate, count_array_bytes, count_flops, estimate_run
from pipeline.planning.experiment import Statistics
from pipeline.planning.experiment_file import parse_experiment
from pipeline.planning.forecast import count_all_objects, count_all_puts, forecast_runs
from pipeline.planning.task_statistic import ToldTask, tell_workload
from pipeline.planning.workload import MAX_MEASURED, measure_workload
from pipeline.request import RunRequest, plan_run
from pipeline.sample import ImageFile
from pipeline.settings import ExtractionSettings
from pipeline.task import Task, load_task
from storage.schema import SITES
from tests.checkpoint import TEXT_FAMILIES, VISION_FAMILIES, write_checkpoint

from .question import make_samples

SIZES = ((40, 40), (70, 40), (33, 60), (64, 64), (200, 50), (640, 480), (480, 640), (31, 300))
QWEN2: dict[str, Any] = {"min_pixels": 56**2, "max_pixels": 14**2 * 2**16}
QWEN3: dict[str, Any] = {"size": {"shortest_edge": 2**16, "longest_edge": 2**24}}
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen2_vl": QWEN2,
    "qwen2_5_vl": QWEN2,
    "qwen3_vl": QWEN3,
    "qwen3_vl_moe": QWEN3,
    "idefics3": {"size": {"longest_edge": 4 * 28}},
    "smolvlm": {"size": {"longest_edge": 4 * 28}},
    "internvl": {"max_patches": 12},
}
"""Settings of the processors of published checkpoints that the configuration does not tell; 28 is these tiles' side."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a family's checkpoint, written once."""
    root = tmp_path_factory.mktemp("checkpoints")
    return lambda name: root / name if (root / name).exists() else write_checkpoint(name, root / name)


def make_task(folder: Path, *, with_pictures: bool) -> Task:
    samples = tuple(make_samples(folder, with_pictures=with_pictures))
    return Task(name="drawn", revision="1", options=("yes", "no"), samples=samples, prompt="{question}?")


def pack(model: Architecture, task: Task, *, block: int, share: bool) -> tuple[int, int]:
    """Return the tokens of the rows, and of the prompts each by itself, that the extractor would make of a task."""
    shares = share and not model.family.prefix_attends_both_ways
    encoder = Encoder(model.model, model.family, model.processor, template=task.prompt)
    n_rows = n_prompts = 0
    for start in range(0, len(task.samples), block):
        part = task.samples[start : start + block]
        groups = encoder.encode(part, range(len(part))).groups
        pieces = model.family.image_token_ids(model.processor)
        rows, _ = plan_rows(groups, image_tokens=pieces, share=shares)
        n_rows += sum(map(len, rows))
        n_prompts += sum(len(prompt.token_ids) for group in groups for prompt in group)
    return n_rows, n_prompts


@pytest.mark.parametrize("name", [*VISION_FAMILIES, *TEXT_FAMILIES])
def test_parameters_are_those_of_the_loaded_model(name: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(name)
    loaded = load_model(find_model(str(folder)), weights_dtype="float32")
    size = find_architecture(str(folder)).size
    assert size.n_parameters == sum(parameter.numel() for parameter in loaded.parameters())
    decoder = loaded.get_decoder()
    assert size.n_layers == len(decoder.layers)
    n_decoder = sum(parameter.numel() for parameter in decoder.parameters())
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert size.n_vision == size.n_parameters - n_decoder - (0 if tied else size.n_head)


@pytest.mark.parametrize("name", [*VISION_FAMILIES, *TEXT_FAMILIES])
def test_tokens_are_those_that_are_packed(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = find_architecture(str(checkpoint(name)))
    task = make_task(tmp_path, with_pictures=model.family.reads_images)
    for block in (4, 6):
        for share in (True, False):
            workload = measure_workload(model, task, block=block, share=share)
            found = workload.n_row_tokens, workload.n_tokens
            assert found == pack(model, task, block=block, share=share)
    if model.family.reads_images:
        assert workload.n_pictures == 3  # in blocks of 6: each once
        assert measure_workload(model, task, block=4, share=True).n_pictures == 4
    assert workload.basis == "all 6 samples encoded"


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_a_configuration_tells_what_processors_expand_a_picture_to(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint(name), tmp_path / name)
    settings = json.loads((folder / "preprocessor_config.json").read_text()) | PUBLISHED.get(name, {})
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    source = find_model(str(folder))
    processor, family, config = load_processor(source), load_family(source), read_config(source)
    patch = config.vision_config.patch_size
    side = patch[0] if isinstance(patch, list | tuple) else patch
    for width, height in SIZES:
        encoded = family.encode_images(processor, [Image.new("RGB", (width, height))])
        expanded = processor.tokenizer(encoded.expansions[0], add_special_tokens=False)["input_ids"]
        assert family.count_image_tokens(config, width=width, height=height) == len(expanded)
        pixels = encoded.tensors["pixel_values"]
        n_patches = len(pixels) if pixels.ndim == 2 else pixels.numel() // 3 // side**2
        assert family.count_patches(config, width=width, height=height) == n_patches


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_a_configuration_alone_is_enough(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    whole = checkpoint(name)
    (tmp_path / "alone").mkdir()
    shutil.copy(whole / "config.json", tmp_path / "alone")
    alone, full = find_architecture(str(tmp_path / "alone")), find_architecture(str(whole))
    assert alone.processor is None and alone.size == full.size
    task = make_task(tmp_path, with_pictures=True)
    workload = measure_workload(alone, task, block=6, share=True)
    assert workload.n_samples == 6 and workload.n_pictures == 3
    assert workload.n_row_tokens <= workload.n_tokens
    assert "no tokenizer being here" in workload.basis


def test_a_large_task_is_measured_in_parts() -> None:
    model, task = find_architecture("tiny-llava"), load_task("easy-vqa.yes-no").head(1000)
    workload = measure_workload(model, task, block=256, share=True)
    n_rows, n_prompts = pack(model, task, block=256, share=True)
    assert workload.n_row_tokens == pytest.approx(n_rows, rel=0.05)
    assert workload.n_tokens == pytest.approx(n_prompts, rel=0.02)
    assert workload.n_pictures == sum(
        len({sample.images for sample in task.samples[start : start + 256]}) for start in range(0, 1000, 256)
    )
    assert 0.7 * MAX_MEASURED <= int(workload.basis.split()[0]) <= MAX_MEASURED


def test_statistics_tell_what_the_samples_do() -> None:
    model, task = find_architecture("tiny-llava"), load_task("easy-vqa.yes-no").head(120)
    measured = measure_workload(model, task, block=256, share=True)
    n_words = sum(len(model.processor.tokenizer(s.question)["input_ids"]) for s in task.samples) / len(task.samples)
    told = Statistics(
        n_samples=120,
        n_images=len({sample.images for sample in task.samples}),
        n_options=2,
        question_tokens=round(n_words),
        image_width=64,
        image_height=64,
    )
    workload = tell_workload(model, ToldTask(told, task.prompt), block=256, share=True)
    assert workload.n_tokens == pytest.approx(measured.n_tokens, rel=0.03)
    assert workload.n_row_tokens == pytest.approx(measured.n_row_tokens, rel=0.05)
    assert workload.n_patches == pytest.approx(measured.n_patches, rel=0.05)
    assert workload.n_pictures == measured.n_pictures


def request_of(settings: ExtractionSettings, *, n_samples: int = 40) -> RunRequest:
    return RunRequest(
        source=find_model("tiny-llava"), task=load_task("easy-vqa.shape").head(n_samples), settings=settings
    )


def forecast(settings: dict[str, Any], *, limit: int = 40) -> list[Any]:
    content = {"models": ["tiny-llava"], "tasks": [{"task": "easy-vqa.shape", "limit": limit}], **settings}
    return forecast_runs(select_runs(parse_experiment(content, lines=None)), lines=None, rates={})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bytes_and_objects_are_those_of_a_store(dtype: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"dtype": dtype, "compression": "none", "block": 16}
    (estimate,) = forecast(settings)
    request = request_of(ExtractionSettings(**settings))
    (report,) = extract(tmp_path / "store", [request], engine=SerialEngine())
    assert (report.run, report.n_samples, report.n_blocks) == (estimate.run, estimate.n_samples, estimate.n_blocks)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) == count_all_objects([estimate])
    arrays = {array.name: array for array in plan_run(request).arrays}
    for name in (*SITES, "image_feature"):
        stored = sum(path.stat().st_size for path in files if f"/{name}/c/" in str(path))
        assert stored == count_array_bytes(arrays[name], n_samples=40, block=16, packed=False)
    shards = sum(path.stat().st_size for path in files if "/c/" in str(path))
    assert 0.98 * estimate.disk_bytes < shards <= estimate.disk_bytes
    n_largest = max(len(list(folder.iterdir())) for folder in (tmp_path / "store").rglob("*") if folder.is_dir())
    assert estimate.n_in_folder == n_largest


def test_what_is_compressed_is_told_without_padding(tmp_path: Path) -> None:
    (packed,) = forecast({"dtype": "float32", "block": 1024})
    (padded,) = forecast({"dtype": "float32", "block": 1024, "compression": "none"})
    assert padded.disk_bytes > 20 * packed.disk_bytes
    request = request_of(ExtractionSettings(dtype="float32", block=1024))
    extract(tmp_path / "store", [request], engine=SerialEngine())
    shards = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "/c/" in str(path)]
    assert 0.9 * packed.disk_bytes < sum(path.stat().st_size for path in shards) <= packed.disk_bytes


def test_put_requests_are_those_that_s3_gets(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def count(store: Any, path: str, *rest: Any, **options: Any) -> Any:
        keys.append(path)
        return put(store, path, *rest, **options)

    put = obstore.put
    monkeypatch.setattr(obstore, "put", count)
    extract(s3_url, [request_of(ExtractionSettings(dtype="float32", block=8), n_samples=20)], engine=SerialEngine())
    estimates = forecast({"dtype": "float32", "block": 8}, limit=20)
    assert len(keys) == count_all_puts(estimates)
    assert len(set(keys)) == count_all_objects(estimates)


@pytest.mark.parametrize("share", [True, False])
def test_operations_are_those_that_are_counted(share: bool) -> None:
    """PyTorch counts what it multiplies; only attention within the vision tower is left out of ours."""
    settings = ExtractionSettings(greedy=False, share_images=share, batch_size=1)
    request = request_of(settings, n_samples=8)
    model = load_model(request.source, weights_dtype="float32")
    reading = Reading(sites=settings.sites, share_images=share)
    extractor = Extractor(model, load_processor(request.source), load_family(request.source), reading=reading)
    question = Question(template=request.task.prompt, options=request.task.options, greedy=False)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        extractor.extract(request.task.samples, question, batch_size=1)
    architecture = find_architecture("tiny-llava")
    workload = measure_workload(architecture, request.task, block=1024, share=share)
    assert count_flops(architecture.size, workload, settings) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_hours_follow_the_rate() -> None:
    request = request_of(ExtractionSettings())
    model = find_architecture("tiny-llava")
    workload = measure_workload(model, request.task, block=16, share=True)
    parts: dict[str, Any] = {"arrays": plan_run(request).arrays, "block": 16, "size": model.size, "workload": workload}
    measured = estimate_run("m/t", **parts, settings=request.settings, rate=Rate(samples_per_second=2))
    assert measured.gpu_hours == pytest.approx(40 / 2 / 3600) and measured.rate == "2 samples/s, as measured"
    slow, fast = (
        estimate_run("m/t", **parts, settings=request.settings, rate=Rate(tflops=tflops)) for tflops in (1, 4)
    )
    assert slow.gpu_hours == pytest.approx(4 * fast.gpu_hours) == pytest.approx(slow.flops / 1e12 / 3600)
    several = [
        estimate_run("m/t", **parts, settings=request.settings, rate=rate, n_gpus=n_gpus).gpu_hours
        for rate in (Rate(samples_per_second=2), Rate(tflops=1))
        for n_gpus in (0.5, 4)
    ]
    once = (measured.gpu_hours, slow.gpu_hours)  # half a GPU computes half as fast as a whole one
    assert several == pytest.approx([once[0] / 2, 4 * once[0], once[1], 4 * once[1]])
    assumed = estimate_run("m/t", **parts, settings=request.settings, rate=Rate())
    assert assumed.rate == "10 TFLOP/s, assumed (an A100)"


def test_memory_is_weights_a_batch_and_two_blocks() -> None:
    (small,), (large,) = forecast({"block": 16, "batch_size": 4}), forecast({"block": 32, "batch_size": 8})
    (half,) = forecast({"block": 16, "batch_size": 4, "weights_dtype": "bfloat16"})
    assert small.weights_bytes == 4 * find_architecture("tiny-llava").size.n_parameters == 2 * half.weights_bytes
    assert large.held_bytes == 2 * small.held_bytes and large.batch_bytes > 1.5 * small.batch_bytes
    values = plan_run(request_of(ExtractionSettings())).arrays
    floats = sum(4 * torch.Size(array.trailing).numel() for array in values if array.name in SITES)
    assert small.held_bytes == pytest.approx(2 * 16 * floats, rel=0.05)
    assert small.memory_bytes == small.device_bytes + small.held_bytes
    (long,) = forecast({"block": 16, "batch_size": 4, "tokens": 512})
    one_more = (long.batch_bytes - small.batch_bytes) / (512 - 8)  # of the greedy answer, 8 are passed in any case
    assert one_more > 4 * 4 * sum(math.prod(array.trailing[1:]) for array in values if array.name in SITES)


def test_a_text_model_is_not_planned_on_pictures(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = find_architecture(str(checkpoint("llama")))
    with pytest.raises(UnsupportedModelError, match="expected a model that reads pictures, found one that reads text"):
        measure_workload(model, make_task(tmp_path, with_pictures=True), block=6, share=True)


def test_samples_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    from dataclasses import replace

    model, task = find_architecture("tiny-llava"), load_task("easy-vqa.shape").head(8)
    lost = tuple(replace(sample, images=(ImageFile(tmp_path / "none.png"),)) for sample in task.samples)
    some = replace(task, samples=(*task.samples[:4], *lost[4:]))
    assert "4 of them unreadable: " in measure_workload(model, some, block=8, share=True).basis
    with pytest.raises(CapacityError, match="expected samples that can be computed, found none of 8: "):
        measure_workload(model, replace(task, samples=lost), block=8, share=True)
