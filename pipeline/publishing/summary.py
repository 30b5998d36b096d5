"""What all texts of a publication say alike: its keywords, its figures in a sentence, sizes as people read them."""

from __future__ import annotations

from collections.abc import Iterable

from .publication import Publication

KEYWORDS = ("superneurons", "zarr", "interpretability", "vision-language", "activations", "visual-question-answering")


def describe_briefly(publication: Publication) -> str:
    """Return what the publishers say of a dataset, on one line; if nothing, what it holds."""
    said = " ".join(publication.description.split())
    return said or f"Scalar activations of vision-language models: {count_content(publication)}."


def count_content(publication: Publication) -> str:
    """Return how much a publication holds, such as ``20 runs of 2 models on 10 tasks, 27,560 samples in all``."""
    models = {run.model for run in publication.runs}
    tasks = {run.task for run in publication.runs}
    return (
        f"{count(len(publication.runs), 'run')} of {count(len(models), 'model')} on {count(len(tasks), 'task')}, "
        f"{count(publication.n_samples, 'sample')} in all"
    )


def count(number: int, word: str) -> str:
    """Return a number with its word, in the plural where it is not one."""
    plural = f"{word}es" if word.endswith("ch") else f"{word[:-1]}ies" if word.endswith("dy") else f"{word}s"
    return f"{number:,} {word if number == 1 else plural}"


def format_bytes(n_bytes: int) -> str:
    """Return a size in bytes, kB, MB, GB or TB, each a thousand of the one before."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def list_words(words: Iterable[str]) -> str:
    """Return words as a sentence lists them: ``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
