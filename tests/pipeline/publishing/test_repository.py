"""The repository itself holds no secret."""

from __future__ import annotations

from pathlib import Path

from pipeline.publishing.secret import find_secrets

ROOT = Path(__file__).parents[3]


def test_no_text_of_the_repository_holds_a_secret() -> None:
    texts = [
        path
        for folder in ("pipeline", "search", "storage", "tests", "docs", "experiments", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".md", ".yaml", ".json", ".sh", ".jinja")
    ]
    assert len(texts) > 300
    assert [path for path in texts if find_secrets(path.read_text(encoding="utf-8"))] == []
