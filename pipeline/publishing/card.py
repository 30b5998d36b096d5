"""The card of a published dataset: its README.md, as the Hugging Face hub and people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.manifest import MANIFEST

from ..task import task_names
from .access import describe_access
from .citation import PAPER_BIBTEX, PAPER_TITLE, PAPER_URL, write_bibtex
from .inventory import list_models, list_runs, list_tasks
from .license import parse_license
from .markdown import code, escape, fence, link, table
from .publication import Publication
from .summary import KEYWORDS, count, count_content, format_bytes

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
"""How the hub calls sizes, each with the number of samples that it ends at."""

LARGEST_SIZE = "10M<n<100M"

ARRAYS = (
    ("residual", "sample, token, layer, unit", "output of each block of the language model"),
    ("mlp", "sample, token, layer, unit", "input of the MLP's down projection: the MLP's neurons"),
    ("heads", "sample, token, layer, unit", "input of the attention's output projection, all heads side by side"),
    ("rms", "sample, token, layer", "root mean square of each block's output"),
    ("option_logit", "sample, option", "log-probability that the answer's first token begins the option"),
    ("lens_logit", "sample, token, layer, option", "logit lens: the same, read off each layer"),
    ("image_feature", "sample, feature", "mean of the projected image tokens"),
    ("answer_token, base_answer", "sample", "what the model itself answers"),
    ("label", "sample", "index of the right option"),
    ("split", "sample", "0 probe, 1 validation, 2 test"),
    ("valid", "sample", "whether the sample could be read; activations are NaN where not"),
    ("sample_id, image_id, split_key, question", "sample", "the sample itself"),
)


def write_card(publication: Publication) -> str:
    """Return the text of a publication's README.md: a card with YAML in front.

    Names, prompts and whatever else stands in the runs' records are shown as they are: none can become markup.

    Raises
    ------
    PublicationError
        If the hub lists no such licence.
    """
    front = _describe_front(publication).to_yaml()
    parts = [
        _write_summary(publication),
        _write_contents(publication),
        f"## Reading it\n\n{describe_access(publication)}",
        _write_arrays(),
        _write_withheld(publication),
        _write_limits(publication),
        _write_making(publication),
        _write_integrity(),
        _write_citation(publication),
    ]
    return f"---\n{front}\n---\n\n" + "\n\n".join(parts) + "\n"


def _describe_front(publication: Publication) -> DatasetCardData:
    """Return what programs read of a card."""
    from huggingface_hub import DatasetCardData

    is_english = {run.task for run in publication.runs} <= set(task_names())
    return DatasetCardData(
        license=parse_license(publication.license).name,
        pretty_name=" ".join(publication.title.split()),
        language=["en"] if is_english and publication.runs else None,
        tags=[*KEYWORDS[:-1], "super-neurons"],
        task_categories=["visual-question-answering"],
        size_categories=[name_size(publication.n_samples)],
        viewer=False,
    )


def name_size(n_samples: int) -> str:
    """Return the hub's name for a number of samples, such as ``10K<n<100K``."""
    return next((name for end, name in SIZES if n_samples < end), LARGEST_SIZE)


def _write_summary(publication: Publication) -> str:
    said = [escape(paragraph) for paragraph in publication.description.split("\n\n") if paragraph.strip()]
    where = [f"Read it from {link(publication.page or publication.url)}."] if publication.url else []
    what = (
        "Scalar activations of vision-language models, read while the first token of an answer is produced, in the "
        "sharded Zarr format of `superneurons`. Some single activations, compared with a threshold, answer the "
        f"question: they are *Super Neurons* ([arXiv]({PAPER_URL}))."
    )
    holds = (
        f"It holds {count_content(publication)}: {count(publication.n_objects, 'object')}, "
        f"{format_bytes(publication.n_bytes)}, published on {publication.published.isoformat()}."
    )
    return "\n\n".join([f"# {escape(publication.title)}", *said, what, " ".join([holds, *where])])


def _write_contents(publication: Publication) -> str:
    parts = ["## What is in it", list_runs(publication)]
    if publication.n_searches or publication.n_studies:
        parts.append(
            f"With them come {count(publication.n_searches, 'search')} (`_search`: scores of all neurons, and "
            f"classifiers) and {count(publication.n_studies, 'study')} of several runs (`_transfer`)."
        )
    parts += ["### Models", list_models(publication), "### Tasks", list_tasks(publication)]
    parts.append(
        "Samples fall into probe (half), validation (a fifth) and test by a hash of the picture, the same in every "
        "task, unless the task has splits of its own."
    )
    return "\n\n".join(parts)


def _write_arrays() -> str:
    rows = [(", ".join(code(name) for name in names.split(", ")), dims, meaning) for names, dims, meaning in ARRAYS]
    return "\n\n".join(
        [
            "## The arrays",
            "A run has those of these arrays that it records:",
            table(("array", "dimensions", "holds"), rows),
            "Token 0 is read at the last position of the prompt; layers and units count from 0. A shard holds one "
            "block of samples of one layer, so that some units of one layer are read without the others. Every run's "
            "attributes say what its values depend on (`identity`) and how it came about (`circumstances`).",
        ]
    )


def _write_withheld(publication: Publication) -> str:
    lines = ["- Pictures are in no dataset of this kind: `image_id` is a hash of their pixels."]
    for name in publication.withheld:
        if name == "question":
            lines.append(
                "- `question` holds a digest instead of each text: the texts are the task's publishers'. Equal "
                "questions have equal digests, and the task, read again, gives the texts back by `sample_id`."
            )
        else:
            lines.append(f"- {code(name)} holds nothing of its values.")
    if "question" not in publication.withheld:
        lines.append("- `question` holds the texts; the terms of their publishers hold for them (see *Tasks*).")
    return "\n".join(["## What is left out\n", *lines])


def _write_limits(publication: Publication) -> str:
    """Return what a reader must not expect of the dataset; only what is true of it."""
    from ..model.source import BUILTIN_MODELS

    small = sorted({run.model for run in publication.runs if run.model_id in BUILTIN_MODELS})
    invalid = sum(run.n_invalid for run in publication.runs)
    lines = []
    if small:
        names = ", ".join(code(name) for name in small)
        lines.append(
            f"{names}: small models that come with `superneurons`, trained for its tasks. What is found on them need "
            "not hold for any other model."
        )
    if any(run.dtype == "float16" for run in publication.runs):
        lines.append("Activations of float16 are rounded to 11 bits; nothing in them overflowed.")
    lines += [
        "A run is of one prompt. Other words may give other activations, and other answers.",
        "Nothing was changed in the models: there are no ablations or other interventions, and that an activation "
        "tells the answer does not say that the model uses it.",
        "Labels are those of the tasks' own datasets, with their mistakes.",
        "The test split is for the last look. Each time `superneurons` opens it in a store, it says so there, below "
        "`_ledger`; what others did with a copy, no ledger knows.",
    ]
    if invalid:
        lines.append(f"{count(invalid, 'sample')} could not be read: `valid` is false for them.")
    return "\n".join(["## Limits\n", *(f"- {line}" for line in lines)])


def _write_making(publication: Publication) -> str:
    found: dict[str, set[str]] = {}
    for run in publication.runs:
        for name, version in run.libraries.items():
            found.setdefault(name, set()).add(version)
    is_extracted = [run.source is None for run in publication.runs]
    made = []
    if any(is_extracted):
        made.append(
            "Each model read each prompt once, and what its blocks computed at the last position was written as it "
            "came (`superneurons extract`). Activations are those of batches, equal to those of single samples within "
            "rounding."
        )
    if not all(is_extracted):
        made.append("Activations of runs that name where they were imported from were computed elsewhere.")
    if not found:
        return "\n\n".join(["## How it was made", " ".join(made)])
    rows = [(escape(name), ", ".join(escape(version) for version in sorted(found[name]))) for name in sorted(found)]
    return "\n\n".join(["## How it was made", " ".join(made), table(("library", "versions"), rows)])


def _write_integrity() -> str:
    return "\n\n".join(
        [
            "## Is it whole?",
            f"`{MANIFEST}` lists every object with its SHA-256. In a copy of the dataset:",
            fence(f"sha256sum --check --quiet {MANIFEST}", "sh"),
            "Each block of samples also has a commit record (`_commits`), which lists its shards with sizes and "
            "digests: `superneurons validate --full` compares them, and a shard that is missing or altered is an error "
            "to `superneurons`, which other Zarr readers may take for fill values.",
        ]
    )


def _write_citation(publication: Publication) -> str:
    licence = parse_license(publication.license)
    named = link(licence.url, licence.name) if licence.url else code(licence.name)
    return "\n\n".join(
        [
            "## Licence and citation",
            f"The dataset's licence is {named}. Models and tasks have their own (see above).",
            fence(write_bibtex(publication), "bibtex"),
            f'The method is that of "{PAPER_TITLE}":',
            fence(PAPER_BIBTEX, "bibtex"),
        ]
    )
