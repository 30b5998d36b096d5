"""The portable classifier: Super Neurons as a small JSON file, with all that it takes to use them elsewhere."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.limit import MAX_DOCUMENT_BYTES
from storage.result import Result

from .classifier import SuperNeurons
from .early_exit import Cascade, EarlyExit
from .early_exit.cascade import validate_exits
from .errors import SearchError
from .scan import Scan
from .selection import Selection
from .stump_table import StumpTable

if TYPE_CHECKING:
    from .classifier_document import ClassifierDocument, NeuronEntry

CLASSIFIER_FORMAT = "superneurons-classifier"
CLASSIFIER_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PortableClassifier:
    """Super Neurons with the answers that they choose among, and where they come from.

    ``options`` are texts in the order of their indices; ``identity`` is that of the run that they were found in, model
    and prompt included; ``provenance`` tells run, scan and selection. ``prompt`` is the user's turn with ``{question}``
    in it, None where the run does not tell; ``exits`` are depths at which samples may be answered early.
    """

    super_neurons: SuperNeurons
    options: tuple[str, ...]
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    prompt: str | None = None
    exits: tuple[EarlyExit, ...] = ()

    @property
    def cascade(self) -> Cascade:
        """The exits with the Super Neurons behind them."""
        return Cascade(exits=self.exits, last=self.super_neurons)

    @property
    def needs_picture(self) -> bool:
        """Whether all samples of the run had a picture, so that an answer without one means nothing.

        False, too, where the file does not tell, as those of older runs do not.
        """
        return self.provenance.get("shows_pictures") is True


def make_portable(
    super_neurons: SuperNeurons,
    scan: Scan,
    selection: Selection,
    *,
    exits: Sequence[EarlyExit] = (),
    max_loss: float | None = None,
) -> PortableClassifier:
    """Return the classifier with what it was found in; `exits` are those of a cascade calibrated with `max_loss`.

    Raises
    ------
    SearchError
        If an exit cannot stand before the Super Neurons.
    """
    validate_exits(exits, super_neurons, where=f"run {scan.run.name}")
    provenance = {
        "run": scan.run.name,
        "scan": asdict(scan.spec),
        "selection": asdict(selection),
        "n_neurons_searched": scan.n_neurons,
        "n_probe": len(scan.supervision.rows("probe")),
        "n_validation": len(scan.supervision.rows("validation")),
        "generator": f"superneurons {version('superneurons')}",
    } | ({} if max_loss is None else {"max_loss": max_loss})
    if (shows_pictures := scan.run.circumstances.get("shows_pictures")) is not None:
        provenance["shows_pictures"] = shows_pictures
    options = tuple(scan.run.read_options())
    prompt = scan.run.circumstances.get("prompt_template")
    return PortableClassifier(
        super_neurons=super_neurons,
        options=options,
        identity=scan.run.identity,
        provenance=provenance,
        prompt=prompt,
        exits=tuple(exits),
    )


def encode_classifier(classifier: PortableClassifier) -> bytes:
    """Return the classifier as JSON text; the same classifier gives the same bytes."""
    document = {
        "format": CLASSIFIER_FORMAT,
        "format_version": CLASSIFIER_VERSION,
        "options": list(classifier.options),
        "fallback": classifier.super_neurons.fallback,
        "neurons": classifier.super_neurons.describe(),
        "identity": dict(classifier.identity),
        "provenance": dict(classifier.provenance),
        "prompt": classifier.prompt,
        "exits": [{"margin": early.margin, "neurons": early.super_neurons.describe()} for early in classifier.exits],
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def write_classifier(path: str | Path, classifier: PortableClassifier) -> None:
    """Write the classifier to a file, replacing it in one step; its folder is made if there is none."""
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(encode_classifier(classifier))
        partial.replace(target)
    except OSError as error:
        raise SearchError(f"{path}: expected a place to write to, found: {error.strerror}; choose another") from error


def save_classifier(result: Result, classifier: PortableClassifier) -> str:
    """Write the classifier into the store, beside the scan it was chosen from, and return its key.

    Its name tells its content, so that one of another selection has another name.
    """
    content = encode_classifier(classifier)
    return result.write_file(f"classifier-{hashlib.sha256(content).hexdigest()[:12]}.json", content)


def read_classifier(path: str | Path) -> PortableClassifier:
    """Return the classifier of a file.

    Raises
    ------
    SearchError
        If there is no such file, or it holds something else.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for
            raise SearchError(f"{path}: expected a classifier, found something else than a file; name its file")
        with Path(path).open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise SearchError(f"{path}: expected a classifier, found: {error.strerror}; name its file") from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise SearchError(f"{path}: expected a classifier of at most {MAX_DOCUMENT_BYTES} bytes, found more")
    return parse_classifier(content, where=str(path))


def parse_classifier(content: bytes, *, where: str) -> PortableClassifier:
    """Return the classifier that JSON text describes.

    Raises
    ------
    SearchError
        Naming the first thing that is not as it should be.
    """
    from pydantic import ValidationError

    from .classifier_document import ClassifierDocument

    try:
        document = ClassifierDocument.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise SearchError(
            f"{where}: expected a {CLASSIFIER_FORMAT} of version 1 or {CLASSIFIER_VERSION}, found in {place}: "
            f"{first['msg']}; write it anew with `superneurons search --classifiers`"
        ) from error
    super_neurons = _parse_neurons(document, document.neurons, where=where)
    exits = tuple(
        EarlyExit(
            super_neurons=_parse_neurons(document, entry.neurons, where=f"{where}, exit {number}"), margin=entry.margin
        )
        for number, entry in enumerate(document.exits)
    )
    validate_exits(exits, super_neurons, where=where)
    return PortableClassifier(
        super_neurons=super_neurons,
        options=tuple(document.options),
        identity=document.identity,
        provenance=document.provenance,
        prompt=document.prompt,
        exits=exits,
    )


def _parse_neurons(document: ClassifierDocument, neurons: Sequence[NeuronEntry], *, where: str) -> SuperNeurons:
    """Return `neurons`, all of the file or those of an exit, as what answers with its options."""
    n_options = len(document.options)
    targets = (1,) if n_options == 2 else tuple(range(n_options))
    strangers = {neuron.option for neuron in neurons} - set(targets)
    if strangers or not 0 <= document.fallback < n_options:
        raise SearchError(
            f"{where}: expected neurons and answers of {n_options} options, found "
            f"{sorted(strangers) or document.fallback}; "
            "write it anew with `superneurons search --classifiers`"
        )
    groups = [[neuron for neuron in neurons if neuron.option == target] for target in targets]
    return SuperNeurons(
        contrasts=tuple(map(_tabulate, groups)),
        weights=tuple(np.array([neuron.weight for neuron in group]) for group in groups),
        fallback=document.fallback,
    )


def _tabulate(neurons: Sequence[NeuronEntry]) -> StumpTable:
    def column(name: str, dtype: str) -> Any:
        return np.array([getattr(neuron, name) for neuron in neurons], dtype=dtype)

    whole = {name: column(name, "i8") for name in ("token", "layer", "unit")}
    figures = {
        name: column(name, "f8") for name in ("score", "threshold", "sensitivity", "specificity", "auroc", "q_value")
    }
    return StumpTable(site=column("site", "U16"), polarity=column("polarity", "i1"), **whole, **figures)
