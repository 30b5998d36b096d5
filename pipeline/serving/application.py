"""The HTTP interface: which paths there are, and what is sent back."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from ray import serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from ..sample import MAX_IMAGE_PIXELS
from .body import FORM, JSON, read_inquiry
from .gate import Gate
from .inquiry import MAX_PICTURES, PICTURE_FORMATS, Inquiry
from .limit import MAX_QUESTION_CHARACTERS, Limits
from .refusal import RequestRefusedError, shorten
from .replica import Replica, ReplicaSettings

if TYPE_CHECKING:
    from ..early_exit.prediction import Prediction

APPLICATION = "superneurons"

ENDPOINTS = {
    "GET /": "this description",
    "GET /health": "whether a model is loaded, which, and what has been answered with it",
    "POST /classify": {
        FORM: "image (a file; several are shown together), question (may be repeated), choice (repeated, of a "
        "multiple choice), explain (true)",
        JSON: '{"image": base64 or null, or "images": [base64], "question": text, or "questions": [texts], '
        '"choices": [texts], "explain": true}',
        "answer": '{"answers": [{"question", "option", "shares", "margin", "depth", "votes" (with explain)}], '
        '"classifier": {"run", "options", "depth"}}',
        "error": '{"error": {"status", "message"}}',
    },
}


async def describe(_request: Request) -> JSONResponse:
    """Return what can be asked, and within which limits."""
    limits = _find_replica().settings.limits
    told = {
        "service": f"superneurons {version('superneurons')}",
        "endpoints": ENDPOINTS,
        "limits": {
            "body_bytes": limits.max_upload_bytes,
            "questions": limits.max_questions,
            "question_characters": MAX_QUESTION_CHARACTERS,
            "picture_formats": list(PICTURE_FORMATS),
            "pictures": MAX_PICTURES,
            "pixels": MAX_IMAGE_PIXELS,
        },
    }
    return JSONResponse(told)


async def tell_health(_request: Request) -> JSONResponse:
    """Return which model is loaded, and what it has done."""
    return JSONResponse(_find_replica().describe_health())


async def classify(request: Request) -> JSONResponse:
    """Return the answers to a client's questions."""
    replica = _find_replica()
    inquiry = await read_inquiry(request, replica.settings.limits)
    predictions = await replica.ask(inquiry)
    return await asyncio.to_thread(_tell, inquiry, predictions, replica.describe())


def _tell(inquiry: Inquiry, predictions: list[Prediction], classifier: dict[str, Any]) -> JSONResponse:
    """Return answers as JSON, which takes a while where there are many votes."""
    answers = [
        {"question": question, **prediction.to_dict(explain=inquiry.explain)}
        for question, prediction in zip(inquiry.questions, predictions, strict=True)
    ]
    return JSONResponse({"answers": answers, "classifier": classifier})


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Return a refusal as JSON: this service's own, or one of its router."""
    if isinstance(error, HTTPException):
        asked = f"{request.method} {shorten(request.url.path)}"
        expected = " or ".join(ENDPOINTS)
        error = RequestRefusedError(error.status_code, f"expected {expected}, found {asked}", dict(error.headers or {}))
    return cast(RequestRefusedError, error).respond()


def build_interface(limits: Limits) -> ASGIApp:
    """Return the HTTP interface of a replica, behind a gate."""
    routes = [
        Route("/", describe, methods=["GET"]),
        Route("/health", tell_health, methods=["GET"]),
        Route("/classify", classify, methods=["POST"]),
    ]
    handlers = {RequestRefusedError: refuse, HTTPException: refuse}
    return Gate(Starlette(routes=routes, exception_handlers=handlers), limits=limits)


def build_application(settings: ReplicaSettings, *, n_replicas: int = 1) -> Any:
    """Return an application of Ray Serve: replicas that answer over HTTP."""

    def build() -> ASGIApp:
        return build_interface(settings.limits)

    options = {
        "name": APPLICATION,
        "num_replicas": n_replicas,
        "ray_actor_options": {"num_cpus": settings.threads, "num_gpus": settings.n_gpus},
        "max_ongoing_requests": settings.limits.max_open + 32,  # so that health is told when all places are taken
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_constructor_retry_count": 2,
    }
    deployment: Any = serve.deployment(serve.ingress(build)(Replica), **options)
    return deployment.bind(settings)


def _find_replica() -> Replica:
    """Return the replica whose process this is."""
    return cast(Replica, serve.get_replica_context().servable_object)
