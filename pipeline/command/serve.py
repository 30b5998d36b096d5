"""Answering over HTTP: ``superneurons serve``."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .classify import Adaptive, ClassifierFile
from .cluster import Address
from .option import AsJson, ModelPlace, WeightsDtypeName
from .output import print_json

if TYPE_CHECKING:
    from ..serving.service import Service

SHOWN_OPTIONS = 8

NAP_S = 0.5


def serve(
    classifier: ClassifierFile,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is every network that this machine is in."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes that answer, each with the model loaded.")
    ] = 1,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="CPU threads of each replica.")] = 1,
    gpus_per_replica: Annotated[
        float, typer.Option(metavar="X", min=0, help="GPUs that each replica asks Ray for.")
    ] = 0,
    address: Address = None,
    model: ModelPlace = None,
    weights_dtype: WeightsDtypeName = None,
    adaptive: Adaptive = True,
    max_batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=4096, help="Requests computed together, at most.")
    ] = 32,
    batch_wait: Annotated[
        float, typer.Option(metavar="X", min=0, max=60, help="Seconds that a request waits for others to join it.")
    ] = 0.01,
    max_upload_mb: Annotated[
        float, typer.Option(metavar="X", min=0.001, max=1000, help="Megabytes of a request, at most.")
    ] = 10,
    max_questions: Annotated[
        int, typer.Option(metavar="N", min=1, max=4096, help="Questions of a request, at most.")
    ] = 64,
    as_json: AsJson = False,
) -> None:
    """Answer questions about pictures over HTTP, until Ctrl-C: several clients' in one pass of the model.

    GET / tells what can be sent. Nothing but this machine can ask unless --host says so.
    """
    from search.classifier_file import read_classifier

    from ..model import parse_weights_dtype
    from ..serving.limit import MIN_OPEN, OPEN_BATCHES, Limits
    from ..serving.replica import ReplicaSettings
    from ..serving.service import Service

    limits = Limits(
        max_upload_bytes=round(1e6 * max_upload_mb),
        max_questions=max_questions,
        max_open=max(MIN_OPEN, OPEN_BATCHES * max_batch),
    )
    settings = ReplicaSettings(
        classifier=read_classifier(classifier),
        model=model,
        weights_dtype=None if weights_dtype is None else parse_weights_dtype(weights_dtype),
        adaptive=adaptive,
        threads=threads,
        n_gpus=gpus_per_replica,
        max_batch=max_batch,
        batch_wait_s=batch_wait,
        limits=limits,
    )
    settings.validate()
    _run(Service(replica=settings, n_replicas=replicas, host=host, port=port, address=address), as_json=as_json)


def _run(service: Service, *, as_json: bool) -> None:
    """Serve until a signal comes: once it serves, Ctrl-C and SIGTERM are how it is to end."""
    from ..serving.service import deploy, start_ray

    is_serving = False
    output = sys.stdout
    try:
        # Ray prints deaths of workers to the standard output, which is for one line alone
        with redirect_stdout(sys.stderr), start_ray(service):
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # in the place of Ray's, which just exits
            with deploy(service):
                is_serving = True
                with redirect_stdout(output):
                    _tell_ready(service, as_json=as_json)
                wait_for_signal()
    except KeyboardInterrupt:
        if not is_serving:
            raise


def _tell_ready(service: Service, *, as_json: bool) -> None:
    if as_json:
        classifier = service.replica.classifier
        run = classifier.provenance.get("run")
        print_json(
            {"url": service.url, "run": run, "options": list(classifier.options), "n_replicas": service.n_replicas}
        )
    else:
        typer.echo(f"serving {describe_service(service)} on {service.url}; stop with Ctrl-C")
    sys.stdout.flush()


def wait_for_signal() -> NoReturn:
    """Sleep until a signal's handler raises.

    Sleeps are short, as none is woken by a signal that comes just before it begins, or that the system gives to another
    of Ray's threads: that one is heard when the sleep ends.
    """
    while True:
        time.sleep(NAP_S)


def describe_service(service: Service) -> str:
    """Return what is served: the run, and what is chosen among."""
    options = service.replica.classifier.options
    shown = ", ".join(options[:SHOWN_OPTIONS]) + (", ..." if len(options) > SHOWN_OPTIONS else "")
    return f"{service.replica.classifier.provenance.get('run', 'a classifier')} ({shown})"
