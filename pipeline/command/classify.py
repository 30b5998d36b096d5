"""Answering questions about pictures from a model's first layers: ``superneurons classify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import show_line
from ..plain_value import to_plain
from .option import AsJson, ModelPlace, WeightsDtypeName
from .output import print_json

if TYPE_CHECKING:
    from search.classifier_file import PortableClassifier

    from ..early_exit import EarlyExitClassifier

ClassifierFile = Annotated[
    Path, typer.Argument(metavar="CLASSIFIER", help="A file that superneurons search --classifiers wrote.")
]
Adaptive = Annotated[bool, typer.Option("--adaptive/--full-depth", help="Take the classifier's exits, if it has any.")]


def classify(
    classifier: ClassifierFile,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The picture; several are shown together, in this order."),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What is asked; of several, each is answered, the picture read once."),
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="An answer's text, of a multiple choice; given for each.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='JSON lines {"image": ..., "question": ...}; - reads standard input.'),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="List the neurons that voted.")] = False,
    adaptive: Adaptive = True,
    model: ModelPlace = None,
    weights_dtype: WeightsDtypeName = None,
    gpus: Annotated[
        float, typer.Option(metavar="X", min=0, help="Of this machine's GPUs, how many to compute on.")
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads; default: PyTorch's own choice.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions about a picture by the vote of Super Neurons; no layer behind the last of them is loaded.

    A batch is answered as JSON lines on standard output, or as one document with --json; exit code 2 where some of
    them could not be.
    """
    from search.classifier_file import read_classifier

    from ..early_exit import EarlyExitClassifier
    from ..errors import PipelineError
    from ..model import parse_weights_dtype, validate_gpus

    if batch is None and not question:
        raise PipelineError("classify: expected --question with --image, or --batch FILE, found neither; ask something")
    if batch is not None and (question or image or choice):
        raise PipelineError("classify: expected --batch alone or --image with --question, found both; leave one out")
    validate_gpus(gpus, option="--gpus")
    portable = read_classifier(classifier)
    if batch is None:
        _validate_asked(portable, image or [], question or [])
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    loaded = EarlyExitClassifier.load(
        portable,
        model=model,
        weights_dtype=None if weights_dtype is None else parse_weights_dtype(weights_dtype),
        n_gpus=gpus,
        adaptive=adaptive,
    )
    if batch is not None:
        _answer_batch(loaded, batch, explain=explain, as_json=as_json)
    else:
        _answer(loaded, image or [], question or [], choice or [], explain=explain, as_json=as_json)


def _validate_asked(classifier: PortableClassifier, images: list[Path], questions: list[str]) -> None:
    """Check that there is what is asked about, before a model is loaded.

    Raises
    ------
    PipelineError
        If there is no picture where all samples of the classifier's run had one, or a question is empty.
    """
    from ..errors import PipelineError

    if not all(text.strip() for text in questions):
        raise PipelineError("--question: expected a text, found none; ask something")
    if classifier.needs_picture and not images:
        run = classifier.provenance.get("run")
        raise PipelineError(f"--image: expected a picture, found none; give one, as all samples of {run} had")


def _answer(
    loaded: EarlyExitClassifier,
    images: list[Path],
    questions: list[str],
    choices: list[str],
    *,
    explain: bool,
    as_json: bool,
) -> None:
    from ..console import open_console
    from ..prediction_table import print_prediction

    predictions = loaded.classify(images, questions, choices=choices)
    if as_json:
        told: list[dict[str, Any]] = [
            {"question": asked, **prediction.to_dict(explain=explain)}
            for asked, prediction in zip(questions, predictions, strict=True)
        ]
        print_json({"answers": told})
        return
    for asked, prediction in zip(questions, predictions, strict=True):
        print_prediction(open_console(), asked, prediction, n_layers=loaded.n_layers, explain=explain)


def _answer_batch(loaded: EarlyExitClassifier, path: str, *, explain: bool, as_json: bool) -> None:
    from ..early_exit.question_file import answer_lines
    from ..progress import show_steps

    told, failed = [], []
    with show_steps(f"{path}: answer", unit="lines", done="answered") as on_lines:
        for line in answer_lines(loaded, path):
            answer = to_plain(line.to_dict(explain=explain))
            told.append(answer if as_json else None)
            on_lines(len(told), None)
            if not as_json:
                typer.echo(json.dumps(answer))
            if line.prediction is None:
                failed.append(line.error)
    if as_json:
        print_json({"answers": told})
    if failed:
        show_line(f"superneurons: {len(failed)} of {len(told)} lines not answered, the first: {failed[0]}", err=True)
        raise typer.Exit(2)
