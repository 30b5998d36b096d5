"""Which model, and which prompt, a portable classifier was made for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from search.classifier_file import PortableClassifier

from ..errors import ClassifierError, ModelNotFoundError, TaskError, TaskNotFoundError
from ..model import ATTENTION, IMAGE_BACKEND, ModelSource, find_model
from ..sample import MAX_IMAGE_PIXELS
from ..task import describe_task, split_name

COMPARED = {
    "config": "configuration",
    "processor": "processor or tokenizer",
    "revision": "revision of its weights",
}
"""What of a checkpoint has to be as it was, from what is most different to what is least."""

KERNELS: Mapping[str, Any] = {
    "attention": ATTENTION,
    "image_backend": IMAGE_BACKEND,
    "max_image_pixels": MAX_IMAGE_PIXELS,
}


def find_classifier_model(classifier: PortableClassifier, *, model: str | None = None) -> ModelSource:
    """Return the checkpoint that `classifier` was made for, after a check that it is the same.

    Parameters
    ----------
    classifier
        Of a run that was extracted.
    model
        Where the model is, if its own id does not tell: a local folder or a hub id.

    Raises
    ------
    ClassifierError
        If the model is another, of another revision, or unknown.
    ModelNotFoundError
        If there is none.
    """
    where, identity = name_classifier(classifier), classifier.identity
    if "model_id" not in identity:
        raise ClassifierError(
            f"{where}: expected Super Neurons of a model that was extracted, found those of imported arrays; there is "
            "no model to run"
        )
    known = identity["model_id"]
    try:
        source = find_model(model or (f"{known}@{identity['revision']}" if "/" in known else known))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{where}: {error}; or say with --model where it is") from error
    found = source.identity()
    for part, text in COMPARED.items():
        if identity.get(part) != found[part]:
            raise ClassifierError(
                f"{where}: expected model {known!r} with the {text} {_shorten(identity.get(part))}, found "
                f"{_shorten(found[part])} in {source.folder}; name the model that it was made for with --model, or "
                "search for Super Neurons of this one"
            )
    for part, own in KERNELS.items():
        if identity.get(part, own) != own:
            raise ClassifierError(
                f"{where}: expected activations made with {part} {own!r}, as this version makes them, found "
                f"{identity[part]!r}; use the version of this package that it was made with"
            )
    return source


def find_prompt(classifier: PortableClassifier) -> str:
    """Return the template that questions are put into, as the task of `classifier` has it.

    Raises
    ------
    ClassifierError
        If the file does not tell, and no known task of that name has a template with that digest.
    """
    expected = classifier.identity.get("prompt_template")
    prompt = classifier.prompt
    if prompt is None:
        try:
            prompt = describe_task(split_name(str(classifier.identity.get("task", "")))[0]).prompt
        except (TaskNotFoundError, TaskError):
            prompt = None
    if prompt is None or (expected is not None and hashlib.sha256(prompt.encode()).hexdigest() != expected):
        raise ClassifierError(
            f"{name_classifier(classifier)}: expected the prompt of its task, found none with the digest "
            f"{_shorten(expected)}; extract and search anew, which keeps it"
        )
    return prompt


def name_classifier(classifier: PortableClassifier) -> str:
    """Return what a classifier is called in messages: the run that it was found in."""
    return f"classifier of {classifier.provenance.get('run', 'an unknown run')}"


def _shorten(digest: Any) -> str:
    return str(digest).removeprefix("sha256:")[:12]
