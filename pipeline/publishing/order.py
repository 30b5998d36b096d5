"""What is asked for when a dataset is published."""

from __future__ import annotations

from dataclasses import dataclass

from storage.schema import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOrder:
    """What is published of a dataset, and what is said of it.

    Attributes
    ----------
    license
        By the identifier that the Hugging Face hub lists.
    runs
        Names or patterns such as ``tiny-llava/*``; without any, all runs.
    sites
        Only these; None: all that are recorded.
    questions
        Whether questions are published, and one rendered prompt of each run. Pictures never are.
    results
        Whether searches, studies and ledgers come along.
    scrub
        Whether paths, users and hosts are replaced in what tells how runs came about.
    title, authors, description, url
        Of the dataset card; ``url`` is where a folder or a bucket will be read from.
    private
        Of the hub's repository, if it is made now.
    """

    license: str
    runs: tuple[str, ...] = ()
    sites: tuple[Site, ...] | None = None
    questions: bool = False
    results: bool = True
    scrub: bool = False
    title: str | None = None
    authors: tuple[str, ...] = ()
    description: str = ""
    url: str | None = None
    private: bool = False

    @property
    def texts(self) -> dict[str, str]:
        """What is said of the dataset, by the option of the command that says it."""
        return {
            "--title": self.title or "",
            "--author": "\n".join(self.authors),
            "--description": self.description,
            "--url": self.url or "",
        }
