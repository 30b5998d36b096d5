"""What Prometheus reads of an extraction from Ray's own endpoint."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from threading import Event

from pipeline.engine.job import BlockReport
from pipeline.engine.ray_engine import RayEngine
from pipeline.extraction import extract
from pipeline.model import find_model
from pipeline.request import RunRequest
from pipeline.settings import ExtractionSettings
from pipeline.task import load_task

N_SAMPLES = 40


def read_metric(name: str) -> list[tuple[str, float]]:
    """Return every sample of a metric that the nodes export: its tags and its value."""
    import ray

    found = []
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        found += re.findall(rf"^\w*{name}(?:_total)?{{(.*)}} (\S+)$", text, flags=re.MULTILINE)
    return [(tags, float(value)) for tags, value in found]


def test_ray_exports_what_was_done(ray_session: None, tmp_path: Path) -> None:
    settings = ExtractionSettings(block=16, batch_size=16, dtype="float32")
    task = load_task("easy-vqa.color").head(N_SAMPLES)
    request = RunRequest(source=find_model("tiny-llava"), task=task, settings=settings)
    reports: list[BlockReport] = []
    extract(tmp_path / "store", [request], engine=RayEngine(n_workers=1), on_report=reports.append)
    wanted = {
        "superneurons_samples": N_SAMPLES,
        "superneurons_written_bytes": sum(report.n_bytes for report in reports),
    }
    for _ in range(60):  # Ray hands its figures on every few seconds
        found = {name: [value for tags, value in read_metric(name) if "easy-vqa.color" in tags] for name in wanted}
        if all(found.values()) and {name: values[0] for name, values in found.items()} == wanted:
            break
        Event().wait(0.5)
    assert {name: values[:1] for name, values in found.items()} == {name: [value] for name, value in wanted.items()}
    rates = read_metric("superneurons_samples_per_second")
    assert next(rate for tags, rate in rates if "easy-vqa.color" in tags) > 0
