"""Samples that cannot be read: the rest of their block is whole, they are listed, and they can be tried again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.engine.inquest import KILLED
from pipeline.engine.job import BlockReport, Engine
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.serial import SerialEngine
from pipeline.errors import ExtractionError
from pipeline.extraction import extract
from pipeline.model import find_model
from pipeline.request import RunRequest
from pipeline.sample import ImageFile, Sample
from pipeline.settings import ExtractionSettings
from pipeline.task import Task, load_task
from storage import open_dataset
from storage.schema import ASIDE
from tests.storage.fake_run import shard_bytes

from .killer import Killer

RUN = "tiny-llava/easy-vqa.shape"
SETTINGS = ExtractionSettings(block=8, batch_size=8, dtype="float32")


def request(samples: Sequence[Sample]) -> RunRequest:
    task = replace(load_task("easy-vqa.shape"), samples=tuple(samples))
    return RunRequest(source=find_model("tiny-llava"), task=task, settings=SETTINGS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Return 16 samples whose pictures are files of their own, three of them not there."""
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for sample in load_task("easy-vqa.shape").samples[:16]:
        (source,) = sample.images
        assert isinstance(source, ImageFile)
        made.append(replace(sample, images=(ImageFile(folder / f"{sample.sample_id}.png"),)))
        shutil.copy(source.path, folder / f"{sample.sample_id}.png")
    return made


@pytest.fixture
def absent(samples: list[Sample], tmp_path: Path) -> list[ImageFile]:
    """Take the pictures of samples 2 and 9 away for the time of a test, and give them."""
    taken = [source for place in (2, 9) for source in samples[place].images if isinstance(source, ImageFile)]
    for source in taken:
        source.path.rename(tmp_path / source.path.name)
    return taken


def put_back(taken: list[ImageFile], folder: Path) -> None:
    for source in taken:
        if not source.path.exists():
            (folder / source.path.name).rename(source.path)


def test_a_missing_picture_is_listed_and_tried_again(
    tmp_path: Path, samples: list[Sample], absent: list[ImageFile]
) -> None:
    store, asked = tmp_path / "store", [request(samples)]
    (report,) = extract(store, asked, engine=SerialEngine())
    named = [samples[2].sample_id, samples[9].sample_id]
    assert list(report.quarantined) == named
    assert all("expected a picture, found" in reason for reason in report.quarantined.values())
    run = open_dataset(store).run(RUN)
    assert (~run.read_samples("valid")).nonzero()[0].tolist() == [2, 9]
    open_dataset(store).validate(full=True)

    (again,) = extract(store, asked, engine=SerialEngine())
    assert (again.n_computed, list(again.quarantined)) == (0, named)
    before = shard_bytes(open_dataset(store))
    (vain,) = extract(store, asked, engine=SerialEngine(), retry_quarantined=True)
    assert (vain.n_computed, list(vain.quarantined)) == (2, named)
    assert shard_bytes(open_dataset(store)) == before  # nothing is moved for nothing
    assert not (store / ASIDE).exists()

    put_back(absent[:1], tmp_path)
    (half,) = extract(store, asked, engine=SerialEngine(), retry_quarantined=True)
    assert list(half.quarantined) == named[1:]
    put_back(absent, tmp_path)
    (whole,) = extract(store, asked, engine=SerialEngine(), retry_quarantined=True)
    assert (whole.n_computed, whole.quarantined) == (1, {})
    extract(tmp_path / "clean", asked, engine=SerialEngine())
    dataset = open_dataset(store)
    dataset.validate(full=True)
    assert dataset.run(RUN).is_marked_complete
    mended = {key: content for key, content in shard_bytes(dataset).items() if not key.startswith(ASIDE)}
    assert mended == shard_bytes(open_dataset(tmp_path / "clean"))


def test_the_command_lists_and_tries_again(
    tmp_path: Path,
    samples: list[Sample],
    absent: list[ImageFile],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task: Task = request(samples).task
    monkeypatch.setattr("pipeline.planning.choice.load_task", lambda *_, **__: task)
    words = ["superneurons", "extract", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--serial"]
    words += ["--store", str(tmp_path / "store"), "--block", "8", "--batch-size", "8"]

    def call(*more: str) -> str:
        monkeypatch.setattr("sys.argv", [*words, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert f"quarantined: {samples[2].sample_id}: " in call()
    put_back(absent, tmp_path)
    assert "quarantined" in call()
    assert "quarantined" not in call("--retry-quarantined")


def test_a_sample_that_kills_its_worker_is_found(ray_session: None, tmp_path: Path, samples: list[Sample]) -> None:
    armed = tmp_path / "armed"
    armed.touch()
    (picture,) = samples[2].images
    assert isinstance(picture, ImageFile)
    deadly = [*samples[:2], replace(samples[2], images=(Killer(picture, armed),)), *samples[3:16]]
    asked, reports = [request(deadly)], list[BlockReport]()
    engine = RayEngine(n_workers=1)
    (report,) = extract(tmp_path / "store", asked, engine=engine, on_report=reports.append)
    assert report.quarantined == {samples[2].sample_id: KILLED}
    assert sorted(told.block for told in reports) == [0, 1]
    run = open_dataset(tmp_path / "store").run(RUN)
    assert (~run.read_samples("valid")).nonzero()[0].tolist() == [2]

    armed.unlink()
    (mended,) = extract(tmp_path / "store", asked, engine=SerialEngine(), retry_quarantined=True)
    assert mended.quarantined == {}
    extract(tmp_path / "clean", [request(samples)], engine=SerialEngine())
    clean = open_dataset(tmp_path / "clean").run(RUN)
    np.testing.assert_array_equal(
        open_dataset(tmp_path / "store").run(RUN).read_samples("option_logit"), clean.read_samples("option_logit")
    )


class Doomed:
    """A worker that dies of whatever it is given."""

    def __init__(self, *, threads: int, n_gpus: float) -> None:
        pass

    def run(self, job: object) -> BlockReport:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_workers_that_die_of_everything_accuse_no_sample(
    ray_session: None, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", Doomed)
    engine: Engine = RayEngine(n_workers=1)
    with pytest.raises(ExtractionError, match="1 failed .*its worker dies before it has seen a sample"):
        extract(tmp_path / "store", [request(samples[:4])], engine=engine)
    assert open_dataset(tmp_path / "store").run(RUN).pending_blocks()
