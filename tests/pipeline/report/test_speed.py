"""Early exits of a built-in model: what is computed beforehand, and what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.serial import SerialEngine
from pipeline.extraction import extract
from pipeline.inference.encoding import Encoder
from pipeline.model import find_model, load_family, load_model, load_processor
from pipeline.report import CollectionSpec, collect_report
from pipeline.report.speed import find_first_token, find_size
from pipeline.request import RunRequest
from pipeline.settings import ExtractionSettings
from pipeline.task import load_task
from storage import open_dataset

N_SAMPLES = 160


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of one built-in model on one built-in task."""
    folder = tmp_path_factory.mktemp("speed") / "store"
    task = load_task("easy-vqa.shape", limit=N_SAMPLES)
    request = RunRequest(source=find_model("tiny-llava"), task=task, settings=ExtractionSettings(block=80))
    extract(str(folder), [request], engine=SerialEngine(threads=1))
    return folder


def test_the_full_model_that_is_timed_gives_the_answers_that_are_stored(store: Path) -> None:
    run, source = open_dataset(store).run("tiny-llava/easy-vqa.shape"), find_model("tiny-llava")
    task = load_task("easy-vqa.shape", limit=6)
    model = load_model(source, weights_dtype="float32")
    encoder = Encoder(model, load_family(source), load_processor(source), template=task.prompt)
    tokens = run.circumstances["option_tokens"]
    stored = run.read_samples("option_logit")[:6].argmax(axis=1)
    for sample, answer in zip(task.samples, stored, strict=True):
        assert find_first_token(model, encoder.encode([sample], [0])) in tokens[answer]


def test_exits_are_computed_and_measured_where_the_model_is_here(store: Path) -> None:
    dataset = open_dataset(store)
    (computed,) = collect_report(dataset, CollectionSpec(max_pictures=0)).speeds
    assert not computed.is_measured and "not measured" in computed.how
    shares = [one.operations_fraction or 0 for one in computed.exits]
    assert len(shares) == computed.n_layers == 12
    assert shares == sorted(shares) and 0 < shares[0] < 1 / 12 and shares[-1] < 1
    content = collect_report(dataset, CollectionSpec(measure_speed=True, max_pictures=8))
    (measured,) = content.speeds
    assert measured.is_measured and measured.n_measured == 8
    assert "threads: " in measured.how and "7 rounds" in measured.how
    assert measured.n == content.runs[0].n_split["test"]
    known = {one.depth: one for one in computed.exits}
    for one in measured.exits:
        assert one.exit_s is not None and one.full_s is not None and one.exit_s > 0
        assert one.ratio is not None and one.ratio_min is not None and one.ratio_max is not None
        assert one.ratio_min <= one.ratio <= one.ratio_max
        assert one.accuracy == known[one.depth].accuracy
    assert "speed" not in content.notes
    assert len(content.pictures) == 8


def test_a_model_that_is_nowhere_has_no_size() -> None:
    assert find_size("") is None
    assert find_size("../../etc") is None
    assert find_size("no/such") is None
    size = find_size("llava-hf/llava-1.5-7b-hf")
    assert size is not None and size.n_layers == 32
    assert np.isfinite(size.n_block)
