"""Models, tasks and people: extraction on Ray, the demo, the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .early_exit import EarlyExitClassifier
    from .engine.serial import SerialEngine
    from .errors import PipelineError
    from .extraction import extract
    from .model import find_model
    from .request import RunRequest
    from .settings import ExtractionSettings
    from .task import load_task

__all__ = [
    "EarlyExitClassifier",
    "ExtractionSettings",
    "PipelineError",
    "RunRequest",
    "SerialEngine",
    "extract",
    "find_model",
    "load_task",
]

HOMES = {
    "EarlyExitClassifier": "early_exit",
    "ExtractionSettings": "settings",
    "PipelineError": "errors",
    "RunRequest": "request",
    "SerialEngine": "engine.serial",
    "extract": "extraction",
    "find_model": "model",
    "load_task": "task",
}
"""Modules of the public names, imported when one is asked for: a shell that completes a word does not wait for all."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{HOMES[name]}", __name__), name)
