"""Adapters: records that do not hold what a description can name, made into such that do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
Adapter = Callable[[Record, int], Iterator[Record]]
"""From a record and its number to records; ``doc_to_visual`` among their fields stands for the description's."""


def find_adapter(name: str | None) -> Adapter:
    """Return the adapter of that name; without one, records stay as they are."""
    return ADAPTERS[name]


def _keep(record: Record, row: int) -> Iterator[Record]:
    del row
    yield record


def adapt_vizwiz(record: Record, row: int) -> Iterator[Record]:
    """Add ``answerable``, which most of the ten ``answers`` decide; without answers (the test split) there is none."""
    del row
    answers = record["answers"]
    if answers:
        told = Counter(answer.strip().lower() == "unanswerable" for answer in answers)
        yield {**record, "answerable": "unanswerable" if told[True] > told[False] else "answerable"}


def adapt_naturalbench(record: Record, row: int) -> Iterator[Record]:
    """Give the four questions of a group, in the order Q0I0, Q0I1, Q1I0, Q1I1, with ``group`` and ``place``.

    Both forms are read: a record a group, as published, and a record a question, where four follow each other.

    References
    ----------
    Li et al., "NaturalBench: Evaluating Vision-Language Models on Natural Adversarial Samples", NeurIPS 2024.
    """
    kind = record.get("Question_Type", record.get("Question Type"))
    if "Image_0" not in record:
        number = int(record["Index"])
        question, image = divmod(number % 4, 2)
        yield {**record, "Question_Type": kind, "group": number // 4, "place": f"q{question}-i{image}"}
        return
    for question in (0, 1):
        for image in (0, 1):
            yield {
                "Question": record[f"Question_{question}"],
                "Answer": record[f"Image_{image}_Question_{question}"],
                "Question_Type": kind,
                "group": record.get("Index", row),
                "place": f"q{question}-i{image}",
                f"Image_{image}": record[f"Image_{image}"],
                "doc_to_visual": (f"Image_{image}",),
            }


ADAPTERS: Mapping[str | None, Adapter] = {
    None: _keep,
    "vizwiz": adapt_vizwiz,
    "naturalbench": adapt_naturalbench,
}
